//! Cuts blocks of bytes into records.
//!
//! Laws
//! 1. What is cut, with which offsets and line numbers, depends on the bytes alone and not on where blocks end.
//! 2. A record that lies within one block is lent from it; one that spans blocks is put together in `carry`, which is
//!    never longer than the longest record allowed plus one block.
//! 3. A quote that is not closed within the longest record costs its own line only: that line is malformed, and the
//!    cutting starts again behind it.

use memchr::{memchr, memchr2};

/// Quoted fields may hold line ends: a `"` opens at the start of a field.
#[derive(Clone, Copy, Debug)]
pub struct Quotes {
    /// What stands between fields.
    pub delimiter: u8,
}

/// Where a partition's bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Offset in the file of the first byte given to the framer.
    pub offset: u64,
    /// The number of the line it stands in, where that is known.
    pub line: Option<u64>,
    /// Whether a line that began before it must be passed over.
    pub skip: bool,
    /// Records that begin from this offset on belong to others.
    pub end: u64,
}

/// The beginning of a file that has nothing before its first line.
impl Default for Start {
    fn default() -> Self {
        Start {
            offset: 0,
            line: Some(1),
            skip: false,
            end: u64::MAX,
        }
    }
}

/// A record's bytes without its line end, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub bytes: &'a [u8],
    pub offset: u64,
    pub line: Option<u64>,
    /// Why these bytes are no record.
    pub bad: Option<Bad>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    TooLong,
    OpenQuote,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Framer {
    quotes: Option<Quotes>,
    record_max: usize,
    /// Offset of the first byte of the record being cut; while `skip`, of the next byte.
    offset: u64,
    /// Line number of the same.
    line: Option<u64>,
    /// Bytes up to the next line end belong to nothing.
    skip: bool,
    /// Records that begin from this offset on belong to others.
    end: u64,
    /// The record's bytes from earlier blocks.
    carry: Vec<u8>,
    /// `carry` was lent as a record and is to be emptied.
    lent: bool,
    /// Bytes to be cut again, before those of the block (law 3), and how many have been.
    again: Vec<u8>,
    again_at: usize,
    /// The first line of these is cut without regard to quotes, and is malformed.
    plain_line: bool,
    scan: Scan,
}

/// How far the record being cut has been looked through.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// Bytes of it looked at.
    seen: usize,
    quoted: bool,
    /// Where the last quoted part closed: a quote right behind it is an escaped one and opens again.
    closed_at: Option<usize>,
    /// Line ends inside quotes.
    lines: u64,
}

impl Framer {
    pub fn new(quotes: Option<Quotes>, record_max: usize, start: Start) -> Self {
        Framer {
            quotes,
            record_max,
            offset: start.offset,
            line: start.line,
            skip: start.skip,
            end: start.end,
            carry: Vec::new(),
            lent: false,
            again: Vec::new(),
            again_at: 0,
            plain_line: false,
            scan: Scan::default(),
        }
    }

    /// Begins anew elsewhere: what has been gathered is forgotten.
    pub fn begin(&mut self, start: Start) {
        *self = Framer::new(self.quotes, self.record_max, start);
    }

    /// Whether every record that begins before the end has been given.
    #[inline]
    pub fn is_past(&self) -> bool {
        self.offset >= self.end
    }

    /// Whether nothing of a record has been gathered: it ends where the blocks end.
    pub fn is_between(&self) -> bool {
        (self.lent || self.carry.is_empty()) && self.again_at == self.again.len()
    }

    /// The place of the next record. Meant for between records.
    pub fn place(&self) -> Start {
        Start {
            offset: self.offset,
            line: self.line,
            skip: self.skip,
            end: self.end,
        }
    }

    /// Offset of the next byte to come from a block.
    pub fn position(&self) -> u64 {
        let carried = if self.lent { 0 } else { self.carry.len() };
        self.offset + (carried + self.again.len() - self.again_at) as u64
    }

    /// The next record in `block` from `at` on; `None` when the block has been used up, or the end is passed. To be
    /// called only while [`Framer::is_past`] is false.
    #[inline]
    pub fn next<'a>(&'a mut self, block: &'a [u8], at: &mut usize) -> Option<Record<'a>> {
        if self.lent {
            self.lent = false;
            self.carry.clear();
        }
        if self.quotes.is_none() && self.carry.is_empty() && !self.skip {
            // The common case: a line in one block.
            let rest = &block[*at..];
            if let Some(n) = memchr(b'\n', rest)
                && n <= self.record_max
            {
                *at += n + 1;
                let offset = self.offset;
                let line = self.line;
                self.offset += n as u64 + 1;
                self.line = line.map(|l| l + 1);
                return Some(Record {
                    bytes: without_cr(&rest[..n]),
                    offset,
                    line,
                    bad: None,
                });
            }
        }
        self.next_slow(block, at)
    }

    #[inline(never)]
    fn next_slow<'a>(&'a mut self, block: &'a [u8], at: &mut usize) -> Option<Record<'a>> {
        loop {
            let replay = self.again_at < self.again.len();
            let rest: &[u8] = if replay {
                &self.again[self.again_at..]
            } else {
                &block[*at..]
            };
            if rest.is_empty() {
                return None;
            }
            if self.skip {
                let end = memchr(b'\n', rest);
                let passed = end.map_or(rest.len(), |n| n + 1);
                self.skip = end.is_none();
                self.offset += passed as u64;
                if end.is_some() {
                    self.line = self.line.map(|l| l + 1);
                }
                self.pass(replay, at, passed);
                if self.is_past() {
                    return None;
                }
                continue;
            }
            let plain = self.quotes.is_none() || self.plain_line;
            let quotes = self.quotes.filter(|_| !plain);
            let carried = self.carry.len();
            let room = self.record_max - carried.min(self.record_max);
            // One byte more than a record may have: its line end, or the proof that it is too long.
            let within = &rest[..rest.len().min(room + 1)];
            let found = match quotes {
                None => memchr(b'\n', within),
                Some(q) => self.scan.find_end(&self.carry, within, q),
            };
            if let Some(n) = found {
                return Some(self.give(block, at, replay, n));
            }
            if within.len() == room + 1 {
                if self.scan.quoted {
                    self.cut_again();
                    continue;
                }
                return Some(self.too_long(block, at, replay, room + 1));
            }
            let taken = rest.len();
            if replay {
                self.carry.extend_from_slice(&self.again[self.again_at..]);
            } else {
                self.carry.extend_from_slice(&block[*at..]);
            }
            self.pass(replay, at, taken);
        }
    }

