//! One process of a job, as it is drawn: what it runs with, and how it is to end.

use crate::compare::SHARDS;
use crate::model::Outcome;
use crate::random::Random;
use pelton::testing::{OnDisk, Sizes};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk, WriterConfig};

/// How a life is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With the job.
    Natural,
    /// After so many steps.
    Crash(u64),
    /// After so many epochs.
    Epochs(u64),
    /// At this operation of the disk.
    Halt(u64),
    /// After so many steps, as soon as several epochs are uncommitted; after eight times as many whatever is.
    Behind(u64),
    /// With a last checkpoint, asked for after so many steps.
    Stop(u64),
    /// With its sources ended where they are after so many steps. So many steps later it dies, if it is not over by then.
    Drain(u64, u64),
}

/// Length of the segments that most lives write.
const SEGMENT: u64 = 256 << 10;

/// What a segment holds besides the longest entry, at the most: heads, and a page that is not full.
const BESIDES: u64 = 12 << 10;

/// How much a job is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    /// Records that its sources have, or that reach its end, whichever are more.
    pub records: u64,
}

impl Amount {
    pub fn of(outcome: &Outcome) -> Amount {
        Amount {
            records: outcome.read.max(outcome.entered.len() as u64),
        }
    }

    /// Length of a segment that the longest entry fits in: one that has the names of all records, and whatever else it has of each.
    fn longest(self) -> u64 {
        (BESIDES + (4 << 10) + self.records * 192).next_multiple_of(4 << 10)
    }
}

/// One process, as it is drawn.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub fate: Fate,
    pub sizes: Sizes,
    /// A checkpoint is asked for once in so many steps.
    pub asks_each: u64,
    /// So many steps of the checkpoints (parts, coordinator, disk, commits) come with each other step: jobs are small, and would be
    /// through before their first epoch else.
    pub eager: u64,
    /// Time moves on once in so many steps.
    pub ticks_each: u64,
    /// Operations that the disk takes at a time.
    pub queue: usize,
    pub sweep_growth: u64,
    pub sweep_bytes: u64,
    pub sweep_least: u32,
    /// Length of the segments that it writes.
    pub segment_bytes: u64,
    /// Where it is given, sources hand over so many records with each epoch, and an epoch is asked for when they have.
    pub ration: Option<u64>,
    /// A savepoint is asked for after so many steps, with the stop if the life stops; it is copied so many steps after it was ready.
    pub savepoint: Option<(u64, u64)>,
    /// How long an epoch may take.
    pub timeout_us: i64,
    /// Epochs that may be uncommitted.
    pub max_uncommitted: usize,
    pub seed: u64,
}

impl Life {
    pub fn draw(r: &mut Random, key_groups: u32, natural: bool, of: Amount) -> Life {
        let steps = |r: &mut Random| {
            let most = 1 << r.between(4, 15);
            r.between(1, most) as u64
        };
        Life {
            fate: match r.below(7) {
                _ if natural => Fate::Natural,
                0..=2 => Fate::Crash(steps(r)),
                3 => Fate::Halt(r.between(0, 40) as u64),
                4 => Fate::Halt(r.between(0, 400) as u64),
                5 => Fate::Behind(1 + steps(r) / 8),
                _ => Fate::Stop(steps(r)),
            },
            sizes: Sizes {
                shards: r.pick(&SHARDS),
                batch_size: r.pick(&[1, 2, 7, 33, 300]),
                ring_capacity: r.between(2, 16) as usize,
                key_groups,
            },
            asks_each: r.pick(&[3, 10, 50, 1_000]),
            eager: r.pick(&[0, 0, 1, 2, 4]),
            ticks_each: r.pick(&[20, 100, 1_000]),
            queue: r.pick(&[1, 3, 64]),
            // Jobs are small: were a sweep begun and through as in large ones, it would take one epoch, and seldom.
            sweep_growth: r.pick(&[1, 1, 1, 2]),
            sweep_bytes: r.pick(&[0, 0, 0, 4 << 10]),
            sweep_least: r.pick(&[1, 1, 2, 7, 1024]),
            segment_bytes: of.longest().max(SEGMENT),
            ration: None,
            savepoint: None,
            timeout_us: r.pick(&[1_000, 10_000, 100_000, 1_000_000]),
            max_uncommitted: r.pick(&[1, 2, 3, 3, 8]),
            seed: r.bits(),
        }
    }

    /// One of many epochs, in each of which little changes, with sweeps over several of them in pieces of few entries: what is old is
    /// written anew while the job goes on, its first copies go, and then the process dies.
    pub fn patient(r: &mut Random, key_groups: u32, natural: bool, of: Amount) -> Life {
        let fate = match r.below(8) {
            _ if natural => Fate::Natural,
            0 => Fate::Halt(r.between(100, 1_000) as u64),
            _ => Fate::Epochs(r.between(2, 14) as u64),
        };
        Life {
            fate,
            sizes: Sizes {
                shards: r.pick(&[1, 1, 2, 3]),
                batch_size: 2,
                ring_capacity: 4,
                key_groups,
            },
            asks_each: 1_000,
            eager: r.pick(&[8, 16]),
            // What is put off is soon tried again, and no epoch takes too long.
            ticks_each: 200,
            queue: 64,
            sweep_growth: 1,
            sweep_bytes: 0,
            sweep_least: r.pick(&[1, 1, 2]),
            segment_bytes: of.longest(),
            ration: Some(r.pick(&[1, 2, 4]).max(of.records / 60)),
            savepoint: None,
            timeout_us: 100_000_000,
            max_uncommitted: r.pick(&[1, 2, 3, 8]),
            seed: r.bits(),
        }
    }

    /// One of either kind, with a savepoint, and now and then with a drain.
    pub fn moving(r: &mut Random, key_groups: u32, natural: bool, of: Amount) -> Life {
        let steps = |r: &mut Random| {
            let most = 1 << r.between(4, 12);
            r.between(1, most) as u64
        };
        let mut life = match r.one_in(2) {
            true => Life::draw(r, key_groups, natural, of),
            false => Life::patient(r, key_groups, natural, of),
        };
        if !natural {
            life.fate = match r.below(8) {
                0 | 1 => Fate::Drain(steps(r), r.pick(&[1, 30, 1_000, u64::MAX, u64::MAX])),
                2 => Fate::Stop(steps(r)),
                _ => life.fate,
            };
        }
        if r.one_in(2) {
            life.savepoint = Some((steps(r), r.pick(&[0, 0, 300, 3_000])));
        }
        life
    }

    /// How it keeps its checkpoints.
    pub fn on<'a>(&self, disk: &'a SharedDisk) -> OnDisk<'a> {
        let small = OnDisk::small(disk);
        OnDisk {
            sweep_growth: self.sweep_growth,
            sweep_bytes: self.sweep_bytes,
            sweep_least: self.sweep_least,
            writer: WriterConfig {
                segment_bytes: self.segment_bytes,
                frame_bytes_max: self.segment_bytes - BESIDES,
                ..small.writer
            },
            ..small
        }
    }

    /// What it runs on.
    pub fn disk(&self, disk: MemoryDisk) -> FaultyDisk {
        let disk = FaultyDisk::new(disk)
            .with_shuffle(self.seed | 1)
            .with_queue(self.queue);
        match self.fate {
            Fate::Halt(at) => disk.with_halt(at),
            _ => disk,
        }
    }
}
