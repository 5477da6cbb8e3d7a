//! Ends requests that would not end by themselves when the member stops.
//!
//! A watch is open for as long as its client wants. It is ended at once, so that the client goes on at another
//! member while this one lets all other requests come to their end.

use tokio::sync::watch;

use super::rpc::Rpc;

/// Whether the member stops.
#[derive(Debug, Default)]
pub struct Stopping(watch::Sender<bool>);

impl Stopping {
    /// Ends what does not end by itself, now and from now on.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Resolves when the member stops; never where it just vanishes.
    pub(super) fn begun(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.0.subscribe();
        async move {
            if stopping.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether a method may take as long as its client likes: streams but those that have an end, and waiting in a queue.
pub(super) fn is_endless(rpc: &Rpc) -> bool {
    match rpc.method {
        "RangeStream" | "Snapshot" => false,
        "Lock" | "Campaign" => true,
        _ => rpc.kind.is_stream(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RPCS;

    #[test]
    fn what_has_no_end_is_known() {
        let endless: Vec<_> = RPCS.iter().filter(|rpc| is_endless(rpc)).map(|rpc| (rpc.service, rpc.method)).collect();
        let expected = [
            ("etcdserverpb.Watch", "Watch"),
            ("etcdserverpb.Lease", "LeaseKeepAlive"),
            ("v3lockpb.Lock", "Lock"),
            ("v3electionpb.Election", "Campaign"),
            ("v3electionpb.Election", "Observe"),
            ("grpc.health.v1.Health", "Watch"),
        ];
        assert_eq!(endless, expected);
    }

    #[tokio::test]
    async fn who_comes_late_is_ended_too() {
        let stopping = Stopping::default();
        let early = stopping.begun();
        stopping.begin();
        early.await;
        stopping.begun().await;
    }
}
