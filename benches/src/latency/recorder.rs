//! What a sink records.

use super::summary::{Collector, new_histogram};
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};

/// One shard's latencies, by window.
///
/// All memory is taken and touched when the recorder is made: recording allocates nothing, and costs a few nanoseconds
/// besides reading the clock. A clone begins empty, for another shard; each adds what it has to the [`Collector`] when
/// it is dropped, so an engine may own it in a closure.
pub struct LatencyRecorder {
    collector: Collector,
    windows: RefCell<Vec<Histogram<u32>>>,
    last_lag_ns: Cell<u64>,
    last_due_ns: Cell<u64>,
}

impl LatencyRecorder {
    pub(super) fn new(collector: Collector) -> Self {
        let windows = (0..collector.plan().windows()).map(|_| {
            let mut histogram = new_histogram();
            // Fresh pages are mapped at their first write: better now than in a run.
            histogram.saturating_record(1);
            histogram.reset();
            histogram
        });
        LatencyRecorder {
            windows: RefCell::new(windows.collect()),
            collector,
            last_lag_ns: Cell::new(0),
            last_due_ns: Cell::new(0),
        }
    }

    /// An event due at `due_ns` arrived at `now_ns`.
    #[inline]
    pub fn record(&self, due_ns: u64, now_ns: u64) {
        let latency = now_ns.saturating_sub(due_ns);
        let mut windows = self.windows.borrow_mut();
        let window = (due_ns / super::summary::WINDOW_NS) as usize;
        if let Some(histogram) = windows.get_mut(window) {
            histogram.saturating_record(latency);
        }
        self.last_lag_ns.set(latency);
        self.last_due_ns.set(due_ns);
    }

    /// Adds what was recorded to the collector; dropping does the same.
    pub fn finish(self) {}
}

impl Clone for LatencyRecorder {
    fn clone(&self) -> Self {
        self.collector.recorder()
    }
}

impl Drop for LatencyRecorder {
    fn drop(&mut self) {
        let last = (self.last_due_ns.get(), self.last_lag_ns.get());
        self.collector.add_latencies(self.windows.get_mut(), last);
        self.collector.gone();
    }
}
