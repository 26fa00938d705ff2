//! How long a state lives without being used, and how what has expired goes.
//!
//! Laws
//! 1. What has expired is never seen: each look compares its time with the one at which it expires, whether it has been
//!    cleaned away or not.
//! 2. It is cleaned away by a calendar, a bounded piece a step, once its time has come and in no order that could be told. Its timer is
//!    lazy: what is used again and again is put off without a word to the calendar; when the timer comes up it is put in anew.
//! 3. An id has one timer, which may outlive the entry that it was set for: whoever has the id then is served by it, since what
//!    is written later expires later, or is cleaned a little after it has expired.
//! 4. What was loaded from before there was a time to live lives it from the first time that is known: the clock's, or M. At the
//!    load itself none may be. It is written then, so that the next restore does not begin it anew.

use super::states::Who;
use crate::time::{EventTime, Span};
use crate::wheel::{Calendar, Popped};

/// It does not expire.
pub(crate) const NEVER: i64 = i64::MAX;

/// How long a state is kept without being written: its *time to live*.
///
/// Event time: it goes by the record in hand (or the watermark, where that is later): a value that was written by a record
/// at t is not seen by records at t + ttl or later, and is cleaned away when the watermark is there. Behind
/// `.in_event_time_order()` that is the same in every run.
///
/// Processing time: it goes by the clock, so results are of class EXEMPT.
///
/// ```
/// use pelton::Spans;
/// use pelton::process::{Ttl, value};
/// let visits = value::<u64>("visits").ttl(Ttl::event_time(30.minutes()));
/// let seen = value::<u64>("seen").ttl(Ttl::processing_time(1.hours()).refreshed_on_read());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    pub(crate) span: Span,
    pub(crate) by_clock: bool,
    pub(crate) on_read: bool,
}

impl Ttl {
    /// So long after the last write, by event time.
    pub fn event_time(span: Span) -> Self {
        Ttl {
            span,
            by_clock: false,
            on_read: false,
        }
    }

    /// So long after the last write, by the clock.
    pub fn processing_time(span: Span) -> Self {
        Ttl {
            by_clock: true,
            ..Ttl::event_time(span)
        }
    }

    /// Reads put it off as well. A read is then a change: it is written to the next checkpoint.
    pub fn refreshed_on_read(self) -> Self {
        Ttl {
            on_read: true,
            ..self
        }
    }
}

/// What a state with a time to live has besides.
#[derive(Debug)]
pub(crate) struct Expiry {
    span: i64,
    by_clock: bool,
    pub on_read: bool,
    calendar: Calendar,
    /// Ids that have a timer: law 3.
    armed: Vec<u64>,
    /// Ids whose life has yet to begin: law 4. One may have been used or have gone since.
    endless: Vec<u32>,
}

impl Expiry {
    pub fn of(ttl: Ttl) -> Self {
        let span = ttl.span.micros();
        Expiry {
            span,
            by_clock: ttl.by_clock,
            on_read: ttl.on_read,
            calendar: Calendar::new(),
            armed: vec![],
            endless: vec![],
        }
    }

    /// The time that it goes by.
    #[inline]
    pub fn now<K>(&self, who: &Who<'_, K>) -> i64 {
        match self.by_clock {
            true => who.clock,
            false => who.event,
        }
    }

    /// When what is used now expires. `until` is what was said before, if it lives.
    #[inline]
    pub fn until(&self, now: i64, until: Option<i64>) -> i64 {
        let next = now.saturating_add(self.span).min(NEVER - 1);
        match until {
            // Its life begins by being used: law 4.
            None | Some(NEVER) => next,
            Some(until) => next.max(until),
        }
    }

    /// Whether what is to expire at `until` expires later, or at all, for being used now.
    #[inline]
    pub fn puts_off(&self, now: i64, until: i64) -> bool {
        self.until(now, Some(until)) != until
    }

    /// Sees to it that `id` has a timer.
    #[inline]
    pub fn arm(&mut self, id: u32, until: i64) {
        let (word, bit) = (id as usize / 64, 1u64 << (id % 64));
        if self.armed.len() <= word {
            self.armed.resize(word + 1, 0);
        }
        if self.armed[word] & bit == 0 {
            self.armed[word] |= bit;
            self.calendar.insert(until, id);
        }
    }

