//! The keys of a process function on one shard: for each a row, with a place in it for each of its states.
//!
//! Laws
//! 1. A record costs one probe of this table; its states are reached by the row, or from it by an entry's id.
//! 2. A row in which nothing is left stays for its key's return until a new key comes: each of these pays for a look at two
//!    rows, so that rows without anything are never many more than the others, and none is looked for while no key is new.

use super::elements::Head;
use crate::key::Key;
use crate::table::{KeyTable, NONE};

/// What a key has. `S` is the places of its states.
#[derive(Debug, Default)]
pub struct Row<S> {
    pub(crate) states: S,
    /// Its timers.
    pub(crate) timers: Head,
}

/// Rows as one state sees them: of each its own place.
pub trait Rows<K, S> {
    /// The key of a row.
    fn key(&self, id: u32) -> &K;
    /// The place in a row.
    fn place(&self, id: u32) -> &S;
    /// The same to be changed, with its key.
    fn entry(&mut self, id: u32) -> (&K, &mut S);
    /// Ids are below this.
    fn id_end(&self) -> u32;
    /// Whether an id below is a row's.
    fn is_live(&self, id: u32) -> bool;
    /// The row of a key.
    fn get(&self, key: &K) -> Option<u32>;
    /// The row of a key, made if need be.
    fn make(&mut self, key: &K) -> u32;
}

/// All rows, and how far the search for empty ones has come.
#[derive(Debug)]
pub(crate) struct Table<K, S> {
    pub rows: KeyTable<K, Row<S>>,
    /// Where the next look goes: law 2.
    hand: u32,
    /// Looks that are owed.
    looks: u32,
}

impl<K: Key, S: Default> Table<K, S> {
    pub fn new() -> Self {
        Table {
            rows: KeyTable::new(),
            hand: 0,
            looks: 0,
        }
    }

    /// The row of a key that is not where it was looked for first.
    pub fn row_of(&mut self, hash: u64, key: &K) -> u32 {
        let (id, new) = self.rows.find_or_insert(hash, key, Row::default);
        self.looks += 2 * u32::from(new);
        id
    }

    /// Law 2. Ids that were found before may be stale after it.
    pub fn look(&mut self, is_empty: impl Fn(&S) -> bool) {
        let end = self.rows.id_end();
        for _ in 0..std::mem::take(&mut self.looks) {
            self.hand = if self.hand + 1 < end {
                self.hand + 1
            } else {
                0
            };
            if self.hand < end && self.rows.is_live(self.hand) {
                let row = self.rows.value(self.hand);
                if row.timers.len == 0 && is_empty(&row.states) {
                    self.rows.remove(self.hand, Row::default());
                }
            }
        }
    }
}

impl<K: Key, S: Default> Rows<K, S> for Table<K, S> {
    fn key(&self, id: u32) -> &K {
        self.rows.key(id)
    }
    fn place(&self, id: u32) -> &S {
        &self.rows.value(id).states
    }
    fn entry(&mut self, id: u32) -> (&K, &mut S) {
        let (key, row) = self.rows.entry_mut(id);
        (key, &mut row.states)
    }
    fn id_end(&self) -> u32 {
        self.rows.id_end()
    }
    fn is_live(&self, id: u32) -> bool {
        self.rows.is_live(id)
    }
    fn get(&self, key: &K) -> Option<u32> {
        let id = self.rows.find(self.rows.hash(key), key);
        (id != NONE).then_some(id)
    }
    fn make(&mut self, key: &K) -> u32 {
        self.row_of(self.rows.hash(key), key)
    }
}

/// The places of the timers.
impl<K: Key, S: Default> Rows<K, Head> for TimersOf<'_, K, S> {
    fn key(&self, id: u32) -> &K {
        self.0.rows.key(id)
    }
    fn place(&self, id: u32) -> &Head {
        &self.0.rows.value(id).timers
    }
    fn entry(&mut self, id: u32) -> (&K, &mut Head) {
        let (key, row) = self.0.rows.entry_mut(id);
        (key, &mut row.timers)
    }
    fn id_end(&self) -> u32 {
        self.0.rows.id_end()
    }
    fn is_live(&self, id: u32) -> bool {
        self.0.rows.is_live(id)
    }
    fn get(&self, key: &K) -> Option<u32> {
        self.0.get(key)
    }
    fn make(&mut self, key: &K) -> u32 {
        self.0.make(key)
    }
}

/// See there.
pub(crate) struct TimersOf<'a, K, S>(pub &'a mut Table<K, S>);

/// Rows of several states as one of them sees them.
#[allow(missing_debug_implementations)]
pub struct Part<'a, K, S, T> {
    pub(crate) rows: &'a mut dyn Rows<K, S>,
    pub(crate) part: fn(&S) -> &T,
    pub(crate) part_mut: fn(&mut S) -> &mut T,
}

impl<K, S, T> Rows<K, T> for Part<'_, K, S, T> {
    fn key(&self, id: u32) -> &K {
        self.rows.key(id)
    }
    fn place(&self, id: u32) -> &T {
        (self.part)(self.rows.place(id))
    }
    fn entry(&mut self, id: u32) -> (&K, &mut T) {
        let (key, places) = self.rows.entry(id);
        (key, (self.part_mut)(places))
    }
    fn id_end(&self) -> u32 {
        self.rows.id_end()
    }
    fn is_live(&self, id: u32) -> bool {
        self.rows.is_live(id)
    }
    fn get(&self, key: &K) -> Option<u32> {
        self.rows.get(key)
    }
    fn make(&mut self, key: &K) -> u32 {
        self.rows.make(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Law 2: of keys that come and leave nothing few are there, and of the others all.
        #[test]
        fn rows_without_anything_are_not_many(keys in proptest::collection::vec((0u32..2_000, any::<bool>()), 0..4_000)) {
            let mut table = Table::<u32, Option<u8>>::new();
            let (mut full, mut most) = (BTreeSet::new(), 0);
            for (n, (key, stays)) in keys.into_iter().enumerate() {
                let id = table.make(&key);
                let has = &mut table.entry(id).1;
                if stays {
                    **has = Some(1);
                    full.insert(key);
                } else {
                    **has = None;
                    full.remove(&key);
                }
                most = most.max(full.len());
                if n % 7 == 0 {
                    table.look(Option::is_none);
                }
                prop_assert!(table.rows.len() <= 2 * most + 64, "{} rows", table.rows.len());
            }
            for key in full {
                prop_assert!(table.get(&key).is_some());
            }
        }
    }
}
