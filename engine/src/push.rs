//! How records move inside a stage: a chain of [`Push`] values, each owning the next, compiled into one loop.
//!
//! Laws
//! 1. Records and control events reach every link in one order. A link hands control on after its own share.
//! 2. A link never blocks. What cannot be sent waits in the terminal; [`Push::blocked`] tells the stage to stop feeding.
//! 3. A watermark that a link has passed on never falls; after it no record is passed on whose V(r) lies below it.

use crate::batch::{Batch, Origin, Stamp};
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::state::LoadError;
use crate::time::EventTime;
use std::cell::Cell;

/// What is known while records move: who, when, where they came from, and what has been counted.
#[derive(Debug)]
pub struct Cx {
    /// Driver's monotonic nanoseconds at the start of the step.
    pub now_ns: u64,
    /// Wall clock at the start of the step, microseconds since the epoch (for processing-time windows and idleness).
    pub wall: EventTime,
    /// The shard.
    pub shard: usize,
    /// Arrival of the newest record being processed, in driver's nanoseconds.
    pub arrival_ns: u64,
    /// Arrival of the oldest one, where that is known to be another; else `u64::MAX`.
    pub arrival_oldest_ns: u64,
    /// The source partition being read: an index into the shard's partitions of that source.
    pub partition: usize,
    /// Records read from that partition since the last flush, malformed ones included.
    pub read: u64,
    /// Origin of the current record; of the first one while a source's batch is pushed.
    pub origin: Origin,
    /// How far apart the offsets of a source's batch are.
    pub offset_step: u64,
    /// Counted since the driver last took them.
    pub counters: Counters,
    /// What the driver has taken of it so far.
    taken: Counters,
    /// Counted in all before the barrier that passed last.
    at_barrier: Counters,
    /// Shards whose rings were published to in this step, a bit each (bit 63 stands for all from 63 up).
    pub published: u64,
    /// Records that could not be used, with their reasons, until the stage hands them to the dead-letter output.
    pub dead: Vec<DeadLetter>,
    /// Whether dead letters are wanted at all; otherwise they are only counted.
    pub keep_dead: bool,
    /// States have reached the job's budget, or as many epochs are uncommitted as may be: sources are not to read. Set by the driver
    /// before each step.
    pub hold: bool,
    /// Whether the first of them stops the job: the policy of the source partition being read.
    pub stop_on_malformed: bool,
    /// The first failure that ends the job, set by a link that cannot go on.
    pub failure: Option<crate::error::JobError>,
    /// Where time goes.
    pub latencies: Box<crate::latency::Latencies>,
}

impl Cx {
    /// A context for `shard` at time zero.
    pub fn new(shard: usize) -> Self {
        Cx {
            now_ns: 0,
            wall: EventTime::from_micros(0),
            shard,
            arrival_ns: 0,
            arrival_oldest_ns: u64::MAX,
            partition: 0,
            read: 0,
            origin: Origin::default(),
            offset_step: 0,
            counters: Counters::default(),
            taken: Counters::default(),
            at_barrier: Counters::default(),
            published: 0,
            dead: Vec::new(),
            keep_dead: false,
            hold: false,
            stop_on_malformed: false,
            failure: None,
            latencies: Box::default(),
        }
    }

    /// What has been counted since the last call.
    pub(crate) fn take_counters(&mut self) -> Counters {
        let counters = std::mem::take(&mut self.counters);
        self.taken.add(&counters);
        counters
    }

    /// A barrier has passed: what was counted by now belongs to its epoch.
    pub(crate) fn barrier_passed(&mut self) {
        self.at_barrier = self.taken;
        self.at_barrier.add(&self.counters);
    }

    /// Counted in all before the barrier that passed last.
    pub(crate) fn at_barrier(&self) -> Counters {
        self.at_barrier
    }

    /// The origin of record `index` of a source's batch whose first is `first`.
    pub(crate) fn run_origin(&self, first: Origin, index: u64) -> Origin {
        Origin {
            offset: first
                .offset
                .wrapping_add(index.wrapping_mul(self.offset_step)),
            ..first
        }
    }

    /// What is processed from here on arrived at this time.
    #[inline(always)]
    pub(crate) fn arrived_at(&mut self, ns: u64) {
        self.arrival_ns = ns;
        self.arrival_oldest_ns = u64::MAX;
    }

    /// Arrival of the oldest record being processed.
    #[inline(always)]
    pub(crate) fn oldest_ns(&self) -> u64 {
        self.arrival_oldest_ns.min(self.arrival_ns)
    }

    /// Counts `records` that reached a sink in this step, with the time since the oldest of them arrived.
    pub fn sunk(&mut self, records: u64) {
        let waited = self.now_ns.saturating_sub(self.oldest_ns()).max(1);
        self.latencies
            .end_to_end_ns
            .saturating_record_n(waited, records);
    }

