//! When ids are to be looked at: a timer wheel without an order, for what is cleaned away and never seen.
//!
//! Laws
//! 1. An id comes out of `pop` once the time it was put in for has been reached, and not before. Which of those that are due comes first
//!    is not said: nothing may depend on it.
//! 2. Putting in costs O(1), and memory is written in order: no id has a place of its own, so none is cancelled either. Who has gone
//!    in between is found out when its time comes.
//! 3. A slot that is due as a whole is handed over as it is, however many stand in it: nothing is sorted. Only the slot that the
//!    present lies in is spread over the finer ones below it, so an id moves once a level at most.
//! 4. A `pop` does at most `budget` moves and a chunk more. Chunks are used again: no allocation once as many stand as ever stood.
//!
//! ```text
//! time, sign flipped:  63 ... 56 | ... | 15 ... 8 | 7 ... 0
//!                      level 7   |     | level 1  | level 0: microseconds
//! ```
//!
//! An id stands at the level of the highest digit in which its time differs from the cursor, as in [`super::Wheel`].

use super::{BITS, NONE, PAGE, Paged, Popped, SLOTS};

const LEVELS: usize = (u64::BITS / BITS) as usize;
/// Ids in a chunk. It divides a page, so that no chunk lies on two.
const CHUNK: usize = 32;
const _: () = assert!(PAGE.is_multiple_of(CHUNK));

/// An id, and the time it was put in for, sign flipped.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    at: u64,
    id: u32,
}

/// A chunk's place in a list of them.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The chunk behind it, which is full unless the list is `due`; or [`NONE`].
    next: u32,
    /// Ids in it.
    len: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Calendar {
    /// Everything up to this time, sign flipped, is due.
    cursor: u64,
    /// The first chunk of each slot, the one that is not full; or [`NONE`].
    slots: Box<[[u32; SLOTS]; LEVELS]>,
    /// A bit for each slot that has any.
    occupied: [[u64; SLOTS / 64]; LEVELS],
    /// A bit for each level that has any.
    levels: u32,
    /// The chunks of a slot that is being spread.
    moving: u32,
    /// Chunks of ids that are due.
    due: u32,
    /// Chunks that are not in use.
    free: u32,
    links: Paged<Link>,
    entries: Paged<Entry>,
}

/// So that times compare as their bits do.
#[inline(always)]
fn flipped(time: i64) -> u64 {
    (time as u64) ^ (1 << 63)
}

impl Calendar {
    pub fn new() -> Self {
        Calendar {
            cursor: 0,
            slots: Box::new([[NONE; SLOTS]; LEVELS]),
            occupied: [[0; SLOTS / 64]; LEVELS],
            levels: 0,
            moving: NONE,
            due: NONE,
            free: NONE,
            links: Paged::new(),
            entries: Paged::new(),
        }
    }

    /// Puts an id in, to come out at `time`. The same may stand there more than once.
    #[inline]
    pub fn insert(&mut self, time: i64, id: u32) {
        let at = flipped(time);
        self.put(Entry { at, id });
    }

    #[inline(always)]
    fn put(&mut self, entry: Entry) {
        if entry.at <= self.cursor {
            self.due = self.pushed(self.due, entry);
            return;
        }
        let level = ((63 - (entry.at ^ self.cursor).leading_zeros()) / BITS) as usize % LEVELS;
        let index = (entry.at >> (level as u32 * BITS)) as usize % SLOTS;
        let before = self.slots[level][index];
        let first = self.pushed(before, entry);
        if first != before {
            self.slots[level][index] = first;
            self.occupied[level][index / 64] |= 1 << (index % 64);
            self.levels |= 1 << level;
        }
    }

    /// Puts an entry into a list of chunks; the first of them then.
    #[inline(always)]
    fn pushed(&mut self, first: u32, entry: Entry) -> u32 {
        if first != NONE {
            let link = self.links.get_mut(first as usize);
            if link.len < CHUNK as u32 {
                let at = first as usize * CHUNK + link.len as usize;
                link.len += 1;
                *self.entries.get_mut(at) = entry;
                return first;
            }
        }
        let chunk = self.chunk_before(first);
        *self.entries.get_mut(chunk as usize * CHUNK) = entry;
        chunk
    }

    /// A chunk with room for one entry less, before another.
    #[cold]
    fn chunk_before(&mut self, next: u32) -> u32 {
        let link = Link { next, len: 1 };
        match self.free {
            NONE => {
                self.links.push(link);
                (0..CHUNK).for_each(|_| self.entries.push(Entry::default()));
                self.links.len() as u32 - 1
            }
            chunk => {
                let place = self.links.get_mut(chunk as usize);
                self.free = place.next;
                *place = link;
                chunk
            }
        }
    }

