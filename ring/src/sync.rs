//! The seam to the model checker: under `--cfg loom` the same names mean loom's tracked versions.
//!
//! Everything shared between threads in this crate goes through here and nothing reaches past it, so that what is
//! checked is the code that ships. [`UnsafeCell`] takes closures because loom records when an access begins and ends.

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, fence},
    },
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, fence},
};

use std::sync::PoisonError;
use std::time::Duration;

/// `std::cell::UnsafeCell` with loom's interface; compiles to nothing.
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    #[inline(always)]
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline(always)]
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    #[inline(always)]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Locks; what our mutexes hold is valid at every instant, so poison says nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `flag` is set or the time is up, whichever comes first.
#[cfg(not(loom))]
pub(crate) fn wait_until_set<'a>(
    condvar: &Condvar,
    flag: MutexGuard<'a, bool>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, bool> {
    match timeout {
        None => condvar
            .wait_while(flag, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner),
        Some(timeout) => {
            condvar
                .wait_timeout_while(flag, timeout, |set| !*set)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    }
}

/// Waits until `flag` is set. There is no clock in a model: the time is never up.
#[cfg(loom)]
pub(crate) fn wait_until_set<'a>(
    condvar: &Condvar,
    mut flag: MutexGuard<'a, bool>,
    _timeout: Option<Duration>,
) -> MutexGuard<'a, bool> {
    while !*flag {
        flag = condvar.wait(flag).unwrap_or_else(PoisonError::into_inner);
    }
    flag
}
