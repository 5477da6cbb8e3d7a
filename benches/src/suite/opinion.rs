//! etcd's own benchmark tool on the same servers: what it says of them, with its client and its clock.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::metric::{Figures, Metric, megabytes};
use crate::launch::Cluster;
use crate::options::Options;
use crate::process::Usage;

/// The key that the tool's gets read.
const KEY: &str = "foo";

/// The tool that the project builds once per user; the script prints its folder.
pub(super) async fn from_script() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/etcd-benchmark.sh");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .await
        .with_context(|| format!("running {}; or give the tool as --benchmark-bin", script.display()))?;
    ensure!(output.status.success(), "{} failed; or give the tool as --benchmark-bin", script.display());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()).join("benchmark"))
}

/// Runs a command of the tool on the members.
pub(super) async fn run(tool: &Path, command: &str, options: &Options, cluster: &Cluster) -> anyhow::Result<Figures> {
    let value = format!("--val-size={}", options.value_size);
    let keys = format!("--key-space-size={}", options.keys);
    let put = vec![value, keys, "--key-size=32".to_owned()];
    let specific = if command == "put" { put } else { vec![KEY.to_owned(), "--consistency=l".to_owned()] };
    if command == "range" {
        // Otherwise it would read a key that is not there.
        let client = mainstay_client::Client::connect(cluster.endpoints(), mainstay_client::ClientOptions::default())?;
        client.put(KEY, crate::keyspace::value(options.seed, 0, options.value_size)).await?;
    }
    let pids = cluster.pids();
    let before = Usage::of(&pids)?;
    let output = Command::new(tool)
        .arg(command)
        .args(specific)
        .arg(format!("--endpoints={}", cluster.endpoints().join(",")))
        .arg(format!("--conns={}", options.connections))
        .arg(format!("--clients={}", options.clients))
        .arg(format!("--total={}", options.total))
        .arg("--precise")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("running {}", tool.display()))?;
    let spent = Usage::of(&pids)?.since(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "etcd's benchmark tool ended with {}: {errors}", output.status);
    let mut figures = read(&text).with_context(|| format!("etcd's benchmark tool said {text}"))?;
    figures.insert(Metric::CpuPerMillion, spent.cpu.as_secs_f64() * 1e6 / options.total as f64);
    figures.insert(Metric::PeakMb, megabytes(spent.rss_peak_bytes));
    Ok(figures)
}

/// What the tool printed.
fn read(text: &str) -> Option<Figures> {
    let number = |text: &str| text.trim().trim_end_matches('.').trim_end_matches(" secs").parse::<f64>().ok();
    let after = |name: &str| text.lines().find_map(|line| number(line.trim().strip_prefix(name)?));
    let millis = |name: &str| Some(after(name)? * 1e3);
    let mut figures = Figures::from([
        (Metric::PerSecond, after("Requests/sec:")?),
        (Metric::P50Ms, millis("50% in")?),
        (Metric::P99Ms, millis("99% in")?),
        (Metric::P999Ms, millis("99.9% in")?),
    ]);
    // Each kind of failure is a line with its number in brackets.
    let errors = text.lines().skip_while(|line| !line.starts_with("Error distribution:"));
    let errors = errors.filter_map(|line| line.trim().strip_prefix('[')?.split_once(']')?.0.parse::<u64>().ok());
    figures.insert(Metric::Errors, errors.sum::<u64>() as f64);
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\nSummary:\n  Total:\t4.1 secs.\n  Slowest:\t0.5 secs.\n  Requests/sec:\t2411.75\n\n\
                        Response time histogram:\n  0.0012 [1]\t|\n\nLatency distribution:\n  10% in 0.0023 secs.\n  \
                        50% in 0.0081 secs.\n  99% in 0.0148 secs.\n  99.9% in 0.02 secs.\n";

    #[test]
    fn what_the_tool_says_is_read() {
        let figures = read(SAID).unwrap();
        assert_eq!(figures[&Metric::PerSecond], 2411.75);
        assert!((figures[&Metric::P50Ms] - 8.1).abs() < 1e-9 && (figures[&Metric::P999Ms] - 20.0).abs() < 1e-9);
        assert_eq!(figures[&Metric::Errors], 0.0, "the histogram's numbers are no failures");
    }

    #[test]
    fn failures_are_counted_and_silence_is_none() {
        let figures = read(&format!("{SAID}\nError distribution:\n  [7]\tno leader\n  [2]\ttoo late\n")).unwrap();
        assert_eq!(figures[&Metric::Errors], 9.0);
        assert!(read("nothing").is_none());
    }
}
