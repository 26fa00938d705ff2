//! Tumbling windows by hand: a table of accumulators for each open window.
//!
//! Also included by path in `benches/peers`, where it is the state of the other engines' operators.

use crate::events::{Ev, GOLDEN, WindowResult};
use std::collections::VecDeque;

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    count: u64,
    sum: f64,
    max: f64,
}

const EMPTY: Slot = Slot {
    key: u64::MAX,
    count: 0,
    sum: 0.0,
    max: f64::NEG_INFINITY,
};

/// Open addressing with linear probing, at most half full; no key is `u64::MAX`.
#[derive(Clone)]
struct Table {
    slots: Vec<Slot>,
    /// 64 minus the binary logarithm of the slot count: the hash's top bits choose the slot.
    shift: u32,
    len: usize,
}

impl Table {
    fn with_bits(bits: u32) -> Self {
        Table {
            slots: vec![EMPTY; 1 << bits],
            shift: 64 - bits,
            len: 0,
        }
    }

    #[inline(always)]
    fn home(&self, key: u64) -> usize {
        (key.wrapping_mul(GOLDEN) >> self.shift) as usize
    }

    #[inline(always)]
    fn add(&mut self, key: u64, value: f64) {
        let mask = self.slots.len() - 1;
        let mut i = self.home(key);
        loop {
            let slot = &mut self.slots[i & mask];
            if slot.key == key {
                slot.count += 1;
                slot.sum += value;
                slot.max = if value > slot.max { value } else { slot.max };
                return;
            }
            if slot.key == u64::MAX {
                *slot = Slot {
                    key,
                    count: 1,
                    sum: value,
                    max: value,
                };
                self.len += 1;
                if self.len * 2 > self.slots.len() {
                    self.grow();
                }
                return;
            }
            i += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let bits = 64 - self.shift + 1;
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; 1 << bits]);
        self.shift -= 1;
        let mask = self.slots.len() - 1;
        for slot in old {
            if slot.key != u64::MAX {
                let mut i = self.home(slot.key);
                while self.slots[i & mask].key != u64::MAX {
                    i += 1;
                }
                self.slots[i & mask] = slot;
            }
        }
    }

    fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.len = 0;
    }
}

/// Count, sum and maximum by key in tumbling windows.
#[derive(Clone)]
pub struct Tumbling {
    size: u64,
    windows: VecDeque<(u64, Table)>,
    /// Cleared tables of fired windows: a steady run allocates nothing.
    spare: Vec<Table>,
    /// Where the window last written is: nearly every record belongs to it.
    current: usize,
}

impl Tumbling {
    /// Windows of `size` milliseconds, aligned to zero.
    pub fn new(size: u64) -> Self {
        Tumbling {
            size,
            windows: VecDeque::new(),
            spare: Vec::new(),
            current: 0,
        }
    }

    /// Takes in one record.
    #[inline(always)]
    pub fn update(&mut self, event: &Ev) {
        if let Some((start, table)) = self.windows.get_mut(self.current)
            && event.ts.wrapping_sub(*start) < self.size
        {
            table.add(event.key, event.value);
            return;
        }
        self.update_other(event);
    }

    #[inline(never)]
    fn update_other(&mut self, event: &Ev) {
        let start = event.ts / self.size * self.size;
        self.current = match self.windows.iter().position(|(s, _)| *s == start) {
            Some(at) => at,
            None => {
                let table = self.spare.pop().unwrap_or_else(|| Table::with_bits(10));
                self.windows.push_back((start, table));
                self.windows.len() - 1
            }
        };
        self.windows[self.current].1.add(event.key, event.value);
    }

    /// Takes in a batch, touching every record's slot before the first is updated, so that the cache misses overlap.
    #[inline]
    pub fn update_batch(&mut self, events: &[Ev]) {
        if let Some((_, table)) = self.windows.get(self.current) {
            let mask = table.slots.len() - 1;
            let mut touched = 0;
            for event in events {
                touched |= table.slots[table.home(event.key) & mask].key;
            }
            std::hint::black_box(touched);
        }
        for event in events {
            self.update(event);
        }
    }

    /// Fires, oldest first, every window that ends by `watermark`: all events before that time have been seen.
    #[inline]
    pub fn advance(&mut self, watermark: u64, mut emit: impl FnMut(WindowResult)) {
        while let Some(at) = self.oldest_due(watermark) {
            let Some((start, mut table)) = self.windows.remove(at) else {
                return;
            };
            for slot in &table.slots {
                if slot.key != u64::MAX {
                    emit(WindowResult {
                        window_end: start + self.size,
                        key: slot.key,
                        count: slot.count,
                        sum: slot.sum,
                        max: slot.max,
                    });
                }
            }
            table.clear();
            self.spare.push(table);
            self.current = 0;
        }
    }

    fn oldest_due(&self, watermark: u64) -> Option<usize> {
        let due = |start: u64| start.saturating_add(self.size) <= watermark;
        let windows = self.windows.iter().enumerate();
        windows
            .filter(|(_, (start, _))| due(*start))
            .min_by_key(|(_, (start, _))| *start)
            .map(|(at, _)| at)
    }

    /// End of the oldest open window.
    pub fn next_end(&self) -> Option<u64> {
        self.windows
            .iter()
            .map(|(start, _)| *start + self.size)
            .min()
    }
}
