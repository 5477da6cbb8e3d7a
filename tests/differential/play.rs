//! Plays a script on a fresh pair of servers, and shrinks it where they differ.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::{Builder, Runtime};

use mainstay_tests::shrink::shrink;

use crate::drive::Run;
use crate::report::Difference;
use crate::step::Step;

/// The programs of a pair.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) reference: PathBuf,
    pub(crate) subject: PathBuf,
}

/// How a script went.
pub(crate) struct Played {
    /// How many steps were done.
    pub(crate) steps: usize,
    pub(crate) difference: Option<Difference>,
}

impl Programs {
    /// Plays a script until its end or until the first difference, and prints the steps where that is wanted.
    pub(crate) fn play(&self, steps: &[Step], shows_steps: bool) -> Result<Played> {
        let runtime = runtime()?;
        let played = runtime.block_on(async {
            let mut run = Run::start(&self.reference, &self.subject, shows_steps).await?;
            for (place, step) in steps.iter().enumerate() {
                if let Err(difference) = run.step(step).await {
                    return Ok(Played { steps: place + 1, difference: Some(difference) });
                }
            }
            let difference = run.finish().await.err();
            Ok(Played { steps: steps.len(), difference })
        });
        // What the servers still send is of no interest.
        runtime.shutdown_background();
        played
    }

    /// Leaves out steps for as long as the same kind of difference remains.
    pub(crate) fn shrink(&self, steps: &[Step], kind: &str, within: Duration) -> Vec<Step> {
        let begun = Instant::now();
        let shows = |steps: &[Step]| {
            let played = self.play(steps, false).ok();
            played.and_then(|played| played.difference).is_some_and(|difference| difference.kind == kind)
        };
        // Most kinds of steps have nothing to do with it, so whole kinds first.
        let mut steps = steps.to_vec();
        let names: BTreeSet<String> = steps.iter().map(Step::name).collect();
        for name in names {
            let (last, others) = steps.split_last().expect("something differed");
            let mut fewer: Vec<Step> = others.iter().filter(|step| step.name() != name).cloned().collect();
            fewer.push(last.clone());
            if begun.elapsed() < within && fewer.len() < steps.len() && shows(&fewer) {
                steps = fewer;
            }
        }
        let choose = |choice: &[usize]| choice.iter().map(|place| steps[*place].clone()).collect::<Vec<_>>();
        let best = shrink(steps.len(), 1, |choices| {
            (begun.elapsed() < within).then(|| choices.iter().map(|choice| shows(&choose(choice))).collect())
        });
        choose(&best)
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
