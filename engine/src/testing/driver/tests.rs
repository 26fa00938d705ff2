//! Each test fails if what it is about did nothing: the driver's functions one by one, then random scripts against a model.

use super::*;
use crate::process::{aggregating, list, reducing, value};
use crate::push::DeadLetter;
use crate::window::{Firing, Tumbling};
use crate::{Spans, Watermarks};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// (second, key, value)
type Rec = (i64, u8, i64);
/// (key, start of the window in seconds, sum)
type Row = (u8, i64, i64);

fn at(second: i64) -> EventTime {
    EventTime::from_seconds(second)
}

/// Sums by key and window of ten seconds; what is late goes aside, and so does a record of the second -1: it has no time.
struct Sums {
    t: Driver,
    input: Input<Rec>,
    rows: Output<Row>,
    committed: Output<Row>,
    late: Output<Rec>,
    dead: Output<DeadLetter>,
}

fn sums(mut t: Driver, partitions: usize) -> Sums {
    let input = t.input_of::<Rec>("input", partitions);
    let (rows, committed) = (t.output("rows"), t.committed_output("committed"));
    let (late, dead) = (t.committed_output("late"), t.output("dead"));
    let (i, r, c, l, d) = (
        input.clone(),
        rows.clone(),
        committed.clone(),
        late.clone(),
        dead.clone(),
    );
    t.job(move |job| {
        job.dead_letters_to(d.sink());
        let time = |r: &Rec| (r.0 >= 0).then(|| at(r.0));
        let [shown, kept] = job
            .source(i.source())
            .event_time(time, Watermarks::bounded(2.seconds()))
            .uid("times")
            .key_by(|r| r.1)
            .window(Tumbling::of(10.seconds()))
            .late_to(l.sink())
            .aggregate(|a| a.sum(|r| r.2))
            .uid("sums")
            .map(|w| {
                assert_eq!(w.firing, Firing::OnTime);
                (w.key, w.window.start.micros() / 1_000_000, w.value)
            })
            .fork();
        shown.sink(r.sink());
        kept.sink(c.sink());
    })
    .unwrap();
    Sums {
        t,
        input,
        rows,
        committed,
        late,
        dead,
    }
}

#[test]
fn records_go_in_and_results_come_out_on_any_number_of_shards() {
    for shards in [1, 2, 3, 8] {
        let mut s = sums(Driver::new().shards(shards), 1);
        s.input.push_all([(1, 7, 10), (2, 8, 20), (3, 7, 30)]);
        s.t.settle().unwrap();
        assert_eq!(s.rows.take(), [], "no window has ended");
        s.input.push((12, 7, 1));
        s.t.settle().unwrap();
        let mut rows = s.rows.take_timed();
        rows.sort_unstable();
        let end = at(10) - Span::from_micros(1);
        assert_eq!(rows, [((7, 0, 40), end), ((8, 0, 20), end)]);
        assert_eq!(s.rows.take(), [], "what was taken is gone");
        s.input.end();
        assert!(!s.t.is_over());
        s.t.settle().unwrap();
        assert!(s.t.is_over());
        assert_eq!(s.rows.take(), [(7, 10, 1)]);
        assert_eq!(s.committed.take().len(), 3, "the last checkpoint shows all");
        assert_eq!(s.t.counters().unwrap().records_in, 4);
    }
}

#[test]
fn a_watermark_comes_without_a_record_and_makes_others_late() {
    let mut s = sums(Driver::new().shards(2), 1);
    s.input.push((1, 7, 10));
    s.t.advance_watermark(at(9)).unwrap();
    assert_eq!(s.rows.take(), []);
    assert_eq!(s.t.watermark("sums").unwrap(), Some(at(9)));
    s.t.advance_watermark(at(10)).unwrap();
    assert_eq!(s.rows.take(), [(7, 0, 10)]);
    assert_eq!(s.t.watermark("times").unwrap(), None);
    assert_eq!(s.t.watermark("nobody").unwrap(), None);
    s.t.advance_watermark(at(3)).unwrap();
    assert_eq!(s.t.watermark("sums").unwrap(), Some(at(10)), "never back");
    s.input.push((4, 7, 1));
    s.t.settle().unwrap();
    s.t.checkpoint().unwrap();
    assert_eq!(s.late.take(), [(4, 7, 1)]);
    let counters = s.t.counters().unwrap();
    assert_eq!((counters.late, counters.behind), (1, 1));
    assert_eq!(counters.invariant_broken, 0);
}

