//! Watches that go on by themselves after their stream broke.
//!
//! Each [`Watcher`] has a gRPC stream of its own. When the stream breaks, or its member says that it
//! cannot serve, the watcher opens another at the next endpoint, from the revision after the last
//! one it delivered. [`cursor`] decides what that is; it is pure. No task runs in the background:
//! everything happens inside [`Watcher::next`].
//!
//! **Invariant:** what the watcher delivers is exactly what the servers sent, in that order. It
//! never hides a repeat or a gap, so that a checker on top of it can see them.

mod cursor;
mod raw;
mod request;
mod watcher;

pub use cursor::Update;
pub use raw::RawWatch;
pub use request::Watch;
pub use watcher::Watcher;
