//! `top-10` and NEXMark q19 by hand: a map of small sorted arrays.

use crate::events::Totals;
use crate::limit::jobs::Job;
use crate::operator_events::{self, PER_MS, Tick, stands_checksum, tick};
use rustc_hash::FxHashMap;

/// The best of a key, best first.
pub struct Best<R, const N: usize> {
    len: usize,
    rows: [R; N],
}

impl<R: Copy, const N: usize> Best<R, N> {
    /// Of one record. The others' places are filled with it, and not looked at.
    pub fn of(row: R) -> Self {
        Best {
            len: 1,
            rows: [row; N],
        }
    }

    /// Takes in a record: whether it got in, and who was driven out.
    #[inline(always)]
    pub fn add(&mut self, row: R, is_better: impl Fn(&R, &R) -> bool) -> (bool, Option<R>) {
        let mut driven_out = None;
        if self.len == N {
            if !is_better(&row, &self.rows[N - 1]) {
                return (false, None);
            }
            driven_out = Some(self.rows[N - 1]);
        } else {
            self.len += 1;
        }
        let mut place = self.len - 1;
        while place > 0 && is_better(&row, &self.rows[place - 1]) {
            self.rows[place] = self.rows[place - 1];
            place -= 1;
        }
        self.rows[place] = row;
        (true, driven_out)
    }
}

/// One shard of `top-10`.
#[derive(Default)]
pub struct Top {
    by_key: FxHashMap<u64, Best<(u64, Tick), { operator_events::BEST }>>,
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
        let row = (operator_events::score(event), *event);
        let mut gets_in = true;
        let best = self.by_key.entry(event.key);
        best.and_modify(|best| {
            let (got_in, driven_out) = best.add(row, |one, other| one.0 > other.0);
            gets_in = got_in;
            if let Some((_, driven_out)) = driven_out {
                self.totals.take_back(stands_checksum(&driven_out));
            }
        })
        .or_insert_with(|| Best::of(row));
        if gets_in {
            self.totals.add(stands_checksum(event));
        }
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}
