//! Blocks of a partition's bytes, read ahead on the helper thread.
//!
//! Laws
//! 1. There are [`IN_FLIGHT`] buffers a partition: one being cut, the others being filled or waiting full. They go round.
//! 2. After the last block, or a failure, nothing more is asked for.

use super::open::{Input, read_some, reason};
use pelton::port::{Port, Ports};

/// Buffers of a partition.
pub(super) const IN_FLIGHT: usize = 3;
/// Beyond the range's end only the rest of its last line is wanted.
const BEYOND: u64 = 16 << 10;

/// What came for a buffer.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    len: usize,
    /// Nothing comes after it.
    last: bool,
    /// Why reading stopped behind these bytes.
    failure: Option<String>,
}

impl Block {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
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
pub(super) enum Taken {
    Block(Block),
    /// Not read yet; the port's doorbell will tell.
    NotYet,
    /// The helper thread has gone.
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Blocks {
    port: Port<Vec<u8>, Block>,
    /// Buffers not made yet: they are made as they are first needed.
    unmade: usize,
    size: usize,
    done: bool,
}

impl Blocks {
    pub fn open(
        ports: &mut Ports<'_>,
        shard: usize,
        mut input: Input,
        size: usize,
    ) -> Result<Blocks, String> {
        let mut ended = false;
        let apart = (!input.fill).then(|| ports.apart()).transpose()?;
        let handler = move |bytes| fill(&mut input, bytes, &mut ended);
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
    pub fn take(&mut self) -> Taken {
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
    pub fn give_back(&mut self, block: Block) {
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

/// Fills a buffer on the helper thread.
fn fill(input: &mut Input, bytes: Vec<u8>, ended: &mut bool) -> Block {
    let mut block = Block {
        bytes,
        len: 0,
        last: *ended,
        failure: None,
    };
    let want = match input.wanted {
        0 => BEYOND,
        n => n,
    };
    let size = block
        .bytes
        .len()
        .min(usize::try_from(want).unwrap_or(usize::MAX));
    while block.len < size && !block.last {
        match read_some(&mut input.read, &mut block.bytes[block.len..size]) {
            Ok(0) => block.last = true,
            Ok(n) => block.len += n,
            Err(e) => {
                block.failure = Some(reason(&e, input.gzip));
                block.last = true;
            }
        }
        if !input.fill && block.len > 0 {
            break;
        }
    }
    input.wanted = input.wanted.saturating_sub(block.len as u64);
    *ended = block.last;
    block
}
