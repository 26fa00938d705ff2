//! The ingest log: acknowledged appends a second, and replay, each beside what the disk and the page cache do on their own.
//!
//! - *append*: records of 100 bytes, appended as fast as they are taken and counted when they are durable. Its limit writes the
//!   same bytes with as many syncs.
//! - *warm*: all records read again out of the page cache. Its limit reads the same bytes into a buffer.
//! - *cold*: the same after the page cache has forgotten them. Its limit reads them directly, one piece after another.
//! - *syncs*: how long this disk's own take, in the same folder and run; and how many appends a disk would acknowledge whose
//!   syncs take 1 or 5 ms longer, run with completions that are held back so long.
//!
//! Engine and limit take turns; figures are medians of the pairs.

mod append;
mod delayed;
mod replay;

use crate::engine::BenchError;
use crate::raw;
use crate::report::median;
use replay::Replay;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Length of a record's value.
pub const RECORD_BYTES: usize = 100;

/// How the workload runs.
#[derive(Clone, Debug)]
pub struct IngestLogConfig {
    /// A folder on the disk that is measured. It must not exist, and is gone afterwards.
    pub folder: PathBuf,
    /// How many records are appended and replayed.
    pub records: u64,
    /// How many times each is done.
    pub pairs: usize,
    /// How many syncs are timed on their own.
    pub syncs: u64,
}

/// What it came to; medians of the pairs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IngestLogRun {
    /// Always `ingest-log`.
    pub workload: String,
    /// Records of a run.
    pub records: u64,
    /// Length of a record's value.
    pub record_bytes: usize,
    /// Pairs of runs.
    pub pairs: usize,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Records acknowledged a second.
    pub appends_per_second: f64,
    /// Records that shared a sync.
    pub records_per_sync: f64,
    /// By the time that the limit takes for the same bytes and syncs.
    pub append_ratio: f64,
    /// Half of this disk's syncs after one page were faster.
    pub sync_p50_us: f64,
    /// Of a hundred, 99 were faster.
    pub sync_p99_us: f64,
    /// Records acknowledged a second if each sync took 1 ms longer.
    pub appends_per_second_sync_1_ms: f64,
    /// .. and 5 ms.
    pub appends_per_second_sync_5_ms: f64,
    /// Records a second out of the page cache.
    pub warm_records_per_second: f64,
    /// By the time that reading the same bytes takes.
    pub warm_ratio: f64,
    /// Records a second when the page cache has forgotten them.
    pub cold_records_per_second: f64,
    /// By the time that direct reads of the same bytes take.
    pub cold_ratio: f64,
}

impl IngestLogRun {
    /// The table.
    pub fn lines(&self) -> String {
        let million = |n: f64| n / 1e6;
        format!(
            "appends  {:>7.2} M/s acknowledged, {:.2} of writing the same bytes; {:.0} records a sync\n\
             syncs    p50 {:.0} us, p99 {:.0} us; were they 1 ms longer {:.2} M/s, 5 ms {:.2} M/s\n\
             warm     {:>7.2} M records/s, {:.2} of reading the same bytes\n\
             cold     {:>7.2} M records/s, {:.2} of reading them directly\n\
             {} records of {} bytes, {:.0} MB, medians of {}",
            million(self.appends_per_second),
            self.append_ratio,
            self.records_per_sync,
            self.sync_p50_us,
            self.sync_p99_us,
            million(self.appends_per_second_sync_1_ms),
            million(self.appends_per_second_sync_5_ms),
            million(self.warm_records_per_second),
            self.warm_ratio,
            million(self.cold_records_per_second),
            self.cold_ratio,
            self.records,
            self.record_bytes,
            self.log_bytes as f64 / 1e6,
            self.pairs,
        )
    }
}

