//! Reducing and aggregating state: a value state that knows how what is added becomes part of it.

use super::rows::{Places, Rows};
use super::states::{KeptStates, Named, States, Who};
use super::ttl::{Now, Ttl};
use super::value::{KeptValue, Place, ValueOf, ValueState, value};
use crate::aggregate::{Aggregate, Aggs, At};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::query::Ask;
use crate::state::{LoadError, State};
use std::marker::PhantomData;

/// How values that are added become one.
#[doc(hidden)]
pub trait Adding: Clone + Send + 'static {
    /// What is kept.
    type State: State;
    /// What a user sees of a key's.
    type Of<'a, K: 'a>;
    /// Whether it breaks ties by origin.
    const NEEDS_ORIGINS: bool;
    /// Shows a key's.
    fn of<'a, K>(&'a self, value: ValueState<'a, K, Self::State>, at: At) -> Self::Of<'a, K>;
}

/// A state to which values are added: see [`reducing`] and [`aggregating`].
#[allow(missing_debug_implementations)]
pub struct AddingOf<A: Adding> {
    value: ValueOf<A::State>,
    adding: A,
}

// Whatever is kept.
impl<A: Adding> Clone for AddingOf<A> {
    fn clone(&self) -> Self {
        AddingOf {
            value: self.value.clone(),
            adding: self.adding.clone(),
        }
    }
}

impl<A: Adding> AddingOf<A> {
    /// It expires: see [`Ttl`].
    pub fn ttl(self, ttl: Ttl) -> Self {
        AddingOf {
            value: self.value.ttl(ttl),
            ..self
        }
    }
}

/// Asks for a state of one value a key to which others are added by `f`: `reducing("most", |a: &mut u64, b| *a = b.max(*a))`.
/// The first that is added is its first value.
pub fn reducing<V, F>(name: &'static str, f: F) -> AddingOf<Reduced<V, F>>
where
    V: State,
    F: Fn(&mut V, V) + Clone + Send + 'static,
{
    AddingOf {
        value: value(name),
        adding: Reduced(f, PhantomData),
    }
}

/// Asks for a state of an aggregate a key, of records or whatever is added:
/// `aggregating("spent", |a| (a.count(), a.sum(|c: &Charge| c.cents)))`. What is kept is the accumulator.
pub fn aggregating<T: 'static, A: Aggregate<T>>(
    name: &'static str,
    make: impl FnOnce(&Aggs<T>) -> A,
) -> AddingOf<Aggregated<T, A>> {
    AddingOf {
        value: value(name),
        adding: Aggregated(make(&Aggs::new()), PhantomData),
    }
}

/// See [`reducing`].
#[allow(missing_debug_implementations)]
pub struct Reduced<V, F>(F, PhantomData<fn() -> V>);

impl<V, F: Clone> Clone for Reduced<V, F> {
    fn clone(&self) -> Self {
        Reduced(self.0.clone(), PhantomData)
    }
}

impl<V: State, F: Fn(&mut V, V) + Clone + Send + 'static> Adding for Reduced<V, F> {
    type State = V;
    type Of<'a, K: 'a> = ReducingState<'a, K, V, F>;
    const NEEDS_ORIGINS: bool = false;
    #[inline(always)]
    fn of<'a, K>(&'a self, value: ValueState<'a, K, V>, _: At) -> ReducingState<'a, K, V, F> {
        ReducingState { value, f: &self.0 }
    }
}

/// See [`aggregating`].
#[allow(missing_debug_implementations)]
pub struct Aggregated<T, A>(A, PhantomData<fn(T)>);

impl<T, A: Clone> Clone for Aggregated<T, A> {
    fn clone(&self) -> Self {
        Aggregated(self.0.clone(), PhantomData)
    }
}

impl<T: 'static, A: Aggregate<T>> Adding for Aggregated<T, A> {
    type State = A::Acc;
    type Of<'a, K: 'a> = AggregatingState<'a, K, T, A>;
    const NEEDS_ORIGINS: bool = A::NEEDS_ORIGINS;
    #[inline(always)]
    fn of<'a, K>(
        &'a self,
        value: ValueState<'a, K, A::Acc>,
        at: At,
    ) -> AggregatingState<'a, K, T, A> {
        AggregatingState {
            value,
            aggregate: &self.0,
            at,
            record: PhantomData,
        }
    }
}

/// A key's reducing state, for as long as a record or timer is in hand.
#[allow(missing_debug_implementations)]
pub struct ReducingState<'a, K, V, F> {
    value: ValueState<'a, K, V>,
    f: &'a F,
}

