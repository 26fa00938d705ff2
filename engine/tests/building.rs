//! Jobs that are refused when they are built, each with a reason and what to do.

use pelton::port::Ports;
use pelton::testing::{self, Stepper};
use pelton::{
    BuildError, Cumulate, EventTime, Global, Job, Pipeline, ProcessingTime, Session, Sliding, Span,
    Spans, Stream, Tumbling, Watermarks, Windowed, sink, sources,
};

type Record = (i64, u32);

fn time(record: &Record) -> EventTime {
    EventTime::from_seconds(record.0)
}

fn error(job: &Job) -> BuildError {
    Stepper::new(job, 2)
        .map(drop)
        .expect_err("it is to be refused")
}

/// Refused with this code, for this reason, with a place in this file.
fn assert_refused(job: &Job, code: &str, why: &str) {
    let error = error(job);
    let text = error.to_string();
    assert_eq!(error.code(), code, "{text}");
    assert!(text.contains(why), "{text}");
    assert!(text.contains("tests/building.rs:"), "{text}");
}

/// Windows whose results change: each update would be one more record to what follows.
fn updates(job: &Job) -> Stream<impl Pipeline<Item = Windowed<u32, u64>>> {
    job.source(sources::items(vec![(1, 1)]))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.1)
        .window(Tumbling::of(10.seconds()).allowed_lateness(200.seconds()))
        .uid("updates")
        .aggregate(|a| a.count())
}

#[test]
fn state_behind_updates_is_refused() {
    let (job, (_, sink)) = (Job::new("windows"), testing::collect());
    updates(&job)
        .key_by(|w| w.key)
        .window(Tumbling::of(1000.seconds()))
        .aggregate(|a| a.count())
        .sink(sink);
    assert_refused(&job, "PLT-0011", "window 'updates'");

    let (job, (_, sink)) = (Job::new("windows by count"), testing::collect());
    updates(&job)
        .key_by(|w| w.key)
        .window(Global::count(2))
        .aggregate(|a| a.count())
        .sink(sink);
    assert_refused(&job, "PLT-0011", "window 'updates'");

    let (job, (_, sink)) = (Job::new("running values"), testing::collect());
    updates(&job)
        .map(|w| w)
        .key_by(|w| w.key)
        .running(|a| a.count())
        .sink(sink);
    assert_refused(&job, "PLT-0011", "window 'updates'");

    let (job, (_, sink)) = (Job::new("in order"), testing::collect());
    updates(&job)
        .in_event_time_order()
        .fold(0, |n, _| *n += 1)
        .sink(sink);
    assert_refused(&job, "PLT-0011", "window 'updates'");
}

#[test]
fn updates_that_are_said_to_be_records_are_counted() {
    let (job, (_, sink)) = (Job::new("how many updates"), testing::collect());
    updates(&job)
        .each_update_is_a_record()
        .key_by(|w| w.key)
        .running(|a| a.count())
        .sink(sink);
    let plan = job.explain();
    let said = plan.lines().find(|l| l.contains("each_update_is_a_record"));
    assert!(said.unwrap().ends_with("[EXEMPT]"), "{plan}");
    Stepper::new(&job, 2).unwrap();
}

/// What only hands updates on is allowed, and so is state behind results that are the same in every run.
#[test]
fn updates_may_be_handed_on_and_corrections_counted() {
    let (job, (_, sink)) = (Job::new("handed on"), testing::collect());
    updates(&job)
        .map(|w| w.value)
        .rebalance()
        .filter(|n| *n > 0)
        .key_by(|n| *n)
        .exchange()
        .sink(sink);
    Stepper::new(&job, 2).unwrap();

    let (job, (_, sink)) = (Job::new("one correction"), testing::collect());
    job.source(sources::items(vec![(1, 1)]))
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.1)
        .window(
            Tumbling::of(10.seconds())
                .allowed_lateness(200.seconds())
                .one_correction(),
        )
        .aggregate(|a| a.count())
        .key_by(|w| w.key)
        .running(|a| a.count())
        .sink(sink);
    Stepper::new(&job, 2).unwrap();
}