/// In a portion that is read at once, a mark counts for what lies behind it and for nothing before it.
#[test]
fn a_watermark_has_its_place_among_the_records() {
    let mut s = sums(Driver::new(), 1);
    s.input.push((1, 7, 10));
    s.input.advance_watermark(at(10));
    s.input.push_all([(2, 7, 100), (11, 7, 1_000)]);
    s.input.advance_watermark(at(20));
    s.input.advance_watermark(at(21));
    s.t.checkpoint().unwrap();
    assert_eq!(s.rows.take(), [(7, 0, 10), (7, 10, 1_000)]);
    assert_eq!(s.late.take(), [(2, 7, 100)]);
    assert_eq!(s.t.watermark("sums").unwrap(), Some(at(21)));
}

#[test]
fn partitions_have_watermarks_of_their_own_and_end_alone() {
    let mut s = sums(Driver::new().shards(2), 3);
    s.input.push_to(0, (1, 7, 1));
    s.input.push_to(1, (2, 7, 2));
    s.input.advance_watermark_of(0, at(30));
    s.input.advance_watermark_of(1, at(20));
    s.t.settle().unwrap();
    assert_eq!(s.rows.take(), [], "the third holds it back");
    s.input.end_partition(2);
    s.t.settle().unwrap();
    assert_eq!(s.rows.take(), [(7, 0, 3)]);
    assert_eq!(s.t.watermark("sums").unwrap(), Some(at(20)));
}

#[test]
fn what_has_no_time_is_a_dead_letter_with_the_input_s_name() {
    let mut s = sums(Driver::new(), 1);
    s.input.push_all([(1, 7, 10), (-1, 7, 10)]);
    s.t.settle().unwrap();
    let dead = s.dead.take();
    assert_eq!((dead.len(), dead[0].offset), (1, 1));
    assert_eq!(s.t.counters().unwrap().malformed, 1);
}

/// Without a checkpoint all is read again; with one, what lies behind it. What has been shown comes again where it is computed
/// again, and what is committed does not.
#[test]
fn a_crash_in_the_middle_of_a_window() {
    for (checkpoints, after) in [(false, 1), (true, 1), (true, 3)] {
        let mut s = sums(Driver::new().shards(2), 2);
        s.input.push_to(0, (1, 7, 1));
        s.input.push_to(1, (12, 7, 5));
        s.input.push_to(0, (14, 7, 6));
        s.t.settle().unwrap();
        assert_eq!(s.rows.take(), [(7, 0, 1)]);
        if checkpoints {
            s.t.checkpoint().unwrap();
            assert_eq!(s.committed.take(), [(7, 0, 1)]);
        }
        s.input.push_to(0, (15, 7, 7));
        s.t.settle().unwrap();
        s.t.crash_and_restore_on(after).unwrap();
        let sizes = s.t.state_sizes().unwrap();
        let entries: u64 = sizes.iter().map(|size| size.entries).sum();
        assert_eq!(entries > 0, checkpoints, "{sizes:?}");
        s.t.settle().unwrap();
        let again = [(7, 0, 1)];
        assert_eq!(s.rows.take(), if checkpoints { &[] } else { &again[..] });
        s.t.advance_watermark(at(20)).unwrap();
        assert_eq!(s.rows.take(), [(7, 10, 18)]);
        assert_eq!(s.committed.take(), []);
        s.t.checkpoint().unwrap();
        let first = (!checkpoints).then_some((7, 0, 1));
        let all: Vec<Row> = first.into_iter().chain([(7, 10, 18)]).collect();
        assert_eq!(s.committed.take(), all);
        assert_eq!(s.t.counters().unwrap().records_in, 4);
    }
}

