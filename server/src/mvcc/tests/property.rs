//! The store against the model, on random histories with crashes, flushes and compactions.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::RangeResponse;
use proptest::prelude::*;
use prost::Message;

use super::model::{Model, Refused};
use super::*;
use crate::engine::Family;

#[derive(Clone, Debug)]
enum Step {
    /// Commands of one run, each with its operations.
    Run(Vec<Vec<Op>>),
    /// Compaction at so many revisions before the newest, in a run of its own.
    Compact(i64),
    /// Some slices of background removal.
    Slices(usize),
    Flush,
    /// Some slices of a flush in the background, if one is due.
    MaybeFlush(usize),
    /// A crash that keeps this share of the unflushed batches.
    Crash(u8),
    /// Reopening as after a snapshot.
    Reopen,
    Read(KeyRange, RangeOptions),
    Hash(i64),
}

#[derive(Clone, Debug)]
enum Op {
    Put(Bytes, u8, i64),
    Delete(KeyRange, bool),
    Read(KeyRange, RangeOptions),
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        (0u8..6).prop_map(|n| Bytes::from(vec![b'a' + n])),
        (0u8..40).prop_map(|n| Bytes::from(format!("prefix/{n:02}"))),
        prop::collection::vec(any::<u8>(), 1..3).prop_map(Bytes::from),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        key().prop_map(KeyRange::single),
        (key(), key()).prop_map(|(from, to)| KeyRange::new(from, to)),
        key().prop_map(KeyRange::from_key),
        Just(KeyRange::all()),
        Just(KeyRange::prefix("prefix/")),
    ]
}

/// The revision is relative to the newest one: positive is the past.
fn options() -> impl Strategy<Value = RangeOptions> {
    (prop_oneof![Just(0i64), -2i64..30], prop_oneof![Just(0i64), 1i64..5], any::<bool>(), any::<bool>())
        .prop_map(|(revision, limit, count_only, keys_only)| RangeOptions { revision, limit, count_only, keys_only })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (key(), any::<u8>(), 0i64..3).prop_map(|(key, value, lease)| Op::Put(key, value, lease)),
        2 => (range(), any::<bool>()).prop_map(|(range, prev)| Op::Delete(range, prev)),
        2 => (range(), options()).prop_map(|(range, options)| Op::Read(range, options)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop::collection::vec(prop::collection::vec(op(), 0..5), 1..4).prop_map(Step::Run),
        3 => prop_oneof![4 => 0i64..3, 1 => -1i64..15].prop_map(Step::Compact),
        6 => (1usize..6).prop_map(Step::Slices),
        1 => Just(Step::Flush),
        4 => (1usize..9).prop_map(Step::MaybeFlush),
        3 => any::<u8>().prop_map(Step::Crash),
        1 => Just(Step::Reopen),
        4 => (range(), options()).prop_map(|(range, options)| Step::Read(range, options)),
        2 => (-1i64..15).prop_map(Step::Hash),
    ]
}

/// The store, the model, and the model as it was after each batch that a crash may keep.
struct World {
    home: MemHome,
    writer: Writer,
    store: Store,
    model: Model,
    /// The models of the last flush and after each commit since.
    past: Vec<Model>,
}

impl World {
    fn new() -> Self {
        let home = MemHome::new();
        let mut writer = open(&home);
        writer.maybe_flush(true).unwrap();
        let store = writer.store();
        Self { home, writer, store, model: Model::new(), past: vec![Model::new()] }
    }

    fn commit(&mut self) {
        self.writer.commit().unwrap();
        self.past.push(self.model.clone());
    }

    fn run(&mut self, commands: &[Vec<Op>]) {
        let before = self.model.clone();
        for ops in commands {
            self.command(ops);
            // What is not committed cannot be seen.
            assert_eq!(self.store.revision(), before.revision);
            assert_eq!(read(&self.store, &KeyRange::all(), &at(0)), before.range(&KeyRange::all(), &at(0)));
        }
        let events = self.writer.commit().unwrap();
        self.past.push(self.model.clone());
        assert_eq!(plain(&events), model_events(&self.model, before.revision + 1, self.model.revision));
    }

