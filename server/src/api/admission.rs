//! What a request takes of the server's memory: what is reckoned when it comes, and what its answer turns out to take.

use std::borrow::Cow;
use std::cell::Cell;

use http::HeaderMap;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::request_op::Request;
use mainstay_proto::etcdserverpb::{DeleteRangeRequest, RangeRequest, TxnRequest};

use super::Access;
use super::rpc::Rpc;
use super::status::ApiError;
use crate::admission::{Entering, Gate, Hold, Identity, Origin, Refused};
use crate::apply::range_response;
use crate::limits;
use crate::mvcc::{RangeOptions, ReadError, Room, Store};

/// Deletions of no more keys than this are in what every request takes.
const FEW_KEYS: u64 = 16;

/// Lets a request in, or says what it has to wait for.
pub(super) fn enter(gate: &Gate, rpc: &Rpc, origin: &Origin) -> Result<(Hold, Option<Entering>), ApiError> {
    let bytes = if rpc.kind.is_stream() { limits::STREAM_BYTES } else { limits::UNARY_BYTES };
    Ok(gate.enter(rpc.traffic, origin, bytes)?)
}

/// Who sends a request, as far as its share goes: a user with a token that counts, or else what the connection tells.
pub(super) fn origin<'a>(access: &Access, headers: &HeaderMap, origin: &'a Origin) -> Cow<'a, Origin> {
    match access.bearer(headers) {
        Some(user) => Cow::Owned(Origin { caller: Identity::User(user).into(), is_json: origin.is_json }),
        None => Cow::Borrowed(origin),
    }
}

/// Makes an answer of which only the making shows what it takes. It is stopped where there is no room for it in the
/// middle, gives back what it has, and begins anew once there is room for twice as much. One that turns out to be long is
/// made [aside](within_room_aside).
pub(super) async fn within_room<T: Send + 'static, F>(
    hold: &Hold,
    mut make: impl FnMut(Room<'_>) -> Result<T, ReadError>,
    aside: impl FnOnce() -> F,
) -> Result<T, ReadError>
where
    F: Fn(Room<'_>) -> Result<T, ReadError> + Clone + Send + 'static,
{
    loop {
        let (wanted, is_long) = (Cell::new(0), Cell::new(false));
        let made = make(&|bytes| {
            wanted.set(bytes);
            is_long.set(bytes > limits::READ_HERE_BYTES);
            !is_long.get() && hold.reads(bytes)
        });
        if !matches!(made, Err(ReadError::NoRoom)) {
            return made;
        }
        if is_long.get() {
            hold.forget_answer();
            return within_room_aside(hold, aside()).await;
        }
        hold.make_room(2 * wanted.get()).await.map_err(|Refused| ReadError::NoRoom)?;
    }
}

/// The same for an answer that takes long to make: others of its thread do not wait for it.
pub(super) async fn within_room_aside<T: Send + 'static>(
    hold: &Hold,
    make: impl Fn(Room<'_>) -> Result<T, ReadError> + Clone + Send + 'static,
) -> Result<T, ReadError> {
    loop {
        let (held, make) = (hold.clone(), make.clone());
        let read = move || {
            let wanted = Cell::new(0);
            let made = make(&|bytes| {
                wanted.set(bytes);
                held.reads(bytes)
            });
            (made, wanted.get())
        };
        let (made, wanted) = hold.turn().await.aside(read).await;
        if !matches!(made, Err(ReadError::NoRoom)) {
            return made;
        }
        hold.make_room(2 * wanted).await.map_err(|Refused| ReadError::NoRoom)?;
    }
}

/// Waits for room for what a transaction that writes is going to read and delete. What it answers is made when it is
/// applied, where nothing can be refused any more.
pub(super) async fn room_for_txn(store: &Store, hold: &Hold, request: &TxnRequest) -> Result<(), ApiError> {
    room_for(store, hold, request, |footprint, request| footprint.txn(request)).await
}

/// Waits for room for what a deletion is going to delete.
pub(super) async fn room_for_deletion(
    store: &Store,
    hold: &Hold,
    request: &DeleteRangeRequest,
) -> Result<(), ApiError> {
    room_for(store, hold, request, |footprint, request| footprint.deletion(request)).await
}

async fn room_for<R: Clone + Send + 'static>(
    store: &Store,
    hold: &Hold,
    request: &R,
    measure: impl Fn(Footprint<'_>, &R) -> Result<(), ReadError> + Copy + Send + 'static,
) -> Result<(), ApiError> {
    if !hold.counts() {
        return Ok(());
    }
    let is_strict = hold.is_strict();
    let aside = || {
        let (store, request) = (store.clone(), request.clone());
        move |room: Room<'_>| measure(Footprint { store: &store, is_strict, room, read: 0 }, &request)
    };
    let here = |room: Room<'_>| measure(Footprint { store, is_strict, room, read: 0 }, request);
    Ok(within_room(hold, here, aside).await.map_err(|_| Refused)?)
}

/// Finds out what operations take before they are carried out.
struct Footprint<'a> {
    store: &'a Store,
    /// Whether reads of single keys are worth a look, too.
    is_strict: bool,
    room: Room<'a>,
    read: u64,
}

