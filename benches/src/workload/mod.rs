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
pub mod scale;
mod session;
mod txn_put;
mod watch;

use std::future::Future;

use anyhow::Context;
use clap::ValueEnum;

use crate::load::{Budget, Measured, Pace, drive};
use crate::options::Options;
use crate::process::Usage;
pub use catch_up::CatchUp;
pub use maintenance::Maintenance;
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
    /// What this process spent on it.
    pub generator: Usage,
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
            Self::List | Self::ListPaged | Self::ListStream => "key",
            Self::LeaseKeepAlive => "renewal",
        }
    }

    /// Makes ready what the row needs, then runs and measures it.
    pub async fn run(self, session: &Session, options: &Options, pids: &[u32]) -> anyhow::Result<Outcome> {
        session.warm_up().await?;
        // Everything before `timed` is preparation and not measured.
        match self {
            Self::Put => {
                let workers = put::workers(session, options);
                timed(pids, drive(workers, pace(options, options.total))).await
            }
            Self::Get | Self::GetSerializable => {
                session.fill(options).await?;
                let workers = get::workers(session, options, self == Self::GetSerializable);
                timed(pids, drive(workers, pace(options, options.total))).await
            }
            Self::TxnPut => {
                let workers = txn_put::workers(session, options);
                timed(pids, drive(workers, pace(options, options.total))).await
            }
            Self::Watch => {
                let fan = watch::Fan::open(session, options).await?;
                timed(pids, fan.drive(pace(options, options.watched_puts()))).await
            }
            Self::List | Self::ListPaged | Self::ListStream => {
                session.fill(options).await?;
                let way = match self {
                    Self::ListPaged => list::Way::Pages(options.page),
                    Self::ListStream => list::Way::Stream,
                    _ => list::Way::Whole,
                };
                let workers = list::workers(session, options, way);
                timed(pids, drive(workers, pace(options, options.lists()))).await
            }
            Self::LeaseKeepAlive => {
                let workers = lease::workers(session, options).await?;
                timed(pids, drive(workers, pace(options, options.total))).await
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

/// Runs the load between two looks at what the processes have spent.
async fn timed(pids: &[u32], load: impl Future<Output = Measured>) -> anyhow::Result<Outcome> {
    let own = [std::process::id()];
    let (server_before, own_before) = (Usage::of(pids)?, Usage::of(&own)?);
    let measured = load.await;
    let server_after = Usage::of(pids).with_context(|| {
        let Measured { operations, elapsed, errors, .. } = &measured;
        format!("a server ended during the run ({operations} operations in {elapsed:?}, errors: {errors:?})")
    })?;
    let (server, generator) = (server_after.since(server_before), Usage::of(&own)?.since(own_before));
    Ok(Outcome { measured, server: (!pids.is_empty()).then_some(server), generator })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_on_the_command_line_and_in_the_results() {
        for row in Row::all() {
            assert_eq!(serde_json::to_value(row).unwrap(), row.name());
        }
        assert_eq!(Row::all().len(), 9);
    }
}
