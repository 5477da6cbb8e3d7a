//! One file: its header, making it, writing batches to it, reading records back.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{CONTENT_BYTES, SECTOR_BYTES, Sector, content, inspect};
use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, LogError, OpenError};
use crate::index::Place;
use crate::log::Record;
use crate::probe;
use crate::record::{FRAME_HEADER_BYTES, Frame, Seed, u32_at, u64_at};

/// The version of the format that this program writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The header has the first page to itself, so that no write of a batch touches it.
pub(crate) const HEADER_SECTORS: u32 = 8;
const HEADER_BYTES: usize = HEADER_SECTORS as usize * SECTOR_BYTES;
const MAGIC: &[u8; 16] = b"mainstay raftlog";

/// Records that stand close together are read at once, up to this many bytes.
const READ_BYTES: usize = 1024 * 1024;
/// A new file is filled with this many bytes at a time, and synced after so many.
const FILL_BYTES: usize = 1024 * 1024;
const FILL_SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// An open segment. Its name follows from its sequence number.
pub(crate) struct Segment {
    sequence: u32,
    identity: u64,
    bytes: u64,
    name: String,
    seed: Seed,
    file: Arc<dyn DiskFile>,
}

/// The name of a segment in use.
pub(crate) fn segment_name(sequence: u32) -> String {
    format!("{sequence:010}.log")
}

/// The name of a purged segment that waits for being written again.
pub(crate) fn spare_name(sequence: u32) -> String {
    format!("{sequence:010}.spare")
}

/// The name of a file that is being filled.
pub(crate) const UNFINISHED_NAME: &str = "unfinished";

impl Segment {
    /// Makes an empty segment under its final name, durably: from a spare file, or a new one.
    ///
    /// The name appears only after the header is durable, so a file with a segment's name and
    /// without a valid header is damaged and not half-made.
    pub(crate) fn make(
        disk: &dyn Disk,
        sequence: u32,
        identity: u64,
        bytes: u64,
        spare: Option<&str>,
    ) -> Result<Self, LogError> {
        let (from, file) = match spare {
            Some(spare) => (spare, disk.open(spare).map_err(|error| LogError::io("open", spare, &error))?),
            None => (UNFINISHED_NAME, fill(disk, bytes)?),
        };
        let name = segment_name(sequence);
        file.write_at(0, &encode_header(sequence, identity, bytes))
            .map_err(|error| LogError::io("write", from, &error))?;
        file.sync().map_err(|error| LogError::io("sync", from, &error))?;
        disk.rename(from, &name).map_err(|error| LogError::io("rename", from, &error))?;
        // Wrong where it is broken: a crash may take the segment's name away, and all that stands in it.
        if !probe::broken("skip-directory-sync") {
            disk.sync_dir().map_err(|error| LogError::io("sync the directory of", &name, &error))?;
        }
        Ok(Self { sequence, identity, bytes, name, seed: Seed::new(identity, sequence), file })
    }

