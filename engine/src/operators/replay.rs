//! Records that wait for the watermark, given back in the order of (event time, rank, origin).
//!
//! Laws
//! 1. The order is that of (time, rank, origin, number of arrival). Mostly there is no rank.
//! 2. What comes in a few ascending sequences, as partitions and lanes bring it, lies in [`runs`] and is copied in and out in bulk. A batch
//!    that does not ascend is sorted first, [`MOST`] records at the most. What fits into no run is in a heap ([`loose`]). So a record is
//!    O(log of the batch + log of the runs) where batches are large, and O(log n) whatever comes.
//! 3. A record stays in its slot until it is taken, or moved from a thin run to the heap, which the caller does and is told of: a checkpoint
//!    knows it there by its number of arrival.
//! 4. Nothing is copied when it grows, and pages are kept for the next time.

mod loose;
mod runs;
#[cfg(test)]
mod tests;

use crate::batch::{Batch, Behind, Origin, Stamp};
use crate::budget::Size;
use crate::time::EventTime;
pub(crate) use loose::Held;
use loose::Loose;
use runs::Runs;

/// Records that are taken in at once: sorted in 25 µs where they come in no order at all, in 70 where most of their times are equal.
pub(crate) const MOST: usize = 1024;

/// What comes first of what has one time, if anything does.
type Rank<T> = Option<fn(&T) -> u8>;
/// What decides where times are equal: rank, origin and number of arrival.
type Tie = (u8, Origin, u64);

/// A record that waits, where it lies.
#[derive(Debug)]
pub(crate) struct Seen<'a, T> {
    pub record: &'a T,
    pub origin: Origin,
    pub stamp: Stamp,
    /// Order of arrival.
    pub number: u64,
}

/// Which records come next, and where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// The first one of the heap.
    Loose(u32),
    /// From this place so many, one behind another.
    Run(u32, usize),
}

impl Next {
    pub fn slots(self) -> impl Iterator<Item = u32> {
        let (first, count, of): (u32, u32, fn(u32) -> u32) = match self {
            Next::Loose(slot) => (slot, 1, loose_slot),
            Next::Run(place, count) => (place, count as u32, run_slot),
        };
        (first..first + count).map(of)
    }

    pub fn count(self) -> usize {
        match self {
            Next::Loose(_) => 1,
            Next::Run(_, count) => count,
        }
    }
}

/// Places of runs and slots of the heap share the numbers, so many of these and so many of those in turn: a tracker has them by words.
const BLOCK: u32 = 64;

fn run_slot(place: u32) -> u32 {
    place + place / BLOCK * BLOCK
}

