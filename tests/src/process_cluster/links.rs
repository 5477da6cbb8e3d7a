//! The network between members: one proxy per member, through which the others reach it.
//!
//! A connection is counted to the member that made it by the process that owns its far end, so a
//! cut hits one pair of members and nothing else. A cut link swallows bytes as a broken cable does;
//! when it heals, the connections that lost bytes are closed and the members make new ones.
//!
//! A link can also spoil what it carries, as a broken network card does whose checksum is right: one byte, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::port::free_port;

/// How often it is looked for who made a connection.
const LOOKUPS: usize = 20;
/// Pause between two looks.
const LOOKUP_PAUSE: Duration = Duration::from_millis(5);
/// As much as one frame of HTTP/2 holds. What comes in pieces of this size is content, but for a few bytes in each
/// frame.
const MUCH_AT_ONCE: usize = 16 * 1024;

/// The proxies of a cluster.
pub(super) struct Links {
    shared: Arc<Shared>,
    ports: Vec<u16>,
    acceptors: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Counts the changes of the state, so that every connection hears of them.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// The process of each member, where it was started.
    owners: Vec<Option<u32>>,
    isolated: BTreeSet<usize>,
    /// To which members a byte is to be flipped, each with how much the connection must have carried before.
    to_spoil: BTreeMap<usize, u64>,
    /// To which members bytes were flipped, and how many.
    spoiled: BTreeMap<usize, usize>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_cut(&self, from: Option<usize>, to: usize) -> bool {
        let state = self.state();
        state.isolated.contains(&to) || from.is_some_and(|from| state.isolated.contains(&from))
    }

    /// The same, asked again for a while where nobody is found: the kernel's table of connections is read in
    /// pieces, and one that changes meanwhile may show a connection in none of them. A connection that is
    /// counted to nobody would pass through a cut.
    async fn find_member(&self, address: SocketAddr) -> Option<usize> {
        for _ in 0..LOOKUPS {
            if let Some(member) = self.member_of(address) {
                return Some(member);
            }
            sleep(LOOKUP_PAUSE).await;
        }
        None
    }

    /// The member whose process made the connection that comes from `address`.
    fn member_of(&self, address: SocketAddr) -> Option<usize> {
        let inode = inode_of(address)?;
        let owners = self.state().owners.clone();
        owners.iter().position(|owner| owner.is_some_and(|process| owns_socket(process, inode)))
    }

    /// Flips a byte of what is about to be passed on to a member, where that is asked for and this is content; the
    /// connection has carried so many bytes, these included.
    fn spoil(&self, to: usize, carried: u64, bytes: &mut [u8]) {
        if bytes.len() < MUCH_AT_ONCE {
            return;
        }
        let mut state = self.state();
        if state.to_spoil.get(&to).is_some_and(|after| carried > *after) {
            state.to_spoil.remove(&to);
            *state.spoiled.entry(to).or_default() += 1;
            bytes[bytes.len() / 2] ^= 1;
        }
    }
}

impl Links {
    pub(super) fn new() -> Self {
        let shared = Shared { state: Mutex::default(), changes: watch::channel(0).0 };
        Self { shared: Arc::new(shared), ports: Vec::new(), acceptors: Vec::new() }
    }

    /// Opens the proxy of the next member, which listens for its peers on `port`.
    pub(super) async fn open(&mut self, member: usize, port: u16) -> Result<()> {
        assert_eq!(member, self.ports.len(), "members are added in order");
        let public = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, public)).await?;
        self.ports.push(public);
        self.shared.state().owners.push(None);
        let shared = self.shared.clone();
        self.acceptors.push(tokio::spawn(async move {
            while let Ok((incoming, address)) = listener.accept().await {
                tokio::spawn(carry(shared.clone(), incoming, address, member, port));
            }
        }));
        Ok(())
    }

    /// Where the others reach a member.
    pub(super) fn address(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.ports[member])
    }

    /// Says which process a member is, from now on.
    pub(super) fn owned_by(&self, member: usize, process: u32) {
        self.shared.state().owners[member] = Some(process);
    }

    pub(super) fn isolate(&self, member: usize) {
        self.shared.state().isolated.insert(member);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Flips one byte of what is sent to a member, in a connection that has carried more than `after` bytes.
    pub(super) fn spoil(&self, member: usize, after: u64) {
        self.shared.state().to_spoil.insert(member, after);
    }

    /// How many bytes were flipped on their way to a member.
    pub(super) fn spoiled(&self, member: usize) -> usize {
        self.shared.state().spoiled.get(&member).copied().unwrap_or_default()
    }

    pub(super) fn heal(&self) {
        self.shared.state().isolated.clear();
        self.shared.changes.send_modify(|count| *count += 1);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for acceptor in &self.acceptors {
            acceptor.abort();
        }
    }
}

/// Carries one connection until an end closes, or until a cut that it lived through heals.
async fn carry(shared: Arc<Shared>, mut incoming: TcpStream, address: SocketAddr, to: usize, port: u16) {
    let from = shared.find_member(address).await;
    let mut changes = shared.changes.subscribe();
    let cut = |shared: &Shared| shared.is_cut(from, to);
    // A connection into a cut is neither refused nor answered.
    let mut swallows = cut(&shared);
    let mut outgoing = None;
    if !swallows {
        let Ok(connected) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else { return };
        outgoing = Some(connected);
    }
    let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut carried = 0;
    loop {
        let far_end = async {
            match &mut outgoing {
                Some(outgoing) if !swallows => outgoing.read(&mut down).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        // In this order: a change must be seen before bytes that came after it are passed on.
        tokio::select! { biased;
            changed = changes.changed() => {
                let now = cut(&shared);
                if changed.is_err() || (swallows && !now) {
                    return;
                }
                swallows = now;
            }
            read = incoming.read(&mut up) => {
                let Ok(count @ 1..) = read else { return };
                carried += count as u64;
                shared.spoil(to, carried, &mut up[..count]);
                if !swallows
                    && let Some(outgoing) = &mut outgoing
                    && outgoing.write_all(&up[..count]).await.is_err()
                {
                    return;
                }
            }
            read = far_end => {
                let Ok(count @ 1..) = read else { return };
                if incoming.write_all(&down[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The inode of the local socket that is bound to `address`.
fn inode_of(address: SocketAddr) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!("0100007F:{:04X}", address.port());
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&local))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

fn owns_socket(process: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
}
