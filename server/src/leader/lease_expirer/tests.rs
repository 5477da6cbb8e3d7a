#![cfg(not(madsim))] // they turn tokio's own clock

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::time::{advance, sleep};

use super::*;
use crate::lease::{Leases, Lessor, Remaining};

const ELECTION: Duration = Duration::from_secs(1);

/// How proposals end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proposals {
    /// They are applied, and reported to the expirer.
    Apply,
    /// They fail at once.
    Fail,
    /// They never end.
    Hang,
    /// They are refused because of the alarm.
    Corrupt,
}

/// An expirer over leases that proposals change as `apply` would.
struct Node {
    lessor: Lessor,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    leases: Arc<RwLock<Leases>>,
    lessor: Lessor,
    proposals: Mutex<Proposals>,
    log: Mutex<Vec<(u64, command::Kind)>>,
    /// The term in which the group would accept a proposal.
    term: Mutex<u64>,
}

impl Node {
    fn start() -> Self {
        let (lessor, inbox) = Lessor::channel();
        let shared = Arc::new(Shared {
            leases: Arc::default(),
            lessor: lessor.clone(),
            proposals: Mutex::new(Proposals::Apply),
            log: Mutex::default(),
            term: Mutex::new(1),
        });
        let group = shared.clone();
        let propose: ProposeAsLeader = Arc::new(move |term, command| Box::pin(group.clone().propose(term, command)));
        let view = LeaseView::new(shared.leases.clone());
        let task = spawn(inbox, view, propose, ExpirerOptions::new(ELECTION));
        Self { lessor, shared, task }
    }

    async fn leading() -> Self {
        let node = Self::start();
        node.lessor.leadership(true, 1).await;
        node
    }

    async fn grant(&self, id: i64, ttl: i64) {
        self.shared.leases.write().insert(id, ttl, 0);
        self.lessor.changed(vec![LeaseChange::Granted { id, ttl }]).await;
    }

    fn set(&self, proposals: Proposals) {
        *self.shared.proposals.lock() = proposals;
    }

    fn alive(&self) -> Vec<i64> {
        LeaseView::new(self.shared.leases.clone()).all()
    }

    fn stored_remaining(&self, id: i64) -> i64 {
        self.shared.leases.read().get(id).unwrap().remaining
    }

    fn proposed(&self) -> usize {
        self.shared.log.lock().len()
    }

    async fn left(&self, id: i64) -> Result<Option<i64>, NotPrimary> {
        Ok(self.lessor.remaining(id).await?.map(|remaining| remaining.ttl))
    }
}

impl Shared {
    async fn propose(self: Arc<Self>, term: u64, command: command::Kind) -> Result<Outcome, Unavailable> {
        self.log.lock().push((term, command.clone()));
        let proposals = *self.proposals.lock();
        match proposals {
            Proposals::Hang => std::future::pending().await,
            Proposals::Fail => return Err(Unavailable::Timeout),
            Proposals::Corrupt => {
                return Ok(Outcome { refusal: Refusal::Corrupt.into(), ..Outcome::default() });
            }
            Proposals::Apply => {}
        }
        if *self.term.lock() != term {
            return Err(Unavailable::NotLeader);
        }
        sleep(Duration::from_millis(10)).await;
        let (refusal, changes) = self.apply(command);
        self.lessor.changed(changes).await;
        Ok(Outcome { refusal: refusal.into(), ..Outcome::default() })
    }

