//! A cluster of this member alone, made of what it holds: the way back where a majority is lost for good.
//!
//! To the log is added what the cluster itself would have written, had it still been able to: an entry with the members,
//! which are this one alone, in a term that nobody has led in. Members go by the last such entry that they hold, so the
//! others' votes count no more, and when it is applied they are removed, as ever.
//!
//! Nothing is cut off. Entries that were not known here to be committed may have been, and what was acknowledged is
//! kept; a write that nobody was told of may then take effect, as after any failure of a leader. (etcd drops what it
//! does not know to be committed.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use mainstay_proto::mainstay as wire;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine, StorageHelper};
use openraft::{EntryPayload, LogIdOptionExt, RaftLogReader};

use super::codec;
use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::type_config::{Entry, Membership, PeerNode, TypeConfig};

/// Makes `own` the only member of its log and state. Where its peers find it is kept; `node` says it where that is not
/// known here.
///
/// # Errors
/// When the log or the state cannot be read, or the log not be written.
pub(super) async fn stand_alone(
    own: u64,
    node: &PeerNode,
    log: &mut LogStore,
    machine: &mut StateMachine,
) -> io::Result<()> {
    let (applied, _) = machine.applied_state().await?;
    let state = log.get_log_state().await?;
    if let Some(applied) = applied
        && state.last_log_id.next_index() <= applied.index
    {
        // It ended between taking over a snapshot and purging the log before it.
        log.purge(applied).await?;
    }
    let known = StorageHelper::<TypeConfig, _, _>::new(log, machine).get_membership().await?;
    let known = known.effective().membership();
    let node = PeerNode { learner: false, ..known.get_node(&own).unwrap_or(node).clone() };
    let last = log.get_log_state().await?.last_log_id;
    let voted = log.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.as_ref().map_or(0, codec::term_of)) + 1;
    log.save_vote(&codec::vote_from_wire(&wire::Vote { term, node_id: own, committed: false })).await?;
    let alone =
        Membership::new(vec![BTreeSet::from([own])], BTreeMap::from([(own, node)])).map_err(io::Error::other)?;
    let index = last.next_index();
    let entry = Entry { log_id: codec::log_id(term, index), payload: EntryPayload::Membership(alone) };
    RaftLogStorageExt::<TypeConfig>::blocking_append(log, [entry]).await?;
    let others: Vec<String> = known.nodes().filter(|(id, _)| **id != own).map(|(id, _)| format!("{id:x}")).collect();
    tracing::warn!(
        "local-member-id" = format!("{own:x}"),
        removed = others.join(","),
        index,
        "forced a new cluster: this member is the only one left; start it without --force-new-cluster from now on"
    );
    Ok(())
}
