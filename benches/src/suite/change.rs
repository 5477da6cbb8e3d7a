//! What changed since another run.

use std::fmt::Write;

use super::metric::{Metric, digits};
use super::record::Record;

/// What is compared. Small runs tell nothing of the tail.
const COMPARED: [Metric; 6] = [
    Metric::PerSecond,
    Metric::P50Ms,
    Metric::CpuPerMillion,
    Metric::ExtraMb,
    Metric::RestartSeconds,
    Metric::LoadedMb,
];
/// By how much a ratio of a quick run may differ by chance.
const CHANCE: f64 = 1.25;

/// The ratios of two runs side by side: those of mainstay to etcd, because the machines may differ.
pub(super) fn table(before: &Record, now: &Record) -> String {
    let mut text = format!(
        "mainstay / etcd: now, and at commit {} ({}, {})\n\n| row | figure | before | now | |\n|---|---|---|---|---|\n",
        before.commit,
        before.date,
        before.step.as_deref().unwrap_or("no step")
    );
    for row in &now.rows {
        let Some(old) = before.rows.iter().find(|old| old.name == row.name) else { continue };
        for metric in COMPARED {
            let (Some(was), Some(is)) = (old.ratios.get(&metric), row.ratios.get(&metric)) else { continue };
            let better = if metric.is_better_larger() { is / was } else { was / is };
            let mark = match better {
                better if better >= CHANCE => "better",
                better if better <= 1.0 / CHANCE => "**worse**",
                _ => "",
            };
            let (was, is) = (digits(*was), digits(*is));
            writeln!(text, "| {} | {} | {was}× | {is}× | {mark} |", row.name, metric.title())
                .expect("writing to a string does not fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn what_is_more_than_chance_is_marked() {
        let text = table(&record(30_000.0), &record(20_000.0));
        assert!(text.contains("| put | per second | 1.50× | 1.00× | **worse** |"), "{text}");
        let text = table(&record(30_000.0), &record(40_000.0));
        assert!(text.contains("| get | per second | 1.50× | 2.00× | better |"), "{text}");
        let text = table(&record(30_000.0), &record(31_000.0));
        assert!(text.contains("| put | per second | 1.50× | 1.55× |  |") && !text.contains("echo"), "{text}");
    }
}
