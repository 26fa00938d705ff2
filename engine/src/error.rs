//! Errors with stable codes: what happened, where, and what to do.

use crate::plan::OpInfo;
use thiserror::Error;

/// A job that cannot be built or placed. Found before any record is read.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// An operator was given an argument that makes no sense.
    #[error("[PLT-0001] {op}: {what}; {advice}")]
    Argument {
        /// The operator and where it was written.
        op: String,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
    /// A stream was made and not given to a sink.
    #[error(
        "[PLT-0002] job '{job}': {op} leads nowhere; give the stream to a sink, or drop the operator"
    )]
    Dangling {
        /// The job.
        job: String,
        /// The last operator of the open stream.
        op: String,
    },
    /// A job without a source or a sink.
    #[error("[PLT-0003] job '{job}' has no {missing}")]
    Empty {
        /// The job.
        job: String,
        /// `source` or `sink`.
        missing: &'static str,
    },
    /// An append-only sink was put behind an operator whose results may be replaced later.
    #[error(
        "[PLT-0004] {sink}: an append-only sink cannot take results that may be replaced later ({because} replaces them); give it `.updates()` if its reader applies changes; behind changes keep a table by key (`.key_by(..).upserts()` into `sink::upserts`, or `.key_by(..).materialize(..)`) or write a changelog (a format of changes, any sink with `.updates()`); or make them final (`.in_event_time_order()` before running values; windows without allowed lateness and early firing)"
    )]
    AppendOnReplaced {
        /// The sink.
        sink: String,
        /// Which operator replaces its results.
        because: String,
    },
    /// Event time was assigned twice, or after an exchange.
    #[error(
        "[PLT-0005] {op}: event time may be assigned once, between a source and the first exchange; move `.event_time(..)` next to the source"
    )]
    EventTimeAfterExchange {
        /// The operator.
        op: String,
    },
    /// An operator needs event time and its input has none.
    #[error(
        "[PLT-0006] {op} needs event time and its input has none; call `.event_time(..)` next to the source"
    )]
    NoEventTime {
        /// The operator.
        op: String,
    },
    /// A source could not be opened.
    #[error("[PLT-0007] source {source_name}: {what}")]
    Source {
        /// The source.
        source_name: String,
        /// What is wrong, with path and advice.
        what: String,
    },
    /// A sink could not be opened.
    #[error("[PLT-0008] sink {sink}: {what}")]
    Sink {
        /// The sink.
        sink: String,
        /// What is wrong, with path and advice.
        what: String,
    },
    /// The job has been run or submitted before.
    #[error(
        "[PLT-0010] job '{job}' has been run or submitted already, and a job runs once; write it again to run it again (a function that returns the job serves well)"
    )]
    Taken {
        /// The job.
        job: String,
    },
    /// An operator counts records and its input is results that later ones replace.
    #[error(
        "[PLT-0011] {op} takes each record for one of its own, and its input is updates of class NET: {because} tells the same result again and again, each time as one more record; make the input final (no allowed lateness, `.one_correction()`, `.in_event_time_order()` before running values), apply them where they are change rows (`.apply_changes()`), give the updates to a sink, or say `.each_update_is_a_record()` (class EXEMPT)"
    )]
    CountsUpdates {
        /// The operator.
        op: String,
        /// Which operator makes the updates.
        because: String,
    },
    /// The configuration cannot be had on this machine.
    #[error("[PLT-0009] {what}; {advice}")]
    Config {
        /// What is wrong.
        what: String,
        /// What to do.
        advice: String,
    },
}

impl BuildError {
    pub(crate) fn argument(
        op: &OpInfo,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        BuildError::Argument {
            op: op.to_string(),
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            BuildError::Argument { .. } => "PLT-0001",
            BuildError::Dangling { .. } => "PLT-0002",
            BuildError::Empty { .. } => "PLT-0003",
            BuildError::AppendOnReplaced { .. } => "PLT-0004",
            BuildError::EventTimeAfterExchange { .. } => "PLT-0005",
            BuildError::NoEventTime { .. } => "PLT-0006",
            BuildError::Source { .. } => "PLT-0007",
            BuildError::Sink { .. } => "PLT-0008",
            BuildError::Config { .. } => "PLT-0009",
            BuildError::Taken { .. } => "PLT-0010",
            BuildError::CountsUpdates { .. } => "PLT-0011",
        }
    }
}

