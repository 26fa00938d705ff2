//! Reading a partition: from an offset or a time on, up to what is visible, and on from there when more is.
//!
//! Laws
//! 1. Records come in the order of their offsets, none twice and none left out. Nothing beyond the view's end is handed out.
//! 2. Every checksum is checked before anything is believed. What is wrong is an error with file and offset.
//! 3. Memory is bounded by the source's window and the longest batch.
//!
//! A reader waits for its source: helper threads and tools only. It knows no log, only views of it: who follows the tail asks
//! the log for a new view when [`Log::visible_end`](super::Log::visible_end) has risen.

use super::partition::Partition;
use super::{Log, Position};
use crate::error::StorageError;
use crate::format::log::{BATCH, Batch, BatchHead, IndexSegment, Located, LogHeader, peek};
use crate::format::segment::HEADER;
use crate::format::{Fault, Wrong};
use crate::id::{Epoch, Lineage};
use crate::reader::SegmentBytes;

/// What may be read of a partition. A copy: it does not change, and another thread may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    partition: u32,
    lineage: Lineage,
    start: u64,
    end: u64,
    segments: Vec<IndexSegment>,
}

impl View {
    pub(super) fn of(partition: &Partition, lineage: Lineage) -> Self {
        let end = partition.visible;
        let segments = partition.segments.iter().map(|s| IndexSegment {
            open: s.file.is_some(),
            ..s.durable
        });
        View::new(partition.number, lineage, end, segments)
    }

    /// What lies before `end`, which is the end of a batch.
    pub(super) fn new(
        partition: u32,
        lineage: Lineage,
        end: u64,
        segments: impl Iterator<Item = IndexSegment>,
    ) -> Self {
        let segments: Vec<_> = segments.filter(|s| s.base < end).collect();
        View {
            partition,
            lineage,
            start: segments.first().map_or(end, |s| s.base),
            end,
            segments,
        }
    }

    /// The offset of the first record.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// Where a reader is in a segment.
#[derive(Debug, Clone, Copy)]
struct Current {
    segment: IndexSegment,
    at: u64,
    /// The offset of the record that should be there.
    expected: u64,
}

/// A batch as a reader hands it out.
#[derive(Debug, Clone, Copy)]
pub struct ViewBatch<'a> {
    batch: Batch<'a>,
    from: u64,
}

impl<'a> ViewBatch<'a> {
    /// What the batch says about its records, those before the reader's position included.
    pub fn head(&self) -> BatchHead {
        self.batch.head
    }

    /// The records from the reader's position on. Checked as they come: a wrong one is the writer's mistake, since the checksum holds.
    pub fn records(&self) -> impl Iterator<Item = Result<Located<'a>, Wrong>> + use<'a> {
        let from = self.from;
        let records = self.batch.records();
        records.filter(move |r| r.as_ref().map_or(true, |r| r.offset >= from))
    }
}

/// See the laws on top of this file.
#[derive(Debug)]
pub struct LogReader<S> {
    source: S,
    view: View,
    next: u64,
    current: Option<Current>,
}

impl<S: SegmentBytes> LogReader<S> {
    /// Reads from `offset` on, which may be the end.
    ///
    /// # Errors
    /// [`StorageError::OffsetGone`] if there is no such record.
    pub fn new(source: S, view: View, offset: u64) -> Result<Self, StorageError> {
        let next = view.end;
        let mut reader = LogReader {
            source,
            view,
            next,
            current: None,
        };
        reader.seek(offset)?;
        Ok(reader)
    }

    /// The record to be read next.
    pub fn position(&self) -> Position {
        Position {
            partition: self.view.partition,
            offset: self.next,
        }
    }

