//! Past and present by one job: a log that jobs write and read, exactly once.
//!
//! - *write*: a job whose records go to a log of its own, as fast as it takes them, with checkpoints.
//! - *history*: a job that reads all of that log and counts. Its limit is the storage crate's reader, in one thread, doing the same without a job.
//! - *live*: a job writes at a rate; another follows from the first record on, is stopped when a third has come, and is started again. How long a
//!   record takes from the writer's source to the reader, which sees whole epochs only, while both run; and whether each came once, by count
//!   and checksum.

use crate::engine::BenchError;
use crate::report::median;
use hdrhistogram::Histogram;
use pelton::{
    Checkpointing, Config, Driver, Job, Runtime, Spans, Stop, log, sink, sources, stable_hash,
};
use pelton_storage::{Follower, HistoryBytes, LogReader, ReadDisk};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How the workload runs.
#[derive(Clone, Debug)]
pub struct KappaConfig {
    /// A folder on the disk that is measured. It must not exist, and is gone afterwards.
    pub folder: PathBuf,
    /// Records of the history.
    pub records: u64,
    /// Records a second of the live part.
    pub rate: u64,
    /// How long that is.
    pub seconds: u64,
    /// Shards of each job.
    pub shards: usize,
    /// Partitions of each log.
    pub partitions: u32,
    /// Between two checkpoints.
    pub interval_ms: u64,
    /// How many times write and history are done.
    pub pairs: usize,
}

/// What it came to; write and history are medians of the pairs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KappaRun {
    /// Always `kappa`.
    pub workload: String,
    /// Records of the history.
    pub records: u64,
    /// Shards of each job.
    pub shards: usize,
    /// Between two checkpoints.
    pub interval_ms: u64,
    /// Records a second that a job wrote, all committed.
    pub write_records_per_second: f64,
    /// Records a second that a job read out of history.
    pub history_records_per_second: f64,
    /// The same without a job, in one thread.
    pub reader_records_per_second: f64,
    /// Records a second of the live part.
    pub rate: u64,
    /// Records of the live part; each was seen once.
    pub live_records: u64,
    /// From the writer's source to the reader's chain: half were faster.
    pub live_p50_ms: f64,
    /// Of a hundred, 99 were.
    pub live_p99_ms: f64,
}

impl KappaRun {
    /// The table.
    pub fn lines(&self) -> String {
        let million = |n: f64| n / 1e6;
        format!(
            "write    {:>7.2} M/s committed, checkpoints every {} ms, {} shards\n\
             history  {:>7.2} M/s by a job; {:.2} M/s by a reader without one\n\
             live     p50 {:.1} ms, p99 {:.1} ms at {} a second; {} records, each once, the reader stopped and started in between",
            million(self.write_records_per_second),
            self.interval_ms,
            self.shards,
            million(self.history_records_per_second),
            million(self.reader_records_per_second),
            self.live_p50_ms,
            self.live_p99_ms,
            self.rate,
            self.live_records,
        )
    }
}

/// A record, and when it was read, in nanoseconds since the run began; 0 where nobody asks.
type Event = (u64, u64);
type Failed = Box<dyn Error>;

