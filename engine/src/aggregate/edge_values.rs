//! The first and the last value, by event time.

use super::{Aggregate, Aggs, At};
use crate::state::State;
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The value of the record with the least (event time, origin): whatever order records come in.
    /// O(1); a key takes the value and 32 bytes. The value is had from a record only if it is the first so far.
    pub fn first<V: Clone + State, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> First<F, V> {
        First {
            f,
            value: PhantomData,
        }
    }

    /// The value of the record with the greatest (event time, origin): whatever order records come in.
    /// O(1); a key takes the value and 32 bytes. The value is had from a record only if it is the last so far.
    pub fn last<V: Clone + State, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> Last<F, V> {
        Last {
            f,
            value: PhantomData,
        }
    }
}

macro_rules! edge {
    ($name:ident, $method:literal, $wins:expr) => {
        #[doc = concat!("See [`Aggs::", $method, "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F, V> {
            f: F,
            value: PhantomData<fn() -> V>,
        }

        impl<T, V: Clone + State, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T>
            for $name<F, V>
        {
            type Acc = Option<(At, V)>;
            type Out = V;
            const NEEDS_ORIGINS: bool = true;
            #[inline(always)]
            fn create(&self) -> Self::Acc {
                None
            }
            #[inline(always)]
            fn add(&self, acc: &mut Self::Acc, record: &T, at: At) {
                if acc.as_ref().is_none_or(|(old, _)| $wins(&at, old)) {
                    *acc = Some((at, (self.f)(record)));
                }
            }
            #[inline]
            fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc) {
                if let Some((at, value)) = other
                    && acc.as_ref().is_none_or(|(old, _)| $wins(at, old))
                {
                    *acc = Some((*at, value.clone()));
                }
            }
            #[inline]
            fn finish(&self, acc: &Self::Acc) -> V {
                match acc {
                    Some((_, value)) => value.clone(),
                    None => unreachable!("an aggregate is not asked for the value of no records"),
                }
            }
        }
    };
}
// Two records share a place only where one replaces the other (a window's updates): the later arrival is then the last.
edge!(First, "first", |new: &At, old: &At| new < old);
edge!(Last, "last", |new: &At, old: &At| new >= old);

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, plans, scrambled};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn first_and_last_go_by_place(values in prop::collection::vec("[a-c]{0,3}", 1..30), plan in plans()) {
            let a = Aggs::<String>::new();
            let both = (a.first(String::clone), a.last(String::clone), a.last(|v| v.len() as u64));
            let (first, last) = (values[0].clone(), values[values.len() - 1].clone());
            let len = last.len() as u64;
            prop_assert_eq!(scrambled(&both, &values, &plan), (first, last, len));
        }
    }

    #[test]
    fn floats_come_out_as_they_went_in() {
        let odd = f64::from_bits(0xfff8_0000_0000_1234);
        let plan = super::super::scramble::Plan { seed: 1 };
        let last = scrambled(&Aggs::new().last(|v: &f64| *v), &[1.0, odd], &plan);
        assert_eq!(last.to_bits(), odd.to_bits());
    }
}
