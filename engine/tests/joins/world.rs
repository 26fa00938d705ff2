//! Two streams of (key, number, time) through a job, whatever becomes of it.

use crate::support::Transactions;
use pelton::testing::{self, Feed, FeedSource, OnDisk, Sizes, Stepper};
use pelton::testing::{FaultyDisk, MemoryDisk, SharedDisk};
use pelton::{Checkpointing, EventTime, Job, Span, Spans};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;

/// A record: (key, its number in the script, seconds of event time).
pub type Ev = (u8, u32, i64);

/// How far records may come out of order, seconds: watermarks trail by that much, so that none is late.
pub const BOUND: i64 = 10;

/// Cases of a property: few, unless `PELTON_CASES` asks for more.
pub fn cases() -> Config {
    let cases = std::env::var("PELTON_CASES");
    let cases = cases.ok().and_then(|c| c.parse().ok()).unwrap_or(64);
    Config::with_cases(cases)
}

/// Checks a property whose cases say how often they died, and that some did.
pub fn all_die<S: Strategy>(of: S, check: impl Fn(&S::Value) -> Result<u32, TestCaseError>) {
    let deaths = Cell::new(0);
    let mut runner = TestRunner::new(cases());
    let checked = runner.run(&of, |case| {
        deaths.set(deaths.get() + check(&case)?);
        Ok(())
    });
    if let Err(e) = checked {
        panic!("{e}");
    }
    assert!(deaths.get() > 0, "none died");
}

/// What comes, and on what it runs.
#[derive(Clone, Debug)]
pub struct Script {
    /// Of each side, its partitions.
    pub sides: [Vec<Vec<Ev>>; 2],
    pub shards: usize,
    batch_size: usize,
    ring_capacity: usize,
    seed: u64,
}

impl Script {
    /// The records of a side.
    pub fn of(&self, side: usize) -> Vec<Ev> {
        self.sides[side].concat()
    }

    fn sizes(&self, shards: usize) -> Sizes {
        Sizes {
            batch_size: self.batch_size,
            ring_capacity: self.ring_capacity,
            ..Sizes::shards(shards)
        }
    }
}

/// One partition: time goes on by jumps, records stray from it by less than the bound.
fn partition(base: u32) -> impl Strategy<Value = Vec<Ev>> {
    let step = (0u8..4, 0i64..6, 0i64..BOUND);
    prop::collection::vec(step, 0..40).prop_map(move |steps| {
        let mut now = 100;
        let event = |(n, (key, on, back))| {
            now += on;
            (key, base + n as u32, now - back)
        };
        steps.into_iter().enumerate().map(event).collect()
    })
}

pub fn script() -> impl Strategy<Value = Script> {
    let side = |base: u32| {
        let partitions = [base, base + 1_000].map(partition);
        (partitions, 1usize..3).prop_map(|(all, n)| all.into_iter().take(n).collect::<Vec<_>>())
    };
    let sizes = (
        prop::sample::select(vec![1, 2, 3, 8]),
        prop::sample::select(vec![1, 2, 7, 64]),
        prop::sample::select(vec![2, 4, 16]),
    );
    (side(0), side(10_000), sizes, any::<u64>()).prop_map(|(left, right, sizes, seed)| Script {
        sides: [left, right],
        shards: sizes.0,
        batch_size: sizes.1,
        ring_capacity: sizes.2,
        seed,
    })
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

pub fn at(event: &Ev) -> EventTime {
    EventTime::from_seconds(event.2)
}

pub fn bound() -> Span {
    BOUND.seconds()
}

fn feeds(script: &Script) -> [Feed<Ev>; 2] {
    [0, 1].map(|side| {
        let partitions = &script.sides[side];
        let (feed, _) = testing::feed(partitions.len());
        for (number, events) in partitions.iter().enumerate() {
            events.iter().for_each(|&e| feed.push(number, e));
            feed.close(number);
        }
        feed
    })
}

/// Runs the job to its end in a random order of steps: what came out, sorted.
pub fn undisturbed<R: Clone + Ord + Send + 'static>(
    script: &Script,
    write: impl Fn(&Job, FeedSource<Ev>, FeedSource<Ev>, testing::Collector<R>),
) -> Vec<R> {
    let mut dice = Dice(script.seed);
    let feeds = feeds(script);
    let (results, sink) = testing::collect();
    let job = Job::new("join");
    write(&job, feeds[0].source(), feeds[1].source(), sink);
    let mut stepper = Stepper::with(&job, script.sizes(script.shards)).unwrap();
    stepper.run_with(|n| dice.below(n)).unwrap();
    let mut rows = results.take();
    rows.sort();
    rows
}

/// The same, but that it dies now and then, and goes on from its last checkpoint on another number of shards: what was committed.
pub fn dying<R: Clone + Ord + Send + 'static>(
    script: &Script,
    write: impl Fn(&Job, FeedSource<Ev>, FeedSource<Ev>, Transactions<R>),
) -> (Vec<R>, u32) {
    let mut dice = Dice(script.seed ^ 0x5eed);
    let feeds = feeds(script);
    let mut disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let ledger = Transactions::new();
    let mut deaths = 0;
    loop {
        let job = Job::new("join");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        write(&job, feeds[0].source(), feeds[1].source(), ledger.clone());
        let shards = [1, 2, 3, 8][dice.below(4)];
        let small = OnDisk::small(&disk);
        let on = OnDisk {
            sweep_bytes: 1 << 10,
            sweep_least: 3,
            ..small
        };
        let mut stepper = Stepper::on_disk(&job, script.sizes(shards), &on).unwrap();
        let last = deaths == 4;
        let most = 1 << (6 + dice.below(7));
        let mut left = match last {
            true => usize::MAX,
            false => dice.below(most),
        };
        while !stepper.all_done() && left > 0 {
            left -= 1;
            let actor = dice.below(stepper.actors());
            stepper.step(actor).unwrap();
            if dice.below(16) == 0 {
                stepper.advance_clock(1.millis());
            }
        }
        if stepper.all_done() {
            return (ledger.visible(), deaths);
        }
        deaths += 1;
        drop(stepper);
        let kept = disk.crash(|_| dice.below(2) == 0);
        disk = SharedDisk::new(FaultyDisk::new(kept));
    }
}
