//! What a loop over records says of the entries that it changes: nothing where the job takes no checkpoints, at no cost.

use super::{Saver, Stored, Tracker};
use crate::state::State;

/// Told of each entry before it changes.
pub(crate) trait Touch<K, V> {
    /// Entry `id` is about to change; it is new, or has had this key and value until now.
    fn touch(&mut self, id: u32, key: &K, value: &V);
}

/// Nobody wants to know.
#[derive(Debug)]
pub(crate) struct Untracked;

impl<K, V> Touch<K, V> for Untracked {
    #[inline(always)]
    fn touch(&mut self, _: u32, _: &K, _: &V) {}
}

/// Marks entries, and saves those that are due.
pub(crate) struct Tracked<'a> {
    pub tracker: &'a mut Tracker,
    pub saver: &'a mut Saver,
    /// What the saved keys begin with.
    pub prefix: &'a [u8],
}

impl<K: State, V: Stored> Touch<K, V> for Tracked<'_> {
    #[inline(always)]
    fn touch(&mut self, id: u32, key: &K, value: &V) {
        if self.tracker.touch(id) {
            self.saver.before(self.prefix, key, value);
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
