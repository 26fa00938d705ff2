//! Latency by cause, in virtual time: each wait is found under its own cause and no other.

use pelton::latency::Latencies;
use pelton::source::{Emit, Read, ReadError, Reader, Source};
use pelton::testing::{self, Stepper};
use pelton::{
    Config, Driver, EventTime, Job, Session, Sliding, Span, Spans, Tumbling, Watermarks,
    port::Ports,
};

const MS: u64 = 1_000_000;

/// Hands out a record for every entry: its arrival in driver's milliseconds and its event time in seconds.
struct Arrivals(Vec<(u64, i64)>);

struct ArrivalsReader {
    records: Vec<(u64, i64)>,
    next: usize,
}

impl Source for Arrivals {
    type Item = i64;
    type Reader = ArrivalsReader;
    fn name(&self) -> String {
        "arrivals".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<ArrivalsReader>, String> {
        let records = std::mem::take(&mut self.0);
        Ok(vec![ArrivalsReader { records, next: 0 }])
    }
}

impl Reader for ArrivalsReader {
    type Item = i64;
    fn name(&self) -> String {
        "0".into()
    }
    fn read<E: Emit<i64>>(&mut self, _: usize, out: &mut E) -> Result<Read, ReadError> {
        while let Some(&(at_ms, time)) = self.records.get(self.next) {
            if at_ms * MS > out.now_ns() {
                let until_ns = Some(at_ms * MS);
                return Ok(Read::Pending { until_ns });
            }
            out.emit_arrived(self.next as u64, at_ms * MS, time);
            self.next += 1;
        }
        Ok(Read::Pending { until_ns: None })
    }
}

/// Whether all values of a cause are `ms`, within the histogram's two digits, and there are `count`.
fn assert_all(latencies: &Latencies, cause: &str, count: u64, ms: u64) {
    let causes = latencies.causes();
    let (_, values) = causes.iter().find(|(name, _)| *name == cause).unwrap();
    assert_eq!(values.len(), count, "{cause}");
    if count == 0 {
        return;
    }
    for value in [values.min(), values.max()] {
        let far = value.abs_diff((ms * MS).max(1));
        assert!(far <= ms * MS / 50, "{cause}: {value} ns, not {ms} ms");
    }
}

fn advance_ms(stepper: &mut Stepper, ms: i64) {
    stepper.advance_clock(Span::from_micros(ms * 1_000));
}

#[test]
fn a_wait_in_the_source_counts_from_the_oldest_arrival_of_the_read() {
    let (rows, sink) = testing::collect();
    let job = Job::new("source");
    job.source(Arrivals(vec![(100, 1), (400, 2), (1_000, 3)]))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    advance_ms(&mut stepper, 500);
    stepper.until_idle().unwrap();
    assert_eq!(rows.take().len(), 2);
    let latencies = stepper.latencies();
    assert_all(&latencies, "waiting in the source", 2, 400);
    // One by one to the sink: the oldest arrival counts there, too.
    assert_all(&latencies, "source to sink", 2, 400);
    assert_all(&latencies, "waiting in a ring", 0, 0);
    assert_all(&latencies, "held by a window", 0, 0);
}

#[test]
fn a_source_that_does_not_know_has_no_wait() {
    let (feed, source) = testing::feed(1);
    let (_rows, sink) = testing::collect();
    let job = Job::new("unknown");
    job.source(source).sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, 1u64);
    advance_ms(&mut stepper, 500);
    stepper.until_idle().unwrap();
    assert_all(&stepper.latencies(), "waiting in the source", 0, 0);
}

#[test]
fn a_wait_in_a_ring_counts_from_publication_to_the_step_that_takes() {
    let (_rows, sink) = testing::collect();
    let job = Job::new("ring");
    job.source(Arrivals(vec![(0, 1), (0, 2), (0, 3)]))
        .rebalance()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    advance_ms(&mut stepper, 20);
    stepper.step(0).unwrap();
    advance_ms(&mut stepper, 70);
    stepper.step(1).unwrap();
    let latencies = stepper.latencies();
    assert_all(&latencies, "waiting in the source", 3, 20);
    assert_all(&latencies, "waiting in a ring", 3, 70);
    assert_all(&latencies, "source to sink", 3, 90);
}

