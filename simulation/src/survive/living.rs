//! One process of a job: it is opened, stepped, and ends as it was drawn to end.

use super::life::{Fate, Life};
use super::tally::Faults;
use crate::job::{Outputs, build};
use crate::meter::{Meter, Places};
use crate::random::Random;
use crate::schedule::Schedule;
use crate::spec::Spec;
use pelton::push::Counters;
use pelton::tasklet::Progress;
use pelton::testing::Stepper;
use pelton::{Checkpointing, Epoch, JobError, Span, Stop};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};

/// Steps after which a life that has not ended is taken not to end.
const STEPS_MAX: u64 = 3_000_000;

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

/// A savepoint that was copied.
pub(super) struct Copied {
    pub epoch: Epoch,
    pub disk: SharedDisk,
    /// Where the sources stood when it was: those of them that had ended stand there still.
    pub places: Places,
    pub shards: usize,
}

/// What a life is lived in.
pub(super) struct Place<'a> {
    pub spec: &'a Spec,
    pub outputs: &'a Outputs,
    /// Where the sources stand.
    pub meter: Meter,
    /// What the job starts from while its folder holds nothing, and with how many shards that was written.
    pub from: Option<&'a Copied>,
    /// The number of the job: one that starts from another's savepoint is another job.
    pub lineage: u8,
    /// Whether the life before had another number of shards.
    pub rescales: bool,
}

/// What came of a life.
pub(super) struct Lived {
    pub ended: Ended,
    /// As it is.
    pub disk: SharedDisk,
    pub copied: Option<Copied>,
}

/// Runs one life on `disk`; an error says what should never be.
pub(super) fn live(
    place: &Place<'_>,
    life: &Life,
    disk: FaultyDisk,
    faults: &mut Faults,
) -> Result<Lived, String> {
    let mut random = Random::new(life.seed);
    let disk = SharedDisk::new(disk);
    faults.lives += 1;
    let outputs = place.outputs;
    let job = build(place.spec, random.bits() >> 1, &place.meter, outputs);
    job.checkpoints(
        Checkpointing::in_folder("unused")
            .every(Span::from_micros(1_000))
            .timeout(Span::from_micros(life.timeout_us))
            .max_uncommitted(life.max_uncommitted),
    );
    let refused = outputs.refused();
    let mut on = life.on(&disk);
    on.lineage = [place.lineage; 16];
    on.from = place.from.map(|f| &f.disk);
    let stepper = match Stepper::on_disk(&job, life.sizes, &on) {
        Ok(stepper) => stepper,
        // Cut off by the disk's end, or a sink could not commit now: the next life tries again.
        Err(_) if disk.look(FaultyDisk::halted) || outputs.refused() > refused => {
            faults.in_recovery += 1;
            return Ok(Lived::with(Ended::Died, disk));
        }
        Err(e) => return Ok(Lived::with(Ended::Failed(e), disk)),
    };
    opened(place, life, &stepper, faults);
    let mut living = Living {
        actors: stepper.actors(),
        schedule: Schedule::new(random.bits()),
        stepper,
        life,
        disk: &disk,
        meter: &place.meter,
        random,
        steps: 0,
        still: 0,
        jump_us: 1_000,
        epochs: None,
        asked: false,
        ready: None,
        copied: None,
    };
    let ended = living.until_over(faults)?;
    let Living {
        stepper, copied, ..
    } = living;
    count(&stepper, life, &ended, faults)?;
    faults.savepoints += u64::from(copied.is_some());
    match stepper.counters().invariant_broken {
        0 => Ok(Lived {
            copied,
            ..Lived::with(ended, disk)
        }),
        n => Err(format!("{n} times M > V(r)")),
    }
}

impl Lived {
    fn with(ended: Ended, disk: SharedDisk) -> Self {
        Lived {
            ended,
            disk,
            copied: None,
        }
    }
}

/// What the life went on from.
fn opened(place: &Place<'_>, life: &Life, stepper: &Stepper, faults: &mut Faults) {
    let Some((epoch, restored)) = stepper.from() else {
        place.meter.put(Places::default());
        return;
    };
    faults.recoveries += 1;
    faults.entries += restored.entries;
    // Epochs of a new lineage begin anew, and one may have the number of the savepoint's: that is not told apart here.
    match place.from {
        Some(from) if from.epoch == epoch => {
            faults.moved_rescaled += u64::from(from.shards != life.sizes.shards);
        }
        Some(_) => faults.moved_recoveries += 1,
        None => {}
    }
    faults.rescaled += u64::from(place.rescales);
}

fn count(stepper: &Stepper, life: &Life, ended: &Ended, faults: &mut Faults) -> Result<(), String> {
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
    Ok(())
}

/// A job that is stepped.
struct Living<'a> {
    stepper: Stepper,
    actors: usize,
    life: &'a Life,
    disk: &'a SharedDisk,
    meter: &'a Meter,
    random: Random,
    schedule: Schedule,
    steps: u64,
    /// Steps since something last moved.
    still: usize,
    /// Where nothing moves time goes faster and faster: a commit that was put off waits long.
    jump_us: i64,
    /// Epochs completed when sources last had a ration.
    epochs: Option<u64>,
    /// The savepoint has been asked for.
    asked: bool,
    /// The step at which it was ready.
    ready: Option<u64>,
    copied: Option<Copied>,
}

