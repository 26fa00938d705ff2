//! A hierarchical timer wheel: any number of timers over the whole range of time, fired in one order, in bounded pieces.
//!
//! Laws
//! 1. Timers fire in the order (time, tie, [`Timers::order`]), whatever the order in which they were set, and whatever the
//!    pieces in which they are taken: `pop` with a budget of 1 gives the same sequence as with a budget of a million.
//! 2. Setting and cancelling cost O(1) and touch one timer (cancelling two), but O(log n) to cancel a timer of the slot that
//!    is due. A `pop` does at most `budget` moves and a chunk
//!    more; a move is O(1), or O(log n) among the n timers of the slot that is due. No timer is copied when the wheel grows.
//! 3. A timer moves at most once a level (7 or so), and a jump over empty years costs a look at each level.
//! 4. Chunks and nodes are used again: no allocation once as many timers stand as ever stood.
//! 5. A timer may be lazy: its owner moves the true deadline *later* without a word to the wheel, which asks before it
//!    moves or fires a timer. So what is put off with every record (a session's end, a TTL) costs nothing a record.
//!
//! ```text
//! time, sign flipped:  63 ........ | 8 bits | 8 bits | 8 bits | grain bits
//!                      level n     | ...    | level 1| level 0| within a slot
//!
//!            cursor: the last slot of level 0 whose timers have been moved
//!              v
//! near  [......]   level 0: 256 slots up to the next multiple of 256; level 1: the 256 slots around that; ...
//!   ^--- all timers up to the cursor, ordered by time and tie: a sorted run, and a heap for what joins it later
//! ```
//!
//! A timer stands at the level of the highest digit in which it differs from the cursor, so every occupied slot of a level
//! lies behind the cursor's own, and the first occupied slot of the lowest occupied level is the earliest.
//!
//! Idea: Varghese and Lauck, "Hashed and hierarchical timing wheels" (SOSP 1987). The exact order within a slot comes from
//! sorting it when it is due, as in calendar queues (Brown 1988); slots are lists of chunks, so that moving one reads
//! memory in order.

use std::cmp::Ordering;
use std::num::NonZeroU32;

/// Slots of a level.
const SLOTS: usize = 256;
const BITS: u32 = 8;
/// Timers in a chunk of a slot.
const CHUNK: usize = 124;
/// A slot of more timers than this is spread over the level below instead of sorted as a whole; on the lowest level the
/// heap takes it.
const MANY: usize = 1024;
/// How many timers ahead of the one that is moved the owner is told.
const AHEAD: usize = 12;
const PAGE: usize = 1024;
const NONE: u32 = u32::MAX;

/// Places of a [`Node`] that are not slots.
const IN_RUN: u32 = u32::MAX - 2;
const IN_HEAP: u32 = u32::MAX - 1;
const FREE: u32 = u32::MAX;

/// What a wheel asks the owner of its timers.
///
/// The answers may not depend on anything but the timers' own state, or law 1 is lost.
pub trait Timers<V> {
    /// The true deadline of a timer that was set for `set`: the same, or later (law 5). An earlier one is taken as `set`:
    /// who wants that cancels the timer and sets another.
    fn deadline(&self, value: V, set: i64) -> i64 {
        let _ = value;
        set
    }

    /// The first thing that decides between timers of one time: the first word of a key.
    fn tie(&self, value: V) -> u64 {
        let _ = value;
        0
    }

    /// The wheel will ask for this timer's deadline soon: a chance to ask the cache for it.
    fn prefetch(&self, value: V) {
        let _ = value;
    }

    /// Decides between timers of one time and tie.
    fn order(&self, a: V, b: V) -> Ordering {
        let _ = (a, b);
        Ordering::Equal
    }
}

/// Names a timer that stands in a wheel. Stale once it has fired or been cancelled, and told apart from its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    node: u32,
    generation: NonZeroU32,
}

/// What [`Wheel::pop`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped<V> {
    /// This timer was due; it is gone from the wheel.
    Due {
        /// Its deadline.
        time: i64,
        /// What it was set with.
        value: V,
    },
    /// The budget is spent; there may be more.
    More,
    /// Nothing more is due.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Entry<V> {
    time: i64,
    value: V,
    node: u32,
}

/// A timer near the cursor.
#[derive(Clone, Copy, Debug)]
struct Due<V> {
    time: i64,
    tie: u64,
    value: V,
    node: u32,
    /// Of the node when it came here; another one since means cancelled: in a run only, the heap gives it up at once.
    generation: NonZeroU32,
}

