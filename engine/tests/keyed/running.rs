//! `reduce`, `fold`, `running` without an order: one result a record, and the last value of each key is fixed.

use crate::order::model;
use crate::{Record, config, partitions, run, runs, time};
use pelton::testing::{Collected, Stepper, collect};
use pelton::{BuildError, Job, JobError, Keyed, Spans, Tumbling, Watermarks, sink, sources};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Each key's values in the order of arrival, and their number.
fn by_key<V: Clone>(results: &Collected<Keyed<u8, V>>) -> BTreeMap<u8, Vec<V>> {
    let mut values: BTreeMap<u8, Vec<V>> = BTreeMap::new();
    for update in results.take() {
        values.entry(update.key).or_default().push(update.value);
    }
    values
}

fn numbers(records: &[Vec<Record>]) -> BTreeMap<u8, Vec<u64>> {
    let mut model: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
    for r in records.iter().flatten() {
        model.entry(r.0).or_default().push(r.2);
    }
    model
}

proptest! {
    #![proptest_config(config())]

    /// The last reduced record, fold and aggregate of each key; each value is that of the ones before and one record more.
    #[test]
    fn the_last_value_is_that_of_all_records(records in partitions(), how in runs()) {
        let (reduced, sink) = collect();
        let job = Job::new("reduce");
        job.source(sources::partitions(records.clone())).key_by(|r| r.0)
            .reduce(|acc, r| { acc.1 = acc.1.max(r.1); acc.2 += r.2; }).sink(sink);
        let counters = run(&job, how).unwrap();
        prop_assert_eq!(counters.records_out, counters.records_in);
        let (folded, sink) = collect();
        let job = Job::new("fold");
        job.source(sources::partitions(records.clone())).key_by(|r| r.0)
            .fold(BTreeSet::new(), |seen, r| { seen.insert(r.2); }).sink(sink);
        run(&job, how).unwrap();
        let (aggregated, sink) = collect();
        let job = Job::new("running");
        job.source(sources::partitions(records.clone())).key_by(|r| r.0)
            .running(|a| (a.count(), a.sum(|r: &Record| r.2))).sink(sink);
        run(&job, how).unwrap();

        let (reduced, folded, aggregated) = (by_key(&reduced), by_key(&folded), by_key(&aggregated));
        let model = numbers(&records);
        prop_assert!(reduced.keys().eq(model.keys()) && folded.keys().eq(model.keys()) && aggregated.keys().eq(model.keys()));
        for (key, numbers) in &model {
            let sum: u64 = numbers.iter().sum();
            let latest = records.iter().flatten().filter(|r| r.0 == *key).map(|r| r.1).max();
            let last = reduced[key].last().map(|r| (r.0, Some(r.1), r.2));
            prop_assert_eq!(last, Some((*key, latest, sum)));
            prop_assert_eq!(folded[key].last(), Some(&numbers.iter().copied().collect()));
            prop_assert_eq!(aggregated[key].last(), Some(&(numbers.len() as u64, sum)));
            for (n, (seen, (count, _))) in folded[key].iter().zip(&aggregated[key]).enumerate() {
                prop_assert_eq!((seen.len(), *count), (n + 1, n as u64 + 1));
            }
            prop_assert_eq!(reduced[key].len(), numbers.len());
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// An update has its record's time and behind mark: windows behind count and drop by them, whatever came first.
    #[test]
    fn updates_keep_time_and_mark(records in partitions(), how in runs(), bound in 0i64..20) {
        let (results, sink) = collect();
        let (late, late_sink) = collect();
        let job = Job::new("marks");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .fold(0, |last, r| *last = r.2)
            .each_update_is_a_record()
            .key_by(|k| k.key)
            .window(Tumbling::of(1.seconds()))
            .late_to(late_sink)
            .aggregate(|a| a.sum(|k| k.value))
            .sink(sink);
        let counters = run(&job, how).unwrap();
        prop_assert_eq!(counters.invariant_broken, 0);
        let (in_time, too_late) = model(&records, bound, 0);
        let mut late: Vec<u64> = late.take().into_iter().map(|k: Keyed<u8, u64>| k.value).collect();
        let mut expected: Vec<u64> = too_late.iter().map(|r| r.2).collect();
        late.sort();
        expected.sort();
        prop_assert_eq!(late, expected);
        let mut sums = BTreeMap::new();
        for r in in_time {
            *sums.entry((r.0, r.1)).or_insert(0) += r.2;
        }
        let results = results.take().into_iter().map(|w| ((w.key, w.window.start.micros() / 1_000_000), w.value));
        prop_assert_eq!(results.collect::<BTreeMap<_, _>>(), sums);
    }
}

/// One partition has one order, so every value is known; more keys than a chunk, a key again within its first chunk.
#[test]
fn one_partition_gives_every_value() {
    let records: Vec<u64> = (0..5000).map(|n| n * n % 331).collect();
    let (results, sink) = collect();
    let job = Job::new("counts");
    job.source(sources::items(records.clone()))
        .key_by(|r| *r)
        .running(|a| a.count())
        .sink(sink);
    Stepper::new(&job, 3).unwrap().run().unwrap();
    let mut seen = BTreeMap::new();
    let mut expected: Vec<_> = records
        .iter()
        .map(|&key| {
            let count = seen.entry(key).or_insert(0u64);
            *count += 1;
            Keyed { key, value: *count }
        })
        .collect();
    let mut results = results.take();
    results.sort();
    expected.sort();
    assert_eq!(results, expected);
}

/// A sink that takes nothing: what is emitted stays within what the rings hold, and nothing is lost or doubled.
#[test]
fn a_blocked_sink_holds_the_operator() {
    let (results, sink) = collect();
    let switch = sink.switch();
    let job = Job::new("blocked");
    job.source(sources::items((0..100_000u64).map(|n| (n % 7, n))))
        .key_by(|r| r.0)
        .fold(0u64, |count, _| *count += 1)
        .key_by(|k| k.key)
        .exchange()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    switch.store(true, std::sync::atomic::Ordering::Relaxed);
    stepper.until_idle().unwrap();
    let held = results.take().len();
    assert!(held < 2 * 1024, "{held} written to a blocked sink");
    switch.store(false, std::sync::atomic::Ordering::Relaxed);
    stepper.run().unwrap();
    let rest = results.take();
    assert_eq!(held + rest.len(), 100_000);
    let last: BTreeSet<_> = rest[rest.len() - 7..]
        .iter()
        .map(|k| (k.key, k.value))
        .collect();
    let expected = (0..7).map(|k| (k, if k < 5 { 14286 } else { 14285 }));
    assert!(last.into_iter().eq(expected));
}

#[test]
fn a_panic_names_the_operator_and_the_record() {
    let job = Job::new("panics");
    job.source(sources::items(0..100u64))
        .key_by(|r| r % 3)
        .reduce(|acc, r| {
            assert!(*r != 50, "fifty");
            *acc += r;
        })
        .uid("sums")
        .sink(sink::callback("nowhere", |_, _| {}).updates());
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    let JobError::Panic {
        op,
        position,
        message,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(
        op.starts_with("reduce 'sums' at") && op.contains("running.rs"),
        "{op}"
    );
    assert!(
        position.starts_with("record 50 of") && position.contains("offset 99"),
        "{position}"
    );
    assert!(message.starts_with("fifty"), "{message}");
}

/// Class NET: an append-only sink is refused; and the plan warns of state that only grows.
#[test]
fn the_builder_knows_the_class_and_the_pitfall() {
    let job = Job::new("net");
    job.source(sources::items(0..100u64))
        .key_by(|r| r % 3)
        .fold(0u64, |acc, r| *acc += r)
        .uid("sums")
        .sink(sink::callback("append", |_, _| {}));
    let warnings = job.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].operator.starts_with("fold 'sums' at")
            && warnings[0].what.contains("without TTL"),
        "{warnings:?}"
    );
    assert!(
        job.explain().contains(&format!("warning: {}", warnings[0])),
        "{}",
        job.explain()
    );
    let error = Stepper::new(&job, 1).unwrap_err();
    assert!(
        matches!(error, BuildError::AppendOnReplaced { .. }),
        "{error}"
    );
}
