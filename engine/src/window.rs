//! Windows: where they lie, what they emit, and the builder between `key_by` and a sink.

use crate::aggregate::{Aggregate, Aggs};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::operators::late::LateTo;
use crate::pipeline::{MakeOperator, OperatorRoot, Pipeline};
use crate::plan::{Class, OpInfo, Pitfall, Results};
use crate::push::OpId;
use crate::sink::Sink;
use crate::stage::operator::Operator;
use crate::stream::Stream;
use crate::time::{EventTime, Span};
use std::panic::Location;

mod sliding;
pub use sliding::{Cumulate, Sliding};

/// A stretch of event time, from `start` up to but not including `end`.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first time in it.
    pub start: EventTime,
    /// The first time after it.
    pub end: EventTime,
}

impl Window {
    /// All of time: the window of results that no stretch of time bounds ([`crate::Global`]).
    pub const ALL: Window = Window {
        start: EventTime::BEGINNING,
        end: EventTime::END,
    };
}

/// Why a result came.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Firing {
    /// Before the window's end, by processing time; a later result of the key and window replaces it, or takes it back.
    Early,
    /// The window is complete: the watermark or the clock passed its end, or its count or time-out was reached.
    OnTime,
    /// A late record within the allowed lateness changed the result: it replaces the earlier one.
    Update,
    /// All late records within the allowed lateness, once, when it ended: it replaces the on-time result.
    Correction,
    /// The result is void: its session has merged into another or, if it was told early, has grown. The result of what it
    /// became part of follows.
    Retraction,
}

/// A result of a window.
#[crate::state(version = 1)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windowed<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// The aggregate's result.
    pub value: V,
    /// Why it came.
    pub firing: Firing,
}

/// What happens to records that come after their window has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LateMode {
    /// A record within the allowed lateness fires the window again at once (class NET).
    Update,
    /// Records within the allowed lateness are parked and corrected once, when it ends (class ROWS).
    OneCorrection,
}

/// How late is too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    pub(crate) allowed: Span,
    pub(crate) mode: LateMode,
}

impl Lateness {
    /// Nothing is allowed: windows fire once.
    pub const NONE: Lateness = Lateness {
        allowed: Span::ZERO,
        mode: LateMode::Update,
    };
}

/// Tumbling windows: equal, adjacent, each record in one.
///
/// A window fires when the watermark reaches its end. A record that is behind counts as long as its own partition's
/// watermark V(r) has not reached end + allowed lateness (SEMANTICS, time, 4); later ones are counted, and go to the late output
/// ([`WindowedStream::late_to`]) where it is set.
///
/// Class ROWS; NET with allowed lateness, unless it is for one correction; EXEMPT with early firing. State: an accumulator for each key and window, and
/// with one correction a second for what is parked, until the watermark has reached the window's end and the allowed lateness; in checkpoints. One
/// probe a record.
///
/// ```
/// use pelton::testing::{self, Stepper};
/// use pelton::{EventTime, Job, Spans, Tumbling, Watermarks};
/// let (results, sink) = testing::collect();
/// let (late, late_sink) = testing::collect();
/// let job = Job::new("sums a minute");
/// job.source(pelton::sources::items([(10, 1u32), (50, 2), (70, 4), (20, 8)]))
///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::monotonous())
///    .key_by(|_| 'a')
///    .window(Tumbling::of(1.minutes()))
///    .late_to(late_sink)
///    .aggregate(|a| a.sum(|r| r.1))
///    .sink(sink);
/// Stepper::new(&job, 1).unwrap().run().unwrap();
/// let sums: Vec<_> = results.take().iter().map(|w| (w.window.end.micros() / 1_000_000, w.value)).collect();
/// assert_eq!(sums, [(60, 3), (120, 4)]);
/// assert_eq!(late.take(), [(20, 8)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    pub(crate) size: Span,
    pub(crate) offset: Span,
    pub(crate) lateness: Lateness,
    pub(crate) early: Option<Span>,
}

impl Tumbling {
    /// Windows of `size`, aligned to the epoch.
    pub fn of(size: Span) -> Self {
        Tumbling {
            size,
            offset: Span::ZERO,
            lateness: Lateness::NONE,
            early: None,
        }
    }

    /// Shifts the alignment: `Tumbling::of(1.days()).offset(5.hours())` starts days at 05:00 UTC. May be negative.
    pub fn offset(mut self, offset: Span) -> Self {
        self.offset = offset;
        self
    }
}

