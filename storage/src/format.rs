//! Bytes on disk. docs/format.md is the document; a test holds these constants to its tables.
//!
//! Laws
//! 1. All numbers are little-endian. Reserved bytes are zero, and a reader checks them.
//! 2. Decoders take untrusted bytes: they return what is wrong and where, never panic, and allocate nothing by a length
//!    before that length was found to lie within the bytes that are there.
//! 3. Each format has a version of its own. A reader takes the newest and the one before it, and refuses others by name.

pub mod block;
pub mod log;
pub mod manifest;
pub mod segment;

/// Reads numbers from the front of a slice; `None` where it ends too early.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn bytes16(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    /// Bytes not yet taken.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// How many bytes were taken.
    #[inline]
    pub fn position(&self) -> usize {
        self.at
    }
}

/// What is wrong with some bytes, and where, counted from their beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// In bytes.
    pub offset: u64,
    /// For people.
    pub what: Fault,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Something else than the named thing.
    NotA(&'static str),
    /// Written by a version that this program does not read.
    Version {
        /// The format.
        format: &'static str,
        /// What was found.
        found: u32,
        /// The newest that this program reads.
        newest: u32,
    },
    /// The checksum says otherwise.
    Checksum,
    /// A field that cannot be.
    Field(&'static str),
    /// It ends before it is whole.
    Short,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::NotA(thing) => write!(f, "this is no {thing}"),
            Fault::Version {
                format,
                found,
                newest,
            } => f.write_str(&refusal(format, *found, *newest)),
            Fault::Checksum => write!(f, "the checksum does not match"),
            Fault::Field(name) => write!(f, "impossible {name}"),
            Fault::Short => write!(f, "it ends before it is whole"),
        }
    }
}

impl Wrong {
    pub(crate) fn at(offset: u64, what: Fault) -> Self {
        Wrong { offset, what }
    }
}

/// The version before the newest; the first has none before it.
fn oldest(newest: u32) -> u32 {
    newest.saturating_sub(1).max(1)
}

/// Why a version is not read, for people.
pub(crate) fn refusal(format: &str, found: u32, newest: u32) -> String {
    let oldest = oldest(newest);
    let than = if found > newest { "newer" } else { "older" };
    format!("{format} format {found} is {than} than this build reads ({oldest} to {newest})")
}

/// Whether a version is read: the newest or the one before it; versions begin at 1.
pub(crate) fn check_version(format: &'static str, found: u32, newest: u32) -> Result<(), Fault> {
    if (oldest(newest)..=newest).contains(&found) {
        return Ok(());
    }
    Err(Fault::Version {
        format,
        found,
        newest,
    })
}

/// Numbers that only rise (sequence numbers, epochs, offsets; attempts among the 32-bit ones) stay below half of what their field holds:
/// nobody lives to see it, and who reads one may count on from it.
pub const RISING_MAX: u64 = u64::MAX >> 1;
/// As [`RISING_MAX`], of 32 bits.
pub const RISING_MAX_32: u32 = u32::MAX >> 1;

/// A number that only rises.
pub(crate) fn rising(from: &mut Cursor<'_>, name: &'static str) -> Result<u64, Fault> {
    match from.u64().ok_or(Fault::Short)? {
        number if number <= RISING_MAX => Ok(number),
        _ => Err(Fault::Field(name)),
    }
}

/// A count of things that take at least `each` bytes: refused if so many cannot be there, so nothing large is allocated.
pub(crate) fn count(from: &mut Cursor<'_>, each: usize) -> Result<usize, Fault> {
    let count = from.u32().ok_or(Fault::Short)? as usize;
    match count.checked_mul(each) {
        Some(bytes) if bytes <= from.left() => Ok(count),
        _ => Err(Fault::Field("count")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_and_the_one_before_are_read() {
        for (newest, read) in [
            (1, 1..=1),
            (2, 1..=2),
            (3, 2..=3),
            (u32::MAX, u32::MAX - 1..=u32::MAX),
        ] {
            for found in [0, 1, 2, 3, 4, u32::MAX - 2, u32::MAX - 1, u32::MAX] {
                let checked = check_version("segment", found, newest);
                assert_eq!(
                    checked.is_ok(),
                    read.contains(&found),
                    "{found} of {newest}"
                );
                let Err(fault) = checked else {
                    continue;
                };
                let than = if found > newest { "newer" } else { "older" };
                let told = fault.to_string();
                assert!(
                    told.contains(&format!("segment format {found} is {than} than")),
                    "{told}"
                );
            }
        }
    }
}
