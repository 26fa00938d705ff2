//! `.in_event_time_order()`: records replayed in one order, whatever came first.

use crate::aggregate::{Aggregate, Aggs};
use crate::key::{Computed, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::global::Global;
use crate::operators::late::LateTo;
use crate::operators::order::{MakeInOrder, OrderRoot};
use crate::operators::running::{Fold, Reduce, Running, SoFar};
use crate::pipeline::{MakeForward, MakeOperator, Pipeline};
use crate::plan::Results;
use crate::push::OpId;
use crate::running::{Keyed, maker, note};
use crate::sink::Sink;
use crate::stage::operator::Operator;
use crate::state::State;
use crate::stream::Stream;
use crate::time::Span;
use crate::window::{WindowAssigner, Windowed, check_not_negative};
use std::panic::Location;

/// The key of all records of a stream that is ordered as a whole.
type Whole<T> = Computed<fn(&T)>;

impl<P: Pipeline> Stream<P> {
    /// Replays the whole stream in the order of (event time, source, partition, offset). One order means one shard: all
    /// records go to it. Where an order within each key is enough, `key_by(..)` first and all shards take part:
    /// see [`KeyedStream::in_event_time_order`].
    ///
    /// No operator behind a further exchange counts on that order, so what is to be computed in order follows directly:
    /// `.in_event_time_order().fold(..)`. State, cleaning, late records, class and cost are those of the form by key.
    #[track_caller]
    pub fn in_event_time_order(self) -> OrderedStream<P, Whole<P::Item>>
    where
        P::Item: State,
    {
        let location = Location::caller();
        let key_op = self.plan.lock().op("gather", self.meta.results, location);
        let keyed = KeyedStream {
            stream: self,
            key: Computed((|_| ()) as fn(&P::Item)),
            key_op,
            beside: vec![],
        };
        OrderedStream::new(keyed, location)
    }
}

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// Holds records until the watermark has passed them and takes them up in the order of (event time, source,
    /// partition, offset, emission), so that the values of the operator that follows depend on no interleaving: class ROWS.
    /// The order is made behind the exchange by key, in the operator's own stage. Records that wait are kept in checkpoints, so
    /// they are [`State`].
    ///
    /// State: each record until the watermark has passed its time and the allowed lateness. Late is a record with t + allowed lateness < V(r): counted, sent to
    /// [`OrderedStream::late_to`] where it is set, and seen by nothing behind. O(log of what waits) a record.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("in order");
    /// job.source(pelton::sources::items([(7, 3), (7, 1), (7, 2)]))
    ///    .event_time(|r| EventTime::from_seconds(r.1), Watermarks::bounded(5.seconds()))
    ///    .key_by(|r| r.0)
    ///    .in_event_time_order()
    ///    .fold(String::new(), |path, r| path.push_str(&r.1.to_string()))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let paths: Vec<_> = results.take().into_iter().map(|k| k.value).collect();
    /// assert_eq!(paths, ["1", "12", "123"]);
    /// ```
    #[track_caller]
    pub fn in_event_time_order(self) -> OrderedStream<P, K>
    where
        P::Item: State,
    {
        OrderedStream::new(self, Location::caller())
    }
}

/// A stream whose records will be taken up in the order of event time, by key; see [`KeyedStream::in_event_time_order`].
///
/// A record r is late iff t + allowed lateness < V(r): counted, and sent to the late output where one is set.
#[must_use = "an ordered stream does nothing until an operator follows"]
#[allow(missing_debug_implementations)]
pub struct OrderedStream<P: Pipeline, K> {
    keyed: KeyedStream<P, K>,
    lateness: Span,
    late: Option<LateTo<P::Item>>,
    rank: Option<fn(&P::Item) -> u8>,
    op: OpId,
}

impl<P: Pipeline<Item: State>, K: KeyOf<P::Item>> OrderedStream<P, K> {
    fn new(keyed: KeyedStream<P, K>, location: &'static Location<'static>) -> Self {
        let op = keyed.note("in_event_time_order", location, true);
        OrderedStream {
            keyed,
            lateness: Span::ZERO,
            late: None,
            rank: None,
            op,
        }
    }

