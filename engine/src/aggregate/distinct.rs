//! How many different values: exactly, and approximately in bounded memory.
//!
//! The sketch is HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, 2007) of the Apache DataSketches library: it hashes by
//! a fixed seed, its registers are a function of the set of values alone, and so is its composite estimate (the HIP
//! estimate, which it also has, is not: that one depends on the order in which values came).

use super::{Aggregate, Aggs, At};
use crate::key::{Key, stable_hash};
use crate::state::{Shape, State};
use crate::table::KeyTable;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use rkyv::rancor::{Fallible, Source};
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Archive, Archived, Deserialize, Place, Serialize};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// How many different values: `u64`, exact. O(1) a record on average, merging O(n). A key takes 24 bytes and each
    /// different value once, with about 16 bytes for its place from the 17th on: it grows with the number of values, in bounded steps.
    /// Where that is too much, see [`Aggs::count_distinct_approx`].
    pub fn count_distinct<V: Key, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> CountDistinct<F, V> {
        CountDistinct {
            f,
            value: PhantomData,
        }
    }

    /// About how many different values: `u64`, within [`Accuracy::standard_error`] two times out of three, and within
    /// three times that 99.7 % of the time; nearly always exact up to a few hundred. It depends on the set of values alone,
    /// never on their order, and is the same on every run. O(1), merging
    /// O(registers). A key takes 96 bytes and 32 more up to 7 values, then up to 16 a value, and at most what [`Accuracy`] says.
    pub fn count_distinct_approx<V: Key, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        f: F,
    ) -> CountDistinctApprox<F, V> {
        CountDistinctApprox {
            f,
            accuracy: Accuracy::default(),
            value: PhantomData,
        }
    }
}

/// See [`Aggs::count_distinct`].
#[derive(Clone, Copy, Debug)]
pub struct CountDistinct<F, V> {
    f: F,
    value: PhantomData<fn() -> V>,
}

/// Different values.
#[crate::state(version = 1)]
#[derive(Clone, Debug)]
pub enum Distinct<V: Key> {
    /// Up to 16, searched one by one.
    Few(Vec<V>),
    /// More.
    Many(
        #[rkyv(with = InOrder)]
        #[state(kept_as = Vec<V>)]
        Box<KeyTable<V, ()>>,
    ),
}

/// Keeps a table of values as the list of them, in the order in which they came.
struct InOrder;

impl<V: Key> ArchiveWith<Box<KeyTable<V, ()>>> for InOrder {
    type Archived = ArchivedVec<Archived<V>>;
    type Resolver = VecResolver;
    fn resolve_with(
        table: &Box<KeyTable<V, ()>>,
        resolver: VecResolver,
        out: Place<Self::Archived>,
    ) {
        ArchivedVec::resolve_from_len(table.len(), resolver, out);
    }
}

impl<V, S> SerializeWith<Box<KeyTable<V, ()>>, S> for InOrder
where
    V: Key + Serialize<S>,
    S: Fallible + Allocator + Writer + ?Sized,
{
    fn serialize_with(table: &Box<KeyTable<V, ()>>, to: &mut S) -> Result<VecResolver, S::Error> {
        let values = (0..table.id_end()).map(|id| table.key(id));
        ArchivedVec::<Archived<V>>::serialize_from_iter::<V, _, _>(values, to)
    }
}

impl<V, D> DeserializeWith<ArchivedVec<Archived<V>>, Box<KeyTable<V, ()>>, D> for InOrder
where
    V: Key,
    Archived<V>: Deserialize<V, D>,
    D: Fallible + ?Sized,
{
    fn deserialize_with(
        values: &ArchivedVec<Archived<V>>,
        from: &mut D,
    ) -> Result<Box<KeyTable<V, ()>>, D::Error> {
        let mut table = Box::new(KeyTable::new());
        for value in values.iter() {
            let value = value.deserialize(from)?;
            table.find_or_insert(table.hash(&value), &value, || ());
        }
        Ok(table)
    }
}

/// Most values that are searched one by one.
const FEW: usize = 16;

