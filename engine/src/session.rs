//! Session windows as they are written: stretches of a key's records without a longer silence than the gap.

use crate::time::Span;
use crate::window::{LateMode, Lateness};

/// Session windows: a record at `t` keeps its key's session open up to `t` + gap, and sessions that overlap or touch are
/// one. A session's window runs from its first record to its last record's time + gap.
///
/// - A session fires when the watermark has passed its end (strictly: a record *at* the end still belongs to it).
/// - Without allowed lateness every record behind its own partition's watermark is late.
/// - With [`Session::allowed_lateness`] a record at `t` counts as long as that watermark has not reached
///   `t` + gap + lateness. Sessions that have fired and now merge are taken back ([`crate::Firing::Retraction`]) and the
///   merged one comes as an update, or on time if it is open again. Class NET.
/// - With [`Session::early_firing`] open sessions are told as they stand, and taken back when they have grown. Class EXEMPT.
/// - With [`Session::one_correction`] as well, what fires on time is exactly what fires without lateness. Behind records
///   count if they are at most the lateness behind, wait, and change the result once: when no record that may still come
///   can touch the session (end + lateness), on-time sessions that became part of another are taken back and the whole
///   comes as a [`crate::Firing::Correction`]. Class ROWS.
/// - Late records are counted, and go to [`WindowedStream::late_to`](crate::WindowedStream::late_to) where it is set.
///
/// Class ROWS where nothing above says otherwise. State: an accumulator and two times for each session, until it has fired; with allowed lateness until the
/// watermark has reached end + longest gap + lateness, with one correction until it is above end + lateness. A key's sessions are one
/// entry of a checkpoint. A key without sessions is kept for its return while there are at most four times as many of these as
/// have sessions. A record of its key's newest session costs one probe, others O(log of the key's sessions) and what merging takes.
///
/// ```
/// use pelton::{EventTime, Job, Session, Spans, Watermarks, testing};
/// let (feed, source) = testing::feed::<(i64, char)>(1);
/// let (results, sink) = testing::collect();
/// let job = Job::new("visits");
/// job.source(source)
///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
///    .key_by(|r| r.1)
///    .window(Session::gap(30.seconds()))
///    .aggregate(|a| a.count())
///    .sink(sink);
/// for record in [(0, 'a'), (25, 'a'), (21, 'a'), (90, 'a'), (200, 'b')] {
///     feed.push(0, record);
/// }
/// drop(feed);
/// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
/// let visits: Vec<_> = results.take().iter().map(|w| (w.key, w.value, w.window.end.micros() / 1_000_000)).collect();
/// assert_eq!(visits, [('a', 3, 55), ('a', 1, 120), ('b', 1, 230)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Session<G = Gap> {
    pub(crate) gap: G,
    pub(crate) lateness: Lateness,
    pub(crate) early: Option<Span>,
}

impl Session {
    /// Sessions that end when their key has been silent for `gap`.
    pub fn gap(gap: Span) -> Self {
        Session {
            gap: Gap(gap),
            lateness: Lateness::NONE,
            early: None,
        }
    }
}

impl<F> Session<GapBy<F>> {
    /// Sessions to which each record gives its own gap: a record at `t` keeps its session open up to `t` + `gap(record)`,
    /// and the session ends with the last of these. A record whose gap is not positive or above `longest` is malformed;
    /// with allowed lateness, what has fired is kept for the longest gap.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Session, Span, Spans, Watermarks, sources, testing};
    /// #[derive(Clone)]
    /// struct Visit { at: EventTime, user: u32, reads_for: Span }
    /// let visits = [Visit { at: EventTime::from_seconds(1), user: 7, reads_for: 5.minutes() }];
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("visits");
    /// job.source(sources::items(visits))
    ///    .event_time(|v| v.at, Watermarks::bounded(5.seconds()))
    ///    .key_by(|v| v.user)
    ///    .window(Session::gap_by(1.hours(), |v: &Visit| v.reads_for))
    ///    .aggregate(|a| a.count())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take()[0].window.end, EventTime::from_seconds(301));
    /// ```
    pub fn gap_by<T>(longest: Span, gap: F) -> Self
    where
        F: Fn(&T) -> Span + Clone + Send + 'static,
    {
        Session {
            gap: GapBy { longest, gap },
            lateness: Lateness::NONE,
            early: None,
        }
    }
}

