//! Jobs stepped by hand, against a model that keeps everything and recomputes.

use crate::aggregate::{Aggregate, At};
use crate::push::Counters;
use crate::tasklet::Progress;
use crate::testing::{self, Sizes, Stepper};
use crate::{
    BuildError, Cumulate, EventTime, Firing, Job, Sliding, Span, Spans, Tumbling, Watermarks,
    Windowed,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The ids of its records.
#[derive(Clone)]
struct Ids<const GROWS: bool>;

impl<const GROWS: bool> Aggregate<Rec> for Ids<GROWS> {
    type Acc = Vec<u32>;
    type Out = Vec<u32>;
    const GROWS: bool = GROWS;
    fn create(&self) -> Vec<u32> {
        vec![]
    }
    fn add(&self, acc: &mut Vec<u32>, record: &Rec, at: At) {
        assert_eq!(at.time.micros(), record.time);
        acc.push(record.id);
    }
    fn merge(&self, acc: &mut Vec<u32>, other: &Vec<u32>) {
        acc.extend(other);
    }
    fn finish(&self, acc: &Vec<u32>) -> Vec<u32> {
        let mut out = acc.clone();
        out.sort_unstable();
        out
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rec {
    id: u32,
    key: u8,
    time: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Sliding { size: i64, slide: i64 },
    Cumulate { max: i64, step: i64 },
}

#[derive(Clone, Copy, Debug)]
struct Spec {
    kind: Kind,
    offset: i64,
    lateness: i64,
    corrects: bool,
    bound: i64,
}

impl Spec {
    /// All windows that hold a time, by their definition: ascending by end.
    fn windows(&self, time: i64) -> Vec<(i64, i64)> {
        match self.kind {
            Kind::Sliding { size, slide } => {
                let last = time - (time - self.offset).rem_euclid(slide);
                let mut all: Vec<_> = (0..)
                    .map(|n| last - n * slide)
                    .take_while(|start| start + size > time)
                    .map(|start| (start, start + size))
                    .collect();
                all.reverse();
                all
            }
            Kind::Cumulate { max, step } => {
                let start = time - (time - self.offset).rem_euclid(max);
                (1..=max / step)
                    .map(|n| (start, start + n * step))
                    .filter(|w| w.1 > time)
                    .collect()
            }
        }
    }
}

type Row = (u8, i64, i64, Vec<u32>);

/// What a job must come to.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    /// What fired on time; with updates, the last value of each window instead.
    rows: BTreeSet<Row>,
    corrections: BTreeSet<Row>,
    late: BTreeSet<Rec>,
    partly_late: u64,
}

/// Recomputes everything from the partitions alone.
fn model(spec: &Spec, partitions: &[Vec<Rec>]) -> Answer {
    let mut answer = Answer::default();
    let mut on_time: BTreeMap<(u8, i64, i64), Vec<u32>> = BTreeMap::new();
    let mut parked = on_time.clone();
    for records in partitions {
        let mut v = i64::MIN;
        for r in records {
            let windows = spec.windows(r.time);
            let counts = windows
                .iter()
                .filter(|w| w.1.saturating_add(spec.lateness) > v);
            let counted = counts.clone().count();
            for w in counts {
                let into = if spec.corrects && w.1 <= v {
                    &mut parked
                } else {
                    &mut on_time
                };
                into.entry((r.key, w.0, w.1)).or_default().push(r.id);
            }
            if counted == 0 {
                answer.late.insert(*r);
            } else if counted < windows.len() {
                answer.partly_late += 1;
            }
            v = v.max(r.time - spec.bound);
        }
    }
    for (w, ids) in &parked {
        let mut all = ids.clone();
        all.extend(on_time.get(w).into_iter().flatten());
        all.sort_unstable();
        answer.corrections.insert((w.0, w.1, w.2, all));
    }
    for (w, mut ids) in on_time {
        ids.sort_unstable();
        answer.rows.insert((w.0, w.1, w.2, ids));
    }
    answer
}

/// Runs the job, steps in an order that `seed` draws, and sums up what came.
fn run<const GROWS: bool>(
    spec: &Spec,
    partitions: &[Vec<Rec>],
    sizes: Sizes,
    seed: u64,
) -> Result<Answer, TestCaseError> {
    let (feed, source) = testing::feed::<Rec>(partitions.len());
    let (results, sink) = testing::collect();
    let (late, late_sink) = testing::collect();
    let job = Job::new("sliding");
    let keyed = job
        .source(source)
        .event_time(
            |r| EventTime::from_micros(r.time),
            Watermarks::bounded(spec.bound.micros()),
        )
        .key_by(|r| r.key);
    macro_rules! finish {
        ($window:expr) => {{
            let mut window = $window
                .offset(spec.offset.micros())
                .allowed_lateness(spec.lateness.micros());
            if spec.corrects {
                window = window.one_correction();
            }
            keyed
                .window(window)
                .late_to(late_sink)
                .aggregate_with(Ids::<GROWS>)
                .sink(sink)
        }};
    }
    match spec.kind {
        Kind::Sliding { size, slide } => finish!(Sliding::of(size.micros(), slide.micros())),
        Kind::Cumulate { max, step } => finish!(Cumulate::of(max.micros(), step.micros())),
    }
    let mut stepper = Stepper::with(&job, sizes).unwrap();
    for (partition, records) in partitions.iter().enumerate() {
        for r in records {
            feed.push(partition, *r);
        }
    }
    drop(feed);
    let mut state = seed | 1;
    stepper
        .run_with(|n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) as usize % n
        })
        .unwrap();
    let counters = stepper.counters();
    prop_assert_eq!(counters.invariant_broken, 0);
    let late: Vec<Rec> = late.take();
    prop_assert_eq!(counters.late as usize, late.len());
    sum_up(spec, results.take_timed(), late, counters)
}

