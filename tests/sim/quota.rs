//! A quota that is used up once all is quiet: what the store still takes then, and that it takes everything again
//! when there is room.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_client::Client;
use mainstay_proto::etcdserverpb::{AlarmMember, AlarmType};
use mainstay_tests::history::{Call, Outcome, Reply, Span, Step, StepReply, Txn};
use tokio::time::Instant;

use crate::plan::Quota;
use crate::run::RECOVERY;
use crate::workload::{FILLER, disarm, disarm_all, is_for_space};
use crate::world::{Life, World};

/// Bytes that a value is filled up with, and the keys that get such values.
const LARGE: usize = 3000;
const KEYS: u64 = 20;
/// Whoever has this much of the quota or more has no room yet, in percent.
const RELIEVED: u64 = 90;
/// How long an alarm may stand when there is room again: 30 s it has to, and then its member asks for its end once a
/// second, for which the members may first have to elect, and to remove what was compacted.
const DISARMED_WITHIN: Duration = Duration::from_secs(45);
/// Pause before a call is made again, and before members are looked at again.
const PAUSE: Duration = Duration::from_millis(200);
/// What is told to who compacts what is compacted.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Uses the quota up and makes room again, where there is one; says what is wrong with that.
pub(crate) async fn is_kept(id: usize, world: &World) -> Result<(), String> {
    let Some(quota) = world.plan.quota else { return Ok(()) };
    let clients = (0..world.members.len()).map(|place| world.client(place)).collect();
    let mut round = Round { id, world, quota, clients, asked: 0 };
    round.begins_without_alarms().await?;
    round.fills().await?;
    round.takes_nothing_that_grows().await?;
    round.takes_what_shrinks().await?;
    round.makes_room().await?;
    round.is_relieved().await?;
    round.takes_everything().await
}

/// Somebody who asks all members in turn.
struct Round<'a> {
    id: usize,
    world: &'a World,
    quota: Quota,
    /// One for each place, which begins with the member there.
    clients: Vec<Client>,
    asked: u64,
}

