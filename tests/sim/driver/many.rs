//! A row of seeds: progress while it runs, sums at its end, and every failure with the way to replay it.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::child::Children;
use super::cli::Simulate;
use super::markdown::Page;
use super::shrink::replay;
use super::totals::{Totals, verdict};
use super::{Known, coverage, pool, say, shrink};
use crate::report::Report;
use crate::run::Run;
use mainstay_tests::seeds::Seeds;

/// How often progress is told.
const EVERY: Duration = Duration::from_secs(15);
/// Failing seeds that are told in full and shrunk; the others are listed.
const TOLD: usize = 5;
/// Failing seeds that are listed.
const LISTED: usize = 50;

/// Runs all seeds and returns whether all was well.
pub(crate) fn run(children: &Children, simulate: &Simulate, known: &Known) -> io::Result<bool> {
    let runs: Vec<Run> = Seeds::all(&simulate.seeds).into_iter().map(|seed| simulate.run(seed)).collect();
    // A file that cannot be written is said before the work is done.
    let page = simulate.report.as_deref().map(Page::open).transpose()?;
    let started = Instant::now();
    let mut told = started;
    let mut totals = Totals::default();
    let mut failed: Vec<(&Run, Report)> = Vec::new();
    pool::each(
        &runs,
        |run| children.run(run),
        |place, report| {
            totals.add(&report);
            if report.violation.is_some() {
                if failed.len() < TOLD {
                    eprintln!("sim: seed {} FAILED: {}", report.seed, checker(&report));
                }
                failed.push((&runs[place], report));
            }
            if told.elapsed() >= EVERY {
                told = Instant::now();
                eprintln!("sim: {} of {} seeds, {} failed", totals.seeds, runs.len(), totals.failed);
            }
            ControlFlow::Continue(())
        },
    );
    let took = started.elapsed();
    // Cores finish in any order; the lowest seeds are told.
    failed.sort_by_key(|(run, _)| run.seed);
    tell(children, &failed, simulate.no_shrink);
    let covered = !simulate.coverage || coverage::tell(&totals, took, known, page.as_ref())?;
    totals.lines(took).iter().for_each(|line| say(line));
    Ok(failed.is_empty() && covered)
}

/// The checker that found a violation.
fn checker(report: &Report) -> &str {
    report.violation.as_ref().map_or("", |violation| &violation.checker)
}

/// Tells the failures: the first in full with the shortest schedule, the others by seed and checker.
fn tell(children: &Children, failed: &[(&Run, Report)], no_shrink: bool) {
    for (run, report) in failed.iter().take(TOLD) {
        say(&verdict(report));
        let shrunk = if no_shrink { None } else { shrink::of(children, run, report) };
        match shrunk {
            Some(shrunk) => shrunk.lines().iter().for_each(|line| say(line)),
            None => say(&format!("  replay: {}", replay(run))),
        }
    }
    for (run, report) in failed.iter().skip(TOLD).take(LISTED) {
        say(&format!("seed {} FAILED: {}", run.seed, checker(report)));
    }
    if failed.len() > TOLD + LISTED {
        say(&format!("and {} further seeds FAILED", failed.len() - TOLD - LISTED));
    }
}
