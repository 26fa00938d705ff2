//! Patterns: the same matches for any shard count, disorder and order of steps, against looking at each key's sorted records.

use crate::order::model;
use crate::{Record, config, partitions, run, runs, time};
use pelton::pattern::{AfterMatch, Pattern, TimedOut, WhenFull};
use pelton::testing::{OnDisk, Sizes, Stepper, collect, feed};
use pelton::{BuildError, Checkpointing, EventTime, Job, Spans, Watermarks, sources};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
use proptest::prelude::*;

/// Three events in a row of which each has a greater number by seven than the one before.
fn rising() -> Pattern<Record> {
    let rises = |r: &Record, m: &pelton::pattern::Matched<'_, Record>| {
        m.events()
            .next_back()
            .is_some_and(|(_, _, before)| r.2 % 7 > before.2 % 7)
    };
    Pattern::begin("first")
        .next("second")
        .where_matched(rises)
        .next("third")
        .where_matched(rises)
        .within(20.seconds())
}

fn numbers(events: &[&Record]) -> Vec<u64> {
    events.iter().map(|r| r.2).collect()
}

fn of_key(records: &[Record], key: u8) -> Vec<&Record> {
    records.iter().filter(|r| r.0 == key).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rows_of_three_have_one_answer(records in partitions(), mut how in runs(), eight: bool, bound in 0i64..20, lateness in 0i64..10) {
        if eight {
            how.shards = 8;
        }
        let (results, sink) = collect();
        let (dropped, late_sink) = collect();
        let (over, over_sink) = collect();
        let job = Job::new("rising");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .pattern(rising())
            .allowed_lateness(lateness.seconds())
            .late_to(late_sink)
            .timed_out_to(over_sink)
            .uid("rising")
            .select(|m| m.events().map(|(_, _, r)| r.2).collect::<Vec<_>>())
            .sink(sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, lateness);
        let (mut expected, mut ended) = (vec![], vec![]);
        for key in 0..5 {
            let events = of_key(&in_time, key);
            for start in 0..events.len() {
                let is_in_time = |r: &&&Record| r.1 - events[start].1 < 20;
                let soon: Vec<_> = events[start..].iter().take_while(is_in_time).copied().collect();
                let up = soon.windows(2).take_while(|w| w[1].2 % 7 > w[0].2 % 7).count();
                if up >= 2 {
                    expected.push((numbers(&soon[..3]), EventTime::from_seconds(soon[2].1)));
                } else if up + 1 == soon.len() {
                    // It ran out of time, not of luck.
                    ended.push((numbers(&soon), EventTime::from_seconds(soon[0].1 + 20)));
                }
            }
        }
        let mut results = results.take_timed();
        results.sort();
        expected.sort();
        prop_assert_eq!(results, expected);
        let of = |t: TimedOut<Record>| (t.events.iter().map(|e| e.1.2).collect::<Vec<_>>(), t.over);
        let mut over: Vec<_> = over.take().into_iter().map(of).collect();
        over.sort();
        ended.sort();
        prop_assert_eq!(over, ended);
        prop_assert_eq!(counters.late as usize, late.len());
        let mut dropped = dropped.take();
        dropped.sort();
        prop_assert_eq!(dropped, late);
        prop_assert_eq!((counters.invariant_broken, counters.dropped_matches), (0, 0));
    }

    /// An even number that no odd one follows in time: told when the time is over, with that time; and what is told goes on in
    /// order, since another pattern takes it up.
    #[test]
    fn what_does_not_come_is_told_in_time(records in partitions(), how in runs(), bound in 0i64..20) {
        let (results, sink) = collect();
        let silent = Pattern::begin("even")
            .where_(|r: &Record| r.2.is_multiple_of(2))
            .not_followed_by("odd")
            .where_(|r| r.2 % 2 == 1)
            .within(10.seconds());
        let job = Job::new("silent");
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .pattern(silent)
            .flat_select(|m| m.first_of("even").map(|r| (r.0, r.2)))
            .key_by(|r| r.0)
            .in_event_time_order()
            .records()
            .sink(sink);
        let counters = run(&job, how).unwrap();
        let (in_time, late) = model(&records, bound, 0);
        let mut expected = vec![];
        for key in 0..5 {
            let events = of_key(&in_time, key);
            for (start, first) in events.iter().enumerate().filter(|(_, r)| r.2.is_multiple_of(2)) {
                let mut soon = events[start..].iter().take_while(|r| r.1 - first.1 < 10);
                if soon.all(|r| r.2.is_multiple_of(2)) {
                    expected.push(((key, first.2), EventTime::from_seconds(first.1 + 10)));
                }
            }
        }
        let mut results = results.take_timed();
        results.sort();
        expected.sort();
        prop_assert_eq!(results, expected);
        // None of those that the pattern tells is late for what follows.
        prop_assert_eq!((counters.late as usize, counters.invariant_broken), (late.len(), 0));
    }
}

