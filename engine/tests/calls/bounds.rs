//! How much a step does, what waits for what, and what is said of a record: where it stood, and why its time went.

use crate::world::Scripted;
use pelton::calls::{self, Async, Cache, Failure};
use pelton::testing::{self, FaultyDisk, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper};
use pelton::{Checkpointing, EventTime, Job, Spans, Tumbling, Watermarks, sources};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A step completes so many records at most.
const PIECE: usize = 256;

/// However many wait for one key, a step tells few of them; those that come meanwhile are told as well.
#[test]
fn what_waits_for_one_key_is_told_in_pieces() {
    const RECORDS: usize = 3_000;
    let client = Scripted::<Option<u64>>::new(4_000);
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    let (feed, source) = testing::feed::<u64>(1);
    let (rows, sink) = testing::collect();
    let job = Job::new("pieces");
    job.source(source)
        .lookup_join(|_| 7, client.clone())
        .options(Async::unordered().capacity(4_000))
        .cache(Cache::of(10))
        .left_outer(move |n, row| {
            counted.fetch_add(1, Relaxed);
            (*n, row.copied())
        })
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    (0..RECORDS as u64).for_each(|n| feed.push(0, n));
    stepper.until_idle().unwrap();
    client.take(7).send(Ok(Some(70)));
    let (mut before, mut pieces, mut came) = (0, 0, false);
    while told.load(Relaxed) < RECORDS + 5 {
        for actor in 0..stepper.actors() {
            stepper.step(actor).unwrap();
            let now = told.load(Relaxed);
            assert!(now - before <= PIECE + 5, "{} in a step", now - before);
            pieces += usize::from(now > before);
            before = now;
        }
        if before > 0 && before < RECORDS && pieces == 2 && !came {
            came = true;
            (0..5).for_each(|n| feed.push(0, (RECORDS + n) as u64));
        }
    }
    assert!(pieces > RECORDS / PIECE);
    feed.close(0);
    stepper.run().unwrap();
    let mut rows = rows.take();
    rows.sort_unstable();
    let expected: Vec<_> = (0..RECORDS as u64 + 5).map(|n| (n, Some(70))).collect();
    assert_eq!(rows, expected);
}

/// What a client drops all at once ends in pieces too, and so do the attempts that follow.
#[test]
fn what_fails_at_once_is_looked_after_in_pieces() {
    const RECORDS: usize = 3_000;
    let client = Scripted::<u64>::new(4_000);
    let (feed, source) = testing::feed::<u64>(1);
    let (rows, sink) = testing::collect();
    let options = Async::unordered()
        .capacity(4_000)
        .retries(1)
        .back_off(1.millis(), 1.millis());
    let figures = options.figures();
    let job = Job::new("pieces");
    job.source(source)
        .async_map(client.clone(), options, |n| *n)
        .results(|n, _| *n)
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    (0..RECORDS as u64).for_each(|n| feed.push(0, n));
    feed.close(0);
    stepper.until_idle().unwrap();
    assert_eq!(client.len(), RECORDS);
    drop(client.asked.lock().unwrap().drain(..));
    let mut refused = 0;
    while refused < RECORDS as u64 {
        for actor in 0..stepper.actors() {
            stepper.step(actor).unwrap();
            let now = figures.refused();
            assert!(now - refused <= PIECE as u64, "{} in a step", now - refused);
            refused = now;
        }
    }
    stepper.advance_clock(1.millis());
    let mut asked = 0;
    while asked < RECORDS {
        for actor in 0..stepper.actors() {
            stepper.step(actor).unwrap();
            let now = client.len();
            assert!(now - asked <= PIECE, "{} in a step", now - asked);
            asked = now;
        }
    }
    for asked in client.asked.lock().unwrap().drain(..) {
        asked.answer.send(Ok(0));
    }
    stepper.run().unwrap();
    assert_eq!(rows.take().len(), RECORDS);
}

/// A barrier waits for no answer, but behind a batch that there is no room for it does.
#[test]
fn a_barrier_waits_for_room_and_for_no_answer() {
    let client = Scripted::<u64>::new(2);
    let (feed, source) = testing::feed::<u64>(1);
    let (_, sink) = testing::collect();
    let job = Job::new("barriers");
    job.checkpoints(Checkpointing::in_folder("in memory").every(50.seconds()));
    job.source(source)
        .uid("numbers")
        .async_map(
            client.clone(),
            Async::unordered().capacity(2).time_out(1.hours()),
            |n| *n,
        )
        .uid("ask")
        .results(|n, _| *n)
        .sink(sink);
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let mut stepper = Stepper::on_disk(&job, Sizes::shards(1), &OnDisk::small(&disk)).unwrap();
    let completed = |stepper: &mut Stepper| {
        let before = stepper.checkpoints().completed;
        stepper.checkpoint();
        for _ in 0..20 {
            stepper.until_idle().unwrap();
            stepper.advance_clock(1.millis());
        }
        stepper.checkpoints().completed > before
    };
    (0..2).for_each(|n| feed.push(0, n));
    stepper.until_idle().unwrap();
    assert_eq!(client.len(), 2);
    assert!(completed(&mut stepper), "nobody has answered");
    feed.push(0, 2);
    stepper.until_idle().unwrap();
    assert!(!completed(&mut stepper), "one record is not in hand");
    client.take(0).send(Ok(0));
    stepper.until_idle().unwrap();
    for _ in 0..20 {
        stepper.until_idle().unwrap();
        stepper.advance_clock(1.millis());
    }
    assert_eq!(stepper.checkpoints().completed, 2);
    assert_eq!(client.requests(), [1, 2], "nobody has answered these");
}

