//! Keys and ranges of keys, few enough that steps meet.

use bytes::Bytes;

use mainstay_tests::dice::Dice;

/// Keys whose order and prefixes are easily got wrong.
const ODD: [&[u8]; 22] = [
    b"a",
    b"a\0",
    b"a\0\0",
    b"aa",
    b"ab",
    b"a\xff",
    b"b",
    b"ba",
    b"c",
    b"\0",
    b"\0\0",
    b"\xff",
    b"\xff\xff",
    b"\x01",
    b"/registry/pods/a",
    b"/registry/pods/b",
    b"/registry/podt",
    b"k1",
    b"k10",
    b"k2",
    b"\x7f",
    b"\x80",
];

/// A seed's keys.
pub(super) struct Keys {
    keys: Vec<Bytes>,
    /// Whether no range ends before it begins. etcd looks for the permission to such a one in a tree, where it finds it
    /// or not by what else the user may do; ours judges it by its key.
    upright: bool,
}

impl Keys {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let count = *dice.pick(&[3, 8, 8, 16, 60]);
        let mut keys: Vec<Bytes> = Vec::new();
        for place in 0..count {
            // More keys than there are odd ones: then for long lists.
            let key = if count <= 16 { dice.pick(&ODD).to_vec() } else { format!("k{place:02}").into_bytes() };
            keys.push(key.into());
        }
        Self { keys, upright: false }
    }

    /// The same for users who may not do everything.
    pub(super) fn for_users(self) -> Self {
        Self { upright: true, ..self }
    }

    /// A key; hardly ever one that is refused or huge.
    pub(super) fn key(&self, dice: &mut Dice) -> Bytes {
        match dice.below(300) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"@fill:3000"),
            _ => dice.pick(&self.keys).clone(),
        }
    }

    /// A key and the end of its range.
    pub(super) fn range(&self, dice: &mut Dice) -> (Bytes, Bytes) {
        let key = self.key(dice);
        let end = match dice.below(12) {
            0..=4 => Bytes::new(),
            5 | 6 => Bytes::from_static(b"\0"),
            // Half of these are the wrong way round or empty.
            7 | 8 => {
                let end = self.key(dice);
                if self.upright && end < key {
                    return (end, key);
                }
                end
            }
            9 => prefix_end(&key),
            10 => Bytes::from([&key[..], b"\0"].concat()),
            _ => return (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        };
        (key, end)
    }
}

/// Where the keys with a prefix end.
fn prefix_end(prefix: &[u8]) -> Bytes {
    mainstay_proto::KeyRange::prefix(prefix.to_vec()).range_end().clone()
}
