//! What processes spent, from /proc.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// What some processes have spent since they were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Memory that is resident now, summed over the processes.
    pub rss_bytes: u64,
    /// The most memory that was resident, since the process began or the peak was reset, summed over the
    /// processes.
    pub rss_peak_bytes: u64,
    /// Bytes sent to the disk, by the kernel's account of the process: a page that is written again counts with
    /// all of its large folio, so for files that are rewritten in place [`Disk`](crate::disk::Disk) is nearer
    /// to the truth. `None` where the kernel does not tell, for another user's process.
    pub written_bytes: Option<u64>,
}

impl Usage {
    /// What these processes have spent together.
    pub fn of(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self { written_bytes: Some(0), ..Self::default() };
        for pid in pids {
            let one = Self::of_one(&PathBuf::from(format!("/proc/{pid}")))
                .map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))?;
            sum.cpu += one.cpu;
            sum.rss_bytes += one.rss_bytes;
            sum.rss_peak_bytes += one.rss_peak_bytes;
            sum.written_bytes = sum.written_bytes.zip(one.written_bytes).map(|(sum, one)| sum + one);
        }
        Ok(sum)
    }

    fn of_one(proc: &Path) -> io::Result<Self> {
        let malformed = |file: &str| io::Error::other(format!("{}: not as expected", proc.join(file).display()));
        let ticks = cpu_ticks(&fs::read_to_string(proc.join("stat"))?).ok_or_else(|| malformed("stat"))?;
        let status = fs::read_to_string(proc.join("status"))?;
        let rss_peak_kib = field(&status, "VmHWM:").ok_or_else(|| malformed("status"))?;
        let rss_kib = field(&status, "VmRSS:").ok_or_else(|| malformed("status"))?;
        let written_bytes = match fs::read_to_string(proc.join("io")) {
            Ok(text) => Some(field(&text, "write_bytes:").ok_or_else(|| malformed("io"))?),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
            rss_bytes: rss_kib * 1024,
            rss_peak_bytes: rss_peak_kib * 1024,
            written_bytes,
        })
    }

    /// What was spent since an earlier moment. What is said of memory stays as it is.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            rss_bytes: self.rss_bytes,
            rss_peak_bytes: self.rss_peak_bytes,
            written_bytes: self.written_bytes.zip(earlier.written_bytes).map(|(now, then)| now.saturating_sub(then)),
        }
    }
}

/// Lets the peaks of memory count from now on. Says whether the kernel allowed it for all of the processes.
pub fn reset_peaks(pids: &[u32]) -> bool {
    let refused = pids.iter().filter(|pid| fs::write(format!("/proc/{pid}/clear_refs"), "5").is_err());
    refused.count() == 0
}

/// User and system time from /proc/PID/stat.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name, in parentheses, may itself hold parentheses and spaces.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    // After the name comes field 3, the state; the times are fields 14 and 15.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let rest = "S 1 2 3 4 -1 4194560 100 200 1 2 314 159 26 5 20 0 7 0 1234";
        assert_eq!(cpu_ticks(&format!("42 (etcd) {rest}")), Some(473));
        assert_eq!(cpu_ticks(&format!("42 (a) b (c) {rest}")), Some(473));
        assert_eq!(cpu_ticks("42 (etcd) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nread_bytes: 4\nwrite_bytes: 5\ncancelled_write_bytes: 6\n";
        assert_eq!(field(io, "write_bytes:"), Some(5));
        assert_eq!(field("VmPeak:\t  9 kB\nVmHWM:\t  7 kB\n", "VmHWM:"), Some(7));
        assert_eq!(field(io, "nothing:"), None);
    }

    #[test]
    fn a_live_process_can_be_read() {
        let before = Usage::of(&[std::process::id()]).unwrap();
        assert!(before.rss_peak_bytes >= before.rss_bytes && before.written_bytes.is_some());
        assert!(before.rss_bytes > 0);
        let after = Usage::of(&[std::process::id(), std::process::id()]).unwrap();
        assert!(after.cpu >= before.cpu * 2);
        assert!(Usage::of(&[u32::MAX]).is_err());
    }

    #[test]
    fn a_peak_can_be_forgotten() {
        let own = [std::process::id()];
        let mut large = vec![1_u8; 64 << 20];
        std::hint::black_box(&mut large).fill(2);
        assert!(Usage::of(&own).unwrap().rss_peak_bytes >= 64 << 20);
        drop(large);
        assert!(!reset_peaks(&[u32::MAX]));
        if reset_peaks(&own) {
            assert!(Usage::of(&own).unwrap().rss_peak_bytes < 64 << 20);
        }
    }

    #[test]
    fn differences_keep_the_peak() {
        let usage = |cpu, rss_peak_bytes, written_bytes| Usage {
            cpu: Duration::from_secs(cpu),
            rss_bytes: 50,
            rss_peak_bytes,
            written_bytes,
        };
        assert_eq!(usage(5, 80, Some(30)).since(usage(2, 60, Some(10))), usage(3, 80, Some(20)));
        assert_eq!(usage(5, 80, None).since(usage(2, 60, Some(10))).written_bytes, None);
    }
}
