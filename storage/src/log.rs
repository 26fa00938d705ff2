//! The ingest log: partitions of records with offsets, appended by many, durable together, read from anywhere.
//!
//! Laws
//! 1. Nothing here waits once the log is open. `append` copies one record, or hands it back: [`Refused::Busy`] when the partition's
//!    buffers are full. Memory is bounded by them, the keys of the horizon and a few bytes a segment.
//! 2. A group is written, then each file that it touched is synced once, and only then are its records durable. One group is under way
//!    at a time; what arrives meanwhile is the next. A page that was handed to the disk is never written again;
//!    only a log's first file may begin with a page of zeros before (`prepare.rs`).
//! 3. A segment is written to only after a durable index names it, and an opened log begins new segments: no torn tail is appended to.
//! 4. Readers see whole batches up to the visible end and nothing beyond, which only rises. What it is:
//!    - [`Visibility::Durable`](crate::Visibility::Durable): the durable end;
//!    - [`Visibility::Committed`](crate::Visibility::Committed): what the last durable index says. `stage` makes an epoch's records durable and `commit`
//!      shows them. Opening shows what is committable and cuts the rest with one index record; those offsets, which nobody
//!      saw, are given out again. An epoch that is aborted while the log runs is committed with the next.
//! 5. Opening finds the records that were acknowledged: the index says up to where they are durable at least, and the chain of whole
//!    batches beyond that ends at the torn tail. A hole before what a later batch or the index calls durable is damage, and a named error.
//!    Not known from a torn tail is rot of the last group, until an index stands behind it: each new segment and [`mark`](Log::mark)
//!    write one.
//! 6. Retention takes whole segments from the oldest on: not the last, none that is not visible, none from a pinned offset on. They are
//!    removed after the index that leaves them out is durable.
//! 7. A failed write or sync poisons the log. A refused allocation does not: see [`retry_space`](Log::retry_space).

mod config;
mod follow;
mod group;
mod index;
mod keys;
mod open;
mod partition;
mod reader;

pub use config::{LogConfig, Retention};
pub use follow::{Follower, HistoryBytes};
pub use group::Staged;
pub use reader::{LogReader, View, ViewBatch};

use crate::disk::{Completion, Disk, Done, Full, Op, Ticket};
use crate::error::StorageError;
use crate::format::log::{Index, KEY_MAX, Record};
use crate::id::{Epoch, Lineage, SegmentId};
use crate::poison::Poison;
use crate::store::Note;
use crate::store::log::ManifestLog;
use crate::writer::{Refused, Warning};
use group::Group;
use partition::Partition;
use std::collections::{BTreeMap, VecDeque};

/// A record's place: the n-th of a partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: u32,
    /// The record's number in it.
    pub offset: u64,
}

/// Where a record went. It is acknowledged once [`Log::is_durable`] says so of its position, in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It was added.
    New(Position),
    /// A record with its idempotency key is there already.
    Duplicate(Position),
}

impl Appended {
    /// Where the record is.
    pub fn position(&self) -> Position {
        match self {
            Appended::New(position) | Appended::Duplicate(position) => *position,
        }
    }
}

/// Keeps the records of a partition from an offset on, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPin(u64);

/// What an operation was for.
#[derive(Debug)]
enum Purpose {
    Write { partition: u32, is_header: bool },
    Sync,
    Prepare { partition: u32 },
    Close,
    Remove { segment: SegmentId },
}

/// See the laws on top of this file.
#[derive(Debug)]
pub struct Log {
    config: LogConfig,
    lineage: Lineage,
    attempt: u32,
    poison: Poison,
    partitions: Vec<Partition>,
    /// Bytes in batches that nobody has asked to write yet.
    gathered: usize,
    /// When the oldest of them arrived.
    oldest_us: Option<i64>,
    flush: bool,
    group: Option<Group>,
    staging: Option<Staged>,
    staged: Option<Staged>,
    /// The epoch that shall be committed, and the one that is.
    committing: Epoch,
    committed: Epoch,
    index: ManifestLog,
    /// What is being written, with the segments that it leaves out.
    index_under_way: Option<(Index, Vec<SegmentId>)>,
    index_wanted: bool,
    dropped: Vec<SegmentId>,
    pins: BTreeMap<LogPin, Position>,
    next_pin: u64,
    outbox: VecDeque<(Op, Ticket)>,
    purposes: VecDeque<(u64, Purpose)>,
    next_serial: u64,
    notes: Vec<Note>,
    groups: u64,
}

/// Serials of the index are below.
const SERIALS: u64 = 1 << 33;

