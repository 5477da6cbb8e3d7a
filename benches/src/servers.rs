//! Which servers are measured, where their binaries are, and who goes first.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use clap::ValueEnum;

/// The flags that say which servers are measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Servers {
    /// What to measure it on.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mainstay,etcd")]
    pub systems: Vec<System>,
    /// Runs of each row on each system, taking turns; the table shows the one in the middle. One, where it is
    /// not given; two in a whole suite.
    #[arg(long)]
    pub rounds: Option<u32>,
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
    /// The name on the command line and in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::Etcd => "etcd",
        }
    }
}

impl Servers {
    /// Runs of each row on each system.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(1)
    }

    /// The systems with their binaries, which exist.
    pub fn binaries(&self) -> anyhow::Result<Vec<(System, PathBuf)>> {
        ensure!(self.rounds != Some(0), "--rounds: must be above 0");
        self.systems.iter().map(|system| Ok((*system, self.binary(*system)?))).collect()
    }

    fn binary(&self, system: System) -> anyhow::Result<PathBuf> {
        let path = match (system, &self.etcd_bin) {
            (System::Mainstay, _) => self.mainstay_bin.clone(),
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
}

/// Who goes when in a round: in the other order each time, so that what drifts, the disk above all,
/// does not always favour the same one.
pub fn turns(systems: usize, round: u32) -> Vec<usize> {
    let mut turns: Vec<usize> = (0..systems).collect();
    if round.is_multiple_of(2) {
        turns.reverse();
    }
    turns
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
}
