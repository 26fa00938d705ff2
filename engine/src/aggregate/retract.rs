//! Aggregates that take records away again: what may follow [`KeyedStream::apply_changes`](crate::KeyedStream::apply_changes).
//!
//! Laws
//! 1. What a key's aggregate is depends on the rows that stand alone, not on those that came and went: taking away undoes adding, to the
//!    last bit.
//! 2. So floats are not summed here: subtracting what was added leaves what rounding made of it. Their sums and means are refused by the compiler.
//! 3. Sums of integers are kept in 128 bits, of which none is lost on the way; only the result saturates.
//! 4. The least and the greatest value need all values that stand, in an order ([`Multisets`]): the one who comes next when the first goes.
//!
//! | aggregate | a key takes | a change costs |
//! |---|---|---|
//! | [`Aggs::count`] | nothing more | O(1) |
//! | [`Aggs::sum`], [`Aggs::avg`] of integers | 16 bytes | O(1) |
//! | [`Aggs::min`], [`Aggs::max`] | each different value and 28 bytes, and some 80 bytes | O(log values) |
//! | [`Aggs::map`] of such, tuples of such | what its parts take | what its parts cost |
//! | [`Aggs::retractable`] | its accumulator | what it does |

use super::{Aggregate, Aggs, At, Avg, Count, Mapped, Max, Min, Number, Ordered, Rank, Sum, Wide};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::operators::multisets::{LOOKS, Multisets};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};

impl<T: 'static> Aggs<T> {
    /// An aggregate of your own that can take records away, for [`KeyedStream::apply_changes`](crate::KeyedStream::apply_changes):
    /// see [`Retractable`].
    pub fn retractable<A: Retractable<T>>(&self, aggregate: A) -> Own<A> {
        Own(aggregate)
    }
}

/// An aggregate of your own whose accumulator can take a record away again.
///
/// The law that is its to keep: whatever was added and taken away, in whatever order, the accumulator gives what it would give if it had only
/// been given the records that stand. Floats that are added and subtracted break it.
///
/// ```
/// use pelton::aggregate::{Aggregate, At, Retractable};
/// use pelton::change::{Change, Kind};
/// use pelton::{Job, sources, testing};
///
/// /// The bits that an odd number of rows have.
/// #[derive(Clone)]
/// struct Parity;
///
/// impl Aggregate<(char, u32)> for Parity {
///     type Acc = u32;
///     type Out = u32;
///     fn create(&self) -> u32 {
///         0
///     }
///     fn add(&self, acc: &mut u32, row: &(char, u32), _: At) {
///         *acc ^= row.1;
///     }
///     fn merge(&self, acc: &mut u32, other: &u32) {
///         *acc ^= other;
///     }
///     fn finish(&self, acc: &u32) -> u32 {
///         *acc
///     }
/// }
///
/// impl Retractable<(char, u32)> for Parity {
///     fn retract(&self, acc: &mut u32, row: &(char, u32)) {
///         *acc ^= row.1;
///     }
/// }
///
/// let (results, sink) = testing::collect();
/// let job = Job::new("parity");
/// job.source(sources::items([(Kind::Insert, 6), (Kind::Insert, 3), (Kind::Delete, 6)]))
///    .map(|(kind, bits)| Change::new(kind, ('a', bits)))
///    .key_by(|c| c.row.0)
///    .apply_changes()
///    .running(|a| a.retractable(Parity))
///    .map(|c| format!("{} {}", c.kind, c.row.value))
///    .sink(sink);
/// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
/// assert_eq!(results.take(), ["+I 6", "-U 6", "+U 5", "-U 5", "+U 3"]);
/// ```
pub trait Retractable<T>: Aggregate<T, Out: PartialEq> {
    /// Takes away a record that was added. It is told how the record looks, not when it came.
    fn retract(&self, acc: &mut Self::Acc, record: &T);
}

/// See [`Aggs::retractable`].
#[derive(Clone, Copy, Debug)]
pub struct Own<A>(A);

impl<T, A: Retractable<T>> Aggregate<T> for Own<A> {
    type Acc = A::Acc;
    type Out = A::Out;
    const NEEDS_ORIGINS: bool = A::NEEDS_ORIGINS;
    const GROWS: bool = A::GROWS;
    fn create(&self) -> A::Acc {
        self.0.create()
    }
    fn add(&self, acc: &mut A::Acc, record: &T, at: At) {
        self.0.add(acc, record, at);
    }
    fn merge(&self, acc: &mut A::Acc, other: &A::Acc) {
        self.0.merge(acc, other);
    }
    fn finish(&self, acc: &A::Acc) -> A::Out {
        self.0.finish(acc)
    }
}

