//! Before a first start: what the store already holds, and whether the others know this member.
//!
//! A member that lost its data and starts as if it were new has forgotten for whom it voted and which
//! entries it confirmed. Taken back, it could help to elect a leader without an entry that it had
//! helped to commit. So whoever finds no vote in its log, which is the first thing that a member
//! writes, asks the others first, as etcd does.
//!
//! What remains open, here as in etcd: a member that was lost before the others had applied what it
//! published of itself (the leader knows a little earlier, from its replication), one that finds
//! nobody it could ask, and one whose peers are all behind. Against those helps what the operator
//! should do anyway: remove a member that lost its data, and add it anew.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mainstay_proto::mainstay::MemberKnownRequest;

use super::codec;
use super::network::peer_client;
use super::type_config::PeerNode;
use crate::engine::layout::meta;
use crate::engine::{Engine, EngineError, Family};
use crate::env::{clock, transport};

/// How often a peer is asked that is not there: its process may be about to start.
const ATTEMPTS: u32 = 3;

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// The last entry in the state that a store holds; `None` where it holds none.
///
/// # Errors
/// When the store cannot be read.
pub fn applied_index(engine: &dyn Engine) -> Result<Option<u64>, EngineError> {
    let stored = engine.get(Family::Meta, meta::APPLIED)?.unwrap_or_default();
    let (log_id, _) = codec::applied_from_bytes(stored).map_err(|error| EngineError(error.to_string()))?;
    Ok(log_id.map(|log_id| log_id.index))
}

/// Asks all peers at once whether they know of an earlier life of a member, for `limit` at most.
///
/// Whoever answers anything else than yes counts as a no, and so does whoever is not there.
pub(super) async fn is_known<'a>(
    cluster_id: u64,
    member_id: u64,
    peers: impl Iterator<Item = &'a PeerNode>,
    limit: Duration,
) -> bool {
    let mut answers: FuturesUnordered<_> = peers
        .flat_map(|peer| &peer.peer_urls)
        .map(|url| ask(url, MemberKnownRequest { cluster_id, member_id }, limit))
        .collect();
    let any = async {
        while let Some(known) = answers.next().await {
            if known {
                return true;
            }
        }
        false
    };
    clock::timeout(limit, any).await.unwrap_or(false)
}

async fn ask(url: &str, request: MemberKnownRequest, limit: Duration) -> bool {
    let Ok(channel) = transport::connect(url, limit) else {
        return false; // refused again, and said, when it is to be connected in earnest
    };
    let mut client = peer_client(channel);
    for attempt in 1.. {
        match client.member_known(request).await {
            Ok(response) => return response.into_inner().known,
            Err(status) if transport::never_sent(&status) && attempt < ATTEMPTS => clock::sleep(PAUSE).await,
            Err(status) => {
                tracing::debug!(url, %status, "a peer does not say whether it knows this member");
                break;
            }
        }
    }
    false
}
