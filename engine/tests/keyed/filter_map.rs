//! `filter_map`: a filter and a map in one.

use crate::{Record, config, order::model, partitions, run, runs, time};
use pelton::testing::{Stepper, collect};
use pelton::{Job, JobError, Spans, Tumbling, Watermarks, sink, sources};
use proptest::prelude::*;

proptest! {
    #![proptest_config(config())]

    /// What is left goes on with its time, behind mark and origin; what is dropped has moved the watermark if it was before it.
    #[test]
    fn what_is_left_goes_on(records in partitions(), how in runs(), bound in 0i64..20) {
        let (ordered, ordered_sink) = collect();
        let (counts, counts_sink) = collect();
        let (late, late_sink) = collect();
        let job = Job::new("odd");
        let [to_order, to_window] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .filter_map(|r: Record| (r.2 % 2 == 1).then(|| (r.0, r.1, r.2.to_string())))
            .fork();
        to_order.in_event_time_order().records().sink(ordered_sink);
        to_window.key_by(|r| r.0)
            .window(Tumbling::of(1.seconds())).late_to(late_sink)
            .aggregate(|a| a.count())
            .sink(counts_sink);
        let counters = run(&job, how).unwrap();
        prop_assert_eq!(counters.invariant_broken, 0);

        let (in_time, _) = model(&records, bound, 0);
        let odd = in_time.iter().filter(|r| r.2 % 2 == 1);
        let expected: Vec<_> = odd.map(|r| (r.0, r.1, r.2.to_string())).collect();
        prop_assert_eq!(ordered.take(), expected);
        let (mut counted, mut expected_late) = (0, vec![]);
        for partition in &records {
            let mut watermark = i64::MIN;
            for r in partition {
                match r.1 < watermark {
                    _ if r.2 % 2 == 0 => {}
                    true => expected_late.push((r.0, r.1, r.2.to_string())),
                    false => counted += 1,
                }
                watermark = watermark.max(r.1 - bound);
            }
        }
        prop_assert_eq!(counts.take().iter().map(|w| w.value).sum::<u64>(), counted);
        let mut late = late.take();
        late.sort();
        expected_late.sort();
        prop_assert_eq!(late, expected_late);
    }
}

#[test]
fn a_panic_names_it() {
    let job = Job::new("panics");
    job.source(sources::items(0..9u64))
        .filter_map(|n| {
            assert!(n != 7, "seven");
            (n == 0).then_some(n)
        })
        .sink(sink::callback("left", |_, _| {}));
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    let JobError::Panic { op, position, .. } = error else {
        panic!("{error}")
    };
    assert!(
        op.starts_with("filter_map at") && position.contains("offset 7"),
        "{op}: {position}"
    );
}
