//! Where records go next without a keyed operator: forks, splits, unions, and exchanges of every kind. Each closes a stage.

use crate::edge::Wiring;
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::pipeline::{Inlet, Pipeline};
use crate::plan::{Class, EdgeId, Results, SharedPlan};
use crate::push::OpId;
use crate::stream::{Meta, Stream, close, inlet, refuse_two_jobs};
use crate::terminal::{ToAll, ToBroadcast, ToFork, ToKey, ToLocal, ToPartition, ToSplit};
use std::marker::PhantomData;
use std::panic::Location;

impl<P: Pipeline> Stream<P> {
    /// Gives every record to each of `N` streams. A stage boundary: what lies before is computed once. A branch that is full holds back all of them.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. A clone a record and
    /// branch but the last.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (tens, ten_sink) = testing::collect();
    /// let (all, sink) = testing::collect();
    /// let job = Job::new("twice");
    /// let [one, two] = job.source(sources::items([1, 2])).fork();
    /// one.map(|n| 10 * n).sink(ten_sink);
    /// two.sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!((tens.take(), all.take()), (vec![10, 20], vec![1, 2]));
    /// ```
    #[track_caller]
    pub fn fork<const N: usize>(self) -> [Stream<Inlet<P::Item>>; N]
    where
        P::Item: Clone,
    {
        let location = Location::caller();
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let op = plan.lock().op("fork", meta.results, location);
        ops.push(op);
        let edges: [EdgeId; N] =
            std::array::from_fn(|_| plan.lock().edge::<P::Item>(Wiring::Local));
        close(
            &plan,
            pipeline,
            ops,
            ToFork {
                edges: edges.to_vec(),
                op,
            },
        );
        edges.map(|edge| inlet(&plan, vec![edge], op, meta.clone()))
    }

    /// Gives each record to the stream that `choose` names, 0 to `N` - 1; another number panics and names this operator. Watermarks go to all of them, and
    /// a branch that is full holds back all. For streams of different types there is [`Stream::side_output`].
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (small, small_sink) = testing::collect();
    /// let (large, large_sink) = testing::collect();
    /// let job = Job::new("by size");
    /// let [few, many] = job.source(sources::items([3, 30, 4])).split(|n| usize::from(*n >= 10));
    /// few.sink(small_sink);
    /// many.sink(large_sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!((small.take(), large.take()), (vec![3, 4], vec![30]));
    /// ```
    #[track_caller]
    pub fn split<const N: usize, F>(self, choose: F) -> [Stream<Inlet<P::Item>>; N]
    where
        F: Fn(&P::Item) -> usize + Clone + Send + 'static,
    {
        let location = Location::caller();
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let op = plan.lock().op("split", meta.results, location);
        ops.push(op);
        let edges: [EdgeId; N] =
            std::array::from_fn(|_| plan.lock().edge::<P::Item>(Wiring::Local));
        close(
            &plan,
            pipeline,
            ops,
            ToSplit {
                edges: edges.to_vec(),
                choose,
                op,
            },
        );
        edges.map(|edge| inlet(&plan, vec![edge], op, meta.clone()))
    }

    /// Joins streams of one type into one. Its watermark is the least of theirs, so it waits for the slower one, unless that is idle. Streams of two jobs are
    /// refused, and so are two of which one has event times and the other has none.
    ///
    /// Stateless, so nothing is to be cleaned. The class is the lower of theirs; in which order records of both come is not fixed. Records
    /// keep their time and behind mark; none is too late. O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("two shops");
    /// let (one, two) = (job.source(sources::items([1, 2])), job.source(sources::items([30])));
    /// one.union(two).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// let mut orders = results.take();
    /// orders.sort_unstable();
    /// assert_eq!(orders, [1, 2, 30]);
    /// ```
    #[track_caller]
    pub fn union<Q: Pipeline<Item = P::Item>>(self, other: Stream<Q>) -> Stream<Inlet<P::Item>> {
        self.united("union", other, Location::caller())
    }

    /// Joins streams of one type into one, and takes the records of `other` only when this one has none to give: live events before a replay of
    /// old ones, orders before telemetry. The same is asked of each shard alone, of what has come to it. For more than two, the
    /// most urgent first: `a.union_by_priority(b).union_by_priority(c)`.
    ///
    /// `other` does not starve: after 64 batches (or other frames) of this stream in a row one of `other` is taken. What it has waits in rings, and
    /// its sources stop reading when these are full, so nothing grows.
    ///
    /// As [`Stream::union`] otherwise: its watermark is the least of theirs, so what waits for event time waits for the less urgent stream as
    /// well, unless that is idle; barriers align as ever. Stateless, and the class is that of a union: which comes first is no matter to operators
    /// of class ROWS, and with it alone an answer never changes. Streams of two jobs are refused.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("live first");
    /// let live = job.source(sources::items([100u64, 101]));
    /// let replay = job.source(sources::items([1u64, 2, 3]));
    /// live.union_by_priority(replay).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take().len(), 5);
    /// ```
    #[track_caller]
    pub fn union_by_priority<Q: Pipeline<Item = P::Item>>(
        self,
        other: Stream<Q>,
    ) -> Stream<Inlet<P::Item>> {
        let mut stream = self.united("union_by_priority", other, Location::caller());
        if let Some(root) = &mut stream.pipeline {
            root.make.preferred = 1;
        }
        stream
    }

