//! The runtime: one shard thread a core for the whole process, jobs placed on all of them.
//!
//! Laws
//! 1. Shards share nothing but rings. A job's errors and panics end that job alone.
//! 2. Drivers differ in how a shard waits and does I/O; they step the same tasklets in the same way (`duty`).
//! 3. The clock is read here and handed down; nothing else reads it.

mod checkpoints;
mod clock;
mod commits;
mod config;
mod disks;
mod drivers;
mod duty;
#[cfg(all(feature = "glommio", target_os = "linux"))]
mod glommio;
mod handle;
mod lengths;
mod panics;
mod queries;
mod report;
mod savepoints;
mod shard;
mod threads;
mod watchdog;

pub(crate) use checkpoints::draw_lineage;
pub use config::{Config, Driver, Waiting};
pub use handle::{JobHandle, Stopper};
pub(crate) use panics::{Panic, catch, discard as discard_panic, install as install_panic_hook};
pub use queries::OfJob;
pub use report::{JobReport, LongestStep, StageReport};

use crate::checkpoint::DiskKind;
use crate::error::{BuildError, JobError};
use crate::plan::PlanConfig;
use crate::port::{Helper, Ports, Start};
use crate::stream::Job;
use clock::Clock;
use config::Placement;
use disks::Disks;
use drivers::Shards;
use handle::{JobShared, Jobs};
use pelton_ring::Doorbell;
use pelton_storage::Disk;
use shard::{Command, ShardJob, TaskletSlot};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use watchdog::Watchdog;

/// Shard threads, ready for jobs. Start it first thing in `main`, before other thread pools.
#[derive(Debug)]
pub struct Runtime {
    config: Config,
    placement: Placement,
    clock: Clock,
    /// Ended before the helper: what their ports hold is still served meanwhile.
    shards: Shards,
    helper: Mutex<Option<Helper>>,
    jobs: Arc<Jobs>,
    _watchdog: Watchdog,
    submitted: AtomicU32,
}

impl std::fmt::Debug for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Helper")
    }
}

impl Runtime {
    /// Starts the shard threads, with the driver that the configuration asks for.
    pub fn start(config: Config) -> Result<Runtime, BuildError> {
        let mut placement = config.place()?;
        panics::install();
        let clock = Clock::start();
        let shards = Shards::start(&mut placement, config.driver, clock)?;
        let jobs = Arc::<Jobs>::default();
        let mailboxes = shards.mailboxes();
        let watchdog = Watchdog::start(mailboxes, jobs.clone(), clock, config.stall_after)
            .map_err(|e| BuildError::Config {
                what: format!("the watchdog's thread could not be started: {e}"),
                advice: "raise the limit on threads".into(),
            })?;
        Ok(Runtime {
            config,
            placement,
            clock,
            shards,
            helper: Mutex::new(None),
            jobs,
            _watchdog: watchdog,
            submitted: AtomicU32::new(0),
        })
    }

    /// Places a job on all shards and starts it.
    pub fn submit(&self, job: &Job) -> Result<JobHandle, JobError> {
        let plan = job.plan.take();
        let shards = self.shards();
        let bells: Vec<Doorbell> = self
            .shards
            .refs
            .iter()
            .map(|s| s.doorbell.clone())
            .collect();
        let config = PlanConfig {
            shards,
            ring_capacity: self.config.ring_capacity,
            batch_size: self.config.batch_size,
            key_groups: self.config.key_groups,
            checkpoints: plan.checkpointing.is_some(),
        };
        let checkpointing = plan.checkpointing.clone();
        if let Some(c) = &checkpointing {
            Disks::check(c.disk, self.shards.driver)?;
        }
        let (mut built, helpers) = {
            let mut helper = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
            let mut ports = Ports::threaded(&mut helper, &bells);
            (plan.build(&config, &mut ports)?, ports.take_helpers())
        };
        let opened = match &checkpointing {
            Some(c) => {
                let groups = self.config.key_groups;
                let on = &self.shards;
                Some(checkpoints::open(&mut built, c, groups, self.clock, on)?)
            }
            None => {
                built.start_sinks(&Start::default())?;
                None
            }
        };
        let control = opened.as_ref().map(|o| o.control.clone());
        let number = self.submitted.fetch_add(1, Ordering::Relaxed);
        let now_ns = self.clock.now_ns();
        let shared = Arc::new(JobShared::new(number, &built, shards, control, now_ns));
        self.jobs.add(&shared);
        let mut parts = match opened {
            Some(opened) => opened.start(shared.clone(), self.clock, bells, helpers)?,
            None => vec![],
        }
        .into_iter();
        let mut per_shard: Vec<Vec<TaskletSlot>> = (0..shards).map(|_| vec![]).collect();
        for stage in built.stages {
            for (slots, tasklet) in per_shard.iter_mut().zip(stage.tasklets) {
                slots.push(TaskletSlot::new(tasklet));
            }
        }
        for (shard, tasklets) in self.shards.refs.iter().zip(per_shard) {
            let part = ShardJob::new(shared.clone(), tasklets, parts.next());
            shard.mailbox.send(Command::Add(Box::new(part)));
            shard.doorbell.ring();
        }
        let groups = self.config.key_groups;
        Ok(JobHandle::new(
            shared,
            self.shards.mailboxes(),
            self.clock,
            groups,
        ))
    }

    /// See [`crate::testing::shard_disk`].
    pub(crate) fn shard_disk(
        &self,
        shard: usize,
        kind: DiskKind,
        folder: &Path,
    ) -> Result<Box<dyn Disk + Send>, BuildError> {
        Disks::check(kind, self.shards.driver)?;
        let refused = |what: String| BuildError::Config {
            what,
            advice: "name a shard that there is, and a folder that can be made".into(),
        };
        let at = self.shards.refs.get(shard);
        let at = at.ok_or_else(|| refused(format!("there is no shard {shard}")))?;
        at.disks
            .open(kind, folder, &at.doorbell, Box::new(()))
            .map_err(|e| refused(format!("{}: {e}", folder.display())))
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.shards.refs.len()
    }

    /// What had to be decided otherwise than asked, and why: for the log.
    pub fn notes(&self) -> &[String] {
        &self.placement.notes
    }

    /// The driver that runs the shards.
    pub fn driver(&self) -> Driver {
        self.shards.driver
    }
}
