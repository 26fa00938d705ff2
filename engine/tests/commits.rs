//! Sinks that cannot commit what was decided: who is told, how a job ends meanwhile, and that its next start makes up for it.

#[allow(dead_code, reason = "other tests need the rest")]
mod support;

use pelton::port::Ports;
use pelton::sink::{CommitError, Committer, Sink};
use pelton::testing::{self, OnDisk, Sizes, Stepper};
use pelton::{
    Checkpointing, Epoch, EventTime, Job, JobError, JobHandle, Runtime, Spans, Stop, Tumbling,
    Watermarks, sources,
};
use pelton_storage::{FaultyDisk, FolderLock, MemoryDisk, SharedDisk};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use support::{Folder, Transactions, runtime};

/// What commits fail with for as long as it is there.
type Refusal = Arc<Mutex<Option<CommitError>>>;

/// A sink of two phases that refuses to commit.
#[derive(Clone)]
struct Refusing {
    to: Transactions<u64>,
    with: Refusal,
    /// Commits that were refused, or are about to be.
    asked: Arc<AtomicU64>,
    /// A commit is refused once this is so.
    when: Arc<AtomicBool>,
}

impl Refusing {
    fn new(is_retryable: bool) -> Self {
        let refusal = CommitError {
            what: "the table is locked".into(),
            is_retryable,
        };
        Refusing {
            to: Transactions::new(),
            with: Arc::new(Mutex::new(Some(refusal))),
            asked: Arc::default(),
            when: Arc::new(AtomicBool::new(true)),
        }
    }

    fn mend(&self) {
        *self.with.lock().unwrap() = None;
    }
}

impl Sink<u64> for Refusing {
    type Writer = <Transactions<u64> as Sink<u64>>::Writer;
    fn name(&self) -> String {
        "refusing".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        self.to.open(ports)
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        Some(Box::new(self.clone()))
    }
}

impl Committer for Refusing {
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        match &*self.with.lock().unwrap() {
            Some(refusal) => {
                self.asked.fetch_add(1, Relaxed);
                while !self.when.load(Relaxed) {
                    std::thread::yield_now();
                }
                Err(refusal.clone())
            }
            None => self.to.commit(epoch, prepared),
        }
    }
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String> {
        self.to.recover(last)
    }
}

/// `records` numbers, as they are.
fn submit(runtime: &Runtime, folder: &Path, records: u64, sink: &Refusing) -> JobHandle {
    let job = Job::new("numbers");
    job.checkpoints(
        Checkpointing::in_folder(folder)
            .every(1.millis())
            .end_timeout(300.millis())
            .segment_bytes(16 << 20)
            .reserve_bytes(0),
    );
    job.source(sources::generate("numbers", records, 2, |id| id))
        .sink(sink.clone());
    runtime.submit(&job).unwrap()
}

/// Waits until a commit has failed so often.
fn until_failed(handle: &JobHandle, times: u64) {
    while handle.checkpoints().unwrap().commits_failed < times {
        assert!(!handle.is_over(), "it goes on meanwhile");
        std::thread::yield_now();
    }
}

const FOREVER: u64 = u64::MAX / 2;

/// Sources that are held for a sink that is away are not silent: no window closes over what they have not been asked for.
#[test]
fn what_waits_behind_a_sink_that_is_away_is_not_late() {
    let disk = MemoryDisk::new();
    let disk = SharedDisk::new(FaultyDisk::new(disk));
    let sink = Refusing::new(true);
    let (feed, source) = testing::feed::<i64>(1);
    let job = Job::new("held");
    job.checkpoints(
        Checkpointing::in_folder("in memory")
            .every(5.seconds())
            .max_uncommitted(1),
    );
    job.source(source)
        .event_time(
            |t: &i64| EventTime::from_seconds(*t),
            Watermarks::bounded(5.seconds())
                .idle_after(1.seconds())
                .close_after_idle(60.seconds()),
        )
        .key_by(|_| 0u8)
        .window(Tumbling::of(10.seconds()))
        .aggregate(|a| a.count())
        .map(|w| w.value)
        .sink(sink.clone());
    let mut stepper = Stepper::on_disk(&job, Sizes::shards(1), &OnDisk::small(&disk)).unwrap();
    feed.push(0, 60);
    stepper.until_idle().unwrap();
    // Its silence begins, and the window that these close is a share of an epoch that cannot be committed.
    feed.push(0, 75);
    feed.push(0, 76);
    while stepper.checkpoints().waits == 0 {
        stepper.advance_clock(100.millis());
        stepper.until_idle().unwrap();
    }
    feed.push(0, 77);
    for _ in 0..300 {
        stepper.advance_clock(1.seconds());
        stepper.until_idle().unwrap();
    }
    assert_eq!(stepper.checkpoints().uncommitted, 1, "it still waits");
    sink.mend();
    for _ in 0..30 {
        stepper.advance_clock(100.millis());
        stepper.until_idle().unwrap();
    }
    assert_eq!(stepper.counters().late, 0);
    feed.close(0);
    while !stepper.all_done() {
        stepper.advance_clock(100.millis());
        stepper.until_idle().unwrap();
    }
    assert_eq!(sink.to.visible(), [1, 3]);
}