/// Numbers whose sums lose nothing when a value is taken away again: integers.
#[diagnostic::on_unimplemented(
    message = "sums of `{Self}` do not follow changes",
    label = "no integer",
    note = "what was added to a sum of floats cannot be taken away exactly; sum integers (cents, micros) instead"
)]
pub trait Integer: Number {
    /// The value.
    fn wide(self) -> i128;
    /// The total, saturated.
    fn total_of(sum: i128) -> Self::Total;
}

macro_rules! integers {
    ($total:ty: $($t:ty),*) => { $(
        impl Integer for $t {
            #[inline(always)]
            fn wide(self) -> i128 {
                self as i128
            }
            #[inline(always)]
            fn total_of(sum: i128) -> $total {
                sum.clamp(<$total>::MIN as i128, <$total>::MAX as i128) as $total
            }
        }
    )* };
}
integers!(i64: i8, i16, i32, i64, isize);
integers!(u64: u8, u16, u32, u64, usize);

/// What an aggregate keeps apart from its value for each key, of all keys of a shard.
#[allow(private_interfaces)]
#[doc(hidden)]
pub trait Bags<K: Key>: Send + 'static {
    fn begin_epoch(&mut self, cut: Cut);
    fn sizes(&self, to: &mut Sizes);
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved;
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError>;
}

#[allow(private_interfaces)]
impl<K: Key> Bags<K> for () {
    fn begin_epoch(&mut self, _: Cut) {}
    fn sizes(&self, _: &mut Sizes) {}
    fn save(&mut self, _: &mut Snapshot<'_>) -> Saved {
        Saved::All
    }
    fn load(&mut self, _: &Frame<'_>) -> Result<bool, LoadError> {
        Ok(false)
    }
}

#[allow(private_interfaces)]
impl<K: Key, V: Ordered> Bags<K> for Multisets<K, Rank<V>> {
    fn begin_epoch(&mut self, cut: Cut) {
        Multisets::begin_epoch(self, cut);
    }
    fn sizes(&self, to: &mut Sizes) {
        Multisets::sizes(self, to);
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        Multisets::save(self, to)
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        Multisets::load(self, frame)
    }
}

/// An aggregate that follows changes: see [`Applied::running`](crate::Applied::running) for which do. One of your own is made to by [`Aggs::retractable`].
#[allow(private_interfaces)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot take a row away again",
    label = "does not follow changes",
    note = "count, sum and avg of integers, min, max, map, tuples of these and `a.retractable(..)` do"
)]
pub trait Retracts<T>: Aggregate<T> {
    /// What it keeps of a key in one value.
    #[doc(hidden)]
    type Kept: State;
    /// What it keeps apart.
    #[doc(hidden)]
    type Bags<K: Key>: Bags<K>;
    /// Places in memory that a change looks at, beside the key's.
    #[doc(hidden)]
    const LOOKS: usize = 0;
    /// Says what it is: what another left is of no use to it, even where it looks alike.
    #[doc(hidden)]
    fn kinds(&self, to: &mut String);
    /// Makes what it keeps apart, of states that are named so.
    #[doc(hidden)]
    fn bags<K: Key>(&self, name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Bags<K>;
    /// Of no rows.
    #[doc(hidden)]
    fn keep(&self) -> Self::Kept;
    /// Whether the record may stand: false only if it certainly does not.
    #[doc(hidden)]
    fn may_have<K: Key>(&self, bags: &Self::Bags<K>, key: &K, record: &T) -> bool;
    /// Takes a record in.
    #[doc(hidden)]
    fn take_in<K: Key>(
        &self,
        kept: &mut Self::Kept,
        bags: &mut Self::Bags<K>,
        key: &K,
        record: &T,
        at: At,
    );
    /// Takes a record out that it may have.
    #[doc(hidden)]
    fn take_out<K: Key>(
        &self,
        kept: &mut Self::Kept,
        bags: &mut Self::Bags<K>,
        key: &K,
        record: &T,
    );
    /// The value of so many rows, at least one.
    #[doc(hidden)]
    fn value<K: Key>(
        &self,
        kept: &Self::Kept,
        bags: &Self::Bags<K>,
        key: &K,
        rows: u64,
    ) -> Self::Out;
    /// Whether two values are one and the same row.
    #[doc(hidden)]
    fn same(&self, a: &Self::Out, b: &Self::Out) -> bool;
}

/// For those that keep nothing apart.
macro_rules! no_bags {
    () => {
        type Bags<K: Key> = ();
        fn bags<K: Key>(&self, _: &str, _: &mut ShardBuild<'_, '_>, _: OpId) {}
        #[inline(always)]
        fn may_have<K: Key>(&self, (): &(), _: &K, _: &T) -> bool {
            true
        }
    };
}

#[allow(private_interfaces)]
impl<T> Retracts<T> for Count {
    type Kept = ();
    no_bags!();
    fn kinds(&self, to: &mut String) {
        to.push_str("count");
    }
    #[inline(always)]
    fn keep(&self) {}
    #[inline(always)]
    fn take_in<K: Key>(&self, (): &mut (), (): &mut (), _: &K, _: &T, _: At) {}
    #[inline(always)]
    fn take_out<K: Key>(&self, (): &mut (), (): &mut (), _: &K, _: &T) {}
    #[inline(always)]
    fn value<K: Key>(&self, (): &(), (): &(), _: &K, rows: u64) -> u64 {
        rows
    }
    #[inline(always)]
    fn same(&self, a: &u64, b: &u64) -> bool {
        a == b
    }
}

macro_rules! sums {
    ($name:ident, $value:expr, $same:expr, $($bound:tt)*) => {
        #[allow(private_interfaces)]
        impl<T, V: Integer $($bound)*, F: Fn(&T) -> V + Clone + Send + 'static> Retracts<T> for $name<F, V> {
            type Kept = Wide;
            no_bags!();
            fn kinds(&self, to: &mut String) {
                to.push_str(stringify!($name));
            }
            #[inline(always)]
            fn keep(&self) -> Wide {
                Wide::default()
            }
            #[inline(always)]
            fn take_in<K: Key>(&self, sum: &mut Wide, (): &mut (), _: &K, record: &T, _: At) {
                sum.add((self.f)(record).wide());
            }
            #[inline(always)]
            fn take_out<K: Key>(&self, sum: &mut Wide, (): &mut (), _: &K, record: &T) {
                sum.add(-(self.f)(record).wide());
            }
            #[inline(always)]
            fn value<K: Key>(&self, sum: &Wide, (): &(), _: &K, rows: u64) -> Self::Out {
                $value(sum.get(), rows)
            }
            #[inline(always)]
            fn same(&self, a: &Self::Out, b: &Self::Out) -> bool {
                $same(a, b)
            }
        }
    };
}
sums!(Sum, |sum, _| V::total_of(sum), V::Total::eq, <Total: PartialEq>);
// Of a count above 0 and an integer it is never NaN, and 0 has one sign.
sums!(Avg, |sum, rows| sum as f64 / rows as f64, f64::eq,);

