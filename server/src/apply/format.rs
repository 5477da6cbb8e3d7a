use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use mainstay_proto::mainstay::RaiseFormat;

use super::dispatch::done;
use super::{OpenError, State};
use crate::command::{Outcome, command};
use crate::engine::layout::{self, NewerFormat, meta};
use crate::engine::{Batch, Engine, EngineError, Family};

/// Which format the data have, as the members agreed on it.
///
/// What a command writes and does may depend on it: at one place of the log it is the same on every member.
pub(super) struct Format {
    /// The newest one that this release knows.
    newest: u32,
    now: Arc<AtomicU32>,
    /// The one that was declared beside the engine; 0 before the first.
    declared: u32,
}

/// A read handle to the format of the data.
#[derive(Clone, Debug)]
pub struct FormatView {
    now: Arc<AtomicU32>,
}

impl FormatView {
    /// The format up to the last entry that was applied here.
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Acquire)
    }
}

impl Format {
    pub(super) fn new(newest: u32) -> Self {
        Self { newest, now: Arc::new(AtomicU32::new(layout::FIRST_FORMAT)), declared: 0 }
    }

    pub(super) fn view(&self) -> FormatView {
        FormatView { now: self.now.clone() }
    }

    /// Takes what is stored, unless that is too new, and marks a new store.
    pub(super) fn load(&mut self, engine: &dyn Engine) -> Result<(), OpenError> {
        let stored = stored_format(engine)?;
        let now = stored.unwrap_or(layout::FIRST_FORMAT);
        layout::check_format(now, self.newest)?;
        self.now.store(now, Ordering::Release);
        self.declare(engine)?;
        if stored.is_none() {
            let mut batch = Batch::default();
            batch.put(Family::Meta, meta::FORMAT, now.to_be_bytes().to_vec());
            engine.write(batch)?;
        }
        Ok(())
    }

    /// Says beside the engine which format it is, before anything is written that depends on it.
    pub(super) fn declare(&mut self, engine: &dyn Engine) -> Result<(), EngineError> {
        let now = self.now.load(Ordering::Acquire);
        if self.declared != now {
            engine.declare_format(now)?;
            self.declared = now;
        }
        Ok(())
    }

    /// Refuses a command after which nothing here may be understood any more.
    pub(super) fn check(&self, command: &command::Kind) -> Result<(), NewerFormat> {
        match command {
            command::Kind::RaiseFormat(request) => layout::check_format(request.format, self.newest),
            _ => Ok(()),
        }
    }
}

/// The format that an engine holds data of; `None` where it is new.
///
/// # Errors
/// When the engine fails, or what it holds there is no format.
pub fn stored_format(engine: &dyn Engine) -> Result<Option<u32>, OpenError> {
    let decode = |bytes: Bytes| bytes.as_ref().try_into().map(u32::from_be_bytes).map_err(|_| OpenError::Format(bytes));
    engine.get(Family::Meta, meta::FORMAT)?.map(decode).transpose()
}

/// Raises the format; it never goes back.
pub(super) fn raise(state: &mut State, request: &RaiseFormat) -> Outcome {
    if request.format > state.format.now.load(Ordering::Acquire) {
        state.store.batch().put(Family::Meta, meta::FORMAT, request.format.to_be_bytes().to_vec());
        state.format.now.store(request.format, Ordering::Release);
    }
    done(state, None)
}
