//! Jobs that are ended at any moment and go on from their last checkpoint: what their two-phase sinks show is what an
//! undisturbed run shows.

use pelton::sink::{CommitError, Committer, PreCommit, Sink, Writer};
use pelton::{
    Checkpointing, Config, Driver, Epoch, EventTime, Job, JobError, Runtime, Spans, Stop, Tumbling,
    Watermarks, batch::Stamp, port::Ports, sources,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A folder of this test's own, removed when it goes.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("pelton-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What has been made durable and what others see: it outlives the jobs that write to it.
struct Ledger<T> {
    /// By the bytes that name them.
    staged: BTreeMap<Vec<u8>, Vec<T>>,
    visible: Vec<T>,
    commits: u64,
    /// How long it takes to prepare, nanoseconds.
    slow_ns: u64,
}

/// A two-phase sink in memory.
struct Transactions<T>(Arc<Mutex<Ledger<T>>>);

impl<T> Clone for Transactions<T> {
    fn clone(&self) -> Self {
        Transactions(self.0.clone())
    }
}

impl<T> Transactions<T> {
    fn new() -> Self {
        Transactions(Arc::new(Mutex::new(Ledger {
            staged: BTreeMap::new(),
            visible: vec![],
            commits: 0,
            slow_ns: 0,
        })))
    }
}

struct Stage<T> {
    ledger: Transactions<T>,
    shard: usize,
    written: Vec<T>,
    ready: Option<(Epoch, Vec<T>)>,
    /// When it was first asked.
    asked_ns: Option<u64>,
}

impl<T: Send + 'static> Sink<T> for Transactions<T> {
    type Writer = Stage<T>;
    fn name(&self) -> String {
        "transactions".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Stage<T>>, String> {
        let stage = |shard| Stage {
            ledger: self.clone(),
            shard,
            written: vec![],
            ready: None,
            asked_ns: None,
        };
        Ok((0..ports.shards()).map(stage).collect())
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        Some(Box::new(self.clone()))
    }
}

impl<T: Send + 'static> Writer<T> for Stage<T> {
    fn write(&mut self, record: T, _: Stamp) {
        self.written.push(record);
    }
    fn barrier(&mut self, epoch: Epoch) {
        self.ready = Some((epoch, std::mem::take(&mut self.written)));
    }
    fn pre_commit(&mut self, now_ns: u64) -> Result<PreCommit, String> {
        let asked_ns = *self.asked_ns.get_or_insert(now_ns);
        if now_ns < asked_ns + self.ledger.0.lock().unwrap().slow_ns {
            return Ok(PreCommit::Pending);
        }
        self.asked_ns = None;
        let Some((epoch, records)) = self.ready.take() else {
            return Ok(PreCommit::Ready(None));
        };
        if records.is_empty() {
            return Ok(PreCommit::Ready(None));
        }
        let name = format!("{:020}-{}", epoch.0, self.shard).into_bytes();
        let mut ledger = self.ledger.0.lock().unwrap();
        ledger.staged.insert(name.clone(), records);
        Ok(PreCommit::Ready(Some(name)))
    }
}

impl<T: Send + 'static> Committer for Transactions<T> {
    fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let mut ledger = self.0.lock().unwrap();
        // What is no longer staged was committed before.
        if let Some(records) = ledger.staged.remove(prepared) {
            ledger.visible.extend(records);
            ledger.commits += 1;
        }
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        self.0.lock().unwrap().staged.clear();
        Ok(())
    }
}

const RECORDS: u64 = 300_000;
/// Of the job that is ended again and again.
const MANY: u64 = 1_500_000;

type Row = (u32, i64, u64, u64);

/// Counts and sums of 100 keys in windows of a second, 1,000 records to the second of event time, some of them out of order.
fn job(folder: &Path, sink: &Transactions<Row>) -> Job {
    job_of(RECORDS, folder, sink)
}

fn job_of(records: u64, folder: &Path, sink: &Transactions<Row>) -> Job {
    let job = Job::new("sums");
    job.checkpoints(
        Checkpointing::in_folder(folder)
            .every(1.millis())
            .segment_bytes(16 << 20)
            .reserve_bytes(0),
    );
    job.source(sources::generate("numbers", records, 4, |id| id))
        .event_time(
            |id| EventTime::from_micros((*id as i64 * 1_000) - ((*id % 7) * 900) as i64),
            Watermarks::bounded(20.millis()),
        )
        .key_by(|id| (*id % 100) as u32)
        .window(Tumbling::of(1.seconds()))
        .aggregate(|a| (a.count(), a.sum(|id: &u64| *id)))
        .map(|w| (w.key, w.window.start.micros(), w.value.0, w.value.1))
        .sink(sink.clone());
    job
}

fn expected() -> Vec<Row> {
    expected_of(RECORDS)
}

