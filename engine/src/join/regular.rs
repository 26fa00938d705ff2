//! The regular join as it is written: see [`crate::operators::regular_join`] for its laws.

use crate::change::Change;
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::{KeyedStream, refuse_updates_of};
use crate::operators::regular_join::{MakeRegularJoin, Rule, Tells};
use crate::pipeline::Pipeline;
use crate::plan::{Class, Results};
use crate::process::Ttl;
use crate::push::OpId;
use crate::sides::{Sides, SidesKey};
use crate::stream::{Meta, Stream};
use crate::time::Span;
use std::marker::PhantomData;
use std::panic::Location;

pub use crate::operators::regular_join::{ChangeRows, PlainRows, SideRows};

use super::Join;

impl<P: Pipeline, A: KeyOf<P::Item>> KeyedStream<P, A> {
    /// Joins two streams by key alone, whenever their records come: each row of one meets all rows of the other that have its key, those that came
    /// long ago as well. What is told are [changes](mod@crate::change) of the joined rows: `+I` for one that stands from now on, `-D` for one that
    /// does no longer. As Flink's regular join.
    ///
    /// Records are rows that stay; or changes of rows, where [`RegularJoin::left_changes`] or [`RegularJoin::right_changes`] says so: then a row that
    /// is taken back takes its joined rows with it. Equal rows count: two are the same if they are encoded to the same bytes, so floats are
    /// told apart by their bits, and a row holds no `HashMap`, whose order is not fixed. In an outer join a row without partners stands alone;
    /// that is taken back when its first partner comes, and told again when its last one is taken back. A retraction of a row that does not
    /// stand is counted ([`Counters::stray_retractions`](crate::push::Counters::stray_retractions)), and nothing else.
    ///
    /// State: every row of both streams, in memory and in checkpoints (an entry a row, equal ones together where the stream is of changes), so
    /// rows are [`State`](crate::State). It would grow for ever: so a time to live is asked for ([`RegularJoin::ttl`]), or that it be allowed
    /// ([`RegularJoin::unbounded`]); without either the job is refused. Where the times of what meets lie near each other, an
    /// [interval join](KeyedStream::interval_join) bounds its state by itself.
    ///
    /// Class: NET. EXEMPT with a time to live by processing time, and also by event time where a stream is of changes: what a retraction finds then
    /// depends on when it comes. Inner and semi joins of streams that take nothing back only insert, so an append-only sink takes them. A change
    /// has the time and the behind mark of the record that made it; no record is too late.
    ///
    /// Cost: a probe a record, and a step for each row that it meets; where a stream is of changes, the row's encoding and a probe besides. A record
    /// of very many partners is taken in pieces.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("orders with customers");
    /// let orders = job.source(sources::items([(7u64, 30), (8, 40), (7, 50)])).key_by(|o| o.0);
    /// let customers = job.source(sources::items([(7u64, "ann".to_string())])).key_by(|c| c.0);
    /// orders
    ///     .regular_join(customers)
    ///     .unbounded()
    ///     .inner(|order, customer| (order.1, customer.1.clone()))
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let mut rows: Vec<_> = results.take().into_iter().map(|c| c.to_string_of()).collect();
    /// rows.sort();
    /// assert_eq!(rows, ["+I 30 ann", "+I 50 ann"]);
    /// # trait Text { fn to_string_of(self) -> String; }
    /// # impl Text for pelton::Change<(i32, String)> {
    /// #     fn to_string_of(self) -> String { self.map(|r| format!("{} {}", r.0, r.1)).to_string() }
    /// # }
    /// ```
    ///
    /// Changes of rows, and a time to live:
    ///
    /// ```
    /// use pelton::process::Ttl;
    /// use pelton::{Change, Job, Spans, change::Kind, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("open orders");
    /// let orders = job.source(sources::items([(7u64, 30), (8, 40)])).key_by(|o| o.0);
    /// let (feed, limits) = testing::feed::<Change<(u64, u32)>>(1);
    /// let limits = job.source(limits).key_by(|c| c.row.0);
    /// orders
    ///     .regular_join(limits)
    ///     .right_changes()
    ///     .ttl(Ttl::processing_time(24.hours()))
    ///     .left_outer(|order, limit| (order.0, order.1, limit.map(|l| l.1)))
    ///     .map(|c| (c.kind, c.row))
    ///     .sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 1).unwrap();
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take(), [(Kind::Insert, (7, 30, None)), (Kind::Insert, (8, 40, None))]);
    /// feed.push(0, Change::new(Kind::Insert, (7, 100)));
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take(), [(Kind::Delete, (7, 30, None)), (Kind::Insert, (7, 30, Some(100)))]);
    /// feed.push(0, Change::new(Kind::Delete, (7, 100)));
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take(), [(Kind::Delete, (7, 30, Some(100))), (Kind::Insert, (7, 30, None))]);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)]
    pub fn regular_join<Q, B>(
        self,
        other: KeyedStream<Q, B>,
    ) -> RegularJoin<
        impl Pipeline<Item = Sides<P::Item, Q::Item>>,
        SidesKey<A, B>,
        P::Item,
        Q::Item,
        PlainRows,
        PlainRows,
    >
    where
        Q: Pipeline,
        B: KeyOf<Q::Item, Key = A::Key>,
    {
        let metas = [self.stream.meta.clone(), other.stream.meta.clone()];
        let connected = self.connect(other);
        let op = connected.note("regular_join", Location::caller(), false);
        RegularJoin {
            connected,
            op,
            metas,
            ttl: None,
            is_unbounded: false,
            types: PhantomData,
        }
    }
}