/// A key that falls silent times out by the watermark that others raise.
#[test]
fn a_silent_key_times_out_by_the_watermark() {
    let (feed, source) = feed::<Record>(1);
    let (over, sink) = collect();
    let job = Job::new("silent");
    let pattern = Pattern::begin("a")
        .followed_by("b")
        .where_(|r: &Record| r.2 == 9)
        .within(5.seconds());
    job.source(source)
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .pattern(pattern)
        .timed_out_to(sink)
        .select(|_| ())
        .sink(collect().1);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    for (record, expected) in [
        ((1, 0, 1), 0),
        ((2, 4, 2), 0),
        ((2, 5, 3), 1),
        ((3, 8, 4), 0),
    ] {
        feed.push(0, record);
        stepper.until_idle().unwrap();
        assert_eq!(over.take().len(), expected, "after {record:?}");
    }
}

#[test]
fn what_is_dropped_is_counted() {
    let (results, sink) = collect();
    let job = Job::new("full");
    let pattern = Pattern::begin("a")
        .followed_by("b")
        .where_(|r: &Record| r.2 == 9);
    job.source(sources::items([1, 2, 3, 4, 9].map(|n| (0, n as i64, n))))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .pattern(pattern.skip(AfterMatch::NoSkip))
        .partial_matches_max(2)
        .events_max(10)
        .when_full(WhenFull::DropNewest)
        .select(|m| m.events().map(|(_, _, r)| r.2).collect::<Vec<_>>())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.run().unwrap();
    assert_eq!(results.take(), [[1, 9], [2, 9]]);
    // The last one begins a match as well, and waits alone.
    assert_eq!(stepper.counters().dropped_matches, 2);
}

#[test]
fn what_makes_no_sense_is_refused() {
    macro_rules! refused {
        ($stream:ident => $keyed:expr; $($set:ident($argument:expr))?) => {{
            let job = Job::new("refused");
            let $stream = job.source(sources::items([(0u8, 0i64, 0u64)]));
            let pattern = Pattern::begin("a").followed_by("b");
            let stream = $keyed.key_by(|r| r.0).pattern(pattern)$(.$set($argument))?;
            stream.select(|_| ()).sink(collect().1);
            Stepper::new(&job, 1).err().unwrap()
        }};
    }
    let untimed = refused!(s => s;);
    assert!(matches!(untimed, BuildError::NoEventTime { .. }));
    let none = refused!(s => s.event_time(time, Watermarks::monotonous()); partial_matches_max(0));
    assert!(none.to_string().contains("0 partial matches"), "{none}");
    let none = refused!(s => s.event_time(time, Watermarks::monotonous()); events_max(0));
    assert!(none.to_string().contains("0 events"), "{none}");
    let over =
        refused!(s => s.event_time(time, Watermarks::monotonous()); timed_out_to(collect().1));
    assert!(over.to_string().contains("without `within`"), "{over}");
    let late = refused!(s => s.event_time(time, Watermarks::monotonous()); allowed_lateness(pelton::Span::from_micros(-1)));
    assert!(late.to_string().contains("allowed lateness"), "{late}");
}

/// What was dropped before a restart counts on, and partial matches of another pattern are refused.
#[test]
fn a_job_goes_on_with_its_own_pattern() {
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let (feed, first) = feed::<Record>(1);
    let start = |source, last: &str| {
        let (results, sink) = collect();
        let job = Job::new("goes on");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        let pattern = Pattern::begin("a")
            .followed_by(last)
            .where_(|r: &Record| r.2 == 9);
        job.source(source)
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .pattern(pattern)
            .partial_matches_max(2)
            .uid("pattern")
            .select(|m| m.events().map(|(_, _, r)| r.2).collect::<Vec<_>>())
            .sink(sink);
        let stepper = Stepper::on_disk(&job, Sizes::shards(2), &OnDisk::small(&disk));
        (stepper, results)
    };
    let (stepper, _) = start(first, "b");
    let mut stepper = stepper.unwrap();
    for n in 0..5 {
        feed.push(0, (0, n, n as u64));
    }
    stepper.until_idle().unwrap();
    let before = stepper.checkpoints().completed;
    while stepper.checkpoints().completed == before {
        stepper.checkpoint();
        stepper.advance_clock(2.millis());
        stepper.until_idle().unwrap();
    }
    // The last one waits until the watermark has passed it.
    assert_eq!(stepper.counters().dropped_matches, 2);
    drop(stepper);
    let refused = start(feed.source(), "c").0.err().unwrap().to_string();
    assert!(refused.contains("of another pattern"), "{refused}");
    let (stepper, results) = start(feed.source(), "b");
    let mut stepper = stepper.unwrap();
    assert_eq!(stepper.from().unwrap().1.counters.dropped_matches, 2);
    feed.push(0, (0, 7, 9));
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(results.take(), [[3, 9], [4, 9]]);
}

