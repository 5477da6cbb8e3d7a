//! Members that meet under a token in another cluster: etcd's v3 discovery.
//!
//! Whoever made the token wrote there how many members the cluster is to have. Each member writes itself down under
//! its id and waits until there are so many. The order in which they came decides who belongs to the cluster: later
//! ones are refused. A member that comes again is the same, in its old place.

use std::time::Duration;

use mainstay_client::proto::mvccpb::KeyValue;
use mainstay_client::{Client, Error, Range, Reason, Update, Watch, revision};

use super::InitialCluster;
use super::error::{DiscoveryError, RegistryError};
use crate::config::{Config, identity, initial_cluster_text, parse_initial_cluster};
use crate::env::clock;

/// After so many attempts in vain the pause between them grows no more.
const DOUBLINGS_MAX: u32 = 8;

/// Registers this member in the discovery service and waits until all others have done so, too.
///
/// A service that does not answer is asked again, for ever. Until then the configuration knows this member only.
///
/// # Errors
/// When the service says that nothing can come of it.
pub async fn join(client: &Client, config: &Config) -> Result<InitialCluster, DiscoveryError> {
    let token = &config.discovery.token;
    tracing::info!(
        "discovery-token" = token,
        "discovery-endpoints" = config.discovery.endpoints.join(","),
        "Bootstrapping cluster using v3 discovery."
    );
    let id = identity::member_id(&config.initial_advertise_peer_urls, token);
    let mut registry = Registry { client, keys: Keys::new(token, id), attempts: 0 };
    match registry.join(&initial_cluster_text(&config.initial_cluster)).await {
        Ok(cluster) => {
            tracing::info!(
                "discovery-token" = token,
                cluster = initial_cluster_text(&cluster),
                "discovery joined cluster successfully"
            );
            check_duplicates(&cluster)?;
            Ok(cluster)
        }
        Err(error) => {
            tracing::error!("discovery-token" = token, %error, "discovery failed to join cluster");
            Err(error.into())
        }
    }
}

fn check_duplicates(cluster: &InitialCluster) -> Result<(), DiscoveryError> {
    let mut urls: Vec<_> = cluster.values().flatten().collect();
    urls.sort();
    match urls.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(DiscoveryError::DuplicateUrl(initial_cluster_text(cluster))),
        false => Ok(()),
    }
}

/// Where things are in the discovery service.
#[derive(Debug)]
struct Keys {
    /// How many members there are to be.
    size: String,
    /// What the keys of all members begin with.
    members: String,
    /// This member.
    own: String,
}

impl Keys {
    fn new(token: &str, member_id: u64) -> Self {
        let cluster = format!("/_etcd/registry/{}", token.trim_matches('/'));
        Self {
            size: format!("{cluster}/_config/size"),
            members: format!("{cluster}/members/"),
            own: format!("{cluster}/members/{member_id:x}"),
        }
    }
}

/// A cluster as it is registered so far.
struct Registered {
    size: usize,
    members: Members,
    /// Of the store when it was looked at.
    revision: i64,
}

/// The way of one member through the discovery service.
struct Registry<'a> {
    client: &'a Client,
    keys: Keys,
    /// In vain, one after the other.
    attempts: u32,
}

