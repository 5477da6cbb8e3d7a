//! Simulates clusters: the server's own code, log, consensus and gRPC services in one process,
//! with virtual time, a seeded network and seeded disks. One seed, one history.
//!
//! usage: sim SEED | sim --count N

#[cfg(madsim)]
mod driver;
#[cfg(madsim)]
mod judge;
#[cfg(madsim)]
mod perform;
#[cfg(madsim)]
mod plan;
#[cfg(madsim)]
mod recorder;
#[cfg(madsim)]
mod report;
#[cfg(madsim)]
mod run;
#[cfg(madsim)]
mod trace;
#[cfg(madsim)]
mod workload;
#[cfg(madsim)]
mod world;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    driver::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("sim: build with RUSTFLAGS=\"--cfg madsim\" (make sim SEED=1)");
    std::process::ExitCode::from(2)
}
