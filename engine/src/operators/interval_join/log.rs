//! The records of one side in the order of arrival, in pages that never move.
//!
//! Laws
//! 1. An element is known by a *link*: the number of its page and its place in it. Page numbers rise, so a link to a page that has gone is
//!    seen to lead nowhere, and nothing is unlinked when a page goes.
//! 2. Of page numbers a link has the low bits. Who writes a link found its page, or it is that of a new element; so it is older than the
//!    element that holds it by no more than there are between the first page and the last, and that one is there when it is read. So
//!    numbers are told apart as long as half of them at most lie between the first page and the last ([`MOST_PAGES`]).
//! 3. A page's slot is used again, and its memory with it: no allocation in steady state, and an id for a
//!    [`crate::checkpoint::Tracker`] that stays small. Memory is that of the most elements there ever were at once.
//! 4. An element has a number that no other ever has, on whatever shard: it follows from its page, or is remembered where it was restored.

use crate::budget::Size;
use crate::table::NONE;
use pelton_ring::prefetch_ends_of;
use std::collections::VecDeque;

/// Elements of a page. Few where this is tested, so that there are many pages.
pub(super) const PAGE: usize = if cfg!(test) { 16 } else { 1024 };
/// The bits of a link that are a place in a page.
const SHIFT: u32 = PAGE.trailing_zeros();
/// What tells the entry of a key from a link: see [`Above`].
const ROW: u32 = 1 << 31;
/// The page numbers that links tell apart, less one.
pub(super) const MASK: u32 = (ROW - 1) >> SHIFT;
/// Law 2.
const MOST_PAGES: usize = MASK as usize / 2;
/// Below the shard's number in an element's.
pub(super) const SHARD_SHIFT: u32 = 48;

/// A record that is kept.
#[derive(Debug)]
pub(super) struct Element<T> {
    pub time: i64,
    /// The link of its key's next older one.
    pub before: u32,
    pub above: Above,
    pub record: T,
}

/// What has the link to an element: its key's next newer one, or its key's entry if it is the newest. Four bytes for both, so that an element
/// that moves costs no search. Of one that has expired, what is above it may have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Above(u32);

/// What an [`Above`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The element of this link.
    Newer(u32),
    /// The entry of this key.
    Key(u32),
}

impl Above {
    #[inline(always)]
    pub fn newer(link: u32) -> Self {
        debug_assert!(link < ROW);
        Above(link)
    }

    #[inline(always)]
    pub fn key(row: u32) -> Self {
        assert!(row < ROW, "a shard of a join has at most 2^31 keys");
        Above(row | ROW)
    }

