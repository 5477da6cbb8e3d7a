//! What `--help` prints.

use std::fmt::Write as _;

use super::table::SECTIONS;

/// The usage, which goes to stderr.
pub const USAGE: &str = "\
Usage:

  mainstay [flags]
    Start a mainstay server; the flags are etcd's.

  mainstay dump-requests DATA-DIR
    Print the requests in the raft log of a member, which may be running.

  mainstay rebuild [flags]
    Begin anew in the place of a member whose data is spoilt or lost, with the flags that it is started with.
    The others must have a quorum. Start it as before afterwards: it gets its data from them.

  mainstay --version
    Show the version.

  mainstay -h | --help
    Show this help.

  mainstay --config-file
    Path to the configuration file. All other flags and environment variables are then ignored.
";

/// Every flag with its default, which goes to stdout.
pub(super) fn flags() -> String {
    let mut out = String::new();
    for section in SECTIONS.iter().filter(|section| !section.title.is_empty()) {
        let _infallible = writeln!(out, "{}:", section.title);
        for flag in section.flags {
            let _infallible = writeln!(out, "  --{} '{}'\n    {}", flag.name, flag.default, flag.help);
        }
        out.push('\n');
    }
    out
}
