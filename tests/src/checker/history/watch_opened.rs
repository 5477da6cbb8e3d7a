//! Whoever wants to watch can, once the cluster is left alone.

use std::time::Duration;

use super::refusals::{CORRUPT, LEARNER, asks_for_a_name, may_meet_a_learner, may_meet_the_corrupt};
use super::text::{named, seconds};
use crate::history::{History, Received, Watch};

/// What a stream may break with. All else would be a server that does not want to serve, or a client
/// that takes an answer for something else.
const LAWFUL: &[&str] = &[
    // The server's words.
    "etcdserver: no leader",
    "etcdserver: server stopped",
    "etcdserver: request timed out",
    // The connection's.
    "connection",
    "unreachable",
    "no answer in time",
    "timed out",
    // The watcher's own.
    "the stream ended",
    "no word for long",
];

/// Checks that no watch is without an open stream for longer than the bound, counted from the bound
/// after the last disturbance, and from when its client no longer reads slowly; and that streams break for a reason that there may be.
pub fn check(history: &History, bound: Duration) -> Result<(), String> {
    let quiet = history.disturbances.iter().map(|disturbance| disturbance.until).max().unwrap_or_default() + bound;
    for (place, watch) in history.watches.iter().enumerate() {
        opened(history, watch, quiet, bound, history.end.at)
            .map_err(|why| format!("{}: {why}", named(place, watch)))?;
    }
    Ok(())
}

fn opened(history: &History, watch: &Watch, quiet: Duration, bound: Duration, end: Duration) -> Result<(), String> {
    let quiet = quiet.max(watch.slow_until);
    // Since when it has not been open, and why.
    let mut closed = Some(watch.since);
    let mut last = "it was never opened";
    let without = |closed: Option<Duration>, until: Duration, last: &str| {
        let Some(from) = closed.map(|from| from.max(quiet)).filter(|from| *from + bound < until) else { return Ok(()) };
        let (from, until) = (seconds(from), seconds(until));
        Err(format!("all was quiet, and it was not open from {from} to {until}: {last}"))
    };
    for received in &watch.received {
        match received {
            Received::Opened { at, .. } => {
                without(closed.take(), *at, last)?;
            }
            Received::Broken { at, why } => {
                let met_a_learner = why.ends_with(LEARNER) && may_meet_a_learner(history, *at);
                let met_the_corrupt = why.ends_with(CORRUPT) && may_meet_the_corrupt(history, *at);
                let is_lawful = met_a_learner || met_the_corrupt || LAWFUL.iter().any(|lawful| why.contains(lawful));
                if !is_lawful && !asks_for_a_name(history, why) {
                    return Err(format!("at {} its stream broke: {why}", seconds(*at)));
                }
                closed = closed.or(Some(*at));
                last = why;
            }
            Received::Compacted { at, .. } => {
                closed = Some(*at);
                last = "compacted";
            }
            Received::Cancelled { .. } => return Ok(()),
            Received::Events { .. } | Received::Progress { .. } => {}
        }
    }
    without(closed, end, last)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{all_keys, expect, watch};
    use super::*;
    use crate::history::Disturbance;

    const BOUND: Duration = Duration::from_secs(10);

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn opened_at(at: u64) -> Received {
        Received::Opened { at: second(at), start: 1, revision: 1 }
    }

    fn broken(at: u64) -> Received {
        Received::Broken { at: second(at), why: "no word for long".into() }
    }

    /// Disturbed up to second 20, quiet from 30 on, over at 60.
    fn found(since: u64, received: Vec<Received>) -> Result<(), String> {
        let watch = Watch { since: second(since), received, ..watch(all_keys(), 1) };
        let disturbance = Disturbance { from: second(5), until: second(20), what: "test".into(), effect: None };
        let mut history = History { watches: vec![watch], disturbances: vec![disturbance], ..History::default() };
        history.end.at = second(60);
        check(&history, BOUND)
    }

    #[test]
    fn a_watch_that_is_open_when_all_is_quiet_passes() {
        assert_eq!(found(0, vec![opened_at(1)]), Ok(()));
        assert_eq!(found(0, vec![broken(3), broken(35), opened_at(39)]), Ok(()));
        assert_eq!(found(55, vec![]), Ok(()));
        assert_eq!(found(0, vec![opened_at(1), broken(2), opened_at(31), broken(52)]), Ok(()));
        assert_eq!(found(0, vec![opened_at(1), Received::Cancelled { at: second(2) }]), Ok(()));
    }

    #[test]
    fn a_watch_that_does_not_open_is_found() {
        expect(found(0, vec![]), "from 30.000000s to 60.000000s: it was never opened");
        expect(found(40, vec![]), "from 40.000000s");
        expect(found(0, vec![broken(3), broken(35), opened_at(41)]), "from 30.000000s to 41.000000s");
        expect(found(0, vec![opened_at(1), broken(45)]), "from 45.000000s");
        let compacted = Received::Compacted { at: second(45), compact_revision: 2, resumed: 2 };
        expect(found(0, vec![opened_at(1), compacted, broken(46)]), "from 45.000000s");
    }

    #[test]
    fn a_client_that_reads_slowly_has_itself_to_blame() {
        let opened_late = |slow_until| {
            let watch = Watch { received: vec![opened_at(45)], slow_until, ..watch(all_keys(), 1) };
            let mut history = History { watches: vec![watch], ..History::default() };
            history.end.at = second(60);
            check(&history, BOUND)
        };
        assert_eq!(opened_late(second(40)), Ok(()));
        expect(opened_late(second(30)), "from 30.000000s to 45.000000s");
    }

    #[test]
    fn a_break_that_should_not_be_is_found() {
        for why in ["etcdserver: not capable", "etcdserver: too many requests", "etcdserver: permission denied"] {
            let broken = Received::Broken { at: second(3), why: why.into() };
            expect(found(0, vec![broken, opened_at(4)]), why);
        }
    }
}
