//! A running job as its owner sees it.

use crate::error::JobError;
use crate::plan::{BuiltJob, OpInfo, stage_name};
use crate::push::Counters;
use crate::runtime::clock::Clock;
use crate::runtime::report::{JobReport, StageReport};
use crate::runtime::shard::Mailbox;
use crate::tasklet::Latencies;
use crate::time::Span;
use crossbeam_utils::CachePadded;
use pelton_ring::Doorbell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counters of one stage on one shard, written by that shard, read by anyone.
#[derive(Debug, Default)]
struct Live {
    records_in: AtomicU64,
    records_out: AtomicU64,
    late: AtomicU64,
    partly_late: AtomicU64,
    malformed: AtomicU64,
    behind: AtomicU64,
    invariant_broken: AtomicU64,
}

impl Live {
    fn add(&self, c: &Counters) {
        // One writer: a load and a store do, no atomic addition is needed.
        let add = |at: &AtomicU64, n: u64| {
            if n != 0 {
                at.store(at.load(Ordering::Relaxed) + n, Ordering::Relaxed);
            }
        };
        add(&self.records_in, c.records_in);
        add(&self.records_out, c.records_out);
        add(&self.late, c.late);
        add(&self.partly_late, c.partly_late);
        add(&self.malformed, c.malformed);
        add(&self.behind, c.behind);
        add(&self.invariant_broken, c.invariant_broken);
    }

    fn read(&self) -> Counters {
        let get = |at: &AtomicU64| at.load(Ordering::Relaxed);
        Counters {
            records_in: get(&self.records_in),
            records_out: get(&self.records_out),
            late: get(&self.late),
            partly_late: get(&self.partly_late),
            malformed: get(&self.malformed),
            behind: get(&self.behind),
            invariant_broken: get(&self.invariant_broken),
        }
    }
}

/// What a job's shards and its handle share. Nothing here is touched for each record.
#[derive(Debug)]
pub(crate) struct JobShared {
    pub number: u32,
    pub name: String,
    pub ops: Vec<OpInfo>,
    pub stages: Vec<Vec<OpInfo>>,
    started_ns: u64,
    /// `[stage][shard]`.
    live: Vec<Vec<CachePadded<Live>>>,
    cancelled: AtomicBool,
    shards_left: AtomicUsize,
    end: Mutex<End>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct End {
    over: bool,
    error: Option<JobError>,
    latencies: Latencies,
}

impl JobShared {
    pub fn new(number: u32, built: &BuiltJob, shards: usize, started_ns: u64) -> Self {
        let live = || {
            (0..shards)
                .map(|_| CachePadded::new(Live::default()))
                .collect()
        };
        JobShared {
            number,
            name: built.name.clone(),
            ops: built.ops.clone(),
            stages: built.stages.iter().map(|s| s.ops.clone()).collect(),
            started_ns,
            live: built.stages.iter().map(|_| live()).collect(),
            cancelled: AtomicBool::new(false),
            shards_left: AtomicUsize::new(shards),
            end: Mutex::new(End::default()),
            over: Condvar::new(),
        }
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The first failure wins; the job ends on all shards.
    pub fn fail(&self, mut error: JobError) {
        if let JobError::Sink { job, .. } = &mut error
            && job.is_empty()
        {
            job.clone_from(&self.name);
        }
        self.end().error.get_or_insert(error);
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn count(&self, shard: usize, stage: usize, counters: &Counters) {
        self.live[stage][shard].add(counters);
    }

    pub fn tasklet_done(&self, _stage: usize, latencies: &Latencies) {
        let mut end = self.end();
        // Bounds are the same constants everywhere, so adding cannot fail.
        let _ = end.latencies.ring_ns.add(&latencies.ring_ns);
        let _ = end.latencies.end_to_end_ns.add(&latencies.end_to_end_ns);
    }

    pub fn shard_over(&self) {
        if self.shards_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end().over = true;
            self.over.notify_all();
        }
    }

    fn stage_counters(&self, stage: usize) -> Counters {
        let mut sum = Counters::default();
        for live in &self.live[stage] {
            sum.add(&live.read());
        }
        sum
    }

    /// The job's counters: in from sources, out to sinks, the rest from anywhere.
    fn totals(&self) -> Counters {
        let mut total = Counters::default();
        for (stage, ops) in self.stages.iter().enumerate() {
            let mut c = self.stage_counters(stage);
            if !ops.iter().any(|o| o.kind == "source") {
                c.records_in = 0;
            }
            if !ops.iter().any(|o| o.kind == "sink") {
                c.records_out = 0;
            }
            total.add(&c);
        }
        total
    }
}

/// A job on a runtime. Dropping the handle does not end the job.
#[derive(Debug)]
pub struct JobHandle {
    shared: Arc<JobShared>,
    mailboxes: Vec<(Arc<Mailbox>, Doorbell)>,
    clock: Clock,
    stall_after: Span,
}

impl JobHandle {
    pub(crate) fn new(
        shared: Arc<JobShared>,
        mailboxes: Vec<(Arc<Mailbox>, Doorbell)>,
        clock: Clock,
        stall_after: Span,
    ) -> Self {
        JobHandle {
            shared,
            mailboxes,
            clock,
            stall_after,
        }
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.shared.totals()
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        self.shared.end().over
    }

