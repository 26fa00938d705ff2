//! One write and its sync, as a shard of a running job has them from each kind of disk, and as a thread has them that makes the calls itself.
//!
//! The disk is used on its shard, by the reader of a source: it submits, its shard goes on or sleeps as shards do, the doorbell wakes it,
//! it polls. A sample is from submitting a write to the completion of the sync that follows it. Files are allocated first and written
//! once from front to back, as segments are. The kinds take turns, round after round, in one process.

use super::Scratch;
use crate::engine::BenchError;
use crate::raw;
use crate::report::median;
use hdrhistogram::Histogram;
use pelton::port::Ports;
use pelton::source::{Emit, Read, ReadError, Reader, Source};
use pelton::{Config, DiskKind, Driver, Job, Runtime, testing};
use pelton_storage::{Buffer, Completion, Disk, Done, FileId, Mode, Op, Ticket};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Bytes of a write: the least, and what a segment's writer hands down at a time.
const BYTES: [usize; 2] = [4 << 10, 128 << 10];

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A thread of its own makes the calls and waits.
    Calls,
    /// [`DiskKind::Std`] on the threads driver.
    Std,
    /// [`DiskKind::IoUring`] on the glommio driver.
    IoUring,
}

/// One way with writes of one size, over all rounds. Microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Who.
    pub way: Way,
    /// Bytes of a write.
    pub bytes: usize,
    /// Writes with their syncs.
    pub samples: u64,
    /// Half took no longer.
    pub p50_us: f64,
    /// One in a hundred took longer.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// The median of the rounds' own p99, the least and the greatest.
    pub p99_of_rounds_us: [f64; 3],
}

/// What `checkpoint disk` came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskRun {
    /// Always `checkpoint disk`.
    pub workload: String,
    /// Rounds, in each of which every way has its turn.
    pub rounds: usize,
    /// Each way with each size.
    pub rows: Vec<Row>,
}

/// Measures in a folder that is made for it.
///
/// # Errors
/// The disk fails or refuses direct files, or io_uring cannot be had.
pub fn run(samples: u64, rounds: usize, folder: &Path) -> Result<DiskRun, BenchError> {
    let scratch = Scratch::new(folder)?;
    let start = |driver| {
        let config = Config::default().shards(1).driver(driver);
        Runtime::start(config).map_err(|e| BenchError::failed(e.to_string()))
    };
    let (threads, ring) = (start(Driver::Threads)?, start(Driver::Glommio)?);
    let mut rows = vec![];
    for bytes in BYTES {
        let mut taken: Vec<_> = [Way::Calls, Way::Std, Way::IoUring]
            .map(|way| (way, vec![]))
            .into();
        for round in 0..rounds {
            // Each is first as often as the others.
            taken.rotate_left(round % 3);
            for (way, times) in &mut taken {
                let folder = scratch.folder("round");
                let on = |runtime, kind| on_shard(runtime, kind, bytes, samples, &folder);
                times.push(match way {
                    Way::Calls => calls(bytes, samples, &folder).map_err(|e| scratch.failed(e))?,
                    Way::Std => on(&threads, DiskKind::Std)?,
                    Way::IoUring => on(&ring, DiskKind::IoUring)?,
                });
                scratch.clear("round")?;
            }
        }
        taken.sort_by_key(|(way, _)| *way as u8);
        let row = |(way, times): (Way, Vec<Vec<u64>>)| Row::of(way, bytes, &times);
        rows.extend(taken.into_iter().map(row));
    }
    Ok(DiskRun {
        workload: "checkpoint disk".into(),
        rounds,
        rows,
    })
}

impl Row {
    fn of(way: Way, bytes: usize, rounds: &[Vec<u64>]) -> Row {
        // Three digits, up to a minute.
        let empty = || Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3);
        let all = |times: &mut dyn Iterator<Item = u64>| {
            let mut histogram = empty().expect("the bounds are in order");
            times.for_each(|ns| histogram.saturating_record(ns));
            histogram
        };
        let us = |ns: u64| ns as f64 / 1e3;
        let p99 = |h: &Histogram<u64>| us(h.value_at_quantile(0.99));
        let total = all(&mut rounds.iter().flatten().copied());
        let of_rounds = rounds.iter().map(|r| p99(&all(&mut r.iter().copied())));
        let mut of_rounds: Vec<f64> = of_rounds.collect();
        let middle = median(&mut of_rounds);
        let (least, greatest) = (of_rounds[0], of_rounds[of_rounds.len() - 1]);
        Row {
            way,
            bytes,
            samples: total.len(),
            p50_us: us(total.value_at_quantile(0.5)),
            p99_us: p99(&total),
            max_us: us(total.max()),
            p99_of_rounds_us: [middle, least, greatest],
        }
    }
}

impl DiskRun {
    /// As a table.
    pub fn lines(&self) -> String {
        let mut lines =
            vec!["way        bytes  samples   p50 us   p99 us   max us  p99 of rounds".to_owned()];
        for row in &self.rows {
            let way = match row.way {
                Way::Calls => "calls",
                Way::Std => "std",
                Way::IoUring => "io_uring",
            };
            let [middle, least, greatest] = row.p99_of_rounds_us;
            lines.push(format!(
                "{way:<8} {:>7} {:>8} {:>8.0} {:>8.0} {:>8.0}  {middle:.0}, {least:.0} to {greatest:.0}",
                row.bytes, row.samples, row.p50_us, row.p99_us, row.max_us
            ));
        }
        lines.join("\n")
    }
}

