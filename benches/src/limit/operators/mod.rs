//! The operator workloads by hand: joins, deduplication, top-N and a pattern, each as one would write it who needs nothing else.
//!
//! What an engine must have and a loop need not is left out: no checkpoints, no other record type, no late records. What is kept is
//! cleaned as event time goes on, and what is to be seen in the order of event time waits for the watermark.

mod as_of;
mod broadcast;
mod deduplicate;
mod interval;
pub mod order;
mod pattern;
mod top;

pub use as_of::AsOf;
pub use broadcast::Broadcast;
pub use deduplicate::Deduplicate;
pub use interval::Interval;
pub use pattern::Rises;
pub use top::{Best, Top};

/// Milliseconds between watermarks where records wait for them: what waits then stays in a near cache.
pub const ORDERED_STEP_MS: u64 = 4;

/// How far apart shards may be then: what waits is as much.
pub const ORDERED_DRIFT_MS: u64 = 40;
