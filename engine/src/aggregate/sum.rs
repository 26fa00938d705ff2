//! Sums, and the numbers they are made of.
//!
//! Laws
//! 1. A sum of integers is exact; only its result saturates. (Saturating on the way would make it depend on the order:
//!    MAX + 1 - 1 and MAX - 1 + 1 would differ.) 64-bit integers are kept in 128 bits; smaller ones in 64, which no
//!    2^32 of them can overflow.
//! 2. A sum of floats differs by rounding only, whatever the order: at most about 2^-52 of the result plus n * 2^-104
//!    of the sum of magnitudes. It is infinite only if a value or the total itself is: partial sums do not overflow.
//!    Only where they come close to f64's end is it as imprecise as plain addition (n * 2^-53 of the sum of magnitudes).
//! 3. NaN, or infinities of both signs, give NaN; an infinity of one sign gives itself. Sums of zeros are +0.

use super::{Aggregate, Aggs, At};
use crate::state::State;
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The sum of a value, in its unit. Integers give `i64` or `u64`, exact and byte-equal, saturated only if the total
    /// lies outside; floats give `f64`, compensated (use [`Aggs::sum_exact`] for byte-equal ones).
    /// NaN or infinities of both signs: NaN. O(1); 16 bytes a key, 8 for integers of up to 32 bits.
    pub fn sum<V: Number, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Sum<F, V> {
        Sum {
            f,
            value: PhantomData,
        }
    }
}

/// What can be summed: the accumulator and the result of its type.
pub trait Number: Clone + Send + 'static {
    /// What the sum is kept in.
    type Sum: Clone + State;
    /// The type of the sum.
    type Total: Clone + Send + 'static;
    /// No values.
    fn zero() -> Self::Sum;
    /// Adds a value.
    fn add_to(self, sum: &mut Self::Sum);
    /// Adds another sum.
    fn merge(sum: &mut Self::Sum, other: &Self::Sum);
    /// The total.
    fn total(sum: &Self::Sum) -> Self::Total;
    /// The total over a count above 0.
    fn mean(sum: &Self::Sum, count: u64) -> f64;
}

/// Kept in the type of the total.
macro_rules! small_integers {
    ($total:ty: $($t:ty),*) => { $(
        impl Number for $t {
            type Sum = $total;
            type Total = $total;
            #[inline(always)]
            fn zero() -> $total {
                0
            }
            #[inline(always)]
            fn add_to(self, sum: &mut $total) {
                *sum = sum.saturating_add(self as $total);
            }
            #[inline(always)]
            fn merge(sum: &mut $total, other: &$total) {
                *sum = sum.saturating_add(*other);
            }
            #[inline(always)]
            fn total(sum: &$total) -> $total {
                *sum
            }
            #[inline(always)]
            fn mean(sum: &$total, count: u64) -> f64 {
                *sum as f64 / count as f64
            }
        }
    )* };
}
small_integers!(i64: i8, i16, i32);
small_integers!(u64: u8, u16, u32);

/// Kept in 128 bits.
macro_rules! large_integers {
    ($total:ty: $($t:ty),*) => { $(
        impl Number for $t {
            type Sum = Wide;
            type Total = $total;
            #[inline(always)]
            fn zero() -> Wide {
                Wide::default()
            }
            #[inline(always)]
            fn add_to(self, sum: &mut Wide) {
                sum.add(self as i128);
            }
            #[inline(always)]
            fn merge(sum: &mut Wide, other: &Wide) {
                sum.add(other.get());
            }
            #[inline(always)]
            fn total(sum: &Wide) -> $total {
                sum.get().clamp(<$total>::MIN as i128, <$total>::MAX as i128) as $total
            }
            #[inline(always)]
            fn mean(sum: &Wide, count: u64) -> f64 {
                sum.get() as f64 / count as f64
            }
        }
    )* };
}
large_integers!(i64: i64, isize);
large_integers!(u64: u64, usize);

/// 128 bits in two words: an `i128` would be aligned to 16 bytes and make table entries larger.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wide {
    low: u64,
    high: i64,
}

impl Wide {
    /// The value.
    #[inline(always)]
    pub fn get(self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }

    /// Adds to it. No 2^63 additions of 64-bit values overflow it.
    #[inline(always)]
    pub fn add(&mut self, value: i128) {
        *self = Wide::from(self.get().wrapping_add(value));
    }
}

impl From<i128> for Wide {
    #[inline(always)]
    fn from(value: i128) -> Self {
        Wide {
            low: value as u64,
            high: (value >> 64) as i64,
        }
    }
}

/// See [`Aggs::sum`].
#[derive(Clone, Copy, Debug)]
pub struct Sum<F, V> {
    pub(super) f: F,
    value: PhantomData<fn() -> V>,
}

