//! A large keyed state, as its process runs it: loaded, kept, and gone on from.

use super::failed;
use crate::checkpoint::state::{RecoveryReport, STEP_NS, StateConfig, StateReport, Taken};
use crate::child::{peak_rss_bytes, thread_ran_ns};
use crate::engine::BenchError;
use crate::events::mix;
use pelton::port::Ports;
use pelton::source::{Emit, Position, Read, ReadError, Reader, Source};
use pelton::{Checkpointing, Job, JobHandle, Spans, Stop, sink};
use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// When a source that has nothing to read looks again.
const AGAIN_NS: u64 = 50_000;

/// What steers the source, and what it saw of the time between its reads.
#[derive(Debug, Default)]
struct Steering {
    /// Records before this one may be read.
    goal: AtomicU64,
    longest_gap_ns: AtomicU64,
    long_gaps: AtomicU64,
    /// Of the long gaps, those in which the shard itself ran for longer than a step may.
    long_turns: AtomicU64,
    longest_turn_ns: AtomicU64,
}

impl Steering {
    fn saw(&self, gap_ns: u64, ran_ns: u64) {
        self.longest_gap_ns.fetch_max(gap_ns, Relaxed);
        self.longest_turn_ns.fetch_max(ran_ns, Relaxed);
        if gap_ns > STEP_NS {
            self.long_gaps.fetch_add(1, Relaxed);
            self.long_turns
                .fetch_add(u64::from(ran_ns > STEP_NS), Relaxed);
        }
    }

    fn longest_turn_us(&self) -> f64 {
        self.longest_turn_ns.swap(0, Relaxed) as f64 / 1e3
    }

    fn longest_gap_us(&self) -> f64 {
        self.longest_gap_ns.swap(0, Relaxed) as f64 / 1e3
    }
}

struct Steered {
    steering: Arc<Steering>,
    partitions: usize,
    keys: u64,
}

struct SteeredReader {
    steering: Arc<Steering>,
    number: u64,
    next: u64,
    step: u64,
    keys: u64,
    last: Option<(Instant, u64)>,
}

/// All keys in an order that is not theirs; then one of each hundred neighbours in that order.
#[inline]
fn key(id: u64, keys: u64) -> u64 {
    let place = if id < keys {
        id
    } else {
        let from = (id - keys) * 100 + mix(id) % 100;
        from % keys
    };
    place * 7919 % keys
}

impl Source for Steered {
    type Item = u64;
    type Reader = SteeredReader;
    fn name(&self) -> String {
        "keys".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<SteeredReader>, String> {
        let reader = |number: usize| SteeredReader {
            steering: self.steering.clone(),
            number: number as u64,
            next: number as u64,
            step: self.partitions as u64,
            keys: self.keys,
            last: None,
        };
        Ok((0..self.partitions).map(reader).collect())
    }
}

impl Reader for SteeredReader {
    type Item = u64;
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn offset_step(&self) -> Option<u64> {
        Some(self.step)
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.next))
    }
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        self.next = position.offset;
        Ok(())
    }
    fn read<E: Emit<u64>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let (now, ran) = (Instant::now(), thread_ran_ns());
        if let Some((last, had_run)) = self.last.replace((now, ran)) {
            let gap = (now - last).as_nanos() as u64;
            self.steering.saw(gap, ran - had_run);
        }
        let goal = self.steering.goal.load(Relaxed);
        if self.next >= goal {
            let until_ns = Some(out.now_ns() + AGAIN_NS);
            return Ok(Read::Pending { until_ns });
        }
        let some = (goal - self.next).div_ceil(self.step).min(max as u64);
        let (first, step, keys) = (self.next, self.step, self.keys);
        let ids = (0..some as usize).map(|n| key(first + n as u64 * step, keys));
        out.emit_run(first, step, ids);
        self.next += some * step;
        Ok(Read::More)
    }
}

/// The job, and when it processed its first record.
fn job(config: &StateConfig, steering: &Arc<Steering>) -> (Job, Arc<OnceLock<Instant>>) {
    let job = Job::new("state");
    if let Some((interval_ms, folder)) = &config.checkpoints {
        let hour = 3_600_000;
        let interval = if *interval_ms == 0 {
            hour
        } else {
            *interval_ms as i64
        };
        let taking = Checkpointing::in_folder(folder).every(interval.millis());
        job.checkpoints(taking.timeout((2 * hour).millis()));
    }
    let first = Arc::new(OnceLock::new());
    let seen = first.clone();
    let source = Steered {
        steering: steering.clone(),
        partitions: config.shards,
        keys: config.keys,
    };
    let add = |(count, sum, max): &mut (u64, u64, u64), key: &u64| {
        *count += 1;
        *sum = sum.wrapping_add(*key);
        *max = (*max).max(*key);
    };
    let sink = sink::callback("first", move |update: pelton::Keyed<u64, _>, _| {
        std::hint::black_box(&update);
        if seen.get().is_none() {
            let _ = seen.set(Instant::now());
        }
    });
    job.source(source)
        .key_by(|key| *key)
        .fold((0, 0, 0), add)
        .sink(sink.updates());
    (job, first)
}

