//! Process functions: states, timers and times to live against models that keep everything and recompute.

use crate::order::model;
use crate::{Record, Run, config, partitions, run, runs, time};
use pelton::process::{Ttl, aggregating, list, map, reducing, value};
use pelton::testing::{Stepper, collect, feed};
use pelton::{BuildError, EventTime, Job, Spans, Tumbling, Watermarks, sources};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// What a function says: key, time in seconds, what.
type Told = (u8, i64, String);

fn second(time: EventTime) -> i64 {
    time.micros() / 1_000_000
}

/// The functions of the job below over one key's records, with timers between: a count, and how many records ago each of
/// the last numbers was seen.
#[derive(Default)]
struct Naive {
    count: u64,
    timers: BTreeSet<i64>,
    told: Vec<(i64, String)>,
}

impl Naive {
    fn fire_below(&mut self, time: i64) {
        while let Some(&at) = self.timers.first().filter(|&&at| at < time) {
            self.timers.pop_first();
            self.told.push((at, format!("timer {}", self.count)));
            if at % 4 == 0 {
                self.timers.insert(at + 3);
            }
        }
    }

    fn record(&mut self, r: &Record) {
        self.fire_below(r.1);
        self.count += 1;
        self.told.push((r.1, format!("{} {}", r.2, self.count)));
        // One that has passed is now.
        self.timers.insert((r.1 + r.2 as i64 % 9 - 2).max(r.1));
        if r.2.is_multiple_of(3) {
            self.timers.remove(&(r.1 + 4));
        }
    }
}

fn told(records: &[Record]) -> Vec<Told> {
    let mut keys: BTreeMap<u8, Naive> = BTreeMap::new();
    for r in records {
        keys.entry(r.0).or_default().record(r);
    }
    let mut all = vec![];
    for (key, mut naive) in keys {
        naive.fire_below(i64::MAX);
        all.extend(naive.told.into_iter().map(|(time, what)| (key, time, what)));
    }
    all.sort();
    all
}

proptest! {
    #![proptest_config(config())]

    /// In order every record and timer has one place, on any shards; and what comes out is at its time, which windows behind see.
    #[test]
    fn functions_in_order_have_one_answer(records in partitions(), how in runs(), bound in 0i64..20) {
        let (results, sink) = collect();
        let (windows, window_sink) = collect();
        let (late, late_sink) = collect();
        let job = Job::new("process in order");
        let [one, two] = job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::bounded(bound.seconds()))
            .key_by(|r| r.0)
            .in_event_time_order()
            .process("counts", value::<u64>("count"))
            .on_timer(|at, count, cx| {
                cx.emit((*cx.key(), second(at), format!("timer {}", count.get().unwrap())));
                if second(at) % 4 == 0 {
                    cx.timer_at(at + 3.seconds());
                }
            })
            .each(|r, count, cx| {
                *count.or_default() += 1;
                cx.emit((r.0, r.1, format!("{} {}", r.2, count.get().unwrap())));
                cx.timer_at(cx.time() + (r.2 as i64 % 9 - 2).seconds());
                if r.2.is_multiple_of(3) {
                    cx.delete_timer(cx.time() + 4.seconds());
                }
            })
            .fork();
        one.sink(sink);
        two.key_by(|t| t.0).window(Tumbling::of(1.seconds())).late_to(late_sink).aggregate(|a| a.count()).sink(window_sink);
        let counters = run(&job, how).unwrap();
        prop_assert_eq!(counters.invariant_broken, 0);
        let (in_time, _) = model(&records, bound, 0);
        let expected = told(&in_time);
        let mut results = results.take();
        results.sort();
        prop_assert_eq!(&results, &expected);
        let mut counts: BTreeMap<(u8, i64), u64> = BTreeMap::new();
        for (key, time, _) in &expected {
            *counts.entry((*key, *time)).or_default() += 1;
        }
        prop_assert!(late.take().is_empty(), "a result lies at or above the watermark before it");
        let found: BTreeMap<_, _> = windows.take().into_iter().map(|w| ((w.key, second(w.window.start)), w.value)).collect();
        prop_assert_eq!(found, counts);
    }

    /// What has expired by event time is not there, and the rest is, whenever it is cleaned away.
    #[test]
    fn what_has_expired_is_never_seen(records in partitions(), how in runs(), life in 1i64..20, on_read: bool) {
        let ttl = Ttl::event_time(life.seconds());
        let ttl = if on_read { ttl.refreshed_on_read() } else { ttl };
        let (results, sink) = collect();
        let job = Job::new("expiring");
        let states = (
            value::<u64>("last").ttl(ttl),
            list::<u64>("list").ttl(ttl),
            map::<u64, u64>("map").ttl(ttl),
            reducing("most", |a: &mut u64, b: u64| *a = b.max(*a)).ttl(ttl),
            aggregating("sum", |a| a.sum(|v: &u64| *v)).ttl(ttl),
        );
        job.source(sources::partitions(records.clone()))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .in_event_time_order()
            .process("expiring", states)
            .each(|r, (last, list, map, most, sum), cx| {
                let all: Vec<u64> = list.iter().copied().collect();
                let entries: Vec<_> = map.iter().map(|(k, v)| (*k, *v)).collect();
                cx.emit(format!("{} {:?} {all:?} {entries:?} {:?} {:?}", r.2, last.get(), most.get(), sum.get()));
                if r.2.is_multiple_of(2) {
                    last.set(r.2);
                    most.add(r.2);
                    sum.add(&r.2);
                }
                if r.2.is_multiple_of(3) {
                    list.push(r.2);
                    map.insert(r.2 % 4, r.2);
                }
            })
            .sink(sink);
        run(&job, how).unwrap();
        let (in_time, _) = model(&records, 0, 0);
        let mut results = results.take();
        results.sort();
        prop_assert_eq!(results, expiring(&in_time, life, on_read));
    }
}

