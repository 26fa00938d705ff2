//! How long steps were, by kind.

use crate::runtime::report::LongestStep;
use crate::runtime::shard::LONG_STEP_NS;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long the steps of one kind were on a shard, written by that shard, read by anyone.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    longest_ns: AtomicU64,
    /// Those above [`LONG_STEP_NS`].
    long: AtomicU64,
}

impl Lengths {
    /// One writer: loads and stores do.
    pub fn took(&self, ns: u64) {
        if ns > LONG_STEP_NS {
            let long = self.long.load(Ordering::Relaxed);
            self.long.store(long + 1, Ordering::Relaxed);
        }
        if ns > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.store(ns, Ordering::Relaxed);
        }
    }

    /// The longest of all shards, and how many were long.
    pub fn of<'a>(stage: &str, shards: impl Iterator<Item = &'a Lengths>) -> (LongestStep, u64) {
        let (mut longest, mut long) = (LongestStep::default(), 0);
        longest.stage = stage.to_owned();
        for (shard, lengths) in shards.enumerate() {
            long += lengths.long.load(Ordering::Relaxed);
            let us = lengths.longest_ns.load(Ordering::Relaxed) as f64 / 1e3;
            if us >= longest.us {
                (longest.shard, longest.us) = (shard, us);
            }
        }
        (longest, long)
    }
}
