//! One partition: the batch that is filled, those that wait, the segments, and what may be said about them.

use super::LogConfig;
use super::keys::Keys;
use crate::buffer::{ALIGN, Buffer, round_up};
use crate::disk::FileId;
use crate::error::StorageError;
use crate::format::log::{BATCH, BatchHead, IndexSegment, LogHeader, Record, finish};
use crate::format::segment;
use crate::id::{Lineage, SegmentId};
use crate::prepare::Preparer;
use std::collections::VecDeque;

/// A segment with records, or about to have some.
#[derive(Debug)]
pub(super) struct Segment {
    /// What is durable of it.
    pub durable: IndexSegment,
    /// While it is written to, or has batches under way.
    pub file: Option<FileId>,
    /// Where the next batch goes; what lies between the durable length and here is under way.
    pub placed: u64,
}

/// A file that is ready for the next segment.
#[derive(Debug)]
pub(super) struct Spare {
    pub id: SegmentId,
    pub file: FileId,
    /// Whether a durable index names it; nothing is written to it before.
    pub named: bool,
}

/// Records that go down together.
#[derive(Debug)]
pub(super) struct Gathered {
    pub buffer: Buffer,
    pub base: u64,
    pub count: u32,
    pub first_time: i64,
    pub last_time: i64,
}

/// A batch with its place on disk.
#[derive(Debug)]
pub(super) struct Placed {
    pub segment: SegmentId,
    pub file: FileId,
    pub offset: u64,
    pub buffer: Buffer,
    /// The first page, if this is the first batch of its segment.
    pub header: Option<Buffer>,
    pub end: u64,
    pub last_time: i64,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub number: u32,
    /// In log order; dense.
    pub segments: VecDeque<Segment>,
    pub spare: Option<Spare>,
    pub preparer: Preparer,
    pub next_id: SegmentId,
    pub open: Option<Gathered>,
    pub ready: VecDeque<Gathered>,
    pub free: Vec<Buffer>,
    /// Batches in existence, at most `config.buffers`.
    pub buffers: usize,
    /// The offset of the next record.
    pub next: u64,
    /// All records before it are durable.
    pub durable: u64,
    /// What readers see; at most `durable`.
    pub visible: u64,
    /// What readers shall see once an index says so; at least `visible`.
    pub committing: u64,
    /// When the last record arrived.
    pub last_time: i64,
    pub keys: Keys,
}

impl Partition {
    pub fn new(number: u32, attempt: u32, config: &LogConfig) -> Self {
        Partition {
            number,
            segments: VecDeque::new(),
            spare: None,
            preparer: Preparer::new(config.segment_bytes, config.reserve_bytes, config.direct),
            next_id: SegmentId {
                attempt,
                number: 0,
                shard: number,
            },
            open: None,
            ready: VecDeque::new(),
            free: Vec::new(),
            buffers: 0,
            next: 0,
            durable: 0,
            visible: 0,
            committing: 0,
            last_time: i64::MIN,
            keys: Keys::default(),
        }
    }

    /// The offset of the first record that is there.
    pub fn start(&self) -> u64 {
        let first = self.segments.front();
        first.map_or(self.visible, |s| s.durable.base)
    }

    pub fn is_waiting(&self) -> bool {
        self.open.is_some() || !self.ready.is_empty()
    }

    /// Adds a record; `None` if there is no buffer for it.
    pub fn push(&mut self, record: Record<'_>, now_us: i64, config: &LogConfig) -> Option<u64> {
        // Time never runs backwards within a partition, so that it can be searched by time.
        let time = now_us.max(self.last_time);
        let len = record.encoded_len() as usize;
        let fits = |g: &Gathered| {
            let after = time.checked_sub(g.first_time);
            let in_reach = after.is_some_and(|a| u32::try_from(a).is_ok());
            in_reach && g.buffer.len() + len <= config.batch_bytes
        };
        if !self.open.as_ref().is_some_and(fits) {
            // A full batch is closed only when the next one can be opened: closing it early would gain nothing.
            let buffer = self.take_buffer(config)?;
            self.close();
            self.open = Some(Gathered {
                buffer,
                base: self.next,
                count: 0,
                first_time: time,
                last_time: time,
            });
        }
        let batch = self.open.as_mut().expect("just opened");
        let after_us = u32::try_from(time - batch.first_time).expect("in reach");
        record.encode(after_us, &mut batch.buffer);
        batch.count += 1;
        batch.last_time = time;
        self.last_time = time;
        self.next += 1;
        Some(self.next - 1)
    }

    fn take_buffer(&mut self, config: &LogConfig) -> Option<Buffer> {
        let mut buffer = match self.free.pop() {
            Some(buffer) => buffer,
            None if self.buffers < config.buffers => {
                self.buffers += 1;
                Buffer::with_capacity(config.batch_bytes)
            }
            None => return None,
        };
        buffer.clear();
        buffer.resize(BATCH);
        Some(buffer)
    }

