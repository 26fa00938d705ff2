//! One side of an interval join: its records by key and time, and how they leave.
//!
//! Laws
//! 1. An element has *expired* iff its time lies below the limit, M less what it is kept. No record that is still to come can meet it.
//! 2. The elements of a key are a chain that descends by time, equals by arrival. So a chain's end that has gone has expired with
//!    all that was behind it, and a search stops at the first element that lies too low.
//! 3. A page goes when all in it have expired. The heads of chains that lay in it are forgotten then, and a key without any goes. Where
//!    pages that have gone are more than those that are there, the first page's elements move to the last: one record far in the
//!    future holds up nothing.
//! 4. Of an outer side, elements that expire without having met leave in the order of (time, arrival). Only pages that have such are gone
//!    through; there each element waits in a heap for its turn.
//! 5. What an element is in a checkpoint: see [`super::kept`].

use super::kept::KeptSide;
use super::log::{Element, Log, PAGE, id, link};
use crate::key::Key;
use crate::table::{KeyTable, NONE};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// By side, the link of a key's newest element, or [`NONE`].
pub(super) type Heads = [u32; 2];
/// Pages that may have gone before the first one besides as many as there are: law 3.
const HOLES: usize = if cfg!(test) { 2 } else { 64 };

/// See the module.
pub(super) struct Side<T> {
    /// Which of the [`Heads`] are its.
    which: usize,
    pub log: Log<T>,
    /// For how long after its time an element is kept.
    keep: i64,
    /// Law 1.
    pub limit: i64,
    /// Whether those that meet none are told of.
    pub outer: bool,
    /// The page that is being filled, or [`NONE`]. The others are in `ends`.
    open: u32,
    /// Full pages by their greatest time. Some may have gone.
    ends: BinaryHeap<Reverse<(i64, u64)>>,
    /// Of an outer side, full pages whose elements do not wait yet, by their least time. Some may have gone.
    begins: BinaryHeap<Reverse<(i64, u64)>>,
    /// Law 4: elements by time and place. Some may have met, or moved.
    leaving: BinaryHeap<Reverse<(i64, u64)>>,
    /// The greatest time so far.
    greatest: i64,
    /// Where the job takes checkpoints.
    pub kept: Option<KeptSide<T>>,
}

/// What leaves next.
pub(super) enum Alone {
    /// The element at this place of a slot.
    Due(u32, usize),
    /// The budget is used up.
    More,
    Nothing,
}

impl<T> Side<T> {
    pub fn new(
        which: usize,
        shard: usize,
        keep: i64,
        outer: bool,
        kept: Option<KeptSide<T>>,
    ) -> Self {
        Side {
            which,
            log: Log::new(shard),
            keep,
            limit: i64::MIN,
            outer,
            open: NONE,
            ends: BinaryHeap::new(),
            begins: BinaryHeap::new(),
            leaving: BinaryHeap::new(),
            greatest: i64::MIN,
            kept,
        }
    }

    /// What has expired when M is this.
    pub fn limit_at(&self, watermark: i64) -> i64 {
        match watermark {
            i64::MIN | i64::MAX => watermark,
            watermark => watermark.saturating_sub(self.keep),
        }
    }

    /// The M at which all that there is has expired.
    pub fn all_expired_at(&self) -> Option<i64> {
        (self.log.len() > 0).then(|| self.greatest + self.keep + 1)
    }

    /// Puts a record into its key's chain: behind `after`, or first, and before `next`, which may have gone.
    #[inline]
    pub fn insert(&mut self, head: &mut u32, (after, next): (u32, u32), new: New<T>) {
        let New {
            row,
            time,
            record,
            tie,
            met,
        } = new;
        let before = match self.log.find(next) {
            Some(_) => next,
            None => NONE,
        };
        let element = Element {
            time,
            before,
            row,
            record,
        };
        let link = self.put(element, tie, met);
        match self.log.get_mut(after) {
            Some(after) => after.before = link,
            None => *head = link,
        }
    }

