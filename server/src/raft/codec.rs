//! Between openraft's types and the messages that are stored and sent (pure).

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use mainstay_proto::mainstay as wire;
use openraft::EntryPayload;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use prost::Message;

use super::checksum;
use super::type_config::{EncodedCommand, Entry, LogId, Membership, PeerNode, StoredMembership, TypeConfig, Vote};

/// Marks a membership among the payloads of the log; commands begin with their version, which never gets there.
const MEMBERSHIP: u8 = 0xff;

/// Bytes that are none of ours: written by something else, or damaged without the checksum noticing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// Not the message that has to stand here.
    #[error("cannot be decoded: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// Members with a part that only a newer release knows.
    #[error("the members have a part that this release does not know: run the newer release that wrote it")]
    Unknown,
    /// A part that has to be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Entries that do not follow each other, or the one that they are to follow.
    #[error("entry {found} where {expected} is due")]
    Gap {
        /// The index that should be there.
        expected: u64,
        /// The one that is.
        found: u64,
    },
    /// Something changed on the way.
    #[error("its checksum is not that of what was sent")]
    Checksum,
    /// The members contradict themselves.
    #[error("membership: {0}")]
    Membership(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    let leader = leader_id_std::LeaderId { term, voted_for: 0 };
    LogId::new(leader.to_committed(), index)
}

/// The term of the leader that wrote an entry.
pub(crate) fn term_of(log_id: &LogId) -> u64 {
    log_id.leader_id.term
}

pub(crate) fn log_id_to_wire(log_id: &LogId) -> wire::LogId {
    wire::LogId { term: term_of(log_id), index: log_id.index }
}

pub(crate) fn log_id_from_wire(log_id: &wire::LogId) -> LogId {
    self::log_id(log_id.term, log_id.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_from_wire(vote: &wire::Vote) -> Vote {
    Vote { leader_id: leader_id_std::LeaderId { term: vote.term, voted_for: vote.node_id }, committed: vote.committed }
}

pub(crate) fn node_to_wire(node: &PeerNode) -> wire::Node {
    wire::Node { name: node.name.clone(), peer_urls: node.peer_urls.clone(), learner: node.learner }
}

pub(crate) fn node_from_wire(node: wire::Node) -> PeerNode {
    PeerNode { name: node.name, peer_urls: node.peer_urls, learner: node.learner }
}

pub(crate) fn membership_to_wire(membership: &Membership) -> wire::Membership {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|voters| wire::membership::Config { voters: voters.iter().copied().collect() })
        .collect();
    let nodes = membership.nodes().map(|(id, node)| (*id, node_to_wire(node))).collect();
    wire::Membership { configs, nodes }
}

pub(crate) fn membership_from_wire(membership: wire::Membership) -> Result<Membership, CodecError> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|config| config.voters.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, PeerNode> =
        membership.nodes.into_iter().map(|(id, node)| (id, node_from_wire(node))).collect();
    Membership::new(configs, nodes).map_err(|error| CodecError::Membership(error.to_string()))
}

pub(crate) fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_wire(stored: wire::StoredMembership) -> Result<StoredMembership, CodecError> {
    let membership = stored.membership.unwrap_or_default();
    let membership =
        if membership.configs.is_empty() { Membership::default() } else { membership_from_wire(membership)? };
    Ok(StoredMembership::new(stored.log_id.as_ref().map(log_id_from_wire), membership))
}

/// The payload of an entry as it stands in the log and on the wire; a command's bytes are shared.
pub(crate) fn payload_to_bytes(entry: &Entry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(EncodedCommand(bytes)) => bytes.clone(),
        EntryPayload::Membership(membership) => {
            let message = membership_to_wire(membership);
            let mut bytes = BytesMut::with_capacity(1 + message.encoded_len());
            bytes.put_u8(MEMBERSHIP);
            message.encode_raw(&mut bytes);
            bytes.freeze()
        }
    }
}

