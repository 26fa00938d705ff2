//! Throughput with checkpoints by that without, of the same job in the same binary, in turn.
//!
//! The job is `keyed-window`, in which at intervals of 10 ms almost every key changes; or, where a share of dirty keys is given, running
//! values of many keys of which a few change at a time ([`crate::events::Moving`]). What is compared is the steady part of a run: from the
//! time at which [`warm_up`] events have been read to the time at which 95 of a hundred have.

use super::{Scratch, absolute};
use crate::child::{self, Task};
use crate::engine::BenchError;
use crate::raw;
use crate::report::median;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Page appends that are timed on their own.
const SYNCS: u64 = 500;

/// Bytes of an entry as a user counts: a key, a count, a sum and a maximum.
pub const ENTRY_BYTES: u64 = 32;

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyedConfig {
    /// Shards, at least one.
    pub shards: usize,
    /// Events, over all shards.
    pub events: u64,
    /// Keys.
    pub keys: u64,
    /// How many of a hundred keys change at a time; `None`: all, in windows.
    pub dirty_percent: Option<f64>,
    /// Interval of the checkpoints and where they go; `None`: none are taken.
    pub checkpoints: Option<(u64, PathBuf)>,
}

/// Events of a run that come before its steady part: every key has been seen, and the first checkpoint, which has them all, is through.
pub fn warm_up(config: &KeyedConfig) -> u64 {
    (6 * config.keys).max(config.events / 10)
}

/// What one run came to. All but results, steps and memory are of its steady part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeyedReport {
    /// Length of the steady part.
    pub seconds: f64,
    /// Processor time that the shards had in it.
    pub shard_seconds: f64,
    /// Events read in it.
    pub events: u64,
    /// Epochs that were decided and committed.
    pub epochs: u64,
    /// Entries written.
    pub entries: u64,
    /// Bytes written to the logs.
    pub log_bytes: u64,
    /// Bytes that the process had written to disks, the manifest's among them.
    pub disk_bytes: u64,
    /// Median of the epochs that were looked at: from its barrier to its commit.
    pub epoch_p50_us: f64,
    /// The longest of them.
    pub epoch_max_us: f64,
    /// Epochs of the whole run that took too long.
    pub given_up: u64,
    /// The job's longest step.
    pub longest_step_us: f64,
    /// Peak resident memory of the process.
    pub peak_rss_bytes: u64,
    /// Results, over the whole run.
    pub results: u64,
    /// Their checksum in hexadecimal.
    pub checksum: String,
}

impl KeyedReport {
    fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// By time of the shards' own, whatever else ran on their cores.
    fn shard_rate(&self) -> f64 {
        self.events as f64 / self.shard_seconds
    }

    fn per_epoch(&self, n: u64) -> f64 {
        n as f64 / self.epochs.max(1) as f64
    }
}

/// What the command compares.
#[derive(Clone, Debug)]
pub struct KeyedComparison {
    /// The runs; its folder is not looked at.
    pub config: KeyedConfig,
    /// Milliseconds between checkpoints.
    pub interval_ms: u64,
    /// Pairs of runs.
    pub pairs: usize,
    /// A folder that does not exist yet, on the disk to be measured.
    pub folder: PathBuf,
}

/// What it came to: medians over the pairs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyedRatios {
    /// Always `checkpoint keyed-window`.
    pub workload: String,
    /// Shards.
    pub shards: usize,
    /// Events of a run.
    pub events: u64,
    /// Keys.
    pub keys: u64,
    /// Milliseconds between checkpoints, as asked for.
    pub interval_ms: u64,
    /// Pairs of runs.
    pub pairs: usize,
    /// Events a second without checkpoints.
    pub events_per_second_without: f64,
    /// .. and with.
    pub events_per_second_with: f64,
    /// Median of the pairs' ratios, with by without.
    pub ratio_median: f64,
    /// The smallest.
    pub ratio_min: f64,
    /// The largest.
    pub ratio_max: f64,
    /// The same by the shards' processor time instead of the clock: what checkpoints cost them, without what neighbours and the
    /// disk's threads took from their cores. 0 where that time is not known.
    pub shard_ratio_median: f64,
    /// Entries of a commit by keys.
    pub dirty_share: f64,
    /// Entries of a commit.
    pub entries_per_commit: f64,
    /// Bytes of a commit in the logs.
    pub bytes_per_commit: f64,
    /// Epochs completed in the steady part.
    pub epochs: f64,
    /// .. a second.
    pub epochs_per_second: f64,
    /// One a shard and one for the manifest, for each epoch: counted, not measured.
    pub syncs_per_second: f64,
    /// Bytes that went to the disk by [`ENTRY_BYTES`] for each entry.
    pub write_amplification: f64,
    /// From an epoch's barrier to its commit.
    pub epoch_p50_us: f64,
    /// Median over the runs of the longest that was seen.
    pub epoch_max_us: f64,
    /// The disk's own: a direct write of a page and its sync.
    pub page_sync_p50_us: f64,
    /// Of a hundred, 99 were faster.
    pub page_sync_p99_us: f64,
    /// Computed, not run: see `modelled`.
    pub sync_1_ms: Modelled,
    /// The same for syncs of 5 ms.
    pub sync_5_ms: Modelled,
}

