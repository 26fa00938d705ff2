//! When each event is due.

use std::time::{Duration, Instant};

const SECOND_NS: u64 = 1_000_000_000;

/// The clock of a run: nanoseconds since an origin that all its threads share.
#[derive(Clone, Copy, Debug)]
pub struct BenchClock {
    origin: Instant,
}

impl BenchClock {
    /// A clock that shows zero now and for `delay` from now, so that all shards stand ready when the schedule begins.
    pub fn starting_in(delay: Duration) -> Self {
        BenchClock {
            origin: Instant::now() + delay,
        }
    }

    /// Nanoseconds since the origin.
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        Instant::now()
            .saturating_duration_since(self.origin)
            .as_nanos() as u64
    }
}

/// Evenly spaced events.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    rate: u64,
    events: u64,
}

impl Schedule {
    /// `rate` events a second for `seconds`. Both together stay below 1.8e10 events, so that no product overflows.
    pub fn new(rate: u64, seconds: u64) -> Self {
        let events = rate * seconds;
        assert!(
            rate > 0 && events < u64::MAX / SECOND_NS,
            "a schedule out of range"
        );
        Schedule { rate, events }
    }

    /// How many events there are.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// When the event of this id is due.
    #[inline(always)]
    pub fn due_ns(&self, id: u64) -> u64 {
        id * SECOND_NS / self.rate
    }

    /// The first event that is due at `time_ns` or later.
    pub fn first_at(&self, time_ns: u64) -> u64 {
        let exact = u128::from(time_ns) * u128::from(self.rate);
        let id = exact.div_ceil(u128::from(SECOND_NS)) as u64;
        // due_ns rounds down, so the event before may fall on the same nanosecond.
        if id > 0 && self.due_ns(id - 1) >= time_ns {
            id - 1
        } else {
            id
        }
    }
}

/// An event that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// The event's id.
    pub id: u64,
    /// When it was scheduled.
    pub due_ns: u64,
}

/// One shard's share of a schedule: the ids `shard, shard + shards, ..`.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    schedule: Schedule,
    next: Scheduled,
    shards: u64,
}

impl OpenLoop {
    /// The share of `shard` of `shards`.
    pub fn new(schedule: Schedule, shard: u64, shards: u64) -> Self {
        let next = Scheduled {
            id: shard,
            due_ns: schedule.due_ns(shard),
        };
        OpenLoop {
            schedule,
            next,
            shards,
        }
    }

    /// The next event, if it is due by `now_ns`.
    #[inline(always)]
    pub fn next_due(&mut self, now_ns: u64) -> Option<Scheduled> {
        if self.next.due_ns > now_ns || self.is_done() {
            return None;
        }
        let due = self.next;
        self.next.id += self.shards;
        self.next.due_ns = self.schedule.due_ns(self.next.id);
        Some(due)
    }

    /// The next event's id.
    pub fn next_id(&self) -> u64 {
        self.next.id
    }

    /// When the next event is due, made or not.
    pub fn peek_due_ns(&self) -> u64 {
        self.next.due_ns
    }

    /// Whether every event of this share has been handed out.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.next.id >= self.schedule.events
    }
}
