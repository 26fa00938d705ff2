//! What the sources of a job have read, and what they may.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// By source and partition, the first offset that has not been handed over. 0 where there is none.
pub type Places = BTreeMap<(usize, usize), u64>;

/// See the module. A clone is the same meter.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    read: Arc<AtomicU64>,
    left: Option<Arc<AtomicU64>>,
    /// The source that it is held by.
    source: usize,
    places: Arc<Mutex<Places>>,
}

impl Meter {
    /// One whose sources hand over what they were given leave for, and are silent else.
    pub fn rationed() -> Self {
        Meter {
            left: Some(Arc::default()),
            ..Meter::default()
        }
    }

    /// The same for the source of this number.
    pub fn of_source(&self, source: usize) -> Self {
        Meter {
            source,
            ..self.clone()
        }
    }

    /// Records handed over.
    pub fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Lets so many more be handed over.
    pub fn give(&self, records: u64) {
        if let Some(left) = &self.left {
            left.fetch_add(records, Relaxed);
        }
    }

    /// Whether all has been handed over that was given leave for.
    pub fn is_used(&self) -> bool {
        self.left.as_ref().is_some_and(|l| l.load(Relaxed) == 0)
    }

    /// Whether one more may be handed over; it is counted.
    pub(crate) fn take(&self) -> bool {
        let taken = self.left.as_ref().is_none_or(|left| {
            let one_less = |left: u64| left.checked_sub(1);
            left.fetch_update(Relaxed, Relaxed, one_less).is_ok()
        });
        self.read.fetch_add(u64::from(taken), Relaxed);
        taken
    }

    /// Where the partitions stand. One that had ended when its job went on is not sought any more: it is where it was.
    pub fn places(&self) -> Places {
        self.locked().clone()
    }

    /// The partitions stand here until they say otherwise.
    pub fn put(&self, places: Places) {
        *self.locked() = places;
    }

    /// A partition stands here now.
    pub(crate) fn stands_at(&self, partition: usize, offset: u64) {
        self.locked().insert((self.source, partition), offset);
    }

    fn locked(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