    fn apply(&self, command: command::Kind) -> (Refusal, Vec<LeaseChange>) {
        let mut leases = self.leases.write();
        match command {
            command::Kind::LeaseRevoke(LeaseRevokeRequest { id }) => match leases.remove(id) {
                Some(_) => (Refusal::None, vec![LeaseChange::Revoked { id }]),
                None => (Refusal::LeaseNotFound, Vec::new()),
            },
            command::Kind::LeaseCheckpoint(request) => {
                let mut changes = Vec::new();
                for LeaseCheckpoint { id, remaining_ttl: remaining } in request.checkpoints {
                    if leases.checkpoint(id, remaining).is_some() {
                        changes.push(LeaseChange::Checkpointed { id, remaining });
                    }
                }
                (Refusal::None, changes)
            }
            other => panic!("an expirer proposes no {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_answers() {
    let node = Node::start();
    node.grant(1, 10).await;
    assert_eq!(node.lessor.renew(1).await, Err(NotPrimary));
    assert_eq!(node.left(1).await, Err(NotPrimary));
    assert_eq!(node.lessor.order().await, Err(NotPrimary));
    node.lessor.leadership(true, 1).await;
    assert_eq!(node.lessor.renew(1).await, Ok(10));
    node.lessor.leadership(false, 2).await;
    assert_eq!(node.lessor.renew(1).await, Err(NotPrimary));
    node.lessor.stop().await;
    node.task.await.unwrap();
    assert_eq!(node.lessor.renew(1).await, Err(NotPrimary));
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_when_its_time_is_over() {
    let node = Node::leading().await;
    node.grant(1, 2).await;
    node.grant(2, 5).await;
    assert_eq!(node.lessor.remaining(1).await, Ok(Some(Remaining { ttl: 2, granted_ttl: 2 })));
    sleep(Duration::from_millis(1_900)).await;
    assert_eq!(node.left(1).await, Ok(Some(0)));
    assert_eq!(node.alive(), [1, 2]);
    sleep(Duration::from_millis(700)).await;
    assert_eq!(node.alive(), [2]);
    assert_eq!(node.left(1).await, Ok(None));
    assert_eq!(node.lessor.renew(1).await, Ok(0));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(node.alive(), [] as [i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_renewed_lease_stays() {
    let node = Node::leading().await;
    node.grant(1, 2).await;
    for _ in 0..20 {
        sleep(Duration::from_millis(1_900)).await;
        assert_eq!(node.lessor.renew(1).await, Ok(2));
    }
    assert_eq!(node.proposed(), 0);
    assert_eq!(node.alive(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_ran_out_cannot_be_renewed() {
    let node = Node::leading().await;
    node.set(Proposals::Hang);
    node.grant(1, 2).await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(node.alive(), [1]);
    assert_eq!(node.lessor.renew(1).await, Ok(0));
    assert_eq!(node.left(1).await, Ok(Some(0)));
    assert_eq!(node.proposed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_revocation_is_tried_again() {
    for failure in [Proposals::Fail, Proposals::Corrupt] {
        let node = Node::leading().await;
        node.set(failure);
        node.grant(1, 2).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!((node.alive(), node.proposed()), (vec![1], 1));
        node.set(Proposals::Apply);
        sleep(Duration::from_secs(4)).await;
        assert_eq!((node.alive(), node.proposed()), (vec![], 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_gives_every_lease_its_time_and_more() {
    let node = Node::start();
    node.shared.leases.write().insert(1, 10, 0);
    node.shared.leases.write().insert(2, 1_000, 30);
    sleep(Duration::from_secs(60)).await;
    node.lessor.leadership(true, 1).await;
    assert_eq!(node.left(1).await, Ok(Some(11)));
    assert_eq!(node.left(2).await, Ok(Some(31)));
    assert_eq!(node.lessor.order().await, Ok(vec![1, 2]));
    sleep(Duration::from_secs(5)).await;
    // Told again, nothing changes; a new term begins anew.
    node.lessor.leadership(true, 1).await;
    assert_eq!(node.left(1).await, Ok(Some(6)));
    *node.shared.term.lock() = 2;
    node.lessor.leadership(true, 2).await;
    assert_eq!(node.left(1).await, Ok(Some(11)));
    sleep(Duration::from_secs(12)).await;
    assert_eq!(node.alive(), [2]);
    assert_eq!(node.shared.log.lock()[0].0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_revokes_nothing() {
    let node = Node::leading().await;
    node.grant(1, 2).await;
    *node.shared.term.lock() = 2;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.alive(), [1]);
    assert!(node.proposed() > 2);
    // And once it knows, it does not even try.
    node.lessor.leadership(false, 2).await;
    let proposed = node.proposed();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.proposed(), proposed);
}

#[tokio::test(start_paused = true)]
async fn leases_that_end_together_do_not_wait_for_rounds() {
    let node = Node::leading().await;
    let total = 3 * limits::LEASE_REVOKES_UNDER_WAY as i64;
    for id in 1..=total {
        node.grant(id, 2).await;
    }
    // Half a round after the one in which they ran out.
    sleep(Duration::from_millis(2_250)).await;
    assert_eq!(node.alive(), [] as [i64; 0]);
    assert_eq!(node.proposed() as i64, total, "each once");
}

#[tokio::test(start_paused = true)]
async fn where_revocations_fail_a_round_is_bounded() {
    let node = Node::leading().await;
    node.set(Proposals::Fail);
    for id in 1..=3 * limits::LEASE_REVOKES_UNDER_WAY as i64 {
        node.grant(id, 2).await;
    }
    sleep(Duration::from_millis(2_250)).await;
    for round in 1..=3 {
        assert_eq!(node.proposed(), round * limits::LEASE_REVOKES_UNDER_WAY);
        sleep(ROUND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn revocations_that_hang_do_not_pile_up() {
    let node = Node::leading().await;
    node.set(Proposals::Hang);
    for id in 1..=2 * limits::LEASE_REVOKES_UNDER_WAY as i64 {
        node.grant(id, 2).await;
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(node.proposed(), limits::LEASE_REVOKES_UNDER_WAY);
    // The inbox is served meanwhile.
    node.grant(5_000, 7).await;
    assert_eq!(node.lessor.renew(5_000).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn long_leases_survive_a_change_of_leader() {
    let node = Node::leading().await;
    node.grant(1, 1_000).await;
    node.grant(2, 200).await;
    sleep(Duration::from_secs(302)).await;
    assert_eq!(node.stored_remaining(1), 700);
    node.lessor.leadership(false, 2).await;
    *node.shared.term.lock() = 3;
    node.lessor.leadership(true, 3).await;
    assert_eq!(node.left(1).await, Ok(Some(701)));
    sleep(Duration::from_secs(302)).await;
    assert_eq!(node.stored_remaining(1), 401);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_waits_until_its_checkpoint_is_cleared() {
    let node = Node::leading().await;
    node.grant(1, 1_000).await;
    sleep(Duration::from_secs(302)).await;
    assert_eq!(node.stored_remaining(1), 700);
    assert_eq!(node.lessor.renew(1).await, Ok(1_000));
    assert_eq!(node.stored_remaining(1), 0);
    assert_eq!(node.left(1).await, Ok(Some(999)));
    // It takes one command, not one for each renewal.
    let proposed = node.proposed();
    assert_eq!(node.lessor.renew(1).await, Ok(1_000));
    assert_eq!(node.proposed(), proposed);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_checkpoint_stays_is_not_confirmed() {
    let node = Node::leading().await;
    node.grant(1, 1_000).await;
    sleep(Duration::from_secs(302)).await;
    node.set(Proposals::Fail);
    assert_eq!(node.lessor.renew(1).await, Err(NotPrimary));
    node.set(Proposals::Hang);
    let lessor = node.lessor.clone();
    let renewal = tokio::spawn(async move { lessor.renew(1).await });
    sleep(Duration::from_secs(1)).await;
    node.lessor.leadership(false, 2).await;
    assert_eq!(renewal.await.unwrap(), Err(NotPrimary));
}

#[tokio::test(start_paused = true)]
async fn renewals_of_checkpointed_leases_share_commands() {
    let node = Node::leading().await;
    for id in 1..=100 {
        node.grant(id, 1_000).await;
    }
    sleep(Duration::from_secs(302)).await;
    assert_eq!(node.proposed(), 1);
    let renewals: Vec<_> = (1..=100)
        .map(|id| {
            let lessor = node.lessor.clone();
            tokio::spawn(async move { lessor.renew(id).await })
        })
        .collect();
    for renewal in renewals {
        assert_eq!(renewal.await.unwrap(), Ok(1_000));
    }
    assert!((1..=100).all(|id| node.stored_remaining(id) == 0));
    assert_eq!(node.proposed(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_during_a_checkpoint_wins() {
    let node = Node::leading().await;
    node.grant(1, 1_000).await;
    // The round that proposes the checkpoint, but not yet its end.
    while node.proposed() == 0 {
        advance(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(node.stored_remaining(1), 0);
    assert_eq!(node.lessor.renew(1).await, Ok(1_000));
    assert_eq!(node.proposed(), 2);
    assert_eq!(node.stored_remaining(1), 0);
}

/// Grants, renewals, revocations by clients, leader changes and failures at random: a lease lives
/// as long as was promised, and not for ever.
#[tokio::test(start_paused = true)]
async fn no_lease_ends_before_its_promised_time() {
    for seed in 0..8 {
        let node = Node::leading().await;
        let mut random = seed * 7_919 + 1;
        let mut next = move |below: u64| {
            random =
                (random as u64).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) as i64;
            (random as u64 >> 33) % below
        };
        let mut promised: BTreeMap<i64, Instant> = BTreeMap::new();
        let mut revoked = BTreeSet::new();
        let mut term = 1;
        for _ in 0..200 {
            let id = 1 + next(20) as i64;
            match next(10) {
                0..3 => {
                    if !node.alive().contains(&id) {
                        let ttl = 2 + next(700) as i64;
                        node.grant(id, ttl).await;
                        promised.insert(id, Instant::now() + Duration::from_secs(ttl as u64));
                        revoked.remove(&id);
                    }
                }
                3..7 => {
                    let asked = Instant::now();
                    if let Ok(ttl @ 1..) = node.lessor.renew(id).await {
                        promised.insert(id, asked + Duration::from_secs(ttl as u64));
                    }
                }
                7 => {
                    if node.shared.leases.write().remove(id).is_some() {
                        node.lessor.changed(vec![LeaseChange::Revoked { id }]).await;
                        revoked.insert(id);
                    }
                }
                8 => {
                    term += 1;
                    *node.shared.term.lock() = term;
                    node.lessor.leadership(false, term).await;
                    node.lessor.leadership(true, term).await;
                }
                _ => node.set(if next(2) == 0 { Proposals::Fail } else { Proposals::Apply }),
            }
            sleep(Duration::from_millis(next(30_000))).await;
            let alive = node.alive();
            for (id, until) in &promised {
                let early = *until > Instant::now() && !alive.contains(id) && !revoked.contains(id);
                assert!(!early, "seed {seed}: lease {id} ended early");
            }
        }
        node.set(Proposals::Apply);
        // At most one election timeout, one round and one retry are added at the end.
        sleep(Duration::from_secs(720)).await;
        assert_eq!(node.alive(), [] as [i64; 0], "seed {seed}");
    }
}
