//! Variance and standard deviation.
//!
//! Kept are the count, one of the values as a pivot, and the sums of the deviations from it and of their squares, each
//! in twice f64's precision (Dekker, 1971). Merging moves the other's sums to this pivot, which is what Chan, Golub and
//! LeVeque's merge does with means. Since the pivot is a value, the sum of squares round it is at most about n times that
//! round the mean, so what cancels is at most n * 2^-104 of the result. Only the deviation itself is rounded: that moves
//! the result by 2^-52, or by the square root of n times that where the pivot lies far off. (Welford's and Chan's
//! recurrences in plain f64 lose n * 2^-53 * mean / deviation, which breaks 1e-12 for ordinary prices, and divide at
//! each record.)

use super::sum::two_sum;
use super::{Aggregate, Aggs, At};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The population variance of a value, in the square of its unit, as `f64`: 0 for one record. `.sample()` divides by
    /// n - 1 instead. Equal within 1e-12 whatever the order. NaN if a value is NaN, infinite or of size 2^480 (3e144)
    /// and above, whose square has no place in `f64`; differences below 1e-140 lose digits. 64-bit integers are rounded
    /// to `f64` first. O(1), about four times the instructions of `sum`; 48 bytes a key.
    pub fn variance<V: Real, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> Moments<F, V> {
        Moments {
            f,
            sample: false,
            root: false,
            value: PhantomData,
        }
    }

    /// The square root of [`Aggs::variance`], in the value's unit.
    pub fn stddev<V: Real, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Moments<F, V> {
        Moments {
            root: true,
            ..self.variance(f)
        }
    }
}

/// What has a variance: all numbers, by way of `f64`.
pub trait Real: Clone + 'static {
    /// As a float, rounded to the nearest.
    fn real(self) -> f64;
}

macro_rules! reals {
    ($($t:ty),*) => { $(
        impl Real for $t {
            #[inline(always)]
            fn real(self) -> f64 {
                self as f64
            }
        }
    )* };
}
reals!(f32, f64, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

/// See [`Aggs::variance`] and [`Aggs::stddev`].
#[derive(Clone, Copy, Debug)]
pub struct Moments<F, V> {
    f: F,
    sample: bool,
    root: bool,
    value: PhantomData<fn() -> V>,
}

impl<F, V> Moments<F, V> {
    /// Divides by n - 1: the estimate for what the records are a sample of. NaN for one record.
    pub fn sample(mut self) -> Self {
        self.sample = true;
        self
    }
}

impl<T, V: Real, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for Moments<F, V> {
    type Acc = Deviations;
    type Out = f64;
    #[inline(always)]
    fn create(&self) -> Deviations {
        Deviations::default()
    }
    #[inline(always)]
    fn add(&self, acc: &mut Deviations, record: &T, _: At) {
        acc.add((self.f)(record).real());
    }
    #[inline]
    fn merge(&self, acc: &mut Deviations, other: &Deviations) {
        acc.merge(other);
    }
    #[inline]
    fn finish(&self, acc: &Deviations) -> f64 {
        let variance =
            acc.squares_round_mean() / acc.count.saturating_sub(self.sample.into()) as f64;
        super::sum::plain(if self.root { variance.sqrt() } else { variance })
    }
}

/// Sums of deviations from one of the values.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Deviations {
    count: u64,
    /// The first value; NaN as soon as one has come that has no variance.
    pivot: f64,
    /// Sum of (value - pivot).
    sum: Double,
    /// Sum of (value - pivot)^2.
    squares: Double,
}

/// Values of this size and above have no variance. The sum of 2^62 squares of differences below it is finite.
const TOO_LARGE: f64 =
    (1u128 << 120) as f64 * (1u128 << 120) as f64 * (1u128 << 120) as f64 * (1u128 << 120) as f64;

