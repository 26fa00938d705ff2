//! The thread on which a job's sinks commit, beside the control thread: a commit that takes long keeps no epoch waiting.
//!
//! Laws
//! 1. It makes one epoch's commits at a time, those that the coordinator asks for, and tells the control thread what became of them.
//! 2. It is waited for before the job's folder is let go: a commit that is under way when the job ends is made to its end.
//! 3. A panic of a sink's ends the job and nothing else.

use super::checkpoints::{Message, no_thread};
use super::panics::{Panic, catch};
use crate::checkpoint::{Committers, ToCommit};
use crate::error::BuildError;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

/// See the module.
pub(super) struct Commits {
    asks: Option<Sender<ToCommit>>,
    thread: Option<JoinHandle<Result<(), Panic>>>,
}

impl Commits {
    /// Starts the thread, unless no sink has anything to commit. Outcomes go to `to`.
    pub fn start(
        mut committers: Committers,
        to: Sender<Message>,
        job: u32,
    ) -> Result<Self, BuildError> {
        if committers.is_empty() {
            return Ok(Commits {
                asks: None,
                thread: None,
            });
        }
        let (asks, asked) = mpsc::channel::<ToCommit>();
        let run = move || {
            for what in asked {
                let outcome = catch(|| committers.commit(&what))
                    .map_err(|panic| (panic, committers.under_way()));
                if to.send(Message::Committed(outcome)).is_err() {
                    break;
                }
            }
            // What sinks keep is dropped here: user code as well.
            catch(|| drop(committers))
        };
        let thread = thread::Builder::new()
            .name(format!("pelton-commit-{job}"))
            .spawn(run)
            .map_err(no_thread)?;
        Ok(Commits {
            asks: Some(asks),
            thread: Some(thread),
        })
    }

    /// Has these commits made. The outcome comes as a message.
    pub fn ask(&self, what: ToCommit) {
        if let Some(asks) = &self.asks {
            // The thread ends before its asker only where nobody listens to outcomes any more.
            let _ = asks.send(what);
        }
    }

    /// Waits for the thread (law 2); a panic is that of a sink's destructor.
    pub fn end(mut self) -> Result<(), Panic> {
        self.join()
    }

    fn join(&mut self) -> Result<(), Panic> {
        self.asks = None;
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Err(_)) => Ok(()),
            Some(Ok(ended)) => ended,
        }
    }
}

/// Where the job could not be started after all: its sinks let go of their folders before anybody is told.
impl Drop for Commits {
    fn drop(&mut self) {
        let _ = self.join();
    }
}
