//! Simulates clusters: the server's own code, log, consensus and gRPC services in one process,
//! with virtual time, a seeded network and seeded disks. One seed, one history.
//!
//! `sim --help` says how to call it; `make sim SEED=7` builds and calls it; `README.md` beside this page
//! says how to read what it says and how to add to it.

#[cfg(madsim)]
mod bounds;
#[cfg(madsim)]
mod deposed;
#[cfg(madsim)]
mod driver;
#[cfg(madsim)]
mod judge;
#[cfg(madsim)]
mod mutants;
#[cfg(madsim)]
mod perform;
#[cfg(madsim)]
mod perform_auth;
#[cfg(madsim)]
mod perform_held;
#[cfg(madsim)]
mod perform_member;
#[cfg(madsim)]
mod places;
#[cfg(madsim)]
mod plan;
#[cfg(madsim)]
mod quota;
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

/// A simulation is made of small boxes.
#[cfg(madsim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    driver::main(&driver::Known {
        places: places::REACHABLE,
        rare_places: places::RARE,
        faults: plan::kinds(),
        mutants: mutants::MUTANTS,
    })
}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!("sim: build with RUSTFLAGS=\"--cfg madsim\" (make sim SEED=1)");
    std::process::ExitCode::from(2)
}
