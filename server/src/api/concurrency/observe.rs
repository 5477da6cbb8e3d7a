use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::kv_server::Kv;
use mainstay_proto::etcdserverpb::range_request::SortOrder;
use mainstay_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use mainstay_proto::mvccpb::KeyValue;
use mainstay_proto::mvccpb::event::EventType;
use mainstay_proto::v3electionpb::LeaderResponse;

use super::caller::{Caller, answered};
use super::queue::one_of;
use crate::api::Services;
use crate::api::header::revision_of;
use crate::env::probe;
use crate::watch::WatchStream;

/// One client's view of an election: the leader, everything it proclaims, and the leaders after it.
pub(super) struct Observation {
    services: Arc<Services>,
    caller: Caller,
    prefix: Bytes,
    followed: Option<Followed>,
}

/// A leader that is being watched.
struct Followed {
    watch: WatchStream,
    /// What it has proclaimed that was not told yet.
    proclaimed: VecDeque<LeaderResponse>,
    /// Whether its key was deleted after that.
    gone: bool,
}

impl Observation {
    pub(super) fn begin(services: Arc<Services>, caller: Caller, prefix: Bytes) -> Self {
        Self { services, caller, prefix, followed: None }
    }

    /// Waits for what is to be told next; `None` when nothing more can be found out.
    pub(super) async fn next(&mut self) -> Option<LeaderResponse> {
        loop {
            let Some(followed) = &mut self.followed else {
                let (header, kv) = self.leader().await?;
                // Wrong where it is broken: what is said right after that is missed.
                let behind = if probe::broken("observer-misses-a-proclamation") { 2 } else { 1 };
                self.followed = Some(self.follow(kv.key.clone(), header.revision + behind).await);
                return Some(LeaderResponse { header: Some(header), kv: Some(kv) });
            };
            if let Some(proclaimed) = followed.proclaimed.pop_front() {
                return Some(proclaimed);
            }
            if followed.gone {
                self.followed = None;
                continue;
            }
            let response = next_response(&mut followed.watch).await?;
            let header = self.services.header(revision_of(response.header));
            for event in response.events {
                followed.gone = event.r#type() == EventType::Delete;
                if followed.gone {
                    break;
                }
                followed.proclaimed.push_back(LeaderResponse { header: Some(header), kv: event.kv });
            }
        }
    }

    /// The leader, as soon as there is one.
    async fn leader(&self) -> Option<(ResponseHeader, KeyValue)> {
        let request = one_of(&self.prefix, SortOrder::Ascend);
        let mut response = answered(self.services.range(self.caller.asks(request)).await).ok()?;
        let header = response.header?;
        match response.kvs.pop() {
            Some(kv) => Some((header, kv)),
            None => self.first_candidate(header.revision).await,
        }
    }

    /// The first key that is put below the prefix, at a revision or later.
    async fn first_candidate(&self, from: i64) -> Option<(ResponseHeader, KeyValue)> {
        let range = KeyRange::prefix(self.prefix.clone());
        let mut watch = self.services.hub.open_stream_of(self.caller.hold().identity()).await;
        let request = WatchCreateRequest {
            key: range.key().clone(),
            range_end: range.range_end().clone(),
            start_revision: from,
            ..WatchCreateRequest::default()
        };
        watch.create(request).await;
        loop {
            let response = next_response(&mut watch).await?;
            let put = response.events.into_iter().find(|event| event.r#type() == EventType::Put);
            if let Some(kv) = put.and_then(|event| event.kv) {
                // Several revisions may have come together: the header tells the one of this key.
                return Some((self.services.header(kv.mod_revision), kv));
            }
        }
    }

    async fn follow(&self, key: Bytes, from: i64) -> Followed {
        let watch = self.services.hub.open_stream_of(self.caller.hold().identity()).await;
        watch.create(WatchCreateRequest { key, start_revision: from, ..WatchCreateRequest::default() }).await;
        Followed { watch, proclaimed: VecDeque::new(), gone: false }
    }
}

/// Waits for the next response; `None` when the watch has ended.
async fn next_response(watch: &mut WatchStream) -> Option<WatchResponse> {
    loop {
        if let Some(response) = watch.take().await.ok()? {
            return (!response.canceled).then_some(response);
        }
        watch.arrival().await.ok()?;
    }
}
