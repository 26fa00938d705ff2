//! Values in a total order, for min, max and top-k.

use crate::state::{Shape, State};
use crate::time::{EventTime, Span};
use rkyv::rancor::Fallible;
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Archived, Deserialize, Place, Serialize};
use std::cmp::Reverse;

/// A value in a total order: numbers, strings, times, `bool`, `char`, tuples of them, and [`Reverse`] of them. For floats
/// the order is IEEE 754's with every NaN above +infinity and equal to other NaNs, so NaN wins `max` and loses `min`; -0 is below +0.
pub trait Ordered: Clone + Send + 'static {
    /// The best value so far, or none: the type itself where it has a least and a greatest value, to keep tables small.
    type Best: Clone + State;
    /// What a value is kept as in a checkpoint: itself where it can be.
    type Kept: State;
    /// The value as it is kept.
    fn keep(&self) -> Self::Kept;
    /// The value that was kept.
    fn back(kept: Self::Kept) -> Self;
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

/// A value that an aggregate holds, as [`Ordered::keep`] says.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Rank<V: Ordered>(#[rkyv(with = AsKept)] pub(super) V);

impl<V: Ordered> Rank<V> {
    /// Of this value.
    pub(crate) fn of(value: V) -> Self {
        Rank(value)
    }

    /// The value.
    pub(crate) fn value(&self) -> &V {
        &self.0
    }
}

/// Keeps a value as its [`Ordered::Kept`].
struct AsKept;

impl<V: Ordered> ArchiveWith<V> for AsKept {
    type Archived = Archived<V::Kept>;
    /// What is kept, which nobody else holds until it has been written.
    type Resolver = (V::Kept, <V::Kept as Archive>::Resolver);
    fn resolve_with(_: &V, (kept, resolver): Self::Resolver, out: Place<Self::Archived>) {
        kept.resolve(resolver, out);
    }
}

impl<V: Ordered<Kept: Serialize<S>>, S: Fallible + ?Sized> SerializeWith<V, S> for AsKept {
    fn serialize_with(value: &V, to: &mut S) -> Result<Self::Resolver, S::Error> {
        let kept = value.keep();
        let resolver = kept.serialize(to)?;
        Ok((kept, resolver))
    }
}

impl<V, D> DeserializeWith<Archived<V::Kept>, V, D> for AsKept
where
    V: Ordered,
    Archived<V::Kept>: Deserialize<V::Kept, D>,
    D: Fallible + ?Sized,
{
    fn deserialize_with(kept: &Archived<V::Kept>, from: &mut D) -> Result<V, D::Error> {
        kept.deserialize(from).map(V::back)
    }
}

impl<V: Ordered> State for Rank<V> {
    fn shape(out: &mut Shape) {
        out.part::<V::Kept>();
    }
}

/// Kept as it is.
macro_rules! kept_as_it_is {
    () => {
        type Kept = Self;
        #[inline]
        fn keep(&self) -> Self {
            self.clone()
        }
        #[inline]
        fn back(kept: Self) -> Self {
            kept
        }
    };
}

