//! A running job as its owner sees it.

use crate::budget::{Budget, StateSize};
use crate::checkpoint::{Checkpoints, Epoch, Stop};
use crate::error::JobError;
use crate::key::{Key, KeySpace};
use crate::latency::Latencies;
use crate::plan::{BuiltJob, OpInfo, Warning, stage_name};
use crate::push::Counters;
use crate::query::{Query, QueryError, Queryable};
use crate::runtime::checkpoints::{Control, Message};
use crate::runtime::clock::Clock;
use crate::runtime::lengths::Lengths;
use crate::runtime::queries::OfJob;
use crate::runtime::report::{JobReport, LongestStep, StageReport};
use crate::runtime::savepoints::Ask;
use crate::runtime::shard::Mailbox;
use crate::skew::{Share, Shares};
use crate::state::State;
use crossbeam_utils::CachePadded;
use pelton_ring::Doorbell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

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
    dropped_matches: AtomicU64,
    stray_retractions: AtomicU64,
    steps: Lengths,
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
        add(&self.dropped_matches, c.dropped_matches);
        add(&self.stray_retractions, c.stray_retractions);
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
            dropped_matches: get(&self.dropped_matches),
            stray_retractions: get(&self.stray_retractions),
        }
    }
}

/// What a job's shards and its handle share. Nothing here is touched for each record.
#[derive(Debug)]
pub(crate) struct JobShared {
    pub number: u32,
    pub name: String,
    /// What can be asked of its states.
    pub queryable: Vec<Queryable>,
    /// How many queries for a barrier there were. Held by the one that is under way.
    pub asked: Mutex<u64>,
    pub ops: Vec<OpInfo>,
    /// Its pitfalls.
    warnings: Vec<Warning>,
    pub stages: Vec<Vec<OpInfo>>,
    /// Those behind an exchange.
    exchanged: Vec<bool>,
    /// How large its states are, and may be.
    pub budget: Budget,
    started_ns: u64,
    /// Where the job takes checkpoints.
    pub control: Option<Arc<Control>>,
    /// `[stage][shard]`.
    live: Vec<Vec<CachePadded<Live>>>,
    /// The longest turn of its checkpoints on each shard, nanoseconds. Written by the shard.
    pieces: Vec<Lengths>,
    cancelled: AtomicBool,
    shards_left: AtomicUsize,
    /// Shards whose tasklets have not all come to their end.
    shards_working: AtomicUsize,
    end: Mutex<End>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct End {
    /// Every shard is through with the job.
    over: bool,
    /// All that the job was to do has been done, and committed where it takes checkpoints: nobody can cancel it any more.
    through: bool,
    /// Some shard never will be: it is stuck in this job or in another.
    given_up: Option<JobError>,
    error: Option<JobError>,
    latencies: Latencies,
}

impl End {
    /// Whether there is nothing more to wait for.
    fn is_known(&self) -> bool {
        self.over || self.given_up.is_some()
    }
}

impl JobShared {
    pub fn new(
        number: u32,
        built: &BuiltJob,
        shards: usize,
        control: Option<Arc<Control>>,
        started_ns: u64,
    ) -> Self {
        let live = || {
            (0..shards)
                .map(|_| CachePadded::new(Live::default()))
                .collect()
        };
        JobShared {
            number,
            name: built.name.clone(),
            queryable: built.queryable.clone(),
            asked: Mutex::new(0),
            ops: built.ops.clone(),
            warnings: built.warnings.clone(),
            stages: built.stages.iter().map(|s| s.ops.clone()).collect(),
            exchanged: built.stages.iter().map(|s| s.exchanged).collect(),
            budget: Budget::new(built.max_state_bytes, built.stages.len(), shards),
            started_ns,
            live: built.stages.iter().map(|_| live()).collect(),
            pieces: (0..shards).map(|_| Lengths::default()).collect(),
            cancelled: AtomicBool::new(false),
            // The control thread ends as a shard does.
            shards_left: AtomicUsize::new(shards + usize::from(control.is_some())),
            shards_working: AtomicUsize::new(shards),
            control,
            end: Mutex::new(End::default()),
            over: Condvar::new(),
        }
    }

