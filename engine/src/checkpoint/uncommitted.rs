//! Epochs that are decided and not committed yet: which sink is asked next, and what the next decision has to name.
//!
//! Laws
//! 1. One epoch's commits are under way at a time, in the order in which epochs were decided and, within one, in that in which their
//!    shares came: so no sink commits anything of N+1 before all sinks have committed N.
//! 2. What the next decision names ([`Uncommitted::named`]) is all that is not known to be committed, what is under way included:
//!    a process that ends now has its next start commit it, perhaps again.
//! 3. What could not be committed, and may yet, is asked for again a little later, for ever, and not what went before it; all behind
//!    it waits.
//!
//! The commits themselves are made elsewhere ([`Committers`]): a sink that takes long keeps nobody from the next epoch.

use super::Epoch;
use super::kill::kill_point;
use crate::plan::NamedCommitter;
use crate::sink::CommitError;
use crate::time::EventTime;
use pelton_storage::StateId;
use std::collections::VecDeque;

/// How long to wait before a sink that could not commit is asked again, nanoseconds.
const COMMIT_AGAIN_NS: u64 = 100_000_000;

/// What a sink prepared and has not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub sink: StateId,
    pub epoch: Epoch,
    pub bytes: Vec<u8>,
}

/// Commits to be made now, in this order.
#[derive(Clone, Debug)]
pub(crate) struct ToCommit {
    pub shares: Vec<Prepared>,
    /// What time it is outside, where somebody has said.
    pub wall: Option<EventTime>,
}

/// What became of them.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// So many of the first have been made.
    pub done: usize,
    /// Why not the next one: the sink's name, and what it says.
    pub failed: Option<(String, CommitError)>,
}

/// Those who commit for the job's sinks. User code, which may block: on a thread apart, or a step of its own.
#[derive(Default)]
pub(crate) struct Committers {
    all: Vec<NamedCommitter>,
    /// The commit that is under way: what is to be said if it panics.
    under_way: Option<(StateId, Epoch)>,
}

impl Committers {
    pub fn new(committers: Vec<NamedCommitter>) -> Self {
        Committers {
            all: committers,
            under_way: None,
        }
    }

    /// The commit that was under way when its sink panicked.
    pub fn under_way(&self) -> String {
        let of = |(sink, epoch): (StateId, Epoch)| {
            let (_, name, _) = self.all.iter().find(|(id, ..)| *id == sink)?;
            Some(format!("the commit of epoch {} by sink '{name}'", epoch.0))
        };
        let known = self.under_way.and_then(of);
        known.unwrap_or_else(|| "a sink's code before a commit".into())
    }

    /// Whether nothing will ever be prepared.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Makes these commits, up to the first that cannot be made.
    pub fn commit(&mut self, what: &ToCommit) -> Committed {
        for (_, _, committer) in &mut self.all {
            what.wall
                .into_iter()
                .for_each(|now| committer.wall_clock(now));
        }
        for (done, prepared) in what.shares.iter().enumerate() {
            self.under_way = Some((prepared.sink, prepared.epoch));
            let made = commit_one(&mut self.all, prepared);
            self.under_way = None;
            if let Err(failed) = made {
                return Committed {
                    done,
                    failed: Some(failed),
                };
            }
            kill_point("committed-one");
        }
        Committed {
            done: what.shares.len(),
            failed: None,
        }
    }
}

/// Has a sink commit what it prepared. One that the job has no longer had its say at the restart.
pub(crate) fn commit_one(
    committers: &mut [NamedCommitter],
    prepared: &Prepared,
) -> Result<(), (String, CommitError)> {
    let found = committers.iter_mut().find(|(id, ..)| *id == prepared.sink);
    match found {
        Some((_, name, committer)) => committer
            .commit(prepared.epoch, &prepared.bytes)
            .map_err(|e| (name.clone(), e)),
        None => Ok(()),
    }
}

/// A decided epoch.
#[derive(Debug)]
pub(super) struct Decided {
    pub epoch: Epoch,
    pub began_ns: u64,
    pub bytes: u64,
    pub entries: u64,
    /// Not known to be committed, in order.
    pub left: VecDeque<Prepared>,
    /// What the commits took that were made at last, without waiting for their turn or for another try.
    pub commits_ns: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Uncommitted {
    /// In order.
    epochs: VecDeque<Decided>,
    /// Since when commits of the oldest are under way.
    asked_ns: Option<u64>,
    /// When to ask for them, at the earliest.
    again_ns: u64,
}

impl Uncommitted {
    /// Epochs that are decided and not committed.
    pub fn len(&self) -> usize {
        self.epochs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    /// The oldest.
    pub fn first(&self) -> Option<Epoch> {
        self.epochs.front().map(|d| d.epoch)
    }

    /// An epoch has been decided.
    pub fn push(&mut self, decided: Decided) {
        let before = self.epochs.back().map(|d| d.epoch);
        debug_assert!(before < Some(decided.epoch), "epochs are decided in order");
        self.epochs.push_back(decided);
    }

    /// Law 2.
    pub fn named(&self) -> impl Iterator<Item = &Prepared> {
        self.epochs.iter().flat_map(|d| &d.left)
    }

    fn next(&self) -> Option<&Prepared> {
        self.epochs.front().and_then(|d| d.left.front())
    }

    /// What is to be committed now, if anything: it is under way until [`Uncommitted::ended`] (law 1).
    pub fn ask(&mut self, now_ns: u64) -> Option<Vec<Prepared>> {
        if self.asked_ns.is_some() || now_ns < self.again_ns {
            return None;
        }
        let first = self.epochs.front().filter(|d| !d.left.is_empty())?;
        self.asked_ns = Some(now_ns);
        Some(first.left.iter().cloned().collect())
    }

    /// When something is to be asked for, if an event need not come first.
    pub fn ask_at(&self) -> Option<u64> {
        let waits = self.asked_ns.is_none() && self.next().is_some();
        waits.then_some(self.again_ns)
    }

    /// Of what was asked for the first `done` have been committed; the rest could not be, if there is one (law 3). The epoch of the
    /// first that is left.
    pub fn ended(&mut self, done: usize, now_ns: u64) -> Option<Epoch> {
        let asked_ns = self.asked_ns.take();
        debug_assert!(asked_ns.is_some(), "they were asked for");
        if let Some(first) = self.epochs.front_mut() {
            first.left.drain(..done.min(first.left.len()));
            first.commits_ns = now_ns.saturating_sub(asked_ns.unwrap_or(now_ns));
            if !first.left.is_empty() {
                self.again_ns = now_ns.saturating_add(COMMIT_AGAIN_NS);
            }
        }
        self.next().map(|p| p.epoch)
    }

    /// The oldest epoch, if all of it has been committed now: it is uncommitted no longer.
    pub fn take_committed(&mut self) -> Option<Decided> {
        self.epochs.pop_front_if(|first| first.left.is_empty())
    }
}
