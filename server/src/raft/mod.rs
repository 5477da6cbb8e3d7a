//! The glue to openraft.

mod gateway;

pub use gateway::{Gateway, Member, Status, Unavailable};
