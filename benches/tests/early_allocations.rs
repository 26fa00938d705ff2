//! Early firing does not allocate in steady state: keys, windows and sessions recur, and memory serves again. One test: whether
//! a process counts is a property of the whole process.

use pelton::testing::{self, Stepper};
use pelton::{Cumulate, EventTime, Job, Session, Sliding, Spans, Tumbling, Watermarks, sink};
use pelton_bench::alloc_count::{self, CountingAllocator};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Records of an event-second, and seconds.
const RECORDS: u64 = 1_000;
const SECONDS: u64 = 120;

/// Allocations for each record of the second half, and early results of all. The clock moves a quarter second at a time.
macro_rules! measure {
    ($window:expr) => {{
        let (feed, source) = testing::feed::<(u64, i64)>(1);
        let early = Arc::new(AtomicU64::new(0));
        let told = early.clone();
        let job = Job::new("early");
        job.source(source)
            .event_time(|r| EventTime::from_micros(r.1), Watermarks::bounded(200.millis()))
            .key_by(|r: &(u64, i64)| r.0)
            .window($window.early_firing(250.millis()))
            .aggregate(|a| a.count())
            .sink(
                sink::callback("tally", move |w: pelton::Windowed<u64, u64>, _| {
                    told.fetch_add(u64::from(w.firing == pelton::Firing::Early), Relaxed);
                })
                .updates(),
            );
        let mut stepper = Stepper::new(&job, 1).unwrap();
        let before = alloc_count::reading();
        for quarter in 0..4 * SECONDS {
            // Keys are busy for three seconds and silent for three: their sessions end and come again.
            for n in 0..RECORDS / 4 {
                let micros = quarter * 250_000 + n * 1_000;
                let half = micros / 3_000_000 % 2;
                // A little disorder, so that sessions and slices are joined from both sides.
                let late = n * 7919 % 150 * 1_000;
                feed.push(0, (n % 40 + 40 * half, micros.saturating_sub(late) as i64));
            }
            if quarter >= 2 * SECONDS {
                alloc_count::arm_current_thread();
            }
            stepper.until_idle().unwrap();
            stepper.advance_clock(250.millis());
            stepper.until_idle().unwrap();
            alloc_count::disarm_current_thread();
        }
        let allocations = alloc_count::reading() - before;
        let records = RECORDS * SECONDS / 2;
        (allocations as f64 / records as f64, early.load(Relaxed))
    }};
}

#[test]
fn telling_early_does_not_allocate() {
    alloc_count::start();
    let all = [
        ("tumbling", measure!(Tumbling::of(5.seconds()))),
        ("sliding", measure!(Sliding::of(5.seconds(), 500.millis()))),
        ("uneven", measure!(Sliding::of(5.seconds(), 700.millis()))),
        (
            "cumulate",
            measure!(Cumulate::of(5.seconds(), 500.millis())),
        ),
        ("session", measure!(Session::gap(800.millis()))),
    ];
    for (name, (allocations, early)) in all {
        println!("{name}: {allocations:.5} allocations a record, {early} early results");
        assert!(early > 10_000, "{name}: {early} early results");
        assert!(
            allocations < 0.005,
            "{name}: {allocations} allocations a record"
        );
    }
}
