//! Checkpoints: barriers cut the streams of a job into epochs, each tasklet writes what it kept at the cut, and one durable
//! record decides that it counts.
//!
//! ```text
//! sinks' commits                                                                      ,-> N, when all before it are ->
//! control thread     begins N ----------------------------> all sealed: manifest N -> durable: may begin N + 1
//!                       |                                        ^
//! sources               position, barrier N --.                  |
//! operators                                   `-> aligned: marks swapped, barrier N on
//! each shard                                      pieces of state -> segment, between steps -> sealed
//! ```
//!
//! Laws
//! 1. The data path never stops for a checkpoint: at the barrier an operator swaps its marks, which takes no time that grows
//!    with its state, and what they say is written in bounded pieces between steps. An entry that is about to change before
//!    its turn is saved first.
//! 2. What is written of epoch N is what was there when N's barrier passed, and N stands on all epochs before it: applying
//!    their frames in the order of the log gives the state.
//! 3. Nothing of N counts until its manifest record is durable. Recovery goes by the last such record and by nothing else.
//!    A job that starts from a savepoint, or whose states have new shapes, writes all of its state anew with its first epoch
//!    (`Cut::is_whole`) and stands on nothing older.
//! 4. A sink's share of N is durable before the record, and visible to others only after it. The sinks commit in the order of epochs,
//!    while later ones are under way: a record names all that is not committed.
//!
//! Aligned barriers: Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015). Incremental by
//! marks and pre-images: copy-on-update as in Cao et al., "Fast Checkpoint Recovery Algorithms for Frequently Consistent
//! Applications" (2011).

mod arriving;
#[cfg(test)]
mod change_tests;
mod config;
mod coordinator;
mod counting;
mod failed;
mod figures;
mod frames;
pub mod inspect;
#[cfg(test)]
mod join_tests;
mod keeping;
mod kept;
mod kill;
mod opening;
mod origin;
mod part;
#[cfg(test)]
mod pattern_tests;
#[cfg(test)]
mod process_tests;
mod registry;
mod restore;
#[cfg(test)]
mod rig;
mod saver;
#[cfg(test)]
mod small_tests;
#[cfg(test)]
mod tests;
mod touch;
mod tracker;
mod uncommitted;
mod value;

/// What a barrier says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What came before it belongs to this epoch, what comes after it to a later one.
    pub epoch: Epoch,
    /// The number of the last sweep that was asked for.
    pub sweep: u64,
    /// A sweep begins here: what is small is written whether it has changed or not.
    pub is_full: bool,
    /// That sweep is through with this epoch: everything there is is written, since nothing from before is to be stood on.
    pub is_whole: bool,
    /// The least number of entries that a sweep marks at this barrier in each table.
    pub sweep_least: u32,
    /// No source reads on behind it: the job stops.
    pub is_last: bool,
    /// Queries up to this number are answered as it passes: all shards have taken note of them.
    pub asked: u64,
}

pub(crate) use arriving::Arriving;
pub use config::{Checkpointing, DiskKind, Stop};
pub(crate) use coordinator::{Coordinator, Pace, Sweeps};
pub use figures::{Checkpoints, Retrying};
pub use frames::{Frame, Saved, Snapshot};
pub(crate) use keeping::{Keeping, Lags};
pub(crate) use kept::{Kept, Loaded};
pub(crate) use opening::{Opening, Setup, Started, by_shard, load};
pub(crate) use origin::{Origin, fit_for_savepoint};
pub(crate) use part::{Event, Part, Tasklets, Told, Turn};
pub use pelton_storage::{Epoch, Lineage};
pub(crate) use registry::{Registry, uid_of};
pub use restore::Restored;
pub(crate) use restore::{JobLoad, Unfit};
pub(crate) use saver::Saver;
pub(crate) use touch::{Touch, Tracked, Untracked};
pub(crate) use tracker::{Lifted, Tracker};
pub(crate) use uncommitted::{Committed, Committers, ToCommit};
pub(crate) use value::{Parts, Stored, Value, Whole};
