//! `.in_event_time_order()`: byte-equal values for any shard count, against sorting everything first.

use crate::{Record, Run, config, partitions, run, runs, time};
use pelton::testing::{Stepper, collect, feed};
use pelton::{EventTime, Job, JobError, Keyed, Span, Spans, Watermarks, sink, sources};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Splits records into what is in time and what is late by t + lateness < V(r), the former in event-time order.
pub(crate) fn model(
    records: &[Vec<Record>],
    bound: i64,
    lateness: i64,
) -> (Vec<Record>, Vec<Record>) {
    let (mut in_time, mut late) = (vec![], vec![]);
    for partition in records {
        let mut greatest = i64::MIN / 2;
        for r in partition {
            if r.1 + lateness < greatest - bound {
                late.push(*r);
            } else {
                in_time.push(*r);
            }
            greatest = greatest.max(r.1);
        }
    }
    // Numbers ascend by (partition, offset).
    in_time.sort_by_key(|r| (r.1, r.2));
    late.sort();
    (in_time, late)
}

/// Depends on the order of everything before.
fn mix(hash: u64, r: &Record) -> u64 {
    (hash ^ r.2)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(7)
}

fn hashes(records: &[Record]) -> Vec<Keyed<u8, u64>> {
    let mut hashes = BTreeMap::new();
    let mut all: Vec<_> = records
        .iter()
        .map(|r| {
            let hash = hashes.entry(r.0).or_insert(0);
            *hash = mix(*hash, r);
            Keyed {
                key: r.0,
                value: *hash,
            }
        })
        .collect();
    all.sort();
    all
}

/// Runs a job whose records tie by their way through the plan alone, in many orders of steps: the answers.
fn answers(job: impl Fn(pelton::testing::Collector<Keyed<u8, String>>) -> Job) -> BTreeSet<String> {
    let answer = |seed: u64| {
        let (results, sink) = collect();
        let how = Run {
            shards: 1 + seed as usize % 3,
            batch_size: 1 + seed as usize % 5,
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        };
        run(&job(sink), how).unwrap();
        results.take().pop().unwrap().value
    };
    (1..40).map(answer).collect()
}

