//! What is measured: each row a load of its own, on keys of its own.
//!
//! [`Maintenance`] and [`CatchUp`] are no rows but scenarios: what happens to the servers is measured by
//! what it does to a steady load. [`scale`] is what servers have to bear when they are large.

mod catch_up;
mod fill;
mod get;
mod lease;
mod list;
mod maintenance;
mod members;
mod put;
mod restart;
pub mod scale;
mod session;
mod txn_put;
mod watch;

use std::future::Future;

use anyhow::Context;
use clap::ValueEnum;

use crate::disk::Disk;
use crate::load::{Budget, Measured, Pace, drive};
use crate::options::Options;
use crate::process::{Usage, reset_peaks};
pub use catch_up::CatchUp;
pub use maintenance::Maintenance;
pub(crate) use restart::{kill_and_read, load_and_restart};
pub use session::Session;

/// A workload, by the name it has on the command line and in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Writes keys.
    Put,
    /// Reads single keys, linearizably.
    Get,
    /// Reads single keys from what the member has.
    GetSerializable,
    /// Updates keys as kube-apiserver does: on top of the revision that was read, else reads again.
    TxnPut,
    /// Delivers each write to many watches.
    Watch,
    /// Lists all keys in one response.
    List,
    /// Lists all keys in pages, at the revision of the first, with the total's count.
    ListPaged,
    /// Lists all keys by RangeStream.
    ListStream,
    /// Counts all keys.
    ListCount,
    /// Lists all keys without their values.
    ListKeys,
    /// Renews leases, each over a stream of its client's own.
    LeaseKeepAlive,
}

/// One measured run of a row.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the clients saw.
    pub measured: Measured,
    /// What the servers spent on it, where their process ids are known.
    pub server: Option<Usage>,
    /// The most resident memory of the servers meanwhile, beyond what they had before. `None` where the kernel
    /// does not let a peak be forgotten.
    pub extra_memory_bytes: Option<u64>,
    /// What the servers' disk wrote meanwhile, whoever asked it to; `None` where it is not known.
    pub device_written_bytes: Option<u64>,
    /// What this process spent on it.
    pub generator: Usage,
}

/// The servers that a row is measured on, as far as this process can see into them.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// Their process ids.
    pub pids: Vec<u32>,
    /// The disk that their data is on.
    pub disk: Option<Disk>,
}

impl Row {
    /// Every row, in the order in which they are run.
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The row's name.
    pub fn name(self) -> String {
        let value = self.to_possible_value().expect("no row is hidden");
        value.get_name().to_owned()
    }

    /// What is counted, per second and for the cost of a million.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get | Self::GetSerializable => "get",
            Self::TxnPut => "txn",
            Self::Watch => "event",
            Self::List | Self::ListPaged | Self::ListStream | Self::ListCount | Self::ListKeys => "key",
            Self::LeaseKeepAlive => "renewal",
        }
    }

    /// Whether the row reads keys that have to be there.
    fn needs_keys(self, options: &Options) -> bool {
        match self {
            Self::Put | Self::TxnPut | Self::LeaseKeepAlive => false,
            Self::Watch => options.prev_kv,
            Self::Get | Self::GetSerializable => true,
            Self::List | Self::ListPaged | Self::ListStream | Self::ListCount | Self::ListKeys => true,
        }
    }

    /// Makes ready what the row needs, then runs and measures it.
    pub async fn run(self, session: &Session, options: &Options, subjects: &Subjects) -> anyhow::Result<Outcome> {
        self.prepare(session, options).await?;
        self.measure(session, options, subjects).await
    }

    /// Makes ready what the row needs.
    pub(crate) async fn prepare(self, session: &Session, options: &Options) -> anyhow::Result<()> {
        session.warm_up().await?;
        if self.needs_keys(options) {
            session.fill(options).await?;
        }
        Ok(())
    }

    /// Runs and measures the row on a store that has its keys.
    pub(crate) async fn measure(
        self,
        session: &Session,
        options: &Options,
        subjects: &Subjects,
    ) -> anyhow::Result<Outcome> {
        // Everything before `timed` is preparation and not measured.
        match self {
            Self::Put => {
                let workers = put::workers(session, options);
                timed(subjects, drive(workers, pace(options, options.total))).await
            }
            Self::Get | Self::GetSerializable => {
                let workers = get::workers(session, options, self == Self::GetSerializable);
                timed(subjects, drive(workers, pace(options, options.total))).await
            }
            Self::TxnPut => {
                let workers = txn_put::workers(session, options);
                timed(subjects, drive(workers, pace(options, options.total))).await
            }
            Self::Watch => {
                let fan = watch::Fan::open(session, options).await?;
                timed(subjects, fan.drive(pace(options, options.watched_puts()))).await
            }
            Self::List | Self::ListPaged | Self::ListStream | Self::ListCount | Self::ListKeys => {
                let way = match self {
                    Self::ListPaged => list::Way::Pages(options.page),
                    Self::ListStream => list::Way::Stream,
                    Self::ListCount => list::Way::Count,
                    Self::ListKeys => list::Way::Keys,
                    _ => list::Way::Whole,
                };
                let workers = list::workers(session, options, way);
                timed(subjects, drive(workers, pace(options, options.lists()))).await
            }
            Self::LeaseKeepAlive => {
                let workers = lease::workers(session, options).await?;
                timed(subjects, drive(workers, pace(options, options.total))).await
            }
        }
    }
}

fn pace(options: &Options, total: u64) -> Pace {
    let budget = match options.duration {
        Some(duration) => Budget::Duration(duration),
        None => Budget::Total(total),
    };
    Pace { budget, rate: options.rate }
}

/// Runs the load between two looks at what the processes and their disk have spent.
async fn timed(subjects: &Subjects, load: impl Future<Output = Measured>) -> anyhow::Result<Outcome> {
    let (Subjects { pids, disk }, own) = (subjects, [std::process::id()]);
    let device_before = match disk {
        Some(disk) => Some(disk.written_bytes().await?),
        None => None,
    };
    let peaks_are_new = !pids.is_empty() && reset_peaks(pids);
    let (server_before, own_before) = (Usage::of(pids)?, Usage::of(&own)?);
    let measured = load.await;
    let server_after = Usage::of(pids).with_context(|| {
        let Measured { operations, elapsed, errors, .. } = &measured;
        format!("a server ended during the run ({operations} operations in {elapsed:?}, errors: {errors:?})")
    })?;
    let (server, generator) = (server_after.since(server_before), Usage::of(&own)?.since(own_before));
    // Last of all: writing out what waits in memory takes its time.
    let device_after = match disk {
        Some(disk) => Some(disk.written_bytes().await?),
        None => None,
    };
    let extra = server_after.rss_peak_bytes.saturating_sub(server_before.rss_bytes);
    Ok(Outcome {
        measured,
        server: (!pids.is_empty()).then_some(server),
        extra_memory_bytes: peaks_are_new.then_some(extra),
        device_written_bytes: device_after.zip(device_before).map(|(after, before)| after.saturating_sub(before)),
        generator,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_on_the_command_line_and_in_the_results() {
        for row in Row::all() {
            assert_eq!(serde_json::to_value(row).unwrap(), row.name());
        }
        assert_eq!(Row::all().len(), 11);
    }
}