/// Where a timer is.
#[derive(Clone, Copy, Debug)]
struct Node {
    generation: NonZeroU32,
    /// Index of a slot, [`IN_RUN`], [`IN_HEAP`] or [`FREE`].
    slot: u32,
    /// Which of the slot's chunks; of a free node, the next free one.
    chunk: u32,
    /// In the chunk, below [`CHUNK`]; or in the heap.
    index: u32,
}

#[derive(Debug)]
struct Slot<V> {
    /// The last chunk: empty, and without memory, iff the slot is.
    open: Vec<Entry<V>>,
    /// The chunks before it, each of [`CHUNK`] timers.
    full: Vec<Vec<Entry<V>>>,
}

impl<V> Slot<V> {
    fn len(&self) -> usize {
        self.full.len() * CHUNK + self.open.len()
    }
}

/// See the module. `V` is what a timer is set with: the id of an entry, say.
///
/// ```
/// use pelton::wheel::{Popped, Timers, Wheel};
/// struct ByValue;
/// impl Timers<u32> for ByValue {
///     fn tie(&self, value: u32) -> u64 { value.into() }
/// }
/// let mut wheel = Wheel::new(10);
/// wheel.insert(5_000_000, 7);
/// let gone = wheel.insert(5_000_000, 8);
/// wheel.insert(5_000_000, 3);
/// assert!(wheel.cancel(gone, &ByValue));
/// let mut fired = vec![];
/// let mut budget = 100;
/// while let Popped::Due { time, value } = wheel.pop(6_000_000, &ByValue, &mut budget) {
///     fired.push((time, value));
/// }
/// assert_eq!(fired, [(5_000_000, 3), (5_000_000, 7)]);
/// ```
#[derive(Debug)]
pub struct Wheel<V> {
    grain: u32,
    /// Time (sign flipped) shifted by `grain`: all timers up to and including it are near, or incoming.
    cursor: u64,
    /// `levels` x [`SLOTS`], and last the one of incoming timers: those set for a time that the cursor has passed.
    slots: Vec<Slot<V>>,
    /// A bit for each slot that holds timers.
    occupied: Vec<[u64; SLOTS / 64]>,
    /// A bit for each level that holds any.
    held: u32,
    /// The slot whose timers are being moved.
    moving: Option<usize>,
    /// What a move has brought near so far, at most [`MANY`].
    gathered: Vec<Due<V>>,
    /// Near timers, the first of them last; at most [`MANY`].
    run: Vec<Due<V>>,
    /// Near timers that came while there was a run, or that were too many for one.
    heap: Paged<Due<V>>,
    /// Empty chunks.
    spare: Vec<Vec<Entry<V>>>,
    nodes: Paged<Node>,
    free_node: u32,
    len: usize,
}

impl<V: Copy> Wheel<V> {
    /// An empty wheel with slots of 2^`grain` units of time (1 to 40) on one of its levels. A good grain is a sixteenth of how far
    /// ahead most timers are set: then they are moved once, where a slot holds few enough to be sorted as a whole. Where it holds
    /// more they are spread over 256 slots of the level below, and so on: the finest are of 2 to 256 units. The order is exact
    /// whatever the grain.
    pub fn new(grain: u32) -> Self {
        let grain = (grain.clamp(1, 40) - 1) % BITS + 1;
        let levels = (64 - grain).div_ceil(BITS) as usize;
        let empty = |_| Slot {
            open: vec![],
            full: vec![],
        };
        Wheel {
            grain,
            cursor: 0,
            slots: (0..=levels * SLOTS).map(empty).collect(),
            occupied: vec![[0; SLOTS / 64]; levels],
            held: 0,
            moving: None,
            gathered: vec![],
            run: vec![],
            heap: Paged::new(),
            spare: vec![],
            nodes: Paged::new(),
            free_node: NONE,
            len: 0,
        }
    }

