//! One client's stream of watches.

use std::collections::VecDeque;

use bytes::Bytes;
use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use mainstay_proto::mvccpb::event::EventType;

use super::StreamKey;
use super::delivery::{Delivery, Events, Form, Recorded, header};
use super::fragment;
use super::hub::{Hub, HubMessage};
use super::mailbox::MailboxReader;
use super::spliced::{SplicedResponse, encoded_event};
use crate::env::clock;
use crate::env::probe;
use crate::limits;
use crate::mvcc::{Event, ReadError};

/// A stream: takes requests, gives responses. Their headers tell the revision only.
pub struct WatchStream {
    key: StreamKey,
    hub: Hub,
    reader: MailboxReader,
    /// Came out of the mailbox, and is not a response yet.
    arrived: Option<Delivery>,
    /// Responses to be taken.
    ready: VecDeque<SplicedResponse>,
}

/// Why a stream gives no more responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchStreamEnd {
    /// The hub has ended.
    #[error("server stopped")]
    Stopped,
    /// The store could not be read for too long.
    #[error("the store cannot be read")]
    Unreadable,
}

impl WatchStream {
    pub(super) fn new(key: StreamKey, hub: Hub, reader: MailboxReader) -> Self {
        Self { key, hub, reader, arrived: None, ready: VecDeque::new() }
    }

    /// Hands a request on. One that is empty is ignored, as in etcd.
    pub async fn request(&self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => self.request_progress().await,
            None => {}
        }
    }

    /// Asks for a watcher. The answer comes as a response.
    pub async fn create(&self, request: WatchCreateRequest) {
        self.hub.send(HubMessage::Create { stream: self.key, request }).await;
    }

    /// Answers a request for a watcher that must not be created.
    pub async fn refuse(&self, reason: String) {
        self.hub.send(HubMessage::Refuse { stream: self.key, reason }).await;
    }

    /// Ends a watcher. Answered by a response if it exists.
    pub async fn cancel(&self, id: i64) {
        self.hub.send(HubMessage::Cancel { stream: self.key, id }).await;
    }

    /// Asks up to which revision the stream knows everything. Answered by a response if all of its
    /// watchers are up to date.
    pub async fn request_progress(&self) {
        self.hub.send(HubMessage::Progress { stream: self.key }).await;
    }

    /// Whether further requests should be handed on now; otherwise responses are to be taken first.
    pub fn takes_requests(&self) -> bool {
        self.reader.takes_requests()
    }

    /// Waits until there is a response to be taken. Loses nothing when dropped.
    pub async fn arrival(&mut self) -> Result<(), WatchStreamEnd> {
        if self.arrived.is_none() && self.ready.is_empty() {
            self.arrived = Some(self.reader.recv().await.ok_or(WatchStreamEnd::Stopped)?);
        }
        Ok(())
    }

    /// Whether there is a response to be taken now, without waiting.
    pub fn has_arrived(&mut self) -> bool {
        if self.arrived.is_none() && self.ready.is_empty() {
            self.arrived = self.reader.try_recv();
        }
        self.arrived.is_some() || !self.ready.is_empty()
    }

    /// Takes the next response that has arrived.
    pub async fn take(&mut self) -> Result<Option<WatchResponse>, WatchStreamEnd> {
        Ok(self.take_spliced().await?.map(SplicedResponse::into_response))
    }

    /// The same for who sends it on: its events are encoded already.
    pub async fn take_spliced(&mut self) -> Result<Option<SplicedResponse>, WatchStreamEnd> {
        match self.arrived.take() {
            None => {}
            Some(Delivery::Notice(response)) => self.ready.push_back(response.into()),
            Some(Delivery::Events(events)) => {
                let response = self.response(&events).await?;
                self.make_ready(response, events.fragment);
            }
        }
        Ok(self.ready.pop_front())
    }

    async fn response(&self, delivered: &Events) -> Result<SplicedResponse, WatchStreamEnd> {
        let mut events = Vec::with_capacity(delivered.count);
        let mut looked_up = 0;
        for part in &delivered.parts {
            for (place, event) in part.events() {
                let encoded = if delivered.prev_kv && !is_create(event) {
                    looked_up += 1;
                    if looked_up % limits::PREVIOUS_LOOKUPS == 0 {
                        tokio::task::yield_now().await;
                    }
                    self.with_previous(&part.recorded, place, event).await?
                } else {
                    plain(&part.recorded, place, event)
                };
                events.push(encoded);
            }
        }
        let head =
            WatchResponse { header: header(delivered.revision), watch_id: delivered.id, ..WatchResponse::default() };
        Ok(SplicedResponse::new(head, events))
    }

    /// Gives a response, in several pieces where it may be split and has to be.
    fn make_ready(&mut self, response: SplicedResponse, fragment: bool) {
        if response.events().len() > 1 && probe::broken("split-revision-in-watch") {
            // Wrong: a revision comes in several responses, none of which says that it is not all.
            let (head, events) = response.into_parts();
            self.ready.extend(events.into_iter().map(|event| SplicedResponse::new(head.clone(), vec![event])));
        } else if fragment {
            let pieces = fragment::split(response, self.hub.max_response_bytes());
            if pieces.len() > 1 {
                probe::reached("watch-response-fragmented");
            }
            self.ready.extend(pieces);
        } else {
            self.ready.push_back(response);
        }
    }

    /// An event with the record before it; without one where that is compacted.
    async fn with_previous(&self, recorded: &Recorded, place: usize, event: &Event) -> Result<Bytes, WatchStreamEnd> {
        let Some(kv) = &event.kv else { return Ok(plain(recorded, place, event)) };
        // Wrong where it is broken: the record after the change passes for the one before it.
        let before = kv.mod_revision - i64::from(!probe::broken("prev-kv-from-wrong-revision"));
        for _ in 0..limits::PREVIOUS_ATTEMPTS {
            // Another watcher may have looked it up before it was compacted: what a client is told must not
            // depend on that.
            if before < self.hub.store().compact_revision() {
                probe::reached("prev-kv-compacted");
                return Ok(plain(recorded, place, event));
            }
            if let Some(encoded) = recorded.encoded(place, Form::WithPrevious) {
                return Ok(encoded);
            }
            let found = match self.hub.store().get_at(&kv.key, before) {
                Ok(found) => found,
                // Since it was looked at.
                Err(ReadError::Compacted) => continue,
                Err(error) => {
                    // While a snapshot takes its place the store cannot be read.
                    tracing::debug!(%error, "the record before an event cannot be read now");
                    clock::sleep(limits::CATCH_UP_RETRY).await;
                    continue;
                }
            };
            let encoded = encoded_event(event, found);
            recorded.keep_encoded(place, Form::WithPrevious, &encoded);
            return Ok(encoded);
        }
        Err(WatchStreamEnd::Unreadable)
    }
}

/// An event without the record before it.
fn plain(recorded: &Recorded, place: usize, event: &Event) -> Bytes {
    // Wrong where it is broken: whoever did not ask for it is told the record before an event, if somebody else did.
    let is_wrong = probe::broken("event-shared-with-its-record-before");
    let form = if is_wrong { Form::WithPrevious } else { Form::Plain };
    if let Some(encoded) = recorded.encoded(place, form) {
        return encoded;
    }
    let encoded = encoded_event(event, None);
    recorded.keep_encoded(place, Form::Plain, &encoded);
    encoded
}

/// Whether an event made its key, so that there is nothing before it.
fn is_create(event: &Event) -> bool {
    event.r#type == EventType::Put as i32 && event.kv.as_ref().is_some_and(|kv| kv.create_revision == kv.mod_revision)
}
