//! The log: etcd's (zap's) lines, from `tracing` events.
//!
//! Owns the form of a line and where lines go. Called by `main.rs` once; every room logs through
//! `tracing`. A line is one JSON object, `level`, `ts`, `caller` and `msg` first, then the event's
//! fields and those of the spans around it; or the same in columns. It is written whole and at once.
//! A file may be rotated ([`rotating_file`]), and systemd's journal be a place for lines ([`journal`]).
//!
//! Does not: decide what is worth a line.

mod journal;
mod rotating_file;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, LogLevel, LogOutput, LogRotation};
use journal::{Journal, NoJournal};
use rotating_file::RotatingFile;

/// The target of the line that a process ends with: `error!(target: FATAL, …)` has the level `fatal`.
pub const FATAL: &str = "fatal";

/// The target of a line about a panic; it has the level `panic`.
pub const PANIC: &str = "panic";

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// A file cannot be written.
    #[error("--log-outputs: cannot open {path:?}: {error}")]
    Open {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no journal.
    #[error("--log-outputs: {0}")]
    Journal(#[from] NoJournal),
    /// The process has a log already.
    #[error("the log was set up before")]
    Twice,
}

/// Sends every event of the process to these outputs, and panics too. Files are rotated where that is given.
pub fn install(
    level: LogLevel,
    format: LogFormat,
    outputs: &[LogOutput],
    rotation: Option<LogRotation>,
) -> Result<(), LoggingError> {
    let mut sinks: Vec<Sink> = Vec::new();
    for output in outputs {
        sinks.push(match output {
            LogOutput::Stderr => Sink::Stderr,
            LogOutput::Stdout => Sink::Stdout,
            LogOutput::Journal => Sink::Journal(Journal::open()?),
            LogOutput::File(path) => {
                Sink::file(path, rotation).map_err(|error| LoggingError::Open { path: path.clone(), error })?
            }
        });
    }
    let write = move |level: LogLevel, line: &[u8]| sinks.iter().for_each(|sink| sink.write(level, line));
    let subscriber = subscriber(level, format, SystemTime::now, write);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        let message = panic.payload_as_str().unwrap_or("panic");
        let backtrace = std::backtrace::Backtrace::capture().to_string();
        tracing::error!(target: PANIC, place, thread, backtrace, "{message}");
    }));
    Ok(())
}

/// Makes lines of events and hands each to `write`; the clock is given so that tests have theirs.
fn subscriber(
    level: LogLevel,
    format: LogFormat,
    now: impl Fn() -> SystemTime + Send + Sync + 'static,
    write: impl Fn(LogLevel, &[u8]) + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let lines = Lines { level, format, now, write };
    tracing_subscriber::registry().with(lines.with_filter(Threshold(level)))
}

/// The modules of openraft that say the same at every attempt to reach a member that is away, many times a second;
/// `raft/probing.rs` says once that it is away.
pub const REPEATING: [&str; 3] =
    ["openraft::core::heartbeat::worker", "openraft::engine::handler::replication_handler", "openraft::replication"];

/// What openraft warns of where all is well, with the module that says it: what was asked or answered in a term that is
/// over is left aside, as it has to be. An ordinary first start has such messages, and so has each change of the leader.
const USUAL: (&str, &str) = ("openraft::core::raft_core", "A message will be ignored because");

/// Which events become lines.
struct Threshold(LogLevel);

impl Threshold {
    fn allows(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let least = if is_ours(target) {
            self.0
        } else if self.0 > LogLevel::Debug && REPEATING.iter().any(|module| target.starts_with(module)) {
            self.0.max(LogLevel::Error)
        } else {
            // Libraries tell at INFO what is DEBUG to us, and at DEBUG every frame that they see.
            self.0.max(LogLevel::Warn)
        };
        severity(metadata) >= least
    }
}

impl<S> tracing_subscriber::layer::Filter<S> for Threshold {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.allows(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        if self.allows(metadata) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0 {
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => LevelFilter::ERROR,
        })
    }
}

fn is_ours(target: &str) -> bool {
    target.starts_with("mainstay") || target == FATAL || target == PANIC
}

fn severity(metadata: &Metadata<'_>) -> LogLevel {
    match (metadata.target(), *metadata.level()) {
        (FATAL, _) => LogLevel::Fatal,
        (PANIC, _) => LogLevel::Panic,
        (_, Level::ERROR) => LogLevel::Error,
        (_, Level::WARN) => LogLevel::Warn,
        (_, Level::INFO) => LogLevel::Info,
        (_, Level::DEBUG | Level::TRACE) => LogLevel::Debug,
    }
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Panic => "panic",
        LogLevel::Fatal => "fatal",
    }
}

struct Lines<N, W> {
    level: LogLevel,
    format: LogFormat,
    now: N,
    write: W,
}

