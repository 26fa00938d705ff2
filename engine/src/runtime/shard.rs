//! A shard: the tasklets of all jobs on one core, stepped in turn. Drivers own one and decide how it waits.
//!
//! Laws
//! 1. Each round steps every live tasklet once, in stage order: what a stage hands on is taken in the same round.
//! 2. A panic or error ends its job on all shards and nothing else; the job's tasklets are dropped on their shard.
//! 3. After a step, the doorbells of the shards it published to are rung once, unless nobody ever sleeps.

use crate::error::JobError;
use crate::plan::BuiltJob;
use crate::push::{Control, Cx, DeadLetter, OpId, Push};
use crate::runtime::catch;
use crate::runtime::clock::Clock;
use crate::runtime::handle::JobShared;
use crate::stage::source::earliest;
use crate::tasklet::{Progress, Tasklet};
use crossbeam_queue::SegQueue;
use pelton_ring::Doorbell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a shard is told from outside.
pub(crate) enum Command {
    Add(Box<ShardJob>),
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
            Command::Shutdown => "Shutdown",
        })
    }
}

impl Mailbox {
    pub fn send(&self, command: Command) {
        self.queue.push(command);
    }
}

/// A tasklet in its place.
pub(crate) struct TaskletSlot {
    tasklet: Box<dyn Tasklet>,
    done: bool,
}

impl TaskletSlot {
    pub fn new(tasklet: Box<dyn Tasklet>) -> Self {
        TaskletSlot {
            tasklet,
            done: false,
        }
    }
}

/// A job's part on one shard.
pub(crate) struct ShardJob {
    shared: Arc<JobShared>,
    tasklets: Vec<TaskletSlot>,
    dead: Option<Box<dyn Push<DeadLetter> + Send>>,
    dead_cx: Cx,
    dead_ended: bool,
}

impl ShardJob {
    pub fn new(
        shared: Arc<JobShared>,
        tasklets: Vec<TaskletSlot>,
        dead: Option<Box<dyn Push<DeadLetter> + Send>>,
    ) -> Self {
        ShardJob {
            shared,
            tasklets,
            dead,
            dead_cx: Cx::new(0),
            dead_ended: false,
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
}

/// See the module.
pub(crate) struct Shard {
    pub id: usize,
    pub mailbox: Arc<Mailbox>,
    pub bells: Arc<[Doorbell]>,
    /// Whether shards ever sleep (law 3).
    pub sleepers: bool,
    pub clock: Clock,
    jobs: Vec<ShardJob>,
    steps: u64,
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
        }
    }

    /// Steps everything once.
    pub fn round(&mut self) -> Round {
        let mut round = Round {
            worked: false,
            until_ns: None,
            shutdown: false,
        };
        while let Some(command) = self.mailbox.queue.pop() {
            round.worked = true;
            match command {
                Command::Add(job) => self.jobs.push(*job),
                Command::Shutdown => round.shutdown = true,
            }
        }
        let mut at = 0;
        while at < self.jobs.len() {
            if self.step_job(at, &mut round) {
                at += 1;
            } else {
                let job = self.jobs.swap_remove(at);
                let shared = job.shared.clone();
                // Tasklets are dropped here, on their shard, before the job counts as over.
                drop(job);
                shared.shard_over();
                if self.sleepers && shared.is_cancelled() {
                    // Other shards may sleep: they must drop their part as well.
                    ring(&self.bells, self.id, u64::MAX);
                }
                round.worked = true;
            }
        }
        if !self.jobs.is_empty() {
            self.mailbox.current.store(0, Relaxed);
        }
        round
    }

