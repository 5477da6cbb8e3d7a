//! One client's watch stream to both servers, and what its watches have to deliver.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost_reflect::{DynamicMessage, Value};
use tokio::join;

use mainstay_proto::KeyRange;
use mainstay_tests::schema::{self, bytes, flag, inner, int};

use super::half::Half;
use crate::allowed::{self, Answer, Choices};
use crate::compare;
use crate::report::Difference;

/// How long one server may take for an answer to a request for progress before it is asked again.
const PROGRESS_WITHIN: Duration = Duration::from_millis(30);
/// How often it is asked.
const PROGRESS_TRIES: usize = 200;
/// The number of a watch that marks a point in the past.
const MARKER: i64 = 1;

/// Everything that has happened, as the reference told it.
pub(super) type History = Vec<DynamicMessage>;

/// A watch stream of one client.
pub(super) struct Watching {
    halves: [Half; 2],
    watches: BTreeMap<i64, Watch>,
    /// Watches that a compaction has ended, and the client has not.
    compacted: BTreeSet<i64>,
    /// Answers to requests for progress that may still come: who was asked twice may answer twice.
    late_progress: usize,
    /// The client has closed its own half.
    pub(super) closed: bool,
}

/// A watch that is open.
struct Watch {
    range: KeyRange,
    /// The revision that was asked for; 0 for none.
    start: i64,
    /// The first revision whose events it delivers.
    from: i64,
    /// Types of events that it does not deliver.
    filters: Vec<i32>,
    /// How many events were found equal.
    compared: usize,
}

impl Watch {
    fn new(request: &DynamicMessage, created: i64) -> Self {
        let (key, start) = (bytes(request, "key"), int(request, "start_revision"));
        let key = if key.is_empty() { "\0".into() } else { key };
        let filters = request.get_field_by_name("filters");
        let filters = filters.as_ref().and_then(|filters| filters.as_list()).unwrap_or_default();
        Self {
            range: KeyRange::new(key, bytes(request, "range_end")),
            start,
            from: if start > 0 { start } else { created + 1 },
            filters: filters.iter().filter_map(Value::as_enum_number).collect(),
            compared: 0,
        }
    }

    fn expects(&self, event: &DynamicMessage) -> bool {
        let kind = event.get_field_by_name("type").and_then(|kind| kind.as_enum_number()).unwrap_or(0);
        let kv = inner(event, "kv");
        allowed::revision_of(event) >= self.from
            && !self.filters.contains(&kind)
            && kv.is_some_and(|kv| self.range.contains(&bytes(&kv, "key")))
    }
}

impl Watching {
    pub(super) fn new(halves: [Half; 2]) -> Self {
        Self { halves, watches: BTreeMap::new(), compacted: BTreeSet::new(), late_progress: 0, closed: false }
    }

