//! A disk whose syncs take longer: what the log does on one that is slower than this.
//!
//! Completions of syncs are held back until so much time has passed since they would have come; all others pass at once.

use pelton_storage::{BlockingDisk, Completion, Disk, DiskError, Done, Full, Op, StdDisk, Ticket};
use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

/// See above.
pub struct DelayedDisk {
    disk: StdDisk,
    extra: Duration,
    /// Tickets of syncs that have not completed.
    syncs: Vec<Ticket>,
    held: VecDeque<(Instant, Completion)>,
}

impl DelayedDisk {
    /// Makes each sync take `extra` longer; zero changes nothing.
    pub fn new(disk: StdDisk, extra: Duration) -> Self {
        DelayedDisk {
            disk,
            extra,
            syncs: Vec::new(),
            held: VecDeque::new(),
        }
    }

    fn is_sync(&mut self, completion: &Completion) -> bool {
        let at = self.syncs.iter().position(|t| *t == completion.ticket);
        at.map(|at| self.syncs.swap_remove(at)).is_some()
    }
}

impl Disk for DelayedDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        let is_sync = matches!(op, Op::SyncData { .. });
        self.disk.submit(op, ticket)?;
        if is_sync && !self.extra.is_zero() {
            self.syncs.push(ticket);
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        let before = completions.len();
        self.disk.poll(completions);
        for n in (before..completions.len()).rev() {
            if self.is_sync(&completions[n]) {
                let completion = completions.remove(n);
                debug_assert!(matches!(completion.result, Ok(Done::Nothing)));
                self.held
                    .push_back((Instant::now() + self.extra, completion));
            }
        }
        while let Some((due, _)) = self.held.front()
            && *due <= Instant::now()
        {
            completions.extend(self.held.pop_front().map(|(_, completion)| completion));
        }
    }
}

impl BlockingDisk for DelayedDisk {
    fn wait(&mut self) -> Result<(), DiskError> {
        let Some((due, _)) = self.held.front() else {
            return self.disk.wait();
        };
        // Whatever the disk completes meanwhile unparks as well.
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
        Ok(())
    }
}
