//! Real processes: one member's basics, kills, cuts, lost quorum, a full store, little memory, damage, restarts, catching
//! up, discovery, refused starts, mistaken addresses, repair, upgrades, traces, and what a service manager is told.
//!
//! `MAINSTAY_BIN` names the binary under test; etcd's own binary must pass, too, but for
//! `astray`, `catch_up`, `certificates`, `life`, `logins`, `memory`, `repair`, `rot`, `service`, `space`, `traces` and
//! `upgrade`, which say why.

#![cfg(not(madsim))] // processes are not simulated
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod astray;
mod catch_up;
mod certificates;
mod discovery;
mod faults;
mod life;
mod load;
mod log_files;
mod logins;
mod memory;
mod repair;
mod restart;
mod rot;
mod service;
mod single_member;
mod space;
mod startup;
mod traces;
mod upgrade;
mod users;
