//! All values, in the order of event time.

use super::{Aggregate, Aggs, At};
use crate::state::State;
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The value of every record, in the order of (event time, origin). Adding is O(1), the result O(n log n), or O(n)
    /// where records came in order. A key takes 24 bytes and for each record the value and 32 bytes: it grows with the
    /// window. Where a few will do, see [`Aggs::top_k_by`].
    ///
    /// The result of a key is made in one step, which others on the shard wait for: about 10 ns a value in order (3 million
    /// took 29 ms), more where they must be sorted or are dear to clone. Above 20,000 values of a key a step exceeds
    /// the 200 us that steps are meant to keep to.
    pub fn collect<V: Clone + State, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> Collect<F, V> {
        Collect {
            f,
            value: PhantomData,
        }
    }
}

/// See [`Aggs::collect`].
#[derive(Clone, Copy, Debug)]
pub struct Collect<F, V> {
    f: F,
    value: PhantomData<fn() -> V>,
}

/// The values that a [`Collect`] has seen, in the order in which they came.
#[crate::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Collected<V>(Vec<(At, V)>);

impl<T, V: Clone + State, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for Collect<F, V> {
    type Acc = Collected<V>;
    type Out = Vec<V>;
    const NEEDS_ORIGINS: bool = true;
    const GROWS: bool = true;
    #[inline(always)]
    fn create(&self) -> Collected<V> {
        Collected(Vec::new())
    }
    #[inline(always)]
    fn add(&self, acc: &mut Collected<V>, record: &T, at: At) {
        acc.0.push((at, (self.f)(record)));
    }
    fn merge(&self, acc: &mut Collected<V>, other: &Collected<V>) {
        acc.0.extend_from_slice(&other.0);
    }
    fn finish(&self, acc: &Collected<V>) -> Vec<V> {
        if acc.0.is_sorted_by_key(|(at, _)| *at) {
            return acc.0.iter().map(|(_, value)| value.clone()).collect();
        }
        let mut order: Vec<&(At, V)> = acc.0.iter().collect();
        order.sort_by_key(|(at, _)| *at);
        order.into_iter().map(|(_, value)| value.clone()).collect()
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
        fn values_come_in_the_order_of_their_places(values in prop::collection::vec(any::<u64>(), 0..50), plan in plans()) {
            let got = scrambled(&Aggs::new().collect(|v: &u64| f64::from_bits(*v)), &values, &plan);
            let bits: Vec<u64> = got.into_iter().map(f64::to_bits).collect();
            prop_assert_eq!(bits, values);
        }
    }
}
