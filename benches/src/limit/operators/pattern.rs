//! `pattern` by hand: events wait for the watermark, and each key has the matches that have begun.

use super::order::InOrder;
use super::{ORDERED_DRIFT_MS, ORDERED_STEP_MS};
use crate::events::Totals;
use crate::limit::jobs::Job;
use crate::operator_events::{PER_MS, Rise, Tick, WITHIN_MS, is_high, is_low, is_middle, tick};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

const WITHIN: u64 = WITHIN_MS * 1000;

/// How often keys that do not come again are looked for.
const SWEEP: u64 = 60_000_000;

/// A match that has begun.
struct Begun {
    low: Tick,
    middle: Option<Tick>,
}

/// Oldest first; those that have their middle come before those that have not.
type Key = VecDeque<Begun>;

fn clean(key: &mut Key, now: u64) {
    while key
        .front()
        .is_some_and(|begun| begun.low.at + WITHIN <= now)
    {
        key.pop_front();
    }
}

/// One shard of it.
#[derive(Default)]
pub struct Rises {
    waiting: InOrder<Tick>,
    by_key: FxHashMap<u64, Key>,
    swept: u64,
    totals: Totals,
}

impl Rises {
    #[inline(always)]
    fn event(by_key: &mut FxHashMap<u64, Key>, event: Tick) -> Option<Rise> {
        if is_low(&event) {
            let key = by_key.entry(event.key).or_default();
            clean(key, event.at);
            key.push_back(Begun {
                low: event,
                middle: None,
            });
        } else if is_middle(&event) {
            let key = by_key.get_mut(&event.key)?;
            let waiting = key.iter_mut().rev();
            for begun in waiting.take_while(|begun| begun.middle.is_none()) {
                begun.middle = Some(event);
            }
        } else if is_high(&event) {
            let key = by_key.get_mut(&event.key)?;
            clean(key, event.at);
            let first = key.front()?;
            let rise = Rise::of(&first.low, first.middle.as_ref()?, &event);
            // On behind it: all that began, began before.
            key.clear();
            return Some(rise);
        }
        None
    }
}

impl Job for Rises {
    type Record = Tick;
    const STEP_MS: u64 = ORDERED_STEP_MS;
    const DRIFT_MS: u64 = ORDERED_DRIFT_MS;

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
        // The others are passed by wherever a match is, so they need not wait.
        if is_low(event) || is_middle(event) || is_high(event) {
            self.waiting.push(event.at, *event);
        }
    }

    fn advance(&mut self, watermark: u64) {
        let watermark = watermark.saturating_mul(1000);
        self.waiting.pass(watermark, |event| {
            if let Some(rise) = Self::event(&mut self.by_key, event) {
                self.totals.add(rise.checksum());
            }
        });
        if watermark >= self.swept.saturating_add(SWEEP) {
            self.swept = watermark;
            self.by_key.retain(|_, key| {
                clean(key, watermark);
                !key.is_empty()
            });
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}
