//! `compare`: the same rows on mainstay and on etcd, one after the other.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::disk::Disk;
use crate::launch::Cluster;
use crate::options::Options;
use crate::report::{Report, median, table};
use crate::servers::{Servers, System, turns};
use crate::workload::{Row, Session, Subjects};

/// The flags of `compare`.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments {
    /// What to measure; all rows when none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// Which servers.
    #[command(flatten)]
    pub servers: Servers,
    /// Members of each cluster.
    #[arg(long, default_value_t = 1)]
    pub members: usize,
    /// The load and its data.
    #[command(flatten)]
    pub options: Options,
}

/// Measures and prints.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let reports = measure(arguments, &mut |report| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", report.json())?;
        // So that a long comparison shows how far it is.
        stdout.flush()
    })
    .await?;
    writeln!(std::io::stderr(), "\n{}", table(&reports))?;
    Ok(())
}

/// Measures each row on each system, tells of every run, and returns the middle one of each.
pub async fn measure(
    arguments: &Arguments,
    tell: &mut dyn FnMut(&Report) -> std::io::Result<()>,
) -> anyhow::Result<Vec<Report>> {
    arguments.options.validate()?;
    ensure!(matches!(arguments.members, 1 | 3 | 5 | 7), "--members: must be 1, 3, 5 or 7");
    let systems = arguments.servers.binaries()?;
    let rows = if arguments.rows.is_empty() { Row::all() } else { arguments.rows.clone() };
    let mut chosen = Vec::new();
    for row in rows {
        let mut reports: Vec<Vec<Report>> = vec![Vec::new(); systems.len()];
        for round in 1..=arguments.servers.rounds() {
            for place in turns(systems.len(), round) {
                let (system, binary) = &systems[place];
                let Arguments { servers, members, options, .. } = arguments;
                let report = one(servers, (row, *members), options, *system, binary, round)
                    .await
                    .with_context(|| format!("{} on {}", row.name(), system.name()))?;
                tell(&report)?;
                reports[place].push(report);
            }
        }
        chosen.extend(reports.into_iter().filter_map(median));
    }
    Ok(chosen)
}

/// One row on a cluster of its own, so that no row stands on what another has left.
pub(crate) async fn one(
    servers: &Servers,
    (row, members): (Row, usize),
    options: &Options,
    system: System,
    binary: &Path,
    round: u32,
) -> anyhow::Result<Report> {
    let cluster = Cluster::start(binary, members, &servers.folder, &servers.server_flags).await?;
    let session = Session::begin(&cluster.endpoints(), options).await?;
    let version = session.version().await?;
    let subjects = Subjects { pids: cluster.pids(), disk: Disk::of(&servers.folder) };
    let outcome = row.run(&session, options, &subjects).await?;
    cluster.stop().await?;
    Ok(Report::new(row, system.name(), &version, members, round, options, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals_name_the_flag() {
        for (flags, words) in [
            (&["--members", "2"][..], "--members"),
            (&["--rounds", "0"], "--rounds"),
            (&["--clients", "0"], "--clients"),
            (&["--mainstay-bin", "/no/such", "--systems", "mainstay"], "MAINSTAY_BIN"),
            (&["--etcd-bin", "/no/such", "--systems", "etcd"], "ETCD_BIN"),
        ] {
            let arguments = <Arguments as clap::Parser>::parse_from([&["compare"], flags].concat());
            let error = measure(&arguments, &mut |_| Ok(())).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
