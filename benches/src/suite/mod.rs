//! `suite`: every row that has a target, on mainstay and on etcd in turn, and what came of it.
//!
//! The rows and their targets are data ([`rows`]). A run is kept as a line of
//! `benches/results/history.jsonl`; a whole one is also written as `latest.md`, with every figure, and `latest.svg`,
//! with its ratios. The README's table is made of the last whole run in the history (`mainstay-bench readme`).
//!
//! `--quick` makes every row small: it takes a few minutes and says what has become very different, not what a figure
//! is. `--check` holds a run against the last one of its kind in the history, and keeps nothing.

mod change;
mod metric;
mod opinion;
mod page;
mod plot;
mod record;
mod rows;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

pub use self::metric::{Basis, Check, Figures, Metric};
pub use self::record::{Machine, Record, RowRecord};
use self::rows::{ROWS, SuiteRow, TINY, TINY_MAINTENANCE, When, Work};
use crate::ceiling::{echo, fsync};
use crate::launch::Cluster;
use crate::options::Options;
use crate::servers::{Servers, System, turns};
use crate::workload::{Maintenance, Session, kill_and_read, load_and_restart};
use crate::{compare, scenario};

/// Runs of each row on each system, where the flag does not say.
const ROUNDS: u32 = 2;

/// The flags of `suite`.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments {
    /// Rows whose names contain one of these; all when there is none.
    #[arg(long, value_delimiter = ',')]
    pub rows: Vec<String>,
    /// Which servers.
    #[command(flatten)]
    pub servers: Servers,
    /// Makes every row small, for a few minutes in all.
    #[arg(long)]
    pub quick: bool,
    /// Makes every row tiny, for the tests: its figures say nothing.
    #[arg(long, hide = true)]
    pub tiny: bool,
    /// What was changed since the last run; stands in the history.
    #[arg(long)]
    pub step: Option<String>,
    /// Where the history is, and what is made of it.
    #[arg(long, default_value_os_t = results())]
    pub results: PathBuf,
    /// Compares with the last run of this kind in the history, and records nothing.
    #[arg(long)]
    pub check: bool,
    /// Writes the table of this run into a document, between the marks that it has for that.
    #[arg(long)]
    pub readme: Option<PathBuf>,
    /// Adds the row restart-large with so many keys; its target is for 5000000.
    #[arg(long)]
    pub restart_keys: Option<u64>,
    /// Adds rows of etcd's own benchmark tool.
    #[arg(long)]
    pub second_opinion: bool,
    /// That tool; built by scripts/etcd-benchmark.sh when it is not given.
    #[arg(long, env = "ETCD_BENCHMARK_BIN")]
    pub benchmark_bin: Option<PathBuf>,
    /// This program, which the empty service is started from; what runs when it is not given.
    #[arg(long, hide = true)]
    pub own_bin: Option<PathBuf>,
}

/// The flags of `readme`.
#[derive(Clone, Debug, clap::Args)]
pub struct ReadmeArguments {
    /// Where the history is.
    #[arg(long, default_value_os_t = results())]
    pub results: PathBuf,
    /// The document.
    #[arg(long, default_value_os_t = results().join("../../README.md"))]
    pub file: PathBuf,
}

/// The folder of the project's own results.
fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

/// Writes the table of the last whole run into a document.
pub fn readme(arguments: &ReadmeArguments) -> anyhow::Result<()> {
    let whole = |record: &Record| record.whole && !record.quick;
    let record = record::last(&arguments.results, whole).context("there is no whole run in the history")?;
    write_into(&arguments.file, &record)
}

fn write_into(document: &Path, record: &Record) -> anyhow::Result<()> {
    let name = || document.display().to_string();
    let text = page::within(&fs::read_to_string(document).with_context(name)?, record).with_context(name)?;
    fs::write(document, text).with_context(name)
}

/// Measures, prints, and keeps what came of it.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (record, failures) = measure(arguments, &mut |line| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{line}")?;
        // So that a long run shows how far it is.
        stdout.flush()
    })
    .await?;
    let mut stderr = std::io::stderr();
    writeln!(stderr, "\n{}", page::page(&record))?;
    keep(arguments, &record)?;
    if arguments.check {
        // With one like it: a small run is no measure for a large one.
        match record::last(&arguments.results, |old| old.quick == record.quick) {
            Some(before) => writeln!(stderr, "{}", change::table(&before, &record))?,
            None => writeln!(stderr, "there is no run of this kind in the history to compare with")?,
        }
    }
    if !failures.is_empty() {
        bail!("not all rows were measured: {}", failures.join("; "));
    }
    Ok(())
}

