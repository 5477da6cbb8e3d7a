//! Checksums of what members send each other when they replicate (pure).
//!
//! TCP's own has 16 bits, and covers neither what happens before it is made nor after it was checked. A leader that is
//! told wrongly what a member holds, or a member that appends something else than it was sent, breaks what consensus
//! promises, and the log's own checksums would be right. The same goes for what is said of a snapshot, whose content has
//! its own in each part. So the values are covered, in the order in which they are
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
        sum.bytes(&entry.payload);
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

/// Of the head of a snapshot.
pub(super) fn of_head(head: &wire::SnapshotHead) -> u32 {
    let mut sum = Checksum::default();
    sum.number(head.cluster_id);
    sum.vote(head.vote.as_ref());
    sum.log_id(head.last_log_id.as_ref());
    sum.membership(head.membership.as_ref());
    sum.files(&head.files);
    sum.number(u64::from(head.format));
    sum.0.finalize()
}

/// Of the question which files of a snapshot a member has.
pub(super) fn of_kept_request(request: &wire::SnapshotKeptRequest) -> u32 {
    let mut sum = Checksum::default();
    sum.number(request.cluster_id);
    sum.vote(request.vote.as_ref());
    sum.0.finalize()
}

/// Of the answer to that question.
pub(super) fn of_kept_response(response: &wire::SnapshotKeptResponse) -> u32 {
    let mut sum = Checksum::default();
    sum.files(&response.files);
    sum.0.finalize()
}

/// Of the answer to a snapshot.
pub(super) fn of_snapshot_response(response: &wire::SnapshotResponse) -> u32 {
    let mut sum = Checksum::default();
    sum.vote(response.vote.as_ref());
    sum.0.finalize()
}

/// Of a command that is passed on to the leader.
pub(super) fn of_command(command: &[u8]) -> u32 {
    crc32fast::hash(command)
}

/// Of commands that are passed on together.
pub(super) fn of_batch(batch: &wire::ForwardBatch) -> u32 {
    let mut sum = Checksum::default();
    sum.number(batch.cluster_id);
    sum.number(batch.member_id);
    sum.number(batch.batch);
    sum.number(batch.proposals.len() as u64);
    for proposal in &batch.proposals {
        sum.number(proposal.number);
        sum.bytes(&proposal.command);
    }
    sum.0.finalize()
}

