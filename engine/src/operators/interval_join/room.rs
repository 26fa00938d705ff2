//! How the elements of a side leave, and how its pages are kept from holding what has expired.
//!
//! Laws
//! 1. A page goes when all in it have expired. The heads of chains that lay in it are forgotten then, and a key without any goes.
//! 2. A page is *half gone* once half of its elements have expired. Where such pages are more than a quarter of all and [`HALF`], the one that has been
//!    so for longest is emptied: what is left of it moves to a page of such elements. So pages have room for at most three times the elements
//!    that have not expired, and eight pages, whatever the times: a few records far ahead hold up nothing. And what moves is
//!    at most as much as came, since each page that is emptied so had room for as much as it gave.
//! 3. Where page numbers of pages that have gone are more than those of pages that are there, and a page has been begun since the last time, the first
//!    page's elements move too.
//! 4. Of an outer side, elements that expire without having met leave in the order of (time, page, place). Only in pages that have such are elements
//!    sorted; there each waits for its turn.
//! 5. All of it is done in pieces: an element that goes or moves is one of the budget, O(1), and a page that is looked through an eighth
//!    of its elements. Nothing comes in between: what has been begun is finished before the next record.
//!
//! (Law 2 is how log-structured stores are cleaned: Rosenblum and Ousterhout, 1992.)

use super::log::{Element, Holder, PAGE, Turn, id, link};
use super::side::{Emptying, Heads, Side};
use crate::key::Key;
use crate::table::{KeyTable, NONE};

/// Pages that may be half gone besides a quarter of all: law 2.
pub(super) const HALF: usize = if cfg!(test) { 1 } else { 4 };
/// Page numbers that may have gone besides as many as there are pages: law 3.
const HOLES: usize = if cfg!(test) { 2 } else { 64 };
/// What looking through a page costs of the budget.
const LOOK: u32 = PAGE as u32 / 8;

/// What leaves next.
pub(super) enum Alone {
    /// The element at this place of a slot.
    Due(u32, usize),
    /// The budget is used up.
    More,
    Nothing,
}

impl<T> Side<T> {
    /// An element has come to a page of an outer side. `is_first`: it has the page's least time.
    #[inline]
    pub(super) fn may_leave(&mut self, slot: u32, at: usize, new: (i64, bool), met: bool) {
        let (time, is_first) = new;
        let page = self.log.page_mut(slot);
        if met {
            page.set_met(at);
        }
        let serial = page.serial;
        if !page.leaving {
            if is_first {
                self.alone.set(slot, serial, time);
            }
        } else if !met {
            let elements = &page.elements;
            let to = page
                .waiting
                .partition_point(|&other| elements[other as usize].time > time);
            page.waiting.insert(to, at as u16);
            self.waiting += 1;
            if to + 1 == page.waiting.len() {
                self.alone.set(slot, serial, time);
            }
        }
    }

    /// The next element that has expired and met none: law 4.
    pub fn next_alone(&mut self, budget: &mut u32) -> Alone {
        while let Some((_, slot)) = self.alone.first().filter(|next| next.0 < self.limit) {
            if *budget == 0 {
                return Alone::More;
            }
            if !self.log.page(slot).leaving {
                *budget = budget.saturating_sub(LOOK);
                self.begin_leaving(slot);
                continue;
            }
            *budget -= 1;
            let at = self.log.page_mut(slot).waiting.pop();
            self.waiting -= usize::from(at.is_some());
            self.wait_for_next(slot);
            if let Some(at) = at.map(usize::from)
                && !self.log.page(slot).has_met(at)
            {
                return Alone::Due(slot, at);
            }
        }
        Alone::Nothing
    }

    /// Who is alone in a page waits for its turn from now on.
    fn begin_leaving(&mut self, slot: u32) {
        let page = self.log.page(slot);
        let elements = page.elements.iter().enumerate();
        let alone = elements.filter(|(at, _)| !page.has_met(*at));
        self.times.clear();
        self.times.extend(alone.map(|(at, e)| (e.time, at as u16)));
        self.times.sort_unstable();
        self.waiting += self.times.len();
        let page = self.log.page_mut(slot);
        page.leaving = true;
        page.waiting
            .extend(self.times.drain(..).rev().map(|of| of.1));
        self.wait_for_next(slot);
    }

    fn wait_for_next(&mut self, slot: u32) {
        let page = self.log.page(slot);
        match page.waiting.last() {
            Some(&next) => {
                let time = page.elements[next as usize].time;
                self.alone.set(slot, page.serial, time);
            }
            None => self.alone.remove(slot),
        }
    }

    /// Does a piece of what laws 1 to 3 ask for; whether nothing is left. All that has expired has been told.
    pub fn make_room<K: Key>(&mut self, budget: &mut u32, rows: &mut KeyTable<K, Heads>) -> bool {
        loop {
            if *budget == 0 {
                return false;
            }
            if let Some(emptying) = self.emptying {
                if self.empty(emptying.slot, budget, rows) {
                    self.emptying = None;
                    if emptying.is_first {
                        self.first_stays_to = self.log.next_serial();
                    }
                }
                continue;
            }
            if let Some((_, slot)) = self.turns.first().filter(|next| next.0 < self.limit) {
                self.turn(slot, budget);
                continue;
            }
            match self.next_to_empty() {
                Some(emptying) => self.begin_emptying(emptying),
                None => return true,
            }
        }
    }

