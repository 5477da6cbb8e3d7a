//! Receives snapshots: one at a time, from the newest leader, file by file.
//!
//! A file that arrived whole stays when the transfer breaks off or this process ends, and is not sent again as long as
//! the sender has one with the same name, size and checksum. It is read once more before it is installed. What is left
//! of a transfer that nobody goes on with is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::snapshot_part::{Chunk, Part};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};
use tonic::{Status, Streaming};

use crate::engine::{Batch, Checksum, Engine, EngineError, EngineHome, StagedFile, Staging};
use crate::env::clock::{self, Instant};
use crate::env::{blocking, probe};
use crate::metrics::PeerMetrics;

/// For how long the files of a transfer that broke off wait for the next one.
const KEPT: Duration = Duration::from_secs(600);

/// Where the snapshots of one member come in.
pub(crate) struct Receiving {
    home: Arc<dyn EngineHome>,
    /// Whoever holds it may touch what is staged.
    place: Arc<tokio::sync::Mutex<()>>,
    /// Who was let in last.
    newest: watch::Sender<Newest>,
    /// A leaf lock.
    left: Mutex<Left>,
}

/// A sender that was let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Newest {
    /// Of the leader that sends.
    term: u64,
    /// How many were let in.
    number: u64,
}

/// What may be left of earlier transfers.
struct Left {
    /// Whether there may be anything. An earlier process may have left something.
    some: bool,
    /// Up to which entry the last snapshot went; nothing where that is not known.
    index: Option<u64>,
    /// When somebody was here last.
    at: Instant,
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Receiving {
    pub(super) fn new(home: Arc<dyn EngineHome>) -> Self {
        let left = Mutex::new(Left { some: true, index: None, at: clock::now() });
        Self { home, place: Arc::default(), newest: watch::Sender::new(Newest::default()), left }
    }

    /// Lets the leader of a term in, and makes whoever is here give up: an earlier leader, or this one's connection that
    /// was lost. Refuses an earlier leader than the last one.
    pub(super) async fn enter(&self, term: u64) -> Result<Turn, Status> {
        let mut number = None;
        self.newest.send_if_modified(|newest| {
            if newest.term <= term {
                *newest = Newest { term, number: newest.number + 1 };
                number = Some(newest.number);
            }
            number.is_some()
        });
        let Some(number) = number else {
            return Err(Status::aborted("a later leader sends a snapshot"));
        };
        let place = self.place.clone().lock_owned().await;
        let turn = Turn { home: self.home.clone(), place, number, newest: self.newest.subscribe() };
        if turn.newest.borrow().number != number {
            return Err(superseded());
        }
        *self.left.lock() = Left { some: true, index: None, at: clock::now() };
        Ok(turn)
    }

    /// Notes what the snapshot that comes is good for.
    pub(super) fn brings(&self, index: u64) {
        self.left.lock().index = Some(index);
    }

    /// Removes what an earlier transfer left, where it is of no more use: nobody went on with it for long, or this
    /// member got as far in another way.
    pub(super) async fn tidy(&self, applied: u64) {
        {
            let left = self.left.lock();
            let is_behind = left.index.is_none_or(|index| applied < index);
            if !left.some || (is_behind && clock::elapsed(left.at) < KEPT) {
                return;
            }
        }
        let Ok(place) = self.place.clone().try_lock_owned() else {
            // Somebody goes on with it at this very moment.
            self.left.lock().at = clock::now();
            return;
        };
        let home = self.home.clone();
        let removed = blocking(move || {
            let removed = home.unstage();
            drop(place);
            removed
        });
        match removed.await {
            Ok(removed) => {
                self.left.lock().some = false;
                if removed {
                    probe::reached("staged-files-given-up");
                    tracing::info!("removed what was received of a snapshot that is not needed any more");
                }
            }
            Err(error) => tracing::warn!(%error, "what was received of a snapshot cannot be removed"),
        }
    }
}

fn superseded() -> Status {
    Status::aborted("another snapshot came in between")
}

/// The right to touch what is staged.
pub(super) struct Turn {
    home: Arc<dyn EngineHome>,
    place: OwnedMutexGuard<()>,
    number: u64,
    newest: watch::Receiver<Newest>,
}

impl Turn {
    /// The files that are here whole.
    pub(super) async fn kept(self) -> Result<Vec<wire::SnapshotFile>, Status> {
        let (staged, _) = self.stage().await?;
        let (_, files) = staged.with(|staging| staging.whole()).await;
        let kept =
            |file: StagedFile| wire::SnapshotFile { name: file.name, size: file.size, kept: Some(file.checksum) };
        Ok(files.into_iter().map(kept).collect())
    }

