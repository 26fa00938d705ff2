//! A sink of two phases that keeps its records in memory: they are visible once their epoch is committed, and their latency counts to
//! that.

use crate::latency::{BenchClock, LatencyRecorder};
use pelton::Epoch;
use pelton::batch::Stamp;
use pelton::port::Ports;
use pelton::sink::{CommitError, Committer, PreCommit, Sink, Writer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When the records of each epoch and shard that are prepared were due.
#[derive(Clone, Default)]
struct Prepared(Arc<Mutex<BTreeMap<[u8; 16], Vec<u64>>>>);

impl Prepared {
    fn all(&self) -> MutexGuard<'_, BTreeMap<[u8; 16], Vec<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Records are the times at which they were due, in nanoseconds.
pub struct TwoPhases {
    prepared: Prepared,
    recorder: Option<LatencyRecorder>,
    clock: BenchClock,
}

impl TwoPhases {
    /// Records go to `recorder` as they become visible.
    pub fn new(recorder: LatencyRecorder, clock: BenchClock) -> Self {
        TwoPhases {
            prepared: Prepared::default(),
            recorder: Some(recorder),
            clock,
        }
    }
}

pub struct TwoPhaseWriter {
    prepared: Prepared,
    shard: u64,
    /// Since the last barrier.
    open: Vec<u64>,
    /// Of the epoch whose barrier has passed.
    closed: Option<(Epoch, Vec<u64>)>,
}

struct Show {
    prepared: Prepared,
    recorder: LatencyRecorder,
    clock: BenchClock,
}

impl Sink<u64> for TwoPhases {
    type Writer = TwoPhaseWriter;
    fn name(&self) -> String {
        "two phases".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<TwoPhaseWriter>, String> {
        let writer = |shard: usize| TwoPhaseWriter {
            prepared: self.prepared.clone(),
            shard: shard as u64,
            open: Vec::new(),
            closed: None,
        };
        Ok((0..ports.shards()).map(writer).collect())
    }
    fn in_two_phases(&self) -> bool {
        true
    }
    fn committer(&mut self) -> Option<Box<dyn Committer>> {
        Some(Box::new(Show {
            prepared: self.prepared.clone(),
            recorder: self.recorder.take()?,
            clock: self.clock,
        }))
    }
}

impl Writer<u64> for TwoPhaseWriter {
    #[inline]
    fn write(&mut self, due_ns: u64, _: Stamp) {
        self.open.push(due_ns);
    }
    fn barrier(&mut self, epoch: Epoch) {
        let room = Vec::with_capacity(self.open.len());
        self.closed = Some((epoch, std::mem::replace(&mut self.open, room)));
    }
    fn pre_commit(&mut self, _: u64) -> Result<PreCommit, String> {
        let Some((epoch, records)) = self.closed.take().filter(|(_, r)| !r.is_empty()) else {
            return Ok(PreCommit::Ready(None));
        };
        let mut name = [0; 16];
        name[..8].copy_from_slice(&epoch.0.to_le_bytes());
        name[8..].copy_from_slice(&self.shard.to_le_bytes());
        self.prepared.all().insert(name, records);
        Ok(PreCommit::Ready(Some(name.to_vec())))
    }
}

impl Committer for Show {
    fn commit(&mut self, _: Epoch, prepared: &[u8]) -> Result<(), CommitError> {
        let name = <[u8; 16]>::try_from(prepared).unwrap_or_default();
        let records = self.prepared.all().remove(&name).unwrap_or_default();
        let now_ns = self.clock.now_ns();
        for due_ns in records {
            self.recorder.record(due_ns, now_ns);
        }
        Ok(())
    }
    fn recover(&mut self, _: Option<Epoch>) -> Result<(), String> {
        self.prepared.all().clear();
        Ok(())
    }
}
