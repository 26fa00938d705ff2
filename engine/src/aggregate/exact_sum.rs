//! The exact sum of floats, rounded once.
//!
//! Laws
//! 1. The accumulator holds the exact sum of the finite values, so the result is a function of the multiset of values:
//!    byte-equal whatever the order, the split and the merges, with an error of at most half a unit in the last place.
//! 2. Partial sums neither overflow nor underflow. Only a total beyond f64's range is infinite.
//! 3. NaN, or infinities of both signs, give NaN; an infinity of one sign gives itself. A sum of zeros, or one that
//!    cancels, is +0.
//!
//! The idea is Kulisch's long accumulator. A sum of values of ordinary sizes fits 128 bits, so the long one is taken only
//! when it does not.

use super::sum::Wide;
use super::{Aggregate, Aggs, At, sum};
use crate::state::LoadError;
use rkyv::rancor::{Fallible, Source};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Archived, Place};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The sum of a float, in its unit, as the `f64` nearest to the exact sum: byte-equal whatever the order, where
    /// [`Aggs::sum`] is equal within rounding. (Sums of integers are exact anyway.) O(1), about four times the instructions of `sum`.
    /// 24 bytes a key; 312 once the values of the key span more than 2^60 or so in size.
    pub fn sum_exact<V: Into<f64> + Clone + 'static, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> ExactSum<F, V> {
        ExactSum {
            f,
            value: PhantomData,
        }
    }
}

/// See [`Aggs::sum_exact`].
#[derive(Clone, Copy, Debug)]
pub struct ExactSum<F, V> {
    f: F,
    value: PhantomData<fn() -> V>,
}

impl<T, V: Into<f64> + Clone + 'static, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T>
    for ExactSum<F, V>
{
    type Acc = Exact;
    type Out = f64;
    #[inline(always)]
    fn create(&self) -> Exact {
        Exact::default()
    }
    #[inline(always)]
    fn add(&self, acc: &mut Exact, record: &T, _: At) {
        acc.add((self.f)(record).into());
    }
    #[inline]
    fn merge(&self, acc: &mut Exact, other: &Exact) {
        acc.merge(other);
    }
    #[inline]
    fn finish(&self, acc: &Exact) -> f64 {
        acc.total()
    }
}

/// An exact sum of floats.
#[crate::state(version = 1)]
#[derive(Clone, Debug, Default)]
pub struct Exact(Digits);

#[crate::state(version = 1)]
#[derive(Clone, Debug)]
enum Digits {
    /// `sum * 2^low`.
    Narrow {
        sum: Wide,
        #[rkyv(with = Exponent)]
        #[state(kept_as = i16)]
        low: i16,
    },
    /// All of f64's range and 2^77 times its end.
    Long(Box<Long>),
    /// An infinity or NaN has come: the rest no longer matters.
    Special(f64),
}

/// An exponent of the narrow form. Another one, which only damaged bytes have, would lie outside the long form.
struct Exponent;

impl ArchiveWith<i16> for Exponent {
    type Archived = Archived<i16>;
    type Resolver = ();
    fn resolve_with(low: &i16, (): (), out: Place<Self::Archived>) {
        low.resolve((), out);
    }
}

