//! What survives: segments of state, the manifest that says which of them count, and readers that find them again.
//!
//! - [`Disk`] is the one seam to files. Operations go down with a ticket and an owned buffer, completions come back; nothing
//!   in between blocks. [`StdDisk`] is a folder of real files behind a helper thread; [`MemoryDisk`] and [`FaultyDisk`]
//!   are folders in memory that lose what was not synced, and fail on demand; a [`SharedDisk`] is one that several hold.
//! - [`Store`] is a folder: opening it finds the last whole checkpoint, [`Store::commit`] makes the next one durable.
//! - [`SegmentWriter`] is one shard's log. Frames go in; an epoch that is sealed is durable.
//! - [`SnapshotReader`] hands out what a checkpoint stands on, in log order, checked.
//! - [`Savepoint`] is a folder of its own with all of one checkpoint.
//! - [`Log`] is the ingest log: records appended by many and durable together, or a job's output that is visible by epochs;
//!   [`LogReader`] reads it from any offset or time on, and a [`Follower`] finds what it may read while somebody else has the log.
//!
//! Nothing here reads a clock, draws at random, knows a job or depends on another crate of this project.
//!
//! ```
//! use pelton_storage::*;
//! use std::collections::BTreeMap;
//!
//! let mut disk = MemoryDisk::new();
//! let config = StoreConfig {
//!     owner: 0,
//!     retained: 1,
//!     lineage_if_new: Lineage([7; 16]),
//!     direct: true,
//! };
//! let mut store = Store::open(&mut disk, config.clone())?;
//! let mut writer = store.writer(0, WriterConfig::new(1));
//!
//! // A shard's side: frames of an epoch, then its seal. `Busy` means: step, and push again.
//! let epoch = store.begin_epoch()?;
//! let head = BlockHead { epoch, state: StateId(1), group: KeyGroup(0) };
//! let frame = Frame { epoch, key: b"k", value: Some(b"v") };
//! while let Err(refused) = writer.push(head, frame) {
//!     assert_eq!(refused, Refused::Busy);
//!     drive(&mut disk, &mut store, &mut writer)?;
//! }
//! writer.seal(epoch)?;
//! let sealed = loop {
//!     drive(&mut disk, &mut store, &mut writer)?;
//!     if let Some(sealed) = writer.take_sealed() {
//!         break sealed;
//!     }
//! };
//!
//! // The coordinator's side: what all shards sealed becomes a checkpoint.
//! let positions = BTreeMap::from([("positions".to_string(), b"17".to_vec())]);
//! store.commit(Commit { epoch, sealed: vec![sealed], retired: vec![], sections: positions })?;
//! while store.take_committed().is_none() {
//!     drive(&mut disk, &mut store, &mut writer)?;
//! }
//!
//! // After a crash that loses all that was not synced:
//! disk.crash(|_| false);
//! let store = Store::open(&mut disk, config)?;
//! let last = store.last().unwrap().clone();
//! assert_eq!(last.sections["positions"], b"17");
//! let lineage = store.manifest().lineage;
//! let mut reader = SnapshotReader::new(PlainBytes::new(&mut disk), lineage, &last, Filter::default());
//! let block = reader.next_block()?.unwrap();
//! let frame = block.frames().next().unwrap().unwrap();
//! assert_eq!((frame.key, frame.value), (&b"k"[..], Some(&b"v"[..])));
//!
//! fn drive(disk: &mut MemoryDisk, store: &mut Store, writer: &mut SegmentWriter) -> Result<(), StorageError> {
//!     writer.step(disk);
//!     store.step(disk);
//!     let mut completions = Vec::new();
//!     disk.poll(&mut completions);
//!     for completion in completions {
//!         match completion.ticket.owner {
//!             0 => store.complete(completion)?,
//!             _ => writer.complete(completion),
//!         }
//!     }
//!     Ok(())
//! }
//! # Ok::<(), StorageError>(())
//! ```
#![warn(missing_debug_implementations)]
#![deny(unsafe_code)]

mod buffer;
pub mod conformance;
mod crc;
mod disk;
mod error;
pub mod format;
mod id;
mod lock;
mod log;
mod map;
mod poison;
mod prepare;
mod reader;
mod savepoint;
mod space;
mod store;
mod writer;

pub use buffer::{ALIGN, Buffer};
pub use disk::{
    BlockingDisk, Completion, Disk, DiskError, Done, Failure, Fault, FaultKind, FaultyDisk, FileId,
    Full, MemoryDisk, Mode, Notify, Op, ReadDisk, SharedDisk, StdDisk, Ticket, Unsynced,
};
pub use error::StorageError;
pub use format::block::{Block, BlockHead, Frame, Frames, OpenFrame, frame_len, set_epoch};
pub use format::log::{BatchHead, Located, Record, Visibility};
pub use format::manifest::{Checkpoint, Extent, Manifest};
pub use id::{Epoch, KeyGroup, Lineage, SegmentId, StateId};
pub use lock::{FolderLock, LOCK_FILE};
pub use log::{
    Appended, Follower, HistoryBytes, Log, LogConfig, LogPin, LogReader, Position, Retention,
    Staged, View, ViewBatch,
};
pub use map::MappedBytes;
pub use poison::Poison;
pub use reader::{Filter, PlainBytes, SegmentBytes, SnapshotReader, Totals};
pub use savepoint::{Savepoint, SavepointReport};
pub use space::Space;
pub use store::{Commit, EPOCHS_AHEAD, Note, Peeked, Pin, Store, StoreConfig};
pub use writer::{Refused, Room, Sealed, SegmentWriter, Warning, WriterConfig};
