//! Ready-made clients: functions that wait, on threads; functions that return futures, on whatever runs them.

use super::{Answer, Client, Failure, Opening};
use crate::runtime::{catch, install_panic_hook};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

type Function<Q, R> = Arc<dyn Fn(Q) -> Result<R, Failure> + Send + Sync>;
/// What goes to the threads. `None` until the job is placed, and in simulation.
type Pool<Q, R> = Arc<Mutex<Option<SyncSender<(Q, Answer<R>)>>>>;

/// A client of a function that waits; see [`blocking`].
pub struct Blocking<Q, R> {
    threads: usize,
    function: Function<Q, R>,
    pool: Pool<Q, R>,
    /// This clone's way to the pool.
    requests: Option<SyncSender<(Q, Answer<R>)>>,
}

/// A client that calls `function` on `threads` threads of its own, for all shards together: that is how many requests are under way at
/// once. The threads start when the job is placed, and end with it; one that is in a call that never returns cannot be ended and is left
/// behind. In stepped jobs the function is called inside the step.
///
/// A function that panics has failed for this request, and its thread goes on.
///
/// ```
/// use pelton::calls::{self, Failure};
/// let client = calls::blocking(8, |id: u64| match id {
///     0 => Err(Failure::permanent("there is no user 0")),
///     id => Ok(format!("user {id}")),
/// });
/// # let _ = client;
/// ```
pub fn blocking<Q, R, E>(
    threads: usize,
    function: impl Fn(Q) -> Result<R, E> + Send + Sync + 'static,
) -> Blocking<Q, R>
where
    Q: Send + 'static,
    R: Send + 'static,
    E: Into<Failure>,
{
    Blocking {
        threads,
        function: Arc::new(move |request| function(request).map_err(Into::into)),
        pool: Arc::default(),
        requests: None,
    }
}

impl<Q, R> Clone for Blocking<Q, R> {
    fn clone(&self) -> Self {
        Blocking {
            threads: self.threads,
            function: self.function.clone(),
            pool: self.pool.clone(),
            requests: None,
        }
    }
}

impl<Q, R> fmt::Debug for Blocking<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocking({} threads)", self.threads)
    }
}

impl<Q: Send + 'static, R: Send + 'static> Client for Blocking<Q, R> {
    type Request = Q;
    type Response = R;

    fn open(&mut self, opening: &Opening) -> Result<(), String> {
        if self.threads == 0 {
            return Err("its client has 0 threads: give `blocking` one at least".into());
        }
        if opening.is_simulated {
            return Ok(());
        }
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if opening.shard == 0 || pool.is_none() {
            *pool = Some(start(self.threads, &self.function)?);
        }
        self.requests.clone_from(&pool);
        Ok(())
    }

    fn call(&mut self, request: Q, answer: Answer<R>) {
        match &self.requests {
            // Waits while all threads are busy and as many requests wait. Without threads the answer is dropped, which is one.
            Some(requests) => drop(requests.send((request, answer))),
            None => serve(&self.function, request, answer),
        }
    }
}

impl<Q, R> Drop for Blocking<Q, R> {
    /// The threads end when nobody can ask any more. The pool's own sender goes with the first shard's clone: each has its own by then.
    fn drop(&mut self) {
        if self.requests.take().is_some() {
            *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

fn start<Q: Send + 'static, R: Send + 'static>(
    threads: usize,
    function: &Function<Q, R>,
) -> Result<SyncSender<(Q, Answer<R>)>, String> {
    install_panic_hook();
    let (sender, requests) = sync_channel(threads);
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..threads {
        let (requests, function) = (requests.clone(), function.clone());
        std::thread::Builder::new()
            .name("pelton-call".into())
            .spawn(move || {
                while let Some((request, answer)) = next(&requests) {
                    serve(&function, request, answer);
                }
            })
            .map_err(|e| format!("no thread could be started for its client: {e}"))?;
    }
    Ok(sender)
}

/// The next request; the lock is held while waiting for it and no longer.
fn next<T>(requests: &Mutex<Receiver<T>>) -> Option<T> {
    let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    requests.recv().ok()
}

fn serve<Q, R>(function: &Function<Q, R>, request: Q, answer: Answer<R>) {
    let result = catch(|| function(request));
    let panicked = |p: crate::runtime::Panic| {
        Err(Failure::transient(format!(
            "the function panicked: {}",
            p.message
        )))
    };
    answer.send(result.unwrap_or_else(panicked));
}

/// What is spawned for a request.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A client of a function that returns futures; see [`futures`].
pub struct Futures<Q, R> {
    begin: Arc<dyn Fn(Q, Answer<R>) + Send + Sync>,
}

/// A client that makes a future of each request and gives it to `spawn`, which hands it to whatever runs futures and returns. How many are
/// under way is what [`Async::capacity`](super::Async::capacity) says. One allocation a request. A future that is dropped before its end
/// (its runtime has gone) has failed.
///
/// ```
/// use pelton::calls::{self, Task};
/// // Stands for `move |task| { handle.spawn(task); }`.
/// let spawn = |task: Task| drop(std::thread::spawn(move || run(task)));
/// let client = calls::futures(spawn, |id: u64| async move { Ok::<_, String>(id + 1) });
/// # let _ = client;
/// # fn run(mut task: Task) {
/// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
/// #     while task.as_mut().poll(&mut cx).is_pending() {}
/// # }
/// ```
pub fn futures<Q, R, E, F>(
    spawn: impl Fn(Task) + Send + Sync + 'static,
    function: impl Fn(Q) -> F + Send + Sync + 'static,
) -> Futures<Q, R>
where
    Q: Send + 'static,
    R: Send + 'static,
    E: Into<Failure>,
    F: Future<Output = Result<R, E>> + Send + 'static,
{
    let begin = move |request, answer: Answer<R>| {
        let future = function(request);
        spawn(Box::pin(async move {
            answer.send(future.await.map_err(Into::into));
        }));
    };
    Futures {
        begin: Arc::new(begin),
    }
}

impl<Q, R> Clone for Futures<Q, R> {
    fn clone(&self) -> Self {
        Futures {
            begin: self.begin.clone(),
        }
    }
}

impl<Q, R> fmt::Debug for Futures<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Futures")
    }
}

impl<Q: Send + 'static, R: Send + 'static> Client for Futures<Q, R> {
    type Request = Q;
    type Response = R;
    fn call(&mut self, request: Q, answer: Answer<R>) {
        (self.begin)(request, answer);
    }
}
