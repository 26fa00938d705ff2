//! The coordinator of a job's checkpoints: begins epochs, decides them, has the sinks commit them in turn.
//!
//! | state | event | what is done | next | kill point |
//! |---|---|---|---|---|
//! | Idle | an epoch is due, or all tasklets are done | barrier told to the shards | Writing | `begun` |
//! | Idle | the same, but K epochs are uncommitted | sources are held | Idle | `held` |
//! | Writing | a shard's share is durable | kept | Writing | `share` |
//! | Writing | the last share, nothing has changed | nothing | Idle | |
//! | Writing | the last share | manifest record staged, with all that is uncommitted | Deciding | `sealed` |
//! | Writing | time-out, unless it is the last epoch | given up: what comes of it rides with the next | Late | `aborted` |
//! | Late | the last share | kept for the next epoch | Idle | |
//! | Deciding | the record is durable: the epoch counts | it waits for its turn to be committed | Idle | `decided`, and `decided-behind` where it has to wait |
//! | Idle | the last epoch of all is committed | the shards may go | Over | `over` |
//! | any but Idle | the job ends, and this took too long | the job fails (law 8) | | |
//!
//! Beside it, for what is decided (`uncommitted.rs`):
//!
//! | event | what is done | kill point |
//! |---|---|---|
//! | nothing is being committed | what is left of the oldest epoch is asked for | |
//! | a sink has committed a share | the next one | `committed-one` |
//! | a sink could not, and may yet | told, and asked again a little later | |
//! | all of the oldest epoch have | it is committed, and the next decision names it no longer | `committed` |
//! | the job ends, and this took too long | the job fails (law 8) | |
//!
//! Laws
//! 1. Nothing is committed by a sink before the record that decides it is durable, and nothing is rolled back after.
//! 2. Epochs are decided one at a time and committed one at a time, both in their order. The next one begins when the last is
//!    decided: its sinks may commit meanwhile. Each decision names what is not known to be committed of all epochs.
//! 3. The next barrier passes no earlier than the interval, and twice the time that the last epoch took, after the last one; but for
//!    what was asked for (a checkpoint, a savepoint, a stop) and for a job whose tasklets are done: these wait for the epoch that is
//!    under way, and for law 9. An epoch takes the time to its decision, and what the commits of the one committed last took by
//!    themselves: not how long they waited for their turn, or for another try.
//! 4. An epoch in which nothing changed is not decided, unless it is the first and a savepoint is wanted.
//! 5. What was written for an epoch that was given up is part of the next decision: its shares and what sinks prepared.
//! 6. So the last epoch of all is not given up for a next one: nothing comes after it that could have what it had.
//! 7. What a savepoint copies is pinned when its epoch is decided, since later ones may be before it is committed. It may be copied
//!    once that epoch and all before it are committed: nothing in it is left to commit.
//! 8. A job that ends does so in bounded time: each step of its last epochs (written, decided, committed) has a time-out, behind
//!    which the job fails and falls back on what was decided last. Of a job that runs a commit is tried again for ever, and told
//!    (`Checkpoints::retrying`).
//! 9. No more than K epochs are decided and uncommitted ([`Pace::max_uncommitted`]). When a barrier is due and K are, it waits, and
//!    sources are held until it passes: else the open epoch, and what sinks stage for it, would grow without a bound.

mod ending;
mod sweeping;
#[cfg(test)]
mod tests;
pub(crate) use sweeping::Sweeps;

use super::counting::{Counted, Counting};
use super::failed::Failed;
use super::kill::kill_point;
use super::part::{Event, Share, Told};
use super::restore::Sections;
use super::uncommitted::{Committed, Decided, Prepared, ToCommit, Uncommitted};
use super::{Checkpoints, Cut, Epoch, Stop};
use crate::time::{EventTime, Span};
use ending::Ending;
use pelton_storage::{
    Checkpoint, Commit, Completion, Disk, Lineage, Pin, Sealed, StorageError, Store,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use sweeping::{Sweep, Whole};

/// How checkpoints are taken. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub interval_ns: u64,
    pub timeout_ns: u64,
    /// For each step of a job's end.
    pub end_timeout_ns: u64,
    /// K of law 9, at least 1.
    pub max_uncommitted: usize,
    pub sweeps: Sweeps,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Writing,
    /// As writing, but the epoch has been given up.
    Late,
    Deciding,
    Over,
}

