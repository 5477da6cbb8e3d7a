//! Whom a call between members is for, and who makes it.
//!
//! A member is called at an address, and whoever is there could be another one: a copy of a data directory, an address
//! that was given to somebody else, a name that still leads where it led. Its consent would count as that of the member
//! that was meant. So each call names both ids, under etcd's names, in its metadata: an [`Envelope`] writes them, and an
//! [`Addressee`] stands before the service and refuses what is not for it. A stream is looked at when it is opened: it
//! ends with whoever has accepted it.
//!
//! Earlier releases name nobody, nor does who asks without knowing yet who the members are; neither is refused.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::env::clock::{self, Instant};
use crate::env::probe;

/// Who makes a call; etcd's name for it.
const FROM: &str = "x-server-from";
/// Whom it is for.
const TO: &str = "x-raft-to";

/// How etcd refuses what is for another member.
const MISMATCH: &str = "cannot process message to mismatch member";

/// How often it is said that calls go astray: they come many times a second.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Writes on each call of a client who makes it and whom it is for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Envelope {
    from: Option<MetadataValue<Ascii>>,
    to: Option<MetadataValue<Ascii>>,
}

impl Envelope {
    /// From one member to another.
    pub(super) fn between(from: u64, to: u64) -> Self {
        Self { from: name(from), to: name(to) }
    }

    /// From a member to whoever is there.
    pub(super) fn from(from: u64) -> Self {
        Self { from: name(from), to: None }
    }

    /// From somebody who is no member to whoever is there.
    pub(super) fn of_nobody() -> Self {
        Self::default()
    }
}

impl Interceptor for Envelope {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (key, id) in [(FROM, &self.from), (TO, &self.to)] {
            if let Some(id) = id {
                request.metadata_mut().insert(key, id.clone());
            }
        }
        Ok(request)
    }
}

/// An id as etcd writes it.
fn name(id: u64) -> Option<MetadataValue<Ascii>> {
    // Digits and letters are always allowed.
    format!("{id:x}").parse().ok()
}

fn named(metadata: &MetadataMap, key: &'static str) -> Result<Option<u64>, Status> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    id.map(Some).ok_or_else(|| Status::invalid_argument(format!("{key} is no member id")))
}

/// Lets through to a member's service what is for this member.
#[derive(Clone, Debug)]
pub(crate) struct Addressee {
    own: u64,
    said: Seldom,
}

impl Addressee {
    pub(super) fn new(own: u64) -> Self {
        Self { own, said: Seldom::default() }
    }
}

impl Interceptor for Addressee {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let (from, to) = (named(request.metadata(), FROM)?, named(request.metadata(), TO)?);
        let own = self.own;
        let reason = match (from, to) {
            (_, Some(to)) if to != own => format!("{MISMATCH}: it is for {to:x}, and this is {own:x}"),
            // Another process with a copy of this member's data, or this one itself behind an address of another member.
            (Some(from), _) if from == own => format!("{MISMATCH}: whoever sent it calls itself {from:x}, as this one"),
            _ => return Ok(request),
        };
        if probe::broken("answers-for-another") {
            // Wrong: its consent is taken for that of the member that was meant.
            return Ok(request);
        }
        probe::reached("call-for-another-refused");
        if self.said.may_be_said() {
            tracing::warn!(
                "local-member-id" = format!("{own:x}"),
                "mismatch-member-id" = to.map(|id| format!("{id:x}")),
                "remote-peer-id" = from.map(|id| format!("{id:x}")),
                "rejected Raft message to mismatch member"
            );
        }
        Err(Status::failed_precondition(reason))
    }
}

/// Whether a call was refused by somebody who is not the member that it was for: that one was not reached.
pub(super) fn is_astray(status: &Status) -> bool {
    status.message().starts_with(MISMATCH)
}

/// Lets something be said once in a while. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seldom(Arc<Mutex<Option<Instant>>>);

impl Seldom {
    /// Whether it is time to say it; then it was said.
    pub(super) fn may_be_said(&self) -> bool {
        let mut last = self.0.lock();
        let may = last.is_none_or(|at| clock::elapsed(at) >= SAY_EVERY);
        if may {
            *last = Some(clock::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 0xa1;
    const OTHER: u64 = 0xb2;

    /// What a member answers to a call in an envelope.
    fn answered(mut envelope: Envelope) -> Result<(), Status> {
        let request = envelope.call(Request::new(()))?;
        Addressee::new(OWN).call(request).map(|_| ())
    }

    #[test]
    fn what_is_for_another_member_is_refused_by_both_names() {
        let refusal = answered(Envelope::between(OTHER, 0xc3)).unwrap_err();
        assert!(is_astray(&refusal), "{refusal}");
        assert!(refusal.message().contains("c3") && refusal.message().contains("a1"), "{refusal}");
    }

    #[test]
    fn what_comes_from_a_namesake_is_refused() {
        for envelope in [Envelope::from(OWN), Envelope::between(OWN, OWN)] {
            assert!(is_astray(&answered(envelope).unwrap_err()));
        }
    }

    #[test]
    fn what_is_for_this_member_or_names_nobody_passes() {
        for envelope in [Envelope::between(OTHER, OWN), Envelope::from(OTHER), Envelope::of_nobody()] {
            answered(envelope).unwrap();
        }
    }

    #[test]
    fn the_largest_id_is_written_and_read() {
        let request = Envelope::between(u64::MAX, OWN).call(Request::new(())).unwrap();
        assert_eq!(named(request.metadata(), FROM).unwrap(), Some(u64::MAX));
        assert_eq!(named(request.metadata(), TO).unwrap(), Some(OWN));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "mainstay", "10000000000000000"] {
            let mut request = Request::new(());
            request.metadata_mut().insert(TO, text.parse().unwrap());
            let refusal = Addressee::new(OWN).call(request).unwrap_err();
            assert!(refusal.message().contains(TO) && !is_astray(&refusal), "{refusal}");
        }
    }

    #[test]
    fn what_may_be_said_seldom_is_not_said_at_once_again() {
        let said = Seldom::default();
        assert!(said.may_be_said());
        assert!(!said.clone().may_be_said());
    }
}
