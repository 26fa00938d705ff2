//! What a job counts, and whom it blames: the same wherever its stages end.

use pelton::batch::Stamp;
use pelton::testing::{self, Stepper};
use pelton::{
    Cumulate, EventTime, Firing, Global, Job, Session, Sliding, Span, Spans, Tumbling,
    WatermarkGenerator, Watermarks, sink, sources,
};

type Record = (i64, u32);

fn time(record: &Record) -> EventTime {
    EventTime::from_seconds(record.0)
}

/// A source with two records behind their watermark.
fn disorder() -> impl pelton::source::Source<Item = Record> {
    sources::items(vec![(1, 1), (100, 1), (2, 1), (3, 1)])
}

#[test]
fn late_records_are_not_results_wherever_the_stage_ends() {
    let counts = |exchange: bool| {
        let (late, late_sink) = testing::collect::<Record>();
        let (results, sink) = testing::collect();
        let job = Job::new("out");
        let windows = job
            .source(disorder())
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.1)
            .window(Tumbling::of(10.seconds()))
            .late_to(late_sink)
            .aggregate(|a| a.count());
        if exchange {
            windows.key_by(|w| w.key).exchange().sink(sink);
        } else {
            windows.sink(sink);
        }
        let mut stepper = Stepper::new(&job, 1).unwrap();
        stepper.run().unwrap();
        assert_eq!((results.take().len(), late.take().len()), (2, 2));
        let counters = stepper.counters();
        (counters.records_out, counters.late, counters.behind)
    };
    assert_eq!(counts(false), (2, 2, 2));
    assert_eq!(counts(true), (2, 2, 2));
}

#[test]
fn a_record_is_behind_once() {
    let (job, (_, sink)) = (Job::new("many stages"), testing::collect());
    job.source(disorder())
        .event_time(time, Watermarks::monotonous())
        .rebalance()
        .map(|r| r)
        .rebalance()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    stepper.run().unwrap();
    assert_eq!(stepper.counters().behind, 2);

    let (job, (_, sink)) = (Job::new("one stage"), testing::collect());
    job.source(disorder())
        .event_time(time, Watermarks::monotonous())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    stepper.run().unwrap();
    assert_eq!(stepper.counters().behind, 2);
}

