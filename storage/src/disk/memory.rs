//! A folder in memory that knows what a loss of power would leave of it.
//!
//! Laws
//! 1. Reading sees every completed write. A crash sees what was synced, and of the rest any subset of its units: a unit is
//!    one sector of one file, one file's length, or one change of the folder.
//! 2. `SyncData` makes a file's sectors and length durable, not its name. `SyncFolder` makes names durable, not contents.
//! 3. A rename is one unit: after a crash a name means the old file or the new one, never neither. Names are changed by name: where a change
//!    before it was lost, a rename moves whatever has the old name then. So who uses a name twice between two syncs is punished.
//!
//! Of a sector that was written twice between two syncs, a crash keeps the first state or the last, not the middle one.

mod inode;

use super::{
    BlockingDisk, Completion, Disk, DiskError, Done, Failure, FileId, Full, Mode, Op, flat,
};
use crate::buffer::{ALIGN, Buffer};
use crate::disk::Ticket;
use inode::Inode;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;

/// A sector as devices write it whole, in bytes.
const SECTOR: usize = 512;
const QUEUE: usize = 1024;
/// No file of a test is longer: a hostile length is refused, not allocated.
const FILE_MAX: u64 = 1 << 30;

/// Something that was written and not synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsynced {
    /// One sector of a file.
    Sector {
        /// The file, as it is or was called.
        file: String,
        /// Where the sector begins.
        offset: u64,
    },
    /// The length of a file.
    Length {
        /// The file, as it is or was called.
        file: String,
    },
    /// A change of the folder.
    Name {
        /// The name, for a rename the new one.
        name: String,
    },
}

#[derive(Debug, Clone)]
enum Change {
    Create { name: String, inode: usize },
    Remove { name: String },
    Rename { from: String, to: String },
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>, live: &BTreeMap<String, usize>) {
        match self {
            Change::Create { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Change::Remove { name } => {
                names.remove(name);
            }
            Change::Rename { from, to } => {
                // Where the creation of `from` was lost, the rename still carries the file.
                if let Some(inode) = names.remove(from).or_else(|| live.get(to).copied()) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Change::Create { name, .. } | Change::Remove { name } => name,
            Change::Rename { to, .. } => to,
        }
    }
}

#[derive(Debug, Clone)]
struct Handle {
    inode: usize,
    direct: bool,
    writable: bool,
}

/// See the laws on top of this file's module.
#[derive(Debug, Clone)]
pub struct MemoryDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    files: BTreeMap<FileId, Handle>,
    next_file: u32,
    capacity: u64,
    sector: usize,
    direct: bool,
    allocates: bool,
    done: VecDeque<Completion>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        MemoryDisk::new()
    }
}

impl MemoryDisk {
    /// An empty folder with sectors of 512 bytes, direct files and room for 1 GiB.
    pub fn new() -> Self {
        MemoryDisk {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            capacity: FILE_MAX,
            sector: SECTOR,
            direct: true,
            allocates: true,
            done: VecDeque::new(),
        }
    }

