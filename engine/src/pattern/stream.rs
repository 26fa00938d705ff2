//! `.pattern(..)` on a keyed stream.

use super::build::Pattern;
use super::matches::{Matched, TimedOut};
use super::policy::WhenFull;
use super::runs::Bounds;
use super::sieve::{Sieve, Sifted};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::operators::late::LateTo;
use crate::operators::pattern::MakePattern;
use crate::ordered::OrderedStream;
use crate::pipeline::Pipeline;
use crate::plan::{Pitfall, Results};
use crate::push::OpId;
use crate::sink::Sink;
use crate::state::State;
use crate::stream::Stream;
use crate::time::Span;
use std::marker::PhantomData;
use std::panic::Location;

/// Partial matches that a key may have, and events in them, unless it is said.
const PARTIAL_MATCHES: usize = 1024;
const EVENTS: usize = 16_384;

impl<P: Pipeline<Item: State>, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// Finds a [`Pattern`] in the events of each key, taken in event-time order. A match is told by [`PatternStream::select`].
    ///
    /// Class: ROWS. A match has the event time of its last event; one that is complete because something has not come, that of
    /// `within`'s end. Late are records with time + allowed lateness < V(r): counted, and sent to [`PatternStream::late_to`] where it is set.
    ///
    /// State: records until the watermark has passed them; then, by key, the events that partial matches have taken, each once with 24 bytes
    /// beside it, and 24 bytes for each place of one in a partial match, 32 for each partial match; 24 and the key for each key that has any, or had
    /// within the last `within`. It goes with the match, by `within` (for which the watermark
    /// is enough; without it a warning tells, PLT-0203), or when it is too much ([`PatternStream::partial_matches_max`]). Cost: O(log n) for the order, and an event goes to
    /// each partial match of its key. An event for which no condition of the pattern can hold does not travel at all, unless the pattern
    /// would notice it: by strict contiguity (`next`, `not_next`, `consecutive`), or by an element without a condition.
    ///
    /// More than three charges of a card within a minute, no two in a row from one country:
    ///
    /// ```
    /// use pelton::pattern::{AfterMatch, Pattern};
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// #[pelton::state(version = 1)]
    /// #[derive(Clone)]
    /// struct Charge { card: u64, at: i64, country: String }
    /// let charge = |card, at, country: &str| Charge { card, at, country: country.into() };
    /// let charges = [
    ///     charge(7, 1, "CH"), charge(8, 2, "CH"), charge(7, 10, "BR"), charge(8, 11, "CH"), charge(7, 20, "JP"),
    ///     charge(8, 21, "CH"), charge(7, 30, "ZA"), charge(8, 31, "CH"), charge(7, 300, "CH"),
    /// ];
    /// let fraud = Pattern::begin("first")
    ///     .followed_by("more")
    ///     .where_matched(|c: &Charge, matched| {
    ///         let before = matched.events().next_back();
    ///         before.is_some_and(|(_, _, before)| before.country != c.country)
    ///     })
    ///     .times(3)
    ///     .consecutive()
    ///     .within(60.seconds())
    ///     .skip(AfterMatch::PastLast);
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("fraud");
    /// job.source(sources::items(charges))
    ///    .event_time(|c| EventTime::from_seconds(c.at), Watermarks::bounded(5.seconds()))
    ///    .key_by(|c| c.card)
    ///    .pattern(fraud)
    ///    .select(|m| {
    ///        let countries: Vec<_> = m.events().map(|(_, _, c)| c.country.as_str()).collect();
    ///        countries.join(" ")
    ///    })
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["CH BR JP ZA"]);
    /// ```
    ///
    /// Three departures of an aircraft in a row, each later behind its schedule than the one before:
    ///
    /// ```
    /// use pelton::pattern::Pattern;
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// // (aircraft, minute, delay)
    /// let departures = [("HBJVA", 0, 5), ("HBJVA", 90, 12), ("HBIOP", 95, 30), ("HBJVA", 200, 31), ("HBIOP", 210, 10)];
    /// let departures = departures.map(|(aircraft, minute, delay)| (aircraft.to_string(), minute, delay));
    /// let later_and_later = Pattern::begin("first")
    ///     .next("second")
    ///     .where_matched(|d: &(String, i64, i64), m| m.first_of("first").is_some_and(|first| d.2 > first.2))
    ///     .next("third")
    ///     .where_matched(|d, m| m.first_of("second").is_some_and(|second| d.2 > second.2))
    ///     .within(12.hours());
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("later and later");
    /// job.source(sources::items(departures))
    ///    .event_time(|d| EventTime::from_seconds(60 * d.1), Watermarks::bounded(10.minutes()))
    ///    .key_by(|d| d.0.clone())
    ///    .pattern(later_and_later)
    ///    .select(|m| m.events().map(|(_, _, d)| d.2).collect::<Vec<_>>())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [[5, 12, 31]]);
    /// ```
    #[track_caller]
    pub fn pattern(self, pattern: Pattern<P::Item>) -> PatternStream<P, K> {
        let location = Location::caller();
        let ordered = self.in_event_time_order();
        let mut plan = ordered.keyed().stream.plan.lock();
        let op = plan.op("pattern", Results::ROWS, location);
        plan.info_mut(op).detail = pattern.describe();
        if !pattern.is_within() {
            plan.warn(
                op,
                Pitfall::StateGrows,
                "a pattern without `within`: its partial matches go only when they are complete, cannot go on, or are too many",
            );
        }
        drop(plan);
        PatternStream {
            ordered,
            pattern,
            op,
            bounds: Bounds {
                waits: PARTIAL_MATCHES,
                places: EVENTS,
                full: WhenFull::DropOldest,
            },
            timed_out: None,
        }
    }
}