/// Waits until so many records have been processed.
fn processed(handle: &JobHandle, records: u64) {
    while !handle.is_over() && handle.counters().records_out < records {
        thread::sleep(LOOK);
    }
}

/// Takes a checkpoint now.
fn take(handle: &JobHandle) -> Taken {
    let before = handle.checkpoints().unwrap_or_default().completed;
    handle.checkpoint();
    loop {
        let now = handle.checkpoints().unwrap_or_default();
        if now.completed > before || handle.is_over() {
            return Taken {
                entries: now.last_entries,
                bytes: now.last_bytes,
                seconds: now.last_ns as f64 / 1e9,
            };
        }
        thread::sleep(LOOK);
    }
}

/// Loads the state, takes the checkpoints that are asked for, and stops the job so that another can go on.
pub fn run(config: &StateConfig) -> Result<StateReport, BenchError> {
    let runtime = super::runtime(config.shards, false)?;
    let steering = Arc::new(Steering::default());
    let (job, _) = job(config, &steering);
    let handle = runtime.submit(&job).map_err(failed)?;
    let began = Instant::now();
    steering.goal.store(config.keys, Relaxed);
    processed(&handle, config.keys);
    let mut report = StateReport {
        load_seconds: began.elapsed().as_secs_f64(),
        longest_gap_us: steering.longest_gap_us(),
        long_gaps: steering.long_gaps.load(Relaxed),
        longest_turn_us: steering.longest_turn_us(),
        long_turns: steering.long_turns.load(Relaxed),
        ..StateReport::default()
    };
    if let Some((0, _)) = &config.checkpoints {
        report.full = take(&handle);
        report.full_longest_gap_us = steering.longest_gap_us();
        report.full_longest_turn_us = steering.longest_turn_us();
        let changed = config.keys + config.keys / 100;
        steering.goal.store(changed, Relaxed);
        processed(&handle, changed);
        report.incremental = take(&handle);
    }
    handle.stop(Stop::Keep);
    match handle.wait() {
        Ok(done) => {
            report.longest_step_us = done.longest_step.us;
            report.longest_piece_us = done.longest_piece.us;
            report.long_pieces = done.long_pieces;
        }
        // Without checkpoints there is nothing to be kept.
        Err(pelton::JobError::Cancelled { .. }) => {}
        Err(e) => return Err(failed(e)),
    }
    report.peak_rss_bytes = peak_rss_bytes();
    Ok(report)
}

/// Goes on from what [`run`] left, up to the first record.
pub fn recover(config: &StateConfig) -> Result<RecoveryReport, BenchError> {
    let runtime = super::runtime(config.shards, false)?;
    let steering = Arc::new(Steering::default());
    steering.goal.store(2 * config.keys, Relaxed);
    let (job, first) = job(config, &steering);
    let began = Instant::now();
    let handle = runtime.submit(&job).map_err(failed)?;
    while first.get().is_none() && !handle.is_over() {
        thread::sleep(LOOK);
    }
    let seconds = first.get().map(|at| (*at - began).as_secs_f64());
    steering.goal.store(0, Relaxed);
    handle.stop(Stop::Keep);
    let report = handle.wait().map_err(failed)?;
    let (_, restored) = report
        .from
        .ok_or_else(|| BenchError::failed("there was nothing to go on from"))?;
    Ok(RecoveryReport {
        seconds: seconds.ok_or_else(|| BenchError::failed("nothing was processed"))?,
        entries: restored.entries,
        bytes: restored.bytes,
    })
}

/// Peak memory of a map with the same entries and nothing else.
pub fn bare_map(keys: u64, reserved: bool) -> u64 {
    let mut map: FxHashMap<u64, (u64, u64, u64)> = FxHashMap::default();
    if reserved {
        map.reserve(keys as usize);
    }
    for id in 0..keys {
        let key = key(id, keys);
        map.insert(key, (1, key, key));
    }
    std::hint::black_box(&map);
    peak_rss_bytes()
}