/// Runs the workload.
///
/// # Errors
/// The folder exists, or the disk fails.
pub fn run(config: &IngestLogConfig) -> Result<IngestLogRun, BenchError> {
    let shown = config.folder.display();
    std::fs::create_dir_all(config.folder.parent().unwrap_or(Path::new("")))
        .and_then(|()| std::fs::create_dir(&config.folder))
        .map_err(|e| BenchError::usage(format!("{shown}: {e}")))?;
    let run = measure(config).map_err(|e| BenchError::failed(format!("{shown}: {e}")));
    let cleared = std::fs::remove_dir_all(&config.folder);
    let run = run?;
    cleared.map_err(|e| BenchError::failed(format!("{shown}: {e}")))?;
    Ok(run)
}

/// The figures of all pairs, each a column.
#[derive(Default)]
struct Pairs {
    appends: Vec<f64>,
    per_sync: Vec<f64>,
    append_ratios: Vec<f64>,
    warm: Vec<f64>,
    warm_ratios: Vec<f64>,
    cold: Vec<f64>,
    cold_ratios: Vec<f64>,
    slower: [Vec<f64>; 2],
}

fn measure(config: &IngestLogConfig) -> Result<IngestLogRun, Box<dyn Error>> {
    let records = config.records as f64;
    let (_, syncs) = raw::page_syncs(&config.folder, config.syncs)?;
    let mut pairs = Pairs::default();
    let mut log_bytes = 0;
    for pair in 0..config.pairs {
        let folder = config.folder.join(format!("log-{pair}"));
        let appended = append::append(&folder, config.records, Duration::ZERO)?;
        log_bytes = appended.bytes;
        let written = append::write(&config.folder, &appended)?;
        pairs.appends.push(records / appended.took.as_secs_f64());
        pairs.per_sync.push(records / appended.groups as f64);
        pairs.append_ratios.push(ratio(appended.took, written));
        replays(&Replay::new(&folder, config.records)?, records, &mut pairs)?;
        std::fs::remove_dir_all(&folder)?;
        for (milliseconds, column) in [1, 5].into_iter().zip(&mut pairs.slower) {
            let few = (config.records / 5).max(1);
            let extra = Duration::from_millis(milliseconds);
            let appended = append::append(&folder, few, extra)?;
            column.push(few as f64 / appended.took.as_secs_f64());
            std::fs::remove_dir_all(&folder)?;
        }
    }
    let [slower_1, slower_5] = &mut pairs.slower;
    Ok(IngestLogRun {
        workload: "ingest-log".into(),
        records: config.records,
        record_bytes: RECORD_BYTES,
        pairs: config.pairs,
        log_bytes,
        appends_per_second: median(&mut pairs.appends),
        records_per_sync: median(&mut pairs.per_sync),
        append_ratio: median(&mut pairs.append_ratios),
        sync_p50_us: raw::percentile_us(&syncs, 50),
        sync_p99_us: raw::percentile_us(&syncs, 99),
        appends_per_second_sync_1_ms: median(slower_1),
        appends_per_second_sync_5_ms: median(slower_5),
        warm_records_per_second: median(&mut pairs.warm),
        warm_ratio: median(&mut pairs.warm_ratios),
        cold_records_per_second: median(&mut pairs.cold),
        cold_ratio: median(&mut pairs.cold_ratios),
    })
}

/// Cold before warm: what reading cold leaves in the cache is what reading warm wants.
fn replays(replay: &Replay, records: f64, pairs: &mut Pairs) -> Result<(), Box<dyn Error>> {
    let limit = replay.cold_limit()?;
    let cold = replay.cold()?;
    pairs.cold.push(records / cold.as_secs_f64());
    pairs.cold_ratios.push(ratio(cold, limit));
    replay.warm_limit()?; // all of it is in the cache now
    replay.warm()?; // and its pages are known to this process's tables
    let limit = replay.warm_limit()?;
    let warm = replay.warm()?;
    pairs.warm.push(records / warm.as_secs_f64());
    pairs.warm_ratios.push(ratio(warm, limit));
    Ok(())
}

/// Of the limit's speed.
fn ratio(took: Duration, limit: Duration) -> f64 {
    limit.as_secs_f64() / took.as_secs_f64()
}