    /// What a stage is called in an error: its operators with their places.
    pub fn stage_places(&self, stage: usize) -> String {
        let names: Vec<_> = self.stages[stage].iter().map(ToString::to_string).collect();
        names.join(" -> ")
    }

    /// Whether nothing more comes of it: it is over, or has been given up.
    pub fn is_known_over(&self) -> bool {
        self.end().is_known()
    }

    fn end(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The first failure wins; the job ends on all shards, unless it has come to its end already.
    pub fn fail(&self, mut error: JobError) {
        if let JobError::Sink { job, .. } = &mut error
            && job.is_empty()
        {
            job.clone_from(&self.name);
        }
        let mut end = self.end();
        let too_late = end.through && matches!(error, JobError::Cancelled { .. });
        if end.over || too_late {
            // It came to its end before anything could end it.
            return;
        }
        end.error.get_or_insert(error);
        drop(end);
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// The job's end is not waited for any longer; what of it still runs is to end.
    pub fn give_up(&self, error: JobError) {
        self.fail(error.clone());
        self.end().given_up.get_or_insert(error);
        self.over.notify_all();
    }

    pub fn count(&self, shard: usize, stage: usize, counters: &Counters) {
        self.live[stage][shard].add(counters);
    }

    /// A step of `stage` was longer than any before it on `shard`, or than a step should be.
    pub fn step_took(&self, shard: usize, stage: usize, ns: u64) {
        self.live[stage][shard].steps.took(ns);
    }

    /// The same of a turn of the checkpoints'.
    pub fn piece_took(&self, shard: usize, ns: u64) {
        self.pieces[shard].took(ns);
    }

    fn pieces(&self) -> (LongestStep, u64) {
        Lengths::of("a piece of a checkpoint", self.pieces.iter())
    }

    fn steps(&self, stage: usize) -> (LongestStep, u64) {
        let name = stage_name(&self.stages[stage]);
        Lengths::of(&name, self.live[stage].iter().map(|live| &live.steps))
    }

    pub fn tasklet_done(&self, latencies: &Latencies) {
        self.end().latencies.add(latencies);
    }

    /// A shard's tasklets have come to their end; they have not been dropped. Where checkpoints are taken, [`JobShared::through`]
    /// says it for all.
    pub fn shard_through(&self) {
        if self.shards_working.fetch_sub(1, Ordering::AcqRel) == 1 && self.control.is_none() {
            self.through();
        }
    }

    /// All has been done. Who cancelled the job meanwhile came too late.
    pub fn through(&self) {
        let mut end = self.end();
        end.through = true;
        if matches!(end.error, Some(JobError::Cancelled { .. })) {
            end.error = None;
        }
    }

    pub fn shard_over(&self) {
        if self.shards_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end().over = true;
            self.over.notify_all();
        }
    }

    /// Asks for a savepoint by `message`, and waits for the answer: see [`JobHandle::savepoint`].
    fn savepoint(
        &self,
        folder: &Path,
        message: impl FnOnce(Ask) -> Message,
    ) -> Result<Epoch, JobError> {
        let no = |what: String| JobError::Savepoint {
            job: self.name.clone(),
            folder: folder.display().to_string(),
            what,
        };
        let Some(control) = &self.control else {
            let what = "the job takes no checkpoints: give it a folder for them (Job::checkpoints)";
            return Err(no(what.into()));
        };
        // Said at once, and again by who writes: the epoch would be for nothing.
        if let Ok(mut names) = std::fs::read_dir(folder)
            && let Some(Ok(found)) = names.next()
        {
            let found = found.file_name();
            let found = found.to_string_lossy();
            return Err(no(format!(
                "a savepoint wants an empty folder, and this one holds {found}"
            )));
        }
        let (answer, answered) = mpsc::channel();
        let ask = Ask {
            folder: folder.into(),
            answer,
        };
        let over = || no("the job ended before one could be taken".into());
        if !control.send(message(ask)) {
            return Err(over());
        }
        match answered.recv() {
            Ok(taken) => taken.map_err(no),
            Err(_) => Err(over()),
        }
    }

    fn stage_counters(&self, stage: usize) -> Counters {
        let mut sum = Counters::default();
        for live in &self.live[stage] {
            sum.add(&live.read());
        }
        sum
    }

    /// What each shard has of the stages behind an exchange.
    fn shares(&self) -> Vec<Shares> {
        let exchanged = self.exchanged.iter().enumerate();
        let stages = exchanged.filter(|(_, is)| **is).map(|(stage, _)| stage);
        let of = |stage: usize| {
            let shards = self.live[stage].iter().enumerate();
            shards.map(move |(shard, live)| Share {
                records: live.read().records_in,
                state_bytes: self.budget.bytes_of(stage, shard),
            })
        };
        let told = |stage| Shares {
            stage: self.stage_places(stage),
            shards: of(stage).collect(),
        };
        stages.map(told).collect()
    }

    /// The job's counters: what the checkpoint held that it went on from, and since.
    fn totals(&self) -> Counters {
        let from = self.control.as_ref().and_then(|c| c.from);
        let mut total = from.map_or(Counters::default(), |(_, restored)| restored.counters);
        for (stage, ops) in self.stages.iter().enumerate() {
            let counters = self.stage_counters(stage);
            total.add(&counters.for_job(ops.iter().map(|o| o.kind)));
        }
        total
    }
}

/// The jobs of a runtime by their numbers: whose step it is that a shard hangs in.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<BTreeMap<u32, Weak<JobShared>>>);

impl Jobs {
    pub fn add(&self, job: &Arc<JobShared>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|_, job| job.strong_count() > 0);
        jobs.insert(job.number, Arc::downgrade(job));
    }

