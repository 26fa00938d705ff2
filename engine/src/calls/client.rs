//! What a client is, how it answers, and how it fails.

use crate::port::unanswered;
use crate::time::Span;
use crossbeam_queue::SegQueue;
use pelton_ring::Doorbell;
use std::sync::Arc;
use thiserror::Error;

/// Somebody outside who is asked: a database, a service, a model.
///
/// Each shard has a clone of its own, which is handed that shard's requests one after another, on a thread that is none of the shards'. Many
/// requests are under way at once because [`Client::call`] does not wait for an answer: it hands request and [`Answer`] on, to a task, a
/// connection, a queue, and returns. (Where it waits, for room in a queue say, it holds up the requests of its operator and nothing else.)
///
/// Stepped jobs ([`crate::testing`]) call it inside the step, so tests may keep answers and send them when they like.
///
/// ```
/// use pelton::calls::{Answer, Client};
/// /// Knows everything at once.
/// #[derive(Clone)]
/// struct Doubling;
/// impl Client for Doubling {
///     type Request = u64;
///     type Response = u64;
///     fn call(&mut self, n: u64, answer: Answer<u64>) {
///         answer.send(Ok(2 * n));
///     }
/// }
/// ```
pub trait Client: Clone + Send + 'static {
    /// What is asked.
    type Request: Send + 'static;
    /// What is answered.
    type Response: Send + 'static;

    /// The job is being placed: called once on each shard's clone before any request.
    ///
    /// # Errors
    /// The job is refused with this text.
    fn open(&mut self, opening: &Opening) -> Result<(), String> {
        let _ = opening;
        Ok(())
    }

    /// Begins a request. It does not wait for the answer.
    fn call(&mut self, request: Self::Request, answer: Answer<Self::Response>);
}

/// Where a client will be called.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Opening {
    /// The shard whose requests it gets.
    pub shard: usize,
    /// The job is stepped by hand, in one thread: a client that starts threads of its own does without them here.
    pub is_simulated: bool,
}

impl Opening {
    pub(crate) fn new(shard: usize, is_simulated: bool) -> Self {
        Opening {
            shard,
            is_simulated,
        }
    }
}

/// Why a request came to nothing, as a client says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    is_final: bool,
}

impl Failure {
    /// One that may go over: it is asked again, as the options say. Texts become this by themselves.
    pub fn transient(what: impl Into<String>) -> Self {
        Failure {
            what: what.into(),
            is_final: false,
        }
    }

    /// One that asking again cannot mend (a request that makes no sense): the record has failed at once.
    pub fn permanent(what: impl Into<String>) -> Self {
        Failure {
            what: what.into(),
            is_final: true,
        }
    }

    pub(crate) fn is_final(&self) -> bool {
        self.is_final
    }

    pub(crate) fn into_text(self) -> String {
        self.what
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Self {
        Failure::transient(what)
    }
}

impl From<&str> for Failure {
    fn from(what: &str) -> Self {
        Failure::transient(what)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Failure::transient(e.to_string())
    }
}

/// Why a record has no answer, when it will not be asked for any more.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// The last attempt was not answered in time.
    #[error("no answer within {within}, asked {attempts} times")]
    TimedOut {
        /// How long an attempt may take.
        within: Span,
        /// How often it was asked.
        attempts: u32,
    },
    /// The last attempt failed.
    #[error("{what}; asked {attempts} times")]
    Failed {
        /// What the client said.
        what: String,
        /// How often it was asked.
        attempts: u32,
    },
}

/// An answer on its way to the shard.
#[derive(Debug)]
pub(crate) struct Answered<R> {
    pub slot: u32,
    pub call: u64,
    pub result: Result<R, Failure>,
}

/// Where answers wait for their shard.
#[derive(Debug)]
pub(crate) struct Answers<R> {
    queue: SegQueue<Answered<R>>,
    /// Nobody sleeps in simulation.
    shard: Option<Doorbell>,
}

impl<R> Answers<R> {
    pub fn new(shard: Option<Doorbell>) -> Self {
        Answers {
            queue: SegQueue::new(),
            shard,
        }
    }

    pub fn take(&self) -> Option<Answered<R>> {
        self.queue.pop()
    }

    pub fn has_any(&self) -> bool {
        !self.queue.is_empty()
    }

    fn put(&self, answered: Answered<R>) {
        self.queue.push(answered);
        if let Some(shard) = &self.shard {
            shard.ring();
        }
    }
}

/// What a request is answered by: once, from any thread, at any time. Dropped unsent it says that there is none.
#[derive(Debug)]
pub struct Answer<R> {
    /// `None` once it has been given.
    to: Option<Arc<Answers<R>>>,
    slot: u32,
    call: u64,
}

impl<R> Answer<R> {
    pub(crate) fn new(to: Arc<Answers<R>>, slot: u32, call: u64) -> Self {
        Answer {
            to: Some(to),
            slot,
            call,
        }
    }

    /// Gives the answer. It never waits.
    pub fn send(mut self, result: Result<R, Failure>) {
        self.give(result);
    }

    /// The request was never handed over: nobody is told.
    pub(crate) fn forget(mut self) {
        self.to = None;
    }

    fn give(&mut self, result: Result<R, Failure>) {
        if let Some(to) = self.to.take() {
            to.put(Answered {
                slot: self.slot,
                call: self.call,
                result,
            });
        }
    }
}

impl<R> Drop for Answer<R> {
    fn drop(&mut self) {
        self.give(Err(unanswered()));
    }
}
