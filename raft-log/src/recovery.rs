//! Opening a directory: scan what is there, cut what was never acknowledged, refuse what is damaged.
//!
//! `docs/format.md` says what the rules are and why they suffice.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{SECTOR_BYTES, Sector, Stamp, content, inspect, sequence_of};
use crate::disk::Disk;
use crate::error::{Damage, LogError, OpenError};
use crate::index::Index;
use crate::ledger::Ledger;
use crate::options::Options;
use crate::probe;
use crate::record::Frame;
use crate::segment::{HEADER_SECTORS, Segment, UNFINISHED_NAME, place, segment_name, spare_name};

/// Sectors are read this many at a time, or more where one batch is larger.
const WINDOW_SECTORS: u32 = 2 * 1024 * 1024 / SECTOR_BYTES as u32;

const ROTTEN: &str = "a sector fails its checksum, and no crash leaves it so";

/// An opened directory.
pub(crate) struct Recovered {
    pub(crate) ledger: Ledger,
    pub(crate) located: Index,
    /// The segments that hold batches, oldest first.
    pub(crate) written: Vec<Arc<Segment>>,
    /// The sector at which the last of them goes on.
    pub(crate) next_sector: u32,
    /// The segments made ready after them.
    pub(crate) ready: VecDeque<Arc<Segment>>,
    /// Names of files to be written again.
    pub(crate) spares: VecDeque<String>,
    pub(crate) next_batch: u64,
    pub(crate) identity: u64,
}

/// Opens a directory, repairing what a crash left unfinished. What it returns is durable.
pub(crate) fn recover(disk: &dyn Disk, options: &Options) -> Result<Recovered, OpenError> {
    let names = Names::list(disk)?;
    let mut segments = Vec::new();
    for sequence in &names.segments {
        segments.push(Arc::new(Segment::open(disk, *sequence)?));
    }
    let identity = check_identity(&segments, options.identity)?;
    let spares = names.keep_spares(disk, options, segments.is_empty())?;
    if segments.is_empty() {
        segments.push(Arc::new(Segment::make(disk, 1, identity, options.segment_bytes, None)?));
    }
    let mut scan = Scan::default();
    scan.segments(&segments)?;
    let ready = segments.split_off(scan.written);
    scan.settle(&segments, &ready)?;
    scan.check_complete(&segments)?;
    Ok(Recovered {
        ledger: scan.ledger,
        located: scan.located,
        written: segments,
        next_sector: scan.next_sector,
        ready: ready.into(),
        spares,
        next_batch: scan.next_batch.unwrap_or(1),
        identity,
    })
}

/// Looks whether a newer version wrote the log in a directory, and changes nothing; for who has more to open than a log.
///
/// # Errors
/// When one did, or a header cannot be read. [`RaftLog::open`](crate::RaftLog::open) would fail with the same.
pub fn check_version(disk: &dyn Disk) -> Result<(), OpenError> {
    segments(disk)?.into_iter().try_for_each(|sequence| Segment::open(disk, sequence).map(drop))
}

/// Folds the batches of segments as far as they are complete, and changes nothing.
pub(crate) fn fold(segments: &[Arc<Segment>]) -> Result<(Ledger, Index), OpenError> {
    let mut scan = Scan::default();
    scan.segments(segments)?;
    Ok((scan.ledger, scan.located))
}

