//! The half of a shard's disks that lives on its executor: files, and a task for each operation under way.
//!
//! Laws
//! 1. A task owns what its operation needs: the file, its buffer, and the disk's [`Shared`]. So whatever becomes of the disk meanwhile, buffers
//!    and files outlive what the kernel does with them.
//! 2. Whoever lets go of a file last closes it and waits until it is closed, before it lets go of the disk.
//! 3. No panic of glommio's leaves a task: it is an error of the operation.
//! 4. The executor ends only when no task is under way.
//!
//! Buffers of ours go down and come back; glommio's safe interface writes from buffers of its own, so what is written is copied,
//! once, and into a buffer that was used before where one of that length is at hand.

use super::disk::{Desk, Request, Shared, Work};
use crate::runtime::disks::PROBE;
use crate::runtime::panics::catch;
use glommio::GlommioError;
use glommio::io::{BufferedFile, DmaBuffer, DmaFile, OpenOptions};
use pelton_storage::{ALIGN, Buffer, DiskError, Done, Failure, FileId, Mode, Op};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// Buffers for direct writes that are kept for the next one: as many as a segment's writer has under way.
const SPARE: usize = 4;

type Result<T> = std::result::Result<T, GlommioError<()>>;

/// See the module.
pub(super) struct Io {
    desk: Arc<Desk>,
    files: RefCell<BTreeMap<Key, Rc<Open>>>,
    /// Disks on whose device glommio knows what it can do.
    probed: RefCell<BTreeSet<u32>>,
    /// The last one used comes first.
    spare: RefCell<Vec<DmaBuffer>>,
    under_way: Cell<usize>,
    /// Something has been submitted that the kernel has not been told of.
    fresh: Cell<bool>,
    /// Who waits until nothing is under way.
    waits: RefCell<Option<Waker>>,
}

/// A disk and its file.
type Key = (u32, FileId);

enum Open {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

impl Io {
    pub fn new(desk: Arc<Desk>) -> Rc<Self> {
        Rc::new(Io {
            desk,
            files: RefCell::default(),
            probed: RefCell::default(),
            spare: RefCell::default(),
            under_way: Cell::new(0),
            fresh: Cell::new(false),
            waits: RefCell::default(),
        })
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.get() > 0
    }

    /// Whether anything was begun since the last call.
    pub fn take_fresh(&self) -> bool {
        self.fresh.replace(false)
    }

    /// Begins what was asked for.
    #[inline]
    pub fn begin(self: &Rc<Self>) {
        while let Some(request) = self.desk.take() {
            self.under_way.set(self.under_way.get() + 1);
            self.fresh.set(true);
            let io = self.clone();
            glommio::spawn_local(async move {
                io.serve(request).await;
                io.under_way.set(io.under_way.get() - 1);
                if !io.is_under_way()
                    && let Some(waker) = io.waits.take()
                {
                    waker.wake();
                }
            })
            .detach();
        }
    }

    /// Ends: law 4. Who could ask is gone, or has a closed desk from here on.
    pub async fn end(self: Rc<Self>) {
        self.begin();
        self.is_still().await;
        self.desk.close();
        for (_, file) in self.files.take() {
            let_go(file).await;
        }
    }

