//! Who is refused is told why, and it is so; and what must be refused is.

use std::time::Duration;

use super::Bounds;
use super::space::{Space, cost};
use super::text::told;
use super::window::Window;
use crate::history::{Call, Disturbance, Effect, History, MemberCall, Operation, Outcome, Step, Txn};
use crate::model::{DUPLICATE_KEY, LEASE_PROVIDED, NO_SPACE, Truth, VALUE_PROVIDED, always_refused, evaluate};

const KEY_NOT_FOUND: &str = "etcdserver: key not found";
const LEASE_EXISTS: &str = "etcdserver: lease already exists";
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";

/// What is refused because of who was asked and when, not because of what was asked. (Most that is
/// unavailable leaves it open whether the call has happened, and is no refusal.)
const UNAVAILABLE: [&str; 4] =
    ["etcdserver: too many requests", "etcdserver: not capable", "etcdserver: not leader", NO_CONNECTION];
const NO_CONNECTION: &str = "no connection: ";
/// What is told to users who may not do what they ask for, or are not who they say.
const OF_USERS: [&str; 5] = [
    "etcdserver: permission denied",
    "etcdserver: authentication failed, invalid user ID or password",
    NAMELESS[0],
    NAMELESS[1],
    NAMELESS[2],
];
/// What is told to who has to log in first, or again.
const NAMELESS: [&str; 3] =
    ["etcdserver: user name is empty", "etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];
/// What is told about locks and elections that others hold, or nobody.
const OF_HOLDERS: [&str; 2] = ["election: not leader", "election: no leader"];
/// So much of its time a lease certainly lives; how much exactly `leases` judges.
const TOLERANCE: f64 = 0.9;
/// What a member may be lost by, so that it never serves again.
const LOST_BY: [&str; 5] = ["rot", "wipe", "spare", "member-remove", "member-replace"];
/// What is told by a member whose state differs from the others'.
pub(super) const CORRUPT: &str = "etcdserver: corrupt cluster";
/// What is told by a member that has no vote.
pub(super) const LEARNER: &str = "etcdserver: rpc not supported for learner";

/// Checks of every refusal that what it says is so, in some state that the call may have met; that a
/// member was not able to serve only during a disturbance or until the cluster is to serve again, or
/// for good where it may be lost; that nobody was refused for space who takes none, or where the quota cannot
/// have been used up; and that nobody was refused with any other text. And that no id was granted again while its
/// lease lived.
///
/// What a renewal promises `leases.rs` judges, what was compacted `compaction.rs`. What else must be refused
/// `serializable.rs` finds in the answer.
pub fn check(history: &History, truth: &Truth, bounds: &Bounds) -> Result<(), String> {
    let (window, space) = (Window::of(history, truth), Space::of(history, truth));
    let run = Run { history, truth, bounds, window, space };
    for operation in &history.operations {
        match &operation.outcome {
            // What a server would have done by itself, and did not: nobody was told.
            Outcome::Refused(text) if text.is_empty() && operation.ended == Duration::MAX => {}
            Outcome::Refused(text) => run.refused(operation, text)?,
            Outcome::Done(_) => run.granted(operation)?,
            Outcome::Unknown(_) => {}
        }
    }
    Ok(())
}

/// Whether a refusal says that the member was not able to serve, whatever was asked.
pub fn is_unavailability(text: &str) -> bool {
    UNAVAILABLE.iter().any(|known| text.starts_with(known))
}

/// Whether a text tells a client to log in, in a world where that may be asked of it.
pub fn asks_for_a_name(history: &History, text: &str) -> bool {
    NAMELESS.iter().any(|known| text.ends_with(known)) && history.has_users()
}

/// Whether a call found nobody at the one member that it asked, where that may be lost for good.
pub fn asked_the_lost(history: &History, operation: &Operation) -> bool {
    let found_nobody = matches!(&operation.outcome, Outcome::Refused(text) if text.starts_with(NO_CONNECTION));
    let mut losses = history.disturbances.iter().filter(|it| LOST_BY.contains(&it.what.as_str()));
    found_nobody && operation.member.is_some() && losses.any(|it| it.from <= operation.ended)
}

/// Whether some member may have been out of service by some time.
pub fn may_meet_the_corrupt(history: &History, by: Duration) -> bool {
    history.disturbances.iter().any(|it| it.what == "corrupt" && it.from <= by)
}

/// Whether there may have been a learner by some time.
pub fn may_meet_a_learner(history: &History, by: Duration) -> bool {
    let adds = |it: &&Operation| matches!(it.call, Call::Member(MemberCall::Add { learner: true, .. }));
    history.operations.iter().filter(adds).any(|it| it.began <= by)
}

struct Run<'a> {
    history: &'a History,
    truth: &'a Truth,
    bounds: &'a Bounds,
    window: Window,
    space: Option<Space>,
}

