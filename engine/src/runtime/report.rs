//! What a job did.

use crate::budget::StateSize;
use crate::checkpoint::{Checkpoints, Epoch, Restored};
use crate::latency::Latencies;
use crate::plan::Warning;
use crate::push::Counters;
use crate::skew::Shares;
use std::fmt;

/// What a finished job did.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The job.
    pub job: String,
    /// Shards that it ran on.
    pub shards: usize,
    /// From its start to its end.
    pub seconds: f64,
    /// `records_in` from the sources, `records_out` to the sinks, late and malformed from anywhere. They are of the job and not of the
    /// process: what the checkpoint held that it [went on from](JobReport::from), and since. So a job that was killed and went on ends with the
    /// counters of one that was not.
    pub counters: Counters,
    /// Each stage, with what it has counted in this process.
    pub stages: Vec<StageReport>,
    /// Where time went.
    pub latencies: Latencies,
    /// The longest step of all, pieces of checkpoints among them: what any other record on that shard may have had to wait for.
    pub longest_step: LongestStep,
    /// The longest piece of a checkpoint.
    pub longest_piece: LongestStep,
    /// Pieces of checkpoints above 200 us.
    pub long_pieces: u64,
    /// How large its states were at its end, each operator's.
    pub states: Vec<StateSize>,
    /// What each shard had of each stage behind an exchange, in this process: [`Shares::skews`] says where keys were skewed to one shard.
    pub shares: Vec<Shares>,
    /// The job's pitfalls, as [`JobHandle::warnings`](crate::JobHandle::warnings) has them.
    pub warnings: Vec<Warning>,
    /// What is known of its checkpoints, if it took any.
    pub checkpoints: Option<Checkpoints>,
    /// The checkpoint that it went on from, and what was read of it.
    pub from: Option<(Epoch, Restored)>,
}

/// What was counted, which keys were skewed, and where time went: a few lines.
impl fmt::Display for JobReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counters;
        writeln!(
            f,
            "job '{}': {} records in, {} out, {} late, {} partly late, {} malformed, in {:.3} s on {} shards",
            self.job,
            c.records_in,
            c.records_out,
            c.late,
            c.partly_late,
            c.malformed,
            self.seconds,
            self.shards
        )?;
        if c.dropped_matches > 0 {
            writeln!(f, "dropped partial matches: {}", c.dropped_matches)?;
        }
        if c.stray_retractions > 0 {
            writeln!(
                f,
                "retractions of rows that did not stand: {}",
                c.stray_retractions
            )?;
        }
        for skew in self.shares.iter().flat_map(Shares::skews) {
            writeln!(f, "{skew}")?;
        }
        write!(f, "{}", self.latencies)?;
        let LongestStep { stage, shard, us } = &self.longest_step;
        writeln!(f, "longest step: {us:.1} us, {stage} on shard {shard}")?;
        let long = self.stages.iter().map(|s| s.long_steps).sum::<u64>();
        if long + self.long_pieces > 0 {
            let pieces = self.long_pieces;
            writeln!(
                f,
                "above 200 us: {long} steps, {pieces} pieces of checkpoints"
            )?;
        }
        Ok(())
    }
}

/// What one stage did.
#[derive(Clone, Debug)]
pub struct StageReport {
    /// Its operators.
    pub name: String,
    /// Its counters.
    pub counters: Counters,
    /// Its longest step on any shard.
    pub longest_step: LongestStep,
    /// Its steps above 200 us on all shards: time in which the thread did not run counts here, too.
    pub long_steps: u64,
}

/// How long a shard was kept by a single step. Time in which the thread did not run counts: of two runs the shorter says more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LongestStep {
    /// The stage, by its operators.
    pub stage: String,
    /// The shard.
    pub shard: usize,
    /// Microseconds.
    pub us: f64,
}
