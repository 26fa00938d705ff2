//! A shard's log: frames go in, blocks of them lie in segments, and a sealed epoch is durable.
//!
//! Laws
//! 1. Nothing here waits. `push` copies one frame and submits nothing; `step` submits what is ready; `complete` takes what came
//!    back. Each is a bounded amount of work, whatever the disk does.
//! 2. A page that was handed to the disk is never written again: each write is a whole number of pages, the last
//!    one filled up by a pad block. Only a log's first file may begin with a page of zeros before (`prepare.rs`).
//! 3. A segment is allocated, and its name made durable, before the first byte of it is written; one is prepared while the
//!    one before still has room.
//! 4. `Sealed` is reported after all writes of its epoch completed and then one sync of each file that they touched.
//! 5. Memory is bounded: at most `buffers` chunks, filled, under way or spare.
//! 6. A failed write or sync poisons. A refused allocation does not: nothing was torn, and `retry_space` asks again.

mod config;
mod segments;

pub use config::WriterConfig;

use crate::buffer::{ALIGN, Buffer, round_up};
use crate::disk::{Completion, Disk, Done, FileId, Full, Op, Ticket};
use crate::error::StorageError;
use crate::format::block::{self, BlockHead, Frame};
use crate::format::manifest::Extent;
use crate::format::segment::SegmentHeader;
use crate::id::{Epoch, Lineage, SegmentId};
use crate::poison::Poison;
use crate::prepare::Preparer;
use crate::space::Space;
use segments::Active;
use std::collections::VecDeque;

/// Why a frame was not taken. It is not lost: the caller still has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Buffers are under way, or a segment is being prepared: step, wait for completions, push again.
    Busy,
    /// It will not be taken without something else happening first: see the error.
    Failed(StorageError),
}

/// What an operator should know, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The file system refuses direct files: data goes through the page cache, syncs take longer.
    Buffered {
        /// The first file concerned.
        file: String,
    },
    /// The file system refuses to allocate ahead: a full disk shows at a write, which poisons.
    Sparse {
        /// The first file concerned.
        file: String,
    },
}

/// An epoch of this shard that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which.
    pub epoch: Epoch,
    /// The segments that it wrote to, with their valid lengths at its end. Empty if nothing had been pushed.
    pub extents: Vec<Extent>,
}

/// What a ticket's serial means. Serials are handed out upwards and found again here, so that a stale one is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Write { segment: SegmentId, round: u64 },
    Sync { segment: SegmentId },
    Prepare,
    Close,
}

#[derive(Debug)]
struct Sealing {
    epoch: Epoch,
    extents: Vec<Extent>,
    /// Files still to be synced, filled when the writes are done.
    to_sync: Option<Vec<SegmentId>>,
    syncing: u32,
}

/// A block that is being filled at the end of the chunk.
#[derive(Debug, Clone, Copy)]
struct OpenBlock {
    head: BlockHead,
    start: usize,
    /// Of its frames. The buffer may be longer: that is room for more.
    end: usize,
    frames: u32,
}

/// A buffer that is being filled. It is longer than what is in it, by what it held before: clearing it would cost as much as filling it.
#[derive(Debug)]
struct Chunk {
    buffer: Buffer,
    /// Of what is whole in it, the open block apart.
    end: usize,
    segment: SegmentId,
    file: FileId,
    offset: u64,
    /// Up to where it may be filled, a multiple of [`ALIGN`].
    limit: usize,
    block: Option<OpenBlock>,
}

impl Chunk {
    /// Whether there is nothing in it, but for the header of its segment.
    fn is_empty(&self) -> bool {
        let header = if self.offset == 0 { ALIGN } else { 0 };
        self.end == header
    }
}

/// Room for frames at the end of a block.
#[derive(Debug)]
pub struct Room<'a> {
    bytes: &'a mut [u8],
    end: &'a mut usize,
    frames: &'a mut u32,
}

