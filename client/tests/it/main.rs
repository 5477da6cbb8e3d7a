//! The client against a small etcd in this process.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod leases;
mod requests;
mod watches;

use fake::Fake;
use mainstay_client::{Client, ClientOptions};

/// A client of the fake through the endpoints `a`, `b` and `c`.
fn client(fake: &Fake) -> Client {
    Client::with_connector(fake, ["a", "b", "c"], ClientOptions::default()).unwrap()
}