/// Runs the workload.
///
/// # Errors
/// The folder exists, a job fails, or a record is missing or came twice.
pub fn run(config: &KappaConfig) -> Result<KappaRun, BenchError> {
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

fn measure(config: &KappaConfig) -> Result<KappaRun, Failed> {
    let (mut write, mut history, mut reader) = (vec![], vec![], vec![]);
    let per_second = |took: f64| config.records as f64 / took.max(1e-9);
    for pair in 0..config.pairs {
        let folder = config.folder.join(format!("history-{pair}"));
        let began = Instant::now();
        writer(config, &folder, config.records, None, Instant::now())?
            .1
            .wait()?;
        write.push(per_second(began.elapsed().as_secs_f64()));
        // In the page cache for both.
        raw(&folder.join("log"), config.records)?;
        reader.push(per_second(
            raw(&folder.join("log"), config.records)?.as_secs_f64(),
        ));
        let began = Instant::now();
        check(config, &folder.join("log"), config.records)?;
        history.push(per_second(began.elapsed().as_secs_f64()));
        std::fs::remove_dir_all(&folder)?;
    }
    let latencies = live(config)?;
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
    Ok(KappaRun {
        workload: "kappa".into(),
        records: config.records,
        shards: config.shards,
        interval_ms: config.interval_ms,
        write_records_per_second: median(&mut write),
        history_records_per_second: median(&mut history),
        reader_records_per_second: median(&mut reader),
        rate: config.rate,
        live_records: config.rate * config.seconds,
        live_p50_ms: ms(0.5),
        live_p99_ms: ms(0.99),
    })
}

fn runtime(config: &KappaConfig) -> Result<Runtime, Failed> {
    let config = Config::default()
        .shards(config.shards)
        .driver(Driver::Threads);
    Ok(Runtime::start(config)?)
}

fn checkpoints(config: &KappaConfig, folder: PathBuf) -> Checkpointing {
    let interval = i64::try_from(config.interval_ms).unwrap_or(i64::MAX / 1_000);
    Checkpointing::in_folder(folder).every(interval.millis())
}

/// A job that writes, at a rate or as fast as it goes; its runtime is its own.
fn writer(
    config: &KappaConfig,
    folder: &Path,
    records: u64,
    rate: Option<u64>,
    since: Instant,
) -> Result<(Runtime, pelton::JobHandle), Failed> {
    let job = Job::new("writer");
    job.checkpoints(checkpoints(config, folder.join("writer")));
    let stamped = rate.is_some();
    let events = sources::generate("ids", records, config.shards, move |id| {
        // One in some: the clock costs as much as the rest.
        let stamp = stamped && id.is_multiple_of(16);
        let at = if stamp {
            since.elapsed().as_nanos() as u64
        } else {
            0
        };
        (id, at)
    });
    let to = log::sink(folder.join("log"), log::states::<Event>())
        .partitions(config.partitions)
        .partition_by(|e: &Event| e.0);
    match rate {
        Some(rate) => job.source(sources::paced(events, rate)).sink(to),
        None => job.source(events).sink(to),
    }
    let runtime = runtime(config)?;
    let handle = runtime.submit(&job)?;
    Ok((runtime, handle))
}

/// All records of the log, without a job.
fn raw(folder: &Path, records: u64) -> Result<Duration, Failed> {
    let began = Instant::now();
    let follower = Follower::open(&mut ReadDisk::new(folder))?.ok_or("there is no log")?;
    let mut found = 0;
    for partition in 0..follower.partitions() {
        let view = follower.view(partition);
        let from = view.start();
        let mut reader = LogReader::new(HistoryBytes::new(folder), view, from)?;
        while let Some(batch) = reader.next_batch()? {
            for record in batch.records().flatten() {
                black_box(record.record.value);
                found += 1;
            }
        }
    }
    match found == records {
        true => Ok(began.elapsed()),
        false => Err(format!("{found} records instead of {records}").into()),
    }
}

/// Reads all of a log by a job, and sees whether each id below `records` is in it once.
fn check(config: &KappaConfig, folder: &Path, records: u64) -> Result<(), Failed> {
    // By shard, so that nobody waits: a clone of the closure has a place of its own.
    #[derive(Default)]
    struct Sums {
        all: Arc<Mutex<(u64, u64)>>,
        own: (u64, u64),
    }
    impl Clone for Sums {
        fn clone(&self) -> Self {
            let all = self.all.clone();
            Sums { all, own: (0, 0) }
        }
    }
    impl Drop for Sums {
        fn drop(&mut self) {
            let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            *all = (all.0 + self.own.0, all.1 ^ self.own.1);
        }
    }
    let sums = Sums::default();
    let all = sums.all.clone();
    let job = Job::new("history");
    let mut own = sums;
    job.source(log::source(folder, log::states::<Event>()).until_end())
        .sink(sink::callback("sums", move |(id, _): Event, _| {
            let sums = &mut own;
            sums.own = (sums.own.0 + 1, sums.own.1 ^ stable_hash(&id));
        }));
    let runtime = runtime(config)?;
    runtime.submit(&job)?.wait()?;
    drop((runtime, job));
    let found = *all.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = (
        records,
        (0..records).fold(0, |xor, id| xor ^ stable_hash(&id)),
    );
    match found == expected {
        true => Ok(()),
        false => Err(format!("count and checksum are {found:?} instead of {expected:?}").into()),
    }
}

/// A job that follows the writer's log and writes what it has seen to another; it tells of each 1,000th record.
fn reader(
    config: &KappaConfig,
    folder: &Path,
    (since, latencies): (Instant, &Arc<Mutex<Histogram<u64>>>),
    seen: mpsc::Sender<()>,
    is_last: bool,
) -> Job {
    let job = Job::new("reader");
    job.checkpoints(checkpoints(config, folder.join("reader")));
    let from = log::source(folder.join("log"), log::states::<Event>());
    let from = if is_last { from.until_end() } else { from };
    let latencies = latencies.clone();
    job.source(from)
        .inspect(move |&(id, at): &Event| {
            if at > 0 {
                let took = (since.elapsed().as_nanos() as u64).saturating_sub(at);
                let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
                latencies.saturating_record(took.max(1));
            }
            if id.is_multiple_of(1_000) {
                let _ = seen.send(());
            }
        })
        .sink(log::sink(folder.join("seen"), log::states::<Event>()));
    job
}

/// Nanoseconds, up to a minute.
fn histogram() -> Result<Histogram<u64>, Failed> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

/// The live part; latencies of the reader's first life.
fn live(config: &KappaConfig) -> Result<Histogram<u64>, Failed> {
    let folder = config.folder.join("live");
    let records = config.rate * config.seconds;
    let latencies = Arc::new(Mutex::new(histogram()?));
    let since = Instant::now();
    let (_writing, writer) = writer(config, &folder, records, Some(config.rate), since)?;
    let runtime = runtime(config)?;
    let (tell, seen) = mpsc::channel();
    let job = |is_last, of: &Arc<_>| reader(config, &folder, (since, of), tell.clone(), is_last);
    let first = runtime.submit(&job(false, &latencies))?;
    for _ in 0..records / 3_000 {
        seen.recv()?;
    }
    first.stop(Stop::Keep);
    first.wait()?;
    // What comes now has waited for the job to start: that is no latency of the log.
    let unasked = Arc::new(Mutex::new(histogram()?));
    let second = runtime.submit(&job(false, &unasked))?;
    writer.wait()?;
    second.stop(Stop::Keep);
    second.wait()?;
    runtime.submit(&job(true, &unasked))?.wait()?;
    check(config, &folder.join("seen"), records)?;
    let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(latencies.clone())
}
