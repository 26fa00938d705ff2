//! Real files behind one helper thread.
//!
//! Laws
//! 1. The owner never waits: operations and completions pass through two bounded queues, and no more operations are under way
//!    than completions have room.
//! 2. The helper does operations one after another, in the order of submission, and calls `notify` after each completion.
//! 3. Dropping the disk lets the helper finish what was submitted, and waits for it.

use super::{
    BlockingDisk, Completion, Disk, DiskError, Done, Failure, FileId, Full, Mode, Op, flat,
};
use crate::buffer::Buffer;
use crate::disk::Ticket;
use crossbeam_queue::ArrayQueue;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// Called on the helper thread after each completion, to wake an owner that sleeps. It must not block.
pub type Notify = Box<dyn Fn() + Send + Sync>;

/// How many operations may be under way.
const QUEUE: usize = 256;

struct Shared {
    ops: ArrayQueue<(Op, Ticket)>,
    completions: ArrayQueue<Completion>,
    /// Written by the owner when it goes, read by the helper before it parks. Release and Acquire: all that was submitted
    /// before is in `ops` by then.
    closing: AtomicBool,
    notify: Notify,
}

/// See the laws on top of this file's module.
pub struct StdDisk {
    shared: Arc<Shared>,
    helper: Option<JoinHandle<()>>,
    helper_thread: Thread,
    /// Taken and not yet polled; at most [`QUEUE`].
    under_way: usize,
    /// Who sleeps in `wait`, for a disk that was opened for blocking use: told by its notify.
    waiter: Option<Arc<Mutex<Thread>>>,
}

impl StdDisk {
    /// Serves `folder`, which is made if it is not there. `notify` is called after each completion.
    ///
    /// # Errors
    /// The folder cannot be made, or no thread can be started.
    pub fn new(folder: &Path, notify: Notify) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        sync_parent(folder)?;
        let shared = Arc::new(Shared {
            ops: ArrayQueue::new(QUEUE),
            completions: ArrayQueue::new(QUEUE),
            closing: AtomicBool::new(false),
            notify,
        });
        let mut helper = Helper {
            folder: folder.to_path_buf(),
            files: BTreeMap::new(),
            next_file: 0,
            shared: shared.clone(),
        };
        let helper = thread::Builder::new()
            .name("pelton-disk".into())
            .spawn(move || helper.run())?;
        Ok(StdDisk {
            shared,
            helper_thread: helper.thread().clone(),
            helper: Some(helper),
            under_way: 0,
            waiter: None,
        })
    }

    /// Serves `folder` for an owner that waits for its operations, on whatever thread has the disk then.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn blocking(folder: &Path) -> io::Result<Self> {
        let waiter = Arc::new(Mutex::new(thread::current()));
        let told = waiter.clone();
        let notify = move || told.lock().unwrap_or_else(PoisonError::into_inner).unpark();
        let mut disk = StdDisk::new(folder, Box::new(notify))?;
        disk.waiter = Some(waiter);
        Ok(disk)
    }
}

impl std::fmt::Debug for StdDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdDisk")
            .field("under_way", &self.under_way)
            .finish_non_exhaustive()
    }
}

impl Disk for StdDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        if self.under_way == QUEUE {
            return Err(Full(op));
        }
        if let Err((op, _)) = self.shared.ops.push((op, ticket)) {
            return Err(Full(op));
        }
        self.under_way += 1;
        self.helper_thread.unpark();
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        while let Some(completion) = self.shared.completions.pop() {
            self.under_way -= 1;
            completions.push(completion);
        }
    }
}

impl BlockingDisk for StdDisk {
    /// Parks the calling thread, if the disk was made with [`blocking`](StdDisk::blocking). Otherwise it only yields.
    fn wait(&mut self) -> Result<(), DiskError> {
        if let Some(waiter) = &self.waiter {
            // Said before the look: what completes after the look finds this thread.
            *waiter.lock().unwrap_or_else(PoisonError::into_inner) = thread::current();
        }
        if self.under_way == 0 || !self.shared.completions.is_empty() {
            return Ok(());
        }
        if self.helper.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(ErrorKind::NotConnected.into());
        }
        match self.waiter {
            // The notify leaves a token if it comes between the look and the park.
            Some(_) => thread::park(),
            None => thread::yield_now(),
        }
        Ok(())
    }
}

impl Drop for StdDisk {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.helper_thread.unpark();
        if let Some(helper) = self.helper.take() {
            // A helper that panicked has nothing left to finish.
            let _ = helper.join();
        }
    }
}

struct Helper {
    folder: PathBuf,
    files: BTreeMap<FileId, File>,
    next_file: u32,
    shared: Arc<Shared>,
}

impl Helper {
    fn run(&mut self) {
        loop {
            let closing = self.shared.closing.load(Ordering::Acquire); // asked first: then empty means done
            while let Some((op, ticket)) = self.shared.ops.pop() {
                let result = self.execute(op);
                let full = self.shared.completions.push(Completion { ticket, result });
                debug_assert!(full.is_ok(), "more completions than operations");
                (self.shared.notify)();
            }
            if closing {
                return;
            }
            thread::park();
        }
    }

