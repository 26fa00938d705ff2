//! `flat-memory`: a day of event time goes through an operator at full speed, and memory must not grow.
//!
//! Keys come, stay for some 23 minutes of a run of 20 million and do not come again, and everything is kept for ten minutes: what is not cleaned up shows many times
//! over in a day. The resident memory of the process and the states' sizes are looked at all the time; a sample is the most that was
//! seen in its part of the day. It fails where the resident memory of the last third of the
//! samples is on average above that of the first by more than 10%, or what the states weigh by half.

use crate::child::{self, Task};
use crate::engine::BenchError;
use crate::events::{key_among, mix, small_value};
use crate::operator_events::Tick;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::hint::black_box;

/// A day in microseconds.
const DAY: u64 = 86_400_000_000;

/// For how long things are kept, in milliseconds of event time: either side of an interval join, a window's length, the horizon of a
/// deduplication, `within` of a pattern.
pub const KEPT_MS: u64 = 600_000;

/// By how much resident memory of the last third may be above that of the first.
const MAY_GROW: f64 = 1.1;

/// The same of the states. What waits for a watermark is among them, and depends on how far apart the system's other work has brought the
/// shards; what is not cleaned up would be five times as much.
const STATES_MAY_GROW: f64 = 1.5;

/// What the day goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlatOperator {
    /// Pairs of a key that lie within ten minutes, either side.
    IntervalJoin,
    /// Pairs of a key in tumbling windows of ten minutes.
    WindowJoin,
    /// Keys remembered for ten minutes.
    Deduplicate,
    /// Three events in order within ten minutes.
    Pattern,
}

impl std::fmt::Display for FlatOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlatConfig {
    /// What the day goes through.
    pub operator: FlatOperator,
    /// Shards, at least one.
    pub shards: usize,
    /// Events of the day, over all shards.
    pub events: u64,
    /// Parts of the day.
    pub samples: usize,
}

/// The most that was seen in a part of the day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Where the part ends.
    pub hours: f64,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Entries of all states.
    pub state_entries: u64,
    /// Their bytes.
    pub state_bytes: u64,
}

/// A state when it was largest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateSeen {
    /// Of which operator.
    pub operator: String,
    /// Its name.
    pub state: String,
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of one.
    pub bytes_per_entry: f64,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlatRun {
    /// What the day went through.
    pub operator: FlatOperator,
    /// How many shards.
    pub shards: usize,
    /// How many events.
    pub events: u64,
    /// Results emitted.
    pub results: u64,
    /// From the first event to the last result.
    pub seconds: f64,
    /// By part of the day.
    pub samples: Vec<Sample>,
    /// Resident memory: the mean of the last third by that of the first.
    pub resident_growth: f64,
    /// The same of the states' bytes.
    pub state_growth: f64,
    /// Bytes of a record, as it comes.
    pub record_bytes: u64,
    /// The states.
    pub states: Vec<StateSeen>,
}

/// What a run's process reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlatReport {
    /// Results emitted.
    pub results: u64,
    /// From the first event to the last result.
    pub seconds: f64,
    /// By part of the day; a part in which nobody looked is left out.
    pub samples: Vec<Sample>,
    /// The states.
    pub states: Vec<StateSeen>,
}

/// The event of this id of so many in the day. Keys move on: each has some sixteen events, among those of 20,000 others.
#[inline(always)]
pub fn event(id: u64, events: u64) -> Tick {
    let r = mix(id);
    Tick {
        at: black_box((u128::from(id) * u128::from(DAY) / u128::from(events)) as u64),
        key: black_box(id / 16 + key_among(r, 20_000)),
        value: black_box(small_value(r)),
    }
}

/// Where a part of the day ends, in hours.
pub fn hours(part: usize, parts: usize) -> f64 {
    24.0 * (part + 1) as f64 / parts as f64
}

/// One run, in a process of its own.
pub fn run(config: &FlatConfig) -> Result<FlatRun, BenchError> {
    let report: FlatReport = child::run_apart(&Task::FlatMemory(config.clone()))?;
    if report.samples.len() < 3 {
        return Err(BenchError::failed(
            "the day was over before it had been looked at three times: give more --events",
        ));
    }
    let growth = |of: fn(&Sample) -> u64| {
        let third = report.samples.len() / 3;
        let mean = |samples: &[Sample]| samples.iter().map(of).sum::<u64>() as f64 / third as f64;
        mean(&report.samples[report.samples.len() - third..]) / mean(&report.samples[..third])
    };
    Ok(FlatRun {
        operator: config.operator,
        shards: config.shards,
        events: config.events,
        results: report.results,
        seconds: report.seconds,
        resident_growth: growth(|sample| sample.resident_bytes),
        state_growth: growth(|sample| sample.state_bytes),
        record_bytes: size_of::<Tick>() as u64,
        samples: report.samples,
        states: report.states,
    })
}

impl FlatRun {
    /// Whether memory stayed flat.
    pub fn check(&self) -> Result<(), BenchError> {
        for (what, growth, most) in [
            ("resident memory", self.resident_growth, MAY_GROW),
            ("states", self.state_growth, STATES_MAY_GROW),
        ] {
            if growth > most {
                return Err(BenchError::failed(format!(
                    "{} on {} shard(s): {what} of the last third of the day is {growth:.3} of the first third's",
                    self.operator, self.shards
                )));
            }
        }
        Ok(())
    }

    /// The lines of the table for this run.
    pub fn lines(&self) -> String {
        let mut lines = format!(
            "{} on {} shard(s): {} events in {:.1} s, {} results; last third by first third: resident {:.3}, states {:.3}\n  {:>6} {:>12} {:>12} {:>10}",
            self.operator,
            self.shards,
            self.events,
            self.seconds,
            self.results,
            self.resident_growth,
            self.state_growth,
            "hours",
            "resident MB",
            "entries",
            "state MB"
        );
        for sample in &self.samples {
            lines += &format!(
                "\n  {:>6.1} {:>12.1} {:>12} {:>10.1}",
                sample.hours,
                sample.resident_bytes as f64 / 1e6,
                sample.state_entries,
                sample.state_bytes as f64 / 1e6
            );
        }
        for state in &self.states {
            lines += &format!(
                "\n  {} {}: {:.1} bytes an entry (records are of {}), {} entries at most",
                state.operator,
                state.state,
                state.bytes_per_entry,
                self.record_bytes,
                state.entries
            );
        }
        lines
    }
}
