//! The events of every workload.
//!
//! Each event is a pure function of its id, so every engine at every shard count must reach the same checksum, and
//! nobody needs a file of test data. The definitions are shared with the harnesses of other engines (`benches/peers`),
//! which include this file by path: hence it depends on nothing but `serde` and `std`.
//!
//! Event time here is in milliseconds, as in the harnesses these figures are compared with; an engine that counts in
//! microseconds takes [`micros`].

use serde::{Deserialize, Serialize};
use std::hint::black_box;

/// How many keys the keyed workloads have.
pub const KEYS: u64 = 100_000;

/// Events in a millisecond of event time: a million in an event-second.
pub const EVENTS_PER_MS: u64 = 1000;

/// How far apart the sources of the throughput workloads set their watermarks, in event time.
pub const WATERMARK_STEP_MS: u64 = 100;

/// Length of the windows of `keyed-window`, `sliding-window` and `ysb`.
pub const WINDOW_MS: u64 = 10_000;

/// Slide of the windows of `sliding-window`.
pub const SLIDE_MS: u64 = 1000;

/// Length of the windows of the latency workload `keyed-window`.
pub const LATENCY_WINDOW_MS: u64 = 1000;

/// The golden ratio in 64 bits: the multiplier of Fibonacci hashing.
pub const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64: spreads an id over 64 bits.
#[inline(always)]
pub fn mix(id: u64) -> u64 {
    let z = id.wrapping_add(1).wrapping_mul(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Event time in microseconds, from the milliseconds that the events carry.
#[inline(always)]
pub fn micros(ts_ms: u64) -> i64 {
    (ts_ms * 1000) as i64
}

/// The record of every workload but `ysb`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ev {
    /// Event time in milliseconds.
    pub ts: u64,
    /// One of [`KEYS`] keys.
    pub key: u64,
    /// A whole number below 1024, so that sums are exact in any order.
    pub value: f64,
}

/// The event of `keyed-window` and `sliding-window`: keys uniform, event time rising with the id.
#[inline(always)]
pub fn ev(id: u64, per_ms: u64) -> Ev {
    ev_among(id, per_ms, KEYS)
}

/// The same with so many keys.
#[inline(always)]
pub fn ev_among(id: u64, per_ms: u64, keys: u64) -> Ev {
    let r = mix(id);
    // Without black_box a fused loop never builds the record: unused fields would be optimised away, and a limit
    // would beat its own generator. Field by field: a record hidden as a whole is stored in pieces of 8 bytes and, where it
    // is moved on, read back in pieces of 16, which no store can be forwarded to. The processor then waits for the store
    // buffer to drain, for each record, in engines that move records and not in loops that only read fields.
    Ev {
        ts: black_box(id / per_ms),
        key: black_box(key_among(r, keys)),
        value: black_box(small_value(r)),
    }
}

/// One of [`KEYS`] keys, from the upper half of a mixed id.
#[inline(always)]
pub fn uniform_key(r: u64) -> u64 {
    key_among(r, KEYS)
}

/// One of so many keys, at most 2^32, from the upper half of a mixed id.
#[inline(always)]
pub fn key_among(r: u64, keys: u64) -> u64 {
    ((r >> 32) * keys) >> 32
}

// ---- few of many keys at a time

/// Events after which [`Moving`] lets go of one key and takes the next.
pub const MOVING_STEP: u64 = 400;

/// The events of `checkpoint keyed-window` with a share of dirty keys: all keys once, and from then on a few of them, which move.
///
/// The first `keys` events have one key each, in an order that is not that of the keys. The keys stand on a ring of 2^32 places, evenly,
/// and a window of `share` of it moves on by about one key every [`MOVING_STEP`] events; each event falls on a place in the window,
/// uniformly. What the window holds at a time are neighbours as keys, but were inserted far apart, and so lie in a table. Of a
/// million keys with a share of one in a hundred, 300,000 events (10 ms at 30 M/s) touch 10,000 keys and 750 more.
#[derive(Clone, Copy, Debug)]
pub struct Moving {
    keys: u64,
    /// Length of the window, in places.
    window: u64,
    /// Places from one key to the next.
    step: u32,
}

impl Moving {
    /// A window of this share, up to 1, of so many keys, fewer than 2^32 and no multiple of 7919.
    pub fn new(keys: u64, share: f64) -> Self {
        Moving {
            keys,
            window: (share * (1u64 << 32) as f64) as u64,
            step: ((1u64 << 32) / keys) as u32,
        }
    }

    /// The event of this id.
    #[inline(always)]
    pub fn ev(&self, id: u64, per_ms: u64) -> Ev {
        let r = mix(id);
        let key = if id < self.keys {
            id * 7919 % self.keys
        } else {
            let low = ((id / MOVING_STEP) as u32).wrapping_mul(self.step);
            let place = low.wrapping_add((((r >> 32) * self.window) >> 32) as u32);
            (u64::from(place) * self.keys) >> 32
        };
        Ev {
            ts: black_box(id / per_ms),
            key: black_box(key),
            value: black_box(small_value(r)),
        }
    }
}

/// A whole number below 1024, from the lowest bits of a mixed id.
#[inline(always)]
pub fn small_value(r: u64) -> f64 {
    (r & 0x3ff) as f64
}

/// What a window emits for one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WindowResult {
    /// Exclusive end of the window in milliseconds.
    pub window_end: u64,
    /// The key.
    pub key: u64,
    /// Records counted.
    pub count: u64,
    /// Sum of the values.
    pub sum: f64,
    /// Largest value.
    pub max: f64,
}

