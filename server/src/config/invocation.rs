//! From the process's arguments to a configuration.

use std::path::{Path, PathBuf};

use super::build::{self, Source};
use super::fields::Config;
use super::file;
use super::gateway::{self, GatewayOptions};
use super::go::io_text;
use super::notice::Notice;
use super::refusal::Refusal;
use super::settings::{CommandLine, Settings};
use super::usage;
use super::version;

/// What the process was asked to do.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Config>, Vec<Notice>),
    /// Have the cluster replace this member, and prepare it to begin anew.
    Rebuild(Box<Config>, Vec<Notice>),
    /// Print the requests in the log of this data directory and end.
    DumpRequests(PathBuf),
    /// Pass connections on to members.
    Gateway(GatewayOptions),
    /// Print this and end.
    Print(String),
    /// Print the usage to stderr, this to stdout, and end.
    Help(String),
}

/// What a process is given. Nothing else of the configuration reads the environment or a file.
pub struct Given<'a> {
    /// The arguments, without the program's name.
    pub arguments: Vec<String>,
    /// The environment.
    pub variables: Vec<(String, String)>,
    /// Reads a file's text.
    pub read_file: &'a dyn Fn(&Path) -> std::io::Result<String>,
}

impl Given<'_> {
    /// Finds out what to do.
    pub fn understand(&self) -> Result<Invocation, Refusal> {
        // Sub-commands stand first; anywhere else these words are mistakes.
        match self.arguments.first().map(String::as_str) {
            Some("gateway") => return gateway::understand(&self.arguments[1..]),
            Some("grpc-proxy") => return Err(Refusal::GrpcProxy),
            // With the flags, variables or file that the member is started with.
            Some("rebuild") => {
                return Ok(match self.understand_flags(&self.arguments[1..])? {
                    Invocation::Serve(config, notices) => Invocation::Rebuild(config, notices),
                    other => other,
                });
            }
            _ => {}
        }
        if let Some(("dump-requests", rest)) = self.arguments.split_first().map(|(word, rest)| (word.as_str(), rest)) {
            return match rest {
                [data_dir] => Ok(Invocation::DumpRequests(PathBuf::from(data_dir))),
                _ => Err(Refusal::Usage("dump-requests needs one argument, a data directory".to_owned())),
            };
        }
        self.understand_flags(&self.arguments)
    }

    fn understand_flags(&self, arguments: &[String]) -> Result<Invocation, Refusal> {
        let mut notices = Vec::new();
        let (mut settings, line) = Settings::from_arguments(arguments, &mut notices)?;
        match line {
            CommandLine::Flags => {}
            CommandLine::Help => return Ok(Invocation::Help(usage::flags())),
            CommandLine::Positional(argument) => return Err(Refusal::NotAFlag(argument)),
        }
        if settings.bool("version") {
            return Ok(Invocation::Print(version::version_text()));
        }
        if let Some(path) = self.config_file(&settings) {
            // Nothing else counts then, nor is there anything to remark on it.
            notices.clear();
            let text = (self.read_file)(&path)
                .map_err(|error| Refusal::File { path: path.clone(), reason: io_text(&error) })?;
            let settings = file::read(&path, &text)?;
            notices.push(Notice::FileUsed(path));
            let config = build::build(settings, Source::File, &mut notices)?;
            return Ok(Invocation::Serve(Box::new(config), notices));
        }
        settings.add_variables(&self.variables, &mut notices)?;
        let config = build::build(settings, Source::Flags, &mut notices)?;
        Ok(Invocation::Serve(Box::new(config), notices))
    }

    fn config_file(&self, settings: &Settings) -> Option<PathBuf> {
        let variable = || self.variables.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
        let path = match settings.text("config-file") {
            "" => variable().map_or("", |(_, path)| path),
            path => path,
        };
        (!path.is_empty()).then(|| PathBuf::from(path))
    }
}

impl Config {
    /// Reads a configuration from flags alone; for tests and simulated members.
    pub fn from_flags<I: Into<String>>(arguments: impl IntoIterator<Item = I>) -> Result<Config, Refusal> {
        let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
        let mut notices = Vec::new();
        match Settings::from_arguments(&arguments, &mut notices)? {
            (settings, CommandLine::Flags) => build::build(settings, Source::Flags, &mut notices),
            (_, CommandLine::Help) => Err(Refusal::Usage("help was asked for".to_owned())),
            (_, CommandLine::Positional(argument)) => Err(Refusal::NotAFlag(argument)),
        }
    }
}