#[test]
fn a_commit_that_is_retried_is_told_while_it_is() {
    let folder = Folder::new("retried");
    let sink = Refusing::new(true);
    let runtime = runtime(1);
    let handle = submit(&runtime, folder.path(), FOREVER, &sink);
    until_failed(&handle, 3);
    let told = handle.checkpoints().unwrap();
    let retrying = told.retrying.unwrap();
    assert_eq!(
        (retrying.sink.as_str(), retrying.what.as_str()),
        ("refusing", "the table is locked")
    );
    assert!(retrying.times >= 3 && retrying.epoch > Epoch(0));
    assert_eq!(told.completed, 0);
    sink.mend();
    while handle.checkpoints().unwrap().retrying.is_some() {
        std::thread::yield_now();
    }
    handle.stop(Stop::Keep);
    let done = handle.wait().unwrap().checkpoints.unwrap();
    assert!(done.completed > 0 && done.commits_failed >= 3, "{done:?}");
    assert!(!sink.to.visible().is_empty());
}

/// A sink that does not come back for long: epochs go on without it, then sources wait, and in the end nothing is missing.
#[test]
fn epochs_go_on_beside_a_commit_until_too_many_are_uncommitted() {
    let folder = Folder::new("beside");
    let sink = Refusing::new(true);
    sink.when.store(false, Relaxed);
    let runtime = runtime(2);
    let job = Job::new("numbers");
    let often = Checkpointing::in_folder(folder.path()).every(1.millis());
    job.checkpoints(often.segment_bytes(16 << 20).reserve_bytes(0));
    // Slow enough for what is compared in the end to be little.
    let numbers = sources::generate("numbers", FOREVER, 2, |id| id);
    job.source(sources::paced(numbers, 20_000))
        .sink(sink.clone());
    let handle = runtime.submit(&job).unwrap();
    let told = || handle.checkpoints().unwrap();
    while !told().waiting {
        assert!(!handle.is_over(), "it goes on meanwhile");
        std::thread::yield_now();
    }
    let now = told();
    // An epoch before the first record has nothing to commit.
    assert_eq!((now.uncommitted, now.waits), (3, 1));
    assert!(sink.to.visible().is_empty());
    assert_eq!(sink.asked.load(Relaxed), 1, "it is asked once at a time");
    // It comes back, and could not; the next time it can.
    sink.when.store(true, Relaxed);
    sink.mend();
    while told().completed < now.completed + 4 {
        assert!(!handle.is_over(), "sources read again");
        std::thread::yield_now();
    }
    handle.stop(Stop::Keep);
    let done = handle.wait().unwrap().checkpoints.unwrap();
    assert_eq!((done.uncommitted, done.uncommitted_max), (0, 3));
    let mut visible = sink.to.visible();
    visible.sort_unstable();
    for odd in [0, 1] {
        let of = visible.iter().filter(|n| *n % 2 == odd);
        assert!(of.zip((odd..).step_by(2)).all(|(n, i)| *n == i));
    }
}

