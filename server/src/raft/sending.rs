//! Sends a checkpoint to a peer: what it does not have yet, no faster than it may, and never more at once than a few
//! pieces.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join;
use mainstay_proto::mainstay as wire;
use mainstay_proto::mainstay::snapshot_part::{Chunk, Part};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::checksum;
use super::codec::CodecError;
use super::departures::Departure;
use super::network::Client;
use super::standstill::Passage;
use super::throttle::Throttle;
use crate::engine::Checksum;
use crate::env::{blocking, clock, probe};
use crate::metrics::PeerMetrics;

/// How long a peer may take to say what it has: it may be installing what another leader has sent.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Pieces that are read before the peer has taken those before them.
const PIECES_AHEAD: usize = 2;

/// Why a snapshot was not sent.
#[derive(Debug)]
pub(super) enum NotSent {
    /// The peer refused it, or was not reached.
    Peer(Status),
    /// It cannot be read here.
    Checkpoint(String),
}

impl std::fmt::Display for NotSent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(status) => formatter.write_str(status.message()),
            Self::Checkpoint(reason) => formatter.write_str(reason),
        }
    }
}

/// What is sent to one peer, and how fast.
pub(super) struct Sending<'a> {
    pub(super) departure: &'a Departure,
    pub(super) throttle: &'a Throttle,
    pub(super) peer: &'a PeerMetrics,
    /// The peer's id.
    pub(super) target: u64,
    /// Is told what was handed over.
    pub(super) passage: &'a Passage,
}

