//! The duty loop, without its waiting: what a driver is to do after each round. The same for all drivers.
//!
//! ```text
//!   loop: round -> worked?      again
//!               -> idle?        relax for a while, as configured
//!               -> still idle?  prepare the sleeper, last look, sleep
//! ```

use crate::runtime::config::Waiting;
use crate::runtime::shard::Shard;
use std::time::Duration;

/// A shard and how it waits.
pub(crate) struct Duty {
    shard: Shard,
    waiting: Waiting,
    /// End of the first round that found nothing to do, since the last that did.
    idle_since: Option<u64>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There was work: look again at once.
    Again,
    /// Nothing to do: look again soon.
    Spin,
    /// Nothing to do: let other threads run, then look again.
    Yield,
    /// Nothing to do for long enough: prepare to sleep and take a last look.
    Sleep,
    /// The shard is to end.
    End,
}

/// What a last look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Work after all.
    Found,
    /// Nothing: sleep until a doorbell rings, or for so long.
    Nothing(Option<Duration>),
    /// The shard is to end.
    End,
}

impl Duty {
    pub fn new(shard: Shard, waiting: Waiting) -> Self {
        Duty {
            shard,
            waiting,
            idle_since: None,
        }
    }

    #[cfg(all(target_os = "linux", feature = "glommio"))]
    pub fn shard_id(&self) -> usize {
        self.shard.id
    }

    /// The driver's nanoseconds.
    #[cfg(all(target_os = "linux", feature = "glommio"))]
    pub fn now_ns(&self) -> u64 {
        self.shard.clock().now_ns()
    }

    /// One round.
    #[inline]
    pub fn round(&mut self) -> Next {
        let round = self.shard.round();
        if round.shutdown {
            return Next::End;
        }
        if round.worked {
            self.idle_since = None;
            return Next::Again;
        }
        match self.waiting {
            // Whoever submits a job rings. Until then the core is for others: above all for those who load its states.
            _ if !self.shard.has_jobs() => Next::Sleep,
            Waiting::Spin => Next::Spin,
            Waiting::Yield => Next::Yield,
            Waiting::Park { spin_us } => {
                let since = *self.idle_since.get_or_insert(round.ended_ns);
                if round.ended_ns - since < spin_us.saturating_mul(1_000) {
                    Next::Spin
                } else {
                    Next::Sleep
                }
            }
        }
    }

    /// The round between preparing to sleep and sleeping: what was published before the sleeper had prepared is found here, what comes
    /// later rings.
    pub fn last_look(&mut self) -> Look {
        self.time_passed();
        let round = self.shard.round();
        if round.shutdown {
            return Look::End;
        }
        if round.worked {
            self.idle_since = None;
            return Look::Found;
        }
        match round.until_ns {
            None => Look::Nothing(None),
            Some(until) => match until.saturating_sub(self.shard.clock().now_ns()) {
                0 => Look::Found,
                ns => Look::Nothing(Some(Duration::from_nanos(ns))),
            },
        }
    }

    /// To be called after whatever takes time and is no round.
    #[inline]
    pub fn time_passed(&mut self) {
        self.shard.time_passed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;
    use crate::runtime::shard::Mailbox;
    use std::sync::Arc;

    /// However it waits, a shard without a job leaves the core.
    #[test]
    fn who_has_no_job_sleeps() {
        for waiting in [
            Waiting::Spin,
            Waiting::Yield,
            Waiting::Park { spin_us: 1 << 40 },
        ] {
            let shard = Shard::new(
                0,
                Arc::<Mailbox>::default(),
                Arc::new([]),
                false,
                Clock::start(),
            );
            assert_eq!(
                Duty::new(shard, waiting).round(),
                Next::Sleep,
                "{waiting:?}"
            );
        }
    }
}
