//! Sleeping when there is nothing to do, without missing the moment when there is.
//!
//! One thread owns a [`Sleeper`]; those that give it work hold [`Doorbell`]s.
//!
//! ```text
//!   worker (sleeper)                          others (ringers)
//!   ----------------                          ----------------
//!   prepare:  parked = true                   publish work (push)
//!             ---- full fence ----            ring:  ---- full fence ----
//!   look at all rings once more                      parked?  no: done
//!   work found?  yes: cancel                                  yes: parked = false, wake
//!                no:  sleep
//! ```
//!
//! # Laws
//!
//! 1. *No wake-up is lost.* If work is published and the doorbell rung, the owner finds the work in its last look, or its sleep ends.
//! 2. *Nobody is woken in vain, nearly.* Ringing costs a fence and a load unless the owner is asleep or about to be; of many
//!    ringers, one pays for the wake-up.
//! 3. *A sleep that says `Woken` was rung for*, after its `prepare`, and what the ringer did before ringing has happened.
//!
//! # Why no wake-up is lost
//!
//! This is Dekker's pattern: each side writes its own word (the worker the parked flag, the ringer the work), then reads the
//! other's. What must not happen is that both read the old value. Release and Acquire do not forbid that: both writes may
//! still sit in store buffers while both reads are done. The two fences do. Sequentially consistent fences have one order that all
//! threads agree on, so one of the two came first:
//!
//! - *The ringer's came first.* Then what it published before its fence is seen by every read after the worker's fence, thus by the
//!   last look. The worker cancels.
//! - *The worker's came first.* Then the ringer's load of the flag, being after its fence, reads the worker's `true`, or something
//!   later in the flag's history. If it reads `true` and lowers the flag, it wakes the worker. Otherwise
//!   someone has lowered the flag since: either another ringer, which then wakes the worker itself (a moment later, perhaps; but
//!   the token it leaves lasts until it is taken), or the worker, which is then awake and will come through `prepare` again before it sleeps.
//!
//! The last clause carries the case of two ringers: A has lowered the flag for its own work, B sees it down and goes away. The worker, woken by A,
//! may not see B's work at its first look. It sees it at the latest after its next `prepare`, by the same argument. Hence the
//! rule for the owner: *never sleep without `prepare` and a full look in between.*
//!
//! A wake-up is a token that stays until taken, not an event: if it arrives between the last look and the sleep, the sleep returns at
//! once. A token may also be left from an earlier round (rung, but cancelled). The flag tells the two apart: a ringer lowers it before it
//! wakes, so a token found while the flag is still up is stale, and the sleep goes on.

#[cfg(all(target_os = "linux", not(loom)))]
mod event;
mod parker;

use crate::order;
use crate::padded::CachePadded;
use crate::sync::{Arc, AtomicBool};
use parker::Parker;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A way to make one thread wait and to let any other end the wait.
///
/// A token is either there or not. [`wake`](Self::wake) leaves it, however often it is called; [`wait`](Self::wait) and
/// [`clear`](Self::clear) take it. This crate has a thread parker ([`Sleeper::thread`]) and, on Linux, an eventfd
/// (`Sleeper::eventfd`); an executor with wakers of its own may bring a third to [`Sleeper::with_wake`].
pub trait Wake: Send + Sync + 'static {
    /// Leaves a token. Called by any thread, and must not block for long.
    fn wake(&self);

    /// Waits for a token, takes it and returns true; or returns false when the time is up. Returning false
    /// early is allowed, true without a token as well: the sleeper checks.
    fn wait(&self, timeout: Option<Duration>) -> bool;

    /// Takes the token if there is one.
    fn clear(&self);

    /// A file descriptor that is readable while there is a token, if there is such a thing.
    #[cfg(unix)]
    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}

/// What a sleeper and its doorbells share.
struct Bell {
    /// True while the owner sleeps or is about to. Raised by the owner alone, lowered by whoever comes first: a ringer that then owes a
    /// wake-up, or the owner. May be stale; the two fences say how much.
    parked: CachePadded<AtomicBool>,
    /// How to end the sleep. A second indirection, on the path that makes a system call anyway.
    wake: Box<dyn Wake>,
}

/// The ringing side. Cheap to clone, and shared by any number of threads.
#[derive(Clone)]
pub struct Doorbell {
    bell: Arc<Bell>,
}

impl Doorbell {
    /// Says that there is work, after publishing it.
    ///
    /// Wakes the owner if it sleeps, or keeps it from falling asleep; otherwise costs a fence and a load. Publish a
    /// whole batch, then ring once. Dropping one's end of a ring is work as well.
    #[inline]
    pub fn ring(&self) {
        order::RING_FENCE.issue();
        if self.bell.parked.load(Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Of many ringers one gets the `true` and with it the duty to wake. Relaxed: the fence before it makes this store a
        // Release. Not a swap, which would write `false` over a `false`: then the flag's history holds nothing but
        // the owner's raises and the lowerings that answer them. (loom does not know that nothing comes between a
        // swap's read and its write, and would report wake-ups lost in orders that cannot be.)
        let lowered = self
            .bell
            .parked
            .compare_exchange(true, false, Relaxed, Relaxed);
        if lowered.is_ok() {
            self.bell.wake.wake();
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").finish_non_exhaustive()
    }
}

/// How a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slept {
    /// A doorbell was rung since [`Sleeper::prepare`].
    Woken,
    /// None was; the time is up.
    TimedOut,
}

/// The sleeping side, owned by one thread at a time.
///
/// ```
/// use pelton_ring::{Sleeper, Slept};
/// use std::time::Duration;
///
/// let mut sleeper = Sleeper::thread();
/// let doorbell = sleeper.doorbell();
///
/// sleeper.prepare();
/// // ... look for work once more; if there is any: `sleeper.cancel()`; if not:
/// let ringer = std::thread::spawn(move || doorbell.ring());
/// assert_eq!(sleeper.sleep(None), Slept::Woken);
/// # ringer.join().unwrap();
///
/// sleeper.prepare();
/// assert_eq!(sleeper.sleep(Some(Duration::from_millis(1))), Slept::TimedOut);
/// ```
pub struct Sleeper {
    bell: Arc<Bell>,
    /// One thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

impl Sleeper {
    /// A sleeper that blocks its thread. Works everywhere, and may move between threads while awake.
    pub fn thread() -> Sleeper {
        Sleeper::with_wake(Parker::new())
    }

