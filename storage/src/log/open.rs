//! Opening a log: where the durable records end, what is committed of them, and writing that down.
//!
//! For each partition the index names all segments that may have records. Those that were still written to are walked from where the
//! index leaves off: batch after batch, each with the offset that the one before ends at. Where that chain ends is the torn tail, unless
//! a whole batch further on says that records beyond were durable when it was written: then it is a hole, and an error.

use super::group::Staged;
use super::partition::{Partition, Segment};
use super::{Log, LogConfig, LogReader, View};
use crate::buffer::ALIGN;
use crate::disk::{BlockingDisk, Mode, Op};
use crate::error::StorageError;
use crate::format::log::{
    BATCH, Batch, BatchHead, Index, IndexPartition, IndexSegment, LogHeader, SECTION, Visibility,
    peek,
};
use crate::format::manifest::{Checkpoint, Manifest};
use crate::format::segment::HEADER;
use crate::format::{Fault, Wrong};
use crate::id::{Epoch, Lineage, SegmentId};
use crate::poison::Poison;
use crate::reader::{PlainBytes, SegmentBytes};
use crate::store::Note;
use crate::store::open::{Found, Opening, is_unfinished};
use std::collections::{BTreeMap, VecDeque};

impl Log {
    /// Opens the log in the disk's folder, or makes one there if it is empty. Waits for the disk, on which nothing else is under way. The
    /// caller holds the folder's [`FolderLock`](crate::FolderLock).
    ///
    /// `committables` are the staged epochs that the job's last checkpoint decided on; their records are visible afterwards, and
    /// with [`Visibility::Committed`] all later ones are gone. What the opened log says is durable.
    ///
    /// # Errors
    /// Something is damaged, missing, of another version or of another kind; or the disk fails.
    pub fn open<D: BlockingDisk>(
        disk: &mut D,
        config: LogConfig,
        committables: &[Staged],
    ) -> Result<Log, StorageError> {
        Log::open_with(disk, config, committables, Undecided::Goes)
    }

