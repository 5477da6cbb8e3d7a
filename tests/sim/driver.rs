//! Runs one seed in this process, or each of many in a process of its own: std's and tokio's own
//! random states are global, so a second seed in one process would not be the seed it says it is.

use std::process::{Command, ExitCode};

use crate::run;

/// Takes the command line and returns what the process says of it.
pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--count", count] => match count.parse() {
            Ok(count) => many(count),
            Err(_) => usage(),
        },
        [seed] => match seed.parse() {
            Ok(seed) => one(seed),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: sim SEED | sim --count N");
    ExitCode::from(2)
}

fn one(seed: u64) -> ExitCode {
    let report = run::run(&run::Run { seed, ..run::Run::default() });
    say(&format!("{report:#?}"));
    if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs the seeds from 1 on, one process each and two at a time.
fn many(count: u64) -> ExitCode {
    let started = std::time::Instant::now();
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("sim: cannot find its own program: {error}");
            return ExitCode::FAILURE;
        }
    };
    let next = std::sync::atomic::AtomicU64::new(1);
    let failed = std::sync::Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed > count {
                        return;
                    }
                    let output = Command::new(&program).arg(seed.to_string()).output();
                    let passed = matches!(&output, Ok(output) if output.status.success());
                    if !passed {
                        if let Ok(output) = &output {
                            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
                        }
                        eprintln!("seed {seed} FAILED; replay it with: make sim SEED={seed}");
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    let rate = count as f64 / minutes.max(f64::MIN_POSITIVE);
    say(&format!("{count} seeds, {rate:.0} seeds a minute"));
    say(&format!("sim: {} passed, {} failed", count - failed.len() as u64, failed.len()));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes a line of the result; a closed pipe is nobody's fault.
fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").ok();
}
