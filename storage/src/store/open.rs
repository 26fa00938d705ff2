//! Opening a store: which record counts, what goes, and making the record durable again.

use super::log::{ManifestLog, UNFINISHED, file_name, parse};
use super::{EPOCHS_AHEAD, Store};
use crate::buffer::Buffer;
use crate::disk::{BlockingDisk, DiskError, Done, FileId, Mode, Op};
use crate::error::StorageError;
use crate::format::manifest::{FILE_HEADER, FileHeader, MANIFEST, Manifest, SLOTS};
use crate::format::{Fault, Wrong};
use crate::id::{Epoch, Lineage, SegmentId};
use crate::poison::Poison;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;

/// How a store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The owner in the store's tickets; unlike that of all others on the same disk.
    pub owner: u32,
    /// How many checkpoints are kept, at least 1.
    pub retained: usize,
    /// The lineage, if the folder is empty; drawn by the caller.
    pub lineage_if_new: Lineage,
    /// Whether the manifest goes round the page cache where that is allowed.
    pub direct: bool,
}

/// What an operator may want to know and need not act on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// One of two copies was torn or has rotted; the other was used, and both were written anew.
    DamagedCopy {
        /// The file.
        file: String,
        /// Where the copy begins, in bytes.
        offset: u64,
    },
    /// A file that no checkpoint names was left by a process that ended early, and has been removed.
    Removed {
        /// The file.
        file: String,
    },
    /// A file that is of no use could not be removed; the next opening will try again.
    NotRemoved {
        /// The file.
        file: String,
        /// Why.
        error: DiskError,
    },
}

/// What [`Store::peek`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// The newest whole record: lineage, attempt, retained checkpoints.
    pub manifest: Manifest,
    /// Copies of it that are torn or have rotted, while another is whole.
    pub notes: Vec<Note>,
    /// Files that the next opening will remove: segments that no checkpoint names, manifests that were not finished.
    pub left_over: Vec<String>,
}

/// The best record of the folder so far.
#[derive(Debug)]
struct Best {
    sequence: u64,
    manifest: Manifest,
}

/// What the manifest files of a folder say, and how to go on from there.
#[derive(Debug)]
pub(crate) struct Found {
    /// The newest whole record, or that of a new folder.
    pub manifest: Manifest,
    /// The log of records to come; opening a store or ingest log writes the first at once.
    pub log: ManifestLog,
    /// All files of the folder.
    pub names: Vec<String>,
}

/// Whether this is a manifest that was not finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED).and_then(parse).is_some()
}

/// What is being found out while a store or ingest log opens.
pub(crate) struct Opening<'d, D: BlockingDisk> {
    pub disk: &'d mut D,
    pub notes: Vec<Note>,
    best: Option<Best>,
    /// The first thing that was wrong with a manifest, told if no record is whole.
    wrong: Option<StorageError>,
}

impl Store {
    /// Opens the store in the disk's folder, or makes one there if it is empty. Waits for the disk, on which nothing else is under
    /// way. The caller holds the folder's [`FolderLock`](crate::FolderLock).
    ///
    /// # Errors
    /// A manifest or segment is damaged, missing or of another version; or the disk fails.
    pub fn open<D: BlockingDisk>(disk: &mut D, config: StoreConfig) -> Result<Store, StorageError> {
        assert!(config.retained > 0, "the last checkpoint is always kept");
        let mut opening = Opening::new(disk);
        let is_segment = |n: &str| SegmentId::parse(n).is_some();
        let Found {
            manifest,
            log,
            names,
        } = opening.find(
            config.owner,
            config.direct,
            config.lineage_if_new,
            is_segment,
        )?;
        let segments = opening.check_segments(&manifest)?;
        let mut store = Store {
            poison: Poison::default(),
            log,
            staged: None,
            committed: None,
            next_epoch: manifest.unused_from,
            manifest,
            newest: BTreeMap::new(),
            pins: BTreeMap::new(),
            next_pin: 0,
            doomed: BTreeSet::new(),
            removing: None,
            outbox: VecDeque::new(),
            notes: Vec::new(),
            removed: 0,
            config,
        };
        opening.sweep(&mut store, &names, &segments)?;
        store.manifest.attempt += 1;
        store.stage(store.manifest.clone())?;
        store.notes = std::mem::take(&mut opening.notes);
        store.settle(opening.disk)?;
        debug_assert!(store.manifest.unused_from.0 == store.next_epoch.0 + EPOCHS_AHEAD);
        Ok(store)
    }