impl<'a> Room<'a> {
    /// These bytes. `end` is moved on by what is taken of them, and frames are counted.
    #[inline(always)]
    pub fn new(bytes: &'a mut [u8], end: &'a mut usize, frames: &'a mut u32) -> Self {
        Room { bytes, end, frames }
    }

    /// The bytes: frames are written to their beginning, over whatever they were.
    #[inline(always)]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// So many whole frames have been written, that are so many bytes in all. A room that is dropped instead was not taken.
    #[inline(always)]
    pub fn took(self, bytes: usize, frames: u32) {
        assert!(bytes <= self.bytes.len(), "a frame outside its room");
        *self.end += bytes;
        *self.frames += frames;
    }
}

/// See the laws on top of this file.
#[derive(Debug)]
pub struct SegmentWriter {
    config: WriterConfig,
    lineage: Lineage,
    poison: Poison,
    /// Written segments that are still open, in log order; pushes go to the last.
    segments: VecDeque<Active>,
    spare: Preparer,
    /// An entry waits for it that is longer than what is left of the last segment.
    is_short: bool,
    next_id: SegmentId,
    chunk: Option<Chunk>,
    free: Vec<Buffer>,
    /// Chunks in existence, at most `config.buffers`.
    buffers: usize,
    outbox: VecDeque<(Op, Ticket)>,
    purposes: VecDeque<(u64, Purpose)>,
    next_serial: u64,
    /// Seals begun so far. Writes carry it, so that a seal waits for its own and not for those of the next epoch.
    round: u64,
    writes_before: u32,
    writes_now: u32,
    sealing: Option<Sealing>,
    sealed: Option<Sealed>,
    last_epoch: Epoch,
    failure: Option<StorageError>,
    written: u64,
}

impl SegmentWriter {
    /// A writer of one shard of an opened store. `attempt` must be greater than that of all segments in the folder.
    pub(crate) fn new(
        config: WriterConfig,
        lineage: Lineage,
        attempt: u32,
        shard: u32,
        poison: Poison,
    ) -> Self {
        config.check();
        let spare = Preparer::new(config.segment_bytes, config.reserve_bytes, config.direct);
        SegmentWriter {
            config,
            lineage,
            poison,
            segments: VecDeque::new(),
            spare,
            is_short: false,
            next_id: SegmentId {
                attempt,
                number: 0,
                shard,
            },
            chunk: None,
            free: Vec::new(),
            buffers: 0,
            outbox: VecDeque::new(),
            purposes: VecDeque::new(),
            next_serial: 0,
            round: 0,
            writes_before: 0,
            writes_now: 0,
            sealing: None,
            sealed: None,
            last_epoch: Epoch(0),
            failure: None,
            written: 0,
        }
    }

    /// The owner that this writer's tickets carry.
    pub fn owner(&self) -> u32 {
        self.config.owner
    }

    /// Adds a frame to the log. Frames of the same head that follow one another share a block. Epochs must not fall, and must
    /// lie above the last sealed one.
    ///
    /// # Errors
    /// The frame was not taken; see [`Refused`].
    pub fn push(&mut self, head: BlockHead, frame: Frame<'_>) -> Result<(), Refused> {
        debug_assert!(
            frame.epoch <= head.epoch,
            "an entry changed after its block"
        );
        let mut room = self.room(&head, frame.encoded_len())?;
        let mut to = Space::new(room.bytes());
        frame.encode(&mut to);
        let used = to.used();
        room.took(used, 1);
        Ok(())
    }

