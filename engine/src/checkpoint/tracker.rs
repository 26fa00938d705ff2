//! Which entries of a table have changed since they were last written: a few bits an entry, in the order of memory.
//!
//! Laws
//! 1. An entry is *marked* by each change. At a barrier the marks are swapped: what was marked is *due*, and is written in the
//!    order of ids, in pieces; marks from then on are the next epoch's.
//! 2. Who is about to change an entry that is due saves it first ([`Tracker::touch`] says so), and then it is due no longer.
//! 3. An entry that was written and goes leaves a tombstone in the next epoch; one that was never written leaves nothing.
//! 4. While a sweep is on, each barrier marks some further entries, changed or not: when the sweep is through, every entry has
//!    been written since it began, and what was written before is of no use any more.
//!
//! Three bits an entry, and a fourth while all is written at once. An epoch number in each entry and a list of changed entries would take 8 to 16 bytes, and be written
//! in the order of change: a miss in the cache for each entry.

use super::Cut;

/// See the module. Ids are those of a [`crate::table::KeyTable`].
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// Changed since the last barrier.
    marked: Vec<u64>,
    /// To be written for the epoch under way.
    due: Vec<u64>,
    /// Written in some epoch, or restored from one.
    stored: Vec<u64>,
    /// While all is written at once: what had been stored and has not had its turn. So it is due too.
    rest: Vec<u64>,
    /// The word of `due` and `rest` before which none is left.
    cursor: usize,
    /// Whether some entry may be due.
    writing: bool,
    /// Whether any entry has ever been written, or restored.
    has_stored: bool,
    /// Marked entries, each counted once.
    changed: usize,
    /// Where the sweep goes on; `None` where none is on.
    sweep: Option<u32>,
    /// The number of the last sweep that is through.
    swept: u64,
    /// The number of the sweep that is on.
    sweeping: u64,
    /// The sweep that is on is through with the next barrier.
    at_once: bool,
    /// The lower bound of what it marks at a barrier.
    least: u32,
}

/// What is known of an entry on its way to another place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifted {
    marked: bool,
    stored: bool,
}

/// Entries that a sweep marks at a barrier: as many as have changed, within bounds. The upper one keeps the step short; the lower one is
/// the barrier's, [`Cut::sweep_least`].
const SWEEP_MAX: u32 = 16_384;
/// Words that are looked through in one piece: some 20 µs where none has an entry that is due.
const WORDS: usize = 16_384;

impl Tracker {
    /// One whose entries are all written from now on: it is through with this sweep and all before.
    pub fn new(sweep: u64) -> Self {
        Tracker {
            swept: sweep,
            sweeping: sweep,
            ..Tracker::default()
        }
    }

    /// Entry `id` is about to change. `true`: it is due and must be saved as it is, now.
    #[inline(always)]
    #[must_use]
    pub fn touch(&mut self, id: u32) -> bool {
        let (word, bit) = (id as usize / 64, 1u64 << (id % 64));
        match self.marked.get_mut(word) {
            Some(marked) => {
                self.changed += usize::from(*marked & bit == 0);
                *marked |= bit;
            }
            None => self.grow(word, bit),
        }
        self.is_due(word, bit) && self.take_due(word, bit)
    }

    /// Whether an entry is to be written. Asked for each record while an epoch is, and most are not: they have had their turn.
    #[inline(always)]
    fn is_due(&self, word: usize, bit: u64) -> bool {
        let of = |words: &[u64]| words.get(word).is_some_and(|w| w & bit != 0);
        self.writing && (of(&self.due) || of(&self.rest))
    }

    /// Entries are about to change, and none of them is due: nothing is being written. Ids are those of entries, below `end`, or
    /// far beyond ([`crate::table::NONE`] and the one before it).
    #[inline(always)]
    pub fn mark_all(&mut self, end: u32, ids: impl Iterator<Item = u32>) {
        debug_assert!(!self.writing);
        let words = end.div_ceil(64) as usize;
        if self.marked.len() < words {
            self.marked.resize(words, 0);
        }
        let (marked, mut changed) = (self.marked.as_mut_slice(), 0);
        for id in ids {
            if let Some(word) = marked.get_mut(id as usize / 64) {
                let bit = 1u64 << (id % 64);
                changed += usize::from(*word & bit == 0);
                *word |= bit;
            }
        }
        self.changed += changed;
    }

    #[cold]
    fn grow(&mut self, word: usize, bit: u64) {
        self.marked.resize(word + 1, 0);
        self.marked[word] |= bit;
        self.changed += 1;
    }

