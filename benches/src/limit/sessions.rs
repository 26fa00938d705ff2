//! Sessions by hand: one slot a key in an open-addressing table, and a calendar of buckets for expiry.
//!
//! Laws:
//! - two records of a key belong to one session if they are at most `gap` apart, directly or through others; so a
//!   session that reaches to `last` ends at `last + gap`, and may fire once the watermark is beyond that;
//! - an open slot stands in the calendar exactly once, in a bucket no later than its end;
//! - a key's slot holds its newest session; older ones that may not fire yet (a late part of another shard may still
//!   bridge them) wait in `older`, which is nearly always empty.

use crate::events::{Ev, GOLDEN, SessionResult};

/// Width of a bucket of the calendar in milliseconds.
const BUCKET_MS: u64 = 64;

#[derive(Clone, Copy)]
struct Session {
    key: u64,
    start: u64,
    last: u64,
    count: u64,
    sum: f64,
    max: f64,
}

/// `key == u64::MAX`: the slot is free; `count == 0`: the key has no open session.
const FREE: Session = Session {
    key: u64::MAX,
    start: 0,
    last: 0,
    count: 0,
    sum: 0.0,
    max: f64::NEG_INFINITY,
};

impl Session {
    fn of(event: &Ev) -> Self {
        Session {
            key: event.key,
            start: event.ts,
            last: event.ts,
            count: 1,
            sum: event.value,
            max: event.value,
        }
    }

    fn merge(&mut self, other: &Session) {
        self.start = self.start.min(other.start);
        self.last = self.last.max(other.last);
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    fn result(&self, gap: u64) -> SessionResult {
        SessionResult {
            start: self.start,
            end: self.last + gap,
            key: self.key,
            count: self.count,
            sum: self.sum,
            max: self.max,
        }
    }
}

/// Count, sum and maximum of each session of each key.
pub struct Sessions {
    gap: u64,
    /// At most half full; a key keeps its slot for ever, since keys recur.
    slots: Vec<Session>,
    /// 64 minus the binary logarithm of the slot count.
    shift: u32,
    keys: usize,
    older: Vec<Session>,
    /// A ring of buckets: slot numbers by the time at which their session may have ended.
    calendar: Vec<Vec<u32>>,
    /// The bucket (time / [`BUCKET_MS`]) to be looked through next.
    next_bucket: u64,
    scratch: Vec<u32>,
}

impl Sessions {
    /// Sessions that end after `gap` milliseconds of silence, over records that are at most `disorder` milliseconds
    /// ahead of the watermark.
    pub fn new(gap: u64, disorder: u64) -> Self {
        let buckets = (gap + disorder) / BUCKET_MS + 3;
        Sessions {
            gap,
            slots: vec![FREE; 1 << 10],
            shift: 54,
            keys: 0,
            older: Vec::new(),
            calendar: vec![Vec::new(); buckets.next_power_of_two() as usize],
            next_bucket: 0,
            scratch: Vec::new(),
        }
    }

    /// Takes in one record.
    #[inline(always)]
    pub fn update(&mut self, event: &Ev) {
        let mask = self.slots.len() - 1;
        let mut i = (event.key.wrapping_mul(GOLDEN) >> self.shift) as usize;
        loop {
            let slot = &mut self.slots[i & mask];
            if slot.key == event.key {
                // Nearly every record: inside its key's newest session, or extending it.
                if slot.count != 0 && event.ts >= slot.start && event.ts <= slot.last + self.gap {
                    slot.last = slot.last.max(event.ts);
                    slot.count += 1;
                    slot.sum += event.value;
                    slot.max = if event.value > slot.max {
                        event.value
                    } else {
                        slot.max
                    };
                    return;
                }
                return self.open(i & mask, event);
            }
            if slot.key == u64::MAX {
                return self.insert(i & mask, event);
            }
            i += 1;
        }
    }