    /// Opens the log as [`open`](Self::open) does, but what is durable and no index has committed stays, unseen: for who learns of
    /// decided epochs one by one, [commits](Self::commit) each, and then opens the log anew, which cuts the rest. Nothing
    /// may be appended before that.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_undecided<D: BlockingDisk>(
        disk: &mut D,
        config: LogConfig,
    ) -> Result<Log, StorageError> {
        Log::open_with(disk, config, &[], Undecided::Stays)
    }

    fn open_with<D: BlockingDisk>(
        disk: &mut D,
        config: LogConfig,
        committables: &[Staged],
        undecided: Undecided,
    ) -> Result<Log, StorageError> {
        config.check();
        let mut opening = Opening::new(disk);
        let is_log = |n: &str| SegmentId::parse_log(n).is_some();
        let Found {
            manifest,
            log,
            names,
        } = opening.find(config.owner, config.direct, config.lineage_if_new, is_log)?;
        for name in names.iter().filter(|n| is_unfinished(n)) {
            opening.remove(name)?;
        }
        let index = indexed(&config, &manifest)?;
        let mut recovery = Recovery {
            disk: opening.disk,
            lineage: manifest.lineage,
            undecided,
        };
        let attempt = manifest.attempt + 1;
        let mut partitions = Vec::new();
        for (number, said) in (0..).zip(&index.partitions) {
            let segments = recovery.partition(number, said, &index, committables)?;
            let mut p = Partition::new(number, attempt, &config);
            p.next = segments.last().map_or(said.visible, |s| s.end);
            let visible = match undecided {
                Undecided::Stays if config.visibility == Visibility::Committed => said.visible,
                _ => p.next,
            };
            (p.durable, p.visible, p.committing) = (p.next, visible, visible);
            p.last_time = segments.last().map_or(i64::MIN, |s| s.last_time);
            p.segments = segments.into_iter().map(sealed).collect();
            partitions.push(p);
        }
        let last = committables.iter().map(|s| s.epoch).max();
        let committed = last.unwrap_or_default().max(index.committed);
        let mut log = Log {
            lineage: manifest.lineage,
            attempt,
            poison: Poison::default(),
            partitions,
            gathered: 0,
            oldest_us: None,
            flush: false,
            group: None,
            staging: None,
            staged: None,
            committing: committed,
            committed,
            index: log,
            index_under_way: None,
            index_wanted: true,
            dropped: Vec::new(),
            pins: BTreeMap::new(),
            next_pin: 0,
            outbox: VecDeque::new(),
            purposes: VecDeque::new(),
            next_serial: 0,
            notes: std::mem::take(&mut opening.notes),
            groups: 0,
            config,
        };
        for staged in committables {
            log.check_staged(staged)?;
        }
        log.settle(opening.disk)?;
        log.sweep(&mut opening, &names, &index)?;
        log.remember_keys(opening.disk)?;
        Ok(log)
    }

    /// Steps until the index is written, waiting for the disk.
    fn settle<D: BlockingDisk>(&mut self, disk: &mut D) -> Result<(), StorageError> {
        let mut completions = Vec::new();
        while !self.is_settled() {
            self.step(disk, i64::MIN);
            disk.poll(&mut completions);
            if completions.is_empty() {
                let waited = disk.wait();
                waited.map_err(|e| StorageError::io("write", "the manifest", e))?;
            }
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
            self.poison.check()?;
        }
        Ok(())
    }

    /// Removes what the index no longer names, and gives back what was allocated and not used.
    fn sweep<D: BlockingDisk>(
        &mut self,
        opening: &mut Opening<'_, D>,
        names: &[String],
        before: &Index,
    ) -> Result<(), StorageError> {
        let segments = self.partitions.iter().flat_map(|p| &p.segments);
        let valid: BTreeMap<SegmentId, u64> =
            segments.map(|s| (s.durable.id, s.durable.len)).collect();
        let ids = names.iter().filter_map(|n| SegmentId::parse_log(n));
        for id in ids.filter(|id| !valid.contains_key(id)) {
            let file = id.log_file_name();
            opening.remove(&file)?;
            self.notes.push(Note::Removed { file });
        }
        let segments = before.partitions.iter().flat_map(|p| &p.segments);
        for id in segments.map(|s| s.id) {
            let name = id.log_file_name();
            let Some(&len) = valid.get(&id) else {
                continue;
            };
            let Some((file, found)) = opening.open_file(&name, Mode::Write)? else {
                continue;
            };
            let cut = match found > len {
                true => opening.disk.call(Op::Truncate { file, len }),
                false => Ok(crate::disk::Done::Nothing),
            };
            cut.map_err(|f| StorageError::io("truncate", name.clone(), f.error))?;
            let closed = opening.disk.call(Op::Close { file });
            closed.map_err(|f| StorageError::io("close", name, f.error))?;
        }
        Ok(())
    }

    /// Reads the keys of the horizon again.
    fn remember_keys<D: BlockingDisk>(&mut self, disk: &mut D) -> Result<(), StorageError> {
        for p in &mut self.partitions {
            let view = View::of(p, self.lineage);
            let horizon = p.next.saturating_sub(self.config.dedup_records);
            // Of records that are not decided no key is known: nothing is appended to a log that has some.
            let from = horizon.max(view.start()).min(view.end());
            let mut reader = LogReader::new(PlainBytes::new(&mut *disk), view, from)?;
            while let Some(batch) = reader.next_batch()? {
                let mut wrong = None;
                for record in batch.records() {
                    match record.map(|r| (r.record.key, r.offset)) {
                        Ok((Some(key), offset)) => p.keys.add(key, offset),
                        Ok((None, _)) => {}
                        Err(w) => wrong = Some(w),
                    }
                }
                if let Some(wrong) = wrong {
                    return Err(reader.wrong_record(wrong));
                }
            }
        }
        Ok(())
    }
}

