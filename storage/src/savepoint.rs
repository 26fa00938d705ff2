//! A folder that holds all of one checkpoint and needs nothing else.
//!
//! Laws
//! 1. The record is written last, durable under its name only when all that it names is durable. A folder without it is no
//!    savepoint.
//! 2. Blocks are copied as they are, in log order, after their checksums held. Pads are left out.
//! 3. Writing and reading wait for their disks: helper threads and tools only. The caller pins the checkpoint meanwhile.

use crate::buffer::{ALIGN, Buffer};
use crate::disk::{BlockingDisk, Done, FileId, Mode, Op};
use crate::error::StorageError;
use crate::format::manifest::{Checkpoint, Extent, Manifest, SAVEPOINT, SLOT_MAX};
use crate::format::segment::{self, SegmentHeader};
use crate::format::{Fault, Wrong, block};
use crate::id::{Epoch, Lineage, SegmentId};
use crate::reader::{Filter, SegmentBytes, SnapshotReader};
use std::io::ErrorKind;

const FILE: &str = "savepoint";
const UNFINISHED: &str = "savepoint.new";
/// A file is ended before it would be longer, in bytes.
const SEGMENT: u64 = 64 << 20;
/// How much is written at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// A savepoint that was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Savepoint {
    /// The lineage that it was taken from; a job that starts from it draws a new one.
    pub lineage: Lineage,
    /// Its content.
    pub checkpoint: Checkpoint,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SavepointReport {
    /// Blocks copied.
    pub blocks: u64,
    /// Bytes written, headers and padding included, the record not.
    pub bytes: u64,
}

impl Savepoint {
    /// Writes `checkpoint`, whose blocks `reader` hands out, into the empty folder of `disk`. `reader` has no filter.
    ///
    /// # Errors
    /// The folder is not empty, the checkpoint is damaged, or a disk fails. What was written by then is no savepoint.
    pub fn write<S: SegmentBytes, D: BlockingDisk>(
        mut reader: SnapshotReader<S>,
        lineage: Lineage,
        checkpoint: &Checkpoint,
        disk: &mut D,
    ) -> Result<SavepointReport, StorageError> {
        if let Some(found) = names(disk)?.into_iter().next() {
            return Err(StorageError::NotEmpty { found });
        }
        let mut copy = Copying {
            disk,
            lineage,
            epoch: checkpoint.epoch,
            extents: Vec::new(),
            file: None,
            buffer: Buffer::with_capacity(CHUNK),
            direct: true,
            untried: true,
            report: SavepointReport::default(),
        };
        while let Some(block) = reader.next_block()? {
            copy.add(block.bytes)?;
        }
        copy.end_segment()?;
        let manifest = Manifest {
            lineage,
            attempt: 0,
            unused_from: Epoch(checkpoint.epoch.0 + 1),
            checkpoints: vec![Checkpoint {
                epoch: checkpoint.epoch,
                segments: std::mem::take(&mut copy.extents),
                sections: checkpoint.sections.clone(),
            }],
        };
        copy.write_record(&manifest)?;
        Ok(copy.report)
    }

    /// Opens the savepoint in the disk's folder.
    ///
    /// # Errors
    /// [`StorageError::NoSavepoint`] if there is none (`folder` is for that message); or it is damaged or of another version.
    pub fn open<D: BlockingDisk>(disk: &mut D, folder: &str) -> Result<Self, StorageError> {
        let op = Op::Open {
            name: FILE.to_string(),
            mode: Mode::Read,
            direct: false,
        };
        let (file, len) = match disk.call(op) {
            Ok(Done::Opened { file, len, .. }) => (file, len),
            Ok(_) => unreachable!("an open opens"),
            Err(f) if f.error.kind == ErrorKind::NotFound => {
                let folder = folder.to_string();
                return Err(StorageError::NoSavepoint { folder });
            }
            Err(f) => return Err(StorageError::io("open", FILE, f.error)),
        };
        let copies = read_copies(disk, file, len);
        // A file that was only read has nothing to lose.
        let _ = disk.call(Op::Close { file });
        let mut wrong = None;
        for copy in copies? {
            match Manifest::decode(SAVEPOINT, &copy) {
                Ok((_, mut manifest)) if manifest.checkpoints.len() == 1 => {
                    return Ok(Savepoint {
                        lineage: manifest.lineage,
                        checkpoint: manifest.checkpoints.remove(0),
                    });
                }
                Ok(_) => wrong = Some(Wrong::at(0, Fault::Field("count of checkpoints"))),
                Err(w) => wrong = Some(w),
            }
        }
        let wrong = wrong.unwrap_or(Wrong::at(0, Fault::Short));
        Err(StorageError::wrong(FILE, 0, Epoch(0), wrong))
    }

    /// A reader of its blocks.
    pub fn reader<S: SegmentBytes>(&self, source: S, filter: Filter) -> SnapshotReader<S> {
        SnapshotReader::new(source, self.lineage, &self.checkpoint, filter)
    }
}

fn names<D: BlockingDisk>(disk: &mut D) -> Result<Vec<String>, StorageError> {
    match disk.call(Op::List) {
        Ok(Done::Names(names)) => Ok(names),
        Ok(_) => unreachable!("a list brings names"),
        Err(f) => Err(StorageError::io("list", "the folder", f.error)),
    }
}

/// Both copies: each is half of the file.
fn read_copies<D: BlockingDisk>(
    disk: &mut D,
    file: FileId,
    len: u64,
) -> Result<Vec<Buffer>, StorageError> {
    let half = (len / 2).min(SLOT_MAX as u64);
    let mut copies = Vec::with_capacity(2);
    for offset in [0, len / 2] {
        let buffer = Buffer::zeroed(half as usize);
        let op = Op::Read {
            file,
            offset,
            buffer,
        };
        match disk.call(op) {
            Ok(Done::Filled { mut buffer, filled }) => {
                buffer.resize(filled);
                copies.push(buffer);
            }
            Ok(_) => unreachable!("a read fills"),
            Err(f) => return Err(StorageError::io("read", FILE, f.error)),
        }
    }
    Ok(copies)
}

