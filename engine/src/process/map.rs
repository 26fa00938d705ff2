//! Map state: a map a key, in the order in which its entries were put in.

use super::many::{ManyOf, Own, Shown};
use crate::key::Key;
use crate::state::State;
use std::hash::Hash;

/// A map state of this name: see [`map`].
pub type MapOf<E, V> = ManyOf<E, V, AsMap>;

/// Asks for a state of a map a key: `map::<String, u64>("by country")`. Names are those of the operator: each once.
pub fn map<E: Clone + Hash + Eq + State, V: State>(name: &'static str) -> MapOf<E, V> {
    ManyOf::named(name)
}

/// Elements as a map.
#[doc(hidden)]
#[derive(Debug)]
pub struct AsMap;

#[allow(private_interfaces)]
impl<E: Clone + Hash + Eq + State, V: State> Shown<E, V> for AsMap {
    const BY_KEY: bool = true;
    type Of<'a, K: 'a> = MapState<'a, K, E, V>;
    #[inline(always)]
    fn of<'a, K>(own: Own<'a, K, E, V>) -> MapState<'a, K, E, V> {
        MapState(own)
    }
}

/// A key's map state, for as long as a record or timer is in hand.
///
/// Finding an entry costs a probe; it is written to a checkpoint alone when it has changed. Entries come in the order in which
/// they were put in; setting the value of one that is there leaves it in its place.
#[allow(missing_debug_implementations)]
pub struct MapState<'a, K, E, V>(Own<'a, K, E, V>);

impl<K: Key, E: Clone + Hash + Eq + State, V: State> MapState<'_, K, E, V> {
    /// The value of an entry.
    pub fn get(&mut self, key: &E) -> Option<&V> {
        let id = self.0.find(key)?;
        self.0.read(id)
    }

    /// Whether there is an entry. Not a read that puts its end off.
    pub fn contains(&self, key: &E) -> bool {
        self.0.find(key).is_some()
    }

    /// Sets the value of an entry, which is put in at the end where it is new.
    pub fn insert(&mut self, key: E, value: V) {
        match self.0.renew(&key) {
            Some(id) => *self.0.value_mut(id) = value,
            None => {
                self.0.push(key, value);
            }
        }
    }

    /// The value of an entry to be changed in place, made by `first` where there is none. It counts as changed.
    pub fn or_insert_with(&mut self, key: E, first: impl FnOnce() -> V) -> &mut V {
        let id = match self.0.renew(&key) {
            Some(id) => id,
            None => self.0.push(key, first()),
        };
        self.0.value_mut(id)
    }

    /// The same where there is a default: `*by_country.or_default(country) += 1`.
    pub fn or_default(&mut self, key: E) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(key, V::default)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &E) -> Option<V> {
        self.0.take(key)
    }

    /// How many there are. O(1); O(entries) where they expire.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in the order in which they were put in.
    pub fn iter(&mut self) -> impl Iterator<Item = (&E, &V)> {
        self.0.iter()
    }

    /// Keeps the entries for which `keep` says so and takes the others out. O(entries), in one step.
    pub fn retain(&mut self, keep: impl FnMut(&E, &V) -> bool) {
        self.0.retain(keep);
    }

    /// Takes all out. However many there are, no step is long: they go in pieces before the next record.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