impl Round<'_> {
    /// Disarms what the storm left: an alarm that is to be disarmed at any moment would end in the middle.
    async fn begins_without_alarms(&self) -> Result<(), String> {
        let deadline = Instant::now() + RECOVERY;
        for client in self.clients.iter().cycle() {
            disarm_all(client).await;
            tokio::time::sleep(PAUSE).await;
            let alarms = self.alarms();
            if alarms.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("nobody disarms {alarms:?}"));
            }
        }
        Err("there are no members".to_owned())
    }

    /// Writes until there is no space, which has to come to an end. What was compacted may only be removed now, so that
    /// it may take more than the quota.
    async fn fills(&mut self) -> Result<(), String> {
        let rounds = 2 * self.quota.bytes / LARGE as u64;
        for number in 0..=rounds {
            let key = format!("{FILLER}{:02}", number % KEYS);
            let large = |value: String| put(&key, value + &"x".repeat(LARGE));
            if is_for_space(&self.ask(0, large).await?) {
                return Ok(());
            }
        }
        Err(format!("{rounds} values of {LARGE} bytes were taken, with a quota of {} bytes", self.quota.bytes))
    }

    /// One alarm stops all members.
    async fn takes_nothing_that_grows(&mut self) -> Result<(), String> {
        for place in 0..self.clients.len() {
            let one = self.ask(place, |value| put(&format!("{FILLER}more"), value)).await?;
            let id = (self.id as i64 + 1) * 1_000_000 + place as i64;
            let other = self.ask(place, |_| Call::LeaseGrant { id, ttl: 2 }).await?;
            if let Some(taken) = [one, other].iter().find(|outcome| !is_for_space(outcome)) {
                return Err(format!("under an alarm, whoever begins with m{} is told {taken:?}", place + 1));
            }
        }
        Ok(())
    }

    /// Who reads, deletes or writes less is not refused.
    async fn takes_what_shrinks(&mut self) -> Result<(), String> {
        let filler = || Txn::of(Step::range(Span::prefix(FILLER)));
        let Reply::Txn { steps, .. } = self.must(0, |_| Call::Txn(filler())).await? else {
            return Err("a read is answered by something else".to_owned());
        };
        let Some(StepReply::Range { keys, .. }) = steps.first() else { return Ok(()) };
        let large = keys.iter().filter(|kv| kv.value.len() > LARGE / 2);
        for (place, kv) in (0..self.clients.len()).zip(large) {
            self.must(place, |value| put(&kv.key, value)).await?;
        }
        Ok(())
    }

    /// Deletes and compacts, which is not refused either.
    async fn makes_room(&mut self) -> Result<(), String> {
        let delete = || Step::Delete { span: Span::prefix(FILLER), prev_kv: false };
        let Reply::Txn { revision, .. } = self.must(0, |_| Call::Txn(Txn::of(delete()))).await? else {
            return Err("a deletion is answered by something else".to_owned());
        };
        // Not ahead of the observer, whose record must be whole.
        let deadline = Instant::now() + RECOVERY;
        while self.world.observed.revision() < revision {
            if Instant::now() >= deadline {
                let observed = self.world.observed.revision();
                return Err(format!("the observer is at {observed}, the store at {revision}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
        match self.ask(0, |_| Call::Compact { revision, physical: true }).await? {
            Outcome::Done(_) => Ok(()),
            // Somebody did so before, or an attempt of this that was not answered.
            Outcome::Refused(why) if why == COMPACTED => Ok(()),
            other => Err(format!("a compaction is told {other:?}")),
        }
    }

    /// Waits until every member has room and no alarm stands, which each member sees to that raised one. An operator
    /// has to disarm that of a member that is none any more, or does not come back.
    async fn is_relieved(&self) -> Result<(), String> {
        let deadline = Instant::now() + DISARMED_WITHIN;
        for client in self.clients.iter().cycle() {
            let (full, alarms) = (self.full(), self.alarms());
            if full.is_none() && alarms.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("after {DISARMED_WITHIN:?} there are {alarms:?}, and {full:?} has no room"));
            }
            let present: BTreeSet<u64> = self.lives().iter().map(|(_, life)| member_id(life)).collect();
            let by_hand = |member: &u64| self.quota.disarmed_by_hand || !present.contains(member);
            let members: BTreeSet<u64> = alarms.iter().map(|(_, alarm)| alarm.member_id).collect();
            // Before there is room it would be raised again.
            for member in members.into_iter().filter(by_hand).filter(|_| full.is_none()) {
                disarm(client, member).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err("there are no members".to_owned())
    }

    /// All members take writes again.
    async fn takes_everything(&mut self) -> Result<(), String> {
        for place in 0..self.clients.len() {
            self.must(place, |value| put(&format!("{FILLER}end"), value)).await?;
        }
        Ok(())
    }

    /// The members that are to be there, with what can be asked of them.
    fn lives(&self) -> Vec<(usize, Life)> {
        let survivors = self.world.survivors().into_iter();
        survivors.filter_map(|index| Some((index, self.world.members[index].life()?))).collect()
    }

    /// The alarms for space that members know of, each with the place of one that does.
    fn alarms(&self) -> Vec<(usize, AlarmMember)> {
        let mut found = Vec::new();
        for (index, life) in self.lives() {
            let alarms = life.alarms.all().into_iter();
            let for_space = alarms.filter(|alarm| alarm.alarm == i32::from(AlarmType::Nospace));
            found.extend(for_space.map(|alarm| (index, alarm)));
        }
        found
    }

    /// A member that has no room, and the bytes that it retains.
    fn full(&self) -> Option<(String, u64)> {
        let retained = |(index, life): (usize, Life)| (self.world.members[index].name(), life.store.retained_bytes());
        let mut all = self.lives().into_iter().map(retained);
        all.find(|(_, bytes)| bytes * 100 >= self.quota.bytes * RELIEVED)
    }

    /// Makes a call that nobody may be refused.
    async fn must(&mut self, place: usize, call: impl Fn(String) -> Call) -> Result<Reply, String> {
        match self.ask(place, call).await? {
            Outcome::Done(reply) => Ok(reply),
            other => Err(format!("whoever begins with m{} is told {other:?}", place + 1)),
        }
    }

    /// Makes a call, with a value that nobody wrote before, until it is known what came of it.
    async fn ask(&mut self, place: usize, call: impl Fn(String) -> Call) -> Result<Outcome, String> {
        let deadline = Instant::now() + RECOVERY;
        loop {
            self.asked += 1;
            let call = call(format!("{}.{}", self.id, self.asked));
            let outcome = self.world.recorder.call(self.id, &self.clients[place], call).await;
            let is_decided = match &outcome {
                Outcome::Done(_) => true,
                Outcome::Refused(why) => is_for_space(&outcome) || why == COMPACTED,
                Outcome::Unknown(_) => false,
            };
            if is_decided {
                return Ok(outcome);
            }
            // A process may yet end of what a fault left in it.
            if Instant::now() >= deadline {
                return Err(format!("for {RECOVERY:?} nobody answered but with {outcome:?}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn put(key: &str, value: String) -> Call {
    Call::Txn(Txn::of(Step::put(key, value)))
}

fn member_id(life: &Life) -> u64 {
    life.leadership.view().member_id
}
