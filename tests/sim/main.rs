//! Simulates clusters: the server's own code, log, consensus and gRPC services in one process,
//! with virtual time, a seeded network and seeded disks. One seed, one history.
//!
//! usage: sim SEED [--break NAME] | sim --count N | sim --mutants

#[cfg(madsim)]
mod checks;
#[cfg(madsim)]
mod driver;
#[cfg(madsim)]
mod history;
#[cfg(madsim)]
mod member;
#[cfg(madsim)]
mod mutants;
#[cfg(madsim)]
mod places;
#[cfg(madsim)]
mod scenario;
#[cfg(madsim)]
mod workload;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    driver::main()
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("sim: build with RUSTFLAGS=\"--cfg madsim\" (make sim SEED=1)");
    std::process::ExitCode::from(2)
}
