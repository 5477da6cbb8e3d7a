//! A member's place in its cluster taken anew, by whoever lost or spoilt its data.
//!
//! What a member has voted for and confirmed counts for ever; without its data it must not come back as itself. So it
//! leaves the cluster and joins it under another id, with the same peer URLs, and gets everything from the others. Both
//! are asked of the other members, as an operator would do.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_proto::mainstay::{MemberKnownRequest, MemberRefusal};

use super::bootstrap::{ExistingCluster, ask_at, existing_cluster};
use super::envelope::Envelope;
use super::members::{MemberChange, told_refusal};
use super::network::peer_client;
use crate::engine::layout::{self, NewerFormat};
use crate::env::clock;
use crate::env::transport::Dialer;

/// Pause before the members are asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the cluster may take for one change: some of its members may have failed, and come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// The place that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of which cluster.
    pub cluster_id: u64,
    /// Who had it before, where anybody did.
    pub former: Option<u64>,
    /// Who has it now.
    pub id: u64,
}

/// Why a place was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// Nobody tells who the members are.
    #[error("no other member can be reached, or they have no leader")]
    NoCluster,
    /// A newer release is needed, whose data this one could not take over.
    #[error("the cluster runs a newer release: {0}")]
    NewerFormat(#[from] NewerFormat),
    /// The member that is to be replaced is there.
    #[error("a member answers at {0}: it must not run while it is rebuilt")]
    Runs(String),
    /// A change was refused.
    #[error("the cluster refuses to change its members: {}", .0.as_str_name())]
    Refused(MemberRefusal),
    /// A change was not made in time.
    #[error("the cluster does not change its members: {0}")]
    Unavailable(String),
}

/// Takes the place of the member with these peer URLs, as a new member `id`.
///
/// `others` are the peer URLs of other members, each of which may take `limit` for an answer. It can be repeated when it
/// fails halfway.
///
/// # Errors
/// When the others cannot be reached, or refuse.
pub async fn take_place(
    id: u64,
    peer_urls: Vec<String>,
    others: &[String],
    dialer: &Dialer,
    limit: Duration,
) -> Result<Place, ReplaceError> {
    let cluster = existing_cluster(others, dialer, limit).await.ok_or(ReplaceError::NoCluster)?;
    let ExistingCluster { cluster_id, mut members, format } = cluster;
    layout::check_format(format, layout::FORMAT)?;
    let former = who_has(&members, &peer_urls);
    former.map(|former| members.remove(&former));
    // Its data directory may be another one than that which was named, and was found empty.
    let question = MemberKnownRequest { cluster_id, member_id: id };
    for url in &peer_urls {
        if ask_at(url, question, Envelope::of_nobody(), dialer, limit).await.is_some() {
            return Err(ReplaceError::Runs(url.clone()));
        }
    }
    let urls: Vec<String> = members.into_values().flatten().collect();
    let asked = Asked { cluster_id, urls, dialer, limit };
    if let Some(former) = former {
        asked.change(&MemberChange::Remove(former)).await?;
    }
    asked.change(&MemberChange::Add { id, peer_urls, learner: false }).await?;
    Ok(Place { cluster_id, former, id })
}

fn who_has(members: &BTreeMap<u64, Vec<String>>, peer_urls: &[String]) -> Option<u64> {
    let shares = |urls: &[String]| urls.iter().any(|url| peer_urls.contains(url));
    members.iter().find(|(_, urls)| shares(urls)).map(|(id, _)| *id)
}

/// The members that are asked.
struct Asked<'a> {
    cluster_id: u64,
    urls: Vec<String>,
    dialer: &'a Dialer,
    limit: Duration,
}

impl Asked<'_> {
    /// Has the members changed.
    async fn change(&self, change: &MemberChange) -> Result<(), ReplaceError> {
        let begun = clock::now();
        loop {
            let mut reason = String::new();
            for url in &self.urls {
                match self.change_at(url, change).await {
                    Ok(MemberRefusal::None) => return Ok(()),
                    Ok(refusal) => match self.is_made(change).await {
                        // The answer to an earlier question may have got lost, and what it asked for stands in the way.
                        Some(true) => return Ok(()),
                        Some(false) if refusal != MemberRefusal::Unhealthy => {
                            return Err(ReplaceError::Refused(refusal));
                        }
                        // The cluster may be healthy in a moment, or somebody tell who its members are.
                        Some(false) | None => refusal.as_str_name().clone_into(&mut reason),
                    },
                    // Only the leader can.
                    Err(error) => reason = error,
                }
            }
            if clock::elapsed(begun) >= PATIENCE {
                return Err(ReplaceError::Unavailable(reason));
            }
            clock::sleep(PAUSE).await;
        }
    }

    /// Whether a change shows in who the members are; `None` where nobody tells.
    async fn is_made(&self, change: &MemberChange) -> Option<bool> {
        let cluster = existing_cluster(&self.urls, self.dialer, self.limit).await?;
        Some(match change {
            MemberChange::Add { id, .. } => cluster.members.contains_key(id),
            MemberChange::Remove(id) => !cluster.members.contains_key(id),
            MemberChange::Update { .. } | MemberChange::Promote(_) => false,
        })
    }

    async fn change_at(&self, url: &str, change: &MemberChange) -> Result<MemberRefusal, String> {
        let channel = self.dialer.connect(url, self.limit)?;
        let request = change.to_wire(self.cluster_id);
        match clock::timeout(self.limit, peer_client(channel, Envelope::of_nobody()).change_members(request)).await {
            Ok(Ok(response)) => Ok(told_refusal(response.get_ref())),
            Ok(Err(status)) => Err(format!("{url}: {}", status.message())),
            Err(_elapsed) => Err(format!("{url}: no answer in time")),
        }
    }
}