    #[inline(never)]
    fn take_due(&mut self, word: usize, bit: u64) -> bool {
        let due = take(&mut self.due, word, bit);
        let rest = take(&mut self.rest, word, bit);
        let is_due = due || rest;
        if is_due {
            self.has_stored = true;
            store(&mut self.stored, word, bit);
        }
        is_due
    }

    /// Entry `id` is about to go: whether it is due and must be saved first, and whether it leaves a tombstone (law 3).
    #[must_use]
    pub fn remove(&mut self, id: u32) -> (bool, bool) {
        let (word, bit) = (id as usize / 64, 1u64 << (id % 64));
        let is_due = self.writing && self.take_due(word, bit);
        if let Some(marked) = self.marked.get_mut(word) {
            self.changed -= usize::from(*marked & bit != 0);
            *marked &= !bit;
        }
        let stored = self.stored.get_mut(word).is_some_and(|stored| {
            let was = *stored & bit != 0;
            *stored &= !bit;
            was
        });
        (is_due, stored)
    }

    /// Entry `id` is about to be moved to another place: whether it is due and must be saved first, and what [`Tracker::lay`] is to be
    /// told. Nothing of it stays.
    #[must_use]
    pub fn lift(&mut self, id: u32) -> (bool, Lifted) {
        let (word, bit) = (id as usize / 64, 1u64 << (id % 64));
        let marked = self.marked.get(word).is_some_and(|w| w & bit != 0);
        let (due, stored) = self.remove(id);
        (due, Lifted { marked, stored })
    }

    /// It is entry `id` now, which was none before. A sweep that is on may have passed this place and not the other, so it is written
    /// once more.
    pub fn lay(&mut self, id: u32, lifted: Lifted) {
        if lifted.stored {
            self.restored(id);
        }
        if lifted.marked || self.sweep.is_some() {
            let due = self.touch(id);
            debug_assert!(!due, "nothing was there at the barrier");
        }
    }

    /// Entry `id` has been restored: it is as it was written.
    pub fn restored(&mut self, id: u32) {
        self.has_stored = true;
        store(&mut self.stored, id as usize / 64, 1 << (id % 64));
    }

    /// Whether any entry has ever been written.
    pub fn has_stored(&self) -> bool {
        self.has_stored
    }

    /// Begins a sweep, unless it is on or through already. One that is to be through at once has all written with the next
    /// barrier's epoch: at the first one of a start from elsewhere. That takes no step that grows with the table: every entry is
    /// marked or stored, and what is stored is due from then on.
    pub fn begin_sweep(&mut self, cut: Cut) {
        self.least = cut.sweep_least;
        if cut.sweep > self.sweeping {
            self.sweeping = cut.sweep;
            self.sweep = Some(0);
            self.at_once = cut.is_whole;
        }
    }

    /// The number of the last sweep that is through.
    pub fn swept(&self) -> u64 {
        self.swept
    }

    /// A barrier (law 1). `id_end` is the table's, `is_live` says which ids below it are entries'. All that was due before has
    /// been written.
    pub fn begin(&mut self, id_end: u32, is_live: impl Fn(u32) -> bool) {
        debug_assert!(!self.writing, "the epoch before has been written");
        self.sweep_on(id_end, is_live);
        std::mem::swap(&mut self.marked, &mut self.due);
        debug_assert!(self.marked.iter().all(|&w| w == 0), "none was left due");
        self.cursor = 0;
        self.writing = self.changed > 0 || !self.rest.is_empty();
        self.changed = 0;
    }

    /// Law 4.
    fn sweep_on(&mut self, id_end: u32, is_live: impl Fn(u32) -> bool) {
        let Some(from) = self.sweep else {
            return;
        };
        if self.at_once {
            self.rest = std::mem::take(&mut self.stored);
            (self.sweep, self.swept) = (None, self.sweeping);
            return;
        }
        let some = (self.changed as u32).max(self.least).min(SWEEP_MAX);
        let to = from.saturating_add(some).min(id_end);
        for id in (from..to).filter(|&id| is_live(id)) {
            let _ = self.touch(id);
        }
        self.sweep = (to < id_end).then_some(to);
        if self.sweep.is_none() {
            self.swept = self.sweeping;
        }
    }

    /// Whether some entry may be due.
    pub fn is_writing(&self) -> bool {
        self.writing
    }

