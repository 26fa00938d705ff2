//! Running totals by hand: one table of them.

use crate::events::{Ev, GOLDEN, RunningTotal};

/// No key is `u64::MAX`.
const EMPTY: RunningTotal = RunningTotal {
    key: u64::MAX,
    count: 0,
    sum: 0.0,
};

/// Count and sum by key. Open addressing with linear probing, at most half full.
#[derive(Clone)]
pub struct Running {
    slots: Vec<RunningTotal>,
    /// 64 minus the binary logarithm of the slot count: the hash's top bits choose the slot.
    shift: u32,
    len: usize,
}

impl Default for Running {
    fn default() -> Self {
        const BITS: u32 = 10;
        Running {
            slots: vec![EMPTY; 1 << BITS],
            shift: 64 - BITS,
            len: 0,
        }
    }
}

impl Running {
    /// Where a key is, or is to be.
    #[inline(always)]
    fn place(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (key.wrapping_mul(GOLDEN) >> self.shift) as usize;
        loop {
            let found = self.slots[at & mask].key;
            if found == key || found == EMPTY.key {
                return at & mask;
            }
            at += 1;
        }
    }

    /// Takes in one record; its key's total after it.
    #[inline(always)]
    pub fn update(&mut self, event: &Ev) -> RunningTotal {
        let at = self.place(event.key);
        let slot = &mut self.slots[at];
        if slot.key == EMPTY.key {
            slot.key = event.key;
            self.len += 1;
        }
        slot.count += 1;
        slot.sum += event.value;
        let total = *slot;
        if self.len * 2 > self.slots.len() {
            self.grow();
        }
        total
    }

    #[cold]
    fn grow(&mut self) {
        let room = vec![EMPTY; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, room);
        self.shift -= 1;
        for slot in old.into_iter().filter(|slot| slot.key != EMPTY.key) {
            let at = self.place(slot.key);
            self.slots[at] = slot;
        }
    }
}
