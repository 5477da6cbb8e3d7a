//! The whole room on a real store: scripts with what streams are sent, and a property over random ones.

#![cfg(not(madsim))] // they turn tokio's own clock

mod history;
mod load;
mod scripts;
mod world;
