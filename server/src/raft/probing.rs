//! Looks whether the other members answer, for the metrics that tell of connections and of their delay.
//!
//! Nothing is decided by it: consensus finds out by itself whom it reaches. A process does it, a simulation does not.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mainstay_proto::mainstay::MemberKnownRequest;
use prost::Message;

use super::envelope;
use super::gateway::Gateway;
use super::network::Client;
use crate::env::clock;
use crate::metrics::{Metrics, PeerMetrics};

/// How often each member is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often while not all answer, or none is known yet.
const SHORT_INTERVAL: Duration = Duration::from_millis(250);

/// Asks the other members from time to time and shows what came of it; never ends.
pub async fn probe_peers(gateway: Gateway, metrics: Arc<Metrics>) -> std::convert::Infallible {
    let own = gateway.status().member_id;
    let mut peers = BTreeMap::<u64, Peer>::new();
    loop {
        let members: BTreeSet<u64> = gateway.members().into_iter().map(|member| member.id).collect();
        for id in &members {
            metrics.network.known_peers.with_label_values(&labels(own, *id)).set(1);
        }
        peers.retain(|id, _| {
            let stays = members.contains(id);
            if !stays {
                metrics.network.known_peers.with_label_values(&labels(own, *id)).set(0);
                metrics.network.active_peers.with_label_values(&labels(own, *id)).set(0);
            }
            stays
        });
        for id in members.iter().filter(|id| **id != own) {
            peers.entry(*id).or_insert_with(|| {
                metrics.network.active_peers.with_label_values(&labels(own, *id)).set(0);
                Peer::default()
            });
        }
        let asked = members.iter().filter(|id| **id != own).map(|id| ask(&gateway, *id, metrics.network.peer(*id)));
        for (id, answered) in join_all(asked).await {
            peers.entry(id).or_default().answered(answered, &metrics, own, id);
        }
        let all = !members.is_empty() && peers.values().all(|peer| peer.active);
        clock::sleep(if all { INTERVAL } else { SHORT_INTERVAL }).await;
    }
}

/// What is known of another member.
#[derive(Default)]
struct Peer {
    active: bool,
}

impl Peer {
    fn answered(&mut self, answered: bool, metrics: &Metrics, own: u64, id: u64) {
        let labels = labels(own, id);
        metrics.network.active_peers.with_label_values(&labels).set(i64::from(answered));
        let lost = &metrics.network.disconnected_peers_total.with_label_values(&labels);
        let [_, peer] = &labels;
        if self.active && !answered {
            lost.inc();
            tracing::warn!("remote-peer-id" = peer, "peer became inactive");
        } else if answered && !self.active {
            tracing::info!("remote-peer-id" = peer, "peer became active");
        }
        self.active = answered;
    }
}

/// `Local` and `Remote`.
fn labels(own: u64, id: u64) -> [String; 2] {
    [format!("{own:x}"), format!("{id:x}")]
}

/// Whether a member answers.
async fn ask(gateway: &Gateway, id: u64, peer: Arc<PeerMetrics>) -> (u64, bool) {
    let Ok(client) = gateway.client(id) else { return (id, false) };
    let began = clock::now();
    let answered = clock::timeout(INTERVAL, reached(gateway, client, &peer)).await.unwrap_or(false);
    if answered {
        peer.round_trip_time_seconds.observe(clock::elapsed(began).as_secs_f64());
    }
    (id, answered)
}

async fn reached(gateway: &Gateway, mut client: Client, peer: &PeerMetrics) -> bool {
    let status = gateway.status();
    let question = MemberKnownRequest { cluster_id: status.cluster_id, member_id: status.member_id };
    peer.sent_bytes.inc_by(question.encoded_len() as u64);
    match client.member_known(question).await {
        Ok(answer) => {
            peer.received_bytes.inc_by(answer.into_inner().encoded_len() as u64);
            true
        }
        // What a member refuses comes without a cause; a connection that failed is one. At its address may be another.
        Err(refusal) => refusal.source().is_none() && !envelope::is_astray(&refusal),
    }
}
