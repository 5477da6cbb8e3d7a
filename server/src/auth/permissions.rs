use std::cmp::Ordering;

use bytes::Bytes;
use mainstay_proto::authpb::Permission;
use mainstay_proto::authpb::permission::Type;

use super::Right;

/// Where an interval ends: before a key, or nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Before(Bytes),
    Open,
}

impl End {
    /// Of a range that has one; `\0` alone stands for no end.
    fn of_range(range_end: &Bytes) -> Self {
        if range_end.as_ref() == [0] { Self::Open } else { Self::Before(range_end.clone()) }
    }
}

impl Ord for End {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Open, Self::Open) => Ordering::Equal,
            (Self::Open, Self::Before(_)) => Ordering::Greater,
            (Self::Before(_), Self::Open) => Ordering::Less,
            (Self::Before(a), Self::Before(b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for End {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a user may read and write, all its roles together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    read: Intervals,
    write: Intervals,
}

impl Permissions {
    pub(super) fn of<'a>(granted: impl Iterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in granted {
            let interval = interval(permission);
            match permission.perm_type() {
                Type::Read => read.push(interval),
                Type::Write => write.push(interval),
                Type::Readwrite => {
                    read.push(interval.clone());
                    write.push(interval);
                }
            }
        }
        Self { read: Intervals::union(read), write: Intervals::union(write) }
    }

    /// Whether the keys of a range are all covered. A range without an end is its key alone.
    pub(super) fn cover(&self, right: Right, key: &[u8], range_end: &[u8]) -> bool {
        let intervals = match right {
            Right::Read => &self.read,
            Right::Write => &self.write,
        };
        intervals.cover(key, range_end)
    }
}

fn interval(permission: &Permission) -> (Bytes, End) {
    let end = if permission.range_end.is_empty() {
        // The next possible key.
        End::Before([&permission.key[..], &[0]].concat().into())
    } else {
        End::of_range(&permission.range_end)
    };
    (permission.key.clone(), end)
}

/// Intervals in order; none overlaps or touches the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals(Vec<(Bytes, End)>);

impl Intervals {
    fn union(mut parts: Vec<(Bytes, End)>) -> Self {
        parts.sort();
        let mut union: Vec<(Bytes, End)> = Vec::with_capacity(parts.len());
        for (begin, end) in parts {
            match union.last_mut() {
                Some((_, last)) if End::Before(begin.clone()) <= *last => {
                    if end > *last {
                        *last = end;
                    }
                }
                _ => union.push((begin, end)),
            }
        }
        Self(union)
    }

    fn cover(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.0.partition_point(|(begin, _)| begin.as_ref() <= key);
        let Some((_, end)) = after.checked_sub(1).and_then(|at| self.0.get(at)) else {
            return false;
        };
        let End::Before(end) = end else { return true };
        if end.as_ref() <= key {
            return false;
        }
        // A range that ends before it begins holds nothing; it is judged by its key, as in etcd.
        match range_end {
            [] => true,
            [0] => false,
            asked => asked <= end.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(kind: Type, key: &'static str, range_end: &'static str) -> Permission {
        Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() }
    }

    fn reads(parts: &[(&'static str, &'static str)]) -> Permissions {
        let granted: Vec<_> = parts.iter().map(|(key, end)| granted(Type::Read, key, end)).collect();
        Permissions::of(granted.iter())
    }

    #[test]
    fn intervals_are_united() {
        let union = |parts| reads(parts).read.0.len();
        assert_eq!(union(&[]), 0);
        assert_eq!(union(&[("a", "b"), ("b", "c")]), 1, "they touch");
        assert_eq!(union(&[("a", "b"), ("c", "d")]), 2);
        assert_eq!(union(&[("c", "d"), ("a", "b"), ("a", "z")]), 1);
        assert_eq!(union(&[("a", ""), ("a\0", "b")]), 1, "a key alone ends at the next one");
        assert_eq!(union(&[("m", "\0"), ("a", "b"), ("z", "")]), 2, "an open end covers what follows");
    }

    #[test]
    fn ranges_are_covered_by_the_union() {
        let permissions = reads(&[("b", "d"), ("d", "f"), ("h", ""), ("x", "\0")]);
        for (key, range_end, covered) in [
            ("a", "", false),
            ("b", "", true),
            ("c", "e", true),
            ("b", "f", true),
            ("b", "g", false),
            ("a", "c", false),
            ("e\u{7f}", "f", true),
            ("f", "", false),
            ("b", "\0", false),
            ("h", "", true),
            ("h", "h\0", true),
            ("h", "h\0\0", false),
            ("h\0", "", false),
            ("x", "", true),
            ("x", "\0", true),
            ("zzz", "\0", true),
            ("y", "z", true),
            ("\0", "\0", false),
            ("", "", false),
            // Nothing is in these.
            ("e", "a", true),
            ("g", "a", false),
            ("e", "e", true),
        ] {
            let actual = permissions.cover(Right::Read, key.as_bytes(), range_end.as_bytes());
            assert_eq!(actual, covered, "[{key:?}, {range_end:?})");
            assert!(!permissions.cover(Right::Write, key.as_bytes(), range_end.as_bytes()));
        }
    }

    #[test]
    fn everything_is_from_the_least_key_on() {
        let granted = [granted(Type::Readwrite, "\0", "\0")];
        let permissions = Permissions::of(granted.iter());
        for right in [Right::Read, Right::Write] {
            assert!(permissions.cover(right, b"\0", b"\0"));
            assert!(permissions.cover(right, b"a", b"b"));
            assert!(!permissions.cover(right, b"", b"\0"), "no key is empty");
        }
    }
}
