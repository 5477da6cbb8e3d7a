//! The command line of `gateway`, as etcd's command library reads it (pure).

use std::time::Duration;

use super::go;
use super::invocation::Invocation;
use super::refusal::Refusal;

const HELP: &str = "\
gateway related command

Usage:
  etcd gateway [command]

Available Commands:
  start       start the gateway

Flags:
  -h, --help   help for gateway
";

const START_USAGE: &str = "\
Usage:
  etcd gateway start [flags]

Flags:
      --discovery-srv string        DNS domain used to bootstrap initial cluster
      --discovery-srv-name string   service name to query when using DNS discovery
      --endpoints strings           comma separated etcd cluster endpoints (default [127.0.0.1:2379])
  -h, --help                        help for start
      --insecure-discovery          accept insecure SRV records
      --listen-addr string          listen address (default \"127.0.0.1:23790\")
      --retry-delay duration        duration of delay before retrying failed endpoints (default 1m0s)
";

/// What `gateway start` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Where to listen, `host:port`.
    pub listen_addr: String,
    /// Where the members are, `host:port` each; where none are discovered.
    pub endpoints: Vec<String>,
    /// How to discover them, if at all.
    pub discovery: Option<GatewayDiscovery>,
    /// How long a member is left alone that could not be reached.
    pub retry_delay: Duration,
}

/// Members that the DNS is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayDiscovery {
    /// DNS domain whose SRV records name them.
    pub srv: String,
    /// Suffix of the SRV service name.
    pub srv_name: String,
    /// Whether to take those, too, that speak no TLS or cannot be reached.
    pub insecure: bool,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            listen_addr: "127.0.0.1:23790".to_owned(),
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            discovery: None,
            retry_delay: Duration::from_mins(1),
        }
    }
}

/// Reads what stands behind `gateway`.
pub(super) fn understand(arguments: &[String]) -> Result<Invocation, Refusal> {
    match arguments.split_first() {
        Some((word, rest)) if word == "start" => start(rest),
        _ => Ok(Invocation::Print(HELP.to_owned())),
    }
}

fn start(arguments: &[String]) -> Result<Invocation, Refusal> {
    let mut options = GatewayOptions::default();
    let mut endpoints: Option<Vec<String>> = None;
    let mut discovery = GatewayDiscovery::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix("--") else {
            match argument.as_str() {
                "-h" => return Ok(Invocation::Print(format!("start the gateway\n\n{START_USAGE}"))),
                short if short.starts_with('-') && short.len() > 1 => {
                    let letter = short.chars().nth(1).unwrap_or_default();
                    return Err(mistake(format!("unknown shorthand flag: {letter:?} in {short}")));
                }
                // Words are passed over, as in etcd.
                _ => continue,
            }
        };
        if flag.is_empty() {
            break;
        }
        let (name, inline) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        if name == "help" {
            return Ok(Invocation::Print(format!("start the gateway\n\n{START_USAGE}")));
        }
        if name == "insecure-discovery" {
            let value = inline.unwrap_or("true");
            discovery.insecure = go::parse_bool(value).map_err(|_| {
                let why = format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
                mistake(format!("invalid argument {value:?} for \"--insecure-discovery\" flag: {why}"))
            })?;
            continue;
        }
        let known =
            ["listen-addr", "endpoints", "retry-delay", "discovery-srv", "discovery-srv-name", "trusted-ca-file"];
        if !known.contains(&name) {
            return Err(mistake(format!("unknown flag: --{name}")));
        }
        let value = match inline {
            Some(value) => value.to_owned(),
            None => arguments.next().cloned().ok_or_else(|| mistake(format!("flag needs an argument: --{name}")))?,
        };
        match name {
            "listen-addr" => options.listen_addr = value,
            "endpoints" => {
                let several = value.split(',').filter(|one| !one.is_empty()).map(without_scheme);
                endpoints.get_or_insert_default().extend(several);
            }
            "retry-delay" => options.retry_delay = delay(&value)?,
            "discovery-srv" => discovery.srv = value,
            "discovery-srv-name" => discovery.srv_name = value,
            // `trusted-ca-file`: etcd reads it before it looks whether members can be reached, and has no use for it.
            _ => {}
        }
    }
    options.endpoints = endpoints.unwrap_or(options.endpoints);
    options.discovery = Some(discovery).filter(|discovery| !discovery.srv.is_empty());
    Ok(Invocation::Gateway(options))
}

fn delay(value: &str) -> Result<Duration, Refusal> {
    let nanoseconds = go::parse_duration(value).map_err(|_| {
        let why = if value.parse::<f64>().is_ok() { "missing unit in duration" } else { "invalid duration" };
        mistake(format!("invalid argument {value:?} for \"--retry-delay\" flag: time: {why} {value:?}"))
    })?;
    Ok(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default()))
}

/// The address in a URL; anything else as it is.
fn without_scheme(endpoint: &str) -> String {
    let address = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    address.split('/').next().unwrap_or(address).to_owned()
}

fn mistake(message: String) -> Refusal {
    Refusal::Command { message, usage: START_USAGE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Invocation, Refusal> {
        understand(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn options(line: &str) -> GatewayOptions {
        match read(line).unwrap() {
            Invocation::Gateway(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_are_read() {
        assert_eq!(options("start"), GatewayOptions::default());
        let given = options(
            "start --endpoints=http://a:1,b:2 --endpoints c:3 --listen-addr 0.0.0.0:9 --retry-delay=1.5s extra",
        );
        let expected = GatewayOptions {
            listen_addr: "0.0.0.0:9".to_owned(),
            endpoints: ["a:1", "b:2", "c:3"].map(str::to_owned).to_vec(),
            discovery: None,
            retry_delay: Duration::from_millis(1_500),
        };
        assert_eq!(given, expected);
    }

    #[test]
    fn members_may_be_discovered() {
        let discovery = |line: &str| options(line).discovery;
        let expected = |srv_name: &str, insecure| {
            Some(GatewayDiscovery { srv: "example.com".to_owned(), srv_name: srv_name.to_owned(), insecure })
        };
        assert_eq!(discovery("start --discovery-srv=example.com"), expected("", false));
        assert_eq!(
            discovery("start --insecure-discovery --discovery-srv example.com --discovery-srv-name=a"),
            expected("a", true)
        );
        assert_eq!(discovery("start --discovery-srv=example.com --insecure-discovery=false"), expected("", false));
        assert_eq!(discovery("start --discovery-srv= --discovery-srv-name=a --trusted-ca-file=b"), None);
    }

    #[test]
    fn help_is_given_and_mistakes_are_told() {
        for line in ["", "foo", "--x"] {
            assert!(matches!(read(line), Ok(Invocation::Print(text)) if text == HELP), "{line}");
        }
        assert!(matches!(read("start --help"), Ok(Invocation::Print(text)) if text.contains("--retry-delay")));
        for (line, message) in [
            ("start --x", "unknown flag: --x"),
            ("start -x", "unknown shorthand flag: 'x' in -x"),
            ("start --endpoints", "flag needs an argument: --endpoints"),
            (
                "start --retry-delay=5",
                r#"invalid argument "5" for "--retry-delay" flag: time: missing unit in duration "5""#,
            ),
            (
                "start --insecure-discovery=perhaps",
                r#"invalid argument "perhaps" for "--insecure-discovery" flag: strconv.ParseBool: parsing "perhaps": invalid syntax"#,
            ),
        ] {
            let refusal = read(line).unwrap_err();
            assert_eq!((refusal.to_string().as_str(), refusal.exit_code()), (message, 1));
        }
    }
}