/// A mark is part of what is read: it is in the checkpoint, or told again.
#[test]
fn a_watermark_survives_a_crash() {
    for checkpoints in [false, true] {
        let mut s = sums(Driver::new(), 1);
        s.input.push((1, 7, 1));
        s.t.advance_watermark(at(10)).unwrap();
        assert_eq!(s.rows.take(), [(7, 0, 1)]);
        if checkpoints {
            s.t.checkpoint().unwrap();
        }
        s.t.crash_and_restore().unwrap();
        s.input.push((2, 7, 2));
        s.t.settle().unwrap();
        s.t.checkpoint().unwrap();
        assert_eq!(s.late.take(), [(2, 7, 2)]);
        assert_eq!(s.rows.take().len(), usize::from(!checkpoints));
    }
}

/// A process function with all kinds of state and timer, telling what it does.
fn process(t: &mut Driver) -> (Input<Rec>, Output<(u8, String)>) {
    let (input, told) = (t.input::<Rec>("input"), t.output("told"));
    let (i, o) = (input.clone(), told.clone());
    let states = || {
        (
            value::<i64>("last"),
            reducing("sum", |a: &mut i64, b: i64| *a += b),
            list::<i64>("all"),
        )
    };
    t.job(move |job| {
        job.source(i.source())
            .event_time(|r| at(r.0), Watermarks::monotonous())
            .key_by(|r| r.1)
            .process("watch", states())
            .on_timer(|time, _, cx| {
                let key = *cx.key();
                cx.emit((key, format!("timer {}", time.micros() / 1_000_000)));
            })
            .on_clock_timer(|_, _, cx| {
                let (key, clock) = (*cx.key(), cx.clock());
                cx.emit((key, format!("clock {}", clock.micros())));
            })
            .each(|r, (last, sum, all), cx| {
                last.set(r.2);
                sum.add(r.2);
                all.push(r.2);
                cx.timer_at(at(r.0 + 5));
                cx.clock_timer_after(r.2.seconds());
            })
            .sink(o.sink());
    })
    .unwrap();
    (input, told)
}

/// Whether the clock is to be looked at not long before a time, which is when something is due.
fn is_soon(t: &mut Driver, due: EventTime) -> bool {
    let (now, next) = (t.clock(), t.next_by_clock().unwrap());
    next.is_some_and(|next| next > now && next <= due)
}

/// One timer sets the next: each fires at its time, the first thousand at the least.
#[test]
fn timers_that_come_due_on_the_way_fire_at_their_times() {
    let mut t = Driver::new();
    let (input, told) = (t.input::<u8>("input"), t.output::<i64>("told"));
    let (i, o) = (input.clone(), told.clone());
    t.job(move |job| {
        job.source(i.source())
            .key_by(|k| *k)
            .process("beat", value::<u64>("n"))
            .on_clock_timer(|_, _, cx| {
                cx.clock_timer_after(7.seconds());
                cx.emit(cx.clock().micros());
            })
            .each(|_, _, cx| {
                cx.clock_timer_after(7.seconds());
            })
            .sink(o.sink());
    })
    .unwrap();
    input.push(1);
    t.advance_clock(700.seconds()).unwrap();
    let beats = told.take();
    let due: Vec<i64> = (1..=100).map(|n| n * 7_000_000).collect();
    assert_eq!(beats, due);
    t.advance_clock(30.hours()).unwrap();
    let beats = told.take().len();
    assert!((1_000..=30 * 3600 / 7).contains(&beats), "{beats}");
}

#[test]
fn the_clock_stops_for_each_timer_and_goes_on_over_a_crash() {
    let mut t = Driver::new().shards(2);
    let (input, told) = process(&mut t);
    assert_eq!(t.next_by_clock().unwrap(), None);
    t.advance_clock(1.seconds()).unwrap();
    input.push_all([(1, 7, 4), (1, 8, 6), (1, 9, 60)]);
    t.settle().unwrap();
    assert!(is_soon(&mut t, at(5)));
    t.checkpoint().unwrap();
    t.advance_clock(3.seconds()).unwrap();
    assert_eq!(told.take(), []);
    t.crash_and_restore_on(3).unwrap();
    assert_eq!(t.clock(), at(4));
    t.settle().unwrap();
    assert!(is_soon(&mut t, at(5)));
    t.advance_clock(10.seconds()).unwrap();
    let fired = [(7, "clock 5000000"), (8, "clock 7000000")];
    assert_eq!(told.take(), fired.map(|(k, s)| (k, s.to_string())));
    assert_eq!(t.clock(), at(14));
    t.advance_clock(Span::from_micros(-5)).unwrap();
    assert_eq!(t.clock(), at(14));
    assert!(is_soon(&mut t, at(61)));
}

