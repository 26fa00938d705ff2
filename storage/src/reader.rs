//! Reading back what a checkpoint stands on.
//!
//! Laws
//! 1. Blocks come in log order: of two frames of one key the later one counts.
//! 2. Nothing beyond a segment's valid length is read, whatever lies there.
//! 3. Every block's checksum is checked before anything in it is believed, those that the filter skips included. What is wrong
//!    is an error with file, offset and checkpoint, never a panic and never a wrong frame.
//! 4. Memory is bounded by the window and the longest block.
//!
//! A reader waits for its disk: helper threads and tools only.

use crate::buffer::{ALIGN, Buffer, round_up};
use crate::disk::{BlockingDisk, Done, FileId, Mode, Op};
use crate::error::StorageError;
use crate::format::block::{self, Block, BlockHead};
use crate::format::manifest::{Checkpoint, Extent};
use crate::format::segment::{self, SegmentHeader};
use crate::format::{Fault, Wrong};
use crate::id::{Epoch, KeyGroup, Lineage, StateId};
use std::io::ErrorKind;
use std::ops::RangeInclusive;

/// Where a reader's bytes come from: mapped or read.
pub trait SegmentBytes {
    /// Turns to a segment of which the first `valid` bytes will be asked for. Returns the file's length, 0 if it is gone; a file
    /// shorter than `valid` need not be opened.
    ///
    /// # Errors
    /// The file cannot be opened.
    fn open(&mut self, name: &str, valid: u64) -> Result<u64, StorageError>;

    /// The same for a segment that its writer still appends to, or of which it may yet cut off what lies behind `valid`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_growing(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.open(name, valid)
    }

    /// `len` bytes from `offset`, at an address that is as aligned as the offset is, up to a page.
    ///
    /// # Errors
    /// They cannot be had.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], StorageError>;
}

/// How much a plain reader reads at a time, in bytes.
const WINDOW: u64 = 1 << 20;

/// Reads segments through a disk, a window at a time. The disk may be lent: `PlainBytes<&mut StdDisk>`.
#[derive(Debug)]
pub struct PlainBytes<D: BlockingDisk> {
    disk: D,
    name: String,
    file: Option<FileId>,
    /// Nothing beyond is asked for, so nothing beyond is read ahead.
    valid: u64,
    window: Buffer,
    /// The file's bytes that are in the window.
    from: u64,
    filled: usize,
}

impl<D: BlockingDisk> PlainBytes<D> {
    /// Reads through `disk`, on which nothing else is under way.
    pub fn new(disk: D) -> Self {
        PlainBytes {
            disk,
            name: String::new(),
            file: None,
            valid: 0,
            window: Buffer::with_capacity(0),
            from: 0,
            filled: 0,
        }
    }

    fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // A file that was only read has nothing to lose.
            let _ = self.disk.call(Op::Close { file });
        }
    }

    fn fill(&mut self, offset: u64, len: usize) -> Result<(), StorageError> {
        let name = || self.name.clone();
        let Some(file) = self.file else {
            return Err(StorageError::io("read", name(), ErrorKind::NotFound.into()));
        };
        self.from = offset / ALIGN as u64 * ALIGN as u64;
        self.filled = 0;
        let needed = round_up(offset - self.from + len as u64, ALIGN as u64);
        let mut buffer = std::mem::replace(&mut self.window, Buffer::with_capacity(0));
        let left = round_up(self.valid.saturating_sub(self.from), ALIGN as u64);
        buffer.resize(needed.max(left.min(WINDOW)) as usize);
        let op = Op::Read {
            file,
            offset: self.from,
            buffer,
        };
        match self.disk.call(op) {
            Ok(Done::Filled { buffer, filled }) => {
                self.window = buffer;
                self.filled = filled;
                Ok(())
            }
            Ok(_) => unreachable!("a read fills"),
            Err(f) => Err(StorageError::io("read", name(), f.error)),
        }
    }
}

impl<D: BlockingDisk> SegmentBytes for PlainBytes<D> {
    fn open(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.close();
        self.valid = valid;
        self.name = name.to_string();
        self.filled = 0;
        let op = Op::Open {
            name: name.to_string(),
            mode: Mode::Read,
            direct: false,
        };
        match self.disk.call(op) {
            Ok(Done::Opened { file, len, .. }) => {
                self.file = Some(file);
                Ok(len)
            }
            Ok(_) => unreachable!("an open opens"),
            Err(f) if f.error.kind == ErrorKind::NotFound => Ok(0),
            Err(f) => Err(StorageError::io("open", name, f.error)),
        }
    }

    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        let have = self.from..self.from + self.filled as u64;
        if offset < have.start || offset + len as u64 > have.end {
            self.fill(offset, len)?;
        }
        let at = (offset - self.from) as usize;
        let filled = &self.window[..self.filled];
        filled.get(at..at + len).ok_or_else(|| {
            StorageError::io("read", self.name.clone(), ErrorKind::UnexpectedEof.into())
        })
    }
}

impl<D: BlockingDisk> Drop for PlainBytes<D> {
    fn drop(&mut self) {
        self.close();
    }
}

/// Which blocks a reader hands out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only this state.
    pub state: Option<StateId>,
    /// Only these key groups.
    pub groups: Option<RangeInclusive<u16>>,
}

