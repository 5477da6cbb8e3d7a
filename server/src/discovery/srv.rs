//! Members by SRV records, as etcd reads them.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::InitialCluster;
use super::error::SrvError;
use crate::config::{Config, Scheme, Url, join_urls};

/// What is asked of the DNS. The room knows no resolver, because a simulation has none.
pub trait Dns: Sync {
    /// The SRV records of a name. The error says what was looked up, and what became of it.
    fn services(&self, name: &str) -> impl Future<Output = Result<Vec<ServiceRecord>, String>> + Send;

    /// The socket addresses behind a host and a port. The error says the same.
    fn addresses(&self, host: &str, port: u16) -> impl Future<Output = Result<BTreeSet<SocketAddr>, String>> + Send;
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRecord {
    /// The lower, the sooner it is to be taken.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// The host, which may end with a dot.
    pub target: String,
    /// Its port.
    pub port: u16,
}

/// The members that `--discovery-srv` names.
///
/// # Errors
/// When there are none, or this one is not among them.
pub async fn initial_cluster(dns: &impl Dns, config: &Config) -> Result<InitialCluster, SrvError> {
    let own = Own::look_up(dns, config).await?;
    let domain = &config.discovery.srv;
    let mut members = Members::default();
    let mut failures = Vec::new();
    for (service, scheme) in [("etcd-server-ssl", Scheme::Https), ("etcd-server", Scheme::Http)] {
        let service = with_suffix(service, &config.discovery.srv_name);
        let found = match targets(dns, &service, domain).await {
            Ok(targets) => members.add(&service, scheme, &targets, &own),
            Err(why) => Err(why),
        };
        let failure = found.err().map(|why| format!("error querying DNS SRV records for _{service} {why}"));
        tracing::info!(
            "service-scheme" = scheme.as_str(),
            "service-name" = service,
            "server-name" = config.name,
            "discovery-srv" = domain,
            "advertise-peer-urls" = join_urls(&config.initial_advertise_peer_urls),
            "found-cluster" = members.text(),
            error = failure.as_deref().unwrap_or_default(),
            "get cluster for {service} SRV"
        );
        failures.extend(failure);
    }
    let failures = failures.join("\n");
    if !failures.is_empty() {
        tracing::warn!(error = failures, "failed to resolve during SRV discovery");
    }
    let cluster = members.into_cluster();
    if cluster.is_empty() {
        return Err(SrvError::NoMembers(failures));
    }
    if !cluster.contains_key(&config.name) {
        return Err(SrvError::NotListed(config.name.clone()));
    }
    Ok(cluster)
}

/// The addresses of members, `scheme://host:port`, that a domain names for clients; those with TLS first.
///
/// # Errors
/// When neither those with nor those without are known; the words are etcd's.
pub async fn clients(dns: &impl Dns, domain: &str, suffix: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for (service, scheme) in [("etcd-client-ssl", Scheme::Https), ("etcd-client", Scheme::Http)] {
        match records(dns, &with_suffix(service, suffix), domain).await {
            Ok(records) => {
                let url = |record: ServiceRecord| format!("{}://{}:{}", scheme.as_str(), host(&record), record.port);
                found.extend(records.into_iter().map(url));
            }
            Err(why) => failures.push(why),
        }
    }
    match failures.as_slice() {
        [with, without] => Err(format!("dns lookup errors: {with} and {without}")),
        _ => Ok(found),
    }
}

fn with_suffix(service: &str, suffix: &str) -> String {
    if suffix.is_empty() { service.to_owned() } else { format!("{service}-{suffix}") }
}

/// SRV names end with a dot, URLs do not.
fn host(record: &ServiceRecord) -> &str {
    record.target.strip_suffix('.').unwrap_or(&record.target)
}

/// The records of a service in the order in which they are to be taken; the weight, by which etcd draws lots, only
/// decides who is named first.
async fn records(dns: &impl Dns, service: &str, domain: &str) -> Result<Vec<ServiceRecord>, String> {
    let mut records = dns.services(&format!("_{service}._tcp.{domain}")).await?;
    records.sort_by_key(|record| (record.priority, u16::MAX - record.weight, record.target.clone(), record.port));
    Ok(records)
}

/// Where a record leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    /// The error says why there are none.
    addresses: Result<BTreeSet<SocketAddr>, String>,
}

async fn targets(dns: &impl Dns, service: &str, domain: &str) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    for record in records(dns, service, domain).await? {
        let host = host(&record).to_owned();
        let addresses = dns.addresses(&host, record.port).await;
        targets.push(Target { host, port: record.port, addresses });
    }
    Ok(targets)
}

/// This member, by which it knows itself among others.
#[derive(Clone, Debug)]
struct Own {
    name: String,
    /// What it advertises, and the addresses behind that.
    urls: Vec<(Url, BTreeSet<SocketAddr>)>,
}

