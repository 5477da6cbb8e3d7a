//! Why a start is refused.

use std::path::PathBuf;

/// A start that is refused, with the reason that the user reads; etcd's words where etcd refuses it too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command line is not a list of flags; printed plainly, with the usage below.
    #[error("{0}")]
    Usage(String),
    /// Something that is not a flag stands behind the flags.
    #[error("{0:?} is not a valid flag")]
    NotAFlag(String),
    /// A variable and its flag are both set.
    #[error(
        "conflicting environment variable is shadowed by corresponding command-line flag \
         (either unset environment variable or disable flag)): {0}"
    )]
    ShadowedVariable(String),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {reason}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value breaks a rule; the text names the flag, the value and the rule.
    #[error("{0}")]
    Invalid(String),
    /// Clients could reach this member nowhere.
    #[error("--advertise-client-urls is required when --listen-client-urls is set explicitly")]
    NoAdvertisedClientUrls,
    /// etcd can do it, this release cannot.
    #[error("--{flag}: {feature} is not available in this release (set to {value:?})")]
    Unavailable {
        /// The flag that asks for it.
        flag: String,
        /// What it asks for.
        feature: String,
        /// What it was set to; never a secret.
        value: String,
    },
    /// etcd has a proxy that speaks gRPC; here is none.
    #[error(
        "the sub-command \"grpc-proxy\" is not available: let clients connect to the members themselves, \
         or through \"gateway start\", which passes connections on as they are"
    )]
    GrpcProxy,
    /// The command line of a sub-command makes no sense.
    #[error("{message}")]
    Command {
        /// What is wrong with it.
        message: String,
        /// How it is used.
        usage: &'static str,
    },
    /// The first members cannot be made of the flags.
    #[error("error setting up initial cluster: {0}")]
    InitialCluster(String),
}

impl Refusal {
    /// The exit code that etcd uses.
    pub fn exit_code(&self) -> u8 {
        match self {
            Refusal::Usage(_) => 2,
            Refusal::NotAFlag(_)
            | Refusal::ShadowedVariable(_)
            | Refusal::File { .. }
            | Refusal::Invalid(_)
            | Refusal::NoAdvertisedClientUrls
            | Refusal::Unavailable { .. }
            | Refusal::GrpcProxy
            | Refusal::Command { .. }
            | Refusal::InitialCluster(_) => 1,
        }
    }
}
