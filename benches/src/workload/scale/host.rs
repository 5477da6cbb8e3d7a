//! Servers of a scenario, and what surrounds them: a control group that bounds their memory, and a tracer that makes
//! their disk slow.
//!
//! Both are put in front of the server by a script that becomes the server (`exec`), so that its process id is the one
//! that is measured and killed.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mainstay_client::{Client, ClientOptions};
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::Site;
use crate::launch::Cluster;

/// How long a server may take to serve again after it was killed, also with many keys.
const RESTART_MAX: Duration = Duration::from_secs(900);
/// How often it is asked meanwhile, so that a short time is measured, too.
const RESTART_POLL: Duration = Duration::from_millis(5);

/// Members that run for one scenario. Dropping it stops them and removes what they left.
pub(super) struct Host {
    // In the order in which they have to go: the servers, their control group, their files.
    pub(super) cluster: Cluster,
    group: Option<Group>,
    folder: TempDir,
}

/// What servers are started with.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    /// Flags besides those of the command line.
    pub(super) flags: Vec<String>,
    /// Bytes of memory to which the kernel holds the members together, where the site has a place for that.
    pub(super) memory: Option<u64>,
    /// What every fsync takes longer.
    pub(super) fsync_delay: Option<Duration>,
}

impl Host {
    pub(super) async fn start(site: &Site<'_>, members: usize, setting: Setting) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("mainstay-scale-").tempdir_in(site.folder)?;
        let group = match (site.cgroup, setting.memory) {
            (Some(parent), Some(bytes)) => Some(Group::make(parent, bytes)?),
            _ => None,
        };
        let mut lines = Vec::new();
        if let Some(group) = &group {
            lines.push(format!("echo $$ > {} || exit 1", quoted(&group.folder.join("cgroup.procs"))));
        }
        let tracer = match setting.fsync_delay {
            Some(delay) => {
                ensure_strace()?;
                tracer(delay)
            }
            None => String::new(),
        };
        lines.push(format!("exec {tracer}{} \"$@\"", quoted(site.binary)));
        let script = folder.path().join("server");
        fs::write(&script, format!("#!/bin/sh\n{}\n", lines.join("\n")))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let flags = [&setting.flags[..], site.server_flags].concat();
        let cluster = Cluster::start(&script, members, folder.path(), &flags).await?;
        Ok(Self { cluster, group, folder })
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.cluster.stop().await
    }

    /// The most memory that the kernel has counted for the servers, with what it kept of their files.
    pub(super) fn group_peak(&self) -> Option<u64> {
        self.group.as_ref().and_then(Group::peak)
    }

    /// Has the system forget what it keeps of the servers' files, so that they are read from the disk. What a running
    /// server has mapped stays.
    pub(super) fn forget_files(&self) {
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        // A file that vanished, or that cannot be forgotten, is read faster: no more than that.
                        let _advised = File::open(entry.path()).map(|file| fadvise(&file, 0, None, Advice::DontNeed));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }

    /// Kills a member and starts it again on files that nothing is known of; returns how long it takes until it
    /// answers a linearizable read.
    pub(super) async fn restart_cold(&mut self, member: usize) -> anyhow::Result<Duration> {
        self.cluster.kill(member)?;
        self.forget_files();
        let endpoint = self.cluster.endpoints()[member].clone();
        let began = Instant::now();
        self.cluster.restart(member)?;
        loop {
            // Another client each time: one that was refused waits before it connects again.
            let options = ClientOptions { request_timeout: Duration::from_secs(1), ..ClientOptions::default() };
            match Client::connect([&endpoint], options)?.get("ready?").await {
                Ok(_) => return Ok(began.elapsed()),
                Err(error) => {
                    self.cluster.check_alive()?;
                    ensure!(began.elapsed() < RESTART_MAX, "not back {RESTART_MAX:?} after it was killed: {error}");
                }
            }
            sleep(RESTART_POLL).await;
        }
    }
}