fn loose_slot(slot: u32) -> u32 {
    run_slot(slot) + BLOCK
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Replay<T> {
    loose: Loose<T>,
    runs: Runs<T>,
    /// The number of the next record that arrives.
    next: u64,
    rank: Rank<T>,
    /// While a batch is taken in: its records' numbers, and their order where they had to be sorted.
    numbers: Vec<u64>,
    order: Vec<(EventTime, u32)>,
}

impl<T> Replay<T> {
    /// Records of one time come in the order of their ranks, before their origins count.
    pub fn ranked(rank: Rank<T>) -> Self {
        Replay {
            loose: Loose::ranked(rank),
            runs: Runs::ranked(rank),
            next: 0,
            rank,
            numbers: vec![],
            order: vec![],
        }
    }

    /// How many wait, and their bytes.
    pub fn size(&self) -> Size {
        self.loose.size().and(self.runs.size())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.loose.len() == 0 && self.runs.len() == 0
    }

    /// The number of the next record that arrives.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Records that arrive are numbered from here on.
    pub fn number_from(&mut self, next: u64) {
        self.next = next;
    }

    /// Slots are below this.
    pub fn slot_end(&self) -> u32 {
        let last = |end: u32, of: fn(u32) -> u32| end.checked_sub(1).map_or(0, |last| of(last) + 1);
        let loose = last(self.loose.slot_end(), loose_slot);
        loose.max(last(self.runs.place_end(), run_slot))
    }

    /// The record in a slot.
    pub fn held(&self, slot: u32) -> Option<Seen<'_, T>> {
        let (block, at) = (slot / BLOCK, slot % BLOCK);
        let of = block / 2 * BLOCK + at;
        match block % 2 {
            0 => self.runs.seen(of),
            _ => self.loose.seen(of),
        }
    }

    /// Takes all records of a batch, [`MOST`] at the most, and leaves it empty; tells the slot of each.
    pub fn take_in(&mut self, batch: &mut Batch<T>, came: impl FnMut(u32)) {
        let first = self.next;
        self.next += batch.len() as u64;
        batch.origins.resize(batch.len(), Origin::default());
        self.numbers.extend(first..self.next);
        self.place(batch, came);
    }

    /// Takes records that have their numbers already; tells the slot of each.
    pub fn restore(&mut self, records: impl Iterator<Item = Held<T>>, mut came: impl FnMut(u32)) {
        let mut records = records.peekable();
        while records.peek().is_some() {
            let mut batch = Batch::with_capacity(0);
            for held in records.by_ref().take(MOST) {
                batch.origins.push(held.origin);
                batch.push(held.record, held.stamp);
                self.numbers.push(held.number);
            }
            self.place(&mut batch, &mut came);
        }
    }

    /// Takes all records of a batch, which have the numbers that were noted.
    fn place(&mut self, batch: &mut Batch<T>, mut came: impl FnMut(u32)) {
        debug_assert!(batch.len() <= MOST && batch.len() == self.numbers.len());
        if !self.ascends(batch) {
            self.sort(batch);
        }
        let loose = &mut self.loose;
        let numbers = &self.numbers;
        let in_run = self
            .runs
            .take_in(batch, numbers, |place| came(run_slot(place)));
        if !in_run {
            let mut numbers = numbers.iter();
            batch.consume(|record, stamp, origin| {
                let number = numbers.next().copied().unwrap_or_default();
                came(loose_slot(loose.put(Held {
                    record,
                    origin,
                    stamp,
                    number,
                })));
                true
            });
        }
        self.numbers.clear();
    }

    /// Whether the records of a batch ascend.
    fn ascends(&self, batch: &Batch<T>) -> bool {
        let times = &batch.times[..];
        let tie = |n: usize| runs::tie(batch, n, self.numbers[n], self.rank);
        let follows =
            |n: usize| times[n - 1] < times[n] || (times[n - 1] == times[n] && tie(n - 1) < tie(n));
        (1..times.len()).all(follows)
    }

    /// Sorts a batch and its records' numbers.
    fn sort(&mut self, batch: &mut Batch<T>) {
        let (order, numbers) = (&mut self.order, &mut self.numbers);
        order.clear();
        order.extend(batch.times.iter().zip(0..).map(|(&time, n)| (time, n)));
        let tie = |n: u32| runs::tie(batch, n as usize, numbers[n as usize], self.rank);
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| tie(a.1).cmp(&tie(b.1))));
        if !batch.behind.is_empty() {
            let marks = std::mem::take(&mut batch.behind);
            for (index, &(_, was)) in (0..).zip(order.iter()) {
                if let Ok(at) = marks.binary_search_by_key(&was, |b| b.index) {
                    batch.behind.push(Behind { index, ..marks[at] });
                }
            }
        }
        for (time, &(sorted, _)) in batch.times.iter_mut().zip(order.iter()) {
            *time = sorted;
        }
        // Along each cycle of the permutation: a place is given what belongs there, and is then its own.
        for start in 0..order.len() {
            let mut at = start;
            loop {
                let from = order[at].1 as usize;
                order[at].1 = at as u32;
                if from == start {
                    break;
                }
                batch.records.swap(at, from);
                batch.origins.swap(at, from);
                numbers.swap(at, from);
                at = from;
            }
        }
    }

    /// The records that come next, of those below `below`: some, not more than `most`, that lie one behind another.
    #[inline(always)]
    pub fn next(&self, below: EventTime, most: usize) -> Option<Next> {
        let loose = self.loose.first();
        let Some(time) = self.runs.first() else {
            let (time, slot) = loose?;
            return (time < below).then_some(Next::Loose(slot));
        };
        let mut end = below;
        if let Some((other, slot)) = loose {
            if other < time || (other == time && self.loose.first_tie() < self.runs.first_tie()) {
                return (other < below).then_some(Next::Loose(slot));
            }
            end = below.min(other);
        }
        if time >= below {
            return None;
        }
        let (place, count) = self.runs.stretch(end, most);
        Some(Next::Run(place, count))
    }

    /// Moves those to the end of `to`. Whether a thin run is to be moved to the heap, by [`Replay::loosen`], before anything else is asked.
    #[inline(always)]
    #[must_use]
    pub fn take(&mut self, next: Next, below: EventTime, to: &mut Batch<T>) -> bool {
        match next {
            Next::Run(_, count) => self.runs.take(below, count, to),
            Next::Loose(_) => {
                if let Some(held) = self.loose.pop() {
                    to.origins.push(held.origin);
                    to.push(held.record, held.stamp);
                }
                false
            }
        }
    }

    /// The slot of the next record of the thin run.
    pub fn thin_slot(&self) -> u32 {
        run_slot(self.runs.thin_place())
    }

    /// Moves that record to the heap: its new slot, and whether it was the last one.
    pub fn loosen(&mut self) -> Option<(u32, bool)> {
        let (held, is_last) = self.runs.loosen()?;
        Some((loose_slot(self.loose.put(held)), is_last))
    }
}
