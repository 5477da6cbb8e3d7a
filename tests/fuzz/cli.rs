//! The command line, and the run: attackers side by side, and the ordinary client between them.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use mainstay_tests::dice::Dice;
use mainstay_tests::wire::Connection;

use crate::tally::{Answer, Tally};
use crate::victim::Victim;
use crate::{calls, http1, http2};

/// Sends what no client would send to a server, and watches that it stays well.
#[derive(Debug, Parser)]
#[command(name = "fuzz")]
struct Cli {
    /// For how long
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What is sent
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The server under test
    #[arg(long, value_name = "FILE", env = "MAINSTAY_BIN")]
    subject: PathBuf,
}

/// How many attackers there are.
const ATTACKERS: u64 = 8;
/// How many calls an attacker makes on a connection before it takes another.
const CALLS: usize = 10;
/// How many connections that go nowhere an attacker keeps open.
const SLOW: usize = 20;
/// How often it is checked whether the server is well.
const CHECKED_EVERY: Duration = Duration::from_secs(2);
/// The part of the time after which memory should grow no more.
const WARM_AFTER: f64 = 0.4;
/// What may be added to the memory after that: what is under way, and what allocators keep.
const GROWTH_BYTES: u64 = 128 << 20;

/// Takes the command line and returns what the process says of it.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("starting a runtime").and_then(|runtime| runtime.block_on(attack(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}\nagain: make fuzz SEED={} SECONDS={}", cli.seed, cli.seconds);
            ExitCode::FAILURE
        }
    }
}

async fn attack(cli: &Cli) -> Result<()> {
    let mut victim = Victim::start(&cli.subject).await?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let (begun, time) = (Instant::now(), Duration::from_secs(cli.seconds));
    let mut attackers = JoinSet::new();
    for number in 0..ATTACKERS {
        let attacker = Attacker {
            address: victim.server.address(),
            dice: Dice::new(cli.seed.wrapping_mul(ATTACKERS).wrapping_add(number)),
            tally: Arc::clone(&tally),
            slow: Vec::new(),
        };
        attackers.spawn(attacker.run(begun + time));
    }
    let (mut warm, mut most) = (None, 0);
    let checked = loop {
        tokio::time::sleep(CHECKED_EVERY).await;
        if let Err(error) = victim.check().await {
            break Err(error);
        }
        let memory = victim.memory()?;
        most = most.max(memory);
        if begun.elapsed() > time.mul_f64(WARM_AFTER) {
            warm.get_or_insert(most);
        }
        if begun.elapsed() > time {
            break Ok(());
        }
    };
    if checked.is_ok() {
        while attackers.join_next().await.is_some() {}
    }
    attackers.shutdown().await;
    let tally = std::mem::take(&mut *tally.lock().expect("nobody panics with it"));
    say(&format!("fuzz: seed {}, {} inputs in {} s", cli.seed, tally.sum(), begun.elapsed().as_secs()));
    tally.lines().iter().for_each(|line| say(line));
    checked?;
    // Nobody attacks any more, and what they left behind is over.
    victim.check().await.context("after the attacks")?;
    let warm = warm.context("the run was too short to tell of memory")?;
    let last = victim.memory()?;
    say(&format!("  memory: {} MiB when warm, {} MiB at most, {} MiB at the end", warm >> 20, most >> 20, last >> 20));
    if most > warm + GROWTH_BYTES {
        bail!("memory grew from {} MiB to {} MiB", warm >> 20, most >> 20);
    }
    match tally.unanswered.first() {
        Some(first) => bail!("{} inputs were not answered, the first: {first}", tally.unanswered.len()),
        None => Ok(()),
    }
}

/// One of several that attack side by side.
struct Attacker {
    address: std::net::SocketAddr,
    dice: Dice,
    tally: Arc<Mutex<Tally>>,
    /// Connections that go nowhere.
    slow: Vec<TcpStream>,
}

impl Attacker {
    async fn run(mut self, until: Instant) {
        while Instant::now() < until {
            match self.dice.below(10) {
                0 | 1 => {
                    let answer = http2::connection(self.address, &mut self.dice).await;
                    self.count("http/2", answer);
                }
                2 => {
                    let answer = http1::request(self.address, &mut self.dice).await;
                    self.count("http/1", answer);
                }
                3 => self.slow().await,
                _ => self.calls().await,
            }
        }
    }

    async fn calls(&mut self) {
        let Ok(connection) = Connection::open(self.address).await else {
            return self.count("connections", Answer::Closed);
        };
        for _ in 0..CALLS {
            let (kind, answer) = match self.dice.below(10) {
                0..=3 => ("structure", calls::structured(&connection, &mut self.dice).await),
                4..=6 => ("bytes", calls::mutated(&connection, &mut self.dice).await),
                7 | 8 => ("envelopes", calls::enveloped(&connection, &mut self.dice).await),
                _ => ("headers", calls::headed(&connection, &mut self.dice).await),
            };
            self.count(kind, answer);
            if connection.is_closed() {
                return;
            }
        }
    }

    async fn slow(&mut self) {
        if self.slow.len() == SLOW {
            self.slow.remove(self.dice.below(SLOW));
        }
        let opened = http2::slow(self.address, &mut self.dice).await;
        self.count("slow", if opened.is_some() { Answer::Lasts } else { Answer::Closed });
        self.slow.extend(opened);
    }

    fn count(&self, kind: &'static str, answer: Answer) {
        self.tally.lock().expect("nobody panics with it").count(kind, answer);
    }
}

/// Writes a line of the result; a closed pipe is nobody's fault.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}