    async fn stage(self) -> Result<(Staged, Succession), Status> {
        let Self { home, place, number, newest } = self;
        // Whatever becomes of the caller: the place is free when the call has ended.
        let staged = blocking(move || home.stage().map(|staging| Staged { staging, place })).await.map_err(failed)?;
        Ok((staged, Succession { number, newest }))
    }
}

/// Whether somebody else was let in.
struct Succession {
    number: u64,
    newest: watch::Receiver<Newest>,
}

impl Succession {
    /// Waits for something, unless somebody else is let in first.
    async fn unless_superseded<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Status> {
        let Self { number, newest } = self;
        let other = std::pin::pin!(async {
            newest.wait_for(|newest| newest.number != *number).await.map(drop).unwrap_or_default();
        });
        match select(std::pin::pin!(wait), other).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right(_) => {
                probe::reached("snapshot-superseded");
                Err(superseded())
            }
        }
    }
}

/// What is staged, in the hands of the one who may touch it.
pub struct Staged {
    staging: Box<dyn Staging>,
    place: OwnedMutexGuard<()>,
}

impl Staged {
    /// Does something that may take its time. A caller that is dropped meanwhile leaves it to its end, and nobody else
    /// touches what is staged before that.
    async fn with<T, F>(mut self, act: F) -> (Self, T)
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Staging) -> T + Send + 'static,
    {
        blocking(move || {
            let outcome = act(&mut *self.staging);
            (self, outcome)
        })
        .await
    }

    /// Puts it in the place of the state; see [`Staging::commit`].
    pub(super) fn commit(self, own: Batch) -> Result<Arc<dyn Engine>, EngineError> {
        let Self { staging, place } = self;
        let engine = staging.commit(own);
        drop(place);
        engine
    }
}

/// How a transfer gets on. One that is dropped before it has arrived is told of.
pub(super) struct Arrival<'a> {
    from: &'a PeerMetrics,
    sender: String,
    began: Instant,
    /// Bytes of the whole.
    size: u64,
    /// Bytes that were here already.
    resumed: u64,
    received: u64,
    /// Why it failed; nothing where the sender is gone.
    error: Option<String>,
    has_arrived: bool,
}

impl<'a> Arrival<'a> {
    /// A transfer from the member of this id.
    pub(super) fn begin(sender: u64, from: &'a PeerMetrics, files: &[wire::SnapshotFile]) -> Self {
        let sender = format!("{sender:x}");
        let bytes = |sum: u64, file: &wire::SnapshotFile| sum.saturating_add(file.size);
        let size = files.iter().fold(0, bytes);
        let resumed = files.iter().filter(|file| file.kept.is_some()).fold(0, bytes);
        from.snapshot_resumed_bytes.inc_by(resumed);
        tracing::info!(
            "remote-snapshot-sender-id" = sender,
            "incoming-snapshot-size-bytes" = size,
            "resumed-bytes" = resumed,
            "receiving database snapshot"
        );
        let began = clock::now();
        Self { from, sender, began, size, resumed, received: 0, error: None, has_arrived: false }
    }

    fn came(&mut self, bytes: usize) {
        self.received += bytes as u64;
        self.from.received_bytes.inc_by(bytes as u64);
        self.from.snapshot_received_bytes.inc_by(bytes as u64);
    }

    /// How long it took.
    pub(super) fn ends(mut self) -> Duration {
        self.has_arrived = true;
        let took = clock::elapsed(self.began);
        tracing::info!(
            "remote-snapshot-sender-id" = self.sender,
            "incoming-snapshot-size-bytes" = self.size,
            "received-bytes" = self.received,
            "resumed-bytes" = self.resumed,
            ?took,
            "received and saved database snapshot"
        );
        took
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if !self.has_arrived {
            tracing::warn!(
                "remote-snapshot-sender-id" = self.sender,
                "incoming-snapshot-size-bytes" = self.size,
                "received-bytes" = self.received,
                "resumed-bytes" = self.resumed,
                error = self.error.as_deref().unwrap_or("the sender is gone"),
                "a snapshot was not received whole"
            );
        }
    }
}

/// Writes the files of a snapshot as they come, after those that are here; every byte is checked, and every file must be
/// whole.
pub(super) async fn receive(
    turn: Turn,
    files: Vec<wire::SnapshotFile>,
    parts: Streaming<wire::SnapshotPart>,
    arrival: &mut Arrival<'_>,
) -> Result<Staged, Status> {
    let received = receive_files(turn, files, parts, arrival).await;
    if let Err(status) = &received {
        arrival.error = Some(status.message().to_owned());
    }
    received
}

