//! Windows by the clock: the virtual one of the stepper.

use crate::{Numbers, Record, config, partitions, run, runs, time};
use pelton::tasklet::Progress;
use pelton::testing::{Stepper, collect, feed};
use pelton::{
    Global, Job, ProcessingTime, Span, Spans, Tumbling, Watermarks, Windowed, sink, sources,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

proptest! {
    #![proptest_config(config())]

    /// The clock by hand: a window fires when it has ended, without a further record, and holds what came within it.
    #[test]
    fn windows_follow_the_clock(
        events in prop::collection::vec((0u8..4, 0i64..9, any::<bool>()), 1..100), size in 1i64..8, offset in -9i64..9, shards in 1usize..4,
    ) {
        let (feed, source) = feed::<Record>(2);
        let (results, sink) = collect();
        let job = Job::new("clock");
        job.source(source).key_by(|r| r.0)
            .window(ProcessingTime::tumbling(size.seconds()).offset(offset.seconds()))
            .aggregate_with(Numbers)
            .sink(sink);
        let mut stepper = Stepper::new(&job, shards).unwrap();
        let take = || {
            let mut some: Vec<_> = results.take().into_iter()
                .map(|w| (w.window.start.micros(), w.window.end.micros(), w.key, w.value)).collect();
            some.sort();
            some
        };
        let (mut now, mut open) = (0i64, BTreeMap::<(i64, u8), Vec<u64>>::new());
        let second = 1_000_000;
        for (number, (key, wait, many)) in events.into_iter().enumerate() {
            // In one go or second by second: the same results.
            for _ in 0..if many { wait } else { 1 } {
                stepper.advance_clock(if many { 1 } else { wait }.seconds());
                stepper.until_idle().unwrap();
            }
            now += wait;
            let mut expected = vec![];
            open.retain(|&(start, key), numbers| {
                let ended = start + size <= now;
                if ended {
                    expected.push((start * second, (start + size) * second, key, numbers.clone()));
                }
                !ended
            });
            prop_assert_eq!(take(), expected);
            feed.push(number % 2, (key, 0, number as u64));
            stepper.until_idle().unwrap();
            let start = now - (now - offset).rem_euclid(size);
            open.entry((start, key)).or_default().push(number as u64);
            prop_assert_eq!(take(), vec![]);
        }
        // The end of the input does not wait for the clock.
        drop(feed);
        stepper.until_idle().unwrap();
        prop_assert!(stepper.all_done());
        let expected: Vec<_> = open.into_iter()
            .map(|((start, key), numbers)| (start * second, (start + size) * second, key, numbers)).collect();
        prop_assert_eq!(take(), expected);
    }

    /// In any run every record is in one window, also those that event time would call late.
    #[test]
    fn no_record_is_late(records in partitions(), how in runs()) {
        let (results, sink) = collect();
        let job = Job::new("none late");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .window(ProcessingTime::tumbling(1.millis()))
            .aggregate_with(Numbers)
            .sink(sink);
        let counters = run(&job, how).unwrap();
        prop_assert_eq!(counters.late, 0);
        let mut numbers: Vec<_> = results.take().into_iter().flat_map(|w| w.value).collect();
        numbers.sort();
        let mut expected: Vec<_> = records.iter().flatten().map(|r| r.2).collect();
        expected.sort();
        prop_assert_eq!(numbers, expected);
    }
}

/// Without open windows nothing waits for the clock.
#[test]
fn no_timer_without_windows() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("timer");
    job.source(source)
        .key_by(|r| r.0)
        .window(ProcessingTime::tumbling(10.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let until = |stepper: &mut Stepper| {
        stepper.until_idle().unwrap();
        let last = stepper.tasklets() - 1;
        let Progress::Idle { until_ns } = stepper.step(last).unwrap() else {
            panic!("it is idle")
        };
        until_ns
    };
    assert_eq!(until(&mut stepper), None);
    stepper.advance_clock(3.seconds());
    feed.push(0, (1, 0, 0));
    assert_eq!(until(&mut stepper), Some(10_000_000_000));
    stepper.advance_clock(7.seconds());
    assert_eq!(until(&mut stepper), None);
    assert_eq!(results.take().len(), 1);
}

/// Event-time windows behind count every result, although event time runs ahead of the clock.
#[test]
fn results_are_never_late() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect::<Windowed<u8, u64>>();
    let job = Job::new("behind");
    job.source(source)
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .window(ProcessingTime::tumbling(1.seconds()))
        .aggregate(|a| a.count())
        .key_by(|w| w.key)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.sum(|w| w.value))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    for n in 0..100 {
        feed.push(0, (1, 1000 + n, 0));
        stepper.until_idle().unwrap();
        stepper.advance_clock(300.millis());
    }
    drop(feed);
    stepper.run().unwrap();
    let total: u64 = results.take().iter().map(|w| w.value).sum();
    assert_eq!(total, 100);
}

/// A time-out of count windows and the clock's windows do not hold each other up behind a fork.
#[test]
fn two_timers_in_one_job() {
    let (feed, source) = feed::<Record>(1);
    let (clocked, clock_sink) = collect();
    let (counted, count_sink) = collect();
    let job = Job::new("two timers");
    let [one, two] = job.source(source).fork();
    one.key_by(|r: &Record| r.0)
        .window(ProcessingTime::tumbling(4.seconds()))
        .aggregate(|a| a.count())
        .sink(clock_sink);
    two.key_by(|r: &Record| r.0)
        .window(Global::count_or_timeout(3, 3.seconds()))
        .aggregate(|a| a.count())
        .sink(count_sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    for second in 0..8 {
        feed.push(0, (1, 0, second));
        stepper.until_idle().unwrap();
        stepper.advance_clock(1.seconds());
        stepper.until_idle().unwrap();
    }
    let values = |some: Vec<Windowed<u8, u64>>| some.iter().map(|w| w.value).collect::<Vec<_>>();
    assert_eq!(values(clocked.take()), [4, 4]);
    assert_eq!(values(counted.take()), [3, 3]);
    stepper.advance_clock(1.seconds());
    stepper.until_idle().unwrap();
    assert_eq!(values(counted.take()), [2]);
}

#[test]
fn the_builder_refuses_and_warns() {
    let job = |window| {
        let job = Job::new("job");
        job.source(sources::items([(0u8, 0i64, 0u64)]))
            .key_by(|r| r.0)
            .window(window)
            .aggregate(|a| a.count())
            .sink(sink::callback("append", |_, _| {}));
        job
    };
    for size in [Span::ZERO, Span::from_micros(-1)] {
        let error = Stepper::new(&job(ProcessingTime::tumbling(size)), 1).unwrap_err();
        assert_eq!(error.code(), "PLT-0001");
    }
    let job = job(ProcessingTime::tumbling(1.minutes()));
    let kinds: BTreeSet<_> = job.warnings().into_iter().collect();
    assert!(
        kinds.len() == 1 && kinds.iter().all(|w| w.contains("processing time")),
        "{kinds:?}"
    );
    assert!(
        job.explain()
            .contains("(processing time, tumbling, 1min) at")
            && job.explain().contains("[EXEMPT]")
    );
}