impl Log {
    /// Adds a record that arrived at `now_us` (microseconds since the epoch; earlier than the record before counts as with it).
    /// Logarithmic in the keys of the horizon if the record has a key, else constant.
    ///
    /// # Errors
    /// The record was not taken; see [`Refused`]. Panics if there is no such partition.
    pub fn append(
        &mut self,
        partition: u32,
        record: Record<'_>,
        now_us: i64,
    ) -> Result<Appended, Refused> {
        self.poison.check().map_err(Refused::Failed)?;
        self.check_lengths(&record).map_err(Refused::Failed)?;
        let at = |offset| Position { partition, offset };
        let p = &mut self.partitions[partition as usize];
        if let Some(offset) = record.key.and_then(|key| p.keys.find(key)) {
            return Ok(Appended::Duplicate(at(offset)));
        }
        let Some(offset) = p.push(record, now_us, &self.config) else {
            return Err(match p.preparer.refusal() {
                Some(no_space) => Refused::Failed(no_space),
                None => Refused::Busy,
            });
        };
        if let Some(key) = record.key {
            p.keys.add(key, offset);
        }
        let horizon = p.next.saturating_sub(self.config.dedup_records);
        p.keys.forget_before(horizon);
        self.gathered += record.encoded_len() as usize;
        self.oldest_us.get_or_insert(now_us);
        Ok(Appended::New(at(offset)))
    }

    fn check_lengths(&self, record: &Record<'_>) -> Result<(), StorageError> {
        let key = record.key.map_or(0, <[u8]>::len) as u64;
        let (len, max) = (record.encoded_len(), self.config.record_bytes_max());
        if key > KEY_MAX as u64 {
            let max = KEY_MAX as u64;
            return Err(StorageError::TooLarge { len: key, max });
        }
        match len > max {
            true => Err(StorageError::TooLarge { len, max }),
            false => Ok(()),
        }
    }

    /// Whether a record survives whatever happens now.
    pub fn is_durable(&self, position: Position) -> bool {
        position.offset < self.durable_end(position.partition)
    }