/// See the module.
pub(crate) struct Coordinator {
    store: Store,
    told: Arc<Told>,
    pace: Pace,
    /// Sections that are the same in every checkpoint.
    sections: BTreeMap<String, Vec<u8>>,
    phase: Phase,
    /// By shard: whether its share of the epoch under way has come.
    shares: Vec<bool>,
    /// By shard: whether its tasklets are done.
    done: Vec<bool>,
    cut: Cut,
    began_ns: u64,
    next_ns: u64,
    /// What law 3 counts: of the epoch that ended last, and of the one whose sinks committed last.
    took_ns: u64,
    commits_ns: u64,
    /// Asked for, whatever the interval says.
    wanted: bool,
    /// The last query that the next barrier is to answer.
    asked: u64,
    /// Savepoints that were asked for, those that the epoch under way is for, and those of decided epochs, in order (law 7).
    savepoints: usize,
    saving: usize,
    pinned: VecDeque<(Pin, Checkpoint)>,
    /// The job is to stop with the next epoch.
    stopping: bool,
    /// Sources are to end where they are, as soon as no epoch is under way: all on the same side of each barrier.
    draining: bool,
    /// They have been told.
    drained: bool,
    /// The job ends: it was asked to, or its tasklets are done (law 8).
    ending: Option<Ending>,
    /// The epoch under way, or the one just decided, is the last.
    last: bool,
    /// Sources have been told to wait (law 9).
    held: bool,
    /// Not yet decided: of the epoch under way, and of those given up before it.
    sealed: Vec<Sealed>,
    prepared: Vec<Prepared>,
    counting: Counting,
    epoch_bytes: u64,
    epoch_entries: u64,
    uncommitted: Uncommitted,
    /// What time it is outside, where somebody has said.
    wall: Option<EventTime>,
    sweep: Sweep,
    completions: Vec<Completion>,
    pub figures: Checkpoints,
}

impl Coordinator {
    pub fn new(
        store: Store,
        told: Arc<Told>,
        pace: Pace,
        shards: usize,
        sections: BTreeMap<String, Vec<u8>>,
        now_ns: u64,
    ) -> Self {
        Coordinator {
            sweep: Sweep::new(&store, shards),
            store,
            told,
            pace,
            sections,
            phase: Phase::Idle,
            shares: vec![false; shards],
            done: vec![false; shards],
            cut: Cut {
                epoch: Epoch(0),
                sweep: 0,
                is_full: false,
                is_whole: false,
                sweep_least: pace.sweeps.least,
                is_last: false,
                asked: 0,
            },
            began_ns: now_ns,
            next_ns: now_ns.saturating_add(pace.interval_ns),
            took_ns: 0,
            commits_ns: 0,
            wanted: false,
            asked: 0,
            savepoints: 0,
            saving: 0,
            pinned: VecDeque::new(),
            stopping: false,
            draining: false,
            drained: false,
            ending: None,
            last: false,
            held: false,
            sealed: vec![],
            prepared: vec![],
            counting: Counting::new(shards),
            epoch_bytes: 0,
            epoch_entries: 0,
            uncommitted: Uncommitted::default(),
            wall: None,
            completions: vec![],
            figures: Checkpoints::default(),
        }
    }

    /// Counters go on from `before`; `kinds` are those of each stage's operators.
    pub fn count_from(&mut self, before: Counted, kinds: Vec<Vec<&'static str>>) {
        self.counting.go_on(before, kinds);
    }

    /// An epoch is to begin as soon as none is under way.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// The next barrier is to answer this query, of which all shards have taken note; it begins as soon as one may.
    pub fn ask(&mut self, number: u64) {
        self.asked = self.asked.max(number);
        self.want();
    }

    /// The first epoch is to hold all of the state, and what is there from before goes with its decision.
    pub fn write_whole(&mut self) {
        self.sweep.whole = Whole::Next;
    }

    /// A savepoint is to be taken: of an epoch that begins from now on.
    pub fn savepoint(&mut self) {
        self.savepoints += 1;
    }

