//! Who differs, from what the members say of themselves (pure).

use std::collections::BTreeMap;

use mainstay_proto::mainstay::DigestsResponse;

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The last entry at which every member that counts was heard, and all said the same.
    pub(super) agreed: Option<u64>,
    /// Who has something else than the others, and where.
    pub(super) corrupt: BTreeMap<u64, String>,
    /// They differ, and who was not heard decides which of them are right.
    pub(super) is_open: bool,
}

/// Compares what was told, by member, with what `own` has; so many count. Whoever makes digests in another way than
/// `own` has no say in digests, and likewise in hashes.
pub(super) fn judge(own: u64, members: usize, told: &BTreeMap<u64, DigestsResponse>) -> Verdict {
    let mut verdict = Verdict::default();
    let (counted, alike) = comparable(own, members, told, |it| it.digest_version);
    let marks = alike.iter().flat_map(|(id, it)| it.marks.iter().map(|mark| (mark.index, *id, mark.digest)));
    for (index, by_member) in grouped(marks) {
        match odd(counted, &by_member) {
            Odd::Open => verdict.is_open = true,
            Odd::Members(ids) if ids.is_empty() && by_member.len() == counted => verdict.agreed = Some(index),
            Odd::Members(ids) => verdict.names(ids, || format!("digest of the state at entry {index}")),
        }
    }
    // Hashes are comparable where the history before was the same.
    let (counted, alike) = comparable(own, members, told, |it| it.hash_version);
    let hashes =
        alike.iter().flat_map(|(id, it)| it.hashes.iter().map(|it| ((it.revision, it.compacted), *id, it.hash)));
    for ((revision, _), by_member) in grouped(hashes) {
        match odd(counted, &by_member) {
            Odd::Open => verdict.is_open = true,
            Odd::Members(ids) => verdict.names(ids, || format!("hash of the history compacted at {revision}")),
        }
    }
    verdict
}

/// Those who make something in the way of `own`, and how many count then.
fn comparable(
    own: u64,
    members: usize,
    told: &BTreeMap<u64, DigestsResponse>,
    version: impl Fn(&DigestsResponse) -> u32,
) -> (usize, Vec<(u64, &DigestsResponse)>) {
    let way = told.get(&own).map(&version);
    let alike: Vec<_> = told.iter().filter(|&(_, it)| Some(version(it)) == way).map(|(id, it)| (*id, it)).collect();
    (members - (told.len() - alike.len()), alike)
}

impl Verdict {
    fn names(&mut self, ids: Vec<u64>, what: impl Fn() -> String) {
        for id in ids {
            self.corrupt.entry(id).or_insert_with(&what);
        }
    }
}

/// By place, what each member has there.
fn grouped<P: Ord, V>(said: impl Iterator<Item = (P, u64, V)>) -> BTreeMap<P, BTreeMap<u64, V>> {
    let mut places = BTreeMap::<P, BTreeMap<u64, V>>::new();
    for (place, id, value) in said {
        places.entry(place).or_default().insert(id, value);
    }
    places
}

/// Who has something else than the others at one place.
enum Odd {
    /// Those who are not with a majority of all; where nothing can have one, everybody.
    Members(Vec<u64>),
    /// Who was not heard may make a majority with some of those who were.
    Open,
}

