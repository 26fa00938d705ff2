//! Early firing, what its operators share: which entries of a table have changed since they were last told, and when to tell them.
//!
//! Laws
//! 1. Once something has changed, all that has changed is told within the interval, once. Where nothing changes, nothing
//!    is told and no timer runs.
//! 2. A mark costs O(1); telling goes by pieces, over a bit for each key of the window.

use crate::time::Span;

/// Words looked at in one step: 64 keys each.
const WORDS: usize = 4096;

/// The entries of a table that have changed: a bit for each id.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    bits: Vec<u64>,
}

impl Changed {
    /// Entry `id` has changed.
    #[inline]
    pub fn mark(&mut self, id: u32) {
        let word = id as usize / 64;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (id % 64);
    }

    /// Takes at most `results` marks, in the order of ids from `cursor` on, and gives each to `tell`; whether none is left.
    pub fn take(
        &mut self,
        cursor: &mut usize,
        results: &mut u32,
        mut tell: impl FnMut(u32),
    ) -> bool {
        let stop = (*cursor + WORDS).min(self.bits.len());
        while *cursor < stop {
            let word = &mut self.bits[*cursor];
            while *word != 0 {
                if *results == 0 {
                    return false;
                }
                *results -= 1;
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                tell(*cursor as u32 * 64 + bit);
            }
            *cursor += 1;
        }
        *cursor >= self.bits.len()
    }
}

/// When to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EarlyTimer {
    every_ns: u64,
    /// Driver's nanoseconds; `None` while nothing has changed.
    next_ns: Option<u64>,
}

impl EarlyTimer {
    pub fn new(every: Span) -> Self {
        EarlyTimer {
            every_ns: every.nanos(),
            next_ns: None,
        }
    }

    /// Something has changed.
    #[inline]
    pub fn changed(&mut self, now_ns: u64) {
        if self.next_ns.is_none() {
            self.next_ns = Some(now_ns.saturating_add(self.every_ns));
        }
    }

    /// When what has changed is to be told.
    pub fn wake_at(&self) -> Option<u64> {
        self.next_ns
    }

    /// It is being told.
    pub fn told(&mut self) {
        self.next_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_mark_is_told_once_in_order(ids in proptest::collection::btree_set(0u32..600_000, 0..500), piece in 1u32..50) {
            let mut changed = Changed::default();
            ids.iter().rev().for_each(|&id| changed.mark(id));
            ids.iter().for_each(|&id| changed.mark(id));
            let (mut cursor, mut told) = (0, vec![]);
            loop {
                let before = told.len();
                let mut results = piece;
                let done = changed.take(&mut cursor, &mut results, |id| told.push(id));
                prop_assert_eq!(told.len() - before, (piece - results) as usize);
                if done {
                    break;
                }
            }
            prop_assert_eq!(told, ids.into_iter().collect::<Vec<_>>());
            prop_assert!(changed.bits.iter().all(|&w| w == 0));
        }
    }
}
