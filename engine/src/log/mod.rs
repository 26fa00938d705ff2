//! The ingest log as a source and as a sink of jobs: what one job writes, or somebody appends, another reads from any place on.
//!
//! Laws
//! 1. A source hands out each record of its partitions from where it begins, in the order of offsets, none twice and none left out:
//!    out of sealed history, and on into what is being written. Its partitions are the log's.
//! 2. It reads only what is durable, and visible where the log shows committed epochs. So no checkpoint holds a position past the
//!    log's durable end.
//! 3. A sink's records are visible when their epoch is committed, all of it at once, and each once; where a record goes
//!    depends on the record, never on the number of shards.
//! 4. Neither waits on a shard. Sources read on the helper thread, blocks ahead; a sink's log is written by a thread of its own. Memory is
//!    bounded: blocks and batches go round.
//!
//! A job that reads a log's history and goes on with what comes is the whole of what is called a Kappa architecture: there is no
//! second way of computing for the past. Writer and reader share nothing but the folder: they may be jobs of one process or of two.
//!
//! ```no_run
//! use pelton::{Checkpointing, Job, Spans, log, sources};
//! let write = Job::new("numbers");
//! write.checkpoints(Checkpointing::in_folder("state/numbers").every(10.millis()));
//! write.source(sources::generate("ids", 1_000, 4, |id| id))
//!    .sink(log::sink("log/numbers", log::states::<u64>()).partitions(2).partition_by(|id| *id));
//!
//! let read = Job::new("sums");
//! read.source(log::source("log/numbers", log::states::<u64>()))
//!    .key_by(|id| id % 10)
//!    .running(|a| a.sum(|id: &u64| *id));
//! ```
//!
//! Arrival times in a log that a job has written are event times, as far as they rise: nothing about it depends on a clock.

mod codec;
mod history;
mod sink;
mod source;
mod writing;

pub use codec::{Bytes, Codec, States, bytes, states};
pub use pelton_storage::Retention;
pub use sink::{LogSink, LogWriter, sink};
pub use source::{LogPartition, LogSource, source};