async fn receive_files(
    turn: Turn,
    files: Vec<wire::SnapshotFile>,
    mut parts: Streaming<wire::SnapshotPart>,
    arrival: &mut Arrival<'_>,
) -> Result<Staged, Status> {
    let names = files.iter().map(|file| file.name.as_str()).collect::<BTreeSet<&str>>().len();
    if names != files.len() {
        return Err(Status::invalid_argument("a file is announced twice"));
    }
    let (mut staged, mut succession) = turn.stage().await?;
    let kept: Vec<wire::SnapshotFile> = files.iter().filter(|file| file.kept.is_some()).cloned().collect();
    let (back, is_here) = staged.with(move |staging| keep(staging, &kept)).await;
    staged = back;
    is_here?;
    for (number, file) in (0u32..).zip(&files) {
        if file.kept.is_none() {
            staged = receive_file(staged, number, file, &mut parts, &mut succession, arrival).await?;
        }
    }
    if succession.unless_superseded(parts.message()).await??.is_some() {
        return Err(Status::invalid_argument("there is more than was announced"));
    }
    let mut rotten = Vec::new();
    for file in files {
        if file.kept.is_none() {
            continue;
        }
        probe::reached("snapshot-resumed");
        if probe::broken("resumed-file-not-verified") {
            continue; // wrong: it was whole when it came, and a disk forgets
        }
        let name = file.name.clone();
        let (back, is_same) = staged.with(move |staging| staging.verify(&name)).await;
        staged = back;
        if !is_same.map_err(failed)? {
            probe::reached("staged-file-rotten");
            rotten.push(file.name);
        }
    }
    if !rotten.is_empty() {
        return Err(Status::data_loss(format!("kept from an earlier try, and damaged since: {rotten:?}")));
    }
    Ok(staged)
}

/// Makes sure that these files are here, and forgets all others.
fn keep(staging: &mut dyn Staging, files: &[wire::SnapshotFile]) -> Result<(), Status> {
    let here: BTreeMap<String, StagedFile> =
        staging.whole().into_iter().map(|file| (file.name.clone(), file)).collect();
    for file in files {
        let is_here =
            here.get(&file.name).is_some_and(|here| (here.size, Some(here.checksum)) == (file.size, file.kept));
        if !is_here {
            return Err(Status::failed_precondition(format!("file {:?} is not here", file.name)));
        }
    }
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    staging.keep_only(&names).map_err(failed)
}

/// Writes one file as it comes.
async fn receive_file(
    mut staged: Staged,
    number: u32,
    file: &wire::SnapshotFile,
    parts: &mut Streaming<wire::SnapshotPart>,
    succession: &mut Succession,
    arrival: &mut Arrival<'_>,
) -> Result<Staged, Status> {
    let mut checksum = Checksum::default();
    let mut offset = 0;
    if file.size == 0 {
        staged = write(staged, file, 0, bytes::Bytes::new(), Some(checksum.value())).await?;
    }
    while offset < file.size {
        let Some(part) = succession.unless_superseded(parts.message()).await?? else {
            return Err(Status::data_loss(format!("file {:?}: {offset} of {} bytes arrived", file.name, file.size)));
        };
        let data = check(part, number, offset, file)?;
        let came = data.len();
        checksum.add(&data);
        let end = offset + came as u64;
        let whole = (end == file.size).then(|| checksum.value());
        staged = write(staged, file, offset, data, whole).await?;
        arrival.came(came);
        offset = end;
    }
    Ok(staged)
}

/// The content of the next part, where it is what has to come next.
fn check(
    part: wire::SnapshotPart,
    number: u32,
    offset: u64,
    file: &wire::SnapshotFile,
) -> Result<bytes::Bytes, Status> {
    let name = &file.name;
    let Some(Part::Chunk(Chunk { file: of, offset: at, crc32, data })) = part.part else {
        return Err(Status::invalid_argument("a snapshot has one head"));
    };
    if of != number || data.is_empty() {
        return Err(Status::invalid_argument(format!("file {name:?}: a part of file {of} with {} bytes", data.len())));
    }
    if at != offset || data.len() as u64 > file.size - offset {
        return Err(Status::data_loss(format!("file {name:?}: {} bytes at {at} where {offset} is due", data.len())));
    }
    if crc32fast::hash(&data) != crc32 {
        return Err(Status::data_loss(format!("file {name:?}: checksum mismatch at {offset}")));
    }
    Ok(data)
}