    /// A full page is looked at.
    fn turn(&mut self, slot: u32, budget: &mut u32) {
        let page = self.log.page(slot);
        if page.most < self.limit {
            return self.begin_emptying(Emptying {
                slot,
                is_first: false,
            });
        }
        let (turn, time) = match page.turn {
            Turn::Begins => {
                *budget = budget.saturating_sub(LOOK);
                (Turn::Half, self.half_gone_at(slot))
            }
            Turn::Half | Turn::Ends => {
                self.half.push_back(page.serial);
                (Turn::Ends, page.most)
            }
        };
        let page = self.log.page_mut(slot);
        page.turn = turn;
        self.turns.set(slot, page.serial, time);
    }

    /// When this lies below the limit, half of a page's elements have expired.
    fn half_gone_at(&mut self, slot: u32) -> i64 {
        let page = self.log.page(slot);
        let elements = &page.elements;
        let middle = (elements.len() - 1) / 2;
        if page.ascends {
            return elements[middle].time;
        }
        self.times.clear();
        self.times.extend(elements.iter().map(|e| (e.time, 0)));
        let (_, &mut (time, _), _) = self.times.select_nth_unstable(middle);
        self.times.clear();
        time
    }

    /// A page that is to be emptied, though nobody has its turn.
    fn next_to_empty(&mut self) -> Option<Emptying> {
        for slot in [self.open, self.moved] {
            if slot != NONE && self.log.page(slot).most < self.limit {
                return Some(Emptying {
                    slot,
                    is_first: false,
                });
            }
        }
        while self.half.len() > self.log.live_pages() / 4 + HALF {
            let serial = self.half.pop_front()?;
            if let Some(slot) = self.log.slot_of(serial) {
                return Some(Emptying {
                    slot,
                    is_first: false,
                });
            }
        }
        let too_many = self.log.span() > 2 * self.log.live_pages() + HOLES;
        let may_go = too_many && self.log.next_serial() > self.first_stays_to;
        self.log.front().filter(|_| may_go).map(|slot| Emptying {
            slot,
            is_first: true,
        })
    }

    fn begin_emptying(&mut self, emptying: Emptying) {
        let slot = emptying.slot;
        self.forget_places();
        self.turns.remove(slot);
        self.alone.remove(slot);
        self.close(slot);
        let page = self.log.page_mut(slot);
        self.waiting -= page.waiting.len();
        page.waiting.clear();
        self.emptying = Some(emptying);
    }

    /// Takes elements out of a page, from the last on, until the budget is used up: what has expired goes, and the rest moves; whether
    /// none is left.
    fn empty<K: Key>(
        &mut self,
        slot: u32,
        budget: &mut u32,
        rows: &mut KeyTable<K, Heads>,
    ) -> bool {
        let serial = self.log.page(slot).serial;
        while let Some(at) = self.log.page(slot).elements.len().checked_sub(1) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let element = &self.log.page(slot).elements[at];
            let (moves, above) = (element.time >= self.limit, element.above);
            if let Some(kept) = &mut self.kept {
                kept.leaves(id(slot, at), moves, &self.log);
            }
            if moves {
                let (met, tie) = (self.log.page(slot).has_met(at), self.log.tie_of(slot, at));
                if let Some(element) = self.log.pop(slot) {
                    self.relocate(element, tie, met, rows);
                }
                continue;
            }
            self.log.drop_last(slot);
            if let Holder::Key(row) = above.holder() {
                let heads = rows.value_mut(row);
                debug_assert_eq!(
                    heads[self.which],
                    link(serial, at),
                    "it is its key's newest"
                );
                heads[self.which] = NONE;
                if *heads == [NONE; 2] {
                    rows.remove(row, [NONE; 2]);
                }
            }
        }
        self.log.detach(slot);
        self.log.recycle(slot);
        true
    }

    /// Puts an element that has been taken out of its page into the one of those that have moved, in its place of the chain.
    fn relocate<K: Key>(
        &mut self,
        element: Element<T>,
        tie: Option<u64>,
        met: bool,
        rows: &mut KeyTable<K, Heads>,
    ) {
        if self.moved != NONE && self.log.page(self.moved).is_full() {
            self.seal(self.moved);
        }
        if self.moved == NONE {
            self.moved = self.log.open();
        }
        let (slot, above) = (self.moved, element.above);
        let link = self.put(slot, element, tie, met);
        if let Some(kept) = &mut self.kept {
            kept.came(id(slot, link as usize % PAGE));
        }
        match above.holder() {
            Holder::Key(row) => rows.value_mut(row)[self.which] = link,
            Holder::Newer(above) => match self.log.get_mut(above) {
                Some(above) => above.before = link,
                None => debug_assert!(false, "what is above has not expired either"),
            },
        }
    }
}
