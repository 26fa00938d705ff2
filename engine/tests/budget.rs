//! A budget of state: what is large is told, what frees itself is waited for, and what does not fails and is named.

#[allow(dead_code, reason = "other tests need the rest")]
mod support;

use pelton::process::{Ttl, list, value};
use pelton::testing::{collect, feed};
use pelton::{EventTime, Job, JobError, Session, Sliding, Spans, Tumbling, Watermarks, sources};
use std::time::Duration;
use support::runtime;

const RECORDS: u64 = 300_000;

fn numbers() -> impl pelton::source::Source<Item = u64> {
    sources::generate("numbers", RECORDS, 2, |id| id)
}

#[test]
fn state_that_only_grows_fails_and_is_named() {
    let job = Job::new("grows");
    job.max_state_bytes(1 << 20);
    let (_, sink) = collect();
    job.source(numbers())
        .key_by(|n| *n)
        .process("large", (value::<u64>("seen"), list::<u64>("all")))
        .each(|n, (seen, all), cx| {
            seen.set(*n);
            all.push(*n);
            cx.emit(*n);
        })
        .sink(sink);
    let e = runtime(2).submit(&job).unwrap().wait().unwrap_err();
    let JobError::StateBudget {
        limit,
        bytes,
        ref largest,
        ..
    } = e
    else {
        panic!("{e}");
    };
    assert_eq!((limit, e.code()), (1 << 20, "PLT-0114"));
    assert!(bytes > limit);
    for said in [
        "'keys' of process 'large'",
        "'all' of process 'large'",
        "entries",
    ] {
        assert!(largest.contains(said), "{largest}");
    }
}

/// Above the budget the sources wait for the clock, which frees what has lived its time: the job comes to its end, and has held many
/// more keys than the budget has room for at once.
#[test]
fn what_frees_itself_is_waited_for() {
    let job = Job::new("frees");
    job.max_state_bytes(1 << 20);
    let (results, sink) = collect();
    let ttl = Ttl::processing_time(3.millis());
    job.source(numbers())
        .key_by(|n| *n)
        .process("short", list::<u64>("all").ttl(ttl))
        .each(|n, all, cx| {
            all.push(*n);
            cx.emit(*n);
        })
        .sink(sink);
    let report = runtime(2).submit(&job).unwrap().wait().unwrap();
    assert_eq!(report.counters.records_out, RECORDS);
    assert_eq!(results.take().len() as u64, RECORDS);
    let all = |state: &str| {
        report
            .states
            .iter()
            .find(|s| s.state == state)
            .unwrap()
            .clone()
    };
    assert!(all("all").entries < RECORDS && all("all").operator.contains("process 'short'"));
}

/// Of which the budget below has room for a few thousand at a time.
const KEYS: u64 = 50_000;

/// A value is kept in its key's row, which goes with it: also while the sources are held and no new key comes that would look for it.
#[test]
fn keys_whose_values_have_expired_count_no_more() {
    let job = Job::new("rows");
    job.max_state_bytes(1 << 19);
    let (_, sink) = collect();
    let ttl = Ttl::processing_time(50.millis());
    job.source(sources::generate("numbers", KEYS, 2, |id| id))
        .key_by(|n| *n)
        .process("rows", value::<[u64; 8]>("large").ttl(ttl))
        .each(|n, large, cx| {
            large.set([*n; 8]);
            cx.emit(*n);
        })
        .sink(sink);
    let report = runtime(2).submit(&job).unwrap().wait().unwrap();
    assert_eq!(report.counters.records_out, KEYS);
}

/// The same where a function takes the last of it out.
#[test]
fn keys_that_a_timer_has_cleared_count_no_more() {
    let job = Job::new("cleared");
    job.max_state_bytes(1 << 19);
    let (_, sink) = collect();
    job.source(sources::generate("numbers", KEYS, 2, |id| id))
        .key_by(|n| *n)
        .process("cleared", value::<[u64; 8]>("large"))
        .on_clock_timer(|_, large, _| large.clear())
        .each(|n, large, cx| {
            large.set([*n; 8]);
            cx.clock_timer_after(50.millis());
            cx.emit(*n);
        })
        .sink(sink);
    let report = runtime(2).submit(&job).unwrap().wait().unwrap();
    assert_eq!(report.counters.records_out, KEYS);
}