    /// The record does not simply extend the newest session of its key.
    #[inline(never)]
    fn open(&mut self, at: usize, event: &Ev) {
        let slot = self.slots[at];
        if slot.count == 0 {
            self.slots[at] = Session::of(event);
            self.note(at, event.ts + self.gap);
            return;
        }
        if event.ts > slot.last + self.gap {
            // The newest session is over, but the watermark has not passed its end.
            self.older.push(slot);
            self.slots[at] = Session::of(event);
            return;
        }
        self.bridge(at, event);
    }

    /// The record is older than the newest session of its key: it may join it, older ones, or stand alone.
    #[cold]
    fn bridge(&mut self, at: usize, event: &Ev) {
        let slot = self.slots[at];
        let mut whole = Session::of(event);
        let mut parts = vec![slot];
        let key = event.key;
        self.older.retain(|s| {
            if s.key == key {
                parts.push(*s);
            }
            s.key != key
        });
        // No two parts touch each other, so those that the record does not touch stay apart: one pass is enough.
        parts.retain(|part| {
            let touches =
                part.start <= whole.last + self.gap && whole.start <= part.last + self.gap;
            if touches {
                whole.merge(part);
            }
            !touches
        });
        parts.push(whole);
        let newest = parts.iter().enumerate().max_by_key(|(_, s)| s.last);
        let newest = newest.map_or(0, |(n, _)| n);
        // The slot stands in the calendar already, in the bucket of an end that is no later.
        self.slots[at] = parts.swap_remove(newest);
        self.older.extend(parts);
    }

    #[cold]
    #[inline(never)]
    fn insert(&mut self, at: usize, event: &Ev) {
        self.slots[at] = Session::of(event);
        self.note(at, event.ts + self.gap);
        self.keys += 1;
        if self.keys * 2 > self.slots.len() {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let bits = 64 - self.shift + 1;
        self.shift -= 1;
        let old = std::mem::replace(&mut self.slots, vec![FREE; 1 << bits]);
        self.calendar.iter_mut().for_each(Vec::clear);
        let mask = self.slots.len() - 1;
        for session in old.into_iter().filter(|s| s.key != u64::MAX) {
            let mut i = (session.key.wrapping_mul(GOLDEN) >> self.shift) as usize;
            while self.slots[i & mask].key != u64::MAX {
                i += 1;
            }
            self.slots[i & mask] = session;
            if session.count != 0 {
                self.note(i & mask, session.last + self.gap);
            }
        }
    }

    /// Enters a slot into the bucket of `end`, or into the next one to be looked through if that has passed.
    #[inline]
    fn note(&mut self, slot: usize, end: u64) {
        let ring = self.calendar.len() as u64;
        let bucket = (end / BUCKET_MS).max(self.next_bucket);
        assert!(
            bucket < self.next_bucket + ring,
            "a record too far ahead of the watermark"
        );
        self.calendar[(bucket % ring) as usize].push(slot as u32);
    }

    /// Fires every session whose end is before `watermark`.
    pub fn advance(&mut self, watermark: u64, mut emit: impl FnMut(SessionResult)) {
        let (gap, ring) = (self.gap, self.calendar.len() as u64);
        if !self.older.is_empty() {
            self.older.retain(|s| {
                if s.last + gap < watermark {
                    emit(s.result(gap));
                }
                s.last + gap >= watermark
            });
        }
        // Buckets that lie wholly before the watermark; at the end of the input, one turn of the ring finds all.
        let until = (watermark / BUCKET_MS).min(self.next_bucket + ring);
        while self.next_bucket < until {
            let at = (self.next_bucket % ring) as usize;
            self.next_bucket += 1;
            let mut due =
                std::mem::replace(&mut self.calendar[at], std::mem::take(&mut self.scratch));
            for number in due.drain(..) {
                let slot = &mut self.slots[number as usize];
                let end = slot.last + gap;
                if end < watermark {
                    emit(slot.result(gap));
                    slot.count = 0;
                } else {
                    self.note(number as usize, end);
                }
            }
            self.scratch = due;
        }
    }
}
