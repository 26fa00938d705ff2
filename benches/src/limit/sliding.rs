//! Sliding windows by hand: panes of one slide each, shared by all windows that cover them.
//!
//! Also included by path in `benches/peers`, where it is the state of the other engines' operators.

use crate::events::{Ev, GOLDEN, WindowResult};

#[derive(Clone, Copy)]
struct Accumulator {
    count: u64,
    sum: f64,
    max: f64,
}

const ZERO: Accumulator = Accumulator {
    count: 0,
    sum: 0.0,
    max: f64::NEG_INFINITY,
};

/// Keys that are merged at once when a window fires: their accumulators stay in the first-level cache.
const BLOCK: usize = 256;

/// How many panes may be open beyond those of one window: bounds how far shards drift apart.
const PANES_AHEAD: u64 = 3;

/// Count, sum and maximum by key in sliding windows.
///
/// A key gets a dense number at its first record; a pane is an array of accumulators by that number.
#[derive(Clone)]
pub struct Sliding {
    slide: u64,
    panes_per_window: u64,
    /// Open addressing: key (`u64::MAX` is empty) and its number.
    index: Vec<(u64, u64)>,
    /// 64 minus the binary logarithm of the index's length.
    shift: u32,
    keys: Vec<u64>,
    panes: Vec<Vec<Accumulator>>,
    /// The pane whose end is the end of the next window to fire.
    next: u64,
    /// The newest pane that holds a record.
    last: u64,
    /// No window fired since the first record, so `next` may still move back.
    fresh: bool,
    started: bool,
    /// The pane last written.
    current: u64,
}

impl Sliding {
    /// Windows of `size` milliseconds every `slide` milliseconds; the slide divides the size.
    pub fn new(size: u64, slide: u64) -> Self {
        let panes_per_window = size / slide;
        Sliding {
            slide,
            panes_per_window,
            index: vec![(u64::MAX, 0); 1 << 10],
            shift: 54,
            keys: Vec::new(),
            panes: vec![Vec::new(); (panes_per_window + PANES_AHEAD) as usize],
            next: 0,
            last: 0,
            fresh: true,
            started: false,
            current: u64::MAX,
        }
    }

    /// Takes in one record.
    #[inline(always)]
    pub fn update(&mut self, event: &Ev) {
        let pane = event.ts / self.slide;
        if pane != self.current {
            self.enter(pane);
        }
        let mask = self.index.len() - 1;
        let mut i = (event.key.wrapping_mul(GOLDEN) >> self.shift) as usize;
        let number = loop {
            let entry = self.index[i & mask];
            if entry.0 == event.key {
                break entry.1;
            }
            if entry.0 == u64::MAX {
                break self.insert(i & mask, event.key);
            }
            i += 1;
        };
        let at = (pane % self.panes.len() as u64) as usize;
        let acc = &mut self.panes[at][number as usize];
        acc.count += 1;
        acc.sum += event.value;
        acc.max = if event.value > acc.max {
            event.value
        } else {
            acc.max
        };
    }

    #[inline(never)]
    fn enter(&mut self, pane: u64) {
        if !self.started {
            self.started = true;
            self.fresh = true;
            self.next = pane;
            self.last = pane;
        }
        if pane < self.next {
            assert!(
                self.fresh,
                "a record of pane {pane} came after its window fired"
            );
            self.next = pane;
        }
        if pane > self.last {
            assert!(
                pane <= self.next + PANES_AHEAD,
                "shards drifted too far apart"
            );
            self.last = pane;
        }
        self.current = pane;
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, at: usize, key: u64) -> u64 {
        let number = self.keys.len() as u64;
        self.keys.push(key);
        self.index[at] = (key, number);
        for pane in &mut self.panes {
            pane.push(ZERO);
        }
        if self.keys.len() * 2 > self.index.len() {
            let bits = 64 - self.shift + 1;
            self.shift -= 1;
            self.index = vec![(u64::MAX, 0); 1 << bits];
            let mask = self.index.len() - 1;
            for (number, key) in self.keys.iter().enumerate() {
                let mut i = (key.wrapping_mul(GOLDEN) >> self.shift) as usize;
                while self.index[i & mask].0 != u64::MAX {
                    i += 1;
                }
                self.index[i & mask] = (*key, number as u64);
            }
        }
        number
    }

    /// Fires, oldest first, every window that ends by `watermark`.
    pub fn advance(&mut self, watermark: u64, mut emit: impl FnMut(WindowResult)) {
        while self.started && (self.next + 1).saturating_mul(self.slide) <= watermark {
            self.fire(&mut emit);
            self.fresh = false;
            self.next += 1;
            if self.next >= self.last + self.panes_per_window {
                self.started = false;
                self.current = u64::MAX;
            }
        }
    }

    fn fire(&mut self, emit: &mut impl FnMut(WindowResult)) {
        let newest = self.next;
        let oldest = (newest + 1).saturating_sub(self.panes_per_window);
        let pane_count = self.panes.len() as u64;
        let mut block = [ZERO; BLOCK];
        for from in (0..self.keys.len()).step_by(BLOCK) {
            let len = (self.keys.len() - from).min(BLOCK);
            let merged = &mut block[..len];
            merged.fill(ZERO);
            for pane in oldest..=newest {
                let pane = &self.panes[(pane % pane_count) as usize][from..from + len];
                for (acc, part) in merged.iter_mut().zip(pane) {
                    acc.count += part.count;
                    acc.sum += part.sum;
                    acc.max = if part.max > acc.max {
                        part.max
                    } else {
                        acc.max
                    };
                }
            }
            for (acc, key) in merged.iter().zip(&self.keys[from..]) {
                if acc.count != 0 {
                    emit(WindowResult {
                        window_end: (newest + 1) * self.slide,
                        key: *key,
                        count: acc.count,
                        sum: acc.sum,
                        max: acc.max,
                    });
                }
            }
        }
        if newest + 1 >= self.panes_per_window {
            self.panes[(oldest % pane_count) as usize].fill(ZERO);
        }
    }

    /// End of the next window to fire.
    pub fn next_end(&self) -> Option<u64> {
        self.started.then(|| (self.next + 1) * self.slide)
    }
}