/// A key's values with the second at which each was used last.
#[derive(Default)]
struct Expiring {
    last: Option<(u64, i64)>,
    most: Option<(u64, i64)>,
    sum: Option<(u64, i64)>,
    list: Vec<(u64, i64)>,
    map: Vec<(u64, u64, i64)>,
}

fn expiring(records: &[Record], life: i64, on_read: bool) -> Vec<String> {
    let mut keys: BTreeMap<u8, Expiring> = BTreeMap::new();
    let mut all = vec![];
    for r in records {
        let of = keys.entry(r.0).or_default();
        for one in [&mut of.last, &mut of.most, &mut of.sum] {
            *one = one.filter(|(_, at)| r.1 < at + life);
            if let Some((_, at)) = one.as_mut().filter(|_| on_read) {
                *at = r.1;
            }
        }
        of.list.retain(|(_, at)| r.1 < at + life);
        of.map.retain(|(_, _, at)| r.1 < at + life);
        if on_read {
            of.list.iter_mut().for_each(|(_, at)| *at = r.1);
            of.map.iter_mut().for_each(|(_, _, at)| *at = r.1);
        }
        let list: Vec<_> = of.list.iter().map(|l| l.0).collect();
        let map: Vec<_> = of.map.iter().map(|m| (m.0, m.1)).collect();
        let first = |v: &Option<(u64, i64)>| v.map(|v| v.0);
        all.push(format!(
            "{} {:?} {list:?} {map:?} {:?} {:?}",
            r.2,
            first(&of.last),
            first(&of.most),
            first(&of.sum)
        ));
        if r.2.is_multiple_of(2) {
            of.last = Some((r.2, r.1));
            of.most = Some((of.most.map_or(r.2, |m| m.0.max(r.2)), r.1));
            of.sum = Some((of.sum.map_or(r.2, |s| s.0 + r.2), r.1));
        }
        if r.2.is_multiple_of(3) {
            of.list.push((r.2, r.1));
            match of.map.iter_mut().find(|m| m.0 == r.2 % 4) {
                Some(entry) => *entry = (entry.0, r.2, r.1),
                None => of.map.push((r.2 % 4, r.2, r.1)),
            }
        }
    }
    all.sort();
    all
}

#[test]
fn records_that_are_behind_come_and_say_so() {
    let (results, sink) = collect();
    let job = Job::new("behind");
    job.source(sources::items([(1u8, 10i64, 0u64), (1, 4, 1), (1, 10, 2)]))
        .event_time(time, Watermarks::bounded(2.seconds()))
        .key_by(|r| r.0)
        .process("behind", value::<u64>("count"))
        .each(|r, count, cx| {
            *count.or_default() += 1;
            cx.emit((r.2, cx.behind().map(second), *count.get().unwrap()));
        })
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.run().unwrap();
    assert_eq!(
        results.take(),
        [(0, None, 1), (1, Some(8), 2), (2, None, 3)]
    );
    assert_eq!(stepper.counters().late, 0);
}