/// Segments of an earlier opening are never written to.
fn sealed(durable: IndexSegment) -> Segment {
    Segment {
        placed: durable.len,
        durable,
        file: None,
    }
}

/// What the manifest's section says, with new partitions added.
fn indexed(config: &LogConfig, manifest: &Manifest) -> Result<Index, StorageError> {
    let other = |found: String| StorageError::OtherLog {
        wanted: format!(
            "an ingest log with {:?} records and {} partitions at most",
            config.visibility, config.partitions
        ),
        found,
    };
    let mut index = Index {
        visibility: config.visibility,
        committed: Epoch(0),
        partitions: Vec::new(),
    };
    if let Some(last) = manifest.last() {
        index = section(last)?;
    }
    if index.visibility != config.visibility {
        return Err(other(format!("its records are {:?}", index.visibility)));
    }
    if index.partitions.len() > config.partitions as usize {
        return Err(other(format!(
            "it has {} partitions",
            index.partitions.len()
        )));
    }
    let more = config.partitions as usize;
    index.partitions.resize_with(more, IndexPartition::default);
    Ok(index)
}

/// The index that a manifest's record holds.
pub(super) fn section(last: &Checkpoint) -> Result<Index, StorageError> {
    let section = last.sections.get(SECTION);
    let section = section.ok_or_else(|| StorageError::OtherLog {
        wanted: "an ingest log".into(),
        found: "it is a store of state".into(),
    })?;
    Index::decode(section).map_err(|w| StorageError::wrong("the index", 0, last.epoch, w))
}

/// Where a chain of batches has come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    pub at: u64,
    pub end: u64,
    pub last_time: i64,
    /// The greatest offset up to which one of its batches says that records are durable; 0 if none was looked at.
    pub durable: u64,
}

/// Where a chain of batches ended.
#[derive(Debug)]
struct Hole {
    file: String,
    at: u64,
    wrong: Wrong,
}

/// What becomes of records of a [`Visibility::Committed`] log that no index has committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undecided {
    Goes,
    Stays,
}

struct Recovery<'d, D: BlockingDisk> {
    disk: &'d mut D,
    lineage: Lineage,
    undecided: Undecided,
}

