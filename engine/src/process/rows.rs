//! The keys of a process function on one shard: for each a row, with a place in it for each of its states.
//!
//! Laws
//! 1. A record costs one probe of this table; its states are reached by the row, or from it by an entry's id.
//! 2. A row that never had anything stays for its key's return until a new key comes: each of these pays for a look at two
//!    rows, so that rows without anything are never many more than the others, and none is looked for while no key is new, or while
//!    they are known to be few.
//! 3. A row whose last thing goes (it expires, fires or is taken out) goes with it, at the next look: while sources are held no new
//!    key comes, and what has been freed must not count.
//! 4. A look is at so many rows and no more, and what was loaded owes none: a step is short after a restore, too.

use super::elements::Head;
use crate::key::Key;
use crate::query::Entries;
use crate::table::{KeyTable, NONE};

/// Rows looked at in one go: law 4.
const LOOKS: u32 = 128;
/// Rows that are looked at together, so that the cache is asked for what all of them need.
const GROUP: usize = 16;

/// What a key has. `S` is the places of its states.
#[derive(Debug, Default)]
pub struct Row<S> {
    pub(crate) states: S,
    /// Its timers.
    pub(crate) timers: Head,
}

impl<S> Row<S> {
    /// Whether nothing is left in it, given whether that is so of its states.
    #[inline]
    pub(crate) fn is_empty(&self, are_empty: impl Fn(&S) -> bool) -> bool {
        self.timers.len == 0 && are_empty(&self.states)
    }
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
    /// A row has lost something: it is to be looked at.
    fn lost(&mut self, id: u32);
    /// A row will be asked for soon: a chance to ask the cache for it.
    fn soon(&self, id: u32);
}

/// The places of one state, or of all, to be read.
pub(crate) trait Places<K, S>: Entries<K> {
    /// What a row has there.
    fn place(&self, id: u32) -> &S;
}

/// Those of one state among several.
pub(crate) struct OfPlace<'a, K, S, T> {
    pub rows: &'a dyn Places<K, S>,
    pub part: fn(&S) -> &T,
}

impl<K, S, T> Entries<K> for OfPlace<'_, K, S, T> {
    fn id_end(&self) -> u32 {
        self.rows.id_end()
    }
    fn is_live(&self, id: u32) -> bool {
        self.rows.is_live(id)
    }
    fn key(&self, id: u32) -> &K {
        self.rows.key(id)
    }
    fn find(&self, key: &K) -> Option<u32> {
        self.rows.find(key)
    }
}

impl<K, S, T> Places<K, T> for OfPlace<'_, K, S, T> {
    fn place(&self, id: u32) -> &T {
        (self.part)(self.rows.place(id))
    }
}

impl<K: Key, S> Places<K, S> for KeyTable<K, Row<S>> {
    fn place(&self, id: u32) -> &S {
        &self.value(id).states
    }
}

/// All rows, and how far the search for empty ones has come.
#[derive(Debug)]
pub(crate) struct Table<K, S> {
    pub rows: KeyTable<K, Row<S>>,
    /// Where the next look goes: law 2.
    hand: u32,
    /// Looks that are owed.
    looks: u32,
    /// Rows that have lost something: law 3. One may have gone, and its id be another's.
    poorer: Vec<u32>,
}

impl<K: Key, S: Default> Table<K, S> {
    pub fn new() -> Self {
        Table {
            rows: KeyTable::new(),
            hand: 0,
            looks: 0,
            poorer: vec![],
        }
    }

    /// The row of a key that is not where it was looked for first.
    pub fn row_of(&mut self, hash: u64, key: &K) -> u32 {
        let (id, new) = self.rows.find_or_insert(hash, key, Row::default);
        self.looks += 2 * u32::from(new);
        id
    }

    /// Everything has been loaded: law 4.
    pub fn loaded(&mut self) {
        (self.looks, self.poorer) = (0, vec![]);
    }

    /// Laws 2 to 4; whether no row is left that may have lost its last thing. Ids that were found before may be stale after it.
    pub fn look(&mut self, is_empty: impl Fn(&S) -> bool) -> bool {
        self.look_where(0, is_empty)
    }

