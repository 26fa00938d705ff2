//! The shard's half of a sink that writes on another thread: buffers that go round, barriers and the end in their order.
//!
//! Laws
//! 1. The shard never waits. Buffers go round, two besides the one being filled; when those are under way and that one is full, the
//!    writer is blocked, and so on up to the source.
//! 2. What a step wrote is handed on at its end, however little: output waits for nothing but the output.
//! 3. What is between two barriers in the stream is between them for the output. A barrier does not wait for a free buffer: it
//!    takes the one being filled along, so that there is one buffer more for as long as it is under way.
//! 4. After a failure nothing more is given to the output: what is there has no gap. The job ends with that failure.

use super::PreCommit;
use crate::checkpoint::Epoch;
use crate::port::{Apart, Port, Ports};

/// Buffers besides the one being filled.
const BUFFERS: usize = 2;
/// Requests under way at most: those buffers, a barrier with its own, and the end.
const REQUESTS: usize = BUFFERS + 3;

/// Where a [`Relay`] writes to. Called on a helper thread, or, in simulation, in the step that writes.
pub trait Output<T>: Send + 'static {
    /// Writes what is in `buffer`, in order. What it leaves there is dropped.
    fn write(&mut self, buffer: &mut Vec<T>) -> Result<(), String>;
    /// A barrier: makes durable what has been written since the last one; see [`PreCommit::Ready`].
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, String>;
    /// The end: everything goes where it belongs. A barrier may still come.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

#[derive(Debug)]
enum Request<T> {
    Write(Vec<T>),
    PreCommit(Epoch),
    Finish,
}

#[derive(Debug)]
enum Response<T> {
    Written(Vec<T>, Result<(), String>),
    Prepared(Result<Option<Vec<u8>>, String>),
    Finished(Result<(), String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The last request is under way.
    Asked,
    Done,
}

/// A barrier that has passed.
#[derive(Debug)]
enum Barrier {
    None,
    UnderWay,
    Prepared(Option<Vec<u8>>),
}

/// See the module: what a [`Writer`](super::Writer) whose output is slow is made of. Its methods are those of a writer.
#[derive(Debug)]
pub struct Relay<T> {
    port: Port<Request<T>, Response<T>>,
    /// Entries of a full buffer; what one step adds may go beyond.
    full: usize,
    /// Being filled.
    buffer: Vec<T>,
    spare: Vec<Vec<T>>,
    /// Requests not answered yet.
    under_way: usize,
    failure: Option<String>,
    end: End,
    barrier: Barrier,
}

impl<T: Send + 'static> Relay<T> {
    /// A relay to `output` for a shard's writer, whose buffers are full at so many entries. `apart`: see [`Ports::apart`].
    pub fn open(
        ports: &mut Ports<'_>,
        shard: usize,
        apart: Option<&Apart>,
        full: usize,
        mut output: impl Output<T>,
    ) -> Result<Self, String> {
        let mut failed = None;
        let handler = move |request| serve(&mut output, &mut failed, full, request);
        let port = match apart {
            Some(apart) => ports.port_apart(apart, shard, REQUESTS, handler)?,
            None => ports.port(shard, REQUESTS, handler)?,
        };
        Ok(Relay {
            port,
            full,
            buffer: Vec::new(),
            spare: (0..BUFFERS).map(|_| Vec::new()).collect(),
            under_way: 0,
            failure: None,
            end: End::Open,
            barrier: Barrier::None,
        })
    }

    /// The buffer being filled; [`Relay::filled`] is to be called when something was added.
    #[inline]
    pub fn buffer(&mut self) -> &mut Vec<T> {
        &mut self.buffer
    }

    /// Hands the buffer on if it is full.
    #[inline]
    pub fn filled(&mut self) {
        if self.buffer.len() >= self.full && !self.spare.is_empty() {
            // A failure stays and is told by the flush at the step's end.
            let _ = self.flush();
        }
    }

