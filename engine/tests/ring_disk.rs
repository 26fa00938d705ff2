//! Jobs whose shards write their checkpoints with io_uring, ended at any moment and gone on with by either disk.

#![cfg(all(target_os = "linux", feature = "glommio"))]

#[allow(dead_code, reason = "other tests need the rest")]
mod support;

use pelton::{
    Checkpointing, Config, DiskKind, Driver, EventTime, Job, JobError, Runtime, Spans, Stop,
    Tumbling, Watermarks, sources,
};
use std::collections::BTreeMap;
use std::path::Path;
use support::{Folder, Transactions};

/// Enough for several starts before they have all been read, in an optimised build too.
const RECORDS: u64 = if cfg!(debug_assertions) {
    1_000_000
} else {
    10_000_000
};

type Row = (u32, i64, u64);

/// Counts of 100 keys in windows of a second.
fn job(folder: &Path, disk: DiskKind, sink: &Transactions<Row>) -> Job {
    let job = Job::new("counts");
    job.checkpoints(
        Checkpointing::in_folder(folder)
            .every(1.millis())
            .segment_bytes(16 << 20)
            .reserve_bytes(0)
            .disk(disk),
    );
    job.source(sources::generate("numbers", RECORDS, 4, |id| id))
        .event_time(
            |id| EventTime::from_micros(*id as i64 * 1_000),
            Watermarks::bounded(20.millis()),
        )
        .key_by(|id| (*id % 100) as u32)
        .window(Tumbling::of(1.seconds()))
        .aggregate(|a| a.count())
        .map(|w| (w.key, w.window.start.micros(), w.value))
        .sink(sink.clone());
    job
}

fn expected() -> Vec<Row> {
    let mut all: BTreeMap<(u32, i64), u64> = BTreeMap::new();
    for id in 0..RECORDS {
        *all.entry(((id % 100) as u32, (id / 1_000) as i64 * 1_000_000))
            .or_default() += 1;
    }
    let rows = all.into_iter();
    rows.map(|((key, start), count)| (key, start, count))
        .collect()
}

fn runtime(driver: Driver, shards: usize) -> Runtime {
    Runtime::start(Config::default().shards(shards).driver(driver)).unwrap()
}

/// Files of a folder that this process has open.
fn open_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let paths = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    paths.filter(|path| path.starts_with(folder)).collect()
}

#[test]
fn a_job_that_is_ended_goes_on_with_either_disk() {
    let folder = Folder::new("ring-ended");
    let sink = Transactions::new();
    let (mut ended, mut by_ring) = (0, 0);
    for turn in 0.. {
        let (driver, disk) = match turn % 3 {
            0 | 1 => (Driver::Glommio, DiskKind::IoUring),
            _ => (Driver::Threads, DiskKind::Std),
        };
        let runtime = runtime(driver, [2, 1, 3, 2][turn % 4]);
        let handle = runtime.submit(&job(folder.path(), disk, &sink)).unwrap();
        let committed = |h: &pelton::JobHandle| h.checkpoints().map_or(0, |c| c.completed);
        while committed(&handle) < 2 && !handle.is_over() {
            std::thread::yield_now();
        }
        let written = handle.checkpoints().map_or(0, |c| c.bytes);
        by_ring += u64::from(disk == DiskKind::IoUring && written > 0);
        handle.cancel();
        let result = handle.wait();
        // Who waited for its end may have the folder: the lock is free, and nothing is open.
        assert_eq!(open_files(folder.path()), Vec::<std::path::PathBuf>::new());
        match result {
            Err(JobError::Cancelled { .. }) => ended += 1,
            Ok(_) => break,
            Err(e) => panic!("{e}"),
        }
        assert!(turn < 10_000, "it gets nowhere");
    }
    assert!(ended > 1 && by_ring > 1, "ended {ended}, by ring {by_ring}");
    assert_eq!(sink.visible(), expected());
}

#[test]
fn a_job_that_is_stopped_goes_on() {
    let folder = Folder::new("ring-stopped");
    let sink = Transactions::new();
    let runtime = runtime(Driver::Glommio, 2);
    let submit = || runtime.submit(&job(folder.path(), DiskKind::IoUring, &sink));
    // What a process that was killed may have left; and files that are not of that kind.
    std::fs::create_dir_all(folder.path()).unwrap();
    let (left, others) = (["probe-1-0", "probe-17-204"], ["probe-1", "probe-x-1"]);
    for name in left.iter().chain(&others) {
        std::fs::write(folder.path().join(name), [1; 4096]).unwrap();
    }
    let handle = submit().unwrap();
    let is_there = |name: &&str| folder.path().join(name).exists();
    // The job's own go as soon as they have come, but for those with these names.
    assert!(!is_there(&"probe-17-204"));
    assert!(others.iter().all(is_there));
    while handle.counters().records_in < 20_000 && !handle.is_over() {
        std::thread::yield_now();
    }
    handle.stop(Stop::Keep);
    handle.wait().unwrap();
    let report = submit().unwrap().wait().unwrap();
    assert!(report.from.is_some());
    assert!(!left.iter().any(is_there));
    assert_eq!(sink.visible(), expected());
}

#[test]
fn is_refused_where_threads_run_the_shards() {
    let folder = Folder::new("ring-refused");
    let runtime = runtime(Driver::Threads, 1);
    let job = job(folder.path(), DiskKind::IoUring, &Transactions::new());
    let error = runtime.submit(&job).unwrap_err().to_string();
    assert_eq!(
        error,
        "[PLT-0009] checkpoints are to be written with io_uring, and Threads runs the shards; \
         run them with Driver::Glommio, or use DiskKind::Auto"
    );
    assert!(!folder.path().exists(), "nothing was made");
}
