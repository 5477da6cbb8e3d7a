//! Does the same to etcd and to mainstay, and compares everything that they answer.
//!
//! A seed decides a script of steps (`plan`); both servers, real processes, do it step by step (`drive`);
//! what may differ is written down (`allowed`), and a script that shows anything else is shrunk (`play`)
//! and printed. The scripts in `scripts/` once showed a difference, and are played every time.
//!
//! `make differential SEEDS=1..20` builds and runs it; `differential --help` says more.

#[cfg(not(madsim))]
mod allowed;
#[cfg(not(madsim))]
mod cli;
#[cfg(not(madsim))]
mod compare;
#[cfg(not(madsim))]
mod drive;
#[cfg(not(madsim))]
mod plan;
#[cfg(not(madsim))]
mod play;
#[cfg(not(madsim))]
mod report;
#[cfg(not(madsim))]
mod step;
#[cfg(not(madsim))]
mod symbols;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    cli::main()
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    eprintln!("differential: processes are not simulated");
    std::process::ExitCode::from(2)
}