    /// Steps one job's tasklets; whether the job goes on here.
    fn step_job(&mut self, at: usize, round: &mut Round) -> bool {
        let job = &mut self.jobs[at];
        if job.shared.is_cancelled() {
            return false;
        }
        if let Some(dead) = &mut job.dead
            && dead.blocked()
        {
            // A dead-letter output that cannot keep up holds its job's shard, as any slow sink holds what feeds it.
            job.dead_cx.now_ns = self.clock.now_ns();
            dead.control(Control::Flush, &mut job.dead_cx);
            if let Some(failure) = job.dead_cx.failure.take() {
                job.shared.fail(failure);
                return false;
            }
            if dead.blocked() {
                let retry = job.dead_cx.now_ns + crate::stage::source::RETRY_NS;
                round.until_ns = earliest(round.until_ns, Some(retry));
                return true;
            }
            round.worked = true;
        }
        let mut live = false;
        for slot in &mut job.tasklets {
            if slot.done {
                continue;
            }
            live = true;
            let now = self.clock.now();
            self.steps += 1;
            self.mailbox.steps.store(self.steps, Relaxed);
            self.mailbox.current.store(
                u64::from(job.shared.number) << 32 | (slot.tasklet.stage() as u64 + 1),
                Relaxed,
            );
            let stepped = catch(|| slot.tasklet.step(now));
            let stage = slot.tasklet.stage();
            let cx = slot.tasklet.cx();
            let published = std::mem::take(&mut cx.published);
            let failure = cx.failure.take();
            if self.sleepers && published & !(1 << self.id.min(63)) != 0 {
                ring(&self.bells, self.id, published);
            }
            if cx.counters != Default::default() {
                job.shared
                    .count(self.id, stage, &std::mem::take(&mut cx.counters));
            }
            if !cx.dead.is_empty()
                && let Some(dead) = &mut job.dead
            {
                job.dead_cx.now_ns = now.ns;
                for letter in cx.dead.drain(..) {
                    dead.push(letter, crate::batch::Stamp::NONE, &mut job.dead_cx);
                }
                dead.control(Control::Flush, &mut job.dead_cx);
            }
            let failure = failure.or_else(|| job.dead_cx.failure.take());
            let progress = match (stepped, failure) {
                (_, Some(failure)) | (Ok(Err(failure)), None) => {
                    job.shared.fail(failure);
                    return false;
                }
                (Ok(Ok(progress)), None) => progress,
                (Err(panic), None) => {
                    job.shared.fail(panicked(
                        &job.shared,
                        slot.tasklet.as_ref(),
                        self.id,
                        &panic,
                    ));
                    return false;
                }
            };
            match progress {
                Progress::Worked => round.worked = true,
                Progress::Idle { until_ns } => round.until_ns = earliest(round.until_ns, until_ns),
                Progress::Done => {
                    slot.done = true;
                    round.worked = true;
                    job.shared.tasklet_done(stage, &slot.tasklet.cx().latencies);
                }
            }
        }
        if live {
            return true;
        }
        // Every tasklet is done: the dead letters end last.
        let Some(dead) = &mut job.dead else {
            return false;
        };
        job.dead_cx.now_ns = self.clock.now_ns();
        dead.control(
            if job.dead_ended {
                Control::Flush
            } else {
                Control::End
            },
            &mut job.dead_cx,
        );
        job.dead_ended = true;
        if let Some(failure) = job.dead_cx.failure.take() {
            job.shared.fail(failure);
            return false;
        }
        if dead.blocked() {
            round.until_ns = earliest(
                round.until_ns,
                Some(job.dead_cx.now_ns + crate::stage::source::RETRY_NS),
            );
            return true;
        }
        false
    }
}

/// What to say of a panic.
fn panicked(
    shared: &JobShared,
    tasklet: &dyn Tasklet,
    shard: usize,
    panic: &super::panics::Panic,
) -> JobError {
    let stage = tasklet.stage();
    let op = BuiltJob::blame(
        &shared.ops,
        &shared.stages[stage],
        panic.op.map(|(op, _): (OpId, _)| op),
    );
    let position = tasklet.position(panic.op.and_then(|(_, index)| index));
    JobError::Panic {
        job: shared.name.clone(),
        op,
        shard,
        position,
        message: panic.message.clone(),
    }
}

/// Rings the shards of a mask of [`Cx::published`], but not `own`.
fn ring(bells: &[Doorbell], own: usize, published: u64) {
    for (shard, bell) in bells.iter().enumerate() {
        if shard != own && published & (1 << shard.min(63)) != 0 {
            bell.ring();
        }
    }
}