    /// What the store in the disk's folder would be opened with, for tools: nothing is written, cut or removed, and no segment is
    /// looked at. `None`: the folder has neither manifests nor segments. Waits for the disk, on which nothing else is under way.
    /// The caller holds the folder's [`FolderLock`](crate::FolderLock).
    ///
    /// # Errors
    /// No record is whole though there should be one, one is of another version, or the disk fails.
    pub fn peek<D: BlockingDisk>(disk: &mut D) -> Result<Option<Peeked>, StorageError> {
        let mut opening = Opening::new(disk);
        let is_segment = |n: &str| SegmentId::parse(n).is_some();
        let found = opening.find(0, false, Lineage([0; 16]), is_segment)?;
        let there = |n: &String| parse(n).is_some() || is_segment(n);
        if !found.names.iter().any(there) {
            return Ok(None);
        }
        let unnamed = |n: &&String| match SegmentId::parse(n) {
            Some(segment) => !found.manifest.names(segment),
            None => is_unfinished(n),
        };
        let left_over = found.names.iter().filter(unnamed).cloned().collect();
        Ok(Some(Peeked {
            manifest: found.manifest,
            notes: opening.notes,
            left_over,
        }))
    }

    /// Steps until nothing is under way, waiting for the disk.
    ///
    /// # Errors
    /// The manifest could not be written.
    fn settle<D: BlockingDisk>(&mut self, disk: &mut D) -> Result<(), StorageError> {
        let mut completions = Vec::new();
        while !self.is_idle() {
            self.step(disk);
            disk.poll(&mut completions);
            if completions.is_empty() {
                let waited = disk.wait();
                waited.map_err(|e| StorageError::io("write", "the manifest", e))?;
            }
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
        }
        Ok(())
    }
}

impl<'d, D: BlockingDisk> Opening<'d, D> {
    pub fn new(disk: &'d mut D) -> Self {
        Opening {
            disk,
            notes: Vec::new(),
            best: None,
            wrong: None,
        }
    }

    /// Reads the manifest files. `is_data` knows the files that mean nothing without one.
    ///
    /// # Errors
    /// No record is whole though there should be one, one is of another version, or the disk fails.
    pub fn find(
        &mut self,
        owner: u32,
        direct: bool,
        lineage_if_new: Lineage,
        is_data: impl Fn(&str) -> bool,
    ) -> Result<Found, StorageError> {
        let names = self.names()?;
        let manifests: Vec<u32> = names.iter().filter_map(|n| parse(n)).collect();
        for &number in &manifests {
            self.read_file(&file_name(number))?;
        }
        let has_data = names.iter().any(|n| is_data(n));
        let (manifest, sequence) = self.choose(lineage_if_new, has_data)?;
        // Past the unfinished ones too: if removing one were lost and renaming its namesake were not, the wrong file would be renamed.
        let unfinished = names.iter().filter_map(|n| n.strip_suffix(UNFINISHED));
        let taken = manifests.iter().copied();
        let taken = taken.chain(unfinished.filter_map(parse));
        // A name with the greatest number is not ours; the one that it would take is refused when it is made.
        let number = taken.max().map_or(0, |n| n.saturating_add(1));
        let old = manifests.iter().map(|n| file_name(*n)).collect();
        Ok(Found {
            manifest,
            log: ManifestLog::new(owner, direct, number, sequence, old),
            names,
        })
    }

    fn names(&mut self) -> Result<Vec<String>, StorageError> {
        match self.disk.call(Op::List) {
            Ok(Done::Names(names)) => Ok(names),
            Ok(_) => unreachable!("a list brings names"),
            Err(f) => Err(StorageError::io("list", "the folder", f.error)),
        }
    }

    pub fn open_file(
        &mut self,
        name: &str,
        mode: Mode,
    ) -> Result<Option<(FileId, u64)>, StorageError> {
        let op = Op::Open {
            name: name.to_string(),
            mode,
            direct: false,
        };
        match self.disk.call(op) {
            Ok(Done::Opened { file, len, .. }) => Ok(Some((file, len))),
            Ok(_) => unreachable!("an open opens"),
            Err(f) if f.error.kind == ErrorKind::NotFound => Ok(None),
            Err(f) => Err(StorageError::io("open", name, f.error)),
        }
    }