fn sum_up(
    spec: &Spec,
    results: Vec<(Windowed<u8, Vec<u32>>, EventTime)>,
    late: Vec<Rec>,
    counters: Counters,
) -> Result<Answer, TestCaseError> {
    let mut answer = Answer {
        partly_late: counters.partly_late,
        late: late.into_iter().collect(),
        ..Answer::default()
    };
    let mut last = BTreeMap::new();
    for (r, time) in results {
        prop_assert_eq!(time, r.window.end - 1.micros());
        let (start, end) = (r.window.start.micros(), r.window.end.micros());
        let before = last.insert((r.key, start, end, r.firing), r.value.clone());
        if r.firing != Firing::Update {
            prop_assert_eq!(before, None, "a window fires once");
        }
        match r.firing {
            Firing::Correction => {
                prop_assert!(spec.corrects);
                answer.corrections.insert((r.key, start, end, r.value));
            }
            Firing::Update => {
                prop_assert!(!spec.corrects && spec.lateness > 0);
                answer
                    .rows
                    .retain(|w| (w.0, w.1, w.2) != (r.key, start, end));
                answer.rows.insert((r.key, start, end, r.value));
            }
            _ => {
                let updated = answer
                    .rows
                    .iter()
                    .any(|w| (w.0, w.1, w.2) == (r.key, start, end));
                prop_assert!(!updated, "updates come after the window has fired");
                answer.rows.insert((r.key, start, end, r.value));
            }
        }
    }
    Ok(answer)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        2 => (1i64..20, 0i64..40).prop_map(|(slide, more)| Kind::Sliding { size: slide + more, slide }),
        1 => (1i64..8, 1i64..12).prop_map(|(slide, n)| Kind::Sliding { size: slide * n, slide }),
        1 => (1i64..12, 1i64..8).prop_map(|(step, n)| Kind::Cumulate { max: step * n, step }),
    ]
}

fn specs() -> impl Strategy<Value = Spec> {
    let lateness = prop_oneof![2 => Just(0i64), 1 => 1i64..10, 2 => 1i64..80];
    (kinds(), -50i64..50, lateness, any::<bool>(), 0i64..40).prop_map(
        |(kind, offset, lateness, corrects, bound)| Spec {
            kind,
            offset,
            lateness,
            corrects: corrects && lateness > 0,
            bound,
        },
    )
}