    /// Ends the job where it stands: nothing more is read, open windows do not fire.
    pub fn cancel(&self) {
        self.shared.fail(JobError::Cancelled {
            job: self.shared.name.clone(),
        });
        for (_, bell) in &self.mailboxes {
            bell.ring();
        }
    }

    /// Waits for the end of the job, and watches that its steps return.
    pub fn wait(self) -> Result<JobReport, JobError> {
        self.wait_with(Duration::from_millis(250), |_| {})
    }

    /// The same, and calls `each` with the counters every so often: for a progress bar.
    pub fn wait_with(
        self,
        every: Duration,
        mut each: impl FnMut(Counters),
    ) -> Result<JobReport, JobError> {
        let mut watch = Watch::new(&self);
        let mut end = self.shared.end();
        while !end.over {
            let (guard, timeout) = self
                .shared
                .over
                .wait_timeout(end, every)
                .unwrap_or_else(PoisonError::into_inner);
            end = guard;
            if timeout.timed_out() {
                drop(end);
                each(self.counters());
                if let Some(stalled) = watch.look(&self) {
                    self.shared.fail(stalled.clone());
                    return Err(stalled);
                }
                end = self.shared.end();
            } else if end.error.is_some() {
                // Others may be parked: they must see it too.
                for (_, bell) in &self.mailboxes {
                    bell.ring();
                }
            }
        }
        match end.error.take() {
            Some(error) => Err(error),
            None => {
                let latencies = std::mem::take(&mut end.latencies);
                drop(end);
                Ok(self.report(latencies))
            }
        }
    }

    fn report(&self, latencies: Latencies) -> JobReport {
        let stages = (0..self.shared.stages.len())
            .map(|s| StageReport {
                name: stage_name(&self.shared.stages[s]),
                counters: self.shared.stage_counters(s),
            })
            .collect();
        JobReport {
            job: self.shared.name.clone(),
            shards: self.mailboxes.len(),
            seconds: (self.clock.now_ns() - self.shared.started_ns) as f64 / 1e9,
            counters: self.shared.totals(),
            stages,
            latencies,
        }
    }
}

/// Sees steps that do not return.
struct Watch {
    /// For each shard: steps when last looked, and since when they have not changed.
    seen: Vec<(u64, u64)>,
}

impl Watch {
    fn new(handle: &JobHandle) -> Self {
        Watch {
            seen: vec![(u64::MAX, handle.clock.now_ns()); handle.mailboxes.len()],
        }
    }

    fn look(&mut self, handle: &JobHandle) -> Option<JobError> {
        let now = handle.clock.now_ns();
        for (shard, ((mailbox, _), seen)) in handle.mailboxes.iter().zip(&mut self.seen).enumerate()
        {
            let current = mailbox.current.load(Ordering::Relaxed);
            let steps = mailbox.steps.load(Ordering::Relaxed);
            let mine = current != 0 && (current >> 32) as u32 == handle.shared.number;
            if !mine || steps != seen.0 {
                *seen = (steps, now);
            } else if now - seen.1 >= handle.stall_after.nanos() {
                let stage = (current as u32 - 1) as usize;
                let ops = &handle.shared.stages[stage];
                let names: Vec<_> = ops.iter().map(ToString::to_string).collect();
                return Some(JobError::Stalled {
                    job: handle.shared.name.clone(),
                    stage: names.join(" -> "),
                    shard,
                    seconds: (now - seen.1) / 1_000_000_000,
                });
            }
        }
        None
    }
}
