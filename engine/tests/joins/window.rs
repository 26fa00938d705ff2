//! Window joins.

use crate::world::{Ev, Script, all_die, at, bound, cases, dying, script, undisturbed};
use pelton::join::Join;
use pelton::sink::Sink;
use pelton::testing::{self, FeedSource, Stepper};
use pelton::{
    BuildError, Job, Session, Sides, Sliding, Spans, Stream, Tumbling, Watermarks, WindowAssigner,
    Windowed,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Key, start of the window, numbers of both.
type Row = (u8, i64, Option<u32>, Option<u32>);

fn row(left: Option<&Ev>, right: Option<&Ev>) -> (Option<u32>, Option<u32>) {
    (left.map(|l| l.1), right.map(|r| r.1))
}

fn write<W: WindowAssigner<Sides<Ev, Ev>>>(
    job: &Job,
    (left, right): (FeedSource<Ev>, FeedSource<Ev>),
    window: W,
    join: Join,
    sink: impl Sink<Row>,
) {
    let left = job.source(left).uid("left");
    let left = left
        .event_time(at, Watermarks::bounded(bound()))
        .uid("left times");
    let right = job.source(right).uid("right");
    let right = right
        .event_time(at, Watermarks::bounded(bound()))
        .uid("right times");
    let (left, right) = (left.key_by(|e| e.0), right.key_by(|e| e.0));
    let joined = left.window_join(right, window).uid("join");
    let told = |w: Windowed<u8, (Option<u32>, Option<u32>)>| {
        (
            w.key,
            w.window.start.micros() / 1_000_000,
            w.value.0,
            w.value.1,
        )
    };
    let itself = |w: Windowed<u8, Ev>| {
        (
            w.key,
            w.window.start.micros() / 1_000_000,
            Some(w.value.1),
            None,
        )
    };
    match join {
        Join::Inner => joined
            .inner(|l, r| row(Some(l), Some(r)))
            .map(told)
            .sink(sink),
        Join::Left => joined
            .left_outer(|l, r| row(Some(l), r))
            .map(told)
            .sink(sink),
        Join::Right => joined
            .right_outer(|l, r| row(l, Some(r)))
            .map(told)
            .sink(sink),
        Join::Full => joined.full_outer(row).map(told).sink(sink),
        Join::Semi => joined.semi().map(itself).sink(sink),
        Join::Anti => joined.anti().map(itself).sink(sink),
    }
}

/// The windows of a key, by all records of both sides: start, and who lies in it.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Tumbling(i64),
    Sliding(i64, i64),
    Session(i64),
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1i64..30).prop_map(Kind::Tumbling),
        (1i64..6, 1i64..8).prop_map(|(slide, n)| Kind::Sliding(slide * n, slide)),
        (1i64..8).prop_map(Kind::Session),
    ]
}

type Held = BTreeMap<(u8, i64), [Vec<Ev>; 2]>;

fn windows(script: &Script, kind: Kind) -> Held {
    let mut held = Held::new();
    let all: Vec<(usize, Ev)> = [0, 1]
        .into_iter()
        .flat_map(|side| script.of(side).into_iter().map(move |e| (side, e)))
        .collect();
    let mut put = |key, start, side: usize, e| {
        held.entry((key, start)).or_default()[side].push(e);
    };
    match kind {
        Kind::Tumbling(size) => {
            for &(side, e) in &all {
                put(e.0, e.2.div_euclid(size) * size, side, e);
            }
        }
        Kind::Sliding(size, slide) => {
            for &(side, e) in &all {
                let last = e.2.div_euclid(slide) * slide;
                for start in (0..size / slide).map(|n| last - n * slide) {
                    put(e.0, start, side, e);
                }
            }
        }
        Kind::Session(gap) => {
            for key in 0..4 {
                let mut of: Vec<_> = all.iter().filter(|(_, e)| e.0 == key).collect();
                of.sort_by_key(|(_, e)| e.2);
                let (mut start, mut end) = (i64::MIN, i64::MIN);
                for &&(side, e) in &of {
                    // Sessions that touch are one.
                    if start == i64::MIN || e.2 > end {
                        start = e.2;
                    }
                    end = e.2 + gap;
                    put(key, start, side, e);
                }
            }
        }
    }
    held
}