    /// Up to `len` bytes; fewer at the end of the file.
    fn read(
        &mut self,
        name: &str,
        file: FileId,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, StorageError> {
        let buffer = Buffer::zeroed(len);
        let op = Op::Read {
            file,
            offset,
            buffer,
        };
        match self.disk.call(op) {
            Ok(Done::Filled { mut buffer, filled }) => {
                buffer.resize(filled);
                Ok(buffer)
            }
            Ok(_) => unreachable!("a read fills"),
            Err(f) => Err(StorageError::io("read", name, f.error)),
        }
    }

    fn read_file(&mut self, name: &str) -> Result<(), StorageError> {
        let Some((file, len)) = self.open_file(name, Mode::Read)? else {
            return Ok(());
        };
        let read = self.read_records(name, file, len);
        // A file that was only read has nothing to lose.
        let _ = self.disk.call(Op::Close { file });
        read
    }

    fn read_records(&mut self, name: &str, file: FileId, len: u64) -> Result<(), StorageError> {
        let Some(header) = self.read_header(name, file)? else {
            return Ok(());
        };
        for slot in 0..SLOTS {
            let offsets = [header.offset(slot, 0), header.offset(slot, 1)];
            let mut copies = Vec::with_capacity(2);
            for offset in offsets {
                let there = len.saturating_sub(offset).min(header.slot) as usize;
                let bytes = self.read(name, file, offset, there)?;
                copies.push(Manifest::decode(MANIFEST, &bytes));
            }
            let bad: Vec<u64> = (0..2)
                .filter(|&i| copies[i].is_err())
                .map(|i| offsets[i])
                .collect();
            for copy in copies {
                match copy {
                    Ok((sequence, manifest)) => self.consider(name, &bad, sequence, manifest),
                    Err(wrong) => self.note_wrong(name, bad[0], wrong)?,
                }
            }
        }
        Ok(())
    }

    /// The file's header from either copy; `None` if both are damaged.
    fn read_header(
        &mut self,
        name: &str,
        file: FileId,
    ) -> Result<Option<FileHeader>, StorageError> {
        let mut header = None;
        for at in [0, FILE_HEADER as u64] {
            let bytes = self.read(name, file, at, FILE_HEADER)?;
            match FileHeader::decode(&bytes) {
                Ok(found) => header = Some(found),
                Err(wrong) => {
                    self.note_wrong(name, at, wrong)?;
                    let file = name.to_string();
                    self.notes.push(Note::DamagedCopy { file, offset: at });
                }
            }
        }
        Ok(header)
    }

    /// A newer version is an error at once: older records beside it must not be taken for the last.
    fn note_wrong(&mut self, name: &str, at: u64, wrong: Wrong) -> Result<(), StorageError> {
        let newer = matches!(wrong.what, Fault::Version { .. });
        let error = StorageError::wrong(name, at, Epoch(0), wrong);
        if newer {
            return Err(error);
        }
        self.wrong.get_or_insert(error);
        Ok(())
    }

    fn consider(&mut self, name: &str, bad: &[u64], sequence: u64, manifest: Manifest) {
        if self.best.as_ref().is_some_and(|b| b.sequence >= sequence) {
            return;
        }
        if let Some(&offset) = bad.first() {
            let file = name.to_string();
            self.notes.push(Note::DamagedCopy { file, offset });
        }
        self.best = Some(Best { sequence, manifest });
    }

    /// The manifest to go on from, and the sequence number of the next record.
    fn choose(
        &mut self,
        lineage_if_new: Lineage,
        has_data: bool,
    ) -> Result<(Manifest, u64), StorageError> {
        if let Some(best) = self.best.take() {
            return Ok((best.manifest, best.sequence + 1));
        }
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        if has_data {
            return Err(StorageError::NoManifest);
        }
        let manifest = Manifest {
            lineage: lineage_if_new,
            attempt: 0,
            unused_from: Epoch(1),
            checkpoints: Vec::new(),
        };
        Ok((manifest, 0))
    }

    /// Every segment that a retained checkpoint names is there and long enough. Returns each with the length that counts; what lies
    /// beyond is cut off, so that space allocated by an earlier attempt is free again.
    fn check_segments(
        &mut self,
        manifest: &Manifest,
    ) -> Result<BTreeMap<SegmentId, u64>, StorageError> {
        let mut valid: BTreeMap<SegmentId, (u64, Epoch)> = BTreeMap::new();
        for checkpoint in &manifest.checkpoints {
            for extent in &checkpoint.segments {
                let at = valid.entry(extent.segment).or_insert((0, checkpoint.epoch));
                *at = (extent.len.max(at.0), checkpoint.epoch);
            }
        }
        for (segment, &(needed, epoch)) in &valid {
            let file = segment.file_name();
            let opened = self.open_file(&file, Mode::Write)?;
            let found = opened.map_or(0, |(_, len)| len);
            if found < needed {
                return Err(StorageError::Missing {
                    file,
                    epoch,
                    needed,
                    found,
                });
            }
            let Some((id, _)) = opened else {
                continue;
            };
            if found > needed {
                let cut = self.disk.call(Op::Truncate {
                    file: id,
                    len: needed,
                });
                cut.map_err(|f| StorageError::io("truncate", file.clone(), f.error))?;
            }
            let closed = self.disk.call(Op::Close { file: id });
            closed.map_err(|f| StorageError::io("close", file, f.error))?;
        }
        Ok(valid.into_iter().map(|(s, (len, _))| (s, len)).collect())
    }

    /// Removes what no checkpoint names: segments, and manifests that were not finished.
    fn sweep(
        &mut self,
        store: &mut Store,
        names: &[String],
        named: &BTreeMap<SegmentId, u64>,
    ) -> Result<(), StorageError> {
        for name in names {
            let segment = SegmentId::parse(name);
            let unlisted = segment.is_some_and(|s| !named.contains_key(&s));
            if !unlisted && !is_unfinished(name) {
                continue;
            }
            let file = name.clone();
            match self.disk.call(Op::Remove { name: file.clone() }) {
                Ok(_) => {
                    store.removed += u64::from(unlisted);
                    self.notes.push(Note::Removed { file });
                }
                // A new manifest or segment may want the very name.
                Err(f) => return Err(StorageError::io("remove", file, f.error)),
            }
        }
        Ok(())
    }
}