    /// Sets the size of a sector in bytes: larger ones make fewer units, so that a test can try all their subsets.
    #[must_use]
    pub fn with_sector(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "a sector holds something");
        self.sector = bytes;
        self
    }

    /// Sets the room in bytes. What is in use already stays.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    /// Refuses direct files and allocation, as overlay and network file systems do.
    #[must_use]
    pub fn without_direct(mut self) -> Self {
        self.direct = false;
        self.allocates = false;
        self
    }

    /// A copy of a file's content, for tests.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        Some(self.inodes[*self.names.get(name)?].content())
    }

    /// Changes a file behind everyone's back, durably, for tests. Panics if there is no such file.
    pub fn damage(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let inode = &mut self.inodes[self.names[name]];
        let mut bytes = inode.content();
        change(&mut bytes);
        let mut changed = Inode::new(inode.label.clone());
        changed.reserved = inode.reserved;
        changed.write(0, &bytes, self.sector);
        changed.sync();
        *inode = changed;
    }

    /// The names of the files, sorted.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Everything a crash may lose, in a fixed order: files in the order of their creation, each with its length and
    /// its sectors, then the folder's changes.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let mut units = Vec::new();
        for inode in &self.inodes {
            inode.unsynced(self.sector, &mut units);
        }
        units.extend(self.changes.iter().map(|c| Unsynced::Name {
            name: c.name().to_string(),
        }));
        units
    }

    /// Power is lost: of [`unsynced`](Self::unsynced) those units stay for whose index `keep` says so. Files are closed,
    /// completions that nobody polled are gone.
    pub fn crash(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut unit = 0;
        let mut next = || {
            unit += 1;
            keep(unit - 1)
        };
        for inode in &mut self.inodes {
            inode.crash(self.sector, &mut next);
        }
        let mut names = std::mem::take(&mut self.durable_names);
        for change in std::mem::take(&mut self.changes) {
            if next() {
                change.apply(&mut names, &self.names);
            }
        }
        self.names = names.clone();
        self.durable_names = names;
        self.restart();
        self.forget_unnamed();
    }

    /// Gives the memory of files that have no name any more back, so that a test can clone a disk cheaply.
    fn forget_unnamed(&mut self) {
        let open: BTreeSet<usize> = self.files.values().map(|h| h.inode).collect();
        let named: BTreeSet<usize> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .collect();
        for (i, inode) in self.inodes.iter_mut().enumerate() {
            if !named.contains(&i) && !open.contains(&i) {
                *inode = Inode::default();
            }
        }
    }

    /// The process dies and the machine does not: everything written stays, synced or not. Files are closed.
    pub fn restart(&mut self) {
        self.files.clear();
        self.done.clear();
    }

    fn used(&self) -> u64 {
        self.names.values().map(|&i| self.inodes[i].used()).sum()
    }

    fn handle(&self, file: FileId, write: bool) -> Result<&Handle, DiskError> {
        let handle = self.files.get(&file).ok_or(ErrorKind::InvalidInput)?;
        if write && !handle.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        Ok(handle)
    }

    /// Whether a file is open and goes round the page cache.
    pub(super) fn is_direct(&self, file: FileId) -> bool {
        self.files.get(&file).is_some_and(|handle| handle.direct)
    }

    /// Does one operation at once. A write or read must be given through this to be failed half way by a faulty disk.
    pub(super) fn execute(&mut self, op: Op) -> Result<Done, Failure> {
        match op {
            Op::Write {
                file,
                offset,
                buffer,
            } => match self.write(file, offset, &buffer) {
                Ok(()) => Ok(Done::Written { buffer }),
                Err(error) => Err(Failure {
                    error,
                    buffer: Some(buffer),
                }),
            },
            Op::Read {
                file,
                offset,
                mut buffer,
            } => match self.read(file, offset, &mut buffer) {
                Ok(filled) => Ok(Done::Filled { buffer, filled }),
                Err(error) => Err(Failure {
                    error,
                    buffer: Some(buffer),
                }),
            },
            op => self.plain(op).map_err(|error| Failure {
                error,
                buffer: None,
            }),
        }
    }

    fn plain(&mut self, op: Op) -> Result<Done, DiskError> {
        match op {
            Op::Open { name, mode, direct } => return self.open(name, mode, direct),
            Op::Close { file } => drop(self.files.remove(&file)),
            Op::Allocate { file, len } => self.allocate(file, len)?,
            Op::SyncData { file } => {
                let inode = self.handle(file, false)?.inode;
                self.inodes[inode].sync();
            }
            Op::SyncFolder => {
                self.changes.clear();
                self.durable_names = self.names.clone();
                self.forget_unnamed();
            }
            Op::Rename { from, to } => {
                flat(&from).and(flat(&to))?;
                let inode = self.names.remove(&from).ok_or(ErrorKind::NotFound)?;
                self.names.insert(to.clone(), inode);
                self.changes.push(Change::Rename { from, to });
            }
            Op::Remove { name } => {
                flat(&name)?;
                self.names.remove(&name).ok_or(ErrorKind::NotFound)?;
                self.changes.push(Change::Remove { name });
            }
            Op::List => return Ok(Done::Names(self.names())),
            Op::FreeSpace => return Ok(Done::Free(self.capacity.saturating_sub(self.used()))),
            Op::Truncate { file, len } => {
                let inode = self.handle(file, true)?.inode;
                self.grow(inode, len)?;
                self.inodes[inode].set_len(len as usize, self.sector);
                self.inodes[inode].reserved = self.inodes[inode].reserved.min(len);
            }
            Op::Write { .. } | Op::Read { .. } => unreachable!("done by execute"),
        }
        Ok(Done::Nothing)
    }

    fn open(&mut self, name: String, mode: Mode, direct: bool) -> Result<Done, DiskError> {
        flat(&name)?;
        let inode = match (mode, self.names.get(&name)) {
            (Mode::Create, Some(_)) => return Err(ErrorKind::AlreadyExists.into()),
            (Mode::Create, None) => {
                self.inodes.push(Inode::new(name.clone()));
                let inode = self.inodes.len() - 1;
                self.names.insert(name.clone(), inode);
                self.changes.push(Change::Create { name, inode });
                inode
            }
            (_, Some(&inode)) => inode,
            (_, None) => return Err(ErrorKind::NotFound.into()),
        };
        let file = FileId(self.next_file);
        self.next_file += 1;
        let direct = direct && self.direct;
        let writable = mode != Mode::Read;
        self.files.insert(
            file,
            Handle {
                inode,
                direct,
                writable,
            },
        );
        let len = self.inodes[inode].len as u64;
        Ok(Done::Opened { file, direct, len })
    }

    fn allocate(&mut self, file: FileId, len: u64) -> Result<(), DiskError> {
        let inode = self.handle(file, true)?.inode;
        if !self.allocates {
            return Err(ErrorKind::Unsupported.into());
        }
        self.grow(inode, len)?;
        self.inodes[inode].reserved = self.inodes[inode].reserved.max(len);
        if (self.inodes[inode].len as u64) < len {
            self.inodes[inode].set_len(len as usize, self.sector);
        }
        Ok(())
    }

    /// Whether a file may become `len` long.
    fn grow(&self, inode: usize, len: u64) -> Result<(), DiskError> {
        let more = len.saturating_sub(self.inodes[inode].used());
        if len > FILE_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if more > 0 && self.used() + more > self.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn aligned(handle: &Handle, offset: u64, len: usize) -> Result<(), DiskError> {
        let whole = offset.is_multiple_of(ALIGN as u64) && len.is_multiple_of(ALIGN);
        if handle.direct && !whole {
            return Err(ErrorKind::InvalidInput.into());
        }
        Ok(())
    }

    pub(super) fn write(
        &mut self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DiskError> {
        if bytes.is_empty() {
            // As a system call has it: nothing grows.
            return self.handle(file, false).map(drop);
        }
        let handle = self.handle(file, true)?;
        Self::aligned(handle, offset, bytes.len())?;
        let inode = handle.inode;
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(ErrorKind::FileTooLarge)?;
        self.grow(inode, end)?;
        self.inodes[inode].write(offset as usize, bytes, self.sector);
        Ok(())
    }

    fn read(&self, file: FileId, offset: u64, buffer: &mut Buffer) -> Result<usize, DiskError> {
        let handle = self.handle(file, false)?;
        Self::aligned(handle, offset, buffer.len())?;
        let inode = &self.inodes[handle.inode];
        let from = (offset.min(inode.len as u64)) as usize;
        let filled = buffer.len().min(inode.len - from);
        inode.read(from, &mut buffer[..filled]);
        Ok(filled)
    }
}

impl Disk for MemoryDisk {
    fn submit(&mut self, op: Op, ticket: Ticket) -> Result<(), Full<Op>> {
        if self.done.len() == QUEUE {
            return Err(Full(op));
        }
        let result = self.execute(op);
        self.done.push_back(Completion { ticket, result });
        Ok(())
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        completions.extend(self.done.drain(..));
    }
}

impl BlockingDisk for MemoryDisk {
    fn wait(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
