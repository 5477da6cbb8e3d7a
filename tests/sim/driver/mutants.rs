//! Whether the checkers would notice: each deliberate bug runs, seed by seed, until one finds it.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use super::child::Children;
use super::markdown::Page;
use super::{cli, markdown, pool, say};
use crate::mutants::Mutant;
use crate::run::Run;

/// Runs the bugs and returns whether each was found within its bound.
pub(crate) fn run(children: &Children, wanted: &cli::Mutants, known: &[Mutant]) -> io::Result<bool> {
    if let Some(name) = wanted.names.iter().find(|name| known.iter().all(|mutant| mutant.name != *name)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no deliberate bug has the name {name}")));
    }
    let page = wanted.report.as_deref().map(Page::open).transpose()?;
    let chosen = known.iter().filter(|mutant| wanted.names.is_empty() || wanted.names.iter().any(|n| n == mutant.name));
    let mut found: Vec<(&Mutant, Found)> = Vec::new();
    for mutant in chosen {
        let hunted = hunt(children, mutant.name, wanted.seeds.unwrap_or(mutant.within), wanted.all);
        eprintln!("sim: {}: {}", mutant.name, hunted.told());
        found.push((mutant, hunted));
    }
    let text = table(&found, wanted.all);
    say(&text);
    if let Some(page) = page {
        page.write(&text)?;
    }
    let missed = found.iter().filter(|(_, found)| found.first.is_none()).count();
    say(&format!("mutants: {} found, {missed} missed", found.len() - missed));
    Ok(missed == 0)
}

/// What became of one bug.
struct Found {
    /// The lowest seed that finds it, and the checker.
    first: Option<(u64, String)>,
    /// The seeds that may run.
    within: u64,
    /// The runs, and those of them that came to the place.
    ran: u64,
    reached: u64,
    /// With all seeds run: how many find it, by checker.
    by: BTreeMap<String, u64>,
}

/// Runs seeds from 1 on. Which seed is the first does not depend on which core is the quickest: results
/// are taken in order.
fn hunt(children: &Children, name: &str, within: u64, all: bool) -> Found {
    let runs: Vec<Run> =
        (1..=within).map(|seed| Run { seed, broken: Some(name.to_owned()), ..Run::default() }).collect();
    let mut by = BTreeMap::new();
    let mut checkers: BTreeMap<usize, Option<String>> = BTreeMap::new();
    let (mut judged, mut ran, mut reached) = (0, 0, 0);
    let mut first = None;
    pool::each(
        &runs,
        |run| children.run(run),
        |place, report| {
            ran += 1;
            reached += u64::from(report.reached.contains_key(name));
            let checker = report.violation.map(|violation| violation.checker);
            if let Some(checker) = &checker {
                *by.entry(checker.clone()).or_default() += 1;
            }
            checkers.insert(place, checker);
            while first.is_none()
                && let Some(checker) = checkers.get(&judged)
            {
                first = checker.clone().map(|checker| (runs[judged].seed, checker));
                judged += 1;
            }
            if first.is_some() && !all { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    Found { first, within, ran, reached, by }
}

impl Found {
    fn told(&self) -> String {
        match &self.first {
            Some((seed, checker)) => format!("found by {checker} with seed {seed}"),
            None => {
                format!("NOT FOUND within {} seeds; {} of {} came to its place", self.within, self.reached, self.ran)
            }
        }
    }

    /// How many seeds of all find it, and by which checkers.
    fn share(&self) -> String {
        let by: Vec<String> = self.by.iter().map(|(checker, times)| format!("{checker} {times}")).collect();
        format!("{} of {}: {}", self.by.values().sum::<u64>(), self.within, by.join(", "))
    }
}

fn table(found: &[(&Mutant, Found)], all: bool) -> String {
    // Seeds run from 1 on, so the first that finds a bug is also how many it takes.
    let row = |(mutant, found): &(&Mutant, Found)| {
        let (checker, seeds) = match &found.first {
            Some((seed, checker)) => (checker.clone(), seed.to_string()),
            None if found.reached == 0 => ("NOT REACHED".to_owned(), format!("over {}", found.within)),
            None => ("NOT FOUND".to_owned(), format!("over {}", found.within)),
        };
        [format!("`{}`", mutant.name), mutant.what.to_owned(), checker, seeds, found.within.to_string()]
    };
    let head = ["bug", "what is wrong", "found by", "with seed", "allowed seeds"];
    let rows: Vec<[String; 5]> = found.iter().map(row).collect();
    if !all {
        return markdown::table(head, &rows);
    }
    let rows: Vec<[String; 6]> = rows
        .into_iter()
        .zip(found)
        .map(|([bug, what, checker, seed, within], (_, found))| [bug, what, checker, seed, within, found.share()])
        .collect();
    markdown::table([head[0], head[1], head[2], head[3], head[4], "seeds that find it"], &rows)
}
