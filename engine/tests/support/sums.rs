//! A job whose progress a test says: sums by key, in windows of a second and for ever, from two sources that go as far as
//! a gate lets them.

use super::Transactions;
use pelton::aggregate::{Aggregate, At};
use pelton::port::Ports;
use pelton::source::{Emit, Position, Read, ReadError, Reader, Source};
use pelton::{Checkpointing, EventTime, Job, JobHandle, Spans, State, Tumbling, Watermarks};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a source has in each of its partitions.
pub const PARTITIONS: u64 = 4;

/// How far sources may read, in records of a partition, and how many there are.
#[derive(Clone)]
pub struct Gate {
    limit: Arc<AtomicU64>,
    records: u64,
}

impl Gate {
    /// One that is open up to here.
    pub fn at(limit: u64, records: u64) -> Self {
        let limit = Arc::new(AtomicU64::new(limit));
        Gate { limit, records }
    }
    pub fn open_to(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }
    /// What both sources yield until they stand at the gate.
    pub fn let_through(&self) -> u64 {
        2 * PARTITIONS * self.limit.load(Relaxed).min(self.records)
    }
}

/// Record `id` is `id`, and is in partition `id % PARTITIONS`.
pub struct Gated(Gate);

pub struct GatedReader {
    gate: Gate,
    partition: u64,
    offset: u64,
}

impl Source for Gated {
    type Item = u64;
    type Reader = GatedReader;
    fn name(&self) -> String {
        "gated".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<GatedReader>, String> {
        let reader = |partition| GatedReader {
            gate: self.0.clone(),
            partition,
            offset: 0,
        };
        Ok((0..PARTITIONS).map(reader).collect())
    }
}

impl Reader for GatedReader {
    type Item = u64;
    fn name(&self) -> String {
        self.partition.to_string()
    }
    fn position(&self) -> Option<Position> {
        Some(Position::at(self.offset))
    }
    fn seek(&mut self, position: &Position) -> Result<(), String> {
        self.offset = position.offset;
        Ok(())
    }
    fn read<E: Emit<u64>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let end = self.gate.limit.load(Relaxed).min(self.gate.records);
        let to = end.min(self.offset + max as u64);
        for offset in self.offset..to {
            out.emit(offset, offset * PARTITIONS + self.partition);
        }
        self.offset = self.offset.max(to);
        Ok(match self.offset {
            at if at == self.gate.records => Read::End,
            at if at < end => Read::More,
            _ => Read::Pending { until_ns: Some(0) },
        })
    }
}

/// What is kept for a key.
pub trait Sum: State + Clone + Default {
    fn add(&mut self, id: u64);
    fn sum(&self) -> u64;
}

#[pelton::state(version = 1, name = "Total")]
#[derive(Clone, Default)]
pub struct TotalV1 {
    sum: u64,
}

impl Sum for TotalV1 {
    fn add(&mut self, id: u64) {
        self.sum += id;
    }
    fn sum(&self) -> u64 {
        self.sum
    }
}

/// The aggregate of the windows.
pub struct Sums<V>(pub PhantomData<fn() -> V>);

impl<V> Clone for Sums<V> {
    fn clone(&self) -> Self {
        Sums(PhantomData)
    }
}

impl<V: Sum> Aggregate<u64> for Sums<V> {
    type Acc = V;
    type Out = u64;
    fn create(&self) -> V {
        V::default()
    }
    fn add(&self, acc: &mut V, id: &u64, _: At) {
        acc.add(*id);
    }
    fn merge(&self, _: &mut V, _: &V) {
        unreachable!("tumbling windows merge nothing")
    }
    fn finish(&self, acc: &V) -> u64 {
        acc.sum()
    }
}

/// Where results go.
#[derive(Clone, Default)]
pub struct Shown {
    pub windows: Transactions<String>,
    pub running: Transactions<String>,
    pub counts: Transactions<String>,
}

impl Shown {
    /// All rows, sorted: each says which it is of.
    pub fn all(&self) -> Vec<String> {
        self.up_to(pelton::Epoch(u64::MAX))
    }
    pub fn up_to(&self, epoch: pelton::Epoch) -> Vec<String> {
        let mut rows = self.windows.visible_of(epoch);
        rows.extend(self.running.visible_of(epoch));
        rows.extend(self.counts.visible_of(epoch));
        rows.sort_unstable();
        rows
    }
}

