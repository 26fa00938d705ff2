//! A source stage: reads the partitions of one source that belong to this shard, and pushes their records.
//!
//! Laws
//! 1. Partitions are read in turn, at most a batch each, so none starves another.
//! 2. Nothing is read while the terminal is blocked, or the way of the dead letters is.
//! 3. A record that cannot be used is told by its place in the source, whoever refused it: the reader or a link behind it.
//!    The reader's policy holds for both.
//! 4. At a barrier the position of each partition is the first record that has not been handed on. A partition that alignment
//!    holds passes barriers all the same.
//! 5. With alignment, a partition further ahead in event time than the allowed drift is not read, but only while some
//!    partition with data to read lies behind it.
//! 6. While states are above the job's budget no record is read, but ends are found: a partition that is read out ends, and the
//!    source with the last of them.

use crate::batch::Batch;
use crate::checkpoint::{Cut, Epoch, Frame, Saved, Saver, Snapshot};
use crate::dead_letters::Letters;
use crate::error::JobError;
use crate::push::{Control, Cx, DeadLetter, Push};
use crate::source::{Emit, Position, Read, ReadError, Reader};
use crate::state::LoadError;
use crate::tasklet::{Now, Progress, Tasklet};
use crate::time::EventTime;
use crate::watermark::Alignment;
use pelton_storage::StateId;
use std::sync::Arc;

/// One partition on this shard.
pub(crate) struct Slot<R> {
    pub reader: R,
    /// Index among all partitions of the source.
    pub global: usize,
    pub ended: bool,
    /// Offset of the record last emitted, for errors.
    pub offset: u64,
    /// What a checkpoint has of it.
    pub saved: Option<Kept>,
}

/// What a checkpoint has of a partition: its name, the position's offset and detail, and whether it has ended.
pub(crate) type Kept = (String, (u64, (Vec<u8>, bool)));

/// Gathers what a reader yields into a batch.
struct Gatherer<'a, T> {
    batch: &'a mut Batch<T>,
    /// Offset of the first record, once there is one.
    first: Option<u64>,
    offset: u64,
    bad: u64,
    cx: &'a mut Cx,
    name: &'a str,
    partition: usize,
}

impl<T> Emit<T> for Gatherer<'_, T> {
    #[inline(always)]
    fn emit(&mut self, offset: u64, record: T) {
        if self.batch.records.is_empty() {
            self.first = Some(offset);
        }
        self.offset = offset;
        self.batch.records.push(record);
    }
    #[inline(always)]
    fn emit_run(&mut self, first: u64, step: u64, records: impl ExactSizeIterator<Item = T>) {
        let (before, n) = (self.batch.records.len(), records.len() as u64);
        if n > 0 {
            self.first = Some(self.first.unwrap_or(first));
            self.offset = first.wrapping_add(step.wrapping_mul(n - 1));
        }
        self.batch.records.extend(records);
        debug_assert_eq!(self.batch.records.len(), before + n as usize);
    }
    #[inline(always)]
    fn emit_arrived(&mut self, offset: u64, arrival_ns: u64, record: T) {
        arrived(self.cx, arrival_ns);
        self.emit(offset, record);
    }
    #[cold]
    fn malformed(&mut self, offset: u64, line: Option<u64>, reason: &str, payload: &[u8]) {
        self.offset = offset;
        self.bad += 1;
        let partition = self.partition;
        refuse(self.cx, self.name, partition, offset, line, reason, payload);
    }
    fn now_ns(&self) -> u64 {
        self.cx.now_ns
    }
    fn wall(&self) -> EventTime {
        self.cx.wall
    }
}

/// The source knows when a record arrived.
#[inline(always)]
fn arrived(cx: &mut Cx, arrival_ns: u64) {
    cx.arrival_ns = arrival_ns;
    cx.arrival_oldest_ns = cx.arrival_oldest_ns.min(arrival_ns);
}

/// Counts bytes that are no record and keeps them for the dead letters.
#[cold]
fn refuse(
    cx: &mut Cx,
    name: &str,
    partition: usize,
    offset: u64,
    line: Option<u64>,
    reason: &str,
    payload: &[u8],
) {
    cx.malformed(|| DeadLetter {
        at: name.to_string(),
        partition: partition.to_string(),
        offset,
        line,
        reason: reason.to_string(),
        payload: DeadLetter::cut(payload),
    });
}