    /// The next id that has expired, given until when each lives, if it is one's; or whether there are more than `budget`. `soon` is
    /// told of ids that will be asked for.
    pub fn next(
        &mut self,
        now: Now,
        budget: &mut u32,
        until: impl Fn(u32) -> Option<i64>,
        soon: impl Fn(u32),
    ) -> Popped<u32> {
        let now = self.pick(now);
        loop {
            let popped = self.calendar.pop(now, budget, &soon);
            let Popped::Due { value: id, .. } = popped else {
                return popped;
            };
            match until(id) {
                // Law 2.
                Some(until) if until > now => self.calendar.insert(until, id),
                expired => {
                    self.armed[id as usize / 64] &= !(1 << (id % 64));
                    // An id that is nobody's had its timer left by one that went: law 3.
                    if expired.is_some() {
                        return popped;
                    }
                }
            }
        }
    }

    /// The one of these that it goes by.
    pub fn pick(&self, now: Now) -> i64 {
        match self.by_clock {
            true => now.clock,
            false => now.event,
        }
    }

    /// Takes note of an entry that was loaded: law 4.
    pub fn loaded(&mut self, id: u32, until: i64) {
        match until {
            NEVER => self.endless.push(id),
            until => self.arm(id, until),
        }
    }

    /// The next id that was loaded without an end, and until when it lives unless it has been used since (law 4). None
    /// while the time is not known.
    pub fn begins(&mut self, now: Now, budget: &mut u32) -> Popped<u32> {
        let now = self.pick(now);
        if self.endless.is_empty() || now <= EventTime::MIN.micros() {
            return Popped::Nothing;
        }
        if *budget == 0 {
            return Popped::More;
        }
        *budget -= 1;
        let time = self.until(now, None);
        match self.endless.pop() {
            Some(value) => Popped::Due { time, value },
            None => Popped::Nothing,
        }
    }

    /// The clock's time before which nothing expires by it.
    pub fn next_by_clock(&self) -> Option<i64> {
        if !self.by_clock {
            return None;
        }
        match self.endless.is_empty() {
            true => self.calendar.next_at(),
            false => Some(i64::MIN),
        }
    }
}

/// M and the clock, microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub event: i64,
    pub clock: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Spans;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Laws 2 and 3: whatever is put off, goes by itself or comes anew under the same id, what has expired is cleaned away once it
        /// has, and nothing else is.
        #[test]
        fn what_has_expired_goes_and_nothing_else(
            ops in proptest::collection::vec((0u32..40, 0u8..10, 0i64..60), 0..400),
            piece in 1u32..20,
        ) {
            let mut expiry = Expiry::of(Ttl::event_time(100.micros()));
            let mut ends: BTreeMap<u32, i64> = BTreeMap::new();
            let mut now = 0;
            for (id, what, by) in ops {
                match what {
                    0..6 => {
                        let until = expiry.until(now + by, ends.get(&id).copied());
                        ends.insert(id, until);
                        expiry.arm(id, until);
                    }
                    6..8 => {
                        ends.remove(&id);
                    }
                    _ => {
                        now += by;
                        let at = Now { event: now, clock: i64::MIN };
                        loop {
                            let until = |id| ends.get(&id).copied();
                            match expiry.next(at, &mut piece.clone(), until, |_| {}) {
                                Popped::Due { value, .. } => {
                                    let end = ends.remove(&value);
                                    prop_assert!(end.is_some_and(|end| end <= now));
                                }
                                Popped::More => {}
                                Popped::Nothing => break,
                            }
                        }
                        // Law 3: the timer of one that went may be later, by as much as it was ahead.
                        prop_assert!(ends.values().all(|&end| end + 60 > now), "{ends:?} at {now}");
                    }
                }
            }
            let at = Now { event: now + 1_000, clock: i64::MIN };
            let until = |id| ends.get(&id).copied();
            let mut gone = 0;
            while let Popped::Due { .. } = expiry.next(at, &mut 10_000, until, |_| {}) {
                gone += 1;
            }
            prop_assert_eq!(gone, ends.len());
        }
    }
}
