//! From a validated request to the outcome of its command.

use bytes::Bytes;
use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{AlarmRequest, AlarmType};
use tonic::Status;

use super::Services;
use super::access::Credentials;
use super::status::{self, ApiError};
use super::validate;
use crate::apply::ValueLen;
use crate::command::command::Kind;
use crate::command::outcome::Reply;
use crate::command::{self, Caller, Refusal};
use crate::env::probe;
use crate::mvcc::ReadError;

/// What a command that was not refused answers.
pub(super) struct Applied {
    /// The revision for the header.
    pub(super) revision: i64,
    /// The reply; its kind is that of the command.
    pub(super) reply: Option<Reply>,
}

impl Services {
    /// Replicates a client's command and waits until it is applied here.
    pub(super) async fn propose(&self, credentials: &Credentials, command: Kind) -> Result<Applied, Status> {
        let caller = self.access.caller(credentials).await?;
        self.propose_by(caller, command).await
    }

    /// The same for whoever it is.
    pub(super) async fn propose_by(&self, caller: Option<Caller>, command: Kind) -> Result<Applied, Status> {
        validate::size(&command, self.limits.max_request_bytes)?;
        let outcome = self.gateway.propose(caller, command).await?;
        // A refusal that this release does not know must not pass for success.
        let Ok(refusal) = Refusal::try_from(outcome.refusal) else {
            return Err(status::foreign_outcome());
        };
        match status::refused(refusal) {
            Some(error) => Err(error.into()),
            None => Ok(Applied { revision: outcome.revision, reply: outcome.reply }),
        }
    }

    /// Refuses a write that the memory or the quota has no room for. `grows` says whether it makes the store larger, as
    /// far as this member knows.
    pub(super) async fn check_space(
        &self,
        cost: u64,
        grows: impl Fn(ValueLen<'_, ReadError>) -> Result<bool, ReadError>,
    ) -> Result<(), ApiError> {
        self.admission.lets_grow(|| cost > 0 && self.grows(&grows))?;
        self.check_quota(cost, grows).await
    }

    /// Refuses a write that the quota has no room for, and raises the alarm that stops all such writes. Whether it
    /// makes the store larger is judged again when it is applied.
    pub(super) async fn check_quota(
        &self,
        cost: u64,
        grows: impl Fn(ValueLen<'_, ReadError>) -> Result<bool, ReadError>,
    ) -> Result<(), ApiError> {
        if self.quota.fits(cost, self.store.retained_bytes()) || !self.grows(&grows) {
            return Ok(());
        }
        probe::reached("quota-used-up");
        let alarm = AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.gateway.status().member_id,
            alarm: AlarmType::Nospace as i32,
        };
        // The write fails either way; where the alarm was not raised, the next write tries again.
        let raised = Box::pin(self.propose_by(Some(command::cluster_itself()), Kind::Alarm(alarm))).await;
        if let Err(status) = raised {
            tracing::warn!(%status, "failed to raise the alarm for the quota");
        }
        Err(ApiError::NoSpace)
    }

    fn grows(&self, grows: &impl Fn(ValueLen<'_, ReadError>) -> Result<bool, ReadError>) -> bool {
        let revision = self.store.revision();
        let mut value_len = |key: &Bytes| Ok(self.store.get_at(key, revision)?.map(|kv| kv.value.len()));
        // Where that cannot be read it counts as growing.
        grows(&mut value_len).unwrap_or(true)
    }
}
