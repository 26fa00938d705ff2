//! The interval join: records of a key meet whose times lie within bounds of one another.

use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::operators::interval_join::{MakeIntervalJoin, Rule};
use crate::operators::late::LateTo;
use crate::pipeline::Pipeline;
use crate::plan::Results;
use crate::push::OpId;
use crate::sides::{Sides, SidesKey};
use crate::sink::Sink;
use crate::state::State;
use crate::stream::Stream;
use crate::time::Span;
use crate::window::check_not_negative;
use std::marker::PhantomData;
use std::panic::Location;

/// How far a record of the second stream may lie from one of the first, in event time: see [`KeyedStream::interval_join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    lower: Span,
    upper: Span,
}

impl Between {
    /// From `lower` to `upper` after the first stream's record, both inclusive; before it where they are negative.
    pub fn of(lower: Span, upper: Span) -> Self {
        Between { lower, upper }
    }
}

impl<P: Pipeline, A: KeyOf<P::Item>> KeyedStream<P, A> {
    /// Joins two streams by key and time: l of this stream and r of the other meet iff they have one key and
    /// l.t + lower <= r.t <= l.t + upper. Bounds may be negative, and are inclusive unless [`IntervalJoin::lower_exclusive`] or
    /// [`IntervalJoin::upper_exclusive`] says otherwise. As Flink's interval join, with outer rows as well.
    ///
    /// A pair is emitted once, when the second of both comes, and has the greater time of both. In an outer join a record that meets
    /// none is emitted when it is kept no longer, with its own time. Results are never behind the watermark that is passed on, which
    /// trails the input's by the allowed lateness; of an outer join by the outer side's bound as well, if that is positive.
    ///
    /// A `None` key meets another, unlike SQL's null: see [`mod@crate::join`].
    ///
    /// Class: ROWS. State: the records of both streams, each with 16 bytes besides and in checkpoints too, so they are [`State`]. A record of the first
    /// goes once the watermark is above its time + upper + allowed lateness, one of the second above time - lower + allowed
    /// lateness; memory is freed by the thousand records, and has room for at most three times the records that are kept, and 8,192 of each
    /// stream and shard, whatever their times. A key goes with its last record. Late is a record whose time + allowed
    /// lateness lies below its partition's watermark: counted, sent to [`IntervalJoin::late_left_to`] or
    /// [`IntervalJoin::late_right_to`] where these are set, and not joined.
    ///
    /// Cost: a probe a record, and a step for each record of its key and of the other stream from the newest down to the last that it
    /// meets, and of its own stream for each that is later than itself. So where one stream runs far ahead of the other in event time, each record of the other passes over all that its
    /// key has ahead.
    ///
    /// ```
    /// use pelton::join::Between;
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("paid in time");
    /// let at = |e: &(u64, i64)| EventTime::from_seconds(e.1);
    /// let orders = job.source(sources::items([(7u64, 10), (8, 11), (7, 500)]));
    /// let payments = job.source(sources::items([(7u64, 12), (8, 200), (7, 40)]));
    /// let orders = orders.event_time(at, Watermarks::monotonous()).key_by(|e| e.0);
    /// let payments = payments
    ///     .event_time(at, Watermarks::bounded(5.minutes()))
    ///     .key_by(|e| e.0);
    /// orders
    ///     .interval_join(payments, Between::of(0.seconds(), 1.minutes()))
    ///     .left_outer(|order, payment| (order.0, order.1, payment.map(|p| p.1)))
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let mut rows = results.take();
    /// rows.sort();
    /// let expected = [(7, 10, Some(12)), (7, 10, Some(40)), (7, 500, None), (8, 11, None)];
    /// assert_eq!(rows, expected);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)]
    pub fn interval_join<Q, B>(
        self,
        other: KeyedStream<Q, B>,
        between: Between,
    ) -> IntervalJoin<impl Pipeline<Item = Sides<P::Item, Q::Item>>, SidesKey<A, B>, P::Item, Q::Item>
    where
        P::Item: State,
        Q: Pipeline<Item: State>,
        B: KeyOf<Q::Item, Key = A::Key>,
    {
        let connected = self.connect(other);
        let op = connected.note("interval_join", Location::caller(), true);
        let mut plan = connected.stream.plan.lock();
        plan.joins(op, size_of::<P::Item>(), size_of::<Q::Item>());
        drop(plan);
        IntervalJoin {
            connected,
            op,
            between,
            exclusive: [false; 2],
            lateness: Span::ZERO,
            late_left: None,
            late_right: None,
        }
    }
}

/// An interval join being written: which of its rows are wanted ends it. What it keeps and how long, what becomes of late records, its class and
/// an example are at [`KeyedStream::interval_join`].
#[must_use = "a join does nothing until its rows are asked for"]
#[allow(missing_debug_implementations)]
pub struct IntervalJoin<P: Pipeline, K, L, R> {
    connected: KeyedStream<P, K>,
    op: OpId,
    between: Between,
    /// The lower bound, the upper one.
    exclusive: [bool; 2],
    lateness: Span,
    late_left: Option<LateTo<L>>,
    late_right: Option<LateTo<R>>,
}

