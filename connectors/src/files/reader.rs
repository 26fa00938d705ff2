//! One partition of files: takes blocks, cuts them into lines, parses those.

use super::blocks::{Begun, Block, Blocks, Taken};
use super::format::Format;
use super::frame::{Bad, Framer, Record};
use super::resume::{Detail, Head};
use super::{OnError, Settings, place};
use pelton::source::{Emit, Position, Read, ReadError, Reader};
use std::marker::PhantomData;

/// Bytes parsed in one step: a record of a few hundred bytes takes about a microsecond, so a step stays well below 200 µs.
const STEP_BYTES: u64 = 64 << 10;

/// A file, a byte range of one, or several files one after another. See [`super::json`].
#[derive(Debug)]
pub struct FileReader<T, F> {
    /// Names of the partition's files.
    files: Vec<String>,
    /// The one being read, and the offset of its first byte in the partition.
    file: usize,
    base: u64,
    format: F,
    settings: Settings,
    framer: Framer,
    /// What the file is known by; `None` if one of the files cannot be read again.
    known: Option<Head>,
    /// What stands behind the data of this file has been told.
    tail_told: bool,
    blocks: Blocks<F>,
    /// The block being cut, and how much of it has been.
    block: Option<Block<F>>,
    at: usize,
    /// The one after it, where it has been looked at.
    next: Option<Block<F>>,
    ended: bool,
    record: PhantomData<fn() -> T>,
}

impl<T, F: Format<T>> FileReader<T, F> {
    pub(super) fn new(
        files: Vec<String>,
        format: F,
        settings: Settings,
        framer: Framer,
        known: Option<Head>,
        blocks: Blocks<F>,
    ) -> Self {
        FileReader {
            files,
            file: 0,
            base: 0,
            format,
            settings,
            framer,
            known,
            tail_told: false,
            blocks,
            block: None,
            at: 0,
            next: None,
            ended: false,
            record: PhantomData,
        }
    }

    fn failed(&self, what: String) -> ReadError {
        ReadError {
            offset: self.base + self.framer.position(),
            line: None,
            what,
            malformed: false,
        }
    }

    /// A block has come: the next to be cut.
    fn take(&mut self, mut block: Block<F>) -> Result<(), ReadError> {
        if let Some(begun) = block.begins() {
            self.begin(*begun);
        }
        if self.files.len() > 1 {
            let end = self.framer.position() + block.bytes().len() as u64;
            place::check(end).map_err(|what| self.failed(what))?;
        }
        (self.block, self.at) = (Some(block), 0);
        Ok(())
    }

    /// The partition goes on with its next file.
    fn begin(&mut self, begun: Begun<F>) {
        self.file += 1;
        self.base = place::base(self.file);
        self.format = begun.format;
        self.tail_told = false;
        if self.known.is_some() {
            // A file that could not be opened has none; reading ends there with its error.
            self.known = begun.known;
        }
        let start = begun.start.unwrap_or_default();
        self.framer.begin(start);
    }
}

