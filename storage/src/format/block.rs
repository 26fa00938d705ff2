//! Blocks and frames: the content of a segment.
//!
//! ```text
//! block:  crc32c | length | epoch | state | frames | group | kind | 0 |  frames .. | zeros to 32
//!         0        4        8       16      24       28      30     31   32
//! frame:  epoch | key length | value length | kind | 0 ..  | key .. zeros to 16 | value .. zeros to 16
//!         0       8            12             16     17      24
//! ```
//!
//! A block is a multiple of 32 bytes and begins at one, so what is left of a page holds a block header or nothing: the
//! page is filled up by one block of kind pad. Values begin at multiples of 16, so archives are read where they lie.

use super::{Cursor, Fault, Wrong};
use crate::buffer::{Buffer, round_up};
use crate::id::{Epoch, KeyGroup, StateId};

/// Length of a block's header in bytes.
pub const HEADER: usize = 32;
/// Blocks begin and end at multiples of this.
pub const ALIGN_BLOCK: usize = 32;
/// Length of a frame's fixed part in bytes.
pub const FRAME: usize = 24;
/// Values begin at multiples of this, counted from the file's beginning, and so in memory.
pub const ALIGN_VALUE: usize = 16;
/// No block is longer, header and zeros included.
pub const BLOCK_MAX: usize = 32 << 20;
/// The kind of a block of frames.
pub const KIND_FRAMES: u8 = 1;
/// The kind of a block that only fills a page.
pub const KIND_PAD: u8 = 2;
/// The kind of a frame that sets a value.
pub const FRAME_PUT: u8 = 1;
/// The kind of a frame that says that a key is gone.
pub const FRAME_TOMBSTONE: u8 = 2;

/// Frames up to this length are what most are: a key and a value of a few words.
const SHORT: usize = 128;

/// What all frames of a block share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHead {
    /// The checkpoint that the block was written for.
    pub epoch: Epoch,
    /// The state.
    pub state: StateId,
    /// The share of its keys.
    pub group: KeyGroup,
}

/// One entry of a state: a value, or the news that there is none any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The epoch of the entry's last change; at most the block's.
    pub epoch: Epoch,
    /// The key's bytes.
    pub key: &'a [u8],
    /// The value's bytes; `None` is a tombstone. As read they begin at an address that is a multiple of [`ALIGN_VALUE`].
    pub value: Option<&'a [u8]>,
}

impl Frame<'_> {
    /// How many bytes the frame takes in a block.
    pub fn encoded_len(&self) -> u64 {
        let value = self.value.map_or(0, <[u8]>::len) as u64;
        let head = (FRAME + self.key.len()) as u64;
        round_up(head, ALIGN_VALUE as u64) + round_up(value, ALIGN_VALUE as u64)
    }

    /// Appends the frame. The caller has checked that lengths fit in 32 bits ([`BLOCK_MAX`] is less).
    pub fn encode(&self, to: &mut Buffer) {
        debug_assert!(self.encoded_len() <= BLOCK_MAX as u64);
        let value = self.value.unwrap_or_default();
        let kind = match self.value {
            Some(_) => FRAME_PUT,
            None => FRAME_TOMBSTONE,
        };
        let len = self.encoded_len() as usize;
        if len <= SHORT {
            // Put together where the processor has it at hand, and appended in one piece.
            let mut frame = [0; SHORT];
            self.fill(&mut frame[..len], value, kind);
            return to.extend(&frame[..len]);
        }
        let start = to.len();
        // Grown once, with zeros, so that nothing is left to pad.
        to.resize(start + len);
        self.fill(&mut to[start..], value, kind);
    }

    /// Writes the frame over zeros.
    #[inline(always)]
    fn fill(&self, frame: &mut [u8], value: &[u8], kind: u8) {
        frame[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        frame[8..12].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        frame[12..16].copy_from_slice(&(value.len() as u32).to_le_bytes());
        frame[16] = kind;
        frame[FRAME..][..self.key.len()].copy_from_slice(self.key);
        let value_at = round_up((FRAME + self.key.len()) as u64, ALIGN_VALUE as u64) as usize;
        frame[value_at..][..value.len()].copy_from_slice(value);
    }
}

/// Room for a block's header, to be filled in by [`finish`].
pub(crate) fn begin(to: &mut Buffer) {
    debug_assert!(to.len().is_multiple_of(ALIGN_BLOCK));
    to.resize(to.len() + HEADER);
}

