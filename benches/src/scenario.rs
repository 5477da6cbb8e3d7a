//! `maintenance` and `catch-up`: a steady load in phases while something happens to the servers, on
//! mainstay and on etcd, one after the other.

use std::future::Future;
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use crate::launch::Cluster;
use crate::phase::{Phase, PhaseReport, Run, median, table};
use crate::servers::{Servers, System, turns};
use crate::workload::Session;

/// A workload in phases. Unlike a row, it has flags of its own, and may stop and start members.
pub trait Scenario: clap::Args + serde::Serialize {
    /// The name on the command line and in the results.
    const NAME: &'static str;

    /// Refuses what cannot be measured, by the name of the flag.
    fn validate(&self) -> anyhow::Result<()>;

    /// Members of the cluster that it needs.
    fn members(&self) -> usize;

    /// Flags that all servers get, before those of the command line.
    fn server_flags(&self) -> Vec<String>;

    /// Flags that mainstay alone gets, because etcd has none like them.
    fn mainstay_flags(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes ready what is needed, then runs the phases and measures them. The first one is what the
    /// others are compared with.
    fn run(&self, cluster: &mut Cluster) -> impl Future<Output = anyhow::Result<Vec<Phase>>>;
}

/// The flags of a scenario.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments<S: clap::Args> {
    /// Which servers.
    #[command(flatten)]
    pub servers: Servers,
    /// The load, and what happens meanwhile.
    #[command(flatten)]
    pub scenario: S,
}

/// Measures and prints.
pub async fn run<S: Scenario>(arguments: &Arguments<S>) -> anyhow::Result<()> {
    let runs = measure(arguments, &mut |report| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", report.json())?;
        // So that a long comparison shows how far it is.
        stdout.flush()
    })
    .await?;
    writeln!(std::io::stderr(), "\n{}", table(&runs))?;
    Ok(())
}

/// Measures the scenario on each system, tells of every phase, and returns the middle run of each.
pub async fn measure<S: Scenario>(
    arguments: &Arguments<S>,
    tell: &mut dyn FnMut(&PhaseReport) -> std::io::Result<()>,
) -> anyhow::Result<Vec<Vec<PhaseReport>>> {
    let Arguments { servers, scenario } = arguments;
    scenario.validate()?;
    let systems = servers.binaries()?;
    let mut runs: Vec<Vec<Vec<PhaseReport>>> = vec![Vec::new(); systems.len()];
    for round in 1..=servers.rounds() {
        for place in turns(systems.len(), round) {
            let (system, binary) = &systems[place];
            let reports = one(servers, scenario, *system, binary, round)
                .await
                .with_context(|| format!("{} on {}", S::NAME, system.name()))?;
            for report in &reports {
                tell(report)?;
            }
            runs[place].push(reports);
        }
    }
    Ok(runs.into_iter().filter_map(median).collect())
}

/// One run on a cluster of its own.
pub(crate) async fn one<S: Scenario>(
    servers: &Servers,
    scenario: &S,
    system: System,
    binary: &Path,
    round: u32,
) -> anyhow::Result<Vec<PhaseReport>> {
    let mut flags = scenario.server_flags();
    if system == System::Mainstay {
        flags.extend(scenario.mainstay_flags());
    }
    flags.extend(servers.server_flags.iter().cloned());
    let mut cluster = Cluster::start(binary, scenario.members(), &servers.folder, &flags).await?;
    let version = Session::open(&cluster.endpoints(), 1)?.version().await?;
    let phases = scenario.run(&mut cluster).await?;
    cluster.stop().await?;
    let options = serde_json::to_value(scenario)?;
    let run = Run { row: S::NAME, system: system.name(), version, members: scenario.members(), round, options };
    Ok(PhaseReport::all(&run, phases))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::workload::{CatchUp, Maintenance};

    async fn refused<S: Scenario>(flags: &[&str]) -> String {
        let arguments = Arguments::<S>::parse_from([&["bench"][..], flags].concat());
        measure(&arguments, &mut |_| Ok(())).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn refusals_name_the_flag() {
        for flags in [["--rate", "0"], ["--keys", "0"], ["--members", "2"], ["--rounds", "0"]] {
            let error = refused::<Maintenance>(&flags).await;
            assert!(error.contains(flags[0]), "{error}");
        }
        for flags in [["--rate", "0"], ["--snapshot-count", "0"], ["--megabytes", "1"], ["--rounds", "0"]] {
            let error = refused::<CatchUp>(&flags).await;
            assert!(error.contains(flags[0]), "{error}");
        }
    }
}
