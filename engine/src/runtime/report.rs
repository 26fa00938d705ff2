//! What a job did.

use crate::push::Counters;
use crate::tasklet::Latencies;

/// What a finished job did.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The job.
    pub job: String,
    /// Shards that it ran on.
    pub shards: usize,
    /// From its start to its end.
    pub seconds: f64,
    /// `records_in` from the sources, `records_out` to the sinks, late and malformed from anywhere.
    pub counters: Counters,
    /// Each stage.
    pub stages: Vec<StageReport>,
    /// Where time went.
    pub latencies: Latencies,
}

/// What one stage did.
#[derive(Clone, Debug)]
pub struct StageReport {
    /// Its operators.
    pub name: String,
    /// Its counters.
    pub counters: Counters,
}