    fn command(&mut self, ops: &[Op]) {
        let main = self.model.revision + 1;
        let mut wrote = false;
        let mut txn = self.writer.begin();
        for op in ops {
            let mut seen = self.model.clone();
            seen.revision += i64::from(wrote);
            assert_eq!(txn.revision(), seen.revision);
            match op {
                Op::Put(key, value, lease) => {
                    let value = Bytes::from(vec![*value; 20]);
                    let before = self.model.live(main).remove(key);
                    let effect = txn.put(key.clone(), value.clone(), *lease).unwrap();
                    assert_eq!(effect.existed, before.is_some());
                    assert_eq!(effect.lease_before, before.map_or(0, |kv| kv.lease));
                    self.model.put(main, key.clone(), value, *lease);
                    wrote = true;
                }
                Op::Delete(range, want_prev) => {
                    let expected = self.model.delete_range(main, range);
                    let deleted = txn.delete_range(range, *want_prev).unwrap();
                    let expected: Vec<DeletedKey> = expected
                        .into_iter()
                        .map(|kv| DeletedKey { key: kv.key.clone(), lease: kv.lease, prev: want_prev.then_some(kv) })
                        .collect();
                    assert_eq!(deleted, expected);
                    wrote |= !deleted.is_empty();
                }
                Op::Read(range, options) => {
                    let options = absolute(options, seen.revision);
                    assert_eq!(refusal(txn.range(range, &options)), seen.range(range, &options));
                    assert_eq!(txn.get(range.key()).unwrap(), seen.live(seen.revision).remove(range.key()));
                }
            }
        }
        assert_eq!(txn.end(), wrote.then_some(main));
        self.model.revision += i64::from(wrote);
    }

    fn crash(&mut self, share: u8) {
        // Batches of checkpoints and removals are among those that survive, so the number of batches
        // does not tell which state it is; its revision and its watermark do.
        self.home.crash_keeping(usize::from(share) / 5);
        self.writer.release();
        self.writer.reopen(self.home.open().unwrap()).unwrap();
        let (revision, compacted) = (self.store.revision(), self.store.compact_revision());
        let survivor = self.past.iter().find(|model| model.revision == revision && model.compacted == compacted);
        self.model = survivor.expect("a state that was committed").clone();
        // What survived is as good as flushed to the simulated disk.
        self.past = vec![self.model.clone()];
    }

    fn check(&self) {
        for back in 0..8 {
            let options = absolute(&at(back), self.model.revision);
            assert_eq!(read(&self.store, &KeyRange::all(), &options), self.model.range(&KeyRange::all(), &options));
        }
        assert_eq!(self.store.key_count() as usize, self.model.live(self.model.revision).len());
        let from = self.model.compacted.max(1);
        let slice = self.store.events(from, i64::MAX - 1, usize::MAX).unwrap();
        let stored: Vec<_> = model_events(&self.model, from, self.model.revision);
        assert_eq!(plain(&slice.revisions), stored);
        let mut leased = Vec::new();
        self.writer.for_each_leased(&mut |key, lease| leased.push((Bytes::copy_from_slice(key), lease)));
        let live = self.model.live(self.model.revision).into_values();
        assert_eq!(leased, live.filter(|kv| kv.lease != 0).map(|kv| (kv.key, kv.lease)).collect::<Vec<_>>());
        assert_eq!(self.store.retained_bytes(), stored_bytes(&**self.writer.engine()));
    }

