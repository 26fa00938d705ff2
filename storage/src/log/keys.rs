//! Which idempotency keys were seen lately.
//!
//! Laws
//! 1. A key is known while its record is among the last so many of its partition and has not been removed by retention: what is
//!    known depends on the log's records alone, so reopening rebuilds it.
//! 2. Memory is bounded by the horizon times the longest key. The order of keys and not a hash finds them: who sends them cannot
//!    make looking up slow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The keys of one partition.
#[derive(Debug, Default)]
pub(super) struct Keys {
    offsets: BTreeMap<Arc<[u8]>, u64>,
    /// In the order of offsets.
    recent: VecDeque<(u64, Arc<[u8]>)>,
}

impl Keys {
    /// The offset of the record with this key, if it is known.
    pub fn find(&self, key: &[u8]) -> Option<u64> {
        self.offsets.get(key).copied()
    }

    /// Adds a key that is not known.
    pub fn add(&mut self, key: &[u8], offset: u64) {
        let key: Arc<[u8]> = key.into();
        self.offsets.insert(key.clone(), offset);
        self.recent.push_back((offset, key));
    }

    /// Forgets keys of records before `start`. Amortised a constant number of keys for each that was added.
    pub fn forget_before(&mut self, start: u64) {
        while let Some((offset, key)) = self.recent.front()
            && *offset < start
        {
            // After a reopening with a longer horizon a key may be there twice; the later one stays known.
            if self.offsets.get(key) == Some(offset) {
                self.offsets.remove(key);
            }
            self.recent.pop_front();
        }
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.recent.len()
    }
}
