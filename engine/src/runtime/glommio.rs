//! The glommio driver: the duty loop as the one task of an executor on io_uring.
//!
//! Laws
//! 1. One task a shard, made at its start, and one for each operation of its disks that is under way ([`serve`]). No task, waker,
//!    timer or channel for an operator or a record: doorbells do all waking.
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
//! [`ExecutorProxy::need_preempt`](glommio::ExecutorProxy::need_preempt) says, by two loads, that something has completed in the executor's latency ring; it is
//! asked after every round, and then the task goes through the reactor (several system calls). Operations of disks are never in that
//! ring: glommio 0.9 puts them into another, whatever latency their queue requires, tells the kernel of them and looks for what has
//! completed only on its way through the reactor, and goes there only when no task can run. So while any is under way the task steps
//! aside by itself ([`aside`]): at once when there is a new one or nothing else to do, else every [`ASIDE_NS`].
//!
//! There is no preemption timer (it stands at [`NEVER`]), for glommio 0.9 may go to sleep with a task that could run: its `run_task_queues`
//! looks at that ring before it looks at the tasks, answers "nothing ran" if there is anything, and `run` then parks unless what has completed
//! wakes a task. A timer of 1 ms that struck there, when the thread had been off its core for a millisecond, hung a shard for ever: on a busy
//! machine within seconds. What remains is glommio's eventfd, written late by a thread that was held up in the middle of waking a shard
//! which a timer has woken meanwhile; [`NET`] bounds what that can cost.
//!
//! # Sleeping
//!
//! glommio has no public way to await a foreign descriptor, so the sleeper's eventfd cannot be used: the token lies in a [`Bell`],
//! and glommio's own eventfd carries the wake-up.

mod disk;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use disk::{Desk, RingDisk};

use crate::runtime::drivers::{Ready, Refused};
use crate::runtime::duty::{Duty, Look, Next};
use crate::runtime::panics::catch;
use glommio::timer::Timer;
use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};
use pelton_ring::{Sleeper, Wake};
use serve::Io;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// The preemption timer, which is not wanted: see the module.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// The longest that a shard sleeps without looking: see the module.
const NET: Duration = Duration::from_secs(1);

/// How long a busy shard keeps the kernel's answers waiting, nanoseconds. Stepping aside takes 2 to 4 us.
const ASIDE_NS: u64 = 50_000;

/// The least that glommio takes: what does not fit is allocated.
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
pub(crate) struct Seat {
    bell: Arc<Bell>,
    desk: Arc<Desk>,
}

/// The place, the sleeper that belongs to it, and where its disks leave what is to be done.
pub(crate) fn seat() -> (Sleeper, Seat, Arc<Desk>) {
    let bell = Arc::new(Bell::default());
    let sleeper = Sleeper::with_wake(Ringer(bell.clone()));
    let desk = Arc::new(Desk::new(sleeper.doorbell()));
    let seat = Seat {
        bell,
        desk: desk.clone(),
    };
    (sleeper, seat, desk)
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
            let io = Io::new(self.desk.clone());
            self.serve(&mut duty, &mut sleeper, &io).await;
            // With its jobs, and with their disks.
            drop(duty);
            io.end().await;
            // On this executor, where the last reference must go.
            self.bell.lock().task = None;
        });
    }

    /// An executor that works: it has been to sleep (law 3).
    fn executor(&self, name: &str) -> Result<LocalExecutor, Refused> {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .name(name)
            .io_memory(IO_MEMORY)
            .ring_depth(RING_DEPTH)
            .preempt_timer(NEVER)
            .blocking_thread_pool_placement(PoolPlacement::Custom(vec![]))
            .make()
            .map_err(refused)?;
        executor.run(async {
            Timer::new(Duration::from_micros(10)).await;
        });
        Ok(executor)
    }

    async fn serve(&self, duty: &mut Duty, sleeper: &mut Sleeper, io: &Rc<Io>) {
        let executor = glommio::executor();
        let mut aside_ns = 0;
        loop {
            let next = duty.round();
            io.begin();
            match next {
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
                            io.begin();
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
            } else if io.is_under_way() {
                let is_due = || duty.now_ns().saturating_sub(aside_ns) >= ASIDE_NS;
                if io.take_fresh() || next != Next::Again || is_due() {
                    aside().await;
                    duty.time_passed();
                    aside_ns = duty.now_ns();
                }
            }
        }
    }

    /// Until there is a token, or the time is up: at the latest after [`NET`].
    async fn rung(&self, timeout: Option<Duration>) {
        let mut timer = Timer::new(timeout.map_or(NET, |t| t.min(NET)));
        poll_fn(|cx| {
            let mut inside = self.bell.lock();
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
            Pin::new(&mut timer).poll(cx).map(drop)
        })
        .await;
    }
}

/// Lets the executor come to its reactor, which it does when no task can run: so this one waits for next to nothing.
async fn aside() {
    let mut wait = Duration::from_micros(1);
    let mut timer = Timer::new(wait);
    let mut waited = false;
    poll_fn(|cx| {
        while Pin::new(&mut timer).poll(cx).is_ready() {
            if waited {
                return Poll::Ready(());
            }
            // The time was up before it was asked for: then nobody has been let in.
            wait *= 2;
            timer = Timer::new(wait);
        }
        waited = true;
        Poll::Pending
    })
    .await;
}

const ALLOW_MEMORY: &str = "allow at least 512 KiB of locked memory (ulimit -l 512, LimitMEMLOCK=512K in a unit, --ulimit memlock=524288 for a container)";
const ALLOW_CALLS: &str = "run Linux 5.8 or later, set the sysctl kernel.io_uring_disabled to 0, and allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile";

fn refused(error: GlommioError<()>) -> Refused {
    let error = std::io::Error::from(error);
    // glommio checks the limit itself and says no more than this: `MemLockLimit(0/524288)`.
    let text = error.to_string();
    let limit = text
        .strip_prefix("MemLockLimit(")
        .and_then(|t| t.strip_suffix(')'))
        .and_then(|t| t.split_once('/'));
    if let Some((limit, least)) = limit {
        return Refused {
            what: format!("the process may lock {limit} bytes of memory, and {least} are needed"),
            advice: ALLOW_MEMORY,
        };
    }
    let advice = match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::Unsupported => ALLOW_CALLS,
        std::io::ErrorKind::OutOfMemory => ALLOW_MEMORY,
        _ => "see what the error says",
    };
    Refused {
        what: format!("the kernel says: {error}"),
        advice,
    }
}

/// Where io_uring_setup fails, whatever the error, glommio panics in a `lazy_static`, and ever after says that it is poisoned.
fn refused_by_panic(message: &str) -> Refused {
    let what = if message.contains("Failed to register a probe") || message.contains("poisoned") {
        match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
            Ok(level) if level.trim() != "0" => format!(
                "the kernel refuses io_uring, the sysctl kernel.io_uring_disabled is {}",
                level.trim()
            ),
            _ => {
                "the kernel refuses io_uring: it is too old, or a seccomp profile forbids it".into()
            }
        }
    } else {
        format!("the executor failed: {message}")
    };
    Refused {
        what,
        advice: ALLOW_CALLS,
    }
}
