//! Many keys on a server with little memory.

use std::time::Duration;

use anyhow::ensure;

use super::super::members::Members;
use super::super::session::Session;
use super::check::{Contents, loaders, pagers, readers};
use super::host::{Host, Setting};
use super::{Seen, Site};
use crate::load::{Budget, Measured, Pace, drive};
use crate::options::{ensure_above_zero, parse_seconds, write_seconds};
use crate::process::Usage;
use crate::servers::System;

/// Connections that the clients share.
const CONNECTIONS: usize = 8;

/// The sizes of `store`.
#[derive(Clone, Debug, clap::Args, serde::Serialize)]
pub struct Store {
    /// store: keys to load, in an order that has nothing to do with theirs.
    #[arg(long, default_value_t = 10_000_000)]
    pub store_keys: u64,
    /// store: megabytes (10^6 bytes) of their values together.
    #[arg(long, default_value_t = 20_000)]
    pub store_megabytes: u64,
    /// store: mebibytes (2^20 bytes) of memory: mainstay's --memory-limit, and the limit of the control group.
    #[arg(long, default_value_t = 4096)]
    pub store_memory: u64,
    /// store: clients that load.
    #[arg(long, default_value_t = 64)]
    pub store_clients: usize,
    /// store: keys that are loaded with one transaction, at most.
    #[arg(long, default_value_t = 50)]
    pub store_batch: u64,
    /// store: clients that read after the restart.
    #[arg(long, default_value_t = 16)]
    pub store_readers: usize,
    /// store: seconds of reading single keys, and as many of listing pages.
    #[arg(long, value_parser = parse_seconds, default_value = "15")]
    #[serde(serialize_with = "write_seconds")]
    pub store_read_seconds: Duration,
    /// store: keys a page.
    #[arg(long, default_value_t = 500)]
    pub store_page: i64,
}

impl Store {
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("store-keys", self.store_keys),
            ("store-megabytes", self.store_megabytes),
            ("store-memory", self.store_memory),
            ("store-clients", self.store_clients as u64),
            ("store-batch", self.store_batch),
            ("store-readers", self.store_readers as u64),
            ("store-page", self.store_page.max(0) as u64),
        ])?;
        ensure!(self.store_batch <= 128, "--store-batch: etcd takes 128 operations in a transaction");
        ensure!(Contents::can_scatter(self.store_keys), "--store-keys: choose another number");
        ensure!(self.value_size() > 0, "--store-megabytes: less than a byte for each key");
        ensure!(self.value_size() <= 1 << 20, "--store-megabytes: values of more than a MiB");
        Ok(())
    }

    fn value_size(&self) -> usize {
        usize::try_from(self.store_megabytes * 1_000_000 / self.store_keys).unwrap_or(usize::MAX)
    }

    fn memory_bytes(&self) -> u64 {
        self.store_memory << 20
    }

    pub(super) async fn run(&self, site: &Site<'_>, seen: &mut Seen) -> anyhow::Result<()> {
        let flags = match site.system {
            System::Mainstay => vec![format!("--memory-limit={}", self.memory_bytes())],
            System::Etcd => Vec::new(),
        };
        let setting = Setting { flags, memory: Some(self.memory_bytes()), ..Setting::default() };
        let mut host = Host::start(site, 1, setting).await?;
        let endpoints = host.cluster.endpoints();
        let contents = Contents { keys: self.store_keys, value_size: self.value_size(), seed: 1 };

        let session = Session::open(&endpoints, CONNECTIONS)?;
        seen.version = session.version().await?;
        let batch = contents.batch(self.store_batch);
        let (workers, progress) = loaders(&session, self.store_clients, contents, batch);
        let pace = Pace { budget: Budget::Total(contents.keys.div_ceil(batch)), rate: 0 };
        let loaded = drive(workers, pace).await;
        host.cluster.check_alive()?;
        let seconds = loaded.elapsed.as_secs_f64().max(1e-9);
        seen.figure("load_keys_per_second", loaded.items as f64 / seconds);
        seen.figure("load_mb_per_second", (loaded.items * contents.value_size as u64) as f64 / 1e6 / seconds);
        seen.latency("load_txn", &loaded.latency);
        seen.figure("load_refused", progress.refused() as f64);
        seen.figure("disk_mb", host.cluster.disk_bytes(0) as f64 / 1e6);
        self.tell_peak("load", &host, site.system, seen)?;
        // What is missing already need not be looked for later.
        ensure!(
            loaded.items == contents.keys,
            "{} of {} keys were loaded: {:?}",
            loaded.items,
            contents.keys,
            loaded.errors
        );

        seen.figure("restart_seconds", host.restart_cold(0).await?.as_secs_f64());
        let session = Session::open(&endpoints, CONNECTIONS)?;
        let pace = Pace { budget: Budget::Duration(self.store_read_seconds), rate: 0 };
        let gets = drive(readers(&session, self.store_readers, contents), pace).await;
        tell_reads("cold_get", &gets, seen);
        host.cluster.check_alive()?;
        let pages = drive(pagers(&session, self.store_readers, contents, self.store_page), pace).await;
        tell_reads("cold_page", &pages, seen);
        host.cluster.check_alive()?;
        self.tell_peak("read", &host, site.system, seen)?;
        if let Some(peak) = host.group_peak() {
            seen.figure("group_peak_mb", peak as f64 / 1e6);
        }
        Members::connect(&endpoints)?.expect_keys(contents.keys).await?;
        host.stop().await
    }

    fn tell_peak(&self, when: &str, host: &Host, system: System, seen: &mut Seen) -> anyhow::Result<()> {
        let (peak, limit) = (Usage::of(&host.cluster.pids())?.rss_peak_bytes, self.memory_bytes());
        seen.figure(&format!("{when}_rss_peak_mb"), peak as f64 / 1e6);
        // etcd has its whole file in its address space, and what of that is resident is the kernel's choice.
        seen.check(system == System::Etcd || peak <= limit, || {
            format!("{peak} bytes of memory at the peak ({when}), with a limit of {limit}")
        });
        Ok(())
    }
}

fn tell_reads(name: &str, reads: &Measured, seen: &mut Seen) {
    seen.figure(&format!("{name}s_per_second"), reads.operations as f64 / reads.elapsed.as_secs_f64().max(1e-9));
    seen.latency(name, &reads.latency);
    seen.check(reads.errors.is_empty() && reads.operations > 0, || format!("{name}: {:?}", reads.errors));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        store: Store,
    }

    fn store(flags: &[&str]) -> Store {
        Only::parse_from([&["bench"], flags].concat()).store
    }

    #[test]
    fn the_defaults_are_what_is_to_be_borne() {
        let store = store(&[]);
        store.validate().unwrap();
        assert_eq!((store.store_keys, store.value_size(), store.memory_bytes()), (10_000_000, 2_000, 4 << 30));
    }

    #[test]
    fn refusals_name_the_flag() {
        for flags in [
            ["--store-keys", "0"],
            ["--store-batch", "129"],
            ["--store-page", "0"],
            ["--store-megabytes", "1"],
            ["--store-readers", "0"],
            ["--store-memory", "0"],
        ] {
            let error = store(&flags).validate().unwrap_err().to_string();
            assert!(error.starts_with(flags[0]), "{error}");
        }
    }
}
