//! A shard: the tasklets of all jobs on one core, stepped in turn. Drivers own one and decide how it waits.
//!
//! Laws
//! 1. A job's turn steps each of its live tasklets once, in stage order: what a stage hands on is taken in the same turn.
//!    Where several jobs share the shard, a turn that has used up its budget ends after the step it is in, and the job's
//!    next turn goes on with the next stage. So a job waits at most (other jobs) x ([`TURN_NS`] + one step) for its turn,
//!    however many stages the others have and however full their batches are.
//! 2. A panic or error ends its job on all shards and nothing else; the job's tasklets are dropped on their shard. That holds
//!    for whatever runs user code: steps, and the `Drop` of what closures own.
//! 3. After a step, the doorbells of the shards it published to are rung once, unless shards sleep only
//!    when they have no job: nothing but a command concerns those, and who sends one rings.
//! 4. Every job that a shard was given is told when the shard is through with it, at the latest when the shard itself goes.

use crate::budget::EVERY_NS;
use crate::checkpoint::{Part, Tasklets, Turn};
use crate::error::JobError;
use crate::plan::BuiltJob;
use crate::push::OpId;
use crate::query::Ask;
use crate::runtime::clock::Clock;
use crate::runtime::handle::JobShared;
use crate::runtime::panics::{Panic, catch};
use crate::stage::source::{RETRY_NS, earliest};
use crate::tasklet::{Now, Progress, Tasklet};
use crossbeam_queue::SegQueue;
use pelton_ring::Doorbell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// No step is to take longer: those that do are counted.
pub(crate) const LONG_STEP_NS: u64 = 200_000;
/// How long a job's turn may take before another job has its own. A step is usually far shorter: a busy job of two
/// stages keeps within it, one of twenty is cut in pieces.
const TURN_NS: u64 = LONG_STEP_NS;

/// Asks for state that are answered in a round, between steps: the others wait, however many ask.
const ASKS: u32 = 2;

/// What a shard is told from outside.
pub(crate) enum Command {
    Add(Box<ShardJob>),
    /// For a stage of this job.
    Ask(u32, Ask),
    Shutdown,
}

/// A shard's mailbox and what it shows of itself.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: SegQueue<Command>,
    /// The step being run: job number << 32 | stage + 1, 0 between rounds. Written by the shard, read by the watchdog; may be stale.
    pub current: AtomicU64,
    /// Steps run so far. Written by the shard.
    pub steps: AtomicU64,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Command::Add(_) => "Add",
            Command::Ask(..) => "Ask",
            Command::Shutdown => "Shutdown",
        })
    }
}

impl Mailbox {
    pub fn send(&self, command: Command) {
        self.queue.push(command);
    }

    /// What [`Mailbox::current`] says of a step of this job and stage.
    fn step_named(job: u32, stage: usize) -> u64 {
        u64::from(job) << 32 | (stage as u64 + 1)
    }

    /// The job's number and the stage that a value of [`Mailbox::current`] other than 0 names.
    pub fn step_of(current: u64) -> (u32, usize) {
        ((current >> 32) as u32, (current as u32 - 1) as usize)
    }
}

/// A tasklet in its place.
pub(crate) struct TaskletSlot {
    tasklet: Box<dyn Tasklet>,
    done: bool,
    /// Its longest step so far; told to the job whenever it grows.
    longest_ns: u64,
    /// When its states are measured next; never where it has none.
    measure_ns: u64,
    /// It has worked since they were measured.
    changed: bool,
}

impl TaskletSlot {
    pub fn new(tasklet: Box<dyn Tasklet>) -> Self {
        TaskletSlot {
            tasklet,
            done: false,
            longest_ns: 0,
            measure_ns: 0,
            changed: false,
        }
    }
}

impl TaskletSlot {
    /// Whether its states are to be measured after a step: every few milliseconds, at its end and, under a budget, before it
    /// may sleep on what was measured before its last work.
    fn is_to_be_measured(&mut self, progress: Progress, limited: bool, now_ns: u64) -> bool {
        self.changed |= progress == Progress::Worked;
        let settles = limited && self.changed && matches!(progress, Progress::Idle { .. });
        let has_states = self.measure_ns != u64::MAX;
        progress == Progress::Done || now_ns >= self.measure_ns || (settles && has_states)
    }

