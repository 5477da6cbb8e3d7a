//! `scale`: what a server has to bear when it is large, on mainstay and on etcd, one after the other.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::ensure;

use crate::servers::{Servers, turns};
use crate::workload::scale::{Scale, Seen, Site, Sizes};

/// The flags of `scale`.
#[derive(Clone, Debug, clap::Parser)]
pub struct Arguments {
    /// Which scenarios; all of them when none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Scale>,
    /// Which servers.
    #[command(flatten)]
    pub servers: Servers,
    /// A folder of the kernel's control groups in which `store` makes one, with --store-memory as its limit. Without
    /// it nothing but the server itself keeps the limit, and only its peak is looked at.
    #[arg(long)]
    pub cgroup: Option<PathBuf>,
    /// How large each scenario is.
    #[command(flatten)]
    pub sizes: Sizes,
}

/// One run of a scenario, as it stands in its JSON line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// What was measured.
    pub scenario: Scale,
    /// Which server.
    pub system: &'static str,
    /// The version that the server reports; empty where it did not come to that.
    pub version: String,
    /// Members of the cluster.
    pub members: usize,
    /// Which run on this system, from 1.
    pub round: u32,
    /// How large it was.
    pub options: serde_json::Value,
    /// What was measured, by name; the unit is the end of the name.
    #[serde(serialize_with = "in_order")]
    pub figures: Vec<(String, f64)>,
    /// What was wrong; nothing where all was right.
    pub failures: Vec<String>,
}

/// Writes names with their values as a map in the order of the list.
fn in_order<S: serde::Serializer>(figures: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (&figure.0, &figure.1)))
}

impl Report {
    /// The line for programs, without its end.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("a report has no maps but those with text keys")
    }
}

/// Measures and prints. Fails where anything was wrong.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let reports = measure(arguments, &mut |report| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", report.json())?;
        // So that a long run shows how far it is.
        stdout.flush()
    })
    .await?;
    writeln!(std::io::stderr(), "\n{}", table(&reports))?;
    let failed: Vec<String> = reports.iter().filter(|report| !report.failures.is_empty()).map(failure).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn failure(report: &Report) -> String {
    format!("{} on {}: {}", report.scenario.name(), report.system, report.failures.join("; "))
}

/// Runs each scenario on each system, and tells of every run.
pub async fn measure(
    arguments: &Arguments,
    tell: &mut dyn FnMut(&Report) -> std::io::Result<()>,
) -> anyhow::Result<Vec<Report>> {
    let Arguments { only, servers, cgroup, sizes } = arguments;
    let scenarios = if only.is_empty() { Scale::all() } else { only.clone() };
    for scenario in &scenarios {
        scenario.validate(sizes)?;
    }
    let systems = servers.binaries()?;
    let mut reports = Vec::new();
    for scenario in scenarios {
        for round in 1..=servers.rounds() {
            for place in turns(systems.len(), round) {
                let (system, binary) = &systems[place];
                let (folder, server_flags) = (&servers.folder, &servers.server_flags);
                let site = Site { system: *system, binary, folder, server_flags, cgroup: cgroup.as_deref() };
                let Seen { version, figures, failures } = scenario.run(&site, sizes).await;
                let (members, options) = (scenario.members(), scenario.options(sizes)?);
                let system = system.name();
                let report = Report { scenario, system, version, members, round, options, figures, failures };
                tell(&report)?;
                reports.push(report);
            }
        }
    }
    Ok(reports)
}