    /// The batch that is filled waits from now on, and the next record begins another.
    pub fn close(&mut self) {
        self.ready.extend(self.open.take());
    }

    /// Gives the next waiting batch its place. `None` if none waits, or a segment is being prepared for it.
    pub fn place(&mut self, lineage: Lineage, config: &LogConfig) -> Option<Placed> {
        let first = self.ready.front()?;
        let len = round_up(first.buffer.len() as u64, ALIGN as u64);
        let fits = |s: &Segment| s.file.is_some() && s.placed + len <= config.segment_bytes;
        if !self.segments.back().is_some_and(fits) {
            self.roll(first.base)?;
        }
        let mut batch = self.ready.pop_front().expect("looked at above");
        let segment = self.segments.back_mut().expect("just rolled");
        let head = BatchHead {
            partition: self.number,
            base: batch.base,
            count: batch.count,
            first_time: batch.first_time,
            last_time: batch.last_time,
            durable: self.durable,
        };
        finish(&mut batch.buffer, lineage, &head);
        let mut header = None;
        if segment.placed == 0 {
            let mut page = Buffer::with_capacity(ALIGN);
            let (id, base) = (segment.durable.id, batch.base);
            LogHeader { lineage, id, base }.encode(&mut page);
            header = Some(page);
            segment.placed = segment::HEADER as u64;
        }
        let offset = segment.placed;
        segment.placed += len;
        Some(Placed {
            segment: segment.durable.id,
            file: segment.file.expect("it is written to"),
            offset,
            buffer: batch.buffer,
            header,
            end: head.end(),
            last_time: head.last_time,
        })
    }

    /// Makes the spare segment the one to write to, if an index names it.
    fn roll(&mut self, base: u64) -> Option<()> {
        let Spare { id, file, .. } = self.spare.take_if(|s| s.named)?;
        let durable = IndexSegment {
            id,
            open: true,
            base,
            end: base,
            len: 0,
            last_time: self.last_time,
        };
        self.segments.push_back(Segment {
            durable,
            file: Some(file),
            placed: 0,
        });
        Some(())
    }

    /// Whether the next segment should be made ready: three quarters of this one are used, or what waits does not fit.
    pub fn wants_spare(&self, config: &LogConfig) -> bool {
        let active = self.segments.back().filter(|s| s.file.is_some());
        let Some(active) = active else {
            return self.is_waiting();
        };
        let waiting = self.ready.front().map_or(0, |g| g.buffer.len() as u64);
        let needed = round_up(waiting, ALIGN as u64);
        let full = active.placed >= config.segment_bytes / 4 * 3;
        // An index holds one segment at most that is not begun.
        active.durable.len > 0 && (full || active.placed + needed > config.segment_bytes)
    }

    /// Takes the file that is ready, if one is. Returns whether the index should name it.
    ///
    /// # Errors
    /// There is no space for one.
    pub fn take_spare(&mut self) -> Result<bool, StorageError> {
        if self.spare.is_some() {
            return Ok(false);
        }
        let Some(file) = self.preparer.take()? else {
            return Ok(false);
        };
        self.spare = Some(Spare {
            id: self.next_id,
            file,
            named: false,
        });
        self.next_id.number += 1;
        Ok(true)
    }

    /// What an index says of this partition's segments now.
    pub fn index(&self) -> Vec<IndexSegment> {
        let segments = self.segments.iter().map(|s| IndexSegment {
            open: s.file.is_some(),
            ..s.durable
        });
        let spare = self.spare.iter().map(|s| IndexSegment {
            id: s.id,
            open: true,
            // Where its records begin, if no segment is before it: nothing has been placed then.
            base: self.durable,
            end: self.durable,
            len: 0,
            last_time: self.last_time,
        });
        segments.chain(spare).collect()
    }

    /// Notes that a segment is durable up to here.
    pub fn mark(&mut self, segment: SegmentId, len: u64, end: u64, last_time: i64) {
        let mut segments = self.segments.iter_mut().rev();
        let segment = segments.find(|s| s.durable.id == segment);
        let durable = &mut segment.expect("written segments stay").durable;
        (durable.len, durable.end, durable.last_time) = (len, end, last_time);
        self.durable = end;
    }

    /// Files of segments that are full and durable; the caller closes them.
    pub fn sealed(&mut self) -> Option<FileId> {
        let written = self.segments.iter_mut().rev().skip(1);
        let written = written.take_while(|s| s.file.is_some());
        let oldest = written.filter(|s| s.placed == s.durable.len).last();
        oldest.and_then(|s| s.file.take())
    }
}