/// The error says for which record was asked.
#[test]
fn an_error_names_the_record() {
    let refuse = |n: u64| match n {
        33 => Err(Failure::permanent("not this one")),
        n => Ok(Some(n)),
    };
    for is_lookup in [false, true] {
        let client = calls::blocking(1, refuse);
        let (_, sink) = testing::collect();
        let job = Job::new("named");
        let stream = job.source(sources::partitions([vec![1, 2], vec![31, 32, 33, 34]]));
        let options = Async::ordered();
        match is_lookup {
            false => stream
                .async_map(client, options, |n| *n)
                .results(|n, _| *n)
                .sink(sink),
            true => stream
                .lookup_join(|n| *n, client)
                .options(options)
                .inner(|n, _| *n)
                .sink(sink),
        }
        let error = Stepper::new(&job, 2).unwrap().run().unwrap_err();
        let said = error.to_string();
        assert!(said.contains("partition 1, offset 2"), "{said}");
    }
}

/// Results of a window stand in no partition: a dead letter says so, and an error.
#[test]
fn a_record_that_was_made_says_so() {
    let windows = |job: &Job| {
        let times = Watermarks::monotonous();
        job.source(sources::items(0..10u64))
            .event_time(|n| EventTime::from_seconds(*n as i64), times)
            .key_by(|_| 7u8)
            .window(Tumbling::of(5.seconds()))
            .aggregate(|a| a.count())
            .map(|w| w.value)
    };
    let refuse = || calls::blocking(1, |_: u64| Err::<u64, _>(Failure::permanent("never")));
    let (letters, dead) = testing::collect();
    let (_, sink) = testing::collect();
    let job = Job::new("made");
    job.dead_letters_to(dead);
    windows(&job)
        .async_map(refuse(), Async::ordered(), |n| *n)
        .dead_letters()
        .results(|n, _| *n)
        .sink(sink);
    Stepper::new(&job, 2).unwrap().run().unwrap();
    let letters = letters.take();
    assert_eq!(letters.len(), 2);
    for letter in letters {
        assert!(
            letter.partition.starts_with("none: made by operator"),
            "{letter}"
        );
    }
    let (_, sink) = testing::collect();
    let job = Job::new("made");
    windows(&job)
        .async_map(refuse(), Async::ordered(), |n| *n)
        .results(|n, _| *n)
        .sink(sink);
    let error = Stepper::new(&job, 1).unwrap().run().unwrap_err();
    assert!(
        error.to_string().contains("no place in a source"),
        "{error}"
    );
}

/// The time for which a record waits for its answer is counted as that, and not as held by a window.
#[test]
fn waiting_for_an_answer_is_a_cause_of_its_own() {
    let client = Scripted::<u64>::new(8);
    let (feed, source) = testing::feed::<u64>(1);
    let (_, sink) = testing::collect();
    let job = Job::new("waiting");
    job.source(source)
        .event_time(
            |n| EventTime::from_seconds(*n as i64),
            Watermarks::monotonous(),
        )
        .async_map(client.clone(), Async::unordered(), |n| *n)
        .results(|n, _| *n)
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.advance_clock(1.millis());
    (0..2).for_each(|n| feed.push(0, n));
    feed.close(0);
    stepper.until_idle().unwrap();
    for n in 0..2 {
        stepper.advance_clock(5.millis());
        client.take(n).send(Ok(0));
        stepper.until_idle().unwrap();
    }
    assert!(stepper.all_done());
    let latencies = stepper.latencies();
    let waited = &latencies.answer_ns;
    assert_eq!(waited.len(), 2);
    for (value, expected) in [(waited.min(), 5_000_000), (waited.max(), 10_000_000)] {
        assert!(value.abs_diff(expected) <= expected / 50, "{value}");
    }
    assert_eq!(latencies.window_ns.len(), 0);
    // The pages of requests are told among the states.
    let states = stepper.state_sizes();
    assert!(
        states.iter().any(|s| s.state == "requests" && s.bytes > 0),
        "{states:?}"
    );
}
