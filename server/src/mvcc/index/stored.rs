//! An index entry as it stands in the family `index`: varints, the head first.

use super::super::Revision;
use super::entry::{Entry, Older};

/// Encodes an entry:
/// ```text
/// head     main, sub, version (0: a tombstone); then, unless it is a tombstone, create, lease
/// older    their number; then each, oldest first: main less the main before, sub * 2 + (1 for a tombstone)
/// ```
pub(crate) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    let revision = entry.revision();
    put(&mut bytes, revision.main.cast_unsigned());
    put(&mut bytes, revision.sub.cast_unsigned());
    match entry.head() {
        None => put(&mut bytes, 0),
        Some(head) => {
            put(&mut bytes, head.version.cast_unsigned());
            put(&mut bytes, head.create.cast_unsigned());
            put(&mut bytes, head.lease.cast_unsigned());
        }
    }
    put(&mut bytes, entry.older().len() as u64);
    let mut before = 0;
    for older in entry.older() {
        let revision = older.revision();
        put(&mut bytes, (revision.main - before).cast_unsigned());
        put(&mut bytes, revision.sub.cast_unsigned() << 1 | u64::from(older.is_tombstone()));
        before = revision.main;
    }
    bytes
}

/// Decodes an entry; `None` for bytes that are none.
pub(crate) fn decode_entry(mut bytes: &[u8]) -> Option<Entry> {
    let rest = &mut bytes;
    let revision = Revision { main: positive(take(rest)?)?, sub: sub(take(rest)?)? };
    let live = match take(rest)? {
        0 => None,
        version => Some((positive(take(rest)?)?, positive(version)?, take(rest)?.cast_signed())),
    };
    let count = usize::try_from(take(rest)?).ok()?;
    let mut older: Vec<Older> = Vec::with_capacity(count.min(rest.len()));
    let mut before = Revision::default();
    for _ in 0..count {
        let main = before.main.checked_add_unsigned(take(rest)?)?;
        let packed = take(rest)?;
        let next = Revision { main, sub: sub(packed >> 1)? };
        if next <= before || next >= revision {
            return None;
        }
        older.push(Older::new(next, packed & 1 != 0));
        before = next;
    }
    rest.is_empty().then(|| Entry::restored(revision, live, older))
}

fn positive(value: u64) -> Option<i64> {
    i64::try_from(value).ok().filter(|value| *value > 0)
}

fn sub(value: u64) -> Option<i64> {
    i32::try_from(value).ok().map(i64::from)
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::tests::cases;
    use super::*;

    fn at(main: i64, sub: i64) -> Revision {
        Revision { main, sub }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let mut entry = Entry::default();
        entry.put(at(2, 0), 2, 1, 0);
        assert_eq!(encode_entry(&entry), [2, 0, 1, 2, 0, 0]);
        entry.delete(at(300, 1));
        assert_eq!(encode_entry(&entry), [0xac, 0x02, 1, 0, 1, 2, 0]);
        entry.put(at(301, 0), 301, 1, 7);
        assert_eq!(encode_entry(&entry), [0xad, 0x02, 0, 1, 0xad, 0x02, 7, 2, 2, 0, 0xaa, 0x02, 3]);
    }

    #[test]
    fn damage_is_found() {
        for bytes in [&[][..], &[2], &[2, 0, 0], &[2, 0, 0, 1], &[2, 0, 0, 0, 0], &[0, 0, 0, 0], &[2, 0, 0, 1, 2, 0]] {
            assert!(decode_entry(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn what_was_encoded_is_decoded(
            changes in prop::collection::vec((1i64..1000, 0i64..3, any::<bool>(), any::<i64>()), 1..20)
        ) {
            let mut entry = Entry::default();
            for (gap, sub, is_delete, lease) in changes {
                let revision = at(entry.revision().main + gap, sub);
                match entry.head() {
                    Some(_) if is_delete => entry.delete(revision),
                    Some(head) => entry.put(revision, head.create, head.version + 1, lease),
                    None => entry.put(revision, revision.main, 1, lease),
                }
            }
            let decoded = decode_entry(&encode_entry(&entry)).unwrap();
            prop_assert_eq!(decoded.revision(), entry.revision());
            prop_assert_eq!(decoded.head(), entry.head());
            prop_assert_eq!(decoded.older(), entry.older());
        }
    }
}
