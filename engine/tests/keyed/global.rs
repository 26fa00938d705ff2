//! Count windows, alone, with a time-out, and in event-time order.

use crate::order::model;
use crate::{Numbers, Record, config, partitions, run, runs, time};
use pelton::testing::{Stepper, collect, feed};
use pelton::{
    BuildError, Firing, Global, Job, JobError, Span, Spans, Watermarks, Window, Windowed,
};
use pelton::{sink, sources};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

proptest! {
    #![proptest_config(config())]

    /// Behind the order: exactly the runs of n in the order of event time.
    #[test]
    fn counts_in_order_have_one_answer(records in partitions(), how in runs(), bound in 0i64..20, n in 1u64..7) {
        let (results, sink) = collect();
        let job = Job::new("counts in order");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order()
            .window(Global::count(n))
            .aggregate_with(Numbers)
            .sink(sink);
        run(&job, how).unwrap();
        let mut by_key: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        for r in model(&records, bound, 0).0 {
            by_key.entry(r.0).or_default().push(r.2);
        }
        let mut expected = vec![];
        for (key, numbers) in by_key {
            let full = numbers.chunks_exact(n as usize);
            expected.extend(full.map(|c| (key, c.to_vec())));
        }
        let mut results: Vec<_> = results.take().into_iter().map(|w| (w.key, w.value)).collect();
        results.sort();
        expected.sort();
        prop_assert_eq!(results, expected);
    }

    /// In the order of arrival: full windows of records that are in no other; with a time-out the end gives the rest.
    #[test]
    fn every_record_is_in_one_window(records in partitions(), how in runs(), n in 1u64..7, with_timeout: bool) {
        let (results, sink) = collect();
        let job = Job::new("counts");
        let window = if with_timeout { Global::count_or_timeout(n, 10.hours()) } else { Global::count(n) };
        job.source(sources::partitions(records.clone()))
            .key_by(|r| r.0)
            .window(window)
            .aggregate_with(Numbers)
            .sink(sink);
        run(&job, how).unwrap();
        let mut of_key: BTreeMap<u8, BTreeSet<u64>> = BTreeMap::new();
        for r in records.iter().flatten() {
            of_key.entry(r.0).or_default().insert(r.2);
        }
        for w in results.take() {
            prop_assert!(w.value.len() as u64 == n || (with_timeout && !w.value.is_empty()));
            for number in &w.value {
                prop_assert!(of_key.get_mut(&w.key).unwrap().remove(number), "{} twice", number);
            }
        }
        for rest in of_key.values() {
            let left_at_most = if with_timeout { 0 } else { n - 1 };
            prop_assert!(rest.len() as u64 <= left_at_most);
        }
    }

    /// One shard, the clock by hand: the exact sequence.
    #[test]
    fn time_outs_follow_the_clock(events in prop::collection::vec((0u8..4, 0i64..6), 1..200), n in 1usize..5, span in 1i64..12) {
        let (feed, source) = feed::<Record>(1);
        let (results, sink) = collect();
        let job = Job::new("time-outs");
        job.source(source).key_by(|r| r.0)
            .window(Global::count_or_timeout(n as u64, span.seconds()))
            .aggregate_with(Numbers)
            .sink(sink);
        let mut stepper = Stepper::new(&job, 1).unwrap();
        let (mut now, mut open, mut expected) = (0, Vec::<(u8, i64, Vec<u64>)>::new(), vec![]);
        for (number, (key, wait)) in events.into_iter().enumerate() {
            let number = number as u64;
            stepper.advance_clock(wait.seconds());
            now += wait;
            stepper.until_idle().unwrap();
            while open.first().is_some_and(|w| w.1 + span <= now) {
                let w = open.remove(0);
                expected.push((w.0, w.2));
            }
            feed.push(0, (key, 0, number));
            stepper.until_idle().unwrap();
            let at = open.iter().position(|w| w.0 == key).unwrap_or_else(|| {
                open.push((key, now, vec![]));
                open.len() - 1
            });
            open[at].2.push(number);
            if open[at].2.len() == n {
                let w = open.remove(at);
                expected.push((w.0, w.2));
            }
        }
        drop(feed);
        stepper.run().unwrap();
        expected.extend(open.into_iter().map(|w| (w.0, w.2)));
        let results: Vec<_> = results.take().into_iter().map(|w| (w.key, w.value)).collect();
        prop_assert_eq!(results, expected);
    }
}