impl WindowResult {
    /// The result's share of the checksum: shares are added (wrapping), so their order does not matter.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        (self.key ^ (self.window_end << 20))
            .wrapping_mul(GOLDEN)
            .wrapping_add(self.count.wrapping_mul(0x1234_5677))
            .wrapping_add((self.sum as u64).wrapping_mul(31))
            .wrapping_add((self.max as u64).wrapping_mul(7919))
    }
}

// ---- session-window

/// A session ends when its key was silent for longer than this.
pub const SESSION_GAP_MS: u64 = 200;

/// Every key has one burst in this time.
pub const SESSION_CYCLE_MS: u64 = 4000;

/// How many keys may occur at one instant: a burst lasts `SESSION_ACTIVE / KEYS` of the cycle.
pub const SESSION_ACTIVE: u64 = 40_000;

/// The event of `session-window`.
///
/// The keys stand on a ring of [`KEYS`] places and a window of [`SESSION_ACTIVE`] places moves round it once in
/// [`SESSION_CYCLE_MS`]. An event falls on a place in that window, with a triangular density (the mean of two uniform
/// draws): so a key wakes slowly, is busy, fades out over 1.6 s and is then silent for 2.4 s. With 40 events a burst
/// its busy middle is one session that is extended dozens of times, while the sparse ends now and then fall apart
/// into sessions of their own: about 31,000 sessions open and close in each event-second, and all 100,000
/// keys recur. A multiplicative permutation carries places to keys, so that keys active together are not neighbours.
#[inline(always)]
pub fn session_ev(id: u64, per_ms: u64) -> Ev {
    let r = mix(id);
    let ts = id / per_ms;
    let low = ts * (KEYS / SESSION_CYCLE_MS);
    let draw = (r >> 48) + ((r >> 32) & 0xffff);
    let place = low + ((draw * SESSION_ACTIVE) >> 17);
    Ev {
        ts: black_box(ts),
        key: black_box((place % KEYS) * 7919 % KEYS),
        value: black_box(small_value(r)),
    }
}

/// What a session emits when it closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionResult {
    /// Event time of the session's first record, in milliseconds.
    pub start: u64,
    /// Event time of its last record plus the gap, in milliseconds.
    pub end: u64,
    /// The key.
    pub key: u64,
    /// Records counted.
    pub count: u64,
    /// Sum of the values.
    pub sum: f64,
    /// Largest value.
    pub max: f64,
}

impl SessionResult {
    /// The result's share of the checksum, as [`WindowResult::checksum`], with the start in it.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        let window = WindowResult {
            window_end: self.end,
            key: self.key,
            count: self.count,
            sum: self.sum,
            max: self.max,
        };
        window
            .checksum()
            .wrapping_add(self.start.wrapping_mul(0x51ED_270B))
    }
}

// ---- ysb

/// The record of the Yahoo streaming benchmark, its strings reduced to integers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdEvent {
    /// Who saw the advertisement.
    pub user: u64,
    /// On which page.
    pub page: u64,
    /// Which advertisement: see [`ad_campaigns`].
    pub ad: u64,
    /// Event time in milliseconds.
    pub ts: u64,
    /// 0 is a view, which the workload counts; 1 and 2 are others.
    pub event_type: u32,
    /// The kind of advertisement.
    pub ad_type: u32,
}

