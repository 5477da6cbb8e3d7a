//! A frame: one record, or one change of what the log remembers. Encode, decode, checksum. Pure.

use crc32fast::Hasher;

use crate::state::Position;

/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER_BYTES: usize = 25;

/// One unit of content. Everything that the log knows is a fold over its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// Opens a segment: nothing precedes, the first record may have any index.
    Start,
    /// Opens a segment: it follows this position; `first` is the first record's index, if there are records.
    Continue { last: Position, first: Option<u64> },
    /// A record of the caller.
    Record { position: Position, payload: &'a [u8] },
    /// Everything up to and with this position is purged.
    Purge(Position),
    /// Everything after this position is removed.
    Truncate { last: Position },
    /// Every record is removed and there is no purge mark to follow.
    Clear,
    /// The vote.
    Vote(&'a [u8]),
    /// The committed position.
    Committed(&'a [u8]),
}

/// What a frame's checksum begins with, so that a frame of one segment never passes in another.
#[derive(Clone, Debug)]
pub(crate) struct Seed(Hasher);

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame is longer than its batch")]
    TooLong,
    #[error("a frame fails its checksum")]
    Checksum,
    #[error("a frame is of an unknown kind")]
    UnknownKind,
    #[error("a frame's payload does not fit its kind")]
    Payload,
}

mod kind {
    pub(super) const START: u8 = 1;
    pub(super) const CONTINUE: u8 = 2;
    pub(super) const RECORD: u8 = 3;
    pub(super) const PURGE: u8 = 4;
    pub(super) const TRUNCATE: u8 = 5;
    pub(super) const CLEAR: u8 = 6;
    pub(super) const VOTE: u8 = 7;
    pub(super) const COMMITTED: u8 = 8;
}

impl Seed {
    pub(crate) fn new(identity: u64, sequence: u32) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&identity.to_le_bytes());
        hasher.update(&sequence.to_le_bytes());
        Self(hasher)
    }

    /// Covers everything of a frame but the checksum itself.
    fn checksum(&self, header: &[u8; FRAME_HEADER_BYTES], payload: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&header[0..4]);
        hasher.update(&header[8..]);
        hasher.update(payload);
        hasher.finalize()
    }
}

impl<'a> Frame<'a> {
    /// The frame's size when it is encoded.
    pub(crate) fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES
            + match self {
                Self::Start | Self::Purge(_) | Self::Truncate { .. } | Self::Clear => 0,
                Self::Continue { first, .. } => first.map_or(0, |_| 8),
                Self::Record { payload, .. } | Self::Vote(payload) | Self::Committed(payload) => payload.len(),
            }
    }

    /// Hands the encoded frame to `put`, in pieces.
    pub(crate) fn encode(&self, seed: &Seed, mut put: impl FnMut(&[u8])) {
        let nowhere = Position { index: 0, term: 0 };
        let first_bytes;
        let (kind, position, payload): (u8, Position, &[u8]) = match *self {
            Self::Start => (kind::START, nowhere, &[]),
            Self::Continue { last, first: None } => (kind::CONTINUE, last, &[]),
            Self::Continue { last, first: Some(first) } => {
                first_bytes = first.to_le_bytes();
                (kind::CONTINUE, last, &first_bytes)
            }
            Self::Record { position, payload } => (kind::RECORD, position, payload),
            Self::Purge(position) => (kind::PURGE, position, &[]),
            Self::Truncate { last } => (kind::TRUNCATE, last, &[]),
            Self::Clear => (kind::CLEAR, nowhere, &[]),
            Self::Vote(vote) => (kind::VOTE, nowhere, vote),
            Self::Committed(committed) => (kind::COMMITTED, nowhere, committed),
        };
        let payload_bytes = u32::try_from(payload.len()).expect("a payload is smaller than a segment");
        let mut header = [0; FRAME_HEADER_BYTES];
        header[0..4].copy_from_slice(&payload_bytes.to_le_bytes());
        header[8] = kind;
        header[9..17].copy_from_slice(&position.term.to_le_bytes());
        header[17..25].copy_from_slice(&position.index.to_le_bytes());
        let checksum = seed.checksum(&header, payload);
        header[4..8].copy_from_slice(&checksum.to_le_bytes());
        put(&header);
        put(payload);
    }

    /// Returns the frame that the bytes begin with.
    pub(crate) fn decode(seed: &Seed, bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>().ok_or(FrameError::TooLong)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind, ..] = *header;
        let payload_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let payload = rest.get(..payload_bytes).ok_or(FrameError::TooLong)?;
        if seed.checksum(header, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(FrameError::Checksum);
        }
        let position = Position { index: u64_at(header, 17), term: u64_at(header, 9) };
        let empty = |frame| if payload.is_empty() { Ok(frame) } else { Err(FrameError::Payload) };
        match kind {
            kind::START => empty(Self::Start),
            kind::CONTINUE if payload.is_empty() => Ok(Self::Continue { last: position, first: None }),
            kind::CONTINUE if payload.len() == 8 => {
                Ok(Self::Continue { last: position, first: Some(u64_at(payload, 0)) })
            }
            kind::CONTINUE => Err(FrameError::Payload),
            kind::RECORD => Ok(Self::Record { position, payload }),
            kind::PURGE => empty(Self::Purge(position)),
            kind::TRUNCATE => empty(Self::Truncate { last: position }),
            kind::CLEAR => empty(Self::Clear),
            kind::VOTE => Ok(Self::Vote(payload)),
            kind::COMMITTED => Ok(Self::Committed(payload)),
            _ => Err(FrameError::UnknownKind),
        }
    }
}

