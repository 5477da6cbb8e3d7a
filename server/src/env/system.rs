//! What the operating system says and is told: the process's numbers, signals, readiness.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::metrics::ProcessNumbers;

/// What Linux counts processor time in, for all programs: hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the process's numbers from `/proc`; `None` where there is none.
pub fn process_numbers() -> Option<ProcessNumbers> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let network = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let mut numbers = parse(&stat, &boot, &status, &limits, &network)?;
    // One of them is the open folder itself.
    numbers.open_fds = (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    numbers.processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    Some(numbers)
}

/// How much memory the process takes.
pub fn resident_bytes() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// A line of `/proc/self/status` that tells a size.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn parse(stat: &str, boot: &str, status: &str, limits: &str, network: &str) -> Option<ProcessNumbers> {
    // The program's name is in parentheses and may hold anything; the state follows it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let boot_time = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    let limit = |name: &str| limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next();
    Some(ProcessNumbers {
        cpu_seconds: (field(11)? + field(12)?) / TICKS_PER_SECOND,
        threads: fields.get(17)?.parse().ok()?,
        start_time_seconds: boot_time + field(19)? / TICKS_PER_SECOND,
        resident_bytes: kilobytes(status, "VmRSS:").unwrap_or(0),
        virtual_bytes: kilobytes(status, "VmSize:").unwrap_or(0),
        virtual_max_bytes: limit("Max address space").and_then(|limit| limit.parse().ok()),
        max_fds: limit("Max open files").and_then(|limit| limit.parse().ok()).unwrap_or(0),
        network_received_bytes: octets(network, "InOctets").unwrap_or(0),
        network_sent_bytes: octets(network, "OutOctets").unwrap_or(0),
        ..ProcessNumbers::default()
    })
}

/// A column of the pair of lines that begin with `IpExt:`.
fn octets(network: &str, name: &str) -> Option<u64> {
    let mut lines = network.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let at = lines.next()?.split_whitespace().position(|column| column == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

/// The signals that ask the process to end. From its making on they no longer end it by themselves.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to catch them.
    pub fn catch() -> io::Result<StopSignals> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and returns its name.
    pub async fn next(&mut self) -> &'static str {
        // Either is as good.
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
        }
    }
}

/// What a service manager is told of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// It serves.
    Ready,
    /// It has begun to end.
    Stopping,
}

impl ServiceState {
    /// The line of systemd's protocol.
    fn line(self) -> &'static str {
        match self {
            ServiceState::Ready => "READY=1\n",
            ServiceState::Stopping => "STOPPING=1\n",
        }
    }
}

/// Tells the service manager what has become of the process, at the socket that it named (`NOTIFY_SOCKET`): a path,
/// or behind an `@` a name of Linux' abstract ones.
pub fn notify(socket: &OsStr, state: ServiceState) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.line().as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_the_texts_of_proc() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 12345 1000000 200 18446744073709551615\n";
        let boot = "cpu  1 2 3\nbtime 1700000000\nprocesses 1\n";
        let status = "Name:\tmainstay\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max address space         unlimited            unlimited            bytes     \n\
                      Max open files            1024                 4096                 files     \n";
        let network = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 11 22\n";
        let numbers = parse(stat, boot, status, limits, network).unwrap();
        assert_eq!(
            numbers,
            ProcessNumbers {
                cpu_seconds: 3.0,
                threads: 7,
                start_time_seconds: 1_700_000_123.45,
                resident_bytes: 1 << 20,
                virtual_bytes: 2 << 20,
                virtual_max_bytes: None,
                max_fds: 1_024,
                network_received_bytes: 11,
                network_sent_bytes: 22,
                ..ProcessNumbers::default()
            }
        );
        assert_eq!(parse("", "", "", "", ""), None);
    }

    #[test]
    fn this_process_has_numbers() {
        let numbers = process_numbers().unwrap();
        assert!(numbers.resident_bytes > 0 && numbers.threads > 0 && numbers.open_fds > 0 && numbers.max_fds > 0);
        assert!(numbers.start_time_seconds > 1_600_000_000.0 && numbers.processors > 0);
    }

    /// The text of the next message.
    fn next(manager: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let len = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    #[test]
    fn the_service_manager_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str(), ServiceState::Ready).unwrap();
        assert_eq!(next(&manager), "READY=1\n");
        notify(path.as_os_str(), ServiceState::Stopping).unwrap();
        assert_eq!(next(&manager), "STOPPING=1\n");
        assert!(notify(OsStr::new("/nowhere/at/all"), ServiceState::Ready).is_err());
    }

    #[test]
    fn the_service_manager_may_have_an_abstract_socket() {
        let name = format!("mainstay-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notify(OsStr::new(&format!("@{name}")), ServiceState::Ready).unwrap();
        assert_eq!(next(&manager), "READY=1\n");
    }
}
