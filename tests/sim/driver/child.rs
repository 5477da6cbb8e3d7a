//! One run in a process of its own: started, limited, understood.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::one::PANIC;
use crate::report::{Report, Violation};
use crate::run::Run;
use mainstay_tests::seeds::commas;

/// The checker that a run which does not end is laid to.
pub(crate) const HANG: &str = "hang";

/// What a child's first line begins with: what it knew before the first fault.
pub(crate) const BEGUN: &str = "begun ";

/// How much of a child's last words is kept.
const TAIL: usize = 4000;

/// Starts this program again, once for each run.
#[derive(Clone, Debug)]
pub(crate) struct Children {
    program: PathBuf,
    /// How long a run may take on the machine's clock.
    limit: Duration,
}

impl Children {
    pub(crate) fn new(limit: Duration) -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, limit })
    }

    /// Runs to the end, whatever the end is.
    pub(crate) fn run(&self, run: &Run) -> Report {
        let mut command = Command::new(&self.program);
        command.arg(run.seed.to_string()).arg("--child");
        if let Some(members) = run.members {
            command.arg(format!("--members={members}"));
        }
        if !run.without.is_empty() {
            command.arg(format!("--without={}", commas(&run.without)));
        }
        if let Some(place) = &run.broken {
            command.arg(format!("--break={place}"));
        }
        if let Some(path) = &run.trace {
            command.arg("--trace").arg(path);
        }
        // The text and the place of a panic are told; a backtrace would take longer than many a run.
        command.env("RUST_BACKTRACE", "0");
        // openraft writes local times into the trace.
        command.env("TZ", "UTC");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let end = command.spawn().and_then(|child| wait(child, self.limit));
        match end {
            Ok(end) => understand(run, &end),
            Err(error) => lost(run, None, "process", format!("the run could not be started: {error}")),
        }
    }
}

/// How a child ended, and all it said.
struct End {
    status: ExitStatus,
    /// It had to be killed.
    hung: bool,
    said: String,
    complained: String,
}

/// Reads all that the child says and waits for its end, but no longer than the limit.
fn wait(mut child: Child, limit: Duration) -> io::Result<End> {
    let said = reader(child.stdout.take());
    let complained = reader(child.stderr.take());
    // A child's end closes its side of the pipe, so there is nothing to poll for.
    let (said, hung) = match said.recv_timeout(limit) {
        Ok(said) => (said, false),
        Err(_) => {
            child.kill()?;
            (said.recv().unwrap_or_default(), true)
        }
    };
    Ok(End { status: child.wait()?, hung, said, complained: complained.recv().unwrap_or_default() })
}

/// Reads a pipe to its end on a thread, for a child blocks when nobody reads.
fn reader(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth having.
            pipe.read_to_end(&mut bytes).ok();
        }
        sender.send(String::from_utf8_lossy(&bytes).into_owned()).ok();
    });
    receiver
}

fn understand(run: &Run, end: &End) -> Report {
    let begun = end.said.lines().find_map(|line| serde_json::from_str(line.strip_prefix(BEGUN)?).ok());
    if end.hung {
        return lost(run, begun, HANG, format!("the run did not end in time\n{}", tail(&end.complained)));
    }
    match end.said.lines().rev().find_map(|line| serde_json::from_str::<Report>(line).ok()) {
        Some(report) => report,
        None => lost(run, begun, PANIC, format!("the run ended by {}\n{}", end.status, tail(&end.complained))),
    }
}

/// The report of a run that did not make one.
fn lost(run: &Run, begun: Option<Report>, checker: &str, text: String) -> Report {
    let begun = begun.unwrap_or(Report { seed: run.seed, ..Report::default() });
    let text = text.trim_end().to_owned();
    Report { violation: Some(Violation { checker: checker.to_owned(), text }), ..begun }
}

/// The end of a text.
fn tail(text: &str) -> &str {
    let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL));
    &text[from..]
}
