//! Append-only sinks take final results only, wherever in the job it is that others are replaced; `explain` says so.

use crate::{Record, time};
use pelton::testing::Stepper;
use pelton::{
    BuildError, Cumulate, Global, Job, ProcessingTime, Session, Sliding, Span, Spans, Tumbling,
    Watermarks, sink, sources,
};

/// A keyed stream with event time, of `job`.
macro_rules! keyed {
    ($job:expr) => {
        $job.source(sources::items([(0u8, 0i64, 0u64)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r: &Record| r.0)
    };
}

/// Whether the windows' results are refused by an append-only sink; also behind what follows them. Others take them.
macro_rules! refused {
    ($window:expr) => {{
        let build = |behind: bool, updates: bool| {
            let job = Job::new("append");
            let rows = keyed!(job).window($window).aggregate(|a| a.count());
            let sink = sink::callback("append", |_, _| {});
            let sink = if updates { sink.updates() } else { sink };
            if behind {
                let [one, two] = rows.map(|w| w.value).fork();
                two.sink(sink::callback("rest", |_, _| {}).updates());
                one.filter(|n| *n > 1)
                    .key_by(|n| *n)
                    .window(Tumbling::of(1.minutes()))
                    .aggregate(|a| a.count())
                    .map(drop)
                    .sink(sink::callback("behind", |(), _| {}));
            } else {
                rows.sink(sink);
            }
            let explained = job.explain();
            (explained, Stepper::new(&job, 1).map(drop))
        };
        let (explained, built) = build(false, false);
        let refused = match built {
            Ok(()) => false,
            Err(e @ BuildError::AppendOnReplaced { .. }) => {
                let text = e.to_string();
                assert!(
                    text.contains("sink (append) at") && text.contains("(window"),
                    "{text}"
                );
                assert_eq!(e.code(), "PLT-0004");
                true
            }
            Err(e) => panic!("{e}"),
        };
        assert_eq!(
            explained.matches(", may be replaced]").count(),
            if refused { 2 } else { 0 },
            "{explained}"
        );
        assert_eq!(build(false, true).1, Ok(()), "one that takes updates");
        // What is made of them is no better.
        let (explained, built) = build(true, false);
        assert_eq!(built.is_err(), refused);
        let last = explained.lines().find(|l| l.contains("sink (behind)"));
        let told = last.is_some_and(|l| l.ends_with(", may be replaced]"));
        assert_eq!(told, refused, "{explained}");
        refused
    }};
}

#[test]
fn early_and_late_firing_is_refused() {
    let every = 1.seconds();
    assert!(refused!(Tumbling::of(10.seconds()).early_firing(every)));
    assert!(refused!(
        Sliding::of(10.seconds(), 5.seconds()).early_firing(every)
    ));
    assert!(refused!(
        Cumulate::of(10.seconds(), 5.seconds()).early_firing(every)
    ));
    assert!(refused!(Session::gap(10.seconds()).early_firing(every)));
    assert!(refused!(Tumbling::of(10.seconds()).allowed_lateness(every)));
    assert!(refused!(
        Sliding::of(10.seconds(), 5.seconds()).allowed_lateness(every)
    ));
    assert!(refused!(Session::gap(10.seconds()).allowed_lateness(every)));
    // A correction replaces the result that was on time.
    assert!(refused!(
        Tumbling::of(10.seconds())
            .allowed_lateness(every)
            .one_correction()
    ));
    assert!(refused!(
        Session::gap(10.seconds())
            .allowed_lateness(every)
            .one_correction()
    ));
}

#[test]
fn final_results_are_taken() {
    assert!(!refused!(Tumbling::of(10.seconds())));
    assert!(!refused!(Sliding::of(10.seconds(), 5.seconds())));
    assert!(!refused!(Cumulate::of(10.seconds(), 5.seconds())));
    assert!(!refused!(Session::gap(10.seconds())));
    assert!(!refused!(ProcessingTime::tumbling(10.seconds())));
    assert!(!refused!(ProcessingTime::sliding(
        10.seconds(),
        5.seconds()
    )));
    assert!(!refused!(ProcessingTime::session(10.seconds())));
    assert!(!refused!(Global::count(3)));
    assert!(!refused!(Global::count_or_timeout(3, Span::from_micros(1))));
}

/// EXEMPT is the worse class and hides nothing: running values in a union with windows by the clock.
#[test]
fn a_worse_class_does_not_hide_it() {
    let job = Job::new("hidden");
    let sums = keyed!(job).fold(0u64, |sum, r| *sum += r.2);
    let counts = keyed!(job)
        .window(ProcessingTime::tumbling(1.seconds()))
        .aggregate(|a| a.count());
    counts
        .map(|w| w.value)
        .union(sums.map(|k| k.value))
        .sink(sink::callback("append", |_: u64, _| {}));
    let error = Stepper::new(&job, 1).map(drop).unwrap_err();
    assert!(error.to_string().contains("(fold at"), "{error}");
}
