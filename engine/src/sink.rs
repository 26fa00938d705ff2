//! What a sink is: a writer on each shard.

mod relay;
mod table;
mod transactional;
mod upserts;

pub use relay::{Output, Relay};
pub use table::{Table, TableView};
pub use transactional::{Transactional, TransactionalWriter, Transactions, transactional};
pub use upserts::{Upserting, Upserts, upserts};

use crate::batch::Stamp;
use crate::checkpoint::{Epoch, Saved, Snapshot};
use crate::port::Ports;
use crate::push::{Control, Cx, OpId, Push};
use crate::stage::source::RETRY_NS;
use crate::time::EventTime;
use pelton_storage::StateId;
use std::fmt;

/// Takes the records of a stream.
pub trait Sink<T>: Send + 'static {
    /// The writer of one shard.
    type Writer: Writer<T>;
    /// The name in errors and reports.
    fn name(&self) -> String;
    /// Opens the writers of all shards. An error says what, where and what to do; it ends the build. The job may still be
    /// refused for another reason: what destroys something belongs into [`Ports::at_start`], which is also told of the job's lineage.
    fn open(&mut self, ports: &mut Ports) -> Result<Vec<Self::Writer>, String>;
    /// Whether it can take a result again and again (last value per key counts) and not only final rows.
    /// An append-only sink on results that may be replaced later is refused when the job is built.
    fn takes_updates(&self) -> bool {
        false
    }
    /// Why it takes only records with event times, if so: a stream without them is refused when the job is built.
    fn needs_event_time(&self) -> Option<String> {
        None
    }
    /// Whether it has a [committer](Sink::committer): its output is shown when its epoch is decided, exactly once. Asked while the job is
    /// written, for its [warnings](crate::Job::warnings); a sink that has one says yes ([`crate::testing::conformance`] holds it to that).
    fn in_two_phases(&self) -> bool {
        false
    }
    /// What makes the output of an epoch visible once the epoch is decided, asked for after [`Sink::open`]. `None`: records are
    /// visible when they are written, and those since the last checkpoint are written again after a crash (at least once).
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        None
    }
}

/// Makes prepared output visible: the second phase of a two-phase sink, one for all its writers.
///
/// It runs on a thread of the job's own (at a start, on the thread that submits the job), off the shards, and may block. The order of an epoch: every writer's
/// [`Writer::pre_commit`] says what it has prepared, that is kept in the checkpoint, the checkpoint becomes durable, and only
/// then [`Committer::commit`] is called for each. A process that ends in between commits the same again when the job restarts.
///
/// Meanwhile writers write, prepare and see decided the next epochs, up to
/// [`Checkpointing::max_uncommitted`](crate::Checkpointing::max_uncommitted), whose commits come in their turn. So what is prepared of an
/// epoch must be told apart from that of others: a committer is never asked for one before all earlier ones are committed.
pub trait Committer: Send {
    /// Makes visible what a writer prepared. Called in the order of epochs, and possibly again for what was visible already:
    /// then it changes nothing.
    fn commit(&mut self, epoch: Epoch, prepared: &[u8]) -> Result<(), CommitError>;
    /// What time it is outside, told before commits where the job has a clock. For what may be thrown away, never for what is output.
    fn wall_clock(&mut self, now: EventTime) {
        let _ = now;
    }
    /// The job starts, and no source has read anything: whatever was prepared for an epoch after `last` (all, if there is none),
    /// and is not committed, is to be discarded. What was decided has been committed before.
    fn recover(&mut self, last: Option<Epoch>) -> Result<(), String>;
}

/// Why prepared output could not be made visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitError {
    /// What happened and what to do.
    pub what: String,
    /// Whether trying again may help. It is then tried again for as long as the job runs, since what was decided is never
    /// rolled back; otherwise the job ends with this text, and the next start tries once more.
    pub is_retryable: bool,
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// How far a writer is with its share of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreCommit {
    /// Not there yet: ask again.
    Pending,
    /// All that was written before the barrier is where a crash does not reach it. The bytes tell [`Committer::commit`] what to
    /// make visible; `None`: nothing.
    Ready(Option<Vec<u8>>),
}

/// A sink's writer on one shard. It never blocks: what cannot be written yet it holds, within a bound, and says so.
pub trait Writer<T>: Send + 'static {
    /// Takes a record.
    fn write(&mut self, record: T, stamp: Stamp);
    /// Hands on what has been gathered; called at the end of each step that wrote, and again while [`Writer::blocked`].
    fn flush(&mut self, _now_ns: u64) -> Result<(), String> {
        Ok(())
    }
    /// Whether it holds as much as it may: the stage stops feeding it, and so on up to the source.
    fn blocked(&self) -> bool {
        false
    }
    /// Whether a doorbell is rung when a blocked writer has room again, as a [`crate::port::Port`] does. One that frees
    /// itself in another way (a rate limit, room in a queue of its own) is flushed again every 50 us while it is blocked.
    fn rings(&self) -> bool {
        false
    }
    /// A barrier passes: what has been written belongs to `epoch`, what follows to a later one. Comes after the end too.
    fn barrier(&mut self, epoch: Epoch) {
        let _ = epoch;
    }
    /// Asked after a barrier until it is ready; meanwhile records of the next epoch may come. An error ends the job.
    fn pre_commit(&mut self, _now_ns: u64) -> Result<PreCommit, String> {
        Ok(PreCommit::Ready(None))
    }
    /// Nothing more comes. Called until it says `true`: everything is where it belongs.
    fn finish(&mut self, _now_ns: u64) -> Result<bool, String> {
        Ok(true)
    }
}

