//! Checkpoints of a large state whose input is idle, loading with checkpoints on, and going on from one.
//!
//! - *full*: all keys have changed; by the lesser of what the disk takes when the same bytes are written one after another, and what a
//!   core can copy and sum up.
//! - *incremental*: one key in a hundred has changed, far apart in memory; by the full one.
//! - *loading*: the longest time between two reads of the source's, in which a step of the source, one of the operator and a piece of a
//!   checkpoint lie; with checkpoints every 10 ms beside none. What the shard's thread ran of it, by the kernel's own account of the thread, is told
//!   apart: the rest is what other threads and other guests took.
//! - *memory*: peak of the process by that of a bare map with the same entries.
//! - *recovery*: from the call that starts a job to the first record that it has processed.

use super::Scratch;
use crate::child::{self, Task};
use crate::engine::BenchError;
pub use crate::latency::STEP_NS;
use crate::raw;
use crate::report::median;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A job with a state of 24 bytes for each key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateConfig {
    /// Shards, at least one.
    pub shards: usize,
    /// Keys of 8 bytes.
    pub keys: u64,
    /// Milliseconds between checkpoints and where they go; 0: only when they are asked for; `None`: none are taken.
    pub checkpoints: Option<(u64, PathBuf)>,
}

/// One checkpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Taken {
    /// Entries written.
    pub entries: u64,
    /// Bytes written.
    pub bytes: u64,
    /// From its barrier to its commit.
    pub seconds: f64,
}

/// What a process that loads a state reports.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct StateReport {
    /// From the start of the job to the last key.
    pub load_seconds: f64,
    /// Longest time between two reads while it loaded.
    pub longest_gap_us: f64,
    /// Times above [`STEP_NS`].
    pub long_gaps: u64,
    /// The longest that the shard's thread ran between two reads.
    pub longest_turn_us: f64,
    /// Of the long gaps, those in which it ran for longer than [`STEP_NS`].
    pub long_turns: u64,
    /// The job's own longest step.
    pub longest_step_us: f64,
    /// The longest piece of a checkpoint.
    pub longest_piece_us: f64,
    /// Pieces above [`STEP_NS`].
    pub long_pieces: u64,
    /// The checkpoint of all keys, if it was asked for.
    pub full: Taken,
    /// The longest time between two reads while it was taken.
    pub full_longest_gap_us: f64,
    /// The longest that the shard's thread ran in one.
    pub full_longest_turn_us: f64,
    /// That of one key in a hundred.
    pub incremental: Taken,
    /// Peak resident memory.
    pub peak_rss_bytes: u64,
}

/// What a process that goes on from a checkpoint reports.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RecoveryReport {
    /// From the call that starts the job to the first record processed.
    pub seconds: f64,
    /// Entries read.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What `checkpoint state` came to: medians.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StateRun {
    /// Always `checkpoint state`.
    pub workload: String,
    /// Keys.
    pub keys: u64,
    /// Runs of each.
    pub pairs: usize,
    /// Bytes of a full checkpoint.
    pub full_bytes: f64,
    /// Bytes a second of a full one.
    pub full_bytes_per_second: f64,
    /// The disk's, one write after another.
    pub disk_bytes_per_second: f64,
    /// A core's that copies and sums up.
    pub copy_bytes_per_second: f64,
    /// Full by the lesser of these.
    pub full_ratio: f64,
    /// Longest time between two reads of the source's while it was taken.
    pub full_longest_gap_us: f64,
    /// The longest that the shard's thread ran in one.
    pub full_longest_turn_us: f64,
    /// Bytes of the incremental one by those of the full one.
    pub incremental_bytes_share: f64,
    /// Its time by that of the full one.
    pub incremental_time_share: f64,
    /// Loading without checkpoints: keys a second, longest time between reads, times above 200 us, the job's longest step.
    pub load_without: Load,
    /// The same with a checkpoint every 10 ms.
    pub load_with: Load,
    /// Peak memory of a job that has taken a full checkpoint.
    pub peak_rss_bytes: f64,
    /// Peak memory of a bare map that grows to the same entries.
    pub map_grown_rss_bytes: f64,
    /// .. that was made with room for them.
    pub map_reserved_rss_bytes: f64,
    /// Peak by that of the grown map.
    pub memory_ratio: f64,
}

