//! The index of a table: from the hash of a key to the ids of the entries that may have it.
//!
//! Laws
//! 1. No step is long: growth splits or rebuilds one page ([`BUCKETS`] buckets) at a time, and never looks at an entry.
//! 2. A bucket is filled from its first slot on. It has a last slot that is empty as long as it has never been full, and then no
//!    entry at home in it lies elsewhere: a search ends there.
//! 3. What is found by a hash alone is a candidate: its key is still to be compared.
//!
//! Pages by a directory are extendible hashing (Fagin, Nievergelt, Pippenger, Strong, 1979); buckets of a cache line whose marks are
//! compared at once are those of F14 (Bronson, Shi, 2019), with marks long enough to split a page by.
//!
//! ```text
//! hash:   63 ............ 38 | 37 ......... 32 | 31 ......... 0
//!         directory index    | home bucket     | not used
//!         mark ------------------------------ |
//! bucket: 8 marks of 32 bits, 8 of: id + 1, 0 = empty, u32::MAX = removed
//! ```
//!
//! So a mark says where it belongs in a page of any depth. What tells two keys of one home bucket apart are the bits of the
//! directory's that their page does not share: 26 less its depth. With ten million keys that is 10 bits, and one search in some 800
//! meets an entry that is another key's.

use super::NONE;
use pelton_ring::{lanes_equal, prefetch_read};
use std::collections::BTreeMap;

/// Buckets of a page: 4 KiB.
const BUCKETS: usize = 64;
/// Slots of a bucket.
const WAYS: usize = 8;
/// Slots of a page that may be in use. One that is fuller splits: where buckets are seldom full, a search ends in the first one, and
/// the processor guesses that right.
const FULL: u32 = (BUCKETS * WAYS / 2) as u32;
const REMOVED: u32 = u32::MAX;
/// Bits of the hash that the directory may use: all of the mark but for the home bucket's.
const DIRECTORY_BITS: u32 = 32 - BUCKETS.trailing_zeros();

/// What a bucket holds of a hash; its low bits are the home bucket.
#[inline(always)]
fn mark_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// One cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Bucket {
    marks: [u32; WAYS],
    /// Ids of entries + 1.
    ids: [u32; WAYS],
}

static EMPTY: Bucket = Bucket {
    marks: [0; WAYS],
    ids: [0; WAYS],
};

impl Bucket {
    /// A bit for each slot with this mark. An empty or removed slot has the mark 0, which a key may have too.
    #[inline(always)]
    fn matches(&self, mark: u32) -> u32 {
        lanes_equal(&self.marks, mark)
    }

    /// The first id whose mark fits, or one that was never issued.
    #[inline(always)]
    fn candidate(&self, mark: u32) -> u32 {
        let found = self.matches(mark);
        if found == 0 {
            return NONE;
        }
        self.ids[found.trailing_zeros() as usize % WAYS].wrapping_sub(1)
    }

    /// Law 2.
    #[inline(always)]
    fn has_been_full(&self) -> bool {
        self.ids[WAYS - 1] != 0
    }
}

#[derive(Debug, Clone)]
struct Page {
    buckets: Box<[Bucket; BUCKETS]>,
    /// Slots that are not empty, removed ones included; at most [`FULL`].
    used: u32,
    /// Number of leading hash bits that all its keys share.
    depth: u32,
}

impl Page {
    fn new(depth: u32) -> Self {
        Page {
            buckets: Box::new([EMPTY; BUCKETS]),
            used: 0,
            depth,
        }
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> &Bucket {
        &self.buckets[mark_of(hash) as usize % BUCKETS]
    }

    fn clear(&mut self) {
        self.buckets.fill(EMPTY);
        self.used = 0;
    }

    /// Puts an id into the first slot that is free from its home on.
    fn place(&mut self, mark: u32, id: u32) {
        let mut home = mark as usize;
        loop {
            let bucket = &mut self.buckets[home % BUCKETS];
            let free = |&id: &u32| id == 0 || id == REMOVED;
            if let Some(way) = bucket.ids.iter().position(free) {
                self.used += u32::from(bucket.ids[way] == 0);
                (bucket.marks[way], bucket.ids[way]) = (mark, id + 1);
                return;
            }
            home += 1;
        }
    }
}

/// Where what has some hash is at home.
#[derive(Debug, Clone, Copy)]
pub struct Home<'a>(&'a Bucket);