/// A savepoint that is being written.
struct Copying<'d, D: BlockingDisk> {
    disk: &'d mut D,
    lineage: Lineage,
    epoch: Epoch,
    extents: Vec<Extent>,
    /// The segment that is being filled; its length is what was written to it.
    file: Option<(FileId, Extent)>,
    buffer: Buffer,
    /// Whether files are opened direct, and whether a direct write has to show first that it is taken.
    direct: bool,
    untried: bool,
    report: SavepointReport,
}

impl<D: BlockingDisk> Copying<'_, D> {
    fn call(&mut self, file: &str, op: Op) -> Result<Done, StorageError> {
        let action = op.verb();
        let done = self.disk.call(op);
        done.map_err(|f| StorageError::io(action, file, f.error))
    }

    fn open(&mut self, name: &str, mode: Mode) -> Result<FileId, StorageError> {
        let op = Op::Open {
            name: name.to_string(),
            mode,
            direct: self.direct,
        };
        match self.call(name, op)? {
            Done::Opened { file, .. } => Ok(file),
            _ => unreachable!("an open opens"),
        }
    }

    fn add(&mut self, block: &[u8]) -> Result<(), StorageError> {
        let waiting = (self.buffer.len() + block.len() + ALIGN) as u64;
        if self
            .file
            .is_some_and(|(_, extent)| extent.len + waiting > SEGMENT)
        {
            self.end_segment()?;
        }
        if self.file.is_none() {
            self.begin_segment()?;
        }
        self.buffer.extend(block);
        self.report.blocks += 1;
        match self.buffer.len() >= CHUNK {
            true => self.write_chunk(),
            false => Ok(()),
        }
    }

    fn begin_segment(&mut self) -> Result<(), StorageError> {
        let id = SegmentId {
            attempt: 0,
            number: self.extents.len() as u32,
            shard: 0,
        };
        let file = self.open(&id.file_name(), Mode::Create)?;
        let header = SegmentHeader {
            lineage: self.lineage,
            id,
            first_epoch: self.epoch,
        };
        header.encode(&mut self.buffer);
        debug_assert_eq!(self.buffer.len(), segment::HEADER);
        self.file = Some((
            file,
            Extent {
                segment: id,
                len: 0,
            },
        ));
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), StorageError> {
        let Some((file, mut extent)) = self.file else {
            return Ok(());
        };
        let mut buffer = std::mem::replace(&mut self.buffer, Buffer::with_capacity(0));
        block::fill_up(&mut buffer, ALIGN, self.epoch);
        let offset = extent.len;
        extent.len += buffer.len() as u64;
        self.report.bytes += buffer.len() as u64;
        self.file = Some((file, extent));
        let name = extent.segment.file_name();
        let (file, mut buffer) = self.write_at(&name, file, offset, buffer)?;
        self.file = Some((file, extent));
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    /// Writes a buffer. The first write of all may find that the file system opens direct and does not write direct: then
    /// the file is opened again, and the next ones are not direct from the start.
    fn write_at(
        &mut self,
        name: &str,
        file: FileId,
        offset: u64,
        buffer: Buffer,
    ) -> Result<(FileId, Buffer), StorageError> {
        let op = |file, buffer| Op::Write {
            file,
            offset,
            buffer,
        };
        let failure = match self.disk.call(op(file, buffer)) {
            Ok(Done::Written { buffer }) => {
                self.untried = false;
                return Ok((file, buffer));
            }
            Ok(_) => unreachable!("a write brings its buffer back"),
            Err(failure) => failure,
        };
        match failure.buffer {
            Some(buffer) if self.direct && self.untried && failure.error.is_not_direct() => {
                self.direct = false;
                self.call(name, Op::Close { file })?;
                let file = self.open(name, Mode::Write)?;
                self.write_at(name, file, offset, buffer)
            }
            _ => Err(StorageError::io("write", name, failure.error)),
        }
    }

    fn end_segment(&mut self) -> Result<(), StorageError> {
        if !self.buffer.is_empty() {
            self.write_chunk()?;
        }
        let Some((file, extent)) = self.file.take() else {
            return Ok(());
        };
        let name = extent.segment.file_name();
        self.call(&name, Op::SyncData { file })?;
        self.call(&name, Op::Close { file })?;
        self.extents.push(extent);
        Ok(())
    }

    fn write_record(&mut self, manifest: &Manifest) -> Result<(), StorageError> {
        let (len, max) = (manifest.encoded_len(), SLOT_MAX as u64);
        if len > max {
            return Err(StorageError::ManifestTooLarge { len, max });
        }
        let mut buffer = Buffer::with_capacity(0);
        manifest.encode(SAVEPOINT, 0, &mut buffer);
        manifest.encode(SAVEPOINT, 0, &mut buffer);
        // The segments' names first: the record must not outlive what it names.
        self.call(FILE, Op::SyncFolder)?;
        let file = self.open(UNFINISHED, Mode::Create)?;
        let (file, _) = self.write_at(UNFINISHED, file, 0, buffer)?;
        self.call(UNFINISHED, Op::SyncData { file })?;
        self.call(UNFINISHED, Op::Close { file })?;
        let op = Op::Rename {
            from: UNFINISHED.to_string(),
            to: FILE.to_string(),
        };
        self.call(FILE, op)?;
        self.call(FILE, Op::SyncFolder)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
