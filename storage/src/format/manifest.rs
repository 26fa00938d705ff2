//! A manifest record: everything that a restart must know, as one value and as bytes.
//!
//! ```text
//! file:    header page | the same | slot 0 copy A | slot 0 copy B | slot 1 copy A | ..
//! slot:    magic | version | body length | sequence | crc32c | 0 | body ..
//!          0       8         12            16         24       28  32
//! ```

use super::{Cursor, Fault, RISING_MAX, RISING_MAX_32, Wrong, check_version, count, rising};
use crate::buffer::{ALIGN, Buffer};
use crate::crc::{crc32c, crc32c_of_both};
use crate::id::{Epoch, Lineage, SegmentId};
use std::collections::BTreeMap;

/// What a manifest file begins with.
pub const FILE_MAGIC: [u8; 8] = *b"PELTMAN\0";
/// What each copy of a record begins with.
pub const MAGIC: [u8; 8] = *b"PELTREC\0";
/// The version that is written, of file and record alike.
pub const VERSION: u32 = 1;
/// Length of one copy of the file's header in bytes; there are two.
pub const FILE_HEADER: usize = ALIGN;
/// How many records a file holds; the oldest is overwritten.
pub const SLOTS: u64 = 4;
/// Length of a record's fixed part in bytes.
pub const HEADER: usize = 32;
/// No copy of a record is longer.
pub const SLOT_MAX: usize = 64 << 20;
/// The shortest slot in bytes.
pub const SLOT_MIN: usize = 16 << 10;

/// What tells records of one file from those of another: they share their layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKind {
    /// What each copy begins with.
    pub magic: [u8; 8],
    /// The version that is written.
    pub version: u32,
    /// For messages.
    pub format: &'static str,
}

/// Records of a store's manifest.
pub const MANIFEST: RecordKind = RecordKind {
    magic: MAGIC,
    version: VERSION,
    format: "manifest",
};

/// The one record of a savepoint.
pub const SAVEPOINT: RecordKind = RecordKind {
    magic: *b"PELTSAV\0",
    version: 1,
    format: "savepoint",
};

/// A segment as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Which.
    pub segment: SegmentId,
    /// Its valid length in bytes, a multiple of [`ALIGN`]. Nothing beyond is ever read.
    pub len: u64,
}

/// One checkpoint: the data that it stands on, and whatever the caller wants to find again with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its number.
    pub epoch: Epoch,
    /// Its segments in log order.
    pub segments: Vec<Extent>,
    /// The caller's sections by name: source positions, states, committables, .. Storage does not look inside.
    pub sections: BTreeMap<String, Vec<u8>>,
}

/// What a manifest record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Whose store this is.
    pub lineage: Lineage,
    /// How many times it has been opened.
    pub attempt: u32,
    /// Every epoch from here on is unused, whatever happened since this record was written.
    pub unused_from: Epoch,
    /// The retained checkpoints, oldest first. The last is the one to restart from.
    pub checkpoints: Vec<Checkpoint>,
}

impl Manifest {
    /// Appends one copy of a record, padded to [`ALIGN`].
    pub fn encode(&self, kind: RecordKind, sequence: u64, to: &mut Buffer) {
        let start = to.len();
        to.resize(start + HEADER);
        self.encode_body(to);
        let body = (to.len() - start - HEADER) as u32;
        let record = &mut to[start..];
        record[..8].copy_from_slice(&kind.magic);
        record[8..12].copy_from_slice(&kind.version.to_le_bytes());
        record[12..16].copy_from_slice(&body.to_le_bytes());
        record[16..24].copy_from_slice(&sequence.to_le_bytes());
        let crc = record_crc(record);
        record[24..28].copy_from_slice(&crc.to_le_bytes());
        to.pad(ALIGN);
    }

