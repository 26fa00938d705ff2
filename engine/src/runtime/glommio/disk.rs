//! A folder of files that a shard writes through its executor's io_uring: the half that submits and polls.
//!
//! ```text
//!   owner --submit--> Write, Read, SyncData ----------> desk --> a task each on the executor --.
//!     ^               Open, Close -----> helper --poll--^                                      |
//!     |               all else --------> helper --poll-----------------> completions <---------'
//!     '------------------------------------poll-------------------------------'
//! ```
//!
//! Laws
//! 1. Those of every disk: `submit` and `poll` never wait, each operation completes once, its buffer comes back, at most [`QUEUE`] are
//!    under way.
//! 2. What comes often goes through the ring: writing, reading, syncing a file. What comes once a file, or what glommio would give to
//!    a thread as well or cannot do, goes to the helper thread of a [`StdDisk`]: opening, allocating, truncating (fallocate and ftruncate
//!    wait for the file system's journal), names, lists, free space, and the folder's sync. glommio's own sync of a folder is an fdatasync, after
//!    which ext4 may still forget a new name.
//! 3. A file is opened by the helper first, which decides whether it is direct, by the rule of all real files; then the executor
//!    opens the same name. Where glommio cannot have it direct, it goes through the page cache, and the completion says so. Where
//!    the executor cannot open it at all, the helper closes what it has before the failure is told.
//! 4. What `keep` holds is dropped when the disk is gone, nothing of it is under way and all its files are closed: not before.
//! 5. When the executor has ended, whatever is asked fails with `NotConnected` and brings its buffer back.
//!
//! Nothing here belongs to a thread: a disk may be made anywhere, and is used by its shard, or in tests by another thread.

use crate::runtime::disks::Keep;
use crossbeam_queue::SegQueue;
use pelton_ring::Doorbell;
use pelton_storage::{
    Completion, Disk, DiskError, Done, Failure, FileId, Full, Mode, Notify, Op, StdDisk, Ticket,
};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How many operations of one disk may be under way. The helper takes as many and more.
const QUEUE: usize = 64;

/// Where the disks of a shard leave what its executor is to do.
pub(crate) struct Desk {
    /// At most [`QUEUE`] of each disk, and its leave.
    requests: SegQueue<Request>,
    /// The executor has ended. Written by its thread; Release, so that who sees it finds in `requests` what was left there.
    closed: AtomicBool,
    disks: AtomicU32,
    /// The shard's.
    bell: Doorbell,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

/// Something to do for a disk.
pub(super) struct Request {
    pub disk: Arc<Shared>,
    pub work: Work,
}

pub(super) enum Work {
    /// The helper has opened it.
    Open {
        ticket: Ticket,
        path: PathBuf,
        mode: Mode,
        file: FileId,
        direct: bool,
        len: u64,
    },
    /// The helper has closed it.
    Close { ticket: Ticket, file: FileId },
    /// A write, read or sync.
    Do { ticket: Ticket, op: Op },
    /// The disk is gone.
    Leave,
}

/// What a disk and its operations under way share.
pub(super) struct Shared {
    pub id: u32,
    completions: SegQueue<Completion>,
    /// Files that the helper has open and the executor could not open, with what is to be told of them: law 3.
    not_opened: SegQueue<(Ticket, FileId, Failure)>,
    notify: Notify,
    /// Law 4. Dropped with the last operation.
    _keep: Keep,
}

impl Shared {
    pub fn complete(&self, ticket: Ticket, result: Result<Done, Failure>) {
        self.completions.push(Completion { ticket, result });
        (self.notify)();
    }

    /// The executor cannot open what the helper has opened.
    pub fn not_opened(&self, ticket: Ticket, file: FileId, failure: Failure) {
        self.not_opened.push((ticket, file, failure));
        (self.notify)();
    }
}

impl Request {
    /// Law 5.
    fn fail(self) {
        let error = DiskError::from(ErrorKind::NotConnected);
        let (ticket, buffer) = match self.work {
            Work::Open { ticket, file, .. } => {
                let buffer = None;
                return self
                    .disk
                    .not_opened(ticket, file, Failure { error, buffer });
            }
            Work::Close { ticket, .. } => (ticket, None),
            Work::Do { ticket, mut op } => (ticket, op.take_buffer()),
            Work::Leave => return,
        };
        self.disk.complete(ticket, Err(Failure { error, buffer }));
    }
}

impl Desk {
    pub fn new(bell: Doorbell) -> Self {
        Desk {
            requests: SegQueue::new(),
            closed: AtomicBool::new(false),
            disks: AtomicU32::new(0),
            bell,
        }
    }

    fn leave(&self, request: Request) {
        self.requests.push(request);
        if self.closed.load(Ordering::Acquire) {
            // It may have closed before this came, and looked for the last time.
            self.fail_all();
        }
        // Free where the shard itself asks.
        self.bell.ring();
    }