/// The last link of a chain that ends in a sink.
pub(crate) struct SinkLink<W> {
    pub writer: W,
    pub op: OpId,
    pub name: String,
    /// Not what the job is for, but what fell aside: its records are counted by their cause where they did, and not as results.
    pub aside: bool,
    /// Written since the last flush.
    pub written: u64,
    /// Driver's nanoseconds of the last flush.
    pub flushed_ns: u64,
    pub ended: bool,
    pub finished: bool,
    /// Its name in checkpoints.
    pub state: StateId,
    /// A barrier has passed whose share is not ready.
    pub preparing: bool,
}

impl<W> SinkLink<W> {
    fn fail(&self, cx: &mut Cx, what: String) {
        if cx.failure.is_none() {
            cx.failure = Some(crate::error::JobError::Sink {
                job: String::new(),
                sink: self.name.clone(),
                shard: cx.shard,
                what,
            });
        }
    }
}

impl<T, W: Writer<T>> Push<T> for SinkLink<W> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.written += 1;
        let _ = cx;
        crate::push::blame(self.op, || self.writer.write(record, stamp));
    }

    fn control(&mut self, event: Control, cx: &mut Cx) {
        if let Control::PartitionPending { .. } | Control::PartitionWatermark { .. } = event {
            return;
        }
        self.flushed_ns = cx.now_ns;
        let result = crate::push::blame(self.op, || self.writer.flush(cx.now_ns));
        if let Err(what) = result {
            self.fail(cx, what);
        }
        if self.written > 0 {
            if !self.aside {
                cx.counters.records_out += self.written;
                cx.sunk(self.written);
            }
            self.written = 0;
        }
        if let Control::Barrier(cut) = event {
            crate::push::blame(self.op, || self.writer.barrier(cut.epoch));
            self.preparing = true;
        }
        self.ended |= event == Control::End;
        if self.ended && !self.finished && cx.failure.is_none() {
            match crate::push::blame(self.op, || self.writer.finish(cx.now_ns)) {
                Ok(done) => self.finished = done,
                Err(what) => {
                    self.finished = true;
                    self.fail(cx, what);
                }
            }
        }
    }

    fn blocked(&self) -> bool {
        self.writer.blocked() || (self.ended && !self.finished)
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        if !self.preparing {
            return Saved::All;
        }
        let prepared = crate::push::blame(self.op, || self.writer.pre_commit(to.now_ns));
        match prepared {
            Ok(PreCommit::Pending) => return Saved::More,
            Ok(PreCommit::Ready(prepared)) => {
                if let Some(bytes) = prepared {
                    to.committable(self.state, bytes);
                }
            }
            Err(what) => {
                to.sink_failed(self.name.clone(), what);
                return Saved::More;
            }
        }
        self.preparing = false;
        Saved::All
    }

    fn wake_at(&self) -> Option<u64> {
        let asks = self.writer.blocked() && !self.writer.rings();
        asks.then(|| self.flushed_ns + RETRY_NS)
    }
}

/// Calls a function for each record, on the shard where it is: `sink_fn(|order| ..)`. One clone of it a shard.
#[derive(Clone, Debug)]
pub struct Callback<F> {
    name: String,
    f: F,
    updates: bool,
}

/// A sink that calls `f` for each record. Append-only; see [`Callback::updates`].
///
/// It keeps nothing, and no record is too late for it. In a job with checkpoints it is called again, after a crash, for the records since the last one.
///
/// ```
/// use pelton::{Job, sink, sources, testing};
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
/// let latest = Arc::new(AtomicU64::new(0));
/// let shown = latest.clone();
/// let job = Job::new("a total, shown as it grows");
/// job.source(sources::items([3u64, 4]))
///    .key_by(|_| 'a')
///    .reduce(|sum, n| *sum += n)
///    .sink(sink::callback("show", move |total: pelton::Keyed<char, u64>, _| shown.store(total.value, Relaxed)).updates());
/// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
/// assert_eq!(latest.load(Relaxed), 7);
/// ```
pub fn callback<F>(name: impl Into<String>, f: F) -> Callback<F> {
    Callback {
        name: name.into(),
        f,
        updates: false,
    }
}

impl<F> Callback<F> {
    /// Says that the function copes with results that later ones replace: last value per key counts.
    pub fn updates(mut self) -> Self {
        self.updates = true;
        self
    }
}

/// Writer of [`Callback`].
#[derive(Debug)]
pub struct CallbackWriter<F>(F);

impl<T: 'static, F: FnMut(T, Stamp) + Clone + Send + 'static> Sink<T> for Callback<F> {
    type Writer = CallbackWriter<F>;
    fn name(&self) -> String {
        self.name.clone()
    }
    fn open(&mut self, ports: &mut Ports) -> Result<Vec<Self::Writer>, String> {
        Ok((0..ports.shards())
            .map(|_| CallbackWriter(self.f.clone()))
            .collect())
    }
    fn takes_updates(&self) -> bool {
        self.updates
    }
}

impl<T, F: FnMut(T, Stamp) + Send + 'static> Writer<T> for CallbackWriter<F> {
    #[inline(always)]
    fn write(&mut self, record: T, stamp: Stamp) {
        (self.0)(record, stamp);
    }
}
