//! The arithmetic mean.

use super::{Aggregate, Aggs, At, Number};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The arithmetic mean of a value, in its unit, as `f64`. Of integers: their exact sum over their count, each
    /// rounded to `f64`, so byte-equal whatever the order. Of floats: their compensated sum over their count, equal
    /// within rounding; finite wherever the values are; NaN or infinities of both signs give NaN.
    /// O(1); 24 bytes a key, 16 for integers of up to 32 bits.
    pub fn avg<V: Number, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Avg<F, V> {
        Avg {
            f,
            value: PhantomData,
        }
    }
}

/// See [`Aggs::avg`].
#[derive(Clone, Copy, Debug)]
pub struct Avg<F, V> {
    pub(super) f: F,
    value: PhantomData<fn() -> V>,
}

impl<T, V: Number, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for Avg<F, V> {
    type Acc = (V::Sum, u64);
    type Out = f64;
    #[inline(always)]
    fn create(&self) -> (V::Sum, u64) {
        (V::zero(), 0)
    }
    #[inline(always)]
    fn add(&self, (sum, count): &mut (V::Sum, u64), record: &T, _: At) {
        (self.f)(record).add_to(sum);
        *count += 1;
    }
    #[inline(always)]
    fn merge(&self, acc: &mut (V::Sum, u64), other: &(V::Sum, u64)) {
        V::merge(&mut acc.0, &other.0);
        acc.1 += other.1;
    }
    #[inline(always)]
    fn finish(&self, (sum, count): &(V::Sum, u64)) -> f64 {
        V::mean(sum, *count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, finite, float, naive_float_sum, plans, scrambled};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn of_integers(values in prop::collection::vec(prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -9i64..9], 1..40), plan in plans()) {
            let a = Aggs::<i64>::new();
            let got = scrambled(&(a.avg(|v| *v), a.avg(|v| *v as u64), a.avg(|v| *v as i16), a.avg(|v| *v as u32)), &values, &plan);
            let n = values.len() as f64;
            let mean = |of: &dyn Fn(i64) -> i128| values.iter().map(|&v| of(v)).sum::<i128>() as f64 / n;
            prop_assert_eq!(got, (mean(&|v| v.into()), mean(&|v| (v as u64).into()), mean(&|v| (v as i16).into()), mean(&|v| (v as u32).into())));
        }

        #[test]
        fn of_ordinary_floats(values in prop::collection::vec(-1e9f64..1e9, 1..100), plan in plans()) {
            let got = scrambled(&Aggs::new().avg(|v: &f64| *v), &values, &plan);
            let (sum, magnitudes) = naive_float_sum(&values);
            let n = values.len() as f64;
            prop_assert!((got - sum / n).abs() <= (sum / n).abs() * 1e-12 || (got - sum / n).abs() <= magnitudes / n * 1e-28);
        }

        #[test]
        fn of_all_floats(values in prop::collection::vec(prop_oneof![4 => finite(), 1 => float()], 1..20), plan in plans()) {
            let got = scrambled(&Aggs::new().avg(|v: &f64| *v), &values, &plan);
            let halves: Vec<f64> = values.iter().map(|v| v / 64.0).collect();
            let (sum, magnitudes) = naive_float_sum(&halves);
            let n = values.len() as f64;
            if values.iter().all(|v| v.is_finite()) {
                prop_assert!((got / 64.0 - sum / n).abs() <= magnitudes / n * 1e-12 + 1e-320, "{got}, not {}", sum / n * 64.0);
                prop_assert!(got.is_finite());
            } else {
                prop_assert_eq!(got.to_bits(), sum.to_bits());
            }
        }

        #[test]
        fn of_f32(values in prop::collection::vec(-1e9f32..1e9, 1..40), plan in plans()) {
            let got = scrambled(&Aggs::new().avg(|v: &f32| *v), &values, &plan);
            let wide: Vec<f64> = values.iter().map(|&v| v.into()).collect();
            prop_assert_eq!(got, naive_float_sum(&wide).0 / values.len() as f64);
        }
    }
}