impl Home<'_> {
    /// Asks the cache for it.
    #[inline(always)]
    pub fn prefetch(self) {
        prefetch_read(self.0);
    }

    /// The entry of this hash, which is at home here: almost always its key's, and [`NONE`] or no entry's id where there is none, or
    /// where it lies elsewhere since its home was full, as few do. Touches the index only.
    #[inline(always)]
    pub fn candidate(self, hash: u64) -> u32 {
        self.0.candidate(mark_of(hash))
    }
}

/// Nothing is at home in it.
impl Default for Home<'_> {
    fn default() -> Self {
        Home(&EMPTY)
    }
}

/// The one page of a table that has no other.
#[derive(Debug, Clone, Copy)]
pub struct OnePage<'a>(&'a [Bucket; BUCKETS]);

impl<'a> OnePage<'a> {
    /// Where what has this hash is at home.
    #[inline(always)]
    pub fn home(self, hash: u64) -> Home<'a> {
        Home(&self.0[mark_of(hash) as usize % BUCKETS])
    }
}

/// The pages of a table that has several, for a loop over hashes.
#[derive(Debug, Clone, Copy)]
pub struct Pages<'a> {
    directory: &'a [u32],
    /// 64 - depth of the directory, which is not 0.
    shift: u32,
    pages: &'a [Page],
}

impl<'a> Pages<'a> {
    /// Where what has this hash is at home.
    #[inline(always)]
    pub fn home(self, hash: u64) -> Home<'a> {
        let page = self.directory[(hash >> self.shift) as usize];
        Home(self.pages[page as usize].home(hash))
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// For each value of the leading `depth` hash bits, its page.
    directory: Vec<u32>,
    /// 63 - depth of the directory.
    shift: u32,
    /// None as long as there are few keys.
    pages: Vec<Page>,
    /// Entries whose page is full of keys with nearly the same hash: a bad `Hash`, or an attack. Slow, but right.
    crowded: BTreeMap<u64, Vec<u32>>,
}

impl Index {
    pub(super) fn new() -> Self {
        Index {
            directory: vec![0],
            shift: 63,
            pages: vec![],
            crowded: BTreeMap::new(),
        }
    }

    /// Number of pages.
    #[inline(always)]
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The page of a key with this hash; none such where there is none.
    #[inline(always)]
    pub(super) fn page_of(&self, hash: u64) -> u32 {
        self.directory[((hash >> 1) >> self.shift) as usize]
    }

