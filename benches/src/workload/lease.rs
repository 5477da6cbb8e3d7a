//! Renews leases.

use anyhow::Context;
use mainstay_client::{Error, KeepAlive};

use super::session::Session;
use crate::load::Worker;
use crate::options::Options;

/// Longer than any run, so that none expires when a server is slow.
const TTL_SECONDS: i64 = 3600;

/// One lease and one stream for each client.
pub(super) async fn workers(session: &Session, options: &Options) -> anyhow::Result<Vec<Renewer>> {
    let mut workers = Vec::with_capacity(options.clients);
    for client in 0..options.clients {
        let client = session.client(client);
        let lease = client.lease_grant(TTL_SECONDS).await.context("granting a lease")?;
        let mut keep_alive = client.keep_alive(lease.id);
        // Opens the stream, too.
        keep_alive.renew().await.context("renewing a lease")?;
        workers.push(Renewer { keep_alive });
    }
    Ok(workers)
}

pub(super) struct Renewer {
    keep_alive: KeepAlive,
}

impl Worker for Renewer {
    async fn step(&mut self) -> Result<u64, Error> {
        self.keep_alive.renew().await?;
        Ok(1)
    }
}
