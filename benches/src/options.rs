//! What a run is made of: the flags that `run` and `compare` have in common.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;

/// The load and its data.
#[derive(Args, Clone, Debug, serde::Serialize)]
pub struct Options {
    /// Requests in flight: each client has one at a time.
    #[arg(long, default_value_t = 100)]
    pub clients: usize,
    /// Connections that the clients share; they take the endpoints in turn.
    #[arg(long, default_value_t = 10)]
    pub connections: usize,
    /// Operations to measure; for lists, keys to list; for watch, events to deliver.
    #[arg(long, default_value_t = 100_000)]
    pub total: u64,
    /// Seconds to measure for, instead of a total.
    #[arg(long, value_parser = parse_seconds)]
    #[serde(skip)]
    pub duration: Option<Duration>,
    /// Operations a second over all clients, each due at its time; 0 is as fast as they go.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    pub value_size: usize,
    /// Keys that are written or read.
    #[arg(long, default_value_t = 10_000)]
    pub keys: u64,
    /// Writes the keys in order instead of at random.
    #[arg(long)]
    pub sequential: bool,
    /// Where the random choice of keys and the values come from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Watches in the watch row, all on the same prefix.
    #[arg(long, default_value_t = 100)]
    pub watchers: usize,
    /// Streams that the watches share.
    #[arg(long, default_value_t = 10)]
    pub watch_streams: usize,
    /// Clients of the list rows, instead of --clients.
    #[arg(long, default_value_t = 4)]
    pub list_clients: usize,
    /// Keys a page in the row list-paged.
    #[arg(long, default_value_t = 500)]
    pub page: i64,
    /// Asks in the watch row for what the key held before, too; the keys are written first, so that there is
    /// something.
    #[arg(long)]
    pub prev_kv: bool,
    /// Sends everything to the leader: otherwise one client alone may meet a member that forwards, or not.
    #[arg(long)]
    pub leader: bool,
}

/// Lists in a list row, at least: fewer say nothing about the tail.
const LISTS_MIN: u64 = 20;
/// Puts in the watch row, at least.
const WATCHED_PUTS_MIN: u64 = 100;

impl Options {
    /// Refuses what cannot be measured, by the name of the flag.
    pub fn validate(&self) -> anyhow::Result<()> {
        ensure_above_zero(&[
            ("clients", self.clients as u64),
            ("connections", self.connections as u64),
            ("total", self.total),
            ("keys", self.keys),
            ("watchers", self.watchers as u64),
            ("watch-streams", self.watch_streams as u64),
            ("list-clients", self.list_clients as u64),
            ("page", self.page.max(0) as u64),
        ])?;
        ensure!(
            self.keys >= self.clients as u64,
            "--keys: must be at least --clients ({}), because in txn-put each client has keys of its own",
            self.clients
        );
        ensure!(self.watchers >= self.watch_streams, "--watchers: must be at least --watch-streams");
        Ok(())
    }

    /// How many times the list rows list all the keys.
    pub fn lists(&self) -> u64 {
        (self.total / self.keys).max(LISTS_MIN)
    }

    /// How many puts the watch row needs so that `total` events are delivered.
    pub fn watched_puts(&self) -> u64 {
        (self.total / self.watchers as u64).max(WATCHED_PUTS_MIN)
    }
}

/// Reads a time on the command line.
pub(crate) fn parse_seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds: f64 = text.trim_end_matches('s').parse().context("seconds, as in 10 or 2.5s")?;
    ensure!(seconds > 0.0, "must be above 0");
    Ok(Duration::try_from_secs_f64(seconds)?)
}

/// Writes a time into the results, in seconds.
pub(crate) fn write_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// Refuses flags that are 0 where that cannot be measured, by their names.
pub(crate) fn ensure_above_zero(flags: &[(&str, u64)]) -> anyhow::Result<()> {
    for (flag, value) in flags {
        ensure!(*value > 0, "--{flag}: must be above 0");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        options: Options,
    }

    /// The options of a command line.
    pub(crate) fn options(flags: &[&str]) -> Options {
        Only::parse_from([&["bench"], flags].concat()).options
    }

    #[test]
    fn the_defaults_are_valid() {
        options(&[]).validate().unwrap();
        assert_eq!(options(&["--duration", "2.5s"]).duration, Some(Duration::from_millis(2500)));
    }

    #[test]
    fn a_refusal_names_the_flag() {
        for (flags, word) in [
            (&["--clients", "0"][..], "--clients"),
            (&["--keys", "10"], "--keys"),
            (&["--page", "0"], "--page"),
            (&["--page=-1"], "--page"),
            (&["--watchers", "3"], "--watchers"),
        ] {
            let error = options(flags).validate().unwrap_err().to_string();
            assert!(error.starts_with(word), "{error}");
        }
    }

    #[test]
    fn a_total_counts_keys_listed_and_events_delivered() {
        let options = options(&["--total", "1000000", "--keys", "1000", "--watchers", "200"]);
        assert_eq!((options.lists(), options.watched_puts()), (1000, 5000));
    }
}