/// What the job consists of.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Operators have uids.
    pub uids: bool,
    /// It has the running sums.
    pub running: bool,
    /// It has another source and what counts its records.
    pub more: bool,
    /// How many keys there are, a multiple of the partitions: then a key's records are in order.
    pub keys: u64,
}

pub const ALL: Parts = Parts {
    uids: true,
    running: true,
    more: false,
    keys: 100,
};

fn time_of(id: u64) -> i64 {
    (id as i64 * 1_000) - ((id % 7) * 900) as i64
}

/// The job, with `V` kept for each key.
pub fn job<V: Sum>(checkpoints: Checkpointing, gate: &Gate, shown: &Shown, parts: Parts) -> Job {
    let job = Job::new("sums");
    job.checkpoints(checkpoints.segment_bytes(16 << 20).reserve_bytes(0));
    macro_rules! named {
        ($stream:expr, $uid:literal) => {{
            let stream = $stream;
            if parts.uids { stream.uid($uid) } else { stream }
        }};
    }
    let source = named!(job.source(Gated(gate.clone())), "numbers");
    let time = |id: &u64| EventTime::from_micros(time_of(*id));
    let times = source.event_time(time, Watermarks::bounded(20.millis()));
    let keyed = named!(times, "times").key_by(move |id| (*id % parts.keys) as u32);
    let windows = keyed.window(Tumbling::of(1.seconds()));
    let windows = named!(windows.aggregate_with(Sums::<V>(PhantomData)), "windows");
    let row = |w: pelton::Windowed<u32, u64>| {
        format!("window {} {} {}", w.key, w.window.start.micros(), w.value)
    };
    windows.map(row).sink(shown.windows.clone());
    if parts.running {
        let source = named!(job.source(Gated(gate.clone())), "again");
        let keyed = source.key_by(move |id| (*id % parts.keys) as u32);
        let fold = keyed.fold(V::default(), |sum: &mut V, id| sum.add(*id));
        named!(fold, "fold")
            .map(|k| format!("running {} {}", k.key, k.value.sum()))
            .sink(shown.running.clone());
    }
    if parts.more {
        let source = named!(job.source(Gated(gate.clone())), "third");
        let keyed = source.key_by(|id| (*id % 10) as u32);
        let fold = keyed.fold(0u64, |n: &mut u64, _| *n += 1);
        named!(fold, "counts")
            .map(|k| format!("count {} {}", k.key, k.value))
            .sink(shown.counts.clone());
    }
    job
}

/// What an undisturbed run shows.
pub fn expected(gate: &Gate, keys: u64) -> Vec<String> {
    let (mut windows, mut running) = (BTreeMap::new(), BTreeMap::new());
    let mut rows = vec![];
    for id in 0..gate.records * PARTITIONS {
        let key = id % keys;
        let start = time_of(id).div_euclid(1_000_000) * 1_000_000;
        *windows.entry((key, start)).or_insert(0) += id;
        let sum = running.entry(key).or_insert(0);
        *sum += id;
        rows.push(format!("running {key} {sum}"));
    }
    let windows = windows.into_iter();
    rows.extend(windows.map(|((key, start), sum)| format!("window {key} {start} {sum}")));
    rows.sort_unstable();
    rows
}

/// Whether these are the same rows; else what is missing and what is too many. Both are sorted.
pub fn assert_same(found: &[String], wanted: &[String], what: &str) {
    if found != wanted {
        let not_in = |a: &[String], b: &[String]| -> Vec<String> {
            let missing = a.iter().filter(|row| b.binary_search(row).is_err());
            missing.take(5).cloned().collect()
        };
        let (missing, more) = (not_in(wanted, found), not_in(found, wanted));
        let (n, m) = (found.len(), wanted.len());
        panic!("{what}: {n} rows, not {m}; not there: {missing:?}; too many: {more:?}");
    }
}

/// Two lists of rows as one.
pub fn merged(mut a: Vec<String>, b: Vec<String>) -> Vec<String> {
    a.extend(b);
    a.sort_unstable();
    a
}

/// Waits until the job has read what the gate lets through, in all its lives.
pub fn wait_at(gate: &Gate, handle: &JobHandle) {
    while handle.counters().records_in < gate.let_through() {
        assert!(!handle.is_over(), "it waits for nobody");
        std::thread::yield_now();
    }
}
