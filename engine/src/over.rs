//! `over`: for each record an aggregate of the records of its key up to it, the last n of them or those of the last span of event time.
//!
//! Laws
//! 1. Records come in event-time order, so what lies before one is fixed, and with it every result (class ROWS).
//! 2. A record's own frame ends with it: records of its time that come behind it in the order (event time, source, partition, offset) are in
//!    their own frames and not in its. (SQL's `ROWS` frame, and its `RANGE` but for these peers.)
//! 3. Nothing is ever subtracted: the aggregate is kept by merges alone ([`frame`]), and which ones follows from the key's records. So floats are
//!    the same in every run as well, within rounding of the exact sum.
//! 4. A frame by time goes as a whole once M has passed its newest record by the span, a bounded piece a step; one by count stays.
//!
//! It is a process function ([`mod@crate::process`]) with a frame a key. A record costs one probe, at most three merges for itself and two for each record
//! that leaves its frame. An aggregate that grows with its records ([`Aggregate::GROWS`]) is merged anew for each result instead.

mod frame;

use crate::aggregate::{Aggregate, Aggs};
use crate::key::KeyOf;
use crate::ordered::OrderedStream;
use crate::pipeline::{MakeOperator, Pipeline};
use crate::plan::Results;
use crate::process::{NoTimer, ProcessInput, Ttl, function, value};
use crate::push::OpId;
use crate::stage::operator::Operator;
use crate::state::State;
use crate::stream::Stream;
use crate::time::Span;
use crate::window::check_positive;
pub(crate) use frame::Frame;
use std::panic::Location;

/// A frame by count has no more records.
const MOST_ROWS: u32 = 1 << 20;

/// Which records before one are aggregated with it: see [`OrderedStream::over`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over(Bound);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Rows(u32),
    Range(Span),
}

impl Over {
    /// The last `n` records of the key, the one in hand among them: 1 to 2^20. (SQL: `ROWS BETWEEN n - 1 PRECEDING AND CURRENT ROW`.)
    pub const fn rows(n: u32) -> Self {
        Over(Bound::Rows(n))
    }

    /// Those whose event time lies at most `span` before that of the one in hand. (SQL: `RANGE BETWEEN span PRECEDING AND CURRENT ROW`, but
    /// that records of the same time behind it in the order are not in it.)
    pub const fn range(span: Span) -> Self {
        Over(Bound::Range(span))
    }
}

impl<P: Pipeline<Item: State + Clone>, K: KeyOf<P::Item>> OrderedStream<P, K> {
    /// For each record an aggregate of its key's records up to it: the last n of them, or those of the last span. `aggregate` follows.
    ///
    /// Class ROWS. Late records are dropped before it, as of [`OrderedStream`]. A result has its record's time.
    ///
    /// State: for each key the records' accumulators in its frame (16 bytes and the accumulator each). A frame by time goes once the watermark has
    /// passed its newest record by the span; one by count is never dropped, of which a warning tells (PLT-0203). A checkpoint has the whole frame of each key that
    /// has changed: wide frames of many keys are costly there. A record costs O(1) merges, amortised over those that leave its frame; where
    /// an aggregate grows with its records (`collect`, `count_distinct`), O(records in the frame).
    /// (The queue is DABA Lite of Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021.)
    ///
    /// ```
    /// use pelton::{EventTime, Job, Over, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("moving average");
    /// job.source(sources::items([(1, 10.0), (2, 20.0), (3, 60.0), (200, 5.0)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .over(Over::rows(2))
    ///    .aggregate(|a| a.avg(|r| r.1))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// let averages: Vec<f64> = results.take().into_iter().map(|(_, average)| average).collect();
    /// assert_eq!(averages, [10.0, 15.0, 40.0, 32.5]);
    /// ```
    #[track_caller]
    pub fn over(self, over: Over) -> OverStream<P, K> {
        let location = Location::caller();
        let op = match over.0 {
            Bound::Rows(_) => self.note_kept("over", location),
            Bound::Range(_) => self.keyed().note("over", location, true),
        };
        let mut plan = self.keyed().stream.plan.lock();
        let (detail, wrong) = match over.0 {
            Bound::Rows(n) => (format!("last {n} records"), None),
            Bound::Range(span) => {
                let wrong = check_positive(plan.info(op), "range", span).err();
                (format!("last {span}"), wrong)
            }
        };
        plan.info_mut(op).detail = detail;
        plan.errors.extend(wrong);
        drop(plan);
        if let Bound::Rows(n) = over.0
            && (n == 0 || n > MOST_ROWS)
        {
            let what = format!("its frame is of {n} records");
            let advice = format!("give 1 to {MOST_ROWS}");
            self.check(op, true, Some((what, advice)));
        }
        OverStream {
            ordered: self,
            over,
            op,
        }
    }
}

