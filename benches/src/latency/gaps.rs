//! How evenly a thread's loop turned, and what the hypervisor took.

use super::summary::{Collector, WINDOW_NS};
use crate::child::thread_ran_ns;
use std::cell::{Cell, RefCell};
use std::fs::File;

/// A window with a gap above this between two turns of a loop is not a quiet one.
pub const QUIET_GAP_NS: u64 = 100_000;

/// No step of a shard is to take longer.
pub const STEP_NS: u64 = 200_000;

/// How often a thread is asked how long it has run.
const ASK_NS: u64 = 100_000;

/// Watches one thread's loop: called once a turn, it keeps the largest gap of each window and, at each window's end,
/// reads how much time the hypervisor stole from the thread's core.
///
/// A gap above [`STEP_NS`] is counted, and apart from these those in which the thread itself ran for longer, by the kernel's own account of it: the
/// others are what other threads took. (What the hypervisor took is in it where the kernel does not know of it.)
///
/// A turn costs a few nanoseconds besides reading the clock, and every 100 us a call of the kernel. Reading the stolen time costs about ten microseconds once a
/// second, on this thread since no other may run beside the shards; a percentile up to p99.9 does not see it. As with
/// the recorder, a clone begins empty and a drop adds to the [`Collector`].
pub struct GapMeter {
    collector: Collector,
    last_ns: Cell<u64>,
    /// The next time at which there is something to do: the end of a window, or [`ASK_NS`] have passed.
    look_ns: Cell<u64>,
    window_end_ns: Cell<u64>,
    /// When the thread was last asked how long it had run, and what it said.
    asked: Cell<(u64, u64)>,
    largest_ns: Cell<u64>,
    windows: RefCell<Vec<WindowGaps>>,
    stolen: RefCell<Option<StolenTime>>,
}

/// What one thread saw in one window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WindowGaps {
    pub(super) largest_ns: u64,
    pub(super) long_gaps: u64,
    pub(super) long_turns: u64,
    pub(super) stolen_ticks: u64,
}

impl GapMeter {
    pub(super) fn new(collector: Collector) -> Self {
        GapMeter {
            windows: RefCell::new(vec![WindowGaps::default(); collector.plan().windows()]),
            collector,
            last_ns: Cell::new(u64::MAX),
            look_ns: Cell::new(0),
            window_end_ns: Cell::new(WINDOW_NS),
            asked: Cell::new((0, 0)),
            largest_ns: Cell::new(0),
            stolen: RefCell::new(None),
        }
    }

    /// The loop of this thread comes round at `now_ns`.
    #[inline]
    pub fn turn(&self, now_ns: u64) {
        let gap = now_ns.saturating_sub(self.last_ns.replace(now_ns));
        if gap > self.largest_ns.get() {
            self.largest_ns.set(gap);
            self.widen(now_ns, gap);
        }
        if now_ns >= self.look_ns.get() {
            self.look(now_ns, gap);
        }
    }

    /// Before a gap that is long the thread was last asked at most [`ASK_NS`] ago.
    #[cold]
    fn look(&self, now_ns: u64, gap: u64) {
        let ran = thread_ran_ns();
        let (asked_ns, had_run) = self.asked.replace((now_ns, ran));
        if gap > STEP_NS && had_run != 0 {
            let before = (now_ns - gap).saturating_sub(asked_ns);
            let ran_in_gap = (ran - had_run).saturating_sub(before);
            let mut windows = self.windows.borrow_mut();
            if let Some(window) = windows.get_mut((now_ns / WINDOW_NS) as usize) {
                window.long_gaps += 1;
                window.long_turns += u64::from(ran_in_gap > STEP_NS);
            }
        }
        if now_ns >= self.window_end_ns.get() {
            self.close_windows(now_ns);
        }
        self.look_ns
            .set(self.window_end_ns.get().min(now_ns + ASK_NS));
    }

    /// A gap larger than any in this window: it belongs to every window that it touches.
    #[cold]
    fn widen(&self, now_ns: u64, gap: u64) {
        let mut windows = self.windows.borrow_mut();
        let from = ((now_ns - gap) / WINDOW_NS) as usize;
        let to = (now_ns / WINDOW_NS) as usize;
        for window in windows.iter_mut().take(to + 1).skip(from) {
            window.largest_ns = window.largest_ns.max(gap);
        }
    }

    #[cold]
    fn close_windows(&self, now_ns: u64) {
        let current = now_ns / WINDOW_NS;
        self.window_end_ns.set((current + 1) * WINDOW_NS);
        self.largest_ns.set(0);
        let mut stolen = self.stolen.borrow_mut();
        let stolen_ticks = match stolen.as_mut() {
            Some(stolen) => stolen.since_last(),
            None => {
                *stolen = StolenTime::of_current_core();
                0
            }
        };
        if let Some(window) = self.windows.borrow_mut().get_mut(current as usize - 1) {
            window.stolen_ticks = stolen_ticks;
        }
    }

    /// Adds what was seen to the collector; dropping does the same.
    pub fn finish(self) {}
}

impl Clone for GapMeter {
    fn clone(&self) -> Self {
        self.collector.gap_meter()
    }
}

impl Drop for GapMeter {
    fn drop(&mut self) {
        if self.last_ns.get() != u64::MAX {
            self.collector.add_gaps(self.windows.get_mut());
        }
        self.collector.gone();
    }
}

/// The stolen time of a core, in ticks of 10 ms, from /proc/stat; of all cores if the thread is not pinned.
struct StolenTime {
    file: File,
    /// How the core's line begins.
    label: String,
    ticks: u64,
}

impl StolenTime {
    fn of_current_core() -> Option<Self> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let label = match cores.as_slice() {
            [core] => format!("cpu{} ", core.id),
            _ => "cpu ".to_owned(),
        };
        let mut stolen = StolenTime {
            file: File::open("/proc/stat").ok()?,
            label,
            ticks: 0,
        };
        stolen.ticks = stolen.read()?;
        Some(stolen)
    }

    fn since_last(&mut self) -> u64 {
        let ticks = self.read().unwrap_or(self.ticks);
        ticks - std::mem::replace(&mut self.ticks, ticks).min(ticks)
    }

    #[cfg(unix)]
    fn read(&self) -> Option<u64> {
        use std::os::unix::fs::FileExt;
        // The cores' lines come first; a line has at most about 120 bytes.
        let mut buffer = [0; 8192];
        let len = self.file.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..len]).ok()?;
        let line = text.lines().find(|line| line.starts_with(&self.label))?;
        // cpu user nice system idle iowait irq softirq steal ..
        line.split_ascii_whitespace().nth(8)?.parse().ok()
    }

    #[cfg(not(unix))]
    fn read(&self) -> Option<u64> {
        None
    }
}