    fn execute(&mut self, op: Op) -> Result<Done, Failure> {
        match op {
            Op::Write {
                file,
                offset,
                buffer,
            } => match self
                .file(file)
                .and_then(|f| position::write(f, &buffer, offset))
            {
                Ok(()) => Ok(Done::Written { buffer }),
                Err(e) => Err(failure(e, Some(buffer))),
            },
            Op::Read {
                file,
                offset,
                mut buffer,
            } => match self.file(file).and_then(|f| fill(f, &mut buffer, offset)) {
                Ok(filled) => Ok(Done::Filled { buffer, filled }),
                Err(e) => Err(failure(e, Some(buffer))),
            },
            op => self.plain(op).map_err(|e| failure(e, None)),
        }
    }

    fn plain(&mut self, op: Op) -> io::Result<Done> {
        match op {
            Op::Open { name, mode, direct } => return self.open(&name, mode, direct),
            Op::Close { file } => drop(self.files.remove(&file)),
            Op::Allocate { file, len } => platform::allocate(self.file(file)?, len)?,
            Op::SyncData { file } => self.file(file)?.sync_data()?,
            Op::SyncFolder => platform::sync_folder(&self.folder)?,
            Op::Rename { from, to } => fs::rename(self.path(&from)?, self.path(&to)?)?,
            Op::Remove { name } => fs::remove_file(self.path(&name)?)?,
            Op::List => return self.list(),
            Op::FreeSpace => return Ok(Done::Free(platform::free_space(&self.folder)?)),
            Op::Truncate { file, len } => self.file(file)?.set_len(len)?,
            Op::Write { .. } | Op::Read { .. } => unreachable!("done by execute"),
        }
        Ok(Done::Nothing)
    }

    fn file(&self, file: FileId) -> io::Result<&File> {
        self.files
            .get(&file)
            .ok_or_else(|| ErrorKind::InvalidInput.into())
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        flat(name)?;
        Ok(self.folder.join(name))
    }

    fn open(&mut self, name: &str, mode: Mode, direct: bool) -> io::Result<Done> {
        let path = self.path(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(mode != Mode::Read);
        options.create_new(mode == Mode::Create);
        let (opened, direct) = match direct {
            true => platform::open_direct(&path, &options)?,
            false => (options.open(&path)?, false),
        };
        let len = opened.metadata()?.len();
        let file = FileId(self.next_file);
        self.next_file = self.next_file.wrapping_add(1);
        self.files.insert(file, opened);
        Ok(Done::Opened { file, direct, len })
    }

    fn list(&self) -> io::Result<Done> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(Done::Names(names))
    }
}

fn failure(e: io::Error, buffer: Option<Buffer>) -> Failure {
    Failure {
        error: DiskError::from(e),
        buffer,
    }
}

fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match position::read(file, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // A direct read that ended inside a block, at the end of the file, cannot go on from there.
            Err(e) if e.kind() == ErrorKind::InvalidInput && filled > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Makes a new folder's own name durable.
fn sync_parent(folder: &Path) -> io::Result<()> {
    match folder.canonicalize()?.parent() {
        Some(parent) => platform::sync_folder(parent),
        None => Ok(()),
    }
}

#[cfg(unix)]
mod position {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    pub fn read(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }
}

/// The helper is the only user of its files, so a moved cursor disturbs nobody.
#[cfg(not(unix))]
mod position {
    use std::fs::File;
    use std::io::{self, Read, Seek, SeekFrom, Write};

    pub fn write(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    }

    pub fn read(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.seek(SeekFrom::Start(offset))?;
        file.read(bytes)
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use rustix::fs::{FallocateFlags, OFlags};
    use rustix::io::Errno;
    use std::fs::{File, OpenOptions};
    use std::io::{self, ErrorKind};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;

    /// Opens with O_DIRECT, or without where the file system refuses it (EINVAL, before anything is created or after: then
    /// the second attempt opens what the first one made).
    pub fn open_direct(path: &Path, options: &OpenOptions) -> io::Result<(File, bool)> {
        let existed = path.try_exists()?;
        let flags = OFlags::DIRECT.bits() as i32;
        match options.clone().custom_flags(flags).open(path) {
            Ok(file) => Ok((file, true)),
            Err(e) if e.kind() == ErrorKind::InvalidInput => {
                let mut again = options.clone();
                if !existed && path.try_exists()? {
                    again.create_new(false);
                }
                Ok((again.open(path)?, false))
            }
            Err(e) => Err(e),
        }
    }

    pub fn allocate(file: &File, len: u64) -> io::Result<()> {
        loop {
            return match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
                Ok(()) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(ErrorKind::Unsupported.into()),
                Err(e) => Err(e.into()),
            };
        }
    }

    pub use super::unix::{free_space, sync_folder};
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    pub fn free_space(folder: &Path) -> io::Result<u64> {
        let at = rustix::fs::statvfs(folder)?;
        Ok(at.f_bavail.saturating_mul(at.f_frsize))
    }

    pub fn sync_folder(folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::fs::{File, OpenOptions};
    use std::io::{self, ErrorKind};
    use std::path::Path;

    pub fn open_direct(path: &Path, options: &OpenOptions) -> io::Result<(File, bool)> {
        Ok((options.open(path)?, false))
    }

    pub fn allocate(_file: &File, _len: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    #[cfg(unix)]
    pub use super::unix::{free_space, sync_folder};

    /// Unknown here: the error of a full disk comes from the write.
    #[cfg(not(unix))]
    pub fn free_space(_folder: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Folders cannot be opened here; names are durable when the system says so.
    #[cfg(not(unix))]
    pub fn sync_folder(_folder: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
