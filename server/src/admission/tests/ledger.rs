use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn client(number: u8) -> Arc<Identity> {
    Arc::new(Identity::Address(IpAddr::from([10, 0, 0, number])))
}

#[test]
fn half_of_the_pool_is_for_whoever_comes_first() {
    let (mut ledger, one, other) = (Ledger::new(1024), client(1), client(2));
    assert!(ledger.take(&other, 12));
    assert!(ledger.take(&one, 500));
    assert!(!ledger.take(&one, 13), "that is more than half, and more than its share");
    assert!(ledger.take(&one, 12), "its share is half");
    assert!(ledger.take(&other, 372), "up to seven eighths");
    assert!(!ledger.take(&other, 100));
    assert_eq!(ledger.held(), 896);
}

#[test]
fn who_is_alone_has_all_but_what_is_kept() {
    let (mut ledger, one) = (Ledger::new(1024), client(1));
    assert_eq!(ledger.most(), 896);
    assert!(!ledger.take(&one, 897));
    assert!(ledger.take(&one, 896));
    assert!(!ledger.take(&one, 1));
}

#[test]
fn who_comes_late_finds_room_though_nobody_gives_any_back() {
    let mut ledger = Ledger::new(1024);
    for number in 1..=4 {
        let greedy = client(number);
        while ledger.take(&greedy, 16) {}
    }
    assert_eq!(ledger.held(), 896 + 3 * 16);
    let (late, later) = (client(5), client(6));
    assert!(ledger.take(&late, 8) && ledger.take(&late, 8));
    assert!(!ledger.take(&late, 8), "a sixty-fourth is little, more is not");
    assert!(ledger.take(&later, 16));
}

#[test]
fn shares_fall_as_others_come() {
    let (mut ledger, one, other, third) = (Ledger::new(1200), client(1), client(2), client(3));
    assert!(ledger.take(&one, 700), "it is alone");
    assert!(ledger.take(&other, 300));
    assert!(!ledger.take(&one, 1), "it has more than half");
    ledger.give_back(&one, 400);
    assert!(ledger.take(&third, 300));
    assert!(!ledger.take(&other, 101), "its share is a third");
    assert!(ledger.take(&other, 100));
    assert!(!ledger.take(&third, 51), "there is no room, whatever its share");
}

#[test]
fn those_who_wait_are_served_in_turn() {
    let (mut ledger, one, other) = (Ledger::new(1024), client(1), client(2));
    assert!(ledger.take(&one, 800));
    let first: Vec<Ticket> = (0..3).map(|_| ledger.queue(&one, 100)).collect();
    let second: Vec<Ticket> = (0..2).map(|_| ledger.queue(&other, 200)).collect();
    assert_eq!(ledger.waiting(), 5);
    assert!(ledger.grant().is_empty());
    ledger.give_back(&one, 100);
    assert!(ledger.grant().is_empty(), "one has more than its share, and for the other there is no room");
    ledger.give_back(&one, 100);
    assert_eq!(ledger.grant(), [second[0]]);
    ledger.give_back(&one, 600);
    assert_eq!(ledger.grant(), [first[0], second[1], first[1], first[2]], "by clients, and each in its order");
    assert_eq!((ledger.waiting(), ledger.held()), (0, 700));
}

#[test]
fn nobody_overtakes_its_own_requests_in_the_queue() {
    let (mut ledger, one, other) = (Ledger::new(1024), client(1), client(2));
    assert!(ledger.take(&other, 300));
    let ticket = ledger.queue(&one, 700);
    assert!(!ledger.take(&one, 1), "an earlier one waits");
    assert!(ledger.grow(&one, 1), "this is under way");
    assert!(ledger.take(&other, 1), "another client does not wait for it");
    assert!(ledger.give_up(&one, ticket));
    assert!(!ledger.give_up(&one, ticket), "it is gone");
    assert!(ledger.take(&one, 1));
}

#[test]
fn a_pool_may_become_smaller_than_what_is_held() {
    let (mut ledger, one) = (Ledger::new(1024), client(1));
    assert!(ledger.take(&one, 600));
    ledger.set_capacity(512);
    assert!(!ledger.take(&one, 1));
    ledger.give_back(&one, 600);
    assert!(ledger.take(&one, 256));
    assert_eq!((ledger.capacity(), ledger.held()), (512, 256));
}

