//! List state: any number of elements a key, in the order in which they were added.

use super::many::{ManyOf, Own, Shown};
use crate::key::Key;
use crate::state::State;

/// A list state of this name: see [`list`].
pub type ListOf<V> = ManyOf<u64, V, AsList>;

/// Asks for a state of a list a key: `list::<Charge>("recent")`. Names are those of the operator: each once.
pub fn list<V: State>(name: &'static str) -> ListOf<V> {
    ManyOf::named(name)
}

/// Elements as a list. An element's key is its number, by which none is ever looked for but to load it.
#[doc(hidden)]
#[derive(Debug)]
pub struct AsList;

#[allow(private_interfaces)]
impl<V: State> Shown<u64, V> for AsList {
    const BY_KEY: bool = false;
    type Of<'a, K: 'a> = ListState<'a, K, V>;
    #[inline(always)]
    fn of<'a, K>(own: Own<'a, K, u64, V>) -> ListState<'a, K, V> {
        ListState(own)
    }
}

/// A key's list state, for as long as a record or timer is in hand.
///
/// An element is written to a checkpoint alone, once, and leaves a tombstone.
#[allow(missing_debug_implementations)]
pub struct ListState<'a, K, V>(Own<'a, K, u64, V>);

impl<K: Key, V: State> ListState<'_, K, V> {
    /// Adds an element at the end. O(1), without a probe.
    pub fn push(&mut self, value: V) {
        self.0.push(self.0.next_number(), value);
    }

    /// Adds elements at the end.
    pub fn extend(&mut self, values: impl IntoIterator<Item = V>) {
        values.into_iter().for_each(|value| self.push(value));
    }

    /// How many there are. O(1); O(elements) where they expire.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The elements, in the order in which they were added.
    pub fn iter(&mut self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The first element.
    pub fn front(&mut self) -> Option<&V> {
        let id = self.0.first()?;
        self.0.read(id)
    }

    /// Takes the first element out.
    pub fn pop_front(&mut self) -> Option<V> {
        self.0.pop_first()
    }

    /// Keeps the elements for which `keep` says so and takes the others out. O(elements), in one step.
    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.0.retain(|_, value| keep(value));
    }

    /// Takes all out. However many there are, no step is long: they go in pieces before the next record.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
