//! Windows behind windows: what the first emits late, the second must still count.

use pelton::testing::{Sizes, Stepper, collect};
use pelton::{EventTime, Firing, Job, Span, Tumbling, Watermarks, sources};

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