    /// Number of timers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn granule(&self, time: i64) -> u64 {
        ((time as u64) ^ (1 << 63)) >> self.grain
    }

    fn incoming(&self) -> usize {
        self.slots.len() - 1
    }

    /// Sets a timer. A time in the past is due at once; `i64::MAX` ([`crate::EventTime::END`]) at the end of time only.
    pub fn insert(&mut self, time: i64, value: V) -> Timer {
        let node = match self.free_node {
            NONE => {
                self.nodes.push(Node {
                    generation: NonZeroU32::MIN,
                    slot: FREE,
                    chunk: NONE,
                    index: 0,
                });
                self.nodes.len as u32 - 1
            }
            node => {
                self.free_node = self.nodes.get(node as usize).chunk;
                node
            }
        };
        self.len += 1;
        let granule = self.granule(time);
        let slot = if granule <= self.cursor {
            self.incoming()
        } else {
            self.slot_of(granule)
        };
        self.put(slot, time, value, node);
        Timer {
            node,
            generation: self.nodes.get(node as usize).generation,
        }
    }

    /// Cancels a timer; whether it still stood.
    pub fn cancel<T: Timers<V>>(&mut self, timer: Timer, timers: &T) -> bool {
        if timer.node as usize >= self.nodes.len {
            return false;
        }
        let Node {
            generation,
            slot,
            chunk,
            index,
        } = *self.nodes.get(timer.node as usize);
        if generation != timer.generation || slot == FREE {
            return false;
        }
        if slot == IN_HEAP {
            self.take_from_heap(index as usize, timers);
        } else if slot != IN_RUN
            && let Some(last) = self.take_last(slot as usize)
            && last.node != timer.node
        {
            // The last takes its place, which is there still: only a chunk that held the last alone goes.
            let slot = &mut self.slots[slot as usize];
            let chunks = slot.full.get_mut(chunk as usize);
            chunks.unwrap_or(&mut slot.open)[index as usize] = last;
            let moved = self.nodes.get_mut(last.node as usize);
            (moved.chunk, moved.index) = (chunk, index);
        }
        self.release(timer.node);
        true
    }

    /// The next timer with a deadline up to and including `until`, or why there is none. Takes from `budget` what it moved;
    /// it stops at 0.
    pub fn pop<T: Timers<V>>(&mut self, until: i64, timers: &T, budget: &mut u32) -> Popped<V> {
        loop {
            if let Some(slot) = self.moving
                && !self.move_some(slot, timers, budget)
            {
                return Popped::More;
            }
            if !self.slots[self.incoming()].open.is_empty() {
                self.moving = Some(self.incoming());
                continue;
            }
            // Cancelled ones are not asked for their order: their values may mean something else by now.
            while self.run.last().is_some_and(|due| self.is_stale(due)) {
                self.run.pop();
            }
            if let Some(from_run) = self.first_near(until, timers) {
                if *budget == 0 {
                    return Popped::More;
                }
                *budget -= 1;
                if let Some((time, value)) = self.pop_near(from_run, timers) {
                    return Popped::Due { time, value };
                }
                continue;
            }
            if !self.begin(self.granule(until)) {
                return Popped::Nothing;
            }
        }
    }

    /// No timer is due before this time, which may have passed: ask [`Wheel::pop`]. It lies above what `pop` was last asked
    /// for, if that found nothing more and no timer has been set since. `None` without timers. O(1).
    pub fn next_at(&self) -> Option<i64> {
        if self.moving.is_some() || !self.slots[self.incoming()].open.is_empty() {
            return Some(i64::MIN);
        }
        // All near ones lie before all slots.
        let run = self.run.last().map(|due| due.time);
        let heap = (self.heap.len > 0).then(|| self.heap.get(0).time);
        let near = match (run, heap) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        near.or_else(|| {
            let (level, index) = self.first_slot()?;
            Some(((self.slot_start(level, index) << self.grain) ^ (1 << 63)) as i64)
        })
    }

    /// The first granule of a slot.
    fn slot_start(&self, level: usize, index: usize) -> u64 {
        let low = level as u32 * BITS;
        let prefix = self.cursor.checked_shr(low + BITS).unwrap_or(0);
        ((prefix << BITS) | index as u64) << low
    }

    /// Begins to move the first slot, if any of it lies at or before `target`; else moves the cursor there.
    fn begin(&mut self, target: u64) -> bool {
        if let Some((level, index)) = self.first_slot() {
            let start = self.slot_start(level, index);
            if start <= target {
                let slot = level * SLOTS + index;
                let last = start | ((1 << (level as u32 * BITS)) - 1);
                // Up to the cursor they come near, beyond it they go to the levels below.
                self.cursor = if self.slots[slot].len() <= MANY {
                    target.min(last)
                } else {
                    start
                };
                self.moving = Some(slot);
                return true;
            }
        }
        self.cursor = self.cursor.max(target);
        false
    }

    /// Moves timers of a slot to where they belong now; whether all have been.
    fn move_some<T: Timers<V>>(&mut self, slot: usize, timers: &T, budget: &mut u32) -> bool {
        while !self.slots[slot].open.is_empty() {
            if *budget == 0 {
                return false;
            }
            let mut chunk = self.take_chunk(slot);
            for entry in chunk.iter().take(AHEAD) {
                timers.prefetch(entry.value);
            }
            for (n, entry) in chunk.iter().enumerate() {
                if let Some(later) = chunk.get(n + AHEAD) {
                    timers.prefetch(later.value);
                }
                self.settle(entry.time, entry.value, entry.node, timers);
            }
            *budget = budget.saturating_sub(chunk.len() as u32);
            chunk.clear();
            self.spare.push(chunk);
        }
        self.moving = None;
        if self.run.is_empty() {
            std::mem::swap(&mut self.run, &mut self.gathered);
            self.run.sort_unstable_by(|a, b| compare(b, a, timers));
        } else {
            while let Some(due) = self.gathered.pop() {
                if !self.is_stale(&due) {
                    self.push_heap(due, timers);
                }
            }
        }
        true
    }

    fn first_slot(&self) -> Option<(usize, usize)> {
        let level = self.held.trailing_zeros() as usize;
        let words = self.occupied.get(level)?;
        let word = words.iter().position(|&w| w != 0)?;
        Some((level, word * 64 + words[word].trailing_zeros() as usize))
    }

    /// The slot of a granule beyond the cursor.
    #[inline]
    fn slot_of(&self, granule: u64) -> usize {
        let level = (63 - (granule ^ self.cursor).leading_zeros()) / BITS;
        level as usize * SLOTS + (granule >> (level * BITS)) as usize % SLOTS
    }

    /// Puts a timer that is in no slot where it belongs now.
    #[inline]
    fn settle<T: Timers<V>>(&mut self, set: i64, value: V, number: u32, timers: &T) {
        let time = timers.deadline(value, set).max(set);
        let granule = self.granule(time);
        if granule > self.cursor {
            return self.put(self.slot_of(granule), time, value, number);
        }
        let node = self.nodes.get_mut(number as usize);
        node.slot = IN_RUN;
        let due = Due {
            time,
            tie: timers.tie(value),
            value,
            node: number,
            generation: node.generation,
        };
        // Only a move gathers; what has been put off a little joins the heap.
        if self.moving.is_some() && self.gathered.len() < MANY {
            self.gathered.push(due);
        } else {
            self.push_heap(due, timers);
        }
    }

    #[inline(always)]
    fn put(&mut self, number: usize, time: i64, value: V, node: u32) {
        let mut slot = &mut self.slots[number];
        if slot.open.len() == slot.open.capacity() {
            self.add_chunk(number);
            slot = &mut self.slots[number];
        }
        let place = self.nodes.get_mut(node as usize);
        place.slot = number as u32;
        place.chunk = slot.full.len() as u32;
        place.index = slot.open.len() as u32;
        slot.open.push(Entry { time, value, node });
    }

    #[cold]
    fn add_chunk(&mut self, number: usize) {
        let chunk = self.spare.pop();
        let chunk = chunk.unwrap_or_else(|| Vec::with_capacity(CHUNK));
        let slot = &mut self.slots[number];
        let before = std::mem::replace(&mut slot.open, chunk);
        if before.is_empty() {
            if let Some(words) = self.occupied.get_mut(number / SLOTS) {
                words[number % SLOTS / 64] |= 1 << (number % 64);
                self.held |= 1 << (number / SLOTS);
            }
        } else {
            slot.full.push(before);
        }
    }

    /// Takes the last chunk of a slot that has one.
    fn take_chunk(&mut self, number: usize) -> Vec<Entry<V>> {
        let slot = &mut self.slots[number];
        let next = slot.full.pop().unwrap_or_default();
        if next.is_empty()
            && let Some(words) = self.occupied.get_mut(number / SLOTS)
        {
            words[number % SLOTS / 64] &= !(1 << (number % 64));
            if *words == [0; SLOTS / 64] {
                self.held &= !(1 << (number / SLOTS));
            }
        }
        std::mem::replace(&mut slot.open, next)
    }

    fn take_last(&mut self, number: usize) -> Option<Entry<V>> {
        let entry = self.slots[number].open.pop();
        if self.slots[number].open.is_empty() {
            let chunk = self.take_chunk(number);
            self.spare.push(chunk);
        }
        entry
    }

    /// A node goes back to the free ones; whoever still names it names another generation.
    fn release(&mut self, number: u32) {
        let node = self.nodes.get_mut(number as usize);
        node.generation = node.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        node.slot = FREE;
        node.chunk = self.free_node;
        self.free_node = number;
        self.len -= 1;
    }

    /// Whether the first near timer is of the run; `None` if none is due.
    fn first_near<T: Timers<V>>(&self, until: i64, timers: &T) -> Option<bool> {
        let run = self.run.last().filter(|due| due.time <= until);
        if self.heap.len == 0 {
            return run.map(|_| true);
        }
        let heap = self.heap.get(0);
        match run {
            Some(run) => Some(compare(run, heap, timers) == Ordering::Less),
            None => (heap.time <= until).then_some(false),
        }
    }

    fn is_stale(&self, due: &Due<V>) -> bool {
        self.nodes.get(due.node as usize).generation != due.generation
    }

    /// Takes the first near timer: one that is due, or none if it has been put off.
    fn pop_near<T: Timers<V>>(&mut self, from_run: bool, timers: &T) -> Option<(i64, V)> {
        let first = if from_run {
            self.run.pop()?
        } else {
            self.take_from_heap(0, timers)
        };
        if timers.deadline(first.value, first.time) > first.time {
            self.settle(first.time, first.value, first.node, timers);
            return None;
        }
        self.release(first.node);
        Some((first.time, first.value))
    }

    fn push_heap<T: Timers<V>>(&mut self, due: Due<V>, timers: &T) {
        let at = self.heap.len;
        let node = self.nodes.get_mut(due.node as usize);
        (node.slot, node.index) = (IN_HEAP, at as u32);
        self.heap.push(due);
        self.sift_up(at, timers);
    }

    fn take_from_heap<T: Timers<V>>(&mut self, at: usize, timers: &T) -> Due<V> {
        self.swap_heap(at, self.heap.len - 1);
        let Some(due) = self.heap.pop() else {
            unreachable!("`at` is in the heap")
        };
        if at < self.heap.len {
            self.sift_down(at, timers);
            self.sift_up(at, timers);
        }
        due
    }

    fn swap_heap(&mut self, a: usize, b: usize) {
        let (x, y) = (*self.heap.get(a), *self.heap.get(b));
        *self.heap.get_mut(a) = y;
        *self.heap.get_mut(b) = x;
        self.nodes.get_mut(x.node as usize).index = b as u32;
        self.nodes.get_mut(y.node as usize).index = a as u32;
    }

    fn sift_up<T: Timers<V>>(&mut self, mut at: usize, timers: &T) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if compare(self.heap.get(at), self.heap.get(parent), timers) != Ordering::Less {
                return;
            }
            self.swap_heap(at, parent);
            at = parent;
        }
    }

    fn sift_down<T: Timers<V>>(&mut self, mut at: usize, timers: &T) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len
                    && compare(self.heap.get(child), self.heap.get(least), timers) == Ordering::Less
                {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.swap_heap(at, least);
            at = least;
        }
    }

    /// Approximate bytes held.
    pub fn bytes(&self) -> usize {
        let of_slot = |slot: &Slot<V>| (slot.full.len() + 1) * size_of::<Vec<Entry<V>>>();
        let chunks = |slot: &Slot<V>| slot.len().div_ceil(CHUNK);
        let chunks = self.spare.len() + self.slots.iter().map(chunks).sum::<usize>();
        self.slots.iter().map(of_slot).sum::<usize>()
            + chunks * CHUNK * size_of::<Entry<V>>()
            + (self.gathered.capacity() + self.run.capacity()) * size_of::<Due<V>>()
            + self.heap.bytes()
            + self.nodes.bytes()
    }
}

#[inline]
fn compare<V: Copy, T: Timers<V>>(a: &Due<V>, b: &Due<V>, timers: &T) -> Ordering {
    (a.time, a.tie)
        .cmp(&(b.time, b.tie))
        .then_with(|| timers.order(a.value, b.value))
}

mod calendar;
mod paged;
#[cfg(test)]
mod tests;

pub(crate) use calendar::Calendar;
pub(crate) use paged::Paged;