impl Registry<'_> {
    async fn join(&mut self, own: &str) -> Result<InitialCluster, RegistryError> {
        self.log_in().await?;
        self.look().await?;
        self.register(own).await;
        loop {
            let mut registered = self.look().await?;
            // What was written meanwhile is seen by looking again, also where the watch cannot go on.
            match self.wait_for_others(&mut registered).await {
                Ok(()) => return registered.members.first(registered.size),
                Err(error) => {
                    tracing::warn!(%error, "failed to watch cluster members in discovery service");
                    self.back_off("wait for peers").await;
                }
            }
        }
    }

    /// Shows who this member is, so that a wrong password is told and not tried for ever.
    async fn log_in(&mut self) -> Result<(), RegistryError> {
        loop {
            match self.client.log_in().await {
                Ok(()) => return Ok(()),
                Err(error) if error.reason() == Some(Reason::AuthFailed) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "failed to log in to discovery service");
                    self.back_off("log in").await;
                }
            }
        }
    }

    /// Reads who is registered.
    ///
    /// # Errors
    /// When there is no place for this member.
    async fn look(&mut self) -> Result<Registered, RegistryError> {
        let registered = loop {
            match self.read().await {
                Ok(read) => break read?,
                Err(error) => {
                    tracing::warn!(%error, "failed to get cluster from discovery service");
                    self.back_off("cluster status check").await;
                }
            }
        };
        self.attempts = 0;
        match registered.members.has_place_for(&self.keys.own, registered.size) {
            true => Ok(registered),
            false => Err(RegistryError::FullCluster),
        }
    }

    /// One attempt to read; the inner error is the service's word, the outer one that there was no answer.
    async fn read(&self) -> Result<Result<Registered, RegistryError>, Error> {
        let size = match self.client.get(self.keys.size.clone()).await? {
            Some(pair) => parse_size(&pair.value),
            None => Err(RegistryError::SizeNotFound),
        };
        let size = match size {
            Ok(size) => size,
            Err(error) => return Ok(Err(error)),
        };
        let answer = self.client.range(Range::prefix(self.keys.members.clone())).await?;
        let mut members = Members::default();
        for pair in &answer.kvs {
            members.note(&self.keys.members, pair);
        }
        Ok(Ok(Registered { size, members, revision: revision(&answer.header) }))
    }

    /// Writes this member down; who is there already keeps its place.
    async fn register(&mut self, own: &str) {
        while let Err(error) = self.client.put(self.keys.own.clone(), own.to_owned()).await {
            tracing::warn!(
                "memberKey" = self.keys.own,
                %error,
                "failed to register members itself to the discovery service"
            );
            self.back_off("register member itself").await;
        }
        self.attempts = 0;
        tracing::info!("memberKey" = self.keys.own, "memberInfo" = own, "register member itself successfully");
    }

    /// Waits until as many are there as there are to be.
    async fn wait_for_others(&self, registered: &mut Registered) -> Result<(), Error> {
        if registered.is_complete() {
            return Ok(());
        }
        let watch = Watch::prefix(self.keys.members.clone()).start_revision(registered.revision + 1);
        let mut watcher = self.client.watch(watch).await?;
        tracing::info!(
            "clusterSize" = registered.size,
            "found-peers" = registered.members.list.len(),
            "waiting for peers from discovery service"
        );
        while !registered.is_complete() {
            match watcher.next().await? {
                Update::Events { events, .. } => {
                    for pair in events.iter().filter_map(|event| event.kv.as_ref()) {
                        registered.members.note(&self.keys.members, pair);
                    }
                }
                Update::Progress { .. } => {}
            }
        }
        tracing::info!(
            "clusterSize" = registered.size,
            "found-peers" = registered.members.list.len(),
            "found all needed peers from discovery service"
        );
        Ok(())
    }

    async fn back_off(&mut self, step: &str) {
        self.attempts = self.attempts.saturating_add(1);
        let pause = pause_after(self.attempts);
        tracing::warn!(reason = step, backoff = ?pause, "retry connecting to discovery service");
        clock::sleep(pause).await;
    }
}

impl Registered {
    fn is_complete(&self) -> bool {
        self.members.list.len() >= self.size
    }
}

/// The pause after so many attempts in vain: 2 s, 4 s and so on up to 256 s.
fn pause_after(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.min(DOUBLINGS_MAX))
}

fn parse_size(value: &[u8]) -> Result<usize, RegistryError> {
    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse::<usize>().ok());
    size.filter(|size| *size > 0).ok_or(RegistryError::BadSize)
}

/// Who is registered, in the order in which they came.
#[derive(Debug, Default)]
struct Members {
    list: Vec<Member>,
}

#[derive(Debug, PartialEq, Eq)]
struct Member {
    key: String,
    /// `name=url`, for each URL.
    urls: String,
    /// When it came.
    create_revision: i64,
}

