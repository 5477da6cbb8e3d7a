//! What nothing can be faster than on this machine: a service that does nothing but answer, and the disk
//! without anything above it.

pub mod echo;
pub mod fsync;
