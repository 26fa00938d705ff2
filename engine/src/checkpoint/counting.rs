//! What a job has counted, as part of its epochs.
//!
//! Laws
//! 1. A checkpoint holds what was counted before its barrier: what is read and computed again after a restart is counted again, and
//!    once in all.
//! 2. A job that was started from elsewhere goes on counting from what that held, and says so for good: what was counted there went to
//!    other sinks.
//! 3. Each shard tells what it has counted since the process began. So an epoch that is given up leaves nothing to be made good.

use crate::push::Counters;

/// What a checkpoint says was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub counters: Counters,
    /// Law 2.
    pub began_elsewhere: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Counting {
    /// In the checkpoint that the job went on from.
    before: Counted,
    /// The kinds of each stage's operators: they say which of its counters are the job's.
    kinds: Vec<Vec<&'static str>>,
    /// By shard, up to the last barrier.
    since: Vec<Counters>,
}

impl Counting {
    pub fn new(shards: usize) -> Self {
        Counting {
            before: Counted::default(),
            kinds: vec![],
            since: vec![Counters::default(); shards],
        }
    }

    /// The job went on from a checkpoint with `before`.
    pub fn go_on(&mut self, before: Counted, kinds: Vec<Vec<&'static str>>) {
        (self.before, self.kinds) = (before, kinds);
    }

    /// A shard's stages have counted so much since the process began.
    pub fn take(&mut self, shard: usize, counted: &[(usize, Counters)]) {
        let mut sum = Counters::default();
        for (stage, counters) in counted {
            let kinds = self.kinds.get(*stage).into_iter().flatten().copied();
            sum.add(&counters.for_job(kinds));
        }
        self.since[shard] = sum;
    }

    /// In all.
    pub fn total(&self) -> Counted {
        let mut total = self.before;
        self.since
            .iter()
            .for_each(|since| total.counters.add(since));
        total
    }
}
