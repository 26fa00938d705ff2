//! Appending: what the log acknowledges in a second, and what the disk takes.

use super::RECORD_BYTES;
use super::delayed::DelayedDisk;
use crate::raw;
use pelton_storage::{
    ALIGN, BlockingDisk, Buffer, Disk, Lineage, Log, LogConfig, Record, Refused, StdDisk,
    Visibility,
};
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

/// What one run of appends came to.
pub struct Appended {
    /// From the first append to the last acknowledgement.
    pub took: Duration,
    /// Groups, each with one sync.
    pub groups: u64,
    /// Bytes of the log's segments, headers and padding included.
    pub bytes: u64,
}

/// The sizes that the workload runs with: those of a new log.
pub fn log_config() -> LogConfig {
    LogConfig::new(1, 1, Visibility::Durable, Lineage(*b"pelton-bench log"))
}

/// Appends `records` to a new log in `folder` as fast as they are taken, until all are durable. One thread.
pub fn append(folder: &Path, records: u64, extra: Duration) -> Result<Appended, Box<dyn Error>> {
    let mut disk = DelayedDisk::new(StdDisk::blocking(folder)?, extra);
    let mut log = Log::open(&mut disk, log_config(), &[])?;
    let mut value = [7; RECORD_BYTES];
    let mut completions = Vec::new();
    let began = Instant::now();
    let mut next = 0;
    while log.durable_end(0) < records {
        let now_us = began.elapsed().as_micros() as i64;
        let mut is_full = next == records;
        // Some at a time between looks at the disk, as a duty loop has it.
        for _ in 0..1000.min(records - next) {
            value[..8].copy_from_slice(&u64::to_le_bytes(next));
            let (key, value) = (None, &value[..]);
            match log.append(0, Record { key, value }, now_us) {
                Ok(_) => next += 1,
                Err(Refused::Busy) => {
                    is_full = true;
                    break;
                }
                Err(Refused::Failed(e)) => return Err(e.into()),
            }
        }
        log.step(&mut disk, now_us);
        if is_full {
            disk.wait()?;
        }
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion)?;
        }
    }
    let took = began.elapsed();
    let groups = log.groups();
    // Behind an index, so that replay begins without a walk.
    log.mark();
    while !log.is_idle() {
        log.step(&mut disk, i64::MAX);
        disk.wait()?;
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion)?;
        }
    }
    drop((log, disk));
    // Opened once more: what was allocated and not used is cut off.
    Log::open(&mut StdDisk::blocking(folder)?, log_config(), &[])?;
    let segments = super::replay::segments(folder)?;
    let bytes = segments.iter().map(|(_, len)| len).sum();
    Ok(Appended {
        took,
        groups,
        bytes,
    })
}

/// The limit: the same bytes written one after another into space that is allocated, in as many pieces, a sync after each.
pub fn write(folder: &Path, like: &Appended) -> Result<Duration, Box<dyn Error>> {
    let path = folder.join("limit");
    let file = raw::open_direct(&path, true)?;
    raw::allocate(&file, like.bytes + like.groups * ALIGN as u64)?;
    file.sync_all()?;
    let piece = like
        .bytes
        .div_ceil(like.groups)
        .next_multiple_of(ALIGN as u64);
    let mut buffer = Buffer::zeroed(piece as usize);
    buffer.fill(7);
    let began = Instant::now();
    for n in 0..like.groups {
        raw::write_at(&file, &buffer, n * piece)?;
        file.sync_data()?;
    }
    let took = began.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}
