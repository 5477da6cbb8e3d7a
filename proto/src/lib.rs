//! etcd's v3 API, mainstay's peer protocol and its replicated formats, as generated types.
//!
//! No behaviour lives here but [`KeyRange`], the one idea that server and client both need
//! to get right, and how messages are encoded.

mod codec;
mod key_range;

pub use codec::{ExactCodec, ExactEncoder};
pub use key_range::KeyRange;

/// All of it as a `FileDescriptorSet`, for who treats messages by their fields' names.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The record of a key at one revision, and the event that a change of it makes.
#[allow(missing_docs, clippy::all, clippy::disallowed_methods)]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles and permissions.
#[allow(missing_docs, clippy::all)]
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Leases as etcd stores them.
#[allow(missing_docs, clippy::all)]
pub mod leasepb {
    tonic::include_proto!("leasepb");
}

/// What members agree on about the cluster.
#[allow(missing_docs, clippy::all)]
pub mod membershippb {
    tonic::include_proto!("membershippb");
}

/// etcd's public services and messages.
#[allow(missing_docs, clippy::all)]
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// The lock service.
#[allow(missing_docs, clippy::all)]
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// The election service.
#[allow(missing_docs, clippy::all)]
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The health service of gRPC.
#[allow(missing_docs, clippy::all)]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// What members replicate, and how they talk to each other.
#[allow(missing_docs, clippy::all)]
pub mod mainstay {
    tonic::include_proto!("mainstay");
}
