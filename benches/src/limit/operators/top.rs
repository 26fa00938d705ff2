//! `top-10` and NEXMark q19 by hand: a map of small sorted arrays.

use crate::events::Totals;
use crate::limit::jobs::Job;
use crate::operator_events::{self, PER_MS, Tick, stands_checksum, tick};
use rustc_hash::FxHashMap;

/// The best of a key, best first.
pub struct Best<V, R, const N: usize> {
    len: usize,
    rows: [(V, R); N],
}

impl<V: PartialOrd + Copy + Default, R: Copy, const N: usize> Best<V, R, N> {
    /// Of one record. The others' places are filled with it, and not looked at.
    pub fn of(score: V, row: R) -> Self {
        Best {
            len: 1,
            rows: [(score, row); N],
        }
    }

    /// Takes in a record: whether it got in, and who was driven out. Those of one score stand in the order in which they came.
    #[inline(always)]
    pub fn add(&mut self, score: V, row: R) -> (bool, Option<R>) {
        if self.len == N && score <= self.rows[N - 1].0 {
            return (false, None);
        }
        let mut driven_out = None;
        if self.len == N {
            driven_out = Some(self.rows[N - 1].1);
        } else {
            self.len += 1;
        }
        let mut place = self.len - 1;
        while place > 0 && self.rows[place - 1].0 < score {
            self.rows[place] = self.rows[place - 1];
            place -= 1;
        }
        self.rows[place] = (score, row);
        (true, driven_out)
    }
}

/// One shard of `top-10`.
#[derive(Default)]
pub struct Top {
    by_key: FxHashMap<u64, Best<u64, Tick, { operator_events::BEST }>>,
    totals: Totals,
}

impl Job for Top {
    type Record = Tick;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Tick> {
        Some(tick(id, PER_MS))
    }

    #[inline(always)]
    fn key(record: &Tick) -> u64 {
        record.key
    }

    #[inline(always)]
    fn take(&mut self, event: &Tick) {
        let score = operator_events::score(event);
        let mut gets_in = true;
        let best = self.by_key.entry(event.key);
        best.and_modify(|best| {
            let (got_in, driven_out) = best.add(score, *event);
            gets_in = got_in;
            if let Some(driven_out) = driven_out {
                self.totals.take_back(stands_checksum(&driven_out));
            }
        })
        .or_insert_with(|| Best::of(score, *event));
        if gets_in {
            self.totals.add(stands_checksum(event));
        }
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}
