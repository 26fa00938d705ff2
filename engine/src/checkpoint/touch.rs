//! What a loop over records says of the entries that it changes: nothing where the job takes no checkpoints, at no cost.

use super::{Saver, Stored, Tracker};
use crate::state::State;
use crate::table::KeyTable;
use std::hash::Hash;

/// Told of each entry before it changes.
pub(crate) trait Touch<K, V> {
    /// Entry `id` is about to change; it is new, or has had this key and value until now.
    fn touch(&mut self, id: u32, key: &K, value: &V);

    /// Those of `ids` that are entries' may be about to change, all of them before any does. One that does not is written needlessly.
    fn touch_all(&mut self, ids: impl Iterator<Item = u32>, table: &KeyTable<K, V>);
}

/// Nobody wants to know.
#[derive(Debug)]
pub(crate) struct Untracked;

impl<K, V> Touch<K, V> for Untracked {
    #[inline(always)]
    fn touch(&mut self, _: u32, _: &K, _: &V) {}
    #[inline(always)]
    fn touch_all(&mut self, _: impl Iterator<Item = u32>, _: &KeyTable<K, V>) {}
}

/// Marks entries, and saves those that are due.
pub(crate) struct Tracked<'a> {
    pub tracker: &'a mut Tracker,
    pub saver: &'a mut Saver,
    /// What the saved keys begin with.
    pub prefix: &'a [u8],
}

impl<K: State + Hash + Eq, V: Stored> Touch<K, V> for Tracked<'_> {
    #[inline(always)]
    fn touch(&mut self, id: u32, key: &K, value: &V) {
        if self.tracker.touch(id) {
            self.saver.before(self.prefix, key, value);
        }
    }

    #[inline(always)]
    fn touch_all(&mut self, ids: impl Iterator<Item = u32>, table: &KeyTable<K, V>) {
        let end = table.id_end();
        if !self.tracker.is_writing() {
            return self.tracker.mark_all(end, ids);
        }
        for id in ids.filter(|&id| id < end) {
            if self.tracker.touch(id) {
                let (key, value) = (table.key(id), table.value(id));
                self.saver.before(self.prefix, key, value);
            }
        }
    }
}

impl Tracked<'_> {
    /// Entry `id` is about to go.
    pub fn gone<K: State, V: Stored>(&mut self, id: u32, key: &K, value: &V) {
        let (due, stored) = self.tracker.remove(id);
        if due {
            self.saver.before(self.prefix, key, value);
        }
        if stored {
            self.saver.gone(self.prefix, key);
        }
    }
}