impl Living<'_> {
    fn until_over(&mut self, faults: &mut Faults) -> Result<Ended, String> {
        while !self.stepper.all_done() {
            if self.dies(faults) {
                return Ok(Ended::Died);
            }
            self.save();
            self.ration();
            self.steps += 1;
            if self.steps > STEPS_MAX {
                let phase = self.stepper.phase();
                return Err(format!("no end, the coordinator is {phase}"));
            }
            if self.random.one_in(self.life.asks_each) {
                self.stepper.checkpoint();
            }
            if self.random.one_in(self.life.ticks_each) {
                let by = self.random.between(1, 1_000);
                self.stepper.advance_clock(Span::from_micros(by));
            }
            // Where only commits are waited for, and functions by the clock move for ever: the same.
            if self.stepper.phase() == "committing" && self.random.one_in(20) {
                let by = self.random.between(1, 10_000);
                self.stepper.advance_clock(Span::from_micros(by));
            }
            match self.step() {
                Ok(Progress::Worked) => (self.still, self.jump_us) = (0, 1_000),
                Ok(_) => self.still += 1,
                Err(e) => return Ok(Ended::Failed(e)),
            }
            self.wait();
        }
        // A job may be over before its savepoint was copied: then that is what is left to do.
        if self.stepper.savepoint_ready().is_some() {
            self.copy();
        }
        Ok(Ended::Over(self.stepper.counters()))
    }

    /// Does what the life was drawn to end with; whether it dies here.
    fn dies(&mut self, faults: &mut Faults) -> bool {
        let steps = self.steps;
        match self.life.fate {
            Fate::Crash(at) if steps == at => {
                faults.crashes += 1;
                return true;
            }
            Fate::Behind(at)
                if steps >= 8 * at
                    || (steps >= at && self.stepper.checkpoints().uncommitted > 1) =>
            {
                faults.crashes += 1;
                return true;
            }
            Fate::Epochs(most) if self.epochs.is_some_and(|epochs| epochs >= most) => {
                faults.crashes += 1;
                return true;
            }
            Fate::Stop(at) if steps == at => {
                faults.stops += 1;
                if self.life.savepoint.is_some() && !self.asked {
                    // Both before the next step: one epoch is the last, and the savepoint's.
                    self.asked = true;
                    self.stepper.savepoint();
                }
                self.stepper.stop(Stop::Keep);
            }
            Fate::Drain(at, _) if steps == at => self.stepper.stop(Stop::Drain),
            Fate::Drain(at, later) if steps == at.saturating_add(later) => {
                faults.died_draining += 1;
                return true;
            }
            _ => {}
        }
        let halted = self.still == 0 && self.disk.look(FaultyDisk::halted);
        faults.halts += u64::from(halted);
        halted
    }

    /// Asks for a savepoint, and copies it, in their time.
    fn save(&mut self) {
        let Some((at, later)) = self.life.savepoint else {
            return;
        };
        if self.steps == at && !self.asked {
            self.asked = true;
            self.stepper.savepoint();
        }
        if !self.asked || self.copied.is_some() {
            return;
        }
        if self.ready.is_none() && self.stepper.savepoint_ready().is_some() {
            self.ready = Some(self.steps);
        }
        if self.ready.is_some_and(|ready| self.steps >= ready + later) {
            self.copy();
        }
    }

    fn copy(&mut self) {
        let mut empty = MemoryDisk::new();
        empty.set_capacity(u64::MAX);
        let disk = SharedDisk::new(FaultyDisk::new(empty));
        // The disk may be cut off meanwhile: then there is none.
        if let Some(Ok(epoch)) = self.stepper.copy_savepoint(&disk) {
            self.copied = Some(Copied {
                epoch,
                disk,
                places: self.meter.places(),
                shards: self.life.sizes.shards,
            });
        }
    }

    /// A ration for each epoch, and an epoch when one is used up: so a job of few records has many epochs.
    fn ration(&mut self) {
        let Some(each) = self.life.ration.filter(|_| self.meter.is_used()) else {
            return;
        };
        let completed = self.stepper.checkpoints().completed;
        if self.epochs.is_none_or(|epochs| completed > epochs) {
            self.epochs = Some(completed);
            self.meter.give(each);
        } else if self.stepper.phase() == "idle" {
            self.stepper.checkpoint();
        }
    }

    /// One step, and what comes with it.
    fn step(&mut self) -> Result<Progress, JobError> {
        let mut worked = self.stepper.step(self.schedule.next(self.actors))?;
        for _ in 0..self.life.eager {
            let last = self.random.below(self.life.sizes.shards + 3);
            if self.stepper.all_done() {
                break;
            }
            if self.stepper.step(self.actors - 1 - last)? == Progress::Worked {
                worked = Progress::Worked;
            }
        }
        Ok(worked)
    }

    /// Where nothing moves, time does.
    fn wait(&mut self) {
        if self.still > self.actors && self.stepper.phase() == "committing" {
            // A commit that was put off is tried again in its time: most of the steps of all lives would be spent on that.
            self.stepper.advance_clock(Span::from_micros(50_000));
            self.still = 0;
        } else if self.still > 20 * self.actors {
            self.stepper.advance_clock(Span::from_micros(self.jump_us));
            self.meter.give(1);
            (self.still, self.jump_us) = (0, (2 * self.jump_us).min(64_000));
        }
    }
}
