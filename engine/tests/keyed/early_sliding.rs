//! Early firing of sliding and cumulating windows: what it tells, when, and that final values do not depend on it.

use crate::{Numbers, Record, config, partitions, run_clocked, runs, time};
use pelton::aggregate::{Aggregate, At};
use pelton::testing::{Collected, Feed, Stepper, collect, feed};
use pelton::{
    BuildError, Cumulate, EventTime, Firing, Job, Sliding, Span, Spans, Watermarks, Windowed, sink,
    sources,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sliding { size: i64, slide: i64 },
    Cumulate { max: i64, step: i64 },
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1i64..6, 0i64..15).prop_map(|(slide, more)| Kind::Sliding {
            size: slide + more,
            slide
        }),
        (1i64..6, 1i64..5).prop_map(|(step, n)| Kind::Cumulate {
            max: step * n,
            step
        }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Spec {
    kind: Kind,
    offset: i64,
    bound: i64,
    lateness: i64,
    corrects: bool,
    /// Whether the accumulator is of those that grow: their slices are kept raw.
    grows: bool,
    /// Microseconds.
    early: Option<i64>,
}

fn specs() -> impl Strategy<Value = Spec> {
    let lateness = prop_oneof![Just(0i64), 1i64..15];
    (
        kinds(),
        -9i64..9,
        0i64..8,
        lateness,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(kind, offset, bound, lateness, corrects, grows)| Spec {
            kind,
            offset,
            bound,
            lateness,
            corrects,
            grows,
            early: None,
        })
}

impl Spec {
    /// The windows of a second, by their definition: (start, end).
    fn windows(&self, t: i64) -> Vec<(i64, i64)> {
        match self.kind {
            Kind::Sliding { size, slide } => (t - size + 1..=t)
                .filter(|start| (start - self.offset).rem_euclid(slide) == 0)
                .map(|start| (start, start + size))
                .collect(),
            Kind::Cumulate { max, step } => {
                let start = t - (t - self.offset).rem_euclid(max);
                let ends = (1..=max / step).map(|n| start + n * step);
                ends.filter(|end| *end > t)
                    .map(|end| (start, end))
                    .collect()
            }
        }
    }
}

type Result = Windowed<u8, Vec<u64>>;

/// As [`Numbers`], and says that it grows.
#[derive(Clone)]
struct Growing;

impl Aggregate<Record> for Growing {
    type Acc = Vec<u64>;
    type Out = Vec<u64>;
    const GROWS: bool = true;
    fn create(&self) -> Vec<u64> {
        vec![]
    }
    fn add(&self, acc: &mut Vec<u64>, record: &Record, at: At) {
        Numbers.add(acc, record, at);
    }
    fn merge(&self, acc: &mut Vec<u64>, other: &Vec<u64>) {
        Numbers.merge(acc, other);
    }
    fn finish(&self, acc: &Vec<u64>) -> Vec<u64> {
        acc.clone()
    }
}

macro_rules! aggregated {
    ($spec:expr, $windowed:expr, $sink:expr) => {
        match $spec.grows {
            true => $windowed.aggregate_with(Growing).sink($sink),
            false => $windowed.aggregate_with(Numbers).sink($sink),
        }
    };
}

/// Gives the window that the spec says to `$go`.
macro_rules! with_window {
    ($spec:expr, $go:expr) => {{
        macro_rules! set {
            ($window:expr) => {{
                let window = $window
                    .offset($spec.offset.seconds())
                    .allowed_lateness($spec.lateness.seconds());
                let window = match $spec.early {
                    Some(every) => window.early_firing(Span::from_micros(every)),
                    None => window,
                };
                let window = if $spec.corrects && $spec.lateness > 0 {
                    window.one_correction()
                } else {
                    window
                };
                $go(window)
            }};
        }
        match $spec.kind {
            Kind::Sliding { size, slide } => set!(Sliding::of(size.seconds(), slide.seconds())),
            Kind::Cumulate { max, step } => set!(Cumulate::of(max.seconds(), step.seconds())),
        }
    }};
}

fn by_hand(spec: &Spec) -> (Stepper, Feed<Record>, Collected<Result>) {
    let (feed, source) = feed::<Record>(1);
    let (results, sink) = collect();
    let job = Job::new("early");
    let keyed = job
        .source(source)
        .event_time(time, Watermarks::bounded(spec.bound.seconds()))
        .key_by(|r| r.0);
    with_window!(spec, |w| aggregated!(spec, keyed.window(w), sink));
    (Stepper::new(&job, 1).unwrap(), feed, results)
}

/// (key, start, end, numbers), sorted.
type Row = (u8, i64, i64, Vec<u64>);

fn rows(results: &[Result], firing: Firing) -> Vec<Row> {
    let second = |t: EventTime| t.micros() / 1_000_000;
    let mut rows: Vec<Row> = results
        .iter()
        .filter(|w| w.firing == firing)
        .map(|w| {
            let mut numbers = w.value.clone();
            numbers.sort_unstable();
            (w.key, second(w.window.start), second(w.window.end), numbers)
        })
        .collect();
    rows.sort();
    rows
}

/// What a window of a key holds.
type Held = BTreeMap<(u8, i64, i64), Vec<u64>>;

fn row((&(key, start, end), numbers): (&(u8, i64, i64), &Vec<u64>)) -> Row {
    (key, start, end, numbers.clone())
}

proptest! {
    #![proptest_config(config())]

    /// The clock by hand, against a model that keeps what each window holds and which windows have changed.
    #[test]
    fn what_changed_is_told_within_the_interval(
        spec in specs(), events in prop::collection::vec((0u8..4, -12i64..8, 0i64..3), 1..150), every in 1i64..6,
    ) {
        let spec = Spec { early: Some(every * 1_000_000), ..spec };
        let (mut stepper, feed, results) = by_hand(&spec);
        let mut held = Held::new();
        let mut changed = BTreeSet::new();
        let (mut now, mut next, mut v) = (0, None, i64::MIN);
        let mut latest = 100;
        for (number, (key, ahead, wait)) in events.into_iter().enumerate() {
            stepper.advance_clock(wait.seconds());
            now += wait;
            stepper.until_idle().unwrap();
            let told = results.take();
            let mut expected = vec![];
            if next.is_some_and(|n| n <= now) {
                next = None;
                expected.extend(held.iter().filter(|h| changed.contains(h.0)).map(row));
                changed.clear();
            }
            prop_assert_eq!(told.len(), expected.len(), "nothing but early results");
            prop_assert_eq!(rows(&told, Firing::Early), expected);

            let at = latest + ahead;
            feed.push(0, (key, at, number as u64));
            stepper.until_idle().unwrap();
            for (start, end) in spec.windows(at).into_iter().filter(|w| w.1 > v) {
                held.entry((key, start, end)).or_default().push(number as u64);
                changed.insert((key, start, end));
                next = next.or(Some(now + every));
            }
            latest = latest.max(at);
            v = v.max(at - spec.bound);
            let told = results.take();
            let fired: Vec<Row> = held.iter().filter(|h| h.0.2 <= v).map(row).collect();
            prop_assert_eq!(rows(&told, Firing::OnTime), fired);
            prop_assert_eq!(rows(&told, Firing::Early), vec![]);
            held.retain(|w, _| w.2 > v);
            changed.retain(|w| w.2 > v);
        }
    }

    /// The same final values with it and without, whatever the schedule and the clock; early values only grow.
    #[test]
    fn final_values_do_not_depend_on_it(
        spec in specs(), records in partitions(), how in runs(), every in 1i64..30,
    ) {
        let answer = |spec: Spec| {
            let (results, sink) = collect();
            let job = Job::new("final");
            let keyed = job
                .source(sources::partitions(records.clone()))
                .event_time(time, Watermarks::bounded(spec.bound.seconds()))
                .key_by(|r| r.0);
            with_window!(&spec, |w| aggregated!(&spec, keyed.window(w), sink));
            run_clocked(&job, how).unwrap();
            results.take()
        };
        let with: Vec<Result> = answer(Spec { early: Some(every), ..spec });
        let without: Vec<Result> = answer(spec);
        let mut standing: BTreeMap<_, (usize, Firing)> = BTreeMap::new();
        for w in &with {
            let before = standing.insert((w.key, w.window), (w.value.len(), w.firing));
            match (before, w.firing) {
                (Some((n, Firing::Early)), Firing::Early) => prop_assert!(n < w.value.len()),
                (Some((n, Firing::Early)), Firing::OnTime) => prop_assert!(n <= w.value.len()),
                (None, Firing::Early | Firing::OnTime) => {}
                (_, Firing::Early | Firing::OnTime) => prop_assert!(false, "after it has fired: {w:?}"),
                _ => {}
            }
        }
        let last = |results: &[Result]| {
            let fired = results.iter().filter(|w| w.firing != Firing::Early);
            fired.map(|w| {
                let mut numbers = w.value.clone();
                numbers.sort_unstable();
                ((w.key, w.window), numbers)
            }).collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(last(&with), last(&without));
        if spec.lateness == 0 {
            prop_assert_eq!(rows(&with, Firing::OnTime), rows(&without, Firing::OnTime));
        }
    }
}

/// Many windows of many keys are told in pieces, each once; then nothing until something changes, and no timer runs.
#[test]
fn telling_is_bounded_and_stops() {
    let (feed, source) = feed::<(u32, i64)>(1);
    let (results, sink) = collect();
    let job = Job::new("pieces");
    job.source(source)
        .event_time(|r| EventTime::from_seconds(r.1), Watermarks::monotonous())
        .key_by(|r| r.0)
        .window(Sliding::of(2_000.seconds(), 1.seconds()).early_firing(1.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for second in 0..500 {
        for key in 0..10 {
            feed.push(0, (key, second));
        }
    }
    stepper.until_idle().unwrap();
    results.take();
    stepper.advance_clock(1.seconds());
    let mut told = BTreeMap::new();
    for _ in 0..200 {
        for tasklet in 0..stepper.tasklets() {
            stepper.step(tasklet).unwrap();
            let some = results.take();
            assert!(some.len() <= 1024, "{} in one step", some.len());
            for w in some {
                let end = w.window.end.micros() / 1_000_000;
                assert_eq!(told.insert((w.key, end), w.value), None, "told twice");
            }
        }
    }
    // The watermark stands at 499: windows that end from 500 to 2499 hold something.
    assert_eq!(told.len(), 10 * 2_000);
    for ((_, end), count) in told {
        assert_eq!(count as i64, if end <= 2_000 { 500 } else { 2_500 - end });
    }
    stepper.advance_clock(100.seconds());
    stepper.until_idle().unwrap();
    assert!(results.take().is_empty());
    for tasklet in 0..stepper.tasklets() {
        let progress = stepper.step(tasklet).unwrap();
        assert_eq!(progress, pelton::tasklet::Progress::Idle { until_ns: None });
    }
    feed.push(0, (7, 499));
    stepper.until_idle().unwrap();
    stepper.advance_clock(1.seconds());
    stepper.until_idle().unwrap();
    let told = results.take();
    assert_eq!(told.len(), 2_000);
    assert!(told.iter().all(|w| w.key == 7 && w.firing == Firing::Early));
}

#[test]
fn the_interval_must_be_positive_and_explain_says_it() {
    for every in [Span::ZERO, Span::from_micros(-5)] {
        let job = Job::new("job");
        job.source(sources::items([(0u8, 0i64, 0u64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.0)
            .window(Cumulate::of(10.seconds(), 5.seconds()).early_firing(every))
            .aggregate(|a| a.count())
            .sink(sink::callback("table", |_, _| {}).updates());
        let explained = job.explain();
        assert!(
            explained.contains(&format!("(cumulate, by 5s up to 10s, early every {every})")),
            "{explained}"
        );
        let error = Stepper::new(&job, 1).unwrap_err();
        assert!(matches!(error, BuildError::Argument { .. }), "{error}");
    }
}
