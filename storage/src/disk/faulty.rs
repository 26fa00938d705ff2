//! A memory disk that fails, tears, reorders and dies on demand.
//!
//! Laws
//! 1. Operations are numbered from 0 in the order in which they are *done*, which with reordering is not the order in which
//!    they were submitted.
//! 2. A fault strikes the first operation from its number on that it can strike (no file is too full to be read), once or
//!    for ever after. What has struck is counted, so that a test can assert that it tested something.
//! 3. A failed write may have written any prefix; a failed sync has made nothing durable; a failed anything else did nothing.
//! 4. From the operation at which the disk halts nothing is done and nothing completes, until power is lost and the disk is healthy again.

use super::{
    BlockingDisk, Completion, Disk, DiskError, Done, Failure, Full, MemoryDisk, Op, Ticket,
    Unsynced,
};
use crate::buffer::ALIGN;
use std::io::ErrorKind;

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO. A write tears: half of it is done.
    Io,
    /// ENOSPC, of what takes space: creating, allocating, writing.
    NoSpace,
    /// A write that ends early, after its first aligned block, and says so.
    Short,
    /// EINVAL of a write to a file that was opened direct, as file systems have it that open with O_DIRECT and cannot do it. Nothing
    /// is written.
    NotDirect,
}

/// A planned failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The number of the operation from which on it may strike.
    pub at: u64,
    /// How.
    pub kind: FaultKind,
    /// Whether it strikes every operation from then on, or one.
    pub for_ever: bool,
}

/// See the laws on top of this file's module.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    disk: MemoryDisk,
    pending: Vec<(Op, Ticket)>,
    capacity: usize,
    fault: Option<Fault>,
    halt_at: Option<u64>,
    /// State of the generator that picks the next operation; `None` keeps the order.
    shuffle: Option<u64>,
    done: u64,
    struck: u64,
    halted: bool,
}

impl FaultyDisk {
    /// Wraps a memory disk. Without a fault it does what that does, in the order of submission, while `poll` is called.
    pub fn new(disk: MemoryDisk) -> Self {
        FaultyDisk {
            disk,
            pending: Vec::new(),
            capacity: 64,
            fault: None,
            halt_at: None,
            shuffle: None,
            done: 0,
            struck: 0,
            halted: false,
        }
    }

    /// Plans a failure.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Dies at operation `at`, which is not done.
    #[must_use]
    pub fn with_halt(mut self, at: u64) -> Self {
        self.halt_at = Some(at);
        self
    }

    /// Does pending operations in an order drawn from `seed`.
    #[must_use]
    pub fn with_shuffle(mut self, seed: u64) -> Self {
        self.shuffle = Some(seed);
        self
    }

    /// Takes at most this many operations at a time: a small queue makes callers meet `Full`.
    #[must_use]
    pub fn with_queue(mut self, capacity: usize) -> Self {
        assert!(capacity > 0, "a queue holds something");
        self.capacity = capacity;
        self
    }

    /// How many operations were done, failed ones included.
    pub fn operations(&self) -> u64 {
        self.done
    }

    /// How many times a fault struck, a halt included.
    pub fn faults(&self) -> u64 {
        self.struck + u64::from(self.halted)
    }

    /// Whether the disk has died.
    pub fn halted(&self) -> bool {
        self.halted
    }

    /// What a loss of power may lose now.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        self.disk.unsynced()
    }

    /// The disk underneath, for looking.
    pub fn memory(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Power is lost: operations under way are not done, of the unsynced units those stay for which `keep` says so. What
    /// is left is a healthy disk.
    #[must_use]
    pub fn crash(mut self, keep: impl FnMut(usize) -> bool) -> MemoryDisk {
        self.disk.crash(keep);
        self.disk
    }

    /// The process dies and the machine does not: what was written stays, synced or not.
    #[must_use]
    pub fn kill(mut self) -> MemoryDisk {
        self.disk.restart();
        self.disk
    }

    fn pick(&mut self) -> usize {
        let Some(state) = &mut self.shuffle else {
            return 0;
        };
        // xorshift64*: this file draws for tests and simulation only, from a seed that was given.
        *state ^= (*state >> 12) ^ 0x9E37_79B9;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % self.pending.len()
    }

    fn strikes(&mut self, op: &Op) -> Option<FaultKind> {
        let fault = self.fault?;
        let takes_space = match op {
            Op::Open { mode, .. } => *mode == super::Mode::Create,
            Op::Allocate { .. } | Op::Write { .. } => true,
            _ => false,
        };
        let can = match fault.kind {
            FaultKind::Io => !matches!(op, Op::Close { .. }),
            FaultKind::NoSpace => takes_space,
            FaultKind::Short => matches!(op, Op::Write { .. }),
            FaultKind::NotDirect => {
                matches!(op, Op::Write { file, .. } if self.disk.is_direct(*file))
            }
        };
        if self.done < fault.at || !can {
            return None;
        }
        if !fault.for_ever {
            self.fault = None;
        }
        self.struck += 1;
        Some(fault.kind)
    }

    fn execute(&mut self, op: Op) -> Result<Done, Failure> {
        let Some(kind) = self.strikes(&op) else {
            return self.disk.execute(op);
        };
        let error: DiskError = match kind {
            FaultKind::Io => ErrorKind::Other.into(),
            FaultKind::NoSpace => ErrorKind::StorageFull.into(),
            FaultKind::Short => ErrorKind::WriteZero.into(),
            FaultKind::NotDirect => ErrorKind::InvalidInput.into(),
        };
        let buffer = match op {
            Op::Write {
                file,
                offset,
                buffer,
            } => {
                let written = match kind {
                    FaultKind::Io | FaultKind::NoSpace => buffer.len() / 2 / ALIGN * ALIGN,
                    FaultKind::Short => buffer.len().min(ALIGN),
                    FaultKind::NotDirect => 0,
                };
                // A prefix that cannot be written either is no matter: the write has failed already.
                let _ = self.disk.write(file, offset, &buffer[..written]);
                Some(buffer)
            }
            Op::Read { buffer, .. } => Some(buffer),
            _ => None,
        };
        Err(Failure { error, buffer })
    }
}

impl Disk for FaultyDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        if self.pending.len() == self.capacity {
            return Err(Full(op));
        }
        self.pending.push((op, ticket));
        Ok(())
    }

    /// Does one pending operation, so that completions of operations that were submitted together arrive apart.
    fn poll(&mut self, completions: &mut Vec<Completion>) {
        if self.pending.is_empty() || self.halted {
            return;
        }
        if self.halt_at.is_some_and(|at| self.done >= at) {
            self.halted = true;
            return;
        }
        let next = self.pick();
        let (op, ticket) = self.pending.remove(next);
        let result = self.execute(op);
        self.done += 1;
        completions.push(Completion { ticket, result });
    }
}

impl BlockingDisk for FaultyDisk {
    fn wait(&mut self) -> Result<(), DiskError> {
        match self.halted {
            true => Err(ErrorKind::NotConnected.into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
