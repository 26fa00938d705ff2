//! What came out: the last row of each hour, origin and carrier.

use super::record::{Code, Row};
use crate::tell;
use pelton::EventTime;
use pelton::push::DeadLetter;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Malformed lines that are shown if no file is named for them.
const SHOWN: usize = 5;

/// What the shards' tallies are gathered in when they end.
#[derive(Debug)]
pub struct Shared {
    started: Instant,
    /// Nanoseconds from the start to the first result, 0 before there is one.
    first_ns: AtomicU64,
    results: Mutex<Results>,
}

/// All results.
#[derive(Debug, Default)]
pub struct Results {
    /// The last row of each key and hour.
    pub rows: Vec<Row>,
    /// Results, replaced ones too.
    pub count: u64,
    /// From the process's start to the first result.
    pub first: Option<Duration>,
    malformed: Vec<String>,
}

impl Shared {
    /// `started` is when the process did.
    pub fn new(started: Instant) -> Arc<Self> {
        Arc::new(Shared {
            started,
            first_ns: AtomicU64::new(0),
            results: Mutex::default(),
        })
    }

    /// Keeps the first few malformed lines.
    pub fn malformed(&self, letter: &DeadLetter) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if results.malformed.len() < SHOWN {
            results.malformed.push(letter.to_string());
        }
    }

    /// Takes the results, once the job is over and its tasklets are dropped.
    pub fn take(&self) -> Results {
        let mut results =
            std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner));
        results
            .rows
            .sort_unstable_by_key(|r| (r.hour, r.origin, r.carrier));
        let first = self.first_ns.load(Ordering::Relaxed);
        results.first = (first > 0).then(|| Duration::from_nanos(first));
        results
    }
}

impl Results {
    /// Flights in the windows.
    pub fn flights(&self) -> u64 {
        self.rows.iter().map(|r| r.departures + r.cancelled).sum()
    }

    /// Shows the first malformed lines, unless they are in a file.
    pub fn tell_malformed(&self, in_file: bool) {
        if !in_file {
            for letter in &self.malformed {
                tell(format_args!("pelton: malformed: {letter}\n"));
            }
        }
    }
}

/// One shard's rows. A clone begins empty: each shard has its own, and no lock is taken for a row.
#[derive(Debug)]
pub struct Tally {
    shared: Arc<Shared>,
    local: RefCell<Local>,
}

#[derive(Debug, Default)]
struct Local {
    rows: HashMap<(EventTime, Code, Code), Row>,
    count: u64,
}

impl Tally {
    pub fn new(shared: &Arc<Shared>) -> Self {
        Tally {
            shared: shared.clone(),
            local: RefCell::default(),
        }
    }

    /// A result has come.
    pub fn see(&self, row: &Row) {
        let mut local = self.local.borrow_mut();
        if local.count == 0 {
            let now = self.shared.started.elapsed().as_nanos();
            let now = u64::try_from(now).unwrap_or(u64::MAX).max(1);
            let first = &self.shared.first_ns;
            // The first shard to get here wins.
            let _ = first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        local.count += 1;
        local.rows.insert((row.hour, row.origin, row.carrier), *row);
    }
}

impl Clone for Tally {
    fn clone(&self) -> Self {
        Tally::new(&self.shared)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let local = self.local.take();
        let mut results = self
            .shared
            .results
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        results.rows.extend(local.rows.into_values());
        results.count += local.count;
    }
}
