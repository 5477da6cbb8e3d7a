//! etcd's buckets, and what a record of ours is called and looks like in them (pure).
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `key` | revision, with `t` for a tombstone | `mvccpb.KeyValue` |
//! | `lease` | lease id, 8 bytes | `leasepb.Lease` |
//! | `alarm` | `etcdserverpb.AlarmMember` | nothing |
//! | `auth` | `authRevision`, `authEnabled` | 8 bytes; a byte, absent before the first enable |
//! | `authUsers`, `authRoles` | name | `authpb.User`, `authpb.Role` |
//! | `members` | member id, hexadecimal | JSON |
//! | `members_removed` | member id, hexadecimal | `removed` |
//! | `cluster` | `clusterVersion`, `downgrade` | text, JSON |
//! | `meta` | see [`Meta`] | |

use mainstay_proto::etcdserverpb::DowngradeInfo;
use mainstay_proto::leasepb::Lease;
use mainstay_proto::mainstay::{AppliedState, MemberAttributes, Membership};
use prost::Message;
use serde::Serialize;

use crate::config::version::STORAGE_VERSION;
use crate::lease::LeaseRecord;
use crate::mvcc::{Revision, revision_bytes};

/// The buckets in the order in which they stand in a file.
pub(super) const BUCKETS: [&str; 10] =
    [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META];

pub(super) const ALARM: &str = "alarm";
pub(super) const AUTH: &str = "auth";
pub(super) const AUTH_ROLES: &str = "authRoles";
pub(super) const AUTH_USERS: &str = "authUsers";
pub(super) const CLUSTER: &str = "cluster";
pub(super) const KEY: &str = "key";
pub(super) const LEASE: &str = "lease";
pub(super) const MEMBERS: &str = "members";
pub(super) const MEMBERS_REMOVED: &str = "members_removed";
pub(super) const META: &str = "meta";

/// A small bucket, whole.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The pair of a lease.
pub(super) fn lease(record: &LeaseRecord) -> ([u8; 8], Vec<u8>) {
    let lease = Lease { id: record.id, ttl: record.ttl, remaining_ttl: record.remaining };
    (record.id.to_be_bytes(), lease.encode_to_vec())
}

/// The bucket `auth`. Where nothing was ever said of users the revision is 1, and of whether permissions are
/// checked there is no record.
pub(super) fn auth(enabled: Option<&[u8]>, revision: Option<&[u8]>) -> Pairs {
    let first = 1u64.to_be_bytes();
    let enabled = enabled.map(|enabled| (b"authEnabled".to_vec(), enabled.to_vec()));
    let revision = (b"authRevision".to_vec(), revision.unwrap_or(&first).to_vec());
    enabled.into_iter().chain([revision]).collect()
}

/// A downgrade as etcd writes it.
#[derive(Serialize)]
struct Downgrade<'a> {
    #[serde(rename = "target-version")]
    target_version: &'a str,
    enabled: bool,
}

/// The bucket `cluster`: the version that the members have agreed on, and the downgrade that was begun or ended
/// last, where there was one.
pub(super) fn cluster(version: &str, downgrade: Option<&DowngradeInfo>) -> Result<Pairs, serde_json::Error> {
    let mut pairs = vec![(b"clusterVersion".to_vec(), version.as_bytes().to_vec())];
    if let Some(info) = downgrade {
        let told = Downgrade { target_version: &info.target_version, enabled: info.enabled };
        pairs.push((b"downgrade".to_vec(), serde_json::to_vec(&told)?));
    }
    Ok(pairs)
}

/// A member as etcd writes it, its fields in etcd's order.
#[derive(Serialize)]
struct Member<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

/// The bucket `members`: who takes part, and what each published of itself.
pub(super) fn members(membership: &Membership, published: &[MemberAttributes]) -> Result<Pairs, serde_json::Error> {
    let mut pairs = Pairs::new();
    for (id, node) in &membership.nodes {
        let told = published.iter().find(|told| told.id == *id);
        let member = Member {
            id: *id,
            peer_urls: &node.peer_urls,
            is_learner: node.learner,
            name: told.map_or("", |told| &told.name),
            client_urls: told.map_or(&[], |told| &told.client_urls),
        };
        pairs.push((format!("{id:x}").into_bytes(), serde_json::to_vec(&member)?));
    }
    pairs.sort(); // as texts: a shorter one is not always the smaller number
    Ok(pairs)
}

fn is_voter(membership: &Membership, id: u64) -> bool {
    membership.configs.iter().any(|config| config.voters.contains(&id))
}

/// Who votes, as raft writes it.
#[derive(Serialize)]
struct ConfState {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    auto_leave: bool,
}

impl ConfState {
    fn of(membership: &Membership) -> Self {
        let voters = |config: Option<&mainstay_proto::mainstay::membership::Config>| {
            config.map_or_else(Vec::new, |config| config.voters.clone())
        };
        let outgoing = if membership.configs.len() > 1 { membership.configs.first() } else { None };
        Self {
            voters: voters(membership.configs.last()),
            learners: membership.nodes.keys().copied().filter(|id| !is_voter(membership, *id)).collect(),
            voters_outgoing: voters(outgoing),
            auto_leave: false,
        }
    }
}

/// What the bucket `meta` is made of.
#[derive(Debug, Default)]
pub(super) struct Meta {
    /// The last entry in the state, and who the members are.
    pub(super) applied: AppliedState,
    /// The last compaction, where there was one.
    pub(super) compacted: Option<i64>,
    /// Up to where compacted revisions are removed, where any were.
    pub(super) removed: Option<i64>,
}