#[test]
fn timers_of_event_time_are_counted_and_fire() {
    let mut t = Driver::new();
    let (input, told) = process(&mut t);
    input.push_all([(1, 7, 4), (2, 7, 4), (2, 8, 4)]);
    t.settle().unwrap();
    // One a key and time: two of the three records of the clock's are set for the same.
    assert_eq!(t.timers("watch").unwrap(), 3 + 2);
    assert_eq!(t.timers("nobody").unwrap(), 0);
    t.advance_watermark(at(6)).unwrap();
    assert_eq!(told.take(), [], "records at 6 s may come");
    t.advance_watermark(at(7)).unwrap();
    assert_eq!(told.take(), [(7, "timer 6".to_string())]);
    assert_eq!(t.timers("watch").unwrap(), 4);
}

#[test]
fn the_value_of_a_key_is_read() {
    let mut t = Driver::new().shards(3);
    let (input, _) = process(&mut t);
    assert_eq!(t.value_of::<u8, i64>("watch", "last", &7), Ok(None));
    input.push_all([(1, 7, 4), (2, 7, 5), (2, 8, 6)]);
    assert_eq!(t.value_of("watch", "last", &7u8), Ok(Some(5i64)));
    assert_eq!(t.value_of("watch", "sum", &7u8), Ok(Some(9i64)));
    assert_eq!(t.value_of("watch", "last", &8u8), Ok(Some(6i64)));
    assert_eq!(t.value_of::<u8, i64>("watch", "last", &9), Ok(None));
    t.crash_and_restore_on(2).unwrap();
    input.push((3, 7, 1));
    assert_eq!(t.value_of("watch", "last", &7u8), Ok(Some(1i64)));
    assert_eq!(t.value_of("watch", "sum", &7u8), Ok(Some(10i64)));
    let refused = |r: Result<Option<i64>, JobError>| r.unwrap_err().to_string();
    let none = refused(t.value_of("watch", "lost", &7u8));
    assert!(none.contains("state 'lost' of 'watch'"), "{none}");
    assert!(none.contains("watch/last"), "what there is: {none}");
    let other = refused(t.value_of("watch", "last", &7u64));
    assert!(other.contains("u64") && other.contains("u8"), "{other}");
    let many = refused(t.value_of("watch", "all", &7u8));
    assert!(many.contains("one value a key"), "{many}");
    let engine = refused(t.value_of("watch", "timers", &7u8));
    assert!(engine.contains("one value a key"), "{engine}");
}

#[test]
fn an_aggregating_state_is_read_as_what_it_keeps() {
    let mut t = Driver::new();
    let (input, told) = (t.input::<Rec>("input"), t.output::<i64>("told"));
    let (i, o) = (input.clone(), told.clone());
    t.job(move |job| {
        job.source(i.source())
            .key_by(|r| r.1)
            .process("count", aggregating("n", |a| a.count()))
            .each(|r: &Rec, n, _| n.add(r))
            .sink(o.sink());
    })
    .unwrap();
    input.push_all([(1, 7, 4), (2, 7, 4), (2, 8, 4)]);
    assert_eq!(t.value_of("count", "n", &7u8), Ok(Some(2u64)));
}

#[test]
fn sizes_tell_what_is_kept() {
    let mut t = Driver::new().shards(2);
    let (input, _) = process(&mut t);
    let of = |t: &mut Driver, state: &str| {
        let sizes = t.state_sizes().unwrap();
        let mut its = sizes.into_iter().filter(|size| size.state == state);
        let size = its.next().unwrap();
        assert!(size.operator.contains("'watch'"), "{size:?}");
        (size.entries, size.bytes)
    };
    assert_eq!(of(&mut t, "last").0, 0);
    assert_eq!(of(&mut t, "all"), (0, 0));
    input.push_all([(1, 7, 4), (2, 7, 5), (2, 8, 6)]);
    t.settle().unwrap();
    assert_eq!((of(&mut t, "last").0, of(&mut t, "keys").0), (2, 2));
    let (all, bytes) = of(&mut t, "all");
    assert_eq!((all, bytes > 0), (3, true));
}

