//! Lines to standard output and to files, as sinks.
//!
//! Laws
//! 1. A line is written whole, and the lines of one shard in their order; those of several shards meet in any order.
//! 2. The shard only formats. Writing is done by a helper thread ([`Relay`]): a slow target blocks the sink, and so on up to
//!    the source.
//! 3. A step's lines are handed on at its end, however few: output waits for nothing but the writer.
//! 4. After a failed write nothing more is written: what is there has no gap. The job ends with that failure.
//! 5. A file is changed by jobs that start. One that is refused before that leaves it as it was: a source or sink that cannot be opened,
//!    a checkpoint that the job does not fit to.
//! 6. What an earlier life of the job wrote, and what another job has decided, is not destroyed at a start ([`Start`](pelton::port::Start)).
//!
//! What a crash and a restart from a checkpoint do:
//!
//! | sink | where lines go | after a restart | others see |
//! |---|---|---|---|
//! | [`stdout`], [`file()`] | as they are, one file | lines since the last checkpoint come again: at least once | lines when they are written |
//! | [`parts`] | a file for each epoch and shard | exactly once | an epoch's lines when it is decided |
//! | [`growing`] | a file for each shard | exactly once: what was not decided is cut off | lines when they are written, also those that are cut off later |
//!
//! Results that later ones replace are written with what says so: [`changes_json`] and [`changes`] write each
//! [change](mod@pelton::change) with its kind, [`upserts_json`] the row that a key has from now on, or that it has none.
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

mod changes;
mod folder;
mod growing;
mod parts;
mod target;

pub use changes::{Changes, ChangesJson, UpsertsJson, changes, changes_json, upserts_json};
pub use folder::Held;
pub use growing::{Growing, committed, growing};
pub use parts::{Parts, parts};

use pelton::batch::Stamp;
use pelton::checkpoint::Epoch;
use pelton::port::Ports;
use pelton::sink::{Output, PreCommit, Relay, Sink, Writer};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use target::Target;

/// A buffer is full at so many bytes; what one step formats may go beyond.
const BUFFER_BYTES: usize = 64 << 10;

/// What a sink's failure says when whoever read its output has gone: a filter ends quietly there, as others do.
pub const READER_GONE: &str = "whoever read this output has gone (broken pipe)";

/// Turns a record into lines. One clone a shard.
pub trait Format<T>: Clone + Send + 'static {
    /// How the names of files end that a sink makes: `jsonl`.
    fn extension(&self) -> &'static str {
        "txt"
    }
    /// Whether what it writes tells a reader which results later ones replace: a sink with it takes updates without being told.
    fn tells_updates(&self) -> bool {
        false
    }
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
    fn extension(&self) -> &'static str {
        "jsonl"
    }
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

/// Lines appended to a file, which is made if it is not there. If it ends within a line, as a crash may leave it, that line is
/// ended first and stays: nothing that is there is ever cut.
///
/// With checkpoints the lines before a barrier are on their device before the checkpoint counts, so none is lost; those since the
/// last one are written again after a crash. For lines that count exactly once see [`parts`] and [`growing`].
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
    /// Empties the file when the job begins. One that goes on from a checkpoint of its own appends, since what is there was written by
    /// an earlier life of it; one that starts from another job's checkpoint or a savepoint begins. For standard output it means nothing.
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
        ports.at_start(name, move |start| {
            lock(&started).start(start.went_on_from.is_none())?;
            if let Some(made) = made {
                made.keep();
            }
            Ok(())
        });
        (0..ports.shards())
            .map(|shard| {
                let output = Shared(target.clone());
                let relay = Relay::open(ports, shard, apart.as_ref(), BUFFER_BYTES, output)?;
                Ok(LinesWriter::new(relay, self.format.clone(), None))
            })
            .collect()
    }

    fn takes_updates(&self) -> bool {
        self.updates || self.format.tells_updates()
    }
}

fn lock(target: &Mutex<Target>) -> MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One target for all shards.
struct Shared(Arc<Mutex<Target>>);

impl Output<u8> for Shared {
    fn write(&mut self, lines: &mut Vec<u8>) -> Result<(), String> {
        lock(&self.0).write(lines)
    }
    /// What is written is visible already; so that none of it is lost, it is on its device before the epoch is decided.
    fn pre_commit(&mut self, _: Epoch) -> Result<Option<Vec<u8>>, String> {
        lock(&self.0).finish().map(|()| None)
    }
    fn finish(&mut self) -> Result<(), String> {
        lock(&self.0).finish()
    }
}

/// One shard's writer of lines: formats them and hands them on.
#[derive(Debug)]
pub struct LinesWriter<F> {
    relay: Relay<u8>,
    format: F,
    /// The folder that is the job's for as long as the writer is there.
    _held: Option<Held>,
}

impl<F> LinesWriter<F> {
    fn new(relay: Relay<u8>, format: F, held: Option<Held>) -> Self {
        LinesWriter {
            relay,
            format,
            _held: held,
        }
    }
}

impl<T: 'static, F: Format<T>> Writer<T> for LinesWriter<F> {
    #[inline]
    fn write(&mut self, record: T, _: Stamp) {
        let buffer = self.relay.buffer();
        let begin = buffer.len();
        if let Err(what) = self.format.format(&record, buffer) {
            buffer.truncate(begin);
            self.relay.fail(what);
        }
        self.relay.filled();
    }

    fn flush(&mut self, _: u64) -> Result<(), String> {
        self.relay.flush()
    }

    fn blocked(&self) -> bool {
        self.relay.blocked()
    }

    fn rings(&self) -> bool {
        true
    }

    fn barrier(&mut self, epoch: Epoch) {
        self.relay.barrier(epoch);
    }

    fn pre_commit(&mut self, _: u64) -> Result<PreCommit, String> {
        self.relay.pre_commit()
    }

    fn finish(&mut self, _: u64) -> Result<bool, String> {
        self.relay.finish()
    }
}