impl<T, V: Number, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for Sum<F, V> {
    type Acc = V::Sum;
    type Out = V::Total;
    #[inline(always)]
    fn create(&self) -> V::Sum {
        V::zero()
    }
    #[inline(always)]
    fn add(&self, acc: &mut V::Sum, record: &T, _: At) {
        (self.f)(record).add_to(acc);
    }
    #[inline(always)]
    fn merge(&self, acc: &mut V::Sum, other: &V::Sum) {
        V::merge(acc, other);
    }
    #[inline(always)]
    fn finish(&self, acc: &V::Sum) -> V::Total {
        V::total(acc)
    }
}

/// `a + b` rounded, and what the rounding took away, without a branch (Knuth's TwoSum).
#[inline(always)]
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let back = sum - a;
    (sum, (a - (sum - back)) + (b - back))
}

/// A sum and what its additions rounded away.
///
/// Where an addition leaves f64's range, or a value is not finite, `error` becomes NaN for good and `sum` is kept
/// scaled down by 2^128: no count of finite values reaches infinity there, and infinities and NaN scale to themselves.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Compensated {
    sum: f64,
    /// Finite, or NaN: `sum` is scaled.
    error: f64,
}

const DOWN: f64 = 1.0 / UP;
const UP: f64 = (1u128 << 127) as f64 * 2.0;

impl Compensated {
    /// Adds a value.
    #[inline(always)]
    pub fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.sum, value);
        let error = self.error + error;
        // An infinite or NaN sum gives an error of NaN (infinity less infinity), a finite one a finite one, or NaN next to f64::MAX, which
        // the scaled way takes too: so one look tells, and this is the shortest.
        debug_assert!(!error.is_infinite());
        if !error.is_nan() {
            *self = Compensated { sum, error };
        } else {
            self.add_out_of_range(value);
        }
    }

    #[cold]
    #[inline(never)]
    fn add_out_of_range(&mut self, value: f64) {
        self.add_scaled(value * DOWN);
    }

    fn add_scaled(&mut self, value: f64) {
        if !self.error.is_nan() {
            self.sum = self.sum * DOWN + self.error * DOWN;
            self.error = f64::NAN;
        }
        self.sum += value;
    }

    /// Adds another sum.
    #[inline(always)]
    pub fn merge(&mut self, other: &Compensated) {
        if other.error.is_nan() {
            self.add_scaled(other.sum);
        } else {
            self.add(other.sum);
            self.error += other.error;
        }
    }

    /// The total.
    #[inline(always)]
    pub fn total(&self) -> f64 {
        if self.error.is_nan() {
            plain(self.sum * UP)
        } else {
            self.sum + self.error
        }
    }

    /// The total over a count above 0: finite wherever the values are.
    #[inline(always)]
    pub fn mean(&self, count: u64) -> f64 {
        let count = count as f64;
        if self.error.is_nan() {
            return plain(self.sum / count * UP);
        }
        let total = self.sum + self.error;
        if total.is_finite() {
            total / count
        } else {
            self.sum / count + self.error / count
        }
    }
}

