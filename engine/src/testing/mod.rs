//! For tests of jobs: [`Driver`] runs one in the test's own thread and puts it through time, crashes and other numbers of shards.
//!
//! Under it lies the [`Stepper`], which steps a job by hand: every shard in one thread, virtual time, any order. The simulation stands on it too.
//!
//! ```
//! use pelton::testing::{self, Stepper};
//! use pelton::{EventTime, Job, Spans, Tumbling, Watermarks};
//! let (feed, source) = testing::feed::<(i64, u64)>(1);
//! let (results, sink) = testing::collect();
//! let job = Job::new("counts");
//! job.source(source)
//!    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::monotonous())
//!    .key_by(|r| r.1)
//!    .window(Tumbling::of(10.seconds()))
//!    .aggregate(|a| a.count())
//!    .sink(sink);
//! let mut stepper = Stepper::new(&job, 2).unwrap();
//! feed.push(0, (1, 7));
//! feed.push(0, (2, 7));
//! feed.push(0, (12, 7));
//! stepper.until_idle().unwrap();
//! assert_eq!(results.take()[0].value, 2);
//! ```

mod collect;
pub mod conformance;
mod driver;
mod ends;
mod feed;
mod on_disk;
mod query;

pub use collect::{Collected, CollectedWriter, Collector, collect};
pub use driver::Driver;
pub use ends::{Input, Output, OutputSink, OutputWriter};
pub use feed::{Feed, FeedReader, FeedSource, feed};
pub use on_disk::OnDisk;
/// What the folder of [`OnDisk`] is made of: `SharedDisk::new(FaultyDisk::new(MemoryDisk::new()))`.
pub use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
pub use query::Stepped;

use crate::checkpoint::DiskKind;

use crate::budget::{self, StateSize, summed};
use crate::checkpoint::{Checkpoints, Epoch, Restored, Stop, uid_of};
use crate::error::{BuildError, JobError};
use crate::key::DEFAULT_KEY_GROUPS;
use crate::latency::Latencies;
use crate::plan::{BuiltJob, OpInfo, Plan, PlanConfig, Warning};
use crate::port::{Ports, Start};
use crate::push::Counters;
use crate::query::{Ask, Queryable};
use crate::runtime::{Panic, catch, install_panic_hook};
use crate::skew::{Share, Shares};
use crate::stage::source::earliest;
use crate::stream::Job;
use crate::tasklet::{Now, Progress, Tasklet};
use crate::time::{EventTime, Span};
use pelton_storage::StorageError;

/// Sizes of a stepped job.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Shards.
    pub shards: usize,
    /// Records a batch holds at most.
    pub batch_size: usize,
    /// Frames a ring holds at most.
    pub ring_capacity: usize,
    /// Key groups of the job.
    pub key_groups: u32,
}

impl Sizes {
    /// The runtime's sizes with so many shards.
    pub fn shards(shards: usize) -> Self {
        Sizes {
            shards,
            batch_size: 1024,
            ring_capacity: 16,
            key_groups: DEFAULT_KEY_GROUPS,
        }
    }
}

/// A folder as a shard of a running runtime has it for its checkpoints, with this kind of disk: whoever holds it may measure it or hold
/// it to [`pelton_storage::conformance`]. Used on the shard itself (by a source's reader) it is as a job's; from elsewhere each
/// operation has to reach the shard first. The shard's doorbell is rung after each completion.
///
/// # Errors
/// There is no such disk on this driver, or no such shard; the folder cannot be made.
pub fn shard_disk(
    runtime: &crate::Runtime,
    shard: usize,
    kind: DiskKind,
    folder: &std::path::Path,
) -> Result<Box<dyn pelton_storage::Disk + Send>, BuildError> {
    runtime.shard_disk(shard, kind, folder)
}

struct Place {
    tasklet: Box<dyn Tasklet>,
    stage: usize,
    shard: usize,
    done: bool,
    counters: Counters,
}

/// A job with all its tasklets, stepped by its owner.
///
/// One that takes checkpoints has further actors, each with steps of its own: the parts of its shards, the coordinator,
/// the disk and the sinks' commits. So whoever chooses the steps chooses when barriers pass, when states are written, when an operation
/// of the disk completes, how late sinks commit and where it all ends: dropping the stepper is the death of the process, and what the disk then loses is for
/// [`pelton_storage::SharedDisk::crash`] to say.
pub struct Stepper {
    name: String,
    ops: Vec<OpInfo>,
    stages: Vec<Vec<OpInfo>>,
    warnings: Vec<Warning>,
    /// Stages behind an exchange.
    exchanged: Vec<bool>,
    places: Vec<Place>,
    queryable: Vec<Queryable>,
    /// How many queries for a barrier there were.
    asked: u64,
    now: Now,
    control: Option<on_disk::Control>,
}

