//! A watch stream to one server: what arrives is sorted by what it is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use prost_reflect::DynamicMessage;
use tokio::time::timeout;

use mainstay_tests::schema;
use mainstay_tests::wire::{Incoming, Stream, frame};

use super::side::ANSWERS_WITHIN;
use crate::allowed::{self, Answer, Gathered};

/// One server's half of a watch stream.
pub(super) struct Half {
    stream: Stream,
    /// Answers to requests, in order: created and canceled.
    controls: VecDeque<DynamicMessage>,
    /// Answers to requests for progress. They overtake the others.
    pub(super) progress: VecDeque<DynamicMessage>,
    /// Events by watch.
    pub(super) watches: BTreeMap<i64, Gathered>,
    /// How the stream ended, or what was wrong with a response.
    ended: Option<Answer>,
}

impl Half {
    pub(super) fn new(stream: Stream) -> Self {
        let (controls, progress) = (VecDeque::new(), VecDeque::new());
        Self { stream, controls, progress, watches: BTreeMap::new(), ended: None }
    }

    pub(super) fn send(&mut self, request: &DynamicMessage) {
        // Where the stream has ended, its end says more than that nothing can be sent.
        let _ended = self.stream.send(frame(&request.encode_to_vec()));
    }

    pub(super) fn half_close(&mut self) {
        let _ended = self.stream.half_close();
    }

    /// The next answer to a request to create or cancel.
    pub(super) async fn control(&mut self) -> Answer {
        let arrived = self.until(ANSWERS_WITHIN, |half| !half.controls.is_empty()).await;
        match self.controls.pop_front() {
            Some(control) => Answer { code: Some(0), text: String::new(), messages: vec![control] },
            None => arrived.err().unwrap_or_else(|| broken("no answer")),
        }
    }

    /// Waits until a watch has as many events, or the stream is at its end.
    pub(super) async fn events(&mut self, watch: i64, count: usize) -> Result<(), Answer> {
        self.until(ANSWERS_WITHIN, |half| half.watches.get(&watch).map_or(0, |watch| watch.events.len()) >= count).await
    }

    /// Waits until a watch has an event of a revision.
    pub(super) async fn revision(&mut self, watch: i64, revision: i64) -> Result<(), Answer> {
        let last = |half: &Self| half.watches.get(&watch)?.events.last().map(allowed::revision_of);
        self.until(ANSWERS_WITHIN, |half| last(half) >= Some(revision)).await
    }

    /// Waits for an answer to a request for progress; there may be none.
    pub(super) async fn progress(&mut self, within: Duration) -> bool {
        self.until(within, |half| !half.progress.is_empty()).await.is_ok()
    }

    /// Takes in what has arrived, until that is enough.
    async fn until(&mut self, within: Duration, enough: impl Fn(&Self) -> bool) -> Result<(), Answer> {
        let arrivals = async {
            loop {
                self.take_in();
                if enough(self) {
                    return Ok(());
                }
                if let Some(end) = &self.ended {
                    return Err(end.clone());
                }
                match self.stream.next().await {
                    Ok(incoming) => self.sort(incoming),
                    Err(error) => self.ended = Some(broken(&error.to_string())),
                }
            }
        };
        timeout(within, arrivals).await.unwrap_or_else(|_| Err(broken("no answer in time")))
    }

    /// Takes in what has arrived, without waiting. Says what was wrong with it, if anything was.
    pub(super) fn take_in(&mut self) -> Option<&Answer> {
        while let Some(incoming) = self.stream.arrived() {
            self.sort(incoming);
        }
        self.ended.as_ref()
    }

    fn sort(&mut self, incoming: Incoming) {
        let message = match incoming {
            Incoming::End(reply) => {
                let end = Answer { code: reply.code, text: reply.text, messages: Vec::new() };
                self.ended.get_or_insert(end);
                return;
            }
            Incoming::Message(message) => message,
        };
        let response = match DynamicMessage::decode(schema::message("etcdserverpb.WatchResponse"), message) {
            Ok(response) => response,
            Err(error) => {
                self.ended = Some(broken(&format!("does not decode: {error}")));
                return;
            }
        };
        if schema::flag(&response, "created") || schema::flag(&response, "canceled") {
            self.controls.push_back(response);
        } else if schema::list(&response, "events").is_empty() {
            self.progress.push_back(response);
        } else {
            let watch = self.watches.entry(schema::int(&response, "watch_id")).or_default();
            if let Err(fault) = allowed::batching(&response, watch) {
                self.ended = Some(broken(&fault));
            }
        }
    }
}

fn broken(text: &str) -> Answer {
    Answer { code: None, text: text.to_owned(), messages: Vec::new() }
}
