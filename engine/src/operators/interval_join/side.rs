//! One side of an interval join: its records by key and time.
//!
//! Laws
//! 1. An element has *expired* iff its time lies below the limit, M less what it is kept. No record that is still to come can meet it.
//! 2. The elements of a key are a chain that descends by time, equals by arrival. So a chain's end that has gone has expired with
//!    all that was behind it, and a search stops at the first element that lies too low.
//! 3. What has not expired knows who has the link to it ([`Above`]), so it can move in O(1). What is above an element never expires before it.
//! 4. How elements leave, and what pages hold: `room.rs`. What an element is in a checkpoint: [`super::kept`].
//! 5. Where a chain was last entered below its newest is remembered for a few keys ([`Side::places`]), since what one producer sends
//!    ascends: while another is ahead, each record goes right above the one before it, and is not looked for from the newest on. Forgotten
//!    when an element leaves or moves, so what is remembered is there, and of that key.

use super::kept::KeptSide;
use super::log::{Above, Element, Holder, Log, PAGE, Turn, id, link};
use super::turns::Turns;
use crate::budget::Size;
use crate::table::NONE;
use std::collections::VecDeque;

/// By side, the link of a key's newest element, or [`NONE`].
pub(super) type Heads = [u32; 2];

/// Keys whose last place is remembered. Few where this is tested, so that they drive one another out.
const PLACES: usize = if cfg!(test) { 2 } else { 64 };

/// See the module.
pub(super) struct Side<T> {
    /// Which of the [`Heads`] are its.
    pub(super) which: usize,
    pub log: Log<T>,
    /// For how long after its time an element is kept.
    keep: i64,
    /// Law 1.
    pub limit: i64,
    /// Whether those that meet none are told of.
    pub outer: bool,
    /// The page that is being filled with what comes, and the one with what has moved; or [`NONE`].
    pub(super) open: u32,
    pub(super) moved: u32,
    /// All other pages, by when each is looked at next ([`Turn`]).
    pub(super) turns: Turns,
    /// Pages of which half or more has expired, by how long that is so. Some may have gone.
    pub(super) half: VecDeque<u64>,
    /// The page that is being emptied.
    pub(super) emptying: Option<Emptying>,
    /// No page goes for being the first until there is one of this number.
    pub(super) first_stays_to: u64,
    /// Of an outer side, pages that have elements to leave alone: by the least time of these, or of all where it is not known of whom.
    pub(super) alone: Turns,
    /// Elements that wait for their turn in pages.
    pub(super) waiting: usize,
    /// Law 5: a key's entry and the link of its element that was last put below another, at the entry's low bits.
    places: [(u32, u32); PLACES],
    /// Whether there is one.
    has_places: bool,
    /// Room for a page's times or places.
    pub(super) times: Vec<(i64, u16)>,
    /// The greatest time so far.
    greatest: i64,
    /// Where the job takes checkpoints.
    pub kept: Option<KeptSide<T>>,
}

