//! Everything that can go wrong, one by one: what becomes of the record, and what is counted.

use crate::world::Scripted;
use pelton::calls::{self, Answer, Async, Cache, CallError, CallFigures, Client, Failure};
use pelton::testing::{self, Collected, Feed, Stepper};
use pelton::{BuildError, Job, JobError, Spans, sources};

type Outcome = (u64, Result<u64, CallError>);

struct Rig {
    client: Scripted<u64>,
    feed: Feed<u64>,
    rows: Collected<Outcome>,
    stepper: Stepper,
    figures: CallFigures,
}

fn options() -> Async {
    Async::ordered()
        .capacity(4)
        .time_out(100.millis())
        .retries(3)
        .back_off(2.millis(), 5.millis())
}

fn rig(options: Async) -> Rig {
    let client = Scripted::new(4);
    let (feed, source) = testing::feed(1);
    let (rows, sink) = testing::collect();
    let figures = options.figures();
    let job = Job::new("failures");
    job.source(source)
        .async_map(client.clone(), options, |n| *n)
        .outcomes(|n, r| (*n, r))
        .sink(sink);
    let stepper = Stepper::new(&job, 1).unwrap();
    Rig {
        client,
        feed,
        rows,
        stepper,
        figures,
    }
}

impl Rig {
    fn idle(&mut self) {
        self.stepper.until_idle().unwrap();
    }

    fn after(&mut self, millis: i64) {
        self.stepper.advance_clock(millis.millis());
        self.idle();
    }
}

/// 2 ms, then 4, then no more than 5.
#[test]
fn it_is_asked_again_ever_later() {
    let mut rig = rig(options());
    rig.feed.push(0, 7);
    rig.idle();
    for wait in [2, 4, 5] {
        rig.client.take(7).send(Err("busy".into()));
        rig.idle();
        assert_eq!(rig.client.len(), 0);
        rig.after(wait - 1);
        assert_eq!(rig.client.len(), 0, "{wait} ms are not over");
        rig.after(1);
        assert_eq!(rig.client.requests(), [7]);
    }
    assert!(rig.rows.take().is_empty());
    rig.client.take(7).send(Err("busy".into()));
    rig.idle();
    let error = CallError::Failed {
        what: "busy".into(),
        attempts: 4,
    };
    assert_eq!(rig.rows.take(), [(7, Err(error))]);
    let f = &rig.figures;
    assert_eq!(
        (f.requests(), f.retries(), f.refused(), f.failed()),
        (4, 3, 4, 1)
    );
    assert_eq!((f.timed_out(), f.stale()), (0, 0));
}

#[test]
fn an_answer_after_its_time_is_dropped_and_counted() {
    let mut rig = rig(options());
    rig.feed.push(0, 7);
    rig.idle();
    rig.after(99);
    assert_eq!(rig.figures.timed_out(), 0);
    rig.after(1);
    assert_eq!(rig.figures.timed_out(), 1);
    rig.after(2);
    assert_eq!(
        rig.client.requests(),
        [7, 7],
        "the first one lies there still"
    );
    rig.client.take(7).send(Ok(1));
    rig.idle();
    assert!(rig.rows.take().is_empty());
    assert_eq!(rig.figures.stale(), 1);
    rig.client.take(7).send(Ok(2));
    rig.idle();
    assert_eq!(rig.rows.take(), [(7, Ok(2))]);
}

#[test]
fn a_failure_that_is_final_is_not_tried_again() {
    let mut rig = rig(options());
    rig.feed.push(0, 7);
    rig.idle();
    rig.client
        .take(7)
        .send(Err(Failure::permanent("no such thing")));
    rig.idle();
    let error = rig.rows.take().remove(0).1.unwrap_err();
    assert_eq!(error.to_string(), "no such thing; asked 1 times");
}

#[test]
fn an_answer_that_is_dropped_is_one() {
    let mut rig = rig(options().retries(0));
    rig.feed.push(0, 7);
    rig.idle();
    drop(rig.client.take(7));
    rig.idle();
    let error = rig.rows.take().remove(0).1.unwrap_err();
    assert!(error.to_string().contains("without an answer"), "{error}");
}

/// At most as many as the capacity lie with it, given up or not; the others have their time run out unasked; and the job goes on to its end.
#[test]
fn a_client_that_hangs_holds_nobody_for_ever() {
    let mut rig = rig(options().retries(0));
    (0..12).for_each(|n| rig.feed.push(0, n));
    rig.feed.close(0);
    rig.idle();
    for _ in 0..3 {
        assert_eq!(rig.client.requests(), [0, 1, 2, 3]);
        rig.after(100);
    }
    assert!(rig.stepper.all_done());
    let rows = rig.rows.take();
    assert_eq!(rows.len(), 12);
    let within = 100.millis();
    let error = CallError::TimedOut {
        within,
        attempts: 1,
    };
    assert!(rows.iter().all(|r| r.1 == Err(error.clone())));
    assert_eq!((rig.figures.timed_out(), rig.figures.failed()), (12, 12));
}

