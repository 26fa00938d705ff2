//! Count, min, max, any, all.

use super::{Aggregate, Aggs, At, Ordered};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// How many records: `u64`. O(1); 8 bytes a key.
    pub fn count(&self) -> Count {
        Count
    }
    /// The least value, of its own type and unit; for the order of floats see [`Ordered`] (NaN only if all are NaN).
    /// O(1); a key takes what the value takes.
    pub fn min<V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Min<F, V> {
        Min {
            f,
            value: PhantomData,
        }
    }
    /// The greatest value, of its own type and unit; for the order of floats see [`Ordered`] (NaN if any is NaN).
    /// O(1); a key takes what the value takes.
    pub fn max<V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Max<F, V> {
        Max {
            f,
            value: PhantomData,
        }
    }
    /// Whether it holds for at least one record. O(1); 1 byte a key.
    pub fn any<F: Fn(&T) -> bool + Clone + Send + 'static>(&self, f: F) -> Any<F> {
        Any { f }
    }
    /// Whether it holds for every record. O(1); 1 byte a key.
    pub fn all<F: Fn(&T) -> bool + Clone + Send + 'static>(&self, f: F) -> All<F> {
        All { f }
    }
}

/// See [`Aggs::count`].
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type Acc = u64;
    type Out = u64;
    #[inline(always)]
    fn create(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn add(&self, acc: &mut u64, _: &T, _: At) {
        *acc += 1;
    }
    #[inline(always)]
    fn merge(&self, acc: &mut u64, other: &u64) {
        *acc += other;
    }
    #[inline(always)]
    fn finish(&self, acc: &u64) -> u64 {
        *acc
    }
}

macro_rules! extreme {
    ($name:ident, $method:literal, $none:ident, $keep:ident, $merge:ident) => {
        #[doc = concat!("See [`Aggs::", $method, "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F, V> {
            pub(super) f: F,
            value: PhantomData<fn() -> V>,
        }

        impl<T, V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for $name<F, V> {
            type Acc = V::Best;
            type Out = V;
            #[inline(always)]
            fn create(&self) -> V::Best {
                V::$none()
            }
            #[inline(always)]
            fn add(&self, acc: &mut V::Best, record: &T, _: At) {
                V::$keep(acc, (self.f)(record));
            }
            #[inline(always)]
            fn merge(&self, acc: &mut V::Best, other: &V::Best) {
                V::$merge(acc, other);
            }
            #[inline(always)]
            fn finish(&self, acc: &V::Best) -> V {
                V::best(acc)
            }
        }
    };
}
extreme!(Min, "min", greatest, lower, lower_best);
extreme!(Max, "max", least, raise, raise_best);

macro_rules! quantifier {
    ($name:ident, $method:literal, $start:literal, $op:tt) => {
        #[doc = concat!("See [`Aggs::", $method, "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F> {
            f: F,
        }

        impl<T, F: Fn(&T) -> bool + Clone + Send + 'static> Aggregate<T> for $name<F> {
            type Acc = bool;
            type Out = bool;
            #[inline(always)]
            fn create(&self) -> bool {
                $start
            }
            #[inline(always)]
            fn add(&self, acc: &mut bool, record: &T, _: At) {
                *acc = *acc $op (self.f)(record);
            }
            #[inline(always)]
            fn merge(&self, acc: &mut bool, other: &bool) {
                *acc = *acc $op *other;
            }
            #[inline(always)]
            fn finish(&self, acc: &bool) -> bool {
                *acc
            }
        }
    };
}
quantifier!(Any, "any", false, ||);
quantifier!(All, "all", true, &&);

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, finite, float, plans, scrambled};
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;

    fn aggs<T: 'static>() -> Aggs<T> {
        Aggs::new()
    }

    /// The bits of a float such that the order of integers is the order of `Ordered`.
    fn rank(v: f64) -> i64 {
        if v.is_nan() {
            return i64::MAX;
        }
        let bits = v.to_bits() as i64;
        bits ^ (((bits >> 63) as u64) >> 1) as i64
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn count_any_all(values in prop::collection::vec(0u8..20, 1..60), plan in plans()) {
            let a = aggs::<u8>();
            let all = (a.count(), a.any(|v| *v == 3), a.all(|v| *v != 5));
            let naive = (values.len() as u64, values.contains(&3), !values.contains(&5));
            prop_assert_eq!(scrambled(&all, &values, &plan), naive);
        }

        #[test]
        fn extremes_of_integers_and_strings(values in prop::collection::vec(any::<i64>(), 1..40), plan in plans()) {
            let a = aggs::<i64>();
            let text = |v: &i64| if v % 3 == 0 { String::new() } else { v.to_string() };
            let of = move |v: &i64| (*v as u8, text(v));
            let both = (a.min(|v| *v), a.max(|v| *v), a.min(text), a.max(text), a.min(of), a.max(move |v| Reverse(of(v))));
            let got = scrambled(&both, &values, &plan);
            prop_assert_eq!(Some(&got.0), values.iter().min());
            prop_assert_eq!(Some(&got.1), values.iter().max());
            prop_assert_eq!(Some(got.2), values.iter().map(text).min());
            prop_assert_eq!(Some(got.3), values.iter().map(text).max());
            let least = values.iter().map(of).min();
            prop_assert_eq!(Some(got.4), least.clone());
            prop_assert_eq!(Some(got.5.0), least);
        }

        #[test]
        fn extremes_of_floats(values in prop::collection::vec(prop_oneof![float(), finite()], 1..12), plan in plans()) {
            let a = aggs::<f64>();
            let (min, max) = scrambled(&(a.min(|v| *v), a.max(|v| *v)), &values, &plan);
            prop_assert_eq!(Some(rank(min)), values.iter().map(|v| rank(*v)).min());
            prop_assert_eq!(Some(rank(max)), values.iter().map(|v| rank(*v)).max());
            // Every NaN comes out with the same bits.
            prop_assert!(!min.is_nan() || min.to_bits() == f64::NAN.to_bits());
            prop_assert!(!max.is_nan() || max.to_bits() == f64::NAN.to_bits());
        }
    }

    #[test]
    fn one_value_at_the_end_of_its_range() {
        let all_ends = [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, -0.0, f64::MAX];
        for end in all_ends {
            let (a, plan) = (aggs::<f64>(), super::super::scramble::Plan { seed: 5 });
            let (min, max) = scrambled(&(a.min(|v| *v), a.max(|v| *v)), &[end], &plan);
            assert_eq!(
                (min.to_bits(), max.to_bits()),
                (end.to_bits(), end.to_bits())
            );
        }
    }
}