#[test]
fn silence_is_by_the_clock() {
    let mut t = Driver::new().shards(2);
    let (input, rows) = (t.input_of::<Rec>("input", 2), t.output("rows"));
    let (i, o) = (input.clone(), rows.clone());
    t.job(move |job| {
        let times = Watermarks::monotonous().idle_after(5.seconds());
        job.source(i.source())
            .event_time(|r| at(r.0), times)
            .key_by(|r| r.1)
            .window(Tumbling::of(10.seconds()))
            .aggregate(|a| a.count())
            .map(|w| w.value)
            .sink(o.sink());
    })
    .unwrap();
    input.push_to(0, (1, 7, 0));
    input.push_to(1, (2, 7, 0));
    t.advance_clock(4.seconds()).unwrap();
    input.push_to(0, (12, 7, 0));
    t.advance_clock(500.millis()).unwrap();
    assert!(rows.take().is_empty(), "the second partition is awaited");
    t.advance_clock(1.seconds()).unwrap();
    assert_eq!(rows.take(), [2], "it is silent");
    // Its own word ends the silence as a record does, and holds the watermark back again.
    input.advance_watermark_of(1, at(13));
    input.push_to(0, (40, 7, 0));
    t.settle().unwrap();
    assert!(rows.take().is_empty());
    input.advance_watermark_of(1, at(20));
    t.settle().unwrap();
    assert_eq!(rows.take(), [1]);
}

#[test]
fn a_job_that_fails_says_so_and_can_be_started_again() {
    let mut t = Driver::new();
    let (input, rows) = (t.input::<i64>("input"), t.committed_output("rows"));
    let (i, o) = (input.clone(), rows.clone());
    let panics = Arc::new(AtomicU32::new(1));
    t.job(move |job| {
        let panics = panics.clone();
        job.source(i.source())
            .map(move |n| {
                let mends = n != 3 || panics.swap(0, Relaxed) == 0;
                assert!(mends, "this panic is part of a test");
                n
            })
            .uid("fragile")
            .sink(o.sink());
    })
    .unwrap();
    input.push_all([1, 2]);
    t.checkpoint().unwrap();
    input.push_all([3, 4]);
    let failed = t.settle().unwrap_err();
    let told = failed.to_string();
    assert_eq!(failed.code(), "PLT-0101");
    assert!(
        told.contains("'fragile'") && told.contains("source input, partition 0, offset 2"),
        "{told}"
    );
    assert_eq!(t.settle(), Err(failed.clone()), "it stays so");
    assert_eq!(t.checkpoint(), Err(failed.clone()));
    assert_eq!(t.counters(), Err(failed.clone()));
    assert_eq!(t.advance_clock(1.seconds()), Err(failed));
    t.crash_and_restore().unwrap();
    t.checkpoint().unwrap();
    assert_eq!(rows.take(), [1, 2, 3, 4]);
}

#[test]
fn what_is_no_job_is_refused() {
    let mut t = Driver::default();
    let none = t.settle().unwrap_err();
    assert_eq!(none.code(), "PLT-0009");
    assert_eq!(t.crash_and_restore(), Err(none.clone()));
    assert_eq!(t.state_sizes(), Err(none));
    let refused = t.job(|_| {}).unwrap_err();
    assert_eq!(refused.code(), "PLT-0003");
    assert_eq!(t.settle(), Err(refused));
    let wrong = |job: &Job| job.checkpoints(Checkpointing::in_folder("f").every(Span::ZERO));
    let refused = t.job(wrong).unwrap_err().to_string();
    assert!(refused.contains("interval"), "{refused}");
    // The interval of the job's own is not looked at, and its folder is not made.
    let (i, o) = (t.input::<u8>("i"), t.committed_output("o"));
    let (input, rows) = (i.clone(), o.clone());
    t.job(move |job| {
        job.checkpoints(Checkpointing::in_folder("no such folder").every(1.seconds()));
        job.source(i.source()).sink(o.sink());
    })
    .unwrap();
    input.push(1);
    t.advance_clock(1.hours()).unwrap();
    assert!(rows.take().is_empty());
    t.checkpoint().unwrap();
    assert_eq!(rows.take(), [1]);
    assert!(!std::path::Path::new("no such folder").exists());
}

