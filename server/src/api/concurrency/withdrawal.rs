use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::command::cluster_itself;
use crate::command::command::Kind;
use crate::limits;
use crate::raft::Gateway;

/// A handle to the task that takes back the keys of those who went away while they waited.
///
/// A request that ends because its client is gone can wait for nothing any more, so its last command is
/// left to this task. Its inbox has room for every request that may wait ([`limits::WAITING_MAX`]): a place
/// is taken before the key is put, and further requests wait for one.
#[derive(Clone)]
pub struct Withdrawals {
    inbox: mpsc::Sender<Kind>,
}

/// A place in the inbox, for one request.
pub(super) struct Place(mpsc::OwnedPermit<Kind>);

/// Sends a command when it is dropped.
pub(super) struct Withdrawal(Option<(Place, Kind)>);

impl Withdrawals {
    /// Starts the task. It ends when nobody holds a handle any more.
    pub fn spawn(gateway: Gateway) -> (Self, JoinHandle<()>) {
        let (inbox, commands) = mpsc::channel(limits::WAITING_MAX);
        let commands = stream::unfold(commands, |mut commands| async move { Some((commands.recv().await?, commands)) });
        let task = commands.for_each_concurrent(limits::WITHDRAWALS_AT_ONCE, move |command| {
            let gateway = gateway.clone();
            async move {
                // Tried once: the key goes with its lease at the latest.
                // In the cluster's name: its client put the key, and can say nothing any more.
                if let Err(error) = gateway.propose(Some(cluster_itself()), command).await {
                    tracing::debug!(%error, "the key of a client that went away was left to its lease");
                }
            }
        });
        (Self { inbox }, tokio::spawn(task))
    }

    /// Takes a place; `None` where the server is stopping.
    pub(super) async fn place(&self) -> Option<Place> {
        self.inbox.clone().reserve_owned().await.ok().map(Place)
    }
}

impl Place {
    /// Names the command that takes back what the request has done.
    pub(super) fn on_drop(self, command: Kind) -> Withdrawal {
        Withdrawal(Some((self, command)))
    }
}

impl Withdrawal {
    /// Leaves everything as it is.
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let Some((Place(permit), command)) = self.0.take() {
            permit.send(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_proto::etcdserverpb::DeleteRangeRequest;

    use super::*;

    #[tokio::test]
    async fn only_who_goes_away_withdraws() {
        let (inbox, mut commands) = mpsc::channel(2);
        let withdrawals = Withdrawals { inbox };
        let delete =
            |key: &'static str| Kind::DeleteRange(DeleteRangeRequest { key: key.into(), ..Default::default() });
        let gone = withdrawals.place().await.unwrap().on_drop(delete("gone"));
        let served = withdrawals.place().await.unwrap().on_drop(delete("served"));
        served.forget();
        drop(gone);
        drop(withdrawals);
        assert_eq!(commands.recv().await, Some(delete("gone")));
        assert_eq!(commands.recv().await, None);
    }
}