    /// Marks that a ring towards `shard` has been published to, so that its doorbell is rung once after the step.
    #[inline(always)]
    pub fn published_to(&mut self, shard: usize) {
        self.published |= 1 << shard.min(63);
    }

    /// Counts a malformed record and keeps it for the dead-letter output, where one is set, or for the job's end.
    #[cold]
    pub fn malformed(&mut self, reason: impl FnOnce() -> DeadLetter) {
        self.counters.malformed += 1;
        if self.keep_dead || self.stop_on_malformed {
            let letter = reason();
            self.dead.push(letter);
        }
    }
}

/// A record that could not be used: where it stood and why. The type of the dead-letter output.
#[crate::state(version = 1)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Name of the source or operator that refused it.
    pub at: String,
    /// The source partition's name (a file's path), or its number. A record that an operator made (a window's result, say) has no place in a source:
    /// it says so, and which operator made it.
    pub partition: String,
    /// Offset in the partition (bytes for files, an index for generators). Of a record that an operator made a number that is the same in every run:
    /// the hash of its key, mostly.
    pub offset: u64,
    /// Line number from 1, where the source has lines.
    pub line: Option<u64>,
    /// Why.
    pub reason: String,
    /// The record's raw bytes, where the source has them (cut at [`DeadLetter::PAYLOAD_MAX`]).
    pub payload: Vec<u8>,
}

impl DeadLetter {
    /// Bytes of a payload that are kept.
    pub const PAYLOAD_MAX: usize = 4096;

    /// As much of `bytes` as is kept.
    pub(crate) fn cut(bytes: &[u8]) -> Vec<u8> {
        bytes[..bytes.len().min(Self::PAYLOAD_MAX)].to_vec()
    }
}

impl std::fmt::Display for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at, self.partition)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, " (offset {}): {}", self.offset, self.reason)
    }
}

/// What a stage counts, by cause. Every record that enters a job is in exactly one of the ways out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that entered the stage: read from a source, or received from a ring.
    pub records_in: u64,
    /// Records that left it: to rings and to sinks, outputs for late records not among them.
    pub records_out: u64,
    /// Records too late for every window they belong to.
    pub late: u64,
    /// Records too late for some of their windows and counted in the others.
    pub partly_late: u64,
    /// Records that could not be read or carry no valid event time.
    pub malformed: u64,
    /// Records behind their watermark, late or not. A stage that assigns event times counts those that it finds, one that
    /// reads rings those that arrive; a job's figure is that of the former, so each is counted once.
    pub behind: u64,
    /// Times the law M <= V(r) was found broken: always 0 unless Pelton has a fault.
    pub invariant_broken: u64,
    /// Partial matches of patterns that had to go because their key had too many, or too many events in them.
    pub dropped_matches: u64,
    /// Changes that take back a row which does not stand (or stands no longer): nothing comes of them.
    pub stray_retractions: u64,
}

impl Counters {
    /// What a stage with operators of these kinds adds to its job's counters: in from sources, out to sinks, behind where
    /// event times are assigned, the rest from anywhere.
    pub(crate) fn for_job<'a>(mut self, kinds: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |kind| kinds.clone().any(|k| k == kind);
        if !has("source") {
            self.records_in = 0;
        }
        if !has("sink") {
            self.records_out = 0;
        }
        if !has("event_time") {
            self.behind = 0;
        }
        self
    }

    /// As a checkpoint keeps them: all but the dropped matches and stray retractions, which it has apart.
    pub(crate) fn row(&self) -> [u64; 7] {
        let Counters {
            records_in,
            records_out,
            late,
            partly_late,
            malformed,
            behind,
            invariant_broken,
            dropped_matches: _,
            stray_retractions: _,
        } = *self;
        [
            records_in,
            records_out,
            late,
            partly_late,
            malformed,
            behind,
            invariant_broken,
        ]
    }

    /// From what a checkpoint has kept.
    pub(crate) fn of_row(row: [u64; 7]) -> Self {
        let [
            records_in,
            records_out,
            late,
            partly_late,
            malformed,
            behind,
            invariant_broken,
        ] = row;
        Counters {
            records_in,
            records_out,
            late,
            partly_late,
            malformed,
            behind,
            invariant_broken,
            dropped_matches: 0,
            stray_retractions: 0,
        }
    }

    /// Adds another's counts.
    pub fn add(&mut self, o: &Counters) {
        self.records_in += o.records_in;
        self.records_out += o.records_out;
        self.late += o.late;
        self.partly_late += o.partly_late;
        self.malformed += o.malformed;
        self.behind += o.behind;
        self.invariant_broken += o.invariant_broken;
        self.dropped_matches += o.dropped_matches;
        self.stray_retractions += o.stray_retractions;
    }
}

