//! Calls of the history, as requests to a server, and its answers, as replies of the history.

use madsim::rand::{Rng, thread_rng};
use mainstay_client::{Client, Compare as ClientCompare, Delete, Error, KeyRange, Put, Range, Txn as ClientTxn};
use mainstay_proto::etcdserverpb::request_op::Request as Op;
use mainstay_proto::etcdserverpb::response_op::Response as OpResponse;
use mainstay_proto::etcdserverpb::{
    Compare as CompareMessage, DeleteRangeResponse, LeaseGrantRequest, PutResponse, RangeResponse, RequestOp,
    ResponseHeader, TxnResponse,
};
use mainstay_proto::mvccpb;
use mainstay_tests::history::{Call, Compare, Comparison, KeyValue, Outcome, Reply, Span, Step, StepReply, Txn};

use crate::{perform_auth, perform_held};

/// How many of the ranges are asked for as a stream.
const STREAMED: f64 = 0.25;

/// Asks a server, and says what came of it.
pub(crate) async fn perform(client: &Client, call: &Call) -> Outcome {
    let answer = match call {
        Call::Txn(txn) => txn_or_step(client, txn).await,
        Call::Compact { revision } => client
            .compact(*revision)
            .await
            .map(|response| Reply::Compacted { revision: mainstay_client::revision(&response.header) }),
        Call::LeaseGrant { id, ttl } => client
            .lease_grant_with(LeaseGrantRequest { id: *id, ttl: *ttl })
            .await
            .map(|response| Reply::Lease { ttl: response.ttl }),
        Call::LeaseKeepAlive { id } => match client.keep_alive(*id).renew().await {
            Err(Error::LeaseGone { .. }) => Ok(Reply::Lease { ttl: 0 }),
            answer => answer.map(|ttl| Reply::Lease { ttl }),
        },
        Call::LeaseRevoke { id } => client
            .lease_revoke(*id)
            .await
            .map(|response| Reply::Revoked { revision: mainstay_client::revision(&response.header) }),
        Call::LeaseTimeToLive { id } => {
            client.lease_time_to_live(*id).await.map(|response| Reply::Lease { ttl: response.ttl })
        }
        Call::Auth(call) => perform_auth::perform(client, call).await.map(Reply::Auth),
        Call::Held(call) => return perform_held::perform(client, call).await,
    };
    match answer {
        Ok(reply) => Outcome::Done(reply),
        Err(error) if error.may_have_taken_effect() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

/// A transaction of one step without conditions goes out as the put, delete or range that it is.
async fn txn_or_step(client: &Client, txn: &Txn) -> Result<Reply, Error> {
    let alone = |header: &Option<ResponseHeader>, step| Reply::Txn {
        revision: mainstay_client::revision(header),
        succeeded: true,
        steps: vec![step],
    };
    if let ([], [step], []) = (&txn.compares[..], &txn.then[..], &txn.otherwise[..]) {
        match step {
            Step::Put { .. } => {
                let response = client.put_with(put(step)).await?;
                return Ok(alone(&response.header.clone(), put_reply(response)));
            }
            Step::Delete { span, prev_kv } => {
                let response = client.delete_with(delete(span, *prev_kv)).await?;
                return Ok(alone(&response.header.clone(), delete_reply(response)));
            }
            Step::Range { .. } => {
                let request = range(step, txn.serializable);
                // The same answer, in chunks.
                let response = if thread_rng().gen_bool(STREAMED) {
                    client.range_stream_collected(request).await?
                } else {
                    client.range(request).await?
                };
                return Ok(alone(&response.header.clone(), range_reply(response)));
            }
            Step::Txn(_) => {}
        }
    }
    let response = client.txn(message(txn, txn.serializable)).await?;
    let revision = mainstay_client::revision(&response.header);
    let (succeeded, steps) = txn_reply(response)?;
    Ok(Reply::Txn { revision, succeeded, steps })
}

fn message(txn: &Txn, serializable: bool) -> ClientTxn {
    let mut message = ClientTxn::new();
    for compare in &txn.compares {
        message = message.when(compare_message(compare));
    }
    for step in &txn.then {
        message = message.then(step_message(step, serializable));
    }
    for step in &txn.otherwise {
        message = message.otherwise(step_message(step, serializable));
    }
    message
}

fn compare_message(compare: &Compare) -> CompareMessage {
    let key = compare.key.clone();
    match &compare.to {
        Comparison::Version(number) => ClientCompare::version(key).equals(*number),
        Comparison::Created(number) => ClientCompare::create_revision(key).equals(*number),
        Comparison::Modified(number) => ClientCompare::mod_revision(key).equals(*number),
        Comparison::Lease(number) => ClientCompare::lease(key).equals(*number),
        Comparison::Value(value) => ClientCompare::value(key).equals(value.clone()),
    }
}

fn step_message(step: &Step, serializable: bool) -> RequestOp {
    match step {
        Step::Put { .. } => put(step).into(),
        Step::Delete { span, prev_kv } => delete(span, *prev_kv).into(),
        Step::Range { .. } => range(step, serializable).into(),
        Step::Txn(txn) => RequestOp { request: Some(Op::RequestTxn(message(txn, serializable).into())) },
    }
}

fn put(step: &Step) -> Put {
    let Step::Put { key, value, lease, prev_kv } = step else { unreachable!("asked for a put alone") };
    let put = Put::new(key.clone(), value.clone()).lease(*lease);
    if *prev_kv { put.prev_kv() } else { put }
}

fn delete(span: &Span, prev_kv: bool) -> Delete {
    let delete = Delete::of(&key_range(span));
    if prev_kv { delete.prev_kv() } else { delete }
}

fn range(step: &Step, serializable: bool) -> Range {
    let Step::Range { span, limit, revision, count_only, keys_only } = step else {
        unreachable!("asked for a range alone")
    };
    let mut range = Range::of(&key_range(span)).limit(*limit).at_revision(*revision);
    if *count_only {
        range = range.count_only();
    }
    if *keys_only {
        range = range.keys_only();
    }
    if serializable { range.serializable() } else { range }
}

/// The keys of a span, as the protocol writes them.
pub(crate) fn key_range(span: &Span) -> KeyRange {
    match &span.to {
        None => KeyRange::single(span.from.clone()),
        Some(to) => KeyRange::new(span.from.clone().into(), to.clone().into()),
    }
}

fn put_reply(response: PutResponse) -> StepReply {
    StepReply::Put { prev: response.prev_kv.map(key_value) }
}

fn delete_reply(response: DeleteRangeResponse) -> StepReply {
    StepReply::Delete { deleted: response.deleted, prevs: response.prev_kvs.into_iter().map(key_value).collect() }
}

fn range_reply(response: RangeResponse) -> StepReply {
    StepReply::Range {
        keys: response.kvs.into_iter().map(key_value).collect(),
        count: response.count,
        more: response.more,
    }
}

fn txn_reply(response: TxnResponse) -> Result<(bool, Vec<StepReply>), Error> {
    let steps = response.responses.into_iter().map(|step| {
        Ok(match step.response.ok_or(Error::Malformed("a step without an answer"))? {
            OpResponse::ResponsePut(response) => put_reply(response),
            OpResponse::ResponseDeleteRange(response) => delete_reply(response),
            OpResponse::ResponseRange(response) => range_reply(response),
            OpResponse::ResponseTxn(response) => {
                let (succeeded, steps) = txn_reply(response)?;
                StepReply::Txn { succeeded, steps }
            }
        })
    });
    Ok((response.succeeded, steps.collect::<Result<_, Error>>()?))
}

/// A key as the history writes it.
pub(crate) fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: text(&kv.key),
        value: text(&kv.value),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
