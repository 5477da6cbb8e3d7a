//! The command line.

use std::io;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{Args, Parser, Subcommand};

use crate::mutants::MUTANTS;
use crate::plan::Plan;
use crate::run::Run;
use mainstay_tests::seeds::Seeds;

/// Simulates clusters, seed by seed, and checks what their clients saw.
#[derive(Debug, Parser)]
#[command(name = "sim", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    simulate: Simulate,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs each seed twice and compares every line of the trace
    Meta(Meta),
    /// Runs deliberate bugs until they are found
    Mutants(Mutants),
}

/// One seed or many.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A seed (7), or rows of seeds (1..300, with both ends)
    #[arg(value_name = "SEEDS")]
    pub(crate) seeds: Vec<Seeds>,
    /// How many members the cluster has, instead of what the seed says
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MEMBERS_MAX))]
    members: Option<usize>,
    /// Leaves these faults of the schedule out (0..5,7)
    #[arg(long, value_name = "PLACES", value_delimiter = ',')]
    without: Vec<Seeds>,
    /// Runs with this deliberate bug
    #[arg(long = "break", value_name = "NAME", value_parser = bugs())]
    broken: Option<String>,
    /// Writes the whole trace here; one seed only
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Prints the report as JSON; one seed only
    #[arg(long)]
    pub(crate) json: bool,
    /// Says which places and faults were reached, and fails if 300 seeds left one out, or 5000 a rare one
    #[arg(long)]
    pub(crate) coverage: bool,
    /// Writes the coverage into this Markdown file too, with the sums of all runs
    #[arg(long, value_name = "FILE", requires = "coverage")]
    pub(crate) report: Option<PathBuf>,
    /// Does not shrink the schedules of failing seeds; with --trace or --json none is
    #[arg(long)]
    pub(crate) no_shrink: bool,
    /// Seconds of the machine's clock after which a run counts as hanging
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// How this program calls itself
    #[arg(long, hide = true)]
    pub(crate) child: bool,
}

/// Far more than any run needs, also on a busy machine.
const LIMIT: u64 = 300;

/// More than clusters have.
const MEMBERS_MAX: u64 = 9;

/// The names of the deliberate bugs: one that is written wrong must not pass for one that was not found.
fn bugs() -> PossibleValuesParser {
    PossibleValuesParser::new(MUTANTS.iter().map(|mutant| mutant.name))
}

impl Simulate {
    /// What the command line says of each run.
    pub(crate) fn run(&self, seed: u64) -> Run {
        Run {
            seed,
            members: self.members,
            without: Seeds::all(&self.without).into_iter().filter_map(|place| place.try_into().ok()).collect(),
            broken: self.broken.clone(),
            trace: self.trace.clone(),
        }
    }

    /// Refuses places that a seed's schedule does not have.
    fn check_without(&self) -> io::Result<()> {
        let seeds = if self.without.is_empty() { Vec::new() } else { Seeds::all(&self.seeds) };
        for seed in seeds {
            let run = self.run(seed);
            let faults = Plan::new(run.seed, run.members).faults.len();
            if run.without.last().is_some_and(|last| *last >= faults) {
                let text = format!("--without: the schedule of seed {seed} has {faults} faults, counted from 0");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }
}

/// Whether a seed is one run.
#[derive(Debug, Args)]
pub(crate) struct Meta {
    /// A seed (7), or rows of seeds (1..300, with both ends)
    #[arg(value_name = "SEEDS", required = true)]
    pub(crate) seeds: Vec<Seeds>,
    /// How many members the cluster has, instead of what the seed says
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=MEMBERS_MAX))]
    members: Option<usize>,
    /// Runs with this deliberate bug
    #[arg(long = "break", value_name = "NAME", value_parser = bugs())]
    broken: Option<String>,
    /// Seconds of the machine's clock after which a run counts as hanging
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

impl Meta {
    /// What the command line says of each run.
    pub(crate) fn template(&self) -> Run {
        Run { members: self.members, broken: self.broken.clone(), ..Run::default() }
    }
}

/// Whether bugs are found.
#[derive(Debug, Args)]
pub(crate) struct Mutants {
    /// The bugs by name; all when none is named
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Seeds that may run for each bug, instead of its own bound
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: Option<u64>,
    /// Runs all these seeds for each bug and counts how many of them find it
    #[arg(long)]
    pub(crate) all: bool,
    /// Writes the table into this Markdown file, between its markers if it has them
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Seconds of the machine's clock after which a run counts as hanging
    #[arg(long, value_name = "SECONDS", default_value_t = LIMIT, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

/// What is to be done.
pub(crate) enum Action {
    One(u64, Simulate),
    Many(Simulate),
    Meta(Meta),
    Mutants(Mutants),
}

impl Cli {
    /// Understands the command line, or says what is wrong with it.
    pub(crate) fn action(self) -> io::Result<Action> {
        let wrong = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let simulate = match self.command {
            Some(Command::Meta(meta)) => return Ok(Action::Meta(meta)),
            Some(Command::Mutants(mutants)) => return Ok(Action::Mutants(mutants)),
            None => self.simulate,
        };
        if simulate.seeds.is_empty() {
            return wrong("which seed? `sim 7` runs one, `sim 1..300` many, `sim --help` says more");
        }
        let single = Seeds::single(&simulate.seeds);
        simulate.check_without()?;
        let folder = simulate.trace.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return wrong("--trace: there is no such folder");
        }
        if simulate.trace.as_deref().is_some_and(Path::is_dir) {
            return wrong("--trace: this is a folder");
        }
        match single {
            Some(seed) if !simulate.coverage => Ok(Action::One(seed, simulate)),
            _ if simulate.trace.is_some() || simulate.json => wrong("--trace and --json are for one seed"),
            _ => Ok(Action::Many(simulate)),
        }
    }
}
