//! `reduce`, `fold` and `running` on a keyed stream, and what they emit.

use crate::aggregate::{Aggregate, Aggs};
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::operators::running::{Fold, MakeRunning, Reduce, Running, SoFar};
use crate::pipeline::Pipeline;
use crate::plan::{Pitfall, Results};
use crate::push::OpId;
use crate::state::State;
use crate::stream::Stream;
use std::marker::PhantomData;
use std::panic::Location;

/// A key's value, after the record that has just come.
#[crate::state(version = 1)]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keyed<K, V> {
    /// The key.
    pub key: K,
    /// Its value so far.
    pub value: V,
}

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// Reduces the records of each key to one and emits it after every record: `reduce(|acc, order| acc.total += order.total)`.
    /// A key's first record is its first value.
    ///
    /// Class NET: records of one key meet in no fixed order, so only the last value of a key is fixed, and only if `f` is
    /// associative and commutative. Put [`KeyedStream::in_event_time_order`] before it for one fixed sequence (class ROWS).
    /// No record is too late. The state, a record for each key, is never dropped, and kept in checkpoints: records are [`State`]; a warning says that it
    /// grows (PLT-0203). O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, Keyed, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("totals");
    /// job.source(pelton::sources::items([('a', 1), ('b', 5), ('a', 2)]))
    ///    .key_by(|r| r.0)
    ///    .reduce(|acc, r| acc.1 += r.1)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// let totals: Vec<_> = results.take().into_iter().map(|k| (k.key, k.value.1)).collect();
    /// assert_eq!(totals, [('a', 1), ('b', 5), ('a', 3)]);
    /// ```
    #[track_caller]
    pub fn reduce<F>(self, f: F) -> Stream<impl Pipeline<Item = Keyed<K::Key, P::Item>>>
    where
        P::Item: Clone + State,
        F: Fn(&mut P::Item, &P::Item) + Clone + Send + 'static,
    {
        self.runs("reduce", Location::caller(), Reduce(f))
    }

    /// Folds the records of each key into a value that starts as `init`, and emits it after every record:
    /// `fold(0, |total, order| *total += order.total)`. Class, state and late records as of [`KeyedStream::reduce`]; the state is the value.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("longest");
    /// job.source(sources::items([('a', "to"), ('a', "question"), ('a', "be")]))
    ///    .key_by(|r| r.0)
    ///    .fold(0, |longest, r| *longest = (r.1.len() as u64).max(*longest))
    ///    .map(|k| k.value)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [2, 8, 8]);
    /// ```
    #[track_caller]
    pub fn fold<S, F>(self, init: S, f: F) -> Stream<impl Pipeline<Item = Keyed<K::Key, S>>>
    where
        S: Clone + State,
        F: Fn(&mut S, &P::Item) + Clone + Send + 'static,
    {
        self.runs("fold", Location::caller(), Fold(init, f))
    }

    /// Aggregates the records of each key and emits the result so far after every record:
    /// `running(|a| (a.count(), a.sum(|o| o.total)))`. Class, state and late records as of [`KeyedStream::reduce`]; the state is the aggregate's, and the
    /// aggregates that come with Pelton do not depend on the order of records.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("totals");
    /// job.source(sources::items([('a', 3u32), ('a', 4)]))
    ///    .key_by(|r| r.0)
    ///    .running(|a| (a.count(), a.sum(|r| r.1)))
    ///    .map(|k| k.value)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [(1, 3), (2, 7)]);
    /// ```
    #[track_caller]
    pub fn running<A: Aggregate<P::Item>>(
        self,
        make: impl FnOnce(&Aggs<P::Item>) -> A,
    ) -> Stream<impl Pipeline<Item = Keyed<K::Key, A::Out>>> {
        let aggregate = make(&Aggs::new());
        self.runs("running", Location::caller(), SoFar(aggregate))
    }

    fn runs<R: Running<P::Item>>(
        self,
        kind: &'static str,
        location: &'static Location<'static>,
        running: R,
    ) -> Stream<impl Pipeline<Item = Keyed<K::Key, R::Value>>> {
        let op = note(&self, kind, location);
        self.operator(op, Results::NET, |key| maker(key, running, op))
    }
}

/// Notes a running operator and that its state only grows.
pub(crate) fn note<P: Pipeline, K: KeyOf<P::Item>>(
    keyed: &KeyedStream<P, K>,
    kind: &'static str,
    location: &'static Location<'static>,
) -> OpId {
    let op = keyed.note(kind, location, false);
    let mut plan = keyed.stream.plan.lock();
    plan.warn(
        op,
        Pitfall::StateGrows,
        "state without TTL or window: it keeps a value for every key that ever came",
    );
    plan.sums(op, &keyed.stream.meta);
    op
}

pub(crate) fn maker<T, K, R>(key: K, running: R, op: OpId) -> MakeRunning<T, K, R> {
    MakeRunning {
        key,
        running,
        op,
        record: PhantomData,
    }
}
