//! What a job's checkpoints tell of themselves while it runs.

use super::Epoch;

/// What is known of the checkpoints so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// Epochs that were decided and committed.
    pub completed: u64,
    /// Epochs that took too long and were given up; the next one had what they had.
    pub given_up: u64,
    /// The last one: its number, and bytes written for it.
    pub last: Epoch,
    /// Bytes written for it.
    pub last_bytes: u64,
    /// Entries written for it.
    pub last_entries: u64,
    /// From its barrier to its sinks' commit, nanoseconds: what it waited for the commits of earlier ones is part of it.
    pub last_ns: u64,
    /// Bytes written by all.
    pub bytes: u64,
    /// Entries written by all.
    pub entries: u64,
    /// Sweeps that are through: all state was written anew, so that what was written before them could go.
    pub sweeps: u64,
    /// Segments that were given back.
    pub segments_removed: u64,
    /// How often sinks were asked to commit and could not, and were or will be asked again.
    pub commits_failed: u64,
    /// The commit that is being tried again: what was decided after it waits for it. `None` while all is well.
    pub retrying: Option<Retrying>,
    /// Epochs that are decided and not committed: see [`crate::Checkpointing::max_uncommitted`].
    pub uncommitted: u64,
    /// The most that were at once.
    pub uncommitted_max: u64,
    /// Whether sources wait because there are as many as may be.
    pub waiting: bool,
    /// How often they had to.
    pub waits: u64,
}

/// A decided epoch that a sink could not commit yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retrying {
    /// The sink.
    pub sink: String,
    /// The epoch.
    pub epoch: Epoch,
    /// What the last attempt failed with.
    pub what: String,
    /// Attempts that have failed, at least 1.
    pub times: u64,
}

impl Checkpoints {
    /// A sink could not commit, and will be asked again.
    pub(super) fn commit_failed(&mut self, sink: String, epoch: Epoch, what: String) {
        self.commits_failed += 1;
        let before = self.retrying.take();
        let same = before.filter(|b| b.sink == sink && b.epoch == epoch);
        self.retrying = Some(Retrying {
            times: same.map_or(0, |b| b.times) + 1,
            sink,
            epoch,
            what,
        });
    }
}
