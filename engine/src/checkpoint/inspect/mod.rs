//! Looking at a folder of checkpoints, or at a savepoint, from outside: what it holds, and whether all of it is whole. For tools.
//!
//! Laws
//! 1. Nothing in the folder is changed: what an opening would cut, remove or write anew stays as it is. (The process's number goes
//!    into the lock file, for whoever is refused meanwhile.)
//! 2. The folder is held while it is read; one that a job runs on is refused.
//! 3. What a state holds is counted as a restore would find it: the last frame of a key counts, and the tombstone of a window is
//!    one for each of its entries. What the engine notes beside them (M, of how many shards, the clock) is no entry.
//! 4. Of what states hold only the engine's own is read: positions, watermarks and a checkpoint's sections. Keys and values of
//!    users need their types.

mod content;
mod entry;
mod report;

pub(crate) use entry::{Sought, value_of};

pub use report::{
    Content, Damage, InspectError, Inspection, PartitionContent, PreparedContent, Retained,
    StateContent, Verification, WatermarkContent,
};

use super::restore::Sections;
use crate::state::{Codec, LoadError};
use content::{Counted, Own};
use pelton_storage::{
    Block, Checkpoint, Epoch, Filter, FolderLock, Lineage, Manifest, Note, Peeked, PlainBytes,
    Savepoint, SegmentId, SnapshotReader, StateId, StdDisk, StorageError, Store,
};
use std::collections::BTreeMap;
use std::path::Path;

/// What a folder of checkpoints, or a savepoint, holds. Reads all of the last one; memory grows with the number of its entries and their keys.
///
/// # Errors
/// There is no store, a job runs on it, or what must be read is damaged: then [`verify`] says more.
pub fn inspect(folder: impl AsRef<Path>) -> Result<Inspection, InspectError> {
    let mut open = Open::of(folder.as_ref())?;
    let manifest = open.peeked.manifest.clone();
    let last = match manifest.last() {
        None => None,
        Some(last) => Some(open.content(manifest.lineage, last)?),
    };
    let retained = |c: &Checkpoint| Retained {
        epoch: c.epoch,
        segments: c
            .segments
            .iter()
            .map(|e| (e.segment.file_name(), e.len))
            .collect(),
    };
    Ok(Inspection {
        lineage: manifest.lineage.to_string(),
        starts: manifest.attempt,
        checkpoints: manifest.checkpoints.iter().map(retained).collect(),
        last,
        notes: notes(&open.peeked),
    })
}

/// Whether all that the folder's checkpoints stand on is as it was written: every checksum, every frame, and each value that
/// is the engine's own.
///
/// # Errors
/// There is no store, a job runs on it, it is of another version, or the disk fails. Damage is no error: it is in the answer.
pub fn verify(folder: impl AsRef<Path>) -> Result<Verification, InspectError> {
    let mut found = Verification::default();
    let mut open = match Open::of(folder.as_ref()) {
        Ok(open) => open,
        Err(InspectError::Storage(e)) if damage(&e).is_some() => {
            found.damage.extend(damage(&e));
            return Ok(found);
        }
        Err(e) => return Err(e),
    };
    found.notes = notes(&open.peeked);
    let manifest = open.peeked.manifest.clone();
    found.checkpoints = manifest.checkpoints.len() as u64;
    for checkpoint in &manifest.checkpoints {
        match Sections::read_all(checkpoint) {
            Ok(read) => found.archives += read,
            Err(e) => found.damage.push(Damage {
                file: String::new(),
                offset: 0,
                what: format!("checkpoint {}: {e}", checkpoint.epoch),
            }),
        }
    }
    for (segment, checkpoint) in segments(&manifest) {
        match open.verify(manifest.lineage, checkpoint, segment, &mut found) {
            Ok(()) => found.segments += 1,
            Err(e) => match damage(&e) {
                Some(damage) => found.damage.push(damage),
                None => return Err(e.into()),
            },
        }
    }
    Ok(found)
}

