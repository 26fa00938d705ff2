//! The watchdog: sees steps that do not return, names them, and gives up the jobs that cannot go on, whether anybody waits
//! for those or not.
//!
//! Laws
//! 1. It sleeps: a few looks a second (eight in the allowed span, where that is shorter), each a few loads a shard.
//! 2. A step is stuck if it was the one being run in every look over the allowed span. Time in which the watchdog itself did
//!    not run (a stopped process, a suspended machine) does not count: the step did not run either.
//! 3. With a stuck shard no job of the runtime can end, so all are given up: the culprit with the operators of its stage,
//!    the others with the culprit's name. That goes for those that are submitted later, too.
//! 4. It outlives a runtime that was dropped for as long as some job has not ended: somebody may wait for it.

use crate::error::JobError;
use crate::runtime::clock::Clock;
use crate::runtime::handle::{JobShared, Jobs};
use crate::runtime::shard::Mailbox;
use crate::time::Span;
use pelton_ring::Doorbell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A running watchdog. Dropping it lets the thread end (law 4).
#[derive(Debug)]
pub(crate) struct Watchdog {
    _stop: mpsc::Sender<()>,
}

impl Watchdog {
    /// Starts its thread.
    pub fn start(
        shards: Vec<(Arc<Mailbox>, Doorbell)>,
        jobs: Arc<Jobs>,
        clock: Clock,
        stall_after: Span,
    ) -> std::io::Result<Self> {
        // Looking eight times in the allowed span names a stall at most an eighth of it too late.
        let every = Duration::from_nanos(stall_after.nanos() / 8)
            .clamp(Duration::from_millis(1), LOOK_EVERY);
        let (stop, stopped) = mpsc::channel();
        let mut watch = Watch::new(shards.len(), stall_after, every, clock.now_ns());
        std::thread::Builder::new()
            .name("pelton-watchdog".into())
            .spawn(move || {
                loop {
                    if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(every) {
                        if jobs.live().is_empty() {
                            return;
                        }
                        std::thread::sleep(every);
                    }
                    let stuck = watch.look(clock.now_ns(), |shard: usize| {
                        let mailbox = &shards[shard].0;
                        (mailbox.steps.load(Relaxed), mailbox.current.load(Relaxed))
                    });
                    if let Some(stuck) = stuck {
                        give_up(&jobs, &stuck);
                        for (_, bell) in &shards {
                            bell.ring();
                        }
                    }
                }
            })?;
        Ok(Watchdog { _stop: stop })
    }
}

/// What each shard was last seen doing.
struct Watch {
    seen: Vec<Seen>,
    stall_after_ns: u64,
    /// The most that the time between two looks counts for (law 2).
    between_max_ns: u64,
    looked_ns: u64,
}

/// A shard's step, and how long it has been the one.
#[derive(Clone, Copy)]
struct Seen {
    steps: u64,
    current: u64,
    for_ns: u64,
}

/// A step that does not return.
#[derive(Debug, PartialEq, Eq)]
struct Stuck {
    shard: usize,
    /// See [`Mailbox::current`].
    current: u64,
    for_ns: u64,
}

impl Watch {
    fn new(shards: usize, stall_after: Span, every: Duration, now_ns: u64) -> Self {
        let nothing = Seen {
            steps: u64::MAX,
            current: 0,
            for_ns: 0,
        };
        Watch {
            seen: vec![nothing; shards],
            stall_after_ns: stall_after.nanos(),
            between_max_ns: 2 * u64::try_from(every.as_nanos()).unwrap_or(u64::MAX / 2),
            looked_ns: now_ns,
        }
    }

    /// Looks at all shards, of which `shard` tells the number of steps and the current one; the first that is stuck.
    fn look(&mut self, now_ns: u64, shard: impl Fn(usize) -> (u64, u64)) -> Option<Stuck> {
        let passed_ns = (now_ns - self.looked_ns).min(self.between_max_ns);
        self.looked_ns = now_ns;
        let mut stuck = None;
        for (number, seen) in self.seen.iter_mut().enumerate() {
            let (steps, current) = shard(number);
            if current == 0 || (steps, current) != (seen.steps, seen.current) {
                *seen = Seen {
                    steps,
                    current,
                    for_ns: 0,
                };
                continue;
            }
            seen.for_ns += passed_ns;
            if seen.for_ns >= self.stall_after_ns && stuck.is_none() {
                stuck = Some(Stuck {
                    shard: number,
                    current,
                    for_ns: seen.for_ns,
                });
            }
        }
        stuck
    }
}

/// Gives up every job that has not ended (law 3).
fn give_up(jobs: &Jobs, stuck: &Stuck) {
    let live = jobs.live();
    let (number, stage) = Mailbox::step_of(stuck.current);
    let (shard, seconds) = (stuck.shard, stuck.for_ns / 1_000_000_000);
    let place = |job: &JobShared| job.stage_places(stage);
    let culprit = match jobs.get(number) {
        Some(job) => format!("{} of job '{}'", place(&job), job.name),
        None => "a job that is no more".into(),
    };
    for job in live {
        let name = job.name.clone();
        job.give_up(if job.number == number {
            JobError::Stalled {
                job: name,
                stage: place(&job),
                shard,
                seconds,
            }
        } else {
            JobError::RuntimeGone {
                job: name,
                what: format!("shard {shard} has been stuck for {seconds} s in {culprit}"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_nanos(10);

    fn watch() -> Watch {
        Watch::new(2, Span::from_micros(1), EVERY, 0)
    }

    #[test]
    fn a_step_that_is_current_for_too_long_is_stuck_and_stays_so() {
        let mut watch = watch();
        let shard = |s| [(5, 0), (7, 42)][s];
        for now_ns in (10..=1_000).step_by(10) {
            assert_eq!(watch.look(now_ns, shard), None, "at {now_ns}");
        }
        for now_ns in [1_010, 1_020] {
            let stuck = watch.look(now_ns, shard).unwrap();
            assert_eq!((stuck.shard, stuck.current), (1, 42));
            assert_eq!(stuck.for_ns, now_ns - 10);
        }
        // It returned after all.
        assert_eq!(watch.look(1_030, |_| (8, 42)), None);
    }

    #[test]
    fn a_shard_that_steps_or_rests_is_not_stuck() {
        let mut watch = watch();
        for n in 1..1_000 {
            // The same stage again and again, and a shard at rest.
            assert_eq!(watch.look(n * 10, |s| [(n, 42), (3, 0)][s]), None);
        }
    }

    #[test]
    fn time_in_which_nobody_ran_does_not_count() {
        let mut watch = watch();
        let shard = |_| (5, 42);
        assert_eq!(watch.look(10, shard), None);
        assert_eq!(watch.look(1_000_000, shard), None, "stopped for long");
        assert_eq!(watch.look(2_000_000, shard), None);
        assert_eq!(watch.seen[0].for_ns, 40);
    }
}
