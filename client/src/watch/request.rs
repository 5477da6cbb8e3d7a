use bytes::Bytes;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::WatchCreateRequest;
use mainstay_proto::etcdserverpb::watch_create_request::FilterType;

/// What to watch, built step by step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch(WatchCreateRequest);

impl Watch {
    /// Watches the keys of a range.
    pub fn of(range: &KeyRange) -> Self {
        Self(WatchCreateRequest {
            key: range.key().clone(),
            range_end: range.range_end().clone(),
            ..WatchCreateRequest::default()
        })
    }

    /// Watches one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::of(&KeyRange::single(key))
    }

    /// Watches every key that begins so.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::of(&KeyRange::prefix(prefix))
    }

    /// Watches every key.
    pub fn all() -> Self {
        Self::of(&KeyRange::all())
    }

    /// Begins with the events of this revision, past or to come. Without it, with the next one.
    pub fn start_revision(mut self, revision: i64) -> Self {
        self.0.start_revision = revision;
        self
    }

    /// Asks for what each key held before the event.
    pub fn prev_kv(mut self) -> Self {
        self.0.prev_kv = true;
        self
    }

    /// Asks for a notice of progress when there were no events for a while.
    pub fn progress_notify(mut self) -> Self {
        self.0.progress_notify = true;
        self
    }

    /// Leaves out writes.
    pub fn without_puts(mut self) -> Self {
        self.0.filters.push(FilterType::Noput.into());
        self
    }

    /// Leaves out deletes.
    pub fn without_deletes(mut self) -> Self {
        self.0.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Allows the server to split large responses; the watcher puts them together again.
    pub fn fragment(mut self) -> Self {
        self.0.fragment = true;
        self
    }
}

impl From<WatchCreateRequest> for Watch {
    fn from(request: WatchCreateRequest) -> Self {
        Self(request)
    }
}

impl From<Watch> for WatchCreateRequest {
    fn from(watch: Watch) -> Self {
        watch.0
    }
}