/// The little-endian integer at an offset that the caller knows to be inside.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// The little-endian integer at an offset that the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame<'a>(kind: u8, index: u64, term: u64, payload: &'a [u8]) -> Frame<'a> {
        let position = Position { index, term };
        match kind {
            1 => Frame::Start,
            2 => Frame::Continue { last: position, first: payload.first().map(|byte| u64::from(*byte)) },
            3 => Frame::Record { position, payload },
            4 => Frame::Purge(position),
            5 => Frame::Truncate { last: position },
            6 => Frame::Clear,
            7 => Frame::Vote(payload),
            _ => Frame::Committed(payload),
        }
    }

    fn encoded(frame: &Frame<'_>, seed: &Seed) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(seed, |piece| bytes.extend_from_slice(piece));
        bytes
    }

    proptest! {
        #[test]
        fn round_trip(kind in 1..=8u8, index: u64, term: u64, payload: Vec<u8>, rest: Vec<u8>) {
            let seed = Seed::new(7, 9);
            let frame = frame(kind, index, term, &payload);
            let mut bytes = encoded(&frame, &seed);
            prop_assert_eq!(bytes.len(), frame.bytes());
            bytes.extend(rest);
            prop_assert_eq!(Frame::decode(&seed, &bytes), Ok(frame));
        }

        #[test]
        fn one_flipped_bit_is_found(kind in 1..=8u8, payload: Vec<u8>, at: prop::sample::Index) {
            let seed = Seed::new(7, 9);
            let mut bytes = encoded(&frame(kind, 3, 2, &payload), &seed);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Frame::decode(&seed, &bytes).is_err());
        }

        #[test]
        fn every_cut_is_found(kind in 1..=8u8, payload: Vec<u8>, at: prop::sample::Index) {
            let seed = Seed::new(7, 9);
            let bytes = encoded(&frame(kind, 3, 2, &payload), &seed);
            prop_assert_eq!(Frame::decode(&seed, &bytes[..at.index(bytes.len())]), Err(FrameError::TooLong));
        }

        #[test]
        fn another_segment_is_found(kind in 1..=8u8, payload: Vec<u8>) {
            let bytes = encoded(&frame(kind, 3, 2, &payload), &Seed::new(7, 9));
            for other in [Seed::new(7, 10), Seed::new(8, 9)] {
                prop_assert_eq!(Frame::decode(&other, &bytes), Err(FrameError::Checksum));
            }
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            prop_assert!(Frame::decode(&Seed::new(0, 0), &bytes).is_err());
        }
    }
}