impl Filter {
    /// Whether a block passes.
    pub fn takes(&self, head: &BlockHead) -> bool {
        let KeyGroup(group) = head.group;
        self.state.is_none_or(|s| s == head.state)
            && self.groups.as_ref().is_none_or(|g| g.contains(&group))
    }
}

/// What a walk over a whole checkpoint found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Blocks with frames.
    pub blocks: u64,
    /// Frames that set a value.
    pub puts: u64,
    /// Frames that say that a key is gone.
    pub tombstones: u64,
    /// Length of those blocks in bytes.
    pub bytes: u64,
}

/// A block that was found, without its bytes.
#[derive(Debug, Clone, Copy)]
struct Found {
    head: BlockHead,
    frames: u32,
    offset: u64,
    len: usize,
}

/// Hands out the blocks of one checkpoint. See the laws on top of this file.
#[derive(Debug)]
pub struct SnapshotReader<S> {
    source: S,
    lineage: Lineage,
    epoch: Epoch,
    extents: Vec<Extent>,
    /// The segment being read; its extent, name, and where the next block begins.
    current: Option<(Extent, String, u64)>,
    next: usize,
    /// Where the block begins that was handed out last.
    last: u64,
    filter: Filter,
}

impl<S: SegmentBytes> SnapshotReader<S> {
    /// Reads `checkpoint` of a store or savepoint of `lineage`.
    pub fn new(source: S, lineage: Lineage, checkpoint: &Checkpoint, filter: Filter) -> Self {
        SnapshotReader {
            source,
            lineage,
            epoch: checkpoint.epoch,
            extents: checkpoint.segments.clone(),
            current: None,
            next: 0,
            last: 0,
            filter,
        }
    }

    /// Reads one segment of the checkpoint only, for instance the oldest, whose live entries are to be written again.
    #[must_use]
    pub fn only(mut self, segment: crate::SegmentId) -> Self {
        self.extents.retain(|e| e.segment == segment);
        self
    }

    /// The next block that passes the filter.
    ///
    /// # Errors
    /// What is damaged, missing or cannot be read. The reader is of no use after that.
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>, StorageError> {
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(found) = self.advance()? else {
                continue;
            };
            self.last = found.offset;
            return Ok(Some(Block {
                head: found.head,
                frames: found.frames,
                is_pad: false,
                bytes: self.source.bytes(found.offset, found.len)?,
            }));
        }
    }

    /// Where the block that was handed out last begins: its file, and the offset in bytes.
    pub fn place(&self) -> (&str, u64) {
        let name = self.current.as_ref().map_or("", |(_, name, _)| name);
        (name, self.last)
    }

    /// The error for a frame of the block that was handed out last.
    pub fn wrong_frame(&self, wrong: Wrong) -> StorageError {
        let (name, at) = self.place();
        StorageError::wrong(name, at, self.epoch, wrong)
    }

    fn open_next(&mut self) -> Result<bool, StorageError> {
        let Some(&extent) = self.extents.get(self.next) else {
            return Ok(false);
        };
        self.next += 1;
        let name = extent.segment.file_name();
        let found = self.source.open(&name, extent.len)?;
        if found < extent.len {
            return Err(StorageError::Missing {
                file: name,
                epoch: self.epoch,
                needed: extent.len,
                found,
            });
        }
        let page = self.source.bytes(0, segment::HEADER)?;
        let wrong = |wrong| StorageError::wrong(&name, 0, self.epoch, wrong);
        let header = SegmentHeader::decode(page).map_err(wrong)?;
        if header.id != extent.segment || header.lineage != self.lineage {
            let another = Fault::Field("owner: it belongs to another place or store");
            return Err(wrong(Wrong::at(0, another)));
        }
        self.current = Some((extent, name, segment::HEADER as u64));
        Ok(true)
    }

    /// Checks the next block of the current segment; `None` if it is not to be handed out or there is none.
    fn advance(&mut self) -> Result<Option<Found>, StorageError> {
        let Some((extent, name, at)) = &mut self.current else {
            return Ok(None);
        };
        let left = extent.len - *at;
        if left == 0 {
            self.current = None;
            return Ok(None);
        }
        let offset = *at;
        let wrong = |wrong| StorageError::wrong(name, offset, self.epoch, wrong);
        let header = self.source.bytes(offset, block::HEADER)?;
        let len = block::peek_len(header, left).map_err(wrong)?;
        let block = Block::decode(self.source.bytes(offset, len)?).map_err(wrong)?;
        if block.head.epoch > self.epoch {
            let later = Fault::Field("epoch: later than the checkpoint");
            return Err(wrong(Wrong::at(8, later)));
        }
        *at += len as u64;
        let handed_out = !block.is_pad && self.filter.takes(&block.head);
        Ok(handed_out.then_some(Found {
            head: block.head,
            frames: block.frames,
            offset,
            len,
        }))
    }

    /// Walks over all that is left and checks every block and frame.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(mut self) -> Result<Totals, StorageError> {
        let mut totals = Totals::default();
        while let Some(block) = self.next_block()? {
            totals.blocks += 1;
            totals.bytes += block.bytes.len() as u64;
            let mut wrong = None;
            for frame in block.frames() {
                match frame {
                    Ok(frame) if frame.value.is_some() => totals.puts += 1,
                    Ok(_) => totals.tombstones += 1,
                    Err(w) => wrong = Some(w),
                }
            }
            if let Some(wrong) = wrong {
                return Err(self.wrong_frame(wrong));
            }
        }
        Ok(totals)
    }
}