    /// Asks the cache for the bucket that [`Index::candidate_in`] will look at first; its page.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) -> u32 {
        let page = self.page_of(hash);
        if let Some(page) = self.pages.get(page as usize) {
            prefetch_read(page.home(hash));
        }
        page
    }

    /// The first id in its home bucket whose mark fits, or one that was never issued. One that lies beyond, as few do, is not looked
    /// for.
    #[inline(always)]
    pub(super) fn candidate_in(&self, page: u32, hash: u64) -> u32 {
        let Some(page) = self.pages.get(page as usize) else {
            return NONE;
        };
        page.home(hash).candidate(mark_of(hash))
    }

    /// The home of a hash, for a look at it later: an empty one where there is no page.
    #[inline(always)]
    pub(super) fn home(&self, hash: u64) -> Home<'_> {
        match self.pages.get(self.page_of(hash) as usize) {
            Some(page) => Home(page.home(hash)),
            None => Home::default(),
        }
    }

    /// The page, where there is one and no other.
    #[inline(always)]
    pub(super) fn one_page(&self) -> Option<OnePage<'_>> {
        match self.pages.as_slice() {
            [page] => Some(OnePage(&page.buckets)),
            _ => None,
        }
    }

    /// The pages, where there are several: the directory then names none that is not there.
    #[inline(always)]
    pub(super) fn several_pages(&self) -> Option<Pages<'_>> {
        (self.shift < 63).then_some(Pages {
            directory: &self.directory,
            shift: self.shift + 1,
            pages: &self.pages,
        })
    }

    /// The id that has this hash and that `same` says yes to, or [`NONE`].
    pub(super) fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> u32 {
        let page = &self.pages[self.page_of(hash) as usize];
        let mark = mark_of(hash);
        let mut home = mark as usize;
        loop {
            let bucket = &page.buckets[home % BUCKETS];
            let mut found = bucket.matches(mark);
            while found != 0 {
                let id = bucket.ids[found.trailing_zeros() as usize % WAYS];
                if id != 0 && id != REMOVED && same(id - 1) {
                    return id - 1;
                }
                found &= found - 1;
            }
            if !bucket.has_been_full() {
                break;
            }
            home += 1;
        }
        let crowded = self.crowded.get(&hash).map_or(&[][..], |ids| ids);
        crowded.iter().copied().find(|&id| same(id)).unwrap_or(NONE)
    }

    /// Puts an id in, making room first. There is a page.
    pub(super) fn insert(&mut self, hash: u64, id: u32) {
        loop {
            let number = self.page_of(hash) as usize;
            let page = &mut self.pages[number];
            if page.used < FULL {
                return page.place(mark_of(hash), id);
            }
            if !self.make_room(number) {
                return self.crowded.entry(hash).or_default().push(id);
            }
        }
    }

    /// Takes an id out.
    pub(super) fn remove(&mut self, hash: u64, id: u32) {
        let page = self.page_of(hash) as usize;
        let Some(page) = self.pages.get_mut(page) else {
            return;
        };
        let mut home = mark_of(hash) as usize;
        loop {
            let bucket = &mut page.buckets[home % BUCKETS];
            let found = lanes_equal(&bucket.ids, id + 1);
            if found != 0 {
                let way = found.trailing_zeros() as usize % WAYS;
                if bucket.has_been_full() {
                    (bucket.marks[way], bucket.ids[way]) = (0, REMOVED);
                } else {
                    // Nothing lies beyond it: the last one takes the place, and no trace is left.
                    let free = lanes_equal(&bucket.ids, 0);
                    let last = (free.trailing_zeros() as usize - 1) % WAYS;
                    (bucket.marks[way], bucket.ids[way]) = (bucket.marks[last], bucket.ids[last]);
                    (bucket.marks[last], bucket.ids[last]) = (0, 0);
                    page.used -= 1;
                }
                return;
            }
            if !bucket.has_been_full() {
                if let Some(ids) = self.crowded.get_mut(&hash) {
                    ids.retain(|&i| i != id);
                }
                return;
            }
            home += 1;
        }
    }

    /// Makes the first page, of these hashes and ids.
    #[cold]
    pub(super) fn begin(&mut self, all: impl Iterator<Item = (u64, u32)>) {
        let mut page = Page::new(0);
        for (hash, id) in all {
            page.place(mark_of(hash), id);
        }
        self.pages.push(page);
    }

    /// Rebuilds one page without its removed slots, or splits it (law 1). `false` where splitting is of no use: the
    /// directory would grow out of proportion to the pages, as it does only where many hashes are nearly the same.
    #[cold]
    fn make_room(&mut self, number: usize) -> bool {
        let depth = self.pages[number].depth;
        let mut all = [(0, 0); FULL as usize];
        let mut count = 0;
        for bucket in self.pages[number].buckets.iter() {
            for (&mark, &id) in bucket.marks.iter().zip(&bucket.ids) {
                if id != 0 && id != REMOVED {
                    all[count] = (mark, id - 1);
                    count += 1;
                }
            }
        }
        let live = &all[..count];
        if live.len() * 3 <= FULL as usize * 2 {
            // The removed slots were the trouble. In place: where keys come and go, nothing is allocated.
            self.pages[number].clear();
            live.iter()
                .for_each(|&(mark, id)| self.pages[number].place(mark, id));
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
        for &(mark, id) in live {
            let high = (mark >> (31 - depth)) & 1 == 1;
            self.pages[if high { new } else { number }].place(mark, id);
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

    /// Empties pages `from..to`, of which there may be fewer.
    pub(super) fn clear(&mut self, from: usize, to: usize) {
        let to = to.min(self.pages.len());
        for page in &mut self.pages[from.min(to)..to] {
            page.clear();
        }
        self.crowded.clear();
    }

    /// Gives so many pages back.
    pub(super) fn free(&mut self, pages: usize) {
        let left = self.pages.len().saturating_sub(pages);
        self.pages.truncate(left);
    }

    /// Approximate bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * (size_of::<[Bucket; BUCKETS]>() + size_of::<Page>())
            + self.directory.capacity() * 4
    }
}
