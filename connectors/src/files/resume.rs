//! Where reading goes on after a restart: what a position says besides the offset, and whether the file is still the same.
//!
//! Laws
//! 1. A file is known by its content: the first [`KNOWN_BY`] bytes of it as it was opened, decompressed where it is gzip. So a file
//!    that has grown is the same, and so is a copy on another disk or one that was compressed anew; one that was rotated away and
//!    begun again is another. Two files that begin alike for so many bytes are not told apart.
//! 2. A file that is shorter than the position is another one, or has been cut.
//!
//! ```text
//! version  flags  line   end    known  hash
//!    1       1      8      8      4      8     bytes, little-endian
//! ```

use super::frame::Start;
use std::sync::Arc;

/// Bytes that a file is known by.
pub(super) const KNOWN_BY: usize = 4096;

const VERSION: u8 = 1;
const LENGTH: usize = 30;
const HAS_LINE: u8 = 1;
const SKIPS: u8 = 2;
const TAIL_TOLD: u8 = 4;

/// What a file is known by (law 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Bytes that were there when it was opened, at most [`KNOWN_BY`].
    pub known: u32,
    pub hash: u64,
}

impl Identity {
    /// Of a file that begins with `head`.
    fn of(head: &[u8]) -> Self {
        Identity {
            known: head.len() as u32,
            hash: pelton::stable_hash(&head.to_vec()),
        }
    }
}

/// The beginning of a file, as it was when the file was opened: at most [`KNOWN_BY`] bytes.
#[derive(Clone, Debug)]
pub(super) struct Head {
    bytes: Arc<[u8]>,
    pub identity: Identity,
}

impl Head {
    /// Of a file that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(KNOWN_BY)];
        Head {
            bytes: bytes.into(),
            identity: Identity::of(bytes),
        }
    }

    /// Whether the file may be the one that was known by this, grown since or not.
    pub fn is(&self, then: Identity) -> bool {
        let begins = self.bytes.get(..then.known as usize);
        begins.is_some_and(|b| Identity::of(b) == then)
    }
}

/// What a position says besides the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Detail {
    /// Line, whether the rest of a line is passed over, and the end of the byte range. The offset is the position's own.
    pub start: Start,
    /// What stands behind the data of a gzip file has been told.
    pub tail_told: bool,
    pub identity: Identity,
}

impl Detail {
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = 0;
        for (is, flag) in [
            (self.start.line.is_some(), HAS_LINE),
            (self.start.skip, SKIPS),
            (self.tail_told, TAIL_TOLD),
        ] {
            flags |= if is { flag } else { 0 };
        }
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend([VERSION, flags]);
        bytes.extend(self.start.line.unwrap_or(0).to_le_bytes());
        bytes.extend(self.start.end.to_le_bytes());
        bytes.extend(self.identity.known.to_le_bytes());
        bytes.extend(self.identity.hash.to_le_bytes());
        bytes
    }

    /// `offset` is that in the file.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, String> {
        let (&[VERSION, flags, ref rest @ ..], LENGTH) = (bytes, bytes.len()) else {
            return Err(
                "the position was not written by a source of files, or by a newer one: start the job with the source it had".into(),
            );
        };
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&rest[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Ok(Detail {
            start: Start {
                offset,
                line: (flags & HAS_LINE != 0).then(|| word(0)),
                skip: flags & SKIPS != 0,
                end: word(8),
            },
            tail_told: flags & TAIL_TOLD != 0,
            identity: Identity {
                // Its length and the first half of the hash share a word.
                known: word(16) as u32,
                hash: word(20),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for flags in 0..8u64 {
            let detail = Detail {
                start: Start {
                    offset: 77,
                    line: (flags & 1 != 0).then_some(1 << 40),
                    skip: flags & 2 != 0,
                    end: u64::MAX - flags,
                },
                tail_told: flags & 4 != 0,
                identity: Identity::of(&vec![b'x'; 4090 + flags as usize]),
            };
            let bytes = detail.encode();
            assert_eq!(bytes.len(), LENGTH);
            assert_eq!(Detail::decode(&bytes, 77), Ok(detail));
            for wrong in [&bytes[1..], &[&bytes[..], &[0]].concat(), b""] {
                assert!(Detail::decode(wrong, 77).is_err());
            }
        }
    }

    #[test]
    fn a_file_is_known_by_its_beginning() {
        let short = Head::of(b"abc");
        assert!(Head::of(b"abc").is(short.identity));
        assert!(Head::of(b"abcd").is(short.identity), "it has grown");
        assert!(!Head::of(b"ab").is(short.identity), "it was cut");
        assert!(!Head::of(b"xbcd").is(short.identity));
        assert!(Head::of(b"abc").is(Head::of(b"").identity));
        let long = vec![b'x'; KNOWN_BY + 1];
        assert!(Head::of(&long).is(Head::of(&long[1..]).identity));
    }
}
