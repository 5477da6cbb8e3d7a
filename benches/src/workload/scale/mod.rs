//! What a server has to bear when it is large: many keys, many watchers, many leases, large values, a slow disk.
//!
//! Each scenario starts servers of its own, says what it measured as figures by name, and what was wrong as failures:
//! an answer that is not right, something that was acknowledged and is not there, an event that did not come.

mod check;
mod expiry;
mod fan;
mod host;
mod leases;
mod slow_disk;
mod store;
mod values;
mod watchers;

use std::path::Path;

use clap::ValueEnum;

use crate::latency::Summary;
use crate::servers::System;
pub use leases::Leases;
pub use slow_disk::SlowDisk;
pub use store::Store;
pub use values::Values;
pub use watchers::Watchers;

/// A scenario, by the name it has on the command line and in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Millions of keys on a server with little memory: loaded, killed, started again and read cold.
    Store,
    /// Many watchers, and many of them on one prefix.
    Watchers,
    /// Many leases, of which many end within a second.
    Leases,
    /// Values of a megabyte.
    Values,
    /// A cluster whose disks take their time for every fsync.
    SlowDisk,
}

/// How large each scenario is.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Sizes {
    /// Many keys.
    #[command(flatten)]
    pub store: Store,
    /// Many watchers.
    #[command(flatten)]
    pub watchers: Watchers,
    /// Many leases.
    #[command(flatten)]
    pub leases: Leases,
    /// Large values.
    #[command(flatten)]
    pub values: Values,
    /// A slow disk.
    #[command(flatten)]
    pub slow_disk: SlowDisk,
}

/// Where a scenario finds its servers.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Which one.
    pub system: System,
    /// Its binary.
    pub binary: &'a Path,
    /// Where its data goes.
    pub folder: &'a Path,
    /// Flags that it gets last.
    pub server_flags: &'a [String],
    /// A folder of control groups in which one may be made, to hold the server to its memory.
    pub cgroup: Option<&'a Path>,
}

/// What a scenario saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The version that the server reports.
    pub version: String,
    /// Measured values by their names, in the order of the table.
    pub figures: Vec<(String, f64)>,
    /// What was wrong.
    pub failures: Vec<String>,
}

impl Seen {
    fn figure(&mut self, name: &str, value: f64) {
        self.figures.push((name.to_owned(), value));
    }

    /// The times of one sort of request, in milliseconds.
    fn latency(&mut self, name: &str, latency: &Summary) {
        let times = [("p50", latency.p50_us), ("p99", latency.p99_us), ("max", latency.max_us)];
        for (quantile, micros) in times {
            self.figure(&format!("{name}_{quantile}_ms"), micros as f64 / 1e3);
        }
    }

    /// Takes note of what was wrong, unless it was not.
    fn check(&mut self, is_right: bool, wrong: impl FnOnce() -> String) {
        if !is_right {
            self.failures.push(wrong());
        }
    }
}

impl Scale {
    /// Every scenario, in the order in which they are run.
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The scenario's name.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no scenario is hidden");
        value.get_name().to_owned()
    }

    /// Members of the cluster that it runs on.
    pub fn members(self) -> usize {
        if self == Self::SlowDisk { slow_disk::MEMBERS } else { 1 }
    }

    /// Refuses what cannot be measured, by the name of the flag.
    pub fn validate(self, sizes: &Sizes) -> anyhow::Result<()> {
        match self {
            Self::Store => sizes.store.validate(),
            Self::Watchers => sizes.watchers.validate(),
            Self::Leases => sizes.leases.validate(),
            Self::Values => sizes.values.validate(),
            Self::SlowDisk => sizes.slow_disk.validate(),
        }
    }

    /// How large it is, for the results.
    pub fn options(self, sizes: &Sizes) -> serde_json::Result<serde_json::Value> {
        match self {
            Self::Store => serde_json::to_value(&sizes.store),
            Self::Watchers => serde_json::to_value(&sizes.watchers),
            Self::Leases => serde_json::to_value(&sizes.leases),
            Self::Values => serde_json::to_value(&sizes.values),
            Self::SlowDisk => serde_json::to_value(&sizes.slow_disk),
        }
    }

    /// Runs it. What keeps it from going on is a failure like any other: the figures up to then are told.
    pub async fn run(self, site: &Site<'_>, sizes: &Sizes) -> Seen {
        let mut seen = Seen::default();
        let outcome = match self {
            Self::Store => sizes.store.run(site, &mut seen).await,
            Self::Watchers => sizes.watchers.run(site, &mut seen).await,
            Self::Leases => sizes.leases.run(site, &mut seen).await,
            Self::Values => sizes.values.run(site, &mut seen).await,
            Self::SlowDisk => sizes.slow_disk.run(site, &mut seen).await,
        };
        if let Err(error) = outcome {
            seen.failures.push(format!("{error:#}"));
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_on_the_command_line_and_in_the_results() {
        for scale in Scale::all() {
            assert_eq!(serde_json::to_value(scale).unwrap(), scale.name());
        }
        assert_eq!(Scale::all().len(), 5);
    }

    #[test]
    fn what_is_right_is_no_failure() {
        let mut seen = Seen::default();
        seen.check(true, || "not this".to_owned());
        seen.check(false, || "this".to_owned());
        assert_eq!(seen.failures, ["this"]);
        let latency = Summary { p50_us: 1_500, p99_us: 2_000, max_us: 30_000, ..Summary::default() };
        seen.latency("put", &latency);
        let named = |name: &str, value| (name.to_owned(), value);
        assert_eq!(seen.figures, [named("put_p50_ms", 1.5), named("put_p99_ms", 2.0), named("put_max_ms", 30.0)]);
    }
}
