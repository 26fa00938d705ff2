//! The first page of a segment: who wrote it and which it is.

use super::{Cursor, Fault, Wrong, check_version};
use crate::buffer::{ALIGN, Buffer};
use crate::crc::crc32c;
use crate::id::{Epoch, Lineage, SegmentId};

/// What a segment begins with.
pub const MAGIC: [u8; 8] = *b"PELTSEG\0";
/// The version that is written.
pub const VERSION: u32 = 1;
/// Length of the header in bytes.
pub const HEADER: usize = ALIGN;
/// Where the checksum of all bytes before it lies.
pub const CRC_AT: usize = HEADER - 4;
/// Bytes of fields; from here to the checksum all is zero.
const FIELDS: usize = 56;

/// What tells the segments of a log of state from those of an ingest log. Their first pages are alike but for this and the meaning
/// of the last field.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageKind {
    pub magic: [u8; 8],
    pub version: u32,
    pub format: &'static str,
}

const SEGMENT: PageKind = PageKind {
    magic: MAGIC,
    version: VERSION,
    format: "segment",
};

/// The first page of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose.
    pub lineage: Lineage,
    /// Which.
    pub id: SegmentId,
    /// The epoch that was being written when the segment began.
    pub first_epoch: Epoch,
}

impl SegmentHeader {
    /// Appends the page to an empty buffer.
    pub fn encode(&self, to: &mut Buffer) {
        encode_page(SEGMENT, self.lineage, self.id, self.first_epoch.0, to);
    }

    /// Reads a page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let (lineage, id, first_epoch) = decode_page(SEGMENT, bytes)?;
        Ok(SegmentHeader {
            lineage,
            id,
            first_epoch: Epoch(first_epoch),
        })
    }
}

pub(super) fn encode_page(
    kind: PageKind,
    lineage: Lineage,
    id: SegmentId,
    first: u64,
    to: &mut Buffer,
) {
    debug_assert!(to.is_empty(), "a segment begins with its header");
    to.extend(&kind.magic);
    to.extend(&kind.version.to_le_bytes());
    to.extend(&(HEADER as u32).to_le_bytes());
    to.extend(&lineage.0);
    to.extend(&id.attempt.to_le_bytes());
    to.extend(&id.number.to_le_bytes());
    to.extend(&id.shard.to_le_bytes());
    to.extend(&0u32.to_le_bytes());
    to.extend(&first.to_le_bytes());
    debug_assert_eq!(to.len(), FIELDS);
    to.resize(CRC_AT);
    let crc = crc32c(to);
    to.extend(&crc.to_le_bytes());
}

pub(super) fn decode_page(
    kind: PageKind,
    bytes: &[u8],
) -> Result<(Lineage, SegmentId, u64), Wrong> {
    let page = bytes
        .get(..HEADER)
        .ok_or(Wrong::at(bytes.len() as u64, Fault::Short))?;
    if page[..8] != kind.magic {
        return Err(Wrong::at(0, Fault::NotA(kind.format)));
    }
    let mut crc = Cursor::new(&page[CRC_AT..]);
    if crc.u32() != Some(crc32c(&page[..CRC_AT])) {
        return Err(Wrong::at(0, Fault::Checksum));
    }
    let mut from = Cursor::new(&page[8..]);
    let fields = decode_fields(kind, &mut from);
    fields.map_err(|what| Wrong::at(8 + from.position() as u64, what))
}

fn decode_fields(
    kind: PageKind,
    from: &mut Cursor<'_>,
) -> Result<(Lineage, SegmentId, u64), Fault> {
    check_version(kind.format, from.u32().ok_or(Fault::Short)?, kind.version)?;
    if from.u32().ok_or(Fault::Short)? != HEADER as u32 {
        return Err(Fault::Field("header length"));
    }
    let lineage = Lineage(from.bytes16().ok_or(Fault::Short)?);
    let id = SegmentId {
        attempt: from.u32().ok_or(Fault::Short)?,
        number: from.u32().ok_or(Fault::Short)?,
        shard: from.u32().ok_or(Fault::Short)?,
    };
    if from.u32().ok_or(Fault::Short)? != 0 {
        return Err(Fault::Field("reserved bytes"));
    }
    Ok((lineage, id, from.u64().ok_or(Fault::Short)?))
}
