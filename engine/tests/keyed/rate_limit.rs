//! `rate_limit`, against a bucket of tokens counted in fractions.

use crate::order::model;
use crate::{Record, config, partitions, run, time, wide_runs};
use pelton::testing::{Stepper, collect};
use pelton::{Job, Span, Spans, Watermarks, sources};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Of records in order, those that pass and those that do not. Tokens are counted in span-ths, so that a second brings n of them.
fn limited(in_time: &[Record], n: i64, span: i64) -> Vec<Result<Record, Record>> {
    let mut buckets: BTreeMap<u8, (i64, i64)> = BTreeMap::new();
    let pass = |r: &Record| {
        let (filled, tokens) = buckets.entry(r.0).or_insert((r.1, n * span));
        *tokens = (*tokens + (r.1 - *filled) * n).min(n * span);
        *filled = r.1;
        if *tokens < span {
            return Err(*r);
        }
        *tokens -= span;
        Ok(*r)
    };
    in_time.iter().map(pass).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_bucket_of_tokens(records in partitions(), how in wide_runs(), bound in 0i64..20, n in 1i64..6, span in 1i64..30) {
        let (results, sink) = collect();
        let (arrived, arrived_sink) = collect();
        let job = Job::new("rate");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order()
            .rate_limit(n as u32, span.seconds())
            .sink(sink);
        // In the order of arrival one partition that is in order has the same answer.
        let (in_time, _) = model(&records, bound, 0);
        job.source(sources::partitions(vec![in_time.clone()]))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .rate_limit(n as u32, span.seconds())
            .sink(arrived_sink);
        run(&job, how).unwrap();
        let mut expected = limited(&in_time, n, span);
        // In any span, edges and all, at most 2 n - 1.
        for r in expected.iter().flatten() {
            let near = expected.iter().flatten().filter(|o| o.0 == r.0 && (r.1..r.1 + span).contains(&o.1));
            prop_assert!(near.count() < 2 * n as usize);
        }
        expected.sort();
        let (mut results, mut arrived) = (results.take(), arrived.take());
        results.sort();
        arrived.sort();
        prop_assert_eq!(results, expected.clone());
        prop_assert_eq!(arrived, expected);
    }
}

#[test]
fn a_rate_is_positive() {
    let wrong: [(u32, Span, &str); 3] = [
        (0, 1.seconds(), "it lets 0 records pass"),
        (1, 0.seconds(), "the span is"),
        (1, (-1).seconds(), "the span is"),
    ];
    for (n, span, says) in wrong {
        let (_, sink) = collect();
        let job = Job::new("wrong");
        job.source(sources::items([(1, 1, 1)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r: &Record| r.0)
            .rate_limit(n, span)
            .sink(sink);
        let error = Stepper::new(&job, 1).map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