impl<S: Fallible + ?Sized> SerializeWith<i16, S> for Exponent {
    fn serialize_with(_: &i16, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

impl<D: Fallible<Error: Source> + ?Sized> DeserializeWith<Archived<i16>, i16, D> for Exponent {
    fn deserialize_with(low: &Archived<i16>, _: &mut D) -> Result<i16, D::Error> {
        let low = low.to_native();
        if !(LAST..=LARGEST).contains(&low.into()) {
            return Err(D::Error::new(LoadError::new(format!(
                "an exact sum with the exponent {low}"
            ))));
        }
        Ok(low)
    }
}

impl Default for Digits {
    fn default() -> Self {
        Digits::Narrow {
            sum: Wide::default(),
            low: 0,
        }
    }
}

/// The exponent of f64's last place.
const LAST: i32 = -1074;
/// That of its greatest power of two.
const LARGEST: i32 = 1023;

impl Exact {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let exponent = (bits >> 52) as i32 & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let (digits, low) = match exponent {
            0 if fraction == 0 => return,
            0 => (fraction, LAST),
            0x7ff => return self.special(value),
            _ => (fraction | 1 << 52, exponent + LAST - 1),
        };
        // Without its trailing zeros a round number leaves room below it.
        let zeros = digits.trailing_zeros();
        let digits = i128::from(digits >> zeros);
        let signed = if value < 0.0 { -digits } else { digits };
        self.add_at(signed, low + zeros as i32);
    }

    #[cold]
    fn special(&mut self, value: f64) {
        let before = match self.0 {
            Digits::Special(before) => before,
            _ => value,
        };
        self.0 = Digits::Special(before + value);
    }

    /// Adds `digits * 2^low`.
    #[inline]
    fn add_at(&mut self, digits: i128, low: i32) {
        match &mut self.0 {
            Digits::Narrow { sum, low: at } => {
                if let Some((s, l)) = narrow_sum(sum.get(), i32::from(*at), digits, low) {
                    *sum = Wide::from(s);
                    // Every exponent of f64 fits.
                    *at = l as i16;
                } else {
                    let mut long = Box::new(Long([0; LIMBS]));
                    long.add(sum.get(), i32::from(*at));
                    long.add(digits, low);
                    self.0 = Digits::Long(long);
                }
            }
            Digits::Long(long) => long.add(digits, low),
            Digits::Special(_) => {}
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Exact) {
        match &other.0 {
            Digits::Narrow { sum, low } => self.add_at(sum.get(), (*low).into()),
            Digits::Special(value) => self.special(*value),
            Digits::Long(theirs) => match &mut self.0 {
                Digits::Narrow { sum, low } => {
                    let mut long = theirs.clone();
                    long.add(sum.get(), (*low).into());
                    self.0 = Digits::Long(long);
                }
                Digits::Long(long) => long.merge(theirs),
                Digits::Special(_) => {}
            },
        }
    }

    /// The sum, rounded to the nearest float, ties to even.
    pub fn total(&self) -> f64 {
        match &self.0 {
            Digits::Narrow { sum, low } => {
                rounded(sum.get() < 0, sum.get().unsigned_abs(), (*low).into())
            }
            Digits::Long(long) => long.total(),
            Digits::Special(value) => sum::plain(*value),
        }
    }
}

/// `a * 2^a_low + b * 2^b_low` in 128 bits with the lower of both exponents, if it fits.
#[inline]
fn narrow_sum(a: i128, a_low: i32, b: i128, b_low: i32) -> Option<(i128, i32)> {
    if b == 0 {
        return Some((a, a_low));
    }
    if a == 0 {
        return Some((b, b_low));
    }
    let low = a_low.min(b_low);
    let a = shifted(a, a_low - low)?;
    let b = shifted(b, b_low - low)?;
    Some((a.checked_add(b)?, low))
}

/// `value << by`, if it fits.
#[inline]
fn shifted(value: i128, by: i32) -> Option<i128> {
    // One bit for the sign, and one that keeps the least i128 out, whose magnitude is none.
    (by as u32 + 1 < value.unsigned_abs().leading_zeros()).then(|| value << by)
}

/// `magnitude * 2^low` as a float. The one rounding is that of the magnitude: where it has more than 53 digits the result
/// is a normal number, and where it has not, the result is exact, since low >= LAST.
fn rounded(negative: bool, magnitude: u128, low: i32) -> f64 {
    let scale = match low {
        // The magnitude is then a digit at least: beyond the range.
        1024.. => f64::INFINITY,
        -1022.. => f64::from_bits(((low + 1023) as u64) << 52),
        _ => f64::from_bits(1 << (low - LAST)),
    };
    if magnitude == 0 {
        return 0.0;
    }
    let value = magnitude as f64 * scale;
    if negative { -value } else { value }
}

/// Words of the long accumulator: 2^-1074 up to 2^1024 times 2^128, and a sign.
const LIMBS: usize = 36;

/// A number of 2304 bits in two's complement, the least word first, in units of 2^LAST.
#[crate::state(version = 1)]
#[derive(Clone, Debug)]
struct Long([u64; LIMBS]);

impl Long {
    /// Adds `digits * 2^low`.
    fn add(&mut self, digits: i128, low: i32) {
        let magnitude = digits.unsigned_abs();
        let place = (low - LAST) as usize;
        let (limb, shift) = (place / 64, place % 64);
        let bottom = magnitude << shift;
        let top = if shift == 0 {
            0
        } else {
            (magnitude >> (128 - shift)) as u64
        };
        let words = [bottom as u64, (bottom >> 64) as u64, top];
        let mut carry = false;
        for (n, word) in self.0[limb..].iter_mut().enumerate() {
            let by = words.get(n).copied().unwrap_or(0);
            if n >= words.len() && !carry {
                return;
            }
            (*word, carry) = if digits < 0 {
                word.borrowing_sub(by, carry)
            } else {
                word.carrying_add(by, carry)
            };
        }
    }

    fn merge(&mut self, other: &Long) {
        let mut carry = false;
        for (word, by) in self.0.iter_mut().zip(other.0) {
            (*word, carry) = word.carrying_add(by, carry);
        }
    }

    fn total(&self) -> f64 {
        let negative = self.0[LIMBS - 1] >> 63 == 1;
        let mut magnitude = self.clone();
        if negative {
            let mut carry = true;
            for word in &mut magnitude.0 {
                (*word, carry) = (!*word).overflowing_add(u64::from(carry));
            }
        }
        let words = magnitude.0;
        let Some(top) = words.iter().rposition(|&w| w != 0) else {
            return 0.0;
        };
        if top == 0 {
            return rounded(negative, words[0].into(), LAST);
        }
        // At least 65 digits; what lies below them only matters by not being nothing.
        let below = words[..top - 1].iter().any(|&w| w != 0);
        let two = u128::from(words[top]) << 64 | u128::from(words[top - 1]);
        rounded(
            negative,
            two | u128::from(below),
            LAST + 64 * (top as i32 - 1),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, finite, float, plans, scrambled};
    use super::*;
    use proptest::prelude::*;

    /// A judge of another make: it counts every digit's place, carries by hand, and rounds digit by digit.
    fn judge(values: &[f64]) -> f64 {
        let special: f64 = values.iter().filter(|v| !v.is_finite()).sum();
        if values.iter().any(|v| !v.is_finite()) {
            return sum::plain(special);
        }
        let mut places = vec![0i64; 2300];
        for v in values {
            let exponent = (v.to_bits() >> 52) as usize & 0x7ff;
            let digits = v.to_bits() & ((1 << 52) - 1) | u64::from(exponent > 0) << 52;
            for n in (0..53).filter(|n| digits >> n & 1 == 1) {
                places[n + exponent.max(1) - 1] += if *v < 0.0 { -1 } else { 1 };
            }
        }
        let last = places.iter().rposition(|&p| p != 0);
        let negative = carried(&places).is_none();
        if negative {
            places.iter_mut().for_each(|p| *p = -*p);
        }
        let (Some(_), Some(digits)) = (last, carried(&places)) else {
            return 0.0;
        };
        let Some(top) = digits.iter().rposition(|&d| d) else {
            return 0.0;
        };
        let bottom = top.saturating_sub(52);
        let mut kept = (bottom..=top)
            .rev()
            .fold(0u64, |k, n| k << 1 | u64::from(digits[n]));
        let half = bottom > 0 && digits[bottom - 1];
        let rest = bottom > 1 && digits[..bottom - 1].iter().any(|&d| d);
        if half && (rest || kept & 1 == 1) {
            kept += 1;
        }
        // Two exact steps: one power alone may lie outside the range.
        let scale = bottom as i32 + LAST;
        let value = kept as f64 * 2f64.powi(scale / 2) * 2f64.powi(scale - scale / 2);
        if negative { -value } else { value }
    }

    /// The digits of a number that is not negative.
    fn carried(places: &[i64]) -> Option<Vec<bool>> {
        let mut carry = 0i64;
        let digits = places
            .iter()
            .map(|p| {
                let here = p + carry;
                carry = here.div_euclid(2);
                here.rem_euclid(2) == 1
            })
            .collect();
        (carry == 0).then_some(digits)
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn the_exact_sum_is_rounded_once(values in prop::collection::vec(prop_oneof![6 => finite(), 1 => float()], 0..40), plan in plans()) {
            let got = scrambled(&Aggs::new().sum_exact(|v: &f64| *v), &values, &plan);
            prop_assert_eq!(got.to_bits(), judge(&values).to_bits(), "{} is not {}", got, judge(&values));
        }

        #[test]
        fn what_cancels_leaves_the_rest(values in prop::collection::vec(finite(), 1..30), small in finite(), plan in plans()) {
            let mut all = values.clone();
            all.extend(values.iter().map(|v| -v));
            all.push(small);
            let got = scrambled(&Aggs::new().sum_exact(|v: &f64| *v), &all, &plan);
            prop_assert_eq!(got.to_bits(), (small + 0.0).to_bits());
        }

        #[test]
        fn ordinary_values_stay_narrow(cents in prop::collection::vec(-1_000_000_000i64..1_000_000_000, 1..100)) {
            let mut exact = Exact::default();
            let values: Vec<f64> = cents.iter().map(|&c| c as f64 / 100.0).collect();
            values.iter().for_each(|&v| exact.add(v));
            prop_assert!(matches!(exact.0, Digits::Narrow { .. }), "{exact:?}");
            prop_assert_eq!(exact.total().to_bits(), judge(&values).to_bits());
        }
    }

    fn total(values: &[f64]) -> f64 {
        let mut exact = Exact::default();
        values.iter().for_each(|&v| exact.add(v));
        exact.total()
    }

    #[test]
    fn the_ends_of_the_range() {
        let (max, least) = (f64::MAX, 5e-324);
        assert_eq!(total(&[max, max, -max]), max);
        assert_eq!(total(&[max, max]), f64::INFINITY);
        assert_eq!(total(&[-max, -max]), f64::NEG_INFINITY);
        // A quarter of the last place more is rounded away; half of it is not.
        assert_eq!(total(&[max, 2f64.powi(969)]), max);
        assert_eq!(total(&[max, 2f64.powi(970)]), f64::INFINITY);
        assert_eq!(total(&[max, 2f64.powi(970), -least]), max);
        assert_eq!(total(&[least, least, least]), 1.5e-323);
        assert_eq!(total(&[1.0, least, -1.0]), least);
        // Ties go to even, and the least digit below breaks them.
        let half = 2f64.powi(-53);
        assert_eq!(total(&[1.0, half]), 1.0);
        assert_eq!(total(&[1.0, half, least]), 1.0 + f64::EPSILON);
        assert_eq!(total(&[-0.0, -0.0]).to_bits(), 0);
        assert_eq!(total(&[]).to_bits(), 0);
    }

    #[test]
    fn every_power_of_two() {
        for exponent in LAST..1024 {
            let power = 2f64.powi(exponent);
            assert_eq!(total(&[power]), power);
            assert_eq!(total(&[-power, -power, -power]), -3.0 * power);
            // By way of the long accumulator.
            let far = if exponent < 0 {
                2f64.powi(1000)
            } else {
                2f64.powi(-1000)
            };
            assert_eq!(total(&[power, far, -far]), power);
        }
    }

    #[test]
    fn many_of_the_greatest() {
        // 2^20 doublings of the greatest and as many of its negative, and one.
        let mut exact = Exact::default();
        exact.add(f64::MAX);
        for _ in 0..60 {
            let same = exact.clone();
            exact.merge(&same);
        }
        assert_eq!(exact.total(), f64::INFINITY);
        let mut less = Exact::default();
        less.add(-f64::MAX);
        for _ in 0..60 {
            let same = less.clone();
            less.merge(&same);
        }
        less.add(1.0);
        exact.merge(&less);
        assert_eq!(exact.total(), 1.0);
    }

    #[test]
    fn accumulators_are_small() {
        assert_eq!((size_of::<Exact>(), size_of::<Long>()), (24, 288));
    }

    #[test]
    fn an_exponent_that_no_sum_has_is_refused() {
        use crate::state::{Codec, LoadError};
        let mut codec = Codec::default();
        for low in [
            LAST,
            -1,
            0,
            LARGEST,
            LAST - 1,
            LARGEST + 1,
            i16::MIN.into(),
            i16::MAX.into(),
        ] {
            let bytes = codec.bytes_of(&Exact(Digits::Narrow {
                sum: Wide::from(1),
                low: low as i16,
            }));
            let loaded: Result<Exact, LoadError> = codec.load(&bytes);
            assert_eq!(loaded.is_ok(), (LAST..=LARGEST).contains(&low), "{low}");
            if let Ok(mut exact) = loaded {
                exact.add(f64::MAX);
                exact.add(-f64::MAX);
                assert!(exact.total() > 0.0, "{low}");
            }
        }
    }
}
