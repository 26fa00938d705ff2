//! Groups and epochs: what becomes durable together, and what becomes visible together.
//!
//! ```text
//! gathering -> due -> writes under way -> syncs under way -> durable
//! stage(epoch): due at once; staged when durable. commit(staged): visible when the index is durable.
//! ```

use super::{Log, Purpose};
use crate::disk::{FileId, Op};
use crate::error::StorageError;
use crate::format::log::Visibility;
use crate::format::{Cursor, Fault, Wrong, count, rising};
use crate::id::{Epoch, SegmentId};

/// How far a segment will be durable.
#[derive(Debug)]
struct Mark {
    partition: u32,
    segment: SegmentId,
    len: u64,
    end: u64,
    last_time: i64,
}

/// A group under way.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Writes, and after them syncs, that have not completed.
    left: usize,
    /// Files to sync once all is written.
    files: Vec<FileId>,
    marks: Vec<Mark>,
}

/// An epoch whose records are durable and not visible: what a job's checkpoint keeps until it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The epoch.
    pub epoch: Epoch,
    /// By partition, the offset after its last record.
    pub ends: Vec<u64>,
}

impl Staged {
    /// The bytes for a section of the checkpoint.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = self.epoch.0.to_le_bytes().to_vec();
        to.extend((self.ends.len() as u32).to_le_bytes());
        to.extend(self.ends.iter().flat_map(|end| end.to_le_bytes()));
        to
    }

    /// Reads them again.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut fields = Cursor::new(bytes);
        let staged = decode_staged(&mut fields);
        staged.map_err(|what| Wrong::at(fields.position() as u64, what))
    }
}

fn decode_staged(from: &mut Cursor<'_>) -> Result<Staged, Fault> {
    let epoch = Epoch(rising(from, "epoch")?);
    let ends = count(from, 8)?;
    let ends = (0..ends).map(|_| rising(from, "offset"));
    let ends = ends.collect::<Result<_, _>>()?;
    match from.left() {
        0 => Ok(Staged { epoch, ends }),
        _ => Err(Fault::Field("length of a staged epoch")),
    }
}

impl Log {
    /// When the log wants to be stepped for what is gathered, in microseconds since the epoch; `None` if nothing is, or a group is
    /// under way and its completion is what to wait for. What waits for a segment has no time: it goes when that is ready.
    pub fn due_us(&self) -> Option<i64> {
        let oldest = self.oldest_us.filter(|_| self.group.is_none())?;
        Some(oldest.saturating_add(self.config.group_us))
    }

    pub(super) fn is_due(&self, now_us: i64) -> bool {
        let full = || self.partitions.iter().any(|p| !p.ready.is_empty());
        self.group.is_none()
            && (self.flush
                || self.gathered >= self.config.group_bytes
                || self.due_us().is_some_and(|due| due <= now_us)
                || full())
    }

    /// Sends down all that has a place. What waits for a segment stays for the next group.
    pub(super) fn start_group(&mut self) {
        let mut group = Group::default();
        let mut writes = Vec::new();
        for p in &mut self.partitions {
            p.close();
            while let Some(placed) = p.place(self.lineage, &self.config) {
                group.marks.push(Mark {
                    partition: p.number,
                    segment: placed.segment,
                    len: placed.offset + placed.buffer.len() as u64,
                    end: placed.end,
                    last_time: placed.last_time,
                });
                if !group.files.contains(&placed.file) {
                    group.files.push(placed.file);
                }
                let buffers = [(0, placed.header), (placed.offset, Some(placed.buffer))];
                for (offset, buffer) in buffers {
                    let file = placed.file;
                    let is_header = offset == 0;
                    let partition = p.number;
                    writes.extend(buffer.map(|buffer| {
                        let op = Op::Write {
                            file,
                            offset,
                            buffer,
                        };
                        (
                            op,
                            Purpose::Write {
                                partition,
                                is_header,
                            },
                        )
                    }));
                }
            }
        }
        self.gathered = 0;
        self.oldest_us = None;
        self.flush = false;
        group.left = writes.len();
        for (op, purpose) in writes {
            self.send(op, purpose);
        }
        if group.left > 0 {
            self.group = Some(group);
        }
    }

