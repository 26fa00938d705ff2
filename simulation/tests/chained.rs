//! Windows behind windows: what the first emits late, the second must still count.

use pelton::testing::{Sizes, Stepper, collect};
use pelton::{EventTime, Firing, Job, Session, Span, Tumbling, Watermarks, sources};

/// The window from 0 gets its only record when M stands at its end already: there is no result on time, one correction
/// when M reaches 10 + 100, and the window behind it has to count that.
#[test]
fn a_correction_reaches_the_window_behind() {
    let span = Span::from_micros;
    for shards in [1, 2] {
        let (results, sink) = collect();
        let job = Job::new("chained");
        job.source(sources::items([15i64, 5, 300]))
            .event_time(|t| EventTime::from_micros(*t), Watermarks::monotonous())
            .key_by(|_| 1u32)
            .window(
                Tumbling::of(span(10))
                    .allowed_lateness(span(100))
                    .one_correction(),
            )
            .aggregate(|a| a.count())
            .inspect(|w| assert!(w.window.start.micros() != 0 || w.firing == Firing::Correction))
            .key_by(|w| w.key)
            .window(Tumbling::of(span(10)))
            .aggregate(|a| a.sum(|w| w.value))
            .map(|w| (w.window.start.micros(), w.value))
            .sink(sink);
        // One record a batch, so that the watermark goes by between them.
        let sizes = Sizes {
            batch_size: 1,
            ..Sizes::shards(shards)
        };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        stepper.run().unwrap();
        assert_eq!(results.take(), [(0, 1), (10, 1), (300, 1)]);
    }
}

/// M stands at the session's end, 10 + 20: it has not fired, since a record at 30 would belong to it, and the window
/// behind, which ends at 30 too, must wait for it.
#[test]
fn a_session_at_its_end_reaches_the_window_behind() {
    let span = Span::from_micros;
    for shards in [1, 2] {
        let (results, sink) = collect();
        let job = Job::new("chained");
        job.source(sources::items([(10i64, 1u32), (30, 2), (100, 3)]))
            .event_time(|r| EventTime::from_micros(r.0), Watermarks::monotonous())
            .key_by(|r| r.1)
            .window(Session::gap(span(20)))
            .aggregate(|a| a.count())
            .key_by(|_| 1u32)
            .window(Tumbling::of(span(10)))
            .aggregate(|a| a.sum(|w| w.value))
            .map(|w| (w.window.start.micros(), w.value))
            .sink(sink);
        let sizes = Sizes {
            batch_size: 1,
            ..Sizes::shards(shards)
        };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        stepper.run().unwrap();
        assert_eq!(results.take(), [(20, 1), (40, 1), (110, 1)]);
    }
}
