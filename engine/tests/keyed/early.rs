//! Early firing of tumbling windows: what it tells, when, and that final values do not depend on it.

use crate::{Record, config, partitions, run, runs, time};
use pelton::testing::{Stepper, collect, feed};
use pelton::{BuildError, Firing, Job, Span, Spans, Tumbling, Watermarks, Windowed, sink, sources};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A result in short: key, start in seconds, count, early or not.
fn short(w: Windowed<u8, u64>) -> (u8, i64, u64, bool) {
    let start = w.window.start.micros() / 1_000_000;
    (w.key, start, w.value, w.firing == Firing::Early)
}

proptest! {
    #![proptest_config(config())]

    /// The clock by hand, against a model with a set of changed keys.
    #[test]
    fn what_changed_is_told_within_the_interval(
        events in prop::collection::vec((0u8..4, -12i64..6, 0i64..3), 1..200), every in 1i64..6, lateness in 1i64..15,
    ) {
        let (feed, source) = feed::<Record>(1);
        let (results, sink) = collect();
        let job = Job::new("early");
        job.source(source)
            .event_time(time, Watermarks::bounded(3.seconds()))
            .key_by(|r| r.0)
            .window(Tumbling::of(10.seconds()).allowed_lateness(lateness.seconds()).one_correction().early_firing(every.seconds()))
            .aggregate(|a| a.count())
            .sink(sink);
        let mut stepper = Stepper::new(&job, 1).unwrap();
        let mut counts: BTreeMap<(i64, u8), u64> = BTreeMap::new();
        let mut changed = BTreeSet::new();
        let (mut now, mut next, mut latest) = (0, None, None::<i64>);
        for (key, ahead, wait) in events {
            stepper.advance_clock(wait.seconds());
            now += wait;
            stepper.until_idle().unwrap();
            let mut told: Vec<_> = results.take().into_iter().map(short).collect();
            let mut expected = vec![];
            if next.is_some_and(|n| n <= now) {
                next = None;
                expected.extend(changed.iter().map(|&(start, key)| (key, start, counts[&(start, key)], true)));
                changed.clear();
            }
            told.sort();
            expected.sort();
            prop_assert_eq!(told, expected);

            let at = latest.unwrap_or(100) + ahead;
            feed.push(0, (key, at, 0));
            stepper.until_idle().unwrap();
            next = next.or(Some(now + every));
            let start = at - at.rem_euclid(10);
            if latest.is_none_or(|latest| start + 10 > latest - 3) {
                *counts.entry((start, key)).or_default() += 1;
                changed.insert((start, key));
            }
            latest = latest.max(Some(at));
            let fired = latest.unwrap_or(at) - 3;
            let mut expected: Vec<_> = counts.iter().filter(|((s, _), _)| s + 10 <= fired).map(|(&(s, k), &n)| (k, s, n, false)).collect();
            counts.retain(|(s, _), _| s + 10 > fired);
            changed.retain(|(s, _)| s + 10 > fired);
            let mut told: Vec<_> = results.take().into_iter().filter(|w| w.firing != Firing::Correction).map(short).collect();
            told.sort();
            expected.sort();
            prop_assert_eq!(told, expected);
        }
    }

    /// The same final values with it and without, for any run; early values of a window only rise up to the final one.
    #[test]
    fn final_values_do_not_depend_on_it(records in partitions(), how in runs(), bound in 0i64..20) {
        let job = |early: bool| {
            let (results, sink) = collect();
            let job = Job::new("final");
            let windows = Tumbling::of(10.seconds());
            job.source(sources::partitions(records.clone()))
                .event_time(time, Watermarks::bounded(bound.seconds()))
                .key_by(|r| r.0)
                .window(if early { windows.early_firing(Span::from_micros(1)) } else { windows })
                .aggregate(|a| a.count())
                .sink(sink);
            run(&job, how).unwrap();
            results.take()
        };
        let mut latest: BTreeMap<(u8, i64), u64> = BTreeMap::new();
        let mut closed = vec![];
        for (key, start, count, early) in job(true).into_iter().map(short) {
            let before = latest.insert((key, start), if early { count } else { u64::MAX }).unwrap_or(0);
            let rises = before < count || (!early && before == count);
            prop_assert!(rises, "{} after {}", count, before);
            if !early {
                closed.push((key, start, count));
            }
        }
        let mut without: Vec<_> = job(false).into_iter().map(short).map(|s| (s.0, s.1, s.2)).collect();
        closed.sort();
        without.sort();
        prop_assert_eq!(closed, without);
    }
}

/// Many keys are told in pieces, each once; then nothing until something changes, and no timer runs.
#[test]
fn telling_is_bounded_and_stops() {
    let (feed, source) = feed::<(u32, i64)>(1);
    let (results, sink) = collect();
    let job = Job::new("pieces");
    job.source(source)
        .event_time(
            |r| pelton::EventTime::from_seconds(r.1),
            Watermarks::monotonous(),
        )
        .key_by(|r| r.0)
        .window(Tumbling::of(10.seconds()).early_firing(1.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for key in 0..10_000 {
        feed.push(0, (key, 1));
    }
    stepper.until_idle().unwrap();
    stepper.advance_clock(1.seconds());
    let mut keys = BTreeSet::new();
    for _ in 0..20 {
        for tasklet in 0..stepper.tasklets() {
            stepper.step(tasklet).unwrap();
            let some = results.take();
            assert!(some.len() <= 1024, "{} in one step", some.len());
            for result in some {
                assert!(keys.insert(result.key), "{} twice", result.key);
            }
        }
    }
    assert_eq!(keys.len(), 10_000);
    stepper.advance_clock(100.seconds());
    stepper.until_idle().unwrap();
    assert!(results.take().is_empty());
    for tasklet in 0..stepper.tasklets() {
        let progress = stepper.step(tasklet).unwrap();
        assert_eq!(progress, pelton::tasklet::Progress::Idle { until_ns: None });
    }
    feed.push(0, (77, 2));
    stepper.until_idle().unwrap();
    stepper.advance_clock(1.seconds());
    stepper.until_idle().unwrap();
    let told: Vec<_> = results
        .take()
        .into_iter()
        .map(|w| (w.key, w.value, w.firing))
        .collect();
    assert_eq!(told, [(77, 2, Firing::Early)]);
}

#[test]
fn the_interval_must_be_positive_and_the_class_is_exempt() {
    let job = |every| {
        let job = Job::new("job");
        job.source(sources::items([(0u8, 0i64, 0u64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .window(Tumbling::of(10.seconds()).early_firing(every))
            .aggregate(|a| a.count())
            .sink(sink::callback("append", |_, _| {}));
        job
    };
    for every in [Span::ZERO, Span::from_micros(-5)] {
        let error = Stepper::new(&job(every), 1).unwrap_err();
        assert!(matches!(error, BuildError::Argument { .. }), "{error}");
    }
    let explained = job(2.seconds()).explain();
    assert!(
        explained.contains("(tumbling, 10s, early every 2s)")
            && explained.contains("[EXEMPT, may be replaced]"),
        "{explained}"
    );
}
