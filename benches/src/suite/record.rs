//! One run of the suite as it is kept: a line of the history.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::metric::{Check, Figures};

/// The file of all runs, in the folder of the results.
pub(super) const HISTORY: &str = "history.jsonl";

/// One run of the suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it began, in UTC.
    pub date: String,
    /// What was checked out.
    pub commit: String,
    /// What was tried, in the words of who ran it.
    pub step: Option<String>,
    /// Whether all was small.
    pub quick: bool,
    /// Whether every row was run that is always run.
    pub whole: bool,
    /// Runs of each row on each system.
    pub rounds: u32,
    /// Where.
    pub machine: Machine,
    /// The versions that the systems report.
    pub versions: BTreeMap<String, String>,
    /// What came of it.
    pub rows: Vec<RowRecord>,
}

/// What came of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowRecord {
    /// Its name.
    pub name: String,
    /// What it is, for people.
    pub title: String,
    /// Members of each cluster.
    pub members: usize,
    /// The flags of its load.
    pub options: String,
    /// What must be reached, for people.
    pub target: String,
    /// What each system reached; what is no system (`echo`, `disk`) is a ceiling.
    pub systems: BTreeMap<String, Figures>,
    /// mainstay's figures as multiples of etcd's.
    pub ratios: Figures,
    /// What came of each limit.
    pub checks: Vec<Check>,
}

impl RowRecord {
    /// Whether all limits are met; `None` where there is none, or one was not measured.
    pub fn is_met(&self) -> Option<bool> {
        if self.checks.iter().any(|check| check.is_met == Some(false)) {
            return Some(false);
        }
        let all = self.checks.iter().all(|check| check.is_met.is_some());
        (all && !self.checks.is_empty()).then_some(true)
    }
}

/// The machine, as far as it tells what figures are worth; nothing that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Its threads, as this process may use them.
    pub cores: usize,
    /// Memory in gibibytes, rounded.
    pub memory_gib: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        Self {
            cpu: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// In a few words.
    pub(super) fn text(&self) -> String {
        let Self { cpu, cores, memory_gib, kernel } = self;
        format!("{cpu}, {cores} threads, {memory_gib} GiB, Linux {kernel}")
    }
}

/// The date and time in UTC.
pub(super) fn now() -> anyhow::Result<String> {
    Ok(jiff::Timestamp::now().round(jiff::Unit::Second)?.to_string())
}

/// What is checked out, with a `+` where files differ from it; those that this program writes aside.
pub(super) fn commit() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let git = |arguments: &[&str]| Command::new("git").arg("-C").arg(&root).args(arguments).output();
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]).ok().filter(|output| output.status.success()) else {
        return "unknown".to_owned();
    };
    let head = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let changed = git(&["diff", "--quiet", "HEAD", "--", ".", ":!benches/results", ":!README.md"]);
    if changed.is_ok_and(|output| output.status.success()) { head } else { format!("{head}+") }
}

/// Appends a run to the history in the folder.
pub(super) fn append(folder: &Path, record: &Record) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(HISTORY);
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    let line = serde_json::to_string(record)? + "\n";
    file.write_all(line.as_bytes()).with_context(|| format!("writing {}", path.display()))
}

/// The last run of the history that is wanted; `None` where there is none. Lines of a form that this program does
/// not know are passed over: there may be older ones.
pub(super) fn last(folder: &Path, is_wanted: impl Fn(&Record) -> bool) -> Option<Record> {
    let text = fs::read_to_string(folder.join(HISTORY)).ok()?;
    let mut records = text.lines().rev().filter_map(|line| serde_json::from_str::<Record>(line).ok());
    records.find(is_wanted)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::metric::{Limit, Metric, ratios};
    use super::*;

    /// A run with one row that is met, one that is not, and a ceiling.
    pub(in crate::suite) fn record(per_second: f64) -> Record {
        let ours = Figures::from([(Metric::PerSecond, per_second), (Metric::P99Ms, 40.0)]);
        let theirs = Figures::from([(Metric::PerSecond, 20_000.0), (Metric::P99Ms, 80.0)]);
        let ratios = ratios(&ours, &theirs);
        let row = |name: &str, limit: Limit| RowRecord {
            name: name.to_owned(),
            title: format!("the {name}"),
            members: 1,
            options: "--clients 10".to_owned(),
            target: "what must be".to_owned(),
            systems: BTreeMap::from([("mainstay".to_owned(), ours.clone()), ("etcd".to_owned(), theirs.clone())]),
            ratios: ratios.clone(),
            checks: vec![limit.check(Some(&ours), &ratios)],
        };
        let ceiling = RowRecord {
            systems: BTreeMap::from([("echo".to_owned(), ours.clone())]),
            ratios: Figures::new(),
            checks: Vec::new(),
            target: String::new(),
            ..row("echo-put", Limit::own(Metric::P99Ms, 1.0))
        };
        let machine = Machine { cpu: "A processor".to_owned(), cores: 2, memory_gib: 16, kernel: "6.1".to_owned() };
        Record {
            date: "2026-11-22T10:00:00Z".to_owned(),
            commit: "0123456789ab".to_owned(),
            step: Some("as it was".to_owned()),
            quick: false,
            whole: true,
            rounds: 2,
            machine,
            versions: BTreeMap::from([("etcd".to_owned(), "3.7.1".to_owned())]),
            rows: vec![
                row("put", Limit::times(Metric::PerSecond, 1.7)),
                row("get", Limit::times(Metric::P99Ms, 0.5)),
                ceiling,
            ],
        }
    }

    #[test]
    fn the_last_of_a_kind_is_found_in_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results");
        assert!(last(&results, |_| true).is_none());
        let quick = Record { quick: true, ..record(1.0) };
        for line in [record(30_000.0), quick.clone(), record(36_000.0)] {
            append(&results, &line).unwrap();
        }
        fs::write(results.join(HISTORY), fs::read_to_string(results.join(HISTORY)).unwrap() + "{}\n").unwrap();
        assert_eq!(last(&results, |record| record.quick), Some(quick));
        assert_eq!(last(&results, |record| !record.quick), Some(record(36_000.0)));
    }

    #[test]
    fn a_row_is_met_when_all_its_limits_are() {
        let record = record(36_000.0);
        let met: Vec<Option<bool>> = record.rows.iter().map(RowRecord::is_met).collect();
        assert_eq!(met, [Some(true), Some(true), None]);
        assert_eq!(self::record(30_000.0).rows[0].is_met(), Some(false));
    }

    #[test]
    fn a_machine_says_what_it_is() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_gib > 0 && !machine.cpu.is_empty());
        assert!(machine.text().contains(&machine.kernel) && now().unwrap().ends_with('Z'));
    }
}
