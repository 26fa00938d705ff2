//! What an inline job answers, and that it is what a job answers elsewhere.

use super::*;
use crate::process::value;
use crate::testing::{self, Stepper};
use crate::window::Tumbling;
use crate::{Checkpointing, Spans, Watermarks};
use proptest::prelude::*;

/// (second, key, value)
type Rec = (i64, u8, i64);

fn at(second: i64) -> EventTime {
    EventTime::from_seconds(second)
}

/// Sums by key and window of ten seconds.
fn write(job: &Job, source: impl Source<Item = Rec>, sink: impl Sink<(u8, i64)>) {
    job.source(source)
        .event_time(|r| at(r.0), Watermarks::bounded(2.seconds()))
        .key_by(|r| r.1)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.sum(|r| r.2))
        .map(|w| (w.key, w.value))
        .sink(sink);
}

fn sums() -> Inline<Rec, (u8, i64)> {
    Inline::new("sums", write).unwrap()
}

/// A request path has threads of its own.
#[test]
fn it_may_go_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&sums());
}

#[test]
fn results_are_there_when_the_call_returns() {
    let mut sums = sums();
    assert_eq!(sums.push((1, 7, 10)).unwrap().count(), 0);
    assert_eq!(sums.push((9, 7, 1)).unwrap().count(), 0);
    let rows: Vec<_> = sums.push((12, 8, 5)).unwrap().collect();
    assert_eq!(rows, [(7, 11)]);
    assert_eq!(sums.push((13, 8, 6)).unwrap().count(), 0, "each once");
    let rows: Vec<_> = sums.push_all([(22, 7, 1), (31, 7, 2)]).unwrap().collect();
    assert_eq!(rows, [(8, 11)]);
    let rows: Vec<_> = sums.advance_watermark(at(30)).unwrap().collect();
    assert_eq!(rows, [(7, 1)]);
    assert_eq!(sums.push((29, 7, 2)).unwrap().count(), 0);
    assert_eq!(sums.counters().late, 1);
    assert_eq!(sums.counters().records_in, 7);
    let sizes = sums.state_sizes();
    assert_eq!(sizes.iter().map(|s| s.entries).max(), Some(1), "{sizes:?}");
    assert_eq!(sums.end().unwrap(), [(7, 2)]);
}

/// What was not taken is gone with what the call returned.
#[test]
fn results_that_are_not_taken_are_dropped() {
    let mut sums = sums();
    let fired = sums.push_all([(1, 7, 10), (12, 8, 5)]).unwrap();
    assert_eq!(fired.len(), 1);
    drop(fired);
    assert_eq!(sums.advance_watermark(at(1)).unwrap().count(), 0);
}

#[test]
fn the_clock_is_what_the_owner_says() {
    let write = |job: &Job, source, sink| {
        job.source(source)
            .key_by(|k: &u8| *k)
            .process("wait", value::<u64>("n"))
            .on_clock_timer(|time, _, cx| cx.emit((*cx.key(), time)))
            .each(|_, _, cx| {
                cx.clock_timer_after(5.seconds());
            })
            .sink(sink);
    };
    let mut waits = Inline::new("waits", write).unwrap();
    let now = at(1_700_000_000);
    assert_eq!(waits.advance_clock(now).unwrap().count(), 0);
    assert_eq!(waits.push(7).unwrap().count(), 0);
    assert_eq!(waits.advance_clock(now + 4.seconds()).unwrap().count(), 0);
    assert_eq!(waits.advance_clock(at(0)).unwrap().count(), 0, "never back");
    assert_eq!(waits.clock(), now + 4.seconds());
    let due: Vec<_> = waits.advance_clock(now + 9.seconds()).unwrap().collect();
    assert_eq!(due, [(7, now + 5.seconds())]);
}

#[test]
fn a_job_that_fails_stays_failed() {
    let write = |job: &Job, source, sink| {
        let strict = |n: u64| {
            assert_ne!(n, 3, "this panic is part of a test");
            n
        };
        job.source(source).map(strict).uid("strict").sink(sink);
    };
    let mut strict = Inline::new("strict", write).unwrap();
    assert_eq!(strict.push(1).unwrap().count(), 1);
    let failed = strict.push(3).map(|_| ()).unwrap_err();
    assert_eq!(failed.code(), "PLT-0101");
    assert!(failed.to_string().contains("'strict'"), "{failed}");
    assert_eq!(strict.push(4).map(|_| ()), Err(failed.clone()));
    assert_eq!(strict.advance_clock(at(1)).map(|_| ()), Err(failed.clone()));
    assert_eq!(strict.end(), Err(failed));
}

#[test]
fn what_cannot_be_inline_is_refused() {
    type Made = Inline<u64, u64>;
    let refused = |made: Result<Made, BuildError>| made.map(|_| ()).unwrap_err().to_string();
    let with_checkpoints = refused(Made::new("j", |job, source, sink| {
        job.checkpoints(Checkpointing::in_folder("none"));
        job.source(source).sink(sink);
    }));
    assert!(with_checkpoints.contains("takes checkpoints"));
    let other = refused(Made::new("j", |job, _, sink| {
        job.source(crate::sources::items([1])).sink(sink);
    }));
    assert!(other.contains("another source"), "{other}");
    let both = refused(Made::new("j", |job, source, sink| {
        let [other] = job.source(crate::sources::items([1])).fork();
        job.source(source).union(other).sink(sink);
    }));
    assert!(both.contains("another source"), "{both}");
    let mute = refused(Made::new("j", |job, source, _| {
        job.source(source)
            .sink(crate::sink::callback("away", |_, _| {}));
    }));
    assert!(mute.contains("does not write to the sink"), "{mute}");
    let empty = Made::new("j", |_, _, _| {}).map(|_| ()).unwrap_err();
    assert_eq!(empty.code(), "PLT-0009");
}

proptest! {
    #![proptest_config(crate::aggregate::scramble::cases())]

    /// Pushed one by one or in portions: what comes out is what the same job gives when it is stepped over all at once.
    #[test]
    fn it_answers_as_any_job_does(
        portions in prop::collection::vec(prop::collection::vec((0i64..60, 0u8..4, 1i64..100), 0..5), 0..20)
    ) {
        let mut sums = sums();
        let mut rows = vec![];
        for portion in &portions {
            match portion[..] {
                [one] => rows.extend(sums.push(one).unwrap()),
                _ => rows.extend(sums.push_all(portion.iter().copied()).unwrap()),
            }
        }
        rows.extend(sums.end().unwrap());
        let (feed, source) = testing::feed(1);
        let (results, sink) = testing::collect();
        let job = Job::new("same");
        write(&job, source, sink);
        for record in portions.concat() {
            feed.push(0, record);
        }
        feed.close(0);
        Stepper::new(&job, 2).unwrap().run().unwrap();
        let mut same = results.take();
        rows.sort_unstable();
        same.sort_unstable();
        prop_assert_eq!(rows, same);
    }
}