impl Own {
    async fn look_up(dns: &impl Dns, config: &Config) -> Result<Self, SrvError> {
        let mut urls = Vec::new();
        for url in &config.initial_advertise_peer_urls {
            // No record names a Unix socket.
            let (Some(host), Some(port)) = (url.host(), url.port()) else { continue };
            let addresses = dns.addresses(host, port).await.map_err(SrvError::OwnAddress)?;
            urls.push((url.clone(), addresses));
        }
        Ok(Self { name: config.name.clone(), urls })
    }

    /// The URL under which this member is found at one of these addresses.
    fn url_at(&self, addresses: &BTreeSet<SocketAddr>) -> Option<&Url> {
        self.urls.iter().find(|(_, own)| !own.is_disjoint(addresses)).map(|(url, _)| url)
    }
}

/// Members as the records name them, in that order.
#[derive(Debug, Default)]
struct Members {
    list: Vec<(String, Url)>,
    /// How many of them are not this member. They go by their number, because records tell no names; each publishes its
    /// own later. Numbers go on from service to service (etcd's begin anew): two members are never taken for one.
    strangers: usize,
}

impl Members {
    /// Adds those that one service names.
    ///
    /// # Errors
    /// When none of them can be used: why the last one cannot.
    fn add(&mut self, service: &str, scheme: Scheme, targets: &[Target], own: &Own) -> Result<(), String> {
        let before = self.list.len();
        let mut failure = "no such host".to_owned();
        for Target { host, port, addresses } in targets {
            let addresses = match addresses {
                Ok(addresses) => addresses,
                Err(why) => {
                    failure.clone_from(why);
                    continue;
                }
            };
            let text = format!("{}://{host}:{port}", scheme.as_str());
            let url = match Url::parse(&text) {
                Ok(url) => url,
                Err(error) => {
                    failure = error.to_string();
                    continue;
                }
            };
            match own.url_at(addresses) {
                Some(expected) if expected.scheme() != scheme => {
                    failure = format!(
                        "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {expected}"
                    );
                }
                Some(_) => self.list.push((own.name.clone(), url)),
                None => {
                    self.list.push((self.strangers.to_string(), url));
                    self.strangers += 1;
                }
            }
        }
        if self.list.len() == before { Err(failure) } else { Ok(()) }
    }