#[test]
fn late_to_is_refused_where_no_record_is_late() {
    let (_, late) = testing::collect::<Record>();
    let (job, (_, sink)) = (Job::new("by count"), testing::collect());
    job.source(sources::items(vec![(1, 1)]))
        .key_by(|r| r.1)
        .window(Global::count(1))
        .late_to(late.clone())
        .aggregate(|a| a.count())
        .sink(sink);
    assert_refused(&job, "PLT-0001", "no record is late");

    let (job, (_, sink)) = (Job::new("by the clock"), testing::collect());
    job.source(sources::items(vec![(1, 1)]))
        .key_by(|r| r.1)
        .window(ProcessingTime::tumbling(1.seconds()))
        .late_to(late)
        .aggregate(|a| a.count())
        .sink(sink);
    assert_refused(&job, "PLT-0001", "no record is late");
}

#[test]
fn one_correction_of_nothing_is_refused() {
    let timed = |job: &Job| {
        job.source(sources::items(vec![(1, 1)]))
            .event_time(time, Watermarks::monotonous())
            .key_by(|r| r.1)
    };
    macro_rules! refused {
        ($($window:expr),*) => { $(
            let (job, (_, sink)) = (Job::new("nothing to correct"), testing::collect());
            timed(&job).window($window.one_correction()).aggregate(|a| a.count()).sink(sink);
            assert_refused(&job, "PLT-0001", "nothing to correct");
        )* };
    }
    refused!(
        Tumbling::of(1.seconds()),
        Sliding::of(2.seconds(), 1.seconds()),
        Cumulate::of(2.seconds(), 1.seconds()),
        Session::gap(1.seconds()).allowed_lateness(Span::ZERO)
    );
}

#[test]
fn a_second_output_for_dead_letters_is_refused() {
    let (_, one) = testing::collect();
    let (_, two) = testing::collect();
    let (job, (_, sink)) = (Job::new("two outputs"), testing::collect());
    job.dead_letters_to(one);
    job.dead_letters_to(two);
    job.source(sources::items(vec![1])).sink(sink);
    assert_refused(&job, "PLT-0001", "dead letters already");
}

#[test]
fn windows_that_close_before_anyone_is_idle_are_refused() {
    let strategy = Watermarks::monotonous()
        .close_after_idle(5.seconds())
        .idle_after(300.seconds());
    let (job, (_, sink)) = (Job::new("close first"), testing::collect());
    job.source(sources::items(vec![(1, 1)]))
        .event_time(time, strategy)
        .sink(sink);
    assert_refused(&job, "PLT-0001", "shorter than idle_after");
}

#[test]
fn a_union_of_two_jobs_refuses_both() {
    let (one, two) = (Job::new("one"), Job::new("two"));
    let (_, sink) = testing::collect();
    let other = two
        .source(sources::items(vec![1u32]))
        .key_by(|x| *x)
        .exchange();
    one.source(sources::items(vec![2u32]))
        .union(other)
        .sink(sink);
    assert_refused(&one, "PLT-0001", "two jobs, 'one' and 'two'");
    assert_refused(&two, "PLT-0001", "two jobs, 'one' and 'two'");
}

#[test]
fn a_uid_given_twice_is_refused() {
    let (job, (_, one)) = (Job::new("twice"), testing::collect());
    let (_, two) = testing::collect();
    let [a, b] = job
        .source(sources::items(vec![(1, 1)]))
        .event_time(time, Watermarks::monotonous())
        .fork();
    a.key_by(|r| r.1)
        .window(Tumbling::of(1.seconds()))
        .uid("w")
        .aggregate(|a| a.count())
        .sink(one);
    b.map(|r| r).uid("w").sink(two);
    assert_refused(&job, "PLT-0001", "the uid 'w'");
}

#[test]
fn a_job_runs_once() {
    let (job, (_, sink)) = (Job::new("once"), testing::collect());
    job.source(sources::items(vec![1u32])).sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let error = error(&job);
    assert_eq!(error.code(), "PLT-0010");
    assert!(error.to_string().contains("already"), "{error}");
}