impl Deviations {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        // Also false for NaN.
        let value = if value.abs() < TOO_LARGE {
            value
        } else {
            f64::NAN
        };
        if self.count == 0 {
            self.pivot = value;
        }
        self.count += 1;
        let deviation = value - self.pivot;
        let (hi, lo) = two_product(deviation, deviation);
        self.sum = self.sum.add(Double {
            hi: deviation,
            lo: 0.0,
        });
        self.squares = self.squares.add(Double { hi, lo });
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Deviations) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (hi, lo) = two_sum(other.pivot, -self.pivot);
        let move_by = Double { hi, lo };
        let all = move_by.times(Double::from(other.count));
        // (d + m)^2 = d^2 + m * (2d + m)
        let twice = other.sum.add(other.sum).add(all);
        self.squares = self.squares.add(other.squares).add(move_by.times(twice));
        self.sum = self.sum.add(other.sum).add(all);
        self.count += other.count;
    }

    /// The sum of squared deviations from the mean.
    fn squares_round_mean(&self) -> f64 {
        let n = Double::from(self.count);
        // Divided first: the square alone might leave the range.
        let shift = self.sum.over(n).times(self.sum);
        let squares = self.squares.add(shift.minus());
        let value = squares.hi + squares.lo;
        // Rounding may leave less than nothing. NaN stays.
        if value < 0.0 { 0.0 } else { value }
    }
}

/// A number as the sum of two floats, the second at most half a unit in the last place of the first.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, Default)]
struct Double {
    hi: f64,
    lo: f64,
}

impl From<u64> for Double {
    fn from(n: u64) -> Self {
        let hi = n as f64;
        Double {
            hi,
            lo: (i128::from(n) - hi as i128) as f64,
        }
    }
}

impl Double {
    /// For |hi| >= |lo| (Dekker's FastTwoSum).
    #[inline(always)]
    fn tidy(hi: f64, lo: f64) -> Self {
        let sum = hi + lo;
        Double {
            hi: sum,
            lo: lo - (sum - hi),
        }
    }

    #[inline(always)]
    fn add(self, other: Double) -> Double {
        let (hi, e) = two_sum(self.hi, other.hi);
        let (lo, f) = two_sum(self.lo, other.lo);
        let first = Double::tidy(hi, e + lo);
        Double::tidy(first.hi, first.lo + f)
    }

    #[inline(always)]
    fn minus(self) -> Double {
        Double {
            hi: -self.hi,
            lo: -self.lo,
        }
    }

    #[inline(always)]
    fn times(self, other: Double) -> Double {
        let (hi, e) = two_product(self.hi, other.hi);
        Double::tidy(hi, e + (self.hi * other.lo + self.lo * other.hi))
    }

    /// `other` is not 0.
    fn over(self, other: Double) -> Double {
        let first = self.hi / other.hi;
        let rest = self.add(other.times(Double { hi: first, lo: 0.0 }).minus());
        Double::tidy(first, rest.hi / other.hi)
    }
}

/// `a * b` rounded, and what the rounding took away (Dekker's product; a fused multiplication is a call on machines
/// that may lack it).
#[inline(always)]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let ((ah, al), (bh, bl)) = (halves(a), halves(b));
    let error = ((ah * bh - product) + ah * bl + al * bh) + al * bl;
    (product, error)
}

