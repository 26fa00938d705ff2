//! The segments of a writer: which are open, and taking the next one.

use super::{Purpose, Refused, SegmentWriter};
use crate::disk::{Done, Failure, FileId};
use crate::id::SegmentId;

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

impl SegmentWriter {
    /// Begins to prepare a segment once three quarters of the last one are used, or sooner if an entry waits that is longer than what is
    /// left of it.
    pub(super) fn prepare_spare(&mut self) {
        let bytes = self.config.segment_bytes;
        let enough = |end: u64| end < bytes / 4 * 3;
        let wanted = self.is_short || !self.segments.back().is_some_and(|s| enough(s.end));
        if wanted && self.spare.is_empty() && self.poison.check().is_ok() {
            let op = self.spare.begin(self.next_id.file_name());
            self.send(op, Purpose::Prepare);
        }
    }

    /// Makes the spare segment the one to write to.
    pub(super) fn roll(&mut self) -> Result<(), Refused> {
        let file = self.spare.take().map_err(Refused::Failed)?;
        self.is_short = file.is_none();
        self.segments.push_back(Active {
            id: self.next_id,
            file: file.ok_or(Refused::Busy)?,
            end: 0,
            dirty: false,
            unsynced: false,
        });
        self.next_id.number += 1;
        Ok(())
    }

    /// Asks for space again after [`StorageError::NoSpace`](crate::StorageError::NoSpace), with the next step. Call it when there
    /// is reason to hope.
    pub fn retry_space(&mut self) {
        self.spare.retry();
    }

    pub(super) fn prepared(&mut self, result: Result<Done, Failure>) {
        match self.spare.completed(result) {
            Ok(Some(op)) => self.send(op, Purpose::Prepare),
            Ok(None) => {}
            Err(e) => self.fail(e),
        }
    }
}
