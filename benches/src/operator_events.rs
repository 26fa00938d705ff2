//! The events of the operator workloads: joins, deduplication, top-N and patterns.
//!
//! As in [`crate::events`], each event is a pure function of its id. Event time is in microseconds and no two events of a workload share
//! one, so that what depends on the order of events does not depend on how ids are spread over shards.

use crate::events::{GOLDEN, key_among, mix, small_value, uniform_key};
use std::hint::black_box;

/// Events in a millisecond of event time where nothing else is said.
pub const PER_MS: u64 = 1000;

/// An event of every workload of this file.
#[cfg_attr(feature = "engine", pelton::state(version = 1))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tick {
    /// Event time in microseconds.
    pub at: u64,
    /// The key.
    pub key: u64,
    /// A whole number below 1024.
    pub value: f64,
}

/// Event time of an id, in microseconds: `per_ms` of them, a divisor of 1000, to a millisecond.
#[inline(always)]
pub fn time_of(id: u64, per_ms: u64) -> u64 {
    id * (1000 / per_ms)
}

/// Keys uniform, event time rising with the id. Hidden field by field, as `events::ev` says.
#[inline(always)]
pub fn tick(id: u64, per_ms: u64) -> Tick {
    let r = mix(id);
    Tick {
        at: black_box(time_of(id, per_ms)),
        key: black_box(uniform_key(r)),
        value: black_box(small_value(r)),
    }
}

// ---- interval-join

/// Events of `interval-join` in a millisecond, both streams together: a key's record finds two others within [`JOIN_SPAN_MS`].
pub const JOIN_PER_MS: u64 = 20;

/// How far apart in event time two records may lie, either side, and still meet.
pub const JOIN_SPAN_MS: u64 = 10_000;

/// Whether an id of the whole is one of the left stream; the right one has the others.
#[inline(always)]
pub fn is_left(id: u64) -> bool {
    id.is_multiple_of(2)
}

/// What a pair of an interval join or a window join comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// The key.
    pub key: u64,
    /// Event time of the left record.
    pub left_at: u64,
    /// Event time of the right record.
    pub right_at: u64,
    /// The product of their values.
    pub product: f64,
}

impl Pair {
    /// Of two records.
    #[inline(always)]
    pub fn of(left: &Tick, right: &Tick) -> Self {
        Pair {
            key: left.key,
            left_at: left.at,
            right_at: right.at,
            product: left.value * right.value,
        }
    }

    /// The result's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        (self.key ^ (self.left_at << 20))
            .wrapping_mul(GOLDEN)
            .wrapping_add(self.right_at.wrapping_mul(0x1234_5677))
            .wrapping_add((self.product as u64).wrapping_mul(31))
    }
}

// ---- as-of-join and broadcast-join

/// An event of `as-of-join` or `broadcast-join`: both streams come from one source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quote {
    /// Asks for the price or rate of its key.
    Ask(Tick),
    /// Says what it is from now on.
    Price(Tick),
}

/// The event of `as-of-join`: each tenth is a new price.
#[inline(always)]
pub fn quote(id: u64) -> Quote {
    match id % 10 {
        0 => Quote::Price(tick(id, PER_MS)),
        _ => Quote::Ask(tick(id, PER_MS)),
    }
}

/// Rows of the table of `broadcast-join`.
pub const ROWS: u64 = 1000;

/// The event of `broadcast-join`: each hundredth is a row of the table, told again. A row's value follows from its key, so it does not
/// matter which of its updates has come, or that none has: then [`rate_of`] is what it would be.
#[inline(always)]
pub fn rated(id: u64) -> Quote {
    let event = tick(id, PER_MS);
    if !id.is_multiple_of(100) {
        return Quote::Ask(event);
    }
    let key = row_of(event.key);
    Quote::Price(Tick {
        key,
        value: rate_of(key),
        ..event
    })
}

/// The row that a key asks for.
#[inline(always)]
pub fn row_of(key: u64) -> u64 {
    key % ROWS
}