/// How loading went.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Keys a second.
    pub keys_per_second: f64,
    /// The longest time between two reads.
    pub longest_gap_us: f64,
    /// Times above 200 us.
    pub long_gaps: f64,
    /// The longest that the shard's thread ran between two reads.
    pub longest_turn_us: f64,
    /// Of the long times, those of which it ran more than 200 us itself.
    pub long_turns: f64,
    /// The job's own longest step.
    pub longest_step_us: f64,
    /// The longest piece of a checkpoint.
    pub longest_piece_us: f64,
    /// Pieces above 200 us.
    pub long_pieces: f64,
}

/// Milliseconds between checkpoints while loading.
const LOAD_INTERVAL_MS: u64 = 10;

fn middle<T>(all: &[T], f: impl Fn(&T) -> f64) -> f64 {
    median(&mut all.iter().map(f).collect::<Vec<_>>())
}

fn load(keys: u64, reports: &[StateReport]) -> Load {
    Load {
        keys_per_second: middle(reports, |r| keys as f64 / r.load_seconds),
        longest_gap_us: middle(reports, |r| r.longest_gap_us),
        long_gaps: middle(reports, |r| r.long_gaps as f64),
        longest_turn_us: middle(reports, |r| r.longest_turn_us),
        long_turns: middle(reports, |r| r.long_turns as f64),
        longest_step_us: middle(reports, |r| r.longest_step_us),
        longest_piece_us: middle(reports, |r| r.longest_piece_us),
        long_pieces: middle(reports, |r| r.long_pieces as f64),
    }
}

/// Runs `checkpoint state`.
///
/// # Errors
/// The folder exists, or a run fails.
pub fn run(keys: u64, pairs: usize, folder: &std::path::Path) -> Result<StateRun, BenchError> {
    let scratch = Scratch::new(folder)?;
    let state = |interval_ms: Option<u64>| -> Result<StateReport, BenchError> {
        let folder = super::absolute(&scratch.folder("state"))?;
        let config = StateConfig {
            shards: 1,
            keys,
            checkpoints: interval_ms.map(|ms| (ms, folder)),
        };
        let report = child::run_apart(&Task::State(config))?;
        scratch.clear("state")?;
        Ok(report)
    };
    let map = |reserved| child::run_apart::<u64>(&Task::BareMap { keys, reserved });
    let (mut asked, mut without, mut with) = (vec![], vec![], vec![]);
    let (mut disk, mut copy, mut maps) = (vec![], vec![], vec![]);
    for _ in 0..pairs {
        let report = state(Some(0))?;
        let bytes = report.full.bytes;
        disk.push(raw::sequential_write(scratch.path(), bytes).map_err(|e| scratch.failed(e))?);
        copy.push(copy_and_sum(bytes as usize));
        asked.push(report);
        without.push(state(None)?);
        with.push(state(Some(LOAD_INTERVAL_MS))?);
        maps.push((map(false)?, map(true)?));
    }
    let full_bytes = middle(&asked, |r| r.full.bytes as f64);
    let disk_speed = full_bytes / middle(&disk, Duration::as_secs_f64);
    let copy_speed = full_bytes / middle(&copy, Duration::as_secs_f64);
    let full_speed = middle(&asked, |r| r.full.bytes as f64 / r.full.seconds);
    let (peak, grown) = (
        middle(&asked, |r| r.peak_rss_bytes as f64),
        middle(&maps, |m| m.0 as f64),
    );
    Ok(StateRun {
        workload: "checkpoint state".into(),
        keys,
        pairs,
        full_bytes,
        full_bytes_per_second: full_speed,
        disk_bytes_per_second: disk_speed,
        copy_bytes_per_second: copy_speed,
        full_ratio: full_speed / disk_speed.min(copy_speed),
        full_longest_gap_us: middle(&asked, |r| r.full_longest_gap_us),
        full_longest_turn_us: middle(&asked, |r| r.full_longest_turn_us),
        incremental_bytes_share: middle(&asked, |r| {
            r.incremental.bytes as f64 / r.full.bytes as f64
        }),
        incremental_time_share: middle(&asked, |r| r.incremental.seconds / r.full.seconds),
        load_without: load(keys, &without),
        load_with: load(keys, &with),
        peak_rss_bytes: peak,
        map_grown_rss_bytes: grown,
        map_reserved_rss_bytes: middle(&maps, |m| m.1 as f64),
        memory_ratio: peak / grown,
    })
}

/// How long one core takes to copy so many bytes from memory, a piece at a time, and to sum up each piece with CRC32C.
fn copy_and_sum(len: usize) -> Duration {
    let from = vec![7u8; len];
    let mut to = vec![0u8; raw::PIECE];
    let began = Instant::now();
    let mut sum = 0;
    for piece in from.chunks(raw::PIECE) {
        let to = &mut to[..piece.len()];
        to.copy_from_slice(piece);
        sum ^= crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, to);
    }
    std::hint::black_box(sum);
    began.elapsed()
}

