//! Runs a job of the engine through crashes, losses of power, stops and other numbers of shards, on a disk that loses what
//! was not synced, and holds what its sinks show against the model.
//!
//! A *life* is one process: it opens the folder, goes on from the last checkpoint, and ends as it was drawn to end. The sinks
//! and the disk outlive it. The last life is left alone until the job is through.
//!
//! A *series* is the lives of one job. Where savepoints are taken, another job starts from one of them, with sinks that show what
//! the first job's did at that epoch, and a series of its own: it must come to the same end.

mod life;
mod living;
mod tally;

pub(crate) use life::{Fate, Life};
pub(crate) use living::Ended;
pub use tally::Faults;

use crate::compare::{compare_counters, compare_out};
use crate::job::Outputs;
use crate::meter::{Meter, Places};
use crate::model::{Outcome, judge};
use crate::random::Random;
use crate::run::Out;
use crate::spec::{Case, Spec};
use life::Amount;
use living::{Copied, Lived, Place, live};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};

/// Of which kind the lives are that a case is taken through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Of any length, most of them of an epoch or none.
    Any,
    /// Of many epochs, with sweeps over several of them.
    Patient,
    /// Of both kinds, with savepoints that other jobs start from, and jobs that are drained before they are through.
    Moving,
}

impl Manner {
    fn draw(self, r: &mut Random, key_groups: u32, natural: bool, of: Amount) -> Life {
        match self {
            Manner::Any => Life::draw(r, key_groups, natural, of),
            Manner::Patient => Life::patient(r, key_groups, natural, of),
            Manner::Moving => Life::moving(r, key_groups, natural, of),
        }
    }
}

/// Jobs that start one from another, at the most.
const JOBS_MAX: u8 = 3;

/// Runs a case through its lives; an error says what differs from the model, or what went wrong.
pub fn survive(case: &Case, manner: Manner) -> Result<Faults, String> {
    let mut random = Random::new(case.seed ^ 0x5EED);
    let outputs = Outputs::new(Some(random.bits()));
    let key_groups = random.pick(&[256, 256, 16]);
    let mut series = Series {
        spec: &case.spec,
        manner,
        key_groups,
        amount: Amount::of(&judge(&case.spec)),
        number: 1,
        outputs,
        places: Places::default(),
        from: None,
        told: vec![],
        faults: Faults::default(),
    };
    loop {
        let next = series.until_over(&mut random).map_err(|e| series.told(e))?;
        series.faults.refused += series.outputs.refused();
        let Some((from, outputs)) = next.filter(|_| series.number < JOBS_MAX) else {
            return Ok(series.faults);
        };
        series.faults.moved += 1;
        series = Series {
            number: series.number + 1,
            outputs,
            places: from.places.clone(),
            from: Some(from),
            told: vec![],
            ..series
        };
    }
}

/// The lives of one job.
struct Series<'a> {
    spec: &'a Spec,
    manner: Manner,
    key_groups: u32,
    amount: Amount,
    /// 1 for the job that starts from nothing.
    number: u8,
    outputs: Outputs,
    /// Where the sources stand.
    places: Places,
    from: Option<Copied>,
    told: Vec<Life>,
    faults: Faults,
}

