//! Large values.

use super::super::session::Session;
use super::check::{Contents, loaders, readers};
use super::host::{Host, Setting};
use super::{Seen, Site};
use crate::load::{Budget, Measured, Pace, drive};
use crate::options::ensure_above_zero;
use crate::process::Usage;

/// The sizes of `values`.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Values {
    /// values: how many values are written, each to a key of its own, and then read.
    #[arg(long, default_value_t = 2_000)]
    pub values_count: u64,
    /// values: bytes of a value.
    #[arg(long, default_value_t = 1_000_000)]
    pub values_size: usize,
    /// values: clients, each with a connection of its own.
    #[arg(long, default_value_t = 16)]
    pub values_clients: usize,
}

impl Values {
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("values-count", self.values_count),
            ("values-size", self.values_size as u64),
            ("values-clients", self.values_clients as u64),
        ])
    }

    pub(super) async fn run(&self, site: &Site<'_>, seen: &mut Seen) -> anyhow::Result<()> {
        let mut host = Host::start(site, 1, Setting::default()).await?;
        let session = Session::open(&host.cluster.endpoints(), self.values_clients)?;
        seen.version = session.version().await?;
        let contents = Contents { keys: self.values_count, value_size: self.values_size, seed: 1 };
        let pids = host.cluster.pids();
        let pace = Pace { budget: Budget::Total(self.values_count), rate: 0 };

        let before = Usage::of(&pids)?;
        let (workers, progress) = loaders(&session, self.values_clients, contents, 1);
        let puts = drive(workers, pace).await;
        host.cluster.check_alive()?;
        let after_puts = Usage::of(&pids)?;
        self.tell("put", &puts, seen);
        seen.figure("put_refused", progress.refused() as f64);
        seen.figure("put_cpu_seconds", after_puts.since(before).cpu.as_secs_f64());
        seen.figure("put_rss_peak_mb", after_puts.rss_peak_bytes as f64 / 1e6);
        if let Some(written) = after_puts.since(before).written_bytes {
            let bytes = (puts.items * self.values_size as u64).max(1);
            seen.figure("written_per_byte", written as f64 / bytes as f64);
        }

        let gets = drive(readers(&session, self.values_clients, contents), pace).await;
        host.cluster.check_alive()?;
        self.tell("get", &gets, seen);
        seen.figure("rss_peak_mb", Usage::of(&pids)?.rss_peak_bytes as f64 / 1e6);
        host.stop().await
    }

    fn tell(&self, name: &str, measured: &Measured, seen: &mut Seen) {
        let bytes = (measured.items * self.values_size as u64) as f64;
        seen.figure(&format!("{name}_mb_per_second"), bytes / 1e6 / measured.elapsed.as_secs_f64().max(1e-9));
        seen.latency(name, &measured.latency);
        let all = measured.items == self.values_count && measured.errors.is_empty();
        seen.check(all, || {
            format!("{name}: {} of {} values, {:?}", measured.items, self.values_count, measured.errors)
        });
    }
}