    /// A savepoint that may be copied: it is kept until [`Coordinator::unpin`]. One for each that was asked for, in their order.
    pub fn take_savepoint(&mut self) -> Option<(Pin, Checkpoint, Lineage)> {
        let left = self.uncommitted.first();
        // Law 7.
        let may =
            |(_, checkpoint): &mut (Pin, Checkpoint)| left.is_none_or(|l| checkpoint.epoch < l);
        let (pin, checkpoint) = self.pinned.pop_front_if(may)?;
        Some((pin, checkpoint, self.store.manifest().lineage))
    }

    /// A savepoint has been copied, or never will be.
    pub fn unpin(&mut self, pin: Pin) {
        self.store.unpin(pin);
    }

    /// Law 7.
    fn pin_savepoints(&mut self) {
        let Some(last) = self.store.last().map(|c| c.epoch) else {
            return;
        };
        for _ in 0..std::mem::take(&mut self.saving) {
            self.pinned.extend(self.store.pin(last));
        }
    }

    /// The job is to stop: with one more epoch, behind which no source reads, or by coming to its end.
    pub fn stop(&mut self, how: Stop, now_ns: u64) {
        match how {
            Stop::Keep => self.stopping = true,
            Stop::Drain => self.draining = true,
        }
        self.ends(now_ns);
    }

    /// Law 8: the job ends from now on.
    fn ends(&mut self, now_ns: u64) {
        let (step, commits) = ((self.cut.epoch, self.phase), self.uncommitted.first());
        self.ending
            .get_or_insert_with(|| Ending::new(step, commits, now_ns));
    }