/// A link found no use for the record made from `bytes`: its letters, those from `before` on, get what it did not know.
#[cold]
fn refused(
    cx: &mut Cx,
    before: usize,
    offset: u64,
    line: Option<u64>,
    bytes: &[u8],
) -> Result<(), ReadError> {
    for letter in &mut cx.dead[before..] {
        letter.line = line;
        letter.payload = DeadLetter::cut(bytes);
    }
    match &cx.dead[before..] {
        [first, ..] if cx.stop_on_malformed => Err(ReadError {
            offset,
            line,
            what: first.reason.clone(),
            malformed: true,
        }),
        _ => Ok(()),
    }
}

/// The tasklet of a source on one shard. Aligned, since those of all shards are made side by side and each record writes here.
#[repr(align(128))]
pub(crate) struct SourceStage<R: Reader, P> {
    pub stage: usize,
    pub job: String,
    pub name: String,
    /// Number of the source within the job, for origins.
    pub source: u32,
    pub slots: Vec<Slot<R>>,
    /// How many the source has, on all shards.
    pub partitions: usize,
    pub chain: P,
    pub letters: Letters,
    pub cx: Cx,
    /// Records read from one partition in one step.
    pub read_max: usize,
    /// Slot to read next (law 1).
    pub turn: usize,
    pub alignment: Option<Arc<Alignment>>,
    pub ended: bool,
    /// Whether records are gathered and pushed as batches: the chain takes them, and the reader's offsets are regular.
    pub gathers: bool,
    /// Being gathered; empty between steps.
    pub gathered: Batch<R::Item>,
    /// Whether an edge out of this stage carries origins.
    pub origins_out: bool,
    /// Keeps the positions of the partitions.
    pub saver: Saver,
    /// The last epoch whose barrier has passed.
    pub reached: Epoch,
    /// The chain has yet to be told of partitions that had ended before the job was started.
    pub restored: bool,
    /// A barrier that has to wait until the chain has room.
    pub wanted: Option<Cut>,
    /// The last barrier of all has passed: nothing more is read.
    pub stopped: bool,
}

struct Emitter<'a, P> {
    chain: &'a mut P,
    cx: &'a mut Cx,
    offset: u64,
    emitted: u64,
    name: &'a str,
    partition: usize,
}

impl<T, P: Push<T>> Emit<T> for Emitter<'_, P> {
    #[inline(always)]
    fn emit(&mut self, offset: u64, record: T) {
        self.offset = offset;
        self.emitted += 1;
        self.cx.origin.offset = offset;
        self.chain.push(record, crate::batch::Stamp::NONE, self.cx);
    }
    #[inline(always)]
    fn emit_from(
        &mut self,
        offset: u64,
        line: Option<u64>,
        bytes: &[u8],
        record: T,
    ) -> Result<(), ReadError> {
        let before = self.cx.dead.len();
        self.emit(offset, record);
        if self.cx.dead.len() == before {
            return Ok(());
        }
        refused(self.cx, before, offset, line, bytes)
    }
    #[inline(always)]
    fn emit_arrived(&mut self, offset: u64, arrival_ns: u64, record: T) {
        arrived(self.cx, arrival_ns);
        self.emit(offset, record);
    }
    #[cold]
    fn malformed(&mut self, offset: u64, line: Option<u64>, reason: &str, payload: &[u8]) {
        self.offset = offset;
        self.emitted += 1;
        refuse(
            self.cx,
            self.name,
            self.partition,
            offset,
            line,
            reason,
            payload,
        );
    }
    fn now_ns(&self) -> u64 {
        self.cx.now_ns
    }
    fn wall(&self) -> EventTime {
        self.cx.wall
    }
}

