//! Transactions of the history, as requests to a server, and its answers, as replies of the history.

use mainstay_client::{Client, Compare as ClientCompare, Delete, Error, KeyRange, Put, Range, Txn as ClientTxn};
use mainstay_proto::etcdserverpb::compare::CompareResult;
use mainstay_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_proto::etcdserverpb::request_op::Request as Op;
use mainstay_proto::etcdserverpb::response_op::Response as OpResponse;
use mainstay_proto::etcdserverpb::{
    Compare as CompareMessage, DeleteRangeResponse, PutResponse, RangeResponse, RequestOp, ResponseHeader, TxnResponse,
};
use mainstay_proto::mvccpb;

use crate::history::{
    Compare, Comparison, KeyValue, Order, Relation, Sort, SortBy, Span, Step, StepReply, Txn, Within,
};

/// The header of an answer to a transaction, whether its conditions held, and its steps.
pub type TxnAnswer = (Option<ResponseHeader>, bool, Vec<StepReply>);

/// Asks for a transaction. One of a single step without conditions goes out as the put, delete or range that it is; a
/// range that can be, as a stream, where `streams` says so.
pub async fn perform(client: &Client, txn: &Txn, streams: impl FnOnce() -> bool) -> Result<TxnAnswer, Error> {
    let alone = |header: Option<ResponseHeader>, step| (header, true, vec![step]);
    if let ([], [step], []) = (&txn.compares[..], &txn.then[..], &txn.otherwise[..]) {
        match step {
            Step::Put { .. } | Step::Amend { .. } => {
                let response = client.put_with(put(step)).await?;
                return Ok(alone(response.header, put_reply(response)));
            }
            Step::Delete { span, prev_kv } => {
                let response = client.delete_with(delete(span, *prev_kv)).await?;
                return Ok(alone(response.header, delete_reply(response)));
            }
            Step::Range { sort, within, .. } => {
                let request = range(step, txn.serializable);
                // The same answer, in chunks; neither sorted nor filtered.
                let can_be_streamed = *sort == Sort::default() && *within == Within::ALL;
                let response = if can_be_streamed && streams() {
                    client.range_stream_collected(request).await?
                } else {
                    client.range(request).await?
                };
                return Ok(alone(response.header, range_reply(response)));
            }
            Step::Txn(_) => {}
        }
    }
    let response = client.txn(message(txn, txn.serializable)).await?;
    let header = response.header;
    let (succeeded, steps) = txn_reply(response)?;
    Ok((header, succeeded, steps))
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
    let mut message = match &compare.to {
        Comparison::Version(number) => ClientCompare::version(key).equals(*number),
        Comparison::Created(number) => ClientCompare::create_revision(key).equals(*number),
        Comparison::Modified(number) => ClientCompare::mod_revision(key).equals(*number),
        Comparison::Lease(number) => ClientCompare::lease(key).equals(*number),
        Comparison::Value(value) => ClientCompare::value(key).equals(value.clone()),
    };
    message.set_result(match compare.is {
        Relation::Equal => CompareResult::Equal,
        Relation::NotEqual => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    });
    message.range_end = compare.until.clone().unwrap_or_default().into();
    message
}

fn step_message(step: &Step, serializable: bool) -> RequestOp {
    match step {
        Step::Put { .. } | Step::Amend { .. } => put(step).into(),
        Step::Delete { span, prev_kv } => delete(span, *prev_kv).into(),
        Step::Range { .. } => range(step, serializable).into(),
        Step::Txn(txn) => RequestOp { request: Some(Op::RequestTxn(message(txn, serializable).into())) },
    }
}

fn put(step: &Step) -> Put {
    let (key, value, lease, prev_kv) = match step {
        Step::Put { key, value, lease, prev_kv } | Step::Amend { key, value, lease, prev_kv, .. } => {
            (key, value, lease, prev_kv)
        }
        Step::Delete { .. } | Step::Range { .. } | Step::Txn(_) => unreachable!("asked for a put alone"),
    };
    let mut put = Put::new(key.clone(), value.clone()).lease(*lease);
    if let Step::Amend { ignore_value, ignore_lease, .. } = step {
        if *ignore_value {
            put = put.ignore_value();
        }
        if *ignore_lease {
            put = put.ignore_lease();
        }
    }
    if *prev_kv { put.prev_kv() } else { put }
}

fn delete(span: &Span, prev_kv: bool) -> Delete {
    let delete = Delete::of(&key_range(span));
    if prev_kv { delete.prev_kv() } else { delete }
}

fn range(step: &Step, serializable: bool) -> Range {
    let Step::Range { span, limit, revision, count_only, keys_only, sort, within } = step else {
        unreachable!("asked for a range alone")
    };
    let mut range = Range::of(&key_range(span)).limit(*limit).at_revision(*revision);
    range = range.sort(sort_target(sort.by), sort_order(sort.order));
    range = range.modified_within(within.modified.0, within.modified.1);
    range = range.created_within(within.created.0, within.created.1);
    if *count_only {
        range = range.count_only();
    }
    if *keys_only {
        range = range.keys_only();
    }
    if serializable { range.serializable() } else { range }
}

fn sort_target(by: SortBy) -> SortTarget {
    match by {
        SortBy::Key => SortTarget::Key,
        SortBy::Version => SortTarget::Version,
        SortBy::Created => SortTarget::Create,
        SortBy::Modified => SortTarget::Mod,
        SortBy::Value => SortTarget::Value,
    }
}

fn sort_order(order: Order) -> SortOrder {
    match order {
        Order::Unsaid => SortOrder::None,
        Order::Rising => SortOrder::Ascend,
        Order::Falling => SortOrder::Descend,
    }
}

/// The keys of a span, as the protocol writes them.
pub fn key_range(span: &Span) -> KeyRange {
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
pub fn key_value(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: text(&kv.key),
        value: text(&kv.value),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

/// A key or a value as the history writes it.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
