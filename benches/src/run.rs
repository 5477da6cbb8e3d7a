//! `run`: one row against endpoints that are already there.

use std::io::Write;

use crate::options::Options;
use crate::report::{Report, table};
use crate::workload::{Row, Session, Subjects};

/// The flags of `run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to measure.
    #[arg(value_enum)]
    row: Row,
    /// Where the members listen.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// The members' process ids, to measure what they spend.
    #[arg(long = "pid", value_delimiter = ',')]
    pids: Vec<u32>,
    /// What to call the server in the results.
    #[arg(long, default_value = "server")]
    system: String,
    /// Leaves the keys of the run in the store.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    options: Options,
}

/// Measures and prints.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.options.validate()?;
    let session = Session::begin(&arguments.endpoints, &arguments.options).await?;
    // Where the servers' data is, their process ids do not tell.
    let subjects = Subjects { pids: arguments.pids.clone(), disk: None };
    let version = session.version().await?;
    let outcome = arguments.row.run(&session, &arguments.options, &subjects).await;
    let cleaned = if arguments.keep { Ok(()) } else { session.clean().await };
    // Why the row failed comes before why its keys could not be removed.
    let outcome = outcome?;
    cleaned?;
    let members = arguments.endpoints.len();
    let report = Report::new(arguments.row, &arguments.system, &version, members, 1, &arguments.options, outcome);
    writeln!(std::io::stdout(), "{}", report.json())?;
    writeln!(std::io::stderr(), "{}", table(&[report]))?;
    Ok(())
}
