//! `changelog`: running values told as changes.

use crate::aggregate::{Aggregate, Aggs, At};
use crate::change::{Change, Kind};
use crate::key::{Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::changing::{Changing, MakeChanging};
use crate::operators::running::{Fold, Reduce, Running, SoFar};
use crate::ordered::OrderedStream;
use crate::pipeline::Pipeline;
use crate::plan::{Class, Results};
use crate::process::ProcessInput;
use crate::push::OpId;
use crate::running::Keyed;
use crate::state::State;
use crate::stream::Stream;
use std::marker::PhantomData;
use std::panic::Location;

/// What a stream of changes is, behind an order or not.
pub(crate) const fn results(in_order: bool) -> Results {
    Results {
        class: match in_order {
            true => Class::Rows,
            false => Class::Net,
        },
        replaced: true,
    }
}

/// Running values whose changes are told; see [`KeyedStream::changelog`].
#[must_use = "a changelog does nothing until `reduce`, `fold` or `running` says of what"]
#[allow(missing_debug_implementations)]
pub struct Changelog<I, T, K> {
    input: I,
    types: PhantomData<fn(T, K)>,
}

impl<I, T, K> Changelog<I, T, K> {
    fn new(input: I) -> Self {
        let types = PhantomData;
        Changelog { input, types }
    }
}

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// Running values told as [changes](mod@crate::change), so that whoever keeps them can take back what no longer holds:
    /// `changelog().running(|a| a.count())`. A key's first record makes a `+I`, every further one a pair: `-U` with the value
    /// told before, and `+U` with the one that replaces it.
    ///
    /// Class NET, or ROWS behind [`KeyedStream::in_event_time_order`]. State as of [`KeyedStream::reduce`]: a value for each key, never dropped, of which a
    /// warning tells (PLT-0203). Each record asks for the value twice, before it and after it. No record is too late.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("counts");
    /// job.source(sources::items(['a', 'b', 'a']))
    ///    .key_by(|c| *c)
    ///    .changelog()
    ///    .running(|a| a.count())
    ///    .map(|c| c.map(|row| format!("{}={}", row.key, row.value)).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I a=1", "+I b=1", "-U a=1", "+U a=2"]);
    /// ```
    pub fn changelog(self) -> Changelog<Self, P::Item, K> {
        Changelog::new(self)
    }
}

impl<P: Pipeline<Item: State>, K: KeyOf<P::Item>> OrderedStream<P, K> {
    /// As [`KeyedStream::changelog`], in event-time order: every change is fixed (class ROWS). Late records are dropped before it, as of
    /// [`OrderedStream`].
    pub fn changelog(self) -> Changelog<Self, P::Item, K> {
        Changelog::new(self)
    }
}

impl<I: ProcessInput<T, K>, T: Send + 'static, K: KeyOf<T>> Changelog<I, T, K> {
    /// Changes of what [`KeyedStream::reduce`] makes of a key's records. Class, state and late records as of [`KeyedStream::changelog`].
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("sums");
    /// job.source(sources::items([5, 7]))
    ///    .key_by(|_| 'a')
    ///    .changelog()
    ///    .reduce(|sum, n| *sum += n)
    ///    .map(|c| c.map(|row| row.value).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 5", "-U 5", "+U 12"]);
    /// ```
    #[track_caller]
    pub fn reduce<F>(self, f: F) -> Stream<impl Pipeline<Item = Change<Keyed<K::Key, T>>>>
    where
        T: Clone + State,
        F: Fn(&mut T, &T) + Clone + Send + 'static,
    {
        self.tells("reduce", Location::caller(), Reduce(f))
    }

    /// Changes of what [`KeyedStream::fold`] makes of a key's records. Class, state and late records as of [`KeyedStream::changelog`].
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("products");
    /// job.source(sources::items([5, 7]))
    ///    .key_by(|_| 'a')
    ///    .changelog()
    ///    .fold(1, |product, n| *product *= n)
    ///    .map(|c| c.map(|row| row.value).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 5", "-U 5", "+U 35"]);
    /// ```
    #[track_caller]
    pub fn fold<S, F>(self, init: S, f: F) -> Stream<impl Pipeline<Item = Change<Keyed<K::Key, S>>>>
    where
        S: Clone + State,
        F: Fn(&mut S, &T) + Clone + Send + 'static,
    {
        self.tells("fold", Location::caller(), Fold(init, f))
    }

    /// Changes of what [`KeyedStream::running`] makes of a key's records. Class, state and late records as of [`KeyedStream::changelog`].
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("greatest");
    /// job.source(sources::items([5, 7]))
    ///    .key_by(|_| 'a')
    ///    .changelog()
    ///    .running(|a| a.max(|n| *n))
    ///    .map(|c| c.map(|row| row.value).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 5", "-U 5", "+U 7"]);
    /// ```
    #[track_caller]
    pub fn running<A: Aggregate<T>>(
        self,
        make: impl FnOnce(&Aggs<T>) -> A,
    ) -> Stream<impl Pipeline<Item = Change<Keyed<K::Key, A::Out>>>> {
        let aggregate = make(&Aggs::new());
        self.tells("running", Location::caller(), SoFar(aggregate))
    }

    fn tells<R: Running<T>>(
        self,
        kind: &'static str,
        location: &'static Location<'static>,
        running: R,
    ) -> Stream<impl Pipeline<Item = Change<Keyed<K::Key, R::Value>>>> {
        let op = self.input.note_kept(kind, location);
        self.input.place(op, results(I::IN_ORDER), move |key| {
            maker(key, Told(running), op)
        })
    }
}

pub(crate) fn maker<T, K, C>(key: K, changing: C, op: OpId) -> MakeChanging<T, K, C> {
    MakeChanging {
        key,
        changing,
        op,
        record: PhantomData,
    }
}

/// Tells of a running value what it replaces.
#[derive(Clone, Debug)]
pub struct Told<R>(pub(crate) R);

impl<T, K: Key, R: Running<T>> Changing<T, K> for Told<R> {
    type State = R::State;
    type Row = Keyed<K, R::Value>;
    const NEEDS_ORIGINS: bool = R::NEEDS_ORIGINS;

    #[inline(always)]
    fn first(&self, key: &K, record: &T, at: At, to: &mut Vec<Change<Self::Row>>) -> R::State {
        let state = self.0.first(record, at);
        to.push(tell(Kind::Insert, key, self.0.value(&state)));
        state
    }

    #[inline(always)]
    fn add(
        &self,
        key: &K,
        state: &mut R::State,
        record: &T,
        at: At,
        touch: impl FnOnce(&R::State),
        to: &mut Vec<Change<Self::Row>>,
    ) {
        touch(state);
        to.push(tell(Kind::UpdateBefore, key, self.0.value(state)));
        self.0.add(state, record, at);
        to.push(tell(Kind::UpdateAfter, key, self.0.value(state)));
    }
}

fn tell<K: Key, V>(kind: Kind, key: &K, value: V) -> Change<Keyed<K, V>> {
    let key = key.clone();
    Change::new(kind, Keyed { key, value })
}
