//! The ingest log: batches of records in segments, and the index that says which of them count.
//!
//! ```text
//! batch:  crc32c | length | base offset | count | content | first time | last time | durable | partition | 0 | records .. | zeros
//!         0        4        8             16      20        24           32          40        48          52  56
//! record: value length | key length | flags | 0 | time after the first | key .. value ..
//!         0              4            6       7   8                      12
//! ```
//!
//! A batch is a whole number of pages and the checksum covers all of them, so a changed byte is noticed wherever it is. `durable` is
//! what makes rot known from a torn write: records before it were synced when the batch was written, so where a later batch says
//! so, a hole before it is damage.

use super::segment::{PageKind, decode_page, encode_page};
use super::{Cursor, Fault, RISING_MAX, Wrong, check_version, count, rising};
use crate::buffer::{ALIGN, Buffer};
use crate::crc::crc32c_of_both;
use crate::id::{Epoch, Lineage, SegmentId};

/// What a segment of an ingest log begins with.
pub const MAGIC: [u8; 8] = *b"PELTLOG\0";
/// The version of segments and index that is written.
pub const VERSION: u32 = 1;
/// Length of a batch's header in bytes.
pub const BATCH: usize = 56;
/// Length of a record's fixed part in bytes.
pub const RECORD: usize = 12;
/// No batch is longer, header and zeros included.
pub const BATCH_MAX: usize = 16 << 20;
/// No idempotency key is longer.
pub const KEY_MAX: usize = u16::MAX as usize;
/// The flag of a record that has an idempotency key, which may be empty.
pub const HAS_KEY: u8 = 1;
/// The section of the manifest that holds the index.
pub const SECTION: &str = "ingest-log";

const PAGE: PageKind = PageKind {
    magic: MAGIC,
    version: VERSION,
    format: "ingest log",
};

/// The first page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHeader {
    /// Whose.
    pub lineage: Lineage,
    /// Which; the shard is the partition.
    pub id: SegmentId,
    /// The offset of its first record.
    pub base: u64,
}

impl LogHeader {
    /// Appends the page to an empty buffer.
    pub fn encode(&self, to: &mut Buffer) {
        encode_page(PAGE, self.lineage, self.id, self.base, to);
    }

    /// Reads a page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let (lineage, id, base) = decode_page(PAGE, bytes)?;
        Ok(LogHeader { lineage, id, base })
    }
}

/// What a batch says about its records. Times are microseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    /// The partition.
    pub partition: u32,
    /// The offset of the first record.
    pub base: u64,
    /// How many records there are, at least one.
    pub count: u32,
    /// When the first arrived.
    pub first_time: i64,
    /// When the last arrived.
    pub last_time: i64,
    /// All records of the partition before this offset were durable when the batch was written.
    pub durable: u64,
}

impl BatchHead {
    /// The offset after the last record.
    pub fn end(&self) -> u64 {
        self.base + u64::from(self.count)
    }
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// By which a record that is sent again is known.
    pub key: Option<&'a [u8]>,
    /// The caller's bytes.
    pub value: &'a [u8],
}

impl Record<'_> {
    /// How many bytes the record takes in a batch.
    pub fn encoded_len(&self) -> u64 {
        (RECORD + self.key.map_or(0, <[u8]>::len)) as u64 + self.value.len() as u64
    }

    /// Appends the record. The caller has checked its lengths.
    pub(crate) fn encode(&self, after_us: u32, to: &mut Buffer) {
        let key = self.key.unwrap_or_default();
        let mut fixed = [0; RECORD];
        fixed[..4].copy_from_slice(&(self.value.len() as u32).to_le_bytes());
        fixed[4..6].copy_from_slice(&(key.len() as u16).to_le_bytes());
        fixed[6] = if self.key.is_some() { HAS_KEY } else { 0 };
        fixed[8..].copy_from_slice(&after_us.to_le_bytes());
        to.extend(&fixed);
        to.extend(key);
        to.extend(self.value);
    }
}

/// Checksums begin with the lineage: a record whose bytes look like a batch of this log is not taken for one, since who
/// sends records does not know the lineage.
fn checksum(lineage: Lineage, batch: &[u8]) -> u32 {
    crc32c_of_both(&lineage.0, &batch[4..])
}

