//! gzip: members one after another, and what stands behind the last of them.
//!
//! Laws (GNU gzip's, but for the telling)
//! 1. Members are read as if what they hold had been one.
//! 2. Zeros up to the end of the file are padding (tapes, block devices): passed over in silence.
//! 3. Where anything else stands behind a member or behind zeros, the data end, and [`Tail`] has it. gzip passes it over with a
//!    warning ("trailing garbage ignored"); here it is one malformed record. Another member behind zeros is such, too.
//! 4. A member that breaks off or is damaged is an error.

use super::open::read_some;
use flate2::bufread::GzDecoder;
use std::fmt;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, OnceLock};

/// What a gzip file begins with.
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Compressed bytes read at once.
const READ: usize = 256 << 10;

/// What stands behind the data, known once these have ended (law 3).
pub(super) type Tail = Arc<OnceLock<Trailing>>;

/// Bytes that belong to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trailing {
    /// Where they begin in the compressed file.
    pub offset: u64,
    /// The first of them, as many as were at hand.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "behind the gzip data, from byte {} of the file on, stands what is neither gzip nor zeros",
            self.offset
        )
    }
}

/// Decompresses a file from its beginning.
pub(super) struct Members<R> {
    state: State<R>,
    tail: Tail,
}

enum State<R> {
    /// A member may begin here.
    Between(Bytes<R>),
    Within(Box<GzDecoder<Bytes<R>>>),
    Ended,
}

impl<R: Read> Members<R> {
    /// Reads `file`, which begins with [`MAGIC`].
    pub fn new(file: R) -> Self {
        Self::with(file, READ)
    }

    /// Reads so many bytes at once, at least 2.
    fn with(file: R, at_once: usize) -> Self {
        Members {
            state: State::Between(Bytes {
                read: file,
                buffer: vec![0; at_once],
                at: 0,
                end: 0,
                passed: 0,
            }),
            tail: Tail::default(),
        }
    }

    /// Where it is told what stands behind the data.
    pub fn tail(&self) -> Tail {
        self.tail.clone()
    }

    /// What `bytes` go on with (laws 1 to 3).
    fn go_on(&mut self, mut bytes: Bytes<R>) -> io::Result<State<R>> {
        if bytes.peek()?.starts_with(&MAGIC) {
            return Ok(State::Within(Box::new(GzDecoder::new(bytes))));
        }
        loop {
            let passed = bytes.passed;
            let behind = bytes.peek()?;
            let zeros = behind.iter().take_while(|b| **b == 0).count();
            if zeros < behind.len() {
                let trailing = Trailing {
                    offset: passed + zeros as u64,
                    bytes: behind[zeros..].to_vec(),
                };
                // Never set before: the data end once.
                let _ = self.tail.set(trailing);
                return Ok(State::Ended);
            }
            if zeros == 0 {
                return Ok(State::Ended);
            }
            bytes.consume(zeros);
        }
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            self.state = match std::mem::replace(&mut self.state, State::Ended) {
                State::Between(bytes) => self.go_on(bytes)?,
                State::Within(mut member) => match member.read(into) {
                    Ok(0) => State::Between(member.into_inner()),
                    read => {
                        self.state = State::Within(member);
                        return read;
                    }
                },
                State::Ended => return Ok(0),
            };
        }
    }
}

/// A buffer in front of the file that counts.
struct Bytes<R> {
    read: R,
    buffer: Vec<u8>,
    /// What of `buffer` is filled and not consumed.
    at: usize,
    end: usize,
    /// Bytes of the file before `at`.
    passed: u64,
}

impl<R: Read> Bytes<R> {
    /// The next bytes: at least two, unless the file has fewer.
    fn peek(&mut self) -> io::Result<&[u8]> {
        if self.end - self.at < 2 {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
        }
        while self.end - self.at < 2 {
            match read_some(&mut self.read, &mut self.buffer[self.end..])? {
                0 => break,
                n => self.end += n,
            }
        }
        Ok(&self.buffer[self.at..self.end])
    }
}

impl<R: Read> Read for Bytes<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Bytes<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            self.end = read_some(&mut self.read, &mut self.buffer)?;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
        self.passed += n as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(vec![], Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// Hands one byte out at a time, as a slow pipe does.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let n = into.len().min(1);
            self.0.read(&mut into[..n])
        }
    }

    #[test]
    fn where_the_buffer_ends_changes_nothing() {
        let data = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        for (padding, rest) in [
            (0, &b""[..]),
            (0, b"x"),
            (0, &MAGIC[..1]),
            (7, b""),
            (7, b"x\0"),
        ] {
            let file = [&data[..], &vec![0; padding], rest].concat();
            let offset = (data.len() + padding) as u64;
            for at_once in 2..=file.len() + 1 {
                let slow: Box<dyn Read> = Box::new(Slow(&file));
                for bytes in [slow, Box::new(&file[..])] {
                    let mut members = Members::with(bytes, at_once);
                    let mut content = vec![];
                    members.read_to_end(&mut content).unwrap();
                    assert_eq!(content, b"one two");
                    let tail = members.tail();
                    assert_eq!(
                        tail.get().map(|t| t.offset),
                        (rest != b"").then_some(offset)
                    );
                    if let Some(trailing) = tail.get() {
                        assert!(rest.starts_with(&trailing.bytes) && !trailing.bytes.is_empty());
                    }
                }
            }
        }
    }

    #[test]
    fn what_breaks_off_is_an_error_wherever_it_does() {
        let file = [gzip(b"one "), gzip(b"two")].concat();
        let first = gzip(b"one ").len();
        for len in (2..file.len()).filter(|n| *n != first && *n != first + 1) {
            let mut content = vec![];
            let error = Members::with(&file[..len], 16).read_to_end(&mut content);
            assert_eq!(
                error.unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof,
                "{len}"
            );
        }
    }
}
