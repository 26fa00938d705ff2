//! The seam between the harness and what it measures.

use crate::alloc_count;
use crate::events::Totals;
use crate::latency::LatencyFigures;
use crate::limit::Limit;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What `throughput` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// 100,000 keys, tumbling windows of 10 s: count, sum and maximum.
    KeyedWindow,
    /// The same, 10 s every 1 s.
    SlidingWindow,
    /// 100,000 recurring keys in bursts, sessions with a gap of 200 ms: count, sum and maximum.
    SessionWindow,
    /// Views of 1000 advertisements, filtered, joined to 100 campaigns by a table, counted in 10 s windows.
    Ysb,
    /// A map, a filter and a map, without state.
    MapFilter,
    /// 100,000 keys: count and sum so far, told after every record. In Pelton a `fold`.
    RunningTotal,
    /// The same; in Pelton a process function with a value state.
    Process,
    /// Two streams, 100,000 keys: pairs of a key that lie within 10 s of each other, either side.
    IntervalJoin,
    /// 100,000 keys, one event of ten a new price: each other with the price at its time, in the order of event time.
    AsOfJoin,
    /// Events with the row of a table of 1000 that every shard has, one event of a hundred an update of it.
    BroadcastJoin,
    /// Ids that come twice on average within a second, remembered for 10 s, some 200,000 at a time: the first passes.
    Deduplicate,
    /// 100,000 keys: the 10 greatest of each as they change.
    #[value(name = "top-10")]
    #[serde(rename = "top-10")]
    Top10,
    /// 100,000 keys: three events in order, others between them, within 2 s.
    Pattern,
    /// NEXMark q3: persons of some states and what they sell of one category. In Pelton a process function on two streams.
    #[value(name = "nexmark-q3")]
    #[serde(rename = "nexmark-q3")]
    NexmarkQ3,
    /// NEXMark q5: the auction with the most bids of 10 s, every 2 s.
    #[value(name = "nexmark-q5")]
    #[serde(rename = "nexmark-q5")]
    NexmarkQ5,
    /// NEXMark q7: the highest bid of 10 s.
    #[value(name = "nexmark-q7")]
    #[serde(rename = "nexmark-q7")]
    NexmarkQ7,
    /// NEXMark q8: who came and sold something within 10 s: a window join.
    #[value(name = "nexmark-q8")]
    #[serde(rename = "nexmark-q8")]
    NexmarkQ8,
    /// NEXMark q18: the last bid of each bidder for each auction, a second after the first.
    #[value(name = "nexmark-q18")]
    #[serde(rename = "nexmark-q18")]
    NexmarkQ18,
    /// NEXMark q19: the ten highest bids of each auction as they change.
    #[value(name = "nexmark-q19")]
    #[serde(rename = "nexmark-q19")]
    NexmarkQ19,
    /// NEXMark q20: bids with their auction, if it is of one category. In Pelton an interval join, which finds them all.
    #[value(name = "nexmark-q20")]
    #[serde(rename = "nexmark-q20")]
    NexmarkQ20,
}

/// What `latency` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LatencyWorkload {
    /// A map, an exchange by key, a map: from an event's scheduled time to the sink.
    Passthrough,
    /// 100,000 keys, tumbling windows of 1 s: from the scheduled time of the first record at or after a window's end,
    /// which lets the watermark pass, to each of the window's results.
    KeyedWindow,
    /// The steps of `passthrough` into a sink of two phases, in memory: from an event's scheduled time to the commit that makes it
    /// visible. Takes checkpoints; has no hand-written limit.
    ExactlyOnce,
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// This workspace's engine.
    Pelton,
    /// The hand-written loop that does the same work.
    Limit,
}

/// Which form of the hand-written loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitVariant {
    /// A record at a time: the limit that ratios refer to.
    #[default]
    Plain,
    /// Batches of 64 whose table slots are touched before they are updated (`keyed-window` only).
    Prefetch,
}

macro_rules! name_as_value_enum {
    ($($type:ty),*) => { $(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let value = self.to_possible_value();
                f.pad(value.as_ref().map_or("", |value| value.get_name()))
            }
        }
    )* };
}
name_as_value_enum!(Workload, LatencyWorkload, EngineName, LimitVariant);

/// One throughput run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThroughputConfig {
    /// Shards, at least one.
    pub shards: usize,
    /// Events, over all shards.
    pub events: u64,
    /// Which limit; engines other than the limit take no notice.
    pub variant: LimitVariant,
}

/// What a throughput run came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// From the first event to the last result.
    pub seconds: f64,
    /// Results and their checksum.
    pub totals: Totals,
    /// Allocations by shard threads in the second half, for each of its events; only of a process that counts.
    pub allocations_per_event: Option<f64>,
}

impl Outcome {
    /// Adds the allocation count of this process, if it counts, to what was measured.
    pub fn new(config: &ThroughputConfig, elapsed: Duration, totals: Totals) -> Self {
        let second_half = (config.events - config.events / 2) as f64;
        let per_event = || alloc_count::total() as f64 / second_half;
        Outcome {
            seconds: elapsed.as_secs_f64(),
            totals,
            allocations_per_event: alloc_count::is_counting().then(per_event),
        }
    }
}

/// One latency run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyConfig {
    /// Shards, at least one.
    pub shards: usize,
    /// Events a second, over all shards.
    pub rate: u64,
    /// Length of the run; the first second (`passthrough`) or three windows (`keyed-window`) do not count.
    pub seconds: u64,
    /// Idle shards sleep instead of looking again; the limit takes no notice.
    pub park: bool,
    /// Milliseconds between checkpoints and where they go, if any are taken; the limit takes no notice.
    pub checkpoints: Option<(u64, PathBuf)>,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BenchError {
    /// The command makes no sense: exit code 2.
    Usage(String),
    /// A run went wrong: exit code 1.
    Failed(String),
}

impl BenchError {
    /// A [`BenchError::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        BenchError::Usage(message.into())
    }

    /// A [`BenchError::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        BenchError::Failed(message.into())
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            BenchError::Usage(_) => 2,
            BenchError::Failed(_) => 1,
        }
    }
}

impl std::fmt::Display for BenchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BenchError::Usage(message) | BenchError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for BenchError {}

/// Something that can run the workloads. Each call happens in a process of its own.
pub trait Engine {
    /// Runs a throughput workload to its end.
    fn throughput(
        &self,
        workload: Workload,
        config: &ThroughputConfig,
    ) -> Result<Outcome, BenchError>;

    /// Runs a latency workload, open loop.
    fn latency(
        &self,
        workload: LatencyWorkload,
        config: &LatencyConfig,
    ) -> Result<LatencyFigures, BenchError>;
}

/// The engine of this name, if it was built in.
pub fn engine(name: EngineName) -> Result<Box<dyn Engine>, BenchError> {
    match name {
        #[cfg(feature = "engine")]
        EngineName::Pelton => Ok(Box::new(crate::pelton_engine::Pelton)),
        #[cfg(not(feature = "engine"))]
        EngineName::Pelton => Err(BenchError::usage(
            "built without the feature `engine`: only --engine limit can run",
        )),
        EngineName::Limit => Ok(Box::new(Limit)),
    }
}
