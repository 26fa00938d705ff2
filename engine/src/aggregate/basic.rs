//! Count, sum, min, max.

use super::{Aggregate, Aggs, At, Ordered};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// How many records: `u64`.
    pub fn count(&self) -> Count {
        Count
    }
    /// Their sum. Integers widen to 64 bits and saturate at its ends; floats are compensated (law 3).
    pub fn sum<V: Number, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Sum<F, V> {
        Sum {
            f,
            value: PhantomData,
        }
    }
    /// The least value.
    pub fn min<V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Min<F, V> {
        Min {
            f,
            value: PhantomData,
        }
    }
    /// The greatest value.
    pub fn max<V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static>(&self, f: F) -> Max<F, V> {
        Max {
            f,
            value: PhantomData,
        }
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

/// What can be summed: the accumulator and the result of its type.
pub trait Number: Clone + Send + 'static {
    /// What the sum is kept in.
    type Sum: Clone + Send + 'static;
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
}

macro_rules! integers {
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
        }
    )* };
}
integers!(i64: i8, i16, i32, i64, isize);
integers!(u64: u8, u16, u32, u64, usize);

/// See [`Aggs::sum`].
#[derive(Clone, Copy, Debug)]
pub struct Sum<F, V> {
    f: F,
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

/// A sum and what its additions rounded away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compensated {
    sum: f64,
    error: f64,
}

impl Compensated {
    /// Adds a value; the rounding error is had without a branch (Knuth's TwoSum).
    #[inline(always)]
    pub fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        let back = sum - self.sum;
        self.error += (self.sum - (sum - back)) + (value - back);
        self.sum = sum;
    }

    /// Adds another sum.
    #[inline(always)]
    pub fn merge(&mut self, other: &Compensated) {
        self.add(other.sum);
        self.error += other.error;
    }

    /// The total. Infinities and NaN are what plain addition gives: their rounding error means nothing.
    #[inline(always)]
    pub fn total(&self) -> f64 {
        if self.sum.is_finite() {
            self.sum + self.error
        } else {
            self.sum
        }
    }
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
        }
    )* };
}
floats!(f32, f64);

macro_rules! extreme {
    ($name:ident, $method:literal, $none:ident, $keep:ident) => {
        #[doc = concat!("See [`Aggs::", $method, "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F, V> {
            f: F,
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
                V::$keep(acc, V::best(other));
            }
            #[inline(always)]
            fn finish(&self, acc: &V::Best) -> V {
                V::best(acc)
            }
        }
    };
}
extreme!(Min, "min", greatest, lower);
extreme!(Max, "max", least, raise);