/// The table for people: a line for each figure, with a column for each system. Of several rounds it shows the figure
/// in the middle.
pub fn table(reports: &[Report]) -> String {
    let mut systems: Vec<&str> = Vec::new();
    let mut lines: Vec<(Scale, &str)> = Vec::new();
    for report in reports {
        if !systems.contains(&report.system) {
            systems.push(report.system);
        }
    }
    for report in reports {
        for (name, _) in &report.figures {
            let line = (report.scenario, name.as_str());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    let mut table = format!("| scenario | figure | {} |\n", systems.join(" | "));
    writeln!(table, "|{}", "---|".repeat(systems.len() + 2)).expect("writing to a string does not fail");
    for (scenario, name) in lines {
        let cells: Vec<String> = systems
            .iter()
            .map(|system| match middle(reports, scenario, system, name) {
                Some(figure) => format!("{figure:.2}"),
                None => "-".to_owned(),
            })
            .collect();
        writeln!(table, "| {} | {name} | {} |", scenario.name(), cells.join(" | "))
            .expect("writing to a string does not fail");
    }
    for report in reports.iter().filter(|report| !report.failures.is_empty()) {
        writeln!(table, "\nFAILED: {}", failure(report)).expect("writing to a string does not fail");
    }
    table
}

/// The figure in the middle of all rounds.
fn middle(reports: &[Report], scenario: Scale, system: &str, name: &str) -> Option<f64> {
    let of = reports.iter().filter(|report| report.scenario == scenario && report.system == system);
    let mut figures: Vec<f64> = of
        .filter_map(|report| report.figures.iter().find(|(figure, _)| figure == name))
        .map(|figure| figure.1)
        .collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn report(system: &'static str, round: u32, rate: f64, failures: &[&str]) -> Report {
        Report {
            scenario: Scale::SlowDisk,
            system,
            version: "3.7.1".to_owned(),
            members: 3,
            round,
            options: serde_json::json!({"slow_disk_millis": 10}),
            figures: vec![("puts_per_second".to_owned(), rate), ("elections".to_owned(), 0.0)],
            failures: failures.iter().map(|failure| (*failure).to_owned()).collect(),
        }
    }

    #[test]
    fn figures_keep_their_order() {
        expect![[r#"{"scenario":"slow-disk","system":"etcd","version":"3.7.1","members":3,"round":1,"options":{"slow_disk_millis":10},"figures":{"puts_per_second":499.5,"elections":0.0},"failures":["lost"]}"#]]
        .assert_eq(&report("etcd", 1, 499.5, &["lost"]).json());
    }

    #[test]
    fn the_table_has_a_column_for_each_system_and_tells_what_failed() {
        let reports = [
            report("mainstay", 1, 500.0, &[]),
            report("mainstay", 2, 480.0, &[]),
            report("mainstay", 3, 490.0, &[]),
            report("etcd", 1, 400.0, &["lost", "late"]),
        ];
        expect![[r#"
            | scenario | figure | mainstay | etcd |
            |---|---|---|---|
            | slow-disk | puts_per_second | 490.00 | 400.00 |
            | slow-disk | elections | 0.00 | 0.00 |

            FAILED: slow-disk on etcd: lost; late
        "#]]
        .assert_eq(&table(&reports));
    }

    #[tokio::test]
    async fn refusals_name_the_flag() {
        for (flags, word) in [
            (&["--only", "store", "--store-keys", "0"][..], "--store-keys"),
            (&["--rounds", "0"], "--rounds"),
            (&["--systems", "mainstay", "--mainstay-bin", "/no/such"], "MAINSTAY_BIN"),
        ] {
            let arguments = <Arguments as clap::Parser>::parse_from([&["scale"], flags].concat());
            let error = measure(&arguments, &mut |_| Ok(())).await.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_is_a_failure_of_its_scenario() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        // It starts and ends at once, whatever its flags are.
        let flags =
            ["scale", "--only", "values", "--systems", "mainstay", "--mainstay-bin", "/bin/false", "--folder", path];
        let arguments = <Arguments as clap::Parser>::parse_from(flags);
        let reports = measure(&arguments, &mut |_| Ok(())).await.unwrap();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].failures[0].contains("the server ended"), "{:?}", reports[0].failures);
        assert!(run(&arguments).await.unwrap_err().to_string().starts_with("values on mainstay: "));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