    #[inline(always)]
    pub fn holder(self) -> Holder {
        match self.0 & ROW {
            0 => Holder::Newer(self.0),
            _ => Holder::Key(self.0 & !ROW),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub elements: Vec<Element<T>>,
    /// A bit for each that has met one of the other side. Used where it matters.
    met: Vec<u64>,
    /// What ties go by, or empty where records carry no origins.
    ties: Vec<u64>,
    /// Numbers of elements that were restored, or empty: law 4.
    numbers: Vec<u64>,
    /// The page's number.
    pub serial: u64,
    /// The least and greatest time in it.
    pub least: i64,
    pub most: i64,
    /// No element of it is earlier than the one before it.
    pub ascends: bool,
    /// Why it is looked at next, once it is full.
    pub turn: Turn,
    /// Its elements wait for their turn to leave, one by one.
    pub leaving: bool,
    /// Then the places of those that have met none, the first to leave at the end.
    pub waiting: Vec<u16>,
}

/// Why a page is looked at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Its first elements have expired.
    Begins,
    /// Half of them have.
    Half,
    /// All have.
    Ends,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Log<T> {
    /// By slot. Those in `free` are empty.
    pages: Vec<Page<T>>,
    free: Vec<u32>,
    /// By page number, from the first on: the slot, or [`NONE`] for a page that has gone.
    order: VecDeque<u32>,
    first: u64,
    len: usize,
    has_ties: bool,
    /// The shard's share of its elements' numbers.
    shard: u64,
}

impl<T> Log<T> {
    pub fn new(shard: usize) -> Self {
        Log {
            pages: vec![],
            free: vec![],
            order: VecDeque::new(),
            first: 0,
            len: 0,
            has_ties: false,
            shard: (shard as u64) << SHARD_SHIFT,
        }
    }

    /// How many elements there are, and their bytes and those of what ties go by.
    pub fn size(&self) -> Size {
        let ties = match self.has_ties {
            true => size_of::<u64>(),
            false => 0,
        };
        let numbers = Size::of::<u32>(self.order.len(), 0);
        let elements = Size::of::<Element<T>>(self.len, ties);
        Size {
            bytes: elements.bytes + numbers.bytes,
            ..elements
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Pages that are there.
    pub fn live_pages(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// Page numbers from the first page to the last: those of pages that have gone are among them.
    pub fn span(&self) -> usize {
        self.order.len()
    }

    /// The slot of the first page.
    pub fn front(&self) -> Option<u32> {
        self.order.front().copied()
    }

    /// The number of the next page.
    pub fn next_serial(&self) -> u64 {
        self.first + self.order.len() as u64
    }

    /// Pages are numbered from here on: before there are any.
    pub fn serials_from(&mut self, serial: u64) {
        debug_assert!(self.order.is_empty());
        self.first = self.first.max(serial);
    }

    pub fn page(&self, slot: u32) -> &Page<T> {
        &self.pages[slot as usize]
    }

    pub fn page_mut(&mut self, slot: u32) -> &mut Page<T> {
        &mut self.pages[slot as usize]
    }

    /// The slot of a page by its number, if it is there.
    pub fn slot_of(&self, serial: u64) -> Option<u32> {
        let at = usize::try_from(serial.checked_sub(self.first)?).ok()?;
        self.order.get(at).copied().filter(|&slot| slot != NONE)
    }

    /// Slot and place of an element, if its page is there. No page has the number that [`NONE`] would lead to.
    #[inline(always)]
    pub fn find(&self, link: u32) -> Option<(u32, usize)> {
        let at = (link >> SHIFT).wrapping_sub(self.first as u32) & MASK;
        let slot = *self.order.get(at as usize)?;
        (slot != NONE).then_some((slot, link as usize % PAGE))
    }

    /// An element, if it is there.
    #[inline(always)]
    pub fn get(&self, link: u32) -> Option<&Element<T>> {
        let (slot, at) = self.find(link)?;
        self.pages[slot as usize].elements.get(at)
    }

    #[inline(always)]
    pub fn get_mut(&mut self, link: u32) -> Option<&mut Element<T>> {
        let (slot, at) = self.find(link)?;
        self.pages[slot as usize].elements.get_mut(at)
    }

    /// Asks the cache for an element.
    #[inline(always)]
    pub fn prefetch(&self, link: u32) {
        if let Some((slot, at)) = self.find(link) {
            prefetch_ends_of(&self.pages[slot as usize].elements, at);
        }
    }

    /// A new page; its slot. There is none that is being filled.
    pub fn open(&mut self) -> u32 {
        if self.next_serial() as u32 & MASK == MASK {
            self.order.push_back(NONE);
            self.shorten();
        }
        let serial = self.next_serial();
        assert!(
            self.order.len() < MOST_PAGES,
            "a side of a join holds at most {MOST_PAGES} pages of {PAGE} records on a shard"
        );
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pages.push(Page {
                elements: Vec::with_capacity(PAGE),
                met: vec![],
                ties: vec![],
                numbers: vec![],
                serial,
                least: i64::MAX,
                most: i64::MIN,
                ascends: true,
                turn: Turn::Begins,
                leaving: false,
                waiting: vec![],
            });
            self.pages.len() as u32 - 1
        });
        let page = &mut self.pages[slot as usize];
        page.serial = serial;
        (page.least, page.most, page.ascends) = (i64::MAX, i64::MIN, true);
        (page.turn, page.leaving) = (Turn::Begins, false);
        self.order.push_back(slot);
        slot
    }

    /// Puts an element into a page that is not full; its place.
    #[inline(always)]
    pub fn push(&mut self, slot: u32, element: Element<T>, tie: Option<u64>) -> usize {
        let page = &mut self.pages[slot as usize];
        let at = page.elements.len();
        page.ascends &= element.time >= page.most;
        page.least = page.least.min(element.time);
        page.most = page.most.max(element.time);
        page.elements.push(element);
        page.ties.extend(tie);
        self.has_ties |= tie.is_some();
        self.len += 1;
        at
    }

    /// Takes the last element out of a page that is being emptied. What is beside it stays until the page is used again.
    pub fn pop(&mut self, slot: u32) -> Option<Element<T>> {
        let element = self.pages[slot as usize].elements.pop();
        self.len -= usize::from(element.is_some());
        element
    }

    /// Drops the last element of a page that is being emptied, where it lies.
    pub fn drop_last(&mut self, slot: u32) {
        let elements = &mut self.pages[slot as usize].elements;
        let before = elements.len();
        elements.truncate(before.saturating_sub(1));
        self.len -= before - elements.len();
    }

    /// What was given with an element.
    pub fn tie_of(&self, slot: u32, at: usize) -> Option<u64> {
        self.pages[slot as usize].ties.get(at).copied()
    }

    /// Gives the element that was put in last into a page the number that it had before.
    pub fn remember(&mut self, slot: u32, number: u64) {
        self.page_mut(slot).numbers.push(number);
    }

    /// A page goes, and its elements with it, once [`Log::recycle`] says so. Links to them lead nowhere from now on.
    pub fn detach(&mut self, slot: u32) {
        let serial = self.pages[slot as usize].serial;
        self.order[(serial - self.first) as usize] = NONE;
        self.shorten();
    }

    fn shorten(&mut self) {
        while self.order.front() == Some(&NONE) {
            self.order.pop_front();
            self.first += 1;
        }
    }

    /// The memory of a page that has been detached is for others.
    pub fn recycle(&mut self, slot: u32) {
        let page = &mut self.pages[slot as usize];
        self.len -= page.elements.len();
        page.elements.clear();
        page.met.clear();
        page.ties.clear();
        page.numbers.clear();
        page.waiting.clear();
        self.free.push(slot);
    }

    /// Ids for a tracker are below this.
    pub fn id_end(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }

    /// Page and place of an element by its id, if there is one.
    pub fn by_id(&self, id: u32) -> Option<(&Page<T>, usize)> {
        let page = &self.pages[id as usize / PAGE];
        let at = id as usize % PAGE;
        (at < page.elements.len()).then_some((page, at))
    }

    /// Law 4.
    pub fn number(&self, page: &Page<T>, at: usize) -> u64 {
        let own = || self.shard | (page.serial * PAGE as u64 + at as u64);
        page.numbers.get(at).copied().unwrap_or_else(own)
    }
}

impl<T> Page<T> {
    /// Whether nothing more goes into it: it is full, or holds what was restored.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.elements.len() == PAGE || !self.numbers.is_empty()
    }

    /// Whether an element has met another.
    #[inline]
    pub fn has_met(&self, at: usize) -> bool {
        self.met
            .get(at / 64)
            .is_some_and(|w| w & 1 << (at % 64) != 0)
    }

    /// An element has met another.
    #[inline]
    pub fn set_met(&mut self, at: usize) {
        if self.met.is_empty() {
            self.met.resize(PAGE.div_ceil(64), 0);
        }
        self.met[at / 64] |= 1 << (at % 64);
    }

    /// What ties of its rows go by.
    #[inline]
    pub fn tie(&self, at: usize) -> u64 {
        self.ties.get(at).copied().unwrap_or(0)
    }
}

/// The link of a place in a page.
#[inline(always)]
pub(super) fn link(serial: u64, at: usize) -> u32 {
    (serial as u32 & MASK) << SHIFT | at as u32
}

/// The id of a place in a slot.
#[inline(always)]
pub(super) fn id(slot: u32, at: usize) -> u32 {
    slot * PAGE as u32 + at as u32
}
