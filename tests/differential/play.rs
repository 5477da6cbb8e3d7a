//! Plays a script on a fresh pair of servers, and shrinks it where they differ.

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
    /// Plays a script until its end or until the first difference.
    pub(crate) fn play(&self, steps: &[Step]) -> Result<Played> {
        let runtime = runtime()?;
        let played = runtime.block_on(async {
            let mut run = Run::start(&self.reference, &self.subject).await?;
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
        let choose = |choice: &[usize]| choice.iter().map(|place| steps[*place].clone()).collect::<Vec<_>>();
        let best = shrink(steps.len(), 1, |choices| {
            if begun.elapsed() > within {
                return None;
            }
            let shows = |choice: &Vec<usize>| {
                let played = self.play(&choose(choice)).ok();
                played.and_then(|played| played.difference).is_some_and(|difference| difference.kind == kind)
            };
            Some(choices.iter().map(shows).collect())
        });
        choose(&best)
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