/// The value of a row.
#[inline(always)]
pub fn rate_of(row: u64) -> f64 {
    small_value(mix(row))
}

/// What an event comes to with the price or rate that it met.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Priced {
    /// Event time in microseconds.
    pub at: u64,
    /// The key.
    pub key: u64,
    /// Value by price.
    pub amount: f64,
}

impl Priced {
    /// Of an event and a price.
    #[inline(always)]
    pub fn of(ask: &Tick, price: f64) -> Self {
        Priced {
            at: ask.at,
            key: ask.key,
            amount: ask.value * price,
        }
    }

    /// The result's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        (self.key ^ (self.at << 20))
            .wrapping_mul(GOLDEN)
            .wrapping_add((self.amount as u64).wrapping_mul(31))
    }
}

// ---- deduplicate

/// Events of `deduplicate` in a millisecond.
pub const SENT_PER_MS: u64 = 40;

/// How long a payment's id is remembered.
pub const HORIZON_MS: u64 = 10_000;

/// How many payments may come at one time.
const AT_A_TIME: u64 = 20_000;

/// The event of `deduplicate`: a payment and its repetitions, two on average, all within a second; then it never comes again.
/// Some 200,000 ids are remembered at a time.
#[inline(always)]
pub fn sent(id: u64) -> Tick {
    let r = mix(id);
    let payment = id / 2 + key_among(r, AT_A_TIME);
    Tick {
        at: black_box(time_of(id, SENT_PER_MS)),
        key: black_box(payment),
        value: black_box(small_value(payment)),
    }
}

/// A payment's share of the checksum: its repetitions are equal.
#[inline(always)]
pub fn sent_checksum(event: &Tick) -> u64 {
    event
        .key
        .wrapping_mul(GOLDEN)
        .wrapping_add((event.value as u64).wrapping_mul(31))
}

// ---- top-10

/// How many of each key stand.
pub const BEST: usize = 10;

/// What decides: no two scores of a key are equal, so which stand depends on no order.
#[inline(always)]
pub fn score(event: &Tick) -> u64 {
    mix(event.at)
}

/// A record's share of the checksum, added when it gets in and taken back when it is driven out.
#[inline(always)]
pub fn stands_checksum(event: &Tick) -> u64 {
    (event.key ^ (event.at << 20))
        .wrapping_mul(GOLDEN)
        .wrapping_add((event.value as u64).wrapping_mul(31))
}

// ---- pattern

/// First and last event of a match lie less than this apart.
pub const WITHIN_MS: u64 = 2000;

/// What begins a match: one event of eight.
#[inline(always)]
pub fn is_low(event: &Tick) -> bool {
    event.value < 128.0
}

/// What follows, others passed by: one event of eight.
#[inline(always)]
pub fn is_middle(event: &Tick) -> bool {
    (448.0..576.0).contains(&event.value)
}

/// What ends it, others passed by: one event of eight.
#[inline(always)]
pub fn is_high(event: &Tick) -> bool {
    event.value >= 896.0
}

/// A match: low, middle, high. What it has taken begins no other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rise {
    /// The key.
    pub key: u64,
    /// Event times of the three.
    pub at: [u64; 3],
    /// The sum of their values.
    pub sum: f64,
}

impl Rise {
    /// Of three events.
    #[inline(always)]
    pub fn of(low: &Tick, middle: &Tick, high: &Tick) -> Self {
        Rise {
            key: low.key,
            at: [low.at, middle.at, high.at],
            sum: low.value + middle.value + high.value,
        }
    }

    /// The result's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        (self.key ^ (self.at[0] << 20))
            .wrapping_mul(GOLDEN)
            .wrapping_add(self.at[1].wrapping_mul(0x1234_5677))
            .wrapping_add(self.at[2].wrapping_mul(7919))
            .wrapping_add((self.sum as u64).wrapping_mul(31))
    }
}
