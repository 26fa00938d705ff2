//! A driver for tests of jobs: it runs a job in the test's own thread, and the test says what comes, what time it is, and when
//! the process dies. The idea is that of Kafka Streams' `TopologyTestDriver`; crashes, checkpoints and other numbers of shards are more.
//!
//! Laws
//! 1. Nothing happens between two calls: no thread, no clock. A test gives the same in every run.
//! 2. A checkpoint is taken where the test asks for one, and behind the job's end; the job's own interval is not looked at.
//! 3. A crash takes all that the process had: states, what was under way, what was written and not synced. What stays is the last
//!    checkpoint, the inputs, and what came out.
//! 4. The clock of the world goes on over a crash.

use super::ends::{AnyInput, Input, Output};
use super::query::Stepped;
use super::{FaultyDisk, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper};
use crate::budget::StateSize;
use crate::checkpoint::Checkpointing;
use crate::checkpoint::inspect::{Sought, value_of};
use crate::error::{BuildError, JobError};
use crate::key::{Key, KeySpace};
use crate::push::Counters;
use crate::query::{Query, QueryError};
use crate::state::State;
use crate::stream::Job;
use crate::time::{EventTime, Span};

#[cfg(test)]
mod tests;

/// The job's name in errors.
pub(super) const NAME: &str = "driven";
/// A move of the clock stops so often for what comes due on the way, each at its time; behind that in so many equal pieces.
const STOPS: i64 = 1_000;
/// A checkpoint of the job's own would come behind this, which is never.
const NEVER: Span = Span::MAX;

/// Writes the job; called anew for each life of the process.
type Write = Box<dyn FnMut(&Job)>;

/// Drives a job in a test.
///
/// The job is a function that writes it: the driver calls it at the start, and again after each crash, as a process that is
/// restarted would. Inputs and outputs are handles; clones of them go into the function.
///
/// A window, and a record that is too late for it:
///
/// ```
/// use pelton::testing::Driver;
/// use pelton::{EventTime, Job, Spans, Tumbling, Watermarks};
///
/// # fn main() -> Result<(), pelton::JobError> {
/// let mut t = Driver::new().shards(2);
/// let visits = t.input::<(i64, u64)>("visits");
/// let counts = t.output("counts");
/// let late = t.output("late");
/// let (from, to, aside) = (visits.clone(), counts.clone(), late.clone());
/// t.job(move |job| {
///     job.source(from.source())
///        .event_time(|v| EventTime::from_seconds(v.0), Watermarks::bounded(5.seconds()))
///        .key_by(|v| v.1)
///        .window(Tumbling::of(10.seconds()))
///        .late_to(aside.sink())
///        .aggregate(|a| a.count())
///        .map(|w| (w.key, w.value))
///        .sink(to.sink());
/// })?;
/// visits.push_all([(1, 7), (9, 7), (12, 7)]);
/// t.settle()?;
/// assert_eq!(counts.take(), [], "the watermark is at 7 s");
/// t.advance_watermark(EventTime::from_seconds(10))?;
/// assert_eq!(counts.take(), [(7, 2)]);
/// visits.push((3, 7));
/// t.settle()?;
/// assert_eq!(late.take(), [(3, 7)]);
/// # Ok(())
/// # }
/// ```
///
/// A rule for card fraud (more than three charges within a minute, from different countries) that holds over a crash, on another number
/// of shards:
///
/// ```
/// use pelton::process::{Ttl, list};
/// use pelton::testing::Driver;
/// use pelton::{EventTime, Spans, Watermarks};
///
/// #[pelton::state(version = 1)]
/// #[derive(Clone)]
/// struct Charge {
///     card: u64,
///     second: i64,
///     country: String,
/// }
/// fn charge(card: u64, second: i64, country: &str) -> Charge {
///     Charge { card, second, country: country.into() }
/// }
///
/// # fn main() -> Result<(), pelton::JobError> {
/// let mut t = Driver::new();
/// let charges = t.input::<Charge>("charges");
/// let alerts = t.committed_output("alerts");
/// let (from, to) = (charges.clone(), alerts.clone());
/// t.job(move |job| {
///     job.source(from.source())
///        .event_time(|c| EventTime::from_seconds(c.second), Watermarks::monotonous())
///        .key_by(|c| c.card)
///        .process("fraud", list::<Charge>("recent").ttl(Ttl::event_time(60.seconds())))
///        .each(|charge, recent, cx| {
///            recent.push(charge.clone());
///            let abroad = recent.iter().any(|earlier| earlier.country != charge.country);
///            if recent.len() > 3 && abroad {
///                cx.emit((*cx.key(), charge.second));
///            }
///        })
///        .sink(to.sink());
/// })?;
/// charges.push_all([charge(7, 1, "PT"), charge(7, 20, "JP")]);
/// t.checkpoint()?;
/// charges.push(charge(7, 40, "PT"));
/// t.settle()?;
/// t.crash_and_restore_on(3)?; // two charges are in the checkpoint, the third is read again
/// charges.push(charge(7, 59, "FR"));
/// t.settle()?;
/// assert_eq!(alerts.take(), [], "seen once it is committed");
/// t.checkpoint()?;
/// assert_eq!(alerts.take(), [(7, 59)]);
/// # Ok(())
/// # }
/// ```
///
/// Cost: a job takes some 100 us to build, a checkpoint or a crash likewise; all that inputs were given is kept in memory.
///
/// Every source of the job must be able to go back to a position, as for any job with checkpoints; folders that the job names for its
/// checkpoints are not touched, and one that starts from a savepoint is refused.
pub struct Driver {
    sizes: Sizes,
    write: Option<Write>,
    inputs: Vec<Box<dyn AnyInput>>,
    /// The folder of its checkpoints.
    disk: SharedDisk,
    life: Life,
    /// Law 4: what the clock of the world shows.
    clock: EventTime,
}

