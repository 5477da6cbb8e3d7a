//! What the user should know of the configuration although it is accepted.
//!
//! Notices are collected while the configuration is read, because there is no log before it is.

use std::path::PathBuf;

use tracing::{info, warn};

/// One remark, logged once the log is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A variable was taken.
    VariableUsed(String),
    /// A variable looks like ours and is not.
    UnknownVariable(String),
    /// `ETCD_VERSION` is set, which is no setting.
    VersionVariable,
    /// The file was taken; nothing else counts.
    FileUsed(PathBuf),
    /// The data directory was derived from the name.
    DefaultDataDir(PathBuf),
    /// Several members with the default name would be confused.
    DefaultName,
    /// gRPC and HTTP share a port.
    OnePort,
    /// A flag does nothing here, for this reason.
    NoEffect {
        /// The flag.
        flag: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// A feature gate was switched, which does nothing here, for this reason.
    GateWithoutEffect {
        /// The gate.
        gate: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// etcd is going to drop this flag.
    Deprecated(&'static str),
    /// A flag that etcd ignores since long.
    FormerFlag(&'static str),
    /// A flag has another name today.
    FormerName {
        /// As it was given.
        flag: String,
        /// As it is called today.
        today: &'static str,
    },
    /// A flag is a feature gate today.
    FormerGate {
        /// As it was given.
        flag: String,
        /// The gate.
        gate: &'static str,
    },
    /// A value was below its least value, which is taken instead.
    Raised {
        /// The flag.
        flag: &'static str,
        /// The value that is taken.
        to: &'static str,
    },
    /// Requests may be larger than is good for a cluster.
    LargeRequests(u64),
    /// fsync is off.
    NoFsync,
}

impl Notice {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Notice::VariableUsed(variable) => {
                info!("variable-name" = variable, "recognized and used environment variable");
            }
            Notice::UnknownVariable(variable) => {
                warn!("environment-variable" = variable, "unrecognized environment variable");
            }
            Notice::VersionVariable => warn!(key = "ETCD_VERSION", "cannot set special environment variable"),
            Notice::FileUsed(path) => info!(
                path = %path.display(),
                "loaded server configuration, other configuration command line flags and environment variables \
                 will be ignored if provided"
            ),
            Notice::DefaultDataDir(path) => {
                warn!("data-dir" = %path.display(), "'data-dir' was empty; using default");
            }
            Notice::DefaultName => warn!(
                name = "default",
                "the default name should not be used by several members; please set a value for --name"
            ),
            Notice::OnePort => info!("running http and grpc server on single port"),
            Notice::NoEffect { flag, why } => warn!(flag, why, "flag has no effect"),
            Notice::GateWithoutEffect { gate, why } => warn!(gate, why, "feature gate has no effect"),
            Notice::Deprecated(flag) => {
                warn!(
                    "--{flag} is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input."
                );
            }
            Notice::FormerFlag(flag) => warn!(flag, "flag is no longer supported, ignoring it"),
            Notice::FormerName { flag, today } => warn!(flag, today, "flag has another name today"),
            Notice::FormerGate { flag, gate } => warn!(flag, gate, "flag is a feature gate today"),
            Notice::Raised { flag, to } => info!("{flag} increased to minimum value: {to}"),
            Notice::LargeRequests(bytes) => warn!(
                "max-request-bytes" = bytes,
                "recommended-request-bytes" = RECOMMENDED_REQUEST_BYTES,
                "exceeded recommended request limit"
            ),
            Notice::NoFsync => warn!("the raft log is not synced: a crash of the machine loses acknowledged writes"),
        }
    }
}

/// What etcd recommends at most.
pub(super) const RECOMMENDED_REQUEST_BYTES: u64 = 10 * 1024 * 1024;