/// What may happen to the books.
#[derive(Clone, Debug)]
enum Act {
    Take(u8, u64),
    Queue(u8, u64),
    /// The one at this place of those that hold something.
    GiveBack(usize),
    /// The one at this place of those that wait.
    GiveUp(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let (who, bytes) = (0..5u8, 1..400u64);
    prop_oneof![
        3 => (who.clone(), bytes.clone()).prop_map(|(who, bytes)| Act::Take(who, bytes)),
        2 => (who, bytes).prop_map(|(who, bytes)| Act::Queue(who, bytes)),
        4 => any::<usize>().prop_map(Act::GiveBack),
        1 => any::<usize>().prop_map(Act::GiveUp),
    ]
}

/// The books, and what they should say.
#[derive(Default)]
struct Model {
    held: Vec<(u8, u64)>,
    waiting: Vec<(u8, Ticket, u64)>,
}

impl Model {
    fn of(&self, who: u8) -> u64 {
        self.held.iter().filter(|(other, _)| *other == who).map(|(_, bytes)| bytes).sum()
    }

    fn total(&self) -> u64 {
        self.held.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Whether somebody who has just got something may have it.
    fn allows(&self, who: u8, capacity: u64, clients: u64) -> bool {
        let (total, own) = (self.total(), self.of(who));
        total <= capacity / 2
            || (total <= capacity - capacity / KEPT && own <= capacity / clients)
            || (total <= capacity && own <= capacity / LITTLE)
    }

    fn clients(&self) -> u64 {
        let all = self.held.iter().map(|(who, _)| who).chain(self.waiting.iter().map(|(who, ..)| who));
        all.collect::<std::collections::BTreeSet<_>>().len() as u64
    }

    /// Notes who got what it waited for, which must have been the first of its client.
    fn granted(&mut self, tickets: Vec<Ticket>, capacity: u64) {
        for ticket in tickets {
            let place = self.waiting.iter().position(|(_, other, _)| *other == ticket).expect("who got it waits");
            let (who, _, bytes) = self.waiting[place];
            assert!(!self.waiting[..place].iter().any(|(other, ..)| *other == who), "it overtook another of its own");
            let clients = self.clients();
            self.waiting.remove(place);
            self.held.push((who, bytes));
            assert!(self.allows(who, capacity, clients), "{who} got {bytes}: {:?}", self.held);
        }
    }
}

proptest! {
    #[test]
    fn the_books_are_right(acts in prop::collection::vec(act(), 1..200)) {
        const CAPACITY: u64 = 1000;
        let (mut ledger, mut model) = (Ledger::new(CAPACITY), Model::default());
        for act in acts {
            match act {
                Act::Take(who, bytes) => {
                    let waits = model.waiting.iter().any(|(other, ..)| *other == who);
                    if ledger.take(&client(who), bytes) {
                        prop_assert!(!waits);
                        model.held.push((who, bytes));
                        prop_assert!(model.allows(who, CAPACITY, model.clients()));
                    }
                }
                Act::Queue(who, bytes) => {
                    let ticket = ledger.queue(&client(who), bytes);
                    model.waiting.push((who, ticket, bytes));
                    let granted = ledger.grant();
                    model.granted(granted, CAPACITY);
                }
                Act::GiveBack(place) if !model.held.is_empty() => {
                    let (who, bytes) = model.held.remove(place % model.held.len());
                    ledger.give_back(&client(who), bytes);
                    let granted = ledger.grant();
                    model.granted(granted, CAPACITY);
                }
                Act::GiveUp(place) if !model.waiting.is_empty() => {
                    let (who, ticket, _) = model.waiting.remove(place % model.waiting.len());
                    prop_assert!(ledger.give_up(&client(who), ticket));
                    let granted = ledger.grant();
                    model.granted(granted, CAPACITY);
                }
                Act::GiveBack(_) | Act::GiveUp(_) => {}
            }
            prop_assert_eq!((ledger.held(), ledger.waiting()), (model.total(), model.waiting.len()));
            prop_assert!(ledger.held() <= CAPACITY);
        }
        // Once all give back, all are served, and nothing is left.
        while let Some((who, bytes)) = model.held.pop() {
            ledger.give_back(&client(who), bytes);
            let granted = ledger.grant();
            model.granted(granted, CAPACITY);
        }
        prop_assert_eq!((ledger.held(), ledger.waiting(), ledger.accounts.len()), (0, 0, 0));
    }
}