    /// Measures its states.
    fn measure(&mut self, shared: &JobShared, shard: usize, now_ns: u64) -> Result<(), JobError> {
        let place = (self.tasklet.stage(), shard);
        let tasklet = &self.tasklet;
        let measured = shared
            .budget
            .measure(place, now_ns, |sizes| tasklet.sizes(sizes));
        match measured {
            Ok(true) => {
                self.measure_ns = now_ns + EVERY_NS;
                self.changed = false;
            }
            Ok(false) => self.measure_ns = u64::MAX,
            Err(over) => return Err(shared.budget.error(&shared.name, &shared.ops, over)),
        }
        Ok(())
    }
}

/// A job's part on one shard.
pub(crate) struct ShardJob {
    shared: Arc<JobShared>,
    tasklets: Vec<TaskletSlot>,
    /// Tasklet that the next turn begins with (law 1).
    next: usize,
    /// Its checkpoints, if it takes any.
    part: Option<Part>,
    /// The longest turn of that.
    longest_piece_ns: u64,
}

impl ShardJob {
    pub fn new(shared: Arc<JobShared>, tasklets: Vec<TaskletSlot>, part: Option<Part>) -> Self {
        ShardJob {
            shared,
            tasklets,
            next: 0,
            part,
            longest_piece_ns: 0,
        }
    }
}

/// What a round achieved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub worked: bool,
    /// When to look again although nothing arrives.
    pub until_ns: Option<u64>,
    pub shutdown: bool,
    /// The time at its end.
    pub ended_ns: u64,
}

/// See the module.
pub(crate) struct Shard {
    pub id: usize,
    mailbox: Arc<Mailbox>,
    bells: Arc<[Doorbell]>,
    /// Whether shards that have a job ever sleep (law 3).
    sleepers: bool,
    clock: Clock,
    jobs: Vec<ShardJob>,
    steps: u64,
    /// The end of the last step, if it is now: taken for the start of the next.
    now: Option<Now>,
}

impl Shard {
    pub fn new(
        id: usize,
        mailbox: Arc<Mailbox>,
        bells: Arc<[Doorbell]>,
        sleepers: bool,
        clock: Clock,
    ) -> Self {
        Shard {
            id,
            mailbox,
            bells,
            sleepers,
            clock,
            jobs: vec![],
            steps: 0,
            now: None,
        }
    }