impl<S, N, W> Layer<S> for Lines<N, W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: Fn() -> SystemTime + 'static,
    W: Fn(LogLevel, &[u8]) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        debug_assert!(severity(metadata) >= self.level, "the filter lets nothing less pass");
        let mut fields = Fields::default();
        event.record(&mut fields);
        // No filter knows it: modules and levels have others beside it.
        let is_usual = metadata.target() == USUAL.0 && fields.message.starts_with(USUAL.1);
        if is_usual && self.level > LogLevel::Debug {
            return;
        }
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.others.extend(of_span.others.iter().cloned());
            }
        }
        let line = Line {
            level: name(severity(metadata)),
            ts: timestamp((self.now)()),
            caller: caller(metadata),
            fields: &fields,
        };
        let mut text = match self.format {
            LogFormat::Json => line.json(),
            LogFormat::Console => line.console(),
        };
        text.push('\n');
        (self.write)(severity(metadata), text.as_bytes());
    }
}

/// What one event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.others.push((field.name(), value));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, Value::from(value.to_string()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
            return;
        }
        // A list of texts is printed as zap prints one, not as a text with a list in it.
        match serde_json::from_str(&text) {
            Ok(list @ Value::Array(_)) => self.add(field, list),
            _ => self.add(field, Value::from(text)),
        }
    }
}

struct Line<'a> {
    level: &'static str,
    ts: String,
    caller: String,
    fields: &'a Fields,
}

impl Line<'_> {
    fn json(&self) -> String {
        let mut text = String::with_capacity(256);
        text.push('{');
        let first = [("level", self.level), ("ts", &self.ts), ("caller", &self.caller), ("msg", &self.fields.message)];
        for (name, value) in first {
            pair(&mut text, name, &Value::from(value));
        }
        for (name, value) in &self.fields.others {
            pair(&mut text, name, value);
        }
        text.push('}');
        text
    }

    fn console(&self) -> String {
        let mut text = [self.ts.as_str(), self.level, &self.caller, &self.fields.message].join("\t");
        if !self.fields.others.is_empty() {
            text.push_str("\t{");
            for (name, value) in &self.fields.others {
                pair(&mut text, name, value);
            }
            text.push('}');
        }
        text
    }
}

fn pair(text: &mut String, name: &str, value: &Value) {
    if !text.ends_with('{') {
        text.push(',');
    }
    // `Value` prints itself as JSON, escaped.
    let _infallible = write!(text, "{}:{value}", Value::from(name));
}

/// Folder and file of the place, and its line: `raft/gateway.rs:12`.
fn caller(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().unwrap_or_else(|| metadata.target());
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{}", &file[start..], metadata.line().unwrap_or_default())
}

/// UTC with microseconds, as etcd's logs have it: `2026-11-21T09:00:00.000000Z`.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Days since 1970 → year, month and day. Counts in cycles of 400 years that begin with a March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (cycle, day_of_cycle) = (days / 146_097, days % 146_097);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

/// Where lines go. A line that cannot be written is lost: there is nowhere to tell it.
enum Sink {
    Stderr,
    Stdout,
    File(Mutex<File>),
    Rotating(Box<Mutex<RotatingFile>>),
    Journal(Journal),
}

impl Sink {
    /// Opens a file for lines behind those that it has.
    fn file(path: &Path, rotation: Option<LogRotation>) -> io::Result<Self> {
        match rotation {
            Some(rotation) => Ok(Sink::Rotating(Box::new(Mutex::new(RotatingFile::open(path, rotation)?)))),
            None => Ok(Sink::File(Mutex::new(File::options().append(true).create(true).open(path)?))),
        }
    }

