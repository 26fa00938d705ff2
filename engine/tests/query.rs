//! States of jobs that run on threads, read by others.

use pelton::query::{Query, QueryError, ReadAt};
use pelton::{Checkpointing, Config, Driver, Job, JobHandle, Runtime, Spans, sink, sources};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn runtime(shards: usize) -> Runtime {
    Runtime::start(Config::default().shards(shards).driver(Driver::Threads)).unwrap()
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("pelton-query-{name}-{}", std::process::id()))
}

fn sums(job: &Job, source: impl pelton::source::Source<Item = u64>) {
    job.source(source)
        // Both sides of a transfer, on different shards.
        .flat_map(|n| [(n % 100, n as i64), ((n + 37) % 100, -(n as i64))])
        .key_by(|t| t.0)
        .fold(0, |sum: &mut i64, t| *sum += t.1)
        .uid("sums")
        .sink(sink::callback("none", |_, _| {}).updates());
}

fn query_of(handle: &JobHandle) -> Query<u64, i64> {
    handle.query("sums", "keyed").unwrap()
}

/// While the job runs as fast as it can, two threads ask: what they are told of is as of one barrier, and later each time.
#[test]
fn a_job_that_runs_tells_of_one_epoch() {
    let folder = folder("epoch");
    let job = Job::new("transfers");
    job.checkpoints(Checkpointing::in_folder(&folder).every(1.millis()));
    sums(&job, sources::generate("numbers", u64::MAX, 2, |id| id));
    let runtime = runtime(2);
    let handle = runtime.submit(&job).unwrap();
    let moved = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let query = query_of(&handle);
                let keys: Vec<u64> = (0..100).collect();
                let (mut last, mut before) = (pelton::Epoch(0), vec![]);
                for _ in 0..10 {
                    let scan = query.scan(1_000, ReadAt::Epoch).unwrap();
                    let sum: i64 = scan.of.entries.iter().map(|(_, sum)| sum).sum();
                    assert_eq!((sum, scan.of.is_complete), (0, true));
                    let all = query.get_all(&keys, ReadAt::Epoch).unwrap();
                    assert_eq!(all.of.iter().flatten().sum::<i64>(), 0);
                    assert!(last < scan.epoch && scan.epoch < all.epoch);
                    last = all.epoch;
                    moved.fetch_or(all.of != before && !before.is_empty(), Relaxed);
                    before = all.of;
                    query.get(&7).unwrap();
                }
            });
        }
    });
    assert!(moved.into_inner(), "all reads told the same");
    let query = query_of(&handle);
    handle.cancel();
    assert!(handle.wait().is_err());
    let over = query.get(&7).unwrap_err();
    assert_eq!(over.code(), "PLT-0305", "{over}");
    assert_eq!(query.scan(1, ReadAt::Epoch).unwrap_err(), over);
    std::fs::remove_dir_all(&folder).unwrap();
}

/// One without checkpoints has no barriers; one whose runtime goes has nothing to tell.
#[test]
fn what_cannot_be_had_is_an_error_and_no_wait() {
    let job = Job::new("plain");
    sums(&job, sources::generate("numbers", u64::MAX, 2, |id| id));
    let runtime = runtime(2);
    let handle = runtime.submit(&job).unwrap();
    let query = query_of(&handle);
    let none = query.scan(10, ReadAt::Epoch).unwrap_err();
    assert!(matches!(none, QueryError::NoCheckpoints { .. }), "{none}");
    assert_eq!(query.get_all(&[], ReadAt::Now).unwrap().of, []);
    // It comes when it comes.
    while query.get(&5).unwrap().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(query.get(&100), Ok(None));
    // Dropped while it is asked: answered or over, and nothing else.
    let asker = {
        let query = query_of(&handle);
        std::thread::spawn(move || {
            loop {
                match query.get(&5) {
                    Ok(Some(_)) => {}
                    Err(QueryError::Over { .. }) => break,
                    other => panic!("{other:?}"),
                }
            }
        })
    };
    drop(runtime);
    asker.join().unwrap();
    assert!(handle.wait().is_err());
    assert!(matches!(query.get(&5), Err(QueryError::Over { .. })));
}