/// Times that mostly rise, with some far behind, and gaps.
fn partitions() -> impl Strategy<Value = Vec<Vec<Rec>>> {
    let step = prop_oneof![8 => 0i64..6, 1 => 40i64..400];
    let back = prop_oneof![3 => Just(0i64), 2 => 0i64..10, 1 => 0i64..120];
    let records = proptest::collection::vec((0u8..4, step, back), 0..60);
    (proptest::collection::vec(records, 1..4), -200i64..50).prop_map(|(partitions, first)| {
        let mut id = 0;
        partitions
            .into_iter()
            .map(|records| {
                let mut now = first;
                let mut rec = |(key, step, back)| {
                    now += step;
                    id += 1;
                    let time = now - back;
                    Rec { id, key, time }
                };
                records.into_iter().map(&mut rec).collect()
            })
            .collect()
    })
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES")
        .ok()
        .and_then(|c| c.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(200))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn it_is_what_recomputing_gives(
        spec in specs(), partitions in partitions(), shards in 1usize..4, batch_size in 1usize..20, seed: u64,
    ) {
        let sizes = Sizes { batch_size, ring_capacity: 4, ..Sizes::shards(shards) };
        let expected = model(&spec, &partitions);
        let found = run::<false>(&spec, &partitions, sizes, seed)?;
        prop_assert_eq!(&found, &expected, "two stacks");
        let found = run::<true>(&spec, &partitions, sizes, seed)?;
        prop_assert_eq!(&found, &expected, "raw slices");
    }
}

/// A job to step, what it reads, and what it gives.
type Counts = (
    Stepper,
    testing::Feed<(i64, u64)>,
    testing::Collected<Windowed<u64, u64>>,
);

/// A job over `(seconds, key)` with one partition and monotonous watermarks.
fn counts(window: impl crate::window::WindowAssigner<(i64, u64)>, shards: usize) -> Counts {
    let (feed, source) = testing::feed::<(i64, u64)>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("counts");
    job.source(source)
        .event_time(
            |r: &(i64, u64)| EventTime::from_micros(r.0),
            Watermarks::monotonous(),
        )
        .key_by(|r: &(i64, u64)| r.1)
        .window(window)
        .aggregate(|a| a.count())
        .sink(sink);
    (Stepper::new(&job, shards).unwrap(), feed, results)
}

fn refused(window: impl crate::window::WindowAssigner<(i64, u64)>) -> String {
    let (_feed, source) = testing::feed::<(i64, u64)>(1);
    let (_results, sink) = testing::collect();
    let job = Job::new("refused");
    job.source(source)
        .event_time(
            |r: &(i64, u64)| EventTime::from_micros(r.0),
            Watermarks::monotonous(),
        )
        .key_by(|r: &(i64, u64)| r.1)
        .window(window)
        .aggregate(|a| a.count())
        .sink(sink);
    let error = Stepper::new(&job, 1).expect_err("it makes no sense");
    assert!(matches!(error, BuildError::Argument { .. }), "{error}");
    error.to_string()
}

