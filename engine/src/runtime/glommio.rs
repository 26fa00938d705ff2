//! The glommio driver: the duty loop as the one task of an executor on io_uring.
//!
//! Laws
//! 1. One task a shard, made at its start. No task, waker, timer or channel for an operator or a record: doorbells do all waking.
//! 2. No panic reaches glommio: user code runs in [`Shard::round`](super::shard::Shard::round), which catches, and nothing else in the task
//!    can fail. (A panic in a task of glommio may abort the process.)
//! 3. Executors are made on threads of ours, so a refusal is a value, and never on the caller's thread, where there may be one
//!    already. Before a shard counts as started its executor has slept and woken once: that is the probe.
//! 4. No blocking pool: glommio gives each executor a second thread, and hangs the awaiter of one whose function panics. Blocking work
//!    goes through ports.
//! 5. The doorbell's waker is cloned once and dropped on its own executor: others wake it by reference. (Its count has 16 bits, and a foreign
//!    drop of the last one leaks the task.)
//!
//! # Returning to the reactor
//!
//! A task that wakes itself does not return glommio to its reactor; only an event in the executor's latency ring does, and the preemption timer is
//! such an event. [`ExecutorProxy::need_preempt`](glommio::ExecutorProxy::need_preempt) tells, by two loads, and is asked after every round. A pass through the reactor costs several
//! system calls (about 6 µs on the machine of docs/benchmarks.md), so the timer stands at [`REACTOR_EVERY`] for as long as nothing but it
//! is in the rings; I/O that matters is to be submitted with a latency requirement, and then ends up in that ring itself.
//!
//! # Sleeping
//!
//! glommio has no public way to await a foreign descriptor, so the sleeper's eventfd cannot be used: the token lies in a [`Bell`],
//! and glommio's own eventfd carries the wake-up.

use crate::runtime::drivers::{Ready, Refused};
use crate::runtime::duty::{Duty, Look, Next};
use crate::runtime::panics::catch;
use glommio::timer::Timer;
use glommio::{
    GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, ReactorErrorKind,
};
use pelton_ring::{Sleeper, Wake};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Bound on how long the reactor is left alone by a busy shard.
const REACTOR_EVERY: Duration = Duration::from_millis(1);

/// The least that glommio takes: its buffers are not used yet.
const IO_MEMORY: usize = 64 << 10;

/// Entries of each of the executor's three rings.
const RING_DEPTH: usize = 32;

/// How an executor's task is woken from outside.
#[derive(Default)]
struct Bell(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// Left by a ringer, taken by the owner.
    token: bool,
    /// The task. Put here by its first sleep, removed when it ends (law 5).
    task: Option<Waker>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bell as the sleeper sees it.
struct Ringer(Arc<Bell>);

impl Wake for Ringer {
    fn wake(&self) {
        let mut inside = self.0.lock();
        inside.token = true;
        // Under the lock, so that the owner cannot take its waker away meanwhile (law 5). This is a send and a write to an eventfd.
        if let Some(task) = &inside.task {
            task.wake_by_ref();
        }
    }

    /// Not called: the owner awaits [`Seat::rung`].
    fn wait(&self, _: Option<Duration>) -> bool {
        false
    }

    fn clear(&self) {
        self.0.lock().token = false;
    }
}

/// A shard's place on an executor, made before its thread.
pub(crate) struct Seat(Arc<Bell>);

/// The place and the sleeper that belongs to it.
pub(crate) fn seat() -> (Sleeper, Seat) {
    let bell = Arc::new(Bell::default());
    (Sleeper::with_wake(Ringer(bell.clone())), Seat(bell))
}

impl Seat {
    /// Runs a shard until it is told to end, or says why it cannot be run here.
    pub fn run(self, mut duty: Duty, mut sleeper: Sleeper, ready: Ready) {
        let name = format!("pelton-shard-{}", duty.shard_id());
        let executor = match catch(|| self.executor(&name)) {
            Ok(Ok(executor)) => executor,
            Ok(Err(refused)) => return ready.no(refused),
            Err(panic) => return ready.no(refused_by_panic(&panic.message)),
        };
        ready.yes();
        executor.run(async move {
            self.serve(&mut duty, &mut sleeper).await;
            // On this executor, where the last reference must go.
            self.0.lock().task = None;
        });
    }

    /// An executor that works: it has been to sleep (law 3).
    fn executor(&self, name: &str) -> Result<LocalExecutor, Refused> {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .name(name)
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .preempt_timer(REACTOR_EVERY)
            .blocking_thread_pool_placement(PoolPlacement::Custom(vec![]))
            .make()
            .map_err(refused)?;
        executor.run(async {
            Timer::new(Duration::from_micros(10)).await;
        });
        Ok(executor)
    }

    async fn serve(&self, duty: &mut Duty, sleeper: &mut Sleeper) {
        let executor = glommio::executor();
        loop {
            match duty.round() {
                Next::Again => {}
                Next::Spin => std::hint::spin_loop(),
                Next::Yield => {
                    std::thread::yield_now();
                    duty.time_passed();
                }
                Next::Sleep => {
                    sleeper.prepare();
                    match duty.last_look() {
                        Look::Found => sleeper.cancel(),
                        Look::Nothing(timeout) => {
                            self.rung(timeout).await;
                            sleeper.woke();
                            duty.time_passed();
                        }
                        Look::End => return,
                    }
                    continue;
                }
                Next::End => return,
            }
            if executor.need_preempt() {
                executor.yield_task_queue_now().await;
                duty.time_passed();
            }
        }
    }

    /// Until there is a token, or the time is up.
    async fn rung(&self, timeout: Option<Duration>) {
        let mut timer = timeout.map(Timer::new);
        poll_fn(|cx| {
            let mut inside = self.0.lock();
            if inside.token {
                return Poll::Ready(());
            }
            if !inside
                .task
                .as_ref()
                .is_some_and(|t| t.will_wake(cx.waker()))
            {
                inside.task = Some(cx.waker().clone());
            }
            drop(inside);
            match &mut timer {
                Some(timer) => Pin::new(timer).poll(cx).map(drop),
                None => Poll::Pending,
            }
        })
        .await;
    }
}

const ALLOW_MEMORY: &str = "allow at least 512 KiB of locked memory (ulimit -l 512, LimitMEMLOCK=512K in a unit, --ulimit memlock=524288 for a container)";
const ALLOW_CALLS: &str = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, and see that the sysctl kernel.io_uring_disabled is 0";

fn refused(error: GlommioError<()>) -> Refused {
    if let GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(limit, least)) = &error {
        return Refused {
            what: format!("the process may lock {limit} bytes of memory, and {least} are needed"),
            advice: ALLOW_MEMORY,
        };
    }
    let error = std::io::Error::from(error);
    let advice = match error.kind() {
        std::io::ErrorKind::PermissionDenied => ALLOW_CALLS,
        std::io::ErrorKind::Unsupported => {
            "run Linux 5.8 or later with io_uring built in, and allow io_uring_setup in the container's seccomp profile"
        }
        std::io::ErrorKind::OutOfMemory => ALLOW_MEMORY,
        _ => "see what the error says",
    };
    Refused {
        what: format!("the kernel says: {error}"),
        advice,
    }
}

fn refused_by_panic(message: &str) -> Refused {
    Refused {
        what: format!("the executor failed: {message}"),
        advice: ALLOW_CALLS,
    }
}
