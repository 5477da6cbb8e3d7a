//! What may wait for all streams of one client, and for all clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::admission::Identity;

/// The part of what its client has left that one stream may have. What is left gets smaller with each of them, so that
/// there is always something for the next one, however many there are.
const PART_OF_REST: usize = 8;

/// Such a part of it is for whoever needs it, so that clients have room though there are many of them.
const PART_FOR_ALL: usize = 4;

/// The clients that have streams.
pub(super) struct Allowances {
    /// For all clients together.
    total: usize,
    /// A leaf lock.
    clients: Mutex<BTreeMap<Arc<Identity>, Client>>,
    count: AtomicUsize,
    held: AtomicUsize,
}

struct Client {
    streams: usize,
    held: Arc<AtomicUsize>,
}

/// What a client may have, seen from one of its streams.
pub(super) struct Allowance {
    all: Arc<Allowances>,
    who: Arc<Identity>,
    held: Arc<AtomicUsize>,
}

impl Allowances {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, clients: Mutex::default(), count: AtomicUsize::new(0), held: AtomicUsize::new(0) })
    }

    /// For another stream of a client.
    pub(super) fn of(self: &Arc<Self>, who: &Arc<Identity>) -> Allowance {
        let mut clients = self.clients.lock();
        let client = clients.entry(Arc::clone(who)).or_insert_with(|| Client { streams: 0, held: Arc::default() });
        client.streams += 1;
        let held = Arc::clone(&client.held);
        self.count.store(clients.len(), Ordering::SeqCst);
        Allowance { all: Arc::clone(self), who: Arc::clone(who), held }
    }
}

impl Allowance {
    /// What the client has left: of its equal part, or of what is for all.
    pub(super) fn left(&self) -> usize {
        let all = &self.all;
        let share = all.total / all.count.load(Ordering::SeqCst).max(1);
        let own = share.saturating_sub(self.held.load(Ordering::SeqCst));
        own.max((all.total / PART_FOR_ALL).saturating_sub(all.held.load(Ordering::SeqCst)))
    }

    /// What one of its streams may have.
    pub(super) fn for_one_stream(&self) -> usize {
        self.left() / PART_OF_REST
    }

    pub(super) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
        self.all.held.fetch_add(bytes, Ordering::SeqCst);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        self.all.held.fetch_sub(bytes, Ordering::SeqCst);
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        let mut clients = self.all.clients.lock();
        let Some(client) = clients.get_mut(&self.who) else { return };
        client.streams -= 1;
        if client.streams == 0 {
            clients.remove(&self.who);
        }
        self.all.count.store(clients.len(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str) -> Arc<Identity> {
        Arc::new(Identity::User(name.to_owned()))
    }

    #[test]
    fn clients_have_equal_parts_while_they_have_streams() {
        let all = Allowances::new(1_000);
        let first = all.of(&client("alice"));
        assert_eq!((first.left(), first.for_one_stream()), (1_000, 125));
        let again = all.of(&client("alice"));
        again.take(300);
        assert_eq!((first.left(), first.for_one_stream()), (700, 87), "streams of a client share");
        let other = all.of(&client("bob"));
        assert_eq!((first.left(), other.left()), (200, 500));
        other.take(600);
        assert_eq!((first.left(), other.left()), (200, 0));
        again.give_back(300);
        drop(again);
        assert_eq!(first.left(), 500);
        drop(first);
        assert_eq!(other.left(), 400, "it is alone");
        other.give_back(600);
        drop(other);
        assert!(all.clients.lock().is_empty());
    }

    #[test]
    fn many_clients_have_room_while_little_is_held() {
        let all = Allowances::new(1_000);
        let clients: Vec<Allowance> = (0..100).map(|number| all.of(&client(&number.to_string()))).collect();
        assert_eq!(clients[0].left(), 250);
        clients[0].take(240);
        assert_eq!((clients[0].left(), clients[1].left()), (10, 10));
        clients[1].take(20);
        assert_eq!((clients[0].left(), clients[1].left(), clients[2].left()), (0, 0, 10));
    }

    #[test]
    fn streams_of_a_client_stay_within_its_part() {
        let all = Allowances::new(1_000_000);
        let streams: Vec<Allowance> = (0..1_000).map(|_| all.of(&client("alice"))).collect();
        for stream in &streams {
            let part = stream.for_one_stream();
            assert!(part > 0 || stream.left() < PART_OF_REST);
            stream.take(part);
        }
        assert!(streams.iter().all(|stream| stream.held.load(Ordering::SeqCst) <= 1_000_000));
    }
}