/// A pattern on a keyed stream, being written: what is told of a match ends it. See [`KeyedStream::pattern`].
#[must_use = "a pattern does nothing until its matches are selected"]
#[allow(missing_debug_implementations)]
pub struct PatternStream<P: Pipeline, K> {
    ordered: OrderedStream<P, K>,
    pattern: Pattern<P::Item>,
    op: OpId,
    bounds: Bounds,
    timed_out: Option<TimedOutTo<P::Item>>,
}

/// Where partial matches go that `within` has ended, and how their events are copied.
pub(crate) type TimedOutTo<T> = (LateTo<TimedOut<T>>, fn(&T) -> T);

impl<P: Pipeline<Item: State>, K: KeyOf<P::Item>> PatternStream<P, K> {
    /// How many partial matches a key may have: each is what has been taken and one thing that it waits for, so a loop that may go on
    /// and may be left counts as two. Default: 1024. Beyond it some go ([`PatternStream::when_full`]). An event's cost, and with it how long
    /// a step may take, is bounded by it.
    pub fn partial_matches_max(mut self, max: usize) -> Self {
        self.refuse_zero("partial matches", max);
        self.bounds.waits = max;
        self
    }

    /// How many events the partial matches of a key may have together; those that began alike share them. Default: 16,384.
    /// Beyond it some go ([`PatternStream::when_full`]). A key's state is written as a whole to a checkpoint, so this bounds what is
    /// written of it.
    pub fn events_max(mut self, max: usize) -> Self {
        self.refuse_zero("events of partial matches", max);
        self.bounds.places = max;
        self
    }

    fn refuse_zero(&self, what: &str, max: usize) {
        if max == 0 {
            let mut plan = self.ordered.keyed().stream.plan.lock();
            let e = BuildError::argument(
                plan.info(self.op),
                format!("a key may have 0 {what}"),
                "give at least 1",
            );
            plan.errors.push(e);
        }
    }

    /// Which partial matches go when a key has too many. Default: the oldest.
    pub fn when_full(mut self, full: WhenFull) -> Self {
        self.bounds.full = full;
        self
    }