/// Types with a least and a greatest value.
macro_rules! ordered_with_ends {
    ($($t:ty, $least:expr, $greatest:expr, $before:expr, $last:expr, $first:expr, $best:expr;)*) => { $(
        impl Ordered for $t {
            type Best = $t;
            kept_as_it_is!();
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
                *best = $last(*best, value);
            }
            #[inline(always)]
            fn lower(best: &mut $t, value: $t) {
                *best = $first(*best, value);
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
    ($($t:ty),*) => { ordered_with_ends! { $($t, <$t>::MIN, <$t>::MAX, |a: $t, b: $t| a < b, <$t as Ord>::max, <$t as Ord>::min, |a: $t| a;)* } };
}
ordered_integers!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, char);

/// Integers without a width of their own, which cannot be kept: the best one is held in 64 bits.
macro_rules! ordered_sizes {
    ($($t:ty => $wide:ty),*) => { $(
        impl Ordered for $t {
            type Best = $wide;
            type Kept = $wide;
            #[inline]
            fn keep(&self) -> $wide {
                *self as $wide
            }
            #[inline]
            fn back(kept: $wide) -> $t {
                kept as $t
            }
            #[inline(always)]
            fn before(&self, other: &Self) -> bool {
                self < other
            }
            #[inline(always)]
            fn least() -> $wide {
                <$wide>::MIN
            }
            #[inline(always)]
            fn greatest() -> $wide {
                <$wide>::MAX
            }
            #[inline(always)]
            fn raise(best: &mut $wide, value: $t) {
                <$wide>::raise(best, value as $wide);
            }
            #[inline(always)]
            fn lower(best: &mut $wide, value: $t) {
                <$wide>::lower(best, value as $wide);
            }
            #[inline(always)]
            fn raise_best(best: &mut $wide, other: &$wide) {
                <$wide>::raise(best, *other);
            }
            #[inline(always)]
            fn lower_best(best: &mut $wide, other: &$wide) {
                <$wide>::lower(best, *other);
            }
            #[inline(always)]
            fn best(best: &$wide) -> $t {
                *best as $t
            }
        }
    )* };
}
ordered_sizes!(usize => u64, isize => i64);

ordered_with_ends! {
    bool, false, true, |a: bool, b: bool| !a && b, <bool as Ord>::max, <bool as Ord>::min, |a: bool| a;
    EventTime, EventTime::BEGINNING, EventTime::END, |a: EventTime, b: EventTime| a < b,
        <EventTime as Ord>::max, <EventTime as Ord>::min, |a: EventTime| a;
    Span, Span::from_micros(i64::MIN), Span::from_micros(i64::MAX), |a: Span, b: Span| a < b,
        <Span as Ord>::max, <Span as Ord>::min, |a: Span| a;
    f32, f32::NEG_INFINITY, f32::NAN, |a: f32, b: f32| float_before(a.into(), b.into()),
        |a: f32, b: f32| float_last(a.into(), b.into()) as f32, |a: f32, b: f32| float_first(a.into(), b.into()) as f32,
        |a: f32| if a.is_nan() { f32::NAN } else { a };
    f64, f64::NEG_INFINITY, f64::NAN, float_before, float_last, float_first, super::sum::plain;
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

/// The one that comes last. One comparison tells that they are apart, and the choice is then an instruction's.
#[inline(always)]
#[allow(clippy::double_comparisons)]
fn float_last(a: f64, b: f64) -> f64 {
    if a < b || a > b {
        if b > a { b } else { a }
    } else if float_tie(a, b) {
        b
    } else {
        a
    }
}

/// The one that comes first.
#[inline(always)]
#[allow(clippy::double_comparisons)]
fn float_first(a: f64, b: f64) -> f64 {
    if a < b || a > b {
        if b < a { b } else { a }
    } else if float_tie(b, a) {
        b
    } else {
        a
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
        type Best = Option<Rank<Self>>;
        fn least() -> Self::Best {
            None
        }
        fn greatest() -> Self::Best {
            None
        }
        fn raise(best: &mut Self::Best, value: Self) {
            if best.as_ref().is_none_or(|b| b.0.before(&value)) {
                *best = Some(Rank(value));
            }
        }
        fn lower(best: &mut Self::Best, value: Self) {
            if best.as_ref().is_none_or(|b| value.before(&b.0)) {
                *best = Some(Rank(value));
            }
        }
        fn raise_best(best: &mut Self::Best, other: &Self::Best) {
            if let Some(other) = other
                && best.as_ref().is_none_or(|b| b.0.before(&other.0))
            {
                *best = Some(other.clone());
            }
        }
        fn lower_best(best: &mut Self::Best, other: &Self::Best) {
            if let Some(other) = other
                && best.as_ref().is_none_or(|b| other.0.before(&b.0))
            {
                *best = Some(other.clone());
            }
        }
        fn best(best: &Self::Best) -> Self {
            match best {
                Some(best) => best.0.clone(),
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
            kept_as_it_is!();
            optional_best!();
        }
    )* };
}
ordered_strings!(String, Box<str>);

impl<A: Ordered, B: Ordered> Ordered for (A, B) {
    type Kept = (A::Kept, B::Kept);
    fn keep(&self) -> Self::Kept {
        (self.0.keep(), self.1.keep())
    }
    fn back((a, b): Self::Kept) -> Self {
        (A::back(a), B::back(b))
    }
    fn before(&self, other: &Self) -> bool {
        self.0.before(&other.0) || (!other.0.before(&self.0) && self.1.before(&other.1))
    }
    optional_best!();
}

impl<A: Ordered, B: Ordered, C: Ordered> Ordered for (A, B, C) {
    type Kept = (A::Kept, B::Kept, C::Kept);
    fn keep(&self) -> Self::Kept {
        (self.0.keep(), self.1.keep(), self.2.keep())
    }
    fn back((a, b, c): Self::Kept) -> Self {
        (A::back(a), B::back(b), C::back(c))
    }
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
    type Kept = ();
    fn keep(&self) {}
    fn back(_: ()) {}
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
    type Kept = V::Kept;
    fn keep(&self) -> V::Kept {
        self.0.keep()
    }
    fn back(kept: V::Kept) -> Self {
        Reverse(V::back(kept))
    }
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
