//! Durations by operation and success. A series is looked up by its labels once, when it first moves, and
//! not at every request; it does not exist before, as in etcd.

use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec};

use crate::command::command::Kind;

/// What a command does, in the words of etcd's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation(usize);

impl Operation {
    /// What a command does.
    pub fn of(command: &Kind) -> Operation {
        Operation(match command {
            Kind::Put(_) => 0,
            Kind::DeleteRange(_) => 1,
            Kind::Txn(_) => 2,
            Kind::Compaction(_) => 3,
            Kind::LeaseGrant(_) => 4,
            Kind::LeaseRevoke(_) => 5,
            Kind::LeaseCheckpoint(_) => 6,
            Kind::Alarm(_) => 7,
            Kind::MemberAttributes(_) => 8,
            Kind::Downgrade(_) => 9,
            Kind::Authenticate(_) => 10,
            Kind::AuthEnable(_) => 11,
            Kind::AuthDisable(_) => 12,
            Kind::AuthUserAdd(_) => 13,
            Kind::AuthUserDelete(_) => 14,
            Kind::AuthUserChangePassword(_) => 15,
            Kind::AuthUserGrantRole(_) => 16,
            Kind::AuthUserRevokeRole(_) => 17,
            Kind::AuthRoleAdd(_) => 18,
            Kind::AuthRoleDelete(_) => 19,
            Kind::AuthRoleGrantPermission(_) => 20,
            Kind::AuthRoleRevokePermission(_) => 21,
            Kind::RaiseFormat(_) => 22,
        })
    }

    /// A read of keys, which is no command.
    pub const RANGE: Operation = Operation(23);

    /// A transaction that only reads, and so is no command.
    pub const READ_ONLY_TXN: Operation = Operation(24);

    /// etcd's name of it.
    pub fn name(self) -> &'static str {
        OPERATIONS[self.0]
    }
}

/// In the order of [`Operation::of`], then what is no command.
const OPERATIONS: [&str; 25] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterMemberAttrSet",
    "DowngradeInfoSet",
    "Authenticate",
    "AuthEnable",
    "AuthDisable",
    "AuthUserAdd",
    "AuthUserDelete",
    "AuthUserChangePassword",
    "AuthUserGrantRole",
    "AuthUserRevokeRole",
    "AuthRoleAdd",
    "AuthRoleDelete",
    "AuthRoleGrantPermission",
    "AuthRoleRevokePermission",
    "ClusterVersionSet",
    "Range",
    "ReadonlyTxn",
];

/// Durations whose last label is the success.
pub struct BySuccess {
    family: HistogramVec,
    /// The labels before it.
    labels: Vec<&'static str>,
    cells: [OnceLock<Histogram>; 2],
}

impl BySuccess {
    pub(super) fn new(family: HistogramVec, labels: &[&'static str]) -> BySuccess {
        BySuccess { family, labels: labels.to_vec(), cells: Default::default() }
    }

    /// Counts one.
    pub fn observe(&self, success: bool, took: Duration) {
        let histogram = self.cells[usize::from(success)].get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(if success { "true" } else { "false" });
            self.family.with_label_values(&labels)
        });
        histogram.observe(took.as_secs_f64());
    }
}

/// Durations by operation and success.
pub struct ByOperation(Vec<BySuccess>);

impl ByOperation {
    /// The labels before the operation's.
    pub(super) fn new(family: &HistogramVec, labels: &[&'static str]) -> ByOperation {
        let of = |operation: &&'static str| {
            let labels: Vec<_> = labels.iter().chain([operation]).copied().collect();
            BySuccess::new(family.clone(), &labels)
        };
        ByOperation(OPERATIONS.iter().map(of).collect())
    }

    /// Counts one.
    pub fn observe(&self, operation: Operation, success: bool, took: Duration) {
        self.0[operation.0].observe(success, took);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::{AuthRoleRevokePermissionRequest, PutRequest};
    use mainstay_proto::mainstay::MemberAttributes;

    use super::*;

    #[test]
    fn operations_have_etcds_names() {
        for (command, name) in [
            (Kind::Put(PutRequest::default()), "Put"),
            (Kind::MemberAttributes(MemberAttributes::default()), "ClusterMemberAttrSet"),
            (Kind::AuthRoleRevokePermission(AuthRoleRevokePermissionRequest::default()), "AuthRoleRevokePermission"),
        ] {
            assert_eq!(Operation::of(&command).name(), name);
        }
        assert_eq!((Operation::RANGE.name(), Operation::READ_ONLY_TXN.name()), ("Range", "ReadonlyTxn"));
    }
}
