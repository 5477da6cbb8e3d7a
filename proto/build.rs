//! Compiles the .proto files without an installed protoc.

const FILES: [&str; 11] = [
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/lease.proto",
    "etcd/membership.proto",
    "etcd/rpc.proto",
    "etcd/raft_internal.proto",
    "etcd/v3lock.proto",
    "etcd/v3election.proto",
    "grpc/health.proto",
    "mainstay/command.proto",
    "mainstay/peer.proto",
];

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let folder = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(folder.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Keys and values are shared slices of the message that brought them.
        .bytes(".")
        // One message has one encoding, on every member: entries of the log are compared byte by byte.
        .btree_map(".mainstay")
        // Generated constructors would dial by themselves; the client crate owns connections.
        .build_transport(false)
        .codec_path("crate::ExactCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