    /// A write or sync of the group has completed.
    pub(super) fn group_advanced(&mut self) {
        let group = self.group.as_mut().expect("it has operations under way");
        group.left -= 1;
        if group.left > 0 {
            return;
        }
        let files = std::mem::take(&mut group.files);
        if !files.is_empty() {
            group.left = files.len();
            for file in files {
                self.send(Op::SyncData { file }, Purpose::Sync);
            }
            return;
        }
        let group = self.group.take().expect("looked at above");
        self.groups += 1;
        for mark in group.marks {
            let p = &mut self.partitions[mark.partition as usize];
            p.mark(mark.segment, mark.len, mark.end, mark.last_time);
            if self.config.visibility == Visibility::Durable {
                p.visible = p.durable;
                p.committing = p.durable;
            }
        }
        let mut full = Vec::new();
        for p in &mut self.partitions {
            full.extend(std::iter::from_fn(|| p.sealed()));
        }
        for file in full {
            self.send(Op::Close { file }, Purpose::Close);
        }
        self.advance_stage();
    }

    /// Ends an epoch: the records appended so far go down; those of the next may be appended meanwhile.
    /// [`take_staged`](Self::take_staged) says when they are durable; only then may the next epoch be staged.
    ///
    /// # Errors
    /// The log is poisoned. Panics if readers of this log see all that is durable, or while an epoch is staged.
    pub fn stage(&mut self, epoch: Epoch) -> Result<(), StorageError> {
        self.poison.check()?;
        assert!(
            self.config.visibility == Visibility::Committed,
            "durable records are visible"
        );
        assert!(
            self.staging.is_none() && self.staged.is_none(),
            "one epoch is staged at a time"
        );
        // A batch belongs to one epoch: then the visible end is the end of a batch.
        self.partitions.iter_mut().for_each(|p| p.close());
        self.flush = true;
        let ends = self.partitions.iter().map(|p| p.next).collect();
        self.staging = Some(Staged { epoch, ends });
        self.advance_stage();
        Ok(())
    }

    fn advance_stage(&mut self) {
        let durable = |s: &mut Staged| {
            let mut each = self.partitions.iter().zip(&s.ends);
            each.all(|(p, end)| p.durable >= *end)
        };
        if let Some(staged) = self.staging.take_if(durable) {
            self.staged = Some(staged);
        }
    }

    /// The epoch that is durable since the last call, if any: what the job's checkpoint must name before it is committed.
    pub fn take_staged(&mut self) -> Option<Staged> {
        self.staged.take()
    }

    /// Makes the records of an epoch, and of all before it, visible. Once a checkpoint has decided on it; again does nothing.
    /// [`committed`](Self::committed) says when.
    ///
    /// # Errors
    /// The log is poisoned, or the records are not there.
    pub fn commit(&mut self, staged: &Staged) -> Result<(), StorageError> {
        self.poison.check()?;
        self.check_staged(staged)?;
        for (p, end) in self.partitions.iter_mut().zip(&staged.ends) {
            p.committing = p.committing.max(*end);
        }
        if staged.epoch > self.committing {
            self.committing = staged.epoch;
            self.index_wanted = true;
        }
        Ok(())
    }

    pub(super) fn check_staged(&self, staged: &Staged) -> Result<(), StorageError> {
        for (partition, &needed) in staged.ends.iter().enumerate() {
            let found = self.partitions.get(partition).map_or(0, |p| p.durable);
            if needed > found {
                return Err(StorageError::RecordsMissing {
                    partition: partition as u32,
                    epoch: staged.epoch,
                    needed,
                    found,
                });
            }
        }
        Ok(())
    }

    /// The last epoch that is committed for good; 0 if there is none.
    pub fn committed(&self) -> Epoch {
        self.committed
    }
}
