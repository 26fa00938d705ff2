//! What must not grow with what is kept.

use pelton::batch::Stamp;
use pelton::testing::Stepper;
use pelton::{EventTime, Job, Spans, Tumbling, Watermarks, sink, sources};
use std::time::{Duration, Instant};

/// How long windows of a second take that are kept for so many seconds after they have fired.
fn time_of_windows(count: i64, kept: i64) -> Duration {
    let job = Job::new("kept windows");
    job.source(sources::items((0..count).map(EventTime::from_seconds)))
        .event_time(|t| *t, Watermarks::monotonous())
        .key_by(|_| 0u8)
        .window(Tumbling::of(1.seconds()).allowed_lateness(kept.seconds()))
        .aggregate(|a| a.count())
        .sink(sink::callback("none", |_, _: Stamp| {}).updates());
    let mut stepper = Stepper::new(&job, 1).unwrap();
    let began = Instant::now();
    stepper.run().unwrap();
    began.elapsed()
}

/// A window costs the same beside 10 others and beside 20,000. Looking through them all made it some hundred times as much;
/// the bound is wide, since other processes disturb the clock.
#[test]
fn windows_that_are_kept_cost_the_others_nothing() {
    let few = time_of_windows(20_000, 10);
    let many = time_of_windows(20_000, 86_400);
    assert!(many < few * 15, "{few:?} with few, {many:?} with many");
}
