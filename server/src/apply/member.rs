use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mainstay_proto::mainstay::MemberAttributes;
use prost::Message;

use super::dispatch::done;
use super::{OpenError, State, alarm};
use crate::command::Outcome;
use crate::engine::{Engine, Family, layout};
use crate::env::probe;

type ById = BTreeMap<u64, MemberAttributes>;

/// What members published of themselves.
#[derive(Default)]
pub(super) struct Members {
    published: Arc<ArcSwap<ById>>,
}

/// A read handle to the names and client addresses that members published of themselves. Who is a
/// member is not for it to say: that is consensus' own knowledge.
#[derive(Clone, Debug)]
pub struct MemberView {
    published: Arc<ArcSwap<ById>>,
}

impl MemberView {
    /// What a member published; `None` until it has started once, and when it was removed.
    pub fn get(&self, id: u64) -> Option<MemberAttributes> {
        self.published.load().get(&id).filter(|published| !published.removed).cloned()
    }

    /// Everything that was published, by member.
    pub fn all(&self) -> Vec<MemberAttributes> {
        self.published.load().values().filter(|published| !published.removed).cloned().collect()
    }

    /// Whether a member was removed; its id never comes back.
    pub fn is_removed(&self, id: u64) -> bool {
        self.published.load().get(&id).is_some_and(|published| published.removed)
    }

    /// All members that were removed.
    pub fn removed(&self) -> Vec<u64> {
        self.published.load().values().filter(|published| published.removed).map(|published| published.id).collect()
    }
}

impl Members {
    pub(super) fn view(&self) -> MemberView {
        MemberView { published: self.published.clone() }
    }

    /// Loads what is stored.
    pub(super) fn load(&mut self, engine: &Arc<dyn Engine>) -> Result<(), OpenError> {
        let mut published = ById::new();
        let mut malformed = Ok(());
        engine.scan(
            Family::Members,
            Bound::Unbounded,
            Bound::Unbounded,
            &mut |_, value| match MemberAttributes::decode(value) {
                // Wrong where it is broken: who was removed is forgotten with a restart or a snapshot.
                Ok(attributes) if attributes.removed && probe::broken("tombstones-forgotten") => {
                    ControlFlow::Continue(())
                }
                Ok(attributes) => {
                    published.insert(attributes.id, attributes);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    malformed = Err(OpenError::Member(error));
                    ControlFlow::Break(())
                }
            },
        )?;
        malformed?;
        self.published.store(Arc::new(published));
        Ok(())
    }
}

/// Replaces what a member published of itself. One that was removed has nothing more to say.
pub(super) fn apply(state: &mut State, attributes: &MemberAttributes) -> Outcome {
    let is_removed = state.members.published.load().get(&attributes.id).is_some_and(|published| published.removed);
    if !is_removed {
        store(state, attributes);
    }
    done(state, None)
}

/// Remembers that members were removed, and forgets what they published and which alarms they had.
pub fn remove(state: &mut State, ids: &[u64]) {
    alarm::lift_all(state, ids);
    for id in ids {
        store(state, &MemberAttributes { id: *id, removed: true, ..MemberAttributes::default() });
    }
}

fn store(state: &mut State, attributes: &MemberAttributes) {
    state.store.batch().put(Family::Members, layout::member_key(attributes.id), attributes.encode_to_vec());
    let mut published = ById::clone(&state.members.published.load());
    published.insert(attributes.id, attributes.clone());
    state.members.published.store(Arc::new(published));
}