/// Adds to a list, and puts into a map; a number below 0 clears.
type Ops<L, M> = (fn(&mut L, i64), fn(&mut M, i64, u64));

/// What a function does with its list and its map: the first number says what.
fn apply<L, M>(r: &Record, list: &mut L, map: &mut M, ops: Ops<L, M>) {
    let n = (r.2 / 8 % 700) as i64;
    match r.2 % 8 {
        // Hundreds of each, and then more.
        0 | 1 => (0..n).for_each(|i| (ops.0)(list, i)),
        2 | 3 => (0..n).for_each(|i| (ops.1)(map, i * 7 % 500, r.2)),
        4 => (ops.0)(list, -1),
        5 => (ops.1)(map, -1, 0),
        // Cleared, and in the same call there is something again.
        6 => {
            (ops.0)(list, -1);
            (0..n % 5).for_each(|i| (ops.0)(list, i));
        }
        _ => {
            (ops.1)(map, -1, 0);
            (0..n % 5).for_each(|i| (ops.1)(map, i * 100, r.2));
        }
    }
}

proptest! {
    #![proptest_config(config())]

    /// Lists and maps of hundreds, cleared and filled again in the call of one record, beside those of the standard library.
    #[test]
    fn what_is_cleared_is_gone(numbers in proptest::collection::vec((0u8..3, 0u64..5600), 1..60), how in runs()) {
        let (results, sink) = collect();
        let job = Job::new("clearing");
        let records: Vec<Record> = numbers.iter().map(|&(key, n)| (key, 0, n)).collect();
        job.source(sources::items(records.clone()))
            .key_by(|r| r.0)
            .process("clearing", (list::<i64>("list"), map::<i64, u64>("map")))
            .each(|r, (list, map), cx| {
                apply(
                    r,
                    list,
                    map,
                    (
                        |list, i| if i < 0 { list.clear() } else { list.push(i) },
                        |map, i, n| if i < 0 { map.clear() } else { map.insert(i, n) },
                    ),
                );
                let entries: Vec<_> = map.iter().map(|(k, v)| (*k, *v)).collect();
                cx.emit((r.0, list.iter().copied().collect::<Vec<_>>(), entries));
            })
            .sink(sink);
        run(&job, how).unwrap();
        let mut expected = vec![];
        for key in 0..3 {
            let (mut list, mut map) = (vec![], Vec::<(i64, u64)>::new());
            for r in records.iter().filter(|r| r.0 == key) {
                apply(
                    r,
                    &mut list,
                    &mut map,
                    (
                        |list, i| if i < 0 { list.clear() } else { list.push(i) },
                        |map, i, n| match map.iter_mut().find(|e| e.0 == i) {
                            _ if i < 0 => map.clear(),
                            Some(entry) => entry.1 = n,
                            None => map.push((i, n)),
                        },
                    ),
                );
                expected.push((key, list.clone(), map.clone()));
            }
        }
        let mut told = results.take();
        // Of one key they come in order.
        told.sort_by_key(|t| t.0);
        prop_assert_eq!(told, expected);
    }
}

