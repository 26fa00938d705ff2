//! `deduplicate`: of the records of a key that lie close together, one.
//!
//! Laws
//! 1. First of a horizon: a record passes, as it is, unless the time of the last one that passed lies less than the horizon from
//!    its own. What does not pass puts nothing off: a key that never rests passes once a horizon.
//! 2. Last of a horizon: a key's first record at t opens [t, t + horizon), and the last one therein, by (event time, origin), comes once
//!    M has reached its end, with the time end - 1 us. The next record opens the next.
//! 3. In event-time order both follow from the input alone (class ROWS). In the order of arrival the first that comes is not the same in
//!    each run (class EXEMPT, and which record of a key lasts has no meaning: there is no `deduplicate_to_last`).
//! 4. In event-time order nothing can ask for a key's state once M has passed its last time by the horizon: it goes then, a
//!    bounded piece a step. In the order of arrival it goes then as well, so a duplicate that is behind by more than that passes.
//!
//! The first is an operator of its own ([`crate::operators::deduplicate`]), the last a process function ([`mod@crate::process`]) with one value a key. O(1) a record: one probe. Keeping a time for each key for as long as duplicates may come is common practice (Flink's
//! deduplication by `ROW_NUMBER() = 1` with a time to live, Beam's `Deduplicate`).

use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::operators::deduplicate::MakeDeduplicate;
use crate::ordered::OrderedStream;
use crate::pipeline::{MakeOperator, Pipeline};
use crate::plan::{Class, Results};
use crate::process::{function, timer, value};
use crate::push::OpId;
use crate::stage::operator::Operator;
use crate::state::State;
use crate::stream::Stream;
use crate::time::{EventTime, Span};
use crate::window::check_positive;
use std::marker::PhantomData;
use std::panic::Location;

/// What a result of [`OrderedStream::deduplicate_to_last`] lies before the end of its horizon: as windows do it.
const BEFORE_END: Span = Span::from_micros(1);

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// Passes a record on unless the latest of its key that passed lies less than `horizon` from it in event time: retries and
    /// redeliveries are dropped. One that comes out of order by the horizon or more is held against the latest alone, and passes. What is dropped puts nothing off, so a key that never rests passes once a horizon.
    ///
    /// Records keep their time and behind mark; none is too late. Class EXEMPT: which record of a key comes first is not the same in each
    /// run. Where duplicates are equal that does not matter; for one fixed answer put [`KeyedStream::in_event_time_order`]
    /// before it (class ROWS), which also has [`OrderedStream::deduplicate_to_last`].
    ///
    /// State: a time for each key, until the watermark has passed it by the horizon; a duplicate that is behind by more than that passes.
    /// O(1) a record.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("payments");
    /// job.source(sources::items([('a', 1), ('b', 2), ('a', 3), ('a', 700)]))
    ///    .event_time(|p| EventTime::from_seconds(p.1), Watermarks::bounded(5.seconds()))
    ///    .key_by(|p| p.0)
    ///    .deduplicate(10.minutes())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [('a', 1), ('b', 2), ('a', 700)]);
    /// ```
    #[track_caller]
    pub fn deduplicate(self, horizon: Span) -> Stream<impl Pipeline<Item = P::Item>>
    where
        P::Item: Clone,
    {
        let op = noted(&self, horizon, Location::caller());
        let results = Results::last(Class::Exempt);
        self.operator(op, results, move |key| first(key, horizon, op))
    }
}

impl<P: Pipeline<Item: State + Clone>, K: KeyOf<P::Item>> OrderedStream<P, K> {
    /// As [`KeyedStream::deduplicate`], in event-time order: the earliest record by (event time, source, partition, offset) passes
    /// (class ROWS). Late records are dropped before it, as of [`OrderedStream`]. State: a time for each key, until the watermark has passed it by the
    /// horizon, and what waits for the order. One probe a record, besides the order.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("payments");
    /// job.source(sources::items([('a', 3), ('b', 2), ('a', 1), ('a', 700)]))
    ///    .event_time(|p| EventTime::from_seconds(p.1), Watermarks::bounded(5.seconds()))
    ///    .key_by(|p| p.0)
    ///    .in_event_time_order()
    ///    .deduplicate(10.minutes())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [('a', 1), ('b', 2), ('a', 700)]);
    /// ```
    #[track_caller]
    pub fn deduplicate(self, horizon: Span) -> Stream<impl Pipeline<Item = P::Item>> {
        let op = noted(self.keyed(), horizon, Location::caller());
        self.behind(op, Results::ROWS, move |key| first(key, horizon, op))
    }

    /// A key's first record at t opens the horizon [t, t + `horizon`); the last record therein by (event time, source, partition, offset) comes when
    /// the watermark has reached its end: the state that things settled in. The result has the last time of the
    /// horizon (its end - 1 us), since later records may come before it does. Class ROWS; late records are dropped before it, as of
    /// [`OrderedStream`].
    ///
    /// State: a record for each key, until its horizon ends. O(1) a record.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("settled");
    /// job.source(sources::items([(7, 1, "new"), (7, 3, "sent"), (7, 2, "paid"), (7, 90, "returned")]))
    ///    .event_time(|o| EventTime::from_seconds(o.1), Watermarks::bounded(5.seconds()))
    ///    .map(|o| (o.0, o.1, o.2.to_string()))
    ///    .key_by(|o| o.0)
    ///    .in_event_time_order()
    ///    .deduplicate_to_last(1.minutes())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// let settled: Vec<_> = results.take().into_iter().map(|o| o.2).collect();
    /// assert_eq!(settled, ["sent", "returned"]);
    /// ```
    #[track_caller]
    pub fn deduplicate_to_last(self, horizon: Span) -> Stream<impl Pipeline<Item = P::Item>> {
        let op = noted(self.keyed(), horizon, Location::caller());
        self.behind(op, Results::ROWS, move |key| last(key, horizon, op))
    }
}

/// Notes the operator, and what is wrong with its horizon.
fn noted<P: Pipeline, K: KeyOf<P::Item>>(
    keyed: &KeyedStream<P, K>,
    horizon: Span,
    location: &'static Location<'static>,
) -> OpId {
    let op = keyed.note("deduplicate", location, true);
    let mut plan = keyed.stream.plan.lock();
    plan.info_mut(op).detail = format!("horizon {horizon}");
    let wrong: Result<(), BuildError> = check_positive(plan.info(op), "horizon", horizon);
    plan.errors.extend(wrong.err());
    op
}

/// Law 1.
pub(crate) fn first<T: Clone + Send + 'static, K: KeyOf<T>>(
    key: K,
    horizon: Span,
    op: OpId,
) -> MakeDeduplicate<T, K> {
    let record = PhantomData;
    MakeDeduplicate {
        key,
        horizon,
        op,
        record,
    }
}

/// Law 2.
pub(crate) fn last<T: Clone + State, K: KeyOf<T>>(
    key: K,
    horizon: Span,
    op: OpId,
) -> impl MakeOperator<T, Op: Operator<T, Out = T>> {
    let last = value::<(EventTime, T)>("last");
    let at_end = timer::<K::Key, _, T, _>(&last, |_, last, cx| {
        if let Some((_, record)) = last.take() {
            cx.emit(record);
        }
    });
    function(
        (key, last),
        op,
        true,
        at_end,
        move |record: &T, last, cx| {
            let end = match last.get() {
                Some(&(end, _)) => end,
                None => cx.timer_at(cx.time() + horizon - BEFORE_END) + BEFORE_END,
            };
            last.set((end, record.clone()));
        },
    )
}