/// Bytes of memory that processes have at present, together.
pub(super) fn resident_bytes(pids: &[u32]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
        sum += status_bytes(&status, "VmRSS:").with_context(|| format!("process {pid} shows no memory"))?;
    }
    Ok(sum)
}

/// A size in /proc/PID/status, where sizes are in kibibytes.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// A control group for the servers of one scenario. Dropping it removes it; no process may be left in it.
struct Group {
    folder: PathBuf,
}

impl Group {
    fn make(parent: &Path, bytes: u64) -> anyhow::Result<Self> {
        let folder = parent.join(format!("mainstay-scale-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("--cgroup: making {}", folder.display()))?;
        let group = Self { folder };
        // Version 2 and version 1 call it by different names.
        for name in ["memory.max", "memory.limit_in_bytes"] {
            let limit = group.folder.join(name);
            if limit.exists() {
                fs::write(&limit, bytes.to_string()).with_context(|| format!("--cgroup: {}", limit.display()))?;
                return Ok(group);
            }
        }
        bail!("--cgroup: {} has no memory controller", parent.display())
    }

    fn peak(&self) -> Option<u64> {
        let read = |name: &str| -> Option<u64> { fs::read_to_string(self.folder.join(name)).ok()?.trim().parse().ok() };
        read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What stays is empty and says by its name whose it was.
        let _removed = fs::remove_dir(&self.folder);
    }
}

/// What is put before the server so that each fsync takes longer. strace does that for any program: etcd makes its
/// system calls by itself, so that a library that is loaded first would not meet them. The tracer is a process of its
/// own (`-D`), only these calls stop in it (`--seccomp-bpf`), and it ends with the server.
fn tracer(delay: Duration) -> String {
    let micros = delay.as_micros();
    format!(
        "strace -D -f --seccomp-bpf -qqq -o /dev/null -e signal=none -e trace=fsync,fdatasync \
         -e inject=fsync,fdatasync:delay_enter={micros} "
    )
}

/// Refuses where there is no strace, or it may trace nothing.
fn ensure_strace() -> anyhow::Result<()> {
    let traced = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=fsync", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("slow-disk needs strace")?;
    ensure!(traced.success(), "slow-disk needs strace, which may trace nothing here ({traced})");
    Ok(())
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::System;

    #[test]
    fn sizes_are_found_by_their_names() {
        let status = "VmHWM:\t  9 kB\nVmRSS:\t  7 kB\n";
        assert_eq!(status_bytes(status, "VmRSS:"), Some(7 * 1024));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
        assert!(resident_bytes(&[std::process::id()]).unwrap() > 0);
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn a_control_group_is_limited_and_goes() {
        let parent = tempfile::tempdir().unwrap();
        let error = Group::make(parent.path(), 1 << 20).err().unwrap().to_string();
        assert!(error.contains("no memory controller"), "{error}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "it went");
        let error = Group::make(&parent.path().join("nothing"), 1).err().unwrap().to_string();
        assert!(error.starts_with("--cgroup"), "{error}");
    }

    #[tokio::test]
    async fn the_script_becomes_the_server_and_hands_its_flags_on() {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("it's a server");
        fs::write(&binary, "#!/bin/sh\necho \"$$ got $#: $*\" >&2\nexit 3\n").unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let flags = ["--last=one two".to_owned()];
        let (system, cgroup) = (System::Mainstay, None);
        let site = Site { system, binary: &binary, folder: folder.path(), server_flags: &flags, cgroup };
        let setting = Setting { flags: vec!["--first".to_owned()], ..Setting::default() };
        let error = Host::start(&site, 1, setting).await.err().unwrap().to_string();
        assert!(error.contains("exit status: 3") && error.contains("--first --last=one two"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the binary is left");
    }

    #[test]
    fn the_tracer_delays_every_kind_of_fsync() {
        let tracer = tracer(Duration::from_millis(10));
        assert!(tracer.contains("inject=fsync,fdatasync:delay_enter=10000") && tracer.ends_with(' '), "{tracer}");
    }
}