    /// Nothing more is to be done.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The state's name, for tests and for people.
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Idle if self.last || self.held => "committing",
            Phase::Idle => "idle",
            Phase::Writing => "writing",
            Phase::Late => "late",
            Phase::Deciding => "deciding",
            Phase::Over => "over",
        }
    }

    /// Epoch, state, and whether sources were told to end, or to wait: where it differs from before, the shards have something new to
    /// look at.
    pub fn place(&self) -> (Epoch, &'static str, bool, bool) {
        (self.cut.epoch, self.phase(), self.drained, self.held)
    }

    /// When to step again, or to look for commits to be made, although nothing has come, nanoseconds; `None` while only an event can
    /// change something.
    pub fn wake_at(&self) -> Option<u64> {
        let next = match self.phase {
            // Only commits are waited for.
            Phase::Idle if self.last || self.held => None,
            Phase::Idle => Some(self.next_ns),
            Phase::Writing if !self.last => {
                Some(self.began_ns.saturating_add(self.pace.timeout_ns))
            }
            Phase::Writing | Phase::Late | Phase::Deciding | Phase::Over => None,
        };
        let commit = self.uncommitted.ask_at();
        let timeout_ns = self.pace.end_timeout_ns;
        let end = self.ending.and_then(|e| e.ends_at(timeout_ns));
        next.into_iter().chain(commit).chain(end).min()
    }

    /// The commits to be made next, if any are due: their outcome goes to [`Coordinator::committed`] before there are others.
    pub fn next_commits(&mut self, now_ns: u64) -> Option<ToCommit> {
        let shares = self.uncommitted.ask(now_ns)?;
        Some(ToCommit {
            shares,
            wall: self.wall,
        })
    }

    /// Takes the outcome of the commits that were asked for.
    ///
    /// # Errors
    /// It is of no use to ask again for one that failed.
    pub fn committed(&mut self, outcome: Committed, now_ns: u64) -> Result<(), Failed> {
        let Committed { done, failed } = outcome;
        let epoch = self.uncommitted.ended(done, now_ns);
        if done > 0 {
            self.figures.retrying = None;
        }
        let Some((sink, error)) = failed else {
            return Ok(());
        };
        let (epoch, what) = (epoch.unwrap_or(self.cut.epoch), error.what);
        if !error.is_retryable {
            return Err(Failed::Commit { sink, epoch, what });
        }
        self.figures.commit_failed(sink, epoch, what);
        Ok(())
    }

    /// Takes what a shard says.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Done { shard } => self.done[shard] = true,
            Event::Sealed(share) => self.take(*share),
        }
    }

    fn take(&mut self, share: Share) {
        debug_assert_eq!(
            share.epoch, self.cut.epoch,
            "shards write one epoch at a time"
        );
        self.shares[share.shard] = true;
        self.sweep.swept[share.shard] = share.swept;
        self.counting.take(share.shard, &share.counted);
        self.epoch_bytes += share.bytes;
        self.epoch_entries += share.frames;
        self.sealed.extend(share.sealed);
        let epoch = share.epoch;
        let prepared = share.committables.into_iter();
        self.prepared
            .extend(prepared.map(|(sink, bytes)| Prepared { sink, epoch, bytes }));
        kill_point("share");
    }

    /// Says what time it is outside, before a step.
    pub fn set_wall(&mut self, now: EventTime) {
        self.wall = Some(now);
    }

    /// Goes on as far as it can.
    ///
    /// # Errors
    /// No more checkpoints can be taken.
    pub fn step(&mut self, now_ns: u64, disk: &mut dyn Disk) -> Result<(), Failed> {
        loop {
            self.serve_disk(disk)?;
            self.take_committed(now_ns);
            let before = self.phase;
            match self.phase {
                Phase::Idle => self.idle(now_ns)?,
                Phase::Writing | Phase::Late if self.shares.iter().all(|s| *s) => {
                    self.written(now_ns)?;
                }
                Phase::Writing => {
                    // Law 6.
                    let took_ns = now_ns.saturating_sub(self.began_ns);
                    if !self.last && took_ns >= self.pace.timeout_ns {
                        kill_point("aborted");
                        self.figures.given_up += 1;
                        self.phase = Phase::Late;
                    }
                }
                Phase::Late | Phase::Over => {}
                Phase::Deciding => {
                    if self.store.take_committed().is_some() {
                        self.decided(now_ns);
                    }
                }
            }
            if self.phase == before {
                return self.end_in_time(now_ns);
            }
        }
    }

    /// Law 8.
    fn end_in_time(&mut self, now_ns: u64) -> Result<(), Failed> {
        if self.done.iter().all(|d| *d) {
            self.ends(now_ns);
        }
        let (step, commits) = ((self.cut.epoch, self.phase), self.uncommitted.first());
        let Some(ending) = &mut self.ending else {
            return Ok(());
        };
        ending.see(step, commits, now_ns);
        let timeout_ns = self.pace.end_timeout_ns;
        let Some((what, epoch)) = ending.overdue(timeout_ns, now_ns) else {
            return Ok(());
        };
        Err(Failed::End {
            what,
            epoch,
            timeout: Span::from_micros((timeout_ns / 1_000) as i64),
            last: self.store.last().map(|c| c.epoch),
            // Of another epoch it is not why.
            retrying: self.figures.retrying.take().filter(|r| r.epoch == epoch),
        })
    }

    fn serve_disk(&mut self, disk: &mut dyn Disk) -> Result<(), Failed> {
        self.store.step(disk);
        disk.poll(&mut self.completions);
        for completion in self.completions.drain(..) {
            self.store.complete(completion)?;
        }
        self.store.step(disk);
        Ok(())
    }

    fn idle(&mut self, now_ns: u64) -> Result<(), Failed> {
        let all_done = self.done.iter().all(|d| *d);
        if std::mem::take(&mut self.draining) {
            self.told.drain();
            self.drained = true;
        }
        if self.last {
            if self.uncommitted.is_empty() {
                self.phase = Phase::Over;
                kill_point("over");
                self.told.finish();
            }
            return Ok(());
        }
        let asked = self.wanted || self.savepoints > 0 || self.stopping;
        let due = now_ns >= self.next_ns || asked || all_done;
        // Law 9.
        let full = self.uncommitted.len() >= self.pace.max_uncommitted;
        self.hold(due && full);
        if !due || full || self.store.is_committing() {
            return Ok(());
        }
        let epoch = match self.store.begin_epoch() {
            Ok(epoch) => epoch,
            Err(StorageError::EpochsExhausted { .. }) => {
                // Many epochs in which nothing changed.
                self.store.reserve_epochs()?;
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        let is_whole = self.sweep.whole == Whole::Next;
        let is_full = match is_whole {
            true => {
                self.sweep.begin_whole(&self.store);
                true
            }
            false => self.sweep.begin(&self.store, self.pace.sweeps),
        };
        self.last = self.stopping || all_done;
        self.cut = Cut {
            epoch,
            sweep: self.sweep.number,
            is_full,
            is_whole,
            sweep_least: self.pace.sweeps.least,
            is_last: self.last,
            asked: self.asked,
        };
        self.wanted = false;
        self.saving += std::mem::take(&mut self.savepoints);
        self.began_ns = now_ns;
        self.shares.fill(false);
        (self.epoch_bytes, self.epoch_entries) = (0, 0);
        self.phase = Phase::Writing;
        self.told.begin(self.cut);
        kill_point("begun");
        Ok(())
    }

    /// Law 9: sources wait, or need not any longer.
    fn hold(&mut self, hold: bool) {
        if self.held == hold {
            return;
        }
        self.held = hold;
        self.told.hold(hold);
        self.figures.waiting = hold;
        if hold {
            self.figures.waits += 1;
            kill_point("held");
        }
    }

    /// All shares are durable.
    fn written(&mut self, now_ns: u64) -> Result<(), Failed> {
        if self.phase == Phase::Late {
            // Nothing was decided that a savepoint could be taken of.
            self.savepoints += std::mem::take(&mut self.saving);
            self.rest(now_ns);
            return Ok(());
        }
        let wants_first = self.saving > 0 && self.store.last().is_none();
        if self.sealed.is_empty() && self.prepared.is_empty() && !wants_first {
            // The last one is as good.
            self.pin_savepoints();
            self.rest(now_ns);
            return Ok(());
        }
        let retired = self.sweep.take_freed();
        self.figures.sweeps += u64::from(!retired.is_empty());
        let mut sections = self.sections.clone();
        // Laws 2 and 5.
        let named = self.uncommitted.named().chain(&self.prepared);
        Sections::put_prepared(&mut sections, named);
        Sections::put_counters(&mut sections, &self.counting.total());
        kill_point("sealed");
        self.store.commit(Commit {
            epoch: self.cut.epoch,
            sealed: std::mem::take(&mut self.sealed),
            retired,
            sections,
        })?;
        self.phase = Phase::Deciding;
        Ok(())
    }

    /// The record is durable: from here on nothing of the epoch is rolled back, and its sinks are to commit.
    fn decided(&mut self, now_ns: u64) {
        kill_point("decided");
        if !self.uncommitted.is_empty() {
            kill_point("decided-behind");
        }
        self.uncommitted.push(Decided {
            epoch: self.cut.epoch,
            began_ns: self.began_ns,
            bytes: self.epoch_bytes,
            entries: self.epoch_entries,
            left: std::mem::take(&mut self.prepared).into(),
            commits_ns: 0,
        });
        let uncommitted = self.uncommitted.len() as u64;
        debug_assert!(uncommitted <= self.pace.max_uncommitted as u64, "law 9");
        self.figures.uncommitted = uncommitted;
        self.figures.uncommitted_max = self.figures.uncommitted_max.max(uncommitted);
        self.pin_savepoints();
        self.sweep.decided(&self.store);
        self.rest(now_ns);
    }

    /// Epochs that all sinks have committed are over with.
    fn take_committed(&mut self, now_ns: u64) {
        while let Some(committed) = self.uncommitted.take_committed() {
            kill_point("committed");
            let figures = &mut self.figures;
            figures.uncommitted = self.uncommitted.len() as u64;
            figures.completed += 1;
            figures.last = committed.epoch;
            figures.last_bytes = committed.bytes;
            figures.last_entries = committed.entries;
            figures.last_ns = now_ns.saturating_sub(committed.began_ns);
            figures.bytes += committed.bytes;
            figures.entries += committed.entries;
            figures.segments_removed = self.store.segments_removed();
            self.commits_ns = committed.commits_ns;
            if self.phase == Phase::Idle {
                self.pause();
            }
        }
    }

    /// The epoch under way has come to its end, decided or not.
    fn rest(&mut self, now_ns: u64) {
        self.took_ns = now_ns.saturating_sub(self.began_ns);
        self.pause();
        self.phase = Phase::Idle;
    }

    /// Law 3.
    fn pause(&mut self) {
        let took_ns = self.took_ns.saturating_add(self.commits_ns);
        let wait_ns = self.pace.interval_ns.max(took_ns.saturating_mul(2));
        self.next_ns = self.began_ns.saturating_add(wait_ns);
    }
}
