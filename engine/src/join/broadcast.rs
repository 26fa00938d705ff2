//! The broadcast join as it is written: see [`crate::operators::broadcast_join`] for its laws.

use crate::edge::Wiring;
use crate::key::{Computed, Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::broadcast_join::MakeBroadcastJoin;
use crate::ops::Mapped;
use crate::pipeline::{Inlet, OperatorRoot, Pipeline};
use crate::plan::{Class, Results};
use crate::push::OpId;
use crate::sides::{Sides, SidesKey};
use crate::state::State;
use crate::stream::{Stream, close, refuse_two_jobs};
use crate::terminal::{ToBroadcast, ToLocal};
use std::marker::PhantomData;
use std::panic::Location;

impl<P: Pipeline> Stream<P> {
    /// Joins each record with the row that a small table has for its key: the last record of `table` with that key. Every shard has the table
    /// whole, so the stream need not go to another shard; the table is updated while the job runs. (Flink's broadcast state; the
    /// global table of Kafka Streams.)
    ///
    /// A `None` key meets another, unlike SQL's null: see [`mod@crate::join`].
    ///
    /// Class EXEMPT: a record meets the table as it is when it comes, and nothing waits for the table to be there. Where the answer is to depend on
    /// event time alone, use [`KeyedStream::as_of_join`]. The table's own event times do not count, and it holds no watermark back. State: a row for
    /// each key of the table on every shard, until [`BroadcastJoin::removes`] says that it goes, in checkpoints as well; no warning tells of
    /// a table that only grows. No record is too late. O(1) a record, and a copy for each shard of a record of the table.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let (feed, flights) = testing::feed(1);
    /// let job = Job::new("names");
    /// let carriers = job.source(sources::items([("UA".to_string(), "United"), ("AA".into(), "American")]));
    /// # let carriers = carriers.map(|c| (c.0, c.1.to_string()));
    /// job.source(flights)
    ///     .broadcast_join(carriers.key_by_ref(|c| &c.0), |flight: &(String, u32)| flight.0.clone())
    ///     .left_outer(|flight, carrier| (flight.1, carrier.map(|c| c.1.clone())))
    ///     .sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 2).unwrap();
    /// stepper.until_idle().unwrap();
    /// feed.push(0, ("UA".to_string(), 1545));
    /// feed.push(0, ("B6".to_string(), 725));
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take(), [(1545, Some("United".to_string())), (725, None)]);
    /// ```
    #[track_caller]
    pub fn broadcast_join<Q, B, F>(
        self,
        table: KeyedStream<Q, B>,
        key_of: F,
    ) -> BroadcastJoin<P, Q::Item, SidesKey<Computed<F>, B>>
    where
        Q: Pipeline<Item: Clone + State>,
        B: KeyOf<Q::Item>,
        F: Fn(&P::Item) -> B::Key + Clone + Send + 'static,
    {
        let results = self.meta.results.and(Results::last(Class::Exempt));
        let mut plan = self.plan.lock();
        let op = plan.op("broadcast_join", results, Location::caller());
        // The stream's records are not kept.
        plan.joins(op, 0, size_of::<Q::Item>());
        drop(plan);
        BroadcastJoin {
            key: SidesKey::of(Computed(key_of), table.key.clone()),
            stream: self,
            // By its key, so that all shards see those of one in one order.
            table: table.exchange(),
            removes: never,
            op,
        }
    }
}

fn never<R>(_: &R) -> bool {
    false
}

/// A broadcast join being written: which of its rows are wanted ends it. What it keeps and how long, what becomes of late records, its class and
/// an example are at [`Stream::broadcast_join`].
#[must_use = "a join does nothing until its rows are asked for"]
#[allow(missing_debug_implementations)]
pub struct BroadcastJoin<P: Pipeline, R: Send + 'static, K, D = fn(&R) -> bool> {
    stream: Stream<P>,
    table: Stream<Inlet<R>>,
    key: K,
    removes: D,
    op: OpId,
}

impl<P, R, K, D> BroadcastJoin<P, R, K, D>
where
    P: Pipeline,
    R: Clone + State,
    K: KeyOf<Sides<P::Item, R>, Key: Key>,
    D: Fn(&R) -> bool + Clone + Send + 'static,
{
    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// A record of the table for which `removes` holds takes its key's row out of it, and is no row itself.
    pub fn removes<E>(self, removes: E) -> BroadcastJoin<P, R, K, E>
    where
        E: Fn(&R) -> bool + Clone + Send + 'static,
    {
        BroadcastJoin {
            stream: self.stream,
            table: self.table,
            key: self.key,
            removes,
            op: self.op,
        }
    }

    /// A row for each record whose key the table has. See [`Stream::broadcast_join`].
    pub fn inner<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&P::Item, &R) -> O + Clone + Send + 'static,
    {
        self.rows(move |left, right: Option<&R>| right.map(|right| f(left, right)))
    }

    /// A row for each record, with the table's if there is one. See [`Stream::broadcast_join`].
    pub fn left_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&P::Item, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows(move |left, right| Some(f(left, right)))
    }

    fn rows<O, F>(self, row: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&P::Item, Option<&R>) -> Option<O> + Clone + Send + 'static,
    {
        let BroadcastJoin {
            stream,
            table,
            key,
            removes,
            op,
        } = self;
        let (plan, before, mut ops, mut meta) = stream.into_parts();
        let (of_table, inlet, mut table_ops, _) = table.into_parts();
        let mut edges = vec![];
        if plan.is(&of_table) {
            let mut p = plan.lock();
            edges.push(p.edge::<Sides<P::Item, R>>(Wiring::Local));
            edges.push(p.edge::<Sides<P::Item, R>>(Wiring::AllToAll));
            drop(p);
            ops.push(op);
            table_ops.push(op);
            let left = Mapped {
                before,
                f: Sides::Left::<P::Item, R>,
                op,
                out: PhantomData,
            };
            let right = ToBroadcast {
                edge: edges[1],
                wrap: Sides::<P::Item, R>::Right,
                travels: PhantomData,
                op,
                quiet: true,
            };
            close(&plan, left, ops, ToLocal { edge: edges[0] });
            close(&plan, inlet, table_ops, right);
        } else {
            refuse_two_jobs(&plan, &of_table, op);
        }
        meta.exchanged = true;
        meta.through(Results::last(Class::Exempt), op);
        plan.lock().set_results(op, meta.results);
        let root = OperatorRoot {
            make: MakeBroadcastJoin {
                key,
                removes,
                row,
                op,
                types: PhantomData,
            },
            edges,
            input: PhantomData,
        };
        Stream {
            plan,
            pipeline: Some(root),
            ops: vec![op],
            meta,
        }
    }
}