/// Writes bytes of a file; with its checksum, where they are its last ones.
async fn write(
    staged: Staged,
    file: &wire::SnapshotFile,
    offset: u64,
    data: bytes::Bytes,
    whole: Option<u64>,
) -> Result<Staged, Status> {
    let name = file.name.clone();
    let (staged, written) = staged
        .with(move |staging| {
            staging.write(&name, offset, &data)?;
            whole.map_or(Ok(()), |checksum| staging.finish(&name, checksum))
        })
        .await;
    written.map_err(failed)?;
    Ok(staged)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::engine::mem::MemHome;

    #[tokio::test]
    async fn the_newest_sender_is_let_in_and_whoever_is_there_gives_up() {
        let receiving = Receiving::new(Arc::new(MemHome::new()));
        let (staged, mut succession) = receiving.enter(2).await.unwrap().stage().await.unwrap();
        assert!(receiving.enter(1).await.is_err(), "an earlier leader");
        assert_eq!(succession.unless_superseded(std::future::ready(7)).await.unwrap(), 7);
        // The same leader again: it has lost its connection.
        let mut again = std::pin::pin!(receiving.enter(2));
        assert!(again.as_mut().now_or_never().is_none(), "the place is taken");
        let superseded = succession.unless_superseded(std::future::pending::<()>()).await;
        assert_eq!(superseded.unwrap_err().code(), tonic::Code::Aborted);
        drop(staged);
        let again = again.await.unwrap();
        // Two more come: the last one counts.
        let mut third = std::pin::pin!(receiving.enter(3));
        let mut fourth = std::pin::pin!(receiving.enter(4));
        assert!(third.as_mut().now_or_never().is_none() && fourth.as_mut().now_or_never().is_none());
        drop(again);
        assert!(third.await.is_err());
        assert!(fourth.await.unwrap().kept().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_left_is_removed_when_nobody_needs_it() {
        let home = MemHome::new();
        let mut staging = home.stage().unwrap();
        staging.write("a", 0, b"content").unwrap();
        staging.finish("a", Checksum::of(b"content")).unwrap();
        drop(staging);
        let receiving = Receiving::new(Arc::new(home.clone()));
        receiving.tidy(100).await;
        assert_eq!(home.staged().len(), 1, "nobody knows yet what it is good for");
        let kept = receiving.enter(1).await.unwrap().kept().await.unwrap();
        let expected = wire::SnapshotFile { name: "a".to_owned(), size: 7, kept: Some(Checksum::of(b"content")) };
        assert_eq!(kept, [expected]);
        receiving.brings(10);
        receiving.tidy(9).await;
        assert_eq!(home.staged().len(), 1, "it is still behind");
        let turn = receiving.enter(1).await.unwrap();
        receiving.brings(10);
        receiving.tidy(10).await;
        assert_eq!(home.staged().len(), 1, "somebody goes on with it");
        drop(turn);
        receiving.tidy(10).await;
        assert_eq!(home.staged(), []);
    }

    #[test]
    fn only_what_is_here_as_it_is_announced_is_kept() {
        let home = MemHome::new();
        let mut staging = home.stage().unwrap();
        for name in ["a", "b", "c"] {
            staging.write(name, 0, name.as_bytes()).unwrap();
            staging.finish(name, Checksum::of(name.as_bytes())).unwrap();
        }
        let announced = |name: &str, size, content: &str| wire::SnapshotFile {
            name: name.to_owned(),
            size,
            kept: Some(Checksum::of(content.as_bytes())),
        };
        for other in [announced("d", 1, "d"), announced("a", 2, "a"), announced("a", 1, "b")] {
            assert!(keep(&mut *staging, &[announced("b", 1, "b"), other]).is_err());
            assert_eq!(home.staged().len(), 3);
        }
        keep(&mut *staging, &[announced("b", 1, "b")]).unwrap();
        assert_eq!(home.staged().into_iter().map(|file| file.name).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_part_that_is_not_the_next_one_is_refused() {
        let file = wire::SnapshotFile { name: "a".to_owned(), size: 10, kept: None };
        let part = |of: u32, offset: u64, data: &'static [u8]| {
            let chunk = Chunk { file: of, offset, crc32: crc32fast::hash(data), data: data.into() };
            wire::SnapshotPart { part: Some(Part::Chunk(chunk)) }
        };
        assert_eq!(check(part(3, 4, b"456789"), 3, 4, &file).unwrap(), "456789");
        for wrong in [part(2, 4, b"4"), part(3, 5, b"5"), part(3, 4, b"456789x"), part(3, 4, b"")] {
            assert!(check(wrong, 3, 4, &file).is_err());
        }
        let chunk = Chunk { file: 3, offset: 4, crc32: 7, data: "4".into() };
        assert!(check(wire::SnapshotPart { part: Some(Part::Chunk(chunk)) }, 3, 4, &file).is_err());
        let head = wire::SnapshotPart { part: Some(Part::Head(wire::SnapshotHead::default())) };
        assert!(check(head, 3, 4, &file).is_err() && check(wire::SnapshotPart { part: None }, 3, 4, &file).is_err());
    }
}
