//! etcd's ids of members and clusters (pure): every member computes the same from the same flags.

use sha1::{Digest, Sha1};

/// The id of a member that bootstraps a cluster: from its peer URLs, in any order, and the cluster's token.
pub fn member_id(peer_urls: &[impl AsRef<str>], token: &str) -> u64 {
    first_eight_bytes(urls_hash(peer_urls).chain_update(token))
}

/// The id of a member that joins a running cluster: from its peer URLs and the time in Unix seconds,
/// so that a member that was removed and added again gets another id. The token has no part in it.
pub fn member_id_at(peer_urls: &[impl AsRef<str>], unix_seconds: u64) -> u64 {
    first_eight_bytes(urls_hash(peer_urls).chain_update(unix_seconds.to_string()))
}

/// The id of a cluster: from the ids of the members that bootstrap it, in any order.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    first_eight_bytes(ids.iter().fold(Sha1::new(), |hash, id| hash.chain_update(id.to_be_bytes())))
}

fn urls_hash(peer_urls: &[impl AsRef<str>]) -> Sha1 {
    let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    urls.sort_unstable();
    urls.iter().fold(Sha1::new(), |hash, url| hash.chain_update(url))
}

/// Zero means "none" to clients and peers, so no id is ever zero.
fn first_eight_bytes(hash: Sha1) -> u64 {
    let digest: [u8; 20] = hash.finalize().into();
    let (first, _) = digest.split_first_chunk().expect("a digest has 20 bytes");
    u64::from_be_bytes(*first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_member_has_etcds_well_known_ids() {
        // What a bare `etcd` reports on every machine.
        let member = member_id(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn three_local_members_have_etcds_well_known_ids() {
        // etcd's Procfile cluster: these ids are all over its documentation.
        let members = [12380, 22380, 32380].map(|port| {
            let url = format!("http://127.0.0.1:{port}");
            member_id(&[url], "etcd-cluster-1")
        });
        assert_eq!(members, [0x8211_f1d0_f64f_3269, 0x91bc_3c39_8fb3_c146, 0xfd42_2379_fda5_0e48]);
        assert_eq!(cluster_id(&members), 0xef37_ad9d_c622_a7c4);
    }

    #[test]
    fn order_does_not_matter_and_the_token_does() {
        assert_eq!(member_id(&["b", "a"], "t"), member_id(&["a", "b"], "t"));
        assert_eq!(cluster_id(&[3, 1, 2]), cluster_id(&[1, 2, 3]));
        assert_ne!(member_id(&["a"], "t"), member_id(&["a"], "u"));
    }

    #[test]
    fn a_joining_members_id_follows_the_time() {
        // printf 'http://localhost:12381700000000' | sha1sum
        assert_eq!(member_id_at(&["http://localhost:1238"], 1_700_000_000), 0x694b_1c4f_3b05_ec9c);
        assert_ne!(member_id_at(&["a"], 1), member_id_at(&["a"], 2));
    }
}
