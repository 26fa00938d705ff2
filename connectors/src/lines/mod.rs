//! Lines to standard output and to files, as sinks.
//!
//! Laws
//! 1. A line is written whole, and the lines of one shard in their order; those of several shards meet in any order.
//! 2. The shard only formats. Writing is done by a helper thread; buffers go round, two a shard besides the one being
//!    filled. When those are under way and that one is full, the sink is blocked, and so on up to the source.
//! 3. A step's lines are handed on at its end, however few: output waits for nothing but the writer.
//! 4. After a failed write nothing more is written: what is there has no gap. The job ends with that failure.
//! 5. A file is changed by jobs that start. One that is refused, for whatever reason, leaves it as it was.
//!
//! ```no_run
//! use pelton::{Job, sources};
//! use pelton_connectors::lines;
//! use std::io::Write;
//! let job = Job::new("squares");
//! job.source(sources::items(1..=3u64))
//!    .map(|x| x * x)
//!    .sink(lines::stdout(lines::text(|x: &u64, line| writeln!(line, "{x}"))));
//! ```

mod target;

use pelton::batch::Stamp;
use pelton::port::{Port, Ports};
use pelton::sink::{Sink, Writer};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use target::Target;

/// Buffers of a shard's writer besides the one being filled.
const BUFFERS: usize = 2;
/// A buffer is full at so many bytes; what one step formats may go beyond.
const BUFFER_BYTES: usize = 64 << 10;

/// What a sink's failure says when whoever read its output has gone: a filter ends quietly there, as others do.
pub const READER_GONE: &str = "whoever read this output has gone (broken pipe)";

/// Turns a record into lines. One clone a shard.
pub trait Format<T>: Clone + Send + 'static {
    /// Appends the record's line or lines, line ends included.
    fn format(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), String>;
}

/// Each record as a line of JSON, by serde.
pub fn json() -> Json {
    Json(())
}

/// See [`json`].
#[derive(Clone, Copy, Debug)]
pub struct Json(());

impl<T: Serialize> Format<T> for Json {
    #[inline]
    fn format(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), String> {
        serde_json::to_writer(&mut *out, record)
            .map_err(|e| format!("a record cannot be written as JSON: {e}"))?;
        out.push(b'\n');
        Ok(())
    }
}

/// Each record as `f` writes it: `text(|order: &Order, line| writeln!(line, "{}", order.id))`.
pub fn text<T, F>(f: F) -> Text<F>
where
    F: Fn(&T, &mut Vec<u8>) -> io::Result<()> + Clone + Send + 'static,
{
    Text(f)
}

/// See [`text`].
#[derive(Clone, Copy, Debug)]
pub struct Text<F>(F);

impl<T, F: Fn(&T, &mut Vec<u8>) -> io::Result<()> + Clone + Send + 'static> Format<T> for Text<F> {
    #[inline]
    fn format(&mut self, record: &T, out: &mut Vec<u8>) -> Result<(), String> {
        (self.0)(record, out).map_err(|e| format!("a record cannot be written as text: {e}"))
    }
}

/// Lines to standard output.
pub fn stdout<F>(format: F) -> Lines<F> {
    Lines {
        to: To::Stdout,
        format,
        updates: false,
    }
}

/// Lines appended to a file, which is made if it is not there. If it ends within a line, that line is ended first.
pub fn file<F>(path: impl AsRef<Path>, format: F) -> Lines<F> {
    Lines {
        to: To::File {
            path: path.as_ref().to_owned(),
            overwrite: false,
        },
        format,
        updates: false,
    }
}

/// A sink of lines: see [`stdout`] and [`file()`].
#[derive(Clone, Debug)]
pub struct Lines<F> {
    to: To,
    format: F,
    updates: bool,
}

#[derive(Clone, Debug)]
enum To {
    Stdout,
    File { path: PathBuf, overwrite: bool },
}

impl<F> Lines<F> {
    /// Empties the file when the job starts. For standard output it means nothing.
    pub fn overwrite(mut self) -> Self {
        if let To::File { overwrite, .. } = &mut self.to {
            *overwrite = true;
        }
        self
    }

    /// Says that whoever reads the lines copes with results that later ones replace: the last line of a key counts.
    pub fn updates(mut self) -> Self {
        self.updates = true;
        self
    }
}