    /// The driver has waited, or been elsewhere: the time is to be read anew.
    #[inline]
    pub fn time_passed(&mut self) {
        self.now = None;
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Whether there is anything to look after.
    #[inline]
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Gives every job its turn. The clock is read once a step and handed from each to the next: the end of one is the start of the other.
    pub fn round(&mut self) -> Round {
        let mut now = self.now.take().unwrap_or_else(|| self.clock.now());
        let mut round = Round {
            worked: false,
            until_ns: None,
            shutdown: false,
            ended_ns: now.ns,
        };
        let mut asks = 0;
        while let Some(command) = self.mailbox.queue.pop() {
            round.worked = true;
            match command {
                Command::Add(job) => self.jobs.push(*job),
                Command::Ask(job, ask) => {
                    self.ask(job, ask);
                    asks += 1;
                    if asks == ASKS {
                        break;
                    }
                }
                Command::Shutdown => round.shutdown = true,
            }
        }
        let before = self.steps;
        let mut at = 0;
        while at < self.jobs.len() {
            if self.turn(at, &mut now, &mut round) {
                at += 1;
            } else {
                let job = self.jobs.swap_remove(at);
                self.end(job);
                now = self.clock.now();
                round.worked = true;
            }
        }
        if self.steps != before {
            // Also when that was the last job: a step that has returned is not to be taken for one that hangs.
            self.mailbox.current.store(0, Relaxed);
            self.now = Some(now);
        }
        round.ended_ns = now.ns;
        round
    }

    /// Hands an ask to the stage that it is for. One for a job that has gone goes back as it came.
    #[cold]
    fn ask(&mut self, number: u32, ask: Ask) {
        let Some(at) = self.jobs.iter().position(|j| j.shared.number == number) else {
            return;
        };
        let job = &mut self.jobs[at];
        let is_its = |slot: &&mut TaskletSlot| slot.tasklet.stage() == ask.stage;
        let Some(slot) = job.tasklets.iter_mut().find(is_its) else {
            return;
        };
        // It compares and hashes keys, and writes values: what users wrote.
        if let Err(panic) = catch(|| slot.tasklet.ask(ask)) {
            let error = panicked(&job.shared, slot.tasklet.as_ref(), self.id, &panic);
            job.shared.fail(error);
        }
        self.now = None;
    }

    /// Drops a job's part, here where it ran, and only then says so (laws 2 and 4).
    ///
    /// Each stage is dropped under a catch of its own. What cannot be isolated: a second destructor of one stage that panics
    /// while the first one's panic unwinds aborts the process, as it does in any Rust program.
    fn end(&self, job: ShardJob) {
        let ShardJob {
            shared,
            tasklets,
            part,
            ..
        } = job;
        let dropped = |panicked: Result<(), Panic>| {
            if let Err(panic) = panicked {
                shared.fail(JobError::Panic {
                    job: shared.name.clone(),
                    op: "dropping its functions and state".into(),
                    shard: self.id,
                    position: "the job's end".into(),
                    message: panic.message,
                });
            }
        };
        for slot in tasklets {
            dropped(catch(|| drop(slot)));
        }
        drop(part);
        shared.shard_over();
        if self.sleepers && shared.is_cancelled() {
            // Other shards may sleep: they must drop their part as well.
            ring(&self.bells, self.id, u64::MAX);
        }
    }

    /// One job's turn (law 1); whether the job goes on here. `now` comes in as the time and goes out as the time.
    fn turn(&mut self, at: usize, now: &mut Now, round: &mut Round) -> bool {
        let alone = self.jobs.len() == 1;
        let began_ns = now.ns;
        let job = &mut self.jobs[at];
        if job.shared.is_cancelled() {
            return false;
        }
        let count = job.tasklets.len();
        let mut live = false;
        for _ in 0..count {
            let slot_at = job.next;
            job.next = if slot_at + 1 == count { 0 } else { slot_at + 1 };
            let slot = &mut job.tasklets[slot_at];
            if slot.done {
                continue;
            }
            live = true;
            self.steps += 1;
            self.mailbox.steps.store(self.steps, Relaxed);
            let stage = slot.tasklet.stage();
            let step = Mailbox::step_named(job.shared.number, stage);
            self.mailbox.current.store(step, Relaxed);
            let over = job.shared.budget.is_over();
            slot.tasklet.cx().hold = over || job.part.as_ref().is_some_and(Part::holds);
            let stepped = catch(|| slot.tasklet.step(*now));
            let cx = slot.tasklet.cx();
            let published = std::mem::take(&mut cx.published);
            let failure = cx.failure.take();
            if self.sleepers && goes_elsewhere(self.id, published) {
                ring(&self.bells, self.id, published);
            }
            let counters = cx.take_counters();
            if counters != Default::default() {
                job.shared.count(self.id, stage, &counters);
            }
            let began = std::mem::replace(now, self.clock.now());
            let took = now.ns - began.ns;
            let handled = counters.records_in.max(counters.records_out);
            if handled > 0 {
                let operator_ns = &mut cx.latencies.operator_ns;
                operator_ns.saturating_record_n(took.max(1), handled);
            }
            if took > slot.longest_ns.min(LONG_STEP_NS) {
                slot.longest_ns = slot.longest_ns.max(took);
                job.shared.step_took(self.id, stage, took);
            }
            if job.part.as_ref().is_some_and(Part::is_over) {
                // Another shard may have dropped its tasklets already.
                return false;
            }
            let progress = match (stepped, failure) {
                (_, Some(failure)) | (Ok(Err(failure)), None) => {
                    job.shared.fail(failure);
                    return false;
                }
                (Ok(Ok(progress)), None) => progress,
                (Err(panic), None) => {
                    let error = panicked(&job.shared, slot.tasklet.as_ref(), self.id, &panic);
                    job.shared.fail(error);
                    return false;
                }
            };
            if over {
                let happens = handled > 0 || slot.tasklet.is_under_way();
                let until_ns = match progress {
                    Progress::Idle { until_ns } if !slot.tasklet.is_source() => until_ns,
                    _ => None,
                };
                job.shared.budget.stepped(now.ns, happens, until_ns);
            }
            let limited = job.shared.budget.is_limited();
            if slot.is_to_be_measured(progress, limited, now.ns) {
                match slot.measure(&job.shared, self.id, now.ns) {
                    Ok(()) => {}
                    Err(error) => {
                        job.shared.fail(error);
                        return false;
                    }
                }
            }
            match progress {
                Progress::Worked => round.worked = true,
                Progress::Idle { until_ns } => round.until_ns = earliest(round.until_ns, until_ns),
                Progress::Done => {
                    slot.done = true;
                    round.worked = true;
                    job.shared.tasklet_done(&slot.tasklet.cx().latencies);
                }
            }
            if !alone && now.ns - began_ns > TURN_NS {
                // Cut short: whatever the rest would have done, there is more to do.
                round.worked = true;
                break;
            }
        }
        if job.part.is_none() {
            if !live {
                job.shared.shard_through();
            }
            return live;
        }
        self.checkpoint(at, !live, now, round)
    }

    /// The turn of a job's checkpoints; whether the job goes on here.
    fn checkpoint(&mut self, at: usize, all_done: bool, now: &mut Now, round: &mut Round) -> bool {
        let job = &mut self.jobs[at];
        let Some(part) = &mut job.part else {
            return !all_done;
        };
        if part.is_over() {
            return false;
        }
        let slots = &mut job.tasklets;
        let turned = catch(|| part.turn(&mut Slots(slots), all_done, now.ns));
        let failure = match turned {
            Ok(Ok(turn)) => {
                match turn {
                    Turn::Idle => return true,
                    Turn::Worked => round.worked = true,
                    Turn::Waiting => {
                        let again = now.ns + RETRY_NS;
                        round.until_ns = earliest(round.until_ns, Some(again));
                    }
                }
                let began_ns = std::mem::replace(now, self.clock.now()).ns;
                let took = now.ns - began_ns;
                if took > job.longest_piece_ns.min(LONG_STEP_NS) {
                    job.longest_piece_ns = job.longest_piece_ns.max(took);
                    job.shared.piece_took(self.id, took);
                }
                return true;
            }
            Ok(Err(e)) => e.of_job(&job.shared.name, self.id),
            Err(panic) => JobError::Panic {
                job: job.shared.name.clone(),
                op: BuiltJob::blame(&job.shared.ops, &[], panic.op.map(|(op, _)| op)),
                shard: self.id,
                position: "a checkpoint".into(),
                message: panic.message,
            },
        };
        job.shared.fail(failure);
        false
    }
}

/// A job's tasklets as its checkpoints see them.
struct Slots<'a>(&'a mut [TaskletSlot]);