/// What is due fires although records keep coming, and in pieces where much is due.
#[test]
fn a_busy_stage_still_times_out() {
    let (feed, source) = feed::<(u64, i64)>(1);
    let (results, sink) = collect();
    let job = Job::new("busy");
    job.source(source)
        .key_by(|r| r.0)
        .window(Global::count_or_timeout(1000, 1.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for key in 0..5000 {
        feed.push(0, (key, 0));
    }
    stepper.until_idle().unwrap();
    assert!(results.take().is_empty());
    stepper.advance_clock(1.seconds());
    let mut fired = 0;
    for round in 0..20 {
        // The source always has a batch for the ring.
        for n in 0..1024 {
            feed.push(0, (10_000 + n, 0));
        }
        for tasklet in 0..stepper.tasklets() {
            stepper.step(tasklet).unwrap();
            let some = results.take().len();
            assert!(some <= 1024, "{some} in one step");
            fired += some;
        }
        if fired == 5000 {
            assert!(round < 10, "round {round}");
            return;
        }
    }
    panic!("{fired} fired");
}

/// A result by time-out or at the end is not below the watermark: an event-time window behind it counts it.
#[test]
fn results_are_never_late() {
    let (feed, source) = feed::<Record>(2);
    let (results, sink) = collect::<Windowed<u8, u64>>();
    let job = Job::new("never late");
    job.source(source)
        .event_time(time, Watermarks::monotonous().idle_after(1.seconds()))
        .key_by(|r| r.0)
        .window(Global::count_or_timeout(10, 5.seconds()))
        .aggregate(|a| a.count())
        .key_by(|w| w.key)
        .window(pelton::Tumbling::of(10.seconds()))
        .aggregate(|a| a.sum(|w| w.value))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, (1, 5, 1));
    feed.push(1, (1, 5, 2));
    stepper.until_idle().unwrap();
    // The watermark goes to 55; the window of the records at 5 is still open.
    feed.push(0, (2, 55, 3));
    feed.push(1, (2, 55, 4));
    stepper.until_idle().unwrap();
    stepper.advance_clock(6.seconds());
    stepper.until_idle().unwrap();
    drop(feed);
    stepper.run().unwrap();
    let counted: Vec<_> = results
        .take()
        .into_iter()
        .map(|w| (w.key, w.window.start.micros() / 1_000_000, w.value))
        .collect();
    assert_eq!(counted, [(1, 50, 2), (2, 50, 2)]);
}

#[test]
fn a_result_says_what_it_is() {
    let (results, sink) = collect();
    let job = Job::new("result");
    job.source(sources::items([(7u8, 3i64, 1u64), (7, 2, 2)]))
        .event_time(time, Watermarks::bounded(5.seconds()))
        .key_by(|r| r.0)
        .window(Global::count(2))
        .aggregate(|a| a.count())
        .sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let [(result, at)] = results.take_timed().try_into().unwrap();
    let expected = Windowed {
        key: 7,
        window: Window::ALL,
        value: 2,
        firing: Firing::OnTime,
    };
    assert_eq!((result, at), (expected, time(&(7, 2, 2))));
}

#[test]
fn what_makes_no_sense_is_refused_and_what_grows_is_told() {
    let job = |window| {
        let job = Job::new("job");
        job.source(sources::items([(0u8, 0i64, 0u64)]))
            .key_by(|r| r.0)
            .window(window)
            .aggregate(|a| a.count())
            .sink(sink::callback("append", |_, _| {}));
        job
    };
    for window in [
        Global::count(0),
        Global::count_or_timeout(0, 1.seconds()),
        Global::count_or_timeout(1, Span::ZERO),
        Global::count_or_timeout(1, Span::from_micros(-1)),
    ] {
        let error = Stepper::new(&job(window), 1).unwrap_err();
        assert!(matches!(error, BuildError::Argument { .. }), "{error}");
    }
    assert_eq!(job(Global::count(2)).warnings().len(), 1);
    assert_eq!(
        job(Global::count_or_timeout(2, 1.seconds()))
            .warnings()
            .len(),
        0
    );
    assert!(
        job(Global::count(2))
            .explain()
            .contains("every 2 records) at")
    );
    assert!(job(Global::count(2)).explain().contains("[EXEMPT]"));
    let ordered = Job::new("ordered");
    ordered
        .source(sources::items([(0u8, 0i64, 0u64)]))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .in_event_time_order()
        .window(Global::count(2))
        .aggregate(|a| a.count())
        .sink(sink::callback("append", |_, _| {}));
    assert!(
        !ordered.explain().contains("[EXEMPT]"),
        "{}",
        ordered.explain()
    );
}

#[test]
fn a_panic_names_the_operator() {
    let job = Job::new("panics");
    job.source(sources::items(0..100u64))
        .key_by(|r| r % 3)
        .window(Global::count(5))
        .uid("fives")
        .aggregate(|a| a.sum(|r| if *r == 50 { panic!("fifty") } else { *r }))
        .sink(sink::callback("append", |_, _| {}));
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    let JobError::Panic { op, position, .. } = error else {
        panic!("{error}")
    };
    assert!(
        op.starts_with("window 'fives'") && position.starts_with("record 50 of"),
        "{op}: {position}"
    );
}
