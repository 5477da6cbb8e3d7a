//! The network between members: one proxy per member, through which the others reach it.
//!
//! A connection is counted to the member that made it by the process that owns its far end, so a
//! cut hits one pair of members and nothing else. One whose far end is not found is not carried: it could pass a cut.
//! A cut link swallows bytes as a broken cable does; when it heals, the connections that lost bytes are closed and the
//! members make new ones.
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

    /// Who made a connection. Asked again for a while where no member is found: the kernel's table of connections is
    /// read in pieces, and one that changes meanwhile may show a connection in none of them.
    async fn maker_of(&self, connection: &Connection) -> Maker {
        let mut maker = Maker::Unknown;
        for _ in 0..LOOKUPS {
            maker = self.look_up(connection);
            if matches!(maker, Maker::Member(_)) {
                break;
            }
            sleep(LOOKUP_PAUSE).await;
        }
        maker
    }

    fn look_up(&self, connection: &Connection) -> Maker {
        let Ok(table) = fs::read_to_string("/proc/net/tcp") else { return Maker::Unknown };
        let Some(inode) = connection.inode_in(&table) else { return Maker::Unknown };
        let owners = self.state().owners.clone();
        let member = owners.iter().position(|owner| owner.is_some_and(|process| owns_socket(process, inode)));
        member.map_or(Maker::Other, Maker::Member)
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
    let Ok(proxy) = incoming.local_addr() else { return };
    let from = match shared.maker_of(&Connection { from: address, to: proxy }).await {
        Maker::Member(member) => Some(member),
        Maker::Other => None,
        Maker::Unknown => return,
    };
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

/// Who made a connection.
enum Maker {
    Member(usize),
    /// A process that is no member.
    Other,
    /// Its end of the connection is not there, or was not seen.
    Unknown,
}

/// A connection over the loopback interface, as who made it sees it.
struct Connection {
    from: SocketAddr,
    to: SocketAddr,
}

impl Connection {
    /// The inode of the socket that made it, by the kernel's table of connections. Both ends have to be right: what is
    /// left of an earlier connection, or one to somebody else, may be from the same port.
    fn inode_in(&self, table: &str) -> Option<u64> {
        let written = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
        let (local, remote) = (written(self.from), written(self.to));
        let inode = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let is_it = fields.next() == Some(&local) && fields.next() == Some(&remote);
            // One that is closed, and waits to be forgotten, has no socket any more.
            is_it.then(|| fields.nth(6)?.parse().ok()).flatten().filter(|inode| *inode != 0)
        };
        table.lines().find_map(inode)
    }
}

fn owns_socket(process: u32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_both_of_its_ends() {
        // As /proc/net/tcp shows three connections from port 40000: one that waits to be forgotten, two that are open.
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:9C40 0100007F:0050 06 00000000:00000000 03:00000B2C 00000000     0        0 0 3 0\n\
             1: 0100007F:9C40 0100007F:0051 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
             2: 0100007F:9C40 0100007F:0052 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n";
        let inode = |to| {
            let (from, to) = ((Ipv4Addr::LOCALHOST, 40000).into(), (Ipv4Addr::LOCALHOST, to).into());
            Connection { from, to }.inode_in(table)
        };
        assert_eq!((inode(0x51), inode(0x52)), (Some(4711), Some(4712)));
        assert_eq!((inode(0x50), inode(0x53)), (None, None), "closed, and not there");
    }
}
