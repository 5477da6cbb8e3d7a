//! Rows of numbers on the command line: seeds, and places in a schedule.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A seed or a place, `7`, or a row of them, `1..300` or `1..=300`: both ends are meant.
#[derive(Clone, Debug)]
pub struct Seeds(RangeInclusive<u64>);

impl Seeds {
    /// Every seed that is named, in order.
    pub fn all(rows: &[Self]) -> Vec<u64> {
        rows.iter().flat_map(|row| row.0.clone()).collect()
    }

    /// The seed, when one alone is named and not a row.
    pub fn single(rows: &[Self]) -> Option<u64> {
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

/// Places as the command line takes them: `0..5,7`.
pub fn commas(places: &BTreeSet<usize>) -> String {
    let mut rows: Vec<RangeInclusive<usize>> = Vec::new();
    for place in places {
        match rows.last_mut() {
            Some(row) if row.end() + 1 == *place => *row = *row.start()..=*place,
            _ => rows.push(*place..=*place),
        }
    }
    let row = |row: &RangeInclusive<usize>| match (row.start(), row.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}..{last}"),
    };
    rows.iter().map(row).collect::<Vec<_>>().join(",")
}