    /// A sleeper with an eventfd, for a thread whose executor waits on file descriptors.
    ///
    /// [`sleep`](Self::sleep) blocks in `poll`. An asynchronous owner awaits the descriptor instead:
    ///
    /// 1. [`prepare`](Self::prepare);
    /// 2. look at all rings; work found: [`cancel`](Self::cancel) and go on;
    /// 3. await that the descriptor (`as_fd`) is *readable*, or whatever else may end the wait: a timer, a completion;
    /// 4. [`woke`](Self::woke), always, whatever ended the wait: takes the token and lowers the flag.
    ///
    /// The descriptor is non-blocking and its counter is a level, not an edge: submit a one-shot poll (`POLLIN`), never a read, since
    /// a read that is abandoned half-way takes the token of a later round with it. After step 4 has said
    /// [`Slept::TimedOut`] the descriptor may have been readable all the same, by a stale token: look, and begin again at 1.
    ///
    /// # Errors
    ///
    /// That of `eventfd(2)`: too many open files, or no memory.
    ///
    /// ```
    /// use pelton_ring::{Sleeper, Slept};
    /// use std::os::fd::AsFd;
    ///
    /// let mut sleeper = Sleeper::eventfd()?;
    /// let doorbell = sleeper.doorbell();
    ///
    /// sleeper.prepare();
    /// doorbell.ring(); // another thread
    /// let mut fds = [rustix::event::PollFd::from_borrowed_fd(
    ///     sleeper.as_fd(),
    ///     rustix::event::PollFlags::IN,
    /// )];
    /// assert_eq!(rustix::event::poll(&mut fds, None)?, 1); // the executor's part
    /// assert_eq!(sleeper.woke(), Slept::Woken);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(all(target_os = "linux", not(loom)))]
    pub fn eventfd() -> std::io::Result<Sleeper> {
        Ok(Sleeper::with_wake(event::Event::new()?))
    }

    /// A sleeper with a wake-up of one's own.
    pub fn with_wake(wake: impl Wake) -> Sleeper {
        Sleeper {
            bell: Arc::new(Bell {
                parked: CachePadded::new(AtomicBool::new(false)),
                wake: Box::new(wake),
            }),
            _not_sync: PhantomData,
        }
    }

    /// A doorbell that wakes this sleeper.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell {
            bell: Arc::clone(&self.bell),
        }
    }

    /// Announces sleep. From here on a ring ends the sleep that follows, even before it begins.
    ///
    /// Look for work once more after this, everywhere it may come from, then [`sleep`](Self::sleep) or
    /// [`cancel`](Self::cancel).
    pub fn prepare(&mut self) {
        // Relaxed: the fence orders it before the looks that follow, and there is nothing before it to publish.
        self.bell.parked.store(true, Relaxed);
        order::PREPARE_FENCE.issue();
    }

    /// Takes the announcement back: there was work after all.
    pub fn cancel(&mut self) {
        // A ringer may have been quicker and may yet leave a token; it will be found stale. Relaxed: only a later `prepare`
        // makes a promise.
        self.bell.parked.store(false, Relaxed);
    }

    /// Sleeps until a doorbell is rung, or the time is up. `None` is for ever.
    ///
    /// Returns at once if a doorbell has been rung since [`prepare`](Self::prepare), or without a `prepare`. Tokens left from earlier
    /// rounds are consumed and do not end the sleep; each such token starts the timeout afresh, and a signal may end a sleep
    /// on an eventfd before its time.
    pub fn sleep(&mut self, timeout: Option<Duration>) -> Slept {
        while !self.rung() {
            let token = self.bell.wake.wait(timeout);
            if !token && timeout.is_some() {
                return self.wake_up();
            }
        }
        Slept::Woken
    }

    /// Ends a wait that the owner did itself, on the file descriptor or with a [`Wake`] of its own: consumes the token, withdraws the
    /// announcement, and says whether a doorbell was rung since [`prepare`](Self::prepare).
    pub fn woke(&mut self) -> Slept {
        self.bell.wake.clear();
        self.wake_up()
    }

    /// Whether a ringer has lowered the flag since `prepare`.
    fn rung(&self) -> bool {
        !self.bell.parked.load(order::RUNG_OBSERVE.get())
    }

    /// Lowers the flag if no ringer has.
    fn wake_up(&mut self) -> Slept {
        // A swap, for a ringer may come between a load and a store, and its ring would be reported as silence.
        if self.bell.parked.swap(false, order::RUNG_OBSERVE.get()) {
            Slept::TimedOut
        } else {
            Slept::Woken
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Nobody is there to be woken.
        self.cancel();
    }
}

impl fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

/// The descriptor to await; see `Sleeper::eventfd`.
#[cfg(unix)]
impl std::os::fd::AsFd for Sleeper {
    /// # Panics
    ///
    /// If this sleeper has none, such as one made by [`Sleeper::thread`]: to await it is a bug.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell
            .wake
            .fd()
            .expect("this sleeper has no file descriptor")
    }
}