impl<D: BlockingDisk> Recovery<'_, D> {
    /// The segments that hold a partition's records, all durable, none beyond what is to be visible.
    fn partition(
        &mut self,
        number: u32,
        said: &IndexPartition,
        index: &Index,
        committables: &[Staged],
    ) -> Result<Vec<IndexSegment>, StorageError> {
        let mut segments = self.walk(said)?;
        let ends = committables.iter().filter_map(|s| {
            let end = s.ends.get(number as usize)?;
            Some((*end, s.epoch))
        });
        let said = (said.visible, index.committed);
        let (needed, epoch) = ends.chain([said]).max().unwrap_or(said);
        let found = segments.last().map_or(said.0, |s| s.end);
        if needed > found {
            return Err(StorageError::RecordsMissing {
                partition: number,
                epoch,
                needed,
                found,
            });
        }
        if index.visibility == Visibility::Committed && self.undecided == Undecided::Goes {
            self.cut(&mut segments, needed)?;
        }
        Ok(segments)
    }

    /// Walks the segments that were still written to, and makes durable what it finds.
    fn walk(&mut self, said: &IndexPartition) -> Result<Vec<IndexSegment>, StorageError> {
        let mut segments: Vec<IndexSegment> = Vec::new();
        let mut tails = Vec::new();
        let mut hole: Option<Hole> = None;
        for segment in &said.segments {
            let file = segment.id.log_file_name();
            let mut bytes = PlainBytes::new(&mut *self.disk);
            let found = bytes.open(&file, 0)?;
            let needed = segment.len;
            if found < needed {
                let epoch = Epoch(0);
                return Err(StorageError::Missing {
                    file,
                    epoch,
                    needed,
                    found,
                });
            }
            if !segment.open {
                segments.push(*segment);
                continue;
            }
            bytes.open(&file, found)?;
            let expected = segments.last().map_or(segment.base, |s| s.end);
            let mut walker = Walker {
                bytes,
                segment,
                found,
                lineage: self.lineage,
            };
            let (chain, wrong) = walker.begin(expected)?;
            tails.push((*segment, found, chain.at));
            let belongs = chain.end > expected || chain.at > 0 || hole.is_none();
            if belongs {
                let at = chain.at;
                hole = Some(Hole { file, at, wrong });
            }
            if chain.at > HEADER as u64 {
                drop(walker);
                self.sync(segment.id)?;
                segments.push(IndexSegment {
                    open: false,
                    base: if segment.len == 0 {
                        expected
                    } else {
                        segment.base
                    },
                    end: chain.end,
                    len: chain.at,
                    last_time: chain.last_time,
                    ..*segment
                });
            }
        }
        let end = segments.last().map_or(said.visible, |s| s.end);
        self.check_hole(&tails, end, hole)?;
        Ok(segments)
    }

    /// Whether a batch beyond the end of the chain says that records from there on were durable.
    fn check_hole(
        &mut self,
        tails: &[(IndexSegment, u64, u64)],
        end: u64,
        hole: Option<Hole>,
    ) -> Result<(), StorageError> {
        for (segment, found, at) in tails {
            let file = segment.id.log_file_name();
            let mut bytes = PlainBytes::new(&mut *self.disk);
            bytes.open(&file, *found)?;
            let mut walker = Walker {
                bytes,
                segment,
                found: *found,
                lineage: self.lineage,
            };
            if let (true, Some(hole)) = (walker.testifies(*at, end)?, &hole) {
                let wrong = hole.wrong.clone();
                return Err(StorageError::wrong(&hole.file, hole.at, Epoch(0), wrong));
            }
        }
        Ok(())
    }

    fn sync(&mut self, segment: SegmentId) -> Result<(), StorageError> {
        let name = segment.log_file_name();
        let mut opening = Opening::new(self.disk);
        let Some((file, _)) = opening.open_file(&name, Mode::Write)? else {
            return Ok(()); // it was just read
        };
        let synced = self.disk.call(Op::SyncData { file });
        synced.map_err(|f| StorageError::io("sync", name.clone(), f.error))?;
        let closed = self.disk.call(Op::Close { file });
        closed.map_err(|f| StorageError::io("close", name, f.error))?;
        Ok(())
    }

    /// Leaves out all records from `end` on, which is where a batch ends.
    fn cut(&mut self, segments: &mut Vec<IndexSegment>, end: u64) -> Result<(), StorageError> {
        while segments.last().is_some_and(|s| s.base >= end) {
            segments.pop();
        }
        let Some(last) = segments.last_mut().filter(|s| s.end > end) else {
            return Ok(());
        };
        let file = last.id.log_file_name();
        let mut bytes = PlainBytes::new(&mut *self.disk);
        bytes.open(&file, last.len)?;
        let mut walker = Walker {
            bytes,
            segment: last,
            found: last.len,
            lineage: self.lineage,
        };
        let from = Chain {
            at: HEADER as u64,
            end: last.base,
            last_time: last.last_time,
            durable: 0,
        };
        let (chain, wrong) = walker.follow(from, end)?;
        if chain.end != end {
            return Err(StorageError::wrong(&file, chain.at, Epoch(0), wrong));
        }
        (last.len, last.end, last.last_time) = (chain.at, chain.end, chain.last_time);
        Ok(())
    }
}

/// Length and head of a whole batch, or why it is none.
type Whole = Result<(usize, BatchHead), Wrong>;

/// Reads one segment's batches.
pub(super) struct Walker<'a, D: BlockingDisk> {
    pub bytes: PlainBytes<D>,
    pub segment: &'a IndexSegment,
    /// Length of the file.
    pub found: u64,
    pub lineage: Lineage,
}

