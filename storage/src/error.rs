//! Errors with stable codes: what happened, in which file, and what to do.

use crate::disk::DiskError;
use crate::format::{Fault, Wrong};
use crate::id::Epoch;
use thiserror::Error;

/// Why something could not be stored, or read again.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageError {
    /// Another process, or another part of this one, has the folder.
    #[error(
        "[PLT-0501] {folder} is in use by {holder}; stop that process, or choose another folder"
    )]
    Locked {
        /// The folder.
        folder: String,
        /// `process 123`, or `another process` where its number cannot be had.
        holder: String,
    },
    /// The operating system refused.
    #[error("[PLT-0502] cannot {action} {file}: {error}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        file: String,
        /// What the system said.
        error: DiskError,
    },
    /// Written by another version of this program.
    #[error(
        "[PLT-0503] {file}: {}; use the version that wrote it, or start from a savepoint in a format that both read",
        crate::format::refusal(format, *found, *newest)
    )]
    Version {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
        /// What was found.
        found: u32,
        /// The newest that this program reads.
        newest: u32,
    },
    /// Committed data is not what was written.
    #[error(
        "[PLT-0504] {file} is damaged at offset {offset} (checkpoint {epoch}): {what}; restore the folder from a copy, or start from a savepoint"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where, in bytes from its beginning.
        offset: u64,
        /// The checkpoint that was being read; 0 where none is known.
        epoch: Epoch,
        /// What is wrong.
        what: String,
    },
    /// A file that a checkpoint stands on is gone or too short.
    #[error(
        "[PLT-0505] {file}: checkpoint {epoch} needs {needed} bytes of it and {found} are there; restore the folder from a copy, or start from a savepoint"
    )]
    Missing {
        /// The file.
        file: String,
        /// The checkpoint.
        epoch: Epoch,
        /// Its valid length in bytes.
        needed: u64,
        /// How long it is; 0 if it is gone.
        found: u64,
    },
    /// Segments without the manifest that says what they mean.
    #[error(
        "[PLT-0506] the folder holds segments and no manifest; restore the manifest, or empty the folder to start anew"
    )]
    NoManifest,
    /// No room for another segment, or the reserve would be touched.
    #[error(
        "[PLT-0507] a segment needs {needed} bytes, of which {reserve} stay in reserve, and {free} are free; make room, the job goes on from its last commit"
    )]
    NoSpace {
        /// Segment and reserve in bytes.
        needed: u64,
        /// The reserve in bytes.
        reserve: u64,
        /// Free bytes.
        free: u64,
    },
    /// A write or sync failed before, so nothing that this store says about its files can be trusted until it is opened again.
    #[error("[PLT-0508] the store takes nothing more since it failed: {cause}")]
    Poisoned {
        /// What failed first.
        cause: Box<StorageError>,
    },
    /// One entry is longer than a block may be.
    #[error(
        "[PLT-0509] an entry of {len} bytes is longer than the limit of {max}; split the value"
    )]
    TooLarge {
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A checkpoint's sections do not fit in a manifest record.
    #[error(
        "[PLT-0510] a manifest record of {len} bytes is longer than the limit of {max}; what sinks prepared and have not committed is in it, \
         and the positions of all partitions: let sinks prepare less, commit sooner (max_uncommitted), or split the job"
    )]
    ManifestTooLarge {
        /// Its length in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// There is no complete savepoint in the folder.
    #[error(
        "[PLT-0511] {folder} holds no complete savepoint; it was interrupted, or this is another kind of folder"
    )]
    NoSavepoint {
        /// The folder.
        folder: String,
    },
    /// A savepoint would be written over something.
    #[error("[PLT-0512] a savepoint wants an empty folder, and this one holds {found}")]
    NotEmpty {
        /// One of the files.
        found: String,
    },
    /// Too many epochs were begun since the last commit.
    #[error(
        "[PLT-0513] epoch {epoch} is beyond those that the manifest has set aside (before {unused_from}); commit one first"
    )]
    EpochsExhausted {
        /// The epoch that was asked for.
        epoch: Epoch,
        /// The first that is not set aside.
        unused_from: Epoch,
    },
    /// A reader wants records that are not there.
    #[error(
        "[PLT-0514] partition {partition} of the ingest log holds records {start} to {end}, and {offset} is not among them; read from where it begins, or keep records longer"
    )]
    OffsetGone {
        /// The partition.
        partition: u32,
        /// What was asked for.
        offset: u64,
        /// The first record.
        start: u64,
        /// The offset after the last that readers see.
        end: u64,
    },
    /// Records that were durable are gone.
    #[error(
        "[PLT-0515] epoch {epoch} stands on {needed} records of partition {partition} of the ingest log and {found} are there; restore the folder from a copy"
    )]
    RecordsMissing {
        /// The partition.
        partition: u32,
        /// The epoch that was to be committed.
        epoch: Epoch,
        /// The offset up to which there should be records.
        needed: u64,
        /// The offset up to which there are.
        found: u64,
    },
    /// The folder holds another kind of log than it is opened as.
    #[error("[PLT-0516] the folder does not hold {wanted}: {found}")]
    OtherLog {
        /// How it was opened.
        wanted: String,
        /// What is there.
        found: String,
    },
}

impl StorageError {
    pub(crate) fn io(action: &'static str, file: impl Into<String>, error: DiskError) -> Self {
        StorageError::Io {
            action,
            file: file.into(),
            error,
        }
    }

    /// What a decoder found wrong, `base` bytes into a file.
    pub(crate) fn wrong(file: &str, base: u64, epoch: Epoch, wrong: Wrong) -> Self {
        let file = file.to_string();
        match wrong.what {
            Fault::Version {
                format,
                found,
                newest,
            } => StorageError::Version {
                file,
                format,
                found,
                newest,
            },
            what => StorageError::Damaged {
                file,
                offset: base + wrong.offset,
                epoch,
                what: what.to_string(),
            },
        }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            StorageError::Locked { .. } => "PLT-0501",
            StorageError::Io { .. } => "PLT-0502",
            StorageError::Version { .. } => "PLT-0503",
            StorageError::Damaged { .. } => "PLT-0504",
            StorageError::Missing { .. } => "PLT-0505",
            StorageError::NoManifest => "PLT-0506",
            StorageError::NoSpace { .. } => "PLT-0507",
            StorageError::Poisoned { .. } => "PLT-0508",
            StorageError::TooLarge { .. } => "PLT-0509",
            StorageError::ManifestTooLarge { .. } => "PLT-0510",
            StorageError::NoSavepoint { .. } => "PLT-0511",
            StorageError::NotEmpty { .. } => "PLT-0512",
            StorageError::EpochsExhausted { .. } => "PLT-0513",
            StorageError::OffsetGone { .. } => "PLT-0514",
            StorageError::RecordsMissing { .. } => "PLT-0515",
            StorageError::OtherLog { .. } => "PLT-0516",
        }
    }

    /// Whether the same may succeed if it is tried again, from the last commit where the store is poisoned: the environment
    /// failed, not the data.
    pub fn is_retryable(&self) -> bool {
        match self {
            StorageError::Locked { .. }
            | StorageError::Io { .. }
            | StorageError::NoSpace { .. }
            | StorageError::EpochsExhausted { .. } => true,
            StorageError::Poisoned { cause } => cause.is_retryable(),
            _ => false,
        }
    }
}
