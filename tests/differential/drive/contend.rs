//! Two clients of which one waits for the other: for a lock, or to lead.

use bytes::Bytes;
use mainstay_proto::etcdserverpb::LeaseGrantRequest;
use mainstay_proto::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use mainstay_proto::v3lockpb::{LockRequest, UnlockRequest};
use tokio::join;

use mainstay_tests::schema::{bytes, flag, inner, int};

use super::Run;
use super::watching::observe;
use crate::allowed::{self, Answer};
use crate::report::Difference;
use crate::step::{Kind, Step};

/// How long the leases live: longer than a run.
const TTL: i64 = 5000;

impl Run {
    /// The second waits for the first; what it is told when the first gives up has to be equal.
    pub(super) async fn contend(&mut self, step: &Step) -> Result<(), Difference> {
        let [request, _] = self.resolved(&step.request);
        let (client, name) = (step.client, bytes(&request, "name"));
        let leases = [int(&request, "first"), int(&request, "second")];
        for id in leases {
            self.ask(client, "Lease.LeaseGrant", &LeaseGrantRequest { id, ttl: TTL }).await?;
        }
        if flag(&request, "election") {
            self.lead(client, &name, leases).await
        } else {
            self.lock(client, &name, leases).await
        }
    }

    async fn lock(&mut self, client: usize, name: &Bytes, leases: [i64; 2]) -> Result<(), Difference> {
        let [holder, waiter] = leases.map(|lease| LockRequest { name: name.clone(), lease });
        let held = self.ask(client, "Lock.Lock", &holder).await?;
        let Some(response) = held.messages.first() else { return Ok(()) };
        // Who holds it already is told so again.
        self.ask(client, "Lock.Lock", &holder).await?;
        let waits = Step::call(client, "Lock.Lock", &waiter);
        let gives = Step::call(client, "Lock.Unlock", &UnlockRequest { key: bytes(response, "key") });
        self.hand_over(&waits, &gives).await
    }

    async fn lead(&mut self, client: usize, name: &Bytes, leases: [i64; 2]) -> Result<(), Difference> {
        let campaign = |lease, value: &'static str| CampaignRequest { name: name.clone(), lease, value: value.into() };
        let led = self.ask(client, "Election.Campaign", &campaign(leases[0], "one")).await?;
        let Some(leader) = led.messages.first().and_then(|response| inner(response, "leader")) else { return Ok(()) };
        let leader: LeaderKey = leader.transcode_to().expect("both are made from one file");
        let proclaim = |value: &'static str| ProclaimRequest { leader: Some(leader.clone()), value: value.into() };
        self.ask(client, "Election.Leader", &LeaderRequest { name: name.clone() }).await?;
        self.ask(client, "Election.Proclaim", &proclaim("two")).await?;
        let waits = Step::call(client, "Election.Campaign", &campaign(leases[1], "three"));
        let gives = Step::call(client, "Election.Resign", &ResignRequest { leader: Some(leader.clone()) });
        self.hand_over(&waits, &gives).await?;
        self.ask(client, "Election.Leader", &LeaderRequest { name: name.clone() }).await?;
        // It leads no more.
        self.ask(client, "Election.Proclaim", &proclaim("four")).await?;
        self.ask(client, "Election.Resign", &ResignRequest { leader: Some(leader.clone()) }).await.map(drop)
    }

    /// One call waits for another one's effect: it is made first, and the other once it was seen to wait.
    async fn hand_over(&mut self, waits: &Step, gives: &Step) -> Result<(), Difference> {
        let [waiting, giving] = [waits, gives].map(|step| match &step.kind {
            Kind::Method(method) => (method.clone(), step.name(), self.resolved(&step.request)),
            Kind::Special => unreachable!("both are calls"),
        });
        let (sides, now) = (&self.sides, self.now);
        let call = async |(method, _, [one, other]): &(_, String, [_; 2])| {
            let (one, other) =
                join!(sides[0].call(waits.client, method, one), sides[1].call(waits.client, method, other));
            [one, other]
        };
        let choices = sides.each_ref().map(|side| &side.choices);
        let give = async {
            // Who waits has written its key.
            observe(&mut self.observers, choices, &mut self.history, now + 1).await?;
            Ok(call(&giving).await)
        };
        let (waited, given) = join!(call(&waiting), give);
        self.compare(&giving.1, &giving.2, given?)?;
        self.compare(&waiting.1, &waiting.2, waited)
    }

    /// Compares answers that were not waited for at once.
    fn compare(
        &mut self,
        name: &str,
        requests: &[prost_reflect::DynamicMessage; 2],
        mut answers: [Answer; 2],
    ) -> Result<(), Difference> {
        self.learn(name, 0, requests, &answers);
        for (answer, (side, request)) in answers.iter_mut().zip(self.sides.iter().zip(requests)) {
            allowed::take_out(name, request, &side.choices, answer);
        }
        Difference::of_answers(name, &answers)
    }
}
