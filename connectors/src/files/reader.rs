//! One partition of files: takes blocks, cuts them into lines, parses those.

use super::blocks::{Block, Blocks, Taken};
use super::format::Format;
use super::frame::{Bad, Framer, Record};
use super::{OnError, Settings};
use pelton::source::{Emit, Read, ReadError, Reader};
use std::marker::PhantomData;

/// Bytes parsed in one step: a record of a few hundred bytes takes about a microsecond, so a step stays well below 200 µs.
const STEP_BYTES: u64 = 64 << 10;

/// A file, or a byte range of one. See [`super::json`].
#[derive(Debug)]
pub struct FileReader<T, F> {
    path: String,
    format: F,
    settings: Settings,
    framer: Framer,
    blocks: Blocks,
    /// The block being cut, and how much of it has been.
    block: Option<Block>,
    at: usize,
    ended: bool,
    record: PhantomData<fn() -> T>,
}

impl<T, F: Format<T>> FileReader<T, F> {
    pub(super) fn new(
        path: String,
        format: F,
        settings: Settings,
        framer: Framer,
        blocks: Blocks,
    ) -> Self {
        FileReader {
            path,
            format,
            settings,
            framer,
            blocks,
            block: None,
            at: 0,
            ended: false,
            record: PhantomData,
        }
    }

    fn failed(&self, what: String) -> ReadError {
        ReadError {
            offset: self.framer.position(),
            line: None,
            what,
            malformed: false,
        }
    }
}

impl<T: Send + 'static, F: Format<T>> Reader for FileReader<T, F> {
    type Item = T;

    fn name(&self) -> String {
        self.path.clone()
    }

    fn read<E: Emit<T>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        if self.ended {
            return Ok(Read::End);
        }
        let mut taken = 0;
        let until = self.framer.position() + STEP_BYTES;
        while taken < max {
            if self.framer.is_past() {
                self.ended = true;
                return Ok(Read::End);
            }
            if self.block.is_none() {
                match self.blocks.take() {
                    Taken::Block(block) => (self.block, self.at) = (Some(block), 0),
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
            if let Some(record) = self.framer.next(block.bytes(), &mut self.at) {
                taken += give(&mut self.format, &self.settings, record, out)?;
            } else if self.framer.is_past() {
                // The next turn of the loop ends it.
            } else if let Some(what) = block.failure() {
                return Err(self.failed(what));
            } else if !block.is_last() {
                if let Some(used) = self.block.take() {
                    self.blocks.give_back(used);
                }
            } else if let Some(record) = self.framer.finish() {
                taken += give(&mut self.format, &self.settings, record, out)?;
            } else {
                self.ended = true;
                return Ok(Read::End);
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
    record: Record<'_>,
    out: &mut E,
) -> Result<usize, ReadError> {
    if record.bad.is_none() {
        if format.is_blank(record.bytes) {
            return Ok(0);
        }
        match format.decode(record.bytes) {
            Ok(value) => out.emit(record.offset, value),
            Err(reason) => malformed(settings, record, &reason, out)?,
        }
        return Ok(1);
    }
    let reason = match record.bad {
        Some(Bad::TooLong) => format!("the line is longer than {} bytes", settings.record_max),
        _ => "a quoted field is not closed".into(),
    };
    malformed(settings, record, &reason, out)?;
    Ok(1)
}

#[cold]
fn malformed<T, E: Emit<T>>(
    settings: &Settings,
    record: Record<'_>,
    reason: &str,
    out: &mut E,
) -> Result<(), ReadError> {
    if settings.on_error == OnError::Fail {
        return Err(ReadError {
            offset: record.offset,
            line: record.line,
            what: reason.into(),
            malformed: true,
        });
    }
    out.malformed(record.offset, record.line, reason, record.bytes);
    Ok(())
}
