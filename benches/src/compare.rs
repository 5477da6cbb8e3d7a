//! `compare`: the same rows on mainstay and on etcd, one after the other.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::launch::Cluster;
use crate::options::Options;
use crate::report::{Report, median, table};
use crate::workload::{Row, Session};

/// The flags of `compare`.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments {
    /// What to measure; all rows when none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rows: Vec<Row>,
    /// What to measure it on.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mainstay,etcd")]
    pub systems: Vec<System>,
    /// Members of each cluster.
    #[arg(long, default_value_t = 1)]
    pub members: usize,
    /// Runs of each row on each system, taking turns; the table shows the one in the middle.
    #[arg(long, default_value_t = 1)]
    pub rounds: u32,
    /// mainstay's binary.
    #[arg(long, env = "MAINSTAY_BIN", default_value = "target/release/mainstay")]
    pub mainstay_bin: PathBuf,
    /// etcd's binary; built by scripts/etcd.sh when it is not given.
    #[arg(long, env = "ETCD_BIN")]
    pub etcd_bin: Option<PathBuf>,
    /// Where the servers' data goes while they run. It should be on the disk that is to be measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub folder: PathBuf,
    /// A flag that all servers get, as in --server-flag=--snapshot-count=10000. May be repeated.
    #[arg(long = "server-flag", allow_hyphen_values = true)]
    pub server_flags: Vec<String>,
    /// The load and its data.
    #[command(flatten)]
    pub options: Options,
}

/// A server to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// Ours.
    Mainstay,
    /// The one it stands in for.
    Etcd,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::Etcd => "etcd",
        }
    }
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
    ensure!(arguments.rounds > 0, "--rounds: must be above 0");
    let systems: Vec<(System, PathBuf)> = arguments
        .systems
        .iter()
        .map(|system| Ok((*system, binary(arguments, *system)?)))
        .collect::<anyhow::Result<_>>()?;
    let rows = if arguments.rows.is_empty() { Row::all() } else { arguments.rows.clone() };
    let mut chosen = Vec::new();
    for row in rows {
        let mut reports: Vec<Vec<Report>> = vec![Vec::new(); systems.len()];
        for round in 1..=arguments.rounds {
            for place in turns(systems.len(), round) {
                let (system, binary) = &systems[place];
                let report = one(arguments, row, *system, binary, round)
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

/// Who goes when in a round: in the other order each time, so that what drifts, the disk above all,
/// does not always favour the same one.
fn turns(systems: usize, round: u32) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..systems).collect();
    if round.is_multiple_of(2) {
        turns.reverse();
    }
    turns
}

/// One row on a cluster of its own, so that no row stands on what another has left.
async fn one(arguments: &Arguments, row: Row, system: System, binary: &Path, round: u32) -> anyhow::Result<Report> {
    let options = &arguments.options;
    let cluster = Cluster::start(binary, arguments.members, &arguments.folder, &arguments.server_flags).await?;
    let session = Session::connect(&cluster.endpoints(), options)?;
    let version = session.version().await?;
    let outcome = row.run(&session, options, &cluster.pids()).await?;
    cluster.stop().await?;
    Ok(Report::new(row, system.name(), &version, arguments.members, round, options, outcome))
}

fn binary(arguments: &Arguments, system: System) -> anyhow::Result<PathBuf> {
    let path = match (system, &arguments.etcd_bin) {
        (System::Mainstay, _) => arguments.mainstay_bin.clone(),
        (System::Etcd, Some(path)) => path.clone(),
        (System::Etcd, None) => etcd_from_script()?,
    };
    ensure!(
        path.is_file(),
        "{}: no such file; give it as --{}-bin or {}_BIN",
        path.display(),
        system.name(),
        system.name().to_uppercase()
    );
    Ok(path)
}

/// The etcd that the project builds once per user; the script prints its folder.
fn etcd_from_script() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/etcd.sh");
    let output = Command::new(&script)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("running {}; or give etcd as --etcd-bin or ETCD_BIN", script.display()))?;
    ensure!(output.status.success(), "{} failed; or give etcd as --etcd-bin or ETCD_BIN", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()).join("etcd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_first_in_turn() {
        assert_eq!(turns(2, 1), [0, 1]);
        assert_eq!(turns(2, 2), [1, 0]);
        assert_eq!(turns(2, 3), [0, 1]);
    }

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