impl<R: Reader, P: Push<R::Item>> SourceStage<R, P> {
    /// Reads one batch from slot `at` and hands it on.
    fn read(&mut self, at: usize) -> Result<Read, JobError> {
        let (result, emitted) = self.pull(at);
        self.cx.counters.records_in += emitted;
        if self.cx.arrival_oldest_ns != u64::MAX {
            let waited = self.cx.now_ns.saturating_sub(self.cx.arrival_oldest_ns);
            let source_ns = &mut self.cx.latencies.source_ns;
            source_ns.saturating_record_n(waited.max(1), emitted);
        }
        self.place()?;
        let read = result.map_err(|e| self.failed(at, e))?;
        if let Some(time) = self.slots[at].reader.watermark() {
            let partition = at;
            self.control(Control::PartitionWatermark { partition, time });
        }
        self.cx.read = emitted;
        self.control(Control::Flush);
        self.cx.read = 0;
        if let Some(alignment) = &self.alignment {
            alignment.has_data(self.slots[at].global, read == Read::More);
        }
        let partition = at;
        match read {
            Read::More => {}
            Read::Pending { .. } => self.control(Control::PartitionPending { partition }),
            Read::End => {
                self.slots[at].ended = true;
                self.control(Control::PartitionEnded { partition });
            }
        }
        Ok(read)
    }

    /// Pushes what slot `at` has, at most a batch: what its reader said, and the number of records, malformed ones included.
    fn pull(&mut self, at: usize) -> (Result<Read, ReadError>, u64) {
        let slot = &mut self.slots[at];
        let cx = &mut self.cx;
        cx.partition = at;
        cx.origin.source = self.source;
        cx.origin.partition = slot.global as u32;
        cx.origin.emission = 0;
        cx.arrived_at(cx.now_ns);
        cx.stop_on_malformed = slot.reader.stops_on_malformed();
        let step = slot.reader.offset_step().filter(|_| self.gathers);
        let Some(step) = step else {
            let mut out = Emitter {
                chain: &mut self.chain,
                cx,
                offset: slot.offset,
                emitted: 0,
                name: &self.name,
                partition: slot.global,
            };
            let result = slot.reader.read(self.read_max, &mut out);
            slot.offset = out.offset;
            return (result, out.emitted);
        };
        let mut out = Gatherer {
            batch: &mut self.gathered,
            first: None,
            offset: slot.offset,
            bad: 0,
            cx,
            name: &self.name,
            partition: slot.global,
        };
        let result = slot.reader.read(self.read_max, &mut out);
        let (first, bad) = (out.first, out.bad);
        slot.offset = out.offset;
        let emitted = self.gathered.len() as u64 + bad;
        if let Some(first) = first {
            self.cx.origin.offset = first;
            self.cx.offset_step = step;
            if self.origins_out {
                let (cx, first) = (&self.cx, self.cx.origin);
                let run = (0..self.gathered.records.len() as u64).map(|i| cx.run_origin(first, i));
                self.gathered.origins.extend(run);
            }
            self.chain.push_batch(&mut self.gathered, &mut self.cx);
        }
        (result, emitted)
    }

    /// Passes on an event, to the chain and then to the dead letters. A record refused only now was held by the chain until
    /// it had room.
    fn control(&mut self, event: Control) {
        self.chain.control(event, &mut self.cx);
        if let Err(stopped) = self.place() {
            self.cx.failure.get_or_insert(stopped);
        }
        self.letters.control(event, &mut self.cx);
    }

    fn blocked(&self) -> bool {
        self.chain.blocked() || self.letters.blocked()
    }

    /// Law 3: the letters made since the last event say where they lie, and go on their way unless the first stops the job.
    #[inline]
    fn place(&mut self) -> Result<(), JobError> {
        if self.cx.dead.is_empty() {
            return Ok(());
        }
        self.place_letters()
    }

    #[cold]
    fn place_letters(&mut self) -> Result<(), JobError> {
        // All of one slot: no other is read while the chain holds records of this one (law 2).
        if let Some(slot) = self.slots.get(self.cx.partition) {
            for letter in &mut self.cx.dead {
                (letter.partition, letter.offset) = slot.reader.place(letter.offset);
            }
        }
        if self.cx.stop_on_malformed {
            return Err(self.stopped(&self.cx.dead[0]));
        }
        self.letters.take(&mut self.cx);
        Ok(())
    }

    /// The job stops for a record, with the text that its dead letter would have had.
    #[cold]
    fn stopped(&self, letter: &DeadLetter) -> JobError {
        JobError::Malformed {
            job: self.job.clone(),
            letter: letter.to_string(),
        }
    }