pub(crate) fn entry_from_bytes(log_id: LogId, payload: Bytes) -> Result<Entry, CodecError> {
    let payload = match payload.first() {
        None => EntryPayload::Blank,
        Some(&MEMBERSHIP) => {
            let message = wire::Membership::decode(payload.slice(1..))?;
            // What it does not know the decoder passes over, and members would not agree on who they are.
            if 1 + message.encoded_len() != payload.len() {
                return Err(CodecError::Unknown);
            }
            EntryPayload::Membership(membership_from_wire(message)?)
        }
        Some(_) => EntryPayload::Normal(EncodedCommand(payload)),
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn entry_to_wire(entry: &Entry) -> wire::Entry {
    wire::Entry { log_id: Some(log_id_to_wire(&entry.log_id)), payload: payload_to_bytes(entry) }
}

pub(crate) fn entry_from_wire(entry: wire::Entry) -> Result<Entry, CodecError> {
    let log_id = entry.log_id.ok_or(CodecError::Missing("log id of an entry"))?;
    entry_from_bytes(log_id_from_wire(&log_id), entry.payload)
}

/// How far the state machine has got, as it is stored beside the state.
pub(crate) fn applied_to_bytes(log_id: Option<&LogId>, membership: &StoredMembership) -> Bytes {
    let message = wire::AppliedState {
        log_id: log_id.map(log_id_to_wire),
        membership: Some(stored_membership_to_wire(membership)),
    };
    message.encode_to_vec().into()
}

pub(crate) fn applied_from_bytes(bytes: Bytes) -> Result<(Option<LogId>, StoredMembership), CodecError> {
    if bytes.is_empty() {
        return Ok((None, StoredMembership::default()));
    }
    let message = wire::AppliedState::decode(bytes)?;
    let membership = stored_membership_from_wire(message.membership.unwrap_or_default())?;
    Ok((message.log_id.as_ref().map(log_id_from_wire), membership))
}

/// A request of openraft's that replicates entries, as a message.
pub(crate) fn append_to_wire(
    cluster_id: u64,
    request: openraft::raft::AppendEntriesRequest<TypeConfig>,
) -> wire::AppendRequest {
    let message = wire::AppendRequest {
        cluster_id,
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        crc32: None,
    };
    wire::AppendRequest { crc32: Some(checksum::of_request(&message)), ..message }
}

/// Refuses what changed on the way, and entries with a gap: openraft takes the first one for the one that is due, and
/// ends when the log has no place for it. A leader sends such a request when its log was purged just before it read
/// what the follower lacks. Where the sender said that it adds checksums, one that is missing was lost on the way.
pub(crate) fn append_from_wire(
    request: wire::AppendRequest,
    has_checksum: bool,
) -> Result<openraft::raft::AppendEntriesRequest<TypeConfig>, CodecError> {
    if has_checksum && request.crc32 != Some(checksum::of_request(&request)) {
        return Err(CodecError::Checksum);
    }
    let prev_log_id = request.prev_log_id.as_ref().map(log_id_from_wire);
    let entries: Vec<Entry> = request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?;
    let first = prev_log_id.map_or(0, |prev| prev.index + 1);
    for (expected, found) in (first..).zip(entries.iter().map(|entry| entry.log_id.index)) {
        if found != expected {
            return Err(CodecError::Gap { expected, found });
        }
    }
    Ok(openraft::raft::AppendEntriesRequest {
        vote: vote_from_wire(&request.vote.ok_or(CodecError::Missing("vote"))?),
        prev_log_id,
        entries,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_wire),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let nodes = BTreeMap::from([
            (1, PeerNode { name: "a".into(), peer_urls: vec!["http://127.0.0.1:2380".into()], learner: true }),
            (2, PeerNode::default()),
            (3, PeerNode::default()),
        ]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([1])], nodes).unwrap()
    }

    #[test]
    fn every_payload_survives_the_log() {
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EncodedCommand(Bytes::from_static(b"\x01abc"))),
            EntryPayload::Membership(membership()),
        ] {
            let entry = Entry { log_id: log_id(7, 9), payload };
            let back = entry_from_bytes(entry.log_id, payload_to_bytes(&entry)).unwrap();
            assert_eq!(back, entry);
            assert_eq!(entry_from_wire(entry_to_wire(&entry)).unwrap(), entry);
        }
    }

    /// Logs of members are compared byte by byte, and a map without an order would have another one each time.
    #[test]
    fn a_membership_has_one_encoding_with_the_members_in_order() {
        const MEMBERS: u64 = 20;
        let encoded = |ids: &mut dyn Iterator<Item = u64>| {
            let node = |id| PeerNode { name: format!("<{id}>"), ..PeerNode::default() };
            let nodes: BTreeMap<u64, PeerNode> = ids.map(|id| (id, node(id))).collect();
            let membership = Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap();
            payload_to_bytes(&Entry { log_id: log_id(1, 1), payload: EntryPayload::Membership(membership) })
        };
        let bytes = encoded(&mut (1..=MEMBERS));
        assert_eq!(encoded(&mut (1..=MEMBERS).rev()), bytes);
        let text = String::from_utf8_lossy(&bytes);
        let places: Vec<usize> = (1..=MEMBERS).map(|id| text.find(&format!("<{id}>")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
    }

    #[test]
    fn votes_and_positions_survive() {
        let vote = vote_from_wire(&wire::Vote { term: 3, node_id: 4, committed: true });
        assert_eq!(vote_from_wire(&vote_to_wire(&vote)), vote);
        let stored = StoredMembership::new(Some(log_id(2, 5)), membership());
        let (applied, back) = applied_from_bytes(applied_to_bytes(Some(&log_id(2, 8)), &stored)).unwrap();
        assert_eq!((applied, back), (Some(log_id(2, 8)), stored));
        assert_eq!(applied_from_bytes(Bytes::new()).unwrap(), (None, StoredMembership::default()));
        let nothing = applied_from_bytes(applied_to_bytes(None, &StoredMembership::default())).unwrap();
        assert_eq!(nothing, (None, StoredMembership::default()));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert!(entry_from_bytes(log_id(1, 1), Bytes::from_static(b"\xff\xff\xff")).is_err());
        assert!(append_from_wire(wire::AppendRequest::default(), false).is_err());
    }

    /// Whichever bit of a message turns over: it cannot be read, is refused, or says the same.
    #[test]
    fn no_bit_that_turns_over_changes_what_is_appended() {
        let entry = |index, payload| Entry { log_id: log_id(2, index), payload };
        let request = || openraft::raft::AppendEntriesRequest::<TypeConfig> {
            vote: vote_from_wire(&wire::Vote { term: 2, node_id: 1, committed: true }),
            prev_log_id: Some(log_id(1, 6)),
            entries: vec![
                entry(7, EntryPayload::Normal(EncodedCommand(Bytes::from_static(b"\x01 a command of this length ")))),
                entry(8, EntryPayload::Membership(membership())),
                entry(9, EntryPayload::Blank),
            ],
            leader_commit: Some(log_id(1, 5)),
        };
        let said = |message, has_checksum| {
            let it = append_from_wire(message, has_checksum)?;
            Ok::<_, CodecError>((it.vote, it.prev_log_id, it.entries, it.leader_commit))
        };
        let whole = append_to_wire(3, request());
        let sent = said(whole.clone(), true).unwrap();
        assert_eq!(sent, (request().vote, request().prev_log_id, request().entries, request().leader_commit));
        assert_eq!(
            said(wire::AppendRequest { crc32: None, ..whole.clone() }, false).unwrap(),
            sent,
            "of an earlier release"
        );
        let bytes = whole.encode_to_vec();
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let Ok(message) = wire::AppendRequest::decode(&bytes[..]) else { continue };
            match said(message, true) {
                Ok(said) => assert_eq!(said, sent, "bit {bit}"),
                Err(CodecError::Checksum) => refused += 1,
                Err(error) => panic!("bit {bit}: {error}"),
            }
        }
        assert!(refused > 300, "{refused}");
    }

    #[test]
    fn a_part_of_the_members_that_is_not_known_is_refused() {
        let entry = Entry { log_id: log_id(1, 1), payload: EntryPayload::Membership(membership()) };
        let known = payload_to_bytes(&entry);
        assert!(entry_from_bytes(entry.log_id, known.clone()).is_ok());
        let newer: Bytes = [&known[..], b"\xa8\x06\x01"].concat().into();
        assert!(matches!(entry_from_bytes(entry.log_id, newer), Err(CodecError::Unknown)));
    }

    #[test]
    fn entries_with_a_gap_are_refused() {
        let request = |prev: Option<u64>, entries: &[u64]| {
            let log_id = |index| wire::LogId { term: 2, index };
            let entry = |index: &u64| wire::Entry { log_id: Some(log_id(*index)), ..wire::Entry::default() };
            let vote = Some(wire::Vote { term: 2, node_id: 1, committed: true });
            let entries = entries.iter().map(entry).collect();
            let prev_log_id = prev.map(log_id);
            append_from_wire(
                wire::AppendRequest { vote, prev_log_id, entries, ..wire::AppendRequest::default() },
                false,
            )
        };
        for (prev, entries) in [(None, vec![0, 1]), (Some(28), vec![29, 30]), (Some(28), vec![])] {
            assert!(request(prev, &entries).is_ok(), "{prev:?} {entries:?}");
        }
        for (prev, entries) in [(None, vec![1]), (Some(28), vec![39, 40]), (Some(28), vec![29, 31])] {
            assert!(matches!(request(prev, &entries), Err(CodecError::Gap { .. })), "{prev:?} {entries:?}");
        }
    }
}