impl std::fmt::Debug for Stepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stepper({}, {} tasklets)", self.name, self.places.len())
    }
}

impl Stepper {
    /// Builds the job on `shards` shards; virtual time stands at 0.
    pub fn new(job: &Job, shards: usize) -> Result<Self, BuildError> {
        Self::with(job, Sizes::shards(shards))
    }

    /// Builds the job with these sizes. Ports serve their requests inside the step that makes them. No checkpoints are taken.
    pub fn with(job: &Job, sizes: Sizes) -> Result<Self, BuildError> {
        let mut built = build(job.plan.take(), sizes, false)?;
        built.start_sinks(&Start::default())?;
        Ok(Self::placed(built))
    }

    /// Builds the job with these sizes and has it take checkpoints in a folder in memory; where that holds one, the job goes
    /// on from it. Virtual time stands at 0. Restoring waits for the disk.
    ///
    /// # Errors
    /// The job is not good, or cannot go on from what is there, or the disk fails.
    pub fn on_disk(job: &Job, sizes: Sizes, on: &OnDisk<'_>) -> Result<Self, JobError> {
        let plan = job.plan.take();
        let config = on_disk::paced(plan.checkpointing.clone());
        let mut built = build(plan, sizes, true)?;
        let control = on_disk::open(&mut built, &config, sizes.key_groups, sizes.shards, on)?;
        let mut stepper = Self::placed(built);
        stepper.control = Some(control);
        Ok(stepper)
    }

    fn placed(built: BuiltJob) -> Self {
        let BuiltJob {
            name,
            ops,
            stages,
            queryable,
            warnings,
            ..
        } = built;
        let mut places = Vec::new();
        let mut stage_ops = Vec::new();
        let exchanged = stages.iter().map(|s| s.exchanged).collect();
        for (stage, built) in stages.into_iter().enumerate() {
            stage_ops.push(built.ops);
            for (shard, tasklet) in built.tasklets.into_iter().enumerate() {
                places.push(Place {
                    tasklet,
                    stage,
                    shard,
                    done: false,
                    counters: Counters::default(),
                });
            }
        }
        let now = Now {
            ns: 0,
            wall: EventTime::from_micros(0),
        };
        Stepper {
            name,
            ops,
            stages: stage_ops,
            warnings,
            exchanged,
            places,
            queryable,
            asked: 0,
            now,
            control: None,
        }
    }

    /// The job's pitfalls, those that its opened sources tell among them.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Number of tasklets: stages times shards. Tasklet `t` is stage `t / shards` on shard `t % shards`.
    pub fn tasklets(&self) -> usize {
        self.places.len()
    }

    /// Number of all that can be stepped: the tasklets and, where checkpoints are taken, behind them each shard's part, the
    /// coordinator, the disk and the sinks' commits.
    pub fn actors(&self) -> usize {
        self.places.len() + self.control.as_ref().map_or(0, |c| c.actors())
    }

    /// Whether a tasklet has finished.
    pub fn is_done(&self, tasklet: usize) -> bool {
        self.places[tasklet].done
    }

    /// Whether all have; where checkpoints are taken, whether the last one is committed.
    pub fn all_done(&self) -> bool {
        match &self.control {
            Some(control) => control.is_over(),
            None => self.places.iter().all(|p| p.done),
        }
    }

    /// What is known of the checkpoints; nothing where none are taken.
    pub fn checkpoints(&self) -> Checkpoints {
        let figures = self.control.as_ref().map(|c| c.figures());
        figures.unwrap_or_default()
    }

    /// The checkpoint that the job went on from, and what was read of it.
    pub fn from(&self) -> Option<(Epoch, Restored)> {
        self.control.as_ref().and_then(|c| c.from)
    }