    /// Why reading slot `at` stops the job.
    #[cold]
    fn failed(&self, at: usize, e: ReadError) -> JobError {
        let (partition, offset) = self.slots[at].reader.place(e.offset);
        if e.malformed {
            return self.stopped(&DeadLetter {
                at: self.name.clone(),
                partition,
                offset,
                line: e.line,
                reason: e.what,
                payload: vec![],
            });
        }
        JobError::Source {
            job: self.job.clone(),
            source_name: self.name.clone(),
            partition,
            offset,
            what: e.what,
        }
    }

    /// The barrier of an epoch passes. Not while the chain is blocked: what a link holds back may yet become a dead letter, and
    /// would come behind the barrier.
    fn cut(&mut self, cut: Cut) {
        self.reached = cut.epoch;
        self.saver.begin();
        self.note_positions(cut.is_full);
        self.stopped |= cut.is_last;
        self.control(Control::Barrier(cut));
        self.cx.barrier_passed();
    }

    /// Law 4: notes the positions that have moved since the last barrier.
    fn note_positions(&mut self, all: bool) {
        for slot in &mut self.slots {
            let kept = match (&slot.saved, slot.reader.position()) {
                // It ended where it stands in the checkpoint; after a restore its reader was put nowhere.
                (Some(kept), _) if kept.1.1.1 => kept.clone(),
                (_, Some(Position { offset, detail })) => {
                    (slot.reader.name(), (offset, (detail, slot.ended)))
                }
                (_, None) => continue,
            };
            if all || slot.saved.as_ref() != Some(&kept) {
                let key = (slot.global as u32).to_le_bytes();
                self.saver.note(&key, &kept);
                slot.saved = Some(kept);
            }
        }
    }

    /// Puts a partition where it was. One of another shard is that shard's.
    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let wrong = |what: String| LoadError { what };
        let Ok(key) = key.try_into().map(u32::from_le_bytes) else {
            return Err(wrong("the number of a partition has 4 bytes".into()));
        };
        let kept: Kept = self.saver.load(value)?;
        let Some(slot) = self.slots.iter_mut().find(|s| s.global == key as usize) else {
            return match (key as usize) < self.partitions {
                true => Ok(()),
                false => Err(wrong(format!(
                    "source {} had a partition '{}', number {key}, and has {} now: give it the same partitions",
                    self.name, kept.0, self.partitions
                ))),
            };
        };
        let name = slot.reader.name();
        if name != kept.0 {
            return Err(wrong(format!(
                "partition {key} of source {} was '{}' and is '{name}': give it the same partitions in the same order",
                self.name, kept.0
            )));
        }
        // Where it ends for good: frames of one key come in the order of epochs, and only the last is to be sought.
        slot.saved = Some(kept);
        Ok(())
    }

    /// Whether slot `at` must wait for others (law 5).
    fn held(&self, at: usize) -> bool {
        self.alignment
            .as_ref()
            .is_some_and(|a| a.held(self.slots[at].global))
    }
}