/// Methods that all event-time windows share.
macro_rules! lateness_methods {
    ($($t:ty),*) => { $(
        impl $t {
            /// Keeps windows for so long after their end; a record that comes in that time fires its window again at
            /// once with the new result (class NET). See [`Self::one_correction`] for one final correction instead.
            pub fn allowed_lateness(mut self, allowed: Span) -> Self {
                self.lateness.allowed = allowed;
                self
            }

            /// Parks records within the allowed lateness and corrects the result once, when it ends (class ROWS). The
            /// correction replaces the result that was on time, so an append-only sink is refused all the same.
            pub fn one_correction(mut self) -> Self {
                self.lateness.mode = LateMode::OneCorrection;
                self
            }
        }
    )* };
}
pub(crate) use lateness_methods;
lateness_methods!(Tumbling);

/// What aligned event-time windows share. Sessions, which have no window of their own until they end, say more.
macro_rules! early_methods {
    ($($t:ty),*) => { $(
        impl $t {
            /// Tells what windows that have not fired hold so far, for each key and window that has changed, at the latest
            /// when `every` so much processing time has passed: results with [`Firing::Early`](crate::Firing::Early), which the next result of
            /// the key and window replaces. A record changes every window that it lies in. The final value is the same
            /// with it and without. Makes the stream EXEMPT: how many early results there are and what they hold depends
            /// on the clock.
            pub fn early_firing(mut self, every: Span) -> Self {
                self.early = Some(every);
                self
            }
        }
    )* };
}
pub(crate) use early_methods;
early_methods!(Tumbling);

/// Refuses an interval of early firing that makes no sense.
pub(crate) fn check_early(op: &OpInfo, early: Option<Span>) -> Result<(), BuildError> {
    early.map_or(Ok(()), |every| {
        check_positive(op, "interval of early firing", every)
    })
}

/// What `explain` adds where windows fire early.
pub(crate) fn said_early(early: Option<Span>) -> String {
    early.map_or_else(String::new, |every| format!(", early every {every}"))
}

/// A kind of window over records `T`: what `window(..)` takes. Most are for any record; those that look at their records
/// ([`crate::Session::gap_by`]) are for theirs.
#[allow(private_interfaces)]
pub trait WindowAssigner<T: Send + 'static>: Clone + Send + 'static {
    /// The window's operator for keys `K` and aggregate `A`.
    type Make<K: KeyOf<T>, A: Aggregate<T>>: MakeOperator<T, Op: Operator<T, Out = Windowed<K::Key, A::Out>>>;
    /// What `explain` says.
    #[doc(hidden)]
    fn describe(&self) -> String;
    /// Refuses spans that make no sense.
    #[doc(hidden)]
    fn check(&self, op: &OpInfo) -> Result<(), BuildError>;
    /// Whether it needs event time.
    #[doc(hidden)]
    fn needs_time(&self) -> bool {
        true
    }
    /// What the builder warns of, if anything.
    #[doc(hidden)]
    fn pitfall(&self) -> Option<(Pitfall, &'static str)> {
        None
    }
    /// What is known of its results.
    #[doc(hidden)]
    fn results(&self) -> Results;
    /// Makes the operator's maker.
    #[doc(hidden)]
    fn make<K: KeyOf<T>, A: Aggregate<T>>(
        self,
        key: K,
        aggregate: A,
        late: Option<LateTo<T>>,
        op: OpId,
    ) -> Self::Make<K, A>;
}

/// What is known of the results of an event-time window. Allowed lateness replaces them in either mode: a correction comes
/// after a result that was on time.
pub(crate) fn results_of(lateness: Lateness, early: Option<Span>) -> Results {
    let late = lateness.allowed > Span::ZERO;
    let class = match early {
        Some(_) => Class::Exempt,
        None if late && lateness.mode == LateMode::Update => Class::Net,
        None => Class::Rows,
    };
    Results {
        class,
        replaced: late || early.is_some(),
    }
}

/// Refuses a span that is not positive, or too long to compute with.
pub(crate) fn check_positive(op: &OpInfo, what: &str, span: Span) -> Result<(), BuildError> {
    if span <= Span::ZERO || span > Span::MAX {
        return Err(BuildError::argument(
            op,
            format!("the {what} is {span}"),
            "give one of 1 us to 2^60 us",
        ));
    }
    Ok(())
}

/// Refuses a negative span, or one too long to compute with.
pub(crate) fn check_not_negative(op: &OpInfo, what: &str, span: Span) -> Result<(), BuildError> {
    if span < Span::ZERO || span > Span::MAX {
        return Err(BuildError::argument(
            op,
            format!("the {what} is {span}"),
            "give one of 0 to 2^60 us",
        ));
    }
    Ok(())
}

