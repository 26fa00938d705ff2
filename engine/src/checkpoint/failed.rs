//! Why no more checkpoints can be taken: the job ends, and its next start goes on from what was decided last.

use super::{Epoch, Retrying};
use crate::error::JobError;
use crate::time::Span;
use pelton_storage::StorageError;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failed {
    Storage(StorageError),
    /// A sink that says it is of no use to ask again.
    Commit {
        sink: String,
        epoch: Epoch,
        what: String,
    },
    /// The job is to end, and a step of its end has not come about in time.
    End {
        /// The step, as what has not been done.
        what: &'static str,
        epoch: Epoch,
        timeout: Span,
        /// What the next start goes on from.
        last: Option<Epoch>,
        retrying: Option<Retrying>,
    },
}

impl From<StorageError> for Failed {
    fn from(e: StorageError) -> Self {
        Failed::Storage(e)
    }
}

impl Failed {
    /// What to say of the job.
    pub fn of_job(self, job: &str) -> JobError {
        JobError::Checkpoint {
            job: job.into(),
            what: self.told(),
        }
    }

    fn told(self) -> String {
        match self {
            Failed::Storage(e) => e.to_string(),
            Failed::Commit { sink, epoch, what } => format!(
                "sink {sink} could not commit epoch {epoch}, and asking again is of no use: {what}. The epoch is decided: \
                 mend that and start the job again, which commits it first"
            ),
            Failed::End {
                what,
                epoch,
                timeout,
                last,
                retrying,
            } => {
                let retried = retrying.map_or(String::new(), |r| {
                    let Retrying {
                        sink, times, what, ..
                    } = r;
                    format!(" (sink {sink} failed {times} times: {what})")
                });
                let from = last.map_or("anew".into(), |last| format!("from epoch {last}"));
                format!(
                    "the job was ending, and epoch {epoch} was not {what} within {timeout}{retried}. Nothing is lost: started \
                     again, the job goes on {from}"
                )
            }
        }
    }
}
