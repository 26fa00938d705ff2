//! What an inspection tells, and why there may be none.

use super::super::Epoch;
use crate::source::Position;
use crate::time::EventTime;
use pelton_storage::StorageError;
use thiserror::Error;

/// Why a folder cannot be looked at.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InspectError {
    /// There are no checkpoints in it.
    #[error("[PLT-0110] {folder}: {what}")]
    NoStore {
        /// The folder.
        folder: String,
        /// What is there instead, and what to do.
        what: String,
    },
    /// It cannot be read: a job runs on it, a file is damaged, the disk fails.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// It holds a store, and not of a job's checkpoints.
    #[error("[PLT-0111] {folder}: its checkpoint {epoch} is not of a job: {what}")]
    NotOfAJob {
        /// The folder.
        folder: String,
        /// The checkpoint.
        epoch: Epoch,
        /// What is missing or cannot be read.
        what: String,
    },
}

impl InspectError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            InspectError::NoStore { .. } => "PLT-0110",
            InspectError::Storage(e) => e.code(),
            InspectError::NotOfAJob { .. } => "PLT-0111",
        }
    }

    /// Whether the folder itself is at fault, and not how or when it was asked for.
    pub fn is_damage(&self) -> bool {
        match self {
            InspectError::NoStore { .. } => false,
            InspectError::NotOfAJob { .. } => true,
            InspectError::Storage(e) => matches!(
                e,
                StorageError::Damaged { .. }
                    | StorageError::Missing { .. }
                    | StorageError::NoManifest
            ),
        }
    }
}

/// What a folder of checkpoints holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Names all that was ever written for this job, in hexadecimal digits.
    pub lineage: String,
    /// How many times the job was started on it.
    pub starts: u32,
    /// The checkpoints that are kept, oldest first.
    pub checkpoints: Vec<Retained>,
    /// What the last one holds; `None` before the first.
    pub last: Option<Content>,
    /// What is worth telling and needs nobody to act: torn copies, files left over.
    pub notes: Vec<String>,
}

/// A checkpoint that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retained {
    /// Its number.
    pub epoch: Epoch,
    /// Its files in the order of the log, each with the bytes that count.
    pub segments: Vec<(String, u64)>,
}

impl Retained {
    /// Bytes that it stands on.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, len)| len).sum()
    }
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// The job.
    pub job: String,
    /// Its key groups.
    pub key_groups: u32,
    /// For each start whose files are still used, how many shards wrote.
    pub shards: Vec<(u32, u32)>,
    /// Its states, in the order of operators' uids and states' names.
    pub states: Vec<StateContent>,
    /// Partitions of sources: where reading goes on.
    pub partitions: Vec<PartitionContent>,
    /// Watermarks of source partitions and operators.
    pub watermarks: Vec<WatermarkContent>,
    /// What sinks prepared, to be made visible when the job starts, if it is not yet.
    pub prepared: Vec<PreparedContent>,
}

/// A state as a checkpoint has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateContent {
    /// The operator's uid.
    pub uid: String,
    /// Whether that was given, and not made of the operator's kind and place.
    pub is_uid_given: bool,
    /// The operator, as messages name it.
    pub operator: String,
    /// The state's name within the operator.
    pub name: String,
    /// What its entries look like.
    pub shape: String,
    /// Entries that count.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Entries in the files, those that later ones replaced or removed among them.
    pub written: u64,
}

/// Where a source goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionContent {
    /// The source's uid.
    pub source: String,
    /// The partition's number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its position.
    pub position: Position,
    /// Whether it has ended.
    pub has_ended: bool,
}

/// A watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatermarkContent {
    /// The operator's uid.
    pub uid: String,
    /// Of `event_time`, the partition's number; of other operators, the shard's that wrote it.
    pub number: u32,
    /// Whether the number is a partition's.
    pub is_partition: bool,
    /// The watermark.
    pub time: EventTime,
}

/// What a sink prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreparedContent {
    /// The sink's uid.
    pub uid: String,
    /// The epoch.
    pub epoch: Epoch,
    /// How long the sink's note of it is, in bytes.
    pub bytes: u64,
}

/// What [`verify`](super::verify) looked at, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The checkpoints that are kept.
    pub checkpoints: u64,
    /// Files whose every block and frame was looked at.
    pub segments: u64,
    /// Blocks whose checksum holds.
    pub blocks: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes of those blocks.
    pub bytes: u64,
    /// Values of the engine's own that were read.
    pub archives: u64,
    /// What is damaged. Of a file the first place: what lies behind it was not looked at.
    pub damage: Vec<Damage>,
    /// What is worth telling and no damage: copies torn by a process that was killed, files left over.
    pub notes: Vec<String>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file; empty where it is none in particular.
    pub file: String,
    /// Where, in bytes from its beginning.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}
