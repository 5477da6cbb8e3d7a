//! `mainstay-bench`: see the library's documentation.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use mainstay_benches::ceiling::echo;
use mainstay_benches::workload::{CatchUp, Maintenance};
use mainstay_benches::{compare, flame, run, scale, scenario, suite};
use tokio::signal::unix::{SignalKind, signal};

/// Measures servers that speak etcd's API.
#[derive(Debug, Parser)]
#[command(name = "mainstay-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every row that has a target on mainstay and etcd in turn, and records what came of it.
    /// The default.
    Suite(suite::Arguments),
    /// Writes the table of the last whole suite into the README.
    Readme(suite::ReadmeArguments),
    /// Measures one row against endpoints that are already there.
    Run(run::Arguments),
    /// Starts mainstay and etcd in turn, measures the same rows on both, prints the ratio.
    Compare(compare::Arguments),
    /// Defragments and compacts under a steady load, on mainstay and etcd in turn.
    Maintenance(scenario::Arguments<Maintenance>),
    /// Lets one of three members catch up under a steady load, on mainstay and etcd in turn.
    CatchUp(scenario::Arguments<CatchUp>),
    /// Answers puts and gets, and does nothing else: the ceiling of what gRPC lets through.
    EchoServer(echo::Arguments),
    /// Draws where mainstay's CPU goes while a row runs. Needs Linux's perf.
    Flame(flame::Arguments),
    /// Many keys, watchers and leases, large values and a slow disk, on mainstay and etcd in turn. Fails where anything
    /// was answered wrongly, lost, or not survived.
    Scale(Box<scale::Arguments>),
}

#[tokio::main]
async fn main() -> ExitCode {
    match work().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, and no backtrace: what fails here is a flag, a server or a disk.
            eprintln!("mainstay-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn work() -> anyhow::Result<()> {
    let command = match Arguments::parse().command {
        Some(command) => command,
        None => Command::Suite(suite::Arguments::parse_from(["suite"])),
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        match command {
            Command::Suite(arguments) => suite::run(&arguments).await,
            Command::Readme(arguments) => suite::readme(&arguments),
            Command::Run(arguments) => run::run(&arguments).await,
            Command::Compare(arguments) => compare::run(&arguments).await,
            Command::Maintenance(arguments) => scenario::run(&arguments).await,
            Command::CatchUp(arguments) => scenario::run(&arguments).await,
            Command::EchoServer(arguments) => echo::serve(&arguments).await,
            Command::Flame(arguments) => flame::run(&arguments).await,
            Command::Scale(arguments) => scale::run(&arguments).await,
        }
    };
    tokio::select! {
        biased;
        // Signals first: dropping the work stops the servers it started and removes their folders.
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
        outcome = work => outcome,
    }
}
