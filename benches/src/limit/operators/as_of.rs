//! `as-of-join` by hand: records wait for the watermark, and a map has the price of each key.

use super::order::InOrder;
use super::{ORDERED_DRIFT_MS, ORDERED_STEP_MS};
use crate::events::Totals;
use crate::limit::jobs::Job;
use crate::operator_events::{Priced, Quote, quote};
use rustc_hash::FxHashMap;

/// One shard of it.
#[derive(Default)]
pub struct AsOf {
    waiting: InOrder<Quote>,
    prices: FxHashMap<u64, f64>,
    totals: Totals,
}

impl Job for AsOf {
    type Record = Quote;
    const STEP_MS: u64 = ORDERED_STEP_MS;
    const DRIFT_MS: u64 = ORDERED_DRIFT_MS;

    #[inline(always)]
    fn make(&mut self, id: u64) -> Option<Quote> {
        Some(quote(id))
    }

    #[inline(always)]
    fn key(record: &Quote) -> u64 {
        let (Quote::Ask(event) | Quote::Price(event)) = record;
        event.key
    }

    #[inline(always)]
    fn take(&mut self, record: &Quote) {
        let (Quote::Ask(event) | Quote::Price(event)) = record;
        self.waiting.push(event.at, *record);
    }

    fn advance(&mut self, watermark: u64) {
        let watermark = watermark.saturating_mul(1000);
        self.waiting.pass(watermark, |record| match record {
            Quote::Price(new) => {
                self.prices.insert(new.key, new.value);
            }
            Quote::Ask(ask) => {
                if let Some(&price) = self.prices.get(&ask.key) {
                    self.totals.add(Priced::of(&ask, price).checksum());
                }
            }
        });
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}
