//! How a job takes checkpoints, as its owner says it.

use crate::time::Span;
use std::path::PathBuf;

/// Where and how often a job takes checkpoints: see [`crate::Job::checkpoints`].
///
/// ```
/// use pelton::{Checkpointing, Spans};
/// let checkpointing = Checkpointing::in_folder("state/fraud").every(10.millis());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpointing {
    pub(crate) folder: PathBuf,
    pub(crate) interval: Span,
    pub(crate) timeout: Span,
    pub(crate) end_timeout: Span,
    pub(crate) retained: usize,
    pub(crate) max_uncommitted: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) from: Option<PathBuf>,
    pub(crate) dropped: Vec<String>,
    pub(crate) disk: DiskKind,
}

/// What shards write their states with: see [`Checkpointing::disk`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskKind {
    /// The one whose p99 is the lower as measured: at present [`DiskKind::Std`]. docs/benchmarks.md has both.
    #[default]
    Auto,
    /// System calls, made by a helper thread for each shard.
    Std,
    /// io_uring, from the shard's own thread. It needs [`Driver::Glommio`](crate::Driver::Glommio), and is refused elsewhere. What comes once a
    /// file (opening, allocating, names) is still done by a helper thread.
    IoUring,
}

impl Checkpointing {
    /// Checkpoints in this folder, which is made if it is not there. If it holds one, the job goes on from it; else it begins
    /// anew. One running job a folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Checkpointing {
            folder: folder.into(),
            interval: Span::from_micros(1_000_000),
            timeout: Span::from_micros(60_000_000),
            end_timeout: Span::from_micros(300_000_000),
            retained: 2,
            max_uncommitted: 3,
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            from: None,
            dropped: vec![],
            disk: DiskKind::Auto,
        }
    }

    /// The time between barriers, at least 1 ms. Default: 1 s. A checkpoint that takes longer than half of it puts the next one
    /// off: between two barriers lies at least twice the time that the last checkpoint took, its sinks' commits included but not how
    /// long these waited for earlier ones, or to be tried again. That is for those that come by themselves: one that is asked for, a
    /// savepoint, a stop and the last one of a job that is through come as soon as no other is under way. None comes while
    /// [too many](Checkpointing::max_uncommitted) are uncommitted.
    pub fn every(mut self, interval: Span) -> Self {
        self.interval = interval;
        self
    }

    /// After how long an epoch is given up: the next one has what it had. The last epoch of a job has no next one: see
    /// [`Checkpointing::end_timeout`]. Default: 60 s.
    pub fn timeout(mut self, timeout: Span) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long each step of a job's end may take, once it was asked to stop or all of it is through but for what sinks have to
    /// commit: that its last epoch is written, that it is decided, that each sink has committed. Behind that the job ends with an error; started again, it
    /// goes on from what was decided last, and nothing is lost. What never returns is beyond this, a sink's commit or finish, or
    /// an operation of a disk: the job's end waits for it, since the folder may not be let go before. At least 1 ms. Default: 5 min.
    pub fn end_timeout(mut self, timeout: Span) -> Self {
        self.end_timeout = timeout;
        self
    }

    /// How many checkpoints are kept, at least 1; the job goes on from the last. Default: 2.
    pub fn retained(mut self, checkpoints: usize) -> Self {
        self.retained = checkpoints;
        self
    }

    /// How many epochs may be decided (nothing takes them back any more) and not yet committed by all sinks, at least 1. Default: 3.
    /// With 1 the next barrier waits for the commits of the last epoch.
    ///
    /// A commit that takes long, or has to be tried again, keeps nobody from the next epochs until there are so many. Then the next
    /// barrier waits, and from when it is due sources wait too ([`Checkpoints::waiting`](crate::Checkpoints::waiting)): so what sinks have
    /// staged and not shown is at most so many epochs and an open one, which is as long as the interval lets it become, what
    /// the stages had under way, and epochs that were given up since. A job whose sink is away for longer than that many intervals stands still until it is back.
    ///
    /// Each checkpoint names what is uncommitted of all these epochs, in some bytes for each sink and shard (for a sink of one's own what
    /// its `pre_commit` gave); what all retained checkpoints name together, each with its uncommitted epochs, must stay
    /// below 64 MiB with the rest of the manifest.
    pub fn max_uncommitted(mut self, epochs: usize) -> Self {
        self.max_uncommitted = epochs;
        self
    }

    /// Length of the files that states are written to, in bytes, a multiple of 4096 and at least 16 MiB. Default: 64 MiB. Each
    /// is allocated before it is used.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// What must stay free on the disk after a file has been allocated, in bytes. Default: 64 MiB.
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Starts a new job from a savepoint ([`crate::JobHandle::savepoint`]), or from the last checkpoint of another job's folder, on
    /// which no job may run. Nothing there is changed.
    ///
    /// It counts only while the job's own folder holds no checkpoint: after that the job goes on from its own last one, and
    /// what is named here need not exist any more ([`crate::JobReport::from`] says which it was). The first checkpoint holds all
    /// that was read, so taking it takes longer than others.
    ///
    /// Operators are known by their uids. There may be new ones, and values of `reduce`, `fold` and tumbling windows may be of a
    /// type that [migrates](macro@crate::state). Sinks begin anew: what the other job's had prepared and not committed is that
    /// job's to commit, and a place that both write to is not kept apart by anybody.
    pub fn from_savepoint(mut self, folder: impl Into<PathBuf>) -> Self {
        self.from = Some(folder.into());
        self
    }

    /// A state of the savepoint that this job may do without, as `"uid/name"`: the error that refuses a job without it says what
    /// that is. Once for each.
    pub fn allow_dropped(mut self, state: impl Into<String>) -> Self {
        self.dropped.push(state.into());
        self
    }

    /// What shards write their states with. The decision of a checkpoint is always written by the control thread. Default:
    /// [`DiskKind::Auto`].
    pub fn disk(mut self, disk: DiskKind) -> Self {
        self.disk = disk;
        self
    }

    /// What is wrong with it, if anything, and what to do.
    pub(crate) fn check(&self) -> Result<(), (String, &'static str)> {
        if self.interval < Span::from_micros(1_000) {
            let what = format!("the interval of checkpoints is {}", self.interval);
            return Err((what, "give at least 1 ms"));
        }
        if self.timeout < self.interval {
            let what = format!(
                "the time-out of checkpoints, {}, is below their interval",
                self.timeout
            );
            return Err((what, "give at least the interval"));
        }
        if self.end_timeout < Span::from_micros(1_000) {
            let what = format!("the time-out of a job's end is {}", self.end_timeout);
            return Err((what, "give at least 1 ms"));
        }
        if let (None, Some(dropped)) = (&self.from, self.dropped.first()) {
            let what = format!("'{dropped}' is allowed to be dropped, and nothing is started from");
            return Err((what, "name a savepoint too, or leave it out"));
        }
        if self.retained == 0 {
            let what = "0 checkpoints are to be kept".into();
            return Err((what, "keep at least 1"));
        }
        if self.max_uncommitted == 0 {
            let what = "0 epochs may be uncommitted, and each is for a while".into();
            return Err((what, "give at least 1"));
        }
        let (least, page) = (16 << 20, 4096);
        if self.segment_bytes < least || !self.segment_bytes.is_multiple_of(page) {
            let what = format!(
                "the segments of checkpoints have {} bytes",
                self.segment_bytes
            );
            return Err((what, "give a multiple of 4096, at least 16 MiB"));
        }
        Ok(())
    }
}

/// How a job that is stopped ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sources stop where they are, open windows stay open in a last checkpoint, and the job can go on from it.
    Keep,
    /// Sources end where they are: watermarks go to the end of time, windows fire, and the last checkpoint is that of a job
    /// that is through: it cannot go on.
    Drain,
}