    /// What has one time comes in the order of this, before origins count.
    pub(crate) fn ranked(mut self, rank: fn(&P::Item) -> u8) -> Self {
        self.rank = Some(rank);
        self
    }

    /// Waits so much longer than the watermark says. All results come later by it, and with them the watermark behind.
    pub fn allowed_lateness(mut self, allowed: Span) -> Self {
        let mut plan = self.keyed.stream.plan.lock();
        if let Err(e) = check_not_negative(plan.info(self.op), "allowed lateness", allowed) {
            plan.errors.push(e);
        }
        plan.info_mut(self.op).detail = format!("allowed lateness {allowed}");
        drop(plan);
        self.lateness = allowed;
        self
    }

    /// Where late records go. They are counted in any case.
    #[track_caller]
    pub fn late_to<S: Sink<P::Item>>(mut self, sink: S) -> Self {
        let mut plan = self.keyed.stream.plan.lock();
        let op = plan.op("late output", Results::ROWS, Location::caller());
        plan.info_mut(op).detail = sink.name();
        self.late = Some(LateTo::sink(&mut plan, sink, op));
        drop(plan);
        self
    }

    /// Names the ordering: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.keyed.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// The records themselves, in order within each key on the shard of the key, up to the next exchange. State and late records as of
    /// [`KeyedStream::in_event_time_order`]; class ROWS.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("in order");
    /// job.source(sources::items([(3, 'c'), (1, 'a'), (2, 'b')]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .records()
    ///    .map(|r| r.1)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ['a', 'b', 'c']);
    /// ```
    pub fn records(self) -> Stream<impl Pipeline<Item = P::Item>> {
        let op = self.op;
        let forward = |_| MakeForward::default();
        self.behind(op, Results::ROWS, forward)
    }

    /// As [`KeyedStream::reduce`], in event-time order: every value is fixed (class ROWS), and `f` need not be commutative. Late records are dropped before
    /// it, as of [`OrderedStream`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("last one");
    /// job.source(sources::items([(1, 5), (3, 7), (2, 6)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .reduce(|last, r| *last = *r)
    ///    .map(|k| k.value.1)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [5, 6, 7]);
    /// ```
    #[track_caller]
    pub fn reduce<F>(self, f: F) -> Stream<impl Pipeline<Item = Keyed<K::Key, P::Item>>>
    where
        P::Item: Clone + State,
        F: Fn(&mut P::Item, &P::Item) + Clone + Send + 'static,
    {
        self.runs("reduce", Location::caller(), Reduce(f))
    }

    /// As [`KeyedStream::fold`], in event-time order: every value is fixed (class ROWS), and `f` need not be commutative. Late records are dropped before
    /// it, as of [`OrderedStream`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("changes of a price");
    /// job.source(sources::items([(1, 5), (3, 4), (2, 9)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .fold((0, 0), |(price, change), r| (*price, *change) = (r.1, r.1 - *price))
    ///    .map(|k| k.value)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [(5, 5), (9, 4), (4, -5)]);
    /// ```
    #[track_caller]
    pub fn fold<S, F>(self, init: S, f: F) -> Stream<impl Pipeline<Item = Keyed<K::Key, S>>>
    where
        S: Clone + State,
        F: Fn(&mut S, &P::Item) + Clone + Send + 'static,
    {
        self.runs("fold", Location::caller(), Fold(init, f))
    }

    /// As [`KeyedStream::running`], in event-time order: every value is fixed (class ROWS). Late records are dropped before it, as of
    /// [`OrderedStream`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("highest so far");
    /// job.source(sources::items([(1, 5), (3, 7), (2, 6)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .running(|a| a.max(|r| r.1))
    ///    .map(|k| k.value)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [5, 6, 7]);
    /// ```
    #[track_caller]
    pub fn running<A: Aggregate<P::Item>>(
        self,
        make: impl FnOnce(&Aggs<P::Item>) -> A,
    ) -> Stream<impl Pipeline<Item = Keyed<K::Key, A::Out>>> {
        let aggregate = make(&Aggs::new());
        self.runs("running", Location::caller(), SoFar(aggregate))
    }