/// A float as a sum of two of 26 digits (Veltkamp).
#[inline(always)]
fn halves(a: f64) -> (f64, f64) {
    let c = 134_217_729.0 * a; // 2^27 + 1
    let high = c - (c - a);
    (high, a - high)
}

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, float, plans, scrambled};
    use super::*;
    use proptest::prelude::*;

    /// The exact variance of integers, rounded a few times.
    fn judge(values: &[i64], sample: bool) -> f64 {
        let n = values.len() as i128;
        let sum: i128 = values.iter().map(|&v| i128::from(v)).sum();
        let squares: i128 = values.iter().map(|&v| i128::from(v) * i128::from(v)).sum();
        (n * squares - sum * sum) as f64 / n as f64 / (n - i128::from(sample)) as f64
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn equal_within_1e_12_however_far_from_zero(
            small in prop::collection::vec(-1000i64..1000, 1..60),
            base in prop_oneof![Just(0), -1i64 << 51..1 << 51],
            outlier in prop_oneof![3 => Just(None), 1 => (-1i64 << 51..1 << 51).prop_map(Some)],
            scale in -300i32..300,
            plan in plans(),
        ) {
            let values: Vec<i64> = small.iter().map(|v| v + base).chain(outlier).collect();
            let scale = 2f64.powi(scale);
            let a = Aggs::<i64>::new();
            let real = move |v: &i64| *v as f64 * scale;
            let all = (a.variance(real), a.variance(real).sample(), a.stddev(real), a.variance(|v| *v));
            let got = scrambled(&all, &values, &plan);
            let near = |got: f64, want: f64| (got - want).abs() <= want * 1e-12 || (got.is_nan() && want.is_nan());
            let variance = judge(&values, false);
            prop_assert!(near(got.0 / scale / scale, variance), "{} is not {variance}", got.0 / scale / scale);
            prop_assert!(near(got.1 / scale / scale, judge(&values, true)));
            prop_assert!(near(got.2 / scale, variance.sqrt()));
            prop_assert!(near(got.3, variance));
        }

        #[test]
        fn no_float_gives_less_than_nothing(values in prop::collection::vec(prop_oneof![float(), super::super::scramble::finite()], 1..20), plan in plans()) {
            let got = scrambled(&Aggs::new().variance(|v: &f64| *v), &values, &plan);
            let in_range = values.iter().all(|v| v.abs() < TOO_LARGE);
            prop_assert_eq!(got >= 0.0 && got.is_finite(), in_range, "{}", got);
            prop_assert!(in_range || got.to_bits() == f64::NAN.to_bits());
        }

        #[test]
        fn the_least_deviations_give_nothing_rather_than_less(values in prop::collection::vec(0u8..6, 1..20), unit in 1e-163f64..1e-160, plan in plans()) {
            let got = scrambled(&Aggs::new().variance(move |v: &u8| f64::from(*v) * unit), &values, &plan);
            prop_assert!((0.0..1e-300).contains(&got), "{}", got);
        }

        #[test]
        fn equal_values_have_none(value in super::super::scramble::finite(), n in 1usize..20, plan in plans()) {
            let value = if value.abs() < TOO_LARGE { value } else { 1.0 / value };
            let got = scrambled(&Aggs::new().variance(|v: &f64| *v), &vec![value; n], &plan);
            prop_assert_eq!(got.to_bits(), 0);
        }
    }

    #[test]
    fn defined_at_the_ends() {
        let of = |values: &[f64]| {
            let plan = super::super::scramble::Plan { seed: 3 };
            scrambled(&Aggs::new().variance(|v: &f64| *v), values, &plan)
        };
        assert!(of(&[1.0, f64::INFINITY]).is_nan());
        assert!(of(&[f64::NAN]).is_nan());
        assert!(of(&[TOO_LARGE, TOO_LARGE]).is_nan());
        let (below, many) = (f64::from_bits(TOO_LARGE.to_bits() - 1), 1usize << 12);
        let ends: Vec<f64> = (0..many)
            .map(|n| if n % 2 == 0 { below } else { -below })
            .collect();
        assert!((of(&ends) / below / below - 1.0).abs() < 1e-12);
        // Squares that vanish, though their sum would not.
        let mut vanishing = Deviations::default();
        vanishing.add(0.0);
        (0..20).for_each(|_| vanishing.add(1.2e-162));
        assert_eq!(vanishing.squares_round_mean().to_bits(), 0);
        let one = scrambled(
            &Aggs::new().variance(|v: &f64| *v).sample(),
            &[1.0],
            &super::super::scramble::Plan { seed: 3 },
        );
        assert!(one.is_nan());
    }

    #[test]
    fn a_huge_count_does_not_overflow() {
        let mut acc = Deviations::default();
        acc.add(1e144);
        acc.add(-1e144);
        for _ in 0..61 {
            let same = acc;
            acc.merge(&same);
        }
        let mean = acc.squares_round_mean() / acc.count as f64;
        assert!((mean / 1e288 - 1.0).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn accumulators_are_small() {
        assert_eq!(size_of::<Deviations>(), 48);
    }
}
