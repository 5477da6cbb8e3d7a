//! A stream of watches answers what it is asked, in order, and speaks of watches that are there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::refusals::asks_for_a_name;
use super::text::seconds;
use crate::history::{History, Said, WatchStream};

/// What a refusal says of an id that is in use; the only one that is lawful here.
const DUPLICATE: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// The id of what is about no watch, or about all of them.
const NO_ID: i64 = -1;
/// How long an answer may take when all is quiet.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Checks of each stream that requests for watches are answered in their order, each with the id that
/// was asked for or else with one that is free, and refused only where that id is in use; that a watch
/// ends only because its client asked or because of a compaction; that nothing comes for a watch that
/// is not there, or is no more; that notices for all come only when they were asked for; that nothing
/// comes on a stream that is over; and that later than the bound after the last disturbance every
/// request for a watch, or for the end of one, is answered within five seconds unless the stream ends.
pub fn check(history: &History, bound: Duration) -> Result<(), String> {
    let quiet = history.disturbances.iter().map(|disturbance| disturbance.until).max().unwrap_or_default() + bound;
    for (place, stream) in history.streams.iter().enumerate() {
        let mut state = State::default();
        let spoken = stream.said.iter().try_for_each(|(at, said)| {
            state.hear(history, *at, said).map_err(|why| format!("at {}: {why}", seconds(*at)))
        });
        spoken
            .and_then(|()| state.answered(quiet, history.end.at))
            .map_err(|why| format!("stream {place} (client {}): {why}", named(stream)))?;
    }
    Ok(())
}

fn named(stream: &WatchStream) -> String {
    let from = stream.said.first().map_or_else(String::new, |(at, _)| format!(", from {}", seconds(*at)));
    format!("{}{from}", stream.client)
}

/// What the server must know of a stream.
#[derive(Default)]
struct State {
    /// Watches that were asked for and not answered: when, and under which id.
    creating: VecDeque<(Duration, i64)>,
    /// The ids in use; whether the watch goes on. One that ended by compaction keeps its id.
    ids: BTreeMap<i64, bool>,
    /// Ends that were asked for and not answered.
    cancelling: Vec<(Duration, i64)>,
    /// Notices for all that were asked for, and may still come.
    notices: u64,
    is_over: bool,
}

impl State {
    fn hear(&mut self, history: &History, at: Duration, said: &Said) -> Result<(), String> {
        if self.is_over {
            return Err(format!("the stream was over, and this came: {said:?}"));
        }
        match said {
            Said::Create(id) => self.creating.push_back((at, *id)),
            Said::Cancel(id) => self.cancelling.push((at, *id)),
            Said::Progress => self.notices += 1,
            Said::Created(id) => {
                let asked = self.next_asked(said)?;
                if asked != 0 && asked != *id {
                    return Err(format!("id {asked} was asked for, and {id} given"));
                }
                if self.ids.insert(*id, true).is_some() {
                    return Err(format!("id {id} was given twice"));
                }
            }
            Said::Refused { id, why } => {
                let asked = self.next_asked(said)?;
                if asks_for_a_name(history, why) {
                    return Ok(());
                }
                if why != DUPLICATE || !self.ids.contains_key(&asked) {
                    let ids = self.ids.keys();
                    return Err(format!("a watch with id {asked} was refused, ids in use are {ids:?}: {why}"));
                }
                if *id != NO_ID {
                    return Err(format!("a refusal came for id {id}: {why}"));
                }
            }
            Said::Cancelled { id, compact_revision: 1.., .. } => match self.ids.get_mut(id) {
                Some(goes_on) if *goes_on => *goes_on = false,
                _ => return Err(format!("a compaction ended watch {id}, which is not there")),
            },
            Said::Cancelled { id, why, compact_revision } => {
                let asked = self.cancelling.iter().position(|(_, asked)| asked == id);
                let Some(asked) = asked.filter(|_| why.is_empty() && *compact_revision == 0) else {
                    return Err(format!("nobody asked for this: {said:?}"));
                };
                self.cancelling.remove(asked);
                if self.ids.remove(id).is_none() {
                    return Err(format!("watch {id} was ended, which is not there"));
                }
            }
            Said::Events(id) => self.expect(*id, said)?,
            Said::Told(NO_ID) => {
                if self.notices == 0 {
                    return Err("a notice for all came, and nobody had asked".to_owned());
                }
                self.notices -= 1;
                if !self.ids.values().any(|goes_on| *goes_on) {
                    return Err("a notice for all came, and there are none".to_owned());
                }
            }
            Said::Told(id) => self.expect(*id, said)?,
            Said::Over => self.is_over = true,
        }
        Ok(())
    }

    /// The id of the request that an answer is for.
    fn next_asked(&mut self, said: &Said) -> Result<i64, String> {
        let asked = self.creating.pop_front().map(|(_, id)| id);
        asked.ok_or_else(|| format!("nobody asked for this: {said:?}"))
    }

    fn expect(&self, id: i64, said: &Said) -> Result<(), String> {
        match self.ids.get(&id) {
            Some(true) => Ok(()),
            Some(false) => Err(format!("watch {id} was ended by a compaction, and this came: {said:?}")),
            None => Err(format!("there is no watch {id}, and this came: {said:?}")),
        }
    }