impl<T: Send + 'static, F: Format<T>> Reader for FileReader<T, F> {
    type Item = T;

    fn name(&self) -> String {
        match &self.files[..] {
            [one] => one.clone(),
            [first, .., last] => format!("{first} .. {last}"),
            [] => String::new(),
        }
    }

    fn place(&self, offset: u64) -> (String, u64) {
        let (file, in_file) = match self.files.len() {
            1 => (0, offset),
            _ => place::split(offset),
        };
        match self.files.get(file) {
            Some(name) => (name.clone(), in_file),
            None => (self.name(), offset),
        }
    }

    /// The first byte of the next line, whatever blocks are there already.
    fn position(&self) -> Option<Position> {
        let start = self.framer.place();
        let detail = Detail {
            start,
            tail_told: self.tail_told,
            identity: self.known.as_ref()?.identity,
        };
        Some(Position {
            offset: self.base + start.offset,
            detail: detail.encode(),
        })
    }

    /// At once in a plain file. A gzip file is inflated up to there by the helper thread, before the first record comes.
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        let (file, offset) = match self.files.len() {
            1 => (0, position.offset),
            _ => place::split(position.offset),
        };
        if file >= self.files.len() {
            return Err(format!(
                "it was in file {} of its sequence, and there are {} now: name the same files in the same order",
                file + 1,
                self.files.len()
            ));
        }
        let detail = Detail::decode(&position.detail, offset)?;
        let first = (self.framer.place(), self.known.clone());
        let named = |what: String| match file {
            0 => what,
            n if what.starts_with(&self.files[n]) => what,
            n => format!("{}: {what}", self.files[n]),
        };
        let begun = self.blocks.seek::<T>(file, first, &detail).map_err(named)?;
        if file > 0 {
            self.format = begun.format;
        }
        (self.file, self.base) = (file, if file > 0 { place::base(file) } else { 0 });
        (self.known, self.tail_told) = (begun.known, detail.tail_told);
        self.framer.begin(detail.start);
        Ok(())
    }

    fn stops_on_malformed(&self) -> bool {
        self.settings.on_error == OnError::Fail
    }

    /// The end of a file may come in a block of its own, so a block that has come is looked at.
    fn is_through(&mut self) -> bool {
        if self.ended || self.framer.is_past() {
            return true;
        }
        if !self.framer.is_between() {
            return false;
        }
        if let Some(block) = self.block.take_if(|b| b.is_used(self.at)) {
            self.blocks.give_back(block);
        }
        if let Some(block) = &self.block {
            return block.is_through(self.at);
        }
        if self.next.is_none()
            && let Taken::Block(block) = self.blocks.take()
        {
            self.next = Some(block);
        }
        self.next.as_ref().is_some_and(|next| next.is_through(0))
    }

    fn read<E: Emit<T>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        if self.ended {
            return Ok(Read::End);
        }
        let mut taken = 0;
        let mut until = self.framer.position() + STEP_BYTES;
        while taken < max {
            if self.framer.is_past() {
                self.ended = true;
                return Ok(Read::End);
            }
            if self.block.is_none() {
                let next = self.next.take().map(Taken::Block);
                match next.unwrap_or_else(|| self.blocks.take()) {
                    Taken::Block(block) => {
                        let file = self.file;
                        self.take(block)?;
                        if self.file != file {
                            until = self.framer.position() + STEP_BYTES;
                        }
                    }
                    Taken::NotYet if taken > 0 => return Ok(Read::More),
                    Taken::NotYet => return Ok(Read::Pending { until_ns: None }),
                    Taken::Gone => {
                        return Err(self.failed("the thread that reads files has ended".into()));
                    }
                }
            }
            let Some(block) = &mut self.block else {
                continue;
            };
            let (format, base) = (&mut self.format, self.base);
            if let Some(record) = self.framer.next(block.bytes(), &mut self.at) {
                taken += give(format, &self.settings, base, record, out)?;
            } else if self.framer.is_past() {
                // The next turn of the loop ends it.
            } else if let Some(what) = block.failure() {
                return Err(self.failed(what));
            } else if block.ends_file()
                && let Some(record) = self.framer.finish()
            {
                taken += give(format, &self.settings, base, record, out)?;
            } else if let Some(trailing) = block.trailing().filter(|_| !self.tail_told) {
                self.tail_told = true;
                let record = Record {
                    bytes: &trailing.bytes,
                    offset: self.framer.position(),
                    line: None,
                    bad: None,
                };
                malformed(&self.settings, base, record, &trailing.to_string(), out)?;
                taken += 1;
            } else if block.is_last() {
                self.ended = true;
                return Ok(Read::End);
            } else if let Some(used) = self.block.take() {
                self.blocks.give_back(used);
            }
            if self.framer.position() >= until {
                break;
            }
        }
        Ok(Read::More)
    }
}

/// Hands a record's bytes on as what they are; 0 for a blank line.
#[inline(always)]
fn give<T, F: Format<T>, E: Emit<T>>(
    format: &mut F,
    settings: &Settings,
    base: u64,
    record: Record<'_>,
    out: &mut E,
) -> Result<usize, ReadError> {
    if record.bad.is_none() {
        if format.is_blank(record.bytes) {
            return Ok(0);
        }
        match format.decode(record.bytes) {
            Ok(value) => {
                out.emit_from(base + record.offset, record.line, record.bytes, value)?;
            }
            Err(reason) => malformed(settings, base, record, &reason, out)?,
        }
        return Ok(1);
    }
    let reason = match record.bad {
        Some(Bad::TooLong) => format!("the line is longer than {} bytes", settings.record_max),
        _ => "a quoted field is not closed".into(),
    };
    malformed(settings, base, record, &reason, out)?;
    Ok(1)
}

#[cold]
fn malformed<T, E: Emit<T>>(
    settings: &Settings,
    base: u64,
    record: Record<'_>,
    reason: &str,
    out: &mut E,
) -> Result<(), ReadError> {
    let offset = base + record.offset;
    if settings.on_error == OnError::Fail {
        return Err(ReadError {
            offset,
            line: record.line,
            what: reason.into(),
            malformed: true,
        });
    }
    out.malformed(offset, record.line, reason, record.bytes);
    Ok(())
}