/// The watermark is far behind, so nothing is cleaned away in between.
#[test]
fn an_entry_that_has_expired_is_a_new_one_when_it_comes_again() {
    let (results, sink) = collect();
    let job = Job::new("again");
    let records = [(1u8, 0i64, 1u64), (1, 5, 2), (1, 12, 1), (1, 13, 2)];
    job.source(sources::items(records))
        .event_time(time, Watermarks::bounded(1.hours()))
        .key_by(|r| r.0)
        .process(
            "again",
            map::<u64, u64>("map").ttl(Ttl::event_time(10.seconds())),
        )
        .each(|r, map, cx| {
            *map.or_default(r.2) += 1;
            cx.emit(map.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
        })
        .sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let expected: [&[(u64, u64)]; 4] = [
        &[(1, 1)],
        &[(1, 1), (2, 1)],
        &[(2, 1), (1, 1)],
        &[(2, 2), (1, 1)],
    ];
    assert_eq!(results.take(), expected);
}

/// Timers in the past, in the order of arrival: set for M, one a key, told by the next watermark, not late, and deleted by the time that they got.
#[test]
fn a_timer_in_the_past_fires_at_the_next_watermark() {
    for shards in [1, 3] {
        let (feed, source) = feed::<Record>(1);
        let (fired, sink) = collect();
        let (set, set_sink) = collect();
        let (counts, count_sink) = collect();
        let (late, late_sink) = collect();
        let job = Job::new("past");
        let (timers, times) = job
            .source(source)
            .event_time(time, Watermarks::bounded(10.seconds()))
            .key_by(|r| r.0)
            .process("past", value::<u64>("chained"))
            .on_timer(|at, chained, cx| {
                cx.emit(Ok((*cx.key(), second(at), second(cx.time()))));
                if chained.take().is_some() {
                    // In the past of a timer: that timer's time, behind it.
                    let next = cx.timer_at(at - 5.seconds());
                    cx.emit(Err((2, second(next))));
                }
            })
            .each(|r, chained, cx| match r.2 {
                0 => {}
                1 => {
                    let one = cx.timer_at(cx.time() - 100.seconds());
                    let two = cx.timer_at(cx.time() - 50.seconds());
                    assert_eq!(one, two, "both have passed");
                    assert!(cx.watermark() <= one);
                    cx.emit(Err((1, second(one))));
                }
                2 => {
                    let set = cx.timer_at(EventTime::from_seconds(0));
                    // Not by the time that it was asked for.
                    cx.delete_timer(EventTime::from_seconds(0));
                    cx.delete_timer(set);
                }
                _ => {
                    chained.set(1);
                    cx.timer_at(EventTime::from_seconds(-7));
                    cx.delete_timer(EventTime::from_seconds(-7));
                }
            })
            .side_output(|told: Result<(u8, i64, i64), (u8, i64)>| told);
        let [timers, windows] = timers.fork();
        timers.sink(sink);
        times.sink(set_sink);
        windows
            .key_by(|t| t.0)
            .window(Tumbling::of(1.seconds()))
            .late_to(late_sink)
            .aggregate(|a| a.count())
            .sink(count_sink);
        let mut stepper = Stepper::new(&job, shards).unwrap();
        let mut push = |record: Record| {
            feed.push(0, record);
            stepper.until_idle().unwrap();
        };
        // M = 50.
        push((9, 60, 0));
        push((1, 55, 1));
        push((2, 55, 2));
        push((3, 55, 3));
        assert_eq!(set.take(), [(1, 50)]);
        assert_eq!(fired.take(), [], "M has not risen since");
        // M = 51.
        push((9, 61, 0));
        let mut all = fired.take();
        all.sort_unstable();
        assert_eq!(all, [(1, 50, 50), (3, 50, 50), (3, 50, 50)]);
        assert_eq!(set.take(), [(2, 50)], "behind the timer that set it");
        drop(feed);
        stepper.run().unwrap();
        assert_eq!(late.take(), []);
        assert_eq!(counts.take().iter().map(|w| w.value).sum::<u64>(), 3);
        assert_eq!(stepper.counters().invariant_broken, 0);
    }
}

/// A wait below 0 is none, and a deleted timer of the clock that has fired is not there.
#[test]
fn a_timer_in_the_past_of_the_clock_is_due() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("past of the clock");
    job.source(source)
        .key_by(|r| r.0)
        .process("due", ())
        .on_clock_timer(|at, _, cx| {
            cx.delete_clock_timer(at);
            cx.emit(at == cx.clock());
        })
        .each(|_, _, cx| {
            assert_eq!(cx.clock_timer_after((-5).seconds()), cx.clock());
        })
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, (1, 0, 0));
    stepper.until_idle().unwrap();
    assert_eq!(results.take(), [true]);
}

