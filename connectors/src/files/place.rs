//! Offsets of a partition that is several files: the number of the file in the upper 16 bits, the offset in it in the lower 48.
//!
//! Laws
//! 1. Offsets ascend through the partition, and each names one byte of one file.
//! 2. They do not depend on how long the files before are: one that grows, or is compressed anew, moves no other's.
//! 3. Those of the first file are the plain ones.

/// Files that a partition may have.
pub(super) const FILES_MAX: usize = 1 << (64 - SHIFT);
/// Bytes that a file of such a partition may have: 256 TiB.
const BYTES_MAX: u64 = 1 << SHIFT;
const SHIFT: u32 = 48;

/// The partition's offset of the first byte of file `number`.
pub(super) fn base(number: usize) -> u64 {
    (number as u64) << SHIFT
}

/// The file's number and the offset in it.
pub(super) fn split(offset: u64) -> (usize, u64) {
    ((offset >> SHIFT) as usize, offset & (BYTES_MAX - 1))
}

/// Whether all offsets up to this one can be told.
pub(super) fn check(offset_in_file: u64) -> Result<(), String> {
    if offset_in_file <= BYTES_MAX {
        return Ok(());
    }
    Err(
        "a file that is read in sequence may have 2^48 bytes; read it as a partition of its own"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_name_a_file_and_a_byte_and_ascend() {
        let mut before = None;
        for number in [0, 1, 2, FILES_MAX - 1] {
            for byte in [0, 1, BYTES_MAX - 1] {
                let offset = base(number) + byte;
                assert_eq!(split(offset), (number, byte));
                assert!(before < Some(offset));
                before = Some(offset);
            }
        }
        assert_eq!(base(0) + 7, 7);
    }

    #[test]
    fn a_file_beyond_the_offsets_is_refused() {
        assert_eq!(check(BYTES_MAX), Ok(()), "its last byte lies before");
        assert!(check(BYTES_MAX + 1).unwrap_err().contains("2^48 bytes"));
    }
}
