//! `interval-join` by hand: a map of two queues a key.

use crate::events::Totals;
use crate::limit::jobs::Job;
use crate::operator_events::{JOIN_PER_MS, JOIN_SPAN_MS, Pair, Tick, is_left, tick};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

const SPAN: u64 = JOIN_SPAN_MS * 1000;

/// How often keys that do not come again are looked for.
const SWEEP: u64 = 60_000_000;

type Queue = VecDeque<(u64, f64)>;

/// Drops what no later record can meet.
#[inline(always)]
fn clean(queue: &mut Queue, watermark: u64) {
    while queue.front().is_some_and(|(at, _)| at + SPAN < watermark) {
        queue.pop_front();
    }
}

/// One shard of it. A key's queues are cleaned whenever one of its records comes, and all of them once a minute.
#[derive(Default)]
pub struct Interval {
    by_key: FxHashMap<u64, [Queue; 2]>,
    watermark: u64,
    swept: u64,
    totals: Totals,
}

impl Job for Interval {
    type Record = (bool, Tick);
    const PER_MS: u64 = JOIN_PER_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<(bool, Tick)> {
        Some((is_left(id), tick(id, JOIN_PER_MS)))
    }

    #[inline(always)]
    fn key(record: &(bool, Tick)) -> u64 {
        record.1.key
    }

    #[inline(always)]
    fn take(&mut self, (is_left, new): &(bool, Tick)) {
        let [left, right] = self.by_key.entry(new.key).or_default();
        let (own, others) = if *is_left {
            (left, right)
        } else {
            (right, left)
        };
        clean(own, self.watermark);
        clean(others, self.watermark);
        for &(at, value) in others.iter() {
            if at.abs_diff(new.at) > SPAN {
                continue;
            }
            let key = new.key;
            let other = Tick { at, key, value };
            let pair = match is_left {
                true => Pair::of(new, &other),
                false => Pair::of(&other, new),
            };
            self.totals.add(pair.checksum());
        }
        own.push_back((new.at, new.value));
    }

    fn advance(&mut self, watermark: u64) {
        self.watermark = watermark.saturating_mul(1000);
        if self.watermark >= self.swept.saturating_add(SWEEP) {
            self.swept = self.watermark;
            self.by_key.retain(|_, queues| {
                queues.iter_mut().for_each(|q| clean(q, self.watermark));
                queues.iter().any(|queue| !queue.is_empty())
            });
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}