/// Of the answers to such commands.
pub(super) fn of_answers(answers: &wire::ForwardAnswers) -> u32 {
    let mut sum = Checksum::default();
    sum.number(answers.answers.len() as u64);
    for answer in &answers.answers {
        sum.number(answer.number);
        sum.number(answer.index);
        sum.bytes(&answer.outcome);
        sum.number(u64::from(answer.code));
        sum.bytes(answer.error.as_bytes());
    }
    sum.number(answers.refused_from);
    sum.0.finalize()
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

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn membership(&mut self, stored: Option<&wire::StoredMembership>) {
        self.number(u64::from(stored.is_some()));
        let Some(stored) = stored else { return };
        self.log_id(stored.log_id.as_ref());
        self.number(u64::from(stored.membership.is_some()));
        let Some(membership) = &stored.membership else { return };
        self.number(membership.configs.len() as u64);
        for config in &membership.configs {
            self.number(config.voters.len() as u64);
            config.voters.iter().for_each(|voter| self.number(*voter));
        }
        self.number(membership.nodes.len() as u64);
        for (id, node) in &membership.nodes {
            self.number(*id);
            self.text(&node.name);
            self.number(node.peer_urls.len() as u64);
            node.peer_urls.iter().for_each(|url| self.text(url));
            self.number(u64::from(node.learner));
        }
    }

    fn files(&mut self, files: &[wire::SnapshotFile]) {
        self.number(files.len() as u64);
        for file in files {
            self.text(&file.name);
            self.number(file.size);
            self.number(u64::from(file.kept.is_some()));
            self.number(file.kept.unwrap_or_default());
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

    fn batch() -> wire::ForwardBatch {
        let proposal =
            |number, command: &'static [u8]| wire::forward_batch::Proposal { number, command: command.into() };
        let proposals = vec![proposal(7, b"\x01abc"), proposal(8, b"")];
        wire::ForwardBatch { cluster_id: 1, member_id: 2, batch: 3, proposals, crc32: 0 }
    }

    fn answers() -> wire::ForwardAnswers {
        let done = wire::forward_answers::Answer { number: 7, index: 6, outcome: "xy".into(), ..Default::default() };
        let failed = wire::forward_answers::Answer { number: 8, code: 9, error: "z".to_owned(), ..Default::default() };
        wire::ForwardAnswers { answers: vec![done, failed], refused_from: 4, crc32: 0 }
    }

    #[test]
    fn those_of_what_is_passed_on_together_are_fixed() {
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>();
        let bytes = [numbers(&[1, 2, 3, 2, 7, 4]), b"\x01abc".to_vec(), numbers(&[8, 0])].concat();
        assert_eq!(of_batch(&batch()), crc32fast::hash(&bytes));
        let parts = [
            numbers(&[2, 7, 6, 2]),
            b"xy".to_vec(),
            numbers(&[0, 0]),
            numbers(&[8, 0, 0, 9, 1]),
            b"z".to_vec(),
            numbers(&[4]),
        ];
        assert_eq!(of_answers(&answers()), crc32fast::hash(&parts.concat()));
    }

    /// A number that changed would be the answer to another command.
    #[test]
    fn those_of_what_is_passed_on_together_tell_apart_what_differs() {
        let changes: [fn(&mut wire::ForwardBatch); 7] = [
            |it| it.cluster_id = 2,
            |it| it.member_id = 3,
            |it| it.batch = 4,
            |it| it.proposals[0].number = 9,
            |it| it.proposals[0].command = "\x01abd".into(),
            |it| it.proposals.swap(0, 1),
            |it| drop(it.proposals.pop()),
        ];
        for change in changes {
            let mut other = batch();
            change(&mut other);
            assert_ne!(of_batch(&other), of_batch(&batch()), "{other:?}");
        }
        let changes: [fn(&mut wire::ForwardAnswers); 7] = [
            |it| it.refused_from = 0,
            |it| it.answers[0].number = 9,
            |it| it.answers[0].index = 5,
            |it| it.answers[0].outcome = "xz".into(),
            |it| it.answers[1].code = 8,
            |it| it.answers[1].error.clear(),
            |it| drop(it.answers.pop()),
        ];
        for change in changes {
            let mut other = answers();
            change(&mut other);
            assert_ne!(of_answers(&other), of_answers(&answers()), "{other:?}");
        }
    }

    fn head() -> wire::SnapshotHead {
        let node = |name: &str| wire::Node { name: name.to_owned(), peer_urls: vec!["u".to_owned()], learner: false };
        let membership = wire::Membership {
            configs: vec![wire::membership::Config { voters: vec![1, 2] }],
            nodes: [(1, node("a")), (2, node("b"))].into(),
        };
        let log_id = Some(wire::LogId { term: 2, index: 6 });
        let file = |name: &str, kept| wire::SnapshotFile { name: name.to_owned(), size: 5, kept };
        wire::SnapshotHead {
            cluster_id: 1,
            vote: Some(wire::Vote { term: 2, node_id: 3, committed: true }),
            last_log_id: log_id,
            membership: Some(wire::StoredMembership { log_id, membership: Some(membership) }),
            files: vec![file("f", None), file("g", Some(9))],
            format: 1,
            crc32: None,
        }
    }

    #[test]
    fn those_of_snapshots_are_fixed() {
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|it| it.to_le_bytes()).collect::<Vec<u8>>();
        let text = |text: &str| [numbers(&[text.len() as u64]), text.as_bytes().to_vec()].concat();
        let vote = numbers(&[1, 2, 3, 1]);
        let node = |id, name: &str| [numbers(&[id]), text(name), numbers(&[1]), text("u"), numbers(&[0])].concat();
        let files = [numbers(&[2]), text("f"), numbers(&[5, 0, 0]), text("g"), numbers(&[5, 1, 9])].concat();
        let bytes = [
            numbers(&[1]),
            vote.clone(),
            numbers(&[1, 2, 6]),
            // The members, and where they stand in the log: one configuration of two voters, two nodes.
            numbers(&[1, 1, 2, 6, 1, 1, 2, 1, 2, 2]),
            node(1, "a"),
            node(2, "b"),
            files.clone(),
            numbers(&[1]),
        ];
        assert_eq!(of_head(&head()), crc32fast::hash(&bytes.concat()));
        let question = wire::SnapshotKeptRequest { cluster_id: 1, vote: head().vote, crc32: None };
        assert_eq!(of_kept_request(&question), crc32fast::hash(&[numbers(&[1]), vote.clone()].concat()));
        let answer = wire::SnapshotKeptResponse { files: head().files, crc32: None };
        assert_eq!(of_kept_response(&answer), crc32fast::hash(&files));
        let response = wire::SnapshotResponse { vote: head().vote, crc32: None };
        assert_eq!(of_snapshot_response(&response), crc32fast::hash(&vote));
    }

    #[test]
    fn those_of_heads_tell_apart_what_differs() {
        let changes: [fn(&mut wire::SnapshotHead); 8] = [
            |it| it.vote = None,
            |it| it.last_log_id = None,
            |it| it.membership = None,
            |it| it.format = 2,
            |it| it.files[1].kept = Some(8),
            |it| it.files[0].kept = Some(0),
            |it| it.files.swap(0, 1),
            |it| drop(it.membership.as_mut().and_then(|stored| stored.membership.as_mut()?.nodes.remove(&2))),
        ];
        for change in changes {
            let mut other = head();
            change(&mut other);
            assert_ne!(of_head(&other), of_head(&head()), "{other:?}");
        }
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
