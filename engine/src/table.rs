//! The hash table under keyed state: an extendible index of small pages over entries that never move.
//!
//! Laws
//! 1. No step is long: growth splits or rebuilds one page ([`PAGE_SLOTS`] slots) at a time, entries are never
//!    copied, and clearing is done in pieces. (One flat table stalled for 380 ms when it doubled at 10 million keys.)
//! 2. An entry's id is stable from its insertion to its removal; iteration is in the order of ids, which is the order of
//!    insertion until an id is reused. Nothing that can be observed depends on the index.
//! 3. The index holds 32 bits of hash beside each id, so a probe touches the entries only where the key is very likely equal.
//! 4. A table of few keys has no index page: there may be one for each of many windows. It is searched from end to end, and
//!    gets its page with its ninth key, or once it has been searched so often that 4 KiB are in proportion to its use.
//! 5. A table without an index ([`KeyTable::without_index`]) has no page ever: its entries are reached by their ids only.
//!
//! The directory and the splitting of pages are extendible hashing (Fagin, Nievergelt, Pippenger, Strong, 1979).
//!
//! ```text
//! hash:   63 ............ 41 | 40 ................. 32 | 31 ......... 0
//!         directory index    | home slot in the page   | not used
//!         fingerprint                                  |
//! slot:   63 ............ 32 | 31 ................. 0
//!         fingerprint        | id + 1, 0 = empty, u32::MAX = removed
//! ```
//!
//! So a slot says where it belongs in a page of any depth, and splitting a page touches no entry. What tells two keys of one home
//! slot apart are the bits of the directory's that their page does not share: 23 less its depth. With ten million keys that is 7
//! bits, and one probe in some 400 meets an entry that is another key's.

use crate::budget::Size;
use pelton_ring::{prefetch_ends, prefetch_read};
use std::collections::BTreeMap;
use std::hash::Hash;

/// Slots of an index page: 4 KiB. A page that is half full splits: short probes are worth the memory, since a probe whose
/// length the processor guesses wrong costs more than the add that follows.
pub const PAGE_SLOTS: usize = 512;
const SLOT_MASK: usize = PAGE_SLOTS - 1;
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
const REMOVED: u32 = u32::MAX;
/// Bits of the hash that the directory may use: all of the fingerprint but for the home slot's.
const DIRECTORY_BITS: u32 = 32 - PAGE_SLOTS.trailing_zeros();

/// What a slot holds of a hash; its low bits are the home slot.
#[inline(always)]
fn fingerprint_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// No entry.
pub const NONE: u32 = u32::MAX;

#[derive(Debug, Clone)]
struct Page {
    slots: Box<[u64; PAGE_SLOTS]>,
    /// Slots that are not empty, removed ones included; at most half.
    used: u32,
    /// Number of leading hash bits that all its keys share.
    depth: u32,
}

impl Page {
    fn new(depth: u32) -> Self {
        Page {
            slots: Box::new([0; PAGE_SLOTS]),
            used: 0,
            depth,
        }
    }

    fn clear(&mut self) {
        self.slots.fill(0);
        self.used = 0;
    }

    /// Whether one more slot may be taken.
    fn has_room(&self) -> bool {
        (self.used as usize + 1) * 2 <= PAGE_SLOTS
    }

    /// Puts an id into the first empty slot from its home on.
    fn place(&mut self, fingerprint: u32, id: u32) {
        let mut at = fingerprint as usize;
        while self.slots[at & SLOT_MASK] as u32 != 0 {
            at += 1;
        }
        self.slots[at & SLOT_MASK] = u64::from(fingerprint) << 32 | u64::from(id + 1);
        self.used += 1;
    }
}

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    value: V,
}

/// A map from keys to values with stable ids and bounded steps.
#[derive(Debug, Clone)]
pub struct KeyTable<K, V> {
    /// For each value of the leading `depth` hash bits, its page.
    directory: Vec<u32>,
    /// 63 - depth of the directory.
    shift: u32,
    /// Searches without an index page (law 4).
    searches: u32,
    /// None as long as there are few keys (law 4).
    pages: Vec<Page>,
    /// Pages of entries; all but the last are full.
    entries: Vec<Vec<Entry<K, V>>>,
    /// Ids that have been given out, the removed ones included.
    issued: usize,
    /// Removed ids, to be reused. Their keys stay in place until then.
    free: Vec<u32>,
    /// A bit for each removed id; empty as long as nothing has been removed.
    removed: Vec<u64>,
    /// Entries whose page is full of keys with nearly the same hash: a bad `Hash`, or an attack. Slow, but right.
    crowded: BTreeMap<u64, Vec<u32>>,
    /// Whether entries are found by their keys (law 5).
    has_index: bool,
    hasher: ahash::RandomState,
}

