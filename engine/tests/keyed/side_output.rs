//! `side_output`: two streams of two types.

use crate::{Record, config, order::model, partitions, run, runs, time};
use pelton::testing::{Stepper, collect};
use pelton::{Job, JobError, Spans, Tumbling, Watermarks, sink, sources};
use proptest::prelude::*;
use std::collections::BTreeMap;

proptest! {
    #![proptest_config(config())]

    /// Each record in one of both; times, behind marks, origins and watermarks go along to both.
    #[test]
    fn both_sides_go_on(records in partitions(), how in runs(), bound in 0i64..20) {
        let (odd, odd_sink) = collect();
        let (even, even_sink) = collect();
        let (late, late_sink) = collect();
        let job = Job::new("both");
        let (one, two) = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .side_output(|r: Record| if r.2 % 2 == 1 { Ok(r) } else { Err((r.2.to_string(), r.0)) });
        one.key_by(|r| r.0)
            .window(Tumbling::of(1.seconds())).late_to(late_sink)
            .aggregate(|a| a.count())
            .sink(odd_sink);
        two.in_event_time_order().records().sink(even_sink);
        let counters = run(&job, how).unwrap();
        prop_assert_eq!(counters.invariant_broken, 0);

        let (in_time, _) = model(&records, bound, 0);
        let expected: Vec<_> = in_time.iter().filter(|r| r.2 % 2 == 0).map(|r| (r.2.to_string(), r.0)).collect();
        prop_assert_eq!(even.take(), expected);
        let mut counts = BTreeMap::new();
        let windowed: Vec<_> = odd.take();
        for w in &windowed {
            counts.insert((w.key, w.window.start.micros() / 1_000_000), w.value);
        }
        // A window of a second is late where its record is at or below V - 1.
        let mut expected = BTreeMap::new();
        let mut expected_late = vec![];
        for partition in &records {
            let mut watermark = i64::MIN;
            for r in partition {
                if r.2 % 2 == 1 {
                    if r.1 < watermark {
                        expected_late.push(*r);
                    } else {
                        *expected.entry((r.0, r.1)).or_insert(0u64) += 1;
                    }
                }
                watermark = watermark.max(r.1 - bound);
            }
        }
        prop_assert_eq!(windowed.len(), counts.len());
        prop_assert_eq!(counts, expected);
        let mut late = late.take();
        late.sort();
        expected_late.sort();
        prop_assert_eq!(late, expected_late);
    }
}

/// A side that takes nothing holds the other up, within a bound: no records pile up between them.
#[test]
fn a_blocked_side_holds_both() {
    let (main, main_sink) = collect();
    let (side, side_sink) = collect();
    let switch = side_sink.switch();
    switch.store(true, std::sync::atomic::Ordering::Relaxed);
    let job = Job::new("blocked");
    let (one, two) = job
        .source(sources::items(0..200_000u64))
        .side_output(|n| if n % 2 == 0 { Ok(n) } else { Err(n) });
    one.sink(main_sink);
    two.sink(side_sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.until_idle().unwrap();
    let passed = main.take().len();
    assert!(passed < 40_000, "{passed} passed a blocked side");
    switch.store(false, std::sync::atomic::Ordering::Relaxed);
    stepper.run().unwrap();
    assert_eq!(
        (passed + main.take().len(), side.take().len()),
        (100_000, 100_000)
    );
}

#[test]
fn a_panic_names_it() {
    let job = Job::new("panics");
    let (one, two) = job.source(sources::items(0..9u64)).side_output(|n| {
        assert!(n != 7, "seven");
        if n == 0 { Ok(n) } else { Err(()) }
    });
    one.sink(sink::callback("one", |_, _| {}));
    two.sink(sink::callback("two", |_, _| {}));
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    let JobError::Panic { op, position, .. } = error else {
        panic!("{error}")
    };
    assert!(
        op.starts_with("side_output at") && position.contains("offset 7"),
        "{op}: {position}"
    );
}