/// A source that has been read out ends although it is held: its end closes the windows that hold all the state.
#[test]
fn a_source_that_is_read_out_ends_above_the_budget() {
    let (feed, source) = feed::<u64>(1);
    let (results, sink) = collect();
    let job = Job::new("ends");
    job.max_state_bytes(1);
    job.source(source)
        .event_time(|_| EventTime::from_seconds(1), Watermarks::monotonous())
        .key_by(|n| *n)
        .window(Tumbling::of(1.hours()))
        .aggregate(|a| a.count())
        .map(|w| w.key)
        .sink(sink);
    (0..100).for_each(|n| feed.push(0, n));
    let runtime = runtime(2);
    let handle = runtime.submit(&job).unwrap();
    let mut held = false;
    let report = handle.wait_with(Duration::from_millis(1), |job| {
        held |= job.held_for().is_some();
        if held {
            feed.close(0);
        }
    });
    report.unwrap();
    assert!(held);
    let mut keys = results.take();
    keys.sort();
    assert_eq!(keys, (0..100).collect::<Vec<_>>());
}

#[test]
fn every_operator_with_state_says_how_large_it_is() {
    let job = Job::new("sizes");
    let (_, sink) = collect::<u64>();
    let stream = job
        .source(sources::generate("numbers", 1_000, 1, |id| id))
        .event_time(
            |n| EventTime::from_micros(*n as i64),
            Watermarks::monotonous(),
        );
    let [a, b, c, d, e] = stream.fork();
    a.key_by(|n| n % 10)
        .reduce(|a, b| *a += b)
        .map(|k| k.value)
        .sink(sink.clone());
    b.key_by(|n| n % 20)
        .window(Tumbling::of(1.seconds()))
        .aggregate(|a| a.count())
        .map(|w| w.value)
        .sink(sink.clone());
    c.key_by(|n| n % 30)
        .window(Sliding::of(2.seconds(), 1.seconds()))
        .aggregate(|a| a.count())
        .map(|w| w.value)
        .sink(sink.clone());
    d.key_by(|n| n % 40)
        .window(Session::gap(1.seconds()))
        .aggregate(|a| a.count())
        .map(|w| w.value)
        .sink(sink.clone());
    e.key_by(|n| n % 50)
        .process("counts", value::<u64>("count"))
        .on_timer(|_, _, _| ())
        .each(|n, count, cx| {
            *count.or_default() += 1;
            cx.timer_at(EventTime::MAX);
            cx.emit(*n);
        })
        .sink(sink);
    let report = runtime(2).submit(&job).unwrap().wait().unwrap();
    let told: Vec<_> = report
        .states
        .iter()
        .map(|s| (s.operator.split(' ').next().unwrap(), s.state))
        .collect();
    let expected = [
        ("reduce", "keyed"),
        ("window", "keyed"),
        ("window", "keyed"),
        ("window", "slices"),
        ("window", "keyed"),
        ("process", "count"),
        ("process", "keys"),
        ("process", "timers"),
    ];
    assert_eq!(told, expected);
    // At the end of time windows have fired; what is kept for ever is there.
    let entries = |n: usize| report.states[n].entries;
    assert_eq!(
        (entries(0), entries(1), entries(5), entries(6), entries(7)),
        (10, 0, 50, 50, 0)
    );
    assert!(
        report
            .states
            .iter()
            .all(|s| (s.entries == 0) == (s.bytes == 0) || s.state == "count")
    );
}

/// A window of an hour that slides by seconds keeps thousands of partial aggregates of each key: the budget sees them.
#[test]
fn the_slices_of_sliding_windows_count() {
    let job = Job::new("hour by second");
    job.max_state_bytes(64 << 10);
    let (_, sink) = collect();
    job.source(sources::generate("numbers", 1_000_000, 1, |id| id))
        .event_time(
            |n| EventTime::from_seconds(*n as i64 / 250),
            Watermarks::monotonous(),
        )
        .key_by(|_| 7u64)
        .window(Sliding::of(1.hours(), 1.seconds()))
        .aggregate(|a| a.sum(|n| *n as i64))
        .map(|w| w.value)
        .sink(sink);
    // One key: 3,600 parts of 32 bytes and more.
    match runtime(1).submit(&job).unwrap().wait() {
        Err(JobError::StateBudget { .. }) => {}
        other => panic!("{other:?}"),
    }
}
