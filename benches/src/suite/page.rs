//! A run of the suite as Markdown: the short table of the README, and the page with every figure.

use std::fmt::Write;

use anyhow::{Context, ensure};

use super::metric::{Basis, Check, Figures, Metric, digits};
use super::record::{Record, RowRecord};
use super::rows;

/// Between these the README's table stands.
const BEGIN: &str = "<!-- begin of what `mainstay-bench readme` writes -->";
const END: &str = "<!-- end of what `mainstay-bench readme` writes -->";

/// What a ceiling shows, which has no limits.
const CEILING: [Metric; 3] = [Metric::PerSecond, Metric::CpuPerMillion, Metric::P99Ms];

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing to a string does not fail");
    text.push('\n');
}

/// When, where and of what.
fn origin(record: &Record) -> String {
    let date = record.date.split('T').next().unwrap_or_default();
    let versions: Vec<String> = record.versions.iter().map(|(system, version)| format!("{system} {version}")).collect();
    let quick = if record.quick { ", a quick run, which says little" } else { "" };
    let runs = match record.rounds {
        1 => "one run of each".to_owned(),
        2 => "the worse of 2 runs".to_owned(),
        more => format!("the median of {more} runs"),
    };
    let machine = record.machine.text();
    format!("{date}, commit {}, {machine}; {}; {runs}{quick}.", record.commit, versions.join(", "))
}

/// The short table: every row with its target, and what came of it.
pub(super) fn short(record: &Record) -> String {
    let mut text = origin(record);
    text.push_str("\n\n| row | members | etcd | mainstay | must reach | reached | |\n|---|---|---|---|---|---|---|\n");
    let mut reasons = Vec::new();
    for row in &record.rows {
        let limited: Vec<Metric> = row.checks.iter().map(|check| check.metric).collect();
        let shown: &[Metric] = if limited.is_empty() { &CEILING } else { &limited };
        let cell =
            |system: &str| row.systems.get(system).map_or_else(|| "-".to_owned(), |figures| some(figures, shown));
        // A ceiling has one system, and it is neither.
        let ours = row.systems.keys().find(|name| name.as_str() != "etcd").map_or("mainstay", String::as_str);
        let reached: Vec<String> = row.checks.iter().map(reached).collect();
        let mark = match row.is_met() {
            Some(true) => "met",
            Some(false) => "**not met**",
            None if row.checks.is_empty() => "",
            None => "not measured",
        };
        put(
            &mut text,
            format_args!(
                "| {} | {} | {} | {} | {} | {} | {mark} |",
                row.title,
                row.members,
                cell("etcd"),
                cell(ours),
                row.target,
                reached.join(", "),
            ),
        );
        let reason = rows::find(&row.name).map_or("", |row| row.reason);
        if row.is_met() == Some(false) && !reason.is_empty() {
            reasons.push(format!("- {}: {reason}", row.title));
        }
    }
    if !reasons.is_empty() {
        put(&mut text, format_args!("\nWhy rows fall short:\n\n{}", reasons.join("\n")));
    }
    text
}

/// A few figures with their names.
fn some(figures: &Figures, shown: &[Metric]) -> String {
    let figure = |metric: &Metric| figures.get(metric).map(|figure| named(*metric, *figure));
    let text: Vec<String> = shown.iter().filter_map(figure).collect();
    if text.is_empty() { "-".to_owned() } else { text.join(", ") }
}

/// As people write it: 20.1 k/s, p99 88.0 ms.
fn named(metric: Metric, figure: f64) -> String {
    let shown = metric.show(figure);
    match metric {
        Metric::PerSecond => format!("{shown}/s"),
        Metric::P50Ms => format!("p50 {shown} ms"),
        Metric::P99Ms => format!("p99 {shown} ms"),
        Metric::P999Ms => format!("p99.9 {shown} ms"),
        Metric::CpuPerMillion => format!("{shown} CPU s per million"),
        Metric::ExtraMb | Metric::PeakMb | Metric::LoadedMb | Metric::RestartedMb => format!("{shown} MB"),
        Metric::RestartSeconds => format!("{shown} s"),
        Metric::DeviceMbPerThousand => format!("{shown} MB"),
        _ => format!("{} {shown}", metric.title()),
    }
}

