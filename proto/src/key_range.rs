use bytes::Bytes;

/// A set of keys as etcd's requests name it: one key, a half-open interval, or all keys from one on.
///
/// The wire form is a pair of byte strings `(key, range_end)`:
/// an empty `range_end` means the single key, a `range_end` of one zero byte means every key from
/// `key` on, and anything else means `[key, range_end)`, compared bytewise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    key: Bytes,
    range_end: Bytes,
}

impl KeyRange {
    /// Takes the wire form as it is.
    pub fn new(key: Bytes, range_end: Bytes) -> Self {
        Self { key, range_end }
    }

    /// The range that holds just `key`.
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), range_end: Bytes::new() }
    }

    /// Every key from `key` on.
    pub fn from_key(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), range_end: Bytes::from_static(b"\0") }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { key: Bytes::from_static(b"\0"), range_end: Bytes::from_static(b"\0") }
    }

    /// Every key that begins with `prefix`; an empty prefix means every key.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let key = prefix.into();
        if key.is_empty() {
            return Self::all();
        }
        let range_end = prefix_end(&key);
        Self { key, range_end }
    }

    /// The first key of the range, as on the wire.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The end of the range, as on the wire.
    pub fn range_end(&self) -> &Bytes {
        &self.range_end
    }

    /// Whether the range names exactly one key.
    pub fn is_single(&self) -> bool {
        self.range_end.is_empty()
    }

    /// Whether the range has no upper bound.
    pub fn is_open_ended(&self) -> bool {
        self.range_end.as_ref() == b"\0"
    }

    /// Whether no key can be in the range: an interval that ends at or before its start.
    pub fn is_empty(&self) -> bool {
        !self.is_single() && !self.is_open_ended() && self.key >= self.range_end
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        if self.is_single() {
            return self.key.as_ref() == key;
        }
        key >= self.key.as_ref() && (self.is_open_ended() || key < self.range_end.as_ref())
    }

    /// The exclusive upper bound as a key, or `None` where there is none.
    ///
    /// For a single key it is the key followed by a zero byte, the next possible key.
    pub fn end_exclusive(&self) -> Option<Bytes> {
        if self.is_open_ended() {
            return None;
        }
        if self.is_single() {
            let mut next = Vec::with_capacity(self.key.len() + 1);
            next.extend_from_slice(&self.key);
            next.push(0);
            return Some(next.into());
        }
        Some(self.range_end.clone())
    }
}

/// The smallest key above every key with this prefix; `\0` (no bound) when there is none.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        for (prefix, end) in [(&b"a"[..], &b"b"[..]), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")] {
            assert_eq!(KeyRange::prefix(Bytes::copy_from_slice(prefix)).range_end().as_ref(), end);
        }
    }

    #[test]
    fn membership_follows_the_wire_form() {
        let single = KeyRange::single("k");
        assert!(single.contains(b"k") && !single.contains(b"k\0"));
        let interval = KeyRange::new("a".into(), "c".into());
        assert!(interval.contains(b"a") && interval.contains(b"b\xff") && !interval.contains(b"c"));
        let open = KeyRange::from_key("m");
        assert!(open.contains(b"\xff") && !open.contains(b"l"));
        assert!(KeyRange::all().contains(b"\0"));
        let inverted = KeyRange::new("c".into(), "a".into());
        assert!(inverted.is_empty() && !inverted.contains(b"b"));
        assert_eq!(single.end_exclusive().unwrap().as_ref(), b"k\0");
    }
}