    /// Cuts the records of each key into windows by count, in event-time order. [`Global::count`] is of class ROWS here; what it keeps and how long is said at
    /// [`Global`]. Late records are dropped before it, as of [`OrderedStream`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("pairs in order");
    /// job.source(sources::items([(1, 5u32), (4, 1), (3, 7), (2, 6)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .window(pelton::Global::count(2))
    ///    .aggregate(|a| a.sum(|r| r.1))
    ///    .map(|w| w.value)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [11, 8]);
    /// ```
    #[track_caller]
    pub fn window(self, window: Global) -> OrderedWindows<P, K> {
        let op = crate::window::note(&self.keyed, &window, Location::caller());
        OrderedWindows {
            ordered: self,
            window,
            op,
        }
    }

    fn runs<R: Running<P::Item>>(
        self,
        kind: &'static str,
        location: &'static Location<'static>,
        running: R,
    ) -> Stream<impl Pipeline<Item = Keyed<K::Key, R::Value>>> {
        let op = note(&self.keyed, kind, location);
        self.behind(op, Results::ROWS, move |key| maker(key, running, op))
    }

    /// The stream whose order it is.
    pub(crate) fn keyed(&self) -> &KeyedStream<P, K> {
        &self.keyed
    }

    /// The same behind a link that lets records by which the operator behind the order does not need. Those that are behind their watermark
    /// it leaves: they may be late.
    pub(crate) fn sifted<Q>(self, link: impl FnOnce(P) -> Q) -> OrderedStream<Q, K>
    where
        Q: Pipeline<Item = P::Item>,
        K: KeyOf<Q::Item>,
    {
        let OrderedStream {
            keyed,
            lateness,
            late,
            rank,
            op,
        } = self;
        OrderedStream {
            keyed: keyed.behind_link(link),
            lateness,
            late,
            rank,
            op,
        }
    }

    /// Puts an operator behind the order, in one stage with it.
    pub(crate) fn behind<M>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<OrderRoot<P::Item, K, M>>
    where
        M: MakeOperator<P::Item, Op: Operator<P::Item, Out: Send>>,
    {
        let order = self.op;
        let (lateness, late, rank) = (self.lateness, self.late, self.rank);
        let mut stream = self.keyed.operator(op, results, |key| MakeInOrder {
            key: key.clone(),
            inner: make(key),
            op: order,
            lateness,
            late,
            rank,
        });
        if op != order {
            stream.ops.insert(0, order);
        }
        stream
    }
}

/// An ordered stream cut into windows by count; an aggregate must follow.
#[must_use = "windows do nothing until an aggregate follows"]
#[allow(missing_debug_implementations)]
pub struct OrderedWindows<P: Pipeline, K> {
    ordered: OrderedStream<P, K>,
    window: Global,
    op: OpId,
}

impl<P: Pipeline<Item: State>, K: KeyOf<P::Item>> OrderedWindows<P, K> {
    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        let plan = &self.ordered.keyed.stream.plan;
        plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// Aggregates each window's records: `aggregate(|a| (a.count(), a.sum(|o| o.total)))`. An example is at [`OrderedStream::window`].
    pub fn aggregate<A: Aggregate<P::Item>>(
        self,
        make: impl FnOnce(&Aggs<P::Item>) -> A,
    ) -> Stream<impl Pipeline<Item = Windowed<K::Key, A::Out>>> {
        self.aggregate_with(make(&Aggs::new()))
    }

    /// Aggregates with an aggregate of your own: as [`OrderedWindows::aggregate`].
    pub fn aggregate_with<A: Aggregate<P::Item>>(
        self,
        aggregate: A,
    ) -> Stream<impl Pipeline<Item = Windowed<K::Key, A::Out>>> {
        let OrderedWindows {
            ordered,
            window,
            op,
        } = self;
        let results = Results::last(window.class_in_order());
        ordered.behind(op, results, move |key| {
            window.make(key, aggregate, None, op)
        })
    }
}