impl Run<'_> {
    fn refused(&self, operation: &Operation, text: &str) -> Result<(), String> {
        // Where there are users, `permissions.rs` judges what those are told who may not.
        // What is told of members `membership.rs` judges.
        if matches!(operation.call, Call::Auth(_) | Call::Member(_))
            || (OF_USERS.iter().any(|known| text.ends_with(known)) && self.history.has_users())
        {
            return Ok(());
        }
        let why = match (text, &operation.call) {
            (DUPLICATE_KEY | VALUE_PROVIDED | LEASE_PROVIDED, Call::Txn(txn)) => {
                (always_refused(txn) != Some(text)).then(|| "there is nothing of that kind in it".to_owned())
            }
            (text, _) if text.ends_with(LEARNER) => {
                (!may_meet_a_learner(self.history, operation.ended)).then(|| "there was no learner".to_owned())
            }
            (text, _) if text.ends_with(CORRUPT) => {
                // Whoever may ask others asks them.
                let may_be = operation.member.is_some() || self.is_disturbed(operation);
                let is_one = may_be && may_meet_the_corrupt(self.history, operation.ended);
                (!is_one).then(|| "no member that it asked can have been out of service".to_owned())
            }
            (KEY_NOT_FOUND, Call::Txn(txn)) => self.no_key_is_missing(operation, txn),
            (LEASE_EXISTS, Call::LeaseGrant { .. }) => self.does_not_exist(operation),
            (LEASE_NOT_FOUND, Call::LeaseRevoke { id }) => self.no_lease_is_gone(operation, &[*id]),
            (LEASE_NOT_FOUND, Call::Txn(txn)) => self.no_lease_is_gone(operation, &named(txn)),
            // A lock and an election need a lease that lives; the rest is about who holds them (`campaigns.rs`).
            (text, Call::Held(_)) if text.ends_with(LEASE_NOT_FOUND) => None,
            (text, Call::Held(_)) if OF_HOLDERS.iter().any(|known| text.ends_with(known)) => None,
            (COMPACTED, Call::Txn(_) | Call::Compact { .. }) => None,
            (FUTURE_REVISION, call) => self.is_past(operation, call),
            (text, _) if text.ends_with(NO_SPACE) => self.has_room(operation),
            (text, _) if is_unavailability(text) => {
                let is_excused = self.is_disturbed(operation) || asked_the_lost(self.history, operation);
                (!is_excused).then(|| "all was quiet, and had been for long enough".to_owned())
            }
            _ => Some("nobody may be refused so".to_owned()),
        };
        match why {
            Some(why) => Err(format!("refused, but {why}: {}", told(operation))),
            None => Ok(()),
        }
    }

    /// Why no key that is to be left as it is can have been missing.
    fn no_key_is_missing(&self, operation: &Operation, txn: &Txn) -> Option<String> {
        let (first, last) = self.window.states(operation);
        let is_missing = |revision| evaluate(&self.truth.versions, txn, revision).refused;
        let is_explained = !self.truth.knows_state(last) || (first..=last).any(is_missing);
        (!is_explained).then(|| format!("from revision {first} to {last} no key that it amends was missing"))
    }

    /// Why none of these leases can have been gone.
    fn no_lease_is_gone(&self, operation: &Operation, leases: &[i64]) -> Option<String> {
        let may_be_gone = |id: &i64| self.surely_lives(*id, operation).is_none();
        (!leases.iter().any(may_be_gone)).then(|| format!("of the leases {leases:?} none was gone"))
    }

    /// Why the lease that was asked for cannot have been there.
    fn does_not_exist(&self, operation: &Operation) -> Option<String> {
        let id = operation.granted()?;
        let has_happened = |it: &&Operation| !matches!(it.outcome, Outcome::Refused(_));
        let grants = self.history.operations.iter().filter(|it| it.granted() == Some(id)).filter(has_happened);
        let revokes = || {
            let of = |it: &&Operation| matches!(it.call, Call::LeaseRevoke { id: revoked } if revoked == id);
            self.history.operations.iter().filter(of).filter(|it| matches!(it.outcome, Outcome::Done(_)))
        };
        let may_live = |grant: &Operation| {
            let is_over = |revoke: &Operation| grant.ended <= revoke.began && revoke.ended < operation.began;
            grant.began <= operation.ended && !revokes().any(is_over)
        };
        let mut grants = grants.filter(|grant| may_live(grant));
        grants.next().is_none().then(|| format!("nobody can have been granted lease {id}, or it was revoked"))
    }

    /// Why what was asked for by its revision was there.
    fn is_past(&self, operation: &Operation, call: &Call) -> Option<String> {
        let (asked, may_be_stale) = match call {
            Call::Compact { revision, .. } => (*revision, false),
            Call::Txn(txn) => (latest(txn), txn.may_be_stale()),
            _ => (0, false),
        };
        let known = if may_be_stale { 0 } else { self.window.known_before(operation.began) };
        (asked <= known).then(|| format!("revision {known} was known, and it asks for {asked} at most"))
    }

    /// Why there was room for what was asked for: the quota cannot have been used up by then, by whatever was written
    /// and never compacted. Or it takes none.
    fn has_room(&self, operation: &Operation) -> Option<String> {
        let Some(space) = &self.space else { return Some("there is no quota".to_owned()) };
        if cost(&operation.call) == 0 {
            return Some("it takes no room".to_owned());
        }
        let (_, last) = self.window.states(operation);
        let most = space.asked_for(last);
        let is_explained = !self.truth.knows_state(last) || most >= space.quota;
        (!is_explained).then(|| format!("of the quota of {} bytes {most} were asked for at most", space.quota))
    }

    fn is_disturbed(&self, operation: &Operation) -> bool {
        let recovery = self.bounds.recovery;
        // A cluster first has to elect.
        let begins = operation.began <= recovery;
        let touches = |from, until: Duration| from <= operation.ended && operation.began <= until + recovery;
        begins || self.history.disturbances.iter().any(|it| touches(it.from, it.until))
    }

    /// Whether a lease was granted that was there already.
    fn granted(&self, operation: &Operation) -> Result<(), String> {
        let Some(id) = operation.granted() else { return Ok(()) };
        if let Call::LeaseGrant { id: asked, .. } = operation.call
            && asked != 0
            && asked != id
        {
            return Err(format!("lease {asked} was asked for and {id} granted: {}", told(operation)));
        }
        match self.surely_lives(id, operation) {
            Some(before) => {
                let (again, before) = (told(operation), told(before));
                Err(format!("lease {id} was granted again while it lived: {again}\nit was granted by {before}"))
            }
            None => Ok(()),
        }
    }

    /// The grant by which a lease was certainly there while a call was carried out: its time was not over,
    /// and it was not revoked. (That it was renewed is not counted.)
    fn surely_lives(&self, id: i64, operation: &Operation) -> Option<&Operation> {
        let operations = &self.history.operations;
        let is_before = |it: &&Operation| {
            it.granted() == Some(id) && it.ended < operation.began && matches!(it.outcome, Outcome::Done(_))
        };
        let grant = operations.iter().filter(is_before).max_by_key(|it| it.began)?;
        let Call::LeaseGrant { ttl, .. } = grant.call else { return None };
        let least = Duration::from_secs(u64::try_from(ttl).unwrap_or(0)).mul_f64(TOLERANCE);
        let may_be_revoked = operations.iter().any(|it| {
            let revokes = matches!(it.call, Call::LeaseRevoke { id: revoked } if revoked == id);
            // Not by the call itself, which was refused.
            revokes && it.began <= operation.ended && !matches!(it.outcome, Outcome::Refused(_))
        });
        let moves = |it: &Disturbance| it.effect.is_some_and(|effect| effect != Effect::Transfer);
        let clocks = |it: &Disturbance| moves(it) && it.from <= operation.ended && it.until >= grant.began;
        let clock_was_wrong = self.history.disturbances.iter().any(clocks);
        let is_in_time = operation.ended < grant.began + least;
        (is_in_time && !may_be_revoked && !clock_was_wrong).then_some(grant)
    }
}