/// A regular join being written: which of its rows are wanted ends it. What it keeps and how long, what becomes of late records, its class and
/// an example are at [`KeyedStream::regular_join`].
#[must_use = "a join does nothing until its rows are asked for"]
#[allow(missing_debug_implementations)]
pub struct RegularJoin<P: Pipeline, K, L, R, A, B> {
    connected: KeyedStream<P, K>,
    op: OpId,
    /// What is known of both streams.
    metas: [Meta; 2],
    ttl: Option<Ttl>,
    is_unbounded: bool,
    #[allow(clippy::type_complexity)]
    types: PhantomData<fn() -> (L, R, A, B)>,
}

impl<P: Pipeline, K, L, R, A, B> RegularJoin<P, K, L, R, A, B> {
    fn with<A2, B2>(self) -> RegularJoin<P, K, L, R, A2, B2> {
        let RegularJoin {
            connected,
            op,
            metas,
            ttl,
            is_unbounded,
            ..
        } = self;
        RegularJoin {
            connected,
            op,
            metas,
            ttl,
            is_unbounded,
            types: PhantomData,
        }
    }
}

impl<P: Pipeline, K, L, R, B> RegularJoin<P, K, Change<L>, R, PlainRows, B> {
    /// The records of the first stream are changes, which are applied: a row of it may be taken back.
    pub fn left_changes(self) -> RegularJoin<P, K, Change<L>, R, ChangeRows, B> {
        self.with()
    }
}

impl<P: Pipeline, K, L, R, A> RegularJoin<P, K, L, Change<R>, A, PlainRows> {
    /// The records of the second stream are changes, which are applied: a row of it may be taken back.
    pub fn right_changes(self) -> RegularJoin<P, K, L, Change<R>, A, ChangeRows> {
        self.with()
    }
}

