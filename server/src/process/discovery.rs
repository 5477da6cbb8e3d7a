//! Discovery with real sockets: the discovery service over gRPC, and the DNS that the system names.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::read_system_conf;
use http::Uri;
use hyper_util::rt::TokioIo;
use mainstay_client::{Client, ClientOptions, Connector, User};
use mainstay_server::config::{Config, GatewayDiscovery, GatewayOptions, TlsDetails, TransportSecurity, io_text};
use mainstay_server::discovery::{self, DiscoveryError, Dns, RegistryError, ServiceRecord};
use mainstay_server::env::tls::Tls;
use mainstay_server::node::{Discover, StartError};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::security;

/// Servers take it amiss where they are probed more often than they wish, so that etcd's client does not do it either,
/// whatever the flag says.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(10);

/// How long a member that a gateway found may take to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// Where DNS servers listen.
const DNS_PORT: u16 = 53;

/// Finds the first members as the flags say; `None` where these name them.
pub(super) fn of_flags(config: &Config) -> Option<Discover> {
    let config = Arc::new(config.clone());
    if config.discovery.uses_token() {
        let by_token: Discover = Box::new(move || {
            let config = config.clone();
            Box::pin(async move {
                let client = client(&config)?;
                discovery::join(&client, &config).await
            })
        });
        return Some(by_token);
    }
    if config.discovery.uses_dns() {
        let by_dns: Discover = Box::new(move || {
            let config = config.clone();
            Box::pin(async move {
                let found = discovery::initial_cluster(&SystemDns, &config).await;
                found.map_err(DiscoveryError::from)
            })
        });
        return Some(by_dns);
    }
    None
}

/// Says what to do about a token that is used up; the words are etcd's.
pub(super) fn explain(config: &Config, error: &StartError) {
    if matches!(error, StartError::Discovery(DiscoveryError::Registry(RegistryError::FullCluster))) {
        tracing::warn!(
            "discovery-token" = config.discovery.token,
            "discovery-endpoints" = config.discovery.endpoints.join(","),
            %error,
            "failed to bootstrap; discovery token was already used"
        );
        tracing::warn!("do not reuse discovery token; generate a new one to bootstrap a cluster");
    }
}

/// A client of the discovery service.
fn client(config: &Config) -> Result<Client, RegistryError> {
    let told = &config.discovery;
    let options = ClientOptions { request_timeout: told.request_timeout, ..ClientOptions::default() };
    let client = Client::with_connector(&Sockets::new(config), &told.endpoints, options)?;
    Ok(if told.user.is_empty() { client } else { client.with_user(User::new(&told.user, &told.password)) })
}

/// Connections to the discovery service.
struct Sockets {
    dial_timeout: Duration,
    keep_alive_interval: Duration,
    keep_alive_timeout: Duration,
    /// What an endpoint without a scheme speaks.
    scheme: &'static str,
    security: TransportSecurity,
    details: TlsDetails,
}

impl Sockets {
    fn new(config: &Config) -> Self {
        let told = &config.discovery;
        let has_files = [&told.cert, &told.key, &told.cacert].iter().any(|file| !file.is_empty());
        Self {
            dial_timeout: told.dial_timeout,
            keep_alive_interval: told.keepalive_time.max(KEEP_ALIVE_MIN),
            keep_alive_timeout: told.keepalive_timeout,
            scheme: if has_files || !told.insecure_transport { "https" } else { "http" },
            security: TransportSecurity {
                client_cert_file: told.cert.clone(),
                client_key_file: told.key.clone(),
                trusted_ca_file: told.cacert.clone(),
                // The same trust as among members that make their own certificates: in anybody.
                auto_tls: told.insecure_skip_tls_verify,
                ..TransportSecurity::default()
            },
            details: config.tls.clone(),
        }
    }
}

impl Connector for Sockets {
    type Service = Channel;

    fn connect(&self, endpoint: &str) -> Result<Channel, Box<dyn Error + Send + Sync>> {
        let address =
            if endpoint.contains("://") { endpoint.to_owned() } else { format!("{}://{endpoint}", self.scheme) };
        let endpoint = Endpoint::from_shared(address)?
            .connect_timeout(self.dial_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keep_alive_interval)
            .keep_alive_timeout(self.keep_alive_timeout)
            .keep_alive_while_idle(true);
        if endpoint.uri().scheme_str() != Some("https") {
            return Ok(endpoint.connect_lazy());
        }
        let tls = Tls::with_peers(&self.security, &self.details)
            .map_err(|error| security::with_flags(error, &security::DISCOVERY_FILES, &self.security))?;
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
            let tls = tls.clone();
            async move {
                let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
                // IPv6 stands in brackets, and nowhere but in URLs.
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let socket = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
                socket.set_nodelay(true)?;
                tls.connect(host, socket).await.map(TokioIo::new)
            }
        })))
    }
}

/// The DNS as `/etc/resolv.conf` says. Addresses are the system's affair, as everywhere else, because they may stand
/// in its own files; it has no call for SRV records.
struct SystemDns;