    /// As the flag would name them.
    fn text(&self) -> String {
        self.list.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",")
    }

    fn into_cluster(self) -> InitialCluster {
        let mut cluster = InitialCluster::new();
        for (name, url) in self.list {
            cluster.entry(name).or_default().push(url);
        }
        for urls in cluster.values_mut() {
            urls.sort();
        }
        cluster
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::initial_cluster_text;

    /// A domain: its services and its hosts.
    #[derive(Default)]
    struct Zone {
        services: BTreeMap<String, Vec<ServiceRecord>>,
        hosts: BTreeMap<String, Vec<&'static str>>,
    }

    impl Zone {
        /// Names hosts `a`, `b` and so on for a service, at port 2380.
        fn service(mut self, name: &str, hosts: &[&str]) -> Self {
            let record = |host: &&str| ServiceRecord {
                priority: 0,
                weight: 0,
                target: format!("{host}.example.com."),
                port: 2380,
            };
            self.services.insert(name.to_owned(), hosts.iter().map(record).collect());
            self
        }

        fn host(mut self, name: &str, addresses: &[&'static str]) -> Self {
            self.hosts.insert(format!("{name}.example.com"), addresses.to_vec());
            self
        }

        /// Three hosts.
        fn new() -> Self {
            let zone = Self::default();
            zone.host("a", &["10.0.0.1"]).host("b", &["10.0.0.2"]).host("c", &["10.0.0.3", "fd00::3"])
        }
    }

    impl Dns for Zone {
        async fn services(&self, name: &str) -> Result<Vec<ServiceRecord>, String> {
            self.services.get(name).cloned().ok_or_else(|| format!("lookup {name} on 127.0.0.1:53: no such host"))
        }

        async fn addresses(&self, host: &str, port: u16) -> Result<BTreeSet<SocketAddr>, String> {
            let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
            if host.parse::<std::net::IpAddr>().is_ok() {
                return Ok(BTreeSet::from([address(host)]));
            }
            let found = self.hosts.get(host).ok_or_else(|| format!("lookup {host}: no such host"))?;
            Ok(found.iter().map(|ip| address(ip)).collect())
        }
    }

    fn found(zone: &Zone, flags: &[&str]) -> Result<String, String> {
        let all = ["--name=m", "--discovery-srv=example.com"].into_iter().chain(flags.iter().copied());
        let config = Config::from_flags(all).unwrap();
        // Nothing in it waits.
        let cluster = futures_util::FutureExt::now_or_never(initial_cluster(zone, &config)).unwrap();
        cluster.map(|cluster| initial_cluster_text(&cluster)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_member_knows_itself_by_its_address() {
        let zone = Zone::new().service("_etcd-server._tcp.example.com", &["a", "b", "c"]);
        let expected = "0=http://a.example.com:2380,1=http://c.example.com:2380,m=http://b.example.com:2380";
        for url in ["http://10.0.0.2:2380", "http://b.example.com:2380"] {
            let flag = format!("--initial-advertise-peer-urls={url}");
            assert_eq!(found(&zone, &[&flag]), Ok(expected.to_owned()), "{url}");
        }
        let expected = "0=http://a.example.com:2380,1=http://b.example.com:2380,m=http://c.example.com:2380";
        for url in ["http://10.0.0.3:2380", "http://[fd00::3]:2380"] {
            let flag = format!("--initial-advertise-peer-urls={url}");
            assert_eq!(found(&zone, &[&flag]), Ok(expected.to_owned()), "one address of several: {url}");
        }
        let refusal = found(&zone, &["--initial-advertise-peer-urls=http://10.0.0.2:2379"]).unwrap_err();
        assert_eq!(refusal, r#"cannot find local etcd member "m" in SRV records"#);
        let refusal = found(&zone, &["--initial-advertise-peer-urls=http://x.example.com:2380"]).unwrap_err();
        assert_eq!(refusal, "lookup x.example.com: no such host");
    }

    #[test]
    fn services_with_and_without_tls_go_together() {
        let own = "--initial-advertise-peer-urls=https://10.0.0.1:2380";
        let zone = Zone::new()
            .service("_etcd-server-ssl._tcp.example.com", &["a", "b"])
            .service("_etcd-server._tcp.example.com", &["c"]);
        let expected = "0=https://b.example.com:2380,1=http://c.example.com:2380,m=https://a.example.com:2380";
        assert_eq!(found(&zone, &[own]), Ok(expected.to_owned()));
        let zone = Zone::new().service("_etcd-server-ssl-east._tcp.example.com", &["a"]);
        let expected = "m=https://a.example.com:2380";
        assert_eq!(found(&zone, &[own, "--discovery-srv-name=east"]), Ok(expected.to_owned()));
    }

    #[test]
    fn where_there_are_no_members_all_reasons_are_told() {
        let own = "--initial-advertise-peer-urls=https://10.0.0.1:2380";
        assert_eq!(
            found(&Zone::new(), &[own]).unwrap_err(),
            "error querying DNS SRV records for _etcd-server-ssl \
             lookup _etcd-server-ssl._tcp.example.com on 127.0.0.1:53: no such host\n\
             error querying DNS SRV records for _etcd-server \
             lookup _etcd-server._tcp.example.com on 127.0.0.1:53: no such host"
        );
        let zone = Zone::new()
            .service("_etcd-server-ssl._tcp.example.com", &["x"])
            .service("_etcd-server._tcp.example.com", &["a"]);
        assert_eq!(
            found(&zone, &[own]).unwrap_err(),
            "error querying DNS SRV records for _etcd-server-ssl lookup x.example.com: no such host\n\
             error querying DNS SRV records for _etcd-server bootstrap at http://a.example.com:2380 from DNS for \
             etcd-server has scheme mismatch with expected peer https://10.0.0.1:2380"
        );
    }

    #[test]
    fn records_are_taken_by_priority_and_weight() {
        let mut zone = Zone::new().service("_etcd-server._tcp.example.com", &["a", "b", "c"]);
        let records = zone.services.values_mut().next().unwrap();
        (records[0].priority, records[1].weight, records[2].weight) = (1, 1, 2);
        let expected = "0=http://b.example.com:2380,1=http://a.example.com:2380,m=http://c.example.com:2380";
        let flag = "--initial-advertise-peer-urls=http://10.0.0.3:2380";
        assert_eq!(found(&zone, &[flag]), Ok(expected.to_owned()));
    }

    #[test]
    fn a_gateway_finds_members_with_and_without_tls() {
        let found = |zone: &Zone, suffix: &str| {
            futures_util::FutureExt::now_or_never(clients(zone, "example.com", suffix)).unwrap()
        };
        let zone = Zone::new()
            .service("_etcd-client-ssl._tcp.example.com", &["a"])
            .service("_etcd-client._tcp.example.com", &["c", "b"]);
        let expected = ["https://a.example.com:2380", "http://b.example.com:2380", "http://c.example.com:2380"];
        assert_eq!(found(&zone, "").unwrap(), expected);
        assert_eq!(
            found(&zone, "x").unwrap_err(),
            "dns lookup errors: lookup _etcd-client-ssl-x._tcp.example.com on 127.0.0.1:53: no such host and \
             lookup _etcd-client-x._tcp.example.com on 127.0.0.1:53: no such host"
        );
        let zone = Zone::new().service("_etcd-client-x._tcp.example.com", &["b"]);
        assert_eq!(found(&zone, "x").unwrap(), ["http://b.example.com:2380"]);
    }
}
