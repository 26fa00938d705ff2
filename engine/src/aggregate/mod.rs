//! Aggregates: how many records become one value.
//!
//! Laws
//! 1. `merge(add(a, x), b)` equals `add(merge(a, b), x)`: an aggregate does not depend on the order in which records come.
//!    Where an order matters (first, last, collect, top-k) it is that of (event time, origin), and the aggregate says so by [`Aggregate::NEEDS_ORIGINS`].
//! 2. An aggregate is never asked for the value of no records: an empty window vanishes.
//! 3. Floats are never inverted (added and later subtracted); sums of floats are compensated.

mod basic;
mod tuple;

pub use basic::{Count, Max, Min, Number, Sum};

use crate::batch::Origin;
use crate::time::EventTime;
use std::marker::PhantomData;

/// The place of a record in the order of its stream: (event time, origin).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Its event time.
    pub time: EventTime,
    /// Where it came from; the default where the aggregate did not ask for origins.
    pub origin: Origin,
}

/// Turns records of type `T` into one value. Cheap to clone: one clone a shard.
pub trait Aggregate<T>: Clone + Send + 'static {
    /// What is kept for each key and window.
    type Acc: Clone + Send + 'static;
    /// The result.
    type Out: Clone + Send + 'static;
    /// Whether it breaks ties by origin: only then do records carry theirs.
    const NEEDS_ORIGINS: bool = false;
    /// An accumulator that has seen nothing.
    fn create(&self) -> Self::Acc;
    /// Takes a record.
    fn add(&self, acc: &mut Self::Acc, record: &T, at: At);
    /// Takes what another accumulator has seen.
    fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc);
    /// The value so far.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;
}

/// Makes aggregates whose closures know the record's type: `|a| (a.count(), a.sum(|o| o.total))`.
#[derive(Debug)]
pub struct Aggs<T>(PhantomData<fn(T)>);

impl<T> Aggs<T> {
    pub(crate) fn new() -> Self {
        Aggs(PhantomData)
    }
}

/// A value in a total order, for min, max and top-k: numbers, strings, times. For floats the order is IEEE 754's with
/// every NaN above +infinity and equal to other NaNs, so NaN wins `max` and loses `min`; -0 is below +0.
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
    /// The best value; asked only after a value has come.
    fn best(best: &Self::Best) -> Self;
}

macro_rules! ordered_numbers {
    ($($t:ty, $least:expr, $greatest:expr, $before:expr;)*) => { $(
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
                if best.before(&value) {
                    *best = value;
                }
            }
            #[inline(always)]
            fn lower(best: &mut $t, value: $t) {
                if value.before(best) {
                    *best = value;
                }
            }
            #[inline(always)]
            fn best(best: &$t) -> $t {
                *best
            }
        }
    )* };
}

/// Ordered by `<`, with the type's own ends.
macro_rules! ordered_integers {
    ($($t:ty),*) => { ordered_numbers! { $($t, <$t>::MIN, <$t>::MAX, |a: $t, b: $t| a < b;)* } };
}
ordered_integers!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);
ordered_numbers! {
    EventTime, EventTime::BEGINNING, EventTime::END, |a: EventTime, b: EventTime| a < b;
    f32, f32::NEG_INFINITY, f32::NAN, |a: f32, b: f32| a < b || (!(a > b) && float_tie(a.into(), b.into()));
    f64, f64::NEG_INFINITY, f64::NAN, |a: f64, b: f64| a < b || (!(a > b) && float_tie(a, b));
}

/// Neither is greater: whether `a` comes first all the same, as a number before a NaN or -0 before +0.
#[inline]
fn float_tie(a: f64, b: f64) -> bool {
    (!a.is_nan() && b.is_nan()) || (a == b && a.is_sign_negative() && b.is_sign_positive())
}

impl Ordered for String {
    type Best = Option<String>;
    fn before(&self, other: &Self) -> bool {
        self < other
    }
    fn least() -> Option<String> {
        None
    }
    fn greatest() -> Option<String> {
        None
    }
    fn raise(best: &mut Option<String>, value: String) {
        if best.as_ref().is_none_or(|b| b.before(&value)) {
            *best = Some(value);
        }
    }
    fn lower(best: &mut Option<String>, value: String) {
        if best.as_ref().is_none_or(|b| value.before(b)) {
            *best = Some(value);
        }
    }
    fn best(best: &Option<String>) -> String {
        best.clone().unwrap_or_default()
    }
}
