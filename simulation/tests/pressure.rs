//! A blocked sink: sources stop within a bound, nothing is lost, and all goes on when it opens again.

use pelton::testing::{Sizes, Stepper, collect};
use pelton::{EventTime, Job, Span, Tumbling, Watermarks, sources};
use pelton_simulation::cases::numbers;
use pelton_simulation::random::Random;
use pelton_simulation::schedule::Schedule;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Records that may have been read while the sink takes nothing, in a job of `edges` exchanges behind its sources.
///
/// A lane holds its ring's frames (a power of two), one batch being filled and one being emptied. A step is not
/// interrupted when a lane turns out to be full, so each stage may hold one more step's work: a source a read (a batch
/// for each shard, of at most eight), another stage a batch. The blocked sink itself takes one step's work as well.
fn bound(sizes: Sizes, edges: usize) -> u64 {
    let ring = sizes.ring_capacity.next_power_of_two().max(2);
    let lanes = sizes.shards * sizes.shards;
    let batch = sizes.batch_size;
    let read = batch * sizes.shards.min(8);
    let lane = (ring + 2) * batch;
    let stages = edges * sizes.shards * batch;
    (edges * lanes * lane + sizes.shards * read + stages) as u64
}

fn sizes(r: &mut Random) -> Sizes {
    let shards = r.pick(&[1, 2, 3, 8]);
    Sizes {
        shards,
        batch_size: (r.between(1, 300) as usize / (shards * shards)).max(1),
        ring_capacity: r.between(2, 16) as usize,
        key_groups: 256,
    }
}

/// Steps until no tasklet could move for several rounds.
fn stuck(stepper: &mut Stepper, schedule: &mut Schedule) {
    for _ in 0..60 * stepper.tasklets() {
        let tasklet = schedule.next(stepper.tasklets());
        stepper.step(tasklet).unwrap();
    }
    stepper.until_idle().unwrap();
}

#[test]
fn a_blocked_sink_stops_its_sources_within_a_bound() {
    for seed in numbers(12) {
        let r = &mut Random::new(seed);
        let sizes = sizes(r);
        let count = 2 * bound(sizes, 2) + 1_000;
        let read = Arc::new(AtomicU64::new(0));
        let counter = read.clone();
        let (results, sink) = collect();
        let switch = sink.switch();
        let job = Job::new("blocked");
        job.source(sources::generate(
            "ids",
            count,
            r.between(1, 5) as usize,
            |id| id,
        ))
        .inspect(move |_| {
            counter.fetch_add(1, Relaxed);
        })
        .rebalance()
        .map(|id| id + 1)
        .key_by(|id| *id)
        .exchange()
        .map(|id| id - 1)
        .sink(sink);
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        let mut schedule = Schedule::new(r.bits());
        let mut taken = vec![];
        // Blocked from the start, then opened for a moment in the middle of it.
        for _ in 0..2 {
            switch.store(true, Relaxed);
            stuck(&mut stepper, &mut schedule);
            taken.extend(results.take());
            let held = read.load(Relaxed) - taken.len() as u64;
            assert!(
                held <= bound(sizes, 2),
                "seed {seed}: {held} records are held by {sizes:?}"
            );
            assert!(read.load(Relaxed) < count, "seed {seed}: all was read");
            assert!(!stepper.all_done());
            switch.store(false, Relaxed);
            for _ in 0..20 {
                let tasklet = schedule.next(stepper.tasklets());
                stepper.step(tasklet).unwrap();
            }
        }
        stepper.run().unwrap();
        taken.extend(results.take());
        taken.sort_unstable();
        assert!(
            taken.iter().copied().eq(0..count),
            "seed {seed}: records are lost"
        );
    }
}

