//! What checkpoints cost, and going on from them.
//!
//! - [`keyed`]: the throughput of a job with checkpoints beside that of the same job without;
//! - [`disk`]: one write and its sync, from each kind of disk;
//! - [`state`]: checkpoints of a large state, its memory, and going on from it.
//!
//! Each run is a process of its own with a folder of its own; what the disk does by itself is measured in the same run.

pub mod disk;
pub mod keyed;
pub mod state;

use crate::engine::BenchError;
use std::path::{Path, PathBuf};

/// Where a path leads from anywhere.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, BenchError> {
    std::path::absolute(path).map_err(|e| BenchError::failed(format!("{}: {e}", path.display())))
}

/// A folder that is made for a command and gone after it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it; it must not exist.
    pub fn new(path: &Path) -> Result<Self, BenchError> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))
            .and_then(|()| std::fs::create_dir(path))
            .map_err(|e| BenchError::usage(format!("{}: {e}", path.display())))?;
        Ok(Scratch(path.to_owned()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Removes a folder in it, if it is there.
    pub fn clear(&self, name: &str) -> Result<(), BenchError> {
        match std::fs::remove_dir_all(self.folder(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(self.failed(e)),
            _ => Ok(()),
        }
    }

    /// What went wrong with the disk that it is on.
    pub fn failed(&self, what: impl std::fmt::Display) -> BenchError {
        BenchError::failed(format!("{}: {what}", self.0.display()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever went wrong has been said; what is left is files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