/// SEMANTICS: ties go by origin, and the branch of a fork is part of it.
#[test]
fn a_fork_and_a_union_give_one_order() {
    let records: Vec<Record> = (0..40).map(|n| (0, n / 4, n as u64)).collect();
    let all = answers(|sink| {
        let job = Job::new("ties");
        let [a, b, d] = job
            .source(sources::items(records.clone()))
            .event_time(time, Watermarks::monotonous())
            .fork();
        a.map(|r| format!("a{} ", r.2))
            .union(b.flat_map(|r| [format!("b{} ", r.2), format!("c{} ", r.2)]))
            .union(d.map(|r| format!("d{} ", r.2)))
            .key_by(|_| 0)
            .in_event_time_order()
            .fold(String::new(), |path, r| path.push_str(r))
            .sink(sink);
        job
    });
    assert_eq!(all.len(), 1, "{all:?}");
    // A record's copies in the order of branches, each with what was made of it.
    assert!(all.first().unwrap().starts_with("a0 b0 c0 d0 a1 b1 c1 d1 "));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_fold_in_order_has_one_answer(records in partitions(), how in runs(), bound in 0i64..20, lateness in 0i64..20) {
        let (results, sink) = collect();
        let (dropped, late_sink) = collect();
        let job = Job::new("fold in order");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order().allowed_lateness(lateness.seconds()).late_to(late_sink)
            .fold(0, |hash, r| *hash = mix(*hash, r))
            .sink(sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, lateness);
        let mut results = results.take();
        results.sort();
        prop_assert_eq!(results, hashes(&in_time));
        prop_assert_eq!(counters.late as usize, late.len());
        let mut dropped = dropped.take();
        dropped.sort();
        prop_assert_eq!(dropped, late);
        prop_assert_eq!(counters.invariant_broken, 0);
    }

    /// The whole stream: one sequence, also through a flat_map, whose children tie by their place.
    #[test]
    fn a_whole_stream_has_one_sequence(records in partitions(), how in runs(), bound in 0i64..20) {
        let (results, sink) = collect();
        let job = Job::new("whole");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .flat_map(|r| [(r, 0), (r, 1)])
            .rebalance()
            .in_event_time_order()
            .records()
            .sink(sink);
        run(&job, how).unwrap();
        let (in_time, _) = model(&records, bound, 0);
        let expected: Vec<_> = in_time.into_iter().flat_map(|r| [(r, 0), (r, 1)]).collect();
        prop_assert_eq!(results.take(), expected);
    }

    /// Branches of a fork that meet again bring each record twice, one of them by a further fork or flat_map: ties go by
    /// the branch.
    #[test]
    fn branches_that_meet_again_have_one_sequence(records in partitions(), how in runs(), bound in 0i64..20) {
        let (results, sink) = collect();
        let job = Job::new("meet again");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .fork();
        let [left, right] = one.map(|r| (r, 0)).fork();
        two.flat_map(|r| [(r, 3), (r, 4)])
            .union(right.map(|(r, _)| (r, 2)))
            .union(left.map(|(r, _)| (r, 1)))
            .in_event_time_order()
            .records()
            .sink(sink);
        run(&job, how).unwrap();
        let (in_time, _) = model(&records, bound, 0);
        let expected: Vec<_> = in_time.into_iter().flat_map(|r| (1..=4).map(move |n| (r, n))).collect();
        let mut results = results.take();
        // All that came of one record shares its time, partition and offset, so it stands together; its own order is another test's.
        for of_one in results.chunk_by_mut(|a, b| a.0 == b.0) {
            of_one.sort();
        }
        prop_assert_eq!(results, expected);
    }

    /// The order of each key survives up to the sink, and windows behind count what is behind by the same marks.
    #[test]
    fn windows_behind_the_order_count_all(records in partitions(), how in runs(), bound in 0i64..20, lateness in 0i64..20) {
        let (results, sink) = collect();
        let job = Job::new("windows behind");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order().allowed_lateness(lateness.seconds())
            .records()
            .fork();
        let (sequence, records_sink) = collect();
        one.sink(records_sink);
        two.key_by(|r| r.0)
            .window(pelton::Tumbling::of(10.seconds()).allowed_lateness(100.seconds()).one_correction())
            .aggregate(|a| a.count())
            .sink(sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, lateness);
        prop_assert_eq!(counters.late as usize, late.len());
        prop_assert_eq!(counters.invariant_broken, 0);
        let mut expected = BTreeMap::new();
        for r in &in_time {
            *expected.entry((r.0, r.1 / 10)).or_insert(0u64) += 1;
        }
        let last: BTreeMap<_, _> = results.take().into_iter()
            .map(|w| ((w.key, w.window.start.micros() / 10_000_000), w.value)).collect();
        prop_assert_eq!(last, expected);
        let mut sequence = sequence.take();
        sequence.sort_by_key(|r: &Record| r.0);
        let mut by_key = in_time;
        by_key.sort_by_key(|r| r.0);
        prop_assert_eq!(sequence, by_key);
    }
}

/// Records wait for the watermark and go on as it passes them: strictly below it, and what is above stays.
#[test]
fn replay_follows_the_watermark() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("follow");
    job.source(source)
        .event_time(time, Watermarks::bounded(5.seconds()))
        .key_by(|r| r.0)
        .in_event_time_order()
        .allowed_lateness(2.seconds())
        .records()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    let mut step = |record: Record| {
        feed.push(0, record);
        stepper.until_idle().unwrap();
        results.take().into_iter().map(|r| r.2).collect::<Vec<_>>()
    };
    assert!(step((1, 10, 1)).is_empty());
    assert!(step((1, 8, 2)).is_empty());
    // The watermark is 10, less 2 of lateness: 8 is not below it.
    assert!(step((1, 15, 3)).is_empty());
    assert_eq!(step((1, 16, 4)), [2]);
    // 11 - 2 = 9: exactly as late as may be is in time, and replayed with the next advance.
    assert!(step((1, 9, 5)).is_empty());
    assert!(step((1, 8, 6)).is_empty());
    assert_eq!(step((1, 20, 7)), [5, 1]);
    assert_eq!(stepper.counters().late, 1);
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(
        results.take().into_iter().map(|r| r.2).collect::<Vec<_>>(),
        [3, 4, 7]
    );
}

/// A replay of many records goes by pieces, and other tasklets have their turn in between.
#[test]
fn replay_is_bounded() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("pieces");
    job.source(source)
        .event_time(time, Watermarks::bounded(100_000.seconds()))
        .key_by(|r| r.0)
        .in_event_time_order()
        .records()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for n in 0..10_000 {
        feed.push(0, (0, 10_000 - n, n as u64));
    }
    stepper.until_idle().unwrap();
    assert_eq!(results.take().len(), 0);
    drop(feed);
    let mut steps = 0;
    let mut next = 10_000;
    while !stepper.all_done() {
        for tasklet in 0..stepper.tasklets() {
            stepper.step(tasklet).unwrap();
            let some = results.take();
            assert!(some.len() <= 256, "{} in one step", some.len());
            steps += usize::from(!some.is_empty());
            for record in some {
                next -= 1;
                assert_eq!(record.2, next);
            }
        }
    }
    assert_eq!((next, steps), (0, 40));
}

