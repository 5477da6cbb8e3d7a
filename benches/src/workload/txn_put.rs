//! Updates keys as kube-apiserver does.
//!
//! If ModRevision(key) = what was read, then Put, else Range. Each client has keys of its own, as
//! most objects have one writer, so a transaction fails only where the client does not know the
//! key's revision: on keys of an earlier run, or after an error. Such a transaction counts, too.

use bytes::Bytes;
use mainstay_client::proto::etcdserverpb::TxnResponse;
use mainstay_client::proto::etcdserverpb::response_op::Response;
use mainstay_client::{Client, Compare, Error, Put, Range, Txn, revision};

use super::session::Session;
use crate::keyspace::{Chooser, key, value};
use crate::load::Worker;
use crate::options::Options;

pub(super) fn workers(session: &Session, options: &Options) -> Vec<Updater> {
    let clients = options.clients as u64;
    let updater = |client: u64| {
        // The keys client, client + clients, client + 2 × clients, …
        let keys = (options.keys - client).div_ceil(clients);
        Updater {
            client: session.client(client as usize),
            chooser: Chooser::new(options.seed, client, 1, keys, options.sequential),
            number: client,
            clients,
            revisions: vec![0; keys as usize],
            value: value(options.seed, client, options.value_size),
        }
    };
    (0..clients).map(updater).collect()
}

pub(super) struct Updater {
    client: Client,
    chooser: Chooser,
    number: u64,
    clients: u64,
    /// What is known of each key: the revision that wrote it last, 0 for none.
    revisions: Vec<i64>,
    value: Bytes,
}

impl Worker for Updater {
    async fn step(&mut self) -> Result<u64, Error> {
        let own = self.chooser.next_number();
        let key = key(self.number + own * self.clients);
        let known = &mut self.revisions[own as usize];
        let update = Txn::new()
            .when(Compare::mod_revision(key.clone()).equals(*known))
            .then(Put::new(key.clone(), self.value.clone()))
            .otherwise(Range::key(key));
        *known = learned(&self.client.txn(update).await?)?;
        Ok(1)
    }
}

/// The key's revision after the transaction.
fn learned(response: &TxnResponse) -> Result<i64, Error> {
    if response.succeeded {
        return Ok(revision(&response.header));
    }
    match response.responses.first().and_then(|operation| operation.response.as_ref()) {
        Some(Response::ResponseRange(range)) => Ok(range.kvs.first().map_or(0, |kv| kv.mod_revision)),
        _ => Err(Error::Malformed("a failed transaction without its range")),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_client::KeyValue;
    use mainstay_client::proto::etcdserverpb::{RangeResponse, ResponseHeader, ResponseOp};

    use super::*;

    #[test]
    fn a_revision_is_learned_from_either_branch() {
        let header = Some(ResponseHeader { revision: 9, ..Default::default() });
        let written = TxnResponse { header, succeeded: true, ..Default::default() };
        assert_eq!(learned(&written).unwrap(), 9);
        let read = |kvs| {
            let response = Some(Response::ResponseRange(RangeResponse { kvs, ..Default::default() }));
            TxnResponse { header, succeeded: false, responses: vec![ResponseOp { response }] }
        };
        assert_eq!(learned(&read(vec![KeyValue { mod_revision: 5, ..Default::default() }])).unwrap(), 5);
        assert_eq!(learned(&read(Vec::new())).unwrap(), 0, "deleted meanwhile");
        assert!(learned(&TxnResponse::default()).is_err());
    }

    #[tokio::test]
    async fn each_key_has_one_writer() {
        let options = crate::options::tests::options(&["--clients", "3", "--keys", "10", "--connections", "1"]);
        let session = Session::connect(&["127.0.0.1:1".to_owned()], &options).unwrap();
        let mut keys: Vec<u64> = Vec::new();
        for worker in workers(&session, &options) {
            keys.extend((0..worker.revisions.len() as u64).map(|own| worker.number + own * worker.clients));
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..10).collect::<Vec<_>>());
    }
}
