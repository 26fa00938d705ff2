//! Runs a job of the engine through crashes, losses of power, stops and other numbers of shards, on a disk that loses what
//! was not synced, and holds what its sinks show against the model.
//!
//! A *life* is one process: it opens the folder, goes on from the last checkpoint, and ends as it was drawn to end. The sinks
//! and the disk outlive it. The last life is left alone until the job is through.

use crate::compare::{SHARDS, compare_counters, compare_out};
use crate::job::{Outputs, build};
use crate::model::{Outcome, judge};
use crate::random::Random;
use crate::run::Out;
use crate::schedule::Schedule;
use crate::spec::{Case, Spec};
use pelton::push::Counters;
use pelton::tasklet::Progress;
use pelton::testing::{OnDisk, Sizes, Stepper};
use pelton::{Checkpointing, JobError, Span, Stop};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Steps after which a life that has not ended is taken not to end.
const STEPS_MAX: u64 = 3_000_000;

/// What happened to one job or many, so that a test can say that something did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Processes that ran.
    pub lives: u64,
    /// Lives that ended between two steps.
    pub crashes: u64,
    /// Lives that ended at an operation of the disk, the job running.
    pub halts: u64,
    /// Lives that ended before the job ran.
    pub in_recovery: u64,
    /// Ends that the machine did not survive, with something unsynced.
    pub power_losses: u64,
    /// Lives that stopped and kept their windows.
    pub stops: u64,
    /// Lives that went on from a checkpoint.
    pub recoveries: u64,
    /// Those among them with another number of shards than the life before.
    pub rescaled: u64,
    /// Entries that they read.
    pub entries: u64,
    /// Jobs that were through and were started once more.
    pub started_again: u64,
    /// Epochs that were decided and committed.
    pub completed: u64,
    /// Epochs that were given up.
    pub given_up: u64,
    /// Sweeps that were through.
    pub sweeps: u64,
    /// Lives in which one was.
    pub swept_lives: u64,
    /// Segments that sweeps made useless.
    pub segments_removed: u64,
    /// Commits that were put off.
    pub refused: u64,
    /// Lives in which several epochs were decided and uncommitted at once.
    pub overlapped: u64,
    /// Lives that were cut off while several were.
    pub cut_behind: u64,
    /// How often sources had to wait for commits.
    pub waits: u64,
}

impl Faults {
    /// Adds what happened elsewhere.
    pub fn add(&mut self, other: &Faults) {
        self.lives += other.lives;
        self.crashes += other.crashes;
        self.halts += other.halts;
        self.in_recovery += other.in_recovery;
        self.power_losses += other.power_losses;
        self.stops += other.stops;
        self.recoveries += other.recoveries;
        self.rescaled += other.rescaled;
        self.entries += other.entries;
        self.started_again += other.started_again;
        self.completed += other.completed;
        self.given_up += other.given_up;
        self.sweeps += other.sweeps;
        self.swept_lives += other.swept_lives;
        self.segments_removed += other.segments_removed;
        self.refused += other.refused;
        self.overlapped += other.overlapped;
        self.cut_behind += other.cut_behind;
        self.waits += other.waits;
    }
}

/// How a life is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With the job.
    Natural,
    /// After so many steps.
    Crash(u64),
    /// At this operation of the disk.
    Halt(u64),
    /// After so many steps, as soon as several epochs are uncommitted; after eight times as many whatever is.
    Behind(u64),
    /// With a last checkpoint, asked for after so many steps.
    Stop(u64),
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
    /// How long an epoch may take.
    pub timeout_us: i64,
    /// Epochs that may be uncommitted.
    pub max_uncommitted: usize,
    pub seed: u64,
}