/// Why a running job ended without being done.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobError {
    /// The job could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// User code panicked.
    #[error("[PLT-0101] job '{job}': {op} panicked on shard {shard} at {position}: {message}")]
    Panic {
        /// The job.
        job: String,
        /// The operator and where it was written.
        op: String,
        /// The shard.
        shard: usize,
        /// The record's position, or what is known of it.
        position: String,
        /// The panic's message and place.
        message: String,
    },
    /// A step did not return.
    #[error(
        "[PLT-0102] job '{job}': {stage} has not returned on shard {shard} for {seconds} s; a user function loops or blocks. Functions must return; slow calls belong outside the shard"
    )]
    Stalled {
        /// The job.
        job: String,
        /// The stage with its operators.
        stage: String,
        /// The shard.
        shard: usize,
        /// For how long.
        seconds: u64,
    },
    /// A malformed record, where the job asked to stop on one.
    #[error(
        "[PLT-0103] job '{job}': malformed record: {letter}; set the source's on_error to skip to carry on without such records"
    )]
    Malformed {
        /// The job.
        job: String,
        /// The record and why.
        letter: String,
    },
    /// Reading failed.
    #[error(
        "[PLT-0104] job '{job}': source {source_name}, partition {partition}, offset {offset}: {what}"
    )]
    Source {
        /// The job.
        job: String,
        /// The source.
        source_name: String,
        /// The partition's name.
        partition: String,
        /// Where reading stopped.
        offset: u64,
        /// What happened.
        what: String,
    },
    /// Writing failed.
    #[error("[PLT-0105] job '{job}': sink {sink} on shard {shard}: {what}")]
    Sink {
        /// The job.
        job: String,
        /// The sink.
        sink: String,
        /// The shard.
        shard: usize,
        /// What happened.
        what: String,
    },
    /// The job was cancelled by its handle.
    #[error("[PLT-0106] job '{job}' was cancelled")]
    Cancelled {
        /// The job.
        job: String,
    },
    /// No more checkpoints can be taken: what was written since the last one is not committed.
    #[error(
        "[PLT-0108] job '{job}': its checkpoints failed: {what}. Mend the cause and start the job again: it goes on from its last checkpoint"
    )]
    Checkpoint {
        /// The job.
        job: String,
        /// What happened.
        what: String,
    },
    /// The job cannot go on from the checkpoints in its folder. Nothing was read or written yet.
    #[error("[PLT-0109] job '{job}' cannot go on from the checkpoints in {folder}: {what}")]
    Restore {
        /// The job.
        job: String,
        /// The folder.
        folder: String,
        /// What does not fit, and what to do.
        what: String,
    },
    /// A new job cannot start from a savepoint or another job's checkpoint. Nothing was read or written yet.
    #[error("[PLT-0112] job '{job}' cannot start from {folder}: {what}")]
    Start {
        /// The job.
        job: String,
        /// The folder.
        folder: String,
        /// What does not fit, and what to do.
        what: String,
    },
    /// A savepoint was not taken. The job is as it was, and what is in the folder is no savepoint.
    #[error("[PLT-0113] job '{job}': no savepoint in {folder}: {what}")]
    Savepoint {
        /// The job.
        job: String,
        /// The folder.
        folder: String,
        /// Why not.
        what: String,
    },
    /// States have reached the job's budget, and nothing can free any: see [`crate::Job::max_state_bytes`].
    #[error(
        "[PLT-0114] job '{job}': its states have {bytes} bytes and may have {limit}, and nothing that it waits for frees any: {largest}. Give it a larger budget, or states that go: windows, a time to live, fewer keys"
    )]
    StateBudget {
        /// The job.
        job: String,
        /// The budget, bytes.
        limit: u64,
        /// What they have, bytes.
        bytes: u64,
        /// The largest states, with operators, entries and bytes.
        largest: String,
    },
    /// A request to somebody outside failed, or nobody serves them any more: see [`mod@crate::calls`].
    #[error(
        "[PLT-0115] job '{job}': {op} on shard {shard}: {what}. Start the job again once its client is well: what was in flight is asked for again; \
         to go on without such records take `.dead_letters()` or `.outcomes(..)`"
    )]
    Call {
        /// The job.
        job: String,
        /// The operator.
        op: String,
        /// The shard.
        shard: usize,
        /// What happened.
        what: String,
    },
    /// The runtime went away under the job.
    #[error("[PLT-0107] job '{job}': the runtime ended: {what}")]
    RuntimeGone {
        /// The job.
        job: String,
        /// Why.
        what: String,
    },
}

impl JobError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            JobError::Build(e) => e.code(),
            JobError::Panic { .. } => "PLT-0101",
            JobError::Stalled { .. } => "PLT-0102",
            JobError::Malformed { .. } => "PLT-0103",
            JobError::Source { .. } => "PLT-0104",
            JobError::Sink { .. } => "PLT-0105",
            JobError::Cancelled { .. } => "PLT-0106",
            JobError::RuntimeGone { .. } => "PLT-0107",
            JobError::Checkpoint { .. } => "PLT-0108",
            JobError::Restore { .. } => "PLT-0109",
            JobError::Start { .. } => "PLT-0112",
            JobError::Savepoint { .. } => "PLT-0113",
            JobError::StateBudget { .. } => "PLT-0114",
            JobError::Call { .. } => "PLT-0115",
        }
    }

    /// Whether the same job may succeed if it is run again: the environment failed, not the job.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            JobError::Source { .. }
                | JobError::Sink { .. }
                | JobError::RuntimeGone { .. }
                | JobError::Checkpoint { .. }
                | JobError::Call { .. }
        )
    }
}
