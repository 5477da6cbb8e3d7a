//! Calls of the history, as requests to a server, and its answers, as replies of the history.

use madsim::rand::{Rng, thread_rng};
use mainstay_client::{Client, Error, Reason};
use mainstay_proto::etcdserverpb::{LeaseGrantRequest, ResponseHeader};
use mainstay_tests::history::{Call, Outcome, Reply};
use mainstay_tests::transactions::{self, text};

use crate::{perform_auth, perform_held, perform_member};

/// How many of the ranges are asked for as a stream.
const STREAMED: f64 = 0.25;

/// Asks a server, and says what came of it. The answer's header is given back beside it.
pub(crate) async fn perform(client: &Client, call: &Call, header: &mut Option<ResponseHeader>) -> Outcome {
    let mut revision = |told: Option<ResponseHeader>| {
        let revision = mainstay_client::revision(&told);
        *header = told;
        revision
    };
    let streams = || thread_rng().gen_bool(STREAMED);
    let answer = match call {
        Call::Txn(txn) => transactions::perform(client, txn, streams).await.map(|(told, succeeded, steps)| {
            let revision = revision(told);
            Reply::Txn { revision, succeeded, steps }
        }),
        Call::Compact { revision: asked, physical } => {
            let answer = if *physical { client.compact_physically(*asked).await } else { client.compact(*asked).await };
            answer.map(|response| Reply::Compacted { revision: revision(response.header) })
        }
        Call::LeaseGrant { id, ttl } => {
            let answer = client.lease_grant_with(LeaseGrantRequest { id: *id, ttl: *ttl }).await;
            answer.map(|response| {
                revision(response.header);
                match response.id {
                    granted if granted == *id => Reply::Lease { ttl: response.ttl },
                    id => Reply::Granted { id, ttl: response.ttl },
                }
            })
        }
        Call::LeaseKeepAlive { id } => match client.keep_alive(*id).renew().await {
            Err(Error::LeaseGone { .. }) => Ok(Reply::Lease { ttl: 0 }),
            answer => answer.map(|ttl| Reply::Lease { ttl }),
        },
        Call::LeaseRevoke { id } => {
            client.lease_revoke(*id).await.map(|response| Reply::Revoked { revision: revision(response.header) })
        }
        Call::LeaseTimeToLive { id } => client.lease_time_to_live(*id).await.map(|response| {
            revision(response.header);
            Reply::Lease { ttl: response.ttl }
        }),
        Call::LeaseKeys { id } => client.lease_keys(*id).await.map(|response| {
            let keys = response.keys.iter().map(|key| text(key)).collect();
            Reply::LeaseKeys { revision: revision(response.header), ttl: response.ttl, keys }
        }),
        Call::Auth(call) => perform_auth::perform(client, call).await.map(Reply::Auth),
        Call::Member(call) => perform_member::perform(client, call).await.map(|(told, reply)| {
            revision(told);
            Reply::Members(reply)
        }),
        Call::Held(call) => return perform_held::perform(client, call).await,
    };
    match answer {
        Ok(reply) => Outcome::Done(reply),
        // The client cannot rely on it, as etcd may have carried it out; this server has not.
        Err(error) if error.reason() == Some(Reason::NoSpace) => Outcome::Refused(error.to_string()),
        Err(error) if error.may_have_taken_effect() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
