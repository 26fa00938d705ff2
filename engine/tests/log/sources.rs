//! What a source of a log does where the log changes under it, or between two starts.

use crate::jobs::{checkpoints, from};
use crate::laws::append;
use crate::support::{Folder, runtime};
use pelton::log;
use pelton::testing::{self, Stepper};
use pelton::{Job, JobError, Spans};
use pelton_storage::{Epoch, Lineage, Log, LogConfig, Record, StdDisk, Visibility};
use std::path::Path;

fn ids(ids: impl Iterator<Item = u64>, partition: u32) -> impl Iterator<Item = (u32, Vec<u8>)> {
    ids.map(move |id| {
        let mut value = vec![];
        log::Codec::encode(&mut log::states::<u64>(), &id, &mut value).unwrap();
        (partition, value)
    })
}

/// A life of a job with checkpoints over the source; what it yields, sorted.
fn life(
    folder: &Path,
    source: log::LogSource<u64, log::States<u64>>,
) -> Result<Vec<u64>, JobError> {
    let (rows, sink) = testing::collect();
    let job = Job::new("read");
    job.checkpoints(checkpoints(folder));
    job.source(source.until_end()).uid("log").sink(sink);
    runtime(2).submit(&job)?.wait()?;
    let mut rows = rows.take();
    rows.sort_unstable();
    Ok(rows)
}

#[test]
fn a_partition_that_is_added_stops_who_follows_and_is_read_from_its_start_by_the_next() {
    let folder = Folder::new("log-added");
    let log = folder.path().join("log");
    append(&log, 1, ids(0..10, 0));
    let (rows, sink) = testing::collect();
    let job = Job::new("follow");
    job.source(from(folder.path())).sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.until_idle().unwrap();
    assert_eq!(rows.take().len(), 10);
    append(&log, 2, ids(10..20, 1));
    stepper.advance_clock(10.millis());
    let stopped = stepper.until_idle().unwrap_err().to_string();
    assert!(
        stopped.contains("has 2 partitions by now") && stopped.contains("start the job again"),
        "{stopped}"
    );
}

/// Neither the end of then nor the offsets that were for fewer partitions say anything about one that is new, and on shards that had
/// none of the source.
#[test]
fn what_a_checkpoint_does_not_know_is_read_from_its_first_record() {
    type Begin = fn(log::LogSource<u64, log::States<u64>>) -> log::LogSource<u64, log::States<u64>>;
    let latest: Begin = |source| source.from_latest();
    let offsets: Begin = |source| source.from_offsets([10]);
    for begin in [latest, offsets] {
        let folder = Folder::new("log-added-later");
        let log = folder.path().join("log");
        append(&log, 1, ids(0..10, 0));
        let source = || begin(from(folder.path()));
        assert!(life(folder.path(), source()).unwrap().is_empty());
        append(&log, 2, ids(10..20, 1));
        let rows = life(folder.path(), source()).unwrap();
        assert!(rows.iter().copied().eq(10..20), "{rows:?}");
    }
}

#[test]
fn where_nothing_was_read_yet_the_offsets_are_looked_at() {
    let folder = Folder::new("log-offsets");
    append(&folder.path().join("log"), 1, ids(0..10, 0));
    for (offsets, said) in [
        (vec![11], "there is no offset 11"),
        (vec![1, 2], "give one for each"),
    ] {
        for _ in 0..2 {
            let source = from(folder.path()).from_offsets(offsets.clone());
            let refused = life(folder.path(), source).unwrap_err().to_string();
            assert!(refused.contains(said), "{refused}");
        }
    }
    let rows = life(folder.path(), from(folder.path()).from_offsets([9])).unwrap();
    assert_eq!(rows, [9]);
}

/// The writer is started again between a look and the read, and cuts what it had written and nobody has decided on.
#[test]
fn a_view_that_is_older_than_the_log_is_looked_up_again() {
    let folder = Folder::new("log-cut");
    let path = folder.path().join("log");
    let open = |disk: &mut StdDisk| {
        let config = LogConfig {
            reserve_bytes: 0,
            ..LogConfig::new(1, 1, Visibility::Committed, Lineage([4; 16]))
        };
        Log::open(disk, config, &[]).unwrap()
    };
    let mut disk = StdDisk::blocking(&path).unwrap();
    let mut log = open(&mut disk);
    for epoch in 1..=2 {
        for (_, value) in ids(0..100, 0) {
            let (key, value) = (None, &value[..]);
            log.append(0, Record { key, value }, 0).unwrap();
        }
        log.stage(Epoch(epoch)).unwrap();
        let mut staged = None;
        until(&mut log, &mut disk, |log| {
            staged = staged.take().or_else(|| log.take_staged());
            staged.is_some()
        });
        if let Some(staged) = staged.filter(|s| s.epoch == Epoch(1)) {
            log.commit(&staged).unwrap();
            until(&mut log, &mut disk, |log| log.committed() == Epoch(1));
        }
    }
    log.mark();
    until(&mut log, &mut disk, |log| log.is_idle());
    drop(log);
    let (rows, sink) = testing::collect();
    let job = Job::new("read");
    job.source(from(folder.path()).until_end()).sink(sink);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    drop(open(&mut disk));
    stepper.run().unwrap();
    assert_eq!(rows.take().len(), 100);
}

fn until(log: &mut Log, disk: &mut StdDisk, mut done: impl FnMut(&mut Log) -> bool) {
    use pelton_storage::{BlockingDisk, Disk};
    let mut completions = vec![];
    while !done(log) {
        log.step(disk, i64::MAX);
        disk.wait().unwrap();
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion).unwrap();
        }
    }
}
