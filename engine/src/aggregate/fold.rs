//! Aggregates made of closures.

use super::{Aggregate, Aggs, At};
use crate::state::State;

impl<T: 'static> Aggs<T> {
    /// An aggregate of your own in three parts: what an accumulator holds before any record, how it takes a record, and how it
    /// takes another accumulator. `init` must be the identity of `merge`, and the order of records and merges must not
    /// matter (the laws of [`crate::aggregate`]); else results depend on the number of shards. Where the result is not
    /// what is accumulated, put [`Aggs::map`] round it; where the order matters, write an [`Aggregate`] and look at its [`At`].
    ///
    /// ```
    /// # use pelton::aggregate::{Aggs, Aggregate};
    /// # fn bits(a: &Aggs<u32>) -> impl Aggregate<u32, Out = u32> {
    /// // The bits that are set in any of them.
    /// a.fold(0u32, |bits, r| *bits |= r, |bits, other| *bits |= other)
    /// # }
    /// ```
    pub fn fold<S, A, M>(&self, init: S, add: A, merge: M) -> Fold<S, A, M>
    where
        S: Clone + State,
        A: Fn(&mut S, &T) + Clone + Send + 'static,
        M: Fn(&mut S, &S) + Clone + Send + 'static,
    {
        Fold { init, add, merge }
    }

    /// Turns an aggregate's result (or a tuple's) into something else, when a window fires.
    ///
    /// ```
    /// # use pelton::aggregate::{Aggs, Aggregate};
    /// # struct Order { total: f64 }
    /// # #[derive(Clone)]
    /// struct Stats { orders: u64, per_order: f64 }
    /// # fn stats(a: &Aggs<Order>) -> impl Aggregate<Order, Out = Stats> {
    /// a.map((a.count(), a.avg(|o| o.total)), |(orders, per_order)| Stats { orders, per_order })
    /// # }
    /// ```
    pub fn map<A, U, F>(&self, aggregate: A, f: F) -> Mapped<A, F>
    where
        A: Aggregate<T>,
        U: Clone + Send + 'static,
        F: Fn(A::Out) -> U + Clone + Send + 'static,
    {
        Mapped { aggregate, f }
    }
}

/// See [`Aggs::fold`].
#[derive(Clone, Copy, Debug)]
pub struct Fold<S, A, M> {
    init: S,
    add: A,
    merge: M,
}

impl<T, S, A, M> Aggregate<T> for Fold<S, A, M>
where
    S: Clone + State,
    A: Fn(&mut S, &T) + Clone + Send + 'static,
    M: Fn(&mut S, &S) + Clone + Send + 'static,
{
    type Acc = S;
    type Out = S;
    #[inline(always)]
    fn create(&self) -> S {
        self.init.clone()
    }
    #[inline(always)]
    fn add(&self, acc: &mut S, record: &T, _: At) {
        (self.add)(acc, record);
    }
    #[inline(always)]
    fn merge(&self, acc: &mut S, other: &S) {
        (self.merge)(acc, other);
    }
    #[inline(always)]
    fn finish(&self, acc: &S) -> S {
        acc.clone()
    }
}

/// See [`Aggs::map`].
#[derive(Clone, Copy, Debug)]
pub struct Mapped<A, F> {
    pub(super) aggregate: A,
    pub(super) f: F,
}

impl<T, A, U, F> Aggregate<T> for Mapped<A, F>
where
    A: Aggregate<T>,
    U: Clone + Send + 'static,
    F: Fn(A::Out) -> U + Clone + Send + 'static,
{
    type Acc = A::Acc;
    type Out = U;
    const NEEDS_ORIGINS: bool = A::NEEDS_ORIGINS;
    const GROWS: bool = A::GROWS;
    #[inline(always)]
    fn create(&self) -> A::Acc {
        self.aggregate.create()
    }
    #[inline(always)]
    fn add(&self, acc: &mut A::Acc, record: &T, at: At) {
        self.aggregate.add(acc, record, at);
    }
    #[inline(always)]
    fn merge(&self, acc: &mut A::Acc, other: &A::Acc) {
        self.aggregate.merge(acc, other);
    }
    #[inline(always)]
    fn finish(&self, acc: &A::Acc) -> U {
        (self.f)(self.aggregate.finish(acc))
    }
}

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, plans, scrambled};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn closures_equal_the_naive_computation(values in prop::collection::vec(any::<u32>(), 1..40), plan in plans()) {
            let a = Aggs::<u32>::new();
            let bits = a.fold(0u32, |bits, r| *bits |= r, |bits, other| *bits |= other);
            let both = a.map((bits, a.last(|r| *r)), |(bits, last)| (last, bits.count_ones()));
            let naive = values.iter().fold(0, |bits, r| bits | r);
            prop_assert_eq!(scrambled(&both, &values, &plan), (values[values.len() - 1], naive.count_ones()));
        }
    }

    fn needs_origins<T, A: Aggregate<T>>(_: &A) -> bool {
        A::NEEDS_ORIGINS
    }

    #[test]
    fn mapping_keeps_the_need_for_origins() {
        let a = Aggs::<u32>::new();
        assert!(needs_origins::<u32, _>(&a.map(a.first(|r| *r), |v| v)));
        assert!(!needs_origins::<u32, _>(&a.map(a.count(), |v| v)));
    }
}
