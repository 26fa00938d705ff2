//! The one seam to files: operations go down with a ticket, completions come back, and nothing in between blocks.
//!
//! Laws
//! 1. `submit` and `poll` return after a bounded amount of work and never wait. What does not fit is handed back.
//! 2. Each operation that was taken completes once, in whatever order; who needs an order waits for the completion before.
//! 3. A buffer that goes down comes back in the completion, after a failure too.
//! 4. A disk serves one flat folder: names have no slash, and nothing outside is ever touched.
//! 5. What a completed write changed survives a loss of power only after `SyncData` of its file has completed, and a new,
//!    renamed or removed name only after `SyncFolder`.

mod faulty;
mod memory;
mod reading;
mod shared;
mod standard;

pub use faulty::{Fault, FaultKind, FaultyDisk};
pub use memory::{MemoryDisk, Unsynced};
pub use reading::ReadDisk;
pub use shared::SharedDisk;
pub use standard::{Notify, StdDisk};

use crate::buffer::Buffer;
use std::fmt;
use std::io;

/// Law 4: whether a name is one of the folder's own.
fn flat(name: &str) -> Result<(), io::ErrorKind> {
    match name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        true => Err(io::ErrorKind::InvalidInput),
        false => Ok(()),
    }
}

/// An open file of one disk. Another disk's id means nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// Names an operation to who submitted it. Several owners share a disk: each looks for its own `owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Whose operation this is.
    pub owner: u32,
    /// What the owner tells it by.
    pub serial: u64,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist.
    Create,
}

/// One operation. Offsets and lengths are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Opens a file.
    Open {
        /// The name in the disk's folder.
        name: String,
        /// For what.
        mode: Mode,
        /// Whether to go round the page cache where that is allowed; the completion says whether it was.
        direct: bool,
    },
    /// Closes a file. Neither waits for data to be durable nor fails.
    Close {
        /// The file.
        file: FileId,
    },
    /// Reserves space from offset 0, which also makes the file at least that long. `Unsupported` where the file system refuses.
    Allocate {
        /// The file.
        file: FileId,
        /// Up to where.
        len: u64,
    },
    /// Writes the whole buffer. A direct file takes only multiples of [`ALIGN`](crate::ALIGN), and some file systems take not even
    /// these: `InvalidInput` at the first write, after an open that said direct.
    Write {
        /// The file.
        file: FileId,
        /// Where.
        offset: u64,
        /// What.
        buffer: Buffer,
    },
    /// Fills the buffer from the file, as far as the file reaches.
    Read {
        /// The file.
        file: FileId,
        /// Where.
        offset: u64,
        /// Its length says how much.
        buffer: Buffer,
    },
    /// Makes content and length durable (fdatasync).
    SyncData {
        /// The file.
        file: FileId,
    },
    /// Makes the folder's names durable.
    SyncFolder,
    /// Renames at once and whole; an existing `to` is replaced.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Removes a name.
    Remove {
        /// The name.
        name: String,
    },
    /// Lists the names of the files, sorted.
    List,
    /// Asks how many bytes can still be allocated.
    FreeSpace,
    /// Cuts or extends a file.
    Truncate {
        /// The file.
        file: FileId,
        /// The new length.
        len: u64,
    },
}

/// What a successful operation brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The file is open.
    Opened {
        /// By which it is named from here on.
        file: FileId,
        /// Whether the page cache is gone round.
        direct: bool,
        /// How long it is.
        len: u64,
    },
    /// All of the buffer was written.
    Written {
        /// The buffer of the operation.
        buffer: Buffer,
    },
    /// The buffer holds this many bytes of the file, fewer than its length only at the end of the file.
    Filled {
        /// The buffer of the operation.
        buffer: Buffer,
        /// How many of its bytes are from the file.
        filled: usize,
    },
    /// The names of the files, sorted.
    Names(Vec<String>),
    /// Free bytes.
    Free(u64),
    /// Done, and nothing to tell.
    Nothing,
}

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskError {
    /// The kind.
    pub kind: io::ErrorKind,
    /// The operating system's number, where there is one.
    pub os_code: Option<i32>,
}

