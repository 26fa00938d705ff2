//! Pages by the time at which each is to be looked at: a binary heap that knows where each page stands in it.
//!
//! Laws
//! 1. A page is in it at most once, so it is as long as there are pages: what is moved or taken out leaves nothing behind.
//! 2. The first is the one of the least (time, page number): the order depends on nothing else.
//!
//! O(log pages) for each change, O(1) to see the first. 24 bytes a page in it, and 4 for each slot that there ever was.

use crate::table::NONE;

/// See the module. Pages are known by their slots.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// (time, page number, slot): the children of n are at 2n + 1 and 2n + 2, and none comes before its parent.
    heap: Vec<(i64, u64, u32)>,
    /// By slot, where it stands in `heap`, or [`NONE`].
    at: Vec<u32>,
}

impl Turns {
    /// The first, and its time.
    #[inline(always)]
    pub fn first(&self) -> Option<(i64, u32)> {
        self.heap.first().map(|&(time, _, slot)| (time, slot))
    }

    /// The bytes that it has.
    pub fn bytes(&self) -> u64 {
        (size_of_val(&self.heap[..]) + size_of_val(&self.at[..])) as u64
    }

    /// A page's time is this from now on.
    pub fn set(&mut self, slot: u32, serial: u64, time: i64) {
        if self.at.len() <= slot as usize {
            self.at.resize(slot as usize + 1, NONE);
        }
        let entry = (time, serial, slot);
        let at = match self.at[slot as usize] {
            NONE => {
                self.heap.push(entry);
                self.heap.len() - 1
            }
            at => at as usize,
        };
        self.heap[at] = entry;
        self.settle(at);
    }

    /// A page is not to be looked at.
    pub fn remove(&mut self, slot: u32) {
        let at = self.at.get(slot as usize).copied().unwrap_or(NONE);
        if at == NONE {
            return;
        }
        self.at[slot as usize] = NONE;
        self.heap.swap_remove(at as usize);
        if (at as usize) < self.heap.len() {
            self.settle(at as usize);
        }
    }

    /// Moves an entry up or down to where it belongs.
    fn settle(&mut self, mut at: usize) {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            at = self.swap(at, (at - 1) / 2);
        }
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.heap.len());
            match children.min_by_key(|&child| self.heap[child]) {
                Some(child) if self.heap[child] < self.heap[at] => at = self.swap(at, child),
                _ => break,
            }
        }
        self.at[self.heap[at].2 as usize] = at as u32;
    }

    /// Moves an entry to `to`, and what is there to its place.
    fn swap(&mut self, at: usize, to: usize) -> usize {
        self.heap.swap(at, to);
        self.at[self.heap[at].2 as usize] = at as u32;
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn the_first_is_the_least(ops in prop::collection::vec((0u32..40, prop::option::weighted(0.7, 0i64..30)), 0..400)) {
            let (mut turns, mut model) = (Turns::default(), BTreeMap::new());
            for (slot, time) in ops {
                match time {
                    Some(time) => {
                        turns.set(slot, u64::from(slot) * 7 % 40, time);
                        model.insert(slot, time);
                    }
                    None => {
                        turns.remove(slot);
                        model.remove(&slot);
                    }
                }
                let least = model.iter().map(|(&slot, &time)| (time, slot * 7 % 40, slot)).min();
                prop_assert_eq!(turns.first(), least.map(|(time, _, slot)| (time, slot)));
                prop_assert_eq!(turns.heap.len(), model.len());
            }
        }
    }
}