macro_rules! extremes {
    ($name:ident, $end:tt, $none:ident, $keep:ident) => {
        #[allow(private_interfaces)]
        impl<T, V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static> Retracts<T> for $name<F, V> {
            type Kept = ();
            fn kinds(&self, to: &mut String) {
                to.push_str(stringify!($name));
            }
            type Bags<K: Key> = Multisets<K, Rank<V>>;
            const LOOKS: usize = LOOKS;
            fn bags<K: Key>(
                &self,
                name: &str,
                build: &mut ShardBuild<'_, '_>,
                op: OpId,
            ) -> Multisets<K, Rank<V>> {
                Multisets::of_named(name, build, op)
            }
            fn keep(&self) {}
            fn may_have<K: Key>(&self, bags: &Multisets<K, Rank<V>>, key: &K, record: &T) -> bool {
                bags.place(bags.id(key), &Rank::of((self.f)(record))).found
            }
            fn take_in<K: Key>(
                &self,
                (): &mut (),
                bags: &mut Multisets<K, Rank<V>>,
                key: &K,
                record: &T,
                _: At,
            ) {
                let (id, value) = (bags.id(key), Rank::of((self.f)(record)));
                let place = bags.place(id, &value);
                bags.add(id, key, place, value);
            }
            fn take_out<K: Key>(
                &self,
                (): &mut (),
                bags: &mut Multisets<K, Rank<V>>,
                key: &K,
                record: &T,
            ) {
                let (id, value) = (bags.id(key), Rank::of((self.f)(record)));
                let place = bags.place(id, &value);
                bags.take(id, place);
            }
            fn value<K: Key>(&self, (): &(), bags: &Multisets<K, Rank<V>>, key: &K, _: u64) -> V {
                match bags.ends(bags.id(key)) {
                    Some(ends) => {
                        // As the aggregate gives it: every NaN with the same bits.
                        let mut best = V::$none();
                        V::$keep(&mut best, ends.$end.value().clone());
                        V::best(&best)
                    }
                    None => unreachable!("a key with rows has as many values"),
                }
            }
            fn same(&self, a: &V, b: &V) -> bool {
                !a.before(b) && !b.before(a)
            }
        }
    };
}
extremes!(Min, 0, greatest, lower);
extremes!(Max, 1, least, raise);

