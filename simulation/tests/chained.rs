//! Windows behind windows: what the first emits late, the second must still count.

use pelton::testing::{Sizes, Stepper, collect};
use pelton::{Cumulate, EventTime, Job, Session, Sliding, Span, Tumbling, Watermarks, sources};

/// A job whose second window adds up what the first counts, with one record a batch, so that the watermark goes by
/// between them; what the second gives for each shard count.
macro_rules! behind {
    ($window:expr, $records:expr) => {
        [1, 2].map(|shards| {
            let (results, sink) = collect();
            let job = Job::new("chained");
            job.source(sources::items($records))
                .event_time(|r| EventTime::from_micros(r.0), Watermarks::monotonous())
                .key_by(|r| r.1)
                .window($window)
                .aggregate(|a| a.count())
                .key_by(|_| 1u32)
                .window(Tumbling::of(Span::from_micros(10)))
                .aggregate(|a| a.sum(|w| w.value))
                .map(|w| (w.window.start.micros(), w.value))
                .sink(sink);
            let sizes = Sizes {
                batch_size: 1,
                ..Sizes::shards(shards)
            };
            let mut stepper = Stepper::with(&job, sizes).unwrap();
            stepper.run().unwrap();
            results.take()
        })
    };
}

/// The window from 0 gets its only record when M stands beyond its end already: there is no result on time, one
/// correction when M reaches 10 + 100, and the window behind it has to count that.
#[test]
fn a_correction_reaches_the_window_behind() {
    let span = Span::from_micros;
    let records = [(15i64, 1u32), (5, 1), (300, 1)];
    let expected = vec![(0, 1), (10, 1), (300, 1)];
    let window = Tumbling::of(span(10)).allowed_lateness(span(100));
    let found = behind!(window.one_correction(), records);
    assert_eq!(found, [expected.clone(), expected.clone()]);
    let window = Sliding::of(span(10), span(10)).allowed_lateness(span(100));
    let found = behind!(window.one_correction(), records);
    assert_eq!(found, [expected.clone(), expected.clone()]);
    let window = Cumulate::of(span(10), span(10)).allowed_lateness(span(100));
    let found = behind!(window.one_correction(), records);
    assert_eq!(found, [expected.clone(), expected]);
}

/// M stands at the session's end, 10 + 20: it has not fired, since a record at 30 would belong to it, and the window
/// behind, which ends at 30 too, must wait for it.
#[test]
fn a_session_at_its_end_reaches_the_window_behind() {
    let found = behind!(
        Session::gap(Span::from_micros(20)),
        [(10i64, 1u32), (30, 2), (100, 3)]
    );
    let expected = vec![(20, 1), (40, 1), (110, 1)];
    assert_eq!(found, [expected.clone(), expected]);
}