impl Dns for SystemDns {
    async fn services(&self, name: &str) -> Result<Vec<ServiceRecord>, String> {
        let (config, options) = read_system_conf().map_err(|error| format!("lookup {name}: {error}"))?;
        let server = config.name_servers().first().map(|server| SocketAddr::new(server.ip, DNS_PORT));
        let on = server.map(|server| format!(" on {server}")).unwrap_or_default();
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| format!("lookup {name}: {error}"))?;
        let found = resolver.srv_lookup(name).await.map_err(|error| {
            let why = if error.is_no_records_found() { "no such host".to_owned() } else { error.to_string() };
            format!("lookup {name}{on}: {why}")
        })?;
        // Other records lead there, such as other names of the service.
        let record = |data: &RData| match data {
            RData::SRV(record) => Some(ServiceRecord {
                priority: record.priority,
                weight: record.weight,
                target: record.target.to_ascii(),
                port: record.port,
            }),
            _ => None,
        };
        let records: Vec<ServiceRecord> = found.answers().iter().filter_map(|answer| record(&answer.data)).collect();
        if records.is_empty() { Err(format!("lookup {name}{on}: no such host")) } else { Ok(records) }
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<BTreeSet<SocketAddr>, String> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(BTreeSet::from([SocketAddr::new(ip, port)]));
        }
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => Ok(found.collect()),
            Err(error) => Err(format!("lookup {host}: {}", io_text(&error))),
        }
    }
}

/// The gateway's options with the members that were discovered, where that was asked for and brought any.
///
/// # Errors
/// When the DNS tells of none; the words are etcd's.
pub(crate) async fn for_gateway(options: GatewayOptions) -> Result<GatewayOptions, String> {
    let Some(GatewayDiscovery { srv, srv_name, insecure }) = &options.discovery else { return Ok(options) };
    let mut found = discovery::clients(&SystemDns, srv, srv_name).await?;
    tracing::info!("srv-server" = srv, endpoints = ?found, "discovered cluster from SRV");
    if !insecure {
        found = secure(&found).await;
        tracing::info!("srv-server" = srv, endpoints = ?found, "using validated discovered SRV endpoints");
    }
    let address = |url: &String| url.split_once("://").map_or(url.as_str(), |(_, address)| address).to_owned();
    let endpoints: Vec<String> = found.iter().map(address).collect();
    Ok(if endpoints.is_empty() { options } else { GatewayOptions { endpoints, ..options } })
}

/// Those of the members that speak TLS and can be reached.
async fn secure(urls: &[String]) -> Vec<String> {
    let mut secure = Vec::new();
    for url in urls {
        let Some(address) = url.strip_prefix("https://") else {
            tracing::warn!(endpoint = url, "discovered endpoint is insecure");
            continue;
        };
        match timeout(REACHED_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(_reached)) => secure.push(url.clone()),
            Ok(Err(error)) => tracing::warn!(endpoint = url, %error, "failed to dial discovered endpoint"),
            Err(_elapsed) => tracing::warn!(endpoint = url, "failed to dial discovered endpoint in time"),
        }
    }
    secure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(flags: &[&str]) -> Sockets {
        let all = ["--discovery-token=t", "--discovery-endpoints=127.0.0.1:1"].into_iter().chain(flags.iter().copied());
        Sockets::new(&Config::from_flags(all).unwrap())
    }

    #[test]
    fn whoever_gives_files_wants_tls() {
        assert_eq!(sockets(&[]).scheme, "http");
        assert_eq!(sockets(&["--discovery-insecure-transport=false"]).scheme, "https");
        assert_eq!(sockets(&["--discovery-cacert=a"]).scheme, "https");
        let pair = sockets(&["--discovery-cert=a", "--discovery-key=b"]);
        assert_eq!(
            (pair.scheme, &*pair.security.client_cert_file, &*pair.security.client_key_file),
            ("https", "a", "b")
        );
    }

    #[test]
    fn pings_come_no_more_often_than_servers_take() {
        assert_eq!(sockets(&[]).keep_alive_interval, Duration::from_secs(10));
        assert_eq!(sockets(&["--discovery-keepalive-time=1m"]).keep_alive_interval, Duration::from_secs(60));
    }

    #[tokio::test]
    async fn files_that_are_not_there_are_told() {
        let refusal = sockets(&["--discovery-cacert=/no/such/file"]).connect("https://127.0.0.1:1").unwrap_err();
        assert_eq!(refusal.to_string(), "--discovery-cacert: open /no/such/file: no such file or directory");
    }

    #[tokio::test]
    async fn addresses_need_no_dns() {
        let found = |host: &'static str| async move { SystemDns.addresses(host, 7).await.unwrap() };
        assert_eq!(found("10.0.0.1").await, BTreeSet::from(["10.0.0.1:7".parse().unwrap()]));
        assert_eq!(found("fd00::1").await, BTreeSet::from(["[fd00::1]:7".parse().unwrap()]));
        assert!(found("localhost").await.iter().all(|address| address.ip().is_loopback()));
    }

    #[tokio::test]
    async fn only_members_with_tls_that_answer_are_secure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reachable = format!("https://{}", listener.local_addr().unwrap());
        let plain = reachable.replace("https", "http");
        let gone = {
            let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            format!("https://{}", closed.local_addr().unwrap())
        };
        assert_eq!(secure(&[plain, gone, reachable.clone()]).await, [reachable]);
    }
}
