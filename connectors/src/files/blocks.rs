//! Blocks of a partition's bytes, read ahead on the helper thread.
//!
//! Laws
//! 1. There are [`IN_FLIGHT`] buffers a partition: one being cut, the others being filled or waiting full. They go round.
//! 2. A block's bytes are of one file. After a file's last block comes the first of the next, if there is one, with what that
//!    file's head says. At most one file of a partition is open.
//! 3. After the last block of the last file, or a failure, nothing more is asked for.

use super::format::Format;
use super::frame::Start;
use super::gzip::Trailing;
use super::open::{self, Input, Part, read_some, reason};
use pelton::port::{Port, Ports};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Buffers of a partition.
pub(super) const IN_FLIGHT: usize = 3;
/// Beyond the range's end only the rest of its last line is wanted.
const BEYOND: u64 = 16 << 10;

/// What came for a buffer.
#[derive(Debug)]
pub(super) struct Block<F> {
    bytes: Vec<u8>,
    len: usize,
    /// The next file of the partition begins with it.
    begins: Option<Box<Begun<F>>>,
    /// Its file ends with it.
    ends_file: bool,
    /// What stands behind the data in a gzip file that ends with it.
    trailing: Option<Trailing>,
    /// Nothing comes after it.
    last: bool,
    /// Why reading stopped behind these bytes.
    failure: Option<String>,
}

/// The head of a file that is not its partition's first.
#[derive(Debug)]
pub(super) struct Begun<F> {
    /// Where its records begin, unless it could not be opened.
    pub start: Option<Start>,
    /// Has the file's own header.
    pub format: F,
}

impl<F> Block<F> {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
    pub fn begins(&mut self) -> Option<Box<Begun<F>>> {
        self.begins.take()
    }
    pub fn ends_file(&self) -> bool {
        self.ends_file
    }
    pub fn trailing(&mut self) -> Option<Trailing> {
        self.trailing.take()
    }
    pub fn is_last(&self) -> bool {
        self.last
    }
    pub fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }
}

/// What [`Blocks::take`] found.
#[derive(Debug)]
pub(super) enum Taken<F> {
    Block(Block<F>),
    /// Not read yet; the port's doorbell will tell.
    NotYet,
    /// The helper thread has gone.
    Gone,
}

/// The files that a partition goes on with after its first.
#[derive(Debug)]
pub(super) struct Following<F> {
    pub paths: VecDeque<PathBuf>,
    /// Without any file's header.
    pub format: F,
    /// Whether reading one of them may wait for somebody outside.
    pub may_wait: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Blocks<F> {
    port: Port<Vec<u8>, Block<F>>,
    /// Buffers not made yet: they are made as they are first needed.
    unmade: usize,
    size: usize,
    done: bool,
}

impl<F: Clone + Send + 'static> Blocks<F> {
    /// Reads `input`, then the files `following`.
    pub fn open<T>(
        ports: &mut Ports<'_>,
        shard: usize,
        input: Input,
        following: Following<F>,
        size: usize,
    ) -> Result<Blocks<F>, String>
    where
        F: Format<T>,
    {
        let may_wait = !input.fill || following.may_wait;
        let apart = may_wait.then(|| ports.apart()).transpose()?;
        let mut files = Files {
            input: Some(input),
            following,
        };
        let handler = move |bytes| files.serve::<T>(bytes);
        let port = match apart {
            // Whoever writes into a pipe may take their time.
            Some(apart) => ports.port_apart(&apart, shard, IN_FLIGHT, handler)?,
            None => ports.port(shard, IN_FLIGHT, handler)?,
        };
        Ok(Blocks {
            port,
            unmade: IN_FLIGHT,
            size,
            done: false,
        })
    }

    /// The next block in order.
    pub fn take(&mut self) -> Taken<F> {
        while self.unmade > 0 && !self.done {
            self.unmade -= 1;
            let buffer = vec![0; self.size];
            self.ask(buffer);
        }
        match self.port.take() {
            Some(block) => {
                self.done |= block.last;
                Taken::Block(block)
            }
            // Looked at last: what was served before the other side went is still there.
            None if self.port.is_closed() => match self.port.take() {
                Some(block) => Taken::Block(block),
                None => Taken::Gone,
            },
            None => Taken::NotYet,
        }
    }

    /// Gives a buffer back to be filled again.
    pub fn give_back(&mut self, block: Block<F>) {
        if !self.done {
            self.ask(block.bytes);
        }
    }

    fn ask(&mut self, buffer: Vec<u8>) {
        // The port holds as many requests as there are buffers, so it refuses only when its other side has gone, and
        // then `take` says so.
        let _ = self.port.submit(buffer);
    }
}

/// A partition's files on the helper thread.
struct Files<F> {
    /// The one being read; `None` when it has ended.
    input: Option<Input>,
    following: Following<F>,
}

impl<F> Files<F> {
    /// Fills a buffer with the next bytes (law 2).
    fn serve<T>(&mut self, bytes: Vec<u8>) -> Block<F>
    where
        F: Format<T>,
    {
        let mut block = Block {
            bytes,
            len: 0,
            begins: None,
            ends_file: false,
            trailing: None,
            last: false,
            failure: None,
        };
        if self.input.is_none()
            && let Some(path) = self.following.paths.pop_front()
        {
            let mut format = self.following.format.clone();
            let start = match open::open(&path, &mut format, false) {
                Ok(opened) => {
                    let Part { input, start } = opened.whole();
                    self.input = Some(input);
                    Some(start)
                }
                Err(what) => {
                    // Whoever tells of it names the file as the partition.
                    let named = format!("{}: ", path.display());
                    block.failure = Some(what.strip_prefix(&named).unwrap_or(&what).into());
                    None
                }
            };
            block.begins = Some(Box::new(Begun { start, format }));
        }
        match &mut self.input {
            Some(input) => fill(input, &mut block),
            None => block.ends_file = true,
        }
        if block.ends_file {
            self.input = None;
        }
        if block.failure.is_some() {
            self.following.paths.clear();
        }
        block.last = block.ends_file && self.following.paths.is_empty();
        block
    }
}

/// Reads into a block what it holds, or until its file ends.
fn fill<F>(input: &mut Input, block: &mut Block<F>) {
    let want = match input.wanted {
        0 => BEYOND,
        n => n,
    };
    let size = block
        .bytes
        .len()
        .min(usize::try_from(want).unwrap_or(usize::MAX));
    while block.len < size && !block.ends_file {
        match read_some(&mut input.read, &mut block.bytes[block.len..size]) {
            Ok(0) => block.ends_file = true,
            Ok(n) => block.len += n,
            Err(e) => {
                block.failure = Some(reason(&e, input.gzip.is_some()));
                block.ends_file = true;
            }
        }
        if !input.fill && block.len > 0 {
            break;
        }
    }
    if block.ends_file
        && let Some(tail) = &input.gzip
    {
        block.trailing = tail.get().cloned();
    }
    input.wanted = input.wanted.saturating_sub(block.len as u64);
}