    /// Gives the entries that are due to `write`, in order, until it takes one no longer or much has been looked through; whether
    /// none is left.
    pub fn write(&mut self, mut write: impl FnMut(u32) -> bool) -> bool {
        if !self.writing {
            return true;
        }
        let words = self.due.len().max(self.rest.len());
        let stop = words.min(self.cursor + WORDS);
        while self.cursor < stop {
            let of = |words: &[u64]| words.get(self.cursor).copied().unwrap_or(0);
            let all = of(&self.due) | of(&self.rest);
            let (first, mut left) = (self.cursor as u32 * 64, all);
            while left != 0 && write(first + left.trailing_zeros()) {
                left &= left - 1;
            }
            let written = all & !left;
            if written != 0 {
                take(&mut self.due, self.cursor, written);
                take(&mut self.rest, self.cursor, written);
                self.has_stored = true;
                store(&mut self.stored, self.cursor, written);
            }
            if left != 0 {
                return false;
            }
            self.cursor += 1;
        }
        if stop < words {
            return false;
        }
        self.rest = vec![];
        self.writing = false;
        true
    }
}

/// Takes bits out; whether any was there.
#[inline]
fn take(words: &mut [u64], word: usize, bits: u64) -> bool {
    let Some(word) = words.get_mut(word) else {
        return false;
    };
    let was = *word & bits != 0;
    *word &= !bits;
    was
}