    fn write(&self, level: LogLevel, line: &[u8]) {
        let _lost = match self {
            Sink::Stderr => io::stderr().lock().write_all(line),
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line).and_then(|()| out.flush())
            }
            Sink::File(file) => file.lock().write_all(line),
            Sink::Rotating(file) => file.lock().write_line(line),
            // As in etcd: where systemd started the process it gets there all the same.
            Sink::Journal(journal) => journal.write(level, line).or_else(|_| io::stderr().lock().write_all(line)),
        };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use tracing::{debug, error, info, info_span, warn};

    use super::*;

    /// Runs `body` with a log of its own and returns the lines.
    pub(crate) fn lines(level: LogLevel, format: LogFormat, body: impl FnOnce()) -> Vec<String> {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let now = || SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_251_600_000_007);
        let subscriber = subscriber(level, format, now, move |_, line| sink.lock().push(line.to_vec()));
        tracing::subscriber::with_default(subscriber, body);
        let written = written.lock();
        written.iter().map(|line| String::from_utf8(line.clone()).unwrap()).collect()
    }

    #[test]
    fn a_json_line_is_zaps() {
        let lines = lines(LogLevel::Info, LogFormat::Json, || {
            info!("snapshot-catchup-entries" = 5_000, "v2-deprecation" = "write-only", "starting an etcd server");
        });
        let line = without_line_number(&lines[0]);
        assert_eq!(
            line,
            "{\"level\":\"info\",\"ts\":\"2026-11-21T09:00:00.000007Z\",\"caller\":\"src/logging.rs:N\",\
             \"msg\":\"starting an etcd server\",\"snapshot-catchup-entries\":5000,\"v2-deprecation\":\"write-only\"}\n"
        );
    }

    /// Takes the line number out.
    fn without_line_number(line: &str) -> String {
        let (before, rest) = line.split_once("logging.rs:").unwrap();
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{before}logging.rs:N{after}")
    }

    #[test]
    fn a_console_line_has_columns() {
        let lines = lines(LogLevel::Info, LogFormat::Console, || {
            warn!(count = 2, "slow");
            info!("plain");
        });
        assert_eq!(
            without_line_number(&lines[0]),
            "2026-11-21T09:00:00.000007Z\twarn\tsrc/logging.rs:N\tslow\t{\"count\":2}\n"
        );
        assert_eq!(without_line_number(&lines[1]), "2026-11-21T09:00:00.000007Z\tinfo\tsrc/logging.rs:N\tplain\n");
    }

    #[test]
    fn values_keep_their_types_and_are_escaped() {
        let urls = vec!["http://a:1", "http://b:2"];
        let lines = lines(LogLevel::Info, LogFormat::Json, || {
            info!(number = -1, ratio = 0.5, yes = true, text = "a\"b\n", shown = %"x", urls = ?urls, odd = ?Some(1), "m\"");
        });
        let value: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(value["msg"], "m\"");
        assert_eq!(value["number"], -1);
        assert_eq!(value["ratio"], 0.5);
        assert_eq!(value["yes"], true);
        assert_eq!(value["text"], "a\"b\n");
        assert_eq!(value["shown"], "x");
        assert_eq!(value["urls"], serde_json::json!(["http://a:1", "http://b:2"]));
        assert_eq!(value["odd"], "Some(1)");
        assert_eq!(lines[0].matches('\n').count(), 1);
    }

    #[test]
    fn fields_of_the_spans_around_an_event_follow_its_own() {
        let lines = lines(LogLevel::Info, LogFormat::Json, || {
            let _outer = info_span!("request", id = 7, code = tracing::field::Empty).entered();
            tracing::Span::current().record("code", "OK");
            info!(step = "applied", "done");
        });
        assert!(
            lines[0].ends_with("\"msg\":\"done\",\"step\":\"applied\",\"id\":7,\"code\":\"OK\"}\n"),
            "{}",
            lines[0]
        );
    }

    #[test]
    fn levels_are_zaps() {
        let all = || {
            debug!("1");
            info!("2");
            warn!("3");
            error!("4");
            error!(target: PANIC, "5");
            error!(target: FATAL, "6");
            info!(target: "openraft::core", "library");
            error!(target: "openraft::core", "7");
        };
        for (level, expected) in [
            (LogLevel::Debug, &["debug 1", "info 2", "warn 3", "error 4", "panic 5", "fatal 6", "error 7"][..]),
            (LogLevel::Info, &["info 2", "warn 3", "error 4", "panic 5", "fatal 6", "error 7"]),
            (LogLevel::Warn, &["warn 3", "error 4", "panic 5", "fatal 6", "error 7"]),
            (LogLevel::Error, &["error 4", "panic 5", "fatal 6", "error 7"]),
            (LogLevel::Panic, &["panic 5", "fatal 6"]),
            (LogLevel::Fatal, &["fatal 6"]),
        ] {
            let seen: Vec<String> = lines(level, LogFormat::Json, all)
                .iter()
                .map(|line| serde_json::from_str::<Value>(line).unwrap())
                .map(|line| format!("{} {}", line["level"].as_str().unwrap(), line["msg"].as_str().unwrap()))
                .collect();
            assert_eq!(seen, expected, "{level:?}");
        }
    }

    #[test]
    fn what_is_said_all_the_time_is_left_to_debugging() {
        let all = || {
            warn!(target: "openraft::replication", "repeats");
            warn!(target: "openraft::core::heartbeat::worker", "repeats");
            error!(target: "openraft::replication", "an error");
            warn!(target: "openraft::core", "told once");
        };
        assert_eq!(lines(LogLevel::Debug, LogFormat::Json, all).len(), 4);
        assert_eq!(lines(LogLevel::Info, LogFormat::Json, all).len(), 2);
        assert_eq!(lines(LogLevel::Error, LogFormat::Json, all).len(), 1);
    }

    #[test]
    fn warnings_of_what_is_usual_are_left_to_debugging() {
        let all = || {
            let (role, vote) = ("Leader", "T1-N1");
            warn!(target: "openraft::core::raft_core", "A message will be ignored because {role} vote changed: {vote}");
            warn!(target: "openraft::core::raft_core", "something else");
            warn!("A message will be ignored because it is ours");
        };
        assert_eq!(lines(LogLevel::Debug, LogFormat::Json, all).len(), 3);
        assert_eq!(lines(LogLevel::Info, LogFormat::Json, all).len(), 2);
    }

    #[test]
    fn times_are_printed_in_utc() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
