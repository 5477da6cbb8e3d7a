//! Seeds on the command line.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A seed, `7`, or a row of them, `1..300` or `1..=300`: both ends are meant.
#[derive(Clone, Debug)]
pub(crate) struct Seeds(RangeInclusive<u64>);

impl Seeds {
    /// Every seed that is named, in order.
    pub(crate) fn all(rows: &[Self]) -> Vec<u64> {
        rows.iter().flat_map(|row| row.0.clone()).collect()
    }

    /// The seed, when one alone is named and not a row.
    pub(crate) fn single(rows: &[Self]) -> Option<u64> {
        match rows {
            [Self(row)] if row.start() == row.end() => Some(*row.start()),
            _ => None,
        }
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
        let Some((first, last)) = text.split_once("..") else {
            let seed = number(text)?;
            return Ok(Self(seed..=seed));
        };
        let (first, last) = (number(first)?, number(last.strip_prefix('=').unwrap_or(last))?);
        if first > last {
            return Err(format!("a row counts up: {first} is above {last}"));
        }
        Ok(Self(first..=last))
    }
}

/// Places as the command line takes them: `3,7`.
pub(crate) fn commas(places: &BTreeSet<usize>) -> String {
    places.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}
