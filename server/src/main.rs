//! The `mainstay` binary: the command line, the log, and the exit code.

mod process;

use std::process::ExitCode;

use mainstay_server::config::{
    Config, GatewayOptions, Given, Invocation, LogFormat, LogLevel, LogOutput, Notice, Refusal, USAGE,
};
use mainstay_server::env::system::ServiceState;
use mainstay_server::logging;

use process::{Process, allocators, discovery, tcp_proxy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let given = Given {
        arguments: std::env::args_os().skip(1).map(|text| text.to_string_lossy().into_owned()).collect(),
        variables: std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect(),
        read_file: &|path| std::fs::read_to_string(path),
    };
    match given.understand() {
        Ok(Invocation::Serve(config, notices)) => {
            if config.memory_limit.is_some() {
                allocators::tell();
            }
            with_log(&config, &notices, run(&config))
        }
        Ok(Invocation::DumpRequests(data_dir)) => match process::dump_requests(&data_dir, &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&mut std::io::stderr(), &format!("{error:#}\n"));
                ExitCode::FAILURE
            }
        },
        Ok(Invocation::Rebuild(config, notices)) => with_log(&config, &notices, rebuild(&config)),
        Ok(Invocation::Gateway(options)) => pass_on(options),
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
    let code = ExitCode::from(refusal.exit_code());
    match refusal {
        Refusal::Usage(text) => {
            say(&mut std::io::stderr(), &format!("{text}\n{USAGE}"));
            return code;
        }
        Refusal::GrpcProxy => {
            say(&mut std::io::stderr(), &format!("{refusal}\n"));
            return code;
        }
        Refusal::Command { message, usage } => {
            say(&mut std::io::stderr(), &format!("Error: {message}\n{usage}\n{message}\n"));
            return code;
        }
        _ => {}
    }
    // What the flags say of the log cannot be trusted, so it is the default one.
    logging::install(LogLevel::Info, LogFormat::Json, &[LogOutput::Stderr], None).ok();
    match refusal {
        Refusal::ShadowedVariable(_) => tracing::error!(target: logging::FATAL, "{refusal}"),
        Refusal::NoAdvertisedClientUrls => {
            tracing::warn!(error = %refusal, "failed to verify flags");
            tracing::warn!(error = %refusal, "advertise client URLs are not set");
        }
        _ => tracing::warn!(error = %refusal, "failed to verify flags"),
    }
    code
}

/// Does what is to be done with a configuration, with its log, on a runtime of its own.
fn with_log(config: &Config, notices: &[Notice], act: impl Future<Output = ExitCode>) -> ExitCode {
    let installed = logging::install(config.log_level, config.log_format, &config.log_outputs, config.log_rotation);
    if let Err(error) = installed {
        say(&mut std::io::stderr(), &format!("{error}\n"));
        return ExitCode::FAILURE;
    }
    for notice in notices {
        notice.log();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(target: logging::FATAL, %error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(act);
    // Whatever still runs must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// Runs the proxy in front of members, until a signal ends the process.
fn pass_on(options: GatewayOptions) -> ExitCode {
    logging::install(LogLevel::Info, LogFormat::Json, &[LogOutput::Stderr], None).ok();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(target: logging::FATAL, %error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let options = match runtime.block_on(discovery::for_gateway(options)) {
        Ok(options) => options,
        Err(why) => {
            say(&mut std::io::stderr(), &format!("{why}\n"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(tcp_proxy::bind(&options)) {
        Ok(listener) => {
            process::tell_service_manager(ServiceState::Ready);
            runtime.block_on(tcp_proxy::run(listener, options));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&mut std::io::stdout(), &format!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn rebuild(config: &Config) -> ExitCode {
    match process::rebuild(config).await {
        Ok(done) => {
            say(&mut std::io::stdout(), &done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&mut std::io::stderr(), &format!("not rebuilt: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn run(config: &Config) -> ExitCode {
    let process = match Process::start(config).await {
        Ok(Some(process)) => process,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: logging::FATAL, error = format!("{error:#}"), "failed to start etcd");
            return ExitCode::FAILURE;
        }
    };
    match process.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!(target: logging::FATAL, reason, "this member cannot go on");
            ExitCode::FAILURE
        }
    }
}