    /// Returns when nothing is under way.
    async fn is_still(&self) {
        poll_fn(|cx| match self.is_under_way() {
            true => {
                *self.waits.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            false => Poll::Ready(()),
        })
        .await;
    }

    async fn serve(&self, request: Request) {
        let Request { disk, work } = request;
        match work {
            Work::Open {
                ticket,
                path,
                mode,
                file,
                direct,
                len,
            } => {
                let key = (disk.id, file);
                match self.open(key, &path, mode, direct).await {
                    Ok(opened) => {
                        let direct = matches!(opened, Open::Direct(_));
                        self.files.borrow_mut().insert(key, Rc::new(opened));
                        disk.complete(ticket, Ok(Done::Opened { file, direct, len }));
                    }
                    Err(e) => disk.not_opened(ticket, file, failure(e, None)),
                }
            }
            Work::Close { ticket, file } => {
                let closed = self.files.borrow_mut().remove(&(disk.id, file));
                if let Some(file) = closed {
                    let_go(file).await;
                }
                disk.complete(ticket, Ok(Done::Nothing));
            }
            Work::Do { ticket, op } => {
                let result = self.execute(&disk, op).await;
                disk.complete(ticket, result);
            }
            Work::Leave => {
                self.probed.borrow_mut().remove(&disk.id);
                for (_, file) in self.files_of(disk.id) {
                    let_go(file).await;
                }
            }
        }
    }

    /// Takes out the files of a disk.
    fn files_of(&self, disk: u32) -> BTreeMap<Key, Rc<Open>> {
        let mut files = self.files.borrow_mut();
        let mut of_disk = files.split_off(&(disk, FileId(0)));
        if let Some(next) = disk.checked_add(1) {
            files.append(&mut of_disk.split_off(&(next, FileId(0))));
        }
        of_disk
    }

    /// Opens what the helper has opened. Where glommio cannot have it direct, it goes through the page cache.
    async fn open(&self, key: Key, path: &Path, mode: Mode, direct: bool) -> io::Result<Open> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != Mode::Read);
        if direct && let Ok(file) = caught(self.open_direct(key, path, &options)).await {
            return Ok(Open::Direct(file));
        }
        let file = caught(async { options.buffered_open(path).await.map_err(plain) });
        file.await.map(Open::Buffered)
    }

    async fn open_direct(
        &self,
        (disk, file): Key,
        path: &Path,
        options: &OpenOptions,
    ) -> io::Result<DmaFile> {
        if !self.probed.borrow().contains(&disk) {
            // Several files may be opened at a time, and executors share a folder.
            let name = format!("{PROBE}{}-{}", glommio::executor().id(), file.0);
            probe(&path.with_file_name(name)).await?;
            self.probed.borrow_mut().insert(disk);
        }
        options.dma_open(path).await.map_err(plain)
    }

    async fn execute(&self, disk: &Shared, mut op: Op) -> std::result::Result<Done, Failure> {
        let file = match &op {
            Op::Write { file, .. } | Op::Read { file, .. } | Op::SyncData { file } => *file,
            _ => unreachable!("the rest is the helper's"),
        };
        let found = self.files.borrow().get(&(disk.id, file)).cloned();
        let Some(file) = found else {
            return Err(failure(ErrorKind::InvalidInput.into(), op.take_buffer()));
        };
        let result = match op {
            Op::Write { offset, buffer, .. } => {
                match caught(self.write(&file, offset, &buffer)).await {
                    Ok(()) => Ok(Done::Written { buffer }),
                    Err(e) => Err(failure(e, Some(buffer))),
                }
            }
            Op::Read {
                offset, mut buffer, ..
            } => match caught(file.fill(offset, &mut buffer)).await {
                Ok(filled) => Ok(Done::Filled { buffer, filled }),
                Err(e) => Err(failure(e, Some(buffer))),
            },
            _ => match caught(async { file.sync_data().await.map_err(plain) }).await {
                Ok(()) => Ok(Done::Nothing),
                Err(e) => Err(failure(e, None)),
            },
        };
        let_go(file).await;
        result
    }