impl<R: Reader, P: Push<R::Item> + Send> Tasklet for SourceStage<R, P>
where
    R::Item: Send,
{
    fn step(&mut self, now: Now) -> Result<Progress, JobError> {
        self.cx.now_ns = now.ns;
        self.cx.wall = now.wall;
        self.cx.arrived_at(now.ns);
        if std::mem::take(&mut self.restored) {
            for at in 0..self.slots.len() {
                if self.slots[at].ended {
                    self.control(Control::PartitionEnded { partition: at });
                }
            }
        }
        if self.ended {
            self.control(Control::Flush);
            return Ok(if self.blocked() {
                Progress::Idle {
                    until_ns: Some(now.ns + RETRY_NS),
                }
            } else {
                Progress::Done
            });
        }
        if self.blocked() {
            self.control(Control::Flush);
            if self.blocked() {
                // A full ring rings when there is room; a sink may free itself with time.
                return Ok(Progress::Idle {
                    until_ns: self.chain.wake_at(),
                });
            }
        }
        if let Some(cut) = self.wanted.take() {
            self.cut(cut);
        }
        if self.stopped {
            return Ok(Progress::Idle { until_ns: None });
        }
        if self.cx.hold && self.slots.iter().any(|s| !s.ended) {
            let through = |s: &mut Slot<R>| !s.ended && s.reader.is_through();
            if let Some(at) = self.slots.iter_mut().position(through)
                && self.read(at)? == Read::End
            {
                return Ok(Progress::Worked);
            }
            self.control(Control::Flush);
            return Ok(Progress::Idle {
                until_ns: earliest(Some(now.ns + HELD_NS), self.chain.wake_at()),
            });
        }
        let mut until: Option<u64> = None;
        let mut worked = false;
        let mut open = false;
        for _ in 0..self.slots.len() {
            let at = self.turn;
            self.turn = if at + 1 == self.slots.len() {
                0
            } else {
                at + 1
            };
            if self.slots[at].ended {
                continue;
            }
            open = true;
            if self.held(at) {
                until = earliest(until, Some(now.ns + RETRY_NS));
                continue;
            }
            match self.read(at)? {
                Read::More | Read::End => {
                    worked = true;
                    break;
                }
                Read::Pending { until_ns } => until = earliest(until, until_ns),
            }
            if self.blocked() {
                break; // Law 2.
            }
        }
        if !open {
            self.ended = true;
            self.control(Control::Watermark(EventTime::END));
            self.control(Control::End);
            return Ok(Progress::Worked);
        }
        if worked {
            return Ok(Progress::Worked);
        }
        // Nothing was read: time may have made a partition idle all the same.
        self.control(Control::Flush);
        Ok(Progress::Idle {
            until_ns: earliest(until, self.chain.wake_at()),
        })
    }

    fn cx(&mut self) -> &mut Cx {
        &mut self.cx
    }
    fn stage(&self) -> usize {
        self.stage
    }
    fn position(&self, index: Option<usize>) -> String {
        let Some(slot) = self.slots.get(self.cx.partition) else {
            return format!("source {}", self.name);
        };
        let origin = self
            .cx
            .run_origin(self.cx.origin, index.unwrap_or(0) as u64);
        let (partition, offset) = slot.reader.place(origin.offset);
        format!(
            "source {}, partition {partition}, offset {offset}",
            self.name
        )
    }
    fn watermark(&self) -> EventTime {
        if self.ended {
            EventTime::END
        } else {
            EventTime::BEGINNING
        }
    }
    fn is_source(&self) -> bool {
        true
    }
    fn is_under_way(&self) -> bool {
        self.blocked()
    }
    fn barrier(&mut self, cut: Cut) {
        if self.blocked() && !self.ended {
            self.wanted = Some(cut);
        } else {
            self.cut(cut);
        }
    }
    fn drain(&mut self) {
        for at in 0..self.slots.len() {
            if !std::mem::replace(&mut self.slots[at].ended, true) {
                self.control(Control::PartitionEnded { partition: at });
            }
        }
    }
    fn reached(&self) -> Epoch {
        self.reached
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.saver.write_first(to).and(self.chain.save(to))
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        if frame.state != self.saver.state() {
            return self.chain.load(frame);
        }
        if let Some(value) = frame.value {
            self.restore(frame.key, value)?;
        }
        Ok(true)
    }
    fn loaded(&mut self, had: &dyn Fn(StateId) -> bool) -> Result<(), JobError> {
        // The first barrier notes all partitions: those that were there have a position.
        let had_others = had(self.saver.state());
        for at in 0..self.slots.len() {
            let slot = &mut self.slots[at];
            let (offset, sought) = match slot.saved.clone() {
                Some((_, (_, (_, true)))) => {
                    // The chain is told at the first step, when there is a time.
                    slot.ended = true;
                    self.restored = true;
                    continue;
                }
                Some((_, (offset, (detail, false)))) => {
                    (offset, slot.reader.seek(&Position { offset, detail }))
                }
                None if had_others => (0, slot.reader.added()),
                None => continue,
            };
            if let Err(what) = sought {
                return Err(JobError::Source {
                    job: self.job.clone(),
                    source_name: self.name.clone(),
                    partition: slot.reader.name(),
                    offset,
                    what,
                });
            }
        }
        Ok(())
    }
}

/// How soon to look again while sources are held. Who holds them for commits rings when they may go on; for states it is soon enough.
const HELD_NS: u64 = 1_000_000;

/// How soon to look again where no doorbell will ring: a held partition, a sink that is finishing.
pub(crate) const RETRY_NS: u64 = 50_000;

pub(crate) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
