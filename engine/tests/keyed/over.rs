//! `over`, against a model that sorts everything and aggregates each frame anew.

use crate::order::model;
use crate::{Numbers, Record, config, partitions, run, time, wide_runs};
use pelton::testing::{Stepper, collect};
use pelton::{Job, Over, Spans, Watermarks, sources};
use proptest::prelude::*;

/// Each record and the numbers of the records in its frame: the last `rows`, and of those the ones at most `span` before it.
fn frames(in_time: &[Record], rows: usize, span: i64) -> Vec<(Record, Vec<u64>)> {
    let frame = |(at, r): (usize, &Record)| {
        let before = in_time[..=at].iter().rev().filter(|o| o.0 == r.0);
        let mut numbers: Vec<u64> = before
            .take(rows)
            .filter(|o| r.1 - o.1 <= span)
            .map(|o| o.2)
            .collect();
        numbers.sort_unstable();
        (*r, numbers)
    };
    in_time.iter().enumerate().map(frame).collect()
}

fn sorted(mut results: Vec<(Record, Vec<u64>)>) -> Vec<(Record, Vec<u64>)> {
    for (_, numbers) in &mut results {
        numbers.sort_unstable();
    }
    results.sort();
    results
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_record_has_its_frame(records in partitions(), how in wide_runs(), bound in 0i64..20, lateness in 0i64..20, rows in 1u32..12, span in 1i64..30) {
        let (by_rows, rows_sink) = collect();
        let (by_time, time_sink) = collect();
        let (grown, grown_sink) = collect();
        let job = Job::new("over");
        let [one, two, three] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .fork();
        one.key_by(|r| r.0).in_event_time_order().allowed_lateness(lateness.seconds())
            .over(Over::rows(rows)).aggregate_with(Numbers).sink(rows_sink);
        two.key_by(|r| r.0).in_event_time_order().allowed_lateness(lateness.seconds())
            .over(Over::range(span.seconds())).aggregate_with(Numbers).sink(time_sink);
        three.key_by(|r| r.0).in_event_time_order().allowed_lateness(lateness.seconds())
            .over(Over::range(span.seconds())).aggregate(|a| (a.collect(|r| r.2), a.sum(|r| r.2 as f64 / 8.0))).sink(grown_sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, lateness);
        let by_time = by_time.take_timed();
        prop_assert!(by_time.iter().all(|((r, _), t)| *t == time(r)));
        let by_time = by_time.into_iter().map(|r| r.0).collect();
        let expected = sorted(frames(&in_time, usize::MAX, span));
        prop_assert_eq!(sorted(by_time), expected.clone());
        let grown = grown.take();
        for (_, (numbers, sum)) in &grown {
            // Eighths are exact.
            prop_assert_eq!(*sum, numbers.iter().sum::<u64>() as f64 / 8.0);
        }
        prop_assert_eq!(sorted(grown.into_iter().map(|(r, v)| (r, v.0)).collect()), expected);
        prop_assert_eq!(sorted(by_rows.take()), sorted(frames(&in_time, rows as usize, i64::MAX)));
        prop_assert_eq!(counters.late as usize, 3 * late.len());
        prop_assert_eq!(counters.invariant_broken, 0);
    }
}

/// By place: the last of a frame is the record itself, whatever comes at its time.
#[test]
fn equal_times_go_by_place() {
    let (results, sink) = collect();
    let job = Job::new("ties");
    job.source(sources::items([(0, 1, 1), (0, 1, 2), (0, 1, 3)]))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r: &Record| r.0)
        .in_event_time_order()
        .over(Over::range(1.seconds()))
        .aggregate(|a| (a.first(|r| r.2), a.last(|r| r.2)))
        .sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let seen: Vec<_> = results.take().into_iter().map(|r| r.1).collect();
    assert_eq!(seen, [(1, 1), (1, 2), (1, 3)]);
}

#[test]
fn a_frame_has_a_size() {
    let wrong = [
        (Over::rows(0), "its frame is of 0 records"),
        (Over::rows((1 << 20) + 1), "its frame is of 1048577 records"),
        (Over::range(0.seconds()), "the range is"),
        (Over::range((-1).seconds()), "the range is"),
    ];
    for (over, says) in wrong {
        let (_, sink) = collect();
        let job = Job::new("wrong");
        job.source(sources::items([(1, 1, 1)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r: &Record| r.0)
            .in_event_time_order()
            .over(over)
            .aggregate(|a| a.count())
            .sink(sink);
        let error = Stepper::new(&job, 1).map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
