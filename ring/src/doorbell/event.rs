//! Blocks on an eventfd, which an executor can wait for as well.

use super::Wake;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The token is a counter above zero; reading it takes it, whatever it counts.
pub(super) struct Event {
    fd: OwnedFd,
}

impl Event {
    pub(super) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Event { fd })
    }

    fn take(&self) -> bool {
        let mut counter = [0; 8];
        loop {
            match read(&self.fd, &mut counter) {
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(error) => panic!("reading our own eventfd: {error}"),
            }
        }
    }
}

impl Wake for Event {
    fn wake(&self) {
        loop {
            match write(&self.fd, &1u64.to_ne_bytes()) {
                // Full after 2^64 - 2 rings without a sleep: there is a token, which is all that counts.
                Ok(_) | Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => panic!("writing our own eventfd: {error}"),
            }
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> bool {
        // A time that `timespec` cannot hold is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => false,
            Ok(_) => self.take(),
            // Early, which the trait allows. No memory in the kernel is no reason to fail a sleep either.
            Err(Errno::INTR | Errno::AGAIN | Errno::NOMEM) => false,
            Err(error) => panic!("polling our own eventfd: {error}"),
        }
    }

    fn clear(&self) {
        self.take();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
}
