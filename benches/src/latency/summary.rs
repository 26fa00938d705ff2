//! From what the shards saw to the figures of a run.

use super::gaps::{GapMeter, QUIET_GAP_NS, WindowGaps};
use super::recorder::LatencyRecorder;
use crate::engine::BenchError;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Length of the windows into which a run is cut.
pub(super) const WINDOW_NS: u64 = 1_000_000_000;

/// With fewer kept windows than this, the filtered figures are not given.
pub const FEWEST_WINDOWS: usize = 20;

/// An empty histogram: a nanosecond to a minute, three significant digits (so finer than 1 us up to 1 ms).
pub fn new_histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are in order"))
}

/// What is recorded and what counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Length of the run.
    pub seconds: u64,
    /// Windows at its beginning that are recorded but do not count.
    pub warm_up: u64,
    /// Whether a gap above [`QUIET_GAP_NS`] disqualifies a window. A firing window of 100,000 keys is a gap of
    /// milliseconds by its nature, so there only stolen time does.
    pub gaps_disqualify: bool,
}

impl Plan {
    pub(super) fn windows(&self) -> usize {
        self.seconds as usize
    }
}

/// Where the recorders and gap meters of a run add up.
#[derive(Clone)]
pub struct Collector {
    shared: Arc<Shared>,
}

struct Shared {
    plan: Plan,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Recorders and meters that have not been dropped.
    outstanding: usize,
    windows: Vec<Histogram<u32>>,
    gaps: Vec<WindowGaps>,
    /// The newest event: when it was due, and its latency.
    last: (u64, u64),
}

impl Collector {
    /// Nothing seen yet.
    pub fn new(plan: Plan) -> Self {
        let seen = Seen {
            outstanding: 0,
            windows: (0..plan.windows()).map(|_| new_histogram()).collect(),
            gaps: vec![WindowGaps::default(); plan.windows()],
            last: (0, 0),
        };
        Collector {
            shared: Arc::new(Shared {
                plan,
                seen: Mutex::new(seen),
            }),
        }
    }

    /// What is recorded and what counts.
    pub fn plan(&self) -> Plan {
        self.shared.plan
    }

    /// A recorder for one shard; clone it for others.
    pub fn recorder(&self) -> LatencyRecorder {
        self.seen().outstanding += 1;
        LatencyRecorder::new(self.clone())
    }

    /// A gap meter for one shard; clone it for others.
    pub fn gap_meter(&self) -> GapMeter {
        self.seen().outstanding += 1;
        GapMeter::new(self.clone())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_latencies(&self, windows: &[Histogram<u32>], last: (u64, u64)) {
        let mut seen = self.seen();
        for (all, own) in seen.windows.iter_mut().zip(windows) {
            if !own.is_empty() {
                // Equal bounds: this cannot fail.
                let _ = all.add(own);
            }
        }
        seen.last = seen.last.max(last);
    }

    pub(super) fn add_gaps(&self, windows: &[WindowGaps]) {
        for (all, own) in self.seen().gaps.iter_mut().zip(windows) {
            all.largest_ns = all.largest_ns.max(own.largest_ns);
            all.long_gaps += own.long_gaps;
            all.long_turns += own.long_turns;
            all.stolen_ticks += own.stolen_ticks;
        }
    }

    pub(super) fn gone(&self) {
        self.seen().outstanding -= 1;
    }

    /// The figures, once every recorder and meter has been dropped; the second is the histogram of all that counts.
    pub fn finish(self) -> Result<LatencyFigures, BenchError> {
        let seen = self.seen();
        if seen.outstanding > 0 {
            let message = format!("{} recorders of the run were not dropped", seen.outstanding);
            return Err(BenchError::failed(message));
        }
        let first = (self.plan().warm_up as usize).min(seen.windows.len());
        let counted = || seen.windows[first..].iter().zip(&seen.gaps[first..]);
        let counted = || counted().filter(|(histogram, _)| !histogram.is_empty());
        // Its counters are wider than the windows', so that it cannot overflow.
        let mut total = Histogram::<u64>::new_from(&seen.windows[0]);
        for step in counted().flat_map(|(histogram, _)| histogram.iter_recorded()) {
            total.saturating_record_n(step.value_iterated_to(), step.count_at_value().into());
        }
        if total.is_empty() {
            return Err(BenchError::failed("nothing arrived after the warm-up"));
        }
        let is_quiet = |gaps: &WindowGaps| {
            gaps.stolen_ticks == 0
                && !(self.plan().gaps_disqualify && gaps.largest_ns > QUIET_GAP_NS)
        };
        let quiet = || {
            counted()
                .filter(|(_, gaps)| is_quiet(gaps))
                .map(|(histogram, _)| histogram)
        };
        let all = || counted().map(|(histogram, _)| histogram);
        let (windows, kept) = (all().count(), quiet().count());
        let enough = kept >= FEWEST_WINDOWS;
        let quiet_median = |q| enough.then(|| median_us(quiet(), q));
        Ok(LatencyFigures {
            samples: total.len(),
            p50_us: quantile_us(&total, 0.5),
            p90_us: quantile_us(&total, 0.9),
            p99_us: quantile_us(&total, 0.99),
            p999_us: quantile_us(&total, 0.999),
            p9999_us: quantile_us(&total, 0.9999),
            max_us: to_us(total.max()),
            window_p99_us: median_us(all(), 0.99),
            window_p999_us: median_us(all(), 0.999),
            quiet_p99_us: quiet_median(0.99),
            quiet_p999_us: quiet_median(0.999),
            windows,
            windows_kept: kept,
            windows_kept_share: kept as f64 / windows as f64,
            quiet: if enough {
                "measured"
            } else {
                "not measurable here"
            }
            .to_owned(),
            largest_gap_us: to_us(
                counted()
                    .map(|(_, gaps)| gaps.largest_ns)
                    .max()
                    .unwrap_or(0),
            ),
            long_gaps: counted().map(|(_, gaps)| gaps.long_gaps).sum(),
            long_turns: counted().map(|(_, gaps)| gaps.long_turns).sum(),
            stolen_ms: counted().map(|(_, gaps)| gaps.stolen_ticks).sum::<u64>() * 10,
            end_lag_us: to_us(seen.last.1),
            histogram: total.into(),
        })
    }
}

fn to_us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn quantile_us<C: hdrhistogram::Counter>(histogram: &Histogram<C>, q: f64) -> f64 {
    to_us(histogram.value_at_quantile(q))
}

/// The median over windows of a quantile of each.
fn median_us<'a>(windows: impl Iterator<Item = &'a Histogram<u32>>, q: f64) -> f64 {
    let mut values: Vec<f64> = windows.map(|histogram| quantile_us(histogram, q)).collect();
    crate::report::median(&mut values)
}