    /// Those whose end is not known yet.
    pub fn live(&self) -> Vec<Arc<JobShared>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = jobs.values().filter_map(Weak::upgrade);
        jobs.filter(|job| !job.end().is_known()).collect()
    }

    pub fn get(&self, number: u32) -> Option<Arc<JobShared>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.get(&number).and_then(Weak::upgrade)
    }
}

/// Ends a job from anywhere: see [`JobHandle::stopper`].
#[derive(Clone, Debug)]
pub struct Stopper {
    shared: Arc<JobShared>,
    bells: Vec<Doorbell>,
}

impl Stopper {
    /// See [`JobHandle::cancel`].
    pub fn cancel(&self) {
        self.shared.fail(JobError::Cancelled {
            job: self.shared.name.clone(),
        });
        // Also on shards that sleep.
        for bell in &self.bells {
            bell.ring();
        }
    }

    /// Stops the job as [`Stop::Keep`] does, and takes a savepoint of its last epoch: what the job's sinks have committed in all,
    /// and nothing else, is behind it. Waits until the copy is durable; the job's end is waited for as ever.
    ///
    /// # Errors
    /// As [`JobHandle::savepoint`]. Where the folder is not empty the job has not been told to stop. Where the copy fails later (a full
    /// disk) the job has stopped all the same: its own folder holds that epoch, and the job goes on from it when it is started again.
    pub fn stop_with_savepoint(&self, folder: impl AsRef<Path>) -> Result<Epoch, JobError> {
        self.shared.savepoint(folder.as_ref(), Message::StopWith)
    }

    /// See [`JobHandle::stop`].
    pub fn stop(&self, how: Stop) {
        match &self.shared.control {
            Some(control) => {
                control.send(Message::Stop(how));
            }
            None => self.cancel(),
        }
    }
}

/// A job on a runtime. Dropping the handle does not end the job.
#[derive(Debug)]
pub struct JobHandle {
    shared: Arc<JobShared>,
    mailboxes: Vec<(Arc<Mailbox>, Doorbell)>,
    clock: Clock,
    key_groups: u32,
}