    fn encode_body(&self, to: &mut Buffer) {
        to.extend(&self.lineage.0);
        to.extend(&self.attempt.to_le_bytes());
        to.extend(&(self.checkpoints.len() as u32).to_le_bytes());
        to.extend(&self.unused_from.0.to_le_bytes());
        for checkpoint in &self.checkpoints {
            to.extend(&checkpoint.epoch.0.to_le_bytes());
            to.extend(&(checkpoint.segments.len() as u32).to_le_bytes());
            to.extend(&(checkpoint.sections.len() as u32).to_le_bytes());
            for extent in &checkpoint.segments {
                to.extend(&extent.segment.attempt.to_le_bytes());
                to.extend(&extent.segment.number.to_le_bytes());
                to.extend(&extent.segment.shard.to_le_bytes());
                to.extend(&0u32.to_le_bytes());
                to.extend(&extent.len.to_le_bytes());
            }
            for (name, bytes) in &checkpoint.sections {
                to.extend(&(name.len() as u32).to_le_bytes());
                to.extend(&(bytes.len() as u32).to_le_bytes());
                to.extend(name.as_bytes());
                to.extend(bytes);
            }
        }
    }

    /// How many bytes one copy of the record takes, padding not included.
    pub fn encoded_len(&self) -> u64 {
        let sections = |c: &Checkpoint| -> u64 {
            let bytes = c.sections.iter().map(|(name, b)| name.len() + b.len() + 8);
            bytes.sum::<usize>() as u64
        };
        let checkpoints = self.checkpoints.iter();
        let checkpoints = checkpoints.map(|c| 16 + 24 * c.segments.len() as u64 + sections(c));
        HEADER as u64 + 32 + checkpoints.sum::<u64>()
    }

    /// Reads one copy of a record from the beginning of `bytes`; what follows the record is not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(kind: RecordKind, bytes: &[u8]) -> Result<(u64, Self), Wrong> {
        if bytes.get(..8) != Some(&kind.magic) {
            return Err(Wrong::at(0, Fault::NotA("whole record")));
        }
        let mut fields = Cursor::new(&bytes[8..]);
        let (version, body) = (fields.u32(), fields.u32());
        let (sequence, crc, zero) = (fields.u64(), fields.u32(), fields.u32());
        let (Some(version), Some(body), Some(sequence), Some(crc), Some(zero)) =
            (version, body, sequence, crc, zero)
        else {
            return Err(Wrong::at(bytes.len() as u64, Fault::Short));
        };
        let end = HEADER.saturating_add(body as usize);
        let record = bytes
            .get(..end)
            .ok_or(Wrong::at(12, Fault::Field("body length")))?;
        if record_crc(record) != crc {
            return Err(Wrong::at(0, Fault::Checksum));
        }
        check_version(kind.format, version, kind.version).map_err(|what| Wrong::at(8, what))?;
        if zero != 0 {
            return Err(Wrong::at(28, Fault::Field("reserved bytes")));
        }
        if sequence > RISING_MAX {
            return Err(Wrong::at(16, Fault::Field("sequence number")));
        }
        let mut body = Cursor::new(&record[HEADER..]);
        let manifest = decode_body(&mut body);
        let at = (HEADER + body.position()) as u64;
        let manifest = manifest.map_err(|what| Wrong::at(at, what))?;
        if body.left() > 0 {
            return Err(Wrong::at(at, Fault::Field("body length")));
        }
        Ok((sequence, manifest))
    }

    /// The checkpoint to restart from.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.checkpoints.last()
    }

    /// Whether any retained checkpoint stands on a segment.
    pub fn names(&self, segment: SegmentId) -> bool {
        let mut extents = self.checkpoints.iter().flat_map(|c| &c.segments);
        extents.any(|e| e.segment == segment)
    }
}

/// The checksum lies inside what it guards: it is taken over the bytes before and the bytes after it.
fn record_crc(record: &[u8]) -> u32 {
    crc32c_of_both(&record[..24], &record[28..])
}

fn decode_body(from: &mut Cursor<'_>) -> Result<Manifest, Fault> {
    let lineage = Lineage(from.bytes16().ok_or(Fault::Short)?);
    let attempt = from.u32().ok_or(Fault::Short)?;
    if attempt > RISING_MAX_32 {
        return Err(Fault::Field("attempt"));
    }
    let checkpoints = count(from, 16)?;
    let unused_from = Epoch(rising(from, "first unused epoch")?);
    let mut manifest = Manifest {
        lineage,
        attempt,
        unused_from,
        checkpoints: Vec::with_capacity(checkpoints),
    };
    for _ in 0..checkpoints {
        let checkpoint = decode_checkpoint(from)?;
        let after = manifest
            .last()
            .is_none_or(|before| before.epoch < checkpoint.epoch);
        if !after || checkpoint.epoch >= unused_from {
            return Err(Fault::Field("order of epochs"));
        }
        manifest.checkpoints.push(checkpoint);
    }
    Ok(manifest)
}