    /// Opens the watch on everything, which is number 0.
    pub(super) async fn observe_everything(&mut self, choices: [&Choices; 2]) -> Result<(), Difference> {
        let request =
            watch_request(r#"create_request { key: "\000" range_end: "\000" start_revision: 1 prev_kv: true }"#);
        self.request(&[request.clone(), request], choices, &History::new(), 0).await.map(drop)
    }

    /// Opens a watch that begins at a revision in the past, waits until it has told of it, and ends it.
    pub(super) async fn mark(&mut self, choices: [&Choices; 2], revision: i64) -> Result<(), Difference> {
        let create = format!(
            r#"create_request {{ key: "\000" range_end: "\000" start_revision: {revision} watch_id: {MARKER} }}"#
        );
        let cancel = format!("cancel_request {{ watch_id: {MARKER} }}");
        self.send(&[watch_request(&create), watch_request(&create)]);
        self.control(choices).await?;
        let [one, other] = &mut self.halves;
        let (one, other) = join!(one.revision(MARKER, revision), other.revision(MARKER, revision));
        told([one, other], &format!("past events of revision {revision}"))?;
        self.send(&[watch_request(&cancel), watch_request(&cancel)]);
        self.control(choices).await?;
        self.forget(MARKER);
        Ok(())
    }

    /// Sends a request and waits for what has to be answered. Returns whether the stream goes on.
    pub(super) async fn request(
        &mut self,
        requests: &[DynamicMessage; 2],
        choices: [&Choices; 2],
        history: &History,
        compacted: i64,
    ) -> Result<bool, Difference> {
        if let Some(create) = inner(&requests[0], "create_request") {
            self.send(requests);
            let Some(created) = self.control(choices).await? else { return Ok(false) };
            if flag(&created, "canceled") {
                return Ok(true);
            }
            let id = int(&created, "watch_id");
            let revision = inner(&created, "header").map_or(0, |header| int(&header, "revision"));
            self.watches.insert(id, Watch::new(&create, revision));
            let start = int(&create, "start_revision");
            if start > 0 && start < compacted {
                self.control(choices).await?;
                self.forget(id);
                self.compacted.insert(id);
            }
        } else if let Some(cancel) = inner(&requests[0], "cancel_request") {
            self.settle(choices, history).await?;
            self.send(requests);
            let id = int(&cancel, "watch_id");
            if self.watches.contains_key(&id) || self.compacted.remove(&id) {
                self.control(choices).await?;
                self.forget(id);
            }
        } else if inner(&requests[0], "progress_request").is_some() {
            self.settle(choices, history).await?;
            self.progress(requests, choices, history.last().map_or(1, allowed::revision_of)).await?;
        } else {
            self.send(requests);
        }
        Ok(true)
    }

    /// Forgets a watch that has ended: another one may have its id.
    fn forget(&mut self, id: i64) {
        self.watches.remove(&id);
        self.halves.iter_mut().for_each(|half| drop(half.watches.remove(&id)));
    }

    fn send(&mut self, requests: &[DynamicMessage; 2]) {
        for (half, request) in self.halves.iter_mut().zip(requests) {
            half.send(request);
        }
    }

    /// The next answer to a request to create or cancel, equal on both; `None` if the stream has ended.
    async fn control(&mut self, choices: [&Choices; 2]) -> Result<Option<DynamicMessage>, Difference> {
        let [one, other] = &mut self.halves;
        let (one, other) = join!(one.control(), other.control());
        let answers = equal([one, other], choices)?;
        Ok(answers.messages.into_iter().next())
    }

    async fn progress(
        &mut self,
        requests: &[DynamicMessage; 2],
        choices: [&Choices; 2],
        now: i64,
    ) -> Result<(), Difference> {
        self.no_surplus()?;
        if !allowed::progress_of_stream(!self.compacted.is_empty()) {
            return Ok(());
        }
        // Progress is told of streams that have a watch, and none of them in the future.
        if self.watches.is_empty() || self.watches.values().any(|watch| watch.start > now) {
            self.send(requests);
            return Ok(());
        }
        for (half, request) in self.halves.iter_mut().zip(requests) {
            for tried in 0..PROGRESS_TRIES {
                half.send(request);
                self.late_progress += usize::from(tried > 0);
                if half.progress(PROGRESS_WITHIN).await {
                    break;
                }
            }
        }
        let [one, other] = self.halves.each_mut().map(|half| Answer {
            code: Some(0),
            text: String::new(),
            messages: half.progress.pop_front().into_iter().collect(),
        });
        equal([one, other], choices).map(drop)
    }

    /// No answer may have come that nobody waited for.
    fn no_surplus(&mut self) -> Result<(), Difference> {
        for (place, half) in self.halves.iter_mut().enumerate() {
            half.take_in();
            let surplus: Vec<String> = half.progress.drain(..).map(|message| message.to_text_format()).collect();
            if surplus.len() > self.late_progress {
                let mut texts = [String::new(), String::new()];
                texts[place] = surplus.join("\n");
                return Err(Difference::between("progress that nobody may tell", texts));
            }
        }
        Ok(())
    }

    /// Waits until each watch has delivered what it has to, and compares it.
    pub(super) async fn settle(&mut self, choices: [&Choices; 2], history: &History) -> Result<(), Difference> {
        for (id, watch) in &self.watches {
            let expected = history.iter().filter(|event| watch.expects(event)).count();
            let [one, other] = &mut self.halves;
            let (one, other) = join!(one.events(*id, expected), other.events(*id, expected));
            if one.is_err() || other.is_err() {
                let texts = [one, other].map(|waited| waited.map_or_else(|end| end.text, |()| "all".to_owned()));
                let what = format!("events of watch {id}: {expected} are expected");
                let counts = self.halves.each_ref().map(|half| half.watches.get(id).map_or(0, |w| w.events.len()));
                return Err(Difference::between(
                    &what,
                    [0, 1].map(|side| format!("{} events; {}", counts[side], texts[side])),
                ));
            }
        }
        self.compare(choices)
    }

    /// Compares the events that both have delivered so far.
    pub(super) fn compare(&mut self, choices: [&Choices; 2]) -> Result<(), Difference> {
        for half in &mut self.halves {
            half.take_in();
        }
        for (id, watch) in &mut self.watches {
            let [one, other] = self.halves.each_ref().map(|half| half.watches.get(id).map(|watch| &watch.events[..]));
            let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
            for (one, other) in one.iter().zip(other).skip(watch.compared) {
                let mut events = [one.clone(), other.clone()];
                events.iter_mut().zip(choices).for_each(|(event, choices)| allowed::picked_leases(choices, event));
                if let Some(path) = compare::messages(&events[0], &events[1]) {
                    let what = format!("event of watch {id}: {path}");
                    return Err(Difference::between(&what, events.map(|event| event.to_text_format())));
                }
                watch.compared += 1;
            }
        }
        Ok(())
    }

    /// Compares all there is before the stream is given up: also that nothing came which nobody expected.
    pub(super) async fn finish(&mut self, choices: [&Choices; 2], history: &History) -> Result<(), Difference> {
        self.settle(choices, history).await?;
        self.no_surplus()?;
        for (id, watch) in &self.watches {
            let expected = history.iter().filter(|event| watch.expects(event)).count();
            let counts = self.halves.each_ref().map(|half| half.watches.get(id).map_or(0, |w| w.events.len()));
            if counts != [expected, expected] {
                let texts = counts.map(|count| format!("{count} events"));
                return Err(Difference::between(&format!("events of watch {id}: {expected} are expected"), texts));
            }
        }
        Ok(())
    }

    /// Closes the client's half of the stream.
    pub(super) fn half_close(&mut self) {
        self.halves.iter_mut().for_each(Half::half_close);
        self.closed = true;
    }
}

/// Waits until the watch on everything has seen a revision on both servers, and adds to the history.
pub(super) async fn observe(
    observers: &mut Watching,
    choices: [&Choices; 2],
    history: &mut History,
    now: i64,
) -> Result<(), Difference> {
    if history.last().map_or(1, allowed::revision_of) >= now {
        return observers.compare(choices);
    }
    let [one, other] = &mut observers.halves;
    let (one, other) = join!(one.revision(0, now), other.revision(0, now));
    told([one, other], &format!("events of revision {now}"))?;
    observers.compare(choices)?;
    if let Some(all) = observers.halves[0].watches.get(&0) {
        history.extend_from_slice(&all.events[history.len()..]);
    }
    Ok(())
}

/// Refuses it where one has not told what was waited for.
fn told(waited: [Result<(), Answer>; 2], what: &str) -> Result<(), Difference> {
    if waited.iter().all(Result::is_ok) {
        return Ok(());
    }
    Err(Difference::between(what, waited.map(|waited| waited.map_or_else(|end| end.text, |()| "told".to_owned()))))
}

/// Both answers where they are equal but for what is allowed.
fn equal(mut answers: [Answer; 2], choices: [&Choices; 2]) -> Result<Answer, Difference> {
    let request = DynamicMessage::new(schema::message("etcdserverpb.WatchRequest"));
    for (answer, choices) in answers.iter_mut().zip(choices) {
        allowed::take_out("Watch.Watch", &request, choices, answer);
    }
    Difference::of_answers("Watch.Watch", &answers)?;
    let [answer, _] = answers;
    Ok(answer)
}

fn watch_request(text: &str) -> DynamicMessage {
    DynamicMessage::parse_text_format(schema::message("etcdserverpb.WatchRequest"), text).expect("it is well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> DynamicMessage {
        DynamicMessage::parse_text_format(schema::message("mvccpb.Event"), text).unwrap()
    }

    #[test]
    fn a_watch_expects_what_its_request_says() {
        let create = |text| {
            let descriptor = schema::message("etcdserverpb.WatchCreateRequest");
            Watch::new(&DynamicMessage::parse_text_format(descriptor, text).unwrap(), 10)
        };
        let put = |revision| event(&format!("kv {{ key: 'b' mod_revision: {revision} }}"));
        let delete = event("type: DELETE kv { key: 'b' mod_revision: 20 }");
        assert!(create("key: 'b'").expects(&put(11)) && !create("key: 'b'").expects(&put(10)));
        assert!(create("key: 'a' range_end: 'c' start_revision: 3").expects(&put(3)));
        assert!(create("range_end: '\\000'").expects(&delete));
        assert!(!create("key: 'a'").expects(&delete));
        assert!(!create("key: 'b' filters: NODELETE").expects(&delete));
        assert!(!create("key: 'b' filters: NOPUT").expects(&put(20)));
        assert!(create("key: 'b' filters: 7").expects(&put(20)));
    }
}
