//! The same on real threads: nobody is asked inside a step, and whoever answers wakes the shard.

use crate::failures::{assert_panicked, panicking};
use crate::support::runtime;
use pelton::calls::{self, Async, Cache, Task};
use pelton::{Job, Spans, sources, testing};
use std::sync::{Arc, Barrier, Mutex, mpsc};

/// All eight are called at once, or none returns.
#[test]
fn functions_that_wait_are_called_on_so_many_threads() {
    let together = Arc::new(Barrier::new(8));
    for shards in [1, 2] {
        let together = together.clone();
        let client = calls::blocking(8, move |n: u64| {
            assert!(std::thread::current().name() == Some("pelton-call"));
            together.wait();
            Ok::<_, String>(n * 2)
        });
        let (rows, sink) = testing::collect();
        let job = Job::new("blocking");
        job.source(sources::items(0..800u64))
            .rebalance()
            .async_map(
                client,
                Async::unordered().capacity(64).time_out(1.hours()),
                |n| *n,
            )
            .results(|n, r| (*n, r))
            .sink(sink);
        runtime(shards).submit(&job).unwrap().wait().unwrap();
        let mut rows = rows.take();
        rows.sort_unstable();
        assert_eq!(rows, (0..800).map(|n| (n, 2 * n)).collect::<Vec<_>>());
    }
}

/// Something that runs futures: a thread that polls what it is given, woken by nothing but that.
fn executor() -> (impl Fn(Task) + Send + Sync, std::thread::JoinHandle<usize>) {
    let (tasks, given) = mpsc::channel::<Task>();
    let tasks = Mutex::new(tasks);
    let thread = std::thread::spawn(move || {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut done = 0;
        for mut task in given {
            while task.as_mut().poll(&mut cx).is_pending() {}
            done += 1;
        }
        done
    });
    (
        move |task| tasks.lock().unwrap().send(task).unwrap(),
        thread,
    )
}

#[test]
fn futures_run_elsewhere() {
    let (spawn, thread) = executor();
    let client = calls::futures(spawn, |key: u64| async move {
        let mut polled = false;
        std::future::poll_fn(|_| match std::mem::replace(&mut polled, true) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        })
        .await;
        Ok::<_, String>(Some(key + 1))
    });
    let (rows, sink) = testing::collect();
    let job = Job::new("futures");
    let options = Async::ordered().time_out(1.hours());
    let figures = options.figures();
    job.source(sources::items(0..1_000u64))
        .lookup_join(|n| n % 10, client)
        .options(options)
        .cache(Cache::of(100).ttl(1.hours()))
        .inner(|n, row| (*n, *row))
        .sink(sink);
    runtime(2).submit(&job).unwrap().wait().unwrap();
    drop(job);
    assert_eq!(
        thread.join().unwrap(),
        10,
        "one a key, and the client has gone"
    );
    let mut rows = rows.take();
    rows.sort_unstable();
    assert_eq!(
        rows,
        (0..1_000).map(|n| (n, n % 10 + 1)).collect::<Vec<_>>()
    );
    assert_eq!(figures.requests(), 10);
    assert_eq!(figures.hits() + figures.coalesced(), 990);
}

#[test]
fn a_client_that_panics_stops_the_job() {
    let job = Job::new("panics");
    panicking(&job);
    assert_panicked(&runtime(2).submit(&job).unwrap().wait().unwrap_err());
}

/// Its thread never comes back, and all go on without it.
#[test]
fn a_client_that_hangs_is_left_behind() {
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let client = calls::blocking(1, move |n: u64| {
        let _ = held.lock().map(|held| held.recv());
        Ok::<_, String>(n)
    });
    let (rows, sink) = testing::collect();
    let job = Job::new("hangs");
    job.source(sources::items(0..20u64))
        .async_map(
            client,
            Async::ordered().capacity(4).time_out(1.millis()).retries(1),
            |n| *n,
        )
        .outcomes(|_, r| r.is_err())
        .sink(sink);
    runtime(1).submit(&job).unwrap().wait().unwrap();
    assert_eq!(rows.take(), [true; 20]);
    drop(hold);
}