impl<G> Session<G> {
    /// Keeps sessions for so long after their end. A record that comes in that time changes them at once: an update,
    /// after a retraction of each session that merges into another (class NET). See [`Session::one_correction`] for one
    /// final correction instead.
    pub fn allowed_lateness(mut self, allowed: Span) -> Self {
        self.lateness.allowed = allowed;
        self
    }

    /// Tells open sessions as they stand, at the latest when `every` so much processing time has passed since they changed:
    /// results with [`Firing::Early`](crate::Firing::Early). What fires on time is the same with it and without.
    ///
    /// A session has no window of its own until it ends: it grows, and others merge into it. What was told of it under
    /// another window is therefore taken back, right before the result that replaces it, by a
    /// [`Firing::Retraction`](crate::Firing::Retraction) with the window and the value that were told. So whoever drops what
    /// is taken back and keeps the last result of each key and window has, at any time, sessions of which no two overlap,
    /// and in the end those that fired. Makes the stream EXEMPT: how many early results there are and what they hold
    /// depends on the clock. Costs a second accumulator for each open session that was told.
    ///
    /// ```
    /// use pelton::testing::{self, Stepper};
    /// use pelton::{EventTime, Firing, Job, Session, Spans, Watermarks};
    /// let (feed, source) = testing::feed::<i64>(1);
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("visits");
    /// job.source(source)
    ///    .event_time(|t| EventTime::from_seconds(*t), Watermarks::monotonous())
    ///    .key_by(|_| 'a')
    ///    .window(Session::gap(30.seconds()).early_firing(1.seconds()))
    ///    .aggregate(|a| a.count())
    ///    .sink(sink);
    /// let mut stepper = Stepper::new(&job, 1).unwrap();
    /// for t in [0, 20] {
    ///     feed.push(0, t);
    ///     stepper.until_idle().unwrap();
    ///     stepper.advance_clock(1.seconds());
    ///     stepper.until_idle().unwrap();
    /// }
    /// drop(feed);
    /// stepper.run().unwrap();
    /// let told: Vec<_> = results.take().iter().map(|w| (w.window.end.micros() / 1_000_000, w.value, w.firing)).collect();
    /// assert_eq!(told, [(30, 1, Firing::Early), (30, 1, Firing::Retraction), (50, 2, Firing::Early), (50, 2, Firing::OnTime)]);
    /// ```
    pub fn early_firing(mut self, every: Span) -> Self {
        self.early = Some(every);
        self
    }

    /// Parks records within the allowed lateness and corrects the result once, when nothing more can change it (class ROWS).
    pub fn one_correction(mut self) -> Self {
        self.lateness.mode = LateMode::OneCorrection;
        self
    }
}

/// How long a record of type `T` keeps its session open: see [`Session::gap`] and [`Session::gap_by`].
pub trait GapOf<T>: Clone + Send + 'static {
    /// The record's gap in microseconds, from 1 to the longest; `None` makes it malformed.
    #[doc(hidden)]
    fn of(&self, record: &T) -> Option<i64>;
    /// No gap is longer.
    #[doc(hidden)]
    fn longest(&self) -> Span;
    /// What `explain` says.
    #[doc(hidden)]
    fn describe(&self) -> String;
}

/// The same gap for every record.
#[derive(Clone, Copy, Debug)]
pub struct Gap(Span);

impl<T> GapOf<T> for Gap {
    #[inline(always)]
    fn of(&self, _: &T) -> Option<i64> {
        Some(self.0.micros())
    }
    fn longest(&self) -> Span {
        self.0
    }
    fn describe(&self) -> String {
        format!("gap {}", self.0)
    }
}

/// A gap that the record says.
#[derive(Clone, Copy)]
pub struct GapBy<F> {
    longest: Span,
    gap: F,
}

impl<F> std::fmt::Debug for GapBy<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GapBy(at most {})", self.longest)
    }
}

impl<T, F: Fn(&T) -> Span + Clone + Send + 'static> GapOf<T> for GapBy<F> {
    #[inline(always)]
    fn of(&self, record: &T) -> Option<i64> {
        let gap = (self.gap)(record);
        (gap > Span::ZERO && gap <= self.longest).then_some(gap.micros())
    }
    fn longest(&self) -> Span {
        self.longest
    }
    fn describe(&self) -> String {
        format!("gap by record, at most {}", self.longest)
    }
}
