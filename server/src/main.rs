//! The `mainstay` binary: the command line, the log, and the exit code.

mod process;

use std::process::ExitCode;

use mainstay_server::config::{Config, Given, Invocation, LogFormat, LogLevel, LogOutput, Notice, Refusal, USAGE};
use mainstay_server::logging;

use process::Process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let given = Given {
        arguments: std::env::args().skip(1).collect(),
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        read_file: &|path| std::fs::read_to_string(path),
    };
    match given.understand() {
        Ok(Invocation::Serve(config, notices)) => serve(*config, &notices),
        Ok(Invocation::Print(text)) => {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        Ok(Invocation::Help(flags)) => {
            say(&mut std::io::stderr(), USAGE);
            say(&mut std::io::stdout(), &flags);
            ExitCode::SUCCESS
        }
        Err(refusal) => refuse(&refusal),
    }
}

/// Writes a text; a closed pipe is nobody's fault.
fn say(output: &mut dyn std::io::Write, text: &str) {
    output.write_all(text.as_bytes()).ok();
}

/// Tells why there is no start: the command line's own mistakes plainly, as Go's flags do, all else as a log line.
fn refuse(refusal: &Refusal) -> ExitCode {
    let stderr = &mut std::io::stderr();
    if let Refusal::Usage(text) = refusal {
        say(stderr, &format!("{text}\n{USAGE}"));
    } else {
        logging::install(LogLevel::Info, LogFormat::Json, &[LogOutput::Stderr]).ok();
        tracing::warn!(error = %refusal, "failed to verify flags");
    }
    ExitCode::from(refusal.exit_code())
}

fn serve(config: Config, notices: &[Notice]) -> ExitCode {
    if let Err(error) = logging::install(config.log_level, config.log_format, &config.log_outputs) {
        say(&mut std::io::stderr(), &format!("{error}\n"));
        return ExitCode::FAILURE;
    }
    for notice in notices {
        notice.log();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(&config));
    // Whatever still runs must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn run(config: &Config) -> ExitCode {
    let process = match Process::start(config).await {
        Ok(process) => process,
        Err(error) => {
            tracing::error!(%error, "failed to start etcd");
            return ExitCode::FAILURE;
        }
    };
    match process.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(reason, "this member cannot go on");
            ExitCode::FAILURE
        }
    }
}
