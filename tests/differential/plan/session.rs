//! Locks and elections.

use bytes::Bytes;
use mainstay_proto::v3electionpb::{LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use mainstay_proto::v3lockpb::{LockRequest, UnlockRequest};

use super::Planner;
use crate::step::Step;

/// Leases of those who contend begin here, two for each time: no other step uses them.
const LEASES: i64 = 1000;

/// A lease that no step grants.
const NOBODYS: i64 = 99;

impl Planner {
    /// Two who want the same. The name is new each time: who left something behind would be waited for.
    pub(super) fn contend(&mut self, client: usize) -> Step {
        self.contentions += 1;
        let (turn, election) = (self.contentions, self.dice.chance(50));
        let first = LEASES + 2 * i64::try_from(turn).expect("there are a few thousand steps");
        let second = first + 1;
        let text = format!("name: 'lock{turn}' first: {first} second: {second} election: {election}");
        Step::special(client, "Contend", &text).expect("it has these fields")
    }

    /// A call that waits for nobody.
    pub(super) fn session(&mut self, client: usize) -> Step {
        // A name of somebody who has been, and may have left something behind, or of nobody. What this leaves behind
        // under the name of somebody who is still to come would be waited for.
        let name = Bytes::from(format!("lock{}", self.dice.below(6).min(self.contentions)));
        let key =
            if self.dice.chance(50) { self.keys.key(&mut self.dice) } else { [&name[..], b"/3e8"].concat().into() };
        let rev = self.revision();
        // Without a lease the server would make one, whose id it tells nobody, and which ends within the run.
        let lease = match self.attached_lease() {
            0 => NOBODYS,
            lease => lease,
        };
        let leader = LeaderKey { name: name.clone(), key: key.clone(), rev, lease };
        let leader = (!self.dice.chance(10)).then_some(leader);
        match self.dice.below(6) {
            // The lease is nobody's: with one that exists it could wait.
            0 => Step::call(client, "Lock.Lock", &LockRequest { name, lease: NOBODYS }),
            1 => Step::call(client, "Lock.Unlock", &UnlockRequest { key }),
            2 => Step::call(client, "Election.Proclaim", &ProclaimRequest { leader, value: self.value() }),
            3 => Step::call(client, "Election.Resign", &ResignRequest { leader }),
            _ => Step::call(client, "Election.Leader", &LeaderRequest { name }),
        }
    }
}
