//! The dead-letter output of a job on one shard: a sink beside the stages, and user code like any other.
//!
//! Laws
//! 1. It has a bound like any sink: while it is blocked, no tasklet of its job is stepped on its shard.
//! 2. A panic or an error in it is told as its job's, and leaves nothing else undone.
//! 3. It ends last: when every tasklet of its job on the shard has, and not before it has taken all that it was given.

use crate::batch::Stamp;
use crate::error::JobError;
use crate::plan::OpInfo;
use crate::push::{Control, Cx, DeadLetter, Push};
use crate::runtime::{Panic, catch};

/// See the module.
pub(crate) struct DeadOutput {
    /// `None` where the job has no such output: letters are only counted.
    out: Option<Output>,
    job: String,
    shard: usize,
}

struct Output {
    sink: Box<dyn Push<DeadLetter> + Send>,
    cx: Cx,
    ended: bool,
}

impl DeadOutput {
    pub fn new(
        sink: Option<Box<dyn Push<DeadLetter> + Send>>,
        job: String,
        shard: usize,
    ) -> DeadOutput {
        let out = sink.map(|sink| Output {
            sink,
            cx: Cx::new(shard),
            ended: false,
        });
        DeadOutput { out, job, shard }
    }

    /// Takes the letters of a step.
    #[cold]
    pub fn bury(
        &mut self,
        letters: &mut Vec<DeadLetter>,
        now_ns: u64,
        ops: &[OpInfo],
    ) -> Result<(), JobError> {
        let Some(Output { sink, cx, .. }) = &mut self.out else {
            letters.clear();
            return Ok(());
        };
        cx.now_ns = now_ns;
        let caught = catch(|| {
            for letter in letters.drain(..) {
                sink.push(letter, Stamp::NONE, cx);
            }
            sink.control(Control::Flush, cx);
        });
        self.outcome(caught, ops)
    }

    /// Whether it holds as much as it may, having tried to hand on what it holds (law 1).
    #[inline]
    pub fn blocked(&mut self, now_ns: u64, ops: &[OpInfo]) -> Result<bool, JobError> {
        match &self.out {
            Some(out) if !out.ended => self.control(Control::Flush, now_ns, ops),
            _ => Ok(false),
        }
    }

    /// Ends it (law 3); whether it has ended. To be called again until it has.
    pub fn end(&mut self, now_ns: u64, ops: &[OpInfo]) -> Result<bool, JobError> {
        let Some(out) = &mut self.out else {
            return Ok(true);
        };
        let event = if out.ended {
            Control::Flush
        } else {
            Control::End
        };
        out.ended = true;
        Ok(!self.control(event, now_ns, ops)?)
    }

    /// Whether it has ended, or there is none.
    pub fn has_ended(&self) -> bool {
        self.out
            .as_ref()
            .is_none_or(|out| out.ended && !out.sink.blocked())
    }

    /// Whether the sink is blocked; the event goes to it only if it was before, or if it is the end.
    fn control(&mut self, event: Control, now_ns: u64, ops: &[OpInfo]) -> Result<bool, JobError> {
        let Some(Output { sink, cx, .. }) = &mut self.out else {
            return Ok(false);
        };
        cx.now_ns = now_ns;
        let caught = catch(|| {
            if event == Control::End || sink.blocked() {
                sink.control(event, cx);
            }
            sink.blocked()
        });
        let blocked = matches!(caught, Ok(true));
        self.outcome(caught.map(drop), ops)?;
        Ok(blocked)
    }

    /// Law 2.
    fn outcome(&mut self, caught: Result<(), Panic>, ops: &[OpInfo]) -> Result<(), JobError> {
        let failure = self.out.as_mut().and_then(|out| out.cx.failure.take());
        match (caught, failure) {
            (_, Some(failure)) => Err(failure),
            (Ok(()), None) => Ok(()),
            (Err(panic), None) => {
                let op = panic.op.and_then(|(op, _)| ops.get(op.0 as usize));
                Err(JobError::Panic {
                    job: self.job.clone(),
                    op: op.map_or_else(|| "the dead-letter sink".into(), ToString::to_string),
                    shard: self.shard,
                    position: "a dead letter".into(),
                    message: panic.message,
                })
            }
        }
    }
}