fn odd<V: Ord>(members: usize, by_member: &BTreeMap<u64, V>) -> Odd {
    let mut counts = BTreeMap::<&V, usize>::new();
    for value in by_member.values() {
        *counts.entry(value).or_default() += 1;
    }
    if counts.len() < 2 {
        return Odd::Members(Vec::new());
    }
    let is_majority = |count: usize| count > members / 2;
    let most = counts.values().copied().max().unwrap_or_default();
    if !is_majority(most) && is_majority(most + members - by_member.len()) {
        return Odd::Open;
    }
    let is_odd = |value: &V| !is_majority(counts[value]);
    Odd::Members(by_member.iter().filter(|(_, value)| is_odd(value)).map(|(id, _)| *id).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use mainstay_proto::mainstay::{CompactionHash, StateMark};

    use super::*;

    /// What was heard of members, with what each has at which entry.
    pub(in crate::leader::consistency) fn told(of: &[(u64, &[(u64, u64)])]) -> BTreeMap<u64, DigestsResponse> {
        let response = |marks: &[(u64, u64)]| DigestsResponse {
            marks: marks.iter().map(|(index, digest)| StateMark { index: *index, digest: *digest }).collect(),
            ..DigestsResponse::default()
        };
        of.iter().map(|(id, marks)| (*id, response(marks))).collect()
    }

    fn corrupt(members: usize, of: &[(u64, &[(u64, u64)])]) -> Vec<u64> {
        judge(1, members, &told(of)).corrupt.into_keys().collect()
    }

    #[test]
    fn members_that_say_the_same_agree_up_to_what_all_know() {
        let all = told(&[(1, &[(256, 7), (512, 8), (600, 9)]), (2, &[(256, 7), (512, 8)]), (3, &[(256, 7)])]);
        assert_eq!(judge(1, 3, &all), Verdict { agreed: Some(256), ..Verdict::default() });
        assert_eq!(judge(1, 4, &all), Verdict::default(), "one was not heard");
    }

    #[test]
    fn who_differs_from_a_majority_is_named() {
        assert_eq!(corrupt(3, &[(1, &[(256, 7)]), (2, &[(256, 7)]), (3, &[(256, 8)])]), [3]);
        assert_eq!(corrupt(3, &[(1, &[(256, 8)]), (2, &[(256, 7)]), (3, &[(256, 7)])]), [1], "who leads too");
        assert_eq!(
            corrupt(5, &[(1, &[(9, 1)]), (2, &[(9, 1)]), (3, &[(9, 1)]), (4, &[(9, 2)]), (5, &[(9, 3)])]),
            [4, 5]
        );
        // One place is enough, be it that they agree at others.
        assert_eq!(corrupt(3, &[(1, &[(1, 1), (2, 2)]), (2, &[(1, 1), (2, 2)]), (3, &[(1, 1), (2, 3)])]), [3]);
    }

    #[test]
    fn without_a_majority_nobody_is_trusted() {
        assert_eq!(corrupt(2, &[(1, &[(256, 7)]), (2, &[(256, 8)])]), [1, 2]);
        assert_eq!(corrupt(3, &[(1, &[(256, 7)]), (2, &[(256, 8)]), (3, &[(256, 9)])]), [1, 2, 3]);
    }

    #[test]
    fn who_was_not_heard_may_decide() {
        let open = Verdict { is_open: true, ..Verdict::default() };
        assert_eq!(judge(1, 3, &told(&[(1, &[(256, 7)]), (3, &[(256, 8)])])), open);
        assert_eq!(judge(1, 5, &told(&[(1, &[(9, 1)]), (2, &[(9, 1)]), (3, &[(9, 2)])])), open);
        assert_eq!(corrupt(5, &[(1, &[(9, 1)]), (2, &[(9, 1)]), (3, &[(9, 1)]), (4, &[(9, 2)])]), [4]);
    }

    #[test]
    fn hashes_count_where_the_history_before_was_the_same() {
        let hash = |revision, compacted, hash| CompactionHash { revision, compacted, hash };
        let of = |hashes: Vec<CompactionHash>| DigestsResponse { hashes, ..DigestsResponse::default() };
        let told = BTreeMap::from([
            (1, of(vec![hash(10, -1, 5), hash(20, 10, 6)])),
            (2, of(vec![hash(10, -1, 5), hash(20, 10, 6)])),
            (3, of(vec![hash(10, 4, 9), hash(20, 10, 7)])),
        ]);
        let verdict = judge(1, 3, &told);
        assert_eq!(verdict.corrupt, BTreeMap::from([(3, "hash of the history compacted at 20".to_owned())]));
    }

    /// Members of two releases, of which the newer makes digests, or hashes, in another way.
    #[test]
    fn who_makes_them_in_another_way_has_no_say() {
        let all = |digests: &[u64], hashes: &[u32], way: fn(&mut DigestsResponse)| {
            let mut told = BTreeMap::new();
            for (id, (digest, hash)) in (1..).zip(digests.iter().zip(hashes)) {
                let marks = vec![StateMark { index: 256, digest: *digest }];
                let hashes = vec![CompactionHash { revision: 10, compacted: -1, hash: *hash }];
                told.insert(id, DigestsResponse { marks, hashes, ..DigestsResponse::default() });
            }
            way(told.get_mut(&3).unwrap());
            told
        };
        let corrupt = |members, told| judge(1, members, &told).corrupt.into_keys().collect::<Vec<u64>>();
        let other_digest: fn(&mut DigestsResponse) = |it| it.digest_version += 1;
        let other_hash: fn(&mut DigestsResponse) = |it| it.hash_version += 1;
        assert_eq!(corrupt(3, all(&[7, 7, 8], &[5, 5, 5], other_hash)), [3], "its digest counts");
        assert!(corrupt(3, all(&[7, 7, 8], &[5, 5, 5], other_digest)).is_empty());
        assert_eq!(corrupt(3, all(&[7, 7, 7], &[5, 5, 6], other_digest)), [3], "its hash counts");
        assert!(corrupt(3, all(&[7, 7, 7], &[5, 5, 6], other_hash)).is_empty());
        // Those that are alike are judged among themselves.
        assert_eq!(judge(1, 3, &all(&[7, 7, 8], &[5, 5, 5], other_digest)).agreed, Some(256));
        assert_eq!(corrupt(3, all(&[7, 9, 8], &[5, 5, 5], other_digest)), [1, 2]);
        assert_eq!(corrupt(4, all(&[7, 9, 9, 9], &[5, 5, 5, 5], other_digest)), [1]);
        assert!(judge(1, 4, &all(&[7, 9, 8], &[5, 5, 5], other_digest)).is_open, "one was not heard");
    }
}
