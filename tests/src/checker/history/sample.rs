//! Histories to test checkers with: made by the model, so right until a test breaks one.

use std::time::Duration;

use crate::history::{
    Call, Change, History, KeyValue, Operation, Outcome, Received, Reply, Span, Step, StepReply, Txn, Watch,
};
use crate::model::{Versions, evaluate};

/// A run of a store that answers one call at a time, each in ten milliseconds, every twenty.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) history: History,
    pub(super) versions: Versions,
    pub(super) revision: i64,
    pub(super) now: Duration,
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn get(key: &str) -> Txn {
    Txn::of(Step::range(Span::key(key)))
}

pub(super) fn put(key: &str, value: &str) -> Txn {
    Txn::of(Step::put(key, value))
}

pub(super) fn delete(key: &str) -> Txn {
    Txn::of(Step::Delete { span: Span::key(key), prev_kv: false })
}

pub(super) fn leased(key: &str, value: &str, lease: i64) -> Txn {
    Txn::of(Step::Put { key: key.into(), value: value.into(), lease, prev_kv: false })
}

/// Reads keys as they were at a revision.
pub(super) fn at(span: Span, revision: i64) -> Step {
    match Step::range(span) {
        Step::Range { span, limit, count_only, keys_only, sort, within, .. } => {
            Step::Range { span, limit, revision, count_only, keys_only, sort, within }
        }
        other => other,
    }
}

pub(super) fn all_keys() -> Span {
    Span { from: " ".into(), to: Some("~".into()) }
}

pub(super) fn watch(span: Span, start: i64) -> Watch {
    Watch {
        client: 90,
        since: Duration::ZERO,
        slow_until: Duration::ZERO,
        span,
        start,
        prev_kv: true,
        no_put: false,
        no_delete: false,
        fragment: false,
        received: vec![],
    }
}

impl Sample {
    pub(super) fn new() -> Self {
        let mut observer = watch(all_keys(), 1);
        observer.received.push(Received::Opened { at: Duration::ZERO, start: 1, revision: 1 });
        let history = History { watches: vec![observer], ..History::default() };
        Self { history, versions: Versions::default(), revision: 1, now: millis(20) }
    }

    /// Writes down a call that has this outcome, and nothing else.
    pub(super) fn call(&mut self, client: usize, call: Call, outcome: Outcome) -> &mut Operation {
        let (began, ended) = (self.now, self.now + millis(10));
        self.now += millis(20);
        self.history.operations.push(Operation { client, member: None, call, began, ended, outcome });
        self.history.operations.last_mut().unwrap()
    }

    /// A transaction that is carried out and answered.
    pub(super) fn txn(&mut self, client: usize, txn: Txn) -> &mut Operation {
        let effect = evaluate(&self.versions, &txn, self.revision);
        self.commit(effect.changes);
        let reply = Reply::Txn { revision: self.revision, succeeded: effect.succeeded, steps: effect.steps };
        self.call(client, Call::Txn(txn), Outcome::Done(reply))
    }

    /// A transaction that is never answered, and carried out or not.
    pub(super) fn unknown(&mut self, client: usize, txn: Txn, happens: bool) -> &mut Operation {
        if happens {
            self.commit(evaluate(&self.versions, &txn, self.revision).changes);
        }
        self.call(client, Call::Txn(txn), Outcome::Unknown("timeout".into()))
    }

    pub(super) fn refused(&mut self, client: usize, call: Call, why: &str) -> &mut Operation {
        self.call(client, call, Outcome::Refused(why.into()))
    }

    pub(super) fn grant(&mut self, client: usize, id: i64, ttl: i64) -> &mut Operation {
        self.call(client, Call::LeaseGrant { id, ttl }, Outcome::Done(Reply::Lease { ttl }))
    }

    pub(super) fn keep_alive(&mut self, client: usize, id: i64, ttl: i64) -> &mut Operation {
        self.call(client, Call::LeaseKeepAlive { id }, Outcome::Done(Reply::Lease { ttl }))
    }

    pub(super) fn compact(&mut self, client: usize, revision: i64) -> &mut Operation {
        self.history.end.compacted = revision;
        let reply = Reply::Compacted { revision: self.revision };
        self.call(client, Call::Compact { revision, physical: false }, Outcome::Done(reply))
    }

    pub(super) fn revoke(&mut self, client: usize, id: i64) -> &mut Operation {
        self.expire(id);
        let reply = Reply::Revoked { revision: self.revision };
        self.call(client, Call::LeaseRevoke { id }, Outcome::Done(reply))
    }

    /// Removes the keys of a lease.
    pub(super) fn expire(&mut self, id: i64) {
        let keys = self.versions.all(self.revision).filter(|kv| kv.lease == id);
        let keys = keys.map(|kv| Step::Delete { span: Span::key(kv.key.clone()), prev_kv: false }).collect();
        let txn = Txn { then: keys, ..Txn::default() };
        self.commit(evaluate(&self.versions, &txn, self.revision).changes);
    }

    fn commit(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        for change in &changes {
            self.versions.push(change);
        }
        let received = Received::Events { at: self.now + millis(5), revision: self.revision, changes, fragment: false };
        self.history.watches[0].received.push(received);
    }

    /// The run, over now.
    pub(super) fn end(mut self) -> History {
        let end = &mut self.history.end;
        (end.at, end.revision) = (self.now, self.revision);
        end.keys = self.versions.all(self.revision).cloned().collect();
        self.history
    }
}

/// The keys of the only range in an answer.
pub(super) fn read_keys(operation: &mut Operation) -> &mut Vec<KeyValue> {
    match &mut operation.outcome {
        Outcome::Done(Reply::Txn { steps, .. }) => match &mut steps[0] {
            StepReply::Range { keys, .. } => keys,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// The revision of an answer.
pub(super) fn revision(operation: &mut Operation) -> &mut i64 {
    match &mut operation.outcome {
        Outcome::Done(Reply::Txn { revision, .. } | Reply::Compacted { revision } | Reply::Revoked { revision }) => {
            revision
        }
        other => panic!("{other:?}"),
    }
}

/// Fails unless the check found something that contains this text.
#[track_caller]
pub(super) fn expect(found: Result<(), String>, text: &str) {
    let found = found.expect_err("nothing was found");
    assert!(found.contains(text), "{found}");
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}
