//! Starting a new job from a savepoint, or from the last checkpoint of another job's folder.
//!
//! Laws
//! 1. The new job touches nothing of the old one's: it reads, under a lineage of its own it writes, and its sinks are told that
//!    there is nothing that they had prepared.
//! 2. A state that the new job has not is an error, unless it is allowed by name to be dropped; so is one whose shape is another
//!    and whose type cannot migrate. A sink's state holds nothing between epochs, and is left out of this.
//! 3. A uid that was made up is good for the same job only: if the job has changed, it is an error that lists them all.

use super::registry::{Declared, Registry};
use super::restore::{self, Sections, Unfit};
use pelton_storage::{Checkpoint, FolderLock, Lineage, Savepoint, StdDisk, StorageError, Store};
use std::path::{Path, PathBuf};

/// What a new job starts from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub folder: PathBuf,
    pub lineage: Lineage,
    pub checkpoint: Checkpoint,
    /// Another job's folder is held until it has been read.
    _lock: Option<FolderLock>,
}

impl Origin {
    /// Opens a savepoint, or a folder of checkpoints that no job runs on. Nothing is written there (but who holds it).
    pub fn open(folder: &Path) -> Result<Self, Unfit> {
        let unreadable = |e: std::io::Error| Unfit::new(format!("it cannot be read: {e}"));
        std::fs::read_dir(folder).map_err(unreadable)?;
        let mut disk = StdDisk::blocking(folder).map_err(unreadable)?;
        match Savepoint::open(&mut disk, &folder.display().to_string()) {
            Ok(savepoint) => Ok(Self::of(folder.into(), savepoint)),
            Err(StorageError::NoSavepoint { .. }) => Self::of_checkpoints(folder, &mut disk),
            Err(e) => Err(e.into()),
        }
    }

    /// A savepoint that has been opened.
    pub fn of(folder: PathBuf, savepoint: Savepoint) -> Self {
        Origin {
            folder,
            lineage: savepoint.lineage,
            checkpoint: savepoint.checkpoint,
            _lock: None,
        }
    }

    fn of_checkpoints(folder: &Path, disk: &mut StdDisk) -> Result<Self, Unfit> {
        let lock = FolderLock::of_existing(folder).map_err(|e| match e {
            StorageError::Locked { .. } => Unfit::new(format!(
                "{e}: stop that job, or have it take a savepoint and start from that"
            )),
            e => e.into(),
        })?;
        let peeked = Store::peek(disk)?;
        let last = peeked.and_then(|p| Some((p.manifest.lineage, p.manifest.last()?.clone())));
        let (lineage, checkpoint) = last.ok_or_else(|| {
            Unfit::new("it holds neither a savepoint that was finished nor a checkpoint")
        })?;
        Ok(Origin {
            folder: folder.into(),
            lineage,
            checkpoint,
            _lock: lock,
        })
    }
}

/// Laws 2 and 3.
pub(super) fn check(
    checkpoint: &Checkpoint,
    key_groups: u32,
    registry: &Registry,
    dropped: &[String],
) -> Result<(), Unfit> {
    restore::check_groups(checkpoint, key_groups)?;
    let mut stored = Sections::states(checkpoint)?;
    stored.retain(|s| !s.is_of_sink());
    if let Some(unknown) = dropped
        .iter()
        .find(|d| stored.iter().all(|s| s.path() != **d))
    {
        let known: Vec<_> = stored.iter().map(Declared::path).collect();
        let known = known.join(", ");
        return Err(Unfit::new(format!(
            "'{unknown}' is allowed to be dropped and is no state of it; it has {known}"
        )));
    }
    let all = stored.len();
    stored.retain(|s| !dropped.contains(&s.path()) || registry.get(s.id).is_some());
    check_derived(&stored, stored.len() < all, registry)?;
    for state in &stored {
        let Some(now) = registry.get(state.id) else {
            return Err(Unfit::new(format!(
                "it has the state '{}' of {} (uid '{}'), which this job has not: {} was written. Keep an operator with this \
                 uid, or allow it to be dropped: allow_dropped(\"{}\")",
                state.name,
                state.operator,
                state.uid,
                state.shape,
                state.path()
            )));
        };
        restore::check_shape(state, now, registry)?;
    }
    Ok(())
}

/// Law 3.
fn check_derived(stored: &[Declared], has_dropped: bool, registry: &Registry) -> Result<(), Unfit> {
    let derived: Vec<_> = stored.iter().filter(|s| !s.given).collect();
    let same = |s: &Declared| registry.get(s.id).is_some_and(|now| now.shape == s.shape);
    let known = |now: &Declared| now.is_of_sink() || stored.iter().any(|s| s.id == now.id);
    let has_changed = has_dropped || !stored.iter().all(same) || !registry.states().all(known);
    if derived.is_empty() || !has_changed {
        return Ok(());
    }
    let list: Vec<_> = derived
        .iter()
        .map(|s| format!("'{}' of {} ({})", s.name, s.operator, s.path()))
        .collect();
    Err(Unfit::new(format!(
        "the job has changed, and states of it belong to operators without a uid of their own, so that nobody can tell whose \
         they are now: {}. Start the job as it was, give these operators uids, and take another savepoint",
        list.join("; ")
    )))
}

/// The checkpoint as it is written to a savepoint: its sinks have committed, and one writer writes all of it.
pub(crate) fn fit_for_savepoint(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint {
        sections: Sections::standing_alone(checkpoint),
        ..checkpoint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::uncommitted::Prepared;
    use pelton_storage::{Epoch, StateId};

    /// A sink may be asked to commit by nobody but the job that prepared it, and a copy is not laid out by shards.
    #[test]
    fn a_savepoint_has_nothing_to_commit_and_no_layout() {
        let registry = Registry::default();
        let mut sections = Sections::of_job("job", 128, &registry, &[(0, 2), (1, 3)]);
        let prepared = Prepared {
            sink: StateId(1),
            epoch: Epoch(7),
            bytes: vec![1],
        };
        Sections::put_prepared(&mut sections, &[prepared]);
        let checkpoint = Checkpoint {
            epoch: Epoch(7),
            segments: vec![],
            sections,
        };
        assert_eq!(Sections::prepared(&checkpoint).unwrap().len(), 1);
        assert_eq!(Sections::read_all(&checkpoint).unwrap(), 4, "no counters");
        let fit = fit_for_savepoint(&checkpoint);
        assert!(Sections::prepared(&fit).unwrap().is_empty());
        assert!(Sections::layout(&fit).unwrap().is_empty());
        assert_eq!(Sections::job(&fit).unwrap(), ("job".to_string(), 128));
    }
}
