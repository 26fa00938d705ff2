//! `broadcast-join` by hand: each shard has the table, rows go to all shards, and the events stay where they are.

use crate::events::Totals;
use crate::limit::jobs::{Job, To};
use crate::operator_events::{Priced, Quote, rate_of, rated, row_of};
use rustc_hash::FxHashMap;

/// One shard of it.
#[derive(Default)]
pub struct Broadcast {
    table: FxHashMap<u64, f64>,
    totals: Totals,
}

impl Job for Broadcast {
    type Record = Quote;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Quote> {
        Some(rated(id))
    }

    #[inline(always)]
    fn key(record: &Quote) -> u64 {
        let (Quote::Ask(event) | Quote::Price(event)) = record;
        event.key
    }

    #[inline(always)]
    fn to(record: &Quote) -> To {
        match record {
            Quote::Ask(_) => To::Here,
            Quote::Price(_) => To::All,
        }
    }

    #[inline(always)]
    fn take(&mut self, record: &Quote) {
        match record {
            Quote::Price(row) => {
                self.table.insert(row.key, row.value);
            }
            Quote::Ask(ask) => {
                let row = row_of(ask.key);
                let rate = self.table.get(&row).copied();
                let rate = rate.unwrap_or_else(|| rate_of(row));
                self.totals.add(Priced::of(ask, rate).checksum());
            }
        }
    }

    fn advance(&mut self, _watermark: u64) {}

    fn totals(&self) -> Totals {
        self.totals
    }
}
