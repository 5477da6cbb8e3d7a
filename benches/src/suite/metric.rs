//! What is told of a row: figures by their names, and the limits they are held to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::Summary;
use crate::report::Report;

/// A figure's name and unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Items a second.
    PerSecond,
    /// Half of the operations were faster.
    P50Ms,
    /// One operation in a hundred was slower.
    P99Ms,
    /// One operation in a thousand was slower.
    P999Ms,
    /// Server CPU seconds for a million items, over all members.
    CpuPerMillion,
    /// CPU seconds of the load generator for a million items.
    GeneratorCpuPerMillion,
    /// The servers' peak of resident memory, in megabytes.
    PeakMb,
    /// The same beyond what they had before.
    ExtraMb,
    /// Megabytes that the disk wrote for a thousand items: the whole device, whoever wrote there.
    DeviceMbPerThousand,
    /// Megabytes written for a thousand items by the kernel's account of the servers.
    ProcessMbPerThousand,
    /// From a kill to the first answer, in seconds.
    RestartSeconds,
    /// Resident memory of a store that was just filled, in megabytes.
    LoadedMb,
    /// The same after it was stopped and started again.
    RestartedMb,
    /// The longest put while the store is defragmented.
    DefragmentPutMs,
    /// The same as a multiple of the longest one before.
    DefragmentPutTimes,
    /// The puts' p99 during a compaction as a multiple of that before.
    CompactPutTimes,
    /// Operations that failed.
    Errors,
}

impl Metric {
    /// All of them, in the order of a table.
    pub(super) const ALL: [Self; 17] = [
        Self::PerSecond,
        Self::P50Ms,
        Self::P99Ms,
        Self::P999Ms,
        Self::CpuPerMillion,
        Self::GeneratorCpuPerMillion,
        Self::PeakMb,
        Self::ExtraMb,
        Self::DeviceMbPerThousand,
        Self::ProcessMbPerThousand,
        Self::RestartSeconds,
        Self::LoadedMb,
        Self::RestartedMb,
        Self::DefragmentPutMs,
        Self::DefragmentPutTimes,
        Self::CompactPutTimes,
        Self::Errors,
    ];

    /// What a column or a line is called.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::P50Ms => "p50 ms",
            Self::P99Ms => "p99 ms",
            Self::P999Ms => "p99.9 ms",
            Self::CpuPerMillion => "CPU s per million",
            Self::GeneratorCpuPerMillion => "generator CPU s per million",
            Self::PeakMb => "peak memory MB",
            Self::ExtraMb => "extra memory MB",
            Self::DeviceMbPerThousand => "written by the disk, MB per thousand",
            Self::ProcessMbPerThousand => "written by the process, MB per thousand",
            Self::RestartSeconds => "kill to first read, s",
            Self::LoadedMb => "memory loaded, MB",
            Self::RestartedMb => "memory after restart, MB",
            Self::DefragmentPutMs => "longest put in Defragment, ms",
            Self::DefragmentPutTimes => "longest put in Defragment / before",
            Self::CompactPutTimes => "put p99 in compaction / before",
            Self::Errors => "errors",
        }
    }

    /// Whether a larger figure is the better one.
    pub(super) fn is_better_larger(self) -> bool {
        self == Self::PerSecond
    }

    /// The figure for people: three digits say all that a run can tell.
    pub(super) fn show(self, figure: f64) -> String {
        match self {
            Self::Errors => format!("{figure:.0}"),
            _ => digits(figure),
        }
    }
}

/// Three significant digits, and thousands as such.
pub(super) fn digits(figure: f64) -> String {
    match figure.abs() {
        large if large >= 10_000.0 => format!("{:.1} k", figure / 1000.0),
        large if large >= 100.0 => format!("{figure:.0}"),
        large if large >= 10.0 => format!("{figure:.1}"),
        large if large >= 1.0 || large == 0.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// What one system reached in one row.
pub type Figures = BTreeMap<Metric, f64>;

/// Bytes as megabytes.
pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Adds the quantiles of the times.
pub(super) fn add_latency(figures: &mut Figures, latency: &Summary) {
    for (metric, micros) in
        [(Metric::P50Ms, latency.p50_us), (Metric::P99Ms, latency.p99_us), (Metric::P999Ms, latency.p999_us)]
    {
        figures.insert(metric, micros as f64 / 1e3);
    }
}

/// The figures of a run under load.
pub(super) fn of_report(report: &Report) -> Figures {
    let mut figures = Figures::from([
        (Metric::PerSecond, report.per_second),
        (Metric::GeneratorCpuPerMillion, report.generator.cpu_seconds_per_million),
        (Metric::Errors, report.errors.values().sum::<u64>() as f64),
    ]);
    add_latency(&mut figures, &report.latency);
    let per_thousand = |bytes: u64| megabytes(bytes) * 1000.0 / report.items.max(1) as f64;
    if let Some(server) = report.server {
        figures.insert(Metric::CpuPerMillion, server.cpu_seconds_per_million);
        figures.insert(Metric::PeakMb, megabytes(server.rss_peak_bytes));
        figures.extend(server.written_bytes.map(|bytes| (Metric::ProcessMbPerThousand, per_thousand(bytes))));
    }
    figures.extend(report.extra_memory_bytes.map(|bytes| (Metric::ExtraMb, megabytes(bytes))));
    figures.extend(report.device_written_bytes.map(|bytes| (Metric::DeviceMbPerThousand, per_thousand(bytes))));
    figures
}

/// The first system's figures as multiples of the second one's.
pub(super) fn ratios(ours: &Figures, theirs: &Figures) -> Figures {
    let ratio = |(metric, ours): (&Metric, &f64)| {
        let theirs = theirs.get(metric).filter(|theirs| **theirs > 0.0)?;
        Some((*metric, ours / theirs))
    };
    ours.iter().filter_map(ratio).collect()
}

/// The run in the middle of several: by throughput, or by whatever tells them apart.
pub(super) fn median(mut runs: Vec<Figures>) -> Option<Figures> {
    let worth = |figures: &Figures| {
        let costs = [Metric::RestartSeconds, Metric::LoadedMb, Metric::CompactPutTimes];
        let cost = costs.iter().find_map(|metric| figures.get(metric)).copied().unwrap_or(0.0);
        figures.get(&Metric::PerSecond).copied().unwrap_or(-cost)
    };
    runs.sort_by(|a, b| worth(a).total_cmp(&worth(b)));
    let middle = runs.len().saturating_sub(1) / 2;
    runs.into_iter().nth(middle)
}

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The figure as a multiple of etcd's in the same run.
    Ratio,
    /// The figure itself.
    Own,
}

/// What a figure of a row must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limit {
    pub(super) metric: Metric,
    pub(super) basis: Basis,
    pub(super) bound: f64,
}