/// Records with a frame each; an aggregate must follow. See [`OrderedStream::over`].
#[must_use = "frames do nothing until an aggregate follows"]
#[allow(missing_debug_implementations)]
pub struct OverStream<P: Pipeline, K> {
    ordered: OrderedStream<P, K>,
    over: Over,
    op: OpId,
}

impl<P: Pipeline<Item: State + Clone>, K: KeyOf<P::Item>> OverStream<P, K> {
    /// Each record, and the aggregate of its frame: `aggregate(|a| (a.count(), a.sum(|o| o.total)))`. State, cleaning, late records and cost are said at
    /// [`OrderedStream::over`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("the last minute");
    /// job.source(sources::items([(33, 5u32), (30, 6), (200, 7)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .over(pelton::Over::range(1.minutes()))
    ///    .aggregate(|a| a.sum(|r| r.1))
    ///    .map(|(record, sum)| (record.0, sum))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [(30, 6), (33, 11), (200, 7)]);
    /// ```
    pub fn aggregate<A: Aggregate<P::Item>>(
        self,
        make: impl FnOnce(&Aggs<P::Item>) -> A,
    ) -> Stream<impl Pipeline<Item = (P::Item, A::Out)>> {
        self.aggregate_with(make(&Aggs::new()))
    }

    /// The same with an aggregate of your own. See [`OverStream::aggregate`].
    pub fn aggregate_with<A: Aggregate<P::Item>>(
        self,
        aggregate: A,
    ) -> Stream<impl Pipeline<Item = (P::Item, A::Out)>> {
        let OverStream { ordered, over, op } = self;
        ordered.behind(op, Results::ROWS, move |key| {
            maker(key, over, aggregate, op)
        })
    }
}

/// Its operator, for behind an order.
pub(crate) fn maker<T: Clone + Send + 'static, K: KeyOf<T>, A: Aggregate<T>>(
    key: K,
    over: Over,
    aggregate: A,
    op: OpId,
) -> impl MakeOperator<T, Op: Operator<T, Out = (T, A::Out)>> {
    let mut frame = value::<Frame<A::Acc>>("frame");
    if let Bound::Range(span) = over.0 {
        // A record at the span's very end is still in it.
        frame = frame.ttl(Ttl::event_time(Span::from_micros(
            span.micros().saturating_add(1),
        )));
    }
    function(
        (key, frame),
        op,
        true,
        NoTimer,
        move |record: &T, frame, cx| {
            let at = cx.at();
            let mut own = aggregate.create();
            aggregate.add(&mut own, record, at);
            let frame = frame.or_insert_with(|| Frame::new(&aggregate));
            match over.0 {
                Bound::Rows(n) => {
                    // More than one where an earlier version of the job had more.
                    while frame.len() >= n as usize {
                        frame.evict(&aggregate);
                    }
                }
                Bound::Range(span) => {
                    while frame.oldest().is_some_and(|time| time + span < at.time) {
                        frame.evict(&aggregate);
                    }
                }
            }
            frame.push(at.time, own, &aggregate);
            let result = aggregate.finish(&frame.total(&aggregate));
            cx.emit((record.clone(), result));
        },
    )
}
