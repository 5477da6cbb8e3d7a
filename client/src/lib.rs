//! A client of etcd's v3 API, for mainstay and for etcd itself.
//!
//! ```no_run
//! use mainstay_client::{Client, ClientOptions, Compare, Put, Range, Txn, Update, Watch};
//!
//! # async fn example() -> Result<(), mainstay_client::Error> {
//! let client = Client::connect(["http://127.0.0.1:2379"], ClientOptions::default())?;
//!
//! // Keys and values.
//! client.put("color", "red").await?;
//! assert_eq!(client.get("color").await?.unwrap().value, "red");
//! let page = client.range(Range::prefix("/registry/").limit(500)).await?;
//! println!("{} of {} keys at revision {}", page.kvs.len(), page.count, mainstay_client::revision(&page.header));
//!
//! // The write that kube-apiserver makes: only on top of what was read.
//! let seen = client.get("color").await?.unwrap();
//! let answer = client
//!     .txn(Txn::new()
//!         .when(Compare::mod_revision("color").equals(seen.mod_revision))
//!         .then(Put::new("color", "blue"))
//!         .otherwise(Range::key("color")))
//!     .await?;
//! assert!(answer.succeeded);
//!
//! // A watch survives the loss of its member: it goes on from the next revision elsewhere.
//! let mut watcher = client.watch(Watch::prefix("/registry/").start_revision(1).prev_kv()).await?;
//! while let Update::Events { events, .. } = watcher.next().await? {
//!     println!("{events:?}");
//! }
//!
//! // A lease, kept alive until the handle is dropped or stopped.
//! let lease = client.lease_grant(60).await?;
//! client.put_with(Put::new("here", "i am").lease(lease.id)).await?;
//! let keeper = client.keep_lease(lease.id, lease.ttl);
//! keeper.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is retried
//!
//! A request goes to one endpoint and stays with it until the endpoint fails. A read that found its
//! member unavailable is tried at the next endpoint, until the request's time is over. A write is
//! tried again only when it certainly never left this process; any other failure is handed to the
//! caller, and [`Error::may_have_taken_effect`] says what to think of it. A member that declines a
//! request, as a learner or because its data is in doubt, has done nothing, and the others are asked;
//! once each, where they decline it too. The rules are pure and stand in [`failover`].
//!
//! # What it runs on
//!
//! The client is generic at its door only: any [`Connector`], over sockets ([`Sockets`], feature
//! `transport`) or over a simulated network, makes the same [`Client`] type. Time comes from the
//! renamed `tokio`, so a simulation controls it.
//!
//! Requests of unusual form need no wrapper: every method takes the generated message as well as
//! the builder, and answers with the generated response.

mod auth;
mod channel;
mod client;
mod cluster;
mod concurrency;
mod error;
pub mod failover;
mod kv;
mod lease;
mod maintenance;
mod txn;
mod watch;

pub use auth::User;
pub use channel::Connector;
#[cfg(feature = "transport")]
pub use channel::Sockets;
pub use client::{Client, ClientOptions, revision};
pub use error::{Error, Reason};
pub use kv::{Delete, Put, Range};
pub use lease::{KeepAlive, LeaseKeeper};
pub use txn::{Compare, Txn, ValueCompare};
pub use watch::{RawWatch, Update, Watch, Watcher};

pub use mainstay_proto as proto;
pub use mainstay_proto::KeyRange;
pub use mainstay_proto::mvccpb::{Event, KeyValue, event::EventType};
pub use tonic::{Code, Status, Streaming};
