//! Records that fit into no run, on their own: a heap.
//!
//! Laws
//! 1. The least comes first, by (time, rank, origin, number).
//! 2. Nothing is copied when it grows: records lie in pages and never move, and a four-way heap of 16 bytes a record lies in
//!    pages as well, four siblings in one cache line. A push or pop is O(log n), and a push in ascending order O(1).
//! 3. A record stays in its slot until it is popped.
//! 4. Pages are kept for the next time: its memory is that of the most records it ever held.

use super::{Rank, Seen, Tie};
use crate::batch::{Origin, Stamp};
use crate::budget::Size;
use crate::time::EventTime;

const PAGE: usize = 1024;
/// Places left free before the root, so that siblings begin at a multiple of four and share a page.
const PAD: usize = 3;
const NONE: u32 = u32::MAX;

/// A place of the heap: the time, and where the rest lies.
#[derive(Clone, Copy, Debug)]
struct Entry {
    time: EventTime,
    slot: u32,
}

#[derive(Debug)]
enum Slot<T> {
    /// The next free slot, or [`NONE`].
    Free(u32),
    Held(Held<T>),
}

/// A record that waits.
#[derive(Debug)]
pub(crate) struct Held<T> {
    pub record: T,
    pub origin: Origin,
    pub stamp: Stamp,
    /// Order of arrival.
    pub number: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Loose<T> {
    heap: Vec<Vec<Entry>>,
    len: usize,
    slots: Vec<Vec<Slot<T>>>,
    /// First free slot, or [`NONE`].
    free: u32,
    rank: Rank<T>,
}

impl<T> Loose<T> {
    pub fn ranked(rank: Rank<T>) -> Self {
        Loose {
            heap: vec![],
            len: 0,
            slots: vec![],
            free: NONE,
            rank,
        }
    }

    /// How many wait, and their bytes.
    pub fn size(&self) -> Size {
        Size::of::<Slot<T>>(self.len, size_of::<Entry>())
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Pages of the heap and of records.
    #[cfg(test)]
    pub fn pages(&self) -> (usize, usize) {
        (self.heap.len(), self.slots.len())
    }

    #[inline(always)]
    fn entry(&self, at: usize) -> Entry {
        self.heap[(at + PAD) / PAGE][(at + PAD) % PAGE]
    }

    #[inline(always)]
    fn set(&mut self, at: usize, entry: Entry) {
        self.heap[(at + PAD) / PAGE][(at + PAD) % PAGE] = entry;
    }

    fn tie(&self, slot: u32) -> Tie {
        match &self.slots[slot as usize / PAGE][slot as usize % PAGE] {
            Slot::Held(held) => {
                let rank = self.rank.map_or(0, |rank| rank(&held.record));
                (rank, held.origin, held.number)
            }
            Slot::Free(_) => unreachable!("the heap names held slots only"),
        }
    }

    #[inline(always)]
    fn before(&self, a: Entry, b: Entry) -> bool {
        a.time < b.time || (a.time == b.time && self.tie(a.slot) < self.tie(b.slot))
    }

    /// Slots are below this.
    pub fn slot_end(&self) -> u32 {
        match self.slots.last() {
            Some(last) => ((self.slots.len() - 1) * PAGE + last.len()) as u32,
            None => 0,
        }
    }

    /// The record in a slot.
    pub fn seen(&self, slot: u32) -> Option<Seen<'_, T>> {
        let page = self.slots.get(slot as usize / PAGE)?;
        match page.get(slot as usize % PAGE)? {
            Slot::Held(held) => Some(Seen {
                record: &held.record,
                origin: held.origin,
                stamp: held.stamp,
                number: held.number,
            }),
            Slot::Free(_) => None,
        }
    }

    /// Takes a record; its slot.
    pub fn put(&mut self, held: Held<T>) -> u32 {
        let time = held.stamp.time;
        let slot = self.hold(held);
        let entry = Entry { time, slot };
        if (self.len + PAD) / PAGE == self.heap.len() {
            self.heap.push(page(self.heap.is_empty()));
        }
        let place = (self.len + PAD) % PAGE;
        let last = &mut self.heap[(self.len + PAD) / PAGE];
        if place >= last.len() {
            last.resize(place + 1, entry);
        }
        self.len += 1;
        self.rise(self.len - 1, entry);
        slot
    }

    /// Puts `entry` in at `at` or above.
    #[inline(always)]
    fn rise(&mut self, mut at: usize, entry: Entry) {
        while at > 0 {
            let above = (at - 1) / 4;
            let parent = self.entry(above);
            if !self.before(entry, parent) {
                break;
            }
            self.set(at, parent);
            at = above;
        }
        self.set(at, entry);
    }

    fn hold(&mut self, held: Held<T>) -> u32 {
        if self.free != NONE {
            let at = self.free;
            let slot = &mut self.slots[at as usize / PAGE][at as usize % PAGE];
            if let Slot::Free(next) = *slot {
                self.free = next;
            }
            *slot = Slot::Held(held);
            return at;
        }
        if self.slots.last().is_none_or(|p| p.len() == PAGE) {
            self.slots.push(page(self.slots.is_empty()));
        }
        let number = self.slots.len() - 1;
        let last = &mut self.slots[number];
        last.push(Slot::Held(held));
        let slot = number * PAGE + last.len() - 1;
        assert!(
            slot < (NONE >> 1) as usize,
            "at most 2^31 - 1 records wait on a shard"
        );
        slot as u32
    }

    /// Time and slot of the record that comes first.
    pub fn first(&self) -> Option<(EventTime, u32)> {
        (self.len > 0).then(|| (self.entry(0).time, self.entry(0).slot))
    }

    /// What decides where times are equal, of the record that comes first.
    pub fn first_tie(&self) -> Tie {
        self.tie(self.entry(0).slot)
    }

    /// Takes the first record out.
    pub fn pop(&mut self) -> Option<Held<T>> {
        if self.len == 0 {
            return None;
        }
        let top = self.entry(0);
        self.len -= 1;
        if self.len > 0 {
            self.sink(self.entry(self.len));
        }
        let slot = &mut self.slots[top.slot as usize / PAGE][top.slot as usize % PAGE];
        let Slot::Held(held) = std::mem::replace(slot, Slot::Free(self.free)) else {
            unreachable!("the heap names held slots only")
        };
        self.free = top.slot;
        Some(held)
    }

    /// Puts the last entry in where the root was taken: the hole goes down to a leaf by the least child, and the entry,
    /// which is almost always great, rises from there.
    fn sink(&mut self, entry: Entry) {
        let mut at = 0;
        loop {
            let first = 4 * at + 1;
            if first >= self.len {
                return self.rise(at, entry);
            }
            let place = first + PAD;
            let siblings = &self.heap[place / PAGE][place % PAGE..];
            let siblings = &siblings[..(self.len - first).min(4)];
            let (mut least, mut up) = (0, siblings[0]);
            for (n, &sibling) in siblings.iter().enumerate().skip(1) {
                if self.before(sibling, up) {
                    (least, up) = (n, sibling);
                }
            }
            self.set(at, up);
            at = first + least;
        }
    }
}

/// A page; the first grows as it fills, so that a buffer of few records is small.
fn page<V>(first: bool) -> Vec<V> {
    Vec::with_capacity(if first { 16 } else { PAGE })
}
