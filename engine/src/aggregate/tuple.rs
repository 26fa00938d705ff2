//! Tuples of aggregates: each sees every record, the results come as a tuple.

use super::{Aggregate, At};

macro_rules! tuples {
    ($($name:ident $index:tt),+) => {
        impl<T, $($name: Aggregate<T>),+> Aggregate<T> for ($($name,)+) {
            type Acc = ($($name::Acc,)+);
            type Out = ($($name::Out,)+);
            const NEEDS_ORIGINS: bool = $($name::NEEDS_ORIGINS)||+;
            const GROWS: bool = $($name::GROWS)||+;
            #[inline(always)]
            fn create(&self) -> Self::Acc {
                ($(self.$index.create(),)+)
            }
            #[inline(always)]
            fn add(&self, acc: &mut Self::Acc, record: &T, at: At) {
                $(self.$index.add(&mut acc.$index, record, at);)+
            }
            #[inline(always)]
            fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc) {
                $(self.$index.merge(&mut acc.$index, &other.$index);)+
            }
            #[inline(always)]
            fn finish(&self, acc: &Self::Acc) -> Self::Out {
                ($(self.$index.finish(&acc.$index),)+)
            }
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
