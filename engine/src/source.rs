//! What a source is: partitions that hand records over when asked.
//!
//! A partition's split never depends on the number of shards. Each has its own watermark generator; it is read by one
//! shard, and its records carry (source, partition, offset) as their origin.

use crate::port::Ports;
use crate::time::EventTime;

/// A stream of records in one or more partitions.
pub trait Source: Send + 'static {
    /// What it yields.
    type Item: Send + 'static;
    /// A partition.
    type Reader: Reader<Item = Self::Item>;
    /// The name in errors and reports: a path, a topic.
    fn name(&self) -> String;
    /// Whether a partition may have nothing for a while and more later: a topic, a socket, a file that is followed. One that only ends may not.
    /// Asked while the job is written, for its [warnings](crate::Job::warnings): what waits for the watermark of such a source wants
    /// [`Watermarks::idle_after`](crate::Watermarks::idle_after).
    fn may_fall_silent(&self) -> bool {
        true
    }
    /// Opens all partitions, in a fixed order. An error says what, where and what to do; it ends the build.
    fn open(&mut self, ports: &mut Ports) -> Result<Vec<Self::Reader>, String>;
}

/// One partition of a source. Asked by its shard, it never blocks.
pub trait Reader: Send + 'static {
    /// What it yields.
    type Item;
    /// The partition's name: a file's path, a number.
    fn name(&self) -> String;
    /// If the offsets of consecutive records always differ by the same step, that step: whole batches can then be handed
    /// on without an offset for each record.
    fn offset_step(&self) -> Option<u64> {
        None
    }
    /// Where the record at `offset` lies, as people are told in dead letters and errors: the partition's name and the
    /// offset, unless an offset means something else there (one file of several, and the place in that file).
    fn place(&self, offset: u64) -> (String, u64) {
        (self.name(), offset)
    }
    /// Whether a record that the job cannot use (no valid event time) stops it, as a malformed one of the reader's own
    /// does under `on_error = fail`. Otherwise such records are counted, and sent to the dead letters where those are set.
    fn stops_on_malformed(&self) -> bool {
        false
    }
    /// Where reading goes on: the first record that has not been emitted, whatever has been read ahead. `None`: what has been
    /// read cannot be had again, and the job cannot take checkpoints.
    fn position(&self) -> Option<Position> {
        None
    }
    /// Goes to a position of this partition, before the first read. An error says what and what to do; the job does not start.
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        let _ = position;
        Err("it cannot go back to a position".into())
    }
    /// The job goes on from a checkpoint that knows its source and not this partition, which has been added since: goes to its first
    /// record, wherever the source begins otherwise. Instead of [`Reader::seek`]; an error says what and what to do.
    fn added(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Whether nothing is left: the next read emits nothing and says [`Read::End`]. Asked while no record may be read (states
    /// above their budget), so that the end of what is finished is known all the same: the windows that it closes may be what is waited for. It may
    /// look at what has come, and emits nothing. A reader that cannot tell says no.
    fn is_through(&mut self) -> bool {
        false
    }
    /// How far event time has come by the partition's own word: no record with a time below it follows what has been emitted.
    /// Asked after each read. Where the stream has event times it counts beside what the generator says
    /// ([`Watermarks`](crate::Watermarks)), and the greater holds; a partition whose own word rises is not silent. `None`: it says nothing.
    fn watermark(&self) -> Option<EventTime> {
        None
    }
    /// Emits at most `max` records that are there already, in the partition's order.
    fn read<E: Emit<Self::Item>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError>;
}

/// A place in a partition, kept in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The offset of the next record, as people are told.
    pub offset: u64,
    /// What else the reader needs to find it, and to know that the partition is the same: a file's identity.
    pub detail: Vec<u8>,
}

impl Position {
    /// A place that an offset alone tells.
    pub fn at(offset: u64) -> Self {
        Position {
            offset,
            detail: vec![],
        }
    }
}

/// What a read achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// There may be more at once.
    More,
    /// Nothing more for now; a port's doorbell will say, or ask again at this time (driver's nanoseconds).
    Pending {
        /// When to ask again, if no doorbell says so earlier.
        until_ns: Option<u64>,
    },
    /// The partition has ended.
    End,
}

/// Reading failed: the job stops with this text, the partition and its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Where.
    pub offset: u64,
    /// The line's number from 1, where the source has lines.
    pub line: Option<u64>,
    /// What happened and what to do.
    pub what: String,
    /// A malformed record under `on_error = fail`, not a failure of the environment.
    pub malformed: bool,
}

/// Takes what a reader yields.
pub trait Emit<T> {
    /// A record at `offset`, which arrived now.
    fn emit(&mut self, offset: u64, record: T);
    /// Records whose offsets start at `first` and differ by `step`, which arrived now: faster than one by one.
    #[inline]
    fn emit_run(&mut self, first: u64, step: u64, records: impl ExactSizeIterator<Item = T>) {
        let mut offset = first;
        for record in records {
            self.emit(offset, record);
            offset = offset.wrapping_add(step);
        }
    }
    /// A record made from `bytes`, which lie at `offset` in line `line`: should the job find no valid event time in it, the
    /// dead letter has them. An error is to be handed on at once: the job stops ([`Reader::stops_on_malformed`]).
    #[inline(always)]
    fn emit_from(
        &mut self,
        offset: u64,
        line: Option<u64>,
        bytes: &[u8],
        record: T,
    ) -> Result<(), ReadError> {
        let _ = (line, bytes);
        self.emit(offset, record);
        Ok(())
    }
    /// A record at `offset` that arrived at `arrival_ns` (driver's nanoseconds): its scheduled time in an open loop.
    fn emit_arrived(&mut self, offset: u64, arrival_ns: u64, record: T);
    /// Bytes at `offset` that are no record. Counted, and sent to the dead-letter output where one is set.
    fn malformed(&mut self, offset: u64, line: Option<u64>, reason: &str, payload: &[u8]);
    /// The driver's time at the start of the step, nanoseconds.
    fn now_ns(&self) -> u64;
    /// The wall clock at the start of the step.
    fn wall(&self) -> EventTime;
}