#[allow(private_interfaces)]
impl<T, A: Retractable<T>> Retracts<T> for Own<A> {
    type Kept = A::Acc;
    no_bags!();
    fn kinds(&self, to: &mut String) {
        to.push_str("own");
    }
    fn keep(&self) -> A::Acc {
        self.0.create()
    }
    fn take_in<K: Key>(&self, acc: &mut A::Acc, (): &mut (), _: &K, record: &T, at: At) {
        self.0.add(acc, record, at);
    }
    fn take_out<K: Key>(&self, acc: &mut A::Acc, (): &mut (), _: &K, record: &T) {
        self.0.retract(acc, record);
    }
    fn value<K: Key>(&self, acc: &A::Acc, (): &(), _: &K, _: u64) -> A::Out {
        self.0.finish(acc)
    }
    fn same(&self, a: &A::Out, b: &A::Out) -> bool {
        a == b
    }
}

#[allow(private_interfaces)]
impl<T, A, U, F> Retracts<T> for Mapped<A, F>
where
    A: Retracts<T>,
    U: Clone + PartialEq + Send + 'static,
    F: Fn(A::Out) -> U + Clone + Send + 'static,
{
    type Kept = A::Kept;
    type Bags<K: Key> = A::Bags<K>;
    const LOOKS: usize = A::LOOKS;
    fn kinds(&self, to: &mut String) {
        self.aggregate.kinds(to);
    }
    fn bags<K: Key>(&self, name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> A::Bags<K> {
        self.aggregate.bags(name, build, op)
    }
    fn keep(&self) -> A::Kept {
        self.aggregate.keep()
    }
    fn may_have<K: Key>(&self, bags: &A::Bags<K>, key: &K, record: &T) -> bool {
        self.aggregate.may_have(bags, key, record)
    }
    fn take_in<K: Key>(
        &self,
        kept: &mut A::Kept,
        bags: &mut A::Bags<K>,
        key: &K,
        record: &T,
        at: At,
    ) {
        self.aggregate.take_in(kept, bags, key, record, at);
    }
    fn take_out<K: Key>(&self, kept: &mut A::Kept, bags: &mut A::Bags<K>, key: &K, record: &T) {
        self.aggregate.take_out(kept, bags, key, record);
    }
    fn value<K: Key>(&self, kept: &A::Kept, bags: &A::Bags<K>, key: &K, rows: u64) -> U {
        (self.f)(self.aggregate.value(kept, bags, key, rows))
    }
    fn same(&self, a: &U, b: &U) -> bool {
        a == b
    }
}

macro_rules! tuples {
    ($($name:ident $index:tt),+) => {
        #[allow(private_interfaces)]
        impl<K: Key, $($name: Bags<K>),+> Bags<K> for ($($name,)+) {
            fn begin_epoch(&mut self, cut: Cut) {
                $(self.$index.begin_epoch(cut);)+
            }
            fn sizes(&self, to: &mut Sizes) {
                $(self.$index.sizes(to);)+
            }
            fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
                $(
                    if self.$index.save(to) == Saved::More {
                        return Saved::More;
                    }
                )+
                Saved::All
            }
            fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
                $(
                    if self.$index.load(frame)? {
                        return Ok(true);
                    }
                )+
                Ok(false)
            }
        }

        #[allow(private_interfaces)]
        impl<T, $($name: Retracts<T>),+> Retracts<T> for ($($name,)+) {
            type Kept = ($($name::Kept,)+);
            type Bags<K: Key> = ($($name::Bags<K>,)+);
            const LOOKS: usize = 0 $(+ $name::LOOKS)+;
            fn kinds(&self, to: &mut String) {
                $(
                    to.push_str(if $index == 0 { "(" } else { ", " });
                    self.$index.kinds(to);
                )+
                to.push(')');
            }
            fn bags<K: Key>(&self, name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Bags<K> {
                ($(self.$index.bags(&format!("{name}.{}", $index), build, op),)+)
            }
            fn keep(&self) -> Self::Kept {
                ($(self.$index.keep(),)+)
            }
            fn may_have<K: Key>(&self, bags: &Self::Bags<K>, key: &K, record: &T) -> bool {
                $(self.$index.may_have(&bags.$index, key, record))&&+
            }
            fn take_in<K: Key>(&self, kept: &mut Self::Kept, bags: &mut Self::Bags<K>, key: &K, record: &T, at: At) {
                $(self.$index.take_in(&mut kept.$index, &mut bags.$index, key, record, at);)+
            }
            fn take_out<K: Key>(&self, kept: &mut Self::Kept, bags: &mut Self::Bags<K>, key: &K, record: &T) {
                $(self.$index.take_out(&mut kept.$index, &mut bags.$index, key, record);)+
            }
            fn value<K: Key>(&self, kept: &Self::Kept, bags: &Self::Bags<K>, key: &K, rows: u64) -> Self::Out {
                ($(self.$index.value(&kept.$index, &bags.$index, key, rows),)+)
            }
            fn same(&self, a: &Self::Out, b: &Self::Out) -> bool {
                $(self.$index.same(&a.$index, &b.$index))&&+
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