impl JobHandle {
    pub(crate) fn new(
        shared: Arc<JobShared>,
        mailboxes: Vec<(Arc<Mailbox>, Doorbell)>,
        clock: Clock,
        key_groups: u32,
    ) -> Self {
        JobHandle {
            shared,
            mailboxes,
            clock,
            key_groups,
        }
    }

    /// What has been counted so far. A job that went on from a checkpoint goes on counting from what that held.
    pub fn counters(&self) -> Counters {
        self.shared.totals()
    }

    /// The job's pitfalls: those of [`Job::warnings`](crate::Job::warnings), and what its opened sources tell (fewer partitions than shards).
    pub fn warnings(&self) -> &[Warning] {
        &self.shared.warnings
    }

    /// What each shard has of each stage behind an exchange, records and state: live, some milliseconds old. [`Shares::skews`] says whether keys
    /// are skewed to one shard. O(stages x shards).
    pub fn shares(&self) -> Vec<Shares> {
        self.shared.shares()
    }

    /// How large the job's states are, each operator's: live, some milliseconds old.
    pub fn state_sizes(&self) -> Vec<StateSize> {
        self.shared.budget.sizes(&self.shared.ops)
    }

    /// To read a state of the job while it runs, from any thread: by its operator's uid (given, or derived as `reduce-3`) and the state's name.
    /// The types are those of its keys and of what it keeps. See [`mod@crate::query`] for what can be asked and as of when it is.
    ///
    /// # Errors
    /// There is no such state: the error lists those that there are. Or it is of other types: the error names both.
    ///
    /// ```
    /// use pelton::query::ReadAt;
    /// use pelton::{Config, Driver, Job, Runtime, sink, sources};
    /// let job = Job::new("numbers");
    /// job.source(sources::generate("numbers", u64::MAX, 1, |id| id % 5))
    ///    .key_by(|n| *n)
    ///    .fold(0u64, |n, _| *n += 1)
    ///    .uid("counts")
    ///    .sink(sink::callback("none", |_, _| {}).updates());
    /// let runtime = Runtime::start(Config::default().shards(2).driver(Driver::Threads)).unwrap();
    /// let handle = runtime.submit(&job).unwrap();
    /// let counts = handle.query::<u64, u64>("counts", "keyed").unwrap();
    /// // The job has just begun.
    /// while counts.get(&3).unwrap() < Some(100) {
    ///     std::thread::yield_now();
    /// }
    /// assert_eq!(counts.scan(10, ReadAt::Now).unwrap().of.entries.len(), 5);
    /// assert!(handle.query::<u64, u64>("sums", "keyed").unwrap_err().to_string().contains("counts/keyed"));
    /// handle.cancel();
    /// ```
    pub fn query<K: Key, V: State>(
        &self,
        uid: &str,
        state: &str,
    ) -> Result<Query<K, V>, QueryError> {
        let space = KeySpace::new(self.key_groups, self.mailboxes.len() as u32);
        let way = OfJob::new(self.shared.clone(), self.mailboxes.clone());
        Query::of(way, &self.shared.queryable, space, (uid, state))
    }

    /// For how long the job's sources have been held because its states are above their budget
    /// ([`crate::Job::max_state_bytes`]); `None` where they read. What waits for the clock (a time to live of a day) may hold them
    /// long: a job that does is not one that hangs.
    pub fn held_for(&self) -> Option<Duration> {
        let since_ns = self.shared.budget.held_since()?;
        let held_ns = self.clock.now_ns().saturating_sub(since_ns);
        Some(Duration::from_nanos(held_ns))
    }

    /// Whether the job is over, or has been given up because a step does not return.
    pub fn is_over(&self) -> bool {
        self.shared.end().is_known()
    }

    /// Ends the job where it stands: nothing more is read, open windows do not fire.
    pub fn cancel(&self) {
        self.stopper().cancel();
    }

