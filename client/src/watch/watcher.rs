use std::time::Duration;

use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::time::{Instant, sleep, timeout};

use super::cursor::{Cursor, Update};
use super::raw::RawWatch;
use crate::client::Client;
use crate::error::Error;
use crate::failover::{Class, Failure, Route};

/// One watch. It goes on after broken streams and lost members until it is dropped or cancelled, or
/// until its history is compacted away.
#[derive(Debug)]
pub struct Watcher {
    client: Client,
    watch: WatchCreateRequest,
    cursor: Cursor,
    open: Option<Open>,
    route: Route,
    /// How long to wait before the next opening.
    pause: Duration,
    created_revision: i64,
    resume_count: u64,
    /// Why the watch is over.
    end: Option<Error>,
}

/// The stream in use.
#[derive(Debug)]
struct Open {
    endpoint: usize,
    watch_id: i64,
    stream: RawWatch,
}

impl Client {
    /// Starts a watch, and returns when the server has created it: whatever is written from then on
    /// will be seen. Tries the endpoints in turn within the request's time limit.
    pub async fn watch(&self, watch: impl Into<WatchCreateRequest>) -> Result<Watcher, Error> {
        let watch = watch.into();
        let mut watcher = Watcher {
            client: self.clone(),
            cursor: Cursor::new(watch.start_revision),
            watch,
            open: None,
            route: self.route(),
            pause: Duration::ZERO,
            created_revision: 0,
            resume_count: 0,
            end: None,
        };
        let deadline = Instant::now() + self.options().request_timeout;
        while watcher.open.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            let opened = timeout(left, watcher.try_open()).await.map_err(|_elapsed| Error::TimedOut)?;
            if let Err(error) = opened
                && (watcher.route.is_declined() || Instant::now() + watcher.pause >= deadline)
            {
                return Err(error);
            }
            if let Some(end) = &watcher.end {
                return Err(end.clone());
            }
        }
        Ok(watcher)
    }
}

impl Watcher {
    /// Waits for the next events or notice of progress. An error is final, and is returned again by
    /// every later call.
    ///
    /// May be dropped while it waits and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Update, Error> {
        loop {
            if let Some(end) = &self.end {
                return Err(end.clone());
            }
            let Some(open) = &mut self.open else {
                if self.try_open().await.is_ok() {
                    self.resume_count += 1;
                }
                continue;
            };
            match open.stream.responses.message().await {
                Ok(Some(response)) => {
                    // It works: the next failure starts a new round of the endpoints.
                    self.route = Route::new(open.endpoint, self.client.endpoints().len());
                    match self.cursor.accept(response) {
                        Ok(Some(update)) => return Ok(update),
                        Ok(None) => {}
                        Err(error) => self.finish(error),
                    }
                }
                // The server ends a stream in good order when it stops.
                Ok(None) => self.lost(Failure::Broken),
                Err(status) => {
                    let failure = Failure::of(&status);
                    if failure.allows_resume() {
                        self.lost(failure);
                    } else {
                        self.finish(Error::of(status));
                    }
                }
            }
        }
    }

    /// The store's revision when the watch was first created.
    pub fn created_revision(&self) -> i64 {
        self.created_revision
    }

    /// The first revision that was not delivered yet.
    pub fn next_revision(&self) -> i64 {
        self.cursor.next_revision()
    }

    /// How often the watch was opened again.
    pub fn resume_count(&self) -> u64 {
        self.resume_count
    }

    /// The endpoint that serves the watch now; `None` between two streams.
    pub fn endpoint(&self) -> Option<&str> {
        self.open.as_ref().map(|open| self.client.endpoints()[open.endpoint])
    }

    /// Asks the server for a notice of progress; [`next`](Self::next) delivers it, when the watch
    /// has caught up. Without effect between two streams.
    pub async fn request_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    /// Leaves the stream and opens another at the next endpoint: for a caller who knows better than
    /// the connection that its member is gone.
    pub fn reopen(&mut self) {
        self.lost(Failure::TimedOut);
    }

    /// Ends the watch and waits until the server says so, or the request's time is over.
    /// Dropping the watcher ends it, too.
    pub async fn cancel(mut self) -> Result<(), Error> {
        let Some(open) = &self.open else { return Ok(()) };
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: open.watch_id })).await;
        let Some(open) = &mut self.open else { return Ok(()) };
        let acknowledged = async {
            loop {
                match open.stream.responses.message().await {
                    Ok(Some(WatchResponse { canceled: true, .. })) | Ok(None) => return Ok(()),
                    Ok(Some(_)) => {}
                    Err(status) => return Err(Error::of(status)),
                }
            }
        };
        timeout(self.client.options().request_timeout, acknowledged).await.map_err(|_elapsed| Error::TimedOut)?
    }

    async fn send(&self, union: RequestUnion) {
        if let Some(open) = &self.open {
            // A closed queue means a broken stream, which `next` will find and mend.
            let _closed = open.stream.requests.send(WatchRequest { request_union: Some(union) }).await;
        }
    }

    fn finish(&mut self, error: Error) {
        self.open = None;
        self.end = Some(error);
    }

    /// Gives the stream up and turns to the next endpoint.
    fn lost(&mut self, failure: Failure) {
        self.open = None;
        if failure.blames_endpoint() {
            self.client.leave(self.route.endpoint());
        }
        self.pause = self.route.advance(failure);
    }

    /// One attempt to open the stream at the endpoint whose turn it is. Nothing is lost when it is
    /// dropped half way. The error is also kept in `end` when it is final.
    async fn try_open(&mut self) -> Result<(), Error> {
        sleep(self.pause).await;
        let endpoint = self.route.endpoint();
        match self.open_at(endpoint).await {
            Ok((open, now)) => {
                if self.created_revision == 0 {
                    self.created_revision = now;
                }
                self.open = Some(open);
                Ok(())
            }
            Err((failure, error)) => {
                if failure.allows_resume() {
                    self.lost(failure);
                } else {
                    self.finish(error.clone());
                }
                Err(error)
            }
        }
    }

    async fn open_at(&mut self, endpoint: usize) -> Result<(Open, i64), (Failure, Error)> {
        let request = self.cursor.resume(&self.watch);
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) };
        let mut stream = self.client.open_watch(endpoint, first).await?;
        let limit = self.client.attempt_limit(Class::Read, Instant::now() + self.client.options().request_timeout);
        let created = match timeout(limit, stream.responses.message()).await {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => {
                return Err((Failure::Broken, Error::Malformed("a stream that ended before the watch was created")));
            }
            Ok(Err(status)) => return Err((Failure::of(&status), Error::of(status))),
            Err(_elapsed) => return Err((Failure::TimedOut, Error::TimedOut)),
        };
        // A refusal by the server is final whatever its reason, so its code does not matter.
        let now = self.cursor.created(&created).map_err(|error| (Failure::Answered(tonic::Code::Unknown), error))?;
        Ok((Open { endpoint, watch_id: created.watch_id, stream }, now))
    }
}
