//! Jobs that are ended at any moment and go on from their last checkpoint: what their two-phase sinks show is what an
//! undisturbed run shows.

#[allow(dead_code, reason = "other tests need the rest")]
mod support;

use pelton::checkpoint::inspect;
use pelton::port::Ports;
use pelton::process::value;
use pelton::sink::{CommitError, Committer, Sink};
use pelton::testing::{self, OnDisk, Sizes, Stepper};
use pelton::{
    Checkpointing, Epoch, EventTime, Job, JobError, Runtime, Spans, Stop, Tumbling, Watermarks,
    sources,
};
use pelton_storage::{FaultyDisk, MemoryDisk, SharedDisk};
use std::collections::BTreeMap;
use std::path::Path;
use support::{Folder, Transactions, runtime};

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
        assert_eq!(sink.visible(), expected(), "{shards} shards");
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
    assert_eq!(sink.visible(), expected_of(MANY));
}

#[test]
fn a_job_that_is_stopped_keeps_its_windows() {
    let folder = Folder::new("stopped");
    let sink = Transactions::new();
    let mut stopped = 0;
    // In all lives: counters go on where the last one stopped.
    let mut read = 0;
    loop {
        let runtime = runtime(2);
        let handle = runtime.submit(&job(folder.path(), &sink)).unwrap();
        while handle.counters().records_in < read + 20_000 && !handle.is_over() {
            std::thread::yield_now();
        }
        handle.stop(Stop::Keep);
        let counters = handle.wait().unwrap().counters;
        if counters.records_in < read + 20_000 {
            assert_eq!(counters.records_in, RECORDS);
            assert_eq!(counters.records_out, expected().len() as u64);
            break;
        }
        read = counters.records_in;
        stopped += 1;
    }
    assert!(stopped > 0);
    assert_eq!(sink.visible(), expected());
}

/// A partition that has ended stands in each later checkpoint where it ended, though a life that goes on does not seek it.
#[test]
fn an_ended_partition_stays_where_it_ended() {
    const SHORT: u64 = 10;
    let folder = Folder::new("ended-partition");
    for life in 1..4u64 {
        let job = Job::new("two");
        job.checkpoints(
            Checkpointing::in_folder(folder.path())
                .every(1.millis())
                .reserve_bytes(0),
        );
        job.source(sources::partitions([0..SHORT, 0..u64::MAX]))
            .sink(testing::collect().1);
        let runtime = runtime(1);
        let handle = runtime.submit(&job).unwrap();
        while handle.counters().records_in < SHORT + life * 5_000 && !handle.is_over() {
            std::thread::yield_now();
        }
        handle.stop(Stop::Keep);
        handle.wait().unwrap();
        let last = inspect::inspect(folder.path()).unwrap().last.unwrap();
        let short = &last.partitions[0];
        assert_eq!(
            (short.position.offset, short.has_ended),
            (SHORT, true),
            "life {life}"
        );
        assert!(last.partitions[1].position.offset > SHORT && !last.partitions[1].has_ended);
    }
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
    let counted: u64 = sink.visible().iter().map(|row| row.2).sum();
    assert_eq!(counted, report.counters.records_in - report.counters.late);
}

#[test]
fn a_job_whose_every_epoch_is_given_up_loses_nothing_at_its_end() {
    for stop in [None, Some(Stop::Keep)] {
        let folder = Folder::new("late");
        let sink = Transactions::new();
        sink.slow(5_000_000);
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
        assert_eq!(sink.visible(), expected());
    }
}

/// A window that the rule of idleness has closed stays closed: what comes for it later is late, restarts or not.
#[test]
fn a_window_that_silence_closed_is_closed_after_a_restart() {
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let (feed, first) = testing::feed::<i64>(1);
    let start = |source| {
        let (results, sink) = testing::collect();
        let job = Job::new("counts");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        job.source(source)
            .event_time(
                |t: &i64| EventTime::from_seconds(*t),
                Watermarks::bounded(5.seconds()).close_after_idle(1.seconds()),
            )
            .key_by(|_| 0u8)
            .window(Tumbling::of(10.seconds()))
            .aggregate(|a| a.count())
            .sink(sink);
        let stepper = Stepper::on_disk(&job, Sizes::shards(1), &OnDisk::small(&disk)).unwrap();
        (stepper, results)
    };
    let (mut stepper, results) = start(first);
    feed.push(0, 60);
    stepper.until_idle().unwrap();
    stepper.advance_clock(2.seconds());
    stepper.until_idle().unwrap();
    assert_eq!(results.take().len(), 1, "[60, 70) was closed");
    // What the silence caused may be in a checkpoint by now, and then there is no further one.
    for _ in 0..3 {
        stepper.checkpoint();
        stepper.advance_clock(2.millis());
        stepper.until_idle().unwrap();
    }
    drop(stepper);
    let (mut stepper, results) = start(feed.source());
    assert!(stepper.from().is_some());
    feed.push(0, 65);
    stepper.until_idle().unwrap();
    assert_eq!(stepper.counters().late, 1);
    assert!(results.take().is_empty());
}

