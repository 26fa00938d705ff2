//! A folder with segments and a manifest: opening it, committing checkpoints, giving space back.
//!
//! Laws
//! 1. A checkpoint is committed by one durable manifest record, and by nothing before it. What the record names was durable before
//!    it was written.
//! 2. Opening waits; after that nothing here waits: `commit` stages, `step` submits, `complete` takes what came back.
//! 3. Before an opened store says what its last checkpoint is, that record has been written anew and synced: a record that
//!    a killed process had written and not synced is not believed first and lost to a power failure later.
//! 4. An epoch number is handed out once, restarts included: a record sets aside numbers before they are used.
//! 5. A segment goes when no retained checkpoint and no pin names it, after the record that stops naming it is durable.
//!    Segments that no record names go when the store is opened.
//! 6. The segment that a shard sealed last is never retired: its writer may go on writing to it, and a later checkpoint would then
//!    stand on a file that is gone.
//! 7. A failed write or sync of the manifest poisons the store. A segment that cannot be removed does not: the next opening
//!    removes it.

pub(crate) mod log;
pub(crate) mod open;

pub use open::{Note, Peeked, StoreConfig};

use crate::disk::{Completion, Disk, Full, Op, Ticket};
use crate::error::StorageError;
use crate::format::manifest::{Checkpoint, Extent, Manifest, SLOT_MAX};
use crate::id::{Epoch, SegmentId};
use crate::poison::Poison;
use crate::writer::{Sealed, SegmentWriter, WriterConfig};
use log::ManifestLog;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How many epochs may be begun without one being committed.
pub const EPOCHS_AHEAD: u64 = 1024;

/// What a new checkpoint consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Its number, from [`Store::begin_epoch`].
    pub epoch: Epoch,
    /// What the shards' writers sealed since the last commit: of this epoch, and of aborted ones before it.
    pub sealed: Vec<Sealed>,
    /// Segments that hold nothing any more that is not written again elsewhere. One that its shard may still write to stays
    /// named all the same: retire it again when the shard has sealed a later one.
    pub retired: Vec<SegmentId>,
    /// The caller's sections.
    pub sections: BTreeMap<String, Vec<u8>>,
}

/// Keeps the segments of one checkpoint while it is read, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin(u64);

/// See the laws on top of this file.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    poison: Poison,
    /// What the last durable record says.
    manifest: Manifest,
    log: ManifestLog,
    staged: Option<Manifest>,
    committed: Option<Epoch>,
    next_epoch: Epoch,
    /// The last segment that each shard has sealed since the store was opened.
    newest: BTreeMap<u32, SegmentId>,
    pins: BTreeMap<Pin, Vec<SegmentId>>,
    next_pin: u64,
    /// Named by no retained checkpoint any more, perhaps still pinned.
    doomed: BTreeSet<SegmentId>,
    removing: Option<SegmentId>,
    outbox: VecDeque<(Op, Ticket)>,
    notes: Vec<Note>,
    removed: u64,
}

/// The serial of the one removal under way; those of the manifest are below.
const REMOVAL: u64 = 1 << 32;

impl Store {
    /// What the last durable record says: lineage, attempt, retained checkpoints.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The checkpoint to restart from.
    pub fn last(&self) -> Option<&Checkpoint> {
        self.manifest.last()
    }

    /// The owner that this store's tickets carry.
    pub fn owner(&self) -> u32 {
        self.config.owner
    }

    /// What opening and running found that is worth telling, since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// How many segments were removed by this opened store, those that opening removed included.
    pub fn segments_removed(&self) -> u64 {
        self.removed
    }

    /// The poison that this store shares with its writers.
    pub fn poison(&self) -> &Poison {
        &self.poison
    }

    /// A writer for a shard. One for each shard and opening: its segments are numbered from 0.
    pub fn writer(&self, shard: u32, config: WriterConfig) -> SegmentWriter {
        let Manifest {
            lineage, attempt, ..
        } = self.manifest;
        SegmentWriter::new(config, lineage, attempt, shard, self.poison.clone())
    }

    /// A number that no epoch of this lineage had or will have.
    ///
    /// # Errors
    /// [`StorageError::EpochsExhausted`] after [`EPOCHS_AHEAD`] without a commit.
    pub fn begin_epoch(&mut self) -> Result<Epoch, StorageError> {
        self.poison.check()?;
        let epoch = self.next_epoch;
        let unused_from = self.manifest.unused_from;
        if epoch >= unused_from {
            return Err(StorageError::EpochsExhausted { epoch, unused_from });
        }
        self.next_epoch = Epoch(epoch.0 + 1);
        Ok(epoch)
    }