impl Limit {
    /// At most so many times etcd's figure; at least, where more is better.
    pub(super) const fn times(metric: Metric, bound: f64) -> Self {
        Self { metric, basis: Basis::Ratio, bound }
    }

    /// At most this; at least, where more is better.
    pub(super) const fn own(metric: Metric, bound: f64) -> Self {
        Self { metric, basis: Basis::Own, bound }
    }

    /// Holds the figures to it.
    pub(super) fn check(self, ours: Option<&Figures>, ratios: &Figures) -> Check {
        let Self { metric, basis, bound } = self;
        let figures = if basis == Basis::Ratio { Some(ratios) } else { ours };
        let value = figures.and_then(|figures| figures.get(&metric)).copied();
        // Figures of requests that failed are worth nothing.
        let failed = ours.and_then(|ours| ours.get(&Metric::Errors)).is_some_and(|errors| *errors > 0.0);
        let reached = |value: f64| if metric.is_better_larger() { value >= bound } else { value <= bound };
        Check { metric, basis, bound, value, is_met: value.map(|value| reached(value) && !failed) }
    }
}

/// What came of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Which figure.
    pub metric: Metric,
    /// Whether it is compared.
    pub basis: Basis,
    /// What it must reach.
    pub bound: f64,
    /// What it was; `None` where it was not measured.
    pub value: Option<f64>,
    /// Whether that is reached.
    pub is_met: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_three_digits() {
        let shown = [20_123.0, 1234.0, 60.04, 2.5, 0.6789, 0.0].map(digits);
        assert_eq!(shown, ["20.1 k", "1234", "60.0", "2.50", "0.679", "0.00"]);
        assert_eq!(Metric::Errors.show(12.0), "12");
    }

    #[test]
    fn every_metric_is_listed_once_and_has_a_name_in_the_results() {
        for (place, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, place);
        }
        let figures = Figures::from([(Metric::P999Ms, 1.5), (Metric::CpuPerMillion, 2.0)]);
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(text, r#"{"p999_ms":1.5,"cpu_per_million":2.0}"#);
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
    }

    #[test]
    fn limits_know_which_way_is_better() {
        let ours = Figures::from([(Metric::PerSecond, 30.0), (Metric::P99Ms, 4.0), (Metric::ExtraMb, 40.0)]);
        let theirs = Figures::from([(Metric::PerSecond, 20.0), (Metric::P99Ms, 10.0), (Metric::ExtraMb, 0.0)]);
        let ratios = ratios(&ours, &theirs);
        assert_eq!(ratios, Figures::from([(Metric::PerSecond, 1.5), (Metric::P99Ms, 0.4)]));
        let met = |limit: Limit| limit.check(Some(&ours), &ratios).is_met;
        assert_eq!(met(Limit::times(Metric::PerSecond, 1.7)), Some(false));
        assert_eq!(met(Limit::times(Metric::PerSecond, 1.5)), Some(true));
        assert_eq!(met(Limit::times(Metric::P99Ms, 0.5)), Some(true));
        assert_eq!(met(Limit::own(Metric::ExtraMb, 32.0)), Some(false));
        assert_eq!(met(Limit::times(Metric::ExtraMb, 0.25)), None, "there is nothing to compare with");
        assert_eq!(met(Limit::own(Metric::LoadedMb, 1.0)), None, "it was not measured");
    }

    #[test]
    fn errors_meet_no_limit() {
        let ours = Figures::from([(Metric::P50Ms, 0.1), (Metric::Errors, 1.0)]);
        assert_eq!(Limit::own(Metric::P50Ms, 1.0).check(Some(&ours), &Figures::new()).is_met, Some(false));
    }

    #[test]
    fn the_median_is_by_throughput_or_by_cost() {
        let of = |metric: Metric, figures: &[f64]| {
            median(figures.iter().map(|figure| Figures::from([(metric, *figure)])).collect())
                .map(|figures| figures[&metric])
        };
        assert_eq!(of(Metric::PerSecond, &[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(of(Metric::PerSecond, &[5.0, 1.0]), Some(1.0), "the worse of two");
        assert_eq!(of(Metric::RestartSeconds, &[5.0, 1.0]), Some(5.0), "the worse of two");
        assert_eq!(of(Metric::CompactPutTimes, &[2.0, 1.0, 3.0]), Some(2.0));
        assert_eq!(of(Metric::LoadedMb, &[]), None);
    }
}