    /// What ends the job, for another thread: one that waits for signals, while this one waits for the end.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            shared: self.shared.clone(),
            bells: self.mailboxes.iter().map(|(_, b)| b.clone()).collect(),
        }
    }

    /// What is known of the job's checkpoints so far; `None` where it takes none.
    pub fn checkpoints(&self) -> Option<Checkpoints> {
        self.shared.control.as_ref().map(|c| c.figures())
    }

    /// Asks for a checkpoint now, whatever the interval says. Nothing where the job takes none.
    pub fn checkpoint(&self) {
        if let Some(control) = &self.shared.control {
            let _ = control.send(Message::Want);
        }
    }

    /// Takes a savepoint: all of the job's state as of an epoch that begins now, in a folder of its own that needs nothing else and
    /// that a job can be started from ([`crate::Checkpointing::from_savepoint`]). The folder is made if it is not there. Waits until
    /// the copy is durable; the job runs on meanwhile. Returns the epoch: all that the job's sinks have committed up to it, and
    /// nothing else, is behind the savepoint.
    ///
    /// # Errors
    /// The job takes no checkpoints, the folder is not empty, the job ended first, or a disk failed. What is in the folder then is
    /// no savepoint and will not be taken for one; it may be removed.
    pub fn savepoint(&self, folder: impl AsRef<Path>) -> Result<Epoch, JobError> {
        self.shared.savepoint(folder.as_ref(), Message::Savepoint)
    }

    /// Stops the job after a last checkpoint, as `how` says; its end is waited for as ever. A job without checkpoints is
    /// [cancelled](JobHandle::cancel).
    pub fn stop(&self, how: Stop) {
        self.stopper().stop(how);
    }

    /// Waits for the end of the job. A step that does not return ends it too: see [`crate::Config::stall_after`].
    pub fn wait(self) -> Result<JobReport, JobError> {
        let over = &self.shared.over;
        let mut end = self.shared.end();
        while !end.is_known() {
            end = over.wait(end).unwrap_or_else(PoisonError::into_inner);
        }
        self.outcome(end)
    }

    /// The same, and calls `each` with the handle every so often: for a progress bar, and to tell of commits that are being retried.
    pub fn wait_with(
        self,
        every: Duration,
        mut each: impl FnMut(&JobHandle),
    ) -> Result<JobReport, JobError> {
        let mut tell_at = Instant::now() + every;
        let mut end = self.shared.end();
        while !end.is_known() {
            let wait = tell_at.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                drop(end);
                each(&self);
                tell_at = Instant::now() + every;
                end = self.shared.end();
            } else {
                let (guard, _) = self
                    .shared
                    .over
                    .wait_timeout(end, wait)
                    .unwrap_or_else(PoisonError::into_inner);
                end = guard;
            }
        }
        self.outcome(end)
    }

    fn outcome(&self, mut end: MutexGuard<'_, End>) -> Result<JobReport, JobError> {
        // Said even if something else had ended the job before: it is why the job's end is not waited for.
        if let Some(stalled) = &end.given_up {
            return Err(stalled.clone());
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
        let stages: Vec<_> = (0..self.shared.stages.len())
            .map(|s| {
                let (longest_step, long_steps) = self.shared.steps(s);
                StageReport {
                    name: stage_name(&self.shared.stages[s]),
                    counters: self.shared.stage_counters(s),
                    longest_step,
                    long_steps,
                }
            })
            .collect();
        let (piece, long_pieces) = self.shared.pieces();
        let longest = stages.iter().map(|s| &s.longest_step).chain([&piece]);
        JobReport {
            job: self.shared.name.clone(),
            shards: self.mailboxes.len(),
            seconds: (self.clock.now_ns() - self.shared.started_ns) as f64 / 1e9,
            counters: self.shared.totals(),
            longest_step: longest
                .max_by(|a, b| a.us.total_cmp(&b.us))
                .cloned()
                .unwrap_or_default(),
            longest_piece: piece,
            long_pieces,
            stages,
            latencies,
            checkpoints: self.checkpoints(),
            states: self.state_sizes(),
            shares: self.shared.shares(),
            warnings: self.shared.warnings.clone(),
            from: self.shared.control.as_ref().and_then(|c| c.from),
        }
    }
}