    pub(super) fn take(&self) -> Option<Request> {
        self.requests.pop()
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.fail_all();
    }

    fn fail_all(&self) {
        while let Some(request) = self.requests.pop() {
            request.fail();
        }
    }
}

/// What follows when the helper is through with an operation.
enum Then {
    Complete,
    Open {
        name: String,
        mode: Mode,
    },
    Close(FileId),
    /// Tell that it was not opened.
    Fail(Failure),
}

/// A disk's way to the executor. Dropped, it says that the disk is gone.
struct Ring {
    desk: Arc<Desk>,
    disk: Arc<Shared>,
}

impl Ring {
    fn ask(&self, work: Work) {
        let disk = self.disk.clone();
        self.desk.leave(Request { disk, work });
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.ask(Work::Leave);
    }
}

/// See the module.
pub(crate) struct RingDisk {
    folder: PathBuf,
    /// Dropped first, which waits until it has done what it was given and its files are closed (law 4).
    helper: StdDisk,
    ring: Ring,
    /// What the helper has, by the serial that it knows it by.
    helped: BTreeMap<u64, (Ticket, Then)>,
    next_serial: u64,
    under_way: usize,
    polled: Vec<Completion>,
}

impl RingDisk {
    /// Serves `folder`, which is made if it is not there, through the executor whose desk this is. `notify` is called after each
    /// completion, from whatever thread; for `keep` see law 4.
    ///
    /// # Errors
    /// Those of [`StdDisk::new`].
    pub fn new(
        folder: &Path,
        desk: &Arc<Desk>,
        notify: Arc<dyn Fn() + Send + Sync>,
        keep: Keep,
    ) -> io::Result<Self> {
        let of_helper = notify.clone();
        let helper = StdDisk::new(folder, Box::new(move || of_helper()))?;
        Ok(RingDisk {
            folder: folder.to_owned(),
            helper,
            ring: Ring {
                desk: desk.clone(),
                disk: Arc::new(Shared {
                    id: desk.disks.fetch_add(1, Ordering::Relaxed),
                    completions: SegQueue::new(),
                    not_opened: SegQueue::new(),
                    notify: Box::new(move || notify()),
                    _keep: keep,
                }),
            },
            helped: BTreeMap::new(),
            next_serial: 0,
            under_way: 0,
            polled: Vec::new(),
        })
    }

    fn ask_helper(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        let then = match &op {
            Op::Open { name, mode, .. } => Then::Open {
                name: name.clone(),
                mode: *mode,
            },
            Op::Close { file } => Then::Close(*file),
            _ => Then::Complete,
        };
        self.have_done(op, ticket, then)
    }

    fn have_done(&mut self, op: Op, ticket: Ticket, then: Then) -> Result<(), Full<Op>> {
        let serial = self.next_serial;
        self.helper.submit(op, Ticket { owner: 0, serial })?;
        self.next_serial += 1;
        self.helped.insert(serial, (ticket, then));
        Ok(())
    }

    /// Law 3. What the helper does not take stays open until the disk goes: it takes more than can be under way.
    fn close_not_opened(&mut self) {
        while let Some((ticket, file, failure)) = self.ring.disk.not_opened.pop() {
            let taken = self.have_done(Op::Close { file }, ticket, Then::Fail(failure));
            debug_assert!(taken.is_ok(), "it takes more than can be under way");
        }
    }

    /// The helper is through with one.
    fn helped(&mut self, done: Completion, completions: &mut Vec<Completion>) {
        let Some((ticket, then)) = self.helped.remove(&done.ticket.serial) else {
            unreachable!("the helper completes what it was given, once");
        };
        match (then, done.result) {
            (Then::Open { name, mode }, Ok(Done::Opened { file, direct, len })) => {
                self.ring.ask(Work::Open {
                    ticket,
                    path: self.folder.join(name),
                    mode,
                    file,
                    direct,
                    len,
                });
            }
            (Then::Close(file), Ok(_)) => self.ring.ask(Work::Close { ticket, file }),
            (Then::Fail(failure), _) => {
                self.under_way -= 1;
                let result = Err(failure);
                completions.push(Completion { ticket, result });
            }
            (_, result) => {
                self.under_way -= 1;
                completions.push(Completion { ticket, result });
            }
        }
    }
}

impl Disk for RingDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        if self.under_way == QUEUE {
            return Err(Full(op));
        }
        match op {
            Op::Write { .. } | Op::Read { .. } | Op::SyncData { .. } => {
                self.ring.ask(Work::Do { ticket, op });
            }
            op => self.ask_helper(op, ticket)?,
        }
        self.under_way += 1;
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.close_not_opened();
        let mut polled = std::mem::take(&mut self.polled);
        self.helper.poll(&mut polled);
        for done in polled.drain(..) {
            self.helped(done, completions);
        }
        self.polled = polled;
        while let Some(completion) = self.ring.disk.completions.pop() {
            self.under_way -= 1;
            completions.push(completion);
        }
    }
}
