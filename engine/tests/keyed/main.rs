//! Running values, event-time order, count and processing-time windows, early firing and side outputs, stepped by hand.
//! Random jobs are judged by models that keep everything and recompute.

mod append;
mod applied;
mod changes;
mod deduplicate;
mod early;
mod early_session;
mod early_sliding;
mod filter_map;
mod global;
mod order;
mod over;
mod pattern;
mod process;
mod processing_time;
mod rate_limit;
mod running;
mod side_output;
mod upserts;

use pelton::testing::{Sizes, Stepper};
use pelton::{EventTime, Job, JobError};
use proptest::prelude::*;

/// A record: key, event time in seconds, a number that tells it from all others.
pub(crate) type Record = (u8, i64, u64);

pub(crate) fn time(record: &Record) -> EventTime {
    EventTime::from_seconds(record.1)
}

/// Cases of a property: few, unless `PELTON_CASES` asks for more.
pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES")
        .ok()
        .and_then(|c| c.parse().ok())
        .unwrap_or(64);
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Partitions of records with few keys and much disorder; numbered in reading order, partition by partition.
pub(crate) fn partitions() -> impl Strategy<Value = Vec<Vec<Record>>> {
    let record = (0u8..5, 0i64..60);
    prop::collection::vec(prop::collection::vec(record, 0..150), 1..4).prop_map(|partitions| {
        let mut number = 0;
        let mut numbered = |(key, seconds)| {
            number += 1;
            (key, seconds, number)
        };
        partitions
            .into_iter()
            .map(|p| p.into_iter().map(&mut numbered).collect())
            .collect()
    })
}

/// How a job is run: shards, batch size, and a seed for the order of steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) shards: usize,
    pub(crate) batch_size: usize,
    pub(crate) seed: u64,
}

pub(crate) fn runs() -> impl Strategy<Value = Run> {
    (1usize..4, prop_oneof![1usize..20, Just(150)], any::<u64>()).prop_map(
        |(shards, batch_size, seed)| Run {
            shards,
            batch_size,
            seed,
        },
    )
}

/// The same on up to eight shards.
pub(crate) fn wide_runs() -> impl Strategy<Value = Run> {
    (runs(), prop_oneof![Just(1usize), Just(2), Just(3), Just(8)])
        .prop_map(|(run, shards)| Run { shards, ..run })
}

/// Runs a job to its end, steps in a random order.
pub(crate) fn run(job: &Job, run: Run) -> Result<pelton::push::Counters, JobError> {
    let sizes = Sizes {
        batch_size: run.batch_size,
        ring_capacity: 2,
        ..Sizes::shards(run.shards)
    };
    let mut stepper = Stepper::with(job, sizes)?;
    let mut state = run.seed | 1;
    stepper.run_with(|n| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    })?;
    Ok(stepper.counters())
}

/// Runs a job to its end, steps in a random order and the clock in random leaps between them: early firing comes in
/// the midst of everything.
pub(crate) fn run_clocked(job: &Job, run: Run) -> Result<pelton::push::Counters, JobError> {
    let sizes = Sizes {
        batch_size: run.batch_size,
        ring_capacity: 2,
        ..Sizes::shards(run.shards)
    };
    let mut stepper = Stepper::with(job, sizes)?;
    let mut state = run.seed | 1;
    let mut draw = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % n
    };
    while !stepper.all_done() {
        if draw(4) == 0 {
            stepper.advance_clock(pelton::Span::from_micros(draw(5) as i64));
        }
        let tasklet = draw(stepper.tasklets() as u64);
        stepper.step(tasklet as usize)?;
    }
    Ok(stepper.counters())
}

/// Collects the records' numbers in the order in which they were added.
#[derive(Clone, Debug)]
pub(crate) struct Numbers;

impl pelton::aggregate::Aggregate<Record> for Numbers {
    type Acc = Vec<u64>;
    type Out = Vec<u64>;
    fn create(&self) -> Vec<u64> {
        vec![]
    }
    fn add(&self, acc: &mut Vec<u64>, record: &Record, _: pelton::aggregate::At) {
        acc.push(record.2);
    }
    fn merge(&self, acc: &mut Vec<u64>, other: &Vec<u64>) {
        acc.extend(other);
    }
    fn finish(&self, acc: &Vec<u64>) -> Vec<u64> {
        acc.clone()
    }
}