    /// Whether all that should have been answered was.
    fn answered(&self, quiet: Duration, end: Duration) -> Result<(), String> {
        let is_due = |at: Duration| at >= quiet && at + ANSWERED_WITHIN < end;
        let what = self
            .creating
            .iter()
            .map(|asked| (asked, "a watch"))
            .chain(self.cancelling.iter().map(|asked| (asked, "the end of a watch")));
        // The end of a watch that is not there is not answered.
        let mut due = what.filter(|((at, id), what)| is_due(*at) && (*what == "a watch" || self.ids.contains_key(id)));
        match due.next() {
            Some(((at, id), what)) if !self.is_over => {
                Err(format!("{what} with id {id} was asked for at {}, and never answered", seconds(*at)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{expect, millis};
    use super::*;

    fn refused() -> Said {
        Said::Refused { id: -1, why: DUPLICATE.to_owned() }
    }

    fn cancelled(id: i64) -> Said {
        Said::Cancelled { id, why: String::new(), compact_revision: 0 }
    }

    fn compacted(id: i64) -> Said {
        Said::Cancelled { id, why: String::new(), compact_revision: 7 }
    }

    /// One thing is said each second, and the run ends ten later.
    fn found(said: Vec<Said>) -> Result<(), String> {
        let said: Vec<_> =
            said.into_iter().zip(1..).map(|(said, second)| (Duration::from_secs(second), said)).collect();
        let mut history = History::default();
        history.end.at = Duration::from_secs(said.len() as u64 + 10);
        history.streams.push(WatchStream { client: 1, said });
        check(&history, millis(500))
    }

    use Said::{Cancel, Create, Created, Events, Over, Progress, Told};

    #[test]
    fn a_stream_as_it_should_be_passes() {
        assert_eq!(found(vec![Create(0), Create(7), Created(0), Events(0), Created(7), Told(7)]), Ok(()));
        assert_eq!(found(vec![Create(7), Create(7), Created(7), refused(), Events(7)]), Ok(()));
        assert_eq!(
            found(vec![Create(7), Created(7), Cancel(7), Events(7), cancelled(7), Create(7), Created(7)]),
            Ok(())
        );
        assert_eq!(found(vec![Create(0), Created(0), Cancel(9), Progress, Told(-1)]), Ok(()));
        // The id stays in use until it is cancelled.
        let ended = vec![Create(7), Created(7), compacted(7), Create(7), refused(), Cancel(7), cancelled(7), Create(7)];
        assert_eq!(found([ended, vec![Created(7), Events(7)]].concat()), Ok(()));
    }

    #[test]
    fn answers_that_do_not_fit_are_found() {
        expect(found(vec![Created(0)]), "nobody asked");
        expect(found(vec![Create(7), Created(8)]), "id 7 was asked for, and 8 given");
        expect(found(vec![Create(0), Create(0), Created(3), Created(3)]), "id 3 was given twice");
        expect(found(vec![Create(7), refused()]), "was refused");
        expect(found(vec![Create(7), Created(7), Create(8), refused()]), "was refused");
        for why in ["etcdserver: not capable", "etcdserver: too many requests", "etcdserver: permission denied"] {
            let refused = Said::Refused { id: -1, why: why.to_owned() };
            expect(found(vec![Create(7), Created(7), Create(7), refused]), why);
        }
        let other = Said::Refused { id: 7, why: DUPLICATE.to_owned() };
        expect(found(vec![Create(7), Created(7), Create(7), other]), "came for id 7");
    }

    #[test]
    fn ends_that_nobody_asked_for_are_found() {
        expect(found(vec![Create(0), Created(0), cancelled(0)]), "nobody asked");
        expect(found(vec![Create(0), Created(0), Cancel(0), cancelled(1)]), "nobody asked");
        let why = Said::Cancelled { id: 0, why: "tired".into(), compact_revision: 0 };
        expect(found(vec![Create(0), Created(0), Cancel(0), why]), "nobody asked");
        expect(found(vec![compacted(0)]), "which is not there");
        expect(found(vec![Create(0), Created(0), compacted(0), compacted(0)]), "which is not there");
    }

    #[test]
    fn what_comes_for_no_watch_is_found() {
        expect(found(vec![Create(0), Created(0), Events(1)]), "there is no watch 1");
        for late in [Events(0), Told(0)] {
            expect(found(vec![Create(0), Created(0), Cancel(0), cancelled(0), late.clone()]), "there is no watch 0");
            expect(found(vec![Create(0), Created(0), compacted(0), late]), "was ended by a compaction");
        }
        expect(found(vec![Create(0), Created(0), Over, Events(0)]), "was over");
    }

    #[test]
    fn notices_for_all_that_are_not_due_are_found() {
        expect(found(vec![Create(0), Created(0), Told(-1)]), "nobody had asked");
        expect(found(vec![Create(0), Created(0), Progress, Told(-1), Told(-1)]), "nobody had asked");
        expect(found(vec![Create(0), Created(0), Progress, compacted(0), Told(-1)]), "there are none");
    }

    #[test]
    fn silence_is_found_when_all_is_quiet() {
        expect(found(vec![Create(0)]), "a watch with id 0 was asked for at 1.000000s, and never answered");
        expect(found(vec![Create(0), Created(0), Cancel(0)]), "the end of a watch with id 0");
        assert_eq!(found(vec![Create(0), Over]), Ok(()));
    }
}
