//! Workloads against any etcd endpoint, side by side.
//!
//! ```text
//! mainstay-bench suite --quick
//! mainstay-bench run put --endpoints http://127.0.0.1:2379 --pid 4711
//! mainstay-bench compare --members 3 --rows put,get,txn-put
//! mainstay-bench maintenance --rounds 3
//! mainstay-bench catch-up --kill-leader
//! mainstay-bench flame put --duration 10
//! mainstay-bench scale --only store,leases
//! ```
//!
//! `suite` measures every row that has a target, on mainstay and etcd in turn, and records what came of it
//! (benches/results/): see [`suite`].
//!
//! `run` measures one row against endpoints that are already there. `compare` starts mainstay and
//! etcd in turn with the same flags, each on an empty folder, runs the same rows on both and prints
//! the ratio. Both print one JSON line a run to stdout, and a table for people to stderr.
//!
//! `maintenance` and `catch-up` start both servers in turn as well. They keep a steady load going,
//! well below what the servers can do, and show what else happens by what it does to that load, phase
//! by phase: one JSON line a phase, and a table.
//!
//! - `maintenance`: Defragment on a store of some size, then a compaction of many old revisions.
//! - `catch-up`: one of three members is stopped, misses more than the log keeps, and comes back. With
//!   `--kill-leader` the leader is killed in the middle of that.
//!
//! `flame` starts mainstay alone and draws where its CPU goes while a row runs, by Linux's perf.
//!
//! `scale` asks what the servers bear: each scenario starts them anew, measures, and looks at every answer. What was
//! answered wrongly, lost, or not survived is a failure, which ends the run with an error when all else was measured.
//! Each stands alone (`--only`), and its flags begin with its name.
//!
//! - `store`: 10 million keys of 2 KB with 4 GiB of memory (`--memory-limit`, and a control group where `--cgroup` names
//!   a place for one): load, `kill -9`, start, and random reads and pages on what nobody has in memory.
//! - `watchers`: 100,000 watchers, 10,000 of them on one prefix: their memory, and how long an event takes to all.
//! - `leases`: 100,000 leases, of which 20,000 end within a second while the others are kept alive.
//! - `values`: values of 1 MB.
//! - `slow-disk`: three members, 10 ms more for each fsync (by `strace`, as etcd needs it), no election.
//!
//! What a row does stands in [`workload`], one file each; how it is timed in [`load`], [`steady`] and
//! [`latency`]; what the server spent on it in [`process`]. This crate never sees the server's code:
//! whatever speaks etcd's API is measured by the same binary.
//!
//! # How to read the figures
//!
//! - A closed loop (no `--rate`) shows what the server can do, and its latencies are those of a full
//!   queue. With `--rate` each request has a time at which it is due, and latency counts from there,
//!   so that a stall is seen by all the requests it delayed.
//! - Server CPU, peak memory and bytes written are those of the server's processes alone, summed over
//!   the members. The peak is that of the measured time, as far as the kernel lets it be reset. The load
//!   generator's own CPU is shown beside them, because on a small machine it is what limits.
//! - Bytes written by the disk (`device_written_bytes`) are those of the whole device below the folder, with the
//!   file system's journal and whatever else writes there. The kernel's account of a process
//!   (`written_bytes`) leaves that out, but counts whole large folios for a page that is written again.
//! - In `maintenance` and `catch-up` a request counts for the phase in which it was due. "p99 / before" is
//!   the phase's p99 as a multiple of the first phase's on the same system; where there are two systems,
//!   the line below compares these multiples as it does all other figures. A timer of the load generator
//!   may be late by a millisecond, in every phase alike.
//! - Values are random bytes: a server that compresses gains nothing from them.

pub mod ceiling;
pub mod compare;
pub mod disk;
pub mod flame;
pub mod keyspace;
pub mod latency;
pub mod launch;
pub mod load;
pub mod options;
pub mod phase;
pub mod process;
pub mod report;
pub mod run;
pub mod scale;
pub mod scenario;
pub mod servers;
#[cfg(test)]
mod slow;
pub mod steady;
pub mod suite;
pub mod workload;
