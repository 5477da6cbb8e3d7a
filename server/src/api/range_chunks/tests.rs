use std::cell::{Cell, RefCell};

use mainstay_proto::etcdserverpb::{CompactionRequest, PutRequest};
use mainstay_proto::mvccpb::KeyValue;

use super::*;
use crate::apply::{Origin, State, StateOptions, apply};
use crate::command::command::Kind;
use crate::engine::EngineHome;
use crate::engine::layout::FORMAT;
use crate::engine::mem::MemHome;
use crate::mvcc::Writer;

/// Keys `k0000`, `k0001`, … at one revision, answering as the store does.
struct Keys {
    count: usize,
    value_bytes: usize,
    revision: Cell<i64>,
    /// The last key was created first.
    created_backwards: bool,
    /// (revision, limit) of each read.
    reads: RefCell<Vec<(i64, i64)>>,
}

impl Keys {
    fn new(count: usize, value_bytes: usize) -> Self {
        Self { count, value_bytes, revision: Cell::new(7), created_backwards: false, reads: RefCell::default() }
    }

    fn read(&self, range: &KeyRange, options: &RangeOptions) -> Result<RangeResult, ReadError> {
        self.reads.borrow_mut().push((options.revision, options.limit));
        let revision = self.revision.get();
        if options.revision > revision {
            return Err(ReadError::FutureRevision);
        }
        let keys: Vec<Bytes> =
            (0..self.count).map(|n| Bytes::from(format!("k{n:04}"))).filter(|key| range.contains(key)).collect();
        let limit = if options.limit > 0 { options.limit as usize } else { usize::MAX };
        let shown = if options.count_only { 0 } else { limit };
        let kvs = keys.iter().enumerate().take(shown).map(|(n, key)| KeyValue {
            key: key.clone(),
            create_revision: if self.created_backwards { -(n as i64) } else { 0 },
            value: vec![b'v'; self.value_bytes].into(),
            ..KeyValue::default()
        });
        Ok(RangeResult { kvs: kvs.collect(), count: keys.len() as i64, revision })
    }

    fn chunks(&self, request: RangeRequest, target_bytes: usize) -> Vec<RangeResponse> {
        let mut chunks = RangeChunks::new(request, target_bytes);
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next(|range, options| self.read(range, options)).unwrap() {
            all.push(chunk);
        }
        all
    }
}

fn everything() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

fn sizes(chunks: &[RangeResponse]) -> Vec<usize> {
    chunks.iter().map(|chunk| chunk.kvs.len()).collect()
}

/// Only the last chunk tells anything but keys, and the keys are whole and in order.
#[track_caller]
fn check_form(chunks: &[RangeResponse], keys: usize, count: i64, more: bool) {
    let (last, others) = chunks.split_last().unwrap();
    for chunk in others {
        assert_eq!((chunk.header, chunk.count, chunk.more), (None, 0, false));
        assert!(!chunk.kvs.is_empty());
    }
    assert_eq!((revision(last), last.count, last.more), (Some(7), count, more));
    let found: Vec<_> = chunks.iter().flat_map(|chunk| &chunk.kvs).map(|kv| kv.key.clone()).collect();
    let expected: Vec<_> = (0..keys).map(|n| Bytes::from(format!("k{n:04}"))).collect();
    assert_eq!(found, expected);
}

fn revision(chunk: &RangeResponse) -> Option<i64> {
    chunk.header.map(|header| header.revision)
}

#[test]
fn small_values_double_the_chunks() {
    let chunks = Keys::new(100, 1).chunks(everything(), 1_000_000);
    assert_eq!(sizes(&chunks), [10, 20, 40, 30]);
    check_form(&chunks, 100, 100, false);
}

