//! What a log as a sink keeps, and what it refuses.

use crate::jobs::checkpoints;
use crate::laws::visible;
use crate::support::{Folder, runtime};
use pelton::log::{self, Retention};
use pelton::{Checkpointing, EventTime, Job, JobError, Spans, Watermarks, sources};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn run(job: &Job) -> Result<(), JobError> {
    runtime(2).submit(job)?.wait().map(drop)
}

/// A job of this name writes ids to `log`.
fn write(above: &Path, name: &str, log: &str) -> Result<(), JobError> {
    let job = Job::new(name);
    let folder = above.join(format!("{name}-checkpoints"));
    let taking = Checkpointing::in_folder(folder).every(1.millis());
    job.checkpoints(taking.segment_bytes(16 << 20).reserve_bytes(0));
    let ids = sources::generate("ids", 1_000, 2, |id| id);
    let to = log::sink(above.join(log), log::states::<u64>());
    job.source(ids).sink(to.segment_bytes(2 << 20));
    run(&job)
}

#[test]
fn the_log_of_another_job_is_refused_and_not_touched() {
    let folder = Folder::new("log-swapped");
    let path = |name: &str| folder.path().join(name);
    for name in ["one", "two"] {
        write(folder.path(), name, name).unwrap();
        write(folder.path(), name, name).expect("its own log");
    }
    std::fs::rename(path("one"), path("kept")).unwrap();
    let files = || {
        let entries = std::fs::read_dir(path("two")).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .filter(|entry| !entry.file_name().to_string_lossy().contains("lock"))
            .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = files();
    for (log, said) in [("two", "another log lies there"), ("one", "is not there")] {
        let refused = write(folder.path(), "one", log).unwrap_err().to_string();
        assert!(
            refused.contains(said) && refused.contains("put back that one"),
            "{refused}"
        );
    }
    assert!(files() == before, "it is as it was");
    assert!(visible(&path("one")).is_empty(), "and none was made");
    std::fs::remove_dir_all(path("one")).unwrap();
    std::fs::rename(path("kept"), path("one")).unwrap();
    write(folder.path(), "one", "one").expect("put back");
    assert_eq!(visible(&path("one")).concat().len(), 1_000);
}

#[test]
fn a_record_from_the_future_makes_no_other_old() {
    const BLOBS: u64 = 12_000;
    let folder = Folder::new("log-future");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_us = i64::try_from(now.as_micros()).unwrap();
    let job = Job::new("write");
    job.checkpoints(checkpoints(folder.path()));
    let blobs = sources::generate("blobs", BLOBS, 1, |id: u64| (id, vec![7u8; 1_000]));
    let time = move |(id, _): &(u64, Vec<u8>)| match *id {
        9_000 => EventTime::MAX,
        id => EventTime::from_micros(now_us - 1_000_000 + id as i64),
    };
    let sink = log::sink(folder.path().join("log"), log::states::<(u64, Vec<u8>)>())
        .segment_bytes(2 << 20)
        .retain(Retention {
            bytes_max: None,
            age_us_max: Some(3_600_000_000),
        });
    job.source(sources::paced(blobs, 40_000))
        .event_time(time, Watermarks::bounded(0.millis()))
        .sink(sink);
    run(&job).unwrap();
    let kept = visible(&folder.path().join("log")).concat().len();
    assert_eq!(kept as u64, BLOBS);
}

#[test]
fn records_without_a_time_have_no_age() {
    let folder = Folder::new("log-ageless");
    let job = Job::new("write");
    job.checkpoints(checkpoints(folder.path()));
    let sink = log::sink(folder.path().join("log"), log::states::<u64>()).retain(Retention {
        bytes_max: None,
        age_us_max: Some(1),
    });
    job.source(sources::generate("ids", 10, 1, |id| id))
        .sink(sink);
    let refused = run(&job).unwrap_err().to_string();
    assert!(
        refused.contains("by their age") && refused.contains("no event time"),
        "{refused}"
    );
}

#[test]
fn a_record_that_is_too_long_is_named() {
    let folder = Folder::new("log-long");
    let job = Job::new("write");
    job.checkpoints(checkpoints(folder.path()));
    let blobs = sources::generate("blobs", 3, 1, |id: u64| match id {
        1 => b"long ".repeat(300_000),
        _ => b"short".to_vec(),
    });
    job.source(blobs)
        .sink(log::sink(folder.path().join("log"), log::bytes()).segment_bytes(2 << 20));
    let ended = run(&job).unwrap_err().to_string();
    assert!(
        ended.contains("1500000 bytes") && ended.contains("begins with long long"),
        "{ended}"
    );
}