/// Completes the block that begins at `start` and ends where the buffer does.
pub(crate) fn finish(to: &mut Buffer, start: usize, head: BlockHead, frames: u32, kind: u8) {
    to.pad(ALIGN_BLOCK);
    let length = (to.len() - start) as u32;
    let block = &mut to[start..];
    block[4..8].copy_from_slice(&length.to_le_bytes());
    block[8..16].copy_from_slice(&head.epoch.0.to_le_bytes());
    block[16..24].copy_from_slice(&head.state.0.to_le_bytes());
    block[24..28].copy_from_slice(&frames.to_le_bytes());
    block[28..30].copy_from_slice(&head.group.0.to_le_bytes());
    block[30] = kind;
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Fills the buffer up to a multiple of `to` with one block of kind pad, if anything is left to fill.
pub(crate) fn fill_up(buffer: &mut Buffer, to: usize, epoch: Epoch) {
    let start = buffer.len();
    if start.is_multiple_of(to) {
        return;
    }
    begin(buffer);
    buffer.pad(to);
    let head = BlockHead {
        epoch,
        state: StateId(0),
        group: KeyGroup(0),
    };
    finish(buffer, start, head, 0, KIND_PAD);
}

/// The length that a block's header says, checked to be possible but not against the checksum.
///
/// # Errors
/// What is wrong with it, given `left` bytes from the block's beginning to where valid data ends.
pub fn peek_len(header: &[u8], left: u64) -> Result<usize, Wrong> {
    let mut fields = Cursor::new(header);
    let length = fields.u32().and_then(|_crc| fields.u32());
    let length = length.ok_or(Wrong::at(0, Fault::Short))? as usize;
    let possible = (HEADER..=BLOCK_MAX).contains(&length) && length.is_multiple_of(ALIGN_BLOCK);
    if !possible || length as u64 > left {
        return Err(Wrong::at(4, Fault::Field("block length")));
    }
    Ok(length)
}

/// A whole block whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// What its frames share.
    pub head: BlockHead,
    /// How many there are.
    pub frames: u32,
    /// Whether it only fills a page.
    pub is_pad: bool,
    /// The block as it lies on disk.
    pub bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// Checks a block that is `bytes` long. Its frames are decoded as they are asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Wrong> {
        let length = peek_len(bytes, bytes.len() as u64)?;
        if length != bytes.len() {
            return Err(Wrong::at(4, Fault::Field("block length")));
        }
        let mut fields = Cursor::new(bytes);
        if fields.u32() != Some(crc32c::crc32c(&bytes[4..])) {
            return Err(Wrong::at(0, Fault::Checksum));
        }
        let short = Wrong::at(0, Fault::Short);
        let (_, epoch, state) = (fields.u32(), fields.u64(), fields.u64());
        let (frames, group) = (fields.u32(), fields.u16());
        let (kind, reserved) = (fields.u8(), fields.u8());
        let head = BlockHead {
            epoch: Epoch(epoch.ok_or(short.clone())?),
            state: StateId(state.ok_or(short.clone())?),
            group: KeyGroup(group.ok_or(short.clone())?),
        };
        let frames = frames.ok_or(short)?;
        let is_pad = kind == Some(KIND_PAD);
        if !is_pad && kind != Some(KIND_FRAMES) {
            return Err(Wrong::at(30, Fault::Field("kind of block")));
        }
        if reserved != Some(0) {
            return Err(Wrong::at(31, Fault::Field("reserved byte")));
        }
        if is_pad && frames > 0 {
            return Err(Wrong::at(24, Fault::Field("count of frames")));
        }
        Ok(Block {
            head,
            frames,
            is_pad,
            bytes,
        })
    }

    /// The frames in the order in which they were written. After a wrong one there are no more.
    pub fn frames(&self) -> Frames<'a> {
        Frames {
            bytes: self.bytes,
            at: HEADER,
            left: self.frames,
            epoch: self.head.epoch,
        }
    }
}

/// Iterates over the frames of a block. Offsets in errors count from the block's beginning.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    epoch: Epoch,
}

impl<'a> Frames<'a> {
    fn decode(&mut self) -> Result<Frame<'a>, Fault> {
        let rest = self.bytes.get(self.at..).ok_or(Fault::Short)?;
        let mut fields = Cursor::new(rest);
        let epoch = Epoch(fields.u64().ok_or(Fault::Short)?);
        let key_len = fields.u32().ok_or(Fault::Short)? as usize;
        let value_len = fields.u32().ok_or(Fault::Short)? as usize;
        let kind = fields.u8().ok_or(Fault::Short)?;
        if fields.take(FRAME - 17).ok_or(Fault::Short)? != [0; FRAME - 17] {
            return Err(Fault::Field("reserved bytes"));
        }
        if epoch > self.epoch {
            return Err(Fault::Field("epoch of a frame"));
        }
        let key = fields.take(key_len).ok_or(Fault::Short)?;
        skip_zeros(&mut fields)?;
        let value = fields.take(value_len).ok_or(Fault::Short)?;
        skip_zeros(&mut fields)?;
        let value = match kind {
            FRAME_PUT => Some(value),
            FRAME_TOMBSTONE if value.is_empty() => None,
            _ => return Err(Fault::Field("kind of frame")),
        };
        self.at += fields.position();
        Ok(Frame { epoch, key, value })
    }
}

fn skip_zeros(fields: &mut Cursor<'_>) -> Result<(), Fault> {
    let at = fields.position() as u64;
    let zeros = (round_up(at, ALIGN_VALUE as u64) - at) as usize;
    let between = fields.take(zeros).ok_or(Fault::Short)?;
    match between.iter().all(|&b| b == 0) {
        true => Ok(()),
        false => Err(Fault::Field("reserved bytes")),
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at as u64;
        let frame = self.decode().map_err(|what| Wrong::at(at, what));
        if frame.is_err() {
            self.left = 0;
        }
        Some(frame)
    }
}

#[cfg(test)]
mod tests;