    /// The same where so many rows at the least have something.
    #[inline]
    pub fn look_where(&mut self, full: u64, is_empty: impl Fn(&S) -> bool) -> bool {
        if self.rows.len() as u64 <= full + full / 8 {
            self.looks = 0;
        }
        if self.poorer.is_empty() && self.looks == 0 {
            return true;
        }
        self.look_some(is_empty)
    }

    fn look_some(&mut self, is_empty: impl Fn(&S) -> bool) -> bool {
        let mut left = LOOKS as usize;
        while left > 0 && !self.poorer.is_empty() {
            left -= self.look_at_poorer(left.min(GROUP), &is_empty);
        }
        let end = self.rows.id_end();
        for _ in 0..(left as u32).min(self.looks) {
            self.looks -= 1;
            self.hand = if self.hand + 1 < end {
                self.hand + 1
            } else {
                0
            };
            if self.has_nothing(self.hand, &is_empty) {
                self.rows.remove(self.hand, Row::default());
            }
        }
        self.poorer.is_empty()
    }

    /// Looks at a group of rows that have lost something; how many.
    fn look_at_poorer(&mut self, most: usize, is_empty: impl Fn(&S) -> bool) -> usize {
        let mut bare = [(0, NONE); GROUP];
        let mut count = 0;
        let from = self.poorer.len().saturating_sub(most);
        for &id in self.poorer[from..].iter().rev() {
            if self.has_nothing(id, &is_empty) {
                let hash = self.rows.hash(self.rows.key(id));
                self.rows.prefetch_slot(hash);
                bare[count] = (hash, id);
                count += 1;
            }
        }
        for (hash, id) in bare.into_iter().take(count) {
            // One may have lost something twice.
            if self.rows.is_live(id) {
                self.rows.remove_as(hash, id, Row::default());
            }
        }
        let looked = self.poorer.len() - from;
        self.poorer.truncate(from);
        looked
    }

    #[inline(always)]
    fn has_nothing(&self, id: u32, is_empty: impl Fn(&S) -> bool) -> bool {
        let is_live = id < self.rows.id_end() && self.rows.is_live(id);
        is_live && self.rows.value(id).is_empty(is_empty)
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
    fn lost(&mut self, id: u32) {
        self.poorer.push(id);
    }
    fn soon(&self, id: u32) {
        self.rows.prefetch_entry(id);
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
    fn lost(&mut self, id: u32) {
        self.0.lost(id);
    }
    fn soon(&self, id: u32) {
        self.0.soon(id);
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
    fn lost(&mut self, id: u32) {
        self.rows.lost(id);
    }
    fn soon(&self, id: u32) {
        self.rows.soon(id);
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
        fn rows_without_anything_are_not_many(keys in proptest::collection::vec((0u32..2_000, any::<bool>()), 0..4_000), is_known: bool) {
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
                    let known = if is_known { full.len() as u64 } else { 0 };
                    table.look_where(known, Option::is_none);
                }
                prop_assert!(table.rows.len() <= 2 * most + 64, "{} rows", table.rows.len());
            }
            for key in full {
                prop_assert!(table.get(&key).is_some());
            }
        }
    }

    /// Laws 3 and 4: what has lost its last thing goes without any new key, so many rows at a time; what still has something stays,
    /// and what was loaded is not looked at.
    #[test]
    fn rows_that_lose_their_last_thing_go() {
        let mut table = Table::<u32, Option<u8>>::new();
        for key in 0..1_000 {
            let id = table.make(&key);
            *table.entry(id).1 = Some(1);
        }
        table.loaded();
        for id in 0..1_000 {
            if id % 4 > 0 {
                *table.entry(id).1 = None;
            }
        }
        assert!(table.look(Option::is_none));
        assert_eq!(table.rows.len(), 1_000, "nothing is owed");
        // Twice each: it goes once.
        (0..2_000).for_each(|n| table.lost(n / 2));
        let mut looks = 1;
        while !table.look(Option::is_none) {
            looks += 1;
        }
        assert_eq!((looks, table.rows.len()), (2_000_usize.div_ceil(128), 250));
    }
}
