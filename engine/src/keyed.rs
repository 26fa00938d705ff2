//! A keyed stream: what may follow `key_by`.

use crate::edge::Wiring;
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::pipeline::{Inlet, MakeOperator, OperatorRoot, Pipeline};
use crate::plan::{Class, EdgeId, Results, SharedPlan};
use crate::push::OpId;
use crate::stage::operator::Operator;
use crate::stream::{Meta, Stream, close};
use crate::terminal::ToKey;
use crate::window::{WindowAssigner, WindowedStream};
use std::marker::PhantomData;
use std::panic::Location;

/// A stream with a key: records of one key meet on one shard.
#[must_use = "a keyed stream does nothing until an operator follows"]
#[derive(Debug)]
pub struct KeyedStream<P: Pipeline, K> {
    pub(crate) stream: Stream<P>,
    pub(crate) key: K,
    pub(crate) key_op: OpId,
    /// Edges by which records of another stream come to what follows ([`KeyedStream::connect`]), by the same key.
    pub(crate) beside: Vec<EdgeId>,
}

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    pub(crate) fn new(stream: Stream<P>, key: K, location: &'static Location<'static>) -> Self {
        let key_op = stream
            .plan
            .lock()
            .op("key_by", stream.meta.results, location);
        KeyedStream {
            stream,
            key,
            key_op,
            beside: vec![],
        }
    }

    /// Cuts the stream into windows: [`Tumbling`](crate::Tumbling), [`Sliding`](crate::Sliding), [`Cumulate`](crate::Cumulate),
    /// [`Session`](crate::Session), [`Global`](crate::Global) or [`ProcessingTime`](crate::ProcessingTime). Each says its class, what it keeps and how long,
    /// and has an example; late records go to [`WindowedStream::late_to`].
    #[track_caller]
    pub fn window<W: WindowAssigner<P::Item>>(self, window: W) -> WindowedStream<P, K, W> {
        WindowedStream::new(self, window, Location::caller())
    }

    /// The same with a link at its end that gives the same records, or fewer. It is no operator of its own in the plan.
    pub(crate) fn behind_link<Q>(self, link: impl FnOnce(P) -> Q) -> KeyedStream<Q, K>
    where
        Q: Pipeline<Item = P::Item>,
    {
        let (plan, pipeline, ops, meta) = self.stream.into_parts();
        KeyedStream {
            stream: Stream {
                plan,
                pipeline: Some(link(pipeline)),
                ops,
                meta,
            },
            key: self.key,
            key_op: self.key_op,
            beside: self.beside,
        }
    }

    /// Goes on without keyed state: the records of one key stay together on one shard, in the order of their partition.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("a key a shard");
    /// job.source(sources::items([(1u64, 'a'), (2, 'b'), (1, 'c')])).key_by(|r| r.0).exchange().sink(sink);
    /// testing::Stepper::new(&job, 3).unwrap().run().unwrap();
    /// let of_one: Vec<char> = results.take().into_iter().filter(|r| r.0 == 1).map(|r| r.1).collect();
    /// assert_eq!(of_one, ['a', 'c']);
    /// ```
    pub fn exchange(self) -> Stream<Inlet<P::Item>> {
        self.stream.exchange(self.key, self.key_op, self.beside)
    }

    /// Closes the stage before with an exchange by key and opens the stage of a keyed operator, which takes each record for one of its own.
    pub(crate) fn operator<M: MakeOperator<P::Item>>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<OperatorRoot<P::Item, M>>
    where
        <M::Op as Operator<P::Item>>::Out: Send,
    {
        refuse_updates(&self.stream, op);
        self.operator_on_changes(op, results, make)
    }

    /// The same for an operator that knows what becomes of results that later ones replace.
    pub(crate) fn operator_on_changes<M: MakeOperator<P::Item>>(
        self,
        op: OpId,
        results: Results,
        make: impl FnOnce(K) -> M,
    ) -> Stream<OperatorRoot<P::Item, M>>
    where
        <M::Op as Operator<P::Item>>::Out: Send,
    {
        let KeyedStream {
            stream,
            key,
            key_op,
            mut beside,
        } = self;
        let (plan, pipeline, mut ops, mut meta): (_, P, Vec<OpId>, Meta) = stream.into_parts();
        ops.push(key_op);
        let edge: EdgeId = plan.lock().edge::<P::Item>(Wiring::AllToAll);
        beside.insert(0, edge);
        close(
            &plan,
            pipeline,
            ops,
            ToKey {
                edge,
                key: key.clone(),
                op: key_op,
            },
        );
        meta.exchanged = true;
        meta.through(results, op);
        plan.lock().set_results(op, meta.results);
        let root = OperatorRoot {
            make: make(key),
            edges: beside,
            input: PhantomData,
        };
        Stream {
            plan,
            pipeline: Some(root),
            ops: vec![op],
            meta,
        }
    }

    /// Notes an operator of this keyed stream, and that it needs event time if it does.
    pub(crate) fn note(
        &self,
        kind: &'static str,
        location: &'static Location<'static>,
        needs_time: bool,
    ) -> OpId {
        let mut plan = self.stream.plan.lock();
        let op = plan.op(kind, self.stream.meta.results, location);
        if needs_time && !self.stream.meta.timed {
            let e = BuildError::NoEventTime {
                op: plan.info(op).to_string(),
            };
            plan.errors.push(e);
        }
        if needs_time {
            plan.waits(&self.stream.meta);
        }
        op
    }
}

/// Refuses an operator that counts records behind results that later ones replace: each update would be one more record, and how
/// many there are depends on the interleaving.
fn refuse_updates<P: Pipeline>(stream: &Stream<P>, op: OpId) {
    refuse_updates_of(&stream.plan, &stream.meta, op);
}

/// The same for what is known of a stream.
pub(crate) fn refuse_updates_of(plan: &SharedPlan, meta: &Meta, op: OpId) {
    // A correction (class ROWS) is one more record of its own, the same in every run.
    let results = meta.results;
    if !results.replaced || results.class == Class::Rows {
        return;
    }
    let mut plan = plan.lock();
    let because = meta.replaces;
    let e = BuildError::CountsUpdates {
        op: plan.info(op).to_string(),
        because: because.map_or_else(String::new, |b| plan.info(b).to_string()),
    };
    plan.errors.push(e);
}
