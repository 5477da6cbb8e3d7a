//! Reads, writes, deletes and compaction.

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::kv_client::KvClient;
use mainstay_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use mainstay_proto::etcdserverpb::request_op::Request as Op;
use mainstay_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, TxnRequest, TxnResponse,
};
use mainstay_proto::mvccpb::KeyValue;
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use crate::channel::Channel;
use crate::client::Client;
use crate::error::Error;
use crate::failover::Class;
use crate::txn;

fn service(channel: Channel) -> KvClient<Channel> {
    // The server bounds what it sends; a list has no bound of its own.
    KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

impl Client {
    /// Reads one key, linearizably.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        Ok(self.range(Range::key(key)).await?.kvs.pop())
    }

    /// Reads as the request says.
    pub async fn range(&self, request: impl Into<RangeRequest>) -> Result<RangeResponse, Error> {
        self.call(Class::Read, request.into(), |channel, request| async move { service(channel).range(request).await })
            .await
    }

    /// Reads in chunks of one revision (etcd 3.7). Not repeated once it has begun: the caller knows
    /// what it has seen. The request's time limit holds until the stream begins.
    pub async fn range_stream(
        &self,
        request: impl Into<RangeRequest>,
    ) -> Result<Streaming<RangeStreamResponse>, Error> {
        self.call(Class::Read, request.into(), |channel, request| async move {
            service(channel).range_stream(request).await
        })
        .await
    }

    /// Reads in chunks, and puts them together as the answer that [`range`](Self::range) would give.
    pub async fn range_stream_collected(&self, request: impl Into<RangeRequest>) -> Result<RangeResponse, Error> {
        let deadline = Instant::now() + self.options().request_timeout;
        let mut stream = self.range_stream(request).await?;
        let mut whole = RangeResponse::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = timeout(left, stream.message()).await.map_err(|_elapsed| Error::TimedOut)?;
            let Some(message) = message.map_err(Error::of)? else { break };
            let chunk = message.range_response.ok_or(Error::Malformed("a chunk without a range"))?;
            whole.kvs.extend(chunk.kvs);
            if chunk.header.is_some() {
                (whole.header, whole.more, whole.count) = (chunk.header, chunk.more, chunk.count);
            }
        }
        if whole.header.is_none() {
            return Err(Error::Malformed("a stream of chunks without a header"));
        }
        Ok(whole)
    }

    /// Writes one key.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<PutResponse, Error> {
        self.put_with(Put::new(key, value)).await
    }

    /// Writes one key as the request says.
    pub async fn put_with(&self, request: impl Into<PutRequest>) -> Result<PutResponse, Error> {
        self.call(Class::Write, request.into(), |channel, request| async move { service(channel).put(request).await })
            .await
    }

    /// Deletes one key.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<DeleteRangeResponse, Error> {
        self.delete_with(Delete::key(key)).await
    }

    /// Deletes as the request says.
    pub async fn delete_with(&self, request: impl Into<DeleteRangeRequest>) -> Result<DeleteRangeResponse, Error> {
        self.call(Class::Write, request.into(), |channel, request| async move {
            service(channel).delete_range(request).await
        })
        .await
    }

    /// Runs a transaction. One that only reads is retried as a read.
    pub async fn txn(&self, request: impl Into<TxnRequest>) -> Result<TxnResponse, Error> {
        let request = request.into();
        let class = if txn::only_reads(&request) { Class::Read } else { Class::Write };
        self.call(class, request, |channel, request| async move { service(channel).txn(request).await }).await
    }

    /// Discards the history below a revision.
    pub async fn compact(&self, revision: i64) -> Result<CompactionResponse, Error> {
        self.compact_with(CompactionRequest { revision, physical: false }).await
    }

    /// Discards the history below a revision, and waits until it is gone from the disk.
    pub async fn compact_physically(&self, revision: i64) -> Result<CompactionResponse, Error> {
        self.compact_with(CompactionRequest { revision, physical: true }).await
    }

    async fn compact_with(&self, request: CompactionRequest) -> Result<CompactionResponse, Error> {
        self.call(Class::Write, request, |channel, request| async move { service(channel).compact(request).await })
            .await
    }
}

/// A read, built step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Range(RangeRequest);

impl Range {
    /// Reads the keys of a range.
    pub fn of(range: &KeyRange) -> Self {
        Self(RangeRequest { key: range.key().clone(), range_end: range.range_end().clone(), ..RangeRequest::default() })
    }

