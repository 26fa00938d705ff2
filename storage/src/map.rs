//! Sealed segments as memory: the one place of this crate with unsafe code.
//!
//! Laws
//! 1. Only what a durable manifest names is mapped, and only up to its valid length. Those pages are never written again (law 2
//!    of `writer.rs`), and a file that is named is not removed, or is removed by name only: a mapping keeps its pages.
//! 2. Nobody cuts what is mapped. Where the mapping's owner holds the folder's lock, or the folder is a finished savepoint, there is
//!    nobody to do it. A reader of somebody else's log ([`HistoryBytes`](crate::HistoryBytes)) holds no lock, and its writer may open the
//!    log again meanwhile, which cuts what nobody decided on: so it maps only segments that are visible to their end
//!    (`LogReader` turns to others with `open_growing`, and those are read). In front of a visible end nothing is ever
//!    cut (law 4 of `log.rs`): what an opening gives back of such a file lies behind its valid length.
//! 3. The active segment may be named too. Its pages before the valid length are never touched again, so what is mapped does not
//!    change; still, hand the reader only what is sealed where the engine runs beside it.
//! 4. Helper threads and tools only: a page fault blocks, and there is no bounding it.
//!
//! What remains: an I/O error, or another program that cuts the file, under a mapping is SIGBUS and ends the process. Law 2
//! keeps our own processes from it; where the device is not trusted, read with [`PlainBytes`](crate::PlainBytes), which
//! returns errors.
#![allow(unsafe_code)]

use crate::disk::DiskError;
use crate::error::StorageError;
use crate::reader::SegmentBytes;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;

/// Reads segments of one folder through read-only mappings, one at a time.
#[derive(Debug)]
pub struct MappedBytes {
    folder: PathBuf,
    name: String,
    map: Option<Mmap>,
    reads_ahead: bool,
}

impl MappedBytes {
    /// Reads from `folder`. The caller holds the folder's lock, or the folder is a finished savepoint, or segments are opened of
    /// which nothing is ever cut (law 2).
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        MappedBytes {
            folder: folder.into(),
            name: String::new(),
            map: None,
            reads_ahead: false,
        }
    }

    /// The same, and the kernel begins to read all of a segment when it is opened: what no cache holds is not waited for page by page. A
    /// cold replay of a log gained a fifth to a half by it; a restore, which does more for each byte, nothing.
    pub(crate) fn reading_ahead(folder: impl Into<PathBuf>) -> Self {
        MappedBytes {
            reads_ahead: true,
            ..MappedBytes::new(folder)
        }
    }

    fn error(&self, action: &'static str, error: impl Into<DiskError>) -> StorageError {
        StorageError::io(action, self.name.clone(), error.into())
    }
}

impl SegmentBytes for MappedBytes {
    fn open(&mut self, name: &str, valid: u64) -> Result<u64, StorageError> {
        self.map = None;
        self.name = name.to_string();
        let file = match File::open(self.folder.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(self.error("open", e)),
        };
        let len = file.metadata().map_err(|e| self.error("open", e))?.len();
        if len < valid {
            return Ok(len); // touching pages beyond the end would be SIGBUS
        }
        let valid =
            usize::try_from(valid).map_err(|_| self.error("map", ErrorKind::OutOfMemory))?;
        // SAFETY: a mapping must not change while a slice of it lives. These bytes are within the valid length of a
        // durable manifest, the file is at least that long (looked at above), our writers never write there (law 1)
        // and never cut there (law 2). See the top of this file for what remains.
        let map = unsafe { MmapOptions::new().len(valid).map(&file) };
        let map = map.map_err(|e| self.error("map", e))?;
        #[cfg(unix)]
        if self.reads_ahead {
            // Only a hint: what comes of it is no matter.
            let _ = map.advise(memmap2::Advice::WillNeed);
        }
        self.map = Some(map);
        Ok(len)
    }

    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        let map = self.map.as_deref().unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let slice = from.checked_add(len).and_then(|to| map.get(from..to));
        slice.ok_or_else(|| {
            StorageError::io("read", self.name.clone(), ErrorKind::UnexpectedEof.into())
        })
    }
}
