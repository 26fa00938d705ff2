//! Values in a total order, for min, max and top-k.

use crate::time::{EventTime, Span};
use std::cmp::Reverse;

/// A value in a total order: numbers, strings, times, `bool`, `char`, tuples of them, and [`Reverse`] of them. For floats
/// the order is IEEE 754's with every NaN above +infinity and equal to other NaNs, so NaN wins `max` and loses `min`; -0 is below +0.
pub trait Ordered: Clone + Send + 'static {
    /// The best value so far, or none: the type itself where it has a least and a greatest value, to keep tables small.
    type Best: Clone + Send + 'static;
    /// Whether `self` comes before `other`.
    fn before(&self, other: &Self) -> bool;
    /// Loses against every value in a maximum.
    fn least() -> Self::Best;
    /// Loses against every value in a minimum.
    fn greatest() -> Self::Best;
    /// Keeps the greater.
    fn raise(best: &mut Self::Best, value: Self);
    /// Keeps the lesser.
    fn lower(best: &mut Self::Best, value: Self);
    /// Keeps the greater of two bests, either of which may be none.
    fn raise_best(best: &mut Self::Best, other: &Self::Best);
    /// Keeps the lesser of two bests, either of which may be none.
    fn lower_best(best: &mut Self::Best, other: &Self::Best);
    /// The best value; asked only after a value has come.
    fn best(best: &Self::Best) -> Self;
}

/// Types with a least and a greatest value.
macro_rules! ordered_with_ends {
    ($($t:ty, $least:expr, $greatest:expr, $before:expr, $best:expr;)*) => { $(
        impl Ordered for $t {
            type Best = $t;
            #[inline(always)]
            fn before(&self, other: &Self) -> bool {
                $before(*self, *other)
            }
            #[inline(always)]
            fn least() -> $t {
                $least
            }
            #[inline(always)]
            fn greatest() -> $t {
                $greatest
            }
            #[inline(always)]
            fn raise(best: &mut $t, value: $t) {
                // A choice and a store, not a branch that the processor could not guess.
                *best = if best.before(&value) { value } else { *best };
            }
            #[inline(always)]
            fn lower(best: &mut $t, value: $t) {
                *best = if value.before(best) { value } else { *best };
            }
            #[inline(always)]
            fn raise_best(best: &mut $t, other: &$t) {
                <$t>::raise(best, *other);
            }
            #[inline(always)]
            fn lower_best(best: &mut $t, other: &$t) {
                <$t>::lower(best, *other);
            }
            #[inline(always)]
            fn best(best: &$t) -> $t {
                $best(*best)
            }
        }
    )* };
}

/// Ordered by `<`, with ends of their own.
macro_rules! ordered_integers {
    ($($t:ty),*) => { ordered_with_ends! { $($t, <$t>::MIN, <$t>::MAX, |a: $t, b: $t| a < b, |a: $t| a;)* } };
}
ordered_integers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, char
);
ordered_with_ends! {
    bool, false, true, |a: bool, b: bool| !a && b, |a: bool| a;
    EventTime, EventTime::BEGINNING, EventTime::END, |a: EventTime, b: EventTime| a < b, |a: EventTime| a;
    Span, Span::from_micros(i64::MIN), Span::from_micros(i64::MAX), |a: Span, b: Span| a < b, |a: Span| a;
    f32, f32::NEG_INFINITY, f32::NAN, |a: f32, b: f32| float_before(a.into(), b.into()), |a: f32| if a.is_nan() { f32::NAN } else { a };
    f64, f64::NEG_INFINITY, f64::NAN, float_before, super::sum::plain;
}

#[inline(always)]
#[allow(clippy::double_comparisons)] // a != b holds for NaN as well
fn float_before(a: f64, b: f64) -> bool {
    if a < b || a > b {
        a < b
    } else {
        float_tie(a, b)
    }
}

