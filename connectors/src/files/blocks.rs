//! Blocks of a partition's bytes, read ahead on the helper thread.
//!
//! Laws
//! 1. There are [`IN_FLIGHT`] buffers a partition: one being cut, the others being filled or waiting full. They go round.
//! 2. A block's bytes are of one file. After a file's last block comes the first of the next, if there is one, with what that
//!    file's head says. At most one file of a partition is open.
//! 3. After the last block of the last file, or a failure, nothing more is asked for.
//! 4. Nothing is read, and no file but the first is open, before the first block is asked for: until then reading can begin elsewhere.
//! 5. What is passed over on the way to a position is passed over in pieces, so that other ports have their turn.

use super::format::Format;
use super::frame::Start;
use super::gzip::Trailing;
use super::open::{self, Input, read_some, reason};
use super::resume::{Detail, Head};
use pelton::port::{Port, Ports};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Buffers of a partition.
pub(super) const IN_FLIGHT: usize = 3;
/// Beyond the range's end only the rest of its last line is wanted.
const BEYOND: u64 = 16 << 10;
/// Bytes passed over in one turn (law 5).
const PASSED_OVER: u64 = 4 << 20;

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
    pub known: Option<Head>,
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
    /// Whether nothing but the partition's end comes behind the first `at` bytes.
    pub fn is_through(&self, at: usize) -> bool {
        self.last && at == self.len && self.is_plain()
    }
    /// Whether it is bytes and nothing else, which have been cut up to `at`: the next one may be looked at.
    pub fn is_used(&self, at: usize) -> bool {
        !self.last && !self.ends_file && at == self.len && self.is_plain()
    }
    fn is_plain(&self) -> bool {
        self.begins.is_none() && self.trailing.is_none() && self.failure.is_none()
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

/// A buffer to be filled.
struct Request<F> {
    buffer: Vec<u8>,
    /// With the first: what to read.
    begin: Option<Box<Files<F>>>,
}

/// See the module.
pub(super) struct Blocks<F> {
    port: Port<Request<F>, Block<F>>,
    /// What to read, until the first buffer is handed in (law 4).
    begin: Option<Box<Files<F>>>,
    /// Buffers not made yet: they are made as they are first needed.
    unmade: usize,
    size: usize,
    done: bool,
}

impl<F> std::fmt::Debug for Blocks<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.done { "Blocks(done)" } else { "Blocks" })
    }
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
        let mut reading = None;
        let handler = move |request: Request<F>| {
            if let Some(begin) = request.begin {
                reading = Some(begin);
            }
            match &mut reading {
                Some(files) => files.serve::<T>(request.buffer),
                None => unreachable!("what to read comes with the first buffer"),
            }
        };
        let port = match apart {
            // Whoever writes into a pipe may take their time.
            Some(apart) => ports.port_apart(&apart, shard, IN_FLIGHT, handler)?,
            None => ports.port(shard, IN_FLIGHT, handler)?,
        };
        Ok(Blocks {
            port,
            begin: Some(Box::new(Files {
                input: Some(input),
                following,
            })),
            unmade: IN_FLIGHT,
            size,
            done: false,
        })
    }

    /// Goes to the place that `detail` tells in the first file, or in the one that comes `passed` files after it. `first` is where
    /// the first one's records begin, and what it is known by. Gives back what the reader is to know of the file.
    pub fn seek<T>(
        &mut self,
        passed: usize,
        first: (Start, Option<Head>),
        detail: &Detail,
    ) -> Result<Begun<F>, String>
    where
        F: Format<T>,
    {
        let Some(files) = &mut self.begin else {
            return Err("it has been read from already".into());
        };
        let mut format = files.following.format.clone();
        let (mut start, mut known) = first;
        if passed > 0 {
            let Some(path) = files.following.paths.drain(..passed).next_back() else {
                unreachable!("checked: there are so many files");
            };
            let part = open::open(&path, &mut format, false)?.whole();
            (start, known) = (part.start, part.known);
            files.input = Some(part.input);
        }
        let (Some(input), Some(head)) = (&mut files.input, &known) else {
            return Err("it cannot go back to a position: it is no regular file".into());
        };
        check(input, &start, head, detail)?;
        input.go_to(start.offset, detail.start.offset, detail.start.end);
        Ok(Begun {
            start: Some(detail.start),
            known,
            format,
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
        let begin = self.begin.take();
        let _ = self.port.submit(Request { buffer, begin });
    }
}

/// Whether a file that begins at `start` with `head` can be the one of a position.
fn check(input: &Input, start: &Start, head: &Head, detail: &Detail) -> Result<(), String> {
    let offset = detail.start.offset;
    let advice = "put back the file that it was, or start the job without its checkpoints";
    if !head.is(detail.identity) || offset < start.offset {
        return Err(format!(
            "another file has this name now: it begins otherwise than the one that was read up to byte {offset}; {advice}"
        ));
    }
    match input.length()? {
        Some(length) if length < offset => Err(format!(
            "it has {length} bytes, and was read up to byte {offset}: it was cut, or is another file; {advice}"
        )),
        _ if start.end != detail.start.end => Err(format!(
            "its byte range ends elsewhere than before, since the file has grown or split_every was changed; {advice}.              A file that grows while it is read cannot be split"
        )),
        _ => Ok(()),
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
        if let Some(input) = &mut self.input
            && input.skip > 0
        {
            pass_over(input, &mut block);
            // An empty block: it comes back, and the next piece has its turn (law 5).
            block.last = block.failure.is_some();
            return block;
        }
        if self.input.is_none()
            && let Some(path) = self.following.paths.pop_front()
        {
            let mut format = self.following.format.clone();
            let mut known = None;
            let start = match open::open(&path, &mut format, false) {
                Ok(opened) => {
                    let part = opened.whole();
                    self.input = Some(part.input);
                    known = part.known;
                    Some(part.start)
                }
                Err(what) => {
                    // Whoever tells of it names the file as the partition.
                    let named = format!("{}: ", path.display());
                    block.failure = Some(what.strip_prefix(&named).unwrap_or(&what).into());
                    None
                }
            };
            block.begins = Some(Box::new(Begun {
                start,
                known,
                format,
            }));
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

/// Passes over a piece of what lies before a position.
fn pass_over<F>(input: &mut Input, block: &mut Block<F>) {
    let mut left = input.skip.min(PASSED_OVER);
    while left > 0 && block.failure.is_none() {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let size = block.bytes.len().min(most);
        match read_some(&mut input.read, &mut block.bytes[..size]) {
            Ok(0) => {
                block.failure = Some(format!(
                    "it ends {} bytes before the position: it was cut, or is another file; put back the file that it was, or start the job without its checkpoints",
                    input.skip
                ));
            }
            Ok(n) => {
                left -= n as u64;
                input.skip -= n as u64;
            }
            Err(e) => block.failure = Some(reason(&e, input.gzip.is_some())),
        }
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
