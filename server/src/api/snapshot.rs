//! The messages of `Maintenance.Snapshot`.

use std::sync::Arc;

use futures_util::stream;
use mainstay_proto::etcdserverpb::SnapshotResponse;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::admission::Part;
use crate::backup::{self, Blob, Receiver, SnapshotError};
use crate::config::version::{CLUSTER_VERSION, STORAGE_VERSION};
use crate::env::{self, Production, clock};
use crate::limits;
use crate::metrics::Metrics;
use crate::mvcc::Store;

/// Sends a database file of what the store holds now, which takes some room until it has been made and left. Who takes no
/// more messages ends it.
pub(super) fn responses(store: Store, metrics: Arc<Metrics>, room: Part) -> BoxStream<SnapshotResponse> {
    let began = clock::now();
    let room = Arc::new(room);
    let for_making = room.clone();
    let production = env::produce(limits::DATABASE_BLOBS_AHEAD, move |outlet| {
        // For as long as its thread is at work, which looks only now and then whether anybody takes more.
        let _room = for_making;
        let receiver = Receiver { send: &|blob| outlet.put(Ok(blob)), is_waiting: &|| outlet.is_wanted() };
        if let Err(error) = backup::stream(&store, CLUSTER_VERSION, &receiver) {
            outlet.put(Err(error));
        }
        metrics.disk.backend_snapshot_duration_seconds.observe(clock::elapsed(began).as_secs_f64());
    });
    Box::pin(stream::unfold(Some((production, room)), |state| async {
        let (production, room) = state?;
        let (item, rest) = next(production).await?;
        Some((item, rest.map(|production| (production, room))))
    }))
}

type Item = Result<SnapshotResponse, Status>;

/// The next message, and whence those after it come: nothing comes after the checksum or a failure.
async fn next(
    mut production: Production<Result<Blob, SnapshotError>>,
) -> Option<(Item, Option<Production<Result<Blob, SnapshotError>>>)> {
    match production.next().await {
        Some(Ok(blob)) => {
            if blob.is_checksum {
                tracing::info!("successfully sent database snapshot to client");
            }
            let rest = (!blob.is_checksum).then_some(production);
            Some((Ok(response(blob)), rest))
        }
        Some(Err(error)) => Some((Err(failed(&error.to_string())), None)),
        // An end without a checksum must not look like one.
        None => Some((Err(failed("it ended early")), None)),
    }
}

fn response(blob: Blob) -> SnapshotResponse {
    SnapshotResponse {
        header: None,
        remaining_bytes: blob.remaining,
        blob: blob.bytes,
        version: STORAGE_VERSION.to_owned(),
    }
}

fn failed(reason: &str) -> Status {
    tracing::warn!(reason, "failed to send database snapshot to client");
    Status::internal(format!("mainstay: the snapshot could not be made: {reason}"))
}