/// Events in the order of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// M has reached this time.
    Watermark(EventTime),
    /// The stage has nothing to read for now: hand on what has been gathered. Also retries what was blocked.
    Flush,
    /// Partition `partition` of the source has ended.
    PartitionEnded {
        /// Index of the partition.
        partition: usize,
    },
    /// Partition `partition` of the source was asked and had nothing more: the only proof that it is silent. One that is
    /// not asked (the terminal is blocked, alignment holds it) may have records waiting.
    PartitionPending {
        /// Index of the partition.
        partition: usize,
    },
    /// Partition `partition` of the source says by itself how far event time has come in it: see
    /// [`Reader::watermark`](crate::source::Reader::watermark).
    PartitionWatermark {
        /// Index of the partition.
        partition: usize,
        /// No record below this follows.
        time: EventTime,
    },
    /// Every input of this stage is silent.
    Idle {
        /// Open windows are to close (see [`crate::Watermarks`]).
        close: bool,
    },
    /// What came before it belongs to this epoch, what comes after it to a later one. Comes once for each epoch, and after the
    /// end too.
    Barrier(Cut),
    /// Nothing more comes.
    End,
}

/// One link of a stage's chain: takes records of type `T`.
pub trait Push<T> {
    /// Takes one record.
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx);
    /// Takes all records of a batch, in order, and leaves it empty. A link that handles whole batches faster than
    /// records does so here and says it by [`Push::takes_batches`].
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        batch.fill_times();
        batch.consume(|record, stamp, origin| {
            cx.origin = origin;
            self.push(record, stamp, cx);
            true
        });
    }
    /// Whether a stage does well to gather records for [`Push::push_batch`] instead of pushing one by one: so where all
    /// links up to the exchange handle whole batches, and nothing in between would have been fused into the loop.
    fn takes_batches(&self) -> bool {
        false
    }
    /// Takes a control event (law 1).
    fn control(&mut self, event: Control, cx: &mut Cx);
    /// Whether the terminal holds more than it may (law 2).
    fn blocked(&self) -> bool;
    /// The earliest driver's time in nanoseconds at which this link wants to be flushed again although nothing arrived.
    fn wake_at(&self) -> Option<u64> {
        None
    }
    /// Writes a piece of what this link and those behind it had kept when the barrier of the snapshot's epoch passed, and says
    /// whether that is all. Asked again until it is.
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let _ = to;
        Saved::All
    }
    /// Takes an entry of a state that was saved; whether it was one of this link or of those behind it.
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let _ = frame;
        Ok(false)
    }
}

impl<T> Push<T> for Box<dyn Push<T>> {
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        (**self).push(record, stamp, cx);
    }
    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        (**self).push_batch(batch, cx);
    }
    fn takes_batches(&self) -> bool {
        (**self).takes_batches()
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        (**self).control(event, cx);
    }
    fn blocked(&self) -> bool {
        (**self).blocked()
    }
    fn wake_at(&self) -> Option<u64> {
        (**self).wake_at()
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        (**self).save(to)
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        (**self).load(frame)
    }
}

/// Number of an operator within its job; names are kept by the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u32);

thread_local! {
    /// The innermost operator whose user code a panic left, and the record's index in its batch: written while
    /// unwinding, taken by the driver.
    static BLAMED: Cell<Option<(OpId, Option<usize>)>> = const { Cell::new(None) };
}

/// Names the operator if user code panics inside `call`. Costs nothing otherwise: the guard is seen by unwinding only.
#[inline(always)]
pub(crate) fn blame<R>(op: OpId, call: impl FnOnce() -> R) -> R {
    let guard = Guard(op, None);
    let result = call();
    std::mem::forget(guard);
    result
}

/// The same, with the record's index in the batch being processed.
#[inline(always)]
pub(crate) fn blame_at<R>(op: OpId, index: usize, call: impl FnOnce() -> R) -> R {
    let guard = Guard(op, Some(index));
    let result = call();
    std::mem::forget(guard);
    result
}

struct Guard(OpId, Option<usize>);

impl Drop for Guard {
    // Inlined, so that the guard lies in registers: nothing is stored for a call that returns.
    #[inline(always)]
    fn drop(&mut self) {
        left_by_panic(self.0, self.1);
    }
}

#[cold]
#[inline(never)]
fn left_by_panic(op: OpId, index: Option<usize>) {
    BLAMED.with(|b| {
        if b.get().is_none() {
            b.set(Some((op, index)));
        }
    });
}

/// Takes the operator that the last panic on this thread left, if it was in user code, and the record's index.
pub(crate) fn take_blamed() -> Option<(OpId, Option<usize>)> {
    BLAMED.with(Cell::take)
}