#[test]
fn senseless_spans_are_refused() {
    let s = |n: i64| n.seconds();
    for (error, says) in [
        (
            refused(Sliding::of(s(5), s(10))),
            "a slide larger than the size",
        ),
        (refused(Sliding::of(s(0), s(0))), "the window size is 0s"),
        (refused(Sliding::of(s(-5), s(-5))), "the window size is -5s"),
        (refused(Sliding::of(s(5), s(0))), "the slide is 0s"),
        (refused(Sliding::of(s(5), s(-1))), "the slide is -1s"),
        (
            refused(Sliding::of(Span::from_micros(i64::MAX), s(1))),
            "the window size is",
        ),
        (
            refused(Sliding::of(s(5), s(1)).allowed_lateness(s(-1))),
            "lateness is -1s",
        ),
        (
            refused(Sliding::of(s(5), s(1)).offset(Span::from_micros(i64::MIN))),
            "offset",
        ),
        (
            refused(Cumulate::of(s(5), s(2))),
            "is not a multiple of the step 2s",
        ),
        (
            refused(Cumulate::of(s(1), s(5))),
            "is not a multiple of the step 5s",
        ),
        (refused(Cumulate::of(s(0), s(1))), "size is 0s"),
        (refused(Cumulate::of(s(1), s(0))), "the step is 0s"),
        (
            refused(Cumulate::of(s(1), s(1)).allowed_lateness(s(-1))),
            "lateness is -1s",
        ),
    ] {
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn the_ends_of_time_have_windows() {
    let size = Span::MAX;
    for window in [
        Sliding::of(size, size),
        Sliding::of(size, size).offset(7.seconds()),
    ] {
        let (mut stepper, feed, results) = counts(window, 2);
        feed.push(0, (EventTime::MIN.micros(), 1));
        feed.push(0, (EventTime::MAX.micros(), 1));
        drop(feed);
        stepper.run().unwrap();
        let results = results.take();
        assert_eq!(results.len(), 2);
        assert!(
            results[0].window.start <= EventTime::MIN && EventTime::MIN < results[0].window.end
        );
        assert!(
            results[1].window.start <= EventTime::MAX && EventTime::MAX < results[1].window.end
        );
    }
    let ends = [EventTime::MIN, EventTime::MAX];
    let (mut stepper, feed, results) = counts(Sliding::of(10.seconds(), 3.seconds()), 2);
    for end in ends {
        feed.push(0, (end.micros(), 1));
    }
    drop(feed);
    stepper.run().unwrap();
    assert!((6..=8).contains(&results.take().len()));
    let (mut stepper, feed, results) = counts(Cumulate::of(Span::MAX, Span::MAX), 1);
    for end in ends {
        feed.push(0, (end.micros(), 1));
    }
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(results.take().len(), 2);
}

#[test]
fn windows_close_when_all_is_silent() {
    let (feed, source) = testing::feed::<(i64, u64)>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("idle");
    job.source(source)
        .event_time(
            |r: &(i64, u64)| EventTime::from_seconds(r.0),
            Watermarks::monotonous().close_after_idle(5.seconds()),
        )
        .key_by(|r: &(i64, u64)| r.1)
        .window(Sliding::of(10.seconds(), 5.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, (11, 1));
    feed.push(0, (17, 1));
    stepper.until_idle().unwrap();
    let ends = |r: Vec<Windowed<u64, u64>>| -> Vec<(i64, u64)> {
        r.iter()
            .map(|r| (r.window.end.micros() / 1_000_000, r.value))
            .collect()
    };
    assert_eq!(ends(results.take()), [(15, 1)]);
    for _ in 0..10 {
        stepper.advance_clock(1.seconds());
        stepper.until_idle().unwrap();
    }
    assert_eq!(ends(results.take()), [(20, 2), (25, 1)]);
    // What comes now is late for the windows that have closed.
    feed.push(0, (24, 1));
    feed.push(0, (19, 1));
    drop(feed);
    stepper.run().unwrap();
    assert_eq!(ends(results.take()), [(30, 1)]);
    let counters = stepper.counters();
    assert_eq!((counters.partly_late, counters.late), (1, 1));
}

/// So many keys that the table is asked of the cache ahead, while new keys still come.
#[test]
fn many_keys_are_counted_like_few() {
    let records: Vec<(i64, u64)> = (0..40_000)
        .map(|n| (n / 500 + n * 31 % 7, (n * 7919 % 10_007) as u64))
        .collect();
    let mut expected: BTreeMap<(u64, i64), u64> = BTreeMap::new();
    for &(time, key) in &records {
        for start in (time - 9..=time).filter(|start| start.rem_euclid(3) == 0) {
            *expected.entry((key, start + 10)).or_default() += 1;
        }
    }
    for shards in [1, 2] {
        let (feed, source) = testing::feed::<(i64, u64)>(1);
        let (results, sink) = testing::collect();
        let job = Job::new("many keys");
        job.source(source)
            .event_time(
                |r: &(i64, u64)| EventTime::from_micros(r.0),
                Watermarks::bounded(7.micros()),
            )
            .key_by(|r: &(i64, u64)| r.1)
            .window(Sliding::of(10.micros(), 3.micros()))
            .aggregate(|a| a.count())
            .sink(sink);
        let mut stepper = Stepper::new(&job, shards).unwrap();
        records.iter().for_each(|r| feed.push(0, *r));
        drop(feed);
        stepper.run().unwrap();
        let results = results.take();
        assert_eq!(results.len(), expected.len());
        for r in results {
            let window = (r.key, r.window.end.micros());
            assert_eq!(Some(&r.value), expected.get(&window), "{window:?}");
        }
    }
}

#[test]
fn windows_behind_wait_for_corrections_and_updates() {
    for corrects in [true, false] {
        let (feed, source) = testing::feed::<(i64, u64)>(1);
        let (results, sink) = testing::collect();
        let job = Job::new("behind");
        let window = Sliding::of(10.seconds(), 5.seconds()).allowed_lateness(60.seconds());
        job.source(source)
            .event_time(
                |r: &(i64, u64)| EventTime::from_seconds(r.0),
                Watermarks::monotonous(),
            )
            .key_by(|r: &(i64, u64)| r.1)
            .window(if corrects {
                window.one_correction()
            } else {
                window
            })
            .aggregate(|a| a.count())
            .each_update_is_a_record()
            .key_by(|w: &Windowed<u64, u64>| w.key)
            .window(Tumbling::of(5.seconds()))
            .aggregate(|a| (a.count(), a.max(|w| w.value)))
            .sink(sink);
        let mut stepper = Stepper::new(&job, 2).unwrap();
        // 3 comes 57 s after its windows' first end: just in time. The two windows of each are told twice.
        for second in [2, 62, 3, 64, 65, 200] {
            feed.push(0, (second, 1));
            stepper.until_idle().unwrap();
        }
        drop(feed);
        stepper.run().unwrap();
        let told: Vec<_> = results.take().into_iter().take(2).collect();
        let told: Vec<_> = told.iter().map(|w| (w.window.end, w.value)).collect();
        let ends = [5, 10].map(EventTime::from_seconds);
        assert_eq!(told, [(ends[0], (2, 2)), (ends[1], (2, 2))], "{corrects}");
        assert_eq!(stepper.counters().late, 0);
    }
}

#[test]
fn windows_of_behind_records_close_as_well() {
    let (feed, source) = testing::feed::<(i64, u64)>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("idle");
    job.source(source)
        .event_time(
            |r: &(i64, u64)| EventTime::from_seconds(r.0),
            Watermarks::monotonous().close_after_idle(5.seconds()),
        )
        .filter(|r: &(i64, u64)| r.1 == 1)
        .key_by(|r: &(i64, u64)| r.1)
        .window(Sliding::of(10.seconds(), 5.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, (20, 0));
    feed.push(0, (17, 1));
    for _ in 0..10 {
        stepper.advance_clock(1.seconds());
        stepper.until_idle().unwrap();
    }
    let results = results.take();
    assert_eq!(results.len(), 1);
    assert_eq!(results[0].window.end, EventTime::from_seconds(25));
    assert_eq!(stepper.counters().partly_late, 1);
}

/// Counts merges, and how many of its accumulators there are.
#[derive(Clone, Default)]
struct Watched {
    merges: Arc<AtomicU64>,
    alive: Arc<AtomicI64>,
}

#[crate::state(version = 1)]
struct WatchedAcc(
    u64,
    #[rkyv(with = rkyv::with::Skip)]
    #[state(kept_as = ())]
    Arc<AtomicI64>,
);

impl Clone for WatchedAcc {
    fn clone(&self) -> Self {
        self.1.fetch_add(1, Relaxed);
        WatchedAcc(self.0, self.1.clone())
    }
}

impl Drop for WatchedAcc {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Relaxed);
    }
}

impl Aggregate<(i64, u64)> for Watched {
    type Acc = WatchedAcc;
    type Out = u64;
    fn create(&self) -> WatchedAcc {
        self.alive.fetch_add(1, Relaxed);
        WatchedAcc(0, self.alive.clone())
    }
    fn add(&self, acc: &mut WatchedAcc, _: &(i64, u64), _: At) {
        acc.0 += 1;
    }
    fn merge(&self, acc: &mut WatchedAcc, other: &WatchedAcc) {
        self.merges.fetch_add(1, Relaxed);
        acc.0 += other.0;
    }
    fn finish(&self, acc: &WatchedAcc) -> u64 {
        acc.0
    }
}

struct Watching {
    stepper: Stepper,
    feed: testing::Feed<(i64, u64)>,
    results: testing::Collected<Windowed<u64, u64>>,
    aggregate: Watched,
    /// The most merges and results of one step.
    most: u64,
}

/// A job whose records are `(microseconds, key)`; a record with key `u64::MAX` is left out and only moves the watermark.
fn watch(window: impl crate::window::WindowAssigner<(i64, u64)>) -> Watching {
    let (feed, source) = testing::feed::<(i64, u64)>(1);
    let (results, sink) = testing::collect();
    let aggregate = Watched::default();
    let job = Job::new("watched");
    job.source(source)
        .event_time(
            |r: &(i64, u64)| EventTime::from_micros(r.0),
            Watermarks::monotonous(),
        )
        .filter(|r: &(i64, u64)| r.1 != u64::MAX)
        .key_by(|r: &(i64, u64)| r.1)
        .window(window)
        .aggregate_with(aggregate.clone())
        .sink(sink);
    Watching {
        stepper: Stepper::new(&job, 1).unwrap(),
        feed,
        results,
        aggregate,
        most: 0,
    }
}

impl Watching {
    /// Steps until nothing moves; the results.
    fn results(&mut self) -> Vec<Windowed<u64, u64>> {
        let mut all = vec![];
        loop {
            let mut worked = false;
            for tasklet in 0..self.stepper.tasklets() {
                let before = self.aggregate.merges.load(Relaxed);
                worked |= self.stepper.step(tasklet).unwrap() == Progress::Worked;
                let new = self.results.take();
                let merges = self.aggregate.merges.load(Relaxed) - before;
                self.most = self.most.max(merges + new.len() as u64);
                all.extend(new);
            }
            if !worked {
                return all;
            }
        }
    }
}

/// A step may do this much: `WORK`, and what one visit may be above it.
const STEP: u64 = super::WORK as u64 + 1024;

#[test]
fn ten_thousand_slices_are_cheap() {
    const N: i64 = 10_000;
    let mut w = watch(Sliding::of(N.micros(), 1.micros()));
    let mut results = 0;
    for time in 0..3 * N {
        w.feed.push(0, (time, 0));
        w.feed.push(0, (time, 1));
        for r in w.results() {
            assert_eq!(r.value as i64, r.window.end.micros().min(N));
            results += 1;
        }
    }
    assert_eq!(results, 2 * (3 * N - 1));
    let merges = w.aggregate.merges.load(Relaxed) as i64;
    assert!(merges <= 3 * results, "{merges} merges");
    let alive = w.aggregate.alive.load(Relaxed);
    assert!(alive <= 2 * (N + 10), "{alive} accumulators for two keys");
    assert!(w.most <= STEP, "{} merges and results in a step", w.most);
    // A key whose slices are few has few.
    w.feed.push(0, (10 * N, 2));
    w.feed.push(0, (10 * N + 1, 2));
    w.results();
    let alive = w.aggregate.alive.load(Relaxed);
    assert!(alive <= 30, "{alive} accumulators are left");
}

#[test]
fn all_keys_turn_at_once_in_bounded_steps() {
    let mut w = watch(Sliding::of(50.micros(), 1.micros()));
    for time in 0..160 {
        for key in 0..3000 {
            w.feed.push(0, (time, key));
        }
        w.results();
    }
    assert!(w.most <= STEP, "{} merges and results in a step", w.most);
    assert!(w.aggregate.alive.load(Relaxed) <= 3000 * 53);
    w.feed.push(0, (1000, u64::MAX));
    assert_eq!(w.results().len(), 50 * 3000);
    assert!(w.aggregate.alive.load(Relaxed) <= 3000 * 3);
    // Nothing is left to fire, and removed keys come again.
    w.feed.push(0, (2000, u64::MAX));
    assert_eq!(w.results().len(), 0);
    w.feed.push(0, (2000, 7));
    w.feed.push(0, (2001, u64::MAX));
    assert_eq!(w.results().len(), 1);
}

#[test]
fn keys_that_come_and_go_leave_nothing() {
    let mut w = watch(Sliding::of(3.micros(), 1.micros()));
    for time in 0..300 {
        for key in 0..20 {
            w.feed.push(0, (time, (time * 20 + key) as u64));
        }
        w.results();
        let alive = w.aggregate.alive.load(Relaxed);
        assert!(alive <= 20 * 5 * 4, "{alive} accumulators at {time}");
    }
    assert!(w.aggregate.alive.load(Relaxed) > 0);
}

#[test]
fn a_behind_record_changes_many_windows_in_bounded_steps() {
    const N: i64 = 10_000;
    let window = Sliding::of(N.micros(), 1.micros()).allowed_lateness((2 * N).micros());
    for corrects in [false, true] {
        let mut w = watch(if corrects {
            window.one_correction()
        } else {
            window
        });
        for time in 0..2 * N {
            w.feed.push(0, (time, 0));
        }
        w.results();
        w.most = 0;
        w.feed.push(0, (N + N / 2, 0));
        w.feed.push(0, (N + N / 2, 1));
        w.feed.push(0, (2 * N, 0));
        let changed = w.results();
        assert!(w.most <= STEP, "{} merges and results in a step", w.most);
        if corrects {
            assert_eq!(changed.len(), 2);
            // Not all of them: each merges ten thousand slices anew.
            w.feed.push(0, (3 * N + N / 2 + 40, u64::MAX));
            let corrections = w
                .results()
                .into_iter()
                .filter(|r| r.firing == Firing::Correction);
            let corrections: Vec<_> = corrections.collect();
            assert_eq!(corrections.len(), 2 * 40);
            assert!(w.most <= STEP, "{} merges and results in a step", w.most);
            for r in corrections {
                let end = r.window.end.micros();
                assert!((1..=40).contains(&(end - N - N / 2)), "{:?}", r.window);
                assert_eq!(r.value, if r.key == 0 { N as u64 + 1 } else { 1 });
            }
        } else {
            assert_eq!(changed.len(), N as usize);
            let merges = w.aggregate.merges.load(Relaxed) as i64;
            assert!(merges <= 12 * N, "{merges} merges");
        }
        w.feed.push(0, (10 * N, u64::MAX));
        if !corrects {
            w.results();
            assert!(w.aggregate.alive.load(Relaxed) <= 30);
        }
    }
}

#[test]
fn cumulating_windows_keep_one_part() {
    let mut w = watch(Cumulate::of(1000.micros(), 1.micros()));
    let mut results = 0;
    for time in 0..2500 {
        w.feed.push(0, (time, 3));
        for r in w.results() {
            let end = r.window.end.micros();
            assert_eq!(r.window.start.micros(), (end - 1) / 1000 * 1000);
            assert_eq!(r.value as i64, (end - 1) % 1000 + 1);
            results += 1;
        }
        assert!(w.aggregate.alive.load(Relaxed) <= 20);
    }
    assert_eq!(results, 2499);
}

#[test]
fn records_out_of_order_go_to_open_slices() {
    let (feed, source) = testing::feed::<(i64, u64)>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("disorder");
    job.source(source)
        .event_time(
            |r: &(i64, u64)| EventTime::from_micros(r.0),
            Watermarks::bounded(5000.micros()),
        )
        .key_by(|r: &(i64, u64)| r.1)
        .window(Sliding::of(100.micros(), 10.micros()))
        .aggregate(|a| (a.count(), a.max(|r| r.0)))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    // 500 open slices, met in a scattered order: 7919 is prime.
    let times = (0..5000).map(|n| n * 7919 % 5000);
    times.for_each(|time| feed.push(0, (time, time as u64 % 2)));
    drop(feed);
    stepper.run().unwrap();
    let results = results.take();
    assert_eq!(results.len(), 2 * 509);
    for r in results {
        let (start, end) = (
            r.window.start.micros().max(0),
            r.window.end.micros().min(5000),
        );
        assert_eq!(r.value.0 as i64, (end - start) / 2);
        assert!(r.value.1 >= end - 2);
    }
    assert_eq!(stepper.counters().late + stepper.counters().partly_late, 0);
}
