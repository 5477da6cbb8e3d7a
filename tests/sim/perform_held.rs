//! Calls about locks and elections that the server holds.

use mainstay_client::proto::v3electionpb::LeaderKey;
use mainstay_client::{Client, Error, revision};
use mainstay_tests::history::{Candidate, HeldCall, HeldReply, Outcome, Reply};
use mainstay_tests::model::NO_SPACE;
use mainstay_tests::transactions::key_value;

/// Refusals before anything was done. For space that is so because a call has one write that takes any, its first.
const REFUSED_AT_ONCE: [&str; 4] =
    ["etcdserver: requested lease not found", "election: not leader", "election: no leader", NO_SPACE];

/// Asks a server, and says what came of it.
pub(crate) async fn perform(client: &Client, call: &HeldCall) -> Outcome {
    match answer(client, call).await {
        Ok(reply) => Outcome::Done(Reply::Held(reply)),
        Err(error @ Error::NotSent(_)) => Outcome::Refused(error.to_string()),
        // All errors come with one code, so the text decides.
        Err(error) => {
            let text = error.to_string();
            let refused = REFUSED_AT_ONCE.iter().any(|refusal| text.contains(refusal));
            if refused { Outcome::Refused(text) } else { Outcome::Unknown(text) }
        }
    }
}

async fn answer(client: &Client, call: &HeldCall) -> Result<HeldReply, Error> {
    let done = |header| HeldReply::Done { revision: revision(&header) };
    match call {
        HeldCall::Lock { name, lease } => {
            let response = client.lock(name.clone(), *lease).await?;
            let key = String::from_utf8_lossy(&response.key).into_owned();
            Ok(HeldReply::Held { revision: revision(&response.header), key, created: 0 })
        }
        HeldCall::Unlock { key } => Ok(done(client.unlock(key.clone()).await?.header)),
        HeldCall::Campaign { name, lease, value } => {
            let response = client.campaign(name.clone(), *lease, value.clone()).await?;
            let leader = response.leader.ok_or(Error::Malformed("a leader without a key"))?;
            let key = String::from_utf8_lossy(&leader.key).into_owned();
            Ok(HeldReply::Held { revision: revision(&response.header), key, created: leader.rev })
        }
        HeldCall::Proclaim { leader, value } => {
            Ok(done(client.proclaim(leader_key(leader), value.clone()).await?.header))
        }
        HeldCall::Resign { leader } => Ok(done(client.resign(leader_key(leader)).await?.header)),
        HeldCall::Leader { name } => {
            let response = client.leader(name.clone()).await?;
            let kv = response.kv.ok_or(Error::Malformed("a leader without a key"))?;
            Ok(HeldReply::Leader { revision: revision(&response.header), kv: key_value(kv) })
        }
    }
}

fn leader_key(leader: &Candidate) -> LeaderKey {
    let (name, key) = (leader.name.clone().into(), leader.key.clone().into());
    LeaderKey { name, key, rev: leader.created, lease: leader.lease }
}
