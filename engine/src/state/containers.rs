//! State of the standard library's types: numbers, strings, and what is made of others.

use super::{Shape, State};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::time::Duration;

macro_rules! plain {
    ($($t:ty => $name:literal),* $(,)?) => { $(
        impl State for $t {
            fn shape(out: &mut Shape) {
                out.text($name);
            }
        }
    )* };
}

// Not usize and isize: rkyv archives them in 32 bits and says nothing of what it cuts off.
plain! {
    u8 => "u8", u16 => "u16", u32 => "u32", u64 => "u64", u128 => "u128",
    i8 => "i8", i16 => "i16", i32 => "i32", i64 => "i64", i128 => "i128",
    f32 => "f32", f64 => "f64", bool => "bool", char => "char", () => "()",
    String => "string", Box<str> => "boxed string", Duration => "duration",
}

/// Writes `before`, the shapes of the parts with `between` between them, and `after`.
macro_rules! parts {
    ($out:ident, $before:literal, $first:ident $($between:literal $rest:ident)*, $after:literal) => {
        $out.text($before);
        $out.part::<$first>();
        $( $out.text($between); $out.part::<$rest>(); )*
        $out.text($after);
    };
}

impl<T: State> State for Option<T> {
    fn shape(out: &mut Shape) {
        parts!(out, "option ", T, "");
    }
}

impl<T: State> State for Vec<T> {
    fn shape(out: &mut Shape) {
        parts!(out, "[", T, "]");
    }
}

/// As a `Vec`: one can be loaded as the other.
impl<T: State> State for VecDeque<T> {
    fn shape(out: &mut Shape) {
        parts!(out, "[", T, "]");
    }
}

impl<T: State> State for Box<T> {
    fn shape(out: &mut Shape) {
        parts!(out, "box ", T, "");
    }
}

impl<T: State, const N: usize> State for [T; N] {
    fn shape(out: &mut Shape) {
        parts!(out, "[", T, "; ");
        out.text(&N.to_string());
        out.text("]");
    }
}

impl<K: State + Ord, V: State> State for BTreeMap<K, V>
where
    K::Archived: Ord,
{
    fn shape(out: &mut Shape) {
        parts!(out, "ordered map {", K ": " V, "}");
    }
}

impl<T: State + Ord> State for BTreeSet<T>
where
    T::Archived: Ord,
{
    fn shape(out: &mut Shape) {
        parts!(out, "ordered set {", T, "}");
    }
}

/// Its order is another in each process: an answer must not depend on it.
impl<K, V, S> State for HashMap<K, V, S>
where
    K: State + Hash + Eq,
    K::Archived: Hash + Eq,
    V: State,
    S: BuildHasher + Default + Send + 'static,
{
    fn shape(out: &mut Shape) {
        parts!(out, "map {", K ": " V, "}");
    }
}

/// Its order is another in each process: an answer must not depend on it.
impl<T, S> State for HashSet<T, S>
where
    T: State + Hash + Eq,
    T::Archived: Hash + Eq,
    S: BuildHasher + Default + Send + 'static,
{
    fn shape(out: &mut Shape) {
        parts!(out, "set {", T, "}");
    }
}

/// Nothing is kept of it.
impl<T: ?Sized + 'static> State for PhantomData<T>
where
    PhantomData<T>: Send,
{
    fn shape(out: &mut Shape) {
        out.text("()");
    }
}

macro_rules! tuples {
    ($($first:ident $($rest:ident)*),* $(,)?) => { $(
        impl<$first: State, $($rest: State),*> State for ($first, $($rest,)*) {
            fn shape(out: &mut Shape) {
                out.text("(");
                out.part::<$first>();
                $( out.text(", "); out.part::<$rest>(); )*
                // `(u64,)` is another type than `u64`.
                out.text(tuples!(@end $($rest)*));
            }
        }
    )* };
    (@end) => { ",)" };
    (@end $($rest:ident)+) => { ")" };
}
tuples! {
    A, A B, A B C, A B C D, A B C D E, A B C D E F, A B C D E F G, A B C D E F G H, A B C D E F G H I,
    A B C D E F G H I J, A B C D E F G H I J K, A B C D E F G H I J K L,
}