impl DiskError {
    /// Whether space, a quota or a file's size limit was exhausted.
    pub fn is_no_space(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.kind, StorageFull | QuotaExceeded | FileTooLarge)
    }

    /// Whether this is how a file system says, at the first aligned write, that a file it opened direct cannot be (EINVAL).
    pub(crate) fn is_not_direct(&self) -> bool {
        self.kind == io::ErrorKind::InvalidInput
    }
}

impl From<io::ErrorKind> for DiskError {
    fn from(kind: io::ErrorKind) -> Self {
        DiskError {
            kind,
            os_code: None,
        }
    }
}

impl From<io::Error> for DiskError {
    fn from(e: io::Error) -> Self {
        DiskError {
            kind: e.kind(),
            os_code: e.raw_os_error(),
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.os_code {
            Some(code) => write!(f, "{}", io::Error::from_raw_os_error(code)),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl std::error::Error for DiskError {}

/// A failed operation with the buffer that went down with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub error: DiskError,
    /// The buffer of a write or read. After a failed read its content means nothing.
    pub buffer: Option<Buffer>,
}

/// The end of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Which.
    pub ticket: Ticket,
    /// How it went.
    pub result: Result<Done, Failure>,
}

/// The queue is full; here is the operation back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full<T>(pub T);

/// A folder of files behind a bounded queue. See the laws on top of this file's module.
pub trait Disk {
    /// Takes an operation, or hands it back if as many are under way as the disk allows.
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>>;

    /// Appends what has completed since the last call, a bounded number.
    fn poll(&mut self, completions: &mut Vec<Completion>);
}

/// A disk whose owner may wait: opening, restoring, tools. Never a shard.
pub trait BlockingDisk: Disk {
    /// Returns when a completion may be polled, or at once if nothing is under way.
    ///
    /// # Errors
    /// The disk is gone: nothing will ever complete.
    fn wait(&mut self) -> Result<(), DiskError>;

    /// Does one operation and waits for it. For use while nothing else of this disk is under way.
    fn call(&mut self, op: Op) -> Result<Done, Failure> {
        let ticket = Ticket {
            owner: u32::MAX,
            serial: 0,
        };
        if let Err(Full(mut op)) = self.submit(op, ticket) {
            return Err(Failure {
                error: io::ErrorKind::WouldBlock.into(),
                buffer: op.take_buffer(),
            });
        }
        let mut completions = Vec::with_capacity(1);
        loop {
            self.poll(&mut completions);
            if let Some(done) = completions.pop() {
                debug_assert_eq!(done.ticket, ticket, "call() while others are under way");
                return done.result;
            }
            if let Err(error) = self.wait() {
                let buffer = None;
                return Err(Failure { error, buffer });
            }
        }
    }
}

/// A disk that is lent.
impl<D: Disk + ?Sized> Disk for &mut D {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        (**self).submit(op, ticket)
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        (**self).poll(completions);
    }
}

impl<D: BlockingDisk + ?Sized> BlockingDisk for &mut D {
    fn wait(&mut self) -> Result<(), DiskError> {
        (**self).wait()
    }
}

impl Op {
    /// Takes the buffer out of a write or read, leaving an empty one.
    pub fn take_buffer(&mut self) -> Option<Buffer> {
        match self {
            Op::Write { buffer, .. } | Op::Read { buffer, .. } => {
                Some(std::mem::replace(buffer, Buffer::with_capacity(0)))
            }
            _ => None,
        }
    }

    /// What it does, for messages.
    pub fn verb(&self) -> &'static str {
        match self {
            Op::Open { .. } => "open",
            Op::Close { .. } => "close",
            Op::Allocate { .. } => "allocate",
            Op::Write { .. } => "write",
            Op::Read { .. } => "read",
            Op::SyncData { .. } => "sync",
            Op::SyncFolder => "sync the folder of",
            Op::Rename { .. } => "rename",
            Op::Remove { .. } => "remove",
            Op::List => "list the folder of",
            Op::FreeSpace => "ask the free space of",
            Op::Truncate { .. } => "truncate",
        }
    }
}
