//! Cuts the answer to a range into chunks of about equal size, all read at one revision (pure).

use bytes::{BufMut, Bytes, BytesMut};
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::range_request::SortTarget;
use mainstay_proto::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use prost::Message;

use crate::apply::range_response;
use crate::env::probe;
use crate::limits::{RANGE_STREAM_BYTES_MAX, RANGE_STREAM_CHUNK_BYTES, RANGE_STREAM_FIRST_CHUNK};
use crate::mvcc::{RangeOptions, RangeResult, ReadError};

/// The chunks of one range that are still to be read.
///
/// The first is small; from then on the number of keys is doubled or halved as the chunks are far
/// below or above the size aimed at. Only the last one has a header (with a revision, the rest is
/// the caller's), `more` and the count of all keys; as in etcd.
#[derive(Debug)]
pub(super) struct RangeChunks {
    /// The range from the next key on, with the limit of the next chunk.
    request: RangeRequest,
    /// Keys that may still be sent.
    limit_left: i64,
    sent: i64,
    /// The store's revision at the first chunk.
    revision: Option<i64>,
    target_bytes: usize,
    done: bool,
}

impl RangeChunks {
    pub(super) fn new(mut request: RangeRequest, target_bytes: usize) -> Self {
        let limit_left = if request.limit > 0 { request.limit } else { i64::MAX };
        // A negative limit is none for the chunks, either; as in etcd.
        request.limit = if request.limit < 0 { 0 } else { RANGE_STREAM_FIRST_CHUNK.min(limit_left) };
        // A chunk goes on behind the last key of the one before, so chunks are in key order. etcd 3.7.1 sorts
        // each chunk where a target is given without an order, and then repeats keys and loses others.
        request.sort_target = SortTarget::Key as i32;
        let target_bytes = target_bytes.min(RANGE_STREAM_CHUNK_BYTES);
        Self { request, limit_left, sent: 0, revision: None, target_bytes, done: false }
    }

    /// Bytes for which there is room in the next chunk, however much memory there is. A single key has room in any case.
    pub(super) fn bytes_max(&self) -> u64 {
        if self.is_divisible() { RANGE_STREAM_BYTES_MAX } else { u64::MAX }
    }

    /// Reads the next chunk; `None` after the last.
    pub(super) fn next(
        &mut self,
        read: impl FnMut(&KeyRange, &RangeOptions) -> Result<RangeResult, ReadError>,
    ) -> Result<Option<RangeResponse>, ReadError> {
        if self.done {
            return Ok(None);
        }
        let chunk = range_response(&self.request, read);
        // An error ends the stream as well, but for one: there may be room for a smaller chunk.
        self.done = !matches!(chunk, Err(ReadError::NoRoom));
        let chunk = chunk?;
        let revision = *self.revision.get_or_insert_with(|| {
            let revision = chunk.header.as_ref().map_or(0, |header| header.revision);
            // Wrong where it is broken: each chunk is of the revision that is current when it is read.
            if self.request.revision <= 0 && !probe::broken("range-stream-moves-on") {
                self.request.revision = revision;
            }
            revision
        });
        let len = chunk.kvs.len() as i64;
        self.limit_left -= len;
        if let Some(last) = chunk.kvs.last()
            && chunk.more
            && self.limit_left > 0
        {
            self.request.key = successor(&last.key);
            self.request.limit = self.next_limit(chunk.encoded_len());
            probe::reached("range-streamed-in-chunks");
            self.sent += len;
            self.done = false;
            return Ok(Some(RangeResponse { kvs: chunk.kvs, ..RangeResponse::default() }));
        }
        let header = ResponseHeader { revision, ..ResponseHeader::default() };
        Ok(Some(RangeResponse { header: Some(header), count: self.sent + chunk.count, ..chunk }))
    }

    /// Makes the next chunk half as large; `false` where it has one key, or is all there is.
    pub(super) fn halve(&mut self) -> bool {
        let is_divisible = self.is_divisible();
        if is_divisible {
            self.request.limit /= 2;
        }
        is_divisible
    }

    fn is_divisible(&self) -> bool {
        self.request.limit > 1
    }

    fn next_limit(&self, chunk_bytes: usize) -> i64 {
        let limit = self.request.limit;
        let limit = if chunk_bytes < self.target_bytes / 2 {
            limit.saturating_mul(2)
        } else if chunk_bytes > self.target_bytes.saturating_mul(2) {
            limit / 2
        } else {
            limit
        };
        limit.max(1).min(self.limit_left)
    }
}

/// The next possible key.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests;