/// One that comes to itself is asked again.
#[test]
fn a_client_that_hung_goes_on() {
    let mut rig = rig(options().retries(0));
    (0..4).for_each(|n| rig.feed.push(0, n));
    rig.idle();
    rig.after(100);
    (4..6).for_each(|n| rig.feed.push(0, n));
    rig.idle();
    assert_eq!(rig.client.requests(), [0, 1, 2, 3]);
    rig.client.take(0).send(Ok(0));
    rig.idle();
    assert_eq!(rig.client.requests(), [1, 2, 3, 4]);
    rig.client.take(4).send(Ok(40));
    rig.client.take(1).send(Ok(0));
    rig.idle();
    rig.client.take(5).send(Ok(50));
    rig.idle();
    assert_eq!(rig.rows.take()[4..], [(4, Ok(40)), (5, Ok(50))]);
    assert_eq!(rig.figures.stale(), 2);
}

#[test]
fn a_failure_stops_the_job_and_names_all() {
    let client = calls::blocking(1, |n: u64| match n {
        3 => Err(Failure::permanent("it does not like 3")),
        n => Ok(n),
    });
    let (_, sink) = testing::collect();
    let job = Job::new("stops");
    job.source(sources::items(0..10u64))
        .async_map(client, Async::unordered(), |n| *n)
        .uid("ask")
        .results(|_, r| r)
        .sink(sink);
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    assert_eq!(error.code(), "PLT-0115");
    assert!(error.is_retryable());
    let said = error.to_string();
    for part in [
        "'stops'",
        "async_map 'ask'",
        "failures.rs",
        "shard 0",
        "it does not like 3",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[test]
fn failures_become_dead_letters() {
    for is_lookup in [false, true] {
        let failing = |n: &u64| n % 3 == 1;
        let client = Scripted::<Option<u64>>::new(16);
        let (rows, sink) = testing::collect();
        let (letters, dead) = testing::collect();
        let job = Job::new("letters");
        job.dead_letters_to(dead);
        let stream = job.source(sources::items(0..12u64));
        let options = Async::unordered().retries(0);
        match is_lookup {
            false => stream
                .async_map(client.clone(), options, |n| *n)
                .dead_letters()
                .uid("ask")
                .results(|n, _| *n)
                .sink(sink),
            true => stream
                .lookup_join(|n| *n, client.clone())
                .options(options)
                .cache(Cache::none())
                .dead_letters()
                .uid("ask")
                .left_outer(|n, _| *n)
                .sink(sink),
        }
        let mut stepper = Stepper::new(&job, 2).unwrap();
        stepper.until_idle().unwrap();
        for asked in client.asked.lock().unwrap().drain(..) {
            let request = asked.request;
            let refused = || Err(format!("not {request}").into());
            let result = if failing(&request) {
                refused()
            } else {
                Ok(None)
            };
            asked.answer.send(result);
        }
        stepper.run().unwrap();
        let mut rows = rows.take();
        rows.sort_unstable();
        assert_eq!(rows, (0..12).filter(|n| !failing(n)).collect::<Vec<_>>());
        let mut letters = letters.take();
        letters.sort_by_key(|l| l.offset);
        let said: Vec<_> = letters
            .iter()
            .map(|l| (l.offset, l.reason.as_str()))
            .collect();
        let reason = |n: u64| format!("not {n}; asked 1 times");
        let expected: Vec<_> = (0..12).filter(failing).map(|n| (n, reason(n))).collect();
        let expected: Vec<_> = expected.iter().map(|(n, r)| (*n, r.as_str())).collect();
        assert_eq!(said, expected);
        assert!(letters[0].at.contains("'ask'"), "{}", letters[0].at);
        assert_eq!(stepper.counters().malformed, 4);
    }
}

/// A failure of a key is told to all that waited, and is not remembered.
#[test]
fn all_that_wait_for_a_key_are_told() {
    let client = Scripted::<Option<u64>>::new(4);
    let (feed, source) = testing::feed::<(u64, u64)>(1);
    let (rows, sink) = testing::collect();
    let job = Job::new("key");
    job.source(source)
        .lookup_join(|r| r.0, client.clone())
        .options(Async::ordered().retries(0))
        .outcomes(|r, row| (r.1, row.map(|r| r.copied()).map_err(ToString::to_string)))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    (0..3).for_each(|n| feed.push(0, (7, n)));
    stepper.until_idle().unwrap();
    client.take(7).send(Err("down".into()));
    stepper.until_idle().unwrap();
    let down = || Err("down; asked 1 times".to_string());
    assert_eq!(rows.take(), [(0, down()), (1, down()), (2, down())]);
    feed.push(0, (7, 3));
    stepper.until_idle().unwrap();
    client.take(7).send(Ok(Some(70)));
    stepper.until_idle().unwrap();
    assert_eq!(rows.take(), [(3, Ok(Some(70)))]);
}

#[derive(Clone)]
pub struct Panicking;

impl Client for Panicking {
    type Request = u64;
    type Response = u64;
    fn call(&mut self, n: u64, answer: Answer<u64>) {
        assert_ne!(n, 2, "this panic is part of a test");
        answer.send(Ok(n));
    }
}

pub fn panicking(job: &Job) {
    let (_, sink) = testing::collect();
    job.source(sources::items(0..5u64))
        .async_map(Panicking, Async::ordered(), |n| *n)
        .uid("ask")
        .outcomes(|n, r| (*n, r.is_ok()))
        .sink(sink);
}

pub fn assert_panicked(error: &JobError) {
    assert_eq!(error.code(), "PLT-0115");
    let said = error.to_string();
    assert!(
        said.contains("async_map 'ask'") && said.contains("client panicked"),
        "{said}"
    );
    assert!(said.contains("part of a test"), "{said}");
}

#[test]
fn a_client_that_panics_stops_the_job() {
    let job = Job::new("panics");
    panicking(&job);
    assert_panicked(&Stepper::new(&job, 1).unwrap().run().unwrap_err());
}

#[test]
fn a_function_that_panics_has_failed() {
    let client = calls::blocking(1, |n: u64| {
        assert_ne!(n, 2, "this panic is part of a test");
        Ok::<_, String>(n)
    });
    let (rows, sink) = testing::collect();
    let job = Job::new("panics");
    job.source(sources::items(0..4u64))
        .async_map(client, Async::ordered().retries(1), |n| *n)
        .outcomes(|n, r| (*n, r.map_err(|e| e.to_string())))
        .sink(sink);
    Stepper::new(&job, 1).unwrap().run().unwrap();
    let rows = rows.take();
    let error = rows[2].1.clone().unwrap_err();
    assert!(
        error.contains("part of a test") && error.contains("asked 2 times"),
        "{error}"
    );
    assert_eq!((&rows[3].1, rows.len()), (&Ok(3), 4));
}

fn refused(write: impl FnOnce(&Job)) -> String {
    let job = Job::new("refused");
    write(&job);
    let error = Stepper::new(&job, 1).unwrap_err();
    assert!(matches!(error, BuildError::Argument { .. }), "{error}");
    error.to_string()
}

#[test]
fn what_makes_no_sense_is_refused() {
    let map = |options: Async| {
        refused(|job| {
            let (_, sink) = testing::collect();
            job.source(sources::items([1u64]))
                .async_map(Panicking, options, |n| *n)
                .results(|_, r| r)
                .sink(sink);
        })
    };
    assert!(map(Async::ordered().capacity(0)).contains("capacity of 0"));
    assert!(map(Async::ordered().capacity(65_537)).contains("capacity of 65537"));
    assert!(map(Async::ordered().time_out(0.seconds())).contains("time-out"));
    assert!(map(Async::ordered().rate(0)).contains("rate of 0"));
    assert!(map(Async::ordered().back_off(2.seconds(), 1.seconds())).contains("back-off"));
    let both = refused(|job| {
        let (_, sink) = testing::collect();
        job.source(sources::items([1u64]))
            .async_map(Panicking, Async::ordered(), |n| *n)
            .dead_letters()
            .outcomes(|n, _| *n)
            .sink(sink);
    });
    assert!(both.contains("leave out one of both"), "{both}");
    let updates = refused(|job| {
        let (_, sink) = testing::collect();
        job.source(sources::items([1u64]))
            .key_by(|n| *n)
            .running(|a| a.count())
            .map(|c| c.value)
            .async_map(Panicking, Async::ordered(), |n| *n)
            .results(|_, r| r)
            .sink(sink);
    });
    assert!(updates.contains("may be replaced later"), "{updates}");
    let threads = refused(|job| {
        let (_, sink) = testing::collect();
        let client = calls::blocking(0, |n: u64| Ok::<_, String>(Some(n)));
        job.source(sources::items([1u64]))
            .lookup_join(|n| *n, client)
            .left_outer(|n, _| *n)
            .sink(sink);
    });
    assert!(threads.contains("0 threads"), "{threads}");
    let ttl = refused(|job| {
        let (_, sink) = testing::collect();
        job.source(sources::items([1u64]))
            .lookup_join(
                |n| *n,
                calls::blocking(1, |n: u64| Ok::<_, String>(Some(n))),
            )
            .cache(Cache::of(1).ttl(0.seconds()))
            .left_outer(|n, _| *n)
            .sink(sink);
    });
    assert!(ttl.contains("Cache::none()"), "{ttl}");
}