impl Members {
    /// Adds what a key says, or tells in the log why it says nothing.
    fn note(&mut self, prefix: &str, pair: &KeyValue) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let member = Member { key: text(&pair.key), urls: text(&pair.value), create_revision: pair.create_revision };
        let (key, urls) = (member.key.clone(), member.urls.clone());
        match self.add(prefix, member) {
            Ok(()) => {
                tracing::info!("memberKey" = key, "memberInfo" = urls, "found peer from discovery service");
            }
            Err(why) => tracing::warn!("memberKey" = key, "memberInfo" = urls, "{why}"),
        }
    }

    fn add(&mut self, prefix: &str, member: Member) -> Result<(), &'static str> {
        if !member.key.starts_with(prefix) {
            return Err("invalid peer registry key");
        }
        if !member.urls.contains('=') {
            return Err("invalid peer info returned from discovery service");
        }
        if self.list.iter().any(|known| known.key == member.key) {
            return Err("found duplicate peer from discovery service");
        }
        self.list.push(member);
        self.list.sort_by_key(|member| member.create_revision);
        Ok(())
    }

    /// Whether a member is one of the first so many, or could still become one.
    fn has_place_for(&self, key: &str, size: usize) -> bool {
        self.list.len() < size || self.list.iter().take(size).any(|member| member.key == key)
    }

    /// The cluster of those who came first.
    fn first(&self, size: usize) -> Result<InitialCluster, RegistryError> {
        let urls: Vec<&str> = self.list.iter().take(size).map(|member| member.urls.as_str()).collect();
        parse_initial_cluster(&urls.join(",")).map_err(|_| RegistryError::InvalidUrl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/_etcd/registry/t/members/";

    fn member(id: &str, urls: &str, create_revision: i64) -> Member {
        Member { key: format!("{PREFIX}{id}"), urls: urls.to_owned(), create_revision }
    }

    fn members(of: impl IntoIterator<Item = Member>) -> Members {
        let mut members = Members::default();
        for member in of {
            members.add(PREFIX, member).unwrap();
        }
        members
    }

    #[test]
    fn keys_are_etcds() {
        let keys = Keys::new("t", 0x8e9e_05c5_2164_694d);
        assert_eq!(keys.size, "/_etcd/registry/t/_config/size");
        assert_eq!(keys.members, PREFIX);
        assert_eq!(keys.own, "/_etcd/registry/t/members/8e9e05c52164694d");
        assert_eq!(Keys::new("t/", 1).own, "/_etcd/registry/t/members/1");
    }

    #[test]
    fn members_stand_in_the_order_in_which_they_came() {
        let mut members = members([
            member("65", "a=http://a:1", 8),
            member("66", "b=http://b:1", 6),
            member("67", "c=http://c:1", 7),
        ]);
        let refused = [
            (Member { key: "/other/68".to_owned(), ..member("68", "d=http://d:1", 5) }, "invalid peer registry key"),
            (member("68", "http://d:1", 5), "invalid peer info returned from discovery service"),
            // As a deleted key is seen by a watch.
            (member("66", "", 0), "invalid peer info returned from discovery service"),
            (member("65", "a=http://a:1", 2), "found duplicate peer from discovery service"),
        ];
        for (member, why) in refused {
            assert_eq!(members.add(PREFIX, member), Err(why));
        }
        let order: Vec<&str> = members.list.iter().map(|member| &*member.urls).collect();
        assert_eq!(order, ["b=http://b:1", "c=http://c:1", "a=http://a:1"]);
        let of = |size| initial_cluster_text(&members.first(size).unwrap());
        assert_eq!(of(3), "a=http://a:1,b=http://b:1,c=http://c:1");
        assert_eq!(of(2), "b=http://b:1,c=http://c:1");
    }

    #[test]
    fn there_are_so_many_places_for_who_came_first() {
        let members =
            members([member("1", "a=http://a:1", 2), member("2", "b=http://b:1", 3), member("3", "c=http://c:1", 4)]);
        let has_place = |id: &str, size| members.has_place_for(&format!("{PREFIX}{id}"), size);
        assert!(has_place("3", 3) && has_place("1", 1) && has_place("4", 4));
        assert!(!has_place("4", 3) && !has_place("3", 2) && !has_place("2", 1));
        assert!(Members::default().has_place_for("any", 1));
    }

    #[test]
    fn what_members_wrote_down_is_checked() {
        let of = |of: [Member; 2]| {
            let cluster = members(of).first(2).map_err(|error| error.to_string())?;
            check_duplicates(&cluster).map_err(|error| error.to_string())?;
            Ok::<_, String>(cluster)
        };
        let several = of([member("1", "a=http://a:2,a=http://a:1", 2), member("2", "b=http://b:1", 3)]).unwrap();
        assert_eq!(initial_cluster_text(&several), "a=http://a:1,a=http://a:2,b=http://b:1");
        assert_eq!(
            of([member("1", "a=http://a:1", 2), member("2", "b=nowhere", 3)]).unwrap_err(),
            "discovery: invalid peer URL"
        );
        assert_eq!(
            of([member("1", "a=http://a:1", 2), member("2", "b=http://a:1", 3)]).unwrap_err(),
            "discovery cluster a=http://a:1,b=http://a:1 has duplicate url"
        );
    }

    #[test]
    fn the_size_is_a_number_above_zero() {
        assert_eq!(parse_size(b"3").unwrap(), 3);
        for text in ["", "0", "-1", "three", "3 "] {
            assert!(matches!(parse_size(text.as_bytes()), Err(RegistryError::BadSize)), "{text:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!([1, 2, 3, 8, 9, u32::MAX].map(|attempts| pause_after(attempts).as_secs()), [2, 4, 8, 256, 256, 256]);
    }
}
