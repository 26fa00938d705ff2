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
use crate::crc::crc32c;
use crate::id::{Epoch, KeyGroup, StateId};
use crate::space::Space;

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

    /// Writes the frame. The caller has checked that lengths fit in 32 bits ([`BLOCK_MAX`] is less).
    pub fn encode(&self, to: &mut Space<'_>) {
        debug_assert!(self.encoded_len() <= BLOCK_MAX as u64);
        let mut frame = OpenFrame::begin(to, self.epoch);
        to.extend(self.key);
        frame.key_ends(to);
        to.extend(self.value.unwrap_or_default());
        frame.finish(to, self.value.is_some());
    }
}

/// A frame that is being put together where it is to lie: whoever has the key and the value writes them in between, and nothing
/// is copied twice.
///
/// ```
/// use pelton_storage::{Epoch, Frame, OpenFrame, Space};
///
/// let mut bytes = [0; 64];
/// let mut space = Space::new(&mut bytes);
/// let mut frame = OpenFrame::begin(&mut space, Epoch(3));
/// space.extend(b"key");
/// frame.key_ends(&mut space);
/// space.extend(b"value");
/// frame.finish(&mut space, true);
///
/// let mut same = [0; 64];
/// Frame { epoch: Epoch(3), key: b"key", value: Some(b"value") }.encode(&mut Space::new(&mut same));
/// assert_eq!(bytes, same);
/// ```
#[derive(Debug)]
pub struct OpenFrame {
    start: usize,
    key: u32,
    value_at: usize,
}

impl OpenFrame {
    /// Begins a frame at the end of `to`, which is a multiple of [`ALIGN_VALUE`]: the key comes next.
    #[inline(always)]
    pub fn begin(to: &mut Space<'_>, epoch: Epoch) -> Self {
        let start = to.used();
        debug_assert!(start.is_multiple_of(ALIGN_VALUE));
        let mut head = [0; FRAME];
        head[..8].copy_from_slice(&epoch.0.to_le_bytes());
        to.extend(&head);
        OpenFrame {
            start,
            key: 0,
            value_at: 0,
        }
    }

    /// The key is there: the value comes next, if there is one.
    #[inline(always)]
    pub fn key_ends(&mut self, to: &mut Space<'_>) {
        self.key = (to.used() - self.start - FRAME) as u32;
        to.pad_value();
        self.value_at = to.used();
    }

    /// The value is there, or there is none: a tombstone.
    #[inline(always)]
    pub fn finish(self, to: &mut Space<'_>, has_value: bool) {
        let value = (to.used() - self.value_at) as u32;
        to.pad_value();
        let kind = match has_value {
            true => FRAME_PUT,
            false => FRAME_TOMBSTONE,
        };
        let lengths = u64::from(self.key) | u64::from(value) << 32;
        to.replace(self.start + 8, &lengths.to_le_bytes());
        to.replace(self.start + 16, &[kind]);
    }
}

/// The length of the frame that these bytes begin with, which [`OpenFrame`] put together.
#[inline]
pub fn frame_len(bytes: &[u8]) -> usize {
    let word = |at: usize| {
        let word = bytes[at..at + 4].try_into().unwrap_or_default();
        u64::from(u32::from_le_bytes(word))
    };
    let align = ALIGN_VALUE as u64;
    (round_up(FRAME as u64 + word(8), align) + round_up(word(12), align)) as usize
}

/// Says the epoch of the frame that these bytes begin with.
#[inline]
pub fn set_epoch(bytes: &mut [u8], epoch: Epoch) {
    bytes[..8].copy_from_slice(&epoch.0.to_le_bytes());
}

/// Appends a frame.
#[cfg(test)]
pub(crate) fn append(to: &mut Buffer, frame: &Frame<'_>) {
    let start = to.len();
    to.resize(start + frame.encoded_len() as usize);
    let mut space = Space::new(&mut to[start..]);
    frame.encode(&mut space);
    assert!(space.fits() && space.used() as u64 == frame.encoded_len());
}

/// Room for a block's header, to be filled in by [`finish`].
#[cfg(test)]
pub(crate) fn begin(to: &mut Buffer) {
    debug_assert!(to.len().is_multiple_of(ALIGN_BLOCK));
    to.resize(to.len() + HEADER);
}

/// Completes the block that begins at `start` and ends where the buffer does.
#[cfg(test)]
pub(crate) fn finish(to: &mut Buffer, start: usize, head: BlockHead, frames: u32, kind: u8) {
    to.pad(ALIGN_BLOCK);
    seal(&mut to[start..], head, frames, kind);
}

/// Writes the header of the block that these bytes are, whose frames and zeros are there.
pub(crate) fn seal(block: &mut [u8], head: BlockHead, frames: u32, kind: u8) {
    let length = block.len() as u32;
    block[4..8].copy_from_slice(&length.to_le_bytes());
    block[8..16].copy_from_slice(&head.epoch.0.to_le_bytes());
    block[16..24].copy_from_slice(&head.state.0.to_le_bytes());
    block[24..28].copy_from_slice(&frames.to_le_bytes());
    block[28..30].copy_from_slice(&head.group.0.to_le_bytes());
    block[30] = kind;
    block[31] = 0;
    let crc = crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Fills the buffer up to a multiple of `to` with one block of kind pad, if anything is left to fill.
pub(crate) fn fill_up(buffer: &mut Buffer, to: usize, epoch: Epoch) {
    let start = buffer.len();
    if start.is_multiple_of(to) {
        return;
    }
    buffer.pad(to);
    pad(&mut buffer[start..], epoch);
}

/// Makes these bytes one block of kind pad, whatever they were.
pub(crate) fn pad(block: &mut [u8], epoch: Epoch) {
    block.fill(0);
    let head = BlockHead {
        epoch,
        state: StateId(0),
        group: KeyGroup(0),
    };
    seal(block, head, 0, KIND_PAD);
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
        if fields.u32() != Some(crc32c(&bytes[4..])) {
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
    /// So many frames that follow one another from the beginning of `bytes`, of a block of this epoch.
    pub fn of(bytes: &'a [u8], frames: u32, epoch: Epoch) -> Self {
        Frames {
            bytes,
            at: 0,
            left: frames,
            epoch,
        }
    }

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
