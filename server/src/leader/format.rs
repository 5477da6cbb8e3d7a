//! Raises the format of the data, while this member leads, once the release of every member knows a newer one.
//!
//! A task that owns nothing. Until then all members, of whichever release, read and write the older format, so that any
//! of them may be started with the older release again. From then on an older release is refused: by the data of a
//! member, by the entry that raised the format, by a snapshot, and when it asks to join.
//!
//! Everybody has to answer, learners and those who have not started yet, too: who is not heard may be of an older release.
//! (etcd raises the version of a cluster likewise.) Whoever is added at the same moment may miss the question; it
//! ends at that entry and is started with the newer release.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_proto::mainstay::RaiseFormat;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::command::command;
use crate::env::clock;
use crate::raft::Gateway;

/// Time between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// Starts to ask where this release knows a newer format; ends with the handle's abortion, or when there is nothing more
/// to raise.
pub fn spawn(gateway: Gateway) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut waits_for = BTreeSet::new();
        while gateway.format() < gateway.newest_format() {
            clock::sleep(INTERVAL).await;
            let status = gateway.status();
            if status.leader == Some(status.member_id) {
                raise(&gateway, status.member_id, status.term, &mut waits_for).await;
            }
        }
    })
}

/// Asks once, and raises the format as far as everybody knows it.
async fn raise(gateway: &Gateway, own: u64, term: u64, waits_for: &mut BTreeSet<u64>) {
    let others = gateway.members().into_iter().map(|member| member.id).filter(|id| *id != own);
    let asked = others.map(|id| async move { (id, gateway.newest_format_of(id).await) });
    let (now, mut known_to_all) = (gateway.format(), gateway.newest_format());
    let mut behind = BTreeSet::new();
    for (id, told) in join_all(asked).await {
        match told {
            Ok(newest) if newest > now => known_to_all = known_to_all.min(newest),
            Ok(_) | Err(_) => {
                behind.insert(id);
            }
        }
    }
    if !behind.is_empty() {
        if behind != *waits_for {
            let members: Vec<String> = behind.iter().map(|id| format!("{id:x}")).collect();
            info!(
                members = members.join(","),
                now, "the format stays: these members do not say that they know a newer one"
            );
        }
        *waits_for = behind;
        return;
    }
    let command = command::Kind::RaiseFormat(RaiseFormat { format: known_to_all });
    // Nothing was lost: the next round finds the same.
    if let Err(error) = gateway.propose_as_leader(term, command).await {
        warn!(%error, format = known_to_all, "failed to raise the format of the data");
    }
}