/// Once nothing of the old one is left a job goes on with another pattern.
#[test]
fn a_pattern_may_change_when_nothing_is_left_of_the_old_one() {
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let (feed, first) = feed::<Record>(1);
    let start = |source, last: &str| {
        let (results, sink) = collect();
        let job = Job::new("changes");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        let pattern = Pattern::begin("a")
            .where_(|r: &Record| r.2 == 1)
            .followed_by(last)
            .where_(|r: &Record| r.2 == 9)
            .within(10.seconds());
        job.source(source)
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .pattern(pattern)
            .uid("pattern")
            .select(|m| m.events().map(|(_, _, r)| r.1).collect::<Vec<_>>())
            .sink(sink);
        let stepper = Stepper::on_disk(&job, Sizes::shards(2), &OnDisk::small(&disk));
        (stepper, results)
    };
    let checkpoint = |stepper: &mut Stepper| {
        stepper.until_idle().unwrap();
        let before = stepper.checkpoints().completed;
        while stepper.checkpoints().completed == before {
            stepper.checkpoint();
            stepper.advance_clock(2.millis());
            stepper.until_idle().unwrap();
        }
    };
    let mut stepper = start(first, "b").0.unwrap();
    for key in 0..20 {
        feed.push(0, (key, 1, 1));
    }
    feed.push(0, (30, 5, 0));
    checkpoint(&mut stepper);
    drop(stepper);
    let refused = start(feed.source(), "c").0.err().unwrap().to_string();
    assert!(refused.contains("of another pattern"), "{refused}");
    let mut stepper = start(feed.source(), "b").0.unwrap();
    feed.push(0, (30, 100, 0));
    checkpoint(&mut stepper);
    drop(stepper);
    let (stepper, results) = start(feed.source(), "c");
    let mut stepper = stepper.unwrap();
    for record in [(3, 200, 1), (3, 201, 9)] {
        feed.push(0, record);
    }
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(results.take(), [[200, 201]]);
}

/// What time completes ties with what other keys' time completes, whether the watermark told of it or the key's next event.
#[test]
fn ties_of_what_time_completes_depend_on_no_interleaving() {
    let order = |in_one_go: bool| {
        let (feed, source) = feed::<(u8, i64)>(1);
        let alone = Pattern::begin("one")
            .where_(|e: &(u8, i64)| e.1 == 10)
            .not_followed_by("other")
            .where_(|e| e.1 < 30)
            .within(20.seconds());
        let (results, sink) = collect();
        let job = Job::new("alone");
        job.source(source)
            .event_time(|e| EventTime::from_seconds(e.1), Watermarks::monotonous())
            .key_by(|e| e.0)
            .pattern(alone)
            .select(|m| m.events().next().map_or(0, |(_, _, e)| e.0))
            .key_by(|_| 0u8)
            .in_event_time_order()
            .fold(vec![], |told: &mut Vec<u8>, key| told.push(*key))
            .sink(sink);
        let mut stepper = Stepper::new(&job, 1).unwrap();
        (0..12u8).for_each(|key| feed.push(0, (key, 10)));
        if !in_one_go {
            stepper.until_idle().unwrap();
            feed.push(0, (100, 35));
            stepper.until_idle().unwrap();
        }
        // Every second key goes on.
        (0..12u8).step_by(2).for_each(|key| feed.push(0, (key, 50)));
        feed.push(0, (100, 90));
        drop(feed);
        stepper.run().unwrap();
        results.take().pop().map(|told| told.value)
    };
    let told = order(true);
    assert_eq!(told.as_ref().map(Vec::len), Some(12));
    assert_eq!(told, order(false));
}
