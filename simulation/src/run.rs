//! Runs a job of the engine step by step, as drawn from a seed.

use crate::job::{Outputs, build};
use crate::meter::Meter;
use crate::random::Random;
use crate::record::{Rec, Row};
use crate::schedule::Schedule;
use crate::spec::Spec;
use pelton::Span;
use pelton::push::{Counters, DeadLetter};
use pelton::tasklet::Progress;
use pelton::testing::{Sizes, Stepper};

/// Steps after which a job that has not ended is taken not to end.
const STEPS_MAX: u64 = 3_000_000;

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// Its sizes, for messages.
    pub sizes: Sizes,
    /// Seed of its schedule and its sources' portions.
    pub seed: u64,
    /// Records read from sources.
    pub read: u64,
    /// What came out.
    pub out: Out,
    /// What was counted.
    pub counters: Counters,
}

/// What came out of a run.
#[derive(Debug)]
pub struct Out {
    /// Records at the end, with their times, in order of arrival.
    pub records: Vec<(Rec, i64)>,
    /// Results with their times, in order of arrival.
    pub rows: Vec<(Row, i64)>,
    /// The late output.
    pub late: Vec<(Rec, i64)>,
    /// The dead letters.
    pub dead: Vec<DeadLetter>,
}

impl Out {
    /// What is visible now.
    pub(crate) fn of(outputs: &Outputs) -> Self {
        let dead = outputs.dead.visible().into_iter();
        Out {
            records: outputs.records.visible(),
            rows: outputs.rows.visible(),
            late: outputs.late.visible(),
            dead: dead.map(|(letter, _)| letter).collect(),
        }
    }
}

/// Runs `spec` on `shards` shards; the rest is drawn from `seed`.
pub fn run(spec: &Spec, shards: usize, seed: u64) -> Result<Run, String> {
    let mut random = Random::new(seed);
    let sizes = Sizes {
        shards,
        batch_size: random.pick(&[1, 2, 7, 33, 300]),
        ring_capacity: random.between(2, 16) as usize,
        key_groups: random.pick(&[256, 256, 16]),
    };
    let meter = Meter::default();
    let outputs = Outputs::new(None);
    let job = build(spec, random.bits() >> 1, &meter, &outputs);
    let mut stepper = Stepper::with(&job, sizes).map_err(|e| format!("not built: {e}"))?;
    let mut schedule = Schedule::new(random.bits());
    let naps = spec.sources.iter().any(|s| s.idle_after.is_some());
    let (mut steps, mut still) = (0, 0);
    while !stepper.all_done() {
        steps += 1;
        if steps > STEPS_MAX {
            return Err(format!("no end after {STEPS_MAX} steps, {sizes:?}"));
        }
        let tasklet = schedule.next(stepper.tasklets());
        match stepper.step(tasklet) {
            Ok(Progress::Worked) => still = 0,
            Ok(_) => still += 1,
            Err(e) => return Err(format!("{e}, {sizes:?}")),
        }
        if naps && random.one_in(50) {
            stepper.advance_clock(Span::from_micros(random.between(1, 3_000)));
        }
        if still > 100 * stepper.tasklets() {
            stepper.advance_clock(Span::from_micros(1_000));
            still = 0;
        }
    }
    let counters = stepper.counters();
    Ok(Run {
        sizes,
        seed,
        read: meter.read(),
        out: Out::of(&outputs),
        counters,
    })
}
