//! How large the states of a job are, and what happens when they reach what the job may hold.
//!
//! Laws
//! 1. A shard measures its operators every few milliseconds, in O(1) for each table, and publishes what it found. A step that
//!    measures nothing pays for a comparison of times and a load. A stage that has worked and may now sleep is measured where
//!    there is a budget: what is known of a sleeper must not be what it has freed since.
//! 2. Above the budget sources do not read. What is under way goes on: records in rings are taken, watermarks free what they close, and
//!    the clock frees what has lived its time.
//! 3. Where nothing of that has happened for [`PATIENCE_NS`] and nothing waits for the clock, nothing can free state any more, since all
//!    watermarks come from sources: the job fails and names its largest states. A stage that is blocked or in the middle of
//!    something happens, however long its sink takes.
//! 4. Who waits for the clock promises no more than [`PROMISE_NS`] at a time, and says so again while it waits: what it waited for may go.
//!    Since when sources have been held is told, so that a job that waits long is not taken for one that hangs.
//!
//! The budget is of live entries: what has been freed counts no more, although its memory is kept for the next ones. What keys and
//! values own elsewhere (a string's text) is not counted. Between two measurements a job may go beyond.

use crate::error::JobError;
use crate::plan::OpInfo;
use crate::push::OpId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, TryLockError};

/// Nanoseconds between two measurements of a stage on a shard.
pub(crate) const EVERY_NS: u64 = 2_000_000;
/// For how long nothing may happen above the budget: law 3.
const PATIENCE_NS: u64 = 500_000_000;
/// How far ahead what waits for the clock is believed: law 4.
const PROMISE_NS: u64 = 10_000_000_000;
/// In [`Budget::held_ns`]: sources read.
const READING: u64 = u64::MAX;
/// States that an error names.
const NAMED: usize = 3;

/// How large one state of an operator is, on all shards together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSize {
    /// The operator: its uid or kind, and where it was written.
    pub operator: String,
    /// The state's name within it.
    pub state: &'static str,
    /// Live entries: keys, elements of lists and maps, timers, records that wait.
    pub entries: u64,
    /// Bytes of these in memory, their share of the index included; what keys and values own elsewhere is not.
    pub bytes: u64,
}