    /// Opens a segment and checks its header.
    pub(crate) fn open(disk: &dyn Disk, sequence: u32) -> Result<Self, OpenError> {
        let name = segment_name(sequence);
        let failed = |operation, error| LogError::io(operation, &name, &error);
        let file = disk.open(&name).map_err(|error| failed("open", error))?;
        let size = file.size().map_err(|error| failed("open", error))?;
        let damaged = |what: String| OpenError::Damaged(Damage { file: name.clone(), offset: 0, what });
        if size < HEADER_BYTES as u64 {
            return Err(damaged("the file is too short for its header".to_owned()));
        }
        let mut header = [0; SECTOR_BYTES];
        file.read_at(0, &mut header).map_err(|error| failed("read", error))?;
        if &header[0..16] != MAGIC || header_checksum(&header) != u32_at(&header, 20) {
            return Err(damaged("the header is not valid".to_owned()));
        }
        let version = u32_at(&header, 16);
        if version > FORMAT_VERSION {
            return Err(OpenError::NewerVersion { file: name, found: version, supported: FORMAT_VERSION });
        }
        let (found, identity, bytes) = (u32_at(&header, 24), u64_at(&header, 32), u64_at(&header, 40));
        if found != sequence {
            return Err(damaged(format!("the header is of segment {found}")));
        }
        if bytes != size {
            return Err(damaged(format!("the file has {size} bytes, its header says {bytes}")));
        }
        Ok(Self { sequence, identity, bytes, seed: Seed::new(identity, sequence), name, file })
    }

    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(crate) fn identity(&self) -> u64 {
        self.identity
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn seed(&self) -> &Seed {
        &self.seed
    }

    /// How many sectors it has, those of the header included.
    pub(crate) fn sectors(&self) -> u32 {
        u32::try_from(self.bytes / SECTOR_BYTES as u64).expect("options bound the size of a segment")
    }

    pub(crate) fn write(&self, sector: u32, data: &[u8]) -> Result<(), LogError> {
        let end = offset_of(sector) + data.len() as u64;
        assert!(sector >= HEADER_SECTORS, "the header is written once");
        assert!(end <= self.bytes, "a batch fits its segment");
        self.file.write_at(offset_of(sector), data).map_err(|error| LogError::io("write", &self.name, &error))
    }

    pub(crate) fn sync(&self) -> Result<(), LogError> {
        self.file.sync().map_err(|error| LogError::io("sync", &self.name, &error))
    }

    pub(crate) fn read(&self, sector: u32, buffer: &mut [u8]) -> Result<(), LogError> {
        self.file.read_at(offset_of(sector), buffer).map_err(|error| LogError::io("read", &self.name, &error))
    }

    /// Damage that begins with a sector of this segment.
    pub(crate) fn damage(&self, sector: u32, what: impl Into<String>) -> Damage {
        Damage { file: self.name.clone(), offset: offset_of(sector), what: what.into() }
    }

    /// Reads records, given by rising index and place, with as few reads as make sense.
    pub(crate) fn read_records(&self, places: &[(u64, Place)], records: &mut Vec<Record>) -> Result<(), LogError> {
        let mut left = places;
        while let Some(((_, first), _)) = left.split_first() {
            let within = |place: &Place| (end_address(place) - first.address) as usize <= READ_BYTES;
            let count = left.iter().take_while(|(_, place)| within(place)).count().max(1);
            let (now, later) = left.split_at(count);
            self.read_close_records(now, records)?;
            left = later;
        }
        Ok(())
    }

    fn read_close_records(&self, places: &[(u64, Place)], records: &mut Vec<Record>) -> Result<(), LogError> {
        let (Some((_, first)), Some((_, last))) = (places.first(), places.last()) else {
            return Ok(());
        };
        let (first_sector, last_sector) = (sector_of(first.address), sector_of(end_address(last) - 1));
        let content = self.read_content(first_sector, last_sector)?;
        let base = first_sector * CONTENT_BYTES as u32;
        for (index, place) in places {
            let begin = (place.address - base) as usize;
            let end = (end_address(place) - base) as usize;
            let damaged = |what: String| LogError::Damaged(self.damage(sector_of(place.address), what));
            match Frame::decode(&self.seed, &content[begin..end]) {
                Ok(Frame::Record { position, payload })
                    if position.index == *index && payload.len() == place.payload_bytes as usize =>
                {
                    let payload = content.slice(begin + FRAME_HEADER_BYTES..end);
                    records.push(Record { index: *index, term: position.term, payload });
                }
                Ok(_) => return Err(damaged(format!("record {index} is not where it was written"))),
                Err(error) => return Err(damaged(error.to_string())),
            }
        }
        Ok(())
    }

    /// The content of a range of sectors, each checked, joined.
    fn read_content(&self, first: u32, last: u32) -> Result<Bytes, LogError> {
        let mut sectors = vec![0; (last - first + 1) as usize * SECTOR_BYTES];
        self.read(first, &mut sectors)?;
        let mut joined = Vec::with_capacity((last - first + 1) as usize * CONTENT_BYTES);
        for (position, sector) in (first..).zip(sectors.chunks_exact(SECTOR_BYTES)) {
            match inspect(sector, position, self.sequence) {
                Sector::Own(_) => joined.extend_from_slice(content(sector)),
                Sector::Unwritten | Sector::Rotten => {
                    return Err(LogError::Damaged(self.damage(position, "a sector fails its checksum")));
                }
            }
        }
        Ok(joined.into())
    }
}

/// The place of a record whose frame begins at some content of a batch.
pub(crate) fn place(batch_sector: u32, begin: usize, payload_bytes: usize) -> Place {
    let address = batch_sector as usize * CONTENT_BYTES + begin;
    let narrow = |wide| u32::try_from(wide).expect("options bound the size of a segment");
    Place { address: narrow(address), payload_bytes: narrow(payload_bytes) }
}

fn end_address(place: &Place) -> u32 {
    place.address + FRAME_HEADER_BYTES as u32 + place.payload_bytes
}

fn sector_of(address: u32) -> u32 {
    address / CONTENT_BYTES as u32
}

fn offset_of(sector: u32) -> u64 {
    u64::from(sector) * SECTOR_BYTES as u64
}

/// Makes a file of zeros, so that writing to it later changes no metadata.
fn fill(disk: &dyn Disk, bytes: u64) -> Result<Arc<dyn DiskFile>, LogError> {
    let failed = |operation, error: io::Error| LogError::io(operation, UNFINISHED_NAME, &error);
    let file = disk.create(UNFINISHED_NAME).map_err(|error| failed("create", error))?;
    let filled = file.allocate(bytes).map_err(|error| failed("allocate", error)).and_then(|()| {
        let zeros = vec![0; FILL_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let now = (bytes - offset).min(FILL_BYTES as u64);
            file.write_at(offset, &zeros[..now as usize]).map_err(|error| failed("write", error))?;
            offset += now;
            // In portions, so that the log's own syncs never queue behind all of it.
            if offset % FILL_SYNC_BYTES == 0 || offset == bytes {
                file.sync().map_err(|error| failed("sync", error))?;
            }
        }
        Ok(())
    });
    if let Err(error) = filled {
        // Gives the room back. What failed stays the error whether or not this works.
        disk.remove(UNFINISHED_NAME).ok();
        return Err(error);
    }
    Ok(file)
}

fn encode_header(sequence: u32, identity: u64, bytes: u64) -> [u8; SECTOR_BYTES] {
    let mut header = [0; SECTOR_BYTES];
    header[0..16].copy_from_slice(MAGIC);
    header[16..20].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[24..28].copy_from_slice(&sequence.to_le_bytes());
    header[32..40].copy_from_slice(&identity.to_le_bytes());
    header[40..48].copy_from_slice(&bytes.to_le_bytes());
    let checksum = header_checksum(&header);
    header[20..24].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Covers the header but the checksum itself. Magic, version and checksum keep their places in every version.
fn header_checksum(header: &[u8; SECTOR_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..20]);
    hasher.update(&header[24..]);
    hasher.finalize()
}
