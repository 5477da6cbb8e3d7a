//! Ports that nothing else takes.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Where the system's own range for outgoing connections begins on Linux. A member that is down
/// for a while must not find its port taken by one of these.
const OUTGOING_FROM: u32 = 32_768;
const LISTENING_FROM: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback port that nothing listens on. Never the same twice in one process; test processes that
/// run at once begin at different places.
pub fn free_port() -> Result<u16> {
    let span = OUTGOING_FROM - LISTENING_FROM;
    for _ in 0..span {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = LISTENING_FROM + std::process::id().wrapping_mul(101).wrapping_add(turn) % span;
        let port = u16::try_from(port)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on loopback")
}
