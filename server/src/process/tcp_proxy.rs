//! `gateway start`: connections to one address are passed on to members, whatever is spoken on them.
//!
//! Members take turns. One that cannot be reached is left out, and tried again after a while.

use std::sync::Arc;

use mainstay_server::config::GatewayOptions;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The members.
struct Remotes {
    all: Vec<Remote>,
    turn: usize,
}

struct Remote {
    address: String,
    reachable: bool,
}

impl Remotes {
    fn new(addresses: &[String]) -> Self {
        let all = addresses.iter().map(|address| Remote { address: address.clone(), reachable: true }).collect();
        Self { all, turn: 0 }
    }

    /// Whose turn it is; `None` where nobody can be reached.
    fn pick(&mut self) -> Option<String> {
        for _ in 0..self.all.len() {
            let remote = &self.all[self.turn % self.all.len()];
            self.turn += 1;
            if remote.reachable {
                return Some(remote.address.clone());
            }
        }
        None
    }

    fn mark(&mut self, address: &str, reachable: bool) {
        for remote in self.all.iter_mut().filter(|remote| remote.address == address) {
            remote.reachable = reachable;
        }
    }

    fn unreachable(&self) -> Vec<String> {
        self.all.iter().filter(|remote| !remote.reachable).map(|remote| remote.address.clone()).collect()
    }
}

/// Listens, and says that it does.
pub(crate) async fn bind(options: &GatewayOptions) -> anyhow::Result<TcpListener> {
    for endpoint in &options.endpoints {
        if endpoint.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            anyhow::bail!("error parsing endpoint {endpoint:?}");
        }
    }
    anyhow::ensure!(!options.endpoints.is_empty(), "no endpoints found");
    anyhow::ensure!(options.listen_addr.contains(':'), "failed to validate listen address: {}", options.listen_addr);
    let listener = TcpListener::bind(&options.listen_addr).await.map_err(|error| {
        let text = mainstay_server::config::io_text(&error);
        anyhow::anyhow!("listen tcp {}: bind: {text}", options.listen_addr)
    })?;
    tracing::info!(endpoints = ?options.endpoints, "ready to proxy client requests");
    Ok(listener)
}

/// Passes connections on until the process ends.
pub(crate) async fn run(listener: TcpListener, options: GatewayOptions) {
    let remotes = Arc::new(Mutex::new(Remotes::new(&options.endpoints)));
    let mut connections = JoinSet::new();
    // As in etcd, no delay is a long one.
    let delay = if options.retry_delay.is_zero() { std::time::Duration::from_mins(5) } else { options.retry_delay };
    let mut retries = tokio::time::interval_at(tokio::time::Instant::now() + delay, delay);
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            _ = retries.tick() => retry(&remotes).await,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let remotes = Arc::clone(&remotes);
                    connections.spawn(serve(stream, remotes));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn serve(mut stream: TcpStream, remotes: Arc<Mutex<Remotes>>) {
    loop {
        let picked = remotes.lock().pick();
        let Some(address) = picked else { return };
        match TcpStream::connect(&address).await {
            Ok(mut remote) => {
                // Whichever side ends it; there is nobody to tell of an error.
                let _ended = tokio::io::copy_bidirectional(&mut stream, &mut remote).await.is_err();
                return;
            }
            Err(error) => {
                tracing::warn!(address, %error, "deactivated endpoint");
                remotes.lock().mark(&address, false);
            }
        }
    }
}

async fn retry(remotes: &Mutex<Remotes>) {
    let unreachable = remotes.lock().unreachable();
    for address in unreachable {
        match tokio::time::timeout(std::time::Duration::from_secs(1), TcpStream::connect(&address)).await {
            Ok(Ok(_)) => {
                tracing::info!(address, "activated");
                remotes.lock().mark(&address, true);
            }
            _ => tracing::warn!(address, "failed to activate endpoint (stay inactive for another interval)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A server that says its name to whoever connects, until it is dropped.
    async fn server(name: &'static str, address: &str) -> (String, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(name.as_bytes()).await.unwrap();
            }
        });
        (address, task)
    }

    async fn ask(address: &str) -> String {
        let mut text = String::new();
        TcpStream::connect(address).await.unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn members_take_turns_and_the_lost_are_left_out_until_they_are_back() {
        let (first, _first) = server("first", "127.0.0.1:0").await;
        let (second, task) = server("second", "127.0.0.1:0").await;
        let options = GatewayOptions {
            listen_addr: "127.0.0.1:0".to_owned(),
            endpoints: vec![first, second.clone()],
            discovery: None,
            retry_delay: Duration::from_millis(20),
        };
        let listener = bind(&options).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = tokio::spawn(run(listener, options));
        assert_eq!([ask(&address).await, ask(&address).await, ask(&address).await], ["first", "second", "first"]);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        for _ in 0..4 {
            assert_eq!(ask(&address).await, "first");
        }
        let _second = server("second again", &second).await;
        while ask(&address).await != "second again" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.abort();
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let with = |listen_addr: &str, endpoint: &str| GatewayOptions {
            listen_addr: listen_addr.to_owned(),
            endpoints: vec![endpoint.to_owned()],
            ..GatewayOptions::default()
        };
        let refusal = async |options: GatewayOptions| bind(&options).await.unwrap_err().to_string();
        assert_eq!(refusal(with("127.0.0.1:0", "foo")).await, r#"error parsing endpoint "foo""#);
        assert_eq!(refusal(with("1", "127.0.0.1:1")).await, "failed to validate listen address: 1");
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = holder.local_addr().unwrap();
        let taken_again = refusal(with(&taken.to_string(), "127.0.0.1:1")).await;
        assert_eq!(taken_again, format!("listen tcp {taken}: bind: address already in use"));
    }
}
