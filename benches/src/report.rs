//! What the commands print: JSON objects, one a line, or an aligned table.
//!
//! The names of the fields are a contract with the scripts that read them.

use crate::child::ThroughputReport;
use crate::engine::{EngineName, LatencyConfig, LatencyWorkload, ThroughputConfig, Workload};
use crate::latency::LatencyFigures;
use serde::{Deserialize, Serialize};

/// One throughput run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThroughputRun {
    /// Which workload.
    pub workload: Workload,
    /// Which engine.
    pub engine: EngineName,
    /// How many shards.
    pub shards: usize,
    /// How many events, over all shards.
    pub events: u64,
    /// From the first event to the last result.
    pub seconds: f64,
    /// Events by seconds.
    pub events_per_second: f64,
    /// Peak resident memory of the run's process.
    pub peak_rss_bytes: u64,
    /// Allocations by shard threads in the second half of a run that was not timed, for each of that half's events.
    pub allocations_per_event: Option<f64>,
    /// Nanoseconds from one core to the next and back, before the run and after it; only of a run on several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core_round_trip_ns: Option<[f64; 2]>,
    /// Results emitted.
    pub results: u64,
    /// Wrapping sum of the results' checksums, in hexadecimal: a JSON number would lose its low bits.
    pub checksum: String,
}

impl ThroughputRun {
    /// From what the run's process reported.
    pub fn new(
        engine: EngineName,
        workload: Workload,
        config: &ThroughputConfig,
        report: &ThroughputReport,
        allocations_per_event: Option<f64>,
    ) -> Self {
        let outcome = &report.outcome;
        ThroughputRun {
            workload,
            engine,
            shards: config.shards,
            events: config.events,
            seconds: outcome.seconds,
            events_per_second: config.events as f64 / outcome.seconds,
            peak_rss_bytes: report.peak_rss_bytes,
            allocations_per_event,
            core_round_trip_ns: report.core_round_trip_ns.map(|apart| apart.map(f64::round)),
            results: outcome.totals.results,
            checksum: format!("{:016x}", outcome.totals.checksum),
        }
    }

    /// The head of the table.
    pub fn head() -> String {
        format!(
            "{:<15} {:<7} {:>6} {:>12} {:>9} {:>12} {:>9} {:>13} {:>11}  {:<16}  {}",
            "workload",
            "engine",
            "shards",
            "events",
            "seconds",
            "M events/s",
            "peak MB",
            "allocs/1000",
            "results",
            "checksum",
            "cores apart ns"
        )
    }

    /// A line of the table.
    pub fn line(&self) -> String {
        let per_thousand = self
            .allocations_per_event
            .map(|per_event| per_event * 1000.0);
        format!(
            "{:<15} {:<7} {:>6} {:>12} {:>9.3} {:>12.2} {:>9.1} {:>13} {:>11}  {:<16}  {}",
            self.workload,
            self.engine,
            self.shards,
            self.events,
            self.seconds,
            self.events_per_second / 1e6,
            self.peak_rss_bytes as f64 / 1e6,
            per_thousand.map_or("-".to_owned(), |n| format!("{n:.4}")),
            self.results,
            self.checksum,
            self.core_round_trip_ns
                .map_or("-".to_owned(), |[before, after]| format!(
                    "{before:.0}, {after:.0}"
                )),
        )
    }
}

/// How the engine compares with the limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Which workload.
    pub workload: Workload,
    /// How many shards.
    pub shards: usize,
    /// How many pairs of runs.
    pub pairs: usize,
    /// Median over the pairs of the engine's events a second by the limit's.
    pub ratio_median: f64,
    /// The smallest.
    pub ratio_min: f64,
    /// The largest.
    pub ratio_max: f64,
}

impl Ratios {
    /// From the ratio of each pair.
    pub fn new(workload: Workload, shards: usize, mut ratios: Vec<f64>) -> Self {
        let ratio_median = median(&mut ratios);
        Ratios {
            workload,
            shards,
            pairs: ratios.len(),
            ratio_median,
            ratio_min: ratios.first().copied().unwrap_or(f64::NAN),
            ratio_max: ratios.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// The last line of the table.
    pub fn line(&self) -> String {
        format!(
            "{} on {} shard(s): {:.3} of the limit, median of {} pairs ({:.3} to {:.3})",
            self.workload,
            self.shards,
            self.ratio_median,
            self.pairs,
            self.ratio_min,
            self.ratio_max
        )
    }
}

/// The median, the mean of the middle two of an even number; sorts the values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// One latency run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyRun {
    /// Which workload.
    pub workload: LatencyWorkload,
    /// Which engine.
    pub engine: EngineName,
    /// How many shards.
    pub shards: usize,
    /// Events a second, over all shards.
    pub rate: u64,
    /// Length of the run.
    pub seconds: u64,
    /// The figures.
    #[serde(flatten)]
    pub figures: LatencyFigures,
    /// Where the distribution was written.
    pub hgrm: String,
}

impl LatencyRun {
    /// From what the run's process reported.
    pub fn new(
        engine: EngineName,
        workload: LatencyWorkload,
        config: &LatencyConfig,
        figures: LatencyFigures,
        hgrm: String,
    ) -> Self {
        LatencyRun {
            workload,
            engine,
            shards: config.shards,
            rate: config.rate,
            seconds: config.seconds,
            figures,
            hgrm,
        }
    }

    /// The head of the table: microseconds.
    pub fn head() -> String {
        format!(
            "{:<13} {:<7} {:>6} {:>10} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>10}",
            "workload",
            "engine",
            "shards",
            "rate/s",
            "p50 us",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "samples"
        )
    }

    /// The lines of the table for this run.
    pub fn lines(&self) -> String {
        let f = &self.figures;
        let quiet = match (f.quiet_p99_us, f.quiet_p999_us) {
            (Some(p99), Some(p999)) => format!("p99 {p99:.1}, p99.9 {p999:.1}"),
            _ => f.quiet.clone(),
        };
        format!(
            "{:<13} {:<7} {:>6} {:>10} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>10.1} {:>10.1} {:>10}\n  \
             medians of 1 s windows: p99 {:.1}, p99.9 {:.1}; of quiet ones: {quiet} ({} of {} windows kept)\n  \
             largest gap {:.1} us, {} above 200 us ({} of which the shard ran so long itself), stolen {} ms, last event {:.1} us late; {}",
            self.workload,
            self.engine,
            self.shards,
            self.rate,
            f.p50_us,
            f.p90_us,
            f.p99_us,
            f.p999_us,
            f.p9999_us,
            f.max_us,
            f.samples,
            f.window_p99_us,
            f.window_p999_us,
            f.windows_kept,
            f.windows,
            f.largest_gap_us,
            f.long_gaps,
            f.long_turns,
            f.stolen_ms,
            f.end_lag_us,
            self.hgrm,
        )
    }
}
