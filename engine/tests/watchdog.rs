//! A step that never returns is named though nobody waits for its job, and nobody who waits later hangs.

use pelton::{Config, Driver, Job, JobError, JobHandle, Runtime, Span, sink, sources};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Ends the endless function of a test when it is over, so that no thread spins on.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn start() -> Runtime {
    let config = Config::default().shards(2).driver(Driver::Threads);
    Runtime::start(config.stall_after(Span::from_micros(200_000))).unwrap()
}

/// A job that hangs in its record 7, and what ends it.
fn endless(runtime: &Runtime) -> (JobHandle, Release) {
    let over = Arc::new(AtomicBool::new(false));
    let release = Release(over.clone());
    let hangs = Arc::new(AtomicBool::new(false));
    let says = hangs.clone();
    let job = Job::new("endless");
    job.source(sources::generate("numbers", 100, 2, |id| id))
        .inspect(move |x| {
            while *x == 7 && !over.load(Relaxed) {
                says.store(true, Relaxed);
                std::hint::spin_loop();
            }
        })
        .uid("round and round")
        .sink(sink::callback("nothing", |_, _| {}));
    let handle = runtime.submit(&job).unwrap();
    while !hangs.load(Relaxed) {
        std::thread::yield_now();
    }
    (handle, release)
}

fn harmless(runtime: &Runtime) -> JobHandle {
    let job = Job::new("harmless");
    job.source(sources::generate("numbers", 100, 2, |id| id))
        .sink(sink::callback("nothing", |_, _| {}));
    runtime.submit(&job).unwrap()
}

/// Looks, without waiting for the job, until it is over.
fn look_until_over(handle: &JobHandle) {
    let began = Instant::now();
    while !handle.is_over() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody noticed");
        std::thread::yield_now();
    }
}

fn assert_names_the_stage(error: &JobError) {
    assert!(
        matches!(error, JobError::Stalled { shard: 1, .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("inspect 'round and round' at"),
        "{error}"
    );
}

#[test]
fn a_stall_is_found_though_nobody_waits() {
    let runtime = start();
    let (handle, _release) = endless(&runtime);
    look_until_over(&handle);
    assert_names_the_stage(&handle.wait().unwrap_err());
}

#[test]
fn jobs_submitted_to_a_stuck_runtime_are_told_whose_step_it_is() {
    let runtime = start();
    let (handle, _release) = endless(&runtime);
    drop(handle);
    for _ in 0..2 {
        let error = harmless(&runtime).wait().unwrap_err();
        let JobError::RuntimeGone { what, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            what.contains("shard 1 has been stuck") && what.contains("of job 'endless'"),
            "{error}"
        );
    }
}

#[test]
fn whoever_waits_is_told_though_the_runtime_is_gone() {
    let config = Config::default().shards(2).driver(Driver::Threads);
    // Longer than a runtime waits for its shards when it is dropped.
    let runtime = Runtime::start(config.stall_after(Span::from_micros(2_500_000))).unwrap();
    let (handle, _release) = endless(&runtime);
    drop(runtime);
    look_until_over(&handle);
    assert_names_the_stage(&handle.wait().unwrap_err());
}

#[test]
fn a_shard_that_comes_back_serves_the_next_job() {
    let runtime = start();
    let (handle, release) = endless(&runtime);
    look_until_over(&handle);
    drop(release);
    // The stuck step returns some time; until then jobs are given up at once.
    let began = Instant::now();
    while let Err(error) = harmless(&runtime).wait() {
        assert!(began.elapsed() < Duration::from_secs(30), "{error}");
    }
}
