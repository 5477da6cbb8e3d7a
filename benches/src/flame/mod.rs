//! `flame`: where a server's CPU goes while a row runs, as a picture.
//!
//! Linux's perf takes the samples, of the members alone and not before the row's preparation is over; the release
//! build keeps what it needs to name the frames. What was inlined counts for the function that it is in.
//! The picture is our own: the crate that others use for it, inferno, has a licence that deny.toml does not allow.

mod stacks;
mod svg;

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::launch::{Cluster, tail};
use crate::options::Options;
use crate::report::{Report, table};
use crate::workload::{Row, Session, Subjects};
use stacks::Frame;

/// Bytes of the stack that each sample copies, to be unwound afterwards: futures within futures go deep.
const STACK_BYTES: u32 = 16 * 1024;

/// The flags of `flame`.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments {
    /// What the server does meanwhile.
    #[arg(value_enum, default_value = "put")]
    pub row: Row,
    /// Where the picture goes.
    #[arg(long, default_value = "target/flame.svg")]
    pub output: PathBuf,
    /// Samples a second and CPU.
    #[arg(long, default_value_t = 199)]
    pub frequency: u32,
    /// Members of the cluster; the picture shows them together.
    #[arg(long, default_value_t = 1)]
    pub members: usize,
    /// mainstay's binary.
    #[arg(long, env = "MAINSTAY_BIN", default_value = "target/release/mainstay")]
    pub mainstay_bin: PathBuf,
    /// Where the server's data goes while it runs, and the samples until they are drawn.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub folder: PathBuf,
    /// A flag that the server gets, as in --server-flag=--snapshot-count=10000. May be repeated.
    #[arg(long = "server-flag", allow_hyphen_values = true)]
    pub server_flags: Vec<String>,
    /// The load and its data.
    #[command(flatten)]
    pub options: Options,
}

/// Runs the row, draws the picture, and prints what the row's figures were meanwhile.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let report = draw(arguments).await?;
    let mut stderr = std::io::stderr();
    writeln!(stderr, "{}", table(&[report]))?;
    writeln!(stderr, "The figures are those of a server that is watched. The picture: {}", arguments.output.display())?;
    Ok(())
}

/// Runs the row and draws the picture.
pub async fn draw(arguments: &Arguments) -> anyhow::Result<Report> {
    let Arguments { row, members, options, .. } = arguments;
    options.validate()?;
    ensure!(matches!(*members, 1 | 3 | 5 | 7), "--members: must be 1, 3, 5 or 7");
    ensure!(arguments.frequency > 0, "--frequency: must be above 0");
    let scratch = tempfile::Builder::new().prefix("mainstay-flame-").tempdir_in(&arguments.folder)?;
    check_perf(scratch.path())?;
    let cluster = Cluster::start(&arguments.mainstay_bin, *members, &arguments.folder, &arguments.server_flags).await?;
    let session = Session::connect(&cluster.endpoints(), options)?;
    let version = session.version().await?;
    let pids = cluster.pids();
    row.prepare(&session, options).await?;
    let recording = Recording::begin(&pids, arguments.frequency, scratch.path())?;
    let outcome = row.measure(&session, options, &Subjects { pids, disk: None }).await?;
    let samples = recording.end()?;
    cluster.stop().await?;
    let stacks = stacks_of(&samples, scratch.path())?;
    ensure!(stacks.count > 0, "perf took no samples; let the row run longer (--duration, in seconds)");
    let title = format!("{} on mainstay {version}, members: {members}, samples: {}", row.name(), stacks.count);
    if let Some(folder) = arguments.output.parent() {
        fs::create_dir_all(folder)?;
    }
    let written = fs::write(&arguments.output, svg::draw(&title, &stacks));
    written.with_context(|| format!("--output {}", arguments.output.display()))?;
    Ok(Report::new(*row, "mainstay", &version, *members, 1, options, outcome))
}

/// Refuses where perf is missing, or may not do its work.
pub fn check_perf(scratch: &Path) -> anyhow::Result<()> {
    let mut trial = Command::new("perf");
    trial.arg("record").arg("--output").arg(scratch.join("trial.data")).args(["--", "true"]).stdin(Stdio::null());
    match trial.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!(
            "perf may not take samples here (kernel.perf_event_paranoid, or a container's limits):\n{}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("perf is missing: a flame graph needs Linux and its perf (Debian: apt-get install linux-perf)")
        }
        Err(error) => Err(error).context("running perf"),
    }
}

/// perf at work. Dropping it kills perf by its id.
#[derive(Debug)]
struct Recording {
    perf: Child,
    samples: PathBuf,
    log: PathBuf,
}

impl Recording {
    fn begin(pids: &[u32], frequency: u32, scratch: &Path) -> anyhow::Result<Self> {
        let (samples, log) = (scratch.join("perf.data"), scratch.join("record.log"));
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let perf = Command::new("perf")
            .arg("record")
            .arg(format!("--freq={frequency}"))
            .arg(format!("--call-graph=dwarf,{STACK_BYTES}"))
            .arg(format!("--pid={}", pids.join(",")))
            .arg("--output")
            .arg(&samples)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting perf")?;
        Ok(Self { perf, samples, log })
    }

    /// Ends it as Ctrl-C does, and waits until all samples are written.
    fn end(mut self) -> anyhow::Result<PathBuf> {
        if let Some(status) = self.perf.try_wait()? {
            bail!("perf ended with {status}:\n{}", tail(&self.log));
        }
        kill_process(Pid::from_child(&self.perf), Signal::INT).context("asking perf to end")?;
        // perf ends by that signal, so its status tells nothing; whether there are samples is seen when they are read.
        self.perf.wait().context("waiting for the end of perf")?;
        Ok(self.samples.clone())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Either fails only where the process has ended already.
        let _killed = self.perf.kill();
        let _reaped = self.perf.wait();
    }
}

/// What perf has taken, by its own reading of it.
fn stacks_of(samples: &Path, scratch: &Path) -> anyhow::Result<Frame> {
    let log = scratch.join("script.log");
    let mut script = Command::new("perf")
        .args(["script", "--no-inline", "--fields", "comm,ip,sym", "--input"])
        .arg(samples)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?)
        .spawn()
        .context("starting perf script")?;
    let read = stacks::read(BufReader::new(script.stdout.take().context("perf script has no output")?));
    let status = script.wait().context("waiting for the end of perf script")?;
    ensure!(status.success(), "perf script ended with {status}:\n{}", tail(&log));
    read.context("reading what perf script prints")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[tokio::test]
    async fn refusals_name_the_flag() {
        for (flags, words) in [
            (&["--members", "2"][..], "--members"),
            (&["--frequency", "0"], "--frequency"),
            (&["--clients", "0"], "--clients"),
        ] {
            let arguments = Arguments::parse_from([&["flame"], flags].concat());
            let error = draw(&arguments).await.unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn a_row_and_where_the_picture_goes_have_defaults() {
        let arguments = Arguments::parse_from(["flame"]);
        assert_eq!((arguments.row, arguments.output), (Row::Put, PathBuf::from("target/flame.svg")));
        assert_eq!(Arguments::parse_from(["flame", "list-paged"]).row, Row::ListPaged);
    }
}