impl<T: 'static, F: Format<T>> Sink<T> for Lines<F> {
    type Writer = LinesWriter<F>;

    fn name(&self) -> String {
        match &self.to {
            To::Stdout => "stdout".into(),
            To::File { path, .. } => path.display().to_string(),
        }
    }

    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Self::Writer>, String> {
        let (target, made) = match &self.to {
            To::Stdout => (Target::stdout(), None),
            To::File { path, overwrite } => Target::file(path, *overwrite)?,
        };
        // Whoever reads a pipe or a terminal may take their time.
        let apart = target.may_wait().then(|| ports.apart()).transpose()?;
        // All its ports are served by one thread, so this is never waited for.
        let target = Arc::new(Mutex::new(target));
        let name = Sink::<T>::name(self);
        let started = target.clone();
        // Law 5. Dropped uncalled, it takes a file away that was made for the job.
        ports.at_start(name, move || {
            lock(&started).start()?;
            if let Some(made) = made {
                made.keep();
            }
            Ok(())
        });
        (0..ports.shards())
            .map(|shard| {
                let target = target.clone();
                let handler = move |request| serve(&mut lock(&target), request);
                let port = match &apart {
                    Some(apart) => ports.port_apart(apart, shard, BUFFERS + 1, handler)?,
                    None => ports.port(shard, BUFFERS + 1, handler)?,
                };
                Ok(LinesWriter {
                    port,
                    format: self.format.clone(),
                    buffer: Vec::new(),
                    spare: vec![Vec::new(); BUFFERS],
                    under_way: 0,
                    failure: None,
                    end: End::Open,
                })
            })
            .collect()
    }

    fn takes_updates(&self) -> bool {
        self.updates
    }
}

#[derive(Debug)]
enum Request {
    Write(Vec<u8>),
    Finish,
}

#[derive(Debug)]
struct Response {
    buffer: Option<Vec<u8>>,
    result: Result<(), String>,
}

fn lock(target: &Mutex<Target>) -> MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(target: &mut Target, request: Request) -> Response {
    match request {
        Request::Write(mut buffer) => {
            let result = target.write(&buffer);
            buffer.clear();
            // One huge step does not keep its memory for good.
            buffer.shrink_to(4 * BUFFER_BYTES);
            Response {
                buffer: Some(buffer),
                result,
            }
        }
        Request::Finish => Response {
            buffer: None,
            result: target.finish(),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The last request is under way.
    Asked,
    Done,
}

/// One shard's writer of [`Lines`].
#[derive(Debug)]
pub struct LinesWriter<F> {
    port: Port<Request, Response>,
    format: F,
    /// Being filled.
    buffer: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Requests not answered yet.
    under_way: usize,
    failure: Option<String>,
    end: End,
}

impl<F> LinesWriter<F> {
    /// Takes what has been written.
    fn collect(&mut self) {
        while let Some(response) = self.port.take() {
            self.under_way -= 1;
            match response.buffer {
                Some(buffer) => self.spare.push(buffer),
                None => self.end = End::Done,
            }
            if let Err(what) = response.result {
                self.failure.get_or_insert(what);
            }
        }
        if self.under_way > 0 && self.port.is_closed() {
            self.failure
                .get_or_insert("the thread that writes has ended".into());
        }
    }

    fn submit(&mut self, request: Request) {
        match self.port.submit(request) {
            Ok(()) => self.under_way += 1,
            // The port has room for all buffers and the end, so its other side has gone.
            Err(_) => {
                self.failure
                    .get_or_insert("the thread that writes has ended".into());
            }
        }
    }

    /// Hands the buffer on, if one is there to go on with.
    fn hand_on(&mut self) -> Result<(), String> {
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
        match &self.failure {
            Some(what) => Err(what.clone()),
            None => Ok(()),
        }
    }
}

impl<T: 'static, F: Format<T>> Writer<T> for LinesWriter<F> {
    #[inline]
    fn write(&mut self, record: T, _: Stamp) {
        let begin = self.buffer.len();
        if let Err(what) = self.format.format(&record, &mut self.buffer) {
            self.buffer.truncate(begin);
            self.failure.get_or_insert(what);
        }
        if self.buffer.len() >= BUFFER_BYTES && !self.spare.is_empty() {
            // A failure stays and is told by the flush at the step's end.
            let _ = self.hand_on();
        }
    }

    fn flush(&mut self, _: u64) -> Result<(), String> {
        self.hand_on()
    }

    fn blocked(&self) -> bool {
        self.spare.is_empty() && self.buffer.len() >= BUFFER_BYTES
    }

    fn rings(&self) -> bool {
        true
    }

    fn finish(&mut self, _: u64) -> Result<bool, String> {
        self.hand_on()?;
        if self.end == End::Open && self.buffer.is_empty() {
            self.end = End::Asked;
            self.submit(Request::Finish);
            self.hand_on()?;
        }
        Ok(self.end == End::Done)
    }
}
