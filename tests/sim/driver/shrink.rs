//! The shortest fault schedule with which a seed still fails, found with children.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mainstay_tests::shrink::shrink;

use super::child::Children;
use super::pool;
use crate::report::Report;
use crate::run::Run;
use mainstay_tests::seeds::commas;

/// Runs for one failing seed.
const RUNS: usize = 200;
/// Time for one failing seed.
const TIME: Duration = Duration::from_secs(180);

/// A failing run with as few faults as possible.
pub(crate) struct Shrunk {
    run: Run,
    /// The faults that remain, with their places.
    faults: Vec<(usize, String)>,
    of: usize,
    runs: usize,
    /// The search ended before it was clear that no further fault can be left out.
    cut_short: bool,
}

/// Leaves out faults for as long as the same checker still complains.
pub(crate) fn of(children: &Children, run: &Run, report: &Report) -> Option<Shrunk> {
    let checker = &report.violation.as_ref()?.checker;
    // How long a run takes depends on the machine: what is left out would prove nothing.
    if checker == "hang" {
        return None;
    }
    // Places that the caller left out already are no longer there to be shrunk.
    let places: Vec<usize> = (0..report.schedule.len()).filter(|place| !run.without.contains(place)).collect();
    let keeping = |kept: &[usize]| {
        let kept: BTreeSet<usize> = kept.iter().map(|index| places[*index]).collect();
        let without = (0..report.schedule.len()).filter(|place| !kept.contains(place)).collect();
        Run { without, trace: None, ..run.clone() }
    };
    let (started, mut runs, mut cut_short) = (Instant::now(), 0, false);
    let best = shrink(places.len(), pool::width(), |choices| {
        if runs + choices.len() > RUNS || started.elapsed() > TIME {
            cut_short = true;
            return None;
        }
        runs += choices.len();
        let tried: Vec<Run> = choices.iter().map(|choice| keeping(choice)).collect();
        let fails = |run: &Run| children.run(run).violation.is_some_and(|violation| violation.checker == *checker);
        Some(pool::all(&tried, fails))
    });
    let faults = best.iter().map(|index| (places[*index], report.schedule[places[*index]].clone())).collect();
    Some(Shrunk { run: keeping(&best), faults, of: report.schedule.len(), runs, cut_short })
}

impl Shrunk {
    /// The command that replays it and what is left of the schedule, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("  replay: {}", replay(&self.run))];
        let cut_short = if self.cut_short { ", cut short: there may be fewer" } else { "" };
        lines.push(format!(
            "  {} of {} faults remain, after {} runs{cut_short}",
            self.faults.len(),
            self.of,
            self.runs
        ));
        lines.extend(self.faults.iter().map(|(place, fault)| format!("    {place:>3}  {fault}")));
        lines
    }
}

/// The command that replays a run.
pub(crate) fn replay(run: &Run) -> String {
    let mut command = format!("make sim SEED={}", run.seed);
    if let Some(members) = run.members {
        command += &format!(" MEMBERS={members}");
    }
    if !run.without.is_empty() {
        command += &format!(" WITHOUT={}", commas(&run.without));
    }
    if let Some(place) = &run.broken {
        command += &format!(" BREAK={place}");
    }
    command
}