/// Writes what is to be kept of a run.
fn keep(arguments: &Arguments, record: &Record) -> anyhow::Result<()> {
    if !arguments.check {
        record::append(&arguments.results, record)?;
        // A part of the rows, or small ones, would take the place of the whole.
        if record.whole && !record.quick {
            fs::write(arguments.results.join("latest.md"), page::page(record))?;
            fs::write(arguments.results.join("latest.svg"), plot::svg(record))?;
        }
    }
    match &arguments.readme {
        Some(document) => write_into(document, record),
        None => Ok(()),
    }
}

/// One run of one row, as it stands in its JSON line.
#[derive(serde::Serialize)]
struct Line<'a> {
    row: &'a str,
    members: usize,
    system: &'a str,
    round: u32,
    figures: &'a Figures,
}

/// Measures the rows and tells of every run. What failed is told beside: one row that fails does not take the
/// others with it, but its error has no place in the history.
pub async fn measure(
    arguments: &Arguments,
    tell: &mut dyn FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<(Record, Vec<String>)> {
    let plan = Plan::new(arguments).await?;
    let mut record = Record {
        date: record::now()?,
        commit: record::commit(),
        step: arguments.step.clone(),
        quick: arguments.quick || arguments.tiny,
        whole: arguments.rows.is_empty() && plan.systems.len() == 2,
        rounds: plan.rounds,
        machine: Machine::this(),
        versions: BTreeMap::new(),
        rows: Vec::new(),
    };
    let mut failures = Vec::new();
    for row in &plan.rows {
        let systems = plan.systems_of(row);
        let mut runs: Vec<Vec<Figures>> = vec![Vec::new(); systems.len()];
        for round in 1..=plan.rounds {
            for place in turns(systems.len(), round) {
                let system = &systems[place];
                match plan.one(row, system, round, &mut record.versions).await {
                    Ok(figures) => {
                        let (name, members) = (row.name, row.members);
                        let line = Line { row: name, members, system: system.name, round, figures: &figures };
                        tell(&serde_json::to_string(&line)?)?;
                        runs[place].push(figures);
                    }
                    Err(error) => failures.push(format!("{} on {}: {error:#}", row.name, system.name)),
                }
            }
        }
        let chosen =
            systems.iter().zip(runs).filter_map(|(system, runs)| Some((system.name.to_owned(), metric::median(runs)?)));
        record.rows.push(plan.row_record(row, chosen.collect()));
    }
    Ok((record, failures))
}

/// What a row is run on.
struct Subject<'a> {
    name: &'static str,
    /// Which server, where it is one.
    server: Option<(System, &'a Path)>,
}

/// What is to be done.
struct Plan<'a> {
    arguments: &'a Arguments,
    rows: Vec<&'static SuiteRow>,
    systems: Vec<(System, PathBuf)>,
    rounds: u32,
    /// This program.
    own: PathBuf,
    /// etcd's benchmark tool, where it is asked for.
    opinion: Option<PathBuf>,
}