/// All partitions silent: what waits is given out by the rule, up to the last of it.
#[test]
fn silence_gives_out_what_waits() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("silence");
    job.source(source)
        .event_time(
            time,
            Watermarks::bounded(1.hours()).close_after_idle(10.seconds()),
        )
        .key_by(|r| r.0)
        .in_event_time_order()
        .allowed_lateness(3.seconds())
        .records()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    feed.push(0, (1, 10, 1));
    feed.push(0, (1, 4, 2));
    stepper.until_idle().unwrap();
    assert!(results.take().is_empty());
    stepper.advance_clock(11.seconds());
    stepper.until_idle().unwrap();
    let numbers: Vec<_> = results.take().iter().map(|r| r.2).collect();
    assert_eq!(numbers, [2, 1]);
    // The order holds: what comes now below it is late, by the floor of the silent partition.
    feed.push(0, (1, 7, 3));
    feed.push(0, (1, 12, 4));
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(results.take().iter().map(|r| r.2).collect::<Vec<_>>(), [4]);
    assert_eq!(stepper.counters().late, 1);
}

#[test]
fn a_panic_tells_the_replayed_record() {
    let job = Job::new("panics");
    job.source(sources::items(
        (0..600u64).map(|n| (0u8, 600 - n as i64, n)),
    ))
    .event_time(time, Watermarks::bounded(1.hours()))
    .key_by(|r| r.0)
    .in_event_time_order()
    .fold((), |(), r| assert!(r.2 != 300, "three hundred"))
    .sink(sink::callback("append", |_, _| {}));
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    let JobError::Panic { op, position, .. } = error else {
        panic!("{error}")
    };
    assert!(op.starts_with("fold at"), "{op}");
    // Replayed by 256: offsets 599 to 344, then 343 to 88, in which 300 has index 43.
    assert!(
        position.starts_with("record 43 of the 256 records"),
        "{position}"
    );
    assert!(position.contains("offset 88"), "{position}");
}

#[test]
fn what_cannot_be_ordered_is_refused() {
    let without = Job::new("no time");
    without
        .source(sources::items([(0u8, 0i64, 0u64)]))
        .in_event_time_order()
        .records()
        .sink(sink::callback("append", |_, _| {}));
    let error = Stepper::new(&without, 1).unwrap_err();
    assert_eq!(error.code(), "PLT-0006");
    let negative = Job::new("negative");
    negative
        .source(sources::items([(0u8, 0i64, 0u64)]))
        .event_time(time, Watermarks::monotonous())
        .in_event_time_order()
        .allowed_lateness(Span::from_micros(-1))
        .records()
        .sink(sink::callback("append", |_, _| {}));
    let error = Stepper::new(&negative, 1).unwrap_err();
    assert_eq!(error.code(), "PLT-0001");
}

/// An order made before an exchange does not make what follows the exchange ROWS; an order of NET input stays NET.
#[test]
fn only_the_order_behind_the_exchange_counts() {
    let records = || sources::items([(0u8, 0i64, 0u64)]);
    fn append<T: Send + 'static>() -> impl sink::Sink<T> {
        sink::callback("append", |_: T, _| {})
    }
    let before = Job::new("before");
    before
        .source(records())
        .event_time(time, Watermarks::monotonous())
        .in_event_time_order()
        .records()
        .key_by(|r| r.0)
        .reduce(|_, _| {})
        .sink(append());
    assert_eq!(Stepper::new(&before, 1).unwrap_err().code(), "PLT-0004");
    let net = Job::new("net");
    net.source(records())
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .reduce(|_, _| {})
        .key_by(|k| k.key)
        .in_event_time_order()
        .reduce(|_, _| {})
        .sink(append());
    assert_eq!(Stepper::new(&net, 1).unwrap_err().code(), "PLT-0011");
}

/// Times at the ends of the range.
#[test]
fn the_ends_of_time() {
    let (results, sink) = collect();
    let job = Job::new("ends");
    job.source(sources::items([
        EventTime::MAX,
        EventTime::MIN,
        EventTime::MIN,
    ]))
    .event_time(|t| *t, Watermarks::bounded(Span::MAX))
    .in_event_time_order()
    .allowed_lateness(Span::MAX)
    .records()
    .sink(sink);
    let how = Run {
        shards: 2,
        batch_size: 1,
        seed: 7,
    };
    let counters = run(&job, how).unwrap();
    assert_eq!(counters.late, 2);
    assert_eq!(results.take(), [EventTime::MAX]);
}