/// So many entries of so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Live entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Size {
    /// So many entries of these types, with `more` bytes each.
    pub(crate) fn of<T>(entries: usize, more: usize) -> Size {
        let entries = entries as u64;
        Size {
            entries,
            bytes: entries * (size_of::<T>() + more) as u64,
        }
    }

    /// Both.
    pub(crate) fn and(self, other: Size) -> Size {
        Size {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// What was measured of a tasklet: each state's size.
pub type Sizes = Vec<(OpId, &'static str, Size)>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: Option<u64>,
    /// By stage and shard, what that shard measured last. It does not wait for a reader: what it cannot write it writes the
    /// next time.
    measured: Vec<Vec<Mutex<Sizes>>>,
    /// The bytes of each of those.
    bytes: Vec<Vec<AtomicU64>>,
    /// Above the limit. Written by whoever measured last.
    over: AtomicBool,
    /// Since when it has been above, driver's nanoseconds; [`READING`] where it is not.
    held_ns: AtomicU64,
    /// While above: the last time that something happened, or that something waits for. Driver's nanoseconds.
    happened_ns: AtomicU64,
    /// While above: the least bytes that were measured.
    least: AtomicU64,
}

impl Budget {
    pub fn new(limit: Option<u64>, stages: usize, shards: usize) -> Self {
        let each = |_| (0..shards).map(|_| Mutex::default()).collect();
        let bytes = |_| (0..shards).map(|_| AtomicU64::new(0)).collect();
        Budget {
            limit,
            measured: (0..stages).map(each).collect(),
            bytes: (0..stages).map(bytes).collect(),
            over: AtomicBool::new(false),
            held_ns: AtomicU64::new(READING),
            happened_ns: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
        }
    }

    /// Law 2.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Whether there is a budget at all.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Since when sources have been held (law 4), driver's nanoseconds; `None` where they read.
    pub fn held_since(&self) -> Option<u64> {
        Some(self.held_ns.load(Relaxed)).filter(|&ns| ns != READING)
    }

    /// A step above the budget: whether it did something or is in the middle of it, and for when it waits (laws 3 and 4).
    #[cold]
    pub fn stepped(&self, now_ns: u64, happens: bool, waits_until_ns: Option<u64>) {
        if happens {
            self.happens(now_ns);
        }
        if let Some(ns) = waits_until_ns {
            self.happens(ns.min(now_ns + PROMISE_NS));
        }
    }

    /// Something happened at this time, or will: law 3.
    fn happens(&self, ns: u64) {
        self.happened_ns.fetch_max(ns, Relaxed);
    }

    /// Takes what a tasklet says of itself; whether it has states at all. An error: law 3.
    pub fn measure(
        &self,
        (stage, shard): (usize, usize),
        now_ns: u64,
        fill: impl FnOnce(&mut Sizes),
    ) -> Result<bool, (u64, u64)> {
        let has_states = {
            let mut unheard = vec![];
            let mut lock = match self.measured[stage][shard].try_lock() {
                Ok(sizes) => Some(sizes),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                // Somebody reads what was told before: the sum counts all the same.
                Err(TryLockError::WouldBlock) => None,
            };
            let sizes = lock.as_deref_mut().unwrap_or(&mut unheard);
            sizes.clear();
            fill(sizes);
            let bytes = sizes.iter().map(|(_, _, size)| size.bytes).sum();
            self.bytes[stage][shard].store(bytes, Relaxed);
            !sizes.is_empty()
        };
        match self.limit {
            Some(limit) => self.judge(limit, now_ns).map(|()| has_states),
            None => Ok(has_states),
        }
    }

    fn judge(&self, limit: u64, now_ns: u64) -> Result<(), (u64, u64)> {
        let all = self.bytes.iter().flatten();
        let bytes: u64 = all.map(|bytes| bytes.load(Relaxed)).sum();
        if bytes <= limit {
            self.over.store(false, Relaxed);
            self.held_ns.store(READING, Relaxed);
            self.least.store(u64::MAX, Relaxed);
            return Ok(());
        }
        let begins = !self.over.swap(true, Relaxed);
        if begins {
            self.held_ns.store(now_ns, Relaxed);
        }
        let shrinks = self.least.fetch_min(bytes, Relaxed) > bytes;
        if begins || shrinks {
            self.happens(now_ns);
        }
        let since = now_ns.saturating_sub(self.happened_ns.load(Relaxed));
        match since > PATIENCE_NS {
            true => Err((limit, bytes)),
            false => Ok(()),
        }
    }

    /// The bytes of a stage's states on a shard.
    pub fn bytes_of(&self, stage: usize, shard: usize) -> u64 {
        self.bytes[stage][shard].load(Relaxed)
    }

    /// Each state, those of all shards together, in the order of operators.
    pub fn sizes(&self, ops: &[OpInfo]) -> Vec<StateSize> {
        let mut all = Sizes::new();
        for measured in self.measured.iter().flatten() {
            let measured = measured.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend_from_slice(&measured);
        }
        summed(&all, ops)
    }

    /// What the job fails with.
    pub fn error(&self, job: &str, ops: &[OpInfo], (limit, bytes): (u64, u64)) -> JobError {
        let mut sizes = self.sizes(ops);
        sizes.sort_by_key(|size| std::cmp::Reverse(size.bytes));
        let told = |s: &StateSize| {
            let StateSize {
                operator,
                state,
                entries,
                bytes,
            } = s;
            format!("'{state}' of {operator} has {entries} entries of {bytes} bytes")
        };
        let largest: Vec<_> = sizes.iter().take(NAMED).map(told).collect();
        JobError::StateBudget {
            job: job.into(),
            limit,
            bytes,
            largest: largest.join("; "),
        }
    }
}

/// Each state, what shards have of it together, in the order of operators.
pub(crate) fn summed(measured: &Sizes, ops: &[OpInfo]) -> Vec<StateSize> {
    let mut all: BTreeMap<(OpId, &'static str), Size> = BTreeMap::new();
    for (op, state, size) in measured {
        let sum = all.entry((*op, state)).or_default();
        *sum = sum.and(*size);
    }
    let told = |((op, state), size): ((OpId, _), Size)| StateSize {
        operator: ops
            .get(op.0 as usize)
            .map_or_else(String::new, ToString::to_string),
        state,
        entries: size.entries,
        bytes: size.bytes,
    };
    all.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(bytes: u64) -> impl FnOnce(&mut Sizes) {
        move |sizes| {
            let size = Size { entries: 1, bytes };
            sizes.push((OpId(0), "keyed", size));
        }
    }

    #[test]
    fn what_frees_itself_is_waited_for_and_what_does_not_is_not() {
        let budget = Budget::new(Some(100), 1, 2);
        assert_eq!(budget.measure((0, 0), 1, sized(60)), Ok(true));
        assert!(!budget.is_over());
        assert_eq!(budget.measure((0, 1), 2, sized(60)), Ok(true));
        assert!(budget.is_over(), "both shards together");
        let mut now = 2;
        for bytes in [50, 49, 48] {
            now += PATIENCE_NS;
            assert_eq!(
                budget.measure((0, 1), now, sized(bytes)),
                Ok(true),
                "it shrinks"
            );
        }
        assert!(budget.is_over());
        budget.stepped(now, false, Some(now + 2 * PATIENCE_NS));
        now += 3 * PATIENCE_NS;
        assert_eq!(
            budget.measure((0, 1), now, sized(48)),
            Ok(true),
            "it waited for the clock"
        );
        assert_eq!(budget.measure((0, 1), now + 1, sized(48)), Err((100, 108)));
        assert_eq!(budget.measure((0, 1), now + 1, sized(40)), Ok(true));
        assert!(!budget.is_over());
    }

    /// A sink that takes its time holds stages in the middle of something: that is waited for, however long.
    #[test]
    fn what_is_under_way_happens() {
        let budget = Budget::new(Some(100), 1, 1);
        assert_eq!(budget.measure((0, 0), 0, sized(200)), Ok(true));
        let mut now = 0;
        for _ in 0..5 {
            now += PATIENCE_NS;
            budget.stepped(now, true, None);
            assert_eq!(budget.measure((0, 0), now + 1, sized(200)), Ok(true));
        }
        now += PATIENCE_NS + 1;
        budget.stepped(now, false, None);
        assert_eq!(budget.measure((0, 0), now, sized(200)), Err((100, 200)));
    }

    /// What the clock was to free in a year may have been given up since: it must be said again and again. Since when the
    /// job waits is told all the while.
    #[test]
    fn a_promise_is_believed_for_a_while() {
        let budget = Budget::new(Some(100), 1, 1);
        assert_eq!(budget.held_since(), None);
        assert_eq!(budget.measure((0, 0), 7, sized(200)), Ok(true));
        let year = 365 * 86_400 * 1_000_000_000;
        let mut now = 7;
        for _ in 0..5 {
            budget.stepped(now, false, Some(year));
            now += PROMISE_NS + PATIENCE_NS;
            assert_eq!(budget.measure((0, 0), now, sized(200)), Ok(true));
            assert_eq!(budget.held_since(), Some(7));
        }
        assert_eq!(budget.measure((0, 0), now + 1, sized(200)), Err((100, 200)));
        assert_eq!(budget.measure((0, 0), now + 2, sized(100)), Ok(true));
        assert_eq!(budget.held_since(), None);
    }

    /// Who reads what was told does not keep the sum from being right.
    #[test]
    fn a_reader_keeps_no_sum_old() {
        let budget = Budget::new(Some(100), 1, 1);
        let reads = budget.measured[0][0].lock().unwrap();
        assert_eq!(budget.measure((0, 0), 1, sized(200)), Ok(true));
        assert!(budget.is_over());
        drop(reads);
    }
}