#[inline]
fn store(stored: &mut Vec<u64>, word: usize, bit: u64) {
    if stored.len() <= word {
        stored.resize(word + 1, 0);
    }
    stored[word] |= bit;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Epoch;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Op {
        Set(u32, u64),
        Remove(u32),
        /// To another place, if there is nothing.
        Move(u32, u32),
        /// Write at most so many.
        Write(usize),
        Barrier,
        Sweep(bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            2 => (0u32..300, 0u32..300).prop_map(|(from, to)| Op::Move(from, to)),
            6 => (0u32..300, any::<u64>()).prop_map(|(id, v)| Op::Set(id, v)),
            2 => (0u32..300).prop_map(Op::Remove),
            3 => (1usize..40).prop_map(Op::Write),
            1 => Just(Op::Barrier),
            1 => any::<bool>().prop_map(Op::Sweep),
        ]
    }

    fn sweep(number: u64, at_once: bool, least: u32) -> Cut {
        Cut {
            epoch: Epoch(number),
            sweep: number,
            is_full: true,
            is_whole: at_once,
            sweep_least: least,
            is_last: false,
            asked: 0,
        }
    }

    /// A table, its tracker, and the log that they write. An entry keeps its name wherever it is moved.
    #[derive(Default)]
    struct Rig {
        tracker: Tracker,
        table: BTreeMap<u32, (u32, u64)>,
        /// (epoch, name, value)
        log: Vec<(usize, u32, Option<u64>)>,
        tombstones: Vec<u32>,
        epoch: usize,
        /// The table at each barrier.
        cuts: Vec<BTreeMap<u32, u64>>,
        /// Where in the log the last sweep began, by its number.
        sweeps: Vec<usize>,
    }

    impl Rig {
        fn save(&mut self, id: u32) {
            let (name, value) = self.table[&id];
            self.log.push((self.epoch, name, Some(value)));
        }

        fn write(&mut self, most: usize) -> bool {
            let mut left = most;
            let (table, log, epoch) = (&self.table, &mut self.log, self.epoch);
            self.tracker.write(|id| {
                let taken = left > 0;
                if taken {
                    left -= 1;
                    let (name, value) = table[&id];
                    log.push((epoch, name, Some(value)));
                }
                taken
            })
        }

        fn apply(&mut self, op: Op) {
            match op {
                Op::Set(id, value) => {
                    if self.tracker.touch(id) {
                        self.save(id);
                    }
                    let free = (0..).map(|n| id + 300 * n);
                    let mut free = free.filter(|name| self.table.values().all(|e| e.0 != *name));
                    let name = self.table.get(&id).map(|entry| entry.0);
                    let name = name.or_else(|| free.next()).unwrap();
                    self.table.insert(id, (name, value));
                }
                Op::Move(from, to) => {
                    if !self.table.contains_key(&from) || self.table.contains_key(&to) {
                        return;
                    }
                    let (due, lifted) = self.tracker.lift(from);
                    if due {
                        self.save(from);
                    }
                    let entry = self.table.remove(&from).unwrap();
                    self.tracker.lay(to, lifted);
                    self.table.insert(to, entry);
                }
                Op::Remove(id) if self.table.contains_key(&id) => {
                    let (due, stored) = self.tracker.remove(id);
                    if due {
                        self.save(id);
                    }
                    if stored {
                        self.tombstones.push(self.table[&id].0);
                    }
                    self.table.remove(&id);
                }
                Op::Remove(_) => {}
                Op::Write(most) => {
                    self.write(most);
                }
                Op::Barrier => {
                    assert!(self.write(usize::MAX));
                    self.epoch += 1;
                    let end = self.table.keys().last().map_or(0, |id| id + 1);
                    let table = &self.table;
                    self.tracker.begin(end, |id| table.contains_key(&id));
                    for id in std::mem::take(&mut self.tombstones) {
                        self.log.push((self.epoch, id, None));
                    }
                    self.cuts.push(self.table.values().copied().collect());
                }
                Op::Sweep(at_once) => {
                    self.sweeps.push(self.log.len());
                    let number = self.sweeps.len() as u64;
                    self.tracker.begin_sweep(sweep(number, at_once, 40));
                }
            }
        }

        /// What the log says, up to epoch `epoch`, from place `from` on.
        fn replay(&self, epoch: usize, from: usize) -> BTreeMap<u32, u64> {
            let mut table = BTreeMap::new();
            for &(e, id, value) in &self.log[from..] {
                if e <= epoch {
                    match value {
                        Some(value) => table.insert(id, value),
                        None => table.remove(&id),
                    };
                }
            }
            table
        }
    }

    proptest! {
        /// Law 2 of checkpoints: whatever happens between barriers, the frames up to N give the table as it was at N's barrier.
        #[test]
        fn frames_give_the_table_at_each_barrier(ops in proptest::collection::vec(op(), 0..400)) {
            let mut rig = Rig::default();
            for op in ops {
                rig.apply(op);
            }
            rig.apply(Op::Barrier);
            rig.write(usize::MAX);
            for (n, cut) in rig.cuts.iter().enumerate() {
                prop_assert_eq!(&rig.replay(n + 1, 0), cut, "epoch {}", n + 1);
            }
        }

        /// Law 4: when a sweep is through, the log from its beginning is enough.
        #[test]
        fn a_sweep_makes_what_was_before_useless(ops in proptest::collection::vec(op(), 0..400)) {
            let mut rig = Rig::default();
            for op in ops {
                rig.apply(op);
                if rig.tracker.swept() > 0 && !rig.tracker.is_writing() {
                    let from = rig.sweeps[rig.tracker.swept() as usize - 1];
                    let cut = rig.cuts.last().unwrap();
                    prop_assert_eq!(&rig.replay(rig.epoch, from), cut);
                }
            }
        }
    }

    #[test]
    fn a_sweep_at_once_is_through_with_one_barrier() {
        for (at_once, all) in [(true, 100_000), (false, 1024)] {
            let mut tracker = Tracker::default();
            (0..100_000).for_each(|id| tracker.restored(id));
            tracker.begin_sweep(sweep(1, at_once, 1024));
            let looked = std::cell::Cell::new(0);
            tracker.begin(100_000, |_| {
                looked.set(looked.get() + 1);
                true
            });
            // A barrier is one step, however large the table.
            assert_eq!(looked.get(), if at_once { 0 } else { 1024 });
            let mut written = 0;
            assert!(tracker.write(|_| {
                written += 1;
                true
            }));
            assert_eq!(written, all);
            assert_eq!(tracker.swept(), u64::from(at_once));
        }
    }

    /// Law 4, where an entry goes from before a sweep to behind it.
    #[test]
    fn what_is_moved_past_a_sweep_is_written() {
        let mut tracker = Tracker::default();
        (1..100).for_each(|id| tracker.restored(id));
        tracker.begin_sweep(sweep(1, false, 40));
        let mut written = vec![];
        while tracker.swept() == 0 {
            tracker.begin(100, |id| id != 0 && id != 90);
            assert!(tracker.write(|id| {
                written.push(id);
                true
            }));
            if tracker.swept() == 0 && !written.contains(&0) {
                let (due, lifted) = tracker.lift(90);
                assert!(!due);
                tracker.lay(0, lifted);
            }
        }
        written.sort_unstable();
        written.dedup();
        assert!(written.into_iter().eq((0..100).filter(|&id| id != 90)));
    }

    #[test]
    fn few_entries_of_a_large_table_are_looked_for_in_pieces() {
        let mut tracker = Tracker::default();
        let last = (WORDS * 64 * 2) as u32;
        assert!(!tracker.touch(last));
        tracker.begin(last + 1, |_| true);
        let mut written = vec![];
        let mut piece = || {
            tracker.write(|id| {
                written.push(id);
                true
            })
        };
        assert_eq!([piece(), piece(), piece()], [false, false, true]);
        assert_eq!(written, [last]);
    }

    #[test]
    fn what_comes_and_goes_between_two_barriers_writes_nothing() {
        let mut rig = Rig::default();
        rig.apply(Op::Set(3, 1));
        rig.apply(Op::Remove(3));
        rig.apply(Op::Barrier);
        assert!(rig.write(usize::MAX) && rig.log.is_empty());
    }
}