    /// All records of the partition before this offset are durable.
    pub fn durable_end(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].durable
    }

    /// Readers see the records of the partition before this offset.
    pub fn visible_end(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].visible
    }

    /// The offset of the partition's next record.
    pub fn next_offset(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].next
    }

    /// The offset of the oldest record that is kept.
    pub fn start(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].start()
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.config.partitions
    }

    /// What tells this log from every other, drawn when it was made.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The owner that this log's tickets carry.
    pub fn owner(&self) -> u32 {
        self.config.owner
    }

    /// How many groups have become durable since the log was opened, each with one sync a file.
    pub fn groups(&self) -> u64 {
        self.groups
    }

    /// How many idempotency keys of the partition are known.
    pub fn known_keys(&self, partition: u32) -> usize {
        self.partitions[partition as usize].keys.len()
    }

    /// The poison of this log.
    pub fn poison(&self) -> &Poison {
        &self.poison
    }

    /// What opening and running found that is worth telling, since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// What the file system refuses, since the last call; each kind comes once a partition.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        let warnings = self.partitions.iter_mut();
        warnings.flat_map(|p| p.preparer.take_warnings()).collect()
    }

    /// Why records that were taken do not become durable, if that is for want of space: `append` says so only once the buffers are full.
    pub fn no_space(&self) -> Option<StorageError> {
        let mut waiting = self.partitions.iter().filter(|p| p.is_waiting());
        waiting.find_map(|p| p.preparer.refusal())
    }

    /// Asks for space again after [`StorageError::NoSpace`], with the next step. Call it when there is reason to hope.
    pub fn retry_space(&mut self) {
        self.partitions.iter_mut().for_each(|p| p.preparer.retry());
    }

    /// What readers of a partition may read now. Without a [`pin`](Self::pin) retention may remove it.
    pub fn view(&self, partition: u32) -> View {
        View::of(&self.partitions[partition as usize], self.lineage)
    }

    /// Keeps the records from `position` on until [`unpin`](Self::unpin). `None` if that is before what is kept.
    pub fn pin(&mut self, position: Position) -> Option<LogPin> {
        if position.offset < self.start(position.partition) {
            return None;
        }
        let pin = LogPin(self.next_pin);
        self.next_pin += 1;
        self.pins.insert(pin, position);
        Some(pin)
    }

    /// Moves a pin forward, as its reader comes along. It never moves back.
    pub fn advance_pin(&mut self, pin: LogPin, offset: u64) {
        if let Some(position) = self.pins.get_mut(&pin) {
            position.offset = position.offset.max(offset);
        }
    }

    /// Lets go.
    pub fn unpin(&mut self, pin: LogPin) {
        self.pins.remove(&pin);
    }

    /// Drops the segments that `retention` does not want kept at `now_us`, as far as law 6 allows. Returns how many.
    pub fn retain(&mut self, retention: Retention, now_us: i64) -> usize {
        let before = self.dropped.len();
        for p in &mut self.partitions {
            let pins = self.pins.values().filter(|at| at.partition == p.number);
            let pinned = pins.map(|at| at.offset).min().unwrap_or(u64::MAX);
            let mut bytes: u64 = p.segments.iter().map(|s| s.durable.len).sum();
            while let Some(oldest) = p.segments.front() {
                let s = &oldest.durable;
                let too_much = retention.bytes_max.is_some_and(|max| bytes > max);
                let age = now_us.saturating_sub(s.last_time);
                let too_old = retention.age_us_max.is_some_and(|max| age > max);
                let is_last = p.segments.len() == 1 || oldest.file.is_some();
                let needed = is_last || s.end > p.visible || s.end > pinned;
                if needed || !(too_much || too_old) {
                    break;
                }
                bytes -= s.len;
                self.dropped.push(s.id);
                p.segments.pop_front();
            }
            p.keys.forget_before(p.start());
        }
        let dropped = self.dropped.len() - before;
        self.index_wanted |= dropped > 0;
        dropped
    }

    /// Writes an index, so that all that is durable now is known from a torn tail (law 5). For when nothing is to do, and before
    /// closing.
    pub fn mark(&mut self) {
        self.index_wanted = true;
    }

    /// Whether nothing is gathered, under way, or to be written.
    pub fn is_idle(&self) -> bool {
        let waiting = self.partitions.iter().any(Partition::is_waiting);
        !waiting && self.group.is_none() && self.is_settled()
    }

    /// Whether the index is written and the disk has nothing of ours.
    fn is_settled(&self) -> bool {
        !self.index_wanted
            && self.index_under_way.is_none()
            && self.index.is_idle()
            && self.outbox.is_empty()
            && self.purposes.is_empty()
    }

    /// Submits what is ready at `now_us`, as far as the disk takes it.
    pub fn step(&mut self, disk: &mut dyn Disk, now_us: i64) {
        if self.poison.check().is_err() {
            return;
        }
        self.prepare_segments();
        if self.is_due(now_us) {
            self.start_group();
        }
        if let Err(e) = self.start_index() {
            self.poison.set(e);
            return;
        }
        self.index.step(disk);
        while let Some((op, ticket)) = self.outbox.pop_front() {
            if let Err(Full(op)) = disk.submit(op, ticket) {
                self.outbox.push_front((op, ticket));
                return;
            }
        }
    }

    fn prepare_segments(&mut self) {
        let mut begun = Vec::new();
        for p in &mut self.partitions {
            // No space is told to who appends, when the buffers are full.
            self.index_wanted |= p.take_spare().unwrap_or(false);
            if p.spare.is_none() && p.preparer.is_empty() && p.wants_spare(&self.config) {
                let op = p.preparer.begin(p.next_id.log_file_name());
                begun.push((
                    op,
                    Purpose::Prepare {
                        partition: p.number,
                    },
                ));
            }
        }
        for (op, purpose) in begun {
            self.send(op, purpose);
        }
    }

    fn send(&mut self, op: Op, purpose: Purpose) {
        let ticket = Ticket {
            owner: self.config.owner,
            serial: SERIALS + self.next_serial,
        };
        self.next_serial += 1;
        self.purposes.push_back((ticket.serial, purpose));
        self.outbox.push_back((op, ticket));
    }

    /// Takes a completion whose ticket has this log as owner.
    ///
    /// # Errors
    /// The disk failed: the log is poisoned.
    pub fn complete(&mut self, completion: Completion) -> Result<(), StorageError> {
        self.poison.check()?;
        let done = match completion.ticket.serial {
            0..SERIALS => self.index.complete(completion).map(|durable| {
                if durable {
                    self.index_written();
                }
            }),
            _ => self.completed(completion),
        };
        done.inspect_err(|cause| self.poison.set(cause.clone()))
    }

    fn completed(&mut self, completion: Completion) -> Result<(), StorageError> {
        let serial = completion.ticket.serial;
        let at = self.purposes.iter().position(|(s, _)| *s == serial);
        let Some((_, purpose)) = at.and_then(|at| self.purposes.remove(at)) else {
            debug_assert!(false, "completion of an unknown ticket {serial}");
            return Ok(());
        };
        let name = "a segment of the ingest log";
        match (purpose, completion.result) {
            (Purpose::Prepare { partition }, result) => {
                let preparer = &mut self.partitions[partition as usize].preparer;
                if let Some(op) = preparer.completed(result)? {
                    self.send(op, Purpose::Prepare { partition });
                }
            }
            (
                Purpose::Write {
                    partition,
                    is_header,
                },
                Ok(Done::Written { buffer }),
            ) => {
                if !is_header {
                    self.partitions[partition as usize].free.push(buffer);
                }
                self.group_advanced();
            }
            (Purpose::Write { .. }, Ok(_)) => unreachable!("a write brings its buffer back"),
            (Purpose::Write { .. }, Err(f)) => {
                return Err(StorageError::io("write", name, f.error));
            }
            (Purpose::Sync, Ok(_)) => self.group_advanced(),
            (Purpose::Sync, Err(f)) => return Err(StorageError::io("sync", name, f.error)),
            (Purpose::Close, _) => {} // all of it is synced
            (Purpose::Remove { segment }, Err(f)) => self.notes.push(Note::NotRemoved {
                file: segment.log_file_name(),
                error: f.error,
            }),
            (Purpose::Remove { .. }, Ok(_)) => {}
        }
        Ok(())
    }
}
