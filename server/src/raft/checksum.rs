//! Checksums of what members send each other when they replicate (pure).
//!
//! TCP's own has 16 bits, and covers neither what happens before it is made nor after it was checked. A leader that is
//! told wrongly what a member holds, or a member that appends something else than it was sent, breaks what consensus
//! promises, and the log's own checksums would be right. So the values are covered, in the order in which they are
//! declared, and not their encoding: what a later release adds is not known here, and does not count.

use crc32fast::Hasher;
use mainstay_proto::mainstay as wire;

/// What a sender of entries says, in the metadata of a stream, where each of its requests has a checksum: a bit that turns
/// over could make one unreadable otherwise, and the request would pass for that of an earlier release.
pub(super) const SENT: &str = "mainstay-checksums";

/// Of a request that replicates entries.
pub(super) fn of_request(request: &wire::AppendRequest) -> u32 {
    let mut sum = Checksum::default();
    sum.number(request.cluster_id);
    sum.vote(request.vote.as_ref());
    sum.log_id(request.prev_log_id.as_ref());
    sum.number(request.entries.len() as u64);
    for entry in &request.entries {
        sum.log_id(entry.log_id.as_ref());
        sum.number(entry.payload.len() as u64);
        sum.0.update(&entry.payload);
    }
    sum.log_id(request.leader_commit.as_ref());
    sum.0.finalize()
}

/// Of the answer to such a request.
pub(super) fn of_response(response: &wire::AppendResponse) -> u32 {
    let mut sum = Checksum::default();
    sum.number(u64::from(response.result.cast_unsigned()));
    sum.log_id(response.log_id.as_ref());
    sum.vote(response.vote.as_ref());
    sum.0.finalize()
}

/// Of a command that is passed on to the leader.
pub(super) fn of_command(command: &[u8]) -> u32 {
    crc32fast::hash(command)
}

#[derive(Default)]
struct Checksum(Hasher);

impl Checksum {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn log_id(&mut self, log_id: Option<&wire::LogId>) {
        self.number(u64::from(log_id.is_some()));
        if let Some(log_id) = log_id {
            self.number(log_id.term);
            self.number(log_id.index);
        }
    }

    fn vote(&mut self, vote: Option<&wire::Vote>) {
        self.number(u64::from(vote.is_some()));
        if let Some(vote) = vote {
            self.number(vote.term);
            self.number(vote.node_id);
            self.number(u64::from(vote.committed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> wire::AppendRequest {
        let log_id = |index| Some(wire::LogId { term: 2, index });
        let entry = |index, payload: &'static [u8]| wire::Entry { log_id: log_id(index), payload: payload.into() };
        wire::AppendRequest {
            cluster_id: 1,
            vote: Some(wire::Vote { term: 2, node_id: 3, committed: true }),
            prev_log_id: log_id(6),
            entries: vec![entry(7, b"\x01abc"), entry(8, b"")],
            leader_commit: log_id(5),
            crc32: None,
        }
    }

    /// Members of several releases make them, so they never change.
    #[test]
    fn they_are_fixed() {
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>();
        // The cluster, the vote, the entry before, how many follow; the first one and its length.
        let mut bytes = numbers(&[1, 1, 2, 3, 1, 1, 2, 6, 2, 1, 2, 7, 4]);
        bytes.extend_from_slice(b"\x01abc");
        // The second one, which is empty, and what is committed.
        bytes.extend(numbers(&[1, 2, 8, 0, 1, 2, 5]));
        assert_eq!(of_request(&request()), crc32fast::hash(&bytes));
        let response = wire::AppendResponse { result: 1, log_id: request().prev_log_id, vote: None, crc32: None };
        assert_eq!(of_response(&response), crc32fast::hash(&numbers(&[1, 1, 2, 6, 0])));
        assert_eq!(of_command(b"123456789"), 0xcbf4_3926, "the CRC-32 that is meant");
    }

    #[test]
    fn they_tell_apart_what_differs() {
        let whole = request();
        let mut others = vec![wire::AppendRequest::default()];
        let mut change = |change: fn(&mut wire::AppendRequest)| {
            let mut other = whole.clone();
            change(&mut other);
            others.push(other);
        };
        change(|it| it.cluster_id = 2);
        change(|it| it.vote = None);
        change(|it| it.prev_log_id = None);
        change(|it| it.leader_commit = Some(wire::LogId { term: 2, index: 6 }));
        change(|it| drop(it.entries.pop()));
        change(|it| it.entries[0].payload = "\x01abd".into());
        // What is taken from one entry and given to the next.
        change(|it| {
            it.entries[0].payload = "\x01ab".into();
            it.entries[1].payload = "c".into();
        });
        for other in others {
            assert_ne!(of_request(&other), of_request(&whole), "{other:?}");
        }
    }
}
