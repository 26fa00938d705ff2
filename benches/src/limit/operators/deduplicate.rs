//! `deduplicate` by hand: a map of when each id passed, and a queue that says whose turn it is to be forgotten.

use crate::events::Totals;
use crate::limit::jobs::Job;
use crate::operator_events::{HORIZON_MS, SENT_PER_MS, Tick, sent, sent_checksum};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

const HORIZON: u64 = HORIZON_MS * 1000;

/// One shard of it.
#[derive(Default)]
pub struct Deduplicate {
    passed: FxHashMap<u64, u64>,
    oldest: VecDeque<(u64, u64)>,
    totals: Totals,
}

impl Job for Deduplicate {
    type Record = Tick;
    const PER_MS: u64 = SENT_PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Tick> {
        Some(sent(id))
    }

    #[inline(always)]
    fn key(record: &Tick) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, event: &Tick) {
        let before = self.passed.get_mut(&event.key);
        match before {
            Some(at) if at.abs_diff(event.at) < HORIZON => return,
            Some(at) => *at = event.at.max(*at),
            None => {
                self.passed.insert(event.key, event.at);
            }
        }
        self.oldest.push_back((event.at, event.key));
        self.totals.add(sent_checksum(event));
    }

    fn advance(&mut self, watermark: u64) {
        let watermark = watermark.saturating_mul(1000);
        while let Some(&(at, key)) = self.oldest.front()
            && at + HORIZON <= watermark
        {
            self.oldest.pop_front();
            // One that passed again has a place of its own in the queue.
            if self.passed.get(&key).is_some_and(|last| *last == at) {
                self.passed.remove(&key);
            }
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}
