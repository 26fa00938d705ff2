//! Queries of a running job: asks go through the mailboxes of its shards.

use super::checkpoints::Message;
use super::handle::JobShared;
use super::shard::{Command, Mailbox};
use crate::query::{Answered, Asked, Desk, QueryError, Queryable, ReadAt, Way, asks_of};
use pelton_ring::Doorbell;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often an asker looks whether the job is still there: of a shard that hangs and has been given up no ask comes back.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take. One as of an epoch waits for the epoch that is under way.
const WITHIN: Duration = Duration::from_secs(60);

/// The way of [`JobHandle::query`](crate::JobHandle::query).
#[derive(Clone, Debug)]
pub struct OfJob {
    shared: Arc<JobShared>,
    mailboxes: Vec<(Arc<Mailbox>, Doorbell)>,
}

impl OfJob {
    pub(super) fn new(shared: Arc<JobShared>, mailboxes: Vec<(Arc<Mailbox>, Doorbell)>) -> Self {
        OfJob { shared, mailboxes }
    }

    fn over(&self) -> QueryError {
        QueryError::Over {
            job: self.shared.name.clone(),
        }
    }

    /// Waits until the desk has what is waited for.
    fn wait<T>(&self, until: Instant, mut has: impl FnMut() -> Option<T>) -> Result<T, QueryError> {
        loop {
            // Asked first: what has come back before the job's end counts.
            let is_over = self.shared.is_known_over();
            if let Some(has) = has() {
                return Ok(has);
            }
            if is_over {
                return Err(self.over());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QueryError::Late {
                    job: self.shared.name.clone(),
                    seconds: WITHIN.as_secs(),
                });
            }
            // An answer unparks: one that comes before this is not slept over.
            thread::park_timeout(left.min(LOOK_EVERY));
        }
    }

    /// Sends the asks to their shards.
    fn send(
        &self,
        state: &Queryable,
        asks: Vec<(usize, Asked, usize)>,
        number: Option<u64>,
    ) -> Arc<Desk> {
        let (desk, asks) = asks_of(state, asks, number);
        for (shard, ask) in asks {
            let (mailbox, doorbell) = &self.mailboxes[shard];
            mailbox.send(Command::Ask(self.shared.number, ask));
            doorbell.ring();
        }
        desk
    }
}

#[allow(private_interfaces)]
impl Way for OfJob {
    fn job(&self) -> &str {
        &self.shared.name
    }

    fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    fn ask(
        &self,
        state: &Queryable,
        asks: Vec<(usize, Asked, usize)>,
        at: ReadAt,
    ) -> Result<Vec<Answered>, QueryError> {
        let count = asks.len();
        if self.shared.is_known_over() {
            return Err(self.over());
        }
        // One at a time, until its barrier has passed: the next barrier names the last number and all before it.
        let mut turn = match (at, &self.shared.control) {
            (ReadAt::Now, _) => None,
            (ReadAt::Epoch, None) => {
                return Err(QueryError::NoCheckpoints {
                    job: self.shared.name.clone(),
                });
            }
            (ReadAt::Epoch, Some(control)) => {
                let asked = self.shared.asked.lock();
                Some((control, asked.unwrap_or_else(PoisonError::into_inner)))
            }
        };
        let until = Instant::now() + WITHIN;
        let number = turn.as_mut().map(|(_, asked)| {
            **asked += 1;
            **asked
        });
        let desk = self.send(state, asks, number);
        let mut answers = vec![];
        let mut all = || {
            answers.extend(std::iter::from_fn(|| desk.take()));
            let is_one_back = answers.iter().any(|a: &Answered| !a.is_answered);
            (is_one_back || answers.len() == count).then_some(())
        };
        if let (Some((control, _)), Some(number)) = (&turn, number) {
            // One that comes back by now does so without an answer.
            let noted = || (desk.noted() == count).then_some(()).or_else(&mut all);
            self.wait(until, noted)?;
            if !control.send(Message::Ask(number)) {
                return Err(self.over());
            }
        }
        self.wait(until, &mut all)?;
        match answers.iter().all(|a| a.is_answered) {
            true => Ok(answers),
            false => Err(self.over()),
        }
    }
}