fn model(script: &Script, kind: Kind, join: Join) -> Vec<Row> {
    let mut rows = vec![];
    for ((key, start), [left, right]) in windows(script, kind) {
        let mut add = |l: Option<&Ev>, r: Option<&Ev>| {
            rows.push((key, start, l.map(|e| e.1), r.map(|e| e.1)));
        };
        for l in &left {
            match join {
                Join::Semi if !right.is_empty() => add(Some(l), None),
                Join::Semi => {}
                Join::Anti if right.is_empty() => add(Some(l), None),
                Join::Anti => {}
                _ => right.iter().for_each(|r| add(Some(l), Some(r))),
            }
            if right.is_empty() && matches!(join, Join::Left | Join::Full) {
                add(Some(l), None);
            }
        }
        if left.is_empty() && matches!(join, Join::Right | Join::Full) {
            right.iter().for_each(|r| add(None, Some(r)));
        }
    }
    rows.sort();
    rows
}

fn joins() -> impl Strategy<Value = Join> {
    prop::sample::select(vec![
        Join::Inner,
        Join::Left,
        Join::Right,
        Join::Full,
        Join::Semi,
        Join::Anti,
    ])
}

fn write_kind(
    job: &Job,
    sources: (FeedSource<Ev>, FeedSource<Ev>),
    kind: Kind,
    join: Join,
    sink: impl Sink<Row>,
) {
    match kind {
        Kind::Tumbling(size) => write(job, sources, Tumbling::of(size.seconds()), join, sink),
        Kind::Sliding(size, slide) => {
            let window = Sliding::of(size.seconds(), slide.seconds());
            write(job, sources, window, join, sink);
        }
        Kind::Session(gap) => write(job, sources, Session::gap(gap.seconds()), join, sink),
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_meets_is_what_the_model_says(script in script(), kind in kinds(), join in joins()) {
        let rows = undisturbed(&script, |job, left, right, sink| {
            write_kind(job, (left, right), kind, join, sink);
        });
        prop_assert_eq!(rows, model(&script, kind, join));
    }
}

#[test]
fn and_so_it_is_whatever_dies() {
    all_die((script(), kinds(), joins()), |(script, kind, join)| {
        let (rows, deaths) = dying(script, |job, left, right, ledger| {
            write_kind(job, (left, right), *kind, *join, ledger);
        });
        prop_assert_eq!(rows, model(script, *kind, *join));
        Ok(deaths)
    });
}

/// Law 2: whatever came first, the rows of a window come in the order of their places.
#[test]
fn rows_come_in_the_order_of_their_places() {
    let rows = |order: [usize; 4]| {
        let (feed, source) = testing::feed::<(usize, Ev)>(1);
        for n in order {
            // Two of each side, of two times.
            feed.push(0, (n % 2, (0, n as u32, (n / 2) as i64)));
        }
        drop(feed);
        let job = Job::new("order");
        let (rows, sink) = testing::collect();
        let timed = job
            .source(source)
            .event_time(|e: &(usize, Ev)| at(&e.1), Watermarks::bounded(bound()));
        let [left, right] = timed.split(|e| e.0);
        let left = left.map(|e| e.1).key_by(|e| e.0);
        let right = right.map(|e| e.1).key_by(|e| e.0);
        left.window_join(right, Tumbling::of(100.seconds()))
            .inner(|l, r| row(Some(l), Some(r)))
            .map(|w| w.value)
            .sink(sink);
        Stepper::new(&job, 1).unwrap().run().unwrap();
        rows.take()
    };
    let first = rows([0, 1, 2, 3]);
    assert_eq!(first.len(), 4);
    for order in [[2, 3, 0, 1], [3, 2, 1, 0], [1, 2, 0, 3]] {
        assert_eq!(rows(order), first, "{order:?}");
    }
}

fn feeds() -> [(testing::Feed<Ev>, FeedSource<Ev>); 2] {
    [testing::feed(1), testing::feed(1)]
}

/// A window of each kind that fires twice is refused, and says what to do.
#[test]
fn windows_that_fire_more_than_once_are_refused() {
    let [(_one, left), (_two, right)] = feeds();
    let job = Job::new("join");
    let (_, sink) = testing::collect();
    let window = Tumbling::of(10.seconds()).allowed_lateness(1.seconds());
    write(&job, (left, right), window, Join::Inner, sink);
    let e = Stepper::new(&job, 1).unwrap_err().to_string();
    assert!(e.contains("fire more than once"), "{e}");
    assert!(e.contains("drop allowed lateness"), "{e}");
}

#[test]
fn streams_of_two_jobs_and_of_one_time_are_refused() {
    let (one, two) = (Job::new("one"), Job::new("two"));
    let source = |job: &Job| job.source(pelton::sources::items([(1u8, 1u32, 1i64)]));
    let connected = source(&one)
        .key_by(|e| e.0)
        .connect(source(&two).key_by(|e| e.0));
    connected.exchange().sink(testing::collect().1);
    for job in [&one, &two] {
        let e = Stepper::new(job, 1).unwrap_err().to_string();
        assert!(e.contains("streams of two jobs, 'one' and 'two'"), "{e}");
    }
    let job = Job::new("times");
    let timed = source(&job).event_time(at, Watermarks::monotonous());
    let connected = timed.key_by(|e| e.0).connect(source(&job).key_by(|e| e.0));
    connected.exchange().sink(testing::collect().1);
    assert!(matches!(
        Stepper::new(&job, 1).unwrap_err(),
        BuildError::NoEventTime { .. }
    ));
}

#[test]
fn a_stream_is_connected_once_or_keyed_again() {
    let job = Job::new("three");
    let stream = || {
        job.source(pelton::sources::items([(1u8, 1u32, 1i64)]))
            .key_by(|e| e.0)
    };
    let two = stream().connect(stream());
    two.connect(stream()).exchange().sink(testing::collect().1);
    let e = Stepper::new(&job, 1).unwrap_err().to_string();
    assert!(e.contains("connected already"), "{e}");
    let job = Job::new("three");
    let stream = || {
        job.source(pelton::sources::items([(1u8, 1u32, 1i64)]))
            .key_by(|e| e.0)
    };
    let (seen, sink) = testing::collect();
    let key = |side: &Sides<Ev, Ev>| match side {
        Sides::Left(e) | Sides::Right(e) => e.0,
    };
    let two = stream().connect(stream()).exchange().key_by(key);
    two.connect(stream()).exchange().map(|_| ()).sink(sink);
    Stepper::new(&job, 2).unwrap().run().unwrap();
    assert_eq!(seen.take().len(), 3);
}

/// A record late for its window is told apart by its side, and meets nobody.
#[test]
fn late_records_of_both_sides_come_out_aside() {
    let [(one, left), (two, right)] = feeds();
    let job = Job::new("late");
    let (rows, sink) = testing::collect();
    let (late, late_sink) = testing::collect();
    let times = || Watermarks::bounded(0.seconds());
    let left = left_of(&job, left, times());
    let right = left_of(&job, right, times());
    left.key_by(|e| e.0)
        .window_join(right.key_by(|e| e.0), Tumbling::of(10.seconds()))
        .late_to(late_sink)
        .full_outer(row)
        .map(|w| w.value)
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    one.push(0, (1, 1, 5));
    two.push(0, (1, 2, 6));
    stepper.until_idle().unwrap();
    // Past the window on both sides, then back.
    one.push(0, (1, 3, 20));
    two.push(0, (1, 4, 20));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [(Some(1), Some(2))]);
    one.push(0, (1, 5, 7));
    two.push(0, (1, 6, 8));
    stepper.until_idle().unwrap();
    let mut aside = late.take();
    aside.sort();
    assert_eq!(aside, [Sides::Left((1, 5, 7)), Sides::Right((1, 6, 8))]);
    assert_eq!(stepper.counters().late, 2);
    drop((one, two));
    stepper.run().unwrap();
    assert_eq!(rows.take(), [(Some(3), Some(4))]);
}