#[test]
fn a_commit_that_is_of_no_use_to_retry_ends_its_job_and_is_made_up_for() {
    let folder = Folder::new("refused");
    let sink = Refusing::new(false);
    let runtime = runtime(1);
    let error = submit(&runtime, folder.path(), 1000, &sink)
        .wait()
        .unwrap_err();
    assert!(matches!(error, JobError::Checkpoint { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("sink refusing"), "{text}");
    assert!(text.contains("commit epoch "), "{text}");
    assert!(text.contains("the table is locked"), "{text}");
    assert!(text.contains("start the job again"), "{text}");
    sink.mend();
    let next = submit(&runtime, folder.path(), 1000, &sink);
    next.wait().unwrap();
    assert_eq!(sink.to.visible(), (0..1000).collect::<Vec<_>>());
}

/// Law 8 of the coordinator: neither a stop nor the end of the input waits for ever.
#[test]
fn a_job_ends_although_its_last_commit_does_not_come_about() {
    for (records, stop) in [
        (1000, None),
        (FOREVER, Some(Stop::Keep)),
        (FOREVER, Some(Stop::Drain)),
    ] {
        let folder = Folder::new("ends");
        let sink = Refusing::new(true);
        let runtime = runtime(2);
        let handle = submit(&runtime, folder.path(), records, &sink);
        if let Some(how) = stop {
            until_failed(&handle, 1);
            handle.stop(how);
        }
        let text = handle.wait().unwrap_err().to_string();
        assert!(text.contains("was not committed within 300ms"), "{text}");
        assert!(text.contains("sink refusing failed"), "{text}");
        assert!(text.contains("started again"), "{text}");
        sink.mend();
        let next = submit(&runtime, folder.path(), records, &sink);
        if stop.is_some() {
            next.stop(Stop::Keep);
        }
        next.wait().unwrap();
        let visible = sink.to.visible();
        if records == 1000 {
            assert_eq!(visible, (0..1000).collect::<Vec<_>>());
        }
        // Two partitions: each without a gap from its beginning.
        let odd = visible.iter().filter(|n| *n % 2 == 1).count() as u64;
        let even = visible.len() as u64 - odd;
        assert!(
            visible
                .iter()
                .all(|n| n / 2 < if n % 2 == 1 { odd } else { even })
        );
        assert!(!visible.is_empty());
    }
}

/// The same for a share that is never prepared.
#[test]
fn a_job_ends_although_its_last_epoch_is_never_written() {
    let folder = Folder::new("unwritten");
    let sink = Refusing::new(true);
    sink.mend();
    sink.to.slow(u64::MAX / 4);
    let runtime = runtime(1);
    let handle = submit(&runtime, folder.path(), 1000, &sink);
    let text = handle.wait().unwrap_err().to_string();
    assert!(text.contains("was not written within 300ms"), "{text}");
    assert!(text.contains("goes on anew"), "{text}");
    sink.to.slow(0);
    submit(&runtime, folder.path(), 1000, &sink).wait().unwrap();
    assert_eq!(sink.to.visible(), (0..1000).collect::<Vec<_>>());
}

/// The control thread has failed, and a shard of the job still runs: nobody else may have the folder before it has gone.
#[test]
fn a_folder_is_held_until_the_last_shard_has_gone() {
    let folder = Folder::new("held");
    let sink = Refusing::new(false);
    // The shard is within its step when the job fails: else it might go before it has been looked for.
    sink.when.store(false, Relaxed);
    let (asked, within) = (sink.asked.clone(), sink.when.clone());
    let runtime = runtime(1);
    let job = Job::new("numbers");
    let often = Checkpointing::in_folder(folder.path()).every(1.millis());
    job.checkpoints(often.segment_bytes(16 << 20).reserve_bytes(0));
    let gate = Arc::new(AtomicBool::new(false));
    let open = gate.clone();
    job.source(sources::generate("numbers", FOREVER, 1, |id| id))
        .map(move |id| {
            // A step that lasts until the gate opens.
            while asked.load(Relaxed) > 0 && !open.load(Relaxed) {
                within.store(true, Relaxed);
                std::thread::yield_now();
            }
            id
        })
        .sink(sink.clone());
    let handle = runtime.submit(&job).unwrap();
    while !sink.when.load(Relaxed) {
        std::thread::yield_now();
    }
    for _ in 0..10_000 {
        let taken = FolderLock::acquire(folder.path());
        assert!(taken.is_err(), "the shard is still there");
        std::thread::yield_now();
    }
    assert!(!handle.is_over());
    gate.store(true, Relaxed);
    assert!(matches!(handle.wait(), Err(JobError::Checkpoint { .. })));
    FolderLock::acquire(folder.path()).unwrap();
}

/// Blocks its shard where it is dropped, if it was used: the clones that a job is built of are not.
struct Dropped {
    used: AtomicBool,
    dropping: Arc<AtomicBool>,
    gate: Arc<AtomicBool>,
}

impl Clone for Dropped {
    fn clone(&self) -> Self {
        Dropped {
            used: AtomicBool::new(false),
            dropping: self.dropping.clone(),
            gate: self.gate.clone(),
        }
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if self.used.load(Relaxed) {
            self.dropping.store(true, Relaxed);
            while !self.gate.load(Relaxed) {
                std::thread::yield_now();
            }
        }
    }
}

/// All was done and committed, and the job's functions are being dropped: it is too late to cancel it.
#[test]
fn a_cancel_that_comes_after_the_end_changes_nothing() {
    for checkpoints in [true, false] {
        let folder = Folder::new("too-late");
        let sink = Refusing::new(false);
        sink.mend();
        let job = Job::new("numbers");
        if checkpoints {
            let often = Checkpointing::in_folder(folder.path()).every(1.millis());
            job.checkpoints(often.segment_bytes(16 << 20).reserve_bytes(0));
        }
        let (dropping, gate) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let dropped = Dropped {
            used: AtomicBool::new(false),
            dropping: dropping.clone(),
            gate: gate.clone(),
        };
        let numbers = job
            .source(sources::generate("numbers", 1000, 1, |id| id))
            .map(move |id| {
                dropped.used.store(true, Relaxed);
                id
            });
        match checkpoints {
            true => numbers.sink(sink.clone()),
            false => numbers.sink(pelton::sink::callback("nothing", |_, _| {})),
        }
        let runtime = runtime(1);
        let handle = runtime.submit(&job).unwrap();
        while !dropping.load(Relaxed) {
            std::thread::yield_now();
        }
        handle.cancel();
        gate.store(true, Relaxed);
        handle.wait().unwrap();
        if checkpoints {
            assert_eq!(sink.to.visible().len(), 1000);
        }
    }
}