fn expected_of(records: u64) -> Vec<Row> {
    let mut all: BTreeMap<(u32, i64), (u64, u64)> = BTreeMap::new();
    for id in 0..records {
        let time = (id as i64 * 1_000) - ((id % 7) * 900) as i64;
        let window = time.div_euclid(1_000_000) * 1_000_000;
        let sum = all.entry(((id % 100) as u32, window)).or_default();
        sum.0 += 1;
        sum.1 += id;
    }
    let rows = all.into_iter();
    rows.map(|((key, start), (count, sum))| (key, start, count, sum))
        .collect()
}

fn runtime(shards: usize) -> Runtime {
    Runtime::start(
        Config::default()
            .shards(shards)
            .driver(Driver::Threads)
            .batch_size(64),
    )
    .unwrap()
}

fn visible(sink: &Transactions<Row>) -> Vec<Row> {
    let mut rows = sink.0.lock().unwrap().visible.clone();
    rows.sort_unstable();
    rows
}

#[test]
fn an_undisturbed_run_commits_everything_once() {
    for shards in [1, 2, 3] {
        let folder = Folder::new("whole");
        let sink = Transactions::new();
        let handle = runtime(shards).submit(&job(folder.path(), &sink));
        // The runtime has gone, and the job with it.
        assert!(matches!(
            handle.unwrap().wait(),
            Err(JobError::RuntimeGone { .. })
        ));
        let runtime = runtime(shards);
        let report = runtime
            .submit(&job(folder.path(), &sink))
            .unwrap()
            .wait()
            .unwrap();
        assert_eq!(visible(&sink), expected(), "{shards} shards");
        let checkpoints = report.checkpoints.unwrap();
        assert!(checkpoints.completed > 0, "{checkpoints:?}");
    }
}

#[test]
fn a_job_that_is_ended_goes_on_with_any_number_of_shards() {
    let folder = Folder::new("ended");
    let sink = Transactions::new();
    let mut ended = 0;
    for turn in 0.. {
        let runtime = runtime([2, 1, 3][turn % 3]);
        let handle = runtime.submit(&job_of(MANY, folder.path(), &sink)).unwrap();
        // Let it get somewhat further, and end it wherever it then is.
        let committed = |h: &pelton::JobHandle| h.checkpoints().map_or(0, |c| c.completed);
        while committed(&handle) < 2 && !handle.is_over() {
            std::thread::yield_now();
        }
        handle.cancel();
        match handle.wait() {
            Err(JobError::Cancelled { .. }) => ended += 1,
            Ok(_) => break,
            Err(e) => panic!("{e}"),
        }
        assert!(turn < 10_000, "it gets nowhere");
    }
    assert!(ended > 1, "it was ended {ended} times");
    assert_eq!(visible(&sink), expected_of(MANY));
}

#[test]
fn a_job_that_is_stopped_keeps_its_windows() {
    let folder = Folder::new("stopped");
    let sink = Transactions::new();
    let mut stopped = 0;
    loop {
        let runtime = runtime(2);
        let handle = runtime.submit(&job(folder.path(), &sink)).unwrap();
        while handle.counters().records_in < 20_000 && !handle.is_over() {
            std::thread::yield_now();
        }
        handle.stop(Stop::Keep);
        let report = handle.wait().unwrap();
        if report.counters.records_in < 20_000 {
            break;
        }
        stopped += 1;
    }
    assert!(stopped > 0);
    assert_eq!(visible(&sink), expected());
}

#[test]
fn a_job_that_is_drained_fires_what_is_open() {
    let folder = Folder::new("drained");
    let sink = Transactions::new();
    let runtime = runtime(2);
    let handle = runtime.submit(&job(folder.path(), &sink)).unwrap();
    while handle.counters().records_in < 20_000 && !handle.is_over() {
        std::thread::yield_now();
    }
    handle.stop(Stop::Drain);
    let report = handle.wait().unwrap();
    let counted: u64 = visible(&sink).iter().map(|row| row.2).sum();
    assert_eq!(counted, report.counters.records_in - report.counters.late);
}

#[test]
fn a_job_whose_every_epoch_is_given_up_loses_nothing_at_its_end() {
    for stop in [None, Some(Stop::Keep)] {
        let folder = Folder::new("late");
        let sink = Transactions::new();
        sink.0.lock().unwrap().slow_ns = 5_000_000;
        let submit = |runtime: &Runtime| {
            let job = job(folder.path(), &sink);
            let checkpointing = Checkpointing::in_folder(folder.path());
            let impatient = checkpointing.every(1.millis()).timeout(1.millis());
            job.checkpoints(impatient.segment_bytes(16 << 20).reserve_bytes(0));
            runtime.submit(&job).unwrap()
        };
        let runtime = runtime(2);
        let handle = submit(&runtime);
        if let Some(how) = stop {
            while handle.counters().records_in < 20_000 && !handle.is_over() {
                std::thread::yield_now();
            }
            handle.stop(how);
        }
        let taken = handle.wait().unwrap().checkpoints.unwrap();
        assert!(taken.given_up > 0 || stop.is_some(), "{taken:?}");
        // The last one took as long, and had what those before it had.
        assert_eq!(taken.completed, 1, "{taken:?}");
        if stop.is_some() {
            submit(&runtime).wait().unwrap();
        }
        assert_eq!(visible(&sink), expected());
    }
}