/// A time to live and timers by the clock of the stepper.
#[test]
fn the_clock_fires_and_expires() {
    for shards in [1, 3] {
        let (feed, source) = feed::<Record>(1);
        let (results, sink) = collect();
        let job = Job::new("clock");
        job.source(source)
            .key_by(|r| r.0)
            .process(
                "clock",
                value::<u64>("seen").ttl(Ttl::processing_time(10.seconds())),
            )
            .on_clock_timer(|_, seen, cx| cx.emit(format!("{} timer {:?}", cx.key(), seen.get())))
            .each(|r, seen, cx| {
                cx.emit(format!("{} {:?}", r.0, seen.get()));
                seen.set(r.2);
                let first = cx.clock_timer_after(4.seconds());
                if r.2 == 2 {
                    cx.delete_clock_timer(first);
                    cx.clock_timer_after(11.seconds());
                }
            })
            .sink(sink);
        let mut stepper = Stepper::new(&job, shards).unwrap();
        let seen = |stepper: &mut Stepper, record: Option<Record>, seconds: i64| {
            stepper.advance_clock(seconds.seconds());
            stepper.until_idle().unwrap();
            record.into_iter().for_each(|r| feed.push(0, r));
            stepper.until_idle().unwrap();
            results.take()
        };
        assert_eq!(seen(&mut stepper, Some((7, 0, 1)), 0), ["7 None"]);
        assert_eq!(seen(&mut stepper, None, 3), [""; 0]);
        assert_eq!(seen(&mut stepper, None, 1), ["7 timer Some(1)"]);
        assert_eq!(seen(&mut stepper, Some((7, 0, 2)), 5), ["7 Some(1)"]);
        assert_eq!(seen(&mut stepper, Some((8, 0, 3)), 9), ["8 None"]);
        // The value of 7 has been gone for a second when its timer fires.
        assert_eq!(seen(&mut stepper, None, 2), ["7 timer None"]);
        assert_eq!(seen(&mut stepper, Some((7, 0, 4)), 1), ["7 None"]);
    }
}

/// As long as a partition has said nothing there is no M: what a timer by the clock tells then has a time all the same, the least.
#[test]
fn what_the_clock_causes_before_there_is_a_watermark_has_a_time() {
    let (feed, source) = feed::<Record>(2);
    let (results, sink) = collect();
    let job = Job::new("no M yet");
    job.source(source)
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .process("late riser", ())
        .on_clock_timer(|_, _, cx| cx.emit((*cx.key(), cx.time())))
        .each(|_, _, cx| {
            cx.clock_timer_after(1.seconds());
        })
        .key_by(|r| r.0)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, (7, 50, 1));
    stepper.until_idle().unwrap();
    stepper.advance_clock(2.seconds());
    stepper.until_idle().unwrap();
    feed.push(1, (7, 60, 1));
    feed.close(0);
    feed.close(1);
    stepper.run().unwrap();
    let windows = results.take();
    assert_eq!(windows.iter().map(|w| w.value).collect::<Vec<_>>(), [1]);
    assert!(windows[0].window.start < EventTime::from_seconds(0));
}

/// Each tick finds the timer due that the last one set. Records come all the same, a frame between two ticks.
#[test]
fn a_timer_that_is_always_due_leaves_time_for_records() {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("always due");
    job.source(source)
        .key_by(|r| r.0)
        .process("due", ())
        .on_clock_timer(|_, _, cx| {
            let next = cx.clock_timer_after(0.seconds());
            assert_eq!(next, cx.clock() + 1.millis());
        })
        .each(|r, _, cx| {
            assert_eq!(cx.clock_timer_after(0.seconds()), cx.clock());
            cx.emit(r.2);
        })
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for n in 0..10 {
        feed.push(0, (7, 0, n));
        for _ in 0..20 {
            for actor in 0..stepper.actors() {
                stepper.advance_clock(2.millis());
                stepper.step(actor).unwrap();
            }
        }
        assert_eq!(results.take(), [n]);
    }
    // With the clock standing still nothing is due in the end.
    stepper.until_idle().unwrap();
}

