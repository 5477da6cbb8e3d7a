//! From events to what each watcher is told of them (pure).

use std::sync::Arc;

use mainstay_proto::KeyRange;
use mainstay_proto::mvccpb::event::EventType;

use super::WatcherKey;
use super::delivery::{Chosen, Part, Recorded, event_bytes};
use super::group::Group;
use crate::mvcc::Event;

/// A watcher whose range one event of a batch concerns; ordered by watcher, then as in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    pub(super) watcher: WatcherKey,
    /// The place of the revision in the batch.
    revision: u32,
    /// The place of the event in the revision.
    event: u32,
}

/// Which kinds of events a watcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) puts: bool,
    pub(super) deletes: bool,
}

impl Filter {
    fn passes(self, event: &Event) -> bool {
        if event.r#type == EventType::Delete as i32 { self.deletes } else { self.puts }
    }
}

/// Adds whom the events of one revision of a batch concern.
pub(super) fn find(group: &Group, place: usize, recorded: &Recorded, hits: &mut Vec<Hit>) {
    for (event_place, event) in recorded.revision_events.events.iter().enumerate() {
        let Some(kv) = &event.kv else { continue };
        group.visit(&kv.key, &mut |watcher| {
            hits.push(Hit { watcher, revision: place as u32, event: event_place as u32 });
        });
    }
}

/// What one watcher is told of a batch: the parts of its hits that pass its filter, from `next` on.
pub(super) fn parts<'a>(
    batch: &'a [Arc<Recorded>],
    hits: &'a [Hit],
    filter: Filter,
    next: i64,
) -> impl Iterator<Item = Part> + 'a {
    hits.chunk_by(|a, b| a.revision == b.revision).filter_map(move |hits| {
        let recorded = &batch[hits[0].revision as usize];
        if recorded.revision() < next {
            return None;
        }
        part(recorded, filter, hits.iter().map(|hit| hit.event))
    })
}

/// What one watcher is told of a revision that was not looked up in a group.
pub(super) fn part_of(recorded: &Arc<Recorded>, range: &KeyRange, filter: Filter) -> Option<Part> {
    let events = recorded.revision_events.events.iter().enumerate();
    let places = events.filter(|(_, event)| event.kv.as_ref().is_some_and(|kv| range.contains(&kv.key)));
    part(recorded, filter, places.map(|(place, _)| place as u32))
}

fn part(recorded: &Arc<Recorded>, filter: Filter, places: impl Iterator<Item = u32>) -> Option<Part> {
    let events = &recorded.revision_events.events;
    let mut places = places.filter(|place| filter.passes(&events[*place as usize])).peekable();
    places.peek()?;
    let recorded = Arc::clone(recorded);
    if events.len() == 1 {
        return Some(Part { recorded, chosen: Chosen::All });
    }
    let places: Box<[u32]> = places.collect();
    let chosen = if places.len() == recorded.revision_events.events.len() { Chosen::All } else { Chosen::Some(places) };
    Some(Part { recorded, chosen })
}

/// Parts on their way into one message.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) parts: Vec<Part>,
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Gathered {
    pub(super) fn add(&mut self, part: Part) {
        for (_, event) in part.events() {
            self.count += 1;
            self.bytes += event_bytes(event);
        }
        self.parts.push(part);
    }

    pub(super) fn first_revision(&self) -> Option<i64> {
        self.parts.first().map(|part| part.recorded.revision())
    }

    pub(super) fn last_revision(&self) -> Option<i64> {
        self.parts.last().map(|part| part.recorded.revision())
    }
}