/// Each segment with the newest checkpoint that names it: that has the greatest length.
fn segments(manifest: &Manifest) -> BTreeMap<SegmentId, &Checkpoint> {
    let mut newest = BTreeMap::new();
    for checkpoint in &manifest.checkpoints {
        for extent in &checkpoint.segments {
            newest.insert(extent.segment, checkpoint);
        }
    }
    newest
}

fn damage(error: &StorageError) -> Option<Damage> {
    let of = |file: &str, offset, what: String| {
        let file = file.into();
        Some(Damage { file, offset, what })
    };
    match error {
        StorageError::Damaged {
            file, offset, what, ..
        } => of(file, *offset, what.clone()),
        StorageError::Missing {
            file,
            epoch,
            needed,
            found,
        } => of(
            file,
            *found,
            format!("checkpoint {epoch} needs {needed} bytes of it and {found} are there"),
        ),
        StorageError::NoManifest => of(
            "",
            0,
            "there are segments and no manifest that says what they mean".into(),
        ),
        _ => None,
    }
}

fn notes(peeked: &Peeked) -> Vec<String> {
    let copies = peeked.notes.iter().filter_map(|note| match note {
        Note::DamagedCopy { file, offset } => Some(format!(
            "{file}: the copy at offset {offset} is not whole, another is: the next start writes both anew"
        )),
        _ => None,
    });
    let left = peeked.left_over.iter();
    let left = left.map(|file| {
        format!("{file} is not part of any checkpoint that is kept: the next start removes it")
    });
    copies.chain(left).collect()
}

/// A savepoint is a store with one checkpoint, which nobody writes to.
fn of_savepoint(savepoint: Savepoint) -> Peeked {
    let manifest = Manifest {
        lineage: savepoint.lineage,
        attempt: 0,
        unused_from: Epoch(savepoint.checkpoint.epoch.0 + 1),
        checkpoints: vec![savepoint.checkpoint],
    };
    Peeked {
        manifest,
        notes: vec![],
        left_over: vec![],
    }
}

/// A folder being looked at.
struct Open {
    folder: String,
    disk: StdDisk,
    peeked: Peeked,
    _lock: Option<FolderLock>,
}

impl Open {
    fn of(folder: &Path) -> Result<Self, InspectError> {
        let no_store = |what: &str| InspectError::NoStore {
            folder: folder.display().to_string(),
            what: what.into(),
        };
        match std::fs::read_dir(folder).map(|mut names| names.next().is_none()) {
            Err(e) => return Err(no_store(&format!("it cannot be read: {e}"))),
            Ok(true) => {
                return Err(no_store(
                    "the folder is empty: no job has taken a checkpoint here yet",
                ));
            }
            Ok(false) => {}
        }
        let lock = FolderLock::of_existing(folder)?;
        let mut disk = StdDisk::blocking(folder).map_err(|e| no_store(&e.to_string()))?;
        let peeked = match Savepoint::open(&mut disk, &folder.display().to_string()) {
            Ok(savepoint) => of_savepoint(savepoint),
            Err(StorageError::NoSavepoint { .. }) => Store::peek(&mut disk)?.ok_or_else(|| {
                no_store(
                    "it holds no checkpoints, and no savepoint: neither manifests nor segments. Name the folder that the job was given",
                )
            })?,
            Err(e) => return Err(e.into()),
        };
        Ok(Open {
            folder: folder.display().to_string(),
            disk,
            peeked,
            _lock: lock,
        })
    }

