//! The first start: what the initial cluster must look like, in etcd's words.

use std::collections::{BTreeMap, BTreeSet};

use super::build::{TLS_BY_FILE, unavailable};
use super::fields::{ClusterState, Config};
use super::refusal::Refusal;
use super::url::{self, Scheme, Url};

/// Reads `name=url,name=url`; a name may stand there several times.
///
/// # Errors
/// When one of them has no URL.
pub fn parse_initial_cluster(text: &str) -> Result<BTreeMap<String, Vec<Url>>, Refusal> {
    let mut cluster: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, address) = pair.split_once('=').unwrap_or((pair, ""));
        let url = Url::parse(address).map_err(|error| Refusal::InitialCluster(error.to_string()))?;
        cluster.entry(name.to_owned()).or_default().push(url);
    }
    for urls in cluster.values_mut() {
        urls.sort();
    }
    Ok(cluster)
}

impl Config {
    /// Checks what must hold before the first members are discovered.
    ///
    /// # Errors
    /// When this member is to join a cluster, which no token names.
    pub fn check_discovery(&self) -> Result<(), Refusal> {
        match (self.initial_cluster_state, self.discovery.uses_token()) {
            (ClusterState::Existing, true) => Err(Refusal::Invalid(
                "discovery URL should not be set when joining existing initial cluster".to_owned(),
            )),
            (ClusterState::Existing, false) | (ClusterState::New, _) => Ok(()),
        }
    }

    /// Checks what only counts at a member's first start: whether it stands in the initial cluster
    /// with the addresses that it advertises. `resolve` turns a host name into addresses; it is
    /// asked only when the texts differ.
    pub fn check_first_start(&self, resolve: impl Fn(&Url) -> BTreeSet<String>) -> Result<(), Refusal> {
        let Some(listed) = self.initial_cluster.get(&self.name) else {
            return Err(Refusal::Invalid(format!(
                "couldn't find local name {:?} in the initial cluster configuration",
                self.name
            )));
        };
        self.check_addresses(listed, resolve)?;
        let mut seen = BTreeSet::new();
        if let Some(url) = self.initial_cluster.values().flatten().find(|url| !seen.insert(*url)) {
            return Err(Refusal::Invalid(format!(
                "initial cluster {} has duplicate url ({url})",
                initial_cluster_text(&self.initial_cluster)
            )));
        }
        if let Some(url) = self.initial_cluster.values().flatten().find(|url| url.scheme() == Scheme::Unixs) {
            return Err(unavailable("initial-cluster", TLS_BY_FILE, url.as_str()));
        }
        Ok(())
    }

    /// Finds this member in the cluster that it is to join, whose members and their peer URLs are these.
    ///
    /// # Errors
    /// When the initial cluster names other members than the cluster has.
    pub fn find_in(
        &self,
        members: &BTreeMap<u64, Vec<String>>,
        resolve: impl Fn(&Url) -> BTreeSet<String>,
    ) -> Result<u64, Refusal> {
        let refused = |why: String| {
            let members = members.iter().map(|(id, urls)| format!("{id:x}={}", urls.join(",")));
            let members = members.collect::<Vec<_>>().join(" ");
            Err(Refusal::Invalid(format!("error validating peerURLs {{{members}}}: {why}")))
        };
        if members.len() != self.initial_cluster.len() {
            return refused("member count is unequal".to_owned());
        }
        let mut found = None;
        for (id, urls) in members {
            let told: BTreeSet<Url> = urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
            let is_same = |listed: &[Url]| are_same(&listed.iter().cloned().collect(), &told, &resolve);
            match self.initial_cluster.iter().find(|(_, listed)| is_same(listed)) {
                Some((name, _)) if *name == self.name => found = Some(*id),
                Some(_) => {}
                None => {
                    return refused(format!("PeerURLs: no match found for existing member ({id:x}, {urls:?})"));
                }
            }
        }
        match found {
            Some(id) => Ok(id),
            None => refused(format!("none of them is this member, {:?}", self.name)),
        }
    }

    fn check_addresses(&self, listed: &[Url], resolve: impl Fn(&Url) -> BTreeSet<String>) -> Result<(), Refusal> {
        let advertised = &self.initial_advertise_peer_urls;
        let set = |urls: &[Url]| urls.iter().cloned().collect::<BTreeSet<Url>>();
        let (listed_set, advertised_set) = (set(listed), set(advertised));
        if are_same(&listed_set, &advertised_set, resolve) {
            return Ok(());
        }
        let missing: Vec<Url> = listed_set.difference(&advertised_set).cloned().collect();
        if !missing.is_empty() {
            let missing = missing.iter().map(|url| format!("{}={url}", self.name)).collect::<Vec<_>>().join(",");
            return Err(Refusal::Invalid(format!(
                "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={}",
                url::join(advertised)
            )));
        }
        let missing: Vec<Url> = advertised_set.difference(&listed_set).cloned().collect();
        Err(Refusal::Invalid(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={}",
            url::join(&missing),
            initial_cluster_text(&BTreeMap::from([(self.name.clone(), listed.to_vec())]))
        )))
    }
}

/// Whether two sets of URLs are the same, or lead to the same addresses. A name that nobody can resolve leads to
/// none, so it is the same as itself only.
fn are_same(one: &BTreeSet<Url>, other: &BTreeSet<Url>, resolve: impl Fn(&Url) -> BTreeSet<String>) -> bool {
    let resolved = |urls: &BTreeSet<Url>| {
        let addresses: BTreeSet<_> = urls.iter().map(&resolve).collect();
        (!addresses.contains(&BTreeSet::new())).then_some(addresses)
    };
    one == other || (one.len() == other.len() && resolved(one).is_some_and(|one| resolved(other) == Some(one)))
}

/// Writes an initial cluster as it is given.
pub fn initial_cluster_text(cluster: &BTreeMap<String, Vec<Url>>) -> String {
    let pairs = cluster.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    pairs.collect::<Vec<_>>().join(",")
}
