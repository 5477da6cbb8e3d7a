//! Sums over reports, and how they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{markdown, pool};
use crate::report::Report;
use crate::run::Run;

/// The variable that says which commit was built.
const COMMIT: &str = "SIM_COMMIT";

/// The sum of many reports.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) failed: u64,
    simulated_seconds: f64,
    /// How many members, and in how many runs.
    members: BTreeMap<usize, u64>,
    operations: BTreeMap<String, u64>,
    pub(crate) faults: BTreeMap<String, Count>,
    pub(crate) reached: BTreeMap<String, Count>,
}

/// How often, and in how many runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Count {
    pub(crate) times: u64,
    pub(crate) runs: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.failed += u64::from(report.violation.is_some());
        self.simulated_seconds += report.simulated_seconds;
        *self.members.entry(report.members).or_default() += 1;
        for (kind, times) in &report.operations {
            *self.operations.entry(kind.clone()).or_default() += times;
        }
        count(&mut self.faults, &report.faults);
        count(&mut self.reached, &report.reached);
    }

    /// The sums for a page. Which commit ran is said by whoever built it.
    pub(crate) fn page(&self, took: Duration) -> String {
        let (seconds, speed) = self.speed(took);
        let commit = std::env::var(COMMIT).unwrap_or_else(|_| "unknown".to_owned());
        let (hours, minutes) = (self.simulated_seconds / 3600.0, seconds / 60.0);
        let (passed, cores) = (self.seeds - self.failed, pool::width());
        let a_minute = self.seeds as f64 / minutes;
        let clusters = listed(self.members.iter().map(|(size, runs)| (size, *runs)));
        let ran = format!("{} seeds on commit {commit}: {passed} passed, {} failed.\n", self.seeds, self.failed);
        let took = format!(
            "{hours:.1} simulated hours in {minutes:.0} minutes of {cores} cores: {a_minute:.0} seeds a minute,\n"
        );
        let speed =
            format!("{speed:.0} simulated seconds in a second of each core. Clusters by their members: {clusters}.\n");
        let row = |(kind, times): (&String, &u64)| [kind.clone(), times.to_string()];
        let rows: Vec<[String; 2]> = self.operations.iter().map(row).collect();
        format!("{ran}{took}{speed}\n{}", markdown::table(["operation", "times"], &rows))
    }

    /// How many seconds it took, and how many simulated ones passed in one of them, for each core.
    fn speed(&self, took: Duration) -> (f64, f64) {
        let seconds = took.as_secs_f64().max(f64::MIN_POSITIVE);
        (seconds, self.simulated_seconds / seconds / pool::width() as f64)
    }

    /// What ran, how fast, and how much of it, a line each.
    pub(crate) fn lines(&self, took: Duration) -> Vec<String> {
        let ((seconds, speed), cores) = (self.speed(took), pool::width());
        let faults = self.faults.iter().map(|(kind, count)| (kind, count.times));
        vec![
            format!("operations: {}", listed(self.operations.iter().map(|(kind, times)| (kind, *times)))),
            format!("faults: {}", listed(faults)),
            format!("clusters: {}", listed(self.members.iter().map(|(size, runs)| (size, *runs)))),
            format!("{:.0} simulated seconds, {speed:.1} in a second of each of {cores} cores", self.simulated_seconds),
            format!("{} seeds in {seconds:.0} s, {:.0} seeds a minute", self.seeds, self.seeds as f64 * 60.0 / seconds),
            format!("sim: {} passed, {} failed", self.seeds - self.failed, self.failed),
        ]
    }
}

fn count(counts: &mut BTreeMap<String, Count>, more: &BTreeMap<String, u64>) {
    for (kind, times) in more.iter().filter(|(_, times)| **times > 0) {
        let count = counts.entry(kind.clone()).or_default();
        count.times += times;
        count.runs += 1;
    }
}

fn listed<K: std::fmt::Display>(counts: impl Iterator<Item = (K, u64)>) -> String {
    let counts: Vec<String> = counts.map(|(kind, times)| format!("{kind} {times}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join("; ") }
}

/// One run, told to a reader.
pub(crate) fn summary(report: &Report, run: &Run) -> Vec<String> {
    let sum = |counts: &BTreeMap<String, u64>| listed(counts.iter().map(|(kind, times)| (kind.clone(), *times)));
    let mut lines = vec![format!(
        "seed {}: {} members, {:.1} simulated seconds, revision {}, trace {}",
        report.seed, report.members, report.simulated_seconds, report.revision, report.trace
    )];
    lines.extend(report.schedule.iter().enumerate().map(|(place, fault)| {
        let left_out = if run.without.contains(&place) { " (left out)" } else { "" };
        format!("  {place:>3}  {fault}{left_out}")
    }));
    lines.push(format!("operations: {}", sum(&report.operations)));
    lines.push(format!("faults: {}", sum(&report.faults)));
    if let Some(place) = &run.broken {
        let times = report.reached.get(place).copied().unwrap_or_default();
        lines.push(format!("deliberate bug: {place}, reached {times} times"));
    }
    lines.push(verdict(report));
    lines
}

/// Whether a run passed, and by which checker it did not.
pub(crate) fn verdict(report: &Report) -> String {
    match &report.violation {
        None => format!("seed {} passed", report.seed),
        Some(violation) => format!("seed {} FAILED: {}: {}", report.seed, violation.checker, violation.text),
    }
}
