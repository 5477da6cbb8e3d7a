//! Why the first members are not found.

/// Why the first members were not found; the words are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The DNS does not name them.
    #[error("error setting up initial cluster: {0}")]
    Dns(#[from] SrvError),
    /// They do not meet under the token.
    #[error("failed to join discovery cluster ({0})")]
    Registry(#[from] RegistryError),
    /// Two members have written down the same URL.
    #[error("discovery cluster {0} has duplicate url")]
    DuplicateUrl(String),
}

/// Why the DNS names no cluster with this member in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrvError {
    /// There is no record that could be used, for these reasons.
    #[error("{0}")]
    NoMembers(String),
    /// None of them is this member.
    #[error("cannot find local etcd member {0:?} in SRV records")]
    NotListed(String),
    /// An address behind which this member is found is not known.
    #[error("{0}")]
    OwnAddress(String),
}

/// Why the members do not meet under a token.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Nobody has made the token.
    #[error("discovery: size key not found")]
    SizeNotFound,
    /// How many members there are to be is not a number above zero.
    #[error("discovery: size key is bad")]
    BadSize,
    /// All members are there, and this is none of them.
    #[error("discovery: cluster is full")]
    FullCluster,
    /// A member has written down what is no URL.
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// The discovery service cannot be asked, or does not know the user.
    #[error(transparent)]
    Client(#[from] mainstay_client::Error),
}