impl<K: Key, V: State, F: Fn(&mut V, V)> ReducingState<'_, K, V, F> {
    /// Adds a value.
    #[inline(always)]
    pub fn add(&mut self, value: V) {
        let mut value = Some(value);
        let has = self.value.or_insert_with(|| match value.take() {
            Some(value) => value,
            None => unreachable!("a value is made once"),
        });
        if let Some(value) = value {
            (self.f)(has, value);
        }
    }

    /// The value, if any was added.
    #[inline(always)]
    pub fn get(&mut self) -> Option<&V> {
        self.value.get()
    }

    /// Forgets the value.
    pub fn clear(&mut self) {
        self.value.clear();
    }
}

/// A key's aggregating state, for as long as a record or timer is in hand.
#[allow(missing_debug_implementations)]
pub struct AggregatingState<'a, K, T, A: Aggregate<T>> {
    value: ValueState<'a, K, A::Acc>,
    aggregate: &'a A,
    at: At,
    record: PhantomData<fn(T)>,
}

impl<K: Key, T, A: Aggregate<T>> AggregatingState<'_, K, T, A> {
    /// Adds a value, at the place of the record in hand.
    #[inline(always)]
    pub fn add(&mut self, value: &T) {
        let aggregate = self.aggregate;
        let acc = self.value.or_insert_with(|| aggregate.create());
        aggregate.add(acc, value, self.at);
    }

    /// The result so far, if any was added.
    #[inline(always)]
    pub fn get(&mut self) -> Option<A::Out> {
        let aggregate = self.aggregate;
        self.value.get().map(|acc| aggregate.finish(acc))
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.value.clear();
    }
}

/// The values of a shard and how they are added to.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeptAdding<A: Adding> {
    values: KeptValue<A::State>,
    adding: A,
}

#[allow(private_interfaces)]
impl<K: Key, A: Adding> States<K> for AddingOf<A> {
    type Kept = KeptAdding<A>;
    const NEEDS_ORIGINS: bool = A::NEEDS_ORIGINS;
    fn names(&self, out: &mut Vec<Named>) {
        States::<K>::names(&self.value, out);
    }
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> KeptAdding<A> {
        KeptAdding {
            values: States::<K>::open(&self.value, build, op),
            adding: self.adding.clone(),
        }
    }
}

type Values<A> = Place<<A as Adding>::State>;

#[allow(private_interfaces)]
impl<K: Key, A: Adding> KeptStates<K> for KeptAdding<A> {
    type Place = Values<A>;
    type Of<'a> = A::Of<'a, K>;
    type Broadcast<'a> = ();
    fn broadcast(&mut self) {}

    #[inline(always)]
    fn of<'a>(&'a mut self, place: &'a mut Values<A>, who: Who<'a, K>) -> A::Of<'a, K> {
        self.adding.of(self.values.of(place, who), who.at)
    }
    fn is_empty(place: &Values<A>) -> bool {
        place.value.is_none()
    }
    fn keys_at_least(&self) -> u64 {
        KeptStates::<K>::keys_at_least(&self.values)
    }
    fn begin_epoch(&mut self, cut: Cut, rows: &mut dyn Rows<K, Values<A>>) {
        self.values.begin_epoch(cut, rows);
    }
    fn save(&mut self, to: &mut Snapshot<'_>, rows: &mut dyn Rows<K, Values<A>>) -> Saved {
        self.values.save(to, rows)
    }
    fn load(
        &mut self,
        frame: &Frame<'_>,
        rows: &mut dyn Rows<K, Values<A>>,
    ) -> Result<bool, LoadError> {
        self.values.load(frame, rows)
    }
    fn loaded(&mut self, rows: &mut dyn Rows<K, Values<A>>) {
        self.values.loaded(rows);
    }
    fn expire(&mut self, rows: &mut dyn Rows<K, Values<A>>, now: Now, budget: &mut u32) -> bool {
        self.values.expire(rows, now, budget)
    }
    fn answer(&self, ask: &mut Ask, rows: &dyn Places<K, Values<A>>, now: Now) {
        KeptStates::<K>::answer(&self.values, ask, rows, now);
    }
    fn next_by_clock(&self) -> Option<i64> {
        KeptStates::<K>::next_by_clock(&self.values)
    }
    fn sizes(&self, op: OpId, out: &mut Sizes) {
        KeptStates::<K>::sizes(&self.values, op, out);
    }
}
