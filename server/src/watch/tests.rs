//! The whole room on a real store: scripts with what streams are sent, and a property over random ones.

mod history;
mod load;
mod scripts;
mod world;
