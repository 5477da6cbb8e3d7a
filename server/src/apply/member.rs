use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mainstay_proto::mainstay::MemberAttributes;
use prost::Message;

use super::dispatch::done;
use super::{OpenError, State};
use crate::command::Outcome;
use crate::engine::{Engine, Family, layout};

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
    /// What a member published; `None` until it has started once.
    pub fn get(&self, id: u64) -> Option<MemberAttributes> {
        self.published.load().get(&id).cloned()
    }

    /// Everything that was published, by member.
    pub fn all(&self) -> Vec<MemberAttributes> {
        self.published.load().values().cloned().collect()
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

/// Replaces what a member published of itself.
pub(super) fn apply(state: &mut State, attributes: &MemberAttributes) -> Outcome {
    state.store.batch().put(Family::Members, layout::member_key(attributes.id), attributes.encode_to_vec());
    let mut published = ById::clone(&state.members.published.load());
    published.insert(attributes.id, attributes.clone());
    state.members.published.store(Arc::new(published));
    done(state, None)
}
