//! The only clock. Monotonic nanoseconds since the runtime started, and a wall clock that goes on from its start.

use crate::tasklet::Now;
use crate::time::EventTime;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Wall clock at `start`, microseconds since the epoch. Steps of the system's clock are not followed.
    wall_us: i64,
}

impl Clock {
    pub fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_micros() as i64);
        Clock {
            start: Instant::now(),
            wall_us: wall,
        }
    }

    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    #[inline]
    pub fn now(&self) -> Now {
        let ns = self.now_ns();
        Now {
            ns,
            wall: EventTime::from_micros(self.wall_us + (ns / 1_000) as i64),
        }
    }
}