impl<P, K, L, R> IntervalJoin<P, K, L, R>
where
    P: Pipeline<Item = Sides<L, R>>,
    K: KeyOf<Sides<L, R>>,
    L: State,
    R: State,
{
    /// What lies at the lower bound itself does not meet.
    pub fn lower_exclusive(mut self) -> Self {
        self.exclusive[0] = true;
        self
    }

    /// What lies at the upper bound itself does not meet.
    pub fn upper_exclusive(mut self) -> Self {
        self.exclusive[1] = true;
        self
    }

    /// Takes records of both streams that are so far behind their watermark. All that is kept is kept so much longer, and the watermark
    /// behind the join trails by so much more.
    pub fn allowed_lateness(mut self, allowed: Span) -> Self {
        self.lateness = allowed;
        self
    }

    /// Where late records of the first stream go. They are counted in any case.
    #[track_caller]
    pub fn late_left_to<S: Sink<L>>(mut self, sink: S) -> Self {
        self.late_left = Some(self.late_to(sink, Location::caller()));
        self
    }

    /// Where late records of the second stream go. They are counted in any case.
    #[track_caller]
    pub fn late_right_to<S: Sink<R>>(mut self, sink: S) -> Self {
        self.late_right = Some(self.late_to(sink, Location::caller()));
        self
    }

    fn late_to<T: Send + 'static, S: Sink<T>>(
        &self,
        sink: S,
        location: &'static Location<'static>,
    ) -> LateTo<T> {
        let mut plan = self.connected.stream.plan.lock();
        let op = plan.op("late output", Results::ROWS, location);
        plan.info_mut(op).detail = sink.name();
        LateTo::sink(&mut plan, sink, op)
    }

    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.connected.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// A row for each pair. See [`KeyedStream::interval_join`].
    pub fn inner<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&L, &R) -> O + Clone + Send + 'static,
    {
        self.rows([false, false], move |left, right| match (left, right) {
            (Some(left), Some(right)) => f(left, right),
            _ => unreachable!("a row of an inner join is a pair"),
        })
    }

    /// A row for each pair, and one for each record of the first stream that meets none. See [`KeyedStream::interval_join`].
    pub fn left_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&L, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows([true, false], move |left, right| match left {
            Some(left) => f(left, right),
            None => unreachable!("each row of a left join has a left side"),
        })
    }

    /// A row for each pair, and one for each record of the second stream that meets none. See [`KeyedStream::interval_join`].
    pub fn right_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(Option<&L>, &R) -> O + Clone + Send + 'static,
    {
        self.rows([false, true], move |left, right| match right {
            Some(right) => f(left, right),
            None => unreachable!("each row of a right join has a right side"),
        })
    }

    /// A row for each pair, and one for each record of either stream that meets none: one of both is always there. See [`KeyedStream::interval_join`].
    pub fn full_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows([true, true], f)
    }

    fn rows<O, F>(self, outer: [bool; 2], f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    {
        let rule = self.check(outer);
        let IntervalJoin {
            connected,
            op,
            late_left,
            late_right,
            ..
        } = self;
        connected.operator(op, Results::ROWS, move |key| MakeIntervalJoin {
            key,
            f,
            rule,
            late_left,
            late_right,
            op,
            row: PhantomData,
        })
    }

    /// Refuses what makes no sense, and says what is joined.
    fn check(&self, outer: [bool; 2]) -> Rule {
        let Between { lower, upper } = self.between;
        let mut plan = self.connected.stream.plan.lock();
        let least = lower.micros().saturating_add(self.exclusive[0].into());
        let greatest = upper.micros().saturating_sub(self.exclusive[1].into());
        let brackets = (["[", "("], ["]", ")"]);
        let interval = format!(
            "{}{lower}, {upper}{}",
            brackets.0[usize::from(self.exclusive[0])],
            brackets.1[usize::from(self.exclusive[1])],
        );
        let info = plan.info(self.op);
        let in_range =
            |span: Span| (-Span::MAX.micros()..=Span::MAX.micros()).contains(&span.micros());
        let mut errors = vec![];
        if !in_range(lower) || !in_range(upper) {
            errors.push(BuildError::argument(
                info,
                format!("the bounds of the interval are {interval}"),
                "give bounds of -2^60 to 2^60 us",
            ));
        } else if least > greatest {
            errors.push(BuildError::argument(
                info,
                format!("nothing lies in the interval {interval}"),
                "give a lower bound below the upper one: bounds are what is added to the first stream's time",
            ));
        }
        errors.extend(check_not_negative(info, "allowed lateness", self.lateness).err());
        plan.errors.extend(errors);
        let lateness = match self.lateness {
            Span::ZERO => String::new(),
            lateness => format!(", allowed lateness {lateness}"),
        };
        let kind = match outer {
            [false, false] => "inner",
            [true, false] => "left outer",
            [false, true] => "right outer",
            [true, true] => "full outer",
        };
        plan.info_mut(self.op).detail = format!("{kind}, {interval}{lateness}");
        Rule {
            lower: least,
            upper: greatest,
            lateness: self.lateness,
            outer,
        }
    }
}
