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
    /// Gives every record to each of `N` streams. A stage boundary: what lies before is computed once.
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

    /// Gives each record to the stream that `choose` names, 0 to `N` - 1; another number panics and names this operator.
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

    /// Joins streams of one type into one. Its watermark is the least of theirs. Streams of two jobs are refused.
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

    /// Spreads the records evenly over all shards.
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
    /// place records themselves. Records of one number stay in the order of their producer. Stateless, class of its input.
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