impl Series<'_> {
    /// An error with the lives that led to it.
    fn told(&self, what: String) -> String {
        let (number, lives) = (self.number, &self.told);
        format!("{what}\nin the last of the lives of job {number} {lives:#?}")
    }

    /// Lives until the job is through, and compares. What another job may start from: a savepoint, and what was visible by then.
    fn until_over(&mut self, random: &mut Random) -> Result<Option<(Copied, Outputs)>, String> {
        let mut disk = MemoryDisk::new();
        disk.set_capacity(u64::MAX);
        let mut disturbed = random.between(4, 10);
        let mut next = None;
        let mut has_swept = false;
        let counters = loop {
            let natural = disturbed <= 0;
            disturbed -= 1;
            let before = self.faults;
            let life = (self.manner).draw(random, self.key_groups, natural, self.amount);
            let lived = self.live(&life, disk)?;
            if let Some(copied) = lived.copied {
                let outputs = self.outputs.as_of(copied.epoch, random.bits());
                next = Some((copied, outputs));
            }
            let recovered = self.faults.recoveries > before.recoveries;
            self.faults.swept_recoveries += u64::from(has_swept && recovered);
            has_swept |= self.faults.sweeps > before.sweeps;
            disk = match &lived.ended {
                Ended::Over(_) => lived.disk.kill(),
                Ended::Died => die(&lived.disk, random, &mut self.faults),
                Ended::Failed(e) => return Err(e.to_string()),
            };
            match lived.ended {
                Ended::Over(counters) if !matches!(life.fate, Fate::Stop(_)) => break counters,
                _ => {}
            }
        };
        let outcome = self.outcome()?;
        compare_counters(&outcome, &counters)?;
        judged(self.spec, &outcome, &self.outputs)?;
        if random.one_in(4) {
            self.again(&outcome, disk, random)?;
        }
        Ok(next)
    }

    fn live(&mut self, life: &Life, disk: MemoryDisk) -> Result<Lived, String> {
        let meter = match life.ration {
            Some(_) => Meter::rationed(),
            None => Meter::default(),
        };
        meter.put(self.places.clone());
        let before = self.told.last().map(|l| l.sizes.shards);
        let place = Place {
            spec: self.spec,
            outputs: &self.outputs,
            meter,
            from: self.from.as_ref(),
            lineage: self.number,
            rescales: before.is_some_and(|s| s != life.sizes.shards),
        };
        self.told.push(life.clone());
        let lived = live(&place, life, life.disk(disk), &mut self.faults)?;
        self.places = place.meter.places();
        Ok(lived)
    }

    /// What the job must have given: of a job that was drained, what its sources had handed over.
    fn outcome(&mut self) -> Result<Outcome, String> {
        let mut spec = self.spec.clone();
        let mut unread = 0;
        for (s, source) in spec.sources.iter_mut().enumerate() {
            for (p, partition) in source.partitions.iter_mut().enumerate() {
                let read = self.places.get(&(s, p)).copied().unwrap_or(0) as usize;
                unread += partition.len() - read;
                partition.truncate(read);
            }
        }
        let drains = |l: &Life| matches!(l.fate, Fate::Drain(..));
        let was_drained = self.told.iter().any(drains) || self.from.is_some();
        self.faults.drained += u64::from(unread > 0);
        match unread > 0 && !was_drained {
            true => Err(format!("it was through with {unread} records unread")),
            false => Ok(judge(&spec)),
        }
    }

    /// A job that is through is started once more, with whatever number of shards: nothing comes of it.
    fn again(
        &mut self,
        outcome: &Outcome,
        disk: MemoryDisk,
        random: &mut Random,
    ) -> Result<(), String> {
        let life = Life::draw(random, self.key_groups, true, self.amount);
        self.faults.started_again += 1;
        let lived = self.live(&life, disk)?;
        match lived.ended {
            Ended::Failed(e) => return Err(format!("started again when it was through: {e}")),
            Ended::Over(counters) => compare_counters(outcome, &counters)?,
            Ended::Died => {}
        }
        judged(self.spec, outcome, &self.outputs)
            .map_err(|e| format!("{e}\nstarted again when it was through"))
    }
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

/// Runs one life of a job that starts from nothing but what is in its folder; how it ended, its disk as it is, and the epochs that it
/// completed.
pub(crate) fn one_life(
    spec: &Spec,
    life: &Life,
    disk: FaultyDisk,
    outputs: &Outputs,
) -> Result<(Ended, SharedDisk, u64), String> {
    let mut faults = Faults::default();
    let place = Place {
        spec,
        outputs,
        meter: Meter::default(),
        from: None,
        lineage: 1,
        rescales: false,
    };
    let lived = live(&place, life, disk, &mut faults)?;
    Ok((lived.ended, lived.disk, faults.completed))
}