    /// What is left when the input has ended: a last line without an end. Call again until `None`, each time after
    /// [`Framer::next`] with an empty block has found nothing.
    pub fn finish(&mut self) -> Option<Record<'_>> {
        if self.lent {
            self.lent = false;
            self.carry.clear();
        }
        if self.carry.is_empty() {
            return None;
        }
        if self.scan.quoted {
            self.cut_again();
            // The line that holds the quote ends in a line end, or is all that is left.
            let mut at = 0;
            if memchr(b'\n', &self.again).is_some() {
                return self.next_slow(&[], &mut at);
            }
            std::mem::swap(&mut self.carry, &mut self.again);
            self.again.clear();
        }
        let bad = std::mem::take(&mut self.plain_line).then_some(Bad::OpenQuote);
        let (offset, line) = (self.offset, self.line);
        self.offset += self.carry.len() as u64;
        self.lent = true;
        self.scan = Scan::default();
        Some(Record {
            bytes: without_cr(&self.carry),
            offset,
            line,
            bad,
        })
    }

    /// Marks `n` bytes as used.
    fn pass(&mut self, replay: bool, at: &mut usize, n: usize) {
        if replay {
            self.again_at += n;
            if self.again_at == self.again.len() {
                self.again.clear();
                self.again_at = 0;
            }
        } else {
            *at += n;
        }
    }

    /// A record whose line end is byte `n` of what is left.
    fn give<'a>(
        &'a mut self,
        block: &'a [u8],
        at: &mut usize,
        replay: bool,
        n: usize,
    ) -> Record<'a> {
        let length = self.carry.len() + n;
        let (offset, line) = (self.offset, self.line);
        self.offset += length as u64 + 1;
        let lines = std::mem::take(&mut self.scan).lines + 1;
        self.line = line.map(|l| l + lines);
        let bad = std::mem::take(&mut self.plain_line).then_some(Bad::OpenQuote);
        let bytes = if replay {
            // `again` may be emptied by `pass`, so the bytes are lent from `carry`.
            self.carry
                .extend_from_slice(&self.again[self.again_at..self.again_at + n]);
            self.pass(true, at, n + 1);
            self.lent = true;
            &self.carry[..]
        } else {
            let from = *at;
            *at += n + 1;
            if self.carry.is_empty() {
                &block[from..from + n]
            } else {
                self.carry.extend_from_slice(&block[from..from + n]);
                self.lent = true;
                &self.carry[..]
            }
        };
        Record {
            bytes: without_cr(bytes),
            offset,
            line,
            bad,
        }
    }

    /// The record is longer than allowed: what is known of it is told, the rest passed over.
    fn too_long<'a>(
        &'a mut self,
        block: &[u8],
        at: &mut usize,
        replay: bool,
        n: usize,
    ) -> Record<'a> {
        if replay {
            self.carry
                .extend_from_slice(&self.again[self.again_at..self.again_at + n]);
        } else {
            self.carry.extend_from_slice(&block[*at..*at + n]);
        }
        self.pass(replay, at, n);
        let (offset, line) = (self.offset, self.line);
        let lines = std::mem::take(&mut self.scan).lines;
        self.line = line.map(|l| l + lines);
        self.offset += self.carry.len() as u64;
        self.plain_line = false;
        self.skip = true;
        self.lent = true;
        Record {
            bytes: &self.carry[..self.record_max],
            offset,
            line,
            bad: Some(Bad::TooLong),
        }
    }

    /// Law 3: what has been gathered goes back in front of what is left, and its first line is cut plainly.
    fn cut_again(&mut self) {
        self.plain_line = true;
        self.scan = Scan::default();
        if !self.carry.is_empty() {
            // Bytes get into `carry` only when `again` has been used up.
            debug_assert!(self.again.is_empty() && self.again_at == 0);
            std::mem::swap(&mut self.carry, &mut self.again);
        }
    }
}

impl Scan {
    /// The line end that ends a record of which `carry` has been seen, in `rest`.
    fn find_end(&mut self, carry: &[u8], rest: &[u8], quotes: Quotes) -> Option<usize> {
        let carried = carry.len();
        let mut from = self.seen.saturating_sub(carried);
        while let Some(n) = memchr2(b'"', b'\n', &rest[from..]) {
            let i = from + n;
            let place = carried + i;
            from = i + 1;
            if rest[i] == b'\n' {
                if !self.quoted {
                    return Some(i);
                }
                self.lines += 1;
            } else if self.quoted {
                self.quoted = false;
                self.closed_at = Some(place);
            } else {
                let before = if i > 0 {
                    Some(rest[i - 1])
                } else {
                    carry.last().copied()
                };
                let escaped = place > 0 && self.closed_at == Some(place - 1);
                self.quoted = escaped || before.is_none_or(|b| b == quotes.delimiter);
            }
        }
        self.seen = carried + rest.len();
        None
    }
}

/// A line may end in `\r\n`.
#[inline(always)]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests;
