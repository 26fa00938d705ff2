//! Room in memory for bytes that somebody else puts together.

use crate::format::block::ALIGN_VALUE;

/// A part of a buffer that is filled from its beginning. What does not fit is not written and still counted, so that whoever
/// wrote too much knows how much room that takes.
///
/// ```
/// let mut bytes = [0; 4];
/// let mut space = pelton_storage::Space::new(&mut bytes);
/// space.extend(b"ab");
/// assert!(space.fits());
/// space.extend(b"cde");
/// assert!(!space.fits() && space.used() == 5);
/// ```
#[derive(Debug)]
pub struct Space<'a> {
    bytes: &'a mut [u8],
    used: usize,
}

impl<'a> Space<'a> {
    /// All of these bytes; what they were does not matter.
    #[inline(always)]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Space { bytes, used: 0 }
    }

    /// Bytes that were written, or would have been.
    #[inline(always)]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether all of it was written.
    #[inline(always)]
    pub fn fits(&self) -> bool {
        self.used <= self.bytes.len()
    }

    /// The same room for somebody who takes it by value; [`reached`](Self::reached) tells where they came to.
    #[inline(always)]
    pub fn lend(&mut self) -> Space<'_> {
        Space {
            bytes: self.bytes,
            used: self.used,
        }
    }

    /// Somebody else has written up to here.
    #[inline(always)]
    pub fn reached(&mut self, used: usize) {
        debug_assert!(used >= self.used);
        self.used = used;
    }

    /// Writes bytes at the end.
    #[inline(always)]
    pub fn extend(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        if let Some(to) = self.bytes.get_mut(self.used..end) {
            to.copy_from_slice(bytes);
        }
        self.used = end;
    }

    /// Writes bytes over others.
    #[inline(always)]
    pub fn replace(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.bytes.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    /// Writes zeros up to where a value may begin.
    #[inline(always)]
    pub(crate) fn pad_value(&mut self) {
        let zeros = self.used.wrapping_neg() % ALIGN_VALUE;
        if self.bytes.len() >= self.used + ALIGN_VALUE {
            // More than needed, in one piece: what comes next is written over them.
            let at = self.used;
            self.bytes[at..at + ALIGN_VALUE].fill(0);
            self.used += zeros;
        } else {
            self.extend(&[0; ALIGN_VALUE][..zeros]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_zeros_and_needs_no_more_room_than_it_takes() {
        for length in 1..=48 {
            for used in 0..=length {
                let mut bytes = vec![7; length];
                let mut space = Space::new(&mut bytes);
                (0..used).for_each(|_| space.extend(&[9]));
                space.pad_value();
                let end = used.next_multiple_of(ALIGN_VALUE);
                assert_eq!((space.used(), space.fits()), (end, end <= length));
                if end <= length {
                    assert!(bytes[..used].iter().all(|&b| b == 9));
                    assert!(bytes[used..end].iter().all(|&b| b == 0));
                }
            }
        }
    }
}
