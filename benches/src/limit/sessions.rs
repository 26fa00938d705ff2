//! Sessions by hand: one slot a key in an open-addressing table, and a calendar of buckets for expiry.
//!
//! Laws:
//! - two records of a key belong to one session if they are at most `gap` apart, directly or through others; so a
//!   session that reaches to `last` ends at `last + gap`, and may fire once the watermark is beyond that;
//! - a key's slot holds its newest session; older ones that may not fire yet (a late part from another shard may still
//!   bridge them) wait in `older`, chained from the slot, and no two sessions of a key touch each other;
//! - each open session stands in the calendar exactly once, in a bucket no later than that of its end.

use crate::events::{Ev, GOLDEN, SessionResult};

/// Width of a bucket of the calendar in milliseconds.
const BUCKET_MS: u64 = 64;

/// Marks a number of the calendar as one of `older`, not of a slot.
const OLDER: u32 = 1 << 31;

/// The end of a chain.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Session {
    key: u64,
    start: u64,
    last: u64,
    sum: f64,
    max: f64,
    count: u32,
    /// The next older session of this key, in `older`.
    next: u32,
}

/// `key == u64::MAX`: the slot is free; `count == 0`: the session has fired, or became part of another.
const FREE: Session = Session {
    key: u64::MAX,
    start: 0,
    last: 0,
    sum: 0.0,
    max: f64::NEG_INFINITY,
    count: 0,
    next: NONE,
};

impl Session {
    #[inline(always)]
    fn of(event: &Ev, next: u32) -> Self {
        Session {
            key: event.key,
            start: event.ts,
            last: event.ts,
            sum: event.value,
            max: event.value,
            count: 1,
            next,
        }
    }

    fn touches(&self, other: &Session, gap: u64) -> bool {
        self.start <= other.last + gap && other.start <= self.last + gap
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
            count: self.count.into(),
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
    /// Places of `older` that may be used again: their calendar entries are gone.
    vacant: Vec<u32>,
    /// A ring of buckets: numbers of slots, or with [`OLDER`] of older sessions, by the time at which they may end.
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
            vacant: Vec::new(),
            calendar: vec![Vec::new(); buckets.next_power_of_two() as usize],
            next_bucket: 0,
            scratch: Vec::new(),
        }
    }

    /// Takes in one record.
    #[inline(always)]
    pub fn update(&mut self, event: &Ev) {
        let at = self.find(event.key);
        let slot = &mut self.slots[at];
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
        } else {
            self.update_other(at, event);
        }
    }

    /// The slot of this key, or the free one where it belongs.
    #[inline(always)]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut i = (key.wrapping_mul(GOLDEN) >> self.shift) as usize & mask;
        while self.slots[i].key != key && self.slots[i].key != u64::MAX {
            i = (i + 1) & mask;
        }
        i
    }

    #[inline(never)]
    fn update_other(&mut self, at: usize, event: &Ev) {
        let slot = self.slots[at];
        if slot.count == 0 {
            self.slots[at] = Session::of(event, slot.next);
            self.note(at as u32, event.ts + self.gap);
            if slot.key == u64::MAX {
                self.keys += 1;
                if self.keys * 2 > self.slots.len() {
                    self.grow();
                }
            }
        } else if event.ts > slot.last {
            // The newest session is over, but the watermark has not passed its end. The slot's entry stays right: it
            // is early for the new session.
            let number = self.set_aside(slot);
            self.slots[at] = Session::of(event, number);
        } else {
            self.bridge(at, event);
        }
    }

    /// The record is older than the newest session of its key: it may join that, older ones, or stand alone.
    fn bridge(&mut self, at: usize, event: &Ev) {
        // No two sessions touch each other, so those that the record does not touch stay apart: one pass is enough.
        let record = Session::of(event, NONE);
        let mut whole = record;
        let (mut chain, mut number) = (NONE, self.slots[at].next);
        while number != NONE {
            let part = &mut self.older[number as usize];
            let next = part.next;
            if part.touches(&record, self.gap) {
                whole.merge(part);
                part.count = 0;
            } else {
                part.next = chain;
                chain = number;
            }
            number = next;
        }
        let newest = self.slots[at];
        if newest.touches(&record, self.gap) {
            whole.merge(&newest);
            whole.next = chain;
            self.slots[at] = whole;
        } else {
            whole.next = chain;
            self.slots[at].next = self.set_aside(whole);
        }
    }

    /// Puts a session among the older ones, with an entry in the calendar.
    fn set_aside(&mut self, session: Session) -> u32 {
        let number = match self.vacant.pop() {
            Some(number) => {
                self.older[number as usize] = session;
                number
            }
            None => {
                self.older.push(session);
                self.older.len() as u32 - 1
            }
        };
        self.note(number | OLDER, session.last + self.gap);
        number
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.slots.len() * 2;
        self.shift -= 1;
        let old = std::mem::replace(&mut self.slots, vec![FREE; len]);
        for bucket in &mut self.calendar {
            bucket.retain(|number| number & OLDER != 0);
        }
        for session in old.into_iter().filter(|s| s.key != u64::MAX) {
            let at = self.find(session.key);
            self.slots[at] = session;
            if session.count != 0 {
                self.note(at as u32, session.last + self.gap);
            }
        }
    }

    /// Enters a number into the bucket of `end`, or into the next one to be looked through if that has passed.
    #[inline]
    fn note(&mut self, number: u32, end: u64) {
        let ring = self.calendar.len() as u64;
        let bucket = (end / BUCKET_MS).max(self.next_bucket);
        assert!(
            bucket < self.next_bucket + ring,
            "a record too far ahead of the watermark"
        );
        self.calendar[(bucket % ring) as usize].push(number);
    }

    /// Fires every session whose end is before `watermark`.
    pub fn advance(&mut self, watermark: u64, mut emit: impl FnMut(SessionResult)) {
        let ring = self.calendar.len() as u64;
        // Buckets that lie wholly before the watermark; at the end of the input, one turn of the ring finds all.
        let until = (watermark / BUCKET_MS).min(self.next_bucket + ring);
        while self.next_bucket < until {
            let at = (self.next_bucket % ring) as usize;
            self.next_bucket += 1;
            let spare = std::mem::take(&mut self.scratch);
            let mut due = std::mem::replace(&mut self.calendar[at], spare);
            for number in due.drain(..) {
                if number & OLDER != 0 {
                    self.fire_older(number & !OLDER, &mut emit);
                    continue;
                }
                let slot = &mut self.slots[number as usize];
                let end = slot.last + self.gap;
                if end < watermark {
                    emit(slot.result(self.gap));
                    slot.count = 0;
                } else {
                    self.note(number, end);
                }
            }
            self.scratch = due;
        }
    }

    /// The bucket of an older session is due: older sessions do not grow, so it fires unless it was merged away.
    fn fire_older(&mut self, number: u32, emit: &mut impl FnMut(SessionResult)) {
        let session = self.older[number as usize];
        if session.count != 0 {
            emit(session.result(self.gap));
            let slot = self.find(session.key);
            self.unlink(slot, number, session.next);
        }
        self.vacant.push(number);
    }

    fn unlink(&mut self, slot: usize, number: u32, next: u32) {
        if self.slots[slot].next == number {
            self.slots[slot].next = next;
            return;
        }
        let mut before = self.slots[slot].next;
        while before != NONE {
            let session = &mut self.older[before as usize];
            if session.next == number {
                session.next = next;
                return;
            }
            before = session.next;
        }
    }
}