    /// Goes to a record, or to the end. The next read walks over the segment up to there.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn seek(&mut self, offset: u64) -> Result<(), StorageError> {
        let View {
            partition,
            start,
            end,
            ..
        } = self.view;
        if !(start..=end).contains(&offset) {
            return Err(StorageError::OffsetGone {
                partition,
                offset,
                start,
                end,
            });
        }
        self.next = offset;
        self.current = None;
        Ok(())
    }

    /// Goes to the first record that arrived at `time_us` or later, or to the end. Walks over one segment at most.
    ///
    /// # Errors
    /// As [`next_batch`](Self::next_batch).
    pub fn seek_time(&mut self, time_us: i64) -> Result<u64, StorageError> {
        let earlier = |s: &IndexSegment| s.last_time < time_us;
        let at = self.view.segments.partition_point(earlier);
        let from = self.view.segments.get(at).map_or(self.view.end, |s| s.base);
        self.seek(from)?;
        loop {
            let (next, current) = (self.next, self.current);
            let found = match self.next_batch()? {
                None => return Ok(self.next),
                Some(batch) if batch.head().last_time < time_us => continue,
                Some(batch) => {
                    let mut records = batch.records().filter_map(Result::ok);
                    let found = records.find(|r| r.arrived_us >= time_us);
                    found.map(|r| r.offset)
                }
            };
            // The batch is handed out again, from that record on.
            self.next = found.unwrap_or(next);
            self.current = current;
            return Ok(self.next);
        }
    }

    /// Replaces the view by a later one of the same partition: what became visible since is read next. A segment may be shorter in
    /// it than before, by records that were never visible: the log was opened again, and they had not been decided on.
    pub fn update(&mut self, view: View) {
        debug_assert_eq!(
            (view.partition, view.lineage),
            (self.view.partition, self.view.lineage)
        );
        debug_assert!(view.end >= self.view.end, "the visible end only rises");
        self.view = view;
        if let Some(current) = &mut self.current {
            let mut segments = self.view.segments.iter();
            let now = segments.find(|s| s.id == current.segment.id);
            if let Some(cut) = now.filter(|s| s.len < current.segment.len) {
                current.segment = *cut;
            }
        }
    }

    /// The next batch that has records from the position on; `None` at the end of the view.
    ///
    /// # Errors
    /// What is damaged, missing or cannot be read; [`StorageError::OffsetGone`] if retention has passed a reader without a pin.
    pub fn next_batch(&mut self) -> Result<Option<ViewBatch<'_>>, StorageError> {
        let (segment, at, len) = loop {
            if self.next >= self.view.end {
                return Ok(None);
            }
            let current = match self.current {
                Some(current) => current,
                None => self.open()?,
            };
            if current.at == current.segment.len {
                self.current = self.grown(current)?;
                continue;
            }
            let (len, end) = self.check(&current)?;
            self.current = Some(Current {
                at: current.at + len as u64,
                expected: end,
                ..current
            });
            if end > self.next {
                break (current.segment, current.at, len);
            }
        };
        let lineage = self.view.lineage;
        let bytes = self.source.bytes(at, len)?;
        let batch = Batch::decode(bytes, lineage).map_err(|w| damaged(&segment, at, w))?;
        let from = std::mem::replace(&mut self.next, batch.head.end());
        Ok(Some(ViewBatch { batch, from }))
    }

    /// Opens the segment that holds the next record.
    fn open(&mut self) -> Result<Current, StorageError> {
        let after = self.view.segments.partition_point(|s| s.base <= self.next);
        let gone = StorageError::OffsetGone {
            partition: self.view.partition,
            offset: self.next,
            start: self.view.start,
            end: self.view.end,
        };
        let segment = after.checked_sub(1).map(|at| self.view.segments[at]);
        let segment = segment.ok_or(gone)?;
        self.open_file(&segment)?;
        let page = self.source.bytes(0, HEADER)?;
        let header = LogHeader::decode(page).map_err(|w| damaged(&segment, 0, w))?;
        let (id, base) = (segment.id, segment.base);
        if header
            != (LogHeader {
                lineage: self.view.lineage,
                id,
                base,
            })
        {
            let another = Fault::Field("owner: it belongs to another place or log");
            return Err(damaged(&segment, 0, Wrong::at(0, another)));
        }
        let current = Current {
            segment,
            at: HEADER as u64,
            expected: base,
        };
        self.current = Some(current);
        Ok(current)
    }

    fn open_file(&mut self, segment: &IndexSegment) -> Result<(), StorageError> {
        let file = segment.id.log_file_name();
        // Behind the visible end a log that is opened again may cut a sealed segment too.
        let may_be_cut = segment.end > self.view.end;
        let found = match segment.open || may_be_cut {
            true => self.source.open_growing(&file, segment.len)?,
            false => self.source.open(&file, segment.len)?,
        };
        match found < segment.len {
            true => Err(StorageError::Missing {
                file,
                epoch: Epoch(0),
                needed: segment.len,
                found,
            }),
            false => Ok(()),
        }
    }

    /// A segment that has been read to where it ended: it may go on, in a later view.
    fn grown(&mut self, current: Current) -> Result<Option<Current>, StorageError> {
        let mut segments = self.view.segments.iter();
        let now = segments.find(|s| s.id == current.segment.id).copied();
        let Some(segment) = now.filter(|s| s.len > current.segment.len) else {
            return Ok(None);
        };
        self.open_file(&segment)?;
        Ok(Some(Current { segment, ..current }))
    }

    /// Length and end of the batch at `current`, if it is the one that should be there.
    fn check(&mut self, current: &Current) -> Result<(usize, u64), StorageError> {
        let wrong = |w| damaged(&current.segment, current.at, w);
        let left = current.segment.len - current.at;
        let head = self.source.bytes(current.at, BATCH)?;
        let (len, head) = peek(head, left).map_err(wrong)?;
        if head.base != current.expected || head.partition != self.view.partition {
            let another = Fault::Field("place: it is not the batch that belongs here");
            return Err(wrong(Wrong::at(8, another)));
        }
        Ok((len, head.end()))
    }

    /// The error for a record of a batch that this reader handed out.
    pub fn wrong_record(&self, wrong: Wrong) -> StorageError {
        let segment = self.current.map(|c| c.segment.id.log_file_name());
        StorageError::wrong(&segment.unwrap_or_default(), 0, Epoch(0), wrong)
    }
}

fn damaged(segment: &IndexSegment, at: u64, wrong: Wrong) -> StorageError {
    StorageError::wrong(&segment.id.log_file_name(), at, Epoch(0), wrong)
}

impl Log {
    /// A reader of what is visible now, from `position` on.
    ///
    /// # Errors
    /// As [`LogReader::new`].
    pub fn reader<S: SegmentBytes>(
        &self,
        source: S,
        position: Position,
    ) -> Result<LogReader<S>, StorageError> {
        LogReader::new(source, self.view(position.partition), position.offset)
    }
}