impl<D: BlockingDisk> Walker<'_, D> {
    /// Follows the chain from where the index leaves off.
    pub fn begin(&mut self, expected: u64) -> Result<(Chain, Wrong), StorageError> {
        let &IndexSegment {
            id,
            end,
            len,
            last_time,
            ..
        } = self.segment;
        if len > 0 {
            let from = Chain {
                at: len,
                end,
                last_time,
                durable: 0,
            };
            return self.follow(from, u64::MAX);
        }
        let nowhere = Chain {
            at: 0,
            end: expected,
            last_time,
            durable: 0,
        };
        if self.found < HEADER as u64 {
            return Ok((nowhere, Wrong::at(self.found, Fault::Short)));
        }
        let header = match LogHeader::decode(self.bytes.bytes(0, HEADER)?) {
            Ok(header) => header,
            // Another version is no torn page.
            Err(wrong) if matches!(wrong.what, Fault::Version { .. }) => {
                let file = id.log_file_name();
                return Err(StorageError::wrong(&file, 0, Epoch(0), wrong));
            }
            Err(wrong) => return Ok((nowhere, wrong)),
        };
        if header.id != id || header.lineage != self.lineage || header.base != expected {
            return Ok((nowhere, Wrong::at(0, Fault::Field("place in the log"))));
        }
        let from = Chain {
            at: HEADER as u64,
            ..nowhere
        };
        self.follow(from, u64::MAX)
    }

    /// Follows the chain of batches up to the record `until`, and says what ended it before.
    pub fn follow(&mut self, mut chain: Chain, until: u64) -> Result<(Chain, Wrong), StorageError> {
        loop {
            let end = Wrong::at(0, Fault::Short);
            if chain.end >= until || self.found - chain.at < ALIGN as u64 {
                return Ok((chain, end));
            }
            match self.batch(chain.at)? {
                Ok((len, head)) if head.base == chain.end => {
                    chain.at += len as u64;
                    chain.end = head.end();
                    chain.last_time = head.last_time;
                    chain.durable = chain.durable.max(head.durable);
                }
                Ok(_) => return Ok((chain, Wrong::at(8, Fault::Field("offset of a batch")))),
                Err(wrong) => return Ok((chain, wrong)),
            }
        }
    }

    /// The batch at `at`, if one is there and whole.
    fn batch(&mut self, at: u64) -> Result<Whole, StorageError> {
        let left = self.found - at;
        let (len, head) = match peek(self.bytes.bytes(at, BATCH)?, left) {
            Ok(peeked) => peeked,
            Err(wrong) => return Ok(Err(wrong)),
        };
        if head.partition != self.segment.id.shard {
            return Ok(Err(Wrong::at(48, Fault::Field("partition"))));
        }
        let bytes = self.bytes.bytes(at, len)?;
        Ok(Batch::decode(bytes, self.lineage).map(|_| (len, head)))
    }

    /// Whether a whole batch from `at` on says that records from `end` on were durable when it was written.
    fn testifies(&mut self, at: u64, end: u64) -> Result<bool, StorageError> {
        let pages = (at.max(HEADER as u64)..self.found).step_by(ALIGN);
        for at in pages {
            let left = self.found - at;
            if left < ALIGN as u64 {
                return Ok(false);
            }
            // The head first: few pages of a torn tail are worth a checksum.
            let said = peek(self.bytes.bytes(at, BATCH)?, left);
            if said.is_ok_and(|(_, head)| head.durable > end) && self.batch(at)?.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<D: BlockingDisk> Opening<'_, D> {
    fn remove(&mut self, name: &str) -> Result<(), StorageError> {
        let name = name.to_string();
        let removed = self.disk.call(Op::Remove { name: name.clone() });
        removed.map_err(|f| StorageError::io("remove", name, f.error))?;
        Ok(())
    }
}
