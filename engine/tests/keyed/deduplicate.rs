//! `deduplicate`, against models that keep everything.

use crate::order::model;
use crate::{Record, Run, config, partitions, run, time, wide_runs};
use pelton::testing::{Stepper, collect, feed};
use pelton::{BuildError, Job, Spans, Watermarks, sources};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Of records in order, those that pass.
fn passed(records: &[Record], horizon: i64) -> Vec<Record> {
    let mut last = BTreeMap::new();
    let passes = |r: &&Record| {
        let near = last
            .get(&r.0)
            .is_some_and(|t: &i64| (r.1 - t).abs() < horizon);
        if !near {
            let t = last.entry(r.0).or_insert(r.1);
            *t = r.1.max(*t);
        }
        !near
    };
    records.iter().filter(passes).copied().collect()
}

/// Of records in order, the last of each horizon, with its end.
fn settled(records: &[Record], horizon: i64) -> Vec<(i64, Record)> {
    let mut open: BTreeMap<u8, Vec<(i64, Record)>> = BTreeMap::new();
    for r in records {
        let of_key = open.entry(r.0).or_default();
        match of_key.last_mut() {
            Some((end, last)) if r.1 < *end => *last = *r,
            _ => of_key.push((r.1 + horizon, *r)),
        }
    }
    open.into_values().flatten().collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_first_of_a_horizon_passes(records in partitions(), how in wide_runs(), bound in 0i64..20, lateness in 0i64..20, horizon in 1i64..30) {
        let (results, sink) = collect();
        let (dropped, late_sink) = collect();
        let job = Job::new("first");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order().allowed_lateness(lateness.seconds()).late_to(late_sink)
            .deduplicate(horizon.seconds())
            .sink(sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, lateness);
        let mut expected = passed(&in_time, horizon);
        expected.sort();
        let timed = results.take_timed();
        prop_assert!(timed.iter().all(|(r, t)| *t == time(r)));
        let mut results: Vec<_> = timed.into_iter().map(|r| r.0).collect();
        results.sort();
        prop_assert_eq!(results, expected);
        let mut dropped = dropped.take();
        dropped.sort();
        prop_assert_eq!((counters.late as usize, dropped), (late.len(), late));
        prop_assert_eq!(counters.invariant_broken, 0);
    }

    #[test]
    fn the_last_of_a_horizon_comes_at_its_end(records in partitions(), how in wide_runs(), bound in 0i64..20, lateness in 0i64..20, horizon in 1i64..30) {
        let (results, sink) = collect();
        let job = Job::new("last");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order().allowed_lateness(lateness.seconds())
            .deduplicate_to_last(horizon.seconds())
            .sink(sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, lateness);
        let mut results: Vec<_> = results.take_timed().into_iter()
            .map(|(r, t)| ((t.micros() + 1) / 1_000_000, r)).collect();
        results.sort();
        let mut expected = settled(&in_time, horizon);
        expected.sort();
        prop_assert_eq!(results, expected);
        prop_assert_eq!(counters.late as usize, late.len());
        prop_assert_eq!(counters.invariant_broken, 0);
    }

    /// In the order of arrival one partition has one order, whatever the shards, as long as nothing is behind.
    #[test]
    fn the_first_that_comes_passes(records in partitions(), how in wide_runs(), horizon in 1i64..30) {
        let (results, sink) = collect();
        let job = Job::new("arrival");
        job.source(sources::partitions(vec![records[0].clone()]))
            .event_time(time, Watermarks::bounded(100.seconds()))
            .key_by(|r| r.0)
            .deduplicate(horizon.seconds())
            .sink(sink);
        run(&job, how).unwrap();
        let mut results = results.take();
        results.sort();
        let mut expected = passed(&records[0], horizon);
        expected.sort();
        prop_assert_eq!(results, expected);
    }

    /// Behind records keep their marks: what a window behind finds late is what it would find late without the deduplication.
    #[test]
    fn marks_are_kept(records in partitions(), how in wide_runs(), bound in 0i64..10) {
        let late = |deduplicates: bool, how: Run| {
            let (_, sink) = collect();
            let job = Job::new("marks");
            // Nothing is a duplicate.
            let keyed = job.source(sources::partitions(records.clone()))
                .event_time(time, Watermarks::bounded(bound.seconds()))
                .key_by(|r| r.2);
            let window = pelton::Tumbling::of(5.seconds());
            match deduplicates {
                true => keyed.deduplicate(7.seconds()).key_by(|r| r.0).window(window).aggregate(|a| a.count()).sink(sink),
                false => keyed.exchange().key_by(|r| r.0).window(window).aggregate(|a| a.count()).sink(sink),
            };
            run(&job, how).unwrap().late
        };
        prop_assert_eq!(late(true, how), late(false, how));
    }
}

/// Behind records are compared by their times, as long as the state is there.
#[test]
fn what_is_behind_is_near_or_not() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("behind");
    job.source(source)
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .deduplicate(10.seconds())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let mut passed = vec![];
    for seconds in [100, 50, 60, 51, 69, 105] {
        // The first is another key's.
        feed.push(0, (u8::from(seconds != 100), seconds, 0));
        stepper.until_idle().unwrap();
        passed.extend(results.take().into_iter().map(|r| r.1));
    }
    assert_eq!(passed, [100, 50, 60, 105]);
}

#[test]
fn a_horizon_is_positive_and_of_event_time() {
    let build = |timed: bool, horizon: i64| {
        let (_, sink) = collect::<Record>();
        let job = Job::new("wrong");
        let source = job.source(sources::items([(1, 1, 1)]));
        if timed {
            let keyed = source
                .event_time(time, Watermarks::monotonous())
                .key_by(|r| r.0);
            match horizon % 2 {
                0 => keyed.deduplicate(horizon.micros()).sink(sink),
                _ => keyed
                    .in_event_time_order()
                    .deduplicate_to_last(horizon.micros())
                    .sink(sink),
            };
        } else {
            source
                .key_by(|r: &Record| r.0)
                .deduplicate(1.seconds())
                .sink(sink);
        }
        Stepper::new(&job, 1).map(drop).unwrap_err()
    };
    for horizon in [0, -1] {
        assert!(build(true, horizon).to_string().contains("the horizon is"));
    }
    let untimed = build(false, 0);
    assert!(
        matches!(untimed, BuildError::NoEventTime { .. }),
        "{untimed}"
    );
}
