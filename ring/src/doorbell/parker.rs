//! Blocks a thread by the standard library alone.
//!
//! A mutex and a condition variable instead of `thread::park`: that token belongs to a thread, is shared with whatever else parks
//! it, and would tie the sleeper to the thread that made it. The lock is taken only to wake or to sleep, not to ring.

use super::Wake;
use crate::sync::{Condvar, Mutex, lock, wait_until_set};
use std::time::Duration;

pub(super) struct Parker {
    token: Mutex<bool>,
    left: Condvar,
}

impl Parker {
    pub(super) fn new() -> Self {
        Parker {
            token: Mutex::new(false),
            left: Condvar::new(),
        }
    }
}

impl Wake for Parker {
    fn wake(&self) {
        *lock(&self.token) = true;
        // Unlocked by now, so that the woken thread does not run into the lock.
        self.left.notify_one();
    }

    fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut token = wait_until_set(&self.left, lock(&self.token), timeout);
        std::mem::take(&mut *token)
    }

    fn clear(&self) {
        *lock(&self.token) = false;
    }
}
