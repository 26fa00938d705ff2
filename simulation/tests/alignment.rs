//! Alignment: partitions of very different speeds, and how far one may run ahead.

use pelton::testing::{Sizes, Stepper, collect};
use pelton::{EventTime, Job, Span, Watermarks, sources};
use pelton_simulation::cases::numbers;
use pelton_simulation::random::Random;
use pelton_simulation::schedule::Schedule;
use std::sync::{Arc, Mutex};

/// At each record read, no partition is further ahead of another that still has data than the drift and one read: a
/// batch for each shard, of at most eight.
#[test]
fn none_runs_further_ahead_than_the_drift_and_a_batch() {
    for seed in numbers(60) {
        let r = &mut Random::new(seed);
        let drift = r.pick(&[0, 10, 1_000]);
        let sizes = Sizes {
            shards: r.pick(&[1, 2, 3, 8]),
            batch_size: r.between(1, 300) as usize,
            ring_capacity: r.between(2, 16) as usize,
            key_groups: 256,
        };
        let read = (sizes.batch_size * sizes.shards) as i64;
        // Microseconds of event time between two records of each partition.
        let speeds: Vec<i64> = (0..r.between(2, 5))
            .map(|_| r.pick(&[1, 2, 50, 400]))
            .collect();
        let counts: Vec<i64> = speeds.iter().map(|_| r.pick(&[0, 30, 1_500])).collect();
        let fronts = Arc::new(Mutex::new(vec![0i64; speeds.len()]));
        let worst = Arc::new(Mutex::new(0i64));
        let (told, last, speeds_too) = (fronts.clone(), counts.clone(), speeds.clone());
        let judge = worst.clone();
        let (results, sink) = collect();
        let job = Job::new("aligned");
        let partitions = speeds.iter().zip(&counts).enumerate();
        job.source(sources::partitions(partitions.map(
            |(p, (&speed, &count))| (1..=count).map(move |n| (p, n * speed)),
        )))
        .inspect(move |&(p, time)| {
            let mut fronts = told.lock().unwrap();
            fronts[p] = time;
            let others =
                (0..fronts.len()).filter(|&q| q != p && fronts[q] < last[q] * speeds_too[q]);
            let slowest = others.map(|q| fronts[q]).min();
            if let Some(slowest) = slowest {
                // What one read moves it by is beside the drift.
                let ahead = time - slowest - read * speeds_too[p];
                let mut worst = judge.lock().unwrap();
                *worst = (*worst).max(ahead);
            }
        })
        .event_time(
            |r| EventTime::from_micros(r.1),
            Watermarks::monotonous().max_drift(Span::from_micros(drift)),
        )
        .rebalance()
        .sink(sink);
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        let mut schedule = Schedule::new(r.bits());
        let mut steps = 0;
        while !stepper.all_done() {
            let tasklet = schedule.next(stepper.tasklets());
            stepper.step(tasklet).unwrap();
            steps += 1;
            assert!(steps < 3_000_000, "seed {seed}: no end");
        }
        assert_eq!(
            results.take().len() as i64,
            counts.iter().sum::<i64>(),
            "seed {seed}"
        );
        let worst = *worst.lock().unwrap();
        assert!(
            worst <= drift,
            "seed {seed}: {worst} us ahead of {drift}, {sizes:?}"
        );
    }
}