#[test]
fn no_shards_are_refused() {
    let (job, (_, sink)) = (Job::new("none"), testing::collect());
    job.source(sources::items(vec![1u32]))
        .key_by(|x| *x)
        .exchange()
        .sink(sink);
    let error = Stepper::new(&job, 0).map(drop).unwrap_err();
    assert_eq!(error.code(), "PLT-0009");
    assert!(error.to_string().contains("0 shards"), "{error}");
}

/// A sink that notes when it is opened and when its job starts.
struct Notes {
    told: std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>,
    fails: bool,
}

impl sink::Sink<Record> for Notes {
    type Writer = sink::CallbackWriter<fn(Record, pelton::batch::Stamp)>;
    fn name(&self) -> String {
        "notes".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        let (told, fails) = (self.told.clone(), self.fails);
        told.lock().unwrap().push("open");
        ports.at_start("notes", move |_| {
            told.lock().unwrap().push("start");
            match fails {
                true => Err("it is stuck".into()),
                false => Ok(()),
            }
        });
        let mut nothing = sink::callback("nothing", (|_, _| {}) as fn(_, _));
        sink::Sink::<Record>::open(&mut nothing, ports)
    }
}

#[test]
fn sinks_start_when_all_have_opened_or_never() {
    let told = std::sync::Arc::default();
    let notes = |fails| Notes {
        told: std::sync::Arc::clone(&told),
        fails,
    };
    let build = |first: Notes, second: Option<Notes>| {
        let job = Job::new("starts");
        let [one, other] = job.source(sources::items(vec![(1, 1)])).fork();
        one.sink(first);
        match second {
            Some(second) => other.sink(second),
            None => other.sink(Refuses),
        }
        let result = Stepper::new(&job, 2).map(drop);
        (result, std::mem::take(&mut *told.lock().unwrap()))
    };
    let (result, told) = build(notes(false), Some(notes(false)));
    assert_eq!(result, Ok(()));
    assert_eq!(told, ["open", "open", "start", "start"]);
    let (result, told) = build(notes(false), None);
    assert_eq!(result.unwrap_err().code(), "PLT-0008");
    assert_eq!(told, ["open"]);
    let (result, told) = build(notes(true), Some(notes(false)));
    let error = result.unwrap_err().to_string();
    assert_eq!(error, "[PLT-0008] sink notes: it is stuck");
    assert_eq!(told, ["open", "open", "start"]);
}

/// A sink that cannot be opened.
struct Refuses;

impl sink::Sink<Record> for Refuses {
    type Writer = sink::CallbackWriter<fn(Record, pelton::batch::Stamp)>;
    fn name(&self) -> String {
        "refuses".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        Err("it is not there".into())
    }
}

/// Event times are assigned in a source's own stage: behind any boundary there are no partitions to make watermarks of.
#[test]
fn event_time_behind_a_boundary_is_refused() {
    let source = |job: &Job| job.source(pelton::sources::items([1i64, 2]));
    let time = |t: &i64| pelton::EventTime::from_seconds(*t);
    let monotonous = pelton::Watermarks::monotonous;
    let union = Job::new("union");
    let both = source(&union).union(source(&union));
    both.event_time(time, monotonous())
        .sink(testing::collect().1);
    let fork = Job::new("fork");
    for branch in source(&fork).fork::<2>() {
        let timed = branch.event_time(time, monotonous());
        timed.sink(testing::collect().1);
    }
    let joined = Job::new("join");
    let table = source(&joined).key_by(|t| *t);
    let rows = source(&joined).broadcast_join(table, |t| *t);
    let rows = rows.inner(|l, _| *l).event_time(time, monotonous());
    rows.sink(testing::collect().1);
    for job in [union, fork, joined] {
        let e = Stepper::new(&job, 1).unwrap_err();
        assert!(
            matches!(e, BuildError::EventTimeAfterExchange { .. }),
            "{e}"
        );
    }
}