/// The sequence numbers of the segments of a directory, rising.
pub(crate) fn segments(disk: &dyn Disk) -> Result<Vec<u32>, OpenError> {
    let names = disk.list().map_err(|error| LogError::io("list", "the directory", &error))?;
    let mut found: Vec<u32> = names
        .iter()
        .map(|name| (name, sequence(name)))
        .filter(|(name, n)| **name == segment_name(*n))
        .map(|(_, n)| n)
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The number in a file's name; 0 where there is none.
fn sequence(name: &str) -> u32 {
    name.split_once('.').and_then(|(digits, _)| digits.parse().ok()).unwrap_or(0)
}

/// What the directory lists.
struct Names {
    segments: Vec<u32>,
    spares: Vec<u32>,
}

impl Names {
    fn list(disk: &dyn Disk) -> Result<Self, OpenError> {
        let failed = |error| LogError::io("list", "the directory", &error);
        let mut names = Self { segments: Vec::new(), spares: Vec::new() };
        for name in disk.list().map_err(failed)? {
            let sequence = sequence(&name);
            if name == UNFINISHED_NAME {
                disk.remove(&name).map_err(|error| LogError::io("remove", &name, &error))?;
            } else if name == segment_name(sequence) {
                names.segments.push(sequence);
            } else if name == spare_name(sequence) {
                names.spares.push(sequence);
            }
        }
        // A name may have been seen that no crash would find again.
        disk.sync_dir().map_err(|error| LogError::io("sync", "the directory", &error))?;
        names.segments.sort_unstable();
        if let Some(pair) = names.segments.windows(2).find(|pair| pair[1] != pair[0] + 1) {
            let what = "the segment is missing".to_owned();
            return Err(OpenError::Damaged(Damage { file: segment_name(pair[0] + 1), offset: 0, what }));
        }
        Ok(names)
    }

    /// Removes the spares that are of no use. One that is not older than every segment could pass its
    /// old content off as new; none of ours is, unless somebody removed segments.
    fn keep_spares(&self, disk: &dyn Disk, options: &Options, no_segments: bool) -> Result<VecDeque<String>, LogError> {
        let oldest = if no_segments { 0 } else { self.segments[0] };
        let mut kept = VecDeque::new();
        for sequence in &self.spares {
            let name = spare_name(*sequence);
            let size =
                disk.open(&name).and_then(|file| file.size()).map_err(|error| LogError::io("open", &name, &error))?;
            if *sequence < oldest && size == options.segment_bytes && kept.len() < options.keep_recycled {
                kept.push_back(name);
            } else {
                disk.remove(&name).map_err(|error| LogError::io("remove", &name, &error))?;
            }
        }
        Ok(kept)
    }
}

fn check_identity(segments: &[Arc<Segment>], expected: u64) -> Result<u64, OpenError> {
    let mut adopted = expected;
    for segment in segments {
        let found = segment.identity();
        if found != 0 && adopted != 0 && found != adopted {
            return Err(OpenError::WrongIdentity { file: segment.name().to_owned(), found, expected: adopted });
        }
        adopted = if adopted == 0 { found } else { adopted };
    }
    Ok(adopted)
}

/// The walk over all batches, oldest first.
#[derive(Default)]
struct Scan {
    ledger: Ledger,
    located: Index,
    /// The number of the batch that is to come; unknown before the first of a log whose oldest segments are gone.
    next_batch: Option<u64>,
    /// How many of the segments hold batches.
    written: usize,
    /// Where the last of these goes on.
    next_sector: u32,
    /// The sectors of the last batch.
    last_batch: Range<u32>,
    content: Vec<u8>,
}

impl Scan {
    /// Folds every complete batch, until the first one that is not.
    fn segments(&mut self, segments: &[Arc<Segment>]) -> Result<(), OpenError> {
        let begins_here = segments[0].sequence() == 1;
        self.next_batch = begins_here.then_some(1);
        for segment in segments {
            let mut window = Window::new(segment);
            let mut at = HEADER_SECTORS;
            while let Some(stamp) = self.complete_batch(&mut window, at)? {
                self.fold(segment, at)?;
                self.last_batch = at..at + stamp.batch_sectors();
                at = self.last_batch.end;
                self.next_batch = Some(stamp.batch + 1);
            }
            if at == HEADER_SECTORS {
                break;
            }
            self.written += 1;
            self.next_sector = at;
        }
        if self.written == 0 && !begins_here {
            return Err(damaged(&segments[0], HEADER_SECTORS, "the oldest segment's first batch is not valid"));
        }
        Ok(())
    }

    /// Gathers the content of the batch at a sector, if it is the one to come and all of it is there.
    fn complete_batch(&mut self, window: &mut Window<'_>, at: u32) -> Result<Option<Stamp>, OpenError> {
        self.content.clear();
        if at >= window.segment.sectors() {
            return Ok(None);
        }
        let Sector::Own(stamp) = window.inspect(at)? else {
            return Ok(None);
        };
        let expected = self.next_batch.is_none_or(|next| next == stamp.batch);
        let room = window.segment.sectors() - at;
        if !expected || stamp.place != 0 || stamp.batch_sectors() > room {
            return Ok(None);
        }
        let sequence = window.segment.sequence();
        let sectors = window.sectors(at, stamp.batch_sectors())?;
        for (place, sector) in (0..).zip(sectors.chunks_exact(SECTOR_BYTES)) {
            if inspect(sector, at + place, sequence) != Sector::Own(Stamp { place, ..stamp }) {
                return Ok(None);
            }
            self.content.extend_from_slice(content(sector));
        }
        self.content.truncate(stamp.content_bytes as usize);
        Ok(Some(stamp))
    }

    fn fold(&mut self, segment: &Segment, batch_sector: u32) -> Result<(), OpenError> {
        let damaged = |what: String| damaged(segment, batch_sector, what);
        if batch_sector == HEADER_SECTORS && !self.opens_segment(segment) {
            return Err(damaged("a segment does not begin with its head".to_owned()));
        }
        let mut begin = 0;
        while begin < self.content.len() {
            let frame =
                Frame::decode(segment.seed(), &self.content[begin..]).map_err(|error| damaged(error.to_string()))?;
            self.ledger.apply(segment.sequence(), &frame).map_err(|what| damaged(what.to_owned()))?;
            match frame {
                Frame::Record { position, payload } => {
                    let place = place(batch_sector, begin, payload.len());
                    self.located.push(segment.sequence(), position.index, position.term, place);
                }
                Frame::Purge(position) => self.located.purge(position.index),
                Frame::Truncate { last } => self.located.truncate(last.index + 1),
                Frame::Clear => self.located.truncate(0),
                Frame::Start | Frame::Continue { .. } | Frame::Vote(_) | Frame::Committed(_) => {}
            }
            begin += frame.bytes();
        }
        Ok(())
    }

    fn opens_segment(&self, segment: &Segment) -> bool {
        matches!(Frame::decode(segment.seed(), &self.content), Ok(Frame::Start | Frame::Continue { .. }))
    }

    /// Decides on what stands after the last complete batch: nothing, an unfinished batch, which is
    /// cut, or damage. Then makes the end of the log durable, since it may have been read from a
    /// cache that a crash would lose.
    fn settle(&mut self, written: &[Arc<Segment>], ready: &[Arc<Segment>]) -> Result<(), OpenError> {
        let end = written.last().map(|segment| (segment, self.next_sector));
        let heads = ready.iter().map(|segment| (segment, HEADER_SECTORS));
        let next_batch = self.next_batch.unwrap_or(1);
        let mut torn = None;
        let mut rotten = None;
        for (nth, (segment, from)) in end.into_iter().chain(heads).enumerate() {
            let rest = Rest::survey(segment, from, next_batch)?;
            if let Some((sector, stamp)) = rest.later {
                probe::reached("log-rot-found");
                if probe::broken("rot-taken-for-the-end") {
                    // Wrong: a batch that was acknowledged and has rotted since, and all after it, is
                    // taken for one that a crash left unfinished.
                    continue;
                }
                let (culprit, at) = self.missing_batch_place(end, ready, nth, sector.saturating_sub(stamp.place));
                let what = format!(
                    "batch {next_batch} is not complete here, but a later one was begun in {} at offset {}",
                    segment.name(),
                    u64::from(sector) * SECTOR_BYTES as u64,
                );
                return Err(damaged(culprit, at, what));
            }
            // Only the end of the log and the head of the segment after it may hold the unfinished batch.
            let may_hold = nth <= usize::from(end.is_some());
            match rest.unfinished {
                Some(_) if !may_hold || torn.is_some() => {
                    return Err(damaged(segment, from, "an unfinished batch where none can be"));
                }
                Some(sectors) => {
                    // The batch to come is here, so nothing of worth can have stood before.
                    rotten = None;
                    torn = Some((segment, sectors));
                }
                None if rest.rotten_begin && may_hold => rotten = rotten.or(Some((segment, from))),
                None => {}
            }
        }
        if let Some((segment, from)) = rotten {
            return Err(damaged(segment, from, ROTTEN));
        }
        if let Some((segment, sectors)) = torn {
            probe::reached("log-torn-tail-found");
            cut(segment, sectors)?;
        }
        if let Some(segment) = written.last() {
            self.write_last_batch_again(segment)?;
        }
        Ok(())
    }

    /// Where the batch to come must have stood, given a later one: at the end of the log, or, where
    /// that is not what the later one follows, at the head of the segment after it.
    fn missing_batch_place<'a>(
        &self,
        end: Option<(&'a Arc<Segment>, u32)>,
        ready: &'a [Arc<Segment>],
        later_segment: usize,
        later_begin: u32,
    ) -> (&'a Arc<Segment>, u32) {
        let first_ready = usize::from(end.is_some());
        let follows_end = later_segment == 0 || later_segment == first_ready && later_begin == HEADER_SECTORS;
        match (end, ready.first()) {
            (Some(end), Some(_)) if follows_end => end,
            (_, Some(head)) => (head, HEADER_SECTORS),
            (end, None) => end.expect("a batch stands in some segment"),
        }
    }

    /// After a failed sync the system may hold pages that it takes for clean and that are not on
    /// disk; only writing them again makes the next sync mean something.
    fn write_last_batch_again(&self, segment: &Segment) -> Result<(), OpenError> {
        let mut sectors = vec![0; self.last_batch.len() * SECTOR_BYTES];
        segment.read(self.last_batch.start, &mut sectors)?;
        segment.write(self.last_batch.start, &sectors)?;
        Ok(segment.sync()?)
    }

    /// Every record from the first to the last is there, or a segment of ours is gone.
    fn check_complete(&self, written: &[Arc<Segment>]) -> Result<(), OpenError> {
        if self.located.first() == self.ledger.first {
            return Ok(());
        }
        let oldest = written.first().expect("a ledger that is not empty was read somewhere");
        let from = self.ledger.first.unwrap_or(0);
        Err(damaged(oldest, 0, format!("records from index {from} on are missing: an earlier segment is gone")))
    }
}

/// What stands in a segment after its last complete batch.
struct Rest {
    /// A sector of a batch after the one to come: the one to come was acknowledged.
    later: Option<(u32, Stamp)>,
    /// The sectors of the batch to come, of which some are missing.
    unfinished: Option<Range<u32>>,
    /// Whether the first sector is neither written by us nor unwritten.
    rotten_begin: bool,
}

impl Rest {
    fn survey(segment: &Segment, from: u32, next_batch: u64) -> Result<Self, OpenError> {
        let mut rest = Self { later: None, unfinished: None, rotten_begin: false };
        let mut window = Window::new(segment);
        let sequence = segment.sequence();
        let mut at = from;
        while at < segment.sectors() {
            let count = WINDOW_SECTORS.min(segment.sectors() - at);
            let sectors = window.sectors(at, count)?;
            for (position, sector) in (at..).zip(sectors.chunks_exact(SECTOR_BYTES)) {
                // The sequence number alone tells most of what is not ours.
                if position != from && sequence_of(sector) != sequence {
                    continue;
                }
                match inspect(sector, position, sequence) {
                    Sector::Own(stamp) if stamp.batch > next_batch => {
                        rest.later = rest.later.or(Some((position, stamp)))
                    }
                    Sector::Own(stamp) => rest.note(segment, from, position, stamp, next_batch)?,
                    Sector::Rotten if position == from => rest.rotten_begin = true,
                    Sector::Rotten | Sector::Unwritten => {}
                }
            }
            at += count;
        }
        if let Some(unfinished) = rest.unfinished.clone() {
            rest.check_unfinished(&mut window, unfinished)?;
        }
        Ok(rest)
    }

    fn note(
        &mut self,
        segment: &Segment,
        from: u32,
        position: u32,
        stamp: Stamp,
        next_batch: u64,
    ) -> Result<(), OpenError> {
        let range = from..from.saturating_add(stamp.batch_sectors());
        let in_place = position.checked_sub(stamp.place) == Some(from) && range.end <= segment.sectors();
        let agrees = self.unfinished.as_ref().is_none_or(|before| *before == range);
        if stamp.batch != next_batch || !in_place || !agrees {
            return Err(damaged(segment, position, format!("a sector of batch {} where none can be", stamp.batch)));
        }
        self.unfinished = Some(range);
        Ok(())
    }

    /// A crash leaves of an unsynced batch each sector as it was before or as it was written.
    fn check_unfinished(&self, window: &mut Window<'_>, unfinished: Range<u32>) -> Result<(), OpenError> {
        // A later batch decides, whatever this one looks like.
        if self.later.is_some() {
            return Ok(());
        }
        for position in unfinished {
            if window.inspect(position)? == Sector::Rotten {
                return Err(damaged(window.segment, position, ROTTEN));
            }
        }
        Ok(())
    }
}

/// Removes what a crash left of a batch, durably, so that it can never be mixed with another.
fn cut(segment: &Segment, sectors: Range<u32>) -> Result<(), OpenError> {
    segment.write(sectors.start, &vec![0; sectors.len() * SECTOR_BYTES])?;
    Ok(segment.sync()?)
}

fn damaged(segment: &Segment, sector: u32, what: impl Into<String>) -> OpenError {
    OpenError::Damaged(segment.damage(sector, what))
}

/// Reads a segment in large pieces.
struct Window<'a> {
    segment: &'a Segment,
    first: u32,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment) -> Self {
        Self { segment, first: 0, bytes: Vec::new() }
    }

    fn inspect(&mut self, position: u32) -> Result<Sector, OpenError> {
        let sequence = self.segment.sequence();
        Ok(inspect(self.sectors(position, 1)?, position, sequence))
    }

    fn sectors(&mut self, first: u32, count: u32) -> Result<&[u8], OpenError> {
        let held = (self.bytes.len() / SECTOR_BYTES) as u32;
        if first < self.first || first + count > self.first + held {
            let ahead = WINDOW_SECTORS.min(self.segment.sectors() - first);
            self.bytes.resize(count.max(ahead) as usize * SECTOR_BYTES, 0);
            self.first = first;
            self.segment.read(first, &mut self.bytes)?;
        }
        let begin = (first - self.first) as usize * SECTOR_BYTES;
        Ok(&self.bytes[begin..begin + count as usize * SECTOR_BYTES])
    }
}
