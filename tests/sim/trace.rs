//! The trace of a run: one line for everything that the members logged and the world noted, in order.
//!
//! Owns the process's `tracing` subscriber. A line has the time and the node of the simulation, never of
//! the machine, so that two runs of one seed have the same lines; their checksum says so without keeping
//! them. A process runs one seed, so the process owns the one trace.
//!
//! Does not: decide what is worth a line, or judge what it says.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madsim::time::TimeHandle;
use mainstay_server::logging::REPEATING;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What is not on a node: the faults, and the judge of the run.
const WORLD: &str = "world";

/// A line that a member logged as an error.
#[derive(Clone, Debug)]
pub(crate) struct Complaint {
    /// The name of the node.
    pub(crate) node: String,
    /// When, since the world began.
    pub(crate) at: Duration,
    /// When, since the world began, then the module that logged it, the message and its fields.
    pub(crate) text: String,
}

struct Trace {
    checksum: u64,
    lines: u64,
    last: Duration,
    file: Option<BufWriter<File>>,
    /// Why the file is not written any further.
    lost: Option<io::Error>,
    errors: Vec<Complaint>,
    /// The nodes by the order in which they came; a span's id is a place here, from one on.
    nodes: Vec<String>,
}

static TRACE: Mutex<Trace> = Mutex::new(Trace {
    checksum: 0xcbf2_9ce4_8422_2325,
    lines: 0,
    last: Duration::ZERO,
    file: None,
    lost: None,
    errors: Vec::new(),
    nodes: Vec::new(),
});

thread_local! {
    /// The nodes whose tasks are being polled, the innermost last.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Begins the trace, and keeps its lines in a file when one is given. Called before the world is made.
pub(crate) fn start(path: Option<&Path>) -> io::Result<()> {
    let file = path.map(File::create).transpose()?;
    trace().file = file.map(BufWriter::new);
    tracing::subscriber::set_global_default(Lines).map_err(io::Error::other)
}

/// Adds a line of the world's own: an operation began or ended, a fault took place.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    add(None, text.to_string());
}

/// What members logged as errors so far.
pub(crate) fn errors() -> Vec<Complaint> {
    trace().errors.clone()
}

/// What the trace amounts to.
pub(crate) struct Summary {
    /// The checksum of every line, in hexadecimal.
    pub(crate) checksum: String,
    /// When the last line was added, since the world began.
    pub(crate) last: Duration,
}

/// Ends the trace: the file is complete when this succeeds.
pub(crate) fn finish() -> io::Result<Summary> {
    let mut trace = trace();
    if let Some(error) = trace.lost.take() {
        return Err(error);
    }
    if let Some(file) = &mut trace.file {
        file.flush()?;
    }
    // The number of lines is in it so that the sum of nothing is not that of a lost trace.
    let checksum = format!("{:016x}-{}", trace.checksum, trace.lines);
    Ok(Summary { checksum, last: trace.last })
}

fn trace() -> MutexGuard<'static, Trace> {
    TRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a line. The text is complete before the trace is locked, for making it may log in turn.
fn add(level: Option<Level>, text: String) {
    let at = TimeHandle::try_current().map_or(Duration::ZERO, |time| time.elapsed());
    let entered = ENTERED.with_borrow(|entered| entered.last().copied());
    let text = if text.contains('\n') { text.replace('\n', "\\n") } else { text };
    let mut trace = trace();
    let trace = &mut *trace;
    let node = entered.and_then(|id| trace.nodes.get(id as usize - 1)).map_or(WORLD, String::as_str);
    let level = level.map_or("NOTE", |level| level.as_str());
    let line = format!("{:>4}.{:09} {node:<5} {level:<5} {text}\n", at.as_secs(), at.subsec_nanos());
    // FNV-1a: a few lines here, and the same wherever it is computed.
    for byte in line.as_bytes() {
        trace.checksum = (trace.checksum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    trace.lines += 1;
    trace.last = at;
    if level == Level::ERROR.as_str() {
        let text = format!("at {:.3} s {text}", at.as_secs_f64());
        trace.errors.push(Complaint { node: node.to_owned(), at, text });
    }
    if let Some(file) = &mut trace.file
        && let Err(error) = file.write_all(line.as_bytes())
    {
        trace.file = None;
        trace.lost = Some(error);
    }
}

/// Makes lines of events. The only spans that it knows are those in which the simulation polls a
/// node's tasks; they say on which node the code runs.
struct Lines;

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        if metadata.is_span() {
            return target == "madsim::sim::task";
        }
        // An error is taken from anywhere.
        *metadata.level() == Level::ERROR
            || *metadata.level() <= Level::INFO && !REPEATING.iter().any(|module| target.starts_with(module))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        if let Some(node) = span.parent() {
            return node.clone(); // a task is where its node is
        }
        let mut named = Named(WORLD.to_owned());
        span.record(&mut named);
        let nodes = &mut trace().nodes;
        let place = nodes.iter().position(|node| *node == named.0).unwrap_or_else(|| {
            nodes.push(named.0);
            nodes.len() - 1
        });
        Id::from_u64(place as u64 + 1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let text = format!("{}: {}{}", metadata.target(), fields.message, fields.rest);
        add(Some(*metadata.level()), text);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, _span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.pop());
    }
}

/// The name of a node's span.
struct Named(String);

impl Visit for Named {
    fn record_str(&mut self, field: &Field, value: &str) {
        // The simulation's own first node has a name of its own.
        if field.name() == "name" && value != "madsim-main" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// The message of an event and its other fields.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let written = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.rest, " {name}={value}"),
        };
        written.expect("a string takes all that is written to it");
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}
