//! Early firing of sessions: what stands after each interval are the sessions as they are, and those that fired do not depend on it.

use crate::{Numbers, Record, config, partitions, run_clocked, runs, time};
use pelton::testing::{Stepper, collect, feed};
use pelton::{
    BuildError, EventTime, Firing, Job, Session, Span, Spans, Watermarks, Windowed, sink, sources,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
struct Spec {
    gap: i64,
    bound: i64,
    lateness: i64,
    corrects: bool,
}

fn specs() -> impl Strategy<Value = Spec> {
    let lateness = prop_oneof![Just(0i64), 1i64..15];
    (1i64..8, 0i64..12, lateness, any::<bool>()).prop_map(|(gap, bound, lateness, corrects)| Spec {
        gap,
        bound,
        lateness,
        corrects,
    })
}

impl Spec {
    fn window(&self, early: Option<Span>) -> Session {
        let window = Session::gap(self.gap.seconds()).allowed_lateness(self.lateness.seconds());
        let window = if self.corrects && self.lateness > 0 {
            window.one_correction()
        } else {
            window
        };
        match early {
            Some(every) => window.early_firing(every),
            None => window,
        }
    }

    /// Whether a record of this second is taken into sessions at once (and not parked, or late), where V is `v`.
    fn joins(&self, t: i64, v: i64) -> bool {
        let updates = self.lateness > 0 && !self.corrects;
        t >= v || updates && t + self.gap + self.lateness > v
    }

    /// Sessions of these records, by sorting.
    fn sessions(&self, records: &[Record]) -> Standing {
        let mut sorted = records.to_vec();
        sorted.sort_by_key(|r| (r.0, r.1));
        let mut all: Vec<((u8, i64, i64), Vec<u64>)> = vec![];
        for (key, t, number) in sorted {
            match all.last_mut() {
                Some(((k, _, end), numbers)) if *k == key && t <= *end => {
                    *end = t + self.gap;
                    numbers.push(number);
                }
                _ => all.push(((key, t, t + self.gap), vec![number])),
            }
        }
        all.iter_mut()
            .for_each(|(_, numbers)| numbers.sort_unstable());
        all.into_iter().collect()
    }
}

/// By key, start and end in seconds: the numbers of the records.
type Standing = BTreeMap<(u8, i64, i64), Vec<u64>>;
type Result = Windowed<u8, Vec<u64>>;

fn place(w: &Result) -> (u8, i64, i64) {
    let second = |t: EventTime| t.micros() / 1_000_000;
    (w.key, second(w.window.start), second(w.window.end))
}

/// Applies results as a consumer does; each must fit what stands.
fn apply(standing: &mut Standing, results: &[Result]) {
    for w in results {
        let mut numbers = w.value.clone();
        numbers.sort_unstable();
        let place = place(w);
        if w.firing == Firing::Retraction {
            assert_eq!(
                standing.remove(&place),
                Some(numbers),
                "taken back as it was told"
            );
            continue;
        }
        let others = standing.keys().filter(|s| s.0 == place.0 && **s != place);
        // A correction takes in what it replaces, and that is taken back before.
        for other in others {
            assert!(
                other.2 < place.1 || place.2 < other.1,
                "{other:?} stands in {place:?}"
            );
        }
        let before = standing.insert(place, numbers.clone());
        assert!(
            w.firing != Firing::Early || before != Some(numbers),
            "told although nothing changed"
        );
    }
}

proptest! {
    #![proptest_config(config())]

    /// The clock by hand: when the interval has passed, what stands are the sessions of all records so far; in between
    /// nothing is told but what fires.
    #[test]
    fn what_stands_after_each_interval_are_the_sessions(
        spec in specs(), events in prop::collection::vec((0u8..3, -14i64..9, 0i64..3), 1..150), every in 1i64..6,
    ) {
        let (feed, source) = feed::<Record>(1);
        let (results, sink) = collect();
        let job = Job::new("early");
        job.source(source)
            .event_time(time, Watermarks::bounded(spec.bound.seconds()))
            .key_by(|r| r.0)
            .window(spec.window(Some(every.seconds())))
            .aggregate_with(Numbers)
            .sink(sink);
        let mut stepper = Stepper::new(&job, 1).unwrap();
        let mut joined: Vec<Record> = vec![];
        let mut standing = Standing::new();
        let (mut now, mut next, mut latest, mut v) = (0, None, 100, i64::MIN);
        for (number, (key, ahead, wait)) in events.into_iter().enumerate() {
            stepper.advance_clock(wait.seconds());
            now += wait;
            stepper.until_idle().unwrap();
            let told = results.take();
            let due = next.is_some_and(|n| n <= now);
            prop_assert!(due || told.is_empty(), "{told:?} at {now}");
            apply(&mut standing, &told);
            if due {
                next = None;
                let mut sessions = spec.sessions(&joined);
                let mut now_standing = standing.clone();
                // What corrections make of sessions that have fired is not this model's business.
                if spec.corrects && spec.lateness > 0 {
                    sessions.retain(|s, _| s.2 >= v);
                    now_standing.retain(|s, _| s.2 >= v);
                }
                prop_assert_eq!(now_standing, sessions);
            }
            let at = latest + ahead;
            let record = (key, at, number as u64);
            feed.push(0, record);
            stepper.until_idle().unwrap();
            if spec.joins(at, v) {
                joined.push(record);
                next = next.or(Some(now + every));
            }
            latest = latest.max(at);
            v = v.max(at - spec.bound);
            let told = results.take();
            prop_assert!(told.iter().all(|w| w.firing != Firing::Early));
            apply(&mut standing, &told);
            // Fired sessions stand, and only as the model has them.
            if !spec.corrects || spec.lateness == 0 {
                let all = spec.sessions(&joined);
                for (s, numbers) in all.iter().filter(|s| s.0.2 < v) {
                    prop_assert_eq!(standing.get(s), Some(numbers));
                }
                // What was told may have grown since, into a session that is open.
                let lies_in = |s: &(u8, i64, i64), o: &(u8, i64, i64)| s.0 == o.0 && o.1 <= s.1 && s.2 <= o.2;
                let open = |s| all.keys().any(|o| o.2 >= v && lies_in(s, o));
                prop_assert!(standing.keys().all(|s| all.contains_key(s) || open(s)));
            }
        }
    }

    /// What stands in the end is the same with it and without, whatever the schedule and the clock, and so is what fired.
    #[test]
    fn final_sessions_do_not_depend_on_it(
        spec in specs(), records in partitions(), how in runs(), every in 1i64..30,
    ) {
        let answer = |early| {
            let (results, sink) = collect();
            let job = Job::new("final");
            job.source(sources::partitions(records.clone()))
                .event_time(time, Watermarks::bounded(spec.bound.seconds()))
                .key_by(|r| r.0)
                .window(spec.window(early))
                .aggregate_with(Numbers)
                .sink(sink);
            let counters = run_clocked(&job, how).unwrap();
            let results: Vec<Result> = results.take();
            let mut standing = Standing::new();
            apply(&mut standing, &results);
            let mut fired: Vec<_> = results
                .iter()
                .filter(|w| matches!(w.firing, Firing::OnTime | Firing::Correction))
                .map(|w| {
                    let mut numbers = w.value.clone();
                    numbers.sort_unstable();
                    (place(w), w.firing, numbers)
                })
                .collect();
            fired.sort();
            (standing, fired, counters.late)
        };
        let (standing, fired, late) = answer(Some(Span::from_micros(every)));
        let expected = answer(None);
        prop_assert_eq!((standing, late), (expected.0, expected.2));
        // With updates, which sessions fire on time depends on the schedule (class NET).
        if spec.lateness == 0 || spec.corrects {
            prop_assert_eq!(fired, expected.1);
        }
    }
}

/// A job by hand over (key, second) with a bound of 100 s, and what it tells: (key, start, end, count, firing).
#[allow(clippy::type_complexity)]
fn counts(
    window: Session,
) -> (
    Stepper,
    pelton::testing::Feed<(u32, i64)>,
    impl Fn() -> Vec<(u32, i64, i64, u64, Firing)>,
) {
    let (feed, source) = feed::<(u32, i64)>(1);
    let (results, sink) = collect::<Windowed<u32, u64>>();
    let job = Job::new("counts");
    job.source(source)
        .event_time(
            |r| EventTime::from_seconds(r.1),
            Watermarks::bounded(100.seconds()),
        )
        .key_by(|r| r.0)
        .window(window)
        .aggregate(|a| a.count())
        .sink(sink);
    let second = |t: EventTime| t.micros() / 1_000_000;
    let take = move || {
        let short = |w: Windowed<u32, u64>| {
            (
                w.key,
                second(w.window.start),
                second(w.window.end),
                w.value,
                w.firing,
            )
        };
        results.take().into_iter().map(short).collect()
    };
    (Stepper::new(&job, 1).unwrap(), feed, take)
}

/// Two sessions that were told merge: both are taken back, then the whole is told. Another of the key is not told again.
#[test]
fn a_merge_of_told_sessions_takes_them_back() {
    let (mut stepper, feed, take) = counts(Session::gap(10.seconds()).early_firing(1.seconds()));
    let mut told_after = |records: &[(u32, i64)]| {
        records.iter().for_each(|r| feed.push(0, *r));
        stepper.until_idle().unwrap();
        stepper.advance_clock(1.seconds());
        stepper.until_idle().unwrap();
        take()
    };
    use Firing::{Early, OnTime, Retraction};
    let told = told_after(&[(1, 20), (1, 40), (1, 0), (1, 42)]);
    assert_eq!(
        told,
        [
            (1, 0, 10, 1, Early),
            (1, 20, 30, 1, Early),
            (1, 40, 52, 2, Early)
        ]
    );
    let told = told_after(&[(1, 10)]);
    assert_eq!(
        told,
        [
            (1, 0, 10, 1, Retraction),
            (1, 20, 30, 1, Retraction),
            (1, 0, 30, 3, Early)
        ]
    );
    // Within its window: no retraction. And a session that fires before it is told again takes back what was told.
    assert_eq!(told_after(&[(1, 5)]), [(1, 0, 30, 4, Early)]);
    let told = told_after(&[(1, 25), (2, 136)]);
    assert_eq!(
        told[..2],
        [(1, 0, 30, 4, Retraction), (1, 0, 35, 5, OnTime)]
    );
    assert_eq!(told[2..], [(2, 136, 146, 1, Early)]);
}

/// Many keys, and many sessions of one key, are told in pieces, each once; then no timer runs.
#[test]
fn telling_is_bounded_and_stops() {
    let (mut stepper, feed, take) = counts(Session::gap(1.seconds()).early_firing(1.seconds()));
    for key in 0..5_000 {
        feed.push(0, (key, 0));
    }
    for second in 0..33 {
        feed.push(0, (9_999, 3 * second));
    }
    stepper.until_idle().unwrap();
    assert!(take().is_empty());
    stepper.advance_clock(1.seconds());
    let mut told = BTreeMap::new();
    for _ in 0..20 {
        for tasklet in 0..stepper.tasklets() {
            stepper.step(tasklet).unwrap();
            let some = take();
            assert!(some.len() <= 1024, "{} in one step", some.len());
            for (key, start, ..) in some {
                assert_eq!(told.insert((key, start), ()), None, "told twice");
            }
        }
    }
    assert_eq!(told.len(), 5_033);
    stepper.advance_clock(100.seconds());
    stepper.until_idle().unwrap();
    assert!(take().is_empty());
    for tasklet in 0..stepper.tasklets() {
        let progress = stepper.step(tasklet).unwrap();
        assert_eq!(progress, pelton::tasklet::Progress::Idle { until_ns: None });
    }
}

#[test]
fn the_interval_must_be_positive_and_explain_says_it() {
    let job = Job::new("job");
    job.source(sources::items([(0u8, 0i64, 0u64)]))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.0)
        .window(Session::gap(10.seconds()).early_firing(Span::ZERO))
        .aggregate(|a| a.count())
        .sink(sink::callback("table", |_, _| {}).updates());
    let explained = job.explain();
    assert!(
        explained.contains("(session, gap 10s, early every"),
        "{explained}"
    );
    let error = Stepper::new(&job, 1).unwrap_err();
    assert!(matches!(error, BuildError::Argument { .. }), "{error}");
}