impl Meta {
    /// The bucket.
    pub(super) fn pairs(&self) -> Result<Pairs, serde_json::Error> {
        let mut pairs = Pairs::new();
        let mut put = |key: &str, value: &[u8]| pairs.push((key.as_bytes().to_vec(), value.to_vec()));
        if let Some(membership) = self.applied.membership.as_ref().and_then(|stored| stored.membership.as_ref()) {
            put("confState", &serde_json::to_vec(&ConfState::of(membership))?);
        }
        let applied = self.applied.log_id.unwrap_or_default();
        put("consistent_index", &applied.index.to_be_bytes());
        // etcd takes up on its own what lies between the two.
        let compaction = |main| revision_bytes(Revision { main, sub: 0 });
        if let Some(removed) = self.removed {
            put("finishedCompactRev", &compaction(removed));
        }
        if let Some(compacted) = self.compacted {
            put("scheduledCompactRev", &compaction(compacted));
        }
        put("storageVersion", STORAGE_VERSION.as_bytes());
        put("term", &applied.term.to_be_bytes());
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mainstay_proto::mainstay::membership::Config;
    use mainstay_proto::mainstay::{LogId, Node, StoredMembership};

    use super::*;

    fn text(pairs: Pairs) -> Vec<(String, String)> {
        let text = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
        pairs.into_iter().map(|(key, value)| (text(key), text(value))).collect()
    }

    fn membership(configs: &[&[u64]], ids: &[u64]) -> Membership {
        let node = |id: &u64| Node {
            name: "ignored".into(),
            peer_urls: vec![format!("http://{id}:2380")],
            learner: !configs.iter().any(|voters| voters.contains(id)),
        };
        Membership {
            configs: configs.iter().map(|voters| Config { voters: voters.to_vec() }).collect(),
            nodes: ids.iter().map(|id| (*id, node(id))).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn buckets_are_in_order() {
        assert!(BUCKETS.is_sorted());
    }

    #[test]
    fn a_lease_is_as_etcd_writes_it() {
        let (key, value) = lease(&LeaseRecord { id: 0x4fb8_a1fe_b0b1_2106, ttl: 100, remaining: 0 });
        assert_eq!(key, [0x4f, 0xb8, 0xa1, 0xfe, 0xb0, 0xb1, 0x21, 0x06]);
        assert_eq!(value, b"\x08\x86\xc2\xc4\x85\xeb\xbf\xa8\xdc\x4f\x10\x64");
        let (key, value) = lease(&LeaseRecord { id: -1, ttl: 2, remaining: 1 });
        assert_eq!(key, [0xff; 8]);
        assert_eq!(value, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x02\x18\x01");
    }

    #[test]
    fn members_are_as_etcd_writes_them() {
        let published =
            MemberAttributes { id: 16, name: "a".into(), client_urls: vec!["http://16:2379".into()], removed: false };
        let found = text(members(&membership(&[&[16]], &[9, 16]), &[published]).unwrap());
        let expected = [
            (
                "10",
                r#"{\"id\":16,\"peerURLs\":[\"http://16:2380\"],\"name\":\"a\",\"clientURLs\":[\"http://16:2379\"]}"#,
            ),
            ("9", r#"{\"id\":9,\"peerURLs\":[\"http://9:2380\"],\"isLearner\":true}"#),
        ];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_cluster_is_as_etcd_writes_it() {
        assert_eq!(text(cluster("3.7.0", None).unwrap()), [("clusterVersion".to_owned(), "3.7.0".to_owned())]);
        let info = DowngradeInfo { enabled: true, target_version: "3.6.0".into() };
        let (key, value) = text(cluster("3.7.0", Some(&info)).unwrap()).remove(1);
        assert_eq!((key.as_str(), value.as_str()), ("downgrade", r#"{\"target-version\":\"3.6.0\",\"enabled\":true}"#));
    }

    #[test]
    fn meta_is_as_etcd_writes_it() {
        let applied = AppliedState {
            log_id: Some(LogId { term: 2, index: 11 }),
            membership: Some(StoredMembership { log_id: None, membership: Some(membership(&[&[7]], &[7, 8])) }),
        };
        let meta = Meta { applied, compacted: Some(5), removed: Some(3) };
        let expected = [
            ("confState", r#"{\"voters\":[7],\"learners\":[8],\"auto_leave\":false}"#),
            ("consistent_index", r"\x00\x00\x00\x00\x00\x00\x00\x0b"),
            ("finishedCompactRev", r"\x00\x00\x00\x00\x00\x00\x00\x03_\x00\x00\x00\x00\x00\x00\x00\x00"),
            ("scheduledCompactRev", r"\x00\x00\x00\x00\x00\x00\x00\x05_\x00\x00\x00\x00\x00\x00\x00\x00"),
            ("storageVersion", "3.7.0"),
            ("term", r"\x00\x00\x00\x00\x00\x00\x00\x02"),
        ];
        assert_eq!(text(meta.pairs().unwrap()), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(Meta::default().pairs().unwrap().len(), 3, "nothing of members and compactions");
    }

    #[test]
    fn a_change_of_voters_under_way_names_both() {
        let state = ConfState::of(&membership(&[&[1, 2], &[1, 2, 3]], &[1, 2, 3]));
        assert_eq!((state.voters, state.voters_outgoing, state.learners), (vec![1, 2, 3], vec![1, 2], vec![]));
    }
}