/// A window that is made after its end, within the allowed lateness, has fired: it tells updates, and others go on as they
/// would without it.
#[test]
fn a_window_made_after_its_end_tells_updates_only() {
    let (feed, source) = testing::feed::<Record>(1);
    let (job, (results, sink)) = (Job::new("made late"), testing::collect());
    job.source(source)
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.1)
        .window(Tumbling::of(10.seconds()).allowed_lateness(100.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for second in [31, 45, 12, 56, 1, 67, 2, 300] {
        feed.push(0, (second, 1));
        stepper.until_idle().unwrap();
    }
    let told: Vec<_> = results
        .take()
        .iter()
        .map(|w| (w.window.start.micros() / 1_000_000, w.value, w.firing))
        .collect();
    let expected = [
        (30, 1, Firing::OnTime),
        (10, 1, Firing::Update),
        (40, 1, Firing::OnTime),
        (0, 1, Firing::Update),
        (50, 1, Firing::OnTime),
        (0, 2, Firing::Update),
        (60, 1, Firing::OnTime),
    ];
    assert_eq!(told, expected);
}

/// A generator may say that nothing more will come, and be wrong: what comes is counted all the same.
#[test]
fn nothing_vanishes_after_a_generator_says_the_end() {
    let (job, (results, sink)) = (Job::new("after the end"), testing::collect());
    let mark = |r: &Record| (r.1 == 9).then_some(EventTime::END);
    job.source(sources::items(vec![(1, 1), (2, 9), (3, 1), (4, 1)]))
        .event_time(time, Watermarks::punctuated(mark))
        .key_by(|_| 0u8)
        .window(Global::count_or_timeout(100, 10.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    let mut sizes = testing::Sizes::shards(1);
    sizes.batch_size = 1;
    Stepper::with(&job, sizes).unwrap().run().unwrap();
    let counted: u64 = results.take().iter().map(|w| w.value).sum();
    assert_eq!(counted, 4);
}

fn blamed(job: &Job) -> String {
    let error = Stepper::new(job, 1).unwrap().run().unwrap_err();
    assert_eq!(error.code(), "PLT-0101");
    let text = error.to_string();
    let op = text.split(" panicked").next().unwrap().to_string();
    assert!(op.contains("tests/counting.rs:"), "{op}");
    op
}

#[derive(Clone)]
struct Wrong;

impl<T> WatermarkGenerator<T> for Wrong {
    type State = ();
    fn state(&self) {}
    fn restore(&mut self, _: ()) {}
    fn on_record(&mut self, _: &T, time: EventTime) {
        assert!(time.micros() <= 5_000_000, "too much for it");
    }
    fn watermark(&self) -> EventTime {
        EventTime::BEGINNING
    }
}

#[test]
fn a_generator_that_panics_is_blamed_on_event_time() {
    let records = || sources::items((0..10).map(|n| (n, 1)).collect::<Vec<Record>>());
    let (job, (_, sink)) = (Job::new("by record"), testing::collect());
    job.source(records())
        .map(|r| r)
        .event_time(time, Watermarks::custom(Wrong))
        .sink(sink);
    let op = blamed(&job);
    assert!(op.contains("event_time"), "{op}");

    let (job, (_, sink)) = (Job::new("by batch"), testing::collect());
    job.source(records())
        .event_time(time, Watermarks::custom(Wrong))
        .key_by(|r| r.1)
        .exchange()
        .sink(sink);
    let op = blamed(&job);
    assert!(op.contains("event_time"), "{op}");
}

#[derive(Debug)]
struct Unclonable(u64);

impl Clone for Unclonable {
    fn clone(&self) -> Self {
        assert!(self.0 < 7, "no more of these");
        Unclonable(self.0)
    }
}

#[test]
fn a_clone_that_panics_is_blamed_on_the_fork() {
    let (_, one) = testing::collect();
    let (_, two) = testing::collect();
    let job = Job::new("bad clone");
    let [a, b] = job.source(sources::generate("n", 10, 1, Unclonable)).fork();
    a.map(|r| r.0).sink(one);
    b.map(|r| r.0).sink(two);
    let op = blamed(&job);
    assert!(op.contains("fork"), "{op}");
}

#[test]
fn outputs_that_panic_are_named_where_they_were_written() {
    let (job, (_, sink)) = (Job::new("bad late output"), testing::collect());
    job.source(disorder())
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.1)
        .window(Tumbling::of(1.seconds()))
        .late_to(sink::callback("late", |_, _: Stamp| panic!("late")))
        .aggregate(|a| a.count())
        .sink(sink);
    let op = blamed(&job);
    assert!(op.contains("late output"), "{op}");
}

/// The ends of time and the longest spans, in every kind of window; overflow is checked in this build.
#[test]
fn the_ends_of_time() {
    let longest = Span::MAX;
    let third = Span::from_micros(longest.micros() / 3);
    let ends = || {
        let us = EventTime::from_micros;
        let (min, max) = (EventTime::MIN, EventTime::MAX);
        vec![min, us(0), max, min, max, us(-1)]
    };
    macro_rules! run {
        ($($window:expr),*) => { $( for bound in [Span::ZERO, longest] { for shards in [1, 2] {
            let (results, sink) = testing::collect();
            let (_, late) = testing::collect();
            let job = Job::new(stringify!($window));
            job.source(sources::items(ends()))
                .event_time(|t| *t, Watermarks::bounded(bound).max_drift(longest))
                .key_by(|_| 0u8)
                .window($window)
                .late_to(late)
                .aggregate(|a| a.count())
                .sink(sink);
            let mut stepper = Stepper::new(&job, shards).unwrap();
            stepper.run().unwrap();
            assert!(results.take().len() >= 2);
            assert_eq!(stepper.counters().invariant_broken, 0);
        } } )* };
    }
    let back = Span::from_micros(-longest.micros());
    run!(
        Tumbling::of(longest).allowed_lateness(longest),
        Tumbling::of(1.micros())
            .allowed_lateness(longest)
            .offset(back),
        Tumbling::of(longest)
            .allowed_lateness(longest)
            .one_correction(),
        Session::gap(longest).allowed_lateness(longest),
        Session::gap(longest)
            .allowed_lateness(longest)
            .one_correction(),
        Session::gap(1.micros()),
        Sliding::of(longest, third).allowed_lateness(longest),
        Sliding::of(longest, third)
            .offset(back)
            .allowed_lateness(longest)
            .one_correction(),
        Cumulate::of(longest, longest).allowed_lateness(longest),
        Cumulate::of(longest, longest)
            .offset(back)
            .allowed_lateness(longest)
            .one_correction()
    );
}
