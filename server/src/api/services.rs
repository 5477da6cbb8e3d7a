use std::sync::Arc;
use std::time::Duration;

use super::{Access, ApiLimits, LeaderLoss, OutOfService, RpcObserver, Stopping, Tracer, Withdrawals};
use crate::admission::Gate;
use crate::apply::{AlarmView, DowngradeView};
use crate::auth::Passwords;
use crate::lease::{LeaseView, Lessor};
use crate::metrics::Metrics;
use crate::mvcc::Store;
use crate::raft::{Gateway, Leadership};
use crate::space::Quota;
use crate::watch::Hub;

/// What the services are made of; the generated services are implemented for it.
pub struct Services {
    /// The way to the replicated state.
    pub gateway: Gateway,
    /// Keys and values, to be read.
    pub store: Store,
    /// Leases, to be read.
    pub leases: LeaseView,
    /// The owner of the leases' deadlines, where this member leads.
    pub lessor: Lessor,
    /// Finds out who clients are and what they may do.
    pub access: Access,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// The alarms that are raised.
    pub alarms: AlarmView,
    /// Whether a downgrade is announced.
    pub downgrade: DowngradeView,
    /// Who leads, and handing that over.
    pub leadership: Leadership,
    /// The owner of the watchers.
    pub hub: Hub,
    /// What requests are allowed.
    pub limits: ApiLimits,
    /// What they take of the memory.
    pub admission: Gate,
    /// `--quota-backend-bytes`.
    pub quota: Quota,
    /// Ends streams that require a leader when there is none.
    pub leader_loss: LeaderLoss,
    /// Whether this member may serve what it has.
    pub out_of_service: OutOfService,
    /// Ends requests that would not end by themselves.
    pub stopping: Stopping,
    /// Takes back what requests that wait leave behind.
    pub withdrawals: Withdrawals,
    /// Is told of every request.
    pub observer: Arc<dyn RpcObserver>,
    /// Makes the spans of requests, where they are traced.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Counts what requests do.
    pub metrics: Arc<Metrics>,
    /// A read that takes longer is slow.
    pub slow_apply: Duration,
}
