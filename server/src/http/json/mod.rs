//! The JSON gateway, `/v3/…`: etcd's API for who has only HTTP and JSON.
//!
//! A request becomes a gRPC call of this member's own services, in process and with the same rules and
//! counts as one from outside; its response becomes JSON again. Nothing here knows a single message:
//! descriptors from the build of `proto/` say which fields there are ([`decode`], [`encode`]), a table which
//! path is which method ([`methods`]). Streams take JSON values one after the other and give one a line.
//!
//! - **Invariant:** every method has the path that etcd gives it
//!   (`methods::tests::all_methods_have_a_path_but_those_that_etcd_leaves_out`).
//! - **Invariant:** mistakes are told in etcd's words, which are those of Go's decoders
//!   (`decode::tests::mistakes_are_told_as_etcd_tells_them`, `values::tests::mistakes_are_gos`).
//!
//! Absent: etcd's WebSocket form of streams, for which HTTP's own streams stand in, and which none of etcd's clients
//! uses.

mod call;
mod decode;
mod encode;
mod gateway;
mod metadata;
mod methods;
mod tokens;
mod values;

pub use gateway::JsonGateway;
