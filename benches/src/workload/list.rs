//! Lists all keys, in the three ways that Kubernetes knows, and without their values.

use bytes::Bytes;
use mainstay_client::proto::etcdserverpb::RangeRequest;
use mainstay_client::{Client, Error, KeyRange, Range, revision};

use super::session::Session;
use crate::keyspace::PREFIX;
use crate::load::Worker;
use crate::options::Options;

/// How a list is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// One request, one response.
    Whole,
    /// Pages of this many keys, all at the revision of the first.
    Pages(i64),
    /// RangeStream.
    Stream,
    /// How many there are, and nothing else.
    Count,
    /// The keys without their values.
    Keys,
}

pub(super) fn workers(session: &Session, options: &Options, way: Way) -> Vec<Lister> {
    let lister = |client| Lister { client: session.client(client), way, keys: options.keys };
    (0..options.list_clients).map(lister).collect()
}

pub(super) struct Lister {
    client: Client,
    way: Way,
    keys: u64,
}

impl Worker for Lister {
    async fn step(&mut self) -> Result<u64, Error> {
        let listed = match self.way {
            Way::Whole => self.client.range(Range::prefix(PREFIX)).await?.kvs.len() as u64,
            Way::Pages(size) => self.pages(size).await?,
            Way::Stream => self.stream().await?,
            Way::Count => self.client.range(Range::prefix(PREFIX).count_only()).await?.count as u64,
            Way::Keys => self.client.range(Range::prefix(PREFIX).keys_only()).await?.kvs.len() as u64,
        };
        // A server that answers fast because it leaves keys out shall not win.
        if listed == self.keys { Ok(listed) } else { Err(Error::Malformed("a list that is not complete")) }
    }
}

impl Lister {
    async fn pages(&self, size: i64) -> Result<u64, Error> {
        let all = KeyRange::prefix(PREFIX);
        let mut listed = 0;
        let mut request = RangeRequest {
            key: all.key().clone(),
            range_end: all.range_end().clone(),
            limit: size,
            ..RangeRequest::default()
        };
        loop {
            let page = self.client.range(request.clone()).await?;
            if listed + page.count as u64 != self.keys {
                return Err(Error::Malformed("a page whose count is not that of what is left"));
            }
            listed += page.kvs.len() as u64;
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(listed) };
            request.key = successor(&last.key);
            if request.revision == 0 {
                request.revision = revision(&page.header);
            }
        }
    }

    /// Counts the chunks as they come, and keeps none: as a server of watches would.
    async fn stream(&self) -> Result<u64, Error> {
        let mut chunks = self.client.range_stream(Range::prefix(PREFIX)).await?;
        let mut listed = 0;
        while let Some(chunk) = chunks.message().await.map_err(Error::of)? {
            listed += chunk.range_response.map_or(0, |range| range.kvs.len() as u64);
        }
        Ok(listed)
    }
}

/// The first key after a key.
fn successor(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}
