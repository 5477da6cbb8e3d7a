use std::sync::Arc;

use arc_swap::ArcSwap;
use mainstay_proto::etcdserverpb::DowngradeInfo;
use prost::Message;

use super::dispatch::done;
use super::{OpenError, State};
use crate::command::Outcome;
use crate::engine::layout::meta;
use crate::engine::{Engine, Family};

/// Whether the cluster is on its way to an older version.
#[derive(Default)]
pub(super) struct Downgrade {
    info: Arc<ArcSwap<DowngradeInfo>>,
}

/// A read handle to that.
#[derive(Clone, Debug)]
pub struct DowngradeView {
    info: Arc<ArcSwap<DowngradeInfo>>,
}

impl DowngradeView {
    /// The downgrade that is under way, if one is.
    pub fn info(&self) -> DowngradeInfo {
        DowngradeInfo::clone(&self.info.load())
    }
}

impl Downgrade {
    pub(super) fn view(&self) -> DowngradeView {
        DowngradeView { info: self.info.clone() }
    }

    /// Loads what is stored.
    pub(super) fn load(&mut self, engine: &Arc<dyn Engine>) -> Result<(), OpenError> {
        let stored = engine.get(Family::Meta, meta::DOWNGRADE)?.unwrap_or_default();
        self.info.store(Arc::new(DowngradeInfo::decode(stored).map_err(OpenError::Downgrade)?));
        Ok(())
    }
}

/// Begins a downgrade, or ends it.
pub(super) fn apply(state: &mut State, info: &DowngradeInfo) -> Outcome {
    state.store.batch().put(Family::Meta, meta::DOWNGRADE, info.encode_to_vec());
    state.downgrade.info.store(Arc::new(info.clone()));
    done(state, None)
}