fn decode_checkpoint(from: &mut Cursor<'_>) -> Result<Checkpoint, Fault> {
    let epoch = Epoch(from.u64().ok_or(Fault::Short)?);
    let segments = count(from, 24)?;
    let sections = count(from, 8)?;
    let mut checkpoint = Checkpoint {
        epoch,
        segments: Vec::with_capacity(segments),
        sections: BTreeMap::new(),
    };
    for _ in 0..segments {
        let segment = SegmentId {
            attempt: from.u32().ok_or(Fault::Short)?,
            number: from.u32().ok_or(Fault::Short)?,
            shard: from.u32().ok_or(Fault::Short)?,
        };
        let zero = from.u32().ok_or(Fault::Short)?;
        let len = from.u64().ok_or(Fault::Short)?;
        let before = checkpoint.segments.last();
        let ordered = before.is_none_or(|b: &Extent| b.segment < segment);
        if zero != 0 || !ordered || !len.is_multiple_of(ALIGN as u64) || len == 0 {
            return Err(Fault::Field("extent"));
        }
        checkpoint.segments.push(Extent { segment, len });
    }
    for _ in 0..sections {
        let name = from.u32().ok_or(Fault::Short)? as usize;
        let len = from.u32().ok_or(Fault::Short)? as usize;
        let name = from.take(name).ok_or(Fault::Short)?;
        let name = std::str::from_utf8(name).map_err(|_| Fault::Field("section name"))?;
        let bytes = from.take(len).ok_or(Fault::Short)?;
        let sections = &mut checkpoint.sections;
        let last = sections.last_key_value();
        if last.is_some_and(|(last, _)| last.as_str() >= name) {
            return Err(Fault::Field("order of sections"));
        }
        sections.insert(name.to_string(), bytes.to_vec());
    }
    Ok(checkpoint)
}

/// The header of a manifest file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Room for one copy of a record in bytes, a multiple of [`ALIGN`].
    pub slot: u64,
}

impl FileHeader {
    /// Appends both copies.
    pub fn encode(&self, to: &mut Buffer) {
        for _ in 0..2 {
            let start = to.len();
            to.extend(&FILE_MAGIC);
            to.extend(&VERSION.to_le_bytes());
            to.extend(&(SLOTS as u32).to_le_bytes());
            to.extend(&self.slot.to_le_bytes());
            to.resize(start + FILE_HEADER - 4);
            let crc = crc32c(&to[start..]);
            to.extend(&crc.to_le_bytes());
        }
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let page = bytes
            .get(..FILE_HEADER)
            .ok_or(Wrong::at(bytes.len() as u64, Fault::Short))?;
        if page[..8] != FILE_MAGIC {
            return Err(Wrong::at(0, Fault::NotA("manifest file")));
        }
        let (body, crc) = page.split_at(FILE_HEADER - 4);
        if Cursor::new(crc).u32() != Some(crc32c(body)) {
            return Err(Wrong::at(0, Fault::Checksum));
        }
        let mut fields = Cursor::new(&body[8..]);
        let (version, slots, slot) = (fields.u32(), fields.u32(), fields.u64());
        check_version("manifest", version.unwrap_or(0), VERSION)
            .map_err(|what| Wrong::at(8, what))?;
        let slot = slot.unwrap_or(0);
        let possible = (ALIGN as u64..=SLOT_MAX as u64).contains(&slot);
        if slots != Some(SLOTS as u32) || !possible || !slot.is_multiple_of(ALIGN as u64) {
            return Err(Wrong::at(12, Fault::Field("slots")));
        }
        Ok(FileHeader { slot })
    }

    /// Where a copy of the record with this sequence number lies.
    pub fn offset(&self, sequence: u64, copy: u64) -> u64 {
        2 * FILE_HEADER as u64 + (sequence % SLOTS * 2 + copy) * self.slot
    }

    /// Length of the whole file in bytes.
    pub fn file_len(&self) -> u64 {
        2 * FILE_HEADER as u64 + 2 * SLOTS * self.slot
    }
}

#[cfg(test)]
mod tests;