/// What would be if syncs took longer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Modelled {
    /// Epochs a second.
    pub epochs_per_second: f64,
    /// Throughput with checkpoints by that without.
    pub ratio: f64,
}

/// An epoch syncs twice, one after the other: its shards' logs, then the manifest. Between two barriers lie the interval and twice the
/// time that an epoch takes, whichever is longer. An epoch costs the shards the same however long the disk takes.
fn modelled(
    spacing_us: f64,
    epoch_us: f64,
    own_sync_us: f64,
    sync_us: f64,
    ratio: f64,
) -> Modelled {
    let longer = 2.0 * (sync_us - own_sync_us).max(0.0);
    let spacing = spacing_us.max(2.0 * (epoch_us + longer));
    Modelled {
        epochs_per_second: 1e6 / spacing,
        ratio: 1.0 - (1.0 - ratio) * spacing_us / spacing,
    }
}

/// Runs the comparison; `each` is told every run as it comes.
///
/// # Errors
/// The folder exists, a run fails, or checkpoints change the results.
pub fn compare(
    what: &KeyedComparison,
    mut each: impl FnMut(&KeyedConfig, &KeyedReport) -> Result<(), BenchError>,
) -> Result<KeyedRatios, BenchError> {
    let scratch = Scratch::new(&what.folder)?;
    let (page_syncs, syncs) =
        raw::page_syncs(scratch.path(), SYNCS).map_err(|e| scratch.failed(e))?;
    let mut pairs: Vec<(KeyedReport, KeyedReport)> = Vec::new();
    for pair in 0..what.pairs {
        let mut run = |checkpoints| -> Result<KeyedReport, BenchError> {
            let config = KeyedConfig {
                checkpoints,
                ..what.config.clone()
            };
            let report: KeyedReport = child::run_apart(&Task::Checkpoints(config.clone()))?;
            scratch.clear("run")?;
            each(&config, &report)?;
            Ok(report)
        };
        let with = Some((what.interval_ms, absolute(&scratch.folder("run"))?));
        // Turn about, so that neither always runs on what the other left.
        let (without, with) = if pair % 2 == 0 {
            (run(None)?, run(with)?)
        } else {
            let with = run(with)?;
            (run(None)?, with)
        };
        agree(&without, &with)?;
        pairs.push((without, with));
    }
    Ok(ratios(
        what,
        &pairs,
        (
            raw::percentile_us(&page_syncs, 50),
            raw::percentile_us(&page_syncs, 99),
        ),
        raw::percentile_us(&syncs, 50),
    ))
}

fn agree(without: &KeyedReport, with: &KeyedReport) -> Result<(), BenchError> {
    if (without.results, &without.checksum) == (with.results, &with.checksum) {
        return Ok(());
    }
    Err(BenchError::failed(format!(
        "checkpoints change the results: {} with checksum {} without them, {} with checksum {} with them",
        without.results, without.checksum, with.results, with.checksum
    )))
}

