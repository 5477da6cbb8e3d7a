//! The command line: which scripts and seeds are played, on how many pairs of servers at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use mainstay_tests::seeds::Seeds;

use crate::plan;
use crate::play::Programs;
use crate::report::{Difference, say};
use crate::step::{self, Step};

/// Does the same to etcd and to a server under test, and compares everything that they answer.
#[derive(Debug, Parser)]
#[command(name = "differential")]
struct Cli {
    /// A seed (7), or rows of seeds (1..20, with both ends)
    #[arg(value_name = "SEEDS")]
    seeds: Vec<Seeds>,
    /// How many steps a seed has
    #[arg(long, default_value_t = 500)]
    steps: usize,
    /// Plays a script, or every script of a folder
    #[arg(long, value_name = "PATH")]
    script: Vec<PathBuf>,
    /// Etcd
    #[arg(long, value_name = "FILE", env = "ETCD_BIN")]
    etcd: PathBuf,
    /// The server under test
    #[arg(long, value_name = "FILE", env = "MAINSTAY_BIN")]
    subject: PathBuf,
    /// How many pairs of servers run at once, instead of one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints the scripts of the seeds and does nothing else
    #[arg(long)]
    print: bool,
    /// Prints each step as it is done, and how etcd answers it
    #[arg(long)]
    show: bool,
    /// Does not shrink what fails
    #[arg(long)]
    no_shrink: bool,
    /// How long one script is shrunk at most
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    shrink: u64,
}

/// The most steps of a shrunk script that are printed; a longer one is only kept.
const SHOWN: usize = 40;

/// A script and where it came from.
struct Work {
    /// What plays it again.
    replay: String,
    steps: Vec<Step>,
}

/// Takes the command line and returns what the process says of it.
pub(crate) fn main() -> ExitCode {
    match act(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether there was no difference.
fn act(cli: &Cli) -> Result<bool> {
    let mut work = Vec::new();
    for path in scripts(&cli.script)? {
        let replay = format!("make differential SCRIPT={}", path.display());
        work.push(Work { replay, steps: step::read(&path)? });
    }
    let scripts = work.len();
    for seed in Seeds::all(&cli.seeds) {
        let replay = format!("make differential SEED={seed} STEPS={}", cli.steps);
        work.push(Work { replay, steps: plan::script(seed, cli.steps) });
    }
    if cli.print {
        work.iter().for_each(|work| say(&text(&work.steps)));
        return Ok(true);
    }
    let begun = Instant::now();
    let programs = Programs { reference: cli.etcd.clone(), subject: cli.subject.clone() };
    let (done, failed) = play_all(&programs, &work, cli)?;
    say(&format!(
        "differential: {scripts} scripts and {} seeds, {done} steps in {} s: {failed} with a difference",
        work.len() - scripts,
        begun.elapsed().as_secs()
    ));
    Ok(failed == 0)
}

/// Every script that the paths name.
fn scripts(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let listed = fs::read_dir(path).with_context(|| format!("listing {}", path.display()))?;
            for entry in listed {
                found.push(entry?.path());
            }
        } else {
            found.push(path.clone());
        }
    }
    found.sort();
    Ok(found)
}

/// Plays everything; returns how many steps were done and how many scripts showed a difference.
fn play_all(programs: &Programs, work: &[Work], cli: &Cli) -> Result<(usize, usize)> {
    let jobs = cli.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let broken = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..jobs.min(work.len()) {
            scope.spawn(|| {
                while let Some(work) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match programs.play(&work.steps, cli.show) {
                        Ok(played) => {
                            done.fetch_add(played.steps, Ordering::Relaxed);
                            let Some(difference) = played.difference else { continue };
                            failed.fetch_add(1, Ordering::Relaxed);
                            tell(programs, work, &work.steps[..played.steps], &difference, cli);
                        }
                        Err(error) => {
                            *broken.lock().expect("nobody panics with it") = Some(error);
                            return;
                        }
                    }
                }
            });
        }
    });
    match broken.into_inner().expect("nobody panics with it") {
        Some(error) => Err(error),
        None => Ok((done.into_inner(), failed.into_inner())),
    }
}

/// Says what differed, and the shortest script that shows it.
fn tell(programs: &Programs, work: &Work, steps: &[Step], difference: &Difference, cli: &Cli) {
    let mut lines = vec![format!("FAILED at step {}: {}", steps.len(), work.replay)];
    lines.extend(steps.last().map(|step| format!("      step: {step}")));
    lines.extend(difference.lines.iter().cloned());
    say(&lines.join("\n"));
    if cli.no_shrink {
        return;
    }
    let shrunk = programs.shrink(steps, &difference.kind, Duration::from_secs(cli.shrink));
    let mut lines = vec![format!("shrunk to {} of {} steps: {}", shrunk.len(), steps.len(), work.replay)];
    if let Ok(played) = programs.play(&shrunk, false) {
        lines.extend(played.difference.into_iter().flat_map(|difference| difference.lines));
    }
    match keep(&shrunk) {
        Ok(path) => lines.push(format!("replay: make differential SCRIPT={}", path.display())),
        Err(error) => lines.push(format!("the script is not kept: {error:#}")),
    }
    if shrunk.len() <= SHOWN {
        lines.push(text(&shrunk));
    }
    say(&lines.join("\n"));
}

/// Keeps a script where it can be played again.
fn keep(steps: &[Step]) -> Result<PathBuf> {
    let file = tempfile::Builder::new().prefix("differential-").suffix(".txt").tempfile()?;
    fs::write(Path::new(file.path()), text(steps) + "\n")?;
    Ok(file.into_temp_path().keep()?)
}

fn text(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join("\n")
}