impl<'a> Plan<'a> {
    async fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        let names = &arguments.rows;
        for name in names {
            ensure!(ROWS.iter().any(|row| row.name.contains(name.as_str())), "--rows: there is no row {name}");
        }
        ensure!(arguments.restart_keys != Some(0), "--restart-keys: must be above 0");
        let is_wanted = |row: &&SuiteRow| {
            let is_on = match row.when {
                When::Always => true,
                When::RestartKeys => arguments.restart_keys.is_some(),
                When::SecondOpinion => arguments.second_opinion,
            };
            is_on && (names.is_empty() || names.iter().any(|name| row.name.contains(name.as_str())))
        };
        let rows: Vec<&SuiteRow> = ROWS.iter().filter(is_wanted).collect();
        ensure!(!rows.is_empty(), "--rows: these need --restart-keys or --second-opinion");
        let opinion = match (&arguments.benchmark_bin, arguments.second_opinion) {
            (_, false) => None,
            (Some(path), true) => Some(path.clone()),
            (None, true) => Some(opinion::from_script().await?),
        };
        let small = arguments.quick || arguments.tiny;
        let own = match &arguments.own_bin {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("finding this program")?,
        };
        Ok(Self {
            arguments,
            rows,
            systems: arguments.servers.binaries()?,
            rounds: arguments.servers.rounds.unwrap_or(if small { 1 } else { ROUNDS }),
            own,
            opinion,
        })
    }

    /// What the row is run on: the servers, or what it is the ceiling of.
    fn systems_of(&self, row: &SuiteRow) -> Vec<Subject<'_>> {
        match row.work {
            Work::Echo(_) => vec![Subject { name: "echo", server: None }],
            Work::Fsync => vec![Subject { name: "disk", server: None }],
            _ => {
                let systems = self.systems.iter();
                systems
                    .map(|(system, path)| Subject { name: system.name(), server: Some((*system, path.as_path())) })
                    .collect()
            }
        }
    }

    /// The flags of a row's load.
    fn flags(&self, row: &SuiteRow) -> String {
        let arguments = self.arguments;
        let mut flags = row.options.to_owned();
        if arguments.quick {
            flags = format!("{flags} {}", row.quick);
        }
        if let (When::RestartKeys, Some(keys)) = (row.when, arguments.restart_keys) {
            flags = format!("{flags} --keys {keys}");
        }
        if arguments.tiny {
            let tiny = if row.work == Work::Maintenance { TINY_MAINTENANCE } else { TINY };
            flags = format!("{flags} {tiny}");
        }
        flags.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn row_record(&self, row: &SuiteRow, systems: BTreeMap<String, Figures>) -> RowRecord {
        let (ours, theirs) = (systems.get(System::Mainstay.name()), systems.get(System::Etcd.name()));
        let ratios = match (ours, theirs) {
            (Some(ours), Some(theirs)) => metric::ratios(ours, theirs),
            _ => Figures::new(),
        };
        let checks = row.limits.iter().map(|limit| limit.check(ours, &ratios)).collect();
        RowRecord {
            name: row.name.to_owned(),
            title: row.title.to_owned(),
            members: row.members,
            options: self.flags(row),
            target: row.target.to_owned(),
            ratios,
            checks,
            systems,
        }
    }

    /// One run of a row on one system.
    async fn one(
        &self,
        row: &SuiteRow,
        subject: &Subject<'_>,
        round: u32,
        versions: &mut BTreeMap<String, String>,
    ) -> anyhow::Result<Figures> {
        let flags = self.flags(row);
        let servers = &self.arguments.servers;
        let Some((system, binary)) = subject.server else {
            let options = parse::<Options>(&flags)?;
            return match row.work {
                Work::Echo(load) => Ok(metric::of_report(&echo::run(&self.own, load, &options, round).await?)),
                _ => self.fsync(&options).await,
            };
        };
        if row.work == Work::Maintenance {
            let scenario = parse::<Maintenance>(&flags)?;
            scenario::Scenario::validate(&scenario)?;
            let phases = scenario::one(servers, &scenario, system, binary, round).await?;
            return maintenance(&phases).context("a phase is missing");
        }
        let options = parse::<Options>(&flags)?;
        options.validate()?;
        if let Work::Load(load) = row.work {
            let report = compare::one(servers, (load, row.members), &options, system, binary, round).await?;
            versions.insert(report.system.clone(), report.version.clone());
            if !report.errors.is_empty() {
                writeln!(std::io::stderr(), "{} on {}: {:?}", row.name, report.system, report.errors)?;
            }
            return Ok(metric::of_report(&report));
        }
        let mut cluster = Cluster::start(binary, row.members, &servers.folder, &servers.server_flags).await?;
        let version = Session::open(&cluster.endpoints(), 1)?.version().await?;
        versions.insert(system.name().to_owned(), version);
        let figures = match row.work {
            Work::Restart { kills } => {
                let restarted = kill_and_read(&mut cluster, &options, kills).await?;
                let mut figures = Figures::from([
                    (Metric::RestartSeconds, restarted.latency.p50_us as f64 / 1e6),
                    (Metric::PeakMb, metric::megabytes(restarted.usage.rss_peak_bytes)),
                ]);
                metric::add_latency(&mut figures, &restarted.latency);
                figures
            }
            Work::Memory => {
                let memory = load_and_restart(&mut cluster, &options).await?;
                Figures::from([
                    (Metric::LoadedMb, metric::megabytes(memory.loaded.rss_bytes)),
                    (Metric::RestartedMb, metric::megabytes(memory.restarted.rss_bytes)),
                    (Metric::PeakMb, metric::megabytes(memory.loaded.rss_peak_bytes)),
                ])
            }
            Work::Opinion(command) => {
                let tool = self.opinion.as_ref().context("--second-opinion was not given")?;
                opinion::run(tool, command, &options, &cluster).await?
            }
            Work::Load(_) | Work::Maintenance | Work::Echo(_) | Work::Fsync => unreachable!("these have returned"),
        };
        cluster.stop().await?;
        Ok(figures)
    }

    async fn fsync(&self, options: &Options) -> anyhow::Result<Figures> {
        let time = options.duration.context("the row fsync has no --duration")?;
        let (latency, took) = fsync::run(&self.arguments.servers.folder, time).await?;
        let mut figures = Figures::from([(Metric::PerSecond, latency.count as f64 / took.as_secs_f64())]);
        metric::add_latency(&mut figures, &latency);
        Ok(figures)
    }
}