impl StateRun {
    /// The table.
    pub fn lines(&self) -> String {
        let load = |l: &Load| {
            format!(
                "{:.2} M keys/s, longest between reads {:.0} us ({:.0} run by the shard), {:.0} times above 200 us ({:.0} run by it), longest step {:.0} us, longest piece of a checkpoint {:.0} us, {:.0} pieces above 200 us",
                l.keys_per_second / 1e6,
                l.longest_gap_us,
                l.longest_turn_us,
                l.long_gaps,
                l.long_turns,
                l.longest_step_us,
                l.longest_piece_us,
                l.long_pieces,
            )
        };
        format!(
            "full         {:.0} MB at {:.0} MB/s, {:.2} of the lesser of disk ({:.0}) and copy with sum ({:.0}); longest between reads {:.0} us ({:.0} run by the shard)\n\
             incremental  {:.2} % of the bytes, {:.2} % of the time\n\
             load         without: {}\n\
             \x20            every {LOAD_INTERVAL_MS} ms: {}\n\
             memory       {:.0} MB, {:.2} of a map that grew ({:.0} MB; with room from the start {:.0} MB)\n\
             {} keys, medians of {}",
            self.full_bytes / 1e6,
            self.full_bytes_per_second / 1e6,
            self.full_ratio,
            self.disk_bytes_per_second / 1e6,
            self.copy_bytes_per_second / 1e6,
            self.full_longest_gap_us,
            self.full_longest_turn_us,
            self.incremental_bytes_share * 100.0,
            self.incremental_time_share * 100.0,
            load(&self.load_without),
            load(&self.load_with),
            self.peak_rss_bytes / 1e6,
            self.memory_ratio,
            self.map_grown_rss_bytes / 1e6,
            self.map_reserved_rss_bytes / 1e6,
            self.keys,
            self.pairs,
        )
    }
}

/// What `recovery` came to: medians.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveryRun {
    /// Always `recovery`.
    pub workload: String,
    /// Keys.
    pub keys: u64,
    /// Shards that wrote and that read.
    pub shards: usize,
    /// Recoveries of each kind.
    pub times: usize,
    /// Entries that were read.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys a second and core when the page cache has forgotten the folder.
    pub cold_keys_per_second_a_core: f64,
    /// .. and when it has all of it.
    pub warm_keys_per_second_a_core: f64,
}

/// Runs `recovery`.
///
/// # Errors
/// The folder exists, or a run fails.
pub fn recovery(
    keys: u64,
    shards: usize,
    times: usize,
    folder: &std::path::Path,
) -> Result<RecoveryRun, BenchError> {
    let scratch = Scratch::new(folder)?;
    let folder = super::absolute(&scratch.folder("state"))?;
    let config = StateConfig {
        shards,
        keys,
        checkpoints: Some((0, folder.clone())),
    };
    child::run_apart::<StateReport>(&Task::State(config.clone()))?;
    let recover = || child::run_apart::<RecoveryReport>(&Task::Recover(config.clone()));
    let (mut cold, mut warm) = (vec![], vec![]);
    for _ in 0..times {
        for file in std::fs::read_dir(&folder).map_err(|e| scratch.failed(e))? {
            let path = file.map_err(|e| scratch.failed(e))?.path();
            raw::forget_file(&path).map_err(|e| scratch.failed(e))?;
        }
        cold.push(recover()?);
        warm.push(recover()?);
    }
    let speed = |all: &[RecoveryReport]| middle(all, |r| keys as f64 / r.seconds / shards as f64);
    Ok(RecoveryRun {
        workload: "recovery".into(),
        keys,
        shards,
        times,
        entries: warm.first().map_or(0, |r| r.entries),
        bytes: warm.first().map_or(0, |r| r.bytes),
        cold_keys_per_second_a_core: speed(&cold),
        warm_keys_per_second_a_core: speed(&warm),
    })
}

impl RecoveryRun {
    /// The table.
    pub fn lines(&self) -> String {
        format!(
            "{} keys on {} shard(s), {} entries, {:.0} MB: cold {:.2} M keys/s a core, warm {:.2}; medians of {}",
            self.keys,
            self.shards,
            self.entries,
            self.bytes as f64 / 1e6,
            self.cold_keys_per_second_a_core / 1e6,
            self.warm_keys_per_second_a_core / 1e6,
            self.times,
        )
    }
}