impl Tasklets for Slots<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }
    fn tasklet(&mut self, at: usize) -> (&mut dyn Tasklet, bool) {
        let slot = &mut self.0[at];
        (slot.tasklet.as_mut(), slot.done)
    }
}

impl Drop for Shard {
    /// Law 4: what is still here is given up, and those who wait for it are told.
    fn drop(&mut self) {
        while let Some(command) = self.mailbox.queue.pop() {
            if let Command::Add(job) = command {
                self.jobs.push(*job);
            }
        }
        for job in std::mem::take(&mut self.jobs) {
            job.shared.fail(JobError::RuntimeGone {
                job: job.shared.name.clone(),
                what: if std::thread::panicking() {
                    format!("shard {} failed", self.id)
                } else {
                    "it was dropped while the job ran; keep it until the job's handle has been waited for".into()
                },
            });
            self.end(job);
        }
    }
}

/// What to say of a panic.
fn panicked(shared: &JobShared, tasklet: &dyn Tasklet, shard: usize, panic: &Panic) -> JobError {
    let stage = tasklet.stage();
    let op = BuiltJob::blame(
        &shared.ops,
        &shared.stages[stage],
        panic.op.map(|(op, _): (OpId, _)| op),
    );
    // The tasklet has been left in the middle of something, and a reader's name is user code.
    let index = panic.op.and_then(|(_, index)| index);
    let position =
        catch(|| tasklet.position(index)).unwrap_or_else(|_| "an unknown position".into());
    JobError::Panic {
        job: shared.name.clone(),
        op,
        shard,
        position,
        message: panic.message.clone(),
    }
}

/// Whether a mask of [`Cx::published`] names a shard besides `own`. Bit 63 stands for many.
fn goes_elsewhere(own: usize, published: u64) -> bool {
    let mine = if own < 63 { 1 << own } else { 0 };
    published & !mine != 0
}

/// Rings the shards of a mask of [`Cx::published`], but not `own`.
fn ring(bells: &[Doorbell], own: usize, published: u64) {
    for (shard, bell) in bells.iter().enumerate() {
        if shard != own && published & (1 << shard.min(63)) != 0 {
            bell.ring();
        }
    }
}

#[cfg(test)]
mod tests;