/// What there is of the process.
enum Life {
    /// No job has been given.
    Unborn,
    Running(Box<Stepper>),
    /// It fell over, and waits to be started again.
    Failed(JobError),
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.life {
            Life::Unborn => f.write_str("Driver(no job yet)"),
            Life::Running(stepper) => write!(f, "Driver({stepper:?})"),
            Life::Failed(e) => write!(f, "Driver(failed: {e})"),
        }
    }
}

impl Driver {
    /// On one shard, with the runtime's sizes.
    pub fn new() -> Self {
        Self::with(Sizes::shards(1))
    }

    /// With these sizes: small batches and rings make a short test go through much.
    pub fn with(sizes: Sizes) -> Self {
        Driver {
            sizes,
            write: None,
            inputs: vec![],
            disk: SharedDisk::new(FaultyDisk::new(MemoryDisk::new())),
            life: Life::Unborn,
            clock: EventTime::from_micros(0),
        }
    }

    /// On so many shards, from the next start on.
    pub fn shards(mut self, shards: usize) -> Self {
        self.sizes.shards = shards;
        self
    }

    /// An input of one partition. The name stands in errors.
    pub fn input<T: Clone + Send + 'static>(&mut self, name: impl Into<String>) -> Input<T> {
        self.input_of(name, 1)
    }

    /// An input of so many partitions: each has its own watermark, and they are spread over the shards.
    pub fn input_of<T: Clone + Send + 'static>(
        &mut self,
        name: impl Into<String>,
        partitions: usize,
    ) -> Input<T> {
        let input = Input::new(name.into(), partitions);
        self.inputs.push(Box::new(input.clone()));
        input
    }

    /// An output that shows a record when it is written. After a crash what is computed again comes again (at least once).
    pub fn output<T: Send + 'static>(&mut self, name: impl Into<String>) -> Output<T> {
        Output::new(name.into(), false)
    }

    /// An output that commits in two phases: it shows a record once the checkpoint is committed that it belongs to, and once only,
    /// whatever crashes. So it shows nothing new before [`Driver::checkpoint`], or the job's end.
    pub fn committed_output<T: Send + 'static>(&mut self, name: impl Into<String>) -> Output<T> {
        Output::new(name.into(), true)
    }

    /// Takes the job and starts it. Its last checkpoint, if there is one, is that of a job that was given before: then this one goes on from
    /// it, as a new version that is deployed would.
    ///
    /// # Errors
    /// The job is not good, or cannot go on from what is there.
    pub fn job(&mut self, write: impl FnMut(&Job) + 'static) -> Result<(), JobError> {
        self.write = Some(Box::new(write));
        self.crash_and_restore()
    }

    /// Works off all that has come, until nothing moves: what follows needs more records, a watermark or the clock.
    ///
    /// # Errors
    /// The job failed. It stays so until it is started again ([`Driver::crash_and_restore`]).
    pub fn settle(&mut self) -> Result<(), JobError> {
        self.settled().map(|_| ())
    }

    /// The same; when something is to be done although nothing comes.
    fn settled(&mut self) -> Result<Option<u64>, JobError> {
        self.when_running(Stepper::settle)
    }

    /// Works off what has come, then brings all inputs' watermarks to `time` without a record ([`Input::advance_watermark`]), and
    /// works off what that causes. A window that ends at `time` fires; a timer for t fires once the watermark is above t.
    ///
    /// # Errors
    /// As of [`Driver::settle`].
    pub fn advance_watermark(&mut self, time: EventTime) -> Result<(), JobError> {
        self.settle()?;
        for input in &self.inputs {
            input.advance_watermark(time);
        }
        self.settle()
    }

    /// Works off what has come, then moves the clock on, and works off what comes due on the way: timers by the clock, idleness, windows by
    /// processing time, early firing. It stops for each of these at its time; where there are more than a thousand of them, the others come in a
    /// thousand portions.
    /// The clock begins at the epoch (1970) and goes on over a crash; a span of nothing, or a negative one, moves nothing.
    ///
    /// # Errors
    /// As of [`Driver::settle`].
    pub fn advance_clock(&mut self, by: Span) -> Result<(), JobError> {
        let mut left = by.micros();
        let (mut stops, mut least) = (0, 1);
        let mut wake = self.settled()?;
        while left > 0 {
            let stepper = self.running()?;
            let now_ns = stepper.now().ns;
            let due = wake.map_or(left, |ns| us_until(ns, now_ns));
            let stop = due.max(least).min(left);
            stepper.advance_clock(Span::from_micros(stop));
            left -= stop;
            self.clock = self.clock + Span::from_micros(stop);
            stops += 1;
            if stops == STOPS {
                least = (left / STOPS).max(1);
            }
            wake = self.settled()?;
        }
        Ok(())
    }

    /// What the clock shows.
    pub fn clock(&self) -> EventTime {
        self.clock
    }

    /// Works off what has come, takes a checkpoint, and has the sinks commit. Where nothing has changed since the last one, that
    /// is as good.
    ///
    /// # Errors
    /// As of [`Driver::settle`]; and a sink does not commit.
    pub fn checkpoint(&mut self) -> Result<(), JobError> {
        self.settle()?;
        self.running()?.checkpoint();
        self.settle()?;
        let stepper = self.running()?;
        let (phase, uncommitted) = (stepper.phase(), stepper.checkpoints().uncommitted);
        if uncommitted == 0 && matches!(phase, "idle" | "over") {
            return Ok(());
        }
        let retrying = stepper.checkpoints().retrying.map(|r| r.what);
        Err(checkpoint_failed(format!(
            "the one that was asked for is not over ({phase}): {}",
            retrying.unwrap_or_else(|| "a sink holds it up".into())
        )))
    }

    /// The process dies, with the power, and is started again: from the last checkpoint, or from the beginning if there is none.
    /// Inputs are read again from there. What has come out stays: an [`output`](Driver::output) gets again what is computed again.
    ///
    /// # Errors
    /// The job cannot be built, or cannot go on.
    pub fn crash_and_restore(&mut self) -> Result<(), JobError> {
        self.crash_and_restore_on(self.sizes.shards)
    }

    /// The same, on another number of shards.
    ///
    /// # Errors
    /// As of [`Driver::crash_and_restore`].
    pub fn crash_and_restore_on(&mut self, shards: usize) -> Result<(), JobError> {
        let Some(write) = &mut self.write else {
            return Err(no_job());
        };
        self.sizes.shards = shards;
        self.life = Life::Unborn;
        self.disk = SharedDisk::new(FaultyDisk::new(self.disk.crash(|_| false)));
        let job = Job::new(NAME);
        write(&job);
        let mut plan = job.plan.lock();
        let own = plan.checkpointing.take();
        let own = own.unwrap_or_else(|| Checkpointing::in_folder("memory"));
        // What is wrong with the job's own is for the build to say.
        plan.checkpointing = Some(match own.check() {
            Ok(()) => own.every(NEVER).timeout(NEVER),
            Err(_) => own,
        });
        drop(plan);
        match Stepper::on_disk(&job, self.sizes, &OnDisk::small(&self.disk)) {
            Ok(mut stepper) => {
                stepper.advance_clock(Span::from_micros(self.clock.micros()));
                self.life = Life::Running(Box::new(stepper));
                Ok(())
            }
            Err(e) => {
                self.life = Life::Failed(e.clone());
                Err(e)
            }
        }
    }

    /// Whether the job has come to its end: all inputs have ended, and the last checkpoint is committed.
    pub fn is_over(&self) -> bool {
        matches!(&self.life, Life::Running(stepper) if stepper.all_done())
    }

    /// How large the states are, by operator and state, those of all shards together.
    ///
    /// # Errors
    /// The job has failed.
    pub fn state_sizes(&mut self) -> Result<Vec<StateSize>, JobError> {
        Ok(self.running()?.state_sizes())
    }

    /// The watermark of an operator, by its uid: the least of its shards'. `None` where there is no such operator, and for one before the
    /// first exchange, where each partition has its own.
    ///
    /// # Errors
    /// The job has failed.
    pub fn watermark(&mut self, uid: &str) -> Result<Option<EventTime>, JobError> {
        Ok(self.running()?.watermark_of(uid))
    }

    /// How many timers a process function has set that have not fired, by its operator's uid: of event time and of the clock, those of all keys.
    ///
    /// # Errors
    /// The job has failed.
    pub fn timers(&mut self, uid: &str) -> Result<u64, JobError> {
        Ok(self.running()?.entries_of(uid, "timers"))
    }

    /// When the clock is to be looked at next, if nothing comes before: for a timer of the clock, idleness, early firing. What is far away
    /// is looked for a little before it is due, so this may be earlier than that, never later. Works off what has come.
    ///
    /// # Errors
    /// As of [`Driver::settle`].
    pub fn next_by_clock(&mut self) -> Result<Option<EventTime>, JobError> {
        let wake = self.settled()?;
        let now = self.running()?.now();
        // The next checkpoint by the interval is always due at some time, and never comes.
        let wake = wake.filter(|&ns| ns < NEVER.nanos());
        Ok(wake.map(|ns| now.wall + Span::from_micros(us_until(ns, now.ns))))
    }

    /// What the job has counted: in, out, late, malformed. After a crash it goes on from the checkpoint's.
    ///
    /// # Errors
    /// The job has failed.
    pub fn counters(&mut self) -> Result<Counters, JobError> {
        Ok(self.running()?.counters())
    }

    /// What a key has in a [`value`](crate::process::value), [`reducing`](crate::process::reducing) or
    /// [`aggregating`](crate::process::aggregating) state of a process function, by the operator's uid and the state's name; of the
    /// latter two, what it keeps. It is read from a checkpoint, which is taken for that: outputs commit. What has lived its time is
    /// there until it is cleaned away.
    ///
    /// # Errors
    /// As of [`Driver::checkpoint`]; there is no such state, or it is of other types.
    pub fn value_of<K: Key, V: State>(
        &mut self,
        uid: &str,
        state: &str,
        key: &K,
    ) -> Result<Option<V>, JobError> {
        self.checkpoint()?;
        let sought = Sought { uid, state };
        let told = |what| {
            let what = format!("state '{state}' of '{uid}' was asked for: {what}");
            let advice = "ask for a state by its operator's uid, its name and its types".into();
            JobError::Build(BuildError::Config { what, advice })
        };
        value_of(self.disk.handle(), sought, key).map_err(told)
    }

    /// To read a state of the job as it stands, as [`JobHandle::query`](crate::JobHandle::query) does of one that runs. Works off nothing by
    /// itself, but for a read at [`ReadAt::Epoch`](crate::query::ReadAt::Epoch): that takes a checkpoint, so that outputs commit.
    ///
    /// # Errors
    /// There is no such state, or it is of other types; the job has failed.
    pub fn query<K: Key, V: State>(
        &mut self,
        uid: &str,
        state: &str,
    ) -> Result<Query<K, V, Stepped<'_>>, QueryError> {
        let space = KeySpace::new(self.sizes.key_groups, self.sizes.shards as u32);
        let shards = self.sizes.shards;
        let failed = |e: JobError| QueryError::Failed {
            what: e.to_string(),
        };
        let there = self.running().map_err(failed)?.queryable().to_vec();
        Query::of(Stepped::new(self, shards), &there, space, (uid, state))
    }

    /// For a query: the job, if it has not failed.
    pub(crate) fn stepper(&mut self) -> Result<&mut Stepper, JobError> {
        self.running()
    }

    fn running(&mut self) -> Result<&mut Stepper, JobError> {
        match &mut self.life {
            Life::Running(stepper) => Ok(stepper),
            Life::Failed(e) => Err(e.clone()),
            Life::Unborn => Err(no_job()),
        }
    }

    /// Does something that may end the process.
    fn when_running<R>(
        &mut self,
        act: impl FnOnce(&mut Stepper) -> Result<R, JobError>,
    ) -> Result<R, JobError> {
        let done = act(self.running()?);
        if let Err(e) = &done {
            self.life = Life::Failed(e.clone());
        }
        done
    }
}

/// Whole microseconds until driver's time `ns` has come.
fn us_until(ns: u64, now_ns: u64) -> i64 {
    let us = ns.saturating_sub(now_ns).div_ceil(1_000);
    i64::try_from(us).unwrap_or(i64::MAX)
}

fn no_job() -> JobError {
    JobError::Build(BuildError::Config {
        what: "the driver has no job".into(),
        advice: "give it one by Driver::job".into(),
    })
}

fn checkpoint_failed(what: String) -> JobError {
    JobError::Checkpoint {
        job: NAME.into(),
        what,
    }
}
