//! Replaying: all records of a log in order, checked, beside reading the same bytes and nothing more.

use super::append::log_config;
use crate::raw::{self, PIECE};
use pelton_storage::{Buffer, HistoryBytes, Log, Position, SegmentBytes, StdDisk, View};
use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The segments of a log and how long they are.
pub fn segments(folder: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("log-") {
            found.push((entry.path(), entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// A log that is to be replayed.
pub struct Replay {
    folder: PathBuf,
    view: View,
    segments: Vec<(PathBuf, u64)>,
    records: u64,
}

impl Replay {
    /// Opens the log in `folder`, which holds `records`.
    pub fn new(folder: &Path, records: u64) -> Result<Self, Box<dyn Error>> {
        let log = Log::open(&mut StdDisk::blocking(folder)?, log_config(), &[])?;
        Ok(Replay {
            folder: folder.to_path_buf(),
            view: log.view(0),
            segments: segments(folder)?,
            records,
        })
    }

    fn read<S: SegmentBytes>(&self, source: S) -> Result<Duration, Box<dyn Error>> {
        let began = Instant::now();
        let start = Position {
            partition: 0,
            offset: 0,
        };
        let mut reader = pelton_storage::LogReader::new(source, self.view.clone(), start.offset)?;
        let (mut sum, mut wrong) = (0u64, 0u64);
        while let Some(batch) = reader.next_batch()? {
            for located in batch.records() {
                match located {
                    // One field of each record, so that it is really looked at.
                    Ok(r) => {
                        sum += r
                            .record
                            .value
                            .first_chunk()
                            .map_or(0, |n| u64::from_le_bytes(*n))
                    }
                    Err(_) => wrong += 1,
                }
            }
        }
        let took = began.elapsed();
        if wrong > 0 || sum != self.records * (self.records - 1) / 2 {
            return Err("what was replayed is not what was appended".into());
        }
        Ok(took)
    }

    /// The log, out of the page cache.
    pub fn warm(&self) -> Result<Duration, Box<dyn Error>> {
        self.read(HistoryBytes::new(&self.folder))
    }

    /// The limit of [`warm`](Self::warm), which also fills the cache: the same bytes read into one buffer.
    pub fn warm_limit(&self) -> Result<Duration, Box<dyn Error>> {
        self.read_files(|path| Ok(File::open(path)?))
    }

    /// The log, which the page cache has forgotten.
    pub fn cold(&self) -> Result<Duration, Box<dyn Error>> {
        for (path, _) in &self.segments {
            raw::forget_file(path)?;
        }
        self.read(HistoryBytes::new(&self.folder))
    }

    /// The limit of [`cold`](Self::cold): direct reads one after another.
    pub fn cold_limit(&self) -> Result<Duration, Box<dyn Error>> {
        self.read_files(|path| Ok(raw::open_direct(path, false)?))
    }

    fn read_files(
        &self,
        open: impl Fn(&Path) -> Result<File, Box<dyn Error>>,
    ) -> Result<Duration, Box<dyn Error>> {
        let mut buffer = Buffer::zeroed(PIECE);
        let began = Instant::now();
        for (path, len) in &self.segments {
            raw::read_through(&open(path)?, *len, &mut buffer)?;
            black_box(buffer[0]);
        }
        Ok(began.elapsed())
    }
}