    /// Puts an element into the last page; its link.
    #[inline]
    fn put(&mut self, element: Element<T>, tie: Option<u64>, met: bool) -> u32 {
        if self.open != NONE && self.log.page(self.open).is_full() {
            self.seal();
        }
        if self.open == NONE {
            self.open = self.log.open();
        }
        let (slot, time) = (self.open, element.time);
        let at = self.log.push(slot, element, tie);
        self.entered(slot, at, time, met);
        if let Some(kept) = &mut self.kept {
            kept.came(id(slot, at));
        }
        link(self.log.page(slot).serial, at)
    }

    #[inline]
    fn entered(&mut self, slot: u32, at: usize, time: i64, met: bool) {
        self.greatest = self.greatest.max(time);
        if !self.outer {
            return;
        }
        let page = self.log.page_mut(slot);
        if met {
            page.set_met(at);
        } else if page.leaving {
            self.leaving.push(Reverse((time, place(page.serial, at))));
        }
    }

    /// Puts back an element that has this number in checkpoints, as its key's newest: they come in the order of time.
    pub fn restore(&mut self, head: &mut u32, number: u64, new: New<T>) {
        if self.open != NONE && self.log.page(self.open).elements.len() == PAGE {
            self.seal();
        }
        if self.open == NONE {
            self.open = self.log.open();
        }
        let (slot, time) = (self.open, new.time);
        let element = Element {
            time,
            before: *head,
            row: new.row,
            record: new.record,
        };
        let at = self.log.push(slot, element, new.tie);
        self.log.remember(slot, number);
        self.entered(slot, at, time, new.met);
        if let Some(kept) = &mut self.kept {
            kept.restored(id(slot, at));
        }
        *head = link(self.log.page(slot).serial, at);
    }

    /// Nothing more goes into the open page.
    fn seal(&mut self) {
        let page = self.log.page(self.open);
        self.ends.push(Reverse((page.most, page.serial)));
        if self.outer && !page.leaving {
            self.begins.push(Reverse((page.least, page.serial)));
        }
        self.open = NONE;
    }

    /// An element has met one of the other side.
    #[inline]
    pub fn meets(&mut self, link: u32) {
        if !self.outer {
            return;
        }
        let Some((slot, at)) = self.log.find(link) else {
            return;
        };
        if self.log.page(slot).has_met(at) {
            return;
        }
        if let Some(kept) = &mut self.kept {
            kept.changes(id(slot, at), &self.log);
        }
        self.log.page_mut(slot).set_met(at);
    }

    /// The next element that has expired and met none: law 4.
    pub fn next_alone(&mut self, budget: &mut u32) -> Alone {
        if !self.outer {
            return Alone::Nothing;
        }
        while *budget > 0
            && let Some(slot) = self.next_beginning()
        {
            *budget = budget.saturating_sub(PAGE as u32 / 8);
            self.begin_leaving(slot);
        }
        if *budget == 0 {
            return Alone::More;
        }
        while let Some(&Reverse((time, place))) = self.leaving.peek()
            && time < self.limit
        {
            if *budget == 0 {
                return Alone::More;
            }
            *budget -= 1;
            self.leaving.pop();
            let at = place as usize % PAGE;
            if let Some(slot) = self.log.slot_of(place / PAGE as u64)
                && !self.log.page(slot).has_met(at)
            {
                return Alone::Due(slot, at);
            }
        }
        Alone::Nothing
    }

    /// A page with an element that has expired, and whose elements do not wait for their turn yet: they must from now on.
    fn next_beginning(&mut self) -> Option<u32> {
        while let Some(&Reverse((least, serial))) = self.begins.peek()
            && least < self.limit
        {
            self.begins.pop();
            let slot = self.log.slot_of(serial);
            if slot.is_some() {
                return slot;
            }
        }
        let page = (self.open != NONE).then(|| self.log.page(self.open))?;
        (!page.leaving && page.least < self.limit).then_some(self.open)
    }

