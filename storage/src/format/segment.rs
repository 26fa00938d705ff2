//! The first page of a segment: who wrote it and which it is.

use super::{Cursor, Fault, Wrong, check_version};
use crate::buffer::{ALIGN, Buffer};
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
        debug_assert!(to.is_empty(), "a segment begins with its header");
        to.extend(&MAGIC);
        to.extend(&VERSION.to_le_bytes());
        to.extend(&(HEADER as u32).to_le_bytes());
        to.extend(&self.lineage.0);
        to.extend(&self.id.attempt.to_le_bytes());
        to.extend(&self.id.number.to_le_bytes());
        to.extend(&self.id.shard.to_le_bytes());
        to.extend(&0u32.to_le_bytes());
        to.extend(&self.first_epoch.0.to_le_bytes());
        debug_assert_eq!(to.len(), FIELDS);
        to.resize(CRC_AT);
        let crc = crc32c::crc32c(to);
        to.extend(&crc.to_le_bytes());
    }

    /// Reads a page.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let page = bytes
            .get(..HEADER)
            .ok_or(Wrong::at(bytes.len() as u64, Fault::Short))?;
        if page[..8] != MAGIC {
            return Err(Wrong::at(0, Fault::NotA("segment")));
        }
        let mut crc = Cursor::new(&page[CRC_AT..]);
        if crc.u32() != Some(crc32c::crc32c(&page[..CRC_AT])) {
            return Err(Wrong::at(0, Fault::Checksum));
        }
        let mut fields = Cursor::new(&page[8..]);
        let header = Self::fields(&mut fields);
        header.map_err(|what| Wrong::at(8 + fields.position() as u64, what))
    }

    fn fields(from: &mut Cursor<'_>) -> Result<Self, Fault> {
        check_version("segment", from.u32().ok_or(Fault::Short)?, VERSION)?;
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
        let first_epoch = Epoch(from.u64().ok_or(Fault::Short)?);
        Ok(SegmentHeader {
            lineage,
            id,
            first_epoch,
        })
    }
}