impl<V: Key> Distinct<V> {
    #[inline]
    fn insert(&mut self, value: &V) {
        match self {
            Distinct::Few(few) if few.contains(value) => {}
            Distinct::Few(few) if few.len() < FEW => few.push(value.clone()),
            Distinct::Few(few) => {
                let mut table = Box::new(KeyTable::new());
                for value in few.iter().chain([value]) {
                    table.find_or_insert(table.hash(value), value, || ());
                }
                *self = Distinct::Many(table);
            }
            Distinct::Many(table) => {
                table.find_or_insert(table.hash(value), value, || ());
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Distinct::Few(few) => few.len(),
            Distinct::Many(table) => table.len(),
        }
    }
}

impl<T, V: Key, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for CountDistinct<F, V> {
    type Acc = Distinct<V>;
    type Out = u64;
    const GROWS: bool = true;
    #[inline(always)]
    fn create(&self) -> Distinct<V> {
        Distinct::Few(Vec::new())
    }
    #[inline]
    fn add(&self, acc: &mut Distinct<V>, record: &T, _: At) {
        acc.insert(&(self.f)(record));
    }
    fn merge(&self, acc: &mut Distinct<V>, other: &Distinct<V>) {
        match other {
            Distinct::Few(few) => few.iter().for_each(|value| acc.insert(value)),
            Distinct::Many(table) => {
                (0..table.id_end()).for_each(|id| acc.insert(table.key(id)));
            }
        }
    }
    #[inline]
    fn finish(&self, acc: &Distinct<V>) -> u64 {
        acc.len() as u64
    }
}

/// How exact an approximate distinct count is, and what a key takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accuracy {
    /// Standard error 3.3 %, 1 KiB a key.
    Coarse,
    /// Standard error 1.6 %, 4 KiB a key.
    #[default]
    Normal,
    /// Standard error 0.8 %, 16 KiB a key.
    Fine,
    /// Standard error 0.4 %, 64 KiB a key.
    Finest,
}

impl Accuracy {
    /// The base-two logarithm of the number of registers, a byte each.
    fn log_registers(self) -> u8 {
        match self {
            Accuracy::Coarse => 10,
            Accuracy::Normal => 12,
            Accuracy::Fine => 14,
            Accuracy::Finest => 16,
        }
    }

    /// The standard error of the estimate as a part of it: 1.04 / the square root of the number of registers.
    pub fn standard_error(self) -> f64 {
        1.04 / f64::from(1u32 << self.log_registers()).sqrt()
    }
}

/// See [`Aggs::count_distinct_approx`].
#[derive(Clone, Copy, Debug)]
pub struct CountDistinctApprox<F, V> {
    f: F,
    accuracy: Accuracy,
    value: PhantomData<fn() -> V>,
}

impl<F, V> CountDistinctApprox<F, V> {
    /// More exact, or smaller.
    pub fn accuracy(mut self, accuracy: Accuracy) -> Self {
        self.accuracy = accuracy;
        self
    }
}

