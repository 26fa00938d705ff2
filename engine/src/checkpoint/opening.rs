//! How a job's checkpoints are opened: the same steps whoever drives the job and whatever disk lies below.
//!
//! ```text
//! Opening::new   the store, whether the job fits, the sinks' recovery
//! load           each shard's states, from where the driver says, on whatever thread
//! Opening::start the coordinator, and a writer for each shard
//! ```
//!
//! Law: nothing of the job has run before all of it is through; the first that fails leaves the folder as good as it was.

use super::restore::{self, Restored, Sections, Unfit};
use super::{Coordinator, Pace, Told};
use crate::plan::{BuiltJob, BuiltStage};
use crate::tasklet::Tasklet;
use pelton_storage::{
    BlockingDisk, Checkpoint, Lineage, SegmentBytes, SegmentWriter, Store, StoreConfig,
    WriterConfig,
};
use std::sync::Arc;

/// How checkpoints are kept.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub shards: usize,
    pub key_groups: u32,
    pub retained: usize,
    /// The lineage of a folder that is new.
    pub lineage_if_new: Lineage,
    pub pace: Pace,
    pub writer: WriterConfig,
}

/// A store that is open, and sinks that have recovered.
pub(crate) struct Opening {
    setup: Setup,
    store: Store,
    last: Option<Checkpoint>,
}

/// What a job takes its checkpoints with.
pub(crate) struct Started {
    pub coordinator: Coordinator,
    pub told: Arc<Told>,
    /// By shard.
    pub writers: Vec<SegmentWriter>,
}

impl Opening {
    /// Opens the store, sees whether the job fits to what is there, and has its sinks recover. Waits for the disk, on which
    /// nothing else is under way.
    pub fn new<D: BlockingDisk>(
        built: &mut BuiltJob,
        disk: &mut D,
        setup: Setup,
    ) -> Result<Self, Unfit> {
        let config = StoreConfig {
            owner: 0,
            retained: setup.retained,
            lineage_if_new: setup.lineage_if_new,
            direct: true,
        };
        let store = Store::open(disk, config)?;
        let last = store.last().cloned();
        if let Some(last) = &last {
            restore::check(last, setup.key_groups, &built.states)?;
        }
        restore::recover_sinks(last.as_ref(), &mut built.committers)?;
        Ok(Opening { setup, store, last })
    }

    /// The checkpoint that the job goes on from, if there is one, and the lineage of what it names.
    pub fn last(&self) -> Option<(&Checkpoint, Lineage)> {
        let lineage = self.store.manifest().lineage;
        self.last.as_ref().map(|last| (last, lineage))
    }

    /// What takes the checkpoints from here on.
    pub fn start(self, built: &mut BuiltJob, now_ns: u64) -> Result<Started, Unfit> {
        let Opening { setup, store, last } = self;
        let attempt = store.manifest().attempt;
        let layout = restore::layout(last.as_ref(), attempt, setup.shards)?;
        let sections = Sections::of_job(&built.name, setup.key_groups, &built.states, &layout);
        let told = Arc::new(Told::default());
        let shards = 0..setup.shards as u32;
        let writers = shards.map(|shard| store.writer(shard, setup.writer.clone()));
        Ok(Started {
            writers: writers.collect(),
            coordinator: Coordinator::new(
                store,
                told.clone(),
                setup.pace,
                setup.shards,
                std::mem::take(&mut built.committers),
                sections,
                now_ns,
            ),
            told,
        })
    }
}

/// A job's tasklets by shard.
pub(crate) fn by_shard(stages: &mut [BuiltStage], shards: usize) -> Vec<Vec<&mut dyn Tasklet>> {
    let mut per_shard: Vec<Vec<&mut dyn Tasklet>> = (0..shards).map(|_| vec![]).collect();
    for stage in stages {
        for (mine, tasklet) in per_shard.iter_mut().zip(&mut stage.tasklets) {
            mine.push(tasklet.as_mut());
        }
    }
    per_shard
}

/// Reads a shard's share of a checkpoint into its tasklets.
pub(crate) fn load<S: SegmentBytes>(
    bytes: S,
    (last, lineage): (&Checkpoint, Lineage),
    (shard, shards): (usize, usize),
    tasklets: &mut [&mut dyn Tasklet],
) -> Result<Restored, restore::JobLoad> {
    let share = restore::share_of(last, shard, shards)?;
    restore::load_shard(bytes, lineage, &share, tasklets)
}