    /// The first chunk of a list goes back to the free ones; the next.
    fn give_back(&mut self, chunk: u32) -> u32 {
        let link = self.links.get_mut(chunk as usize);
        let next = std::mem::replace(&mut link.next, self.free);
        self.free = chunk;
        next
    }

    /// The next id whose time has come, or why there is none. Takes from `budget` what it moved; it stops at 0. `soon` is told of ids
    /// that come next: a chance to ask the cache for them.
    #[inline(always)]
    pub fn pop(&mut self, now: i64, budget: &mut u32, soon: impl Fn(u32)) -> Popped<u32> {
        debug_assert!(flipped(now) >= self.cursor, "time does not go back");
        loop {
            if self.due != NONE {
                if *budget == 0 {
                    return Popped::More;
                }
                *budget -= 1;
                return self.pop_due(soon);
            }
            if let Some(none) = self.bring(flipped(now), budget) {
                return none;
            }
        }
    }

    /// Where nothing is due: brings what is, a piece. Or why there is nothing.
    #[inline(never)]
    fn bring(&mut self, now: u64, budget: &mut u32) -> Option<Popped<u32>> {
        if self.moving == NONE {
            return (!self.advance(now)).then_some(Popped::Nothing);
        }
        if *budget == 0 {
            return Some(Popped::More);
        }
        self.move_chunk(budget);
        None
    }

    /// Takes one of the ids that are due.
    #[inline(always)]
    fn pop_due(&mut self, soon: impl Fn(u32)) -> Popped<u32> {
        const AHEAD: usize = 8;
        let chunk = self.due;
        let link = self.links.get_mut(chunk as usize);
        link.len -= 1;
        let left = link.len as usize;
        let from = chunk as usize * CHUNK;
        if left >= AHEAD {
            soon(self.entries.get(from + left - AHEAD).id);
        }
        let Entry { at, id: value } = *self.entries.get(from + left);
        if left == 0 {
            self.due = self.give_back(chunk);
            self.tell_of_first(soon);
        }
        let time = (at ^ (1 << 63)) as i64;
        Popped::Due { time, value }
    }

    /// Tells of what the next chunk begins with.
    #[cold]
    fn tell_of_first(&self, soon: impl Fn(u32)) {
        if self.due == NONE {
            return;
        }
        let len = self.links.get(self.due as usize).len as usize;
        for left in len.saturating_sub(8)..len {
            soon(self.entries.get(self.due as usize * CHUNK + left).id);
        }
    }

    /// Spreads a chunk of the slot that the present lies in.
    fn move_chunk(&mut self, budget: &mut u32) {
        let chunk = self.moving;
        let len = self.links.get(chunk as usize).len;
        for n in 0..len as usize {
            let entry = *self.entries.get(chunk as usize * CHUNK + n);
            self.put(entry);
        }
        *budget = budget.saturating_sub(len);
        self.moving = self.give_back(chunk);
    }

    /// Takes the first slot out that begins up to `now`: what it holds is due, or to be spread. Where there is none, whether the
    /// present has come that far is noted.
    fn advance(&mut self, now: u64) -> bool {
        let Some((level, index)) = self.first_slot() else {
            self.cursor = self.cursor.max(now);
            return false;
        };
        let start = self.start_of(level, index);
        if start > now {
            self.cursor = self.cursor.max(now);
            return false;
        }
        let chunks = std::mem::replace(&mut self.slots[level][index], NONE);
        self.occupied[level][index / 64] &= !(1 << (index % 64));
        if self.occupied[level] == [0; SLOTS / 64] {
            self.levels &= !(1 << level);
        }
        let last = start | ((1 << (level as u32 * BITS)) - 1);
        // All before it has been taken out, so the cursor may go to its end.
        self.cursor = last.min(now);
        match last <= now {
            true => self.due = chunks,
            false => self.moving = chunks,
        }
        true
    }

    /// The first slot of the lowest level that has any: all others lie behind it.
    #[inline]
    fn first_slot(&self) -> Option<(usize, usize)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        let words = &self.occupied[level];
        let word = words.iter().position(|&w| w != 0)?;
        Some((level, word * 64 + words[word].trailing_zeros() as usize))
    }

    /// The first time of a slot, sign flipped.
    #[inline]
    fn start_of(&self, level: usize, index: usize) -> u64 {
        let low = level as u32 * BITS;
        let prefix = self.cursor.checked_shr(low + BITS).unwrap_or(0);
        ((prefix << BITS) | index as u64) << low
    }

    /// Nothing is due before this time, which may have passed: ask [`Calendar::pop`]. It lies above what `pop` was last asked for, if
    /// that found nothing more and nothing has been put in since.
    pub fn next_at(&self) -> Option<i64> {
        if self.due != NONE || self.moving != NONE {
            return Some(i64::MIN);
        }
        let (level, index) = self.first_slot()?;
        Some((self.start_of(level, index) ^ (1 << 63)) as i64)
    }
}

#[cfg(test)]
mod tests;