/// The set of values that a [`CountDistinctApprox`] has seen, in short. Kept in the format of Apache DataSketches, which its
/// libraries share across languages and versions.
#[derive(Archive, Serialize, Deserialize, Clone, Debug)]
pub struct DistinctSketch(#[rkyv(with = AsSketch)] HllUnion);

impl State for DistinctSketch {
    fn shape(out: &mut Shape) {
        out.text("hyperloglog of datasketches v1");
    }
}

/// Keeps a union as the bytes of its sketch.
struct AsSketch;

impl ArchiveWith<HllUnion> for AsSketch {
    type Archived = Archived<Vec<u8>>;
    /// How many bytes, and where they lie.
    type Resolver = (usize, VecResolver);
    fn resolve_with(_: &HllUnion, (len, at): Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(len, at, out);
    }
}

impl<S: Fallible + Allocator + Writer + ?Sized> SerializeWith<HllUnion, S> for AsSketch {
    fn serialize_with(union: &HllUnion, to: &mut S) -> Result<Self::Resolver, S::Error> {
        let bytes = union.to_sketch(HllType::Hll8).serialize();
        Ok((bytes.len(), ArchivedVec::serialize_from_slice(&bytes, to)?))
    }
}

impl<D: Fallible<Error: Source> + ?Sized> DeserializeWith<Archived<Vec<u8>>, HllUnion, D>
    for AsSketch
{
    fn deserialize_with(bytes: &Archived<Vec<u8>>, _: &mut D) -> Result<HllUnion, D::Error> {
        let sketch = HllSketch::deserialize(bytes).map_err(D::Error::new)?;
        let mut union = HllUnion::new(sketch.lg_config_k()).map_err(D::Error::new)?;
        union.update(&sketch);
        Ok(union)
    }
}

impl<T, V: Key, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T>
    for CountDistinctApprox<F, V>
{
    type Acc = DistinctSketch;
    type Out = u64;
    fn create(&self) -> DistinctSketch {
        match HllUnion::new(self.accuracy.log_registers()) {
            Ok(sketch) => DistinctSketch(sketch),
            Err(e) => unreachable!("10 to 16 are within the sketch's 4 to 21: {e}"),
        }
    }
    #[inline]
    fn add(&self, acc: &mut DistinctSketch, record: &T, _: At) {
        acc.0.update_value(stable_hash(&(self.f)(record)));
    }
    fn merge(&self, acc: &mut DistinctSketch, other: &DistinctSketch) {
        acc.0.update(&other.0.to_sketch(HllType::Hll8));
    }
    fn finish(&self, acc: &DistinctSketch) -> u64 {
        acc.0.composite_estimate().round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::scramble::{Dice, Plan, cases, place, plans, scrambled};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn exact_equals_the_naive_set(values in prop::collection::vec(0u32..200, 1..300), plan in plans()) {
            let a = Aggs::<u32>::new();
            let (numbers, words) = scrambled(&(a.count_distinct(|v| *v), a.count_distinct(|v| (v % 40).to_string())), &values, &plan);
            prop_assert_eq!(numbers, values.iter().collect::<HashSet<_>>().len() as u64);
            prop_assert_eq!(words, values.iter().map(|v| v % 40).collect::<HashSet<_>>().len() as u64);
        }

        #[test]
        fn the_sketch_depends_on_the_set_alone(size in prop_oneof![0usize..20, 20usize..600, 600usize..6000], seed in any::<u64>(), plans in (plans(), plans())) {
            let mut dice = Dice::new(seed);
            let values: Vec<u64> = (0..size.max(1)).map(|_| dice.below(2 * size + 1) as u64).collect();
            // The same set once more, with other repetitions.
            let mut again = values.clone();
            again.extend((0..size).map(|_| values[dice.below(values.len())]));
            for accuracy in [Accuracy::Coarse, Accuracy::Normal] {
                let a = Aggs::<u64>::new().count_distinct_approx(|v: &u64| *v).accuracy(accuracy);
                prop_assert_eq!(scrambled(&a, &values, &plans.0), scrambled(&a, &again, &plans.1));
            }
        }

        #[test]
        fn small_sets_are_exact(size in 1u64..100, plan in plans()) {
            let values: Vec<u64> = (0..size).map(|v| v * 0x1_0001).collect();
            prop_assert_eq!(scrambled(&Aggs::new().count_distinct_approx(|v: &u64| *v), &values, &plan), size);
        }
    }

    /// Over many sets of each size: the error stays within four standard errors, and is on average (root mean square) no
    /// greater than stated, give or take what so few sets leave to chance.
    #[test]
    fn the_error_is_as_stated() {
        for (accuracy, sets, sizes) in [
            (
                Accuracy::Coarse,
                60u64,
                &[200u64, 700, 1_500, 3_000, 10_000, 20_000][..],
            ),
            (Accuracy::Normal, 30, &[1_000, 5_000, 12_000, 30_000]),
            (Accuracy::Fine, 10, &[20_000, 50_000]),
            (Accuracy::Finest, 4, &[100_000]),
        ] {
            let a = Aggs::<u64>::new()
                .count_distinct_approx(|v: &u64| *v)
                .accuracy(accuracy);
            for &size in sizes {
                let mut squares = 0.0;
                for set in 0..sets {
                    let mut acc = Aggregate::<u64>::create(&a);
                    for v in 0..size {
                        a.add(&mut acc, &(set << 40 | v), place(0));
                    }
                    let error = Aggregate::<u64>::finish(&a, &acc) as f64 / size as f64 - 1.0;
                    assert!(
                        error.abs() <= 4.0 * accuracy.standard_error(),
                        "{accuracy:?}, {size}: {error}"
                    );
                    squares += error * error;
                }
                let rms = (squares / sets as f64).sqrt();
                let chance = 1.0 + 2.5 / (2.0 * sets as f64).sqrt();
                assert!(
                    rms <= accuracy.standard_error() * chance,
                    "{accuracy:?}, {size}: {rms}"
                );
            }
        }
    }

    #[test]
    fn the_same_on_every_machine() {
        // Stored with state: if it changes, sketches written before no longer merge with new ones.
        let values: Vec<String> = (0..100_000).map(|n| format!("user {n}")).collect();
        let got = scrambled(
            &Aggs::new().count_distinct_approx(String::clone),
            &values,
            &Plan { seed: 9 },
        );
        assert_eq!(got, GOLDEN);
    }
    const GOLDEN: u64 = 99_454;

    #[test]
    fn memory_is_as_stated() {
        assert_eq!(size_of::<Distinct<u64>>(), 24);
        assert!(size_of::<DistinctSketch>() <= 96);
        let mut sketch = HllUnion::new(12).unwrap();
        for n in 1..=1_000u64 {
            sketch.update_value(stable_hash(&n));
            let stated = match n {
                ..8 => 32,
                8..384 => 16 * n as usize,
                _ => 4096,
            };
            assert!(
                sketch.estimated_size() <= stated,
                "{n}: {}",
                sketch.estimated_size()
            );
        }
    }
}