    /// What the coordinator is at, for messages: `idle`, `writing`, `late`, `deciding`, `committing` (it waits for that), `over`.
    pub fn phase(&self) -> &'static str {
        self.control.as_ref().map_or("none", |c| c.phase())
    }

    /// Asks for a checkpoint now, whatever the interval says.
    pub fn checkpoint(&mut self) {
        if let Some(control) = &mut self.control {
            control.want();
        }
    }

    /// Asks for a savepoint: of an epoch that begins from now on.
    pub fn savepoint(&mut self) {
        if let Some(control) = &mut self.control {
            control.savepoint();
        }
    }

    /// The epoch of a savepoint that was asked for and may be copied. What it needs is kept until then.
    pub fn savepoint_ready(&mut self) -> Option<Epoch> {
        self.control.as_mut().and_then(|c| c.ready())
    }

    /// Copies that savepoint into an empty folder in memory: [`OnDisk::from`] starts another job from it. `None` if there is none. Waits
    /// for both disks.
    ///
    /// # Errors
    /// A disk failed. There is no savepoint then, and none waits any more.
    pub fn copy_savepoint(&mut self, to: &SharedDisk) -> Option<Result<Epoch, StorageError>> {
        self.control.as_mut().and_then(|c| c.copy(to))
    }

    /// Has the job stop after a last checkpoint.
    pub fn stop(&mut self, how: Stop) {
        if let Some(control) = &mut self.control {
            control.stop(how, self.now.ns);
        }
    }

    /// Moves virtual time forward, monotonic and wall clock alike.
    pub fn advance_clock(&mut self, by: Span) {
        self.now.ns += by.nanos();
        self.now.wall = self.now.wall + by;
    }

    /// Steps one of the [actors](Stepper::actors); a finished one says so again.
    pub fn step(&mut self, actor: usize) -> Result<Progress, JobError> {
        let Some(at) = actor.checked_sub(self.places.len()) else {
            return self.step_tasklet(actor);
        };
        let Some(control) = &mut self.control else {
            return Ok(Progress::Done);
        };
        match control.step(&self.name, at, &mut self.places, self.now.ns) {
            Ok(progress) => progress,
            Err(panic) => Err(JobError::Panic {
                job: self.name.clone(),
                op: BuiltJob::blame(&self.ops, &[], panic.op.map(|(op, _)| op)),
                shard: at,
                position: "a checkpoint".into(),
                message: panic.message,
            }),
        }
    }

    fn step_tasklet(&mut self, tasklet: usize) -> Result<Progress, JobError> {
        if self.control.as_ref().is_some_and(|c| c.is_over()) {
            // Another shard may have dropped its tasklets already.
            return Ok(Progress::Done);
        }
        let place = &mut self.places[tasklet];
        if place.done {
            return Ok(Progress::Done);
        }
        place.tasklet.cx().hold = self.control.as_ref().is_some_and(|c| c.holds());
        let stepped = catch(|| place.tasklet.step(self.now));
        let cx = place.tasklet.cx();
        cx.published = 0;
        place.counters.add(&cx.take_counters());
        if let Some(failure) = cx.failure.take() {
            return Err(failure);
        }
        let progress = self.outcome(tasklet, stepped)?;
        self.places[tasklet].done = progress == Progress::Done;
        Ok(progress)
    }

    /// What a step came to; a panic is told as the runtime tells it.
    fn outcome(
        &self,
        tasklet: usize,
        stepped: Result<Result<Progress, JobError>, Panic>,
    ) -> Result<Progress, JobError> {
        let place = &self.places[tasklet];
        match stepped {
            Ok(progress) => progress,
            Err(panic) => Err(JobError::Panic {
                job: self.name.clone(),
                op: BuiltJob::blame(
                    &self.ops,
                    &self.stages[place.stage],
                    panic.op.map(|(op, _)| op),
                ),
                shard: place.shard,
                position: place
                    .tasklet
                    .position(panic.op.and_then(|(_, index)| index)),
                message: panic.message,
            }),
        }
    }

    /// Steps all actors in turn until none moves: what arrived has been worked off.
    pub fn until_idle(&mut self) -> Result<(), JobError> {
        self.settle().map(|_| ())
    }

    /// The same; at which virtual time the first of them has something to do again although nothing comes, driver's nanoseconds.
    pub(crate) fn settle(&mut self) -> Result<Option<u64>, JobError> {
        // What an operation of the disk has brought a part finds in one turn and uses in the next, so it may have more to do after a
        // round in which nobody moved.
        let enough = 1 + usize::from(self.control.is_some());
        let mut still = 0;
        loop {
            let mut worked = false;
            let mut wake = None;
            for actor in 0..self.actors() {
                match self.step(actor)? {
                    Progress::Worked => worked = true,
                    Progress::Idle { until_ns } => wake = earliest(wake, until_ns),
                    Progress::Done => {}
                }
            }
            still = if worked { 0 } else { still + 1 };
            if still == enough {
                return Ok(wake);
            }
        }
    }

    /// Hands an ask to the tasklet that it is for.
    pub(crate) fn ask(&mut self, shard: usize, ask: Ask) {
        let is_its = |place: &&mut Place| place.shard == shard && place.stage == ask.stage;
        if let Some(place) = self.places.iter_mut().find(is_its) {
            place.tasklet.ask(ask);
        }
    }

    /// The number of another query for a barrier; `None` where none passes.
    pub(crate) fn next_ask(&mut self) -> Option<u64> {
        self.control.as_ref()?;
        self.asked += 1;
        Some(self.asked)
    }

    /// All shards have taken note of that query.
    pub(crate) fn asked(&mut self, number: u64) {
        if let Some(control) = &mut self.control {
            control.ask(number);
        }
    }

    /// What can be asked.
    pub(crate) fn queryable(&self) -> &[Queryable] {
        &self.queryable
    }

    /// Virtual time as it stands.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    /// How large the states are, those of all shards together, in the order of operators. O(tables).
    pub fn state_sizes(&self) -> Vec<StateSize> {
        summed(&self.sizes(), &self.ops)
    }

    /// What each shard has of each stage behind an exchange, records and state.
    pub fn shares(&self) -> Vec<Shares> {
        let exchanged = self.exchanged.iter().enumerate();
        let stages = exchanged.filter(|(_, is)| **is).map(|(stage, _)| stage);
        let share = |place: &Place| {
            let mut sizes = vec![];
            place.tasklet.sizes(&mut sizes);
            Share {
                records: place.counters.records_in,
                state_bytes: sizes.iter().map(|(_, _, size)| size.bytes).sum(),
            }
        };
        let told = |stage: usize| {
            let places = self.places.iter().filter(|p| p.stage == stage);
            let names = self.stages[stage].iter().map(ToString::to_string);
            Shares {
                stage: names.collect::<Vec<_>>().join(" -> "),
                shards: places.map(share).collect(),
            }
        };
        stages.map(told).collect()
    }

    /// What each tasklet says of its states.
    fn sizes(&self) -> budget::Sizes {
        let mut sizes = vec![];
        for place in &self.places {
            place.tasklet.sizes(&mut sizes);
        }
        sizes
    }

    /// Entries of one state of the operator with this uid, given or derived; 0 where it has none of that name.
    pub(crate) fn entries_of(&self, uid: &str, state: &str) -> u64 {
        let is_its = |op: &OpInfo| uid_of(op).0 == uid;
        let sizes = self.sizes();
        let its = sizes.iter().filter(|(op, name, _)| {
            let op = self.ops.get(op.0 as usize);
            *name == state && op.is_some_and(is_its)
        });
        its.map(|(_, _, size)| size.entries).sum()
    }

    /// The watermark of the operator with this uid, given or derived: the least of its shards'. `None` where there is no such operator,
    /// and before its first exchange: there each partition has one of its own.
    pub fn watermark_of(&self, uid: &str) -> Option<EventTime> {
        let has = |ops: &[OpInfo]| ops.iter().any(|op| uid_of(op).0 == uid);
        let its = self.places.iter().filter(|p| has(&self.stages[p.stage]));
        let its = its.filter(|p| !p.tasklet.is_source());
        its.map(|p| p.tasklet.watermark()).min()
    }

    /// Steps actors as `choose` says (given their number) until all are done. Where nothing has moved for a while,
    /// virtual time moves on by a millisecond, so that timers come due.
    pub fn run_with(&mut self, mut choose: impl FnMut(usize) -> usize) -> Result<(), JobError> {
        let mut still = 0;
        while !self.all_done() {
            let actor = choose(self.actors());
            if self.step(actor)? == Progress::Worked {
                still = 0;
            } else {
                still += 1;
                if still > 20 * self.actors() {
                    self.advance_clock(Span::from_micros(1_000));
                    still = 0;
                }
            }
        }
        Ok(())
    }

    /// Steps all actors in turn until all are done.
    pub fn run(&mut self) -> Result<(), JobError> {
        let mut next = 0;
        self.run_with(|n| {
            next = (next + 1) % n;
            next
        })
    }

    /// The watermark of a tasklet's stage.
    pub fn watermark(&self, tasklet: usize) -> EventTime {
        self.places[tasklet].tasklet.watermark()
    }

    /// Where virtual time went; steps take none.
    pub fn latencies(&mut self) -> Latencies {
        let mut sum = Latencies::new();
        for place in &mut self.places {
            sum.add(&place.tasklet.cx().latencies);
        }
        sum
    }

    /// The job's counters so far: what the checkpoint held that it went on from, and since.
    pub fn counters(&self) -> Counters {
        let from = self.control.as_ref().and_then(|c| c.from);
        let mut total = from.map_or(Counters::default(), |(_, restored)| restored.counters);
        for place in &self.places {
            let kinds = self.stages[place.stage].iter().map(|o| o.kind);
            total.add(&place.counters.for_job(kinds));
        }
        total
    }
}

fn build(plan: Plan, sizes: Sizes, checkpoints: bool) -> Result<BuiltJob, BuildError> {
    install_panic_hook();
    let config = PlanConfig {
        shards: sizes.shards,
        ring_capacity: sizes.ring_capacity,
        batch_size: sizes.batch_size,
        key_groups: sizes.key_groups,
        checkpoints,
    };
    plan.build(&config, &mut Ports::inline(sizes.shards))
}
