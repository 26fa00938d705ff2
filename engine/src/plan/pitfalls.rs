//! Pitfalls: what a job may be written with, and runs with, and what bites later.
//!
//! Laws
//! 1. A warning names its pitfall by a code that stays, the operator and its place, what will happen, and what to do. It refuses nothing.
//! 2. What is known as the job is written is told by [`Job::warnings`](crate::Job::warnings) and `explain`. What only the opened sources
//!    tell (how many partitions there are) is told of the built job as well.
//! 3. An operator is warned of a pitfall once, however often it was found.

use super::{OpInfo, Plan};
use crate::push::OpId;
use crate::stream::Meta;
use std::borrow::Cow;
use std::fmt;

/// Bytes of a record, as it lies in memory, from which on a join that keeps records is called wide.
pub(crate) const WIDE: usize = 512;

/// A kind of mistake that a job runs with: see [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Pitfall {
    /// Something waits for the watermark, a source may fall silent, and no time-out ends its waiting. (No event time at all where it
    /// is needed is no warning: it is refused.)
    Silence,
    /// A sink of two phases in a job that takes no checkpoints.
    ExactlyOnceWithoutCheckpoints,
    /// State without a time to live or a window.
    StateGrows,
    /// What the clock decides, and sums of it: a replay gives others.
    ProcessingTime,
    /// A source with fewer partitions than the job has shards.
    FewPartitions,
    /// A join that keeps wide records.
    WideJoin,
    /// A sink that shows records before their checkpoint, in a job that takes checkpoints.
    SinkRepeats,
}

impl Pitfall {
    /// All of them.
    pub const ALL: [Pitfall; 7] = [
        Pitfall::Silence,
        Pitfall::ExactlyOnceWithoutCheckpoints,
        Pitfall::StateGrows,
        Pitfall::ProcessingTime,
        Pitfall::FewPartitions,
        Pitfall::WideJoin,
        Pitfall::SinkRepeats,
    ];

    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Pitfall::Silence => "PLT-0201",
            Pitfall::ExactlyOnceWithoutCheckpoints => "PLT-0202",
            Pitfall::StateGrows => "PLT-0203",
            Pitfall::ProcessingTime => "PLT-0204",
            Pitfall::FewPartitions => "PLT-0205",
            Pitfall::WideJoin => "PLT-0206",
            Pitfall::SinkRepeats => "PLT-0207",
        }
    }

    /// What to do.
    pub const fn advice(self) -> &'static str {
        match self {
            Pitfall::Silence => {
                "give the watermarks `.idle_after(..)`, and `.close_after_idle(..)` where all may fall silent"
            }
            Pitfall::ExactlyOnceWithoutCheckpoints => {
                "give the job a folder for them with `Job::checkpoints`"
            }
            Pitfall::StateGrows => {
                "give it a time to live or a window; a process function that clears what it keeps says `.states_stay_few()`"
            }
            Pitfall::ProcessingTime => {
                "go by event time where a replay is to give the same results"
            }
            Pitfall::FewPartitions => {
                "split the source into as many partitions as there are shards, or put `.rebalance()` before what is costly"
            }
            Pitfall::WideJoin => "`map` both streams, before the join, to what its rows need",
            Pitfall::SinkRepeats => {
                "take a sink of two phases (`sink::transactional`, parts of files, the ingest log), or one whose reader drops repeated records"
            }
        }
    }
}

/// A pitfall of a job: [`Job::warnings`](crate::Job::warnings).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which one.
    pub pitfall: Pitfall,
    /// The operator, and where it was written.
    pub operator: String,
    /// What will happen.
    pub what: Cow<'static, str>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning {
            pitfall,
            operator,
            what,
        } = self;
        let (code, advice) = (pitfall.code(), pitfall.advice());
        write!(f, "[{code}] {operator}: {what}; {advice}")
    }
}

/// A pitfall found while the job was written.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub op: OpId,
    pub pitfall: Pitfall,
    pub what: Cow<'static, str>,
}

impl Found {
    pub fn told(&self, ops: &[OpInfo]) -> Warning {
        Warning {
            pitfall: self.pitfall,
            operator: ops[self.op.0 as usize].to_string(),
            what: self.what.clone(),
        }
    }
}

/// A source with so few partitions for so many shards, if that is too few.
pub(crate) fn few_partitions(op: OpId, partitions: usize, shards: usize) -> Option<Found> {
    // Without any there is nothing to read.
    (0 < partitions && partitions < shards).then(|| Found {
        op,
        pitfall: Pitfall::FewPartitions,
        what: format!(
            "it has {partitions} {} for {shards} shards: the others read nothing, and do nothing up to the first exchange",
            if partitions == 1 { "partition" } else { "partitions" }
        )
        .into(),
    })
}

impl Plan {
    /// Notes a pitfall of an operator (law 3).
    pub fn warn(&mut self, op: OpId, pitfall: Pitfall, what: impl Into<Cow<'static, str>>) {
        let is_known = |f: &Found| f.op == op && f.pitfall == pitfall;
        if !self.found.iter().any(is_known) {
            let what = what.into();
            self.found.push(Found { op, pitfall, what });
        }
    }

    /// An operator waits for the watermark of this stream.
    pub fn waits(&mut self, meta: &Meta) {
        if let Some(times) = meta.silent {
            self.warn(
                times,
                Pitfall::Silence,
                "a partition that falls silent holds the watermark back, and with it all that waits for it",
            );
        }
    }

    /// An operator makes one value of many records of this stream.
    pub fn sums(&mut self, op: OpId, meta: &Meta) {
        if let Some(by_clock) = meta.by_clock {
            let cause = self.info(by_clock).to_string();
            self.warn(
                op,
                Pitfall::ProcessingTime,
                format!("it makes values of what processing time has decided ({cause}): a replay gives others"),
            );
        }
    }

    /// A join keeps records of these many bytes each.
    pub fn joins(&mut self, op: OpId, left: usize, right: usize) {
        let bytes = left.max(right);
        if bytes >= WIDE {
            self.warn(
                op,
                Pitfall::WideJoin,
                format!("it keeps records of {left} and of {right} bytes, for each key as many as can still meet another, in memory and in checkpoints"),
            );
        }
    }

    /// The pitfalls: those found, and those of the job as a whole, in the order of operators.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut found = self.found.clone();
        for &(op, in_two_phases) in &self.sink_ops {
            found.extend(match (in_two_phases, self.checkpointing.is_some()) {
                (true, false) => Some(Found {
                    op,
                    pitfall: Pitfall::ExactlyOnceWithoutCheckpoints,
                    what: "a sink of two phases in a job without checkpoints: nothing of an interrupted run is gone on from, and its output is not exactly once".into(),
                }),
                (false, true) => Some(Found {
                    op,
                    pitfall: Pitfall::SinkRepeats,
                    what: "it shows records before their checkpoint: after a crash those since the last one come again (at least once)".into(),
                }),
                _ => None,
            });
        }
        found.sort_by_key(|f| (f.op, f.pitfall));
        found.iter().map(|f| f.told(&self.ops)).collect()
    }
}