impl<P, K, L, R, A, B> RegularJoin<P, K, L, R, A, B>
where
    P: Pipeline<Item = Sides<L, R>>,
    K: KeyOf<Sides<L, R>>,
    L: Send + 'static,
    R: Send + 'static,
    A: SideRows<L>,
    B: SideRows<R>,
{
    /// How long a row is kept after it has come; of changes, after the last one that added it or an equal one, or took one of these back.
    /// Then it goes without a word: joined rows that were told of it stand, what comes later does not meet it, and a partner that it
    /// leaves behind is not told to be alone. Retractions of it are strays.
    ///
    /// By event time a row goes once the watermark is above; of two streams that take nothing back, rows meet iff their times (or the
    /// watermark of their partition, where that was later) lie less than that apart. By processing time within moments of it. Reads do
    /// not put it off.
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Allows the state to grow for ever: where the rows of both streams are few, or are taken back in time.
    pub fn unbounded(mut self) -> Self {
        self.is_unbounded = true;
        self
    }

    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.connected.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// A row for each pair. See [`KeyedStream::regular_join`].
    pub fn inner<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Change<O>>>
    where
        O: Send + 'static,
        F: Fn(&A::Row, &B::Row) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Inner, move |left, right| match (left, right) {
            (Some(left), Some(right)) => f(left, right),
            _ => unreachable!("a row of an inner join is a pair"),
        })
    }

    /// A row for each pair, and one for each row of the first stream while it has no partner. See [`KeyedStream::regular_join`].
    pub fn left_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Change<O>>>
    where
        O: Send + 'static,
        F: Fn(&A::Row, Option<&B::Row>) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Left, move |left, right| match left {
            Some(left) => f(left, right),
            None => unreachable!("each row of a left join has a left side"),
        })
    }

    /// A row for each pair, and one for each row of the second stream while it has no partner. See [`KeyedStream::regular_join`].
    pub fn right_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Change<O>>>
    where
        O: Send + 'static,
        F: Fn(Option<&A::Row>, &B::Row) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Right, move |left, right| match right {
            Some(right) => f(left, right),
            None => unreachable!("each row of a right join has a right side"),
        })
    }

    /// A row for each pair, and one for each row of either stream while it has no partner: one of both is always there. See [`KeyedStream::regular_join`].
    pub fn full_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Change<O>>>
    where
        O: Send + 'static,
        F: Fn(Option<&A::Row>, Option<&B::Row>) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Full, f)
    }

    /// The rows of the first stream while they have a partner in the second, each once (SQL's `EXISTS`). See [`KeyedStream::regular_join`].
    pub fn semi(self) -> Stream<impl Pipeline<Item = Change<A::Row>>>
    where
        A::Row: Clone,
    {
        self.rows(Join::Semi, left_itself)
    }

    /// The rows of the first stream while they have no partner in the second (SQL's `NOT EXISTS`). See [`KeyedStream::regular_join`].
    ///
    /// ```
    /// use pelton::{Change, Job, change::Kind, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("unpaid");
    /// let orders = job.source(sources::items([(7u64, 30), (8, 40)])).key_by(|o| o.0);
    /// let (paid, payments) = testing::feed::<u64>(1);
    /// let payments = job.source(payments).key_by(|p| *p);
    /// orders.regular_join(payments).unbounded().anti().sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 1).unwrap();
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take(), [(7, 30), (8, 40)].map(|order| Change::new(Kind::Insert, order)));
    /// paid.push(0, 7);
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take(), [Change::new(Kind::Delete, (7, 30))]);
    /// ```
    pub fn anti(self) -> Stream<impl Pipeline<Item = Change<A::Row>>>
    where
        A::Row: Clone,
    {
        self.rows(Join::Anti, left_itself)
    }

    fn rows<O, F>(self, join: Join, f: F) -> Stream<impl Pipeline<Item = Change<O>>>
    where
        O: Send + 'static,
        F: Fn(Option<&A::Row>, Option<&B::Row>) -> O + Clone + Send + 'static,
    {
        self.check(join);
        let (ttl, op) = (self.ttl, self.op);
        let takes_back = A::TAKE_BACK || B::TAKE_BACK;
        let class = match ttl {
            Some(ttl) if ttl.by_clock || takes_back => Class::Exempt,
            _ => Class::Net,
        };
        let results = Results {
            class,
            replaced: takes_back || !matches!(join, Join::Inner | Join::Semi),
        };
        let rule = Rule {
            pairs: !matches!(join, Join::Semi | Join::Anti),
            tells: match join {
                Join::Inner => [Tells::Nothing; 2],
                Join::Left | Join::Anti => [Tells::Alone, Tells::Nothing],
                Join::Right => [Tells::Nothing, Tells::Alone],
                Join::Full => [Tells::Alone; 2],
                Join::Semi => [Tells::Met, Tells::Nothing],
            },
            ttl,
        };
        let types = PhantomData::<fn(L, R, A, B) -> O>;
        let decides = ttl.filter(|ttl| ttl.by_clock).map(|_| op);
        let mut stream =
            self.connected
                .operator_on_changes(op, results, move |key| MakeRegularJoin {
                    key,
                    f,
                    rule,
                    op,
                    types,
                });
        stream.meta.by_clock = stream.meta.by_clock.or(decides);
        stream
    }

    /// Refuses what makes no sense, and says what is joined.
    fn check(&self, join: Join) {
        let plan = &self.connected.stream.plan;
        for (meta, takes_back) in self.metas.iter().zip([A::TAKE_BACK, B::TAKE_BACK]) {
            if !takes_back {
                refuse_updates_of(plan, meta, self.op);
            }
        }
        let mut plan = plan.lock();
        let kind = match join {
            Join::Inner => "inner",
            Join::Left => "left outer",
            Join::Right => "right outer",
            Join::Full => "full outer",
            Join::Semi => "semi",
            Join::Anti => "anti",
        };
        let kept = match self.ttl {
            None => "unbounded".to_string(),
            Some(ttl) if ttl.by_clock => format!("{} of processing time", ttl.span),
            Some(ttl) => format!("{} of event time", ttl.span),
        };
        plan.info_mut(self.op).detail = format!("{kind}, {kept}");
        let info = plan.info(self.op);
        let wrong = match self.ttl {
            None if !self.is_unbounded => Some((
                "its state would grow for ever: it keeps every row of both streams until it is taken back, by key, in memory and in checkpoints",
                "give it `.ttl(Ttl::event_time(..))` or `.ttl(Ttl::processing_time(..))`, allow it by `.unbounded()`, or join by time (`interval_join`, `window_join`, `as_of_join`)",
            )),
            Some(_) if self.is_unbounded => Some((
                "it has a time to live and is to be unbounded",
                "give it one of both",
            )),
            Some(ttl) if ttl.span <= Span::ZERO => {
                Some(("its time to live is not above 0", "give it one"))
            }
            Some(ttl) if ttl.on_read => Some((
                "its time to live would be put off by reads: a row of a join is read by each partner that comes",
                "drop `.refreshed_on_read()`: rows live from when they were written last",
            )),
            _ => None,
        };
        let needs_time = self.ttl.is_some_and(|ttl| !ttl.by_clock);
        let untimed = (needs_time && !self.connected.stream.meta.timed).then(|| {
            let op = info.to_string();
            BuildError::NoEventTime { op }
        });
        let wrong = wrong.map(|(what, advice)| BuildError::argument(info, what, advice));
        plan.errors.extend(wrong.into_iter().chain(untimed));
        plan.joins(self.op, size_of::<A::Row>(), size_of::<B::Row>());
        if needs_time {
            plan.waits(&self.connected.stream.meta);
        }
    }
}

fn left_itself<L: Clone, R>(left: Option<&L>, _: Option<&R>) -> L {
    match left {
        Some(left) => left.clone(),
        None => unreachable!("each row has a left side"),
    }
}