/// How many advertisements there are.
pub const ADS: u64 = 1000;

/// The event of `ysb`.
#[inline(always)]
pub fn ad_event(id: u64, per_ms: u64) -> AdEvent {
    let r = mix(id);
    let x = mix(r);
    AdEvent {
        user: black_box(x >> 40),
        page: black_box(x & 0xffff),
        ad: black_box((((r >> 32) * ADS) >> 32) * 7919 + 13),
        ts: black_box(id / per_ms),
        event_type: black_box((((r & 0xffff_ffff) * 3) >> 32) as u32),
        ad_type: black_box((x >> 20) as u32 & 3),
    }
}

/// The table of `ysb`: each advertisement with its campaign, ten to a campaign.
pub fn ad_campaigns() -> impl Iterator<Item = (u64, u64)> {
    (0..ADS).map(|ad| (ad * 7919 + 13, 5000 + ad / 10))
}

/// A view that passed the filter, with its campaign looked up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignView {
    /// The campaign.
    pub campaign: u64,
    /// Event time in milliseconds.
    pub ts: u64,
}

// ---- map-filter

/// A record of `map-filter` after its first map.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Converted {
    /// Event time in milliseconds.
    pub ts: u64,
    /// The key.
    pub key: u64,
    /// The value in another currency.
    pub amount: f64,
}

/// A record of `map-filter` as it reaches the sink.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Priced {
    /// Event time in milliseconds.
    pub ts: u64,
    /// A hundred keys share a bucket.
    pub bucket: u64,
    /// Whole cents.
    pub cents: u64,
}

/// The first map of `map-filter`: a currency conversion.
#[inline(always)]
pub fn convert(event: Ev) -> Converted {
    Converted {
        ts: event.ts,
        key: event.key,
        amount: event.value * 0.908,
    }
}

/// The filter of `map-filter`: about 86 of a hundred records pass, in no pattern that a branch predictor could learn.
#[inline(always)]
pub fn is_dear(record: &Converted) -> bool {
    record.amount >= 128.0
}

/// The second map of `map-filter`.
#[inline(always)]
pub fn price(record: Converted) -> Priced {
    Priced {
        ts: record.ts,
        bucket: record.key / 100,
        cents: (record.amount * 100.0) as u64,
    }
}

impl Priced {
    /// The record's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        (self.bucket ^ (self.ts << 20))
            .wrapping_mul(GOLDEN)
            .wrapping_add(self.cents.wrapping_mul(31))
    }
}

// ---- running-total and process

/// The event of `running-total` and `process`: that of `keyed-window`, its value fixed by its key. So a key's running sums are the
/// same ones in whatever order its events come.
#[inline(always)]
pub fn deposit_ev(id: u64, per_ms: u64) -> Ev {
    let key = uniform_key(mix(id));
    Ev {
        ts: black_box(id / per_ms),
        key: black_box(key),
        value: black_box(small_value(key)),
    }
}

/// What is told after each record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunningTotal {
    /// The key.
    pub key: u64,
    /// Its records so far.
    pub count: u64,
    /// The sum of their values.
    pub sum: f64,
}

impl RunningTotal {
    /// The result's share of the checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u64 {
        self.key
            .wrapping_mul(GOLDEN)
            .wrapping_add(self.count.wrapping_mul(0x1234_5677))
            .wrapping_add((self.sum as u64).wrapping_mul(31))
    }
}

// ---- the total of a run

/// How many results a run had and what their checksums add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Results counted.
    pub results: u64,
    /// Wrapping sum of their checksums.
    pub checksum: u64,
}

impl Totals {
    /// Counts one result.
    #[inline(always)]
    pub fn add(&mut self, checksum: u64) {
        self.results += 1;
        self.checksum = self.checksum.wrapping_add(checksum);
    }

    /// Takes back a result that was counted: a retraction. Only the sum over all shards need not be below zero.
    #[inline(always)]
    pub fn take_back(&mut self, checksum: u64) {
        self.results = self.results.wrapping_sub(1);
        self.checksum = self.checksum.wrapping_sub(checksum);
    }

    /// The totals of two shards as one.
    pub fn merged(self, other: Totals) -> Totals {
        Totals {
            results: self.results.wrapping_add(other.results),
            checksum: self.checksum.wrapping_add(other.checksum),
        }
    }
}
