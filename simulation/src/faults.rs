//! One small job that takes checkpoints, run with each operation of its disk failing, or being the last before power is lost.
//!
//! Laws
//! 1. A job whose disk fails ends with an error that says so, or goes on as if nothing had been (what is only in the way can be
//!    removed later). It never hangs, and never shows what a restart would not stand by.
//! 2. Once the disk is healthy, the job goes on from what is there and shows what the model says.

use crate::job::Outputs;
use crate::model::{Outcome, judge};
use crate::record::{Fused, Rec};
use crate::spec::{End, Generator, Kind, Late, SourceSpec, Spec, Step, WindowSpec};
use crate::survive::{Ended, Fate, Life, judged, one_life};
use pelton::testing::Sizes;
use pelton_storage::{Fault, FaultyDisk, MemoryDisk};

/// Lives after which a job whose disk is healthy must be through: a commit that is put off ends a recovery.
const LIVES_MAX: usize = 100;

/// What a planned failure came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// It struck nothing.
    ToNothing,
    /// The job was through all the same.
    Tolerated,
    /// The job ended with this error's code.
    Failed(&'static str),
}

/// The job and what it must give.
#[derive(Debug)]
pub struct Small {
    spec: Spec,
    outcome: Outcome,
    life: Life,
}

impl Small {
    /// The job, on two shards, stepped as `seed` says.
    pub fn new(seed: u64) -> Small {
        let spec = spec();
        Small {
            outcome: judge(&spec),
            spec,
            life: Life {
                fate: Fate::Natural,
                sizes: Sizes {
                    batch_size: 2,
                    ring_capacity: 4,
                    ..Sizes::shards(2)
                },
                asks_each: 12,
                eager: 0,
                ticks_each: 50,
                queue: 64,
                sweep_growth: 2,
                sweep_bytes: 0,
                sweep_least: 2,
                segment_bytes: 256 << 10,
                ration: None,
                savepoint: None,
                timeout_us: 100_000,
                max_uncommitted: 3,
                seed,
            },
        }
    }

    /// Operations of the disk in a run in which nothing fails, and epochs that it commits.
    ///
    /// # Errors
    /// The run does not give what the model says.
    pub fn undisturbed(&self) -> Result<(u64, u64), String> {
        let outputs = Outputs::new(Some(self.life.seed));
        let disk = self.life.disk(MemoryDisk::new());
        let (ended, disk, completed) = one_life(&self.spec, &self.life, disk, &outputs)?;
        if !matches!(ended, Ended::Over(_)) {
            return Err(format!("{ended:?}"));
        }
        judged(&self.spec, &self.outcome, &outputs)?;
        Ok((disk.look(FaultyDisk::operations), completed))
    }

    /// Runs it with a planned failure, and then, if it has ended before its time, on what is left.
    ///
    /// # Errors
    /// One of the laws is broken.
    pub fn fail(&self, fault: Fault) -> Result<Came, String> {
        let outputs = Outputs::new(Some(self.life.seed));
        let disk = self.life.disk(MemoryDisk::new()).with_fault(fault);
        let (ended, disk, _) = one_life(&self.spec, &self.life, disk, &outputs)?;
        let struck = disk.look(FaultyDisk::faults) > 0;
        let came = match ended {
            Ended::Failed(e) if struck => Came::Failed(e.code()),
            Ended::Over(_) if struck => Came::Tolerated,
            Ended::Over(_) => Came::ToNothing,
            other => return Err(format!("{other:?}")),
        };
        self.through(disk.kill(), &outputs, !matches!(came, Came::Failed(_)))?;
        Ok(came)
    }

    /// Runs it until operation `at` of the disk, at which power is lost, and then on what is left: of what was not synced
    /// those units for which `keep` says so. How many there were.
    ///
    /// # Errors
    /// Law 2 is broken.
    pub fn lose_power(
        &self,
        at: u64,
        mut keep: impl FnMut(usize) -> bool,
    ) -> Result<usize, String> {
        let outputs = Outputs::new(Some(self.life.seed));
        let disk = self.life.disk(MemoryDisk::new()).with_halt(at);
        let (ended, disk, _) = one_life(&self.spec, &self.life, disk, &outputs)?;
        if let Ended::Failed(e) = ended {
            return Err(e.to_string());
        }
        let unsynced = disk.look(|d| d.unsynced().len());
        let is_over = matches!(ended, Ended::Over(_));
        self.through(disk.crash(&mut keep), &outputs, is_over)?;
        Ok(unsynced)
    }

    /// Runs it to its end on a healthy disk and compares; a job that is over gives nothing more.
    fn through(&self, disk: MemoryDisk, outputs: &Outputs, is_over: bool) -> Result<(), String> {
        if is_over {
            judged(&self.spec, &self.outcome, outputs)?;
        }
        let mut left = disk;
        let mut life = self.life.clone();
        for lives in 0..LIVES_MAX {
            life.sizes.shards = [2, 3, 1][lives % 3];
            let disk = life.disk(left);
            let (ended, disk, _) = one_life(&self.spec, &life, disk, outputs)?;
            match ended {
                Ended::Over(_) => return judged(&self.spec, &self.outcome, outputs),
                Ended::Died => left = disk.kill(),
                Ended::Failed(e) => return Err(format!("on a healthy disk: {e}")),
            }
        }
        Err(format!("not through after {LIVES_MAX} lives"))
    }
}

/// Records of two partitions, some of them late, one without a time, in windows.
fn spec() -> Spec {
    let partition = |p: i64| {
        let record = |i: i64| Rec {
            id: (p * 1_000 + i) as u64,
            copy: 0,
            key: (i % 3) as u32,
            value: i,
            time: (i != 11).then_some(i * 7 - (i % 5) * (i % 5) * 9),
            mark: None,
        };
        (0..60).map(record).collect()
    };
    Spec {
        sources: vec![SourceSpec {
            partitions: vec![partition(0), partition(1)],
            before: Fused::default(),
            generator: Generator::Bounded(20),
            max_drift: None,
            idle_after: None,
            after: Fused::default(),
        }],
        steps: vec![Step::Rebalance(Fused::default())],
        end: End::Window(WindowSpec {
            kind: Kind::Tumbling {
                size: 50,
                offset: 0,
            },
            lateness: 0,
            late: Late::Drop,
            key_by_ref: false,
            more: false,
        }),
    }
}