impl Sending<'_> {
    /// Sends the checkpoint behind a head, in which the files are still missing, and its checksum.
    pub(super) async fn send(
        &self,
        mut client: Client,
        head: wire::SnapshotHead,
    ) -> Result<wire::SnapshotResponse, NotSent> {
        let request = wire::SnapshotKeptRequest { cluster_id: head.cluster_id, vote: head.vote, crc32: None };
        let kept = ask(&mut client, request).await.map_err(NotSent::Peer)?;
        self.departure.has_begun();
        let began = clock::now();
        let files = self.leave_out(kept).await.map_err(NotSent::Checkpoint)?;
        let size: u64 = files.iter().map(|file| file.size).sum();
        let resumed: u64 = files.iter().filter(|file| file.kept.is_some()).map(|file| file.size).sum();
        tracing::info!(
            "remote-peer-id" = format!("{:x}", self.target),
            "snapshot-index" = self.departure.position().log_id.map(|log_id| log_id.index),
            bytes = size,
            files = files.len(),
            "resumed-bytes" = resumed,
            "sending database snapshot"
        );
        let head = wire::SnapshotHead { files, ..head };
        let head = wire::SnapshotHead { crc32: Some(checksum::of_head(&head)), ..head };
        let (parts_tx, parts_rx) = mpsc::channel(PIECES_AHEAD);
        let send = client.install_snapshot(ReceiverStream::new(parts_rx));
        let (response, read) = join(send, self.read(head, parts_tx)).await;
        // A peer that takes no more has said why; one that says it has all need not have been sent all.
        let response = match (response, read) {
            (Ok(response), _) => response.into_inner(),
            (Err(_), Err(reason)) => return Err(NotSent::Checkpoint(reason)),
            (Err(status), Ok(())) => return Err(NotSent::Peer(status)),
        };
        if response.crc32.is_some_and(|sent| sent != checksum::of_snapshot_response(&response)) {
            return Err(NotSent::Peer(damaged()));
        }
        tracing::info!(
            "remote-peer-id" = format!("{:x}", self.target),
            bytes = size,
            "resumed-bytes" = resumed,
            took = ?clock::elapsed(began),
            "sent database snapshot"
        );
        Ok(response)
    }

    /// The files of the checkpoint; those that the peer has are marked.
    async fn leave_out(&self, kept: Vec<wire::SnapshotFile>) -> Result<Vec<wire::SnapshotFile>, String> {
        let kept: BTreeMap<String, wire::SnapshotFile> =
            kept.into_iter().map(|file| (file.name.clone(), file)).collect();
        let mut files = Vec::new();
        for (name, size) in self.departure.checkpoint().files() {
            let theirs = kept.get(&name).filter(|file| file.size == size).and_then(|file| file.kept);
            let is_same = match theirs {
                None => false,
                // Wrong where it is broken: files of other leaders have the same names.
                Some(_) if probe::broken("file-resumed-by-its-name") => true,
                Some(theirs) => self.checksum(&name, size).await? == theirs,
            };
            files.push(wire::SnapshotFile { name, size, kept: theirs.filter(|_| is_same) });
        }
        Ok(files)
    }

    /// The checksum of a file, which is read for it where that was not done yet.
    async fn checksum(&self, name: &str, size: u64) -> Result<u64, String> {
        let checkpoint = self.departure.checkpoint();
        if let Some(known) = checkpoint.known_checksum(name) {
            return Ok(known);
        }
        let mut checksum = Checksum::default();
        let mut offset = 0;
        while offset < size {
            let data = self.piece(name, offset, size).await?;
            checksum.add(&data);
            offset += data.len() as u64;
        }
        checkpoint.learn_checksum(name, checksum.value());
        Ok(checksum.value())
    }

    /// Reads the next piece of a file of this size when its turn has come.
    async fn piece(&self, name: &str, offset: u64, size: u64) -> Result<bytes::Bytes, String> {
        let bytes = usize::try_from(size - offset).unwrap_or(usize::MAX).min(self.throttle.piece_bytes());
        self.throttle.take(bytes).await;
        let (source, name) = (self.departure.checkpoint().clone(), name.to_owned());
        let data = blocking(move || source.read(&name, offset, bytes)).await.map_err(|error| error.to_string())?;
        if data.is_empty() {
            return Err("a file of the checkpoint is shorter than announced".to_owned());
        }
        Ok(data)
    }

    /// Reads what the peer does not have and hands it over part by part; the channel's bound is the back-pressure. Ends
    /// early where the peer takes no more, which says why itself.
    async fn read(&self, head: wire::SnapshotHead, parts: mpsc::Sender<wire::SnapshotPart>) -> Result<(), String> {
        let files = head.files.clone();
        if parts.send(wire::SnapshotPart { part: Some(Part::Head(head)) }).await.is_err() {
            return Ok(());
        }
        for (number, file) in (0u32..).zip(files) {
            if file.kept.is_some() {
                continue;
            }
            let mut checksum = Checksum::default();
            let mut offset = 0;
            while offset < file.size {
                let data = self.piece(&file.name, offset, file.size).await?;
                checksum.add(&data);
                let bytes = data.len() as u64;
                let chunk = Chunk { file: number, offset, crc32: crc32fast::hash(&data), data };
                if parts.send(wire::SnapshotPart { part: Some(Part::Chunk(chunk)) }).await.is_err() {
                    return Ok(());
                }
                offset += bytes;
                self.peer.sent_bytes.inc_by(bytes);
                self.peer.snapshot_sent_bytes.inc_by(bytes);
                self.passage.handed_over(bytes);
            }
            // So that it need not be read again where the peer kept it.
            self.departure.checkpoint().learn_checksum(&file.name, checksum.value());
        }
        Ok(())
    }
}

fn damaged() -> Status {
    Status::data_loss(CodecError::Checksum.to_string())
}

/// Asks a peer for the files that it has from an earlier try.
async fn ask(client: &mut Client, request: wire::SnapshotKeptRequest) -> Result<Vec<wire::SnapshotFile>, Status> {
    let request = wire::SnapshotKeptRequest { crc32: Some(checksum::of_kept_request(&request)), ..request };
    match clock::timeout(ANSWER_WITHIN, client.snapshot_kept(request)).await {
        Ok(Ok(response)) => {
            let response = response.into_inner();
            let is_damaged = response.crc32.is_some_and(|sent| sent != checksum::of_kept_response(&response));
            if is_damaged { Err(damaged()) } else { Ok(response.files) }
        }
        // An older release, which begins anew each time.
        Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(Vec::new()),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}