impl Life {
    fn draw(r: &mut Random, key_groups: u32, natural: bool) -> Life {
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
            timeout_us: r.pick(&[1_000, 10_000, 100_000, 1_000_000]),
            max_uncommitted: r.pick(&[1, 2, 3, 3, 8]),
            seed: r.bits(),
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

/// Why a life ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The job is over, by itself or because it was stopped, and has counted this in all its lives.
    Over(Counters),
    /// The process died.
    Died,
    /// The job failed, or could not be opened.
    Failed(JobError),
}

/// Runs a case through its lives; an error says what differs from the model, or what went wrong.
pub fn survive(case: &Case) -> Result<Faults, String> {
    let outcome = judge(&case.spec);
    let mut random = Random::new(case.seed ^ 0x5EED);
    let outputs = Outputs::new(Some(random.bits()));
    let mut disk = MemoryDisk::new();
    disk.set_capacity(u64::MAX);
    let key_groups = random.pick(&[256, 256, 16]);
    let mut disturbed = random.between(4, 10);
    let mut faults = Faults::default();
    let mut shards = None;
    let mut told = vec![];
    loop {
        let natural = disturbed <= 0;
        disturbed -= 1;
        let life = Life::draw(&mut random, key_groups, natural);
        told.push(life.clone());
        let context = |what: String| format!("{what}\nin the last of the lives {told:#?}");
        let before = shards.replace(life.sizes.shards);
        let rescales = before.is_some_and(|s| s != life.sizes.shards);
        let started = life.disk(disk);
        let (ended, after) =
            live(&case.spec, &life, started, &outputs, rescales, &mut faults).map_err(&context)?;
        disk = match &ended {
            Ended::Over(_) => after.kill(),
            Ended::Died => die(&after, &mut random, &mut faults),
            Ended::Failed(e) => return Err(context(e.to_string())),
        };
        let stopped = matches!(life.fate, Fate::Stop(_));
        if let Ended::Over(counters) = ended
            && !stopped
        {
            compare_counters(&outcome, &counters).map_err(context)?;
            break;
        }
    }
    judged(&case.spec, &outcome, &outputs).map_err(|e| format!("{e}\nlives {told:#?}"))?;
    if random.one_in(4) {
        again(
            case,
            &outcome,
            disk,
            &outputs,
            &mut random,
            key_groups,
            &mut faults,
        )?;
    }
    faults.refused = outputs.refused();
    Ok(faults)
}

/// A job that is through is started once more, with whatever number of shards: nothing comes of it.
fn again(
    case: &Case,
    outcome: &Outcome,
    disk: MemoryDisk,
    outputs: &Outputs,
    random: &mut Random,
    key_groups: u32,
    faults: &mut Faults,
) -> Result<(), String> {
    let life = Life::draw(random, key_groups, true);
    faults.started_again += 1;
    let (ended, _) = live(&case.spec, &life, life.disk(disk), outputs, false, faults)?;
    match ended {
        Ended::Failed(e) => return Err(format!("started again when it was through: {e}")),
        Ended::Over(counters) => compare_counters(outcome, &counters)?,
        Ended::Died => {}
    }
    judged(&case.spec, outcome, outputs)
        .map_err(|e| format!("{e}\nstarted again when it was through, {life:?}"))
}

pub(crate) fn judged(spec: &Spec, outcome: &Outcome, outputs: &Outputs) -> Result<(), String> {
    match outputs.faults().first() {
        Some(fault) => Err(fault.clone()),
        None => compare_out(spec, outcome, &Out::of(outputs)),
    }
}

/// What the end of a process leaves of the disk.
fn die(disk: &SharedDisk, random: &mut Random, faults: &mut Faults) -> MemoryDisk {
    if random.one_in(3) {
        return disk.kill();
    }
    let unsynced = disk.look(|d| d.unsynced().len());
    faults.power_losses += u64::from(unsynced > 0);
    // All lost, none, and what lies between.
    match random.pick(&[0, 1, 2, 2, 8]) {
        0 => disk.crash(|_| false),
        1 => disk.crash(|_| true),
        n => disk.crash(|_| random.one_in(n)),
    }
}

/// Runs one life on `disk`, which it hands back as it is.
pub(crate) fn live(
    spec: &Spec,
    life: &Life,
    disk: FaultyDisk,
    outputs: &Outputs,
    rescales: bool,
    faults: &mut Faults,
) -> Result<(Ended, SharedDisk), String> {
    let mut random = Random::new(life.seed);
    let disk = SharedDisk::new(disk);
    faults.lives += 1;
    let job = build(
        spec,
        random.bits() >> 1,
        &Arc::new(AtomicU64::new(0)),
        outputs,
    );
    job.checkpoints(
        Checkpointing::in_folder("unused")
            .every(Span::from_micros(1_000))
            .timeout(Span::from_micros(life.timeout_us))
            .max_uncommitted(life.max_uncommitted),
    );
    let on = OnDisk {
        sweep_growth: life.sweep_growth,
        sweep_bytes: life.sweep_bytes,
        sweep_least: life.sweep_least,
        ..OnDisk::small(&disk)
    };
    let refused = outputs.refused();
    let mut stepper = match Stepper::on_disk(&job, life.sizes, &on) {
        Ok(stepper) => stepper,
        // Cut off by the disk's end, or a sink could not commit now: the next life tries again.
        Err(_) if disk.look(FaultyDisk::halted) || outputs.refused() > refused => {
            faults.in_recovery += 1;
            return Ok((Ended::Died, disk));
        }
        Err(e) => return Ok((Ended::Failed(e), disk)),
    };
    faults.recoveries += u64::from(stepper.from().is_some());
    faults.entries += stepper.from().map_or(0, |(_, restored)| restored.entries);
    faults.rescaled += u64::from(stepper.from().is_some() && rescales);
    let ended = steps(&mut stepper, life, &disk, &mut random, faults)?;
    let figures = stepper.checkpoints();
    faults.completed += figures.completed;
    faults.given_up += figures.given_up;
    faults.sweeps += figures.sweeps;
    faults.swept_lives += u64::from(figures.sweeps > 0);
    faults.segments_removed += figures.segments_removed;
    faults.overlapped += u64::from(figures.uncommitted_max > 1);
    faults.cut_behind += u64::from(matches!(ended, Ended::Died) && figures.uncommitted > 1);
    faults.waits += figures.waits;
    if figures.uncommitted_max > life.max_uncommitted as u64 {
        let (most, may) = (figures.uncommitted_max, life.max_uncommitted);
        return Err(format!("{most} epochs were uncommitted, and {may} may be"));
    }
    match stepper.counters().invariant_broken {
        0 => Ok((ended, disk)),
        n => Err(format!("{n} times M > V(r)")),
    }
}

/// Steps until the life's end.
fn steps(
    stepper: &mut Stepper,
    life: &Life,
    disk: &SharedDisk,
    random: &mut Random,
    faults: &mut Faults,
) -> Result<Ended, String> {
    let mut schedule = Schedule::new(random.bits());
    let actors = stepper.actors();
    let (mut steps, mut still) = (0, 0);
    // Where nothing moves time goes faster and faster: a commit that was put off waits long.
    let mut jump_us = 1_000;
    while !stepper.all_done() {
        match life.fate {
            Fate::Crash(at) if steps == at => {
                faults.crashes += 1;
                return Ok(Ended::Died);
            }
            Fate::Behind(at)
                if steps >= 8 * at || (steps >= at && stepper.checkpoints().uncommitted > 1) =>
            {
                faults.crashes += 1;
                return Ok(Ended::Died);
            }
            Fate::Stop(at) if steps == at => {
                faults.stops += 1;
                stepper.stop(Stop::Keep);
            }
            _ if still == 0 && disk.look(FaultyDisk::halted) => {
                faults.halts += 1;
                return Ok(Ended::Died);
            }
            _ => {}
        }
        steps += 1;
        if steps > STEPS_MAX {
            return Err(format!("no end, the coordinator is {}", stepper.phase()));
        }
        if random.one_in(life.asks_each) {
            stepper.checkpoint();
        }
        if random.one_in(life.ticks_each) {
            stepper.advance_clock(Span::from_micros(random.between(1, 1_000)));
        }
        // Where only commits are waited for, and functions by the clock move for ever: the same.
        if stepper.phase() == "committing" && random.one_in(20) {
            stepper.advance_clock(Span::from_micros(random.between(1, 10_000)));
        }
        let mut worked = stepper.step(schedule.next(actors));
        for _ in 0..life.eager {
            let last = random.below(life.sizes.shards + 3);
            if worked.is_err() || stepper.all_done() {
                break;
            }
            match stepper.step(actors - 1 - last) {
                Ok(Progress::Worked) => worked = Ok(Progress::Worked),
                Ok(_) => {}
                Err(e) => worked = Err(e),
            }
        }
        match worked {
            Ok(Progress::Worked) => (still, jump_us) = (0, 1_000),
            Ok(_) => still += 1,
            Err(e) => return Ok(Ended::Failed(e)),
        }
        if still > 20 * actors {
            stepper.advance_clock(Span::from_micros(jump_us));
            (still, jump_us) = (0, (2 * jump_us).min(64_000));
        }
    }
    Ok(Ended::Over(stepper.counters()))
}