    /// Nothing more is to be written; told by the next call that can.
    pub fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// Hands the buffer on, if one is there to go on with.
    pub fn flush(&mut self) -> Result<(), String> {
        self.collect();
        if !self.buffer.is_empty()
            && self.failure.is_none()
            && let Some(spare) = self.spare.pop()
        {
            let full = std::mem::replace(&mut self.buffer, spare);
            self.submit(Request::Write(full));
            // In simulation it has been written by now.
            self.collect();
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Law 1.
    pub fn blocked(&self) -> bool {
        self.spare.is_empty() && self.buffer.len() >= self.full
    }

    /// Law 3.
    pub fn barrier(&mut self, epoch: Epoch) {
        self.collect();
        self.barrier = Barrier::UnderWay;
        if self.failure.is_some() {
            return;
        }
        if !self.buffer.is_empty() {
            let next = self.spare.pop().unwrap_or_default();
            let last = std::mem::replace(&mut self.buffer, next);
            self.submit(Request::Write(last));
        }
        self.submit(Request::PreCommit(epoch));
    }

    /// Whether the output has answered the barrier.
    pub fn pre_commit(&mut self) -> Result<PreCommit, String> {
        self.collect();
        if let Some(what) = &self.failure {
            return Err(what.clone());
        }
        match std::mem::replace(&mut self.barrier, Barrier::None) {
            Barrier::None => Ok(PreCommit::Ready(None)),
            Barrier::Prepared(prepared) => Ok(PreCommit::Ready(prepared)),
            Barrier::UnderWay => {
                self.barrier = Barrier::UnderWay;
                Ok(PreCommit::Pending)
            }
        }
    }

    /// Whether everything has been written and the output has finished.
    pub fn finish(&mut self) -> Result<bool, String> {
        self.flush()?;
        if self.end == End::Open && self.buffer.is_empty() {
            self.end = End::Asked;
            self.submit(Request::Finish);
            self.flush()?;
        }
        Ok(self.end == End::Done)
    }

    /// Takes what has been answered.
    fn collect(&mut self) {
        while let Some(response) = self.port.take() {
            self.under_way -= 1;
            let result = match response {
                Response::Written(buffer, result) => {
                    if self.spare.len() < BUFFERS {
                        self.spare.push(buffer);
                    }
                    result
                }
                Response::Prepared(result) => result.map(|prepared| {
                    self.barrier = Barrier::Prepared(prepared);
                }),
                Response::Finished(result) => {
                    self.end = End::Done;
                    result
                }
            };
            if let Err(what) = result {
                self.fail(what);
            }
        }
        if self.under_way > 0 && self.port.is_closed() {
            self.fail("the thread that writes has ended".into());
        }
    }

    fn submit(&mut self, request: Request<T>) {
        match self.port.submit(request) {
            Ok(()) => self.under_way += 1,
            // The port has room for all that may be under way, so its other side has gone.
            Err(_) => self.fail("the thread that writes has ended".into()),
        }
    }
}

/// Serves a request on the output's side (law 4).
fn serve<T>(
    output: &mut impl Output<T>,
    failed: &mut Option<String>,
    full: usize,
    request: Request<T>,
) -> Response<T> {
    fn attempt<R>(
        failed: &mut Option<String>,
        f: impl FnOnce() -> Result<R, String>,
    ) -> Result<R, String> {
        if let Some(what) = failed {
            return Err(what.clone());
        }
        f().inspect_err(|what| *failed = Some(what.clone()))
    }
    match request {
        Request::Write(mut buffer) => {
            let result = attempt(failed, || output.write(&mut buffer));
            buffer.clear();
            // One huge step does not keep its memory for good.
            buffer.shrink_to(4 * full);
            Response::Written(buffer, result)
        }
        Request::PreCommit(epoch) => {
            Response::Prepared(attempt(failed, || output.pre_commit(epoch)))
        }
        Request::Finish => Response::Finished(attempt(failed, || output.finish())),
    }
}
