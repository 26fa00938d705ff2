//! The runtime: one shard thread a core for the whole process, jobs placed on all of them.
//!
//! Laws
//! 1. Shards share nothing but rings. A job's errors and panics end that job alone.
//! 2. Drivers differ in how a shard waits and does I/O; they step the same tasklets in the same way.
//! 3. The clock is read here and handed down; nothing else reads it.

mod clock;
mod config;
mod handle;
mod panics;
mod report;
mod shard;
mod threads;

pub use config::{Config, Driver, Waiting};
pub use handle::JobHandle;
pub(crate) use panics::{catch, install as install_panic_hook};
pub use report::{JobReport, StageReport};

use crate::error::{BuildError, JobError};
use crate::plan::PlanConfig;
use crate::port::{Helper, Ports};
use crate::stream::Job;
use clock::Clock;
use config::Placement;
use handle::JobShared;
use pelton_ring::Doorbell;
use shard::{Command, Mailbox, ShardJob, TaskletSlot};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Shard threads, ready for jobs. Start it first thing in `main`, before other thread pools.
#[derive(Debug)]
pub struct Runtime {
    config: Config,
    placement: Placement,
    clock: Clock,
    shards: Vec<ShardRef>,
    helper: Mutex<Option<Helper>>,
    /// Tells that a shard thread has ended.
    ended: mpsc::Receiver<usize>,
    jobs: AtomicU32,
}

#[derive(Debug)]
struct ShardRef {
    mailbox: Arc<Mailbox>,
    doorbell: Doorbell,
}

impl std::fmt::Debug for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Helper")
    }
}

impl Runtime {
    /// Starts the shard threads.
    pub fn start(config: Config) -> Result<Runtime, BuildError> {
        let placement = config.place()?;
        panics::install();
        let clock = Clock::start();
        let (tell_end, ended) = mpsc::channel();
        let (shards, sleepers) = threads::prepare(&placement)?;
        let bells: Arc<[Doorbell]> = shards.iter().map(|s| s.doorbell.clone()).collect();
        threads::spawn(&placement, &shards, sleepers, &bells, clock, &tell_end)?;
        Ok(Runtime {
            config,
            placement,
            clock,
            shards,
            helper: Mutex::new(None),
            ended,
            jobs: AtomicU32::new(0),
        })
    }

    /// Places a job on all shards and starts it.
    pub fn submit(&self, job: &Job) -> Result<JobHandle, JobError> {
        let plan = job.plan.take();
        let shards = self.shards.len();
        let bells: Vec<Doorbell> = self.shards.iter().map(|s| s.doorbell.clone()).collect();
        let config = PlanConfig {
            shards,
            ring_capacity: self.config.ring_capacity,
            batch_size: self.config.batch_size,
            key_groups: self.config.key_groups,
        };
        let built = {
            let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
            plan.build(&config, &mut Ports::threaded(&mut helper, &bells))?
        };
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(JobShared::new(number, &built, shards, self.clock.now_ns()));
        let mut per_shard: Vec<Vec<TaskletSlot>> = (0..shards).map(|_| vec![]).collect();
        for stage in built.stages {
            for (slots, tasklet) in per_shard.iter_mut().zip(stage.tasklets) {
                slots.push(TaskletSlot::new(tasklet));
            }
        }
        for ((shard, tasklets), dead) in self.shards.iter().zip(per_shard).zip(built.dead) {
            shard.mailbox.send(Command::Add(Box::new(ShardJob::new(
                shared.clone(),
                tasklets,
                dead,
            ))));
            shard.doorbell.ring();
        }
        Ok(JobHandle::new(
            shared,
            self.mailboxes(),
            self.clock,
            self.config.stall_after,
        ))
    }

    fn mailboxes(&self) -> Vec<(Arc<Mailbox>, Doorbell)> {
        self.shards
            .iter()
            .map(|s| (s.mailbox.clone(), s.doorbell.clone()))
            .collect()
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What had to be decided otherwise than asked, and why: for the log.
    pub fn notes(&self) -> &[String] {
        &self.placement.notes
    }

    /// The driver that runs the shards.
    pub fn driver(&self) -> Driver {
        self.placement.driver
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.mailbox.send(Command::Shutdown);
            shard.doorbell.ring();
        }
        // A shard stuck in user code never answers: it is left behind after a while rather than waited for.
        for _ in &self.shards {
            if self.ended.recv_timeout(Duration::from_secs(2)).is_err() {
                break;
            }
        }
    }
}