#[test]
fn large_values_halve_the_chunks_down_to_one_key() {
    let chunks = Keys::new(25, 1000).chunks(everything(), 100);
    assert_eq!(sizes(&chunks), [10, 5, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    check_form(&chunks, 25, 25, false);
}

#[test]
fn chunks_near_the_size_aimed_at_stay_as_they_are() {
    let chunks = Keys::new(40, 90).chunks(everything(), 1_000);
    assert_eq!(sizes(&chunks), [10, 10, 10, 10]);
    check_form(&chunks, 40, 40, false);
}

#[test]
fn a_limit_ends_the_stream_but_not_the_count() {
    for (limit, expected) in [(5, vec![5]), (10, vec![10]), (11, vec![10, 1]), (32, vec![10, 20, 2])] {
        let chunks = Keys::new(100, 1).chunks(RangeRequest { limit, ..everything() }, 1_000_000);
        assert_eq!(sizes(&chunks), expected);
        check_form(&chunks, limit as usize, 100, true);
    }
    for limit in [100, 101, i64::MAX, -1] {
        let chunks = Keys::new(100, 1).chunks(RangeRequest { limit, ..everything() }, 1_000_000);
        check_form(&chunks, 100, 100, false);
    }
}

#[test]
fn a_negative_limit_is_none_and_makes_one_chunk() {
    let chunks = Keys::new(70, 1).chunks(RangeRequest { limit: -1, ..everything() }, 1000);
    assert_eq!(sizes(&chunks), [70]);
}

#[test]
fn nothing_found_is_one_chunk() {
    let chunks = Keys::new(0, 1).chunks(everything(), 1_000);
    assert_eq!(sizes(&chunks), [0]);
    check_form(&chunks, 0, 0, false);
}

#[test]
fn a_count_is_one_chunk() {
    let chunks = Keys::new(100, 1).chunks(RangeRequest { count_only: true, limit: 3, ..everything() }, 1_000);
    assert_eq!(sizes(&chunks), [0]);
    check_form(&chunks, 0, 100, false);
}

#[test]
fn every_chunk_is_read_at_the_revision_of_the_first() {
    let keys = Keys::new(25, 1);
    let mut chunks = RangeChunks::new(everything(), 1_000_000);
    let mut last = None;
    while let Some(chunk) = chunks.next(|range, options| keys.read(range, options)).unwrap() {
        keys.revision.set(keys.revision.get() + 1);
        last = Some(chunk);
    }
    assert_eq!(revision(&last.unwrap()), Some(7));
    assert_eq!(keys.reads.take(), [(0, 11), (7, 21)]);
}

#[test]
fn a_revision_that_was_asked_for_stays_and_the_header_tells_the_present_one() {
    let keys = Keys::new(25, 1);
    let chunks = keys.chunks(RangeRequest { revision: 3, ..everything() }, 1_000_000);
    assert_eq!(revision(chunks.last().unwrap()), Some(7));
    assert!(keys.reads.take().iter().all(|(revision, _)| *revision == 3));
}

/// etcd 3.7.1 sends 66 keys for such 40, of which 39 differ.
#[test]
fn a_sort_target_without_an_order_neither_repeats_nor_loses_keys() {
    let request = RangeRequest { sort_target: SortTarget::Create as i32, ..everything() };
    let mut keys = Keys::new(40, 1);
    keys.created_backwards = true;
    check_form(&keys.chunks(request, 1_000_000), 40, 40, false);
}

#[test]
fn an_error_ends_the_stream() {
    let keys = Keys::new(25, 1);
    let mut chunks = RangeChunks::new(RangeRequest { revision: 9, ..everything() }, 1_000);
    assert!(matches!(chunks.next(|range, options| keys.read(range, options)), Err(ReadError::FutureRevision)));
    assert!(matches!(chunks.next(|range, options| keys.read(range, options)), Ok(None)));
}

#[test]
fn a_chunk_for_which_there_is_no_room_is_made_smaller() {
    let keys = Keys::new(40, 1);
    let mut chunks = RangeChunks::new(everything(), 1_000_000);
    let mut all = Vec::new();
    let mut refusals = 0;
    loop {
        // There is room for five keys, and for one more, by which it is seen that there are more.
        let read = |range: &KeyRange, options: &RangeOptions| {
            if options.limit > 6 { Err(ReadError::NoRoom) } else { keys.read(range, options) }
        };
        match chunks.next(read) {
            Ok(Some(chunk)) => all.push(chunk),
            Ok(None) => break,
            Err(ReadError::NoRoom) => {
                refusals += 1;
                assert!(chunks.halve());
            }
            Err(error) => panic!("{error}"),
        }
    }
    check_form(&all, 40, 40, false);
    assert_eq!(sizes(&all), [5; 8]);
    assert_eq!(refusals, 8, "each of them is tried again in the size that is aimed at");
    let mut chunks = RangeChunks::new(RangeRequest { limit: 1, ..everything() }, 1_000_000);
    assert!(matches!(chunks.next(|_, _| Err(ReadError::NoRoom)), Err(ReadError::NoRoom)));
    assert!(!chunks.halve(), "one key is the least");
    assert!(chunks.next(|range, options| keys.read(range, options)).unwrap().is_some(), "it has not ended");
}

/// The number of keys doubles while values are small; what comes behind them is large.
#[test]
fn chunks_are_bounded_whatever_comes_behind_small_values() {
    let mut writer = Writer::open(MemHome::new().open().unwrap(), 1 << 30).unwrap();
    let mut txn = writer.begin();
    for n in 0..600 {
        let len = if n < 310 { 1 } else { 64 * 1024 };
        txn.put(format!("k{n:04}").into(), vec![b'v'; len].into(), 0).unwrap();
    }
    txn.end();
    writer.commit().unwrap();
    let store = writer.store();
    let mut chunks = RangeChunks::new(everything(), 1_572_864);
    let (mut keys, mut largest, mut halved) = (0, 0, 0);
    loop {
        let most = chunks.bytes_max();
        match chunks.next(|range, options| store.range_within(range, options, &|bytes| bytes <= most)) {
            Ok(Some(chunk)) => {
                assert!(chunk.kvs.iter().zip(keys..).all(|(kv, n)| kv.key == format!("k{n:04}")), "behind {keys}");
                keys += chunk.kvs.len();
                largest = largest.max(chunk.encoded_len());
            }
            Ok(None) => break,
            Err(ReadError::NoRoom) => {
                halved += 1;
                assert!(chunks.halve());
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(keys, 600);
    assert!(largest as u64 <= RANGE_STREAM_BYTES_MAX && halved > 0, "{largest} bytes, made smaller {halved} times");
}

/// The same keys as one range has them, in the same order, from the real store, while it is written to.
#[test]
fn the_chunks_of_a_store_add_up_to_the_range() {
    let engine = MemHome::new().open().unwrap();
    let mut state = State::open(engine, StateOptions { cache_bytes: 1 << 20, newest_format: FORMAT }).unwrap();
    let mut put = |key: String, value: &str| {
        let request = PutRequest { key: key.into(), value: value.to_owned().into(), ..PutRequest::default() };
        apply(&mut state, &Origin::default(), &Kind::Put(request)).unwrap();
        state.commit(Bytes::new()).unwrap();
        state.store()
    };
    for n in 0..150 {
        put(format!("k{n:04}"), "before");
    }
    let store = put("k0000".to_owned(), "again");
    let whole = range_response(&everything(), |range, options| store.range(range, options)).unwrap();
    let mut chunks = RangeChunks::new(everything(), 1_000_000);
    let mut kvs = Vec::new();
    let mut last = RangeResponse::default();
    while let Some(chunk) = chunks.next(|range, options| store.range(range, options)).unwrap() {
        kvs.extend(chunk.kvs.iter().cloned());
        last = chunk;
        put(format!("k{:04}x", kvs.len()), "after");
        put("k0149".to_owned(), "after");
    }
    assert_eq!(kvs, whole.kvs);
    assert_eq!((last.header, last.count, last.more), (whole.header, 150, false));
}

/// As in etcd 3.7.1, which reads each chunk anew at the revision of the first: a stream keeps nothing
/// from being compacted, and ends with that refusal.
#[test]
fn a_compaction_between_two_chunks_refuses_the_second() {
    let engine = MemHome::new().open().unwrap();
    let mut state = State::open(engine, StateOptions { cache_bytes: 1 << 20, newest_format: FORMAT }).unwrap();
    let mut run = |kind: Kind| {
        apply(&mut state, &Origin::default(), &kind).unwrap();
        state.commit(Bytes::new()).unwrap();
        state.store()
    };
    let put = |n: i64| Kind::Put(PutRequest { key: format!("k{n:04}").into(), ..PutRequest::default() });
    for n in 0..30 {
        run(put(n));
    }
    let store = run(put(0));
    let revision = store.revision();
    for (compacted, is_refused) in [(revision, false), (revision + 1, true)] {
        let mut chunks = RangeChunks::new(everything(), 1_000_000);
        let mut next = || chunks.next(|range, options| store.range(range, &RangeOptions { revision, ..*options }));
        assert_eq!(next().unwrap().unwrap().kvs.len(), 10);
        run(put(1));
        run(Kind::Compaction(CompactionRequest { revision: compacted, physical: false }));
        match next() {
            Ok(Some(chunk)) => assert!(!is_refused && chunk.kvs.len() == 20),
            Err(ReadError::Compacted) => assert!(is_refused),
            other => panic!("{other:?}"),
        }
        assert!(!is_refused || next().unwrap().is_none(), "the refusal is the end");
    }
}