    /// Reads one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::of(&KeyRange::single(key))
    }

    /// Reads every key that begins so.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::of(&KeyRange::prefix(prefix))
    }

    /// Reads every key.
    pub fn all() -> Self {
        Self::of(&KeyRange::all())
    }

    /// Reads the store as it was at a revision.
    pub fn at_revision(mut self, revision: i64) -> Self {
        self.0.revision = revision;
        self
    }

    /// Returns at most this many keys.
    pub fn limit(mut self, limit: i64) -> Self {
        self.0.limit = limit;
        self
    }

    /// Lets the member answer from what it has, without asking the others.
    pub fn serializable(mut self) -> Self {
        self.0.serializable = true;
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.0.keys_only = true;
        self
    }

    /// Returns the number of keys alone.
    pub fn count_only(mut self) -> Self {
        self.0.count_only = true;
        self
    }

    /// Sorts by something.
    pub fn sort(mut self, target: SortTarget, order: SortOrder) -> Self {
        self.0.sort_target = target.into();
        self.0.sort_order = order.into();
        self
    }

    /// Keeps keys last modified within these revisions, both inclusive; 0 is no bound.
    pub fn modified_within(mut self, min: i64, max: i64) -> Self {
        (self.0.min_mod_revision, self.0.max_mod_revision) = (min, max);
        self
    }

    /// Keeps keys created within these revisions, both inclusive; 0 is no bound.
    pub fn created_within(mut self, min: i64, max: i64) -> Self {
        (self.0.min_create_revision, self.0.max_create_revision) = (min, max);
        self
    }
}

impl From<Range> for RangeRequest {
    fn from(range: Range) -> Self {
        range.0
    }
}

impl From<Range> for RequestOp {
    fn from(range: Range) -> Self {
        Self { request: Some(Op::RequestRange(range.0)) }
    }
}

/// A write, built step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Put(PutRequest);

impl Put {
    /// Writes a value to a key.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
    }

    /// Ties the key to a lease.
    pub fn lease(mut self, lease: i64) -> Self {
        self.0.lease = lease;
        self
    }

    /// Asks for what the key held before.
    pub fn prev_kv(mut self) -> Self {
        self.0.prev_kv = true;
        self
    }

    /// Keeps the key's value; the one given must be empty.
    pub fn ignore_value(mut self) -> Self {
        self.0.ignore_value = true;
        self
    }

    /// Keeps the key's lease.
    pub fn ignore_lease(mut self) -> Self {
        self.0.ignore_lease = true;
        self
    }
}

impl From<Put> for PutRequest {
    fn from(put: Put) -> Self {
        put.0
    }
}

impl From<Put> for RequestOp {
    fn from(put: Put) -> Self {
        Self { request: Some(Op::RequestPut(put.0)) }
    }
}

/// A delete, built step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delete(DeleteRangeRequest);

impl Delete {
    /// Deletes the keys of a range.
    pub fn of(range: &KeyRange) -> Self {
        Self(DeleteRangeRequest { key: range.key().clone(), range_end: range.range_end().clone(), prev_kv: false })
    }

    /// Deletes one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::of(&KeyRange::single(key))
    }

    /// Deletes every key that begins so.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::of(&KeyRange::prefix(prefix))
    }

    /// Asks for what the keys held before.
    pub fn prev_kv(mut self) -> Self {
        self.0.prev_kv = true;
        self
    }
}

impl From<Delete> for DeleteRangeRequest {
    fn from(delete: Delete) -> Self {
        delete.0
    }
}

impl From<Delete> for RequestOp {
    fn from(delete: Delete) -> Self {
        Self { request: Some(Op::RequestDeleteRange(delete.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_fill_the_message() {
        let request: RangeRequest = Range::prefix("/registry/")
            .at_revision(7)
            .limit(500)
            .serializable()
            .keys_only()
            .sort(SortTarget::Mod, SortOrder::Descend)
            .modified_within(3, 0)
            .created_within(0, 9)
            .into();
        let expected = RangeRequest {
            key: "/registry/".into(),
            range_end: "/registry0".into(),
            limit: 500,
            revision: 7,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            serializable: true,
            keys_only: true,
            count_only: false,
            min_mod_revision: 3,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 9,
        };
        assert_eq!(request, expected);
        let put: PutRequest = Put::new("k", "").lease(5).prev_kv().ignore_value().into();
        assert_eq!(
            put,
            PutRequest {
                key: "k".into(),
                value: Bytes::new(),
                lease: 5,
                prev_kv: true,
                ignore_value: true,
                ignore_lease: false
            }
        );
    }
}
