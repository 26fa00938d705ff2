//! A tasklet: one stage of a job on one shard, stepped by a driver.
//!
//! Laws
//! 1. A step never blocks, reads no clock and does no I/O: time is handed in, bytes come through ports.
//! 2. A step is short: at most one batch of input, or a bounded piece of a firing window. No step is above 200 µs unless user code is.
//! 3. A step that could do nothing says so, and until when; whatever could change that (a ring, a port) rings the shard's doorbell.

use crate::budget::Sizes;
use crate::checkpoint::{Cut, Epoch, Frame, Saved, Snapshot};
use crate::error::JobError;
use crate::push::Cx;
use crate::query::Ask;
use crate::state::LoadError;
use crate::time::EventTime;
use pelton_storage::StateId;

/// The driver's time at the start of a step.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic nanoseconds since the runtime started.
    pub ns: u64,
    /// Wall clock.
    pub wall: EventTime,
}

/// What a step achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something moved: step again soon.
    Worked,
    /// Nothing to do until a ring or port changes, or until this time (driver's nanoseconds).
    Idle {
        /// When to step again although nothing arrived.
        until_ns: Option<u64>,
    },
    /// The tasklet has finished and handed everything on.
    Done,
}

/// One stage of a job on one shard.
#[allow(private_interfaces)]
pub trait Tasklet: Send {
    /// Does a bounded amount of work.
    fn step(&mut self, now: Now) -> Result<Progress, JobError>;
    /// The context, for counters and the doorbells to ring.
    fn cx(&mut self) -> &mut Cx;
    /// Number of the stage in the plan.
    fn stage(&self) -> usize;
    /// Where the record being processed came from, as far as is known; asked after a panic. `index` is its index in the
    /// batch being processed, where that is known.
    fn position(&self, index: Option<usize>) -> String;
    /// The watermark of the stage.
    fn watermark(&self) -> EventTime;
    /// Whether it reads no ring, so that barriers begin here.
    fn is_source(&self) -> bool {
        false
    }
    /// Whether it is blocked, or in the middle of something that it has taken.
    fn is_under_way(&self) -> bool {
        false
    }
    /// The barrier passes here: for a source, and for a tasklet that is done. Others are told by their inputs.
    fn barrier(&mut self, cut: Cut);
    /// Nothing more is to be read: what a source has read is all there is. Nothing for others.
    fn drain(&mut self) {}
    /// The last epoch whose barrier has passed here; 0 before the first.
    fn reached(&self) -> Epoch;
    /// Writes a piece of what it had kept when the barrier of the snapshot's epoch passed; not asked before that.
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved;
    /// Takes an entry that was saved, before the first step; whether it was one of its states.
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError>;
    /// Adds how large its states are: nothing where it has none. O(its tables).
    #[doc(hidden)]
    fn sizes(&self, _to: &mut Sizes) {}
    /// Everything has been loaded: whether it is what this one can go on from. Before [`Tasklet::loaded`].
    fn check_loaded(&self) -> Result<(), LoadError> {
        Ok(())
    }
    /// Somebody wants to know what a state of its holds: answers between two steps, or with the barrier that the ask is for. What cannot be
    /// answered is dropped, which tells the asker.
    fn ask(&mut self, _ask: Ask) {}
    /// Everything has been loaded; `had` says of which states the job was made that saved it. An error: it cannot go on from there.
    fn loaded(&mut self, had: &dyn Fn(StateId) -> bool) -> Result<(), JobError>;
}