/// The figures of the phases; `None` where one is missing.
fn maintenance(phases: &[crate::phase::PhaseReport]) -> Option<Figures> {
    let phase = |name: &str| phases.iter().find(|phase| phase.phase == name);
    let (before, defragment, compact) = (phase("before")?, phase("defragment")?, phase("compact")?);
    let times = |now: u64, then: u64| now as f64 / then.max(1) as f64;
    let errors: u64 = phases.iter().flat_map(|phase| phase.errors.values()).sum();
    let mut figures = Figures::from([
        (Metric::DefragmentPutMs, defragment.put.max_us as f64 / 1e3),
        (Metric::DefragmentPutTimes, times(defragment.put.max_us, before.put.max_us)),
        (Metric::CompactPutTimes, times(compact.put.p99_us, before.put.p99_us)),
        (Metric::Errors, errors as f64),
    ]);
    let server = compact.server;
    figures.extend(server.map(|spent| (Metric::PeakMb, metric::megabytes(spent.rss_peak_bytes))));
    Some(figures)
}

/// Flags as those of a command line, of which the last one of a name counts.
#[derive(clap::Parser)]
#[command(name = "row", args_override_self = true)]
struct Flags<S: clap::Args> {
    #[command(flatten)]
    flags: S,
}

fn parse<S: clap::Args>(flags: &str) -> anyhow::Result<S> {
    let words = std::iter::once("row").chain(flags.split_whitespace());
    let parsed = <Flags<S> as clap::Parser>::try_parse_from(words);
    Ok(parsed.with_context(|| format!("the flags of a row: {flags}"))?.flags)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_row_can_be_run_in_every_size() {
        let sizes: [&[&str]; 4] = [&[], &["--quick"], &["--tiny"], &["--quick", "--tiny"]];
        for size in sizes {
            let arguments = Arguments::parse_from([&["suite", "--restart-keys", "9000"][..], size].concat());
            let plan = Plan {
                arguments: &arguments,
                rows: ROWS.iter().collect(),
                systems: Vec::new(),
                rounds: 1,
                own: PathBuf::new(),
                opinion: None,
            };
            for row in &plan.rows {
                let flags = plan.flags(row);
                if row.work == Work::Maintenance {
                    parse::<Maintenance>(&flags).unwrap().validate().unwrap();
                } else {
                    parse::<Options>(&flags).unwrap().validate().unwrap();
                }
            }
        }
    }

    #[test]
    fn names_are_unique_and_limits_have_a_text() {
        for (place, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..place].iter().all(|other| other.name != row.name), "{}", row.name);
            assert!(!row.title.is_empty() && matches!(row.members, 1 | 3), "{}", row.name);
            assert_eq!(row.limits.is_empty(), row.target.is_empty(), "{}", row.name);
            assert_eq!(rows::find(row.name).map(|row| row.title), Some(row.title));
        }
    }

    #[test]
    fn the_last_flag_of_a_name_counts() {
        let options = parse::<Options>("--clients 1000 --total 7 --clients 5").unwrap();
        assert_eq!((options.clients, options.total), (5, 7));
        assert!(parse::<Options>("--no-such-flag").is_err());
    }

    #[tokio::test]
    async fn refusals_name_the_flag() {
        for (flags, word) in [
            (["--rows", "nothing-like-it"], "--rows"),
            (["--rows", "benchmark-put"], "--second-opinion"),
            (["--restart-keys", "0"], "--restart-keys"),
            (["--rounds", "0"], "--rounds"),
        ] {
            let arguments = Arguments::parse_from([&["suite"][..], &flags].concat());
            let error = measure(&arguments, &mut |_| Ok(())).await.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn only_a_whole_run_takes_the_place_of_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let document = folder.path().join("page.md");
        let marks = include_str!("../../../README.md");
        fs::write(&document, marks).unwrap();
        let results = folder.path().join("results");
        let flags = ["suite", "--results", results.to_str().unwrap()];
        let mut arguments = Arguments::parse_from(flags);
        let quick = Record { quick: true, ..record::tests::record(1.0) };
        keep(&arguments, &quick).unwrap();
        assert!(results.join("history.jsonl").exists() && !results.join("latest.md").exists());
        let readme_arguments = ReadmeArguments { results: results.clone(), file: document.clone() };
        assert!(readme(&readme_arguments).unwrap_err().to_string().contains("no whole run"));
        arguments.check = true;
        keep(&arguments, &record::tests::record(1.0)).unwrap();
        assert!(!results.join("latest.md").exists(), "a check records nothing");
        arguments.check = false;
        keep(&arguments, &record::tests::record(30_000.0)).unwrap();
        assert!(results.join("latest.md").exists() && results.join("latest.svg").exists());
        assert_eq!(fs::read_to_string(results.join("history.jsonl")).unwrap().lines().count(), 2);
        readme(&readme_arguments).unwrap();
        assert!(fs::read_to_string(&document).unwrap().contains("| the put | 1 | 20.0 k/s | 30.0 k/s |"));
    }
}
