//! The hand-written loops: what this machine can do at these workloads with no engine at all.

pub mod campaigns;
pub mod jobs;
pub mod latency;
pub mod nexmark;
pub mod operators;
pub mod run;
pub mod running;
pub mod sessions;
pub mod sliding;
pub mod sliding_counts;
pub mod tumbling;

use crate::cores;
use crate::engine::{
    BenchError, Engine, LatencyConfig, LatencyWorkload, LimitVariant, Outcome, ThroughputConfig,
    Workload,
};
use crate::latency::LatencyFigures;
use jobs::{
    KeyedWindow, KeyedWindowPrefetch, MapFilter, RunningTotals, SessionWindow, SlidingWindow, Ysb,
};

use nexmark::{Q3, Q5, Q7, Q8, Q18, Q19, Q20};
use operators::{AsOf, Broadcast, Deduplicate, Interval, Rises, Top};

/// The hand-written loops. Their threads spin, so they take at most as many shards as there are cores.
pub struct Limit;

impl Engine for Limit {
    fn throughput(
        &self,
        workload: Workload,
        config: &ThroughputConfig,
    ) -> Result<Outcome, BenchError> {
        check(workload, config.shards, config.variant)?;
        match (workload, config.variant) {
            (Workload::KeyedWindow, LimitVariant::Plain) => run::run(config, KeyedWindow::default),
            (Workload::KeyedWindow, LimitVariant::Prefetch) => {
                run::run(config, KeyedWindowPrefetch::default)
            }
            (Workload::SlidingWindow, _) => run::run(config, SlidingWindow::default),
            (Workload::SessionWindow, _) => run::run(config, SessionWindow::default),
            (Workload::Ysb, _) => run::run(config, Ysb::default),
            (Workload::MapFilter, _) => run::run(config, MapFilter::default),
            (Workload::RunningTotal | Workload::Process, _) => {
                run::run(config, RunningTotals::default)
            }
            (Workload::IntervalJoin, _) => run::run(config, Interval::default),
            (Workload::AsOfJoin, _) => run::run(config, AsOf::default),
            (Workload::BroadcastJoin, _) => run::run(config, Broadcast::default),
            (Workload::Deduplicate, _) => run::run(config, Deduplicate::default),
            (Workload::Top10, _) => run::run(config, Top::default),
            (Workload::Pattern, _) => run::run(config, Rises::default),
            (Workload::NexmarkQ3, _) => run::run(config, Q3::default),
            (Workload::NexmarkQ5, _) => run::run(config, Q5::of(config.shards, config.events)),
            (Workload::NexmarkQ7, _) => run::run(config, Q7::of(config.shards, config.events)),
            (Workload::NexmarkQ8, _) => run::run(config, Q8::default),
            (Workload::NexmarkQ18, _) => run::run(config, Q18::default),
            (Workload::NexmarkQ19, _) => run::run(config, Q19::default),
            (Workload::NexmarkQ20, _) => run::run(config, Q20::default),
        }
    }

    fn latency(
        &self,
        workload: LatencyWorkload,
        config: &LatencyConfig,
    ) -> Result<LatencyFigures, BenchError> {
        latency::check(config)?;
        latency::run(workload, config)
    }
}

/// Refuses what the limit cannot run: more shards than cores, or a variant that the workload lacks.
pub fn check(workload: Workload, shards: usize, variant: LimitVariant) -> Result<(), BenchError> {
    check_shards(shards)?;
    if variant == LimitVariant::Prefetch && workload != Workload::KeyedWindow {
        let message =
            format!("the limit of {workload} has no prefetching variant; keyed-window has one");
        return Err(BenchError::usage(message));
    }
    Ok(())
}

fn check_shards(shards: usize) -> Result<(), BenchError> {
    let cores = cores::available();
    if shards > cores {
        return Err(BenchError::usage(format!(
            "the limit's shards spin, one a core: {shards} asked for, {cores} available"
        )));
    }
    Ok(())
}