/// The same behind a window: what it holds is state; what waits for the sink is bounded all the same.
#[test]
fn a_blocked_sink_behind_a_window_loses_nothing() {
    for seed in numbers(12) {
        let r = &mut Random::new(seed);
        let sizes = sizes(r);
        let keys = r.pick(&[1, 10, 3_000]);
        let count = 20_000;
        let read = Arc::new(AtomicU64::new(0));
        let counter = read.clone();
        let (results, sink) = collect();
        let switch = sink.switch();
        let job = Job::new("blocked");
        job.source(sources::generate(
            "ids",
            count,
            r.between(1, 3) as usize,
            |id| id,
        ))
        .inspect(move |_| {
            counter.fetch_add(1, Relaxed);
        })
        .event_time(
            |id| EventTime::from_micros(*id as i64),
            Watermarks::monotonous(),
        )
        .key_by(move |id| id % keys)
        .window(Tumbling::of(Span::from_micros(20)))
        .aggregate(|a| a.count())
        .map(|w| w.value)
        .rebalance()
        .sink(sink);
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        let mut schedule = Schedule::new(r.bits());
        switch.store(true, Relaxed);
        stuck(&mut stepper, &mut schedule);
        let held = read.load(Relaxed);
        if 30 * bound(sizes, 2) < count {
            // One window's records at most are state, and a result stands for at least one record, for at most 20.
            assert!(
                held <= 21 * bound(sizes, 2) + 20,
                "seed {seed}: {held} held by {sizes:?}"
            );
        }
        switch.store(false, Relaxed);
        stepper.run().unwrap();
        let counted: u64 = results.take().iter().sum();
        assert_eq!(counted, count, "seed {seed}");
    }
}

/// A blocked late output holds its stage, too.
#[test]
fn a_blocked_late_output_loses_nothing() {
    for seed in numbers(12) {
        let r = &mut Random::new(seed);
        let sizes = sizes(r);
        let (late, late_to) = collect();
        let (results, sink) = collect();
        let switch = late_to.switch();
        let read = Arc::new(AtomicU64::new(0));
        let counter = read.clone();
        // The way to the output holds every second record read.
        let ring = sizes.ring_capacity.next_power_of_two();
        let aside = 2 * sizes.shards * (ring + 3) * sizes.batch_size;
        let held = bound(sizes, 1) + aside as u64;
        let count = 4 * held + 1_000;
        let job = Job::new("blocked");
        job.source(sources::generate("ids", count, 1, |id| id))
            .inspect(move |_| {
                counter.fetch_add(1, Relaxed);
            })
            // Every odd record is a window late.
            .event_time(
                |id| EventTime::from_micros(*id as i64 - (*id % 2) as i64 * 50),
                Watermarks::monotonous(),
            )
            .key_by(|id| id % 7)
            .window(Tumbling::of(Span::from_micros(10)))
            .late_to(late_to)
            .aggregate(|a| a.count())
            .sink(sink);
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        let mut schedule = Schedule::new(r.bits());
        switch.store(true, Relaxed);
        stuck(&mut stepper, &mut schedule);
        assert!(read.load(Relaxed) <= held, "seed {seed}: {sizes:?}");
        switch.store(false, Relaxed);
        stepper.run().unwrap();
        let counted: u64 = results.take().iter().map(|w| w.value).sum();
        assert_eq!(counted + late.take().len() as u64, count, "seed {seed}");
    }
}

/// A stage takes a batch in parts when what it hands on is blocked: the marks of the rest stay with their records.
#[test]
fn marks_stay_with_their_records_when_a_batch_is_taken_in_parts() {
    let count = 40_000;
    // Two of three are monotonous; every third is 50 behind, with windows of 10: late.
    let time = |id: &u64| EventTime::from_micros(*id as i64 - 50 * i64::from(id % 3 == 1));
    let (late, late_to) = collect();
    let (results, sink) = collect();
    let job = Job::new("parts");
    let none = job
        .source(sources::items(std::iter::empty()))
        .event_time(time, Watermarks::monotonous());
    job.source(sources::generate("ids", count, 1, |id| id))
        .event_time(time, Watermarks::monotonous())
        .union(none)
        .key_by(|id| id % 97)
        .window(Tumbling::of(Span::from_micros(10)))
        .late_to(late_to)
        .aggregate(|a| a.count())
        .sink(sink);
    let sizes = Sizes {
        shards: 8,
        batch_size: 40,
        ring_capacity: 2,
        key_groups: 256,
    };
    let mut stepper = Stepper::with(&job, sizes).unwrap();
    let mut random = Random::new(1);
    // The stages of the window and of what is late come last.
    let last = stepper.tasklets() - 2 * sizes.shards;
    while !stepper.all_done() {
        // All before the window until nothing moves, then the window a little.
        for _ in 0..20 {
            (0..last).for_each(|t| assert!(stepper.step(t).is_ok()));
        }
        for _ in 0..random.between(1, 30) {
            let tasklet = last + random.below(2 * sizes.shards);
            assert!(stepper.step(tasklet).is_ok());
        }
    }
    let mut late = late.take();
    late.sort_unstable();
    assert!(late.iter().copied().eq((0..count).filter(|id| id % 3 == 1)));
    let counted: u64 = results.take().iter().map(|w| w.value).sum();
    assert_eq!(counted + late.len() as u64, count);
}
