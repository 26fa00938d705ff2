//! Nothing is left lying while all are silent: frames behind frames that say nothing, sinks that free themselves with
//! time, idleness behind a timer, and an expansion that was cut short.

use pelton::batch::Stamp;
use pelton::port::Ports;
use pelton::sink::{Sink, Writer};
use pelton::tasklet::Progress;
use pelton::testing::{self, Stepper};
use pelton::{EventTime, Global, Job, Spans, Tumbling, Watermarks, sources};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

type Record = (i64, u32);

fn time(r: &Record) -> EventTime {
    EventTime::from_seconds(r.0)
}

/// Partition 1 holds the watermark, so each of the other's moves nothing; a record lies behind eight of them.
#[test]
fn a_record_behind_watermarks_that_move_nothing_is_taken() {
    let (feed, source) = testing::feed::<Record>(2);
    let (results, sink) = testing::collect();
    let job = Job::new("behind watermarks");
    job.source(source)
        .event_time(time, Watermarks::monotonous())
        .key_by(|r| r.1)
        .exchange()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 2).unwrap();
    feed.push(1, (0, 0));
    stepper.until_idle().unwrap();
    for n in 1..=8 {
        feed.push(0, (n, 0));
        stepper.step(0).unwrap();
    }
    for key in 0..64 {
        feed.push(0, (9, key));
    }
    stepper.step(0).unwrap();
    stepper.until_idle().unwrap();
    assert_eq!(results.take().len(), 1 + 8 + 64);
}

/// Takes a record a millisecond, by the clock that it is handed; no doorbell tells of its room.
struct Limited {
    written: Arc<AtomicU64>,
}

struct LimitedWriter {
    held: u64,
    free_at_ns: u64,
    written: Arc<AtomicU64>,
}

impl Sink<u64> for Limited {
    type Writer = LimitedWriter;
    fn name(&self) -> String {
        "limited".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<LimitedWriter>, String> {
        let writer = || LimitedWriter {
            held: 0,
            free_at_ns: 0,
            written: self.written.clone(),
        };
        Ok((0..ports.shards()).map(|_| writer()).collect())
    }
}

impl Writer<u64> for LimitedWriter {
    fn write(&mut self, _: u64, _: Stamp) {
        self.held += 1;
    }
    fn flush(&mut self, now_ns: u64) -> Result<(), String> {
        if self.held > 0 && now_ns >= self.free_at_ns {
            self.written.fetch_add(self.held, SeqCst);
            self.held = 0;
            self.free_at_ns = now_ns + 1_000_000;
        }
        Ok(())
    }
    fn blocked(&self) -> bool {
        self.held > 0
    }
    fn finish(&mut self, now_ns: u64) -> Result<bool, String> {
        self.flush(now_ns)?;
        Ok(self.held == 0)
    }
}

#[test]
fn a_blocked_writer_that_rings_nobody_is_asked_again() {
    let written = Arc::new(AtomicU64::new(0));
    let job = Job::new("limited");
    let sink = Limited {
        written: written.clone(),
    };
    job.source(sources::generate("n", 5000, 1, |id| id))
        .rebalance()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let mut waits = 0;
    while !stepper.all_done() {
        let mut until = None;
        let mut worked = false;
        for tasklet in 0..stepper.tasklets() {
            if stepper.is_done(tasklet) {
                continue;
            }
            match stepper.step(tasklet).unwrap() {
                Progress::Idle { until_ns } => until = until.or(until_ns),
                Progress::Worked => worked = true,
                Progress::Done => {}
            }
        }
        if !worked && !stepper.all_done() {
            // A parked shard sleeps for ever where no step names a time and no doorbell rings.
            assert!(until.is_some(), "asleep with {written:?} of 5000 written");
            waits += 1;
            stepper.advance_clock(1.millis());
        }
    }
    assert_eq!(written.load(SeqCst), 5000);
    assert!(waits > 3, "it was never blocked");
}

/// A result that comes by processing time speaks over a channel that was idle; its silence is told again.
#[test]
fn windows_behind_a_time_out_close_after_idleness() {
    let (feed, source) = testing::feed::<Record>(1);
    let (results, sink) = testing::collect();
    let job = Job::new("idle behind a time-out");
    job.source(source)
        .event_time(time, Watermarks::monotonous().close_after_idle(5.seconds()))
        .key_by(|r| r.1)
        .window(Global::count_or_timeout(100, 20.seconds()))
        .aggregate(|a| a.count())
        .key_by(|w| w.key)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.sum(|w| w.value))
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    feed.push(0, (1, 7));
    feed.push(0, (2, 7));
    for _ in 0..60 {
        stepper.until_idle().unwrap();
        stepper.advance_clock(1.seconds());
    }
    assert_eq!(results.take().len(), 1, "after a minute of silence");
}

/// One record becomes 100,000: the rings bound what is under way, and all of them arrive, once and in order.
#[test]
fn an_expansion_stops_where_the_rings_are_full() {
    let (results, sink) = testing::collect();
    let job = Job::new("expansion");
    job.source(sources::generate("n", 3, 1, |id| id))
        .flat_map(|id| (0..100_000u64).map(move |n| id * 100_000 + n))
        .flat_map(|n| [n, n])
        .rebalance()
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    // The source alone: it stops when the ring is full.
    for _ in 0..100 {
        stepper.step(0).unwrap();
    }
    let mut arrived = Vec::new();
    stepper.step(1).unwrap();
    arrived.extend(results.take());
    assert!(arrived.len() < 100_000, "{} under way", arrived.len());
    stepper.run().unwrap();
    arrived.extend(results.take());
    let expected: Vec<u64> = (0..300_000).flat_map(|n| [n, n]).collect();
    assert!(arrived == expected, "{} records", arrived.len());
}