/// Completes a batch whose records lie after [`BATCH`] bytes of room, up to whole pages.
pub(crate) fn finish(to: &mut Buffer, lineage: Lineage, head: &BatchHead) {
    let content = (to.len() - BATCH) as u32;
    to.pad(ALIGN);
    let length = to.len() as u32;
    to[4..8].copy_from_slice(&length.to_le_bytes());
    to[8..16].copy_from_slice(&head.base.to_le_bytes());
    to[16..20].copy_from_slice(&head.count.to_le_bytes());
    to[20..24].copy_from_slice(&content.to_le_bytes());
    to[24..32].copy_from_slice(&head.first_time.to_le_bytes());
    to[32..40].copy_from_slice(&head.last_time.to_le_bytes());
    to[40..48].copy_from_slice(&head.durable.to_le_bytes());
    to[48..52].copy_from_slice(&head.partition.to_le_bytes());
    let crc = checksum(lineage, to);
    to[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Length and head of a batch as its first bytes say them: checked to be possible, not against the checksum.
///
/// # Errors
/// What is wrong, given `left` bytes from the batch's beginning to where data ends.
pub fn peek(bytes: &[u8], left: u64) -> Result<(usize, BatchHead), Wrong> {
    let mut fields = Cursor::new(bytes);
    let head = decode_head(&mut fields, left);
    head.map_err(|what| Wrong::at(fields.position() as u64, what))
}

fn decode_head(from: &mut Cursor<'_>, left: u64) -> Result<(usize, BatchHead), Fault> {
    from.u32().ok_or(Fault::Short)?;
    let length = from.u32().ok_or(Fault::Short)? as usize;
    let possible = (ALIGN..=BATCH_MAX).contains(&length) && length.is_multiple_of(ALIGN);
    if !possible || length as u64 > left {
        return Err(Fault::Field("batch length"));
    }
    let base = from.u64().ok_or(Fault::Short)?;
    let count = from.u32().ok_or(Fault::Short)?;
    let content = from.u32().ok_or(Fault::Short)? as usize;
    if count == 0 || content > length - BATCH || count as usize > content / RECORD {
        return Err(Fault::Field("count of records"));
    }
    let first_time = from.u64().ok_or(Fault::Short)? as i64;
    let last_time = from.u64().ok_or(Fault::Short)? as i64;
    let durable = from.u64().ok_or(Fault::Short)?;
    let partition = from.u32().ok_or(Fault::Short)?;
    if base > RISING_MAX || durable > base || last_time < first_time {
        return Err(Fault::Field("offsets or times"));
    }
    if from.u32().ok_or(Fault::Short)? != 0 {
        return Err(Fault::Field("reserved bytes"));
    }
    let head = BatchHead {
        partition,
        base,
        count,
        first_time,
        last_time,
        durable,
    };
    Ok((length, head))
}

/// A whole batch whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    /// What it says about its records.
    pub head: BatchHead,
    content: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Checks a batch of a log of `lineage` that is `bytes` long.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8], lineage: Lineage) -> Result<Self, Wrong> {
        let (length, head) = peek(bytes, bytes.len() as u64)?;
        if length != bytes.len() {
            return Err(Wrong::at(4, Fault::Field("batch length")));
        }
        let mut fields = Cursor::new(bytes);
        if fields.u32() != Some(checksum(lineage, bytes)) {
            return Err(Wrong::at(0, Fault::Checksum));
        }
        let mut fields = Cursor::new(&bytes[20..]);
        let content = fields.u32().unwrap_or(0) as usize;
        let (content, zeros) = bytes[BATCH..].split_at(content);
        if zeros.iter().any(|&b| b != 0) {
            let at = (BATCH + content.len()) as u64;
            return Err(Wrong::at(at, Fault::Field("reserved bytes")));
        }
        Ok(Batch { head, content })
    }

    /// The records with offset and arrival time, in the order in which they were appended. After a wrong one there are no more.
    pub fn records(&self) -> Records<'a> {
        Records {
            fields: Cursor::new(self.content),
            head: self.head,
            next: self.head.base,
        }
    }
}

/// A record with its place and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located<'a> {
    /// The record's number in its partition.
    pub offset: u64,
    /// When it arrived, in microseconds since the epoch; within a partition never earlier than the one before.
    pub arrived_us: i64,
    /// The record.
    pub record: Record<'a>,
}

/// Iterates over the records of a batch.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    fields: Cursor<'a>,
    head: BatchHead,
    next: u64,
}

impl<'a> Records<'a> {
    #[inline]
    fn decode(&mut self) -> Result<Located<'a>, Fault> {
        let from = &mut self.fields;
        let fixed: [u8; RECORD] = from.array().ok_or(Fault::Short)?;
        let [v0, v1, v2, v3, k0, k1, flags, zero, a0, a1, a2, a3] = fixed;
        let after = u32::from_le_bytes([a0, a1, a2, a3]);
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        let key = from.take(key_len).ok_or(Fault::Short)?;
        let value = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
        let value = from.take(value).ok_or(Fault::Short)?;
        let key = match flags {
            HAS_KEY => Some(key),
            0 if key.is_empty() => None,
            _ => return Err(Fault::Field("flags of a record")),
        };
        let arrived_us = self.head.first_time.checked_add(i64::from(after));
        let arrived_us = arrived_us.filter(|t| *t <= self.head.last_time);
        if zero != 0 {
            return Err(Fault::Field("reserved byte"));
        }
        Ok(Located {
            offset: self.next,
            arrived_us: arrived_us.ok_or(Fault::Field("time of a record"))?,
            record: Record { key, value },
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Located<'a>, Wrong>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.head.end() {
            return None;
        }
        let at = self.fields.position();
        match self.decode() {
            Ok(record) => {
                self.next += 1;
                Some(Ok(record))
            }
            Err(what) => {
                self.next = self.head.end();
                Some(Err(Wrong::at((BATCH + at) as u64, what)))
            }
        }
    }
}

