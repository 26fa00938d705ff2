//! Entries that a restore has read, on their way into a table: so many wait that the line of the index that each needs has come
//! to the cache when its turn is there.
//!
//! A large table is filled in the order of the log, which is none to its index: without this every entry waits for memory.

use crate::table::KeyTable;
use std::collections::VecDeque;
use std::hash::Hash;

/// Entries that wait: as many as misses are worth having under way.
const AHEAD: usize = 16;

/// See the module. In the order in which they came.
#[derive(Debug)]
pub(crate) struct Arriving<K, V> {
    waiting: VecDeque<(K, V)>,
}

impl<K, V> Default for Arriving<K, V> {
    fn default() -> Self {
        Arriving {
            waiting: VecDeque::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, V> Arriving<K, V> {
    /// An entry comes, and mostly an earlier one goes into the table; its id.
    pub fn push(&mut self, key: K, value: V, table: &mut KeyTable<K, V>) -> Option<u32> {
        table.prefetch_slot(table.hash(&key));
        self.waiting.push_back((key, value));
        (self.waiting.len() > AHEAD)
            .then(|| self.pop(table))
            .flatten()
    }

    /// The next one that waits goes into the table; its id, or `None` if none is left.
    pub fn pop(&mut self, table: &mut KeyTable<K, V>) -> Option<u32> {
        let (key, value) = self.waiting.pop_front()?;
        Some(table.replace(&key, value).0)
    }
}
