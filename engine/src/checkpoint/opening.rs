//! How a job's checkpoints are opened: the same steps whoever drives the job and whatever disk lies below.
//!
//! ```text
//! Opening::store the store: it holds a checkpoint of the job's own, or does not
//! Opening::fit   whether the job fits to that, or to where a new job starts from; then the sinks' starts, and their recovery
//! load           each shard's states, from where the driver says, on whatever thread
//! Opening::start the coordinator, and a writer for each shard
//! ```
//!
//! Law: nothing of the job has run before all of it is through; the first that fails leaves the folder as good as it was.

use super::counting::Counted;
use super::origin::{self, Origin};
use super::restore::{self, Fit, JobLoad, Restored, Sections, Unfit};
use super::{Committers, Coordinator, Pace, Told};
use crate::plan::{BuiltJob, BuiltStage};
use crate::port::Start;
use crate::tasklet::Tasklet;
use pelton_storage::{
    BlockingDisk, Checkpoint, Lineage, SegmentBytes, SegmentWriter, Store, StoreConfig,
    WriterConfig,
};
use std::path::Path;
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

/// A store that is open.
pub(crate) struct Opening {
    setup: Setup,
    store: Store,
    /// The last checkpoint of the job's own.
    last: Option<Checkpoint>,
    /// Where the job starts from if it has none.
    origin: Option<Origin>,
    /// Nothing that there is may be stood on: see [`super::Cut::is_whole`].
    whole: bool,
}

/// What a job takes its checkpoints with.
pub(crate) struct Started {
    pub coordinator: Coordinator,
    pub told: Arc<Told>,
    /// Those who make the coordinator's commits.
    pub committers: Committers,
    /// By shard.
    pub writers: Vec<SegmentWriter>,
}

impl Opening {
    /// Opens the store. Waits for the disk, on which nothing else is under way.
    pub fn store<D: BlockingDisk>(disk: &mut D, setup: Setup) -> Result<Self, Unfit> {
        let config = StoreConfig {
            owner: 0,
            retained: setup.retained,
            lineage_if_new: setup.lineage_if_new,
            direct: true,
        };
        let store = Store::open(disk, config)?;
        Ok(Opening {
            setup,
            last: store.last().cloned(),
            store,
            origin: None,
            whole: false,
        })
    }

    /// Whether the folder holds a checkpoint of the job's own: then nothing else counts.
    pub fn has_own(&self) -> bool {
        self.last.is_some()
    }

    /// Sees whether the job fits to its own last checkpoint, else to `origin` but for the states that are `dropped`. If it does, its
    /// sinks are told whose output they find, and recover.
    pub fn fit(
        &mut self,
        built: &mut BuiltJob,
        origin: Option<Origin>,
        dropped: &[String],
    ) -> Result<(), JobLoad> {
        let groups = self.setup.key_groups;
        match (&self.last, origin) {
            (Some(last), _) => {
                self.whole = restore::check(last, groups, &built.states)? == Fit::Migrates;
            }
            (None, Some(origin)) => {
                origin::check(&origin.checkpoint, groups, &built.states, dropped)?;
                self.whole = true;
                self.origin = Some(origin);
            }
            (None, None) => {}
        }
        // What another job's sinks had prepared is that job's.
        let start = Start {
            lineage: Some(self.store.manifest().lineage),
            went_on_from: self.last.as_ref().map(|last| last.epoch),
        };
        let started = built.start_sinks(&start);
        started.map_err(|e| JobLoad::Job(e.into()))?;
        Ok(restore::recover_sinks(
            self.last.as_ref(),
            &mut built.committers,
        )?)
    }

    /// The checkpoint that the job goes on from, if there is one, and the lineage of what it names.
    pub fn last(&self) -> Option<(&Checkpoint, Lineage)> {
        match (&self.last, &self.origin) {
            (Some(last), _) => Some((last, self.store.manifest().lineage)),
            (None, Some(origin)) => Some((&origin.checkpoint, origin.lineage)),
            (None, None) => None,
        }
    }

    /// What that checkpoint's job had counted.
    pub fn counted(&self) -> Result<Counted, Unfit> {
        let Some((last, _)) = self.last() else {
            return Ok(Counted::default());
        };
        let mut counted = Sections::counters(last)?;
        counted.began_elsewhere |= self.elsewhere().is_some();
        Ok(counted)
    }

    /// The folder of that checkpoint, where it is not the job's own.
    pub fn elsewhere(&self) -> Option<&Path> {
        self.origin.as_ref().map(|o| o.folder.as_path())
    }

    /// What takes the checkpoints from here on.
    pub fn start(self, built: &mut BuiltJob, now_ns: u64) -> Result<Started, Unfit> {
        let counted = self.counted()?;
        let kinds = built.stages.iter();
        let kinds = kinds.map(|stage| stage.ops.iter().map(|o| o.kind).collect());
        let kinds = kinds.collect();
        let Opening {
            setup,
            store,
            last,
            whole,
            ..
        } = self;
        let attempt = store.manifest().attempt;
        let layout = restore::layout(last.as_ref(), attempt, setup.shards)?;
        let sections = Sections::of_job(&built.name, setup.key_groups, &built.states, &layout);
        let told = Arc::new(Told::default());
        let shards = 0..setup.shards as u32;
        let writers = shards.map(|shard| store.writer(shard, setup.writer.clone()));
        let writers = writers.collect();
        let mut coordinator = Coordinator::new(
            store,
            told.clone(),
            setup.pace,
            setup.shards,
            sections,
            now_ns,
        );
        coordinator.count_from(counted, kinds);
        if whole {
            coordinator.write_whole();
        }
        Ok(Started {
            coordinator,
            told,
            committers: Committers::new(std::mem::take(&mut built.committers)),
            writers,
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
) -> Result<Restored, JobLoad> {
    let share = restore::share_of(last, shard, shards)?;
    restore::load_shard(bytes, lineage, &share, tasklets)
}