    /// Where partial matches go that [`Pattern::within`] has ended: each with what it had taken. Those that were told as a match
    /// before, and only might have gone on, are not among them.
    #[track_caller]
    pub fn timed_out_to<S: Sink<TimedOut<P::Item>>>(mut self, sink: S) -> Self
    where
        P::Item: Clone,
    {
        let mut plan = self.ordered.keyed().stream.plan.lock();
        let op = plan.op("timed-out output", Results::ROWS, Location::caller());
        plan.info_mut(op).detail = sink.name();
        if !self.pattern.is_within() {
            let e = BuildError::argument(
                plan.info(op),
                "no partial match of a pattern without `within` is ever over",
                "give the pattern `.within(span)`, or drop the output",
            );
            plan.errors.push(e);
        }
        let to = LateTo::sink(&mut plan, sink, op);
        drop(plan);
        self.timed_out = Some((to, Clone::clone));
        self
    }

    /// Where late records go. They are counted in any case.
    #[track_caller]
    pub fn late_to<S: Sink<P::Item>>(mut self, sink: S) -> Self {
        self.ordered = self.ordered.late_to(sink);
        self
    }

    /// Waits so much longer than the watermark says. All matches come later by it, and with them the watermark behind.
    pub fn allowed_lateness(mut self, allowed: Span) -> Self {
        self.ordered = self.ordered.allowed_lateness(allowed);
        self
    }

    /// Names the operator: state, savepoints, metrics and errors know it by this, and the order before it by this and `-order`.
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        let uid = uid.into();
        self.ordered = self.ordered.uid(format!("{uid}-order"));
        let plan = self.ordered.keyed().stream.plan.clone();
        plan.lock().info_mut(self.op).uid = Some(uid);
        self
    }

    /// A result for each match. State and late records are said at [`KeyedStream::pattern`].
    pub fn select<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&Matched<'_, P::Item>) -> O + Clone + Send + 'static,
    {
        self.tells(move |matched: &Matched<'_, P::Item>, to: &mut Vec<O>| to.push(f(matched)))
    }

    /// Any number of results for each match. They are gathered before the first goes on. State and late records are said at [`KeyedStream::pattern`].
    ///
    /// ```
    /// use pelton::pattern::Pattern;
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("two rises");
    /// let rises = Pattern::begin("low").next("high").where_matched(|r: &(i64, u32), m| m.first_of("low").is_some_and(|low| r.1 > low.1));
    /// job.source(sources::items([(1, 5), (2, 9), (3, 4)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::monotonous())
    ///    .key_by(|_| 'a')
    ///    .pattern(rises.within(1.minutes()))
    ///    .flat_select(|m| m.events().map(|(_, _, r)| r.1).collect::<Vec<_>>())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [5, 9]);
    /// ```
    pub fn flat_select<I, F>(self, f: F) -> Stream<impl Pipeline<Item = I::Item>>
    where
        I: IntoIterator<Item: Send + 'static>,
        F: Fn(&Matched<'_, P::Item>) -> I + Clone + Send + 'static,
    {
        self.tells(
            move |matched: &Matched<'_, P::Item>, to: &mut Vec<I::Item>| to.extend(f(matched)),
        )
    }

    fn tells<O, S>(self, select: S) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        S: Fn(&Matched<'_, P::Item>, &mut Vec<O>) + Clone + Send + 'static,
    {
        let PatternStream {
            ordered,
            pattern,
            op,
            bounds,
            timed_out,
        } = self;
        let plan = ordered.keyed().stream.plan.clone();
        let mut plan = plan.lock();
        let (nfa, errors) = pattern.compile(plan.info(op));
        plan.errors.extend(errors);
        drop(plan);
        let sieve = Sieve::of(&nfa);
        let ordered = ordered.sifted(|before| Sifted { before, sieve, op });
        ordered.behind(op, Results::ROWS, move |key| MakePattern {
            key,
            nfa,
            select,
            bounds,
            timed_out,
            op,
            results: PhantomData::<fn() -> O>,
        })
    }
}
