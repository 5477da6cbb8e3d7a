//! Sends what no client would send to a real server, and watches that it stays well: it does not panic,
//! answers or resets everything within a bound, keeps its memory, and serves others meanwhile.
//!
//! - `messages`: requests of every method with hostile values; `bytes`: encodings that were cut or changed.
//! - `calls`: those in right and wrong gRPC envelopes. `http2`, `frames`: connections that break HTTP/2's
//!   rules. `http1`: junk for the other protocol of the port.
//! - `victim`: the server, and whether it is well. `tally`: what was sent and how it was answered.
//!
//! `make fuzz SECONDS=20 SEED=1` builds and runs it. A seed decides what is sent, not when: the server does
//! many things at once.

#[cfg(not(madsim))]
mod bytes;
#[cfg(not(madsim))]
mod calls;
#[cfg(not(madsim))]
mod cli;
#[cfg(not(madsim))]
mod frames;
#[cfg(not(madsim))]
mod http1;
#[cfg(not(madsim))]
mod http2;
#[cfg(not(madsim))]
mod messages;
#[cfg(not(madsim))]
mod tally;
#[cfg(not(madsim))]
mod victim;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    eprintln!("fuzz: processes are not simulated");
    std::process::ExitCode::from(2)
}
