//! Counting results in an engine's sink.

use crate::events::Totals;
use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

/// One shard's totals: adding costs a load and a store, and a drop adds them to the sum.
///
/// A clone begins empty, for another shard, so an engine may clone the closure that owns it. (The field is private for a
/// reason: a closure that named it would capture the copyable field alone, and nothing would be dropped.)
#[derive(Debug, Default)]
pub struct Tally {
    own: Cell<Totals>,
    sum: Arc<Mutex<Totals>>,
}

/// Where the tallies of a run add up; see [`Tally::sum`].
#[derive(Clone, Debug)]
pub struct Sum(Arc<Mutex<Totals>>);

impl Tally {
    /// Counts one result.
    #[inline(always)]
    pub fn add(&self, checksum: u64) {
        let mut totals = self.own.get();
        totals.add(checksum);
        self.own.set(totals);
    }

    /// The sum of this tally and its clones, complete once all of them are gone.
    pub fn sum(&self) -> Sum {
        Sum(self.sum.clone())
    }
}

impl Sum {
    /// What the tallies dropped so far add up to.
    pub fn totals(&self) -> Totals {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for Tally {
    fn clone(&self) -> Self {
        Tally {
            own: Cell::default(),
            sum: self.sum.clone(),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.merged(self.own.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_add_up_when_dropped() {
        let tally = Tally::default();
        let sum = tally.sum();
        let other = tally.clone();
        tally.add(u64::MAX);
        other.add(3);
        assert_eq!(sum.totals(), Totals::default());
        drop(tally);
        drop(other);
        let expected = Totals {
            results: 2,
            checksum: 2,
        };
        assert_eq!(sum.totals(), expected);
    }
}