    fn united<Q: Pipeline<Item = P::Item>>(
        self,
        kind: &'static str,
        other: Stream<Q>,
        location: &'static Location<'static>,
    ) -> Stream<Inlet<P::Item>> {
        let (plan, one, mut ops_one, mut meta) = self.into_parts();
        let (plan_two, two, mut ops_two, meta_two) = other.into_parts();
        if !plan.is(&plan_two) {
            return union_of_jobs(&plan, &plan_two, kind, meta, location);
        }
        let mut p = plan.lock();
        let op = p.op(kind, meta.results.and(meta_two.results), location);
        if meta.timed != meta_two.timed {
            let e = BuildError::NoEventTime {
                op: p.info(op).to_string(),
            };
            p.errors.push(e);
        }
        let edges = [
            p.edge::<P::Item>(Wiring::Local),
            p.edge::<P::Item>(Wiring::Local),
        ];
        drop(p);
        meta.results = meta.results.and(meta_two.results);
        meta.replaces = meta.replaces.or(meta_two.replaces);
        meta.beside(&meta_two);
        ops_one.push(op);
        ops_two.push(op);
        close(&plan, one, ops_one, ToLocal { edge: edges[0] });
        close(&plan, two, ops_two, ToLocal { edge: edges[1] });
        inlet(&plan, edges.to_vec(), op, meta)
    }

    /// Spreads the records evenly over all shards, a batch to one and the next to another: before what is costly, where a source has fewer partitions than
    /// there are shards. What follows sees the records of a partition in no fixed order.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("squares on all shards");
    /// job.source(sources::items(1..=4u64)).rebalance().map(|n| n * n).sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let mut squares = results.take();
    /// squares.sort_unstable();
    /// assert_eq!(squares, [1, 4, 9, 16]);
    /// ```
    #[track_caller]
    pub fn rebalance(self) -> Stream<Inlet<P::Item>> {
        let location = Location::caller();
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let op = plan.lock().op("rebalance", meta.results, location);
        ops.push(op);
        let edge = plan.lock().edge::<P::Item>(Wiring::AllToAll);
        close(&plan, pipeline, ops, ToAll { edge });
        inlet(&plan, vec![edge], op, meta)
    }

    /// Sends each record to the shard that `choose` says: the one with that number, modulo the number of shards. For a placement of one's
    /// own of what keeps no state by key, such as a sink that is to have some records on one writer; operators with state by key
    /// place records themselves. Records of one number stay in the order of their producer. Stateless, class of its input; records keep their time and
    /// behind mark, and none is too late.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("by region");
    /// job.source(sources::items([(1u64, 'a'), (2, 'b'), (1, 'c')])).partition_by(|r| r.0).sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// assert_eq!(results.take().len(), 3);
    /// ```
    #[track_caller]
    pub fn partition_by<F>(self, choose: F) -> Stream<Inlet<P::Item>>
    where
        F: Fn(&P::Item) -> u64 + Clone + Send + 'static,
    {
        let location = Location::caller();
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let op = plan.lock().op("partition_by", meta.results, location);
        ops.push(op);
        let edge = plan.lock().edge::<P::Item>(Wiring::AllToAll);
        close(&plan, pipeline, ops, ToPartition { edge, choose, op });
        inlet(&plan, vec![edge], op, meta)
    }

    /// Gives every record to every shard: what follows sees each as many times as there are shards, so class EXEMPT. For what each shard is to know;
    /// to look records up in a table that all shards have there is [`Stream::broadcast_join`].
    ///
    /// Stateless, so nothing is to be cleaned. Records keep their time and behind mark; none is too late. A clone a record and shard.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("told to all");
    /// job.source(sources::items(["new prices"])).broadcast().sink(sink);
    /// testing::Stepper::new(&job, 3).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["new prices"; 3]);
    /// ```
    #[track_caller]
    pub fn broadcast(self) -> Stream<Inlet<P::Item>>
    where
        P::Item: Clone,
    {
        let location = Location::caller();
        let (plan, pipeline, mut ops, mut meta) = self.into_parts();
        let results = Results {
            class: Class::Exempt,
            ..meta.results
        };
        let op = plan.lock().op("broadcast", results, location);
        meta.through(results, op);
        ops.push(op);
        let edge = plan.lock().edge::<P::Item>(Wiring::AllToAll);
        let end = ToBroadcast {
            edge,
            wrap: |record: P::Item| record,
            travels: PhantomData,
            op,
            quiet: false,
        };
        close(&plan, pipeline, ops, end);
        inlet(&plan, vec![edge], op, meta)
    }

    /// Sends the records to the shard of their key and goes on without a keyed operator: `key_by(..)` for its placement alone.
    /// `beside` are edges by which others come there too.
    pub(crate) fn exchange<F>(
        self,
        key: F,
        op: OpId,
        mut beside: Vec<EdgeId>,
    ) -> Stream<Inlet<P::Item>>
    where
        F: KeyOf<P::Item>,
    {
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        ops.push(op);
        let edge = plan.lock().edge::<P::Item>(Wiring::AllToAll);
        close(&plan, pipeline, ops, ToKey { edge, key, op });
        beside.insert(0, edge);
        inlet(&plan, beside, op, meta)
    }
}

/// Refuses both jobs; the stream is of the first, reads nothing and is never run.
fn union_of_jobs<T: Send + 'static>(
    plan: &SharedPlan,
    other: &SharedPlan,
    kind: &'static str,
    meta: Meta,
    location: &'static Location<'static>,
) -> Stream<Inlet<T>> {
    let op = plan.lock().op(kind, meta.results, location);
    refuse_two_jobs(plan, other, op);
    inlet(plan, vec![], op, meta)
}