/// Records of two keys at 0 to 99 s, one a second in virtual time as in event time; what a window over them held.
fn held(
    windows: impl FnOnce(pelton::Stream<pelton::Inlet<i64>>, testing::Collector<()>),
) -> Latencies {
    let (rows, sink) = testing::collect();
    let job = Job::new("held");
    let records = (0..100).map(|s| (s as u64 * 1_000, s)).collect();
    let timed = job
        .source(Arrivals(records))
        .event_time(
            |s| EventTime::from_seconds(*s),
            Watermarks::bounded(5.seconds()),
        )
        .rebalance();
    windows(timed, sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    for _ in 0..200 {
        stepper.until_idle().unwrap();
        advance_ms(&mut stepper, 500);
    }
    assert!(!rows.take().is_empty());
    stepper.latencies()
}

#[test]
fn a_tumbling_window_holds_its_newest_record_until_the_watermark_passes() {
    let latencies = held(|timed, sink| {
        timed
            .key_by(|s| s % 2)
            .window(Tumbling::of(10.seconds()))
            .aggregate(|a| a.count())
            .map(drop)
            .sink(sink);
    });
    // The window's last record comes a second before its end, and the bound is five. M reaches 94 s: nine windows of two keys.
    assert_all(&latencies, "held by a window", 18, 6_000);
    // The hold is on purpose and no part of end to end, which begins with the record that let the watermark pass.
    let end_to_end = &latencies.end_to_end_ns;
    assert_eq!((end_to_end.len(), end_to_end.max()), (18, 1));
}

#[test]
fn a_sliding_window_holds_each_result_as_long() {
    let latencies = held(|timed, sink| {
        timed
            .key_by(|_| 0)
            .window(Sliding::of(10.seconds(), 1.seconds()))
            .aggregate(|a| a.count())
            .map(drop)
            .sink(sink);
    });
    // Windows end at 1 to 94 s.
    assert_all(&latencies, "held by a window", 94, 6_000);
}

#[test]
fn a_session_holds_its_last_record_for_the_gap_too() {
    let latencies = held(|timed, sink| {
        timed
            // A record in thirty seconds is a session of its own, beside one that goes on and on.
            .key_by(|s| s % 30 == 0)
            .window(Session::gap(10.seconds()))
            .aggregate(|a| a.count())
            .map(drop)
            .sink(sink);
    });
    let values = &latencies.window_ns;
    assert_eq!(values.len(), 3, "sessions at 0, 30 and 60 s");
    // Its record's time and the gap, and M must be above that: 10 s + 5 s + the second until the next record.
    for value in [values.min(), values.max()] {
        assert!((15_000 * MS..=17_000 * MS).contains(&value), "{value}");
    }
}

#[test]
fn records_put_in_order_are_held_until_the_watermark_passes_them() {
    let latencies = held(|timed, sink| {
        timed
            .key_by(|_| 0)
            .in_event_time_order()
            .reduce(|a, b| *a += b)
            .map(drop)
            .sink(sink);
    });
    // M must be above a record's time: the bound and a second more.
    assert_all(&latencies, "held by a window", 94, 6_000);
}

#[test]
fn a_report_tells_every_cause_that_has_values() {
    let (_rows, sink) = testing::collect();
    let job = Job::new("report");
    job.source(pelton::sources::generate("numbers", 10_000, 1, |id| {
        id as i64
    }))
    .event_time(
        |s| EventTime::from_seconds(*s),
        Watermarks::bounded(5.seconds()),
    )
    .key_by(|s| s % 7)
    .window(Tumbling::of(10.seconds()))
    .aggregate(|a| a.count())
    .sink(sink);
    let report = job
        .run(Config::default().shards(1).driver(Driver::Threads))
        .unwrap();
    let text = report.to_string();
    assert!(
        text.starts_with("job 'report': 10000 records in, 7000 out, 0 late"),
        "{text}"
    );
    for cause in [
        "waiting in a ring",
        "in an operator",
        "held by a window",
        "source to sink",
    ] {
        assert!(text.contains(&format!("latency, {cause}: p50 ")), "{text}");
    }
    assert!(
        !text.contains("waiting in the source"),
        "a generator does not wait: {text}"
    );
    assert!(text.contains("longest step: "), "{text}");
    // Every record was in a step of the source and in one of the window.
    assert!(report.latencies.operator_ns.len() >= 20_000);
}
