//! One run in this process: the trace, the deliberate bug and a panic's last words around it.

use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};
use std::thread;

use mainstay_server::env::probe;

use crate::report::{self, Report, Violation};
use crate::run::{self, Run};
use crate::trace;

/// The checker that a panic is laid to.
pub(crate) const PANIC: &str = "panic";

/// As much as the main thread has.
const STACK: usize = 8 << 20;

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Simulates; a process does it once.
pub(crate) fn simulate(run: &Run) -> Report {
    if let Err(error) = trace::start(run.trace.as_deref()) {
        return failed(run, "trace", format!("the trace could not be begun: {error}"));
    }
    keep_panics();
    // std's random state is a thread's: on a new one nobody has drawn from it before the seed is set.
    let own = run.clone();
    let world = thread::Builder::new().name("world".to_owned()).stack_size(STACK);
    let result = world.spawn(move || run::run(&own)).map(thread::JoinHandle::join);
    let mut report = match result {
        Ok(Ok(report)) => report,
        Ok(Err(_)) => {
            let said = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
            failed(run, PANIC, said.unwrap_or_else(|| "nothing was said".to_owned()))
        }
        Err(error) => failed(run, "thread", error.to_string()),
    };
    report.reached = probe::all_reached().into_iter().map(|(place, times)| (place.to_owned(), times)).collect();
    match trace::finish() {
        Ok(summary) => {
            report.trace = summary.checksum;
            if report.simulated_seconds == 0.0 {
                report.simulated_seconds = summary.last.as_secs_f64();
            }
        }
        Err(error) => {
            // What the run found is worth more than the trace of it.
            let text = format!("the trace could not be written: {error}");
            report.violation.get_or_insert(Violation { checker: "trace".to_owned(), text });
        }
    }
    report
}

/// The report of a run that did not come to its end.
fn failed(run: &Run, checker: &str, text: String) -> Report {
    let begun = report::what_begun().unwrap_or(Report { seed: run.seed, ..Report::default() });
    Report { violation: Some(Violation { checker: checker.to_owned(), text }), ..begun }
}

/// Keeps the words of each panic, for one that ends the run; they go to stderr as ever.
fn keep_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let text = format!("{place}: {}", panic.payload_as_str().unwrap_or("(no text)"));
        trace::note(format_args!("panic at {text}"));
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        usual(panic);
    }));
}