impl<K: Hash + Eq, V> KeyTable<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        KeyTable {
            has_index: true,
            directory: vec![0],
            shift: 63,
            searches: 0,
            pages: vec![],
            entries: vec![],
            issued: 0,
            free: vec![],
            removed: vec![],
            crowded: BTreeMap::new(),
            // Fixed: nothing observable depends on it (law 2), and runs repeat.
            hasher: ahash::RandomState::with_seeds(
                0x13198a2e03707344,
                0xa4093822299f31d0,
                0x082efa98ec4e6c89,
                0x452821e638d01377,
            ),
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
        (self.pages, self.directory, self.shift) = (vec![], vec![0], 63);
        self.crowded = BTreeMap::new();
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
        self.hasher.hash_one(key)
    }

    /// The hash of a key by something borrowed that hashes as it does.
    #[inline(always)]
    pub fn hash_as<Q: Hash>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The index page of a key with this hash; none such where there is no index.
    #[inline(always)]
    pub fn page_of(&self, hash: u64) -> u32 {
        self.directory[((hash >> 1) >> self.shift) as usize]
    }

    /// The first entry whose fingerprint fits, or [`NONE`]: almost always the key's. Touches the index only.
    #[inline(always)]
    pub fn candidate(&self, hash: u64) -> u32 {
        self.candidate_in(self.page_of(hash), hash)
    }

    /// The same, where the page is known from [`KeyTable::page_of`].
    #[inline(always)]
    pub fn candidate_in(&self, page: u32, hash: u64) -> u32 {
        let Some(page) = self.pages.get(page as usize) else {
            return NONE;
        };
        let slots = &*page.slots;
        let fingerprint = fingerprint_of(hash);
        let mut at = fingerprint as usize;
        // Most keys lie in the first slot or the second: a choice without a branch that the processor could not guess.
        let (first, second) = (slots[at & SLOT_MASK], slots[(at + 1) & SLOT_MASK]);
        let slot = if (first >> 32) as u32 == fingerprint {
            first
        } else {
            second
        };
        // An empty or removed slot has the fingerprint 0, which a key may have too: it then gives NONE or an id that was
        // never issued, and `verified` denies both.
        if (slot >> 32) as u32 == fingerprint {
            return (slot as u32).wrapping_sub(1);
        }
        if first as u32 == 0 || second as u32 == 0 {
            return NONE;
        }
        loop {
            at += 1;
            let slot = slots[(at + 1) & SLOT_MASK];
            let id = slot as u32;
            if (slot >> 32) as u32 == fingerprint && id.wrapping_add(1) > 1 {
                return id - 1;
            }
            if id == 0 {
                return NONE;
            }
        }
    }

    /// Asks the cache for the slot that [`KeyTable::candidate_in`] will look at first; the slot's page.
    #[inline(always)]
    pub fn prefetch_slot(&self, hash: u64) -> u32 {
        let page = self.page_of(hash);
        if let Some(page) = self.pages.get(page as usize) {
            prefetch_read(&page.slots[fingerprint_of(hash) as usize & SLOT_MASK]);
        }
        page
    }

    /// Asks the cache for an entry: for both of the lines that one of up to 64 bytes may lie on.
    #[inline(always)]
    pub fn prefetch_entry(&self, id: u32) {
        let page = self.entries.get(id as usize / PAGE_ENTRIES);
        if let Some(entry) = page.and_then(|p| p.get(id as usize % PAGE_ENTRIES)) {
            prefetch_ends(entry);
        }
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
        debug_assert!(self.has_index, "nothing is found without an index");
        let Some(page) = self.pages.get(self.page_of(hash) as usize) else {
            return self.find_unindexed(same);
        };
        let slots = &*page.slots;
        let fingerprint = fingerprint_of(hash);
        let mut at = fingerprint as usize;
        loop {
            let slot = slots[at & SLOT_MASK];
            match slot as u32 {
                0 => return self.find_crowded(hash, same),
                REMOVED => {}
                id if (slot >> 32) as u32 == fingerprint && same(self.key(id - 1)) => {
                    return id - 1;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Law 4.
    fn find_unindexed(&self, same: impl Fn(&K) -> bool) -> u32 {
        let same = |&id: &u32| same(self.key(id)) && self.is_live(id);
        (0..self.issued as u32).find(same).unwrap_or(NONE)
    }

    fn find_crowded(&self, hash: u64, same: impl Fn(&K) -> bool) -> u32 {
        let all = self.crowded.get(&hash).map_or(&[][..], |ids| ids);
        all.iter()
            .copied()
            .find(|&id| same(self.key(id)))
            .unwrap_or(NONE)
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
        if self.pages.is_empty() {
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
        self.index(hash, id);
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
                    self.issued < REMOVED as usize - 1,
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
        if self.has_index {
            self.unindex(id);
        }
        if self.removed.len() * 64 <= id as usize {
            self.removed.resize(self.issued.div_ceil(64), 0);
        }
        self.removed[id as usize / 64] |= 1 << (id % 64);
        self.free.push(id);
        std::mem::replace(self.value_mut(id), empty)
    }

    /// Takes an id out of the index.
    fn unindex(&mut self, id: u32) {
        let hash = self.hash(self.key(id));
        let page = self.page_of(hash) as usize;
        let Some(page) = self.pages.get_mut(page) else {
            return;
        };
        let mut at = fingerprint_of(hash) as usize;
        loop {
            let slot = &mut page.slots[at & SLOT_MASK];
            if *slot as u32 == id + 1 {
                *slot = u64::from(REMOVED);
                break;
            }
            if *slot as u32 == 0 {
                if let Some(ids) = self.crowded.get_mut(&hash) {
                    ids.retain(|&i| i != id);
                }
                break;
            }
            at += 1;
        }
    }

    /// Puts an id into the index, making room first.
    fn index(&mut self, hash: u64, id: u32) {
        if self.pages.is_empty() {
            if self.issued > UNINDEXED {
                self.make_first_page();
            }
            return;
        }
        loop {
            let number = self.page_of(hash) as usize;
            let page = &mut self.pages[number];
            if page.has_room() {
                return page.place(fingerprint_of(hash), id);
            }
            if !self.make_room(number) {
                return self.crowded.entry(hash).or_default().push(id);
            }
        }
    }

    /// Gives a table of few keys its index page.
    #[cold]
    fn make_first_page(&mut self) {
        let mut page = Page::new(0);
        for id in (0..self.issued as u32).filter(|&id| self.is_live(id)) {
            page.place(fingerprint_of(self.hash(self.key(id))), id);
        }
        self.pages.push(page);
    }

    /// Rebuilds one page without its removed slots, or splits it (law 1). `false` where splitting is of no use: the
    /// directory would grow out of proportion to the pages, as it does only where many hashes are nearly the same.
    #[cold]
    fn make_room(&mut self, number: usize) -> bool {
        let depth = self.pages[number].depth;
        // A page is at most half full.
        let mut all = [(0, 0); PAGE_SLOTS / 2];
        let mut count = 0;
        for &slot in self.pages[number].slots.iter() {
            let id = slot as u32;
            if id != 0 && id != REMOVED {
                all[count] = ((slot >> 32) as u32, id - 1);
                count += 1;
            }
        }
        let live = &all[..count];
        if live.len() * 3 <= PAGE_SLOTS {
            // The removed slots were the trouble. In place: where keys come and go, nothing is allocated.
            self.pages[number].clear();
            live.iter()
                .for_each(|&(fingerprint, id)| self.pages[number].place(fingerprint, id));
            return true;
        }
        if depth == 63 - self.shift {
            if depth == DIRECTORY_BITS || self.directory.len() > 1024.max(self.pages.len() * 16) {
                return false;
            }
            self.directory = self.directory.iter().flat_map(|&p| [p, p]).collect();
            self.shift -= 1;
        }
        let new = self.pages.len();
        self.pages[number].clear();
        self.pages[number].depth = depth + 1;
        self.pages.push(Page::new(depth + 1));
        for &(fingerprint, id) in live {
            let high = (fingerprint >> (31 - depth)) & 1 == 1;
            self.pages[if high { new } else { number }].place(fingerprint, id);
        }
        // The directory entries of a page are contiguous, and begin where any of its keys says: the upper half of them goes to
        // the new one.
        let span = 1usize << (63 - self.shift - depth);
        let any = u64::from(live[0].0) << 32;
        let first = ((any >> 1) >> self.shift) as usize / span * span;
        debug_assert!(
            first
                .checked_sub(1)
                .is_none_or(|before| self.directory[before] != number as u32)
        );
        self.directory[first + span / 2..first + span].fill(new as u32);
        true
    }

    /// Forgets all entries and keeps the memory, a bounded piece at a call; `true` when done. In between the table must not be used.
    pub fn clear_some(&mut self, cursor: &mut usize) -> bool {
        const PAGES: usize = 64;
        let (start, end) = (*cursor, *cursor + PAGES);
        for page in self.pages.iter_mut().skip(start).take(PAGES) {
            page.clear();
        }
        for page in self.entries.iter_mut().skip(start).take(PAGES) {
            page.clear();
        }
        *cursor = end;
        if end < self.pages.len().max(self.entries.len()) {
            return false;
        }
        self.issued = 0;
        self.searches = 0;
        self.free.clear();
        self.removed.clear();
        self.crowded.clear();
        *cursor = 0;
        true
    }

    /// Gives memory back, a bounded piece at a call; `true` when done. For a table that has been cleared and is not used again.
    pub fn free_some(&mut self) -> bool {
        const PAGES: usize = 64;
        self.pages.truncate(self.pages.len().saturating_sub(PAGES));
        self.entries
            .truncate(self.entries.len().saturating_sub(PAGES));
        self.pages.is_empty() && self.entries.is_empty()
    }

    /// Entries, and the bytes that they take with their share of the index, if any, at its usual load. O(1).
    pub(crate) fn size(&self) -> Size {
        let index = if self.has_index { 3 * 8 } else { 0 };
        Size::of::<Entry<K, V>>(self.len(), index)
    }

    /// Approximate bytes held, what keys and values own elsewhere not counted.
    pub fn bytes(&self) -> usize {
        self.pages.len() * (PAGE_SLOTS * 8 + size_of::<Page>())
            + self
                .entries
                .iter()
                .map(|e| e.capacity() * size_of::<Entry<K, V>>())
                .sum::<usize>()
            + self.directory.capacity() * 4
    }
}

impl<K: Hash + Eq, V> Default for KeyTable<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
