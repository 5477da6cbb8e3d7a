//! Has the allocators give back what is free, where the memory is limited.
//!
//! Both read from the environment how to, once, when a process begins: so the process begins anew with what they have
//! to know. It stays the same process to whoever has started it.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// For mimalloc, which Rust's memory comes from, and for the C library, which RocksDB's comes from.
const VARIABLES: [(&str, &str); 4] = [
    // What is free goes back at once.
    ("MIMALLOC_PURGE_DELAY", "0"),
    // What threads have freed is found by others.
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
];

/// Begins the process anew where the allocators were not told. Returns where they were, or where that is not possible.
pub(crate) fn tell() {
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else { return };
    if are_told() {
        return;
    }
    let missing = VARIABLES.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let mut command = Command::new(program);
    command.arg0(name).args(arguments).envs(missing);
    // Whoever looks into the log is told that it was not possible.
    drop(command.exec());
}

/// Whether the allocators know what they have to, or whatever else they were told.
pub(crate) fn are_told() -> bool {
    VARIABLES.iter().all(|(name, _)| std::env::var_os(name).is_some())
}