/// The job is changed between two lives: the new one goes on from the old one's checkpoint.
#[test]
fn another_version_goes_on() {
    let mut t = Driver::new();
    let (input, rows) = (t.input::<i64>("input"), t.output("rows"));
    let version = |factor: i64| {
        let (i, o) = (input.clone(), rows.clone());
        move |job: &Job| {
            job.source(i.source())
                .uid("in")
                .key_by(|_| 0u8)
                .reduce(|a, b| *a += b)
                .uid("sum")
                .map(move |s| s.value * factor)
                .sink(o.sink());
        }
    };
    t.job(version(1)).unwrap();
    input.push_all([1, 2]);
    t.checkpoint().unwrap();
    t.job(version(100)).unwrap();
    input.push(3);
    t.settle().unwrap();
    assert_eq!(rows.take(), [1, 3, 600]);
}

#[derive(Clone, Debug)]
enum Do {
    Push(usize, Rec),
    Mark(usize, i64),
    Settle,
    Checkpoint,
    Crash(usize),
    Clock(i64),
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        8 => (0usize..2, (0i64..60, 0u8..4, 1i64..100)).prop_map(|(p, r)| Do::Push(p, r)),
        2 => (0usize..2, 0i64..50).prop_map(|(p, t)| Do::Mark(p, t)),
        3 => Just(Do::Settle),
        1 => Just(Do::Checkpoint),
        1 => prop::sample::select(vec![1usize, 2, 3, 8]).prop_map(Do::Crash),
        1 => (0i64..5).prop_map(Do::Clock),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the windows must hold, and who is late: by the watermark of each record's own partition, as it lies in its input.
fn model(steps: &[Do]) -> (Vec<Row>, Vec<Rec>) {
    let mut v = [i64::MIN; 2];
    let (mut sums, mut late) = (BTreeMap::<(u8, i64), i64>::new(), vec![]);
    for step in steps {
        match *step {
            Do::Push(p, r) => {
                let start = r.0 / 10 * 10;
                match start + 10 > v[p] {
                    true => *sums.entry((r.1, start)).or_default() += r.2,
                    false => late.push(r),
                }
                v[p] = v[p].max(r.0 - 2);
            }
            Do::Mark(p, time) => v[p] = v[p].max(time),
            _ => {}
        }
    }
    late.sort_unstable();
    (
        sums.into_iter().map(|((k, s), n)| (k, s, n)).collect(),
        late,
    )
}

proptest! {
    #![proptest_config(crate::aggregate::scramble::cases())]

    /// Whatever is pushed, marked, committed and crashed: what is committed in the end is the model's, once.
    #[test]
    fn what_is_committed_is_what_a_model_says(
        steps in steps(),
        shards in prop::sample::select(vec![1usize, 2, 3, 8]),
        batch_size in 1usize..20,
    ) {
        let sizes = Sizes { batch_size, ring_capacity: 3, key_groups: 16, ..Sizes::shards(shards) };
        let mut s = sums(Driver::with(sizes), 2);
        for step in &steps {
            match *step {
                Do::Push(p, r) => s.input.push_to(p, r),
                Do::Mark(p, time) => s.input.advance_watermark_of(p, at(time)),
                Do::Settle => s.t.settle().unwrap(),
                Do::Checkpoint => s.t.checkpoint().unwrap(),
                Do::Crash(shards) => s.t.crash_and_restore_on(shards).unwrap(),
                Do::Clock(by) => s.t.advance_clock(by.seconds()).unwrap(),
            }
        }
        s.input.end();
        s.t.settle().unwrap();
        prop_assert!(s.t.is_over());
        let (mut rows, mut late) = (s.committed.take(), s.late.take());
        rows.sort_unstable();
        late.sort_unstable();
        let (sums, belated) = model(&steps);
        prop_assert_eq!(rows, sums);
        let counters = s.t.counters().unwrap();
        prop_assert_eq!((counters.late, counters.invariant_broken), (belated.len() as u64, 0));
        prop_assert_eq!(late, belated);
        let mut shown = s.rows.take();
        shown.sort_unstable();
        shown.dedup();
        prop_assert_eq!(shown, model(&steps).0, "at least once");
    }
}
