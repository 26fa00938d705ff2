//! Latency of an open loop, counted from the time at which each event was *scheduled*.
//!
//! A [`Schedule`] says when each event is due. A source emits what is due and turns its [`GapMeter`] once a loop; a
//! sink records each arrival in its [`LatencyRecorder`]; both live on the shard threads, one clone a shard, and add
//! what they saw to their [`Collector`] when they are dropped. Because a late event still counts from its schedule, a
//! stall is felt by every event that was due in it: there is no coordinated omission.
//!
//! Machines for such measurements are seldom quiet, so a run is also cut into windows of a second (by schedule), and a
//! window is *kept* only if no thread saw a gap above [`QUIET_GAP_NS`] between two turns of its loop, and the
//! hypervisor stole no time from its core. Gaps are not asked whose fault they are: the share of windows kept is
//! printed, and comparing it with the bare ring's tells an engine's own stalls from the machine's.

mod gaps;
mod recorder;
mod schedule;
mod summary;

pub use gaps::{GapMeter, QUIET_GAP_NS, STEP_NS};
pub use recorder::LatencyRecorder;
pub use schedule::{BenchClock, OpenLoop, Schedule, Scheduled};
pub use summary::{Collector, FEWEST_WINDOWS, LatencyFigures, Plan, new_histogram, write_hgrm};
