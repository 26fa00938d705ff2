//! Windows by the clock: the virtual one of the stepper.

use crate::{Numbers, Record, config, partitions, run, runs, time};
use pelton::tasklet::Progress;
use pelton::testing::{Collected, Stepper, collect, feed};
use pelton::{
    EventTime, Firing, Global, Job, ProcessingTime, Span, Spans, Tumbling, Watermarks, Windowed,
    sink, sources,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What windows hold: by end, start and key, in seconds.
type Held = BTreeMap<(i64, i64, u8), Vec<u64>>;

type Result = Windowed<u8, Vec<u64>>;

/// A job by hand over two partitions without event time, what feeds it and what it gives.
macro_rules! by_hand {
    ($shards:expr, $window:expr) => {{
        let (feed, source) = feed::<Record>(2);
        let (results, sink) = collect::<Result>();
        let job = Job::new("clock");
        job.source(source)
            .key_by(|r: &Record| r.0)
            .window($window)
            .aggregate_with(Numbers)
            .sink(sink);
        (Stepper::new(&job, $shards).unwrap(), feed, results)
    }};
}

/// Takes what has come.
fn rows(results: &Collected<Result>) -> Held {
    let second = |t: EventTime| t.micros() / 1_000_000;
    let mut held = Held::new();
    for w in results.take() {
        assert_eq!(w.firing, Firing::OnTime);
        let place = (second(w.window.end), second(w.window.start), w.key);
        assert_eq!(held.insert(place, w.value), None, "fired twice");
    }
    held
}

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

    /// Windows that overlap, by hand: each fires when it has ended and holds what came within it.
    #[test]
    fn windows_that_overlap_follow_the_clock(
        events in prop::collection::vec((0u8..4, 0i64..9), 1..80), slide in 1i64..5, more in 0i64..9, offset in -9i64..9,
        cumulates: bool, shards in 1usize..4,
    ) {
        let (size, max) = (slide + more, slide * (1 + more % 4));
        let (mut stepper, feed, results) = if cumulates {
            by_hand!(shards, ProcessingTime::cumulate(max.seconds(), slide.seconds()).offset(offset.seconds()))
        } else {
            by_hand!(shards, ProcessingTime::sliding(size.seconds(), slide.seconds()).offset(offset.seconds()))
        };
        // All windows that hold a second, by their definition.
        let windows = |t: i64| -> Vec<(i64, i64)> {
            if cumulates {
                let start = t - (t - offset).rem_euclid(max);
                (1..=max / slide).map(|n| (start, start + n * slide)).filter(|w| w.1 > t).collect()
            } else {
                (t - size + 1..=t).filter(|s| (s - offset).rem_euclid(slide) == 0).map(|s| (s, s + size)).collect()
            }
        };
        let (mut now, mut open) = (0i64, Held::new());
        for (number, (key, wait)) in events.into_iter().enumerate() {
            stepper.advance_clock(wait.seconds());
            now += wait;
            stepper.until_idle().unwrap();
            let left = open.split_off(&(now + 1, i64::MIN, 0));
            prop_assert_eq!(rows(&results), std::mem::replace(&mut open, left));
            feed.push(number % 2, (key, 0, number as u64));
            stepper.until_idle().unwrap();
            for (start, end) in windows(now) {
                open.entry((end, start, key)).or_default().push(number as u64);
            }
            prop_assert_eq!(rows(&results), Held::new());
        }
        drop(feed);
        stepper.until_idle().unwrap();
        prop_assert!(stepper.all_done());
        prop_assert_eq!(rows(&results), open);
    }

    /// Sessions by hand, with the gap of each record: one fires when the clock has passed its end, not at it.
    #[test]
    fn sessions_follow_the_clock(
        events in prop::collection::vec((0u8..4, 0i64..9, 1u64..7), 1..80), by_record: bool, shards in 1usize..4,
    ) {
        let gap = move |r: &Record| if by_record { r.2 as i64 % 8 } else { 5 };
        let (mut stepper, feed, results) = if by_record {
            by_hand!(shards, ProcessingTime::session_by(7.seconds(), move |r: &Record| gap(r).seconds()))
        } else {
            by_hand!(shards, ProcessingTime::session(5.seconds()))
        };
        let (mut now, mut open) = (0i64, Held::new());
        for (number, (key, wait, low)) in events.into_iter().enumerate() {
            stepper.advance_clock(wait.seconds());
            now += wait;
            stepper.until_idle().unwrap();
            let left = open.split_off(&(now, i64::MIN, 0));
            prop_assert_eq!(rows(&results), std::mem::replace(&mut open, left), "at {}", now);
            let record = (key, 0, number as u64 * 8 + low);
            feed.push(number % 2, record);
            stepper.until_idle().unwrap();
            let mut session = (now + gap(&record), now, vec![]);
            if let Some((&(end, start, _), _)) = open.iter().find(|(w, _)| w.2 == key) {
                let before = open.remove(&(end, start, key)).unwrap_or_default();
                session = (session.0.max(end), start, before);
            }
            session.2.push(record.2);
            open.insert((session.0, session.1, key), session.2);
            prop_assert_eq!(rows(&results), Held::new());
        }
        drop(feed);
        stepper.until_idle().unwrap();
        prop_assert!(stepper.all_done());
        prop_assert_eq!(rows(&results), open);
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
    let kinds: BTreeSet<_> = job.warnings().iter().map(ToString::to_string).collect();
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

/// Where sessions wait for the clock a timer runs, and none without them; in between nothing is done.
#[test]
fn sessions_wake_at_their_ends() {
    let (mut stepper, feed, results) = by_hand!(1, ProcessingTime::session(16.seconds()));
    let until = |stepper: &mut Stepper| {
        stepper.until_idle().unwrap();
        let last = stepper.tasklets() - 1;
        let Progress::Idle { until_ns } = stepper.step(last).unwrap() else {
            panic!("it is idle")
        };
        until_ns
    };
    assert_eq!(until(&mut stepper), None);
    for _ in 0..100 {
        feed.push(0, (1, 0, 0));
        assert!(until(&mut stepper).is_some());
        stepper.advance_clock(1.seconds());
    }
    // The last one came at 99 s: it ends when 115 s have passed. Timers of a wheel come near it step by step.
    let (mut wakes, mut now_ns) = (0, 100_000_000_000);
    while let Some(at_ns) = until(&mut stepper) {
        assert!(at_ns > now_ns, "it gets on");
        stepper.advance_clock(Span::from_micros((at_ns - now_ns) as i64 / 1_000));
        (wakes, now_ns) = (wakes + 1, at_ns);
    }
    assert_eq!(now_ns, 115_000_001_000);
    assert!(wakes <= 40, "{wakes} wakes for 16 s");
    assert_eq!(rows(&results)[&(115, 0, 1)].len(), 100);
}