    /// Writes all of it, however the kernel divides it.
    async fn write(&self, file: &Open, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let (left, at) = (&bytes[written..], offset + written as u64);
            let result = match file {
                Open::Direct(file) => {
                    let buffer = Rc::new(self.filled(file, left));
                    let result = file.write_rc_at(buffer.clone(), at).await;
                    self.put_back(buffer);
                    result
                }
                Open::Buffered(file) => file.write_at(left.to_vec(), at).await,
            };
            match result.map_err(plain) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// A buffer of glommio's with these bytes.
    fn filled(&self, file: &DmaFile, bytes: &[u8]) -> DmaBuffer {
        let mut spare = self.spare.borrow_mut();
        let mut buffer = match spare.iter().position(|b| b.len() == bytes.len()) {
            Some(at) => spare.remove(at),
            None => file.alloc_dma_buffer(bytes.len()),
        };
        buffer.as_bytes_mut().copy_from_slice(bytes);
        buffer
    }

    fn put_back(&self, buffer: Rc<DmaBuffer>) {
        // Else the kernel may have it still: glommio frees it when it does not.
        if let Some(buffer) = Rc::into_inner(buffer) {
            let mut spare = self.spare.borrow_mut();
            spare.insert(0, buffer);
            spare.truncate(SPARE);
        }
    }
}

impl Open {
    async fn read_at(&self, at: u64, len: usize) -> Result<glommio::io::ReadResult> {
        match self {
            Open::Direct(file) => file.read_at_aligned(at, len).await,
            Open::Buffered(file) => file.read_at(at, len).await,
        }
    }

    /// Reads as far as the file reaches.
    async fn fill(&self, offset: u64, buffer: &mut Buffer) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = buffer.len() - filled;
            match self
                .read_at(offset + filled as u64, left)
                .await
                .map_err(plain)
            {
                Ok(read) if read.is_empty() => break,
                Ok(read) => {
                    let n = read.len().min(left);
                    buffer[filled..filled + n].copy_from_slice(&read[..n]);
                    filled += n;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A direct read that ended inside a block, at the end of the file, cannot go on from there.
                Err(e) if e.kind() == ErrorKind::InvalidInput && filled > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    async fn sync_data(&self) -> Result<()> {
        match self {
            Open::Direct(file) => file.fdatasync().await,
            Open::Buffered(file) => file.fdatasync().await,
        }
    }
}

/// Has glommio find out about the device that the folder is on, before it opens a file that counts.
///
/// It does so with the first direct file that it opens there: it looks into sysfs, and panics where that is not as it knows it; and it reads
/// a block by polling, to see whether the device can do that. The file that a log is made of is new then, no device is asked for what it
/// does not hold, and glommio takes this for a yes: after that, reads and writes of what is there fail with EOPNOTSUPP. So the first file is
/// one that holds a block.
async fn probe(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.buffered_open(path).await.map_err(plain)?;
    let written = async {
        file.write_at(vec![1; ALIGN], 0).await?;
        file.fdatasync().await
    };
    let written = written.await;
    let probed = match written {
        Ok(()) => caught(async { DmaFile::open(path).await.map_err(plain) }).await,
        Err(e) => Err(plain(e)),
    };
    // Once a disk, and nothing is synced: some microseconds.
    let removed = std::fs::remove_file(path);
    file.close().await.map_err(plain)?;
    probed?.close().await.map_err(plain)?;
    removed
}

/// Law 2.
async fn let_go(file: Rc<Open>) {
    if let Some(file) = Rc::into_inner(file) {
        // What counts was synced, and said so.
        let _ = caught(async {
            match file {
                Open::Direct(file) => file.close().await.map_err(plain),
                Open::Buffered(file) => file.close().await.map_err(plain),
            }
        })
        .await;
    }
}

/// Law 3.
async fn caught<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let mut step = pin!(step);
    poll_fn(|cx| match catch(|| step.as_mut().poll(cx)) {
        Ok(polled) => polled,
        Err(panic) => Poll::Ready(Err(io::Error::other(panic.message))),
    })
    .await
}

/// The system's error, with its number.
fn plain(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(e) | GlommioError::EnhancedIoError { source: e, .. } => e,
        other => other.into(),
    }
}

fn failure(e: io::Error, buffer: Option<Buffer>) -> Failure {
    Failure {
        error: DiskError::from(e),
        buffer,
    }
}