/// Refuses a lateness that makes no sense, and a correction of what is never late.
pub(crate) fn check_lateness(op: &OpInfo, lateness: Lateness) -> Result<(), BuildError> {
    check_not_negative(op, "allowed lateness", lateness.allowed)?;
    if lateness.mode == LateMode::OneCorrection && lateness.allowed == Span::ZERO {
        return Err(BuildError::argument(
            op,
            "one correction without allowed lateness has nothing to correct",
            "give `.allowed_lateness(..)`, or drop `.one_correction()`",
        ));
    }
    Ok(())
}

/// Refuses an offset too long to compute with.
pub(crate) fn check_offset(op: &OpInfo, offset: Span) -> Result<(), BuildError> {
    if offset.micros().unsigned_abs() > Span::MAX.micros() as u64 {
        return Err(BuildError::argument(
            op,
            format!("the offset is {offset}"),
            "give an offset within 2^60 us",
        ));
    }
    Ok(())
}

/// Notes a window operator, what is wrong with it and what to beware of.
pub(crate) fn note<P: Pipeline, K: KeyOf<P::Item>, W: WindowAssigner<P::Item>>(
    keyed: &KeyedStream<P, K>,
    window: &W,
    location: &'static Location<'static>,
) -> OpId {
    let op = keyed.note("window", location, window.needs_time());
    let mut plan = keyed.stream.plan.lock();
    plan.info_mut(op).detail = window.describe();
    if let Err(e) = window.check(plan.info(op)) {
        plan.errors.push(e);
    }
    if let Some((pitfall, what)) = window.pitfall() {
        plan.warn(op, pitfall, what);
    }
    plan.sums(op, &keyed.stream.meta);
    op
}

/// The stream of a window's results: [`Windowed`] records.
pub type Aggregated<P, K, W, A> = Stream<
    OperatorRoot<<P as Pipeline>::Item, <W as WindowAssigner<<P as Pipeline>::Item>>::Make<K, A>>,
>;

/// A keyed stream cut into windows; an aggregate must follow. Class, state, cleaning and late records are said at the kind of window:
/// [`Tumbling`], [`Sliding`], [`Cumulate`], [`Session`](crate::Session), [`Global`](crate::Global), [`ProcessingTime`](crate::ProcessingTime).
#[must_use = "windows do nothing until an aggregate follows"]
pub struct WindowedStream<P: Pipeline, K, W> {
    keyed: KeyedStream<P, K>,
    window: W,
    late: Option<LateTo<P::Item>>,
    op: OpId,
}

impl<P: Pipeline, K: KeyOf<P::Item>, W: WindowAssigner<P::Item>> WindowedStream<P, K, W> {
    pub(crate) fn new(
        keyed: KeyedStream<P, K>,
        window: W,
        location: &'static Location<'static>,
    ) -> Self {
        let op = note(&keyed, &window, location);
        WindowedStream {
            keyed,
            window,
            late: None,
            op,
        }
    }

    /// The window.
    pub(crate) fn op(&self) -> OpId {
        self.op
    }

    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.keyed.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// Where records go that are too late for every window they belong to. They are counted in any case. Refused on windows
    /// for which no record is late: those by count or by processing time.
    #[track_caller]
    pub fn late_to<S: Sink<P::Item>>(mut self, sink: S) -> Self {
        let mut plan = self.keyed.stream.plan.lock();
        let op = plan.op("late output", Results::ROWS, Location::caller());
        plan.info_mut(op).detail = sink.name();
        if !self.window.needs_time() {
            let e = BuildError::argument(
                plan.info(op),
                format!("for {} no record is late", plan.info(self.op)),
                "drop `.late_to(..)`",
            );
            plan.errors.push(e);
        }
        self.late = Some(LateTo::sink(&mut plan, sink, op));
        drop(plan);
        self
    }

    /// Aggregates each window's records: `aggregate(|a| (a.count(), a.sum(|o| o.total)))`. State is the aggregates' accumulators, for as long as the kind of window
    /// says ([`Tumbling`] has an example).
    pub fn aggregate<A: Aggregate<P::Item>>(
        self,
        make: impl FnOnce(&Aggs<P::Item>) -> A,
    ) -> Aggregated<P, K, W, A> {
        self.aggregate_with(make(&Aggs::new()))
    }

    /// Aggregates with an aggregate of your own: as [`WindowedStream::aggregate`].
    pub fn aggregate_with<A: Aggregate<P::Item>>(self, aggregate: A) -> Aggregated<P, K, W, A> {
        let WindowedStream {
            keyed,
            window,
            late,
            op,
        } = self;
        let results = window.results();
        let by_clock = matches!(window.pitfall(), Some((Pitfall::ProcessingTime, _)));
        let mut stream = keyed.operator(op, results, |key| window.make(key, aggregate, late, op));
        if by_clock {
            stream.meta.by_clock.get_or_insert(op);
        }
        stream
    }
}
