//! The hash table under keyed state: an extendible index of small pages over entries that never move.
//!
//! Laws
//! 1. No step is long: growth splits or rebuilds one page of the index (512 slots) at a time, entries are never
//!    copied, and clearing is done in pieces. (One flat table stalled for 380 ms when it doubled at 10 million keys.)
//! 2. An entry's id is stable from its insertion to its removal; iteration is in the order of ids, which is the order of
//!    insertion until an id is reused. Nothing that can be observed depends on the index.
//! 3. The index (`table/index.rs`) holds 32 bits of hash beside each id, so a search touches the entries only where the key is very likely
//!    equal.
//! 4. A table of few keys has no index page: there may be one for each of many windows. It is searched from end to end, and
//!    gets its page with its ninth key, or once it has been searched so often that 4 KiB are in proportion to its use.
//! 5. A table without an index ([`KeyTable::without_index`]) has no page ever: its entries are reached by their ids only.

use crate::budget::Size;
use hasher::TableHash;
use index::Index;
use pelton_ring::prefetch_ends_of;
use std::hash::{BuildHasher, Hash};

mod hasher;
mod index;

pub use index::{Home, OnePage, Pages};

/// Keys that a table without an index page holds at most (law 4).
const UNINDEXED: usize = 8;
/// Searches after which it gets one.
const UNINDEXED_SEARCHES: u32 = 64;
/// Room for entries at first.
const FIRST_ENTRIES: usize = 4;
/// Entries of a page of entries.
const PAGE_ENTRIES: usize = 1024;
/// Keys up to which a table is taken to lie in the cache.
pub(crate) const CACHED: usize = 4096;
/// No entry.
pub const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    value: V,
}

/// A map from keys to values with stable ids and bounded steps.
#[derive(Debug, Clone)]
pub struct KeyTable<K, V> {
    /// Without a page as long as there are few keys (law 4).
    index: Index,
    /// Searches without an index page (law 4).
    searches: u32,
    /// Pages of entries; all but the last are full.
    entries: Vec<Vec<Entry<K, V>>>,
    /// Ids that have been given out, the removed ones included.
    issued: usize,
    /// Removed ids, to be reused. Their keys stay in place until then.
    free: Vec<u32>,
    /// A bit for each removed id; empty as long as nothing has been removed.
    removed: Vec<u64>,
    /// Whether entries are found by their keys (law 5).
    has_index: bool,
}