/// Which records of a log readers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Every durable one: what is ingested.
    Durable,
    /// Those of committed epochs: what a job writes exactly once.
    Committed,
}

/// What the index knows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSegment {
    /// Which; the shard is the partition.
    pub id: SegmentId,
    /// Whether more may have been written to it than the index knows.
    pub open: bool,
    /// The offset of its first record.
    pub base: u64,
    /// The offset after its last durable record.
    pub end: u64,
    /// Durable bytes, a whole number of pages; 0 while it is prepared and not begun.
    pub len: u64,
    /// When its last durable record arrived.
    pub last_time: i64,
}

/// What the index knows of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexPartition {
    /// The offset after the last record that readers see.
    pub visible: u64,
    /// In log order. Offsets are dense: each begins where the one before ends, but for those that are not begun.
    pub segments: Vec<IndexSegment>,
}

/// The section of the manifest that says which records count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Which records readers see.
    pub visibility: Visibility,
    /// The last committed epoch; 0 if there is none.
    pub committed: Epoch,
    /// By number.
    pub partitions: Vec<IndexPartition>,
}

/// Bytes of a segment in the index.
const SEGMENT: usize = 44;

impl Index {
    /// The section's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Vec::new();
        to.extend(VERSION.to_le_bytes());
        to.extend(u32::from(self.visibility == Visibility::Committed).to_le_bytes());
        to.extend(self.committed.0.to_le_bytes());
        to.extend((self.partitions.len() as u32).to_le_bytes());
        for partition in &self.partitions {
            to.extend(partition.visible.to_le_bytes());
            to.extend((partition.segments.len() as u32).to_le_bytes());
            for segment in &partition.segments {
                to.extend(segment.id.attempt.to_le_bytes());
                to.extend(segment.id.number.to_le_bytes());
                to.extend(u32::from(segment.open).to_le_bytes());
                to.extend(segment.base.to_le_bytes());
                to.extend(segment.end.to_le_bytes());
                to.extend(segment.len.to_le_bytes());
                to.extend(segment.last_time.to_le_bytes());
            }
        }
        to
    }

    /// Reads the section.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut fields = Cursor::new(bytes);
        let index = decode_index(&mut fields);
        index.map_err(|what| Wrong::at(fields.position() as u64, what))
    }
}

fn decode_index(from: &mut Cursor<'_>) -> Result<Index, Fault> {
    check_version("ingest log", from.u32().ok_or(Fault::Short)?, VERSION)?;
    let visibility = match from.u32() {
        Some(0) => Visibility::Durable,
        Some(1) => Visibility::Committed,
        _ => return Err(Fault::Field("visibility")),
    };
    let committed = Epoch(rising(from, "committed epoch")?);
    let partitions = count(from, 12)?;
    let mut index = Index {
        visibility,
        committed,
        partitions: Vec::with_capacity(partitions),
    };
    for number in 0..partitions as u32 {
        let partition = decode_partition(from, number)?;
        index.partitions.push(partition);
    }
    match from.left() {
        0 => Ok(index),
        _ => Err(Fault::Field("length of the index")),
    }
}

fn decode_partition(from: &mut Cursor<'_>, number: u32) -> Result<IndexPartition, Fault> {
    let visible = rising(from, "visible end")?;
    let segments = count(from, SEGMENT)?;
    let mut partition = IndexPartition {
        visible,
        segments: Vec::with_capacity(segments),
    };
    for _ in 0..segments {
        let segment = decode_segment(from, number)?;
        let ordered = partition.segments.last().is_none_or(|before| {
            let follows = segment.len == 0 || segment.base == before.end;
            before.id < segment.id && before.len > 0 && follows
        });
        if !ordered {
            return Err(Fault::Field("order of segments"));
        }
        partition.segments.push(segment);
    }
    Ok(partition)
}

fn decode_segment(from: &mut Cursor<'_>, partition: u32) -> Result<IndexSegment, Fault> {
    let id = SegmentId {
        attempt: from.u32().ok_or(Fault::Short)?,
        number: from.u32().ok_or(Fault::Short)?,
        shard: partition,
    };
    let open = match from.u32() {
        Some(flag @ (0 | 1)) => flag == 1,
        _ => return Err(Fault::Field("state of a segment")),
    };
    let segment = IndexSegment {
        id,
        open,
        base: rising(from, "offset")?,
        end: rising(from, "offset")?,
        len: from.u64().ok_or(Fault::Short)?,
        last_time: from.u64().ok_or(Fault::Short)? as i64,
    };
    let whole = segment.len.is_multiple_of(ALIGN as u64) && segment.base <= segment.end;
    let begun = segment.len > 0 || (open && segment.base == segment.end);
    match whole && begun {
        true => Ok(segment),
        false => Err(Fault::Field("extent")),
    }
}