/// The figures of one latency run, in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyFigures {
    /// Events or results that count.
    pub samples: u64,
    /// Median.
    pub p50_us: f64,
    /// 90 of a hundred.
    pub p90_us: f64,
    /// 99 of a hundred.
    pub p99_us: f64,
    /// 99.9 of a hundred.
    pub p999_us: f64,
    /// 99.99 of a hundred.
    pub p9999_us: f64,
    /// Largest.
    pub max_us: f64,
    /// Median over all windows of their p99.
    pub window_p99_us: f64,
    /// Median over all windows of their p99.9.
    pub window_p999_us: f64,
    /// Median over the kept windows of their p99, if enough were kept.
    pub quiet_p99_us: Option<f64>,
    /// Median over the kept windows of their p99.9, if enough were kept.
    pub quiet_p999_us: Option<f64>,
    /// Windows that count.
    pub windows: usize,
    /// Windows without a gap or stolen time.
    pub windows_kept: usize,
    /// The same as a share.
    pub windows_kept_share: f64,
    /// `measured`, or `not measurable here`.
    pub quiet: String,
    /// Largest gap between two turns of a loop.
    pub largest_gap_us: f64,
    /// Gaps above 200 us.
    pub long_gaps: u64,
    /// Of these, those in which the thread itself ran for longer than that.
    pub long_turns: u64,
    /// Time that the hypervisor stole from the shards' cores.
    pub stolen_ms: u64,
    /// Latency of the last event: far above the rest, the engine did not hold the rate.
    pub end_lag_us: f64,
    /// All that counts, for [`write_hgrm`]; not part of the JSON.
    #[serde(skip)]
    pub histogram: Distribution,
}

/// The whole distribution behind the figures.
#[derive(Clone, Debug, Default)]
pub struct Distribution(Option<Histogram<u64>>);

impl From<Histogram<u64>> for Distribution {
    fn from(histogram: Histogram<u64>) -> Self {
        Distribution(Some(histogram))
    }
}

/// Writes the distribution in the text form that HdrHistogram's plotters read, values in microseconds.
pub fn write_hgrm(path: &Path, distribution: &Distribution) -> io::Result<()> {
    let Some(histogram) = &distribution.0 else {
        return Ok(());
    };
    let mut out = io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut seen = 0;
    for step in histogram.iter_quantiles(5) {
        seen += step.count_since_last_iteration();
        let (value, quantile) = (to_us(step.value_iterated_to()), step.quantile_iterated_to());
        write!(out, "{value:12.3} {quantile:2.12} {seen:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let (mean, deviation) = (histogram.mean() / 1000.0, histogram.stdev() / 1000.0);
    writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    )?;
    let (max, count) = (to_us(histogram.max()), histogram.len());
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {count:12}]")?;
    writeln!(
        out,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        2048
    )?;
    out.flush()
}
