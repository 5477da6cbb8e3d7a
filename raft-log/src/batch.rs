//! A batch: frames laid into sectors that each prove where they belong. Pure.
//!
//! A sector is the unit in which a disk keeps or loses what it was not yet told to sync. Because
//! every sector is stamped, what a crash left of an unsynced batch can be told from what was
//! acknowledged and rotted since; `docs/format.md` has the argument.

use crc32fast::Hasher;

use crate::record::{Frame, Seed, u32_at, u64_at};

/// The unit that is written whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Bytes of a sector before its content.
pub(crate) const STAMP_BYTES: usize = 24;
/// Bytes of content in one sector.
pub(crate) const CONTENT_BYTES: usize = SECTOR_BYTES - STAMP_BYTES;

/// What a sector says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The number of its batch; rises by one from batch to batch, across segments.
    pub(crate) batch: u64,
    /// The size of the content of its batch.
    pub(crate) content_bytes: u32,
    /// Its place among the sectors of its batch.
    pub(crate) place: u32,
}

/// What a sector turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Written in the present life of the segment.
    Own(Stamp),
    /// Never written, or written in an earlier life of the segment.
    Unwritten,
    /// Neither: no write of ours left it so.
    Rotten,
}

impl Stamp {
    /// How many sectors its batch takes.
    pub(crate) fn batch_sectors(&self) -> u32 {
        sectors_for(self.content_bytes as usize) as u32
    }
}

/// How many sectors a batch with this much content takes; an empty batch takes one.
pub(crate) fn sectors_for(content_bytes: usize) -> usize {
    content_bytes.div_ceil(CONTENT_BYTES).max(1)
}

/// Frames on their way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Whole sectors but for the last one; stamps are left blank until the end.
    bytes: Vec<u8>,
    content_bytes: usize,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.content_bytes == 0
    }

    pub(crate) fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    /// Adds a frame and returns where in the batch's content it begins.
    pub(crate) fn push(&mut self, frame: &Frame<'_>, seed: &Seed) -> usize {
        let begin = self.content_bytes;
        frame.encode(seed, |piece| self.put(piece));
        begin
    }

    fn put(&mut self, mut piece: &[u8]) {
        self.content_bytes += piece.len();
        while !piece.is_empty() {
            if self.bytes.len().is_multiple_of(SECTOR_BYTES) {
                self.bytes.extend_from_slice(&[0; STAMP_BYTES]);
            }
            let room = SECTOR_BYTES - self.bytes.len() % SECTOR_BYTES;
            let (now, later) = piece.split_at(room.min(piece.len()));
            self.bytes.extend_from_slice(now);
            piece = later;
        }
    }

    /// Ends the batch: returns the sectors to write at `first_sector` of a segment.
    pub(crate) fn stamp(&mut self, sequence: u32, first_sector: u32, batch: u64) -> &[u8] {
        let sectors = sectors_for(self.content_bytes);
        self.bytes.resize(sectors * SECTOR_BYTES, 0);
        let content_bytes = u32::try_from(self.content_bytes).expect("a batch is smaller than a segment");
        for (place, sector) in (0u32..).zip(self.bytes.chunks_exact_mut(SECTOR_BYTES)) {
            sector[4..8].copy_from_slice(&sequence.to_le_bytes());
            sector[8..16].copy_from_slice(&batch.to_le_bytes());
            sector[16..20].copy_from_slice(&content_bytes.to_le_bytes());
            sector[20..24].copy_from_slice(&place.to_le_bytes());
            let checksum = checksum(sector, first_sector + place);
            sector[0..4].copy_from_slice(&checksum.to_le_bytes());
        }
        &self.bytes
    }

    /// Makes it an empty batch again, and gives memory back that only a rare large one needs.
    pub(crate) fn clear(&mut self) {
        const KEPT_BYTES: usize = 1024 * 1024;
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.content_bytes = 0;
    }
}

/// Covers the whole sector but the checksum itself, and where in its file the sector stands.
fn checksum(sector: &[u8], position: u32) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&position.to_le_bytes());
    hasher.update(&sector[4..]);
    hasher.finalize()
}

/// Tells what stands at a position of the segment with this sequence number.
pub(crate) fn inspect(sector: &[u8], position: u32, sequence: u32) -> Sector {
    assert_eq!(sector.len(), SECTOR_BYTES);
    let found = sequence_of(sector);
    if checksum(sector, position) == u32_at(sector, 0) && found > 0 {
        let stamp = Stamp { batch: u64_at(sector, 8), content_bytes: u32_at(sector, 16), place: u32_at(sector, 20) };
        return match found.cmp(&sequence) {
            std::cmp::Ordering::Less => Sector::Unwritten,
            std::cmp::Ordering::Equal => Sector::Own(stamp),
            std::cmp::Ordering::Greater => Sector::Rotten,
        };
    }
    if sector.iter().all(|byte| *byte == 0) { Sector::Unwritten } else { Sector::Rotten }
}

/// The sequence number that a sector claims, unchecked: a cheap first look at many sectors.
pub(crate) fn sequence_of(sector: &[u8]) -> u32 {
    u32_at(sector, 4)
}

/// The content of a sector.
pub(crate) fn content(sector: &[u8]) -> &[u8] {
    &sector[STAMP_BYTES..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::Position;

    proptest! {
        #[test]
        fn frames_survive_the_sectors(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..8)) {
            let seed = Seed::new(1, 2);
            let mut batch = Batch::default();
            let mut begins = Vec::new();
            for (index, payload) in (1..).zip(&payloads) {
                begins.push(batch.push(&Frame::Record { position: Position { index, term: 1 }, payload }, &seed));
            }
            let content_bytes = batch.content_bytes();
            let sectors = batch.stamp(2, 40, 77).to_vec();
            prop_assert_eq!(sectors.len(), sectors_for(content_bytes) * SECTOR_BYTES);
            let mut joined = Vec::new();
            for (place, sector) in (0u32..).zip(sectors.chunks(SECTOR_BYTES)) {
                let stamp = Stamp { batch: 77, content_bytes: content_bytes as u32, place };
                prop_assert_eq!(inspect(sector, 40 + place, 2), Sector::Own(stamp));
                prop_assert_eq!(inspect(sector, 40 + place, 3), Sector::Unwritten);
                prop_assert_eq!(inspect(sector, 40 + place, 1), Sector::Rotten);
                prop_assert_eq!(inspect(sector, 41 + place, 2), Sector::Rotten);
                joined.extend_from_slice(content(sector));
            }
            prop_assert!(joined[content_bytes..].iter().all(|byte| *byte == 0));
            for (begin, (index, payload)) in begins.into_iter().zip((1..).zip(&payloads)) {
                let frame = Frame::Record { position: Position { index, term: 1 }, payload };
                prop_assert_eq!(Frame::decode(&seed, &joined[begin..content_bytes]), Ok(frame));
            }
        }

        #[test]
        fn one_flipped_bit_rots_a_sector(bit in 0..SECTOR_BYTES * 8) {
            let mut batch = Batch::default();
            batch.push(&Frame::Vote(b"vote"), &Seed::new(1, 2));
            let mut sector = batch.stamp(2, 8, 1).to_vec();
            sector[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(inspect(&sector, 8, 2), Sector::Rotten);
        }
    }

    #[test]
    fn zeros_are_unwritten() {
        assert_eq!(inspect(&[0; SECTOR_BYTES], 8, 1), Sector::Unwritten);
    }
}