impl Footprint<'_> {
    /// Both branches, since it is not known which of them is taken.
    fn txn(mut self, request: &TxnRequest) -> Result<(), ReadError> {
        self.operations(request)
    }

    fn operations(&mut self, request: &TxnRequest) -> Result<(), ReadError> {
        for operation in request.success.iter().chain(&request.failure) {
            match &operation.request {
                Some(Request::RequestRange(range)) => self.range(range)?,
                Some(Request::RequestDeleteRange(deletion)) => self.keys(deletion)?,
                Some(Request::RequestTxn(nested)) => self.operations(nested)?,
                Some(Request::RequestPut(_)) | None => {}
            }
        }
        Ok(())
    }

    fn deletion(mut self, request: &DeleteRangeRequest) -> Result<(), ReadError> {
        self.keys(request)
    }

    fn keys(&mut self, request: &DeleteRangeRequest) -> Result<(), ReadError> {
        if request.range_end.is_empty() {
            return Ok(());
        }
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let options = RangeOptions { count_only: true, ..RangeOptions::default() };
        // What is wrong with the store is told when it is applied.
        let count = self.store.range(&range, &options).map_or(0, |found| found.count.unsigned_abs());
        if count > FEW_KEYS {
            self.read += count * limits::DELETION_BYTES / limits::READ_COPIES;
            if !(self.room)(self.read) {
                return Err(ReadError::NoRoom);
            }
        }
        let before =
            RangeRequest { key: request.key.clone(), range_end: request.range_end.clone(), ..RangeRequest::default() };
        if request.prev_kv { self.range(&before) } else { Ok(()) }
    }

    fn range(&mut self, request: &RangeRequest) -> Result<(), ReadError> {
        let is_long = !request.range_end.is_empty() && request.limit <= 0;
        if request.count_only || !(is_long || self.is_strict) {
            return Ok(());
        }
        let (before, now) = (self.read, Cell::new(0));
        let room = |bytes: u64| {
            now.set(bytes);
            (self.room)(before + bytes)
        };
        let read = range_response(request, |range, options| self.store.range_within(range, options, &room));
        self.read += now.get();
        match read {
            Err(ReadError::NoRoom) => Err(ReadError::NoRoom),
            // What else is wrong with it is told when it is applied.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use mainstay_proto::etcdserverpb::{PutRequest, RequestOp};
    use parking_lot::Mutex;

    use super::*;
    use crate::admission::{GateOptions, Traffic};
    use crate::engine::EngineHome;
    use crate::engine::mem::MemHome;
    use crate::metrics::Metrics;
    use crate::mvcc::Writer;

    const POOL: u64 = 1 << 20;

    /// A store with 100 keys of 1,000 bytes.
    fn store() -> Store {
        let mut writer = Writer::open(MemHome::new().open().unwrap(), 1 << 20).unwrap();
        let mut txn = writer.begin();
        for key in 0..100 {
            txn.put(format!("k{key:02}").into(), vec![0; 1000].into(), 0).unwrap();
        }
        txn.end();
        writer.commit().unwrap();
        writer.store()
    }

    fn gate(is_strict: bool) -> Gate {
        let long_reads = is_strict.then_some(2);
        Gate::new(GateOptions { pool: POOL, reserve: POOL / 16, long_reads }, &Metrics::new())
    }

    fn hold(gate: &Gate, traffic: Traffic) -> Hold {
        gate.enter_now(traffic, &Origin::default(), 0).unwrap()
    }

    fn everything() -> RangeRequest {
        RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() }
    }

    fn deletion(prev_kv: bool) -> DeleteRangeRequest {
        DeleteRangeRequest { key: "k".into(), range_end: "l".into(), prev_kv }
    }

    fn txn(success: Vec<Request>, failure: Vec<Request>) -> TxnRequest {
        let operations =
            |requests: Vec<Request>| requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
        TxnRequest { success: operations(success), failure: operations(failure), ..TxnRequest::default() }
    }

    /// How many of ten reads are aside at once, where none ends before it was looked.
    async fn aside_at_once(is_strict: bool) -> usize {
        let (gate, under_way) = (gate(is_strict), Arc::new(AtomicUsize::new(0)));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let holds: Vec<Hold> = (0..10).map(|_| hold(&gate, Traffic::Ordinary)).collect();
        let reads = join_all(holds.iter().map(|hold| {
            let (under_way, released) = (under_way.clone(), released.clone());
            within_room_aside(hold, move |_: Room<'_>| {
                under_way.fetch_add(1, Ordering::Relaxed);
                // Until it may, or nobody looks any more.
                released.lock().recv().ok();
                Ok(())
            })
        }));
        let begun = std::time::Instant::now();
        let most = if is_strict { 2 } else { 10 };
        let look = async {
            while under_way.load(Ordering::Relaxed) < most && begun.elapsed() < Duration::from_secs(30) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            let at_once = under_way.load(Ordering::Relaxed);
            drop(release);
            at_once
        };
        let (reads, at_once) = tokio::join!(reads, look);
        reads.into_iter().for_each(|read| read.unwrap());
        assert_eq!(under_way.load(Ordering::Relaxed), 10, "each has its turn");
        at_once
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_memory_is_limited_few_read_for_long_at_once() {
        assert_eq!(aside_at_once(true).await, 2);
        assert_eq!(aside_at_once(false).await, 10);
    }

    async fn taken_by(is_strict: bool, request: &TxnRequest) -> u64 {
        let gate = gate(is_strict);
        let hold = hold(&gate, Traffic::Ordinary);
        room_for_txn(&store(), &hold, request).await.unwrap();
        gate.numbers().held
    }

    #[tokio::test]
    async fn what_a_transaction_reads_has_room_before_it_is_proposed() {
        let all = taken_by(false, &txn(vec![Request::RequestRange(everything())], vec![])).await;
        assert!((200_000..300_000).contains(&all), "{all}: 100 records, twice");
        let nested = txn(vec![], vec![Request::RequestRange(everything())]);
        let both = txn(vec![Request::RequestRange(everything())], vec![Request::RequestTxn(nested)]);
        assert_eq!(taken_by(false, &both).await, 2 * all, "either branch may be taken");
        let put = PutRequest { key: "k".into(), ..PutRequest::default() };
        let counts = RangeRequest { count_only: true, ..everything() };
        assert_eq!(
            taken_by(true, &txn(vec![Request::RequestPut(put), Request::RequestRange(counts)], vec![])).await,
            0
        );
        let none = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        let none = txn(vec![Request::RequestRange(none)], vec![]);
        assert_eq!(taken_by(true, &none).await, 0, "there is no such key");
        let one = RangeRequest { key: "k07".into(), ..RangeRequest::default() };
        let one = txn(vec![Request::RequestRange(one)], vec![]);
        assert_eq!(taken_by(false, &one).await, 0);
        assert_eq!(taken_by(true, &one).await, all / 100);
    }

    #[tokio::test]
    async fn deletions_take_what_they_write_and_what_they_answer() {
        let deleting = async |prev_kv| {
            let gate = gate(false);
            let hold = hold(&gate, Traffic::Relief);
            room_for_deletion(&store(), &hold, &deletion(prev_kv)).await.unwrap();
            gate.numbers().held
        };
        let keys = deleting(false).await;
        assert_eq!(keys, 100 * limits::DELETION_BYTES);
        assert!(deleting(true).await > keys + 200_000);
        let deleted = txn(vec![Request::RequestDeleteRange(deletion(false))], vec![]);
        assert_eq!(taken_by(false, &deleted).await, keys);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_have_room_is_refused() {
        let gate = gate(false);
        let other = gate.enter_now(Traffic::Ordinary, &Origin::default(), POOL * 7 / 8).unwrap();
        let hold = hold(&gate, Traffic::Ordinary);
        let request = txn(vec![Request::RequestRange(everything())], vec![]);
        assert_eq!(room_for_txn(&store(), &hold, &request).await, Err(ApiError::TooManyRequests));
        assert_eq!(gate.numbers().held, POOL * 7 / 8, "it holds nothing any more");
        drop(other);
        assert_eq!(room_for_txn(&store(), &hold, &request).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_stopped_begins_anew() {
        let gate = gate(false);
        let other = gate.enter_now(Traffic::Ordinary, &Origin::default(), POOL * 7 / 8).unwrap();
        let hold = hold(&gate, Traffic::Ordinary);
        let mut attempts = 0;
        let here = |room: Room<'_>| {
            attempts += 1;
            for bytes in [1000, 20_000, 50_000] {
                if !room(bytes) {
                    return Err(ReadError::NoRoom);
                }
            }
            Ok("made")
        };
        let answer = within_room(&hold, here, || |_: Room<'_>| unreachable!("it is not long"));
        let (answer, ()) = tokio::join!(answer, async {
            tokio::task::yield_now().await;
            drop(other);
        });
        assert_eq!(answer.unwrap(), "made");
        assert_eq!(attempts, 2);
        assert_eq!(gate.numbers().held, 2 * 50_000);
    }

    #[tokio::test]
    async fn an_answer_that_turns_out_long_is_made_aside() {
        let gate = Gate::new(GateOptions { pool: 1 << 30, reserve: 1 << 20, long_reads: None }, &Metrics::new());
        let hold = hold(&gate, Traffic::Ordinary);
        let make = |room: Room<'_>| {
            let sizes = [1, limits::READ_HERE_BYTES, limits::READ_HERE_BYTES + 1, 3 * limits::READ_HERE_BYTES];
            let fits = sizes.into_iter().all(room);
            fits.then(|| std::thread::current().id()).ok_or(ReadError::NoRoom)
        };
        let made = within_room(&hold, make, || make).await.unwrap();
        assert_ne!(made, std::thread::current().id());
        assert_eq!(gate.numbers().held, 2 * 3 * limits::READ_HERE_BYTES, "what was begun here counts no more");
    }
}
