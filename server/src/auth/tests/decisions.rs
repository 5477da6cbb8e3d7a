//! Random permissions and requests. The model knows no interval: it has a few keys, and asks of each of them
//! whether a permission names it.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::auth::Right;

/// Keys of one or two letters in order, and what lies between them.
const LETTERS: [u8; 4] = [0, b'a', b'b', 0xff];

fn all_keys() -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for first in LETTERS {
        keys.push(vec![first]);
        for second in LETTERS {
            keys.push(vec![first, second]);
            keys.push(vec![first, second, 0]);
        }
    }
    keys.sort();
    keys
}

fn is_in(key: &[u8], from: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == from,
        [0] => key >= from,
        end => from <= key && key < end,
    }
}

/// Whether each key of a range, of those that there are, is in some permission.
fn model(granted: &[Permission], right: Right, from: &[u8], range_end: &[u8]) -> bool {
    let of_right = |permission: &&Permission| match permission.perm_type() {
        Type::Readwrite => true,
        Type::Read => right == Right::Read,
        Type::Write => right == Right::Write,
    };
    let named = |key: &[u8]| granted.iter().filter(of_right).any(|it| is_in(key, &it.key, &it.range_end));
    all_keys().iter().filter(|key| is_in(key, from, range_end)).all(|key| named(key))
}

fn random_key(random: &mut StdRng) -> Vec<u8> {
    let len = random.random_range(1..=2);
    (0..len).map(|_| LETTERS[random.random_range(0..LETTERS.len())]).collect()
}

fn random_end(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..10) {
        0..3 => Vec::new(),
        3 => vec![0],
        _ => random_key(random),
    }
}

#[test]
fn no_request_passes_that_the_model_denies() {
    let (mut allowed, mut denied, mut cautious) = (0, 0, 0);
    for seed in 0..1_000 {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut auth = enabled();
        add_user(&mut auth, "alice").unwrap();
        let mut granted: Vec<Permission> = Vec::new();
        for role in ["one", "two", "three"] {
            add_role(&mut auth, role).unwrap();
            grant_role(&mut auth, "alice", role).unwrap();
            for _ in 0..random.random_range(0..4) {
                let kind = [Type::Read, Type::Write, Type::Readwrite][random.random_range(0..3)];
                let (key, end) = (random_key(random), random_end(random));
                // Ranges that hold nothing are refused.
                grant(&mut auth, role, kind, &key, &end).ok();
            }
            granted.extend(auth.permissions_of(role).unwrap());
        }
        for _ in 0..100 {
            let right = if random.random() { Right::Read } else { Right::Write };
            let (key, end) = (random_key(random), random_end(random));
            let may = auth.check(&caller(&auth, "alice"), right, &key, &end).is_ok();
            let expected = model(&granted, right, &key, &end);
            let text = format!("seed {seed}: {right:?} [{key:?}, {end:?}) of {granted:?}");
            assert!(expected || !may, "{text}: allowed");
            match (may, expected) {
                (true, _) => allowed += 1,
                (false, false) => denied += 1,
                // The model does not know the keys between those it has, and a range that holds none is
                // judged by where it begins.
                (false, true) => cautious += 1,
            }
        }
    }
    assert_eq!(allowed + denied + cautious, 100_000);
    assert!(allowed > 10_000 && denied > 10_000, "{allowed} allowed, {denied} denied");
}

#[test]
fn no_request_is_denied_that_one_permission_covers() {
    for seed in 0..20_000 {
        let random = &mut StdRng::seed_from_u64(seed);
        let (key, end) = (random_key(random), random_end(random));
        let mut auth = enabled();
        add_user(&mut auth, "alice").unwrap();
        add_role(&mut auth, "r").unwrap();
        grant_role(&mut auth, "alice", "r").unwrap();
        if grant(&mut auth, "r", Type::Read, &key, &end).is_err() {
            continue;
        }
        let alice = caller(&auth, "alice");
        assert_eq!(auth.check(&alice, Right::Read, &key, &end), Ok(()), "[{key:?}, {end:?})");
        for inner in all_keys().iter().filter(|inner| is_in(inner, &key, &end)) {
            assert_eq!(auth.check(&alice, Right::Read, inner, b""), Ok(()), "{inner:?} of [{key:?}, {end:?})");
            if !end.is_empty() {
                assert_eq!(auth.check(&alice, Right::Read, inner, &end), Ok(()), "{inner:?} of [{key:?}, {end:?})");
            }
        }
    }
}