    /// Everything that is dropped is gone from the engine, and nothing else.
    fn check_removal(&mut self) {
        while self.writer.compact_slice().unwrap() {}
        assert!(self.store.compaction_done(self.model.compacted));
        let mut found = Vec::new();
        let engine = self.writer.engine();
        engine
            .scan(Family::Revisions, Bound::Unbounded, Bound::Unbounded, &mut |key, _| {
                found.push(Revision::from_bytes(key).unwrap());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(found, self.model.stored().iter().map(|change| change.revision).collect::<Vec<_>>());
    }

    /// A checkpoint of the index holds the keys that have a version left, and no others.
    fn check_index(&mut self) {
        self.writer.maybe_flush(true).unwrap();
        let mut found = BTreeSet::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            found.insert(Bytes::copy_from_slice(key));
            ControlFlow::Continue(())
        };
        self.writer.engine().scan(Family::Index, Bound::Unbounded, Bound::Unbounded, &mut visit).unwrap();
        assert_eq!(found, self.model.stored().iter().map(|change| change.key.clone()).collect::<BTreeSet<_>>());
    }
}

fn absolute(options: &RangeOptions, newest: i64) -> RangeOptions {
    let revision = if options.revision == 0 { 0 } else { (newest - options.revision).max(0) };
    RangeOptions { revision, ..*options }
}

fn refusal(result: Result<RangeResult, ReadError>) -> Result<RangeResult, Refused> {
    result.map_err(|error| match error {
        ReadError::Compacted => Refused::Compacted,
        ReadError::FutureRevision => Refused::Future,
        error => panic!("{error}"),
    })
}

/// Reads a range, and again in the encoding in which it leaves, which has to say the same.
fn read(store: &Store, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, Refused> {
    let result = refusal(store.range(range, options));
    if let Ok(expected) = &result {
        let mut encoded = store.encoded_within(range, options, &|_| true).unwrap();
        assert_eq!((encoded.count, encoded.revision), (expected.count, expected.revision));
        assert_eq!(encoded.kvs.count(), expected.kvs.len());
        let mut bytes = Vec::new();
        while let Some(piece) = encoded.kvs.next_piece() {
            bytes.extend_from_slice(&piece);
        }
        let message = RangeResponse { kvs: expected.kvs.clone(), ..RangeResponse::default() };
        assert_eq!(bytes, message.encode_to_vec(), "{range:?} {options:?}");
    }
    result
}

/// Events as (revision, key, record of a put).
type PlainEvent = (i64, Bytes, Option<KeyValue>);

fn plain(revisions: &[Arc<RevisionEvents>]) -> Vec<PlainEvent> {
    let mut plain = Vec::new();
    for revision in revisions {
        for event in &revision.events {
            let kv = event.kv.clone().unwrap();
            assert_eq!(kv.mod_revision, revision.revision);
            let is_put = event.r#type == 0;
            plain.push((revision.revision, kv.key.clone(), is_put.then_some(kv)));
        }
    }
    plain
}

fn model_events(model: &Model, from: i64, to: i64) -> Vec<PlainEvent> {
    let stored = model.stored().into_iter().filter(|change| (from..=to).contains(&change.revision.main));
    stored.map(|change| (change.revision.main, change.key.clone(), change.kv.clone())).collect()
}

fn check_history(steps: &[Step]) {
    let mut world = World::new();
    for step in steps {
        match step {
            Step::Run(commands) => world.run(commands),
            Step::Compact(back) => {
                let revision = world.model.revision - back;
                let expected = world.model.compact(revision);
                let actual = world.writer.compact(revision).map_err(|error| match error {
                    ReadError::Compacted => Refused::Compacted,
                    ReadError::FutureRevision => Refused::Future,
                    error => panic!("{error}"),
                });
                assert_eq!(actual, expected);
                world.commit();
            }
            Step::Slices(count) => {
                for _ in 0..*count {
                    world.writer.compact_slice().unwrap();
                }
            }
            Step::Flush => {
                world.writer.maybe_flush(true).unwrap();
                world.past = vec![world.model.clone()];
            }
            Step::MaybeFlush(count) => {
                for _ in 0..*count {
                    if world.writer.maybe_flush(false).unwrap() {
                        world.past = vec![world.model.clone()];
                    }
                }
            }
            Step::Crash(share) => world.crash(*share),
            Step::Reopen => {
                world.writer.release();
                assert!(world.store.range(&KeyRange::all(), &at(0)).is_err());
                world.writer.reopen(world.home.open().unwrap()).unwrap();
            }
            Step::Read(range, options) => {
                let options = absolute(options, world.model.revision);
                assert_eq!(read(&world.store, range, &options), world.model.range(range, &options));
            }
            Step::Hash(back) => {
                let revision = world.model.revision - back;
                if (world.model.compacted + 1..=world.model.revision).contains(&revision) && revision > 0 {
                    assert_eq!(world.store.hash_kv(revision).unwrap().hash, world.model.hash(revision));
                }
            }
        }
        world.check();
    }
    world.check_removal();
    world.check_index();
    world.check();
    world.writer.reopen(world.home.open().unwrap()).unwrap();
    world.check();
    world.check_removal();
    world.check_index();
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn the_store_equals_the_model(steps in prop::collection::vec(step(), 1..60)) {
        check_history(&steps);
    }
}
