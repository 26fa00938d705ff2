//! An allocator that counts, for the figure `allocations_per_event`.
//!
//! Counting is a process of its own, never a timed one: [`start`] is called first thing in that process, and a shard
//! thread arms itself ([`arm_current_thread`], or [`HalfwayArm`] from a source) once the run is half through. In all
//! other processes an allocation costs one relaxed load of a static and a branch that is never taken, which the runs,
//! with a few allocations per thousand events at most, cannot show.

#![allow(unsafe_code)]

use crate::engine::ThroughputConfig;
use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether this process counts. Written once, before the threads that are counted exist.
static COUNTING: AtomicBool = AtomicBool::new(false);

/// Allocations of all armed threads. A tally: it publishes nothing, so every access is relaxed.
static TOTAL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Constant and without a destructor: reading them never allocates, which an allocator could not bear.
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static OWN: Cell<u64> = const { Cell::new(0) };
}

/// mimalloc, with a tally in front of it.
pub struct CountingAllocator;

/// Makes this process count the allocations of armed threads.
pub fn start() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Whether this process counts.
pub fn is_counting() -> bool {
    COUNTING.load(Ordering::Relaxed)
}

/// From here on the allocations of this thread count.
pub fn arm_current_thread() {
    ARMED.set(true);
}

/// From here on the allocations of this thread count no more.
pub fn disarm_current_thread() {
    ARMED.set(false);
}

/// How many allocations this thread has made while armed.
pub fn reading() -> u64 {
    OWN.get()
}

/// How many allocations all threads together have made while armed.
pub fn total() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Arms the thread it lives on when a source reaches the second half of its ids; in a timed run it never does.
///
/// One clone a shard: each arms its own thread, once.
#[derive(Clone, Debug)]
pub struct HalfwayArm {
    half: Cell<u64>,
}

impl HalfwayArm {
    /// For a run of this many events.
    pub fn new(config: &ThroughputConfig) -> Self {
        let half = if is_counting() {
            config.events / 2
        } else {
            u64::MAX
        };
        HalfwayArm {
            half: Cell::new(half),
        }
    }

    /// The source has reached this id; any steps will do, as long as the ids rise.
    #[inline(always)]
    pub fn reached(&self, id: u64) {
        if id >= self.half.get() {
            self.half.set(u64::MAX);
            arm_current_thread();
        }
    }
}

#[inline(always)]
fn note() {
    if COUNTING.load(Ordering::Relaxed) {
        note_armed();
    }
}

#[cold]
fn note_armed() {
    if ARMED.get() {
        OWN.set(OWN.get() + 1);
        TOTAL.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: each method hands its arguments on to mimalloc unchanged and returns what it returns; the tally neither
// allocates nor unwinds, so mimalloc's own keeping of the contract is ours.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller vouches for a layout of non-zero size, which is all that mimalloc asks.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller vouches that `block` came from this allocator, which is mimalloc, with this layout, and
        // that the new size is neither zero nor too large.
        unsafe { MiMalloc.realloc(block, layout, new_size) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller vouches that `block` came from this allocator, which is mimalloc, with this layout.
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}