/// Nanoseconds of each sample.
fn calls(bytes: usize, samples: u64, folder: &Path) -> std::io::Result<Vec<u64>> {
    std::fs::create_dir(folder)?;
    let file = raw::open_direct(&folder.join("calls"), true)?;
    raw::allocate(&file, samples * bytes as u64)?;
    file.sync_all()?;
    let buffer = Buffer::zeroed(bytes);
    let sample = |n: u64| {
        let began = Instant::now();
        raw::write_at(&file, &buffer, n * bytes as u64)?;
        file.sync_data()?;
        Ok(began.elapsed().as_nanos() as u64)
    };
    (0..samples).map(sample).collect()
}

type Times = Arc<Mutex<Vec<u64>>>;

/// Has a shard take the samples.
fn on_shard(
    runtime: &Runtime,
    kind: DiskKind,
    bytes: usize,
    samples: u64,
    folder: &Path,
) -> Result<Vec<u64>, BenchError> {
    let failed = |e: String| BenchError::failed(e);
    let disk = testing::shard_disk(runtime, 0, kind, folder).map_err(|e| failed(e.to_string()))?;
    let times = Times::default();
    let prober = Prober {
        disk,
        file: FileId(0),
        state: State::Opening,
        buffer: Some(Buffer::zeroed(bytes)),
        completions: vec![],
        bytes: bytes as u64,
        samples,
        times: Vec::with_capacity(samples as usize),
        result: times.clone(),
    };
    let (_, sink) = testing::collect();
    let job = Job::new("disk");
    job.source(Probing(Some(prober))).sink(sink);
    let handle = runtime.submit(&job).map_err(|e| failed(e.to_string()))?;
    handle.wait().map_err(|e| failed(e.to_string()))?;
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *times))
}

/// A source of no records whose reader measures a disk.
struct Probing(Option<Prober>);

impl Source for Probing {
    type Item = u64;
    type Reader = Prober;
    fn name(&self) -> String {
        "disk".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<Prober>, String> {
        Ok(self.0.take().into_iter().collect())
    }
}

#[derive(Clone, Copy)]
enum State {
    Opening,
    Opened,
    Allocating,
    Writing(Instant),
    Syncing(Instant),
    Closing,
}

struct Prober {
    disk: Box<dyn Disk + Send>,
    file: FileId,
    state: State,
    /// Here while it is not below.
    buffer: Option<Buffer>,
    completions: Vec<Completion>,
    bytes: u64,
    samples: u64,
    /// Nanoseconds.
    times: Vec<u64>,
    result: Times,
}

impl Prober {
    fn submit(&mut self, op: Op) {
        let ticket = Ticket {
            owner: 0,
            serial: 0,
        };
        self.disk.submit(op, ticket).expect("one at a time");
    }

    fn write(&mut self) {
        let file = self.file;
        if self.times.len() as u64 == self.samples {
            self.state = State::Closing;
            return self.submit(Op::Close { file });
        }
        self.state = State::Writing(Instant::now());
        let offset = self.times.len() as u64 * self.bytes;
        let buffer = self.buffer.take().expect("it came back");
        self.submit(Op::Write {
            file,
            offset,
            buffer,
        });
    }

    /// Takes what has completed and goes on; whether that was the last.
    fn completed(&mut self, done: Done) -> Result<bool, String> {
        match (self.state, done) {
            (State::Opened, Done::Opened { file, direct, .. }) => {
                if !direct {
                    return Err("no direct file can be had".into());
                }
                self.file = file;
                self.state = State::Allocating;
                let len = self.samples * self.bytes;
                self.submit(Op::Allocate { file, len });
            }
            (State::Allocating, Done::Nothing) => self.write(),
            (State::Writing(began), Done::Written { buffer }) => {
                self.buffer = Some(buffer);
                self.state = State::Syncing(began);
                self.submit(Op::SyncData { file: self.file });
            }
            (State::Syncing(began), Done::Nothing) => {
                self.times.push(began.elapsed().as_nanos() as u64);
                self.write();
            }
            (State::Closing, _) => return Ok(true),
            (_, done) => return Err(format!("unexpected: {done:?}")),
        }
        Ok(false)
    }
}

impl Reader for Prober {
    type Item = u64;
    fn name(&self) -> String {
        "disk".into()
    }
    fn read<E: Emit<u64>>(&mut self, _: usize, _: &mut E) -> Result<Read, ReadError> {
        let failed = |what: String| ReadError {
            offset: 0,
            line: None,
            what,
            malformed: false,
        };
        if let State::Opening = self.state {
            self.state = State::Opened;
            self.submit(Op::Open {
                name: "measured".into(),
                mode: Mode::Create,
                direct: true,
            });
        }
        self.disk.poll(&mut self.completions);
        let Some(Completion { result, .. }) = self.completions.pop() else {
            return Ok(Read::Pending { until_ns: None });
        };
        let done = result.map_err(|f| failed(f.error.to_string()))?;
        if self.completed(done).map_err(failed)? {
            let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
            *result = std::mem::take(&mut self.times);
            return Ok(Read::End);
        }
        Ok(Read::Pending { until_ns: None })
    }
}