/// The leases that the puts of a transaction name.
fn named(txn: &Txn) -> Vec<i64> {
    let mut found = Vec::new();
    for step in txn.then.iter().chain(&txn.otherwise) {
        match step {
            Step::Put { lease, .. } | Step::Amend { lease, .. } if *lease != 0 => found.push(*lease),
            Step::Txn(txn) => found.extend(named(txn)),
            Step::Put { .. } | Step::Amend { .. } | Step::Delete { .. } | Step::Range { .. } => {}
        }
    }
    found
}

/// The latest revision that a transaction asks for by its number; 0 where it does not.
fn latest(txn: &Txn) -> i64 {
    let steps = txn.then.iter().chain(&txn.otherwise);
    let of = |step: &Step| match step {
        Step::Range { revision, .. } => *revision,
        Step::Txn(txn) => latest(txn),
        Step::Put { .. } | Step::Amend { .. } | Step::Delete { .. } => 0,
    };
    steps.map(of).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, all_keys, at, delete, expect, get, leased, millis, put};
    use super::*;
    use crate::history::{HeldCall, Reply};

    fn found(sample: Sample) -> Result<(), String> {
        let history = sample.end();
        check(&history, &Truth::of(&history), &Bounds::of(Duration::from_secs(12)))
    }

    fn txn(then: Vec<Step>) -> Call {
        Call::Txn(Txn { then, ..Txn::default() })
    }

    fn amend(key: &str, value: &str) -> Step {
        let (key, value) = (key.to_owned(), value.to_owned());
        Step::Amend { key, value, lease: 0, ignore_value: true, ignore_lease: false, prev_kv: false }
    }

    #[test]
    fn refusals_that_are_due_pass() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.refused(1, txn(vec![Step::put("a", "2"), Step::put("a", "3")]), DUPLICATE_KEY);
        sample.refused(1, txn(vec![amend("a", "x")]), VALUE_PROVIDED);
        sample.refused(1, txn(vec![amend("b", "")]), KEY_NOT_FOUND);
        sample.refused(1, txn(vec![at(all_keys(), 9)]), FUTURE_REVISION);
        sample.refused(1, Call::Txn(leased("a", "4", 7)), LEASE_NOT_FOUND);
        sample.refused(1, Call::LeaseRevoke { id: 7 }, LEASE_NOT_FOUND);
        sample.refused(1, Call::Txn(put("a", "5")), "etcdserver: too many requests");
        assert_eq!(found(sample), Ok(()));
    }

    #[test]
    fn refusals_without_a_reason_are_found() {
        let nested =
            |steps| Step::Txn(Box::new(Txn { then: vec![Step::put("a", "2")], otherwise: steps, ..Txn::default() }));
        for (call, text) in [
            (txn(vec![nested(vec![Step::put("a", "3")])]), DUPLICATE_KEY),
            (txn(vec![amend("a", "")]), VALUE_PROVIDED),
            (txn(vec![amend("a", "x")]), LEASE_PROVIDED),
            (Call::LeaseGrant { id: 7, ttl: 3 }, DUPLICATE_KEY),
            (txn(vec![amend("a", "")]), KEY_NOT_FOUND),
            (txn(vec![Step::put("b", "2")]), KEY_NOT_FOUND),
            (txn(vec![at(all_keys(), 2)]), FUTURE_REVISION),
            (Call::Txn(get("a")), FUTURE_REVISION),
            (Call::LeaseGrant { id: 7, ttl: 3 }, FUTURE_REVISION),
            (Call::Txn(put("a", "2")), LEASE_NOT_FOUND),
            (Call::LeaseGrant { id: 7, ttl: 3 }, LEASE_NOT_FOUND),
            (Call::LeaseGrant { id: 7, ttl: 3 }, LEASE_EXISTS),
            (Call::LeaseGrant { id: 7, ttl: 3 }, COMPACTED),
            (Call::Txn(get("a")), "etcdserver: permission denied"),
            (Call::Txn(get("a")), "the server answered Internal: boom"),
        ] {
            let mut sample = Sample::new();
            sample.txn(1, put("a", "1"));
            sample.refused(1, call, text);
            expect(found(sample), "refused, but");
        }
    }

    #[test]
    fn a_lease_that_surely_lives_is_not_missing() {
        let missed = |ttl: i64, leases: [i64; 2]| {
            let mut sample = Sample::new();
            sample.grant(1, 7, ttl);
            sample.now += millis(1000);
            let tied = |key: &str, lease| Step::Put { key: key.into(), value: "1".into(), lease, prev_kv: false };
            sample.refused(1, txn(vec![tied("a", leases[0]), tied("b", leases[1])]), LEASE_NOT_FOUND);
            sample
        };
        assert_eq!(found(missed(10, [7, 8])), Ok(()));
        assert_eq!(found(missed(1, [7, 7])), Ok(()));
        expect(found(missed(10, [7, 0])), "of the leases [7] none was gone");
        let mut revoked = missed(10, [7, 7]);
        revoked.call(2, Call::LeaseRevoke { id: 7 }, Outcome::Unknown("timeout".into())).began = millis(500);
        assert_eq!(found(revoked), Ok(()));
    }

    #[test]
    fn a_key_is_missing_in_some_state_that_the_call_may_have_met() {
        let mut sample = Sample::new();
        sample.txn(1, put("a", "1"));
        sample.txn(1, delete("a"));
        sample.txn(1, put("a", "2"));
        sample.refused(2, txn(vec![amend("a", "")]), KEY_NOT_FOUND).began = millis(45);
        let mut late = sample.clone();
        assert_eq!(found(sample), Ok(()));
        late.refused(2, txn(vec![amend("a", "")]), KEY_NOT_FOUND);
        expect(found(late), "from revision 4 to 4 no key");
    }

    #[test]
    fn a_member_that_cannot_serve_has_a_reason() {
        for text in UNAVAILABLE {
            let mut quiet = Sample::new();
            quiet.now = millis(13_000);
            quiet.refused(1, Call::Txn(put("a", "1")), text);
            let mut disturbed = quiet.clone();
            expect(found(quiet), "all was quiet");
            let (from, until) = (millis(500), millis(1500));
            disturbed.history.disturbances.push(Disturbance { from, until, what: "kill".into(), effect: None });
            assert_eq!(found(disturbed.clone()), Ok(()));
            disturbed.now += millis(1000);
            disturbed.refused(1, Call::Txn(put("a", "1")), text).member = Some(0);
            let mut lost = disturbed.clone();
            expect(found(disturbed), "all was quiet");
            lost.history.disturbances[0].what = "wipe".into();
            assert_eq!(found(lost).is_ok(), text == NO_CONNECTION);
        }
    }

    #[test]
    fn a_lease_exists_where_it_may_have_been_granted() {
        let refused = |before: fn(&mut Sample)| {
            let mut sample = Sample::new();
            before(&mut sample);
            sample.refused(2, Call::LeaseGrant { id: 7, ttl: 10 }, LEASE_EXISTS);
            found(sample)
        };
        assert_eq!(refused(|sample| drop(sample.grant(1, 7, 10).clone())), Ok(()));
        let unknown = Outcome::Unknown("timeout".into());
        let mut sample = Sample::new();
        sample.call(1, Call::LeaseGrant { id: 7, ttl: 10 }, unknown);
        sample.refused(2, Call::LeaseGrant { id: 7, ttl: 10 }, LEASE_EXISTS);
        assert_eq!(found(sample), Ok(()));
        expect(refused(|sample| drop(sample.grant(1, 8, 10).clone())), "nobody can have been granted lease 7");
        let revoked = |sample: &mut Sample| {
            sample.grant(1, 7, 10);
            sample.revoke(1, 7);
        };
        expect(refused(revoked), "or it was revoked");
    }

    #[test]
    fn space_is_refused_to_who_takes_some_where_it_may_be_used_up() {
        let refused = |call: &Call, quota| {
            let mut sample = Sample::new();
            sample.history.quota = quota;
            sample.txn(1, put("a", &"x".repeat(1000)));
            sample.refused(1, call.clone(), NO_SPACE);
            found(sample)
        };
        let lock = HeldCall::Lock { name: "l".into(), lease: 7 };
        let nested = Txn { otherwise: vec![Step::Txn(Box::new(put("a", "2")))], ..Txn::default() };
        let grant = Call::LeaseGrant { id: 7, ttl: 3 };
        for call in [Call::Txn(put("b", "1")), Call::Txn(nested), grant, Call::Held(lock)] {
            assert_eq!(refused(&call, Some(2000)), Ok(()));
            expect(refused(&call, Some(3000)), "of the quota of 3000 bytes 2358 were asked for at most");
            expect(refused(&call, None), "there is no quota");
        }
        for call in [
            Call::Txn(delete("a")),
            Call::Txn(get("a")),
            Call::Compact { revision: 2, physical: false },
            Call::LeaseRevoke { id: 7 },
            Call::LeaseKeepAlive { id: 7 },
            Call::Held(HeldCall::Unlock { key: "l/7".into() }),
        ] {
            expect(refused(&call, Some(2000)), "it takes no room");
        }
    }

    #[test]
    fn an_id_that_is_granted_twice_is_found() {
        let mut twice = Sample::new();
        twice.grant(1, 7, 10);
        let mut late = twice.clone();
        let mut revoked = twice.clone();
        let mut picked = twice.clone();
        twice.grant(2, 7, 10);
        expect(found(twice), "lease 7 was granted again");
        late.now += millis(9000);
        late.grant(2, 7, 10);
        assert_eq!(found(late), Ok(()));
        revoked.revoke(1, 7);
        revoked.grant(2, 7, 10);
        assert_eq!(found(revoked), Ok(()));
        let picks = |id| Outcome::Done(Reply::Granted { id, ttl: 10 });
        picked.call(2, Call::LeaseGrant { id: 0, ttl: 10 }, picks(8));
        assert_eq!(found(picked.clone()), Ok(()));
        let mut other = picked.clone();
        other.call(2, Call::LeaseGrant { id: 5, ttl: 10 }, picks(9));
        expect(found(other), "lease 5 was asked for and 9 granted");
        picked.call(2, Call::LeaseGrant { id: 0, ttl: 10 }, picks(7));
        expect(found(picked), "lease 7 was granted again");
    }
}