    /// Room at the end of the log for a frame of `len` bytes, in a block of this head: frames may be put together there, and
    /// need not be.
    ///
    /// # Errors
    /// There is none; see [`Refused`].
    #[inline]
    pub fn room(&mut self, head: &BlockHead, len: u64) -> Result<Room<'_>, Refused> {
        self.poison.check().map_err(Refused::Failed)?;
        if len > self.config.frame_bytes_max {
            return Err(Refused::Failed(StorageError::TooLarge {
                len,
                max: self.config.frame_bytes_max,
            }));
        }
        let len = len as usize;
        if !self.fits_open_block(head, len) {
            self.close_block();
            self.open_block(*head, len)?;
        }
        let chunk = self.chunk.as_mut().expect("a block is open");
        let open = chunk.block.as_mut().expect("a block is open");
        // A frame longer than a block is alone in one.
        let whole = self.config.block_bytes / block::ALIGN_BLOCK * block::ALIGN_BLOCK;
        let end = (open.start + whole).max(open.end + len).min(chunk.limit);
        if chunk.buffer.len() < end {
            chunk.buffer.resize(end);
        }
        let bytes = &mut chunk.buffer[open.end..end];
        Ok(Room::new(bytes, &mut open.end, &mut open.frames))
    }

    #[inline]
    fn fits_open_block(&self, head: &BlockHead, len: usize) -> bool {
        let Some(chunk) = &self.chunk else {
            return false;
        };
        let Some(open) = &chunk.block else {
            return false;
        };
        let end = round_up((open.end + len) as u64, block::ALIGN_BLOCK as u64) as usize;
        open.head == *head && end <= chunk.limit && end - open.start <= self.config.block_bytes
    }

    fn close_block(&mut self) {
        if let Some(chunk) = &mut self.chunk
            && let Some(open) = chunk.block.take()
        {
            // There may have been room that nobody took.
            if open.frames > 0 {
                chunk.end = round_up(open.end as u64, block::ALIGN_BLOCK as u64) as usize;
                if chunk.buffer.len() < chunk.end {
                    chunk.buffer.resize(chunk.end);
                }
                chunk.buffer[open.end..chunk.end].fill(0);
                let block = &mut chunk.buffer[open.start..chunk.end];
                block::seal(block, open.head, open.frames, block::KIND_FRAMES);
            }
        }
    }

    /// Opens a block with room for a frame of `len` bytes, in a new chunk or segment if need be.
    fn open_block(&mut self, head: BlockHead, len: usize) -> Result<(), Refused> {
        assert!(
            head.epoch > self.last_epoch,
            "epoch {} after {} was sealed",
            head.epoch,
            self.last_epoch
        );
        let needed = round_up((block::HEADER + len) as u64, block::ALIGN_BLOCK as u64) as usize;
        let full = |c: &Chunk| c.end + needed > c.limit;
        if self.chunk.as_ref().is_some_and(full) {
            match self.chunk.take_if(|c| c.is_empty()) {
                // Room was asked for and was too small. Written, it would keep a buffer from who then asks for more, and that
                // again and again, if the disk hands back one at a time.
                Some(unused) => self.give_back(unused.buffer),
                None => self.finish_chunk(head.epoch),
            }
        }
        if self.chunk.is_none() {
            self.begin_chunk(head.epoch, needed)?;
        }
        let chunk = self.chunk.as_mut().expect("just made");
        let start = chunk.end;
        chunk.block = Some(OpenBlock {
            head,
            start,
            end: start + block::HEADER,
            frames: 0,
        });
        Ok(())
    }

    /// Fills the chunk up to a page and puts its write into the outbox.
    fn finish_chunk(&mut self, epoch: Epoch) {
        self.close_block();
        let Some(mut chunk) = self.chunk.take() else {
            return;
        };
        let end = round_up(chunk.end as u64, ALIGN as u64) as usize;
        chunk.buffer.resize(end);
        if chunk.end < end {
            block::pad(&mut chunk.buffer[chunk.end..], epoch);
        }
        let segment = self.segments.back_mut().expect("a chunk lies in one");
        debug_assert_eq!(
            (segment.id, segment.end),
            (chunk.segment, chunk.offset),
            "chunks follow one another"
        );
        segment.end += chunk.buffer.len() as u64;
        segment.dirty = true;
        self.written += chunk.buffer.len() as u64;
        self.writes_now += 1;
        let purpose = Purpose::Write {
            segment: chunk.segment,
            round: self.round,
        };
        let op = Op::Write {
            file: chunk.file,
            offset: chunk.offset,
            buffer: chunk.buffer,
        };
        self.send(op, purpose);
    }

    fn begin_chunk(&mut self, epoch: Epoch, needed: usize) -> Result<(), Refused> {
        let page = |n: usize| round_up(n as u64, ALIGN as u64);
        let room = |s: &Active| self.config.segment_bytes - s.end >= page(needed);
        let rolls = !self.segments.back().is_some_and(room);
        if self.free.is_empty() && self.buffers == self.config.buffers {
            return Err(Refused::Busy);
        }
        if rolls {
            self.roll()?;
        }
        let segment = self.segments.back().expect("just rolled");
        let header = if segment.end == 0 { ALIGN } else { 0 };
        let wanted = page(needed + header).max(self.config.chunk_bytes as u64);
        let limit = wanted.min(self.config.segment_bytes - segment.end) as usize;
        let mut buffer = self.free.pop().unwrap_or_else(|| {
            self.buffers += 1;
            Buffer::with_capacity(self.config.chunk_bytes)
        });
        let mut end = 0;
        if segment.end == 0 {
            buffer.clear();
            let header = SegmentHeader {
                lineage: self.lineage,
                id: segment.id,
                first_epoch: epoch,
            };
            header.encode(&mut buffer);
            end = buffer.len();
        }
        self.chunk = Some(Chunk {
            buffer,
            end,
            segment: segment.id,
            file: segment.file,
            offset: segment.end,
            limit,
            block: None,
        });
        Ok(())
    }

    /// Ends an epoch: what was pushed so far goes down and is synced. Frames of later epochs may be pushed meanwhile.
    /// [`take_sealed`](Self::take_sealed) says when it is durable; only then may the next be sealed.
    ///
    /// # Errors
    /// The store is poisoned.
    pub fn seal(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        self.poison.check()?;
        assert!(
            self.sealing.is_none() && self.sealed.is_none(),
            "one epoch is sealed at a time"
        );
        assert!(epoch > self.last_epoch, "epochs are not reused");
        self.finish_chunk(epoch);
        self.last_epoch = epoch;
        self.round += 1;
        self.writes_before = std::mem::take(&mut self.writes_now);
        let touched = self.segments.iter_mut().filter(|s| s.dirty);
        let extents = touched.map(|s| {
            s.dirty = false;
            s.unsynced = true;
            Extent {
                segment: s.id,
                len: s.end,
            }
        });
        self.sealing = Some(Sealing {
            epoch,
            extents: extents.collect(),
            to_sync: None,
            syncing: 0,
        });
        self.advance_seal();
        Ok(())
    }

    /// Moves a seal on as far as completions allow.
    fn advance_seal(&mut self) {
        let Some(sealing) = &mut self.sealing else {
            return;
        };
        if self.writes_before > 0 {
            return;
        }
        if sealing.to_sync.is_none() {
            let all: Vec<SegmentId> = sealing.extents.iter().map(|e| e.segment).collect();
            sealing.syncing = all.len() as u32;
            sealing.to_sync = Some(all.clone());
            for id in all {
                let segment = self.segments.iter().find(|s| s.id == id);
                let file = segment.expect("unsynced segments stay open").file;
                self.send(Op::SyncData { file }, Purpose::Sync { segment: id });
            }
        }
        let sealing = self.sealing.as_ref().expect("looked at above");
        if sealing.syncing > 0 {
            return;
        }
        let sealing = self.sealing.take().expect("looked at above");
        self.sealed = Some(Sealed {
            epoch: sealing.epoch,
            extents: sealing.extents,
        });
        self.close_rolled();
    }

    /// Closes segments that are full and synced. The last one stays open.
    fn close_rolled(&mut self) {
        while self.segments.len() > 1 && !self.segments[0].dirty && !self.segments[0].unsynced {
            let segment = self.segments.pop_front().expect("more than one");
            self.send(Op::Close { file: segment.file }, Purpose::Close);
        }
    }

    /// The epoch that has become durable since the last call, if any.
    pub fn take_sealed(&mut self) -> Option<Sealed> {
        self.sealed.take()
    }

    /// Why this writer has failed, if it has. It takes nothing more.
    pub fn failure(&self) -> Option<&StorageError> {
        self.failure.as_ref()
    }

    /// Warnings since the last call; each kind comes once.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        self.spare.take_warnings()
    }

    /// Bytes given to the disk so far, padding included.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// Whether anything is waiting for the disk or under way.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.purposes.is_empty()
    }

    /// Submits what is ready, as far as the disk takes it.
    pub fn step(&mut self, disk: &mut dyn Disk) {
        if self.failure.is_some() {
            return;
        }
        self.prepare_spare();
        while let Some((op, ticket)) = self.outbox.pop_front() {
            if let Err(Full(op)) = disk.submit(op, ticket) {
                self.outbox.push_front((op, ticket));
                return;
            }
        }
    }

    fn send(&mut self, op: Op, purpose: Purpose) {
        let ticket = Ticket {
            owner: self.config.owner,
            serial: self.next_serial,
        };
        self.next_serial += 1;
        self.purposes.push_back((ticket.serial, purpose));
        self.outbox.push_back((op, ticket));
    }

    /// Takes a completion whose ticket has this writer as owner.
    pub fn complete(&mut self, completion: Completion) {
        let serial = completion.ticket.serial;
        let at = self.purposes.iter().position(|(s, _)| *s == serial);
        let Some(at) = at else {
            debug_assert!(false, "completion of an unknown ticket {serial}");
            return;
        };
        let (_, purpose) = self.purposes.remove(at).expect("just found");
        if self.failure.is_some() {
            return; // what was under way no longer matters
        }
        match (purpose, completion.result) {
            (Purpose::Prepare, result) => self.prepared(result),
            (Purpose::Close, _) => {} // a file that cannot be closed holds nothing that is not synced
            (Purpose::Write { round, .. }, Ok(Done::Written { buffer })) => {
                self.give_back(buffer);
                match round == self.round {
                    true => self.writes_now -= 1,
                    false => self.writes_before -= 1,
                }
                self.advance_seal();
            }
            (Purpose::Sync { segment }, Ok(_)) => {
                if let Some(s) = self.segments.iter_mut().find(|s| s.id == segment) {
                    s.unsynced = false;
                }
                self.sealing
                    .as_mut()
                    .expect("syncs belong to a seal")
                    .syncing -= 1;
                self.advance_seal();
            }
            (Purpose::Write { segment, .. }, Err(f)) => {
                self.fail(StorageError::io("write", segment.file_name(), f.error));
            }
            (Purpose::Sync { segment }, Err(f)) => {
                self.fail(StorageError::io("sync", segment.file_name(), f.error));
            }
            (Purpose::Write { .. }, Ok(_)) => unreachable!("a write brings its buffer back"),
        }
    }

    /// Keeps a buffer for the next chunk, unless one large entry made it grow.
    fn give_back(&mut self, buffer: Buffer) {
        match buffer.capacity() <= 2 * self.config.chunk_bytes {
            true => self.free.push(buffer),
            false => self.buffers -= 1,
        }
    }

    fn fail(&mut self, cause: StorageError) {
        self.poison.set(cause.clone());
        self.failure.get_or_insert(cause);
        self.outbox.clear();
        self.chunk = None;
        self.sealing = None;
    }
}

#[cfg(test)]
mod tests;