fn left_of(
    job: &Job,
    source: FeedSource<Ev>,
    times: Watermarks<pelton::Bounded>,
) -> Stream<impl pelton::Pipeline<Item = Ev>> {
    job.source(source).event_time(at, times)
}

/// A window of a thousand by a thousand hands on a piece at a time: what is under way is bounded by the rings.
#[test]
fn a_million_pairs_come_a_piece_at_a_time() {
    let [(one, left), (two, right)] = feeds();
    for n in 0..1_000 {
        one.push(0, (0, n, 5));
        two.push(0, (0, n, 5));
    }
    drop((one, two));
    let job = Job::new("many");
    let (rows, sink) = testing::collect();
    let left = left_of(&job, left, Watermarks::bounded(0.seconds()));
    let right = left_of(&job, right, Watermarks::bounded(0.seconds()));
    left.key_by(|e| e.0)
        .window_join(right.key_by(|e| e.0), Tumbling::of(10.seconds()))
        .inner(|_, _| ())
        .rebalance()
        .map(|w| w.key)
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let (mut before, mut most) = (0, 0);
    while !stepper.all_done() {
        for actor in 0..stepper.actors() {
            stepper.step(actor).unwrap();
        }
        let now = stepper.counters().records_out as usize;
        most = most.max(now - before);
        before = now;
    }
    assert_eq!(rows.take().len(), 1_000_000);
    assert!(most < 200_000, "{most} rows in one round");
}