#[test]
fn the_clock_is_read_by_functions_that_say_so() {
    let (results, sink) = collect();
    let run = |says_so: bool| {
        let job = Job::new("reads the clock");
        let process = job
            .source(sources::items([(1u8, 1i64, 1u64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .in_event_time_order()
            .process("reads", ());
        let process = if says_so { process.by_clock() } else { process };
        process
            .each(|_, _, cx| cx.emit(cx.clock()))
            .sink(sink.clone());
        let text = job.explain();
        let line = text.lines().find(|l| l.contains("'reads'")).unwrap();
        let class = line[line.rfind('[').unwrap()..].to_string();
        let mut stepper = Stepper::new(&job, 1).unwrap();
        stepper.advance_clock(5.seconds());
        (class, stepper.run())
    };
    let (class, ran) = run(true);
    ran.unwrap();
    assert_eq!(class, "[EXEMPT]");
    assert!(results.take()[0] >= EventTime::from_seconds(5));
    let (class, ran) = run(false);
    assert_eq!(class, "[ROWS]");
    let e = ran.unwrap_err().to_string();
    assert!(
        e.contains("process 'reads'") && e.contains("by_clock"),
        "{e}"
    );
}

fn refused(job: &Job) -> BuildError {
    Stepper::new(job, 1).unwrap_err()
}

#[test]
fn what_makes_no_sense_is_refused_when_the_job_is_built() {
    let name = |first: &'static str, second: &'static str| {
        let (_, sink) = collect::<u8>();
        let job = Job::new("names");
        job.source(sources::items([(1u8, 1i64, 1u64)]))
            .key_by(|r| r.0)
            .process("one", (value::<u64>(first), list::<u64>(second)))
            .each(|r, _, cx| cx.emit(r.0))
            .sink(sink);
        refused(&job).to_string()
    };
    let twice = name("same", "same");
    assert!(
        twice.contains("two states named 'same'") && twice.contains("process 'one'"),
        "{twice}"
    );
    assert!(name("a", "timers").contains("cannot be named 'timers'"));
    let (_, sink) = collect::<u8>();
    let job = Job::new("time");
    job.source(sources::items([(1u8, 1i64, 1u64)]))
        .key_by(|r| r.0)
        .process("one", value::<u64>("a").ttl(Ttl::event_time(1.seconds())))
        .each(|r, _, cx| cx.emit(r.0))
        .sink(sink);
    assert!(matches!(refused(&job), BuildError::NoEventTime { .. }));
    let (_, sink) = collect::<u8>();
    let job = Job::new("ttl");
    job.source(sources::items([(1u8, 1i64, 1u64)]))
        .key_by(|r| r.0)
        .process(
            "one",
            value::<u64>("a").ttl(Ttl::processing_time(0.seconds())),
        )
        .each(|r, _, cx| cx.emit(r.0))
        .sink(sink);
    assert!(refused(&job).to_string().contains("not above 0"));
}

#[test]
fn the_class_goes_by_order_and_clock() {
    let (_, sink) = collect::<u8>();
    let explained = |in_order: bool, ttl: Ttl| {
        let job = Job::new("class");
        let keyed = job
            .source(sources::items([(1u8, 1i64, 1u64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0);
        let states = value::<u64>("a").ttl(ttl);
        match in_order {
            true => keyed
                .in_event_time_order()
                .process("one", states)
                .each(|r, _, cx| cx.emit(r.0))
                .sink(sink.clone()),
            false => keyed
                .process("one", states)
                .each(|r, _, cx| cx.emit(r.0))
                .sink(sink.clone()),
        }
        let text = job.explain();
        let line = text.lines().find(|l| l.contains("process 'one'")).unwrap();
        line[line.rfind('[').unwrap()..].to_string()
    };
    let (event, clock) = (
        Ttl::event_time(1.seconds()),
        Ttl::processing_time(1.seconds()),
    );
    assert_eq!(explained(true, event), "[ROWS]");
    assert_eq!(explained(true, clock), "[EXEMPT]");
    assert_eq!(explained(false, event), "[EXEMPT]");
}

#[test]
fn a_timer_without_a_function_names_the_operator() {
    let (_, sink) = collect::<u8>();
    let job = Job::new("timer");
    job.source(sources::items([(1u8, 1i64, 1u64)]))
        .key_by(|r| r.0)
        .process("one", ())
        .each(|r, _, cx| {
            cx.timer_at(EventTime::from_seconds(1));
            cx.emit(r.0);
        })
        .sink(sink);
    let how = Run {
        shards: 1,
        batch_size: 1,
        seed: 1,
    };
    let e = run(&job, how).unwrap_err().to_string();
    assert!(
        e.contains("process 'one'") && e.contains("no `on_timer`"),
        "{e}"
    );
}