fn ratios(
    what: &KeyedComparison,
    pairs: &[(KeyedReport, KeyedReport)],
    (page_sync_p50_us, page_sync_p99_us): (f64, f64),
    own_sync_us: f64,
) -> KeyedRatios {
    let over = |f: &dyn Fn(&KeyedReport, &KeyedReport) -> f64| {
        let mut values: Vec<f64> = pairs
            .iter()
            .map(|(without, with)| f(without, with))
            .collect();
        let middle = median(&mut values);
        (middle, values[0], values[values.len() - 1])
    };
    let config = &what.config;
    let (ratio_median, ratio_min, ratio_max) = over(&|without, with| with.rate() / without.rate());
    let (entries_per_commit, ..) = over(&|_, with| with.per_epoch(with.entries));
    let (epochs_per_second, ..) = over(&|_, with| with.epochs as f64 / with.seconds);
    let (epoch_p50_us, ..) = over(&|_, with| with.epoch_p50_us);
    let model = |sync_us| {
        let spacing_us = 1e6 / epochs_per_second;
        modelled(spacing_us, epoch_p50_us, own_sync_us, sync_us, ratio_median)
    };
    KeyedRatios {
        workload: "checkpoint keyed-window".into(),
        shards: config.shards,
        events: config.events,
        keys: config.keys,
        interval_ms: what.interval_ms,
        pairs: pairs.len(),
        events_per_second_without: over(&|without, _| without.rate()).0,
        events_per_second_with: over(&|_, with| with.rate()).0,
        ratio_median,
        ratio_min,
        ratio_max,
        shard_ratio_median: match over(&|without, with| with.shard_rate() / without.shard_rate()).0
        {
            ratio if ratio.is_finite() => ratio,
            _ => 0.0,
        },
        dirty_share: entries_per_commit / config.keys as f64,
        entries_per_commit,
        bytes_per_commit: over(&|_, with| with.per_epoch(with.log_bytes)).0,
        epochs: over(&|_, with| with.epochs as f64).0,
        epochs_per_second,
        syncs_per_second: epochs_per_second * (config.shards + 1) as f64,
        write_amplification: over(&|_, with| {
            with.disk_bytes as f64 / (with.entries.max(1) * ENTRY_BYTES) as f64
        })
        .0,
        epoch_p50_us,
        epoch_max_us: over(&|_, with| with.epoch_max_us).0,
        page_sync_p50_us,
        page_sync_p99_us,
        sync_1_ms: model(1000.0),
        sync_5_ms: model(5000.0),
    }
}

impl KeyedRatios {
    /// The end of the table.
    pub fn lines(&self) -> String {
        format!(
            "{} keys on {} shard(s), every {} ms: {:.3} of without, median of {} pairs ({:.3} to {:.3}); by the shards' own time {:.3}\n\
             commits    {:.0} entries ({:.1} % of the keys), {:.2} MB; {:.1} epochs a second, {:.0} in a run, {:.0} syncs a second\n\
             an epoch   p50 {:.1} ms, longest {:.1} ms; {:.2} bytes written for each byte that changed\n\
             the disk   a page and its sync: p50 {:.0} us, p99 {:.0} us\n\
             computed   syncs of 1 ms: {:.3} of without at {:.1} epochs a second; of 5 ms: {:.3} at {:.1}",
            self.keys,
            self.shards,
            self.interval_ms,
            self.ratio_median,
            self.pairs,
            self.ratio_min,
            self.ratio_max,
            self.shard_ratio_median,
            self.entries_per_commit,
            self.dirty_share * 100.0,
            self.bytes_per_commit / 1e6,
            self.epochs_per_second,
            self.epochs,
            self.syncs_per_second,
            self.epoch_p50_us / 1e3,
            self.epoch_max_us / 1e3,
            self.write_amplification,
            self.page_sync_p50_us,
            self.page_sync_p99_us,
            self.sync_1_ms.ratio,
            self.sync_1_ms.epochs_per_second,
            self.sync_5_ms.ratio,
            self.sync_5_ms.epochs_per_second,
        )
    }
}

/// A line of the table for a run.
pub fn line(config: &KeyedConfig, report: &KeyedReport) -> String {
    let interval = config.checkpoints.as_ref();
    format!(
        "{:<10} {:>6} {:>12} {:>9.3} {:>12.2} {:>8} {:>12.0} {:>9.2} {:>9.1} {:>9.1}  {}",
        interval.map_or("without".to_owned(), |(ms, _)| format!("{ms} ms")),
        config.shards,
        report.events,
        report.seconds,
        report.rate() / 1e6,
        report.epochs,
        report.per_epoch(report.entries),
        report.per_epoch(report.log_bytes) / 1e6,
        report.longest_step_us,
        report.peak_rss_bytes as f64 / 1e6,
        report.checksum,
    )
}

/// The head of the table.
pub fn head() -> String {
    format!(
        "{:<10} {:>6} {:>12} {:>9} {:>12} {:>8} {:>12} {:>9} {:>9} {:>9}  {}",
        "interval",
        "shards",
        "events",
        "seconds",
        "M events/s",
        "epochs",
        "entries",
        "MB",
        "step us",
        "peak MB",
        "checksum"
    )
}
