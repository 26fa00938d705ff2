//! Where the next segment comes from.
//!
//! ```text
//! None -> Asking -> Opening -> Allocating -> Naming -> Ready -> (taken) None
//!           |          |           | no space
//!           |          |           `-> Closing -> Removing -> Starved
//!           `-> Starved -- retry_space --> None
//! ```
//! Every state but None, Ready and Starved has one operation under way. A failure that is not "no space" poisons.

use super::{Purpose, Refused, SegmentWriter, Warning};
use crate::disk::{DiskError, Done, Failure, FileId, Mode, Op};
use crate::error::StorageError;
use crate::id::SegmentId;
use std::io::ErrorKind;

/// A segment that is written to, or that waits for its sync.
#[derive(Debug)]
pub(super) struct Active {
    pub id: SegmentId,
    pub file: FileId,
    /// Where the next chunk goes; a multiple of the page.
    pub end: u64,
    /// Whether chunks were handed to it since the last seal.
    pub dirty: bool,
    /// Whether a seal's sync of it has not completed.
    pub unsynced: bool,
}

/// The segment after the one that is being filled.
#[derive(Debug)]
pub(super) enum Spare {
    None,
    Asking,
    Opening,
    Allocating(FileId),
    Naming(FileId),
    Ready(FileId),
    Closing(StorageError),
    Removing(StorageError),
    Starved(StorageError),
}

impl SegmentWriter {
    /// Begins to prepare a segment once three quarters of the last one are used.
    pub(super) fn prepare_spare(&mut self) {
        let bytes = self.config.segment_bytes;
        let enough = |end: u64| end < bytes / 4 * 3;
        let wanted = !self.segments.back().is_some_and(|s| enough(s.end));
        if wanted && matches!(self.spare, Spare::None) && self.poison.check().is_ok() {
            self.spare = Spare::Asking;
            self.send(Op::FreeSpace, Purpose::Prepare);
        }
    }

    /// Makes the spare segment the one to write to.
    pub(super) fn roll(&mut self) -> Result<(), Refused> {
        match &self.spare {
            Spare::Starved(error) | Spare::Closing(error) | Spare::Removing(error) => {
                return Err(Refused::Failed(error.clone()));
            }
            Spare::Ready(file) => {
                self.segments.push_back(Active {
                    id: self.next_id,
                    file: *file,
                    end: 0,
                    dirty: false,
                    unsynced: false,
                });
            }
            _ => return Err(Refused::Busy),
        }
        self.spare = Spare::None;
        self.next_id.number += 1;
        Ok(())
    }

    /// Asks for space again after [`StorageError::NoSpace`], with the next step. Call it when there is reason to hope.
    pub fn retry_space(&mut self) {
        if matches!(self.spare, Spare::Starved(_)) {
            self.spare = Spare::None;
        }
    }

    fn next_name(&self) -> String {
        self.next_id.file_name()
    }

    fn no_space(&self, free: u64) -> StorageError {
        StorageError::NoSpace {
            needed: self.config.segment_bytes + self.config.reserve_bytes,
            reserve: self.config.reserve_bytes,
            free,
        }
    }

    fn warn(&mut self, kind: usize, warning: Warning) {
        if !std::mem::replace(&mut self.warned[kind], true) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn prepared(&mut self, result: Result<Done, Failure>) {
        let result = result.map_err(|f| f.error);
        let spare = std::mem::replace(&mut self.spare, Spare::None);
        let (action, error) = match (spare, result) {
            (Spare::Asking, Ok(Done::Free(free))) => return self.asked(free),
            (Spare::Asking, result) => ("ask the free space of the folder of", result.err()),
            (Spare::Opening, Ok(Done::Opened { file, direct, .. })) => {
                return self.opened(file, direct);
            }
            (Spare::Opening, Err(e)) if e.is_no_space() => {
                self.spare = Spare::Starved(self.no_space(0));
                return;
            }
            (Spare::Opening, result) => ("create", result.err()),
            (Spare::Allocating(file), result) => match self.allocated(file, result) {
                Ok(()) => return,
                Err(e) => ("allocate", Some(e)),
            },
            (Spare::Naming(file), Ok(_)) => {
                self.spare = Spare::Ready(file);
                return;
            }
            (Spare::Naming(_), result) => ("sync the folder of", result.err()),
            (Spare::Closing(error), _) => {
                self.spare = Spare::Removing(error);
                let name = self.next_name();
                return self.send(Op::Remove { name }, Purpose::Prepare);
            }
            (Spare::Removing(error), Ok(_)) => {
                self.spare = Spare::Starved(error);
                return;
            }
            (Spare::Removing(_), result) => ("remove", result.err()),
            (Spare::None | Spare::Ready(_) | Spare::Starved(_), _) => {
                unreachable!("nothing was under way")
            }
        };
        let error = error.unwrap_or(ErrorKind::InvalidData.into());
        self.fail(StorageError::io(action, self.next_name(), error));
    }

    fn asked(&mut self, free: u64) {
        if free < self.config.segment_bytes + self.config.reserve_bytes {
            self.spare = Spare::Starved(self.no_space(free));
            return;
        }
        self.spare = Spare::Opening;
        let op = Op::Open {
            name: self.next_name(),
            mode: Mode::Create,
            direct: self.config.direct,
        };
        self.send(op, Purpose::Prepare);
    }

    fn opened(&mut self, file: FileId, direct: bool) {
        if self.config.direct && !direct {
            let file = self.next_name();
            self.warn(0, Warning::Buffered { file });
        }
        self.spare = Spare::Allocating(file);
        let len = self.config.segment_bytes;
        self.send(Op::Allocate { file, len }, Purpose::Prepare);
    }

    fn allocated(
        &mut self,
        file: FileId,
        result: Result<Done, DiskError>,
    ) -> Result<(), DiskError> {
        match result {
            Ok(_) => {}
            Err(e) if e.kind == ErrorKind::Unsupported => {
                let file = self.next_name();
                self.warn(1, Warning::Sparse { file });
            }
            Err(e) if e.is_no_space() => {
                self.spare = Spare::Closing(self.no_space(0));
                self.send(Op::Close { file }, Purpose::Prepare);
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        self.spare = Spare::Naming(file);
        self.send(Op::SyncFolder, Purpose::Prepare);
        Ok(())
    }
}