    /// Stages a checkpoint. It counts when [`take_committed`](Self::take_committed) says so. One at a time.
    ///
    /// # Errors
    /// The store is poisoned, or the record would be too long; nothing was staged then.
    pub fn commit(&mut self, commit: Commit) -> Result<(), StorageError> {
        self.poison.check()?;
        assert!(self.staged.is_none(), "one commit at a time");
        assert!(commit.epoch < self.next_epoch, "an epoch that was begun");
        let before = self.manifest.last();
        assert!(
            before.is_none_or(|c| c.epoch < commit.epoch),
            "epochs are committed in order"
        );
        let mut segments = before.map_or_else(BTreeMap::new, |c| {
            c.segments.iter().map(|e| (e.segment, e.len)).collect()
        });
        for extent in commit.sealed.iter().flat_map(|s| &s.extents) {
            let len = segments.entry(extent.segment).or_insert(0);
            *len = extent.len.max(*len);
            let shard = extent.segment.shard;
            let newest = self.newest.entry(shard).or_insert(extent.segment);
            *newest = extent.segment.max(*newest);
        }
        for segment in &commit.retired {
            // A shard whose entries are all gone retires everything, and then writes on where it was.
            if self.newest.get(&segment.shard) != Some(segment) {
                segments.remove(segment);
            }
        }
        let segments = segments.into_iter();
        let checkpoint = Checkpoint {
            epoch: commit.epoch,
            segments: segments
                .map(|(segment, len)| Extent { segment, len })
                .collect(),
            sections: commit.sections,
        };
        let mut manifest = self.manifest.clone();
        let retained = manifest.checkpoints.len() + 1;
        let gone = retained.saturating_sub(self.config.retained);
        manifest.checkpoints.drain(..gone);
        manifest.checkpoints.push(checkpoint);
        self.stage(manifest)
    }

    /// Stages a record that sets aside more epochs and changes nothing else, for who ran into
    /// [`StorageError::EpochsExhausted`]. [`take_committed`](Self::take_committed) does not report it.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn reserve_epochs(&mut self) -> Result<(), StorageError> {
        self.poison.check()?;
        assert!(self.staged.is_none(), "one commit at a time");
        self.stage(self.manifest.clone())
    }

    fn stage(&mut self, mut manifest: Manifest) -> Result<(), StorageError> {
        manifest.unused_from = Epoch(self.next_epoch.0 + EPOCHS_AHEAD);
        let (len, max) = (manifest.encoded_len(), SLOT_MAX as u64);
        if len > max {
            return Err(StorageError::ManifestTooLarge { len, max });
        }
        self.log.begin(&manifest);
        self.staged = Some(manifest);
        Ok(())
    }

    /// Whether a commit is staged or under way.
    pub fn is_committing(&self) -> bool {
        self.staged.is_some()
    }

    /// The checkpoint that has become durable since the last call, if any.
    pub fn take_committed(&mut self) -> Option<Epoch> {
        self.committed.take()
    }

    /// Keeps a retained checkpoint's segments until [`unpin`](Self::unpin), for a reader or a savepoint. `None` if the
    /// epoch is not retained.
    pub fn pin(&mut self, epoch: Epoch) -> Option<(Pin, Checkpoint)> {
        let mut checkpoints = self.manifest.checkpoints.iter();
        let checkpoint = checkpoints.find(|c| c.epoch == epoch)?.clone();
        let pin = Pin(self.next_pin);
        self.next_pin += 1;
        let segments = checkpoint.segments.iter().map(|e| e.segment).collect();
        self.pins.insert(pin, segments);
        Some((pin, checkpoint))
    }

    /// Lets go.
    pub fn unpin(&mut self, pin: Pin) {
        self.pins.remove(&pin);
    }

    /// Whether nothing is staged, under way, or to be removed.
    pub fn is_idle(&self) -> bool {
        let removable = self.doomed.iter().any(|s| !self.is_pinned(*s));
        self.staged.is_none()
            && self.log.is_idle()
            && self.removing.is_none()
            && self.outbox.is_empty()
            && !removable
    }

    fn is_pinned(&self, segment: SegmentId) -> bool {
        self.pins.values().any(|p| p.contains(&segment))
    }

    /// Submits what is ready, as far as the disk takes it: the manifest's operations first, and one removal at a time.
    pub fn step(&mut self, disk: &mut dyn Disk) {
        if self.poison.check().is_err() {
            return;
        }
        self.log.step(disk);
        if self.removing.is_none()
            && let Some(&segment) = self.doomed.iter().find(|s| !self.is_pinned(**s))
        {
            self.doomed.remove(&segment);
            self.removing = Some(segment);
            let op = Op::Remove {
                name: segment.file_name(),
            };
            let ticket = Ticket {
                owner: self.config.owner,
                serial: REMOVAL,
            };
            self.outbox.push_back((op, ticket));
        }
        if let Some((op, ticket)) = self.outbox.pop_front()
            && let Err(Full(op)) = disk.submit(op, ticket)
        {
            self.outbox.push_front((op, ticket));
        }
    }

    /// Takes a completion whose ticket has this store as owner.
    ///
    /// # Errors
    /// The manifest could not be written: the store is poisoned.
    pub fn complete(&mut self, completion: Completion) -> Result<(), StorageError> {
        if completion.ticket.serial == REMOVAL {
            self.removed(completion);
            return Ok(());
        }
        let durable = self.log.complete(completion).inspect_err(|cause| {
            self.poison.set(cause.clone());
        })?;
        if !durable {
            return Ok(());
        }
        let Some(manifest) = self.staged.take() else {
            return Ok(());
        };
        let before = std::mem::replace(&mut self.manifest, manifest);
        let named = before.checkpoints.iter().flat_map(|c| &c.segments);
        let dead = named
            .map(|e| e.segment)
            .filter(|s| !self.manifest.names(*s));
        self.doomed.extend(dead);
        let last = |m: &Manifest| m.last().map(|c| c.epoch);
        if last(&before) != last(&self.manifest) {
            self.committed = last(&self.manifest);
        }
        Ok(())
    }

    fn removed(&mut self, completion: Completion) {
        let Some(segment) = self.removing.take() else {
            return;
        };
        match completion.result {
            Ok(_) => self.removed += 1,
            Err(f) => self.notes.push(Note::NotRemoved {
                file: segment.file_name(),
                error: f.error,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