    /// Reads all of a checkpoint.
    fn content(&mut self, lineage: Lineage, last: &Checkpoint) -> Result<Content, InspectError> {
        let folder = self.folder.clone();
        let wrong = |e: LoadError| InspectError::NotOfAJob {
            folder: folder.clone(),
            epoch: last.epoch,
            what: e.what,
        };
        let (job, key_groups) = Sections::job(last).map_err(wrong)?;
        let declared = Sections::states(last).map_err(wrong)?;
        let mut states: BTreeMap<u64, Counted> = declared
            .into_iter()
            .map(|state| (state.id.0, Counted::new(state)))
            .collect();
        let mut reader = SnapshotReader::new(
            PlainBytes::new(&mut self.disk),
            lineage,
            last,
            Filter::default(),
        );
        while let Some(block) = reader.next_block()? {
            let mut fault = None;
            // Of a state that nobody has declared: no restore would read it.
            if let Some(state) = states.get_mut(&block.head.state.0) {
                for frame in block.frames() {
                    match frame {
                        Ok(frame) => state.take(&frame),
                        Err(wrong) => fault = Some(wrong),
                    }
                }
            }
            if let Some(fault) = fault {
                return Err(reader.wrong_frame(fault).into());
            }
        }
        let names: BTreeMap<u64, String> = states
            .iter()
            .map(|(id, s)| (*id, s.declared.uid.clone()))
            .collect();
        let prepared = Sections::prepared(last).map_err(wrong)?;
        let prepared = prepared.into_iter().map(|p| PreparedContent {
            uid: names.get(&p.sink.0).cloned().unwrap_or_default(),
            epoch: p.epoch,
            bytes: p.bytes.len() as u64,
        });
        let mut content = Content {
            job,
            key_groups,
            shards: Sections::layout(last).map_err(wrong)?,
            states: vec![],
            partitions: vec![],
            watermarks: vec![],
            prepared: prepared.collect(),
        };
        for state in states.into_values() {
            state.tell(&mut content).map_err(wrong)?;
        }
        let name = |s: &StateContent| (s.uid.clone(), s.name.clone());
        content.states.sort_by_key(name);
        let place = |p: &PartitionContent| (p.source.clone(), p.number);
        content.partitions.sort_by_key(place);
        let place = |w: &WatermarkContent| (w.uid.clone(), w.number);
        content.watermarks.sort_by_key(place);
        Ok(content)
    }

    /// Looks at every block and frame of a segment.
    fn verify(
        &mut self,
        lineage: Lineage,
        checkpoint: &Checkpoint,
        segment: SegmentId,
        found: &mut Verification,
    ) -> Result<(), StorageError> {
        // Where they cannot be read, that has been told, and the frames are looked at all the same.
        let states = Sections::states(checkpoint).unwrap_or_default();
        let states: BTreeMap<StateId, Own> = states
            .iter()
            .filter_map(|state| Some((state.id, Own::of(state)?)))
            .collect();
        let source = PlainBytes::new(&mut self.disk);
        let mut reader =
            SnapshotReader::new(source, lineage, checkpoint, Filter::default()).only(segment);
        let mut codec = Codec::default();
        loop {
            let Some(block) = reader.next_block()? else {
                return Ok(());
            };
            found.blocks += 1;
            found.bytes += block.bytes.len() as u64;
            let own = states.get(&block.head.state);
            match verify_block(&block, own, &mut codec, found) {
                Ok(()) => {}
                Err(Fault::Frame(wrong)) => return Err(reader.wrong_frame(wrong)),
                Err(Fault::Archive(at, e)) => {
                    let (file, offset) = reader.place();
                    let damage = Damage {
                        file: file.into(),
                        offset: offset + at,
                        what: e.what,
                    };
                    found.damage.push(damage);
                    return Ok(());
                }
            }
        }
    }
}

/// What is wrong in a block.
enum Fault {
    Frame(pelton_storage::format::Wrong),
    /// Where the value begins, in bytes from the block's beginning.
    Archive(u64, LoadError),
}

fn verify_block(
    block: &Block<'_>,
    own: Option<&Own>,
    codec: &mut Codec,
    found: &mut Verification,
) -> Result<(), Fault> {
    for frame in block.frames() {
        let frame = frame.map_err(Fault::Frame)?;
        found.frames += 1;
        if let (Some(own), Some(value)) = (own, frame.value) {
            let at = value.as_ptr() as usize - block.bytes.as_ptr() as usize;
            let read = own.read(frame.key, value, codec);
            let read = read.map_err(|e| Fault::Archive(at as u64, e))?;
            found.archives += u64::from(read.is_some());
        }
    }
    Ok(())
}