/// A page that is being emptied, from its last element on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emptying {
    pub slot: u32,
    /// Whether it goes because it is the first.
    pub is_first: bool,
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
            moved: NONE,
            turns: Turns::default(),
            half: VecDeque::new(),
            emptying: None,
            first_stays_to: 0,
            alone: Turns::default(),
            waiting: 0,
            places: [(NONE, NONE); PLACES],
            has_places: false,
            times: vec![],
            greatest: i64::MIN,
            kept,
        }
    }

    /// How many elements there are, and the bytes of these and of what says when they leave. O(1).
    pub fn size(&self) -> Size {
        let elements = self.log.size();
        let turns = self.turns.bytes() + self.alone.bytes();
        let lists = size_of_val(&self.times[..])
            + self.half.len() * size_of::<u64>()
            + self.waiting * size_of::<u16>();
        Size {
            bytes: elements.bytes + turns + lists as u64,
            ..elements
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
    // It and what it calls: inlined, so that the record is moved once, from its batch into its page.
    #[inline(always)]
    pub fn insert(&mut self, head: &mut u32, (after, next): (u32, u32), new: New<T>) {
        let New {
            row,
            time,
            record,
            tie,
            met,
        } = new;
        let above = match after {
            NONE => Above::key(row),
            after => Above::newer(after),
        };
        let element = Element {
            time,
            before: next,
            above,
            record,
        };
        let link = self.enter(element, tie, met);
        match self.log.get_mut(after) {
            Some(after) => {
                after.before = link;
                self.places[row as usize % PLACES] = (row, link);
                self.has_places = true;
            }
            None => *head = link,
        }
    }

    /// Where a key's chain was last entered below its newest, if that is remembered and has not expired; or [`NONE`].
    #[inline]
    pub fn last_place(&self, row: u32) -> u32 {
        let (of, link) = self.places[row as usize % PLACES];
        let has_not_expired = |e: &Element<T>| e.time >= self.limit;
        match of == row && self.log.get(link).is_some_and(has_not_expired) {
            true => link,
            false => NONE,
        }
    }

    /// One step along a chain, from an element that has not expired to where one of this time belongs.
    pub fn toward(&self, link: u32, time: i64) -> Toward {
        let Some(element) = self.log.get(link) else {
            debug_assert!(false, "what is remembered is there");
            return Toward::On(NONE);
        };
        if element.time > time {
            return match self.log.get(element.before) {
                Some(before) if before.time > time => Toward::On(element.before),
                _ => Toward::Here(link, element.before),
            };
        }
        match element.above.holder() {
            Holder::Newer(above) => match self.log.get(above) {
                Some(newer) if newer.time <= time => Toward::On(above),
                _ => Toward::Here(above, link),
            },
            Holder::Key(_) => Toward::Here(NONE, link),
        }
    }

    /// Law 5: an element leaves or moves.
    #[inline]
    pub(super) fn forget_places(&mut self) {
        if self.has_places {
            self.places = [(NONE, NONE); PLACES];
            self.has_places = false;
        }
    }

    /// Puts an element that has come into its page, and below it what it has the link to; its own link.
    #[inline(always)]
    fn enter(&mut self, element: Element<T>, tie: Option<u64>, met: bool) -> u32 {
        let slot = match self.open {
            NONE => self.open_page(),
            slot if self.log.page(slot).is_full() => {
                self.seal(slot);
                self.open_page()
            }
            slot => slot,
        };
        let link = self.put(slot, element, tie, met);
        if let Some(kept) = &mut self.kept {
            kept.came(id(slot, link as usize % PAGE));
        }
        link
    }

    #[inline(never)]
    fn open_page(&mut self) -> u32 {
        self.open = self.log.open();
        self.open
    }

    /// Puts an element into a page that is not full, above the one that it has the link to, if that is there; its own link. Who has the
    /// link to this one is to be told.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        slot: u32,
        mut element: Element<T>,
        tie: Option<u64>,
        met: bool,
    ) -> u32 {
        let page = self.log.page(slot);
        let own = link(page.serial, page.elements.len());
        match self.log.get_mut(element.before) {
            Some(before) => before.above = Above::newer(own),
            // A link must not grow older than the numbers of pages go round.
            None => element.before = NONE,
        }
        let time = element.time;
        self.greatest = self.greatest.max(time);
        let is_first = time < self.log.page(slot).least;
        let at = self.log.push(slot, element, tie);
        if self.outer {
            self.may_leave(slot, at, (time, is_first), met);
        }
        own
    }

    /// Puts back an element that has this number in checkpoints, as its key's newest: they come in the order of time.
    pub fn restore(&mut self, head: &mut u32, number: u64, new: New<T>) {
        if self.open != NONE && self.log.page(self.open).elements.len() == PAGE {
            self.seal(self.open);
        }
        if self.open == NONE {
            self.open_page();
        }
        let slot = self.open;
        let element = Element {
            time: new.time,
            before: *head,
            above: Above::key(new.row),
            record: new.record,
        };
        *head = self.put(slot, element, new.tie, new.met);
        self.log.remember(slot, number);
        if let Some(kept) = &mut self.kept {
            kept.restored(id(slot, *head as usize % PAGE));
        }
    }

    /// Nothing more goes into a page: it has its turn from now on.
    pub(super) fn seal(&mut self, slot: u32) {
        let page = self.log.page_mut(slot);
        page.turn = Turn::Begins;
        self.turns.set(slot, page.serial, page.least);
        self.close(slot);
    }

    /// A page is no longer being filled.
    pub(super) fn close(&mut self, slot: u32) {
        for open in [&mut self.open, &mut self.moved] {
            if *open == slot {
                *open = NONE;
            }
        }
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
}

/// What a step along a chain comes to: see [`Side::toward`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toward {
    /// This is the next element to step from.
    On(u32),
    /// It belongs below the one and above the other, of which either may be [`NONE`].
    Here(u32, u32),
}

/// A record on its way into a side.
pub(super) struct New<T> {
    pub row: u32,
    pub time: i64,
    pub record: T,
    pub tie: Option<u64>,
    pub met: bool,
}