/// Neither is greater: whether `a` comes first all the same, as a number before a NaN or -0 before +0.
#[cold]
fn float_tie(a: f64, b: f64) -> bool {
    (!a.is_nan() && b.is_nan()) || (a == b && a.is_sign_negative() && b.is_sign_positive())
}

/// The methods of types that have no ends, or none that can be written down: `None` is none.
macro_rules! optional_best {
    () => {
        type Best = Option<Self>;
        fn least() -> Option<Self> {
            None
        }
        fn greatest() -> Option<Self> {
            None
        }
        fn raise(best: &mut Option<Self>, value: Self) {
            if best.as_ref().is_none_or(|b| b.before(&value)) {
                *best = Some(value);
            }
        }
        fn lower(best: &mut Option<Self>, value: Self) {
            if best.as_ref().is_none_or(|b| value.before(b)) {
                *best = Some(value);
            }
        }
        fn raise_best(best: &mut Option<Self>, other: &Option<Self>) {
            if let Some(other) = other
                && best.as_ref().is_none_or(|b| b.before(other))
            {
                *best = Some(other.clone());
            }
        }
        fn lower_best(best: &mut Option<Self>, other: &Option<Self>) {
            if let Some(other) = other
                && best.as_ref().is_none_or(|b| other.before(b))
            {
                *best = Some(other.clone());
            }
        }
        fn best(best: &Option<Self>) -> Self {
            match best {
                Some(best) => best.clone(),
                None => unreachable!("an aggregate is not asked for the value of no records"),
            }
        }
    };
}

macro_rules! ordered_strings {
    ($($t:ty),*) => { $(
        impl Ordered for $t {
            fn before(&self, other: &Self) -> bool {
                self < other
            }
            optional_best!();
        }
    )* };
}
ordered_strings!(String, &'static str, std::sync::Arc<str>);

impl<A: Ordered, B: Ordered> Ordered for (A, B) {
    fn before(&self, other: &Self) -> bool {
        self.0.before(&other.0) || (!other.0.before(&self.0) && self.1.before(&other.1))
    }
    optional_best!();
}

impl<A: Ordered, B: Ordered, C: Ordered> Ordered for (A, B, C) {
    fn before(&self, other: &Self) -> bool {
        self.0.before(&other.0)
            || (!other.0.before(&self.0)
                && (self.1.before(&other.1)
                    || (!other.1.before(&self.1) && self.2.before(&other.2))))
    }
    optional_best!();
}

/// All equal: in top-k, ties go by event time and origin.
impl Ordered for () {
    type Best = ();
    fn before(&self, _: &()) -> bool {
        false
    }
    fn least() {}
    fn greatest() {}
    fn raise(_: &mut (), _: ()) {}
    fn lower(_: &mut (), _: ()) {}
    fn raise_best(_: &mut (), _: &()) {}
    fn lower_best(_: &mut (), _: &()) {}
    fn best(_: &()) {}
}

impl<V: Ordered> Ordered for Reverse<V> {
    type Best = V::Best;
    #[inline(always)]
    fn before(&self, other: &Self) -> bool {
        other.0.before(&self.0)
    }
    #[inline(always)]
    fn least() -> V::Best {
        V::greatest()
    }
    #[inline(always)]
    fn greatest() -> V::Best {
        V::least()
    }
    #[inline(always)]
    fn raise(best: &mut V::Best, value: Self) {
        V::lower(best, value.0);
    }
    #[inline(always)]
    fn lower(best: &mut V::Best, value: Self) {
        V::raise(best, value.0);
    }
    #[inline(always)]
    fn raise_best(best: &mut V::Best, other: &V::Best) {
        V::lower_best(best, other);
    }
    #[inline(always)]
    fn lower_best(best: &mut V::Best, other: &V::Best) {
        V::raise_best(best, other);
    }
    #[inline(always)]
    fn best(best: &V::Best) -> Self {
        Reverse(V::best(best))
    }
}
