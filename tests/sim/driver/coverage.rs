//! What many runs reached together: marked places of the code, and kinds of faults.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::markdown::Page;
use super::totals::{Count, Totals};
use super::{Known, markdown, say};

/// So many seeds must reach everything that is not rare; fewer say nothing of what they left out.
const ENOUGH: u64 = 300;
/// So many must reach what is rare, too.
const MANY: u64 = 5000;

/// Tells what was reached and returns whether nothing is missing. The page says as well how much was run, and of what.
pub(crate) fn tell(totals: &Totals, took: Duration, known: &Known, page: Option<&Page>) -> io::Result<bool> {
    let rare: &[&str] = if totals.seeds < MANY { &[] } else { known.rare_places };
    let demanded = [known.places, rare].concat();
    let never = missing(&totals.reached, &demanded);
    let unused = missing(&totals.faults, &known.faults);
    let mut text = format!("Over {} seeds.\n\n", totals.seeds);
    text += &markdown::table(["fault", "runs", "times"], &rows(&totals.faults, &unused));
    text += "\n";
    text += &markdown::table(["place", "runs", "times"], &rows(&totals.reached, &never));
    say(&text);
    if let Some(page) = page {
        page.write(&format!("{}\n{text}", totals.page(took)))?;
    }
    for (what, missing) in [("place", &never), ("kind of fault", &unused)] {
        missing.iter().for_each(|name| say(&format!("never reached: {what} {name}")));
    }
    let reached = demanded.len() - never.len();
    let used = known.faults.len() - unused.len();
    say(&format!("coverage: {reached} of {} places, {used} of {} kinds of faults", demanded.len(), known.faults.len()));
    Ok(totals.seeds < ENOUGH || never.is_empty() && unused.is_empty())
}

/// The known names that were not counted.
fn missing(counts: &BTreeMap<String, Count>, known: &[&'static str]) -> Vec<&'static str> {
    known.iter().copied().filter(|name| !counts.contains_key(*name)).collect()
}

fn rows(counts: &BTreeMap<String, Count>, missing: &[&str]) -> Vec<[String; 3]> {
    let mut counts = counts.clone();
    counts.extend(missing.iter().map(|name| ((*name).to_owned(), Count::default())));
    counts.iter().map(|(name, count)| [name.clone(), count.runs.to_string(), count.times.to_string()]).collect()
}