    fn begin_leaving(&mut self, slot: u32) {
        let page = self.log.page_mut(slot);
        page.leaving = true;
        let page = self.log.page(slot);
        let elements = page.elements.iter().enumerate();
        let alone = elements.filter(|(at, _)| !page.has_met(*at));
        self.leaving
            .extend(alone.map(|(at, e)| Reverse((e.time, place(page.serial, at)))));
    }

    /// Lets one page go, or moves the first to the last (law 3); whether there was none to. All that has expired has been told.
    pub fn drop_one<K: Key>(&mut self, rows: &mut KeyTable<K, Heads>) -> bool {
        while let Some(&Reverse((most, serial))) = self.ends.peek()
            && most < self.limit
        {
            self.ends.pop();
            if let Some(slot) = self.log.slot_of(serial) {
                self.empty(slot, rows);
                return false;
            }
        }
        if self.open != NONE && self.log.page(self.open).most < self.limit {
            let slot = std::mem::replace(&mut self.open, NONE);
            self.empty(slot, rows);
            return false;
        }
        let too_many = self.log.span() > 2 * self.log.live_pages() + HOLES;
        match self.log.front().filter(|_| too_many) {
            Some(slot) if slot != self.open => {
                self.empty(slot, rows);
                false
            }
            _ => true,
        }
    }

    /// Takes all out of a page: what has expired goes, and the rest moves to the last page. Elements go from the last on: those of the page
    /// that a chain still leads through are there until all above them have moved.
    fn empty<K: Key>(&mut self, slot: u32, rows: &mut KeyTable<K, Heads>) {
        debug_assert!(slot != self.open);
        let serial = self.log.page(slot).serial;
        while let Some(at) = self.log.page(slot).elements.len().checked_sub(1) {
            let moves = self.log.page(slot).elements[at].time >= self.limit;
            if let Some(kept) = &mut self.kept {
                kept.leaves(id(slot, at), moves, &self.log);
            }
            let (met, tie) = (self.log.page(slot).has_met(at), self.log.tie_of(slot, at));
            let Some(element) = self.log.pop(slot) else {
                break;
            };
            let old = link(serial, at);
            if moves {
                self.relink(old, element, tie, met, rows);
            } else if element.row < rows.id_end() && rows.is_live(element.row) {
                let heads = rows.value_mut(element.row);
                if heads[self.which] == old {
                    heads[self.which] = NONE;
                    if *heads == [NONE; 2] {
                        rows.remove(element.row, [NONE; 2]);
                    }
                }
            }
        }
        self.log.detach(slot);
        self.log.recycle(slot);
    }

    /// Puts an element that was at `old` into the last page, in its place of the chain. O(those of its key that are newer).
    fn relink<K: Key>(
        &mut self,
        old: u32,
        mut element: Element<T>,
        tie: Option<u64>,
        met: bool,
        rows: &mut KeyTable<K, Heads>,
    ) {
        let row = element.row;
        // The page is young again: a link out of it must not grow older than the numbers of pages go round.
        if self.log.find(element.before).is_none() {
            element.before = NONE;
        }
        let new = self.put(element, tie, met);
        let head = &mut rows.value_mut(row)[self.which];
        if *head == old {
            *head = new;
            return;
        }
        let mut at = *head;
        while let Some(above) = self.log.get_mut(at) {
            if above.before == old {
                above.before = new;
                return;
            }
            at = above.before;
        }
        debug_assert!(false, "what has not expired is in its key's chain");
    }
}

/// A record on its way into a side.
pub(super) struct New<T> {
    pub row: u32,
    pub time: i64,
    pub record: T,
    pub tie: Option<u64>,
    pub met: bool,
}

/// A place in a page as a number that rises with arrival.
fn place(serial: u64, at: usize) -> u64 {
    serial * PAGE as u64 + at as u64
}