/// What a limit's figure came to.
fn reached(check: &Check) -> String {
    match (check.value, check.basis) {
        (None, _) => "-".to_owned(),
        (Some(value), Basis::Ratio) => format!("{} {}×", check.metric.title(), digits(value)),
        (Some(value), Basis::Own) => named(check.metric, value),
    }
}

/// The page with every figure.
pub(super) fn page(record: &Record) -> String {
    let step = record.step.as_deref().map_or_else(String::new, |step| format!("\n\nStep: {step}."));
    let mut text = format!("# What the last whole run measured\n\n{}{step}\n\n", short(record).trim_end());
    text.push_str("![ratios](latest.svg)\n\n## Every figure\n\n");
    let shown: Vec<Metric> =
        Metric::ALL.into_iter().filter(|metric| record.rows.iter().any(|row| has(row, *metric))).collect();
    let titles: Vec<&str> = shown.iter().map(|metric| metric.title()).collect();
    put(&mut text, format_args!("| row | members | system | {} |", titles.join(" | ")));
    put(&mut text, format_args!("|{}", "---|".repeat(titles.len() + 3)));
    let cells = |figures: &Figures, end: &str| {
        let cell = |metric: &Metric| match figures.get(metric) {
            Some(figure) => metric.show(*figure) + end,
            None => "-".to_owned(),
        };
        shown.iter().map(cell).collect::<Vec<_>>().join(" | ")
    };
    for row in &record.rows {
        for (system, figures) in &row.systems {
            put(&mut text, format_args!("| {} | {} | {system} | {} |", row.name, row.members, cells(figures, "")));
        }
        if !row.ratios.is_empty() {
            let ratios: Figures =
                row.ratios.iter().filter(|(metric, _)| **metric != Metric::Errors).map(|(a, b)| (*a, *b)).collect();
            put(
                &mut text,
                format_args!("| {} | {} | **mainstay / etcd** | {} |", row.name, row.members, cells(&ratios, "×")),
            );
        }
    }
    text.push_str("\nThe loads:\n\n");
    for row in &record.rows {
        put(&mut text, format_args!("- {}: `{}`", row.name, row.options));
    }
    text
}

fn has(row: &RowRecord, metric: Metric) -> bool {
    row.systems.values().any(|figures| figures.contains_key(&metric))
}

/// A document with the table of this run between its marks.
pub(super) fn within(document: &str, record: &Record) -> anyhow::Result<String> {
    let (before, rest) = document.split_once(BEGIN).with_context(|| format!("there is no line {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("there is no line {END}"))?;
    ensure!(!after.contains(BEGIN), "there are two lines {BEGIN}");
    Ok(format!("{before}{BEGIN}\n{}{END}{after}", short(record)))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::record::tests::record;
    use super::*;

    #[test]
    fn the_short_table_says_what_is_met() {
        expect![[r#"
            2026-11-22, commit 0123456789ab, A processor, 2 threads, 16 GiB, Linux 6.1; etcd 3.7.1; the worse of 2 runs.

            | row | members | etcd | mainstay | must reach | reached | |
            |---|---|---|---|---|---|---|
            | the put | 1 | 20.0 k/s | 30.0 k/s | what must be | per second 1.50× | **not met** |
            | the get | 1 | p99 80.0 ms | p99 40.0 ms | what must be | p99 ms 0.500× | met |
            | the echo-put | 1 | - | 30.0 k/s, p99 40.0 ms |  |  |  |
        "#]]
        .assert_eq(&short(&record(30_000.0)));
    }

    #[test]
    fn the_page_has_every_figure() {
        let page = page(&record(30_000.0));
        assert!(page.contains("Step: as it was."), "{page}");
        assert!(page.contains("| put | 1 | **mainstay / etcd** | 1.50× | 0.500× |"), "{page}");
        assert!(page.contains("| echo-put | 1 | echo | 30.0 k | 40.0 |"), "{page}");
        assert!(page.contains("- get: `--clients 10`"), "{page}");
    }

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let document = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        let first = within(&document, &record(30_000.0)).unwrap();
        assert!(first.starts_with("# Title\n") && first.ends_with("\nrest\n") && !first.contains("old"), "{first}");
        assert_eq!(within(&first, &record(30_000.0)).unwrap(), first);
        assert!(within("no marks", &record(1.0)).is_err());
        assert!(within(BEGIN, &record(1.0)).is_err());
    }

    #[test]
    fn the_readme_has_the_marks() {
        let readme = include_str!("../../../README.md");
        within(readme, &record(1.0)).unwrap();
    }
}
