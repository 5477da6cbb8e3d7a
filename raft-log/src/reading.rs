//! Looking at a log without holding it: another process may have it open and go on writing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{LogError, OpenError};
use crate::index::{Index, Place};
use crate::ledger::Ledger;
use crate::log::Record;
use crate::recovery;
use crate::segment::Segment;

/// Records are read from the disk this many bytes at a time, or one at a time where they are larger.
const READ_BYTES: usize = 1024 * 1024;

/// How often to begin again when segments are given away while they are opened.
const ATTEMPTS: usize = 10;

/// A log as it stood at one moment. Nothing is repaired, refused or changed for it.
///
/// It ends with the last batch that was complete then: what is being written behind it is not looked at.
/// Its records can be read for as long as they are not purged and their file is not written anew.
pub struct LogView {
    segments: BTreeMap<u32, Arc<Segment>>,
    located: Index,
    ledger: Ledger,
}

impl LogView {
    /// Looks at a directory.
    ///
    /// # Errors
    /// When it cannot be read, or is no log.
    pub fn open(disk: &dyn Disk) -> Result<Self, OpenError> {
        let mut attempt = 1;
        loop {
            let names = recovery::segments(disk)?;
            match Self::of(disk, &names) {
                Ok(view) => return Ok(view),
                // A purge may have taken a segment away in between, and then the names differ.
                Err(error) if attempt == ATTEMPTS || recovery::segments(disk)? == names => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    fn of(disk: &dyn Disk, names: &[u32]) -> Result<Self, OpenError> {
        let segments = names.iter().map(|sequence| Ok(Arc::new(Segment::open(disk, *sequence)?)));
        let segments = segments.collect::<Result<Vec<_>, OpenError>>()?;
        let (ledger, located) = if segments.is_empty() { Default::default() } else { recovery::fold(&segments)? };
        let segments = segments.into_iter().map(|segment| (segment.sequence(), segment)).collect();
        Ok(Self { segments, located, ledger })
    }

    /// The committed position that was last written.
    pub fn committed(&self) -> Option<Bytes> {
        self.ledger.committed.clone()
    }

    /// Hands every record to `take`, oldest first; the first error ends it.
    ///
    /// # Errors
    /// When a record cannot be read, or `take` fails.
    pub fn records<E: From<LogError>>(&self, mut take: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        let mut waiting = Waiting { segment: 0, places: Vec::new(), bytes: 0 };
        for (segment, index, place) in self.located.from(0) {
            if segment != waiting.segment || waiting.bytes >= READ_BYTES {
                self.read(&mut waiting, &mut take)?;
                waiting.segment = segment;
            }
            waiting.bytes += place.payload_bytes as usize;
            waiting.places.push((index, place));
        }
        self.read(&mut waiting, &mut take)
    }

    fn read<E: From<LogError>>(
        &self,
        waiting: &mut Waiting,
        take: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut records = Vec::with_capacity(waiting.places.len());
        if let Some(segment) = self.segments.get(&waiting.segment) {
            segment.read_records(&waiting.places, &mut records)?;
        }
        waiting.places.clear();
        waiting.bytes = 0;
        records.into_iter().try_for_each(take)
    }
}

/// Records of one segment that are to be read together.
struct Waiting {
    segment: u32,
    places: Vec<(u64, Place)>,
    bytes: usize,
}
