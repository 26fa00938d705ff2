//! When a job's log is swept: see [`super::super::Tracker`] for what a sweep does.

use pelton_storage::{Extent, SegmentId, Store};
use std::collections::BTreeMap;

/// When the log is swept, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweeps {
    /// A sweep begins when the log is so many times as long as after the last one ..
    pub growth: u64,
    /// .. and longer than that by more than twice so many bytes a shard.
    pub bytes: u64,
    /// Entries of each table that it marks at a barrier, at the least.
    pub least: u32,
}

impl Sweeps {
    /// Those of a log of segments of this length.
    pub fn of_segments(bytes: u64) -> Self {
        Sweeps {
            growth: 2,
            bytes,
            least: 1024,
        }
    }
}

/// The sweep under way, and when to begin another.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Number of the last one.
    pub number: u64,
    /// What it makes useless; empty where none is on.
    pub frees: Vec<SegmentId>,
    /// By shard, what it is through with.
    pub swept: Vec<u64>,
    /// Bytes of the log after the last one; `None` until the decision that ended it is durable.
    base: Option<u64>,
    pub whole: Whole,
}

/// Whether all of the state is to be written with one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Whole {
    #[default]
    No,
    /// With the next one.
    Next,
    /// It is being written, or waits for the next decision.
    Written,
}

impl Sweep {
    pub fn new(store: &Store, shards: usize) -> Self {
        Sweep {
            number: 0,
            frees: vec![],
            swept: vec![0; shards],
            base: Some(length(store)),
            whole: Whole::No,
        }
    }

    /// Begins the sweep that is through with one epoch: nothing from before this start is stood on after that.
    pub fn begin_whole(&mut self, store: &Store) {
        let before = store.last().map(|c| c.segments.as_slice());
        let segments = before.unwrap_or_default().iter();
        self.frees = segments.map(|e| e.segment).collect();
        self.whole = Whole::Written;
        self.number += 1;
    }

    /// Begins a sweep if the log has grown enough since the last one: see [`Sweeps`]. Whether it has.
    pub fn begin(&mut self, store: &Store, sweeps: Sweeps) -> bool {
        let Some(last) = store.last() else {
            return false;
        };
        let few = 2 * sweeps.bytes * self.swept.len() as u64;
        let base = self.base.unwrap_or(u64::MAX);
        let most = base.saturating_mul(sweeps.growth).saturating_add(few);
        if !self.frees.is_empty() || length(store) <= most {
            return false;
        }
        let attempt = store.manifest().attempt;
        // What a shard writes to now will have frames of the sweep too.
        let mut newest: BTreeMap<u32, SegmentId> = BTreeMap::new();
        let written = |e: &&Extent| e.segment.attempt == attempt;
        for extent in last.segments.iter().filter(written) {
            newest.insert(extent.segment.shard, extent.segment);
        }
        let segments = last.segments.iter().map(|e| e.segment);
        self.frees = segments
            .filter(|s| newest.get(&s.shard) != Some(s))
            .collect();
        if self.frees.is_empty() {
            return false;
        }
        self.number += 1;
        true
    }

    /// What the next decision retires: what the sweep makes useless, if all shards are through with it. Of what stood before a whole epoch
    /// nothing is left, were it only in another folder.
    pub fn take_freed(&mut self) -> Vec<SegmentId> {
        let mut retired = vec![];
        if self.swept.iter().all(|&s| s >= self.number) {
            retired = std::mem::take(&mut self.frees);
        }
        let freed = !retired.is_empty() || self.whole == Whole::Written;
        self.whole = Whole::No;
        if freed {
            self.base = None;
        }
        retired
    }

    /// An epoch is decided: the log is as long as it is after the sweep that ended with it, if one did.
    pub fn decided(&mut self, store: &Store) {
        self.base.get_or_insert_with(|| length(store));
    }
}

fn length(store: &Store) -> u64 {
    let segments = store.last().map(|c| c.segments.as_slice());
    segments.unwrap_or_default().iter().map(|e| e.len).sum()
}