/// Gives every NaN the same bits.
#[inline(always)]
pub(super) fn plain(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

macro_rules! floats {
    ($($t:ty),*) => { $(
        impl Number for $t {
            type Sum = Compensated;
            type Total = f64;
            #[inline(always)]
            fn zero() -> Compensated {
                Compensated::default()
            }
            #[inline(always)]
            fn add_to(self, sum: &mut Compensated) {
                sum.add(f64::from(self));
            }
            #[inline(always)]
            fn merge(sum: &mut Compensated, other: &Compensated) {
                sum.merge(other);
            }
            #[inline(always)]
            fn total(sum: &Compensated) -> f64 {
                sum.total()
            }
            #[inline(always)]
            fn mean(sum: &Compensated, count: u64) -> f64 {
                sum.mean(count)
            }
        }
    )* };
}
floats!(f32, f64);

#[cfg(test)]
mod tests {
    use super::super::scramble::{Plan, float, naive_float_sum, plans, scrambled, ulps};
    use super::*;
    use proptest::prelude::*;

    fn aggs<T: 'static>() -> Aggs<T> {
        Aggs::new()
    }

    fn extreme_i64() -> impl Strategy<Value = i64> {
        prop_oneof![
            Just(i64::MAX),
            Just(i64::MIN),
            -3i64..3,
            any::<i64>(),
            (0u32..64).prop_map(|s| 1i64.wrapping_shl(s)),
        ]
    }

    proptest! {
        #![proptest_config(super::super::scramble::cases())]

        #[test]
        fn integers_are_exact_and_saturate_at_the_end(values in prop::collection::vec(extreme_i64(), 1..40), plan in plans()) {
            let exact: i128 = values.iter().map(|&v| i128::from(v)).sum();
            prop_assert_eq!(scrambled(&aggs().sum(|v: &i64| *v), &values, &plan), exact.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
            let exact: u128 = values.iter().map(|&v| u128::from(v as u64)).sum();
            prop_assert_eq!(scrambled(&aggs().sum(|v: &i64| *v as u64), &values, &plan), exact.min(u64::MAX.into()) as u64);
            let exact: i64 = values.iter().map(|&v| i64::from(v as i32)).sum();
            prop_assert_eq!(scrambled(&aggs().sum(|v: &i64| *v as i32), &values, &plan), exact);
            let exact: u64 = values.iter().map(|&v| u64::from(v as u16)).sum();
            prop_assert_eq!(scrambled(&aggs().sum(|v: &i64| *v as u16), &values, &plan), exact);
        }

        #[test]
        fn floats_are_equal_within_rounding(values in prop::collection::vec(float(), 1..40), plan in plans()) {
            let sum = scrambled(&aggs().sum(|v: &f64| *v), &values, &plan);
            let (exact, magnitudes) = naive_float_sum(&values);
            if !exact.is_finite() {
                // A finite total within a rounding of the end may come out as the end itself.
                let near_end = sum.abs() == f64::MAX && values.iter().all(|v| v.is_finite());
                prop_assert!(near_end || sum.to_bits() == exact.to_bits(), "{sum} is not {exact}");
            } else if sum.is_infinite() {
                prop_assert!(exact.abs() >= f64::MAX * (1.0 - 1e-12), "{sum} is not {exact}");
            } else {
                // Compared halved where the magnitudes themselves overflow.
                let bound = if magnitudes.is_finite() { magnitudes * 1e-15 } else { f64::MAX * 1e-13 };
                prop_assert!((sum - exact).abs() <= bound, "{sum} is not {exact}");
            }
        }

        #[test]
        fn ordinary_floats_are_right_to_the_last_bits(cents in prop::collection::vec(-1_000_000i64..1_000_000, 1..200), plan in plans()) {
            let values: Vec<f64> = cents.iter().map(|&c| c as f64 / 100.0).collect();
            let sum = scrambled(&aggs().sum(|v: &f64| *v), &values, &plan);
            let (exact, _) = naive_float_sum(&values);
            prop_assert!(ulps(sum, exact) <= 1, "{sum} is not {exact}");
        }
    }

    #[test]
    fn partial_sums_do_not_overflow() {
        let max = f64::MAX;
        for order in [
            [max, max, -max, -max],
            [max, -max, max, -max],
            [-max, -max, max, max],
        ] {
            let mut sum = Compensated::default();
            order.iter().for_each(|&v| sum.add(v));
            assert_eq!(sum.total(), 0.0, "{order:?}");
            sum.add(1.5);
            assert_eq!(sum.total(), 1.5, "{order:?}");
        }
        let mut two = Compensated::default();
        two.add(max);
        two.add(max);
        assert_eq!((two.total(), two.mean(2)), (f64::INFINITY, max));
        let mut other = Compensated::default();
        other.add(-max);
        other.merge(&two);
        assert_eq!(other.total(), max);
    }

    #[test]
    fn what_was_rounded_away_at_the_end_of_the_range_counts() {
        let (max, half) = (f64::MAX, 2f64.powi(969)); // half of what max can still be told from
        let of = |values: &[f64]| {
            let mut sum = Compensated::default();
            values.iter().for_each(|&v| sum.add(v));
            (sum.total(), sum.mean(values.len() as u64))
        };
        assert_eq!(
            of(&[max, half, half, half]),
            (f64::INFINITY, max / 4.0 + half)
        );
        assert_eq!(
            of(&[max, half, half, half, half, max, -max, -max]).0,
            4.0 * half
        );
    }

    #[test]
    fn what_is_not_finite_is_defined() {
        let sum = |values: &[f64]| {
            let mut sum = Compensated::default();
            values.iter().for_each(|&v| sum.add(v));
            let mut merged = Compensated::default();
            for &v in values {
                let mut one = Compensated::default();
                one.add(v);
                merged.merge(&one);
            }
            assert_eq!(sum.total().to_bits(), merged.total().to_bits());
            sum.total()
        };
        assert_eq!(sum(&[1.0, f64::INFINITY, -f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[f64::NEG_INFINITY, 1.0]), f64::NEG_INFINITY);
        assert!(sum(&[f64::NEG_INFINITY, 1.0, f64::INFINITY]).is_nan());
        assert!(sum(&[1.0, -f64::NAN, 2.0]).is_nan());
        assert_eq!(sum(&[-0.0, -0.0]).to_bits(), 0.0f64.to_bits());
        // The smallest numbers are not scaled away.
        assert_eq!(sum(&[5e-324, 5e-324]), 1e-323);
    }

    #[test]
    fn accumulators_are_small() {
        assert_eq!((size_of::<Wide>(), align_of::<Wide>()), (16, 8));
        assert_eq!(size_of::<Compensated>(), 16);
    }

    #[test]
    fn empty_plans_exist() {
        // The judge itself: every record once, whatever the plan.
        let all: Vec<u64> = (0..100).collect();
        for seed in 0..50 {
            assert_eq!(
                scrambled(&aggs().sum(|v: &u64| *v), &all, &Plan { seed }),
                4950
            );
        }
    }
}
