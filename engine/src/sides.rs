//! `connect`: two keyed streams as one.
//!
//! Laws
//! 1. A record is one side of a [`Sides`] and travels over an edge of its own side into the one inbox of the operator that follows. So
//!    watermarks merge, barriers align, and behind marks and origins travel as they do with one input: there is no second way for
//!    data to flow, and every keyed operator takes two streams.
//! 2. Both streams are of one job and keyed by one type: records of a key meet on one shard, whichever side they are of.
//! 3. A batch of an inbox holds records of one side.

use crate::edge::Wiring;
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::ops::Mapped;
use crate::pipeline::Pipeline;
use crate::plan::EdgeId;
use crate::push::OpId;
use crate::stream::{Stream, close, refuse_two_jobs};
use crate::terminal::ToKey;
use std::marker::PhantomData;
use std::panic::Location;

/// A record of one of two streams: see [`KeyedStream::connect`].
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sides<L, R> {
    /// Of the first.
    Left(L),
    /// Of the second.
    Right(R),
}

/// The key of a record of either stream.
#[derive(Clone, Debug)]
pub struct SidesKey<A, B>(A, B);

impl<A, B> SidesKey<A, B> {
    pub(crate) fn of(left: A, right: B) -> Self {
        SidesKey(left, right)
    }
}

impl<L, R, A: KeyOf<L>, B: KeyOf<R, Key = A::Key>> KeyOf<Sides<L, R>> for SidesKey<A, B> {
    type Key = A::Key;
    #[inline(always)]
    fn with<O>(&self, record: &Sides<L, R>, f: impl FnOnce(&Self::Key) -> O) -> O {
        match record {
            Sides::Left(record) => self.0.with(record, f),
            Sides::Right(record) => self.1.with(record, f),
        }
    }
}

impl<P: Pipeline, A: KeyOf<P::Item>> KeyedStream<P, A> {
    /// Connects two streams that are keyed by one type: whatever keyed operator follows sees the records of both, each as one of the
    /// [`Sides`], and its states are of both. The watermark is the lesser of theirs. (Flink's `connect` of two keyed streams, with a
    /// [process function](mod@crate::process) behind it its `KeyedCoProcessFunction`.)
    ///
    /// Stateless: what is kept is the following operator's. The class is the lower of theirs. Records keep their time and behind mark; none is too late here. A copy
    /// into the enum a record. Streams of two jobs are refused, and so are two of which one has event times and
    /// the other has none.
    ///
    /// ```
    /// use pelton::process::value;
    /// use pelton::{Job, Sides, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("enrichment");
    /// let names = job.source(sources::items([(1u64, "ann"), (2, "bob")])).key_by(|n| n.0);
    /// let orders = job.source(sources::items([(1u64, 30), (2, 40), (1, 50)])).key_by(|o| o.0);
    /// names
    ///     .connect(orders)
    ///     .process("last name", value::<String>("name"))
    ///     .each(|record, name, cx| match record {
    ///         Sides::Left((_, new)) => name.set(new.to_string()),
    ///         Sides::Right((_, total)) => cx.emit((name.get().cloned().unwrap_or_default(), *total)),
    ///     })
    ///     .sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 1).unwrap();
    /// stepper.run().unwrap();
    /// assert_eq!(results.take().len(), 3);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)]
    pub fn connect<Q, B>(
        self,
        other: KeyedStream<Q, B>,
    ) -> KeyedStream<
        Mapped<
            P,
            Sides<P::Item, Q::Item>,
            impl Fn(P::Item) -> Sides<P::Item, Q::Item> + Clone + Send + 'static,
        >,
        SidesKey<A, B>,
    >
    where
        Q: Pipeline,
        B: KeyOf<Q::Item, Key = A::Key>,
    {
        let location = Location::caller();
        let KeyedStream {
            stream,
            key,
            key_op,
            mut beside,
        } = self;
        let (plan, before, mut ops, mut meta) = stream.into_parts();
        let op = plan.lock().op("connect", meta.results, location);
        let two = other.stream.meta.clone();
        meta.results = meta.results.and(two.results);
        meta.replaces = meta.replaces.or(two.replaces);
        meta.beside(&two);
        if meta.timed != two.timed {
            let mut plan = plan.lock();
            let op = plan.info(op).to_string();
            plan.errors.push(BuildError::NoEventTime { op });
        }
        if !beside.is_empty() || !other.beside.is_empty() {
            let mut plan = plan.lock();
            let e = BuildError::argument(
                plan.info(op),
                "it connects streams of which one is connected already",
                "put `.exchange().key_by(..)` behind the first `connect`",
            );
            plan.errors.push(e);
        }
        let key = SidesKey(key, other.key.clone());
        if plan.is(&other.stream.plan) {
            beside.push(exchange(other, &key, op, Sides::Right));
        } else {
            refuse_two_jobs(&plan, &other.stream.plan, op);
            // It reads nothing, and it is not that which is told.
            drop(other.stream.into_parts());
        }
        ops.push(op);
        let pipeline = Mapped {
            before,
            f: Sides::Left,
            op,
            out: PhantomData,
        };
        KeyedStream {
            stream: Stream {
                plan,
                pipeline: Some(pipeline),
                ops,
                meta,
            },
            key,
            key_op,
            beside,
        }
    }
}

/// Closes the stage of the second stream with an exchange by key.
fn exchange<P: Pipeline, K, S: Send + 'static, F: KeyOf<S>>(
    from: KeyedStream<P, K>,
    key: &F,
    op: OpId,
    side: impl Fn(P::Item) -> S + Clone + Send + 'static,
) -> EdgeId {
    let KeyedStream { stream, key_op, .. } = from;
    let (plan, before, mut ops, _) = stream.into_parts();
    ops.extend([op, key_op]);
    let edge = plan.lock().edge::<S>(Wiring::AllToAll);
    let sided = Mapped {
        before,
        f: side,
        op,
        out: PhantomData,
    };
    let end = ToKey {
        edge,
        key: key.clone(),
        op: key_op,
    };
    close(&plan, sided, ops, end);
    edge
}
