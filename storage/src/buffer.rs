//! Bytes in memory that a device can take as they are.

use rkyv::util::AlignedVec;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// To what offsets, lengths and addresses of direct reads and writes are aligned, in bytes. Every device in use has
/// logical blocks of 512 or 4,096 bytes; the larger serves both.
pub const ALIGN: usize = 4096;

/// `n` rounded up to a multiple of `to`, which is a power of two.
pub(crate) const fn round_up(n: u64, to: u64) -> u64 {
    (n + (to - 1)) & !(to - 1)
}

/// An owned buffer whose address is a multiple of [`ALIGN`]. It goes down with a disk operation and comes back with its
/// completion, also after a failure, so that no buffer is allocated on a steady path.
pub struct Buffer {
    bytes: AlignedVec<ALIGN>,
}

impl Buffer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Buffer {
            bytes: AlignedVec::with_capacity(capacity),
        }
    }

    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Buffer::with_capacity(len);
        buffer.resize(len);
        buffer
    }

    /// How many bytes fit without a new allocation.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Sets the length; new bytes are zero.
    pub fn resize(&mut self, len: usize) {
        self.bytes.resize(len, 0);
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends zeros until the length is a multiple of `to`, a power of two.
    pub fn pad(&mut self, to: usize) {
        self.resize(round_up(self.len() as u64, to as u64) as usize);
    }

    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Buffer::with_capacity(self.len());
        copy.extend(self);
        copy
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len(), self.capacity())
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_while_it_grows() {
        let mut buffer = Buffer::with_capacity(1);
        for n in 0..20_000usize {
            buffer.extend(&n.to_le_bytes());
            assert_eq!(buffer.as_ptr() as usize % ALIGN, 0);
        }
        buffer.pad(ALIGN);
        assert_eq!(buffer.len() % ALIGN, 0);
        assert_eq!(buffer[8..16], 1usize.to_le_bytes());
    }
}
