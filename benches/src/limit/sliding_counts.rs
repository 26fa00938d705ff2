//! Counts by key in sliding windows, of which the best is wanted: the state of NEXMark q5 by hand. Windows share panes of one slide.

use crate::events::GOLDEN;
use crate::nexmark::Top;
use std::collections::VecDeque;

#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    n: u64,
}

/// No key is `u64::MAX`.
const EMPTY: Slot = Slot {
    key: u64::MAX,
    n: 0,
};

/// Open addressing with linear probing, at most half full.
struct Counts {
    slots: Vec<Slot>,
    shift: u32,
    len: usize,
}

impl Counts {
    fn with_bits(bits: u32) -> Self {
        Counts {
            slots: vec![EMPTY; 1 << bits],
            shift: 64 - bits,
            len: 0,
        }
    }

    #[inline(always)]
    fn add(&mut self, key: u64, n: u64) -> u64 {
        let mask = self.slots.len() - 1;
        let mut at = (key.wrapping_mul(GOLDEN) >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[at & mask];
            if slot.key == key {
                slot.n += n;
                return slot.n;
            }
            if slot.key == EMPTY.key {
                *slot = Slot { key, n };
                self.len += 1;
                if self.len * 2 > self.slots.len() {
                    self.grow();
                }
                return n;
            }
            at += 1;
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let larger = Counts::with_bits(64 - self.shift + 1);
        let old = std::mem::replace(self, larger);
        for slot in old.slots.iter().filter(|slot| slot.key != EMPTY.key) {
            self.add(slot.key, slot.n);
        }
    }
}

/// The key with the highest count of each window.
pub struct Hot {
    slide: u64,
    /// Panes of a window.
    panes_each: u64,
    panes: VecDeque<(u64, Counts)>,
    /// Where the pane last written is.
    current: usize,
    /// The last pane of the next window to be told, and of the last one there is.
    next: u64,
    last: u64,
}

impl Hot {
    /// Windows of `size` milliseconds every `slide`, over times from 0 to `last`.
    pub fn new(size: u64, slide: u64, last: u64) -> Self {
        Hot {
            slide,
            panes_each: size / slide,
            panes: VecDeque::new(),
            current: 0,
            next: 0,
            last: last / slide + size / slide - 1,
        }
    }

    /// Counts one record.
    #[inline(always)]
    pub fn update(&mut self, ts: u64, key: u64) {
        if let Some((pane, counts)) = self.panes.get_mut(self.current)
            && ts.wrapping_sub(*pane * self.slide) < self.slide
        {
            counts.add(key, 1);
            return;
        }
        self.update_other(ts / self.slide, key);
    }

    #[inline(never)]
    fn update_other(&mut self, pane: u64, key: u64) {
        let place = self.panes.iter().position(|(p, _)| *p == pane);
        self.current = place.unwrap_or_else(|| {
            self.panes.push_back((pane, Counts::with_bits(12)));
            self.panes.len() - 1
        });
        self.panes[self.current].1.add(key, 1);
    }

    /// Tells the best of every window that ends by `watermark`, `None` of an empty one.
    pub fn advance(&mut self, watermark: u64, mut tell: impl FnMut(u64, Option<Top>)) {
        while self.next <= self.last && (self.next + 1) * self.slide <= watermark {
            let window_end = (self.next + 1) * self.slide;
            let from = (self.next + 1).saturating_sub(self.panes_each);
            let held = from..=self.next;
            let panes = || self.panes.iter().filter(|(pane, _)| held.contains(pane));
            let most: usize = panes().map(|(_, counts)| counts.len).sum();
            // Room from the first: slots are walked in the order of their hash, which would cluster in a table that grows.
            let bits = (most * 2).max(16).next_power_of_two().trailing_zeros();
            let mut all = Counts::with_bits(bits);
            let mut best: Option<Top> = None;
            for slot in panes().flat_map(|(_, counts)| &counts.slots) {
                if slot.key == EMPTY.key {
                    continue;
                }
                let top = Top {
                    window_end,
                    auction: slot.key,
                    n: all.add(slot.key, slot.n),
                };
                if best.is_none_or(|best| top.is_better(&best)) {
                    best = Some(top);
                }
            }
            tell(window_end, best);
            self.next += 1;
            let keep = (self.next + 1).saturating_sub(self.panes_each);
            self.panes.retain(|(pane, _)| *pane >= keep);
            self.current = self.panes.len().saturating_sub(1);
        }
    }
}
