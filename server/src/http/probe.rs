use futures_util::future::BoxFuture;
use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::AlarmType;

use crate::apply::AlarmView;
use crate::mvcc::{RangeOptions, ReadError, Store};
use crate::raft::{Gateway, Unavailable};

/// A check that takes time; the error is the text that etcd shows.
pub type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What HTTP asks of a node.
pub struct Probe {
    /// Whether a leader is known.
    pub has_leader: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether this member has no vote.
    pub is_learner: Box<dyn Fn() -> bool + Send + Sync>,
    /// The alarms that are on, of any member; but not what is wrong with the data of another.
    pub alarms: Box<dyn Fn() -> Vec<AlarmType> + Send + Sync>,
    /// Reads something that every acknowledged write precedes: needs a leader and a quorum.
    pub linearizable_read: Check,
    /// Reads something from this member alone.
    pub serializable_read: Check,
    /// The version that the cluster runs at, once it is decided.
    pub cluster_version: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Probe {
    /// A probe of a node's own parts. `text` gives etcd's words for a failure, which `api` owns.
    pub fn of_node(
        gateway: Gateway,
        store: Store,
        alarms: AlarmView,
        text: fn(ReadFailure) -> String,
        cluster_version: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Probe {
        let (leader, learner, of_alarms) = (gateway.clone(), gateway.clone(), gateway.clone());
        let local = store.clone();
        Probe {
            has_leader: Box::new(move || leader.status().leader.is_some()),
            is_learner: Box::new(move || learner.status().is_learner),
            alarms: Box::new(move || {
                let (own, members) = (of_alarms.status().member_id, of_alarms.members());
                let raised = alarms.all().into_iter().map(|it| (it.member_id, it.alarm()));
                // Who is named is out of service itself; etcd's whole cluster would be.
                let is_other = |id: u64| id != own && members.iter().any(|member| member.id == id);
                raised
                    .filter(|(id, kind)| *kind != AlarmType::Corrupt || !is_other(*id))
                    .map(|(_, kind)| kind)
                    .collect()
            }),
            linearizable_read: Box::new(move || {
                let (gateway, store) = (gateway.clone(), store.clone());
                Box::pin(async move {
                    gateway.read_index().await.map_err(|error| text(ReadFailure::Unavailable(error)))?;
                    read_one(&store).map_err(text)
                })
            }),
            serializable_read: Box::new(move || {
                let result = read_one(&local).map_err(text);
                Box::pin(std::future::ready(result))
            }),
            cluster_version: Box::new(cluster_version),
        }
    }
}

/// Why a check could not read.
#[derive(Debug)]
pub enum ReadFailure {
    /// The cluster could not say how far to read.
    Unavailable(Unavailable),
    /// The store could not be read.
    Store(ReadError),
}

/// Reads at most one key, whichever it is, as etcd's checks do.
fn read_one(store: &Store) -> Result<(), ReadFailure> {
    let options = RangeOptions { limit: 1, keys_only: true, ..RangeOptions::default() };
    store.range(&KeyRange::all(), &options).map(drop).map_err(ReadFailure::Store)
}
