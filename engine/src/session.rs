//! Session windows as they are written: stretches of a key's records without a longer silence than the gap.

use crate::time::Span;
use crate::window::{LateMode, Lateness, lateness_methods};

/// Session windows: a record at `t` keeps its key's session open up to `t` + gap, and sessions that overlap or touch are
/// one. A session's window runs from its first record to its last record's time + gap.
///
/// - A session fires when the watermark has passed its end (strictly: a record *at* the end still belongs to it).
/// - Without allowed lateness every record behind its own partition's watermark is late.
/// - With [`Session::allowed_lateness`] a record at `t` counts as long as that watermark has not reached
///   `t` + gap + lateness. Sessions that have fired and now merge are taken back ([`crate::Firing::Retraction`]) and the
///   merged one comes as an update, or on time if it is open again. Class NET.
/// - With [`Session::one_correction`] as well, what fires on time is exactly what fires without lateness. Behind records
///   count if they are at most the lateness behind, wait, and change the result once: when no record that may still come
///   can touch the session (end + lateness), on-time sessions that became part of another are taken back and the whole
///   comes as a [`crate::Firing::Correction`]. Class ROWS.
///
/// ```
/// use pelton::{EventTime, Job, Session, Spans, Watermarks, testing};
/// let (feed, source) = testing::feed::<(i64, &'static str)>(1);
/// let (results, sink) = testing::collect();
/// let job = Job::new("visits");
/// job.source(source)
///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
///    .key_by(|r| r.1)
///    .window(Session::gap(30.seconds()))
///    .aggregate(|a| a.count())
///    .sink(sink);
/// for record in [(0, "ann"), (25, "ann"), (21, "ann"), (90, "ann"), (200, "bob")] {
///     feed.push(0, record);
/// }
/// drop(feed);
/// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
/// let visits: Vec<_> = results.take().iter().map(|w| (w.key, w.value, w.window.end.micros() / 1_000_000)).collect();
/// assert_eq!(visits, [("ann", 3, 55), ("ann", 1, 120), ("bob", 1, 230)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub(crate) gap: Span,
    pub(crate) lateness: Lateness,
}

impl Session {
    /// Sessions that end when their key has been silent for `gap`.
    pub fn gap(gap: Span) -> Self {
        Session {
            gap,
            lateness: Lateness::NONE,
        }
    }
}

lateness_methods!(Session);
