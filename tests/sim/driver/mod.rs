//! The command line of the simulation: which seeds run, and what is made of their reports.
//!
//! One seed runs in one process, because std's and tokio's own random states are global: a second seed in
//! one process would not be the seed it says it is. So for more than one run this program starts itself.
//!
//! - `one`: a run in this process, which is a child's; `child`: a run in such a process, with a limit and the
//!   surroundings that every run has; `pool`: as many of them as there are cores.
//! - `many`: a row of seeds, with `totals` over them, `coverage` of places and faults, and `shrink` for
//!   those that fail.
//! - `meta`: whether a seed is the same run twice. `mutants`: whether deliberate bugs are found.
//!
//! Does not: know what a world is made of, or what must hold of it.

mod child;
mod cli;
mod coverage;
mod many;
mod markdown;
mod meta;
mod mutants;
mod one;
mod pool;
mod shrink;
mod totals;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use self::child::Children;
use self::cli::{Action, Cli, Simulate};
use crate::mutants::Mutant;
use crate::report::{self, Report};
use crate::run::Run;
use mainstay_tests::seeds::Seeds;

/// What the simulation knows of itself, to be held against what it did.
pub(crate) struct Known {
    /// Every place of the code that runs are expected to reach, together.
    pub(crate) places: &'static [&'static str],
    /// Those that take thousands of runs.
    pub(crate) rare_places: &'static [&'static str],
    /// Every kind of fault.
    pub(crate) faults: Vec<&'static str>,
    /// Every deliberate bug.
    pub(crate) mutants: &'static [Mutant],
}

/// Takes the command line and returns what the process says of it.
pub(crate) fn main(known: &Known) -> ExitCode {
    match Cli::parse().action().and_then(|action| act(&action, known)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether all was well.
fn act(action: &Action, known: &Known) -> io::Result<bool> {
    let children = |seconds| Children::new(Duration::from_secs(seconds));
    match action {
        Action::One(seed, simulate) if simulate.child => Ok(child(&simulate.run(*seed))),
        Action::One(seed, simulate) => Ok(one(&children(simulate.limit)?, &simulate.run(*seed), simulate)),
        Action::Many(simulate) => many::run(&children(simulate.limit)?, simulate, known),
        Action::Meta(meta) => meta::run(&children(meta.limit)?, &Seeds::all(&meta.seeds), &meta.template()),
        Action::Mutants(mutants) => mutants::run(&children(mutants.limit)?, mutants, known.mutants),
    }
}

/// A run in this process, told to the process that started it.
fn child(run: &Run) -> bool {
    report::on_begun(|report| say(&format!("{}{}", child::BEGUN, json(report))));
    let report = one::simulate(run);
    say(&json(&report));
    report.violation.is_none()
}

/// One run, told in full. One that fails is shrunk as those of a row are, unless its report or its trace
/// is all that is wanted.
fn one(children: &Children, run: &Run, simulate: &Simulate) -> bool {
    let report = children.run(run);
    if simulate.json {
        say(&json(&report));
        return report.violation.is_none();
    }
    totals::summary(&report, run).iter().for_each(|line| say(line));
    let is_shrunk = !simulate.no_shrink && run.trace.is_none();
    if let Some(shrunk) = is_shrunk.then(|| shrink::of(children, run, &report)).flatten() {
        shrunk.lines().iter().for_each(|line| say(line));
    }
    report.violation.is_none()
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("a report is maps of text and numbers")
}

/// Writes a line of the result; a closed pipe is nobody's fault.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}