impl<K: Hash + Eq, V> KeyTable<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        KeyTable {
            has_index: true,
            index: Index::new(),
            searches: 0,
            entries: vec![],
            issued: 0,
            free: vec![],
            removed: vec![],
        }
    }

    /// An empty table whose entries are put in by [`KeyTable::push`] and reached by their ids only (law 5).
    ///
    /// ```
    /// let mut table = pelton::table::KeyTable::without_index();
    /// let id = table.push("key", 5);
    /// assert_eq!(table.value(id), &5);
    /// assert_eq!(table.remove(id, 0), 5);
    /// ```
    pub fn without_index() -> Self {
        KeyTable {
            has_index: false,
            ..KeyTable::new()
        }
    }

    /// A table that has never had an entry begins to find those to come by their keys.
    pub fn begin_index(&mut self) {
        assert!(
            self.has_index || self.issued == 0,
            "what is there is in no index"
        );
        self.has_index = true;
    }

    /// Gives up finding entries by their keys (law 5). Not for a running shard: the index goes at once.
    pub fn drop_index(&mut self) {
        self.index = Index::new();
        self.has_index = false;
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.issued - self.free.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The upper bound of ids: iterate `0..id_end()` and skip those that [`KeyTable::is_live`] denies.
    #[inline]
    pub fn id_end(&self) -> u32 {
        self.issued as u32
    }

    /// Whether `id`, below [`KeyTable::id_end`], is an entry's.
    #[inline]
    pub fn is_live(&self, id: u32) -> bool {
        self.removed.is_empty()
            || self
                .removed
                .get(id as usize / 64)
                .is_none_or(|w| w & (1 << (id % 64)) == 0)
    }

    /// The first entry from `id` on, or a number of at least [`KeyTable::id_end`]. Passes over removed ones 64 at a time.
    #[inline]
    pub fn next_live(&self, mut id: u32) -> u32 {
        while let Some(word) = self.removed.get(id as usize / 64) {
            let live = !word >> (id % 64);
            if live != 0 {
                return id + live.trailing_zeros();
            }
            id = (id / 64 + 1) * 64;
        }
        id
    }

    /// The table's hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &K) -> u64 {
        TableHash.hash_one(key)
    }

    /// The hash of a key by something borrowed that hashes as it does.
    #[inline(always)]
    pub fn hash_as<Q: Hash>(&self, key: &Q) -> u64 {
        TableHash.hash_one(key)
    }

    /// The entry of this hash that is at home where it belongs: almost always the key's, and [`NONE`] or no entry's id otherwise
    /// ([`KeyTable::verified`] tells). Touches the index only.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> u32 {
        self.home(hash).candidate(hash)
    }

    /// The same, where the page is known from [`KeyTable::prefetch_slot`].
    #[inline(always)]
    pub fn candidate_in(&self, page: u32, hash: u64) -> u32 {
        self.index.candidate_in(page, hash)
    }

    /// Where entries with this hash are at home: for looking there later, once the cache has it.
    ///
    /// ```
    /// # let mut table = pelton::table::KeyTable::new();
    /// # for key in 0..100u64 { table.find_or_insert(table.hash(&key), &key, || 0); }
    /// let hashes = [1u64, 2, 3].map(|key| table.hash(&key));
    /// let homes = hashes.map(|hash| table.home(hash));
    /// for home in homes {
    ///     home.prefetch();
    /// }
    /// for (home, hash) in homes.into_iter().zip(hashes) {
    ///     table.prefetch_entry(home.candidate(hash));
    /// }
    /// ```
    #[inline(always)]
    pub fn home(&self, hash: u64) -> Home<'_> {
        self.index.home(hash)
    }

    /// The page of the index of a table of up to some 256 keys: in a loop over records it is found once for all.
    #[inline(always)]
    pub fn one_page(&self) -> Option<OnePage<'_>> {
        self.index.one_page()
    }

    /// The pages of the index of a larger one, for the same.
    ///
    /// ```
    /// # let mut table = pelton::table::KeyTable::new();
    /// # for key in 0..10_000u64 { table.find_or_insert(table.hash(&key), &key, || 0); }
    /// let pages = table.several_pages().expect("it has many keys");
    /// for key in [1u64, 2, 3] {
    ///     let hash = table.hash(&key);
    ///     assert_eq!(pages.home(hash).candidate(hash), table.candidate(hash));
    /// }
    /// ```
    #[inline(always)]
    pub fn several_pages(&self) -> Option<Pages<'_>> {
        self.index.several_pages()
    }

    /// Asks the cache for the bucket that [`KeyTable::candidate_in`] will look at; its page of the index.
    #[inline(always)]
    pub fn prefetch_slot(&self, hash: u64) -> u32 {
        self.index.prefetch(hash)
    }

    /// Asks the cache for an entry: for both of the lines that one of up to 64 bytes may lie on.
    #[inline(always)]
    pub fn prefetch_entry(&self, id: u32) {
        if let Some(page) = self.entries.get(id as usize / PAGE_ENTRIES) {
            prefetch_ends_of(page, id as usize % PAGE_ENTRIES);
        }
    }

    /// The value of what may be an entry.
    #[inline(always)]
    pub fn get(&self, candidate: u32) -> Option<&V> {
        let page = self.entries.get(candidate as usize / PAGE_ENTRIES)?;
        let entry = page.get(candidate as usize % PAGE_ENTRIES)?;
        Some(&entry.value)
    }

    /// The key of an entry.
    #[inline(always)]
    pub fn key(&self, id: u32) -> &K {
        &self.entries[id as usize / PAGE_ENTRIES][id as usize % PAGE_ENTRIES].key
    }

    /// The value of an entry.
    #[inline(always)]
    pub fn value(&self, id: u32) -> &V {
        &self.entries[id as usize / PAGE_ENTRIES][id as usize % PAGE_ENTRIES].value
    }

    /// The value of an entry.
    #[inline(always)]
    pub fn value_mut(&mut self, id: u32) -> &mut V {
        &mut self.entries[id as usize / PAGE_ENTRIES][id as usize % PAGE_ENTRIES].value
    }

    /// An entry.
    #[inline(always)]
    pub fn entry_mut(&mut self, id: u32) -> (&K, &mut V) {
        let entry = &mut self.entries[id as usize / PAGE_ENTRIES][id as usize % PAGE_ENTRIES];
        (&entry.key, &mut entry.value)
    }

    /// If entry `candidate` is the key's, its value.
    #[inline(always)]
    pub fn verified(&mut self, candidate: u32, key: &K) -> Option<&mut V> {
        let entry = self
            .entries
            .get_mut(candidate as usize / PAGE_ENTRIES)?
            .get_mut(candidate as usize % PAGE_ENTRIES)?;
        if entry.key == *key {
            Some(&mut entry.value)
        } else {
            None
        }
    }

    /// The id of a key, or [`NONE`].
    pub fn find(&self, hash: u64, key: &K) -> u32 {
        self.find_by(hash, |other| other == key)
    }

    /// The same for a key that is not at hand as one: which has this hash and which `same` says yes to.
    pub fn find_by(&self, hash: u64, same: impl Fn(&K) -> bool) -> u32 {
        self.find_id(hash, |id| same(self.key(id)))
    }

    /// The same where it takes the entry's value to tell.
    pub(crate) fn find_id(&self, hash: u64, same: impl Fn(u32) -> bool) -> u32 {
        debug_assert!(self.has_index, "nothing is found without an index");
        if self.index.pages() == 0 {
            // Law 4.
            let same = |&id: &u32| self.is_live(id) && same(id);
            return (0..self.issued as u32).find(same).unwrap_or(NONE);
        }
        self.index.find(hash, same)
    }

    /// The id of a key; where it is new, of an entry made from it. The flag says that it is new.
    #[inline(never)]
    pub fn find_or_insert(&mut self, hash: u64, key: &K, value: impl FnOnce() -> V) -> (u32, bool)
    where
        K: Clone,
    {
        self.searched();
        let found = self.find(hash, key);
        if found != NONE {
            return (found, false);
        }
        (self.put_new(hash, key.clone(), value()), true)
    }

    /// Law 4: a search that may make an entry.
    #[inline]
    fn searched(&mut self) {
        if self.index.pages() == 0 {
            self.searches += 1;
            if self.searches > UNINDEXED_SEARCHES {
                self.make_first_page();
            }
        }
    }

    /// Makes an entry for a key that has none, which was looked for by [`KeyTable::find_by`]; its id.
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> u32 {
        self.searched();
        self.put_new(hash, key, value)
    }

    fn put_new(&mut self, hash: u64, key: K, value: V) -> u32 {
        assert!(
            self.has_index,
            "nothing is put into an index that is not there"
        );
        let id = self.put(key, value);
        self.enter(hash, id);
        id
    }

    /// Makes an entry of a table without an index; its id.
    pub fn push(&mut self, key: K, value: V) -> u32 {
        assert!(!self.has_index, "an index has all entries");
        self.put(key, value)
    }

    /// Makes an entry that is in no index yet.
    fn put(&mut self, key: K, value: V) -> u32 {
        let entry = Entry { key, value };
        match self.free.pop() {
            Some(id) => {
                self.removed[id as usize / 64] &= !(1 << (id % 64));
                self.entries[id as usize / PAGE_ENTRIES][id as usize % PAGE_ENTRIES] = entry;
                id
            }
            None => {
                assert!(
                    self.issued < NONE as usize - 1,
                    "a table holds at most 2^32 - 2 entries"
                );
                let page = self.issued / PAGE_ENTRIES;
                if page == self.entries.len() {
                    // The first page grows as it fills, so that a table of few keys is small.
                    let room = if page == 0 {
                        self.entries.reserve_exact(1);
                        FIRST_ENTRIES
                    } else {
                        PAGE_ENTRIES
                    };
                    self.entries.push(Vec::with_capacity(room));
                }
                self.entries[page].push(entry);
                self.issued += 1;
                self.issued as u32 - 1
            }
        }
    }

    /// Gives a key this value, whatever it had; its id, and whether it is new.
    pub fn replace(&mut self, key: &K, value: V) -> (u32, bool)
    where
        K: Clone,
    {
        let mut value = Some(value);
        let (id, new) = self.find_or_insert(self.hash(key), key, || match value.take() {
            Some(value) => value,
            None => unreachable!("a value is made once"),
        });
        if let Some(value) = value {
            *self.value_mut(id) = value;
        }
        (id, new)
    }

    /// Removes an entry. Its value is replaced by `empty`; its key stays in memory until the id is reused.
    pub fn remove(&mut self, id: u32, empty: V) -> V {
        let hash = match self.has_index {
            true => self.hash(self.key(id)),
            false => 0,
        };
        self.remove_as(hash, id, empty)
    }

    /// The same where the hash of its key is at hand.
    pub(crate) fn remove_as(&mut self, hash: u64, id: u32, empty: V) -> V {
        if self.has_index {
            self.index.remove(hash, id);
        }
        if self.removed.len() * 64 <= id as usize {
            self.removed.resize(self.issued.div_ceil(64), 0);
        }
        self.removed[id as usize / 64] |= 1 << (id % 64);
        self.free.push(id);
        std::mem::replace(self.value_mut(id), empty)
    }

    /// Puts an id into the index, if there is one yet.
    fn enter(&mut self, hash: u64, id: u32) {
        if self.index.pages() > 0 {
            self.index.insert(hash, id);
        } else if self.issued > UNINDEXED {
            self.make_first_page();
        }
    }

    /// Gives a table of few keys its index page.
    #[cold]
    fn make_first_page(&mut self) {
        let live = (0..self.issued as u32).filter(|&id| self.is_live(id));
        let all: Vec<_> = live.map(|id| (self.hash(self.key(id)), id)).collect();
        self.index.begin(all.into_iter());
    }

    /// Forgets all entries and keeps the memory, a bounded piece at a call; `true` when done. In between the table must not be used.
    pub fn clear_some(&mut self, cursor: &mut usize) -> bool {
        const PAGES: usize = 64;
        let (start, end) = (*cursor, *cursor + PAGES);
        self.index.clear(start, end);
        for page in self.entries.iter_mut().skip(start).take(PAGES) {
            page.clear();
        }
        *cursor = end;
        if end < self.index.pages().max(self.entries.len()) {
            return false;
        }
        self.issued = 0;
        self.searches = 0;
        self.free.clear();
        self.removed.clear();
        *cursor = 0;
        true
    }

    /// Gives memory back, a bounded piece at a call; `true` when done. For a table that has been cleared and is not used again.
    pub fn free_some(&mut self) -> bool {
        const PAGES: usize = 64;
        self.index.free(PAGES);
        self.entries
            .truncate(self.entries.len().saturating_sub(PAGES));
        self.index.pages() == 0 && self.entries.is_empty()
    }

    /// Entries, and the bytes that they take with their share of the index, if any, at its usual load. O(1).
    pub(crate) fn size(&self) -> Size {
        let index = if self.has_index { 3 * 8 } else { 0 };
        Size::of::<Entry<K, V>>(self.len(), index)
    }

    /// Approximate bytes held, what keys and values own elsewhere not counted.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
            + self
                .entries
                .iter()
                .map(|e| e.capacity() * size_of::<Entry<K, V>>())
                .sum::<usize>()
    }
}

impl<K: Hash + Eq, V> Default for KeyTable<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
