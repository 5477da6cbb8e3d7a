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
use mainstay_raft_log::{RaftLog, Record};
use openraft::EntryPayload;
use prost::Message;
use tokio::sync::oneshot;

use super::codec;
use super::type_config::{Entry, LogId, Membership, PeerNode, StoredMembership};

/// Bytes that are read of the log at once.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Makes `own` the only member of its log and state; `applied` is up to where its state goes, and who is a member there.
///
/// # Errors
/// When the log cannot be read or written.
pub(super) async fn stand_alone(
    own: u64,
    node: &PeerNode,
    log: &RaftLog,
    (applied, membership): (Option<LogId>, &StoredMembership),
) -> io::Result<()> {
    if let Some(applied) = applied
        && log.last().is_none_or(|(last, _)| last < applied.index)
    {
        // It ended between taking over a snapshot and purging the log before it.
        log.purge(applied.index, codec::term_of(&applied)).await.map_err(io::Error::other)?;
    }
    let known = last_membership(log, applied.map_or(0, |applied| applied.index + 1))?;
    let known = known.as_ref().unwrap_or_else(|| membership.membership());
    // Where its peers find it is kept, unless that is not known here.
    let node = PeerNode { learner: false, ..known.get_node(&own).unwrap_or(node).clone() };
    let (next, last_term) = log.last().map_or((0, 0), |(index, term)| (index + 1, term));
    let voted = match log.vote() {
        Some(bytes) => wire::Vote::decode(bytes).map_err(codec::CodecError::from)?.term,
        None => 0,
    };
    let term = voted.max(last_term) + 1;
    let vote = wire::Vote { term, node_id: own, committed: false };
    log.save_vote(vote.encode_to_vec().into()).await.map_err(io::Error::other)?;
    let alone =
        Membership::new(vec![BTreeSet::from([own])], BTreeMap::from([(own, node)])).map_err(io::Error::other)?;
    let entry = Entry { log_id: codec::log_id(term, next), payload: EntryPayload::Membership(alone) };
    append(log, Record { index: next, term, payload: codec::payload_to_bytes(&entry) }).await?;
    let others: Vec<String> = known.nodes().filter(|(id, _)| **id != own).map(|(id, _)| format!("{id:x}")).collect();
    tracing::warn!(
        "local-member-id" = format!("{own:x}"),
        removed = others.join(","),
        index = next,
        "forced a new cluster: this member is the only one left; start it without --force-new-cluster from now on"
    );
    Ok(())
}

async fn append(log: &RaftLog, record: Record) -> io::Result<()> {
    let (done, appended) = oneshot::channel();
    log.append(vec![record], Box::new(move |result| drop(done.send(result))));
    appended.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

/// The members by the last entry that names them, from an index on; `None` where no entry does.
fn last_membership(log: &RaftLog, from: u64) -> io::Result<Option<Membership>> {
    let mut found = None;
    let mut next = from;
    loop {
        let records = log.read(next, u64::MAX, READ_BYTES).map_err(io::Error::other)?;
        let Some(last) = records.last() else { return Ok(found) };
        next = last.index + 1;
        for record in records {
            let entry = codec::entry_from_bytes(codec::log_id(record.term, record.index), record.payload)?;
            if let EntryPayload::Membership(membership) = entry.payload {
                found = Some(membership);
            }
        }
    }
}
