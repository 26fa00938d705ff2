//! Views by campaign in tumbling windows: the state of `ysb` by hand.
//!
//! Also included by path in `benches/peers`, where it is the state of the other engines' operators.

use crate::events::{CampaignView, WindowResult};
use rustc_hash::FxHashMap;

/// Counts by campaign: a hundred keys, so a window is a small hash map.
#[derive(Clone)]
pub struct Campaigns {
    size: u64,
    windows: Vec<(u64, FxHashMap<u64, u64>)>,
    /// Where the window last written is.
    current: usize,
}

impl Campaigns {
    /// Windows of `size` milliseconds, aligned to zero.
    pub fn new(size: u64) -> Self {
        Campaigns {
            size,
            windows: Vec::new(),
            current: 0,
        }
    }

    /// Takes in one view.
    #[inline(always)]
    pub fn update(&mut self, view: &CampaignView) {
        if let Some((start, counts)) = self.windows.get_mut(self.current)
            && view.ts.wrapping_sub(*start) < self.size
        {
            *counts.entry(view.campaign).or_insert(0) += 1;
            return;
        }
        self.update_other(view);
    }

    #[inline(never)]
    fn update_other(&mut self, view: &CampaignView) {
        let start = view.ts / self.size * self.size;
        self.current = match self.windows.iter().position(|(s, _)| *s == start) {
            Some(at) => at,
            None => {
                self.windows.push((start, FxHashMap::default()));
                self.windows.len() - 1
            }
        };
        let counts = &mut self.windows[self.current].1;
        *counts.entry(view.campaign).or_insert(0) += 1;
    }

    /// Fires every window that ends by `watermark`.
    pub fn advance(&mut self, watermark: u64, mut emit: impl FnMut(WindowResult)) {
        let size = self.size;
        let due = |start: u64| start.saturating_add(size) <= watermark;
        if !self.windows.iter().any(|(start, _)| due(*start)) {
            return;
        }
        self.windows.retain(|(start, counts)| {
            if due(*start) {
                for (campaign, count) in counts {
                    emit(WindowResult {
                        window_end: start + size,
                        key: *campaign,
                        count: *count,
                        sum: 0.0,
                        max: 0.0,
                    });
                }
            }
            !due(*start)
        });
        self.current = 0;
    }

    /// End of the oldest open window.
    pub fn next_end(&self) -> Option<u64> {
        self.windows
            .iter()
            .map(|(start, _)| *start + self.size)
            .min()
    }
}