/// What silence has let pass in order stays passed: behind an order, too, what comes below M after a restart is late.
#[test]
fn an_order_that_silence_moved_on_goes_on_from_there() {
    let disk = SharedDisk::new(FaultyDisk::new(MemoryDisk::new()));
    let (feed, first) = testing::feed::<i64>(1);
    let start = |source| {
        let (results, sink) = testing::collect();
        let job = Job::new("in order");
        job.checkpoints(Checkpointing::in_folder("in memory").every(1.millis()));
        job.source(source)
            .event_time(
                |t: &i64| EventTime::from_seconds(*t),
                Watermarks::bounded(5.seconds()).close_after_idle(1.seconds()),
            )
            .key_by(|_| 0u8)
            .in_event_time_order()
            .process("last", value::<i64>("last"))
            .each(|t, last, cx| {
                cx.emit((last.get().copied(), *t));
                last.set(*t);
            })
            .sink(sink);
        let stepper = Stepper::on_disk(&job, Sizes::shards(1), &OnDisk::small(&disk)).unwrap();
        (stepper, results)
    };
    let (mut stepper, results) = start(first);
    feed.push(0, 60);
    stepper.until_idle().unwrap();
    stepper.advance_clock(2.seconds());
    stepper.until_idle().unwrap();
    assert_eq!(results.take(), [(None, 60)]);
    // What the silence caused may be in a checkpoint by now, and then there is no further one.
    for _ in 0..3 {
        stepper.checkpoint();
        stepper.advance_clock(2.millis());
        stepper.until_idle().unwrap();
    }
    drop(stepper);
    let (mut stepper, results) = start(feed.source());
    assert!(stepper.from().is_some());
    // Within the bound of its own partition, and below what the order has passed.
    feed.push(0, 57);
    feed.push(0, 70);
    stepper.until_idle().unwrap();
    stepper.advance_clock(2.seconds());
    stepper.until_idle().unwrap();
    assert_eq!(stepper.counters().late, 1);
    assert_eq!(results.take(), [(Some(60), 70)]);
}

/// A committer whose every commit panics.
struct Panics(Transactions<Row>);

impl Sink<Row> for Panics {
    type Writer = <Transactions<Row> as Sink<Row>>::Writer;
    fn name(&self) -> String {
        "panics".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        self.0.open(ports)
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        struct Broken;
        impl Committer for Broken {
            fn commit(&mut self, _: Epoch, _: &[u8]) -> Result<(), CommitError> {
                panic!("the table has no such column")
            }
            fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
                Ok(())
            }
        }
        Some(Box::new(Broken))
    }
}

#[test]
fn a_commit_that_panics_ends_its_job() {
    let folder = Folder::new("panics");
    let job = Job::new("rows");
    job.checkpoints(Checkpointing::in_folder(folder.path()).every(1.millis()));
    job.source(sources::generate("numbers", 1_000_000, 1, |id| id))
        .map(|id| (id as u32, 0, 0, 0))
        .sink(Panics(Transactions::new()));
    let runtime = runtime(1);
    let error = runtime.submit(&job).unwrap().wait().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no such column"), "{text}");
    let JobError::Panic { position, .. } = &error else {
        unreachable!();
    };
    let (epoch, sink) = ("the commit of epoch 1 ", "by sink 'panics'");
    assert!(position.starts_with(epoch), "{position}");
    assert!(position.contains(sink), "{position}");
    assert!(text.contains(position.as_str()), "{text}");
}

/// What the engine notes beside a state's entries is no entry, and verifying counts the sections that are there.
#[test]
fn an_inspection_counts_what_users_keep() {
    const KEYS: u64 = 10;
    let folder = Folder::new("inspected");
    let (feed, source) = testing::feed::<u64>(1);
    let job = Job::new("inspected");
    job.checkpoints(Checkpointing::in_folder(folder.path()).every(1.millis()));
    job.source(source)
        .event_time(
            |n| EventTime::from_micros(*n as i64),
            Watermarks::monotonous(),
        )
        .key_by(|n| *n % KEYS)
        .process("visits", value::<u64>("seen"))
        .on_timer(|_, _, _| {})
        .on_clock_timer(|_, _, _| {})
        .each(|n, seen, cx| {
            *seen.or_default() += 1;
            cx.timer_at(cx.time() + 1.hours());
            cx.emit(*n);
        })
        .sink(testing::collect().1);
    (0..KEYS).for_each(|n| feed.push(0, n));
    let runtime = runtime(2);
    let handle = runtime.submit(&job).unwrap();
    while handle.counters().records_out < KEYS && !handle.is_over() {
        std::thread::yield_now();
    }
    handle.stop(Stop::Keep);
    handle.wait().unwrap();
    let last = inspect::inspect(folder.path()).unwrap().last.unwrap();
    let entries = |name: &str| {
        let mut states = last.states.iter().filter(|s| s.name == name);
        states.next().map(|s| (s.uid.as_str(), s.entries))
    };
    assert_eq!(entries("seen"), Some(("visits", KEYS)));
    assert_eq!(entries("timers"), Some(("visits", KEYS)));
    let of = last.watermarks.iter().filter(|w| w.uid == "visits");
    assert_eq!(of.count(), 2, "M of each shard");
    assert!(inspect::verify(folder.path()).unwrap().damage.is_empty());
}
