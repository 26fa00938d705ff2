//! The coordinator of a job's checkpoints: begins epochs, decides them, has the sinks commit.
//!
//! | state | event | what is done | next | kill point |
//! |---|---|---|---|---|
//! | Idle | an epoch is due, or all tasklets are done | barrier told to the shards | Writing | `begun` |
//! | Writing | a shard's share is durable | kept | Writing | `share` |
//! | Writing | the last share, nothing has changed | nothing | Idle | |
//! | Writing | the last share | manifest record staged | Deciding | `sealed` |
//! | Writing | time-out, unless it is the last epoch | given up: what comes of it rides with the next | Late | `aborted` |
//! | Late | the last share | kept for the next epoch | Idle | |
//! | Deciding | the record is durable: the epoch counts | | Committing | `decided` |
//! | Committing | a sink has committed | the next one | Committing | `committed-one` |
//! | Committing | a sink could not, and may yet | told, and tried again a little later | Committing | |
//! | any but Idle | the job ends, and this took too long | the job fails (law 8) | | |
//! | Committing | all have | | Idle | `committed` |
//! | Idle | the last epoch of all was committed | the shards may go | Over | `over` |
//!
//! Laws
//! 1. Nothing is committed by a sink before the record that decides it is durable, and nothing is rolled back after.
//! 2. Epochs are decided and committed in their order, one at a time.
//! 3. The next barrier passes no earlier than the interval, and twice the time that the last epoch took, after the last one; but for
//!    what was asked for (a checkpoint, a savepoint, a stop) and for a job whose tasklets are done: these wait for the epoch that is
//!    under way, and for nothing else.
//! 4. An epoch in which nothing changed is not decided, unless it is the first and a savepoint is wanted.
//! 5. What was written for an epoch that was given up is part of the next decision: its shares and what sinks prepared.
//! 6. So the last epoch of all is not given up for a next one: nothing comes after it that could have what it had.
//! 7. What a savepoint copies is pinned once its epoch's sinks have committed, until it has been copied.
//! 8. A job that ends does so in bounded time: each step of its last epochs (written, decided, committed) has a time-out, behind
//!    which the job fails and falls back on what was decided last. Of a job that runs a commit is tried again for ever, and told
//!    (`Checkpoints::retrying`).

use super::counting::{Counted, Counting};
use super::failed::Failed;
use super::kill::kill_point;
use super::part::{Event, Share, Told};
use super::restore::Sections;
use super::{Checkpoints, Cut, Epoch, Stop};
use crate::plan::NamedCommitter;
use crate::sink::CommitError;
use crate::time::{EventTime, Span};
use pelton_storage::{
    Checkpoint, Commit, Completion, Disk, Extent, Lineage, Pin, Sealed, SegmentId, StateId,
    StorageError, Store,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long to wait before a sink that could not commit is asked again, nanoseconds.
const COMMIT_AGAIN_NS: u64 = 100_000_000;

/// How checkpoints are taken. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub interval_ns: u64,
    pub timeout_ns: u64,
    /// For each step of a job's end.
    pub end_timeout_ns: u64,
    pub sweeps: Sweeps,
}

/// When the log is swept, and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweeps {
    /// A sweep begins when the log is so many times as long as after the last one ..
    pub growth: u64,
    /// .. and longer than that by more than twice so many bytes a shard.
    pub bytes: u64,
    /// Entries of each table that it marks at a barrier, at the least.
    pub least: u32,
}

impl Sweeps {
    /// Those of a log of segments of this length.
    pub fn of_segments(bytes: u64) -> Self {
        Sweeps {
            growth: 2,
            bytes,
            least: 1024,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Writing,
    /// As writing, but the epoch has been given up.
    Late,
    Deciding,
    Committing,
    Over,
}

/// What sinks prepared and have not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub sink: StateId,
    pub epoch: Epoch,
    pub bytes: Vec<u8>,
}

/// See the module.
pub(crate) struct Coordinator {
    store: Store,
    told: Arc<Told>,
    pace: Pace,
    committers: Vec<NamedCommitter>,
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
    /// Asked for, whatever the interval says.
    wanted: bool,
    /// Savepoints that were asked for, those that the epoch under way is for, and those that may be copied.
    savepoints: usize,
    saving: usize,
    ready: Vec<(Pin, Checkpoint)>,
    /// The job is to stop with the next epoch.
    stopping: bool,
    /// Sources are to end where they are, as soon as no epoch is under way: all on the same side of each barrier.
    draining: bool,
    /// They have been told.
    drained: bool,
    /// The job ends: it was asked to, or its tasklets are done. Then, where it stood and since when (law 8).
    ending: Option<((Epoch, Phase), u64)>,
    /// The epoch under way, or the one just committed, is the last.
    last: bool,
    /// Not yet decided: of the epoch under way, and of those given up before it.
    sealed: Vec<Sealed>,
    prepared: Vec<Prepared>,
    counting: Counting,
    epoch_bytes: u64,
    epoch_entries: u64,
    /// Being committed, in order.
    committing: VecDeque<Prepared>,
    again_ns: u64,
    /// What time it is outside, where somebody has said.
    wall: Option<EventTime>,
    sweep: Sweep,
    completions: Vec<Completion>,
    pub figures: Checkpoints,
}

/// The sweep under way, and when to begin another: see [`super::Tracker`].
#[derive(Debug, Default)]
struct Sweep {
    /// Number of the last one.
    number: u64,
    /// What it makes useless; empty where none is on.
    frees: Vec<SegmentId>,
    /// By shard, what it is through with.
    swept: Vec<u64>,
    /// Bytes of the log after the last one.
    base: u64,
    whole: Whole,
}

/// Whether all of the state is to be written with one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Whole {
    #[default]
    No,
    /// With the next one.
    Next,
    /// It is being written, or waits for the next decision.
    Written,
}

impl Coordinator {
    pub fn new(
        store: Store,
        told: Arc<Told>,
        pace: Pace,
        shards: usize,
        committers: Vec<NamedCommitter>,
        sections: BTreeMap<String, Vec<u8>>,
        now_ns: u64,
    ) -> Self {
        let base = store.last().map_or(0, |c| length(&c.segments));
        Coordinator {
            store,
            told,
            pace,
            committers,
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
            },
            began_ns: now_ns,
            next_ns: now_ns.saturating_add(pace.interval_ns),
            wanted: false,
            savepoints: 0,
            saving: 0,
            ready: vec![],
            stopping: false,
            draining: false,
            drained: false,
            ending: None,
            last: false,
            sealed: vec![],
            prepared: vec![],
            counting: Counting::new(shards),
            epoch_bytes: 0,
            epoch_entries: 0,
            committing: VecDeque::new(),
            again_ns: 0,
            wall: None,
            sweep: Sweep {
                swept: vec![0; shards],
                base,
                ..Sweep::default()
            },
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

    /// The first epoch is to hold all of the state, and what is there from before goes with its decision.
    pub fn write_whole(&mut self) {
        self.sweep.whole = Whole::Next;
    }

    /// A savepoint is to be taken: of an epoch that begins from now on.
    pub fn savepoint(&mut self) {
        self.savepoints += 1;
    }

    /// A savepoint that may be copied: it is kept until [`Coordinator::unpin`]. One for each that was asked for.
    pub fn take_savepoint(&mut self) -> Option<(Pin, Checkpoint, Lineage)> {
        let (pin, checkpoint) = self.ready.pop()?;
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
            self.ready.extend(self.store.pin(last));
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
        let place = (self.cut.epoch, self.phase);
        self.ending.get_or_insert((place, now_ns));
    }

    /// Nothing more is to be done.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The state's name, for tests and for people.
    pub fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "idle",
            Phase::Writing => "writing",
            Phase::Late => "late",
            Phase::Deciding => "deciding",
            Phase::Committing => "committing",
            Phase::Over => "over",
        }
    }

    /// Epoch, state, and whether sources were told to end: where it differs from before, the shards have something new to look at.
    pub fn place(&self) -> (Epoch, &'static str, bool) {
        (self.cut.epoch, self.phase(), self.drained)
    }

    /// When to step again although nothing has come, nanoseconds; `None` while only an event can change something.
    pub fn wake_at(&self) -> Option<u64> {
        let next = match self.phase {
            Phase::Idle => Some(self.next_ns),
            Phase::Writing if !self.last => {
                Some(self.began_ns.saturating_add(self.pace.timeout_ns))
            }
            Phase::Committing => Some(self.again_ns),
            Phase::Writing | Phase::Late | Phase::Deciding | Phase::Over => None,
        };
        let waits = !matches!(self.phase, Phase::Idle | Phase::Over);
        let end = self
            .ending
            .filter(|_| waits)
            .map(|(_, since_ns)| since_ns.saturating_add(self.pace.end_timeout_ns));
        next.into_iter().chain(end).min()
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
                        kill_point("decided");
                        self.phase = Phase::Committing;
                        self.again_ns = now_ns;
                        for (_, _, committer) in &mut self.committers {
                            self.wall
                                .into_iter()
                                .for_each(|now| committer.wall_clock(now));
                        }
                    }
                }
                Phase::Committing => self.commit(now_ns)?,
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
        let here = (self.cut.epoch, self.phase);
        let Some((place, since_ns)) = &mut self.ending else {
            return Ok(());
        };
        if *place != here {
            (*place, *since_ns) = (here, now_ns);
        }
        let what = match self.phase {
            _ if now_ns.saturating_sub(*since_ns) < self.pace.end_timeout_ns => return Ok(()),
            // Nothing is waited for but the next epoch, in its time; or for nothing any more.
            Phase::Idle | Phase::Over => return Ok(()),
            Phase::Writing | Phase::Late => "written",
            Phase::Deciding => "decided",
            Phase::Committing => "committed",
        };
        Err(Failed::End {
            what,
            epoch: self.cut.epoch,
            timeout: Span::from_micros((self.pace.end_timeout_ns / 1_000) as i64),
            last: self.store.last().map(|c| c.epoch),
            retrying: self.figures.retrying.take(),
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
            self.phase = Phase::Over;
            kill_point("over");
            self.told.finish();
            return Ok(());
        }
        let asked = self.wanted || self.savepoints > 0 || self.stopping;
        let due = now_ns >= self.next_ns || asked || all_done;
        if !due || self.store.is_committing() {
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
            true => self.begin_whole(),
            false => self.begin_sweep(),
        };
        self.last = self.stopping || all_done;
        self.cut = Cut {
            epoch,
            sweep: self.sweep.number,
            is_full,
            is_whole,
            sweep_least: self.pace.sweeps.least,
            is_last: self.last,
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

    /// Begins the sweep that is through with one epoch: nothing from before this start is stood on after that.
    fn begin_whole(&mut self) -> bool {
        let before = self.store.last().map(|c| c.segments.as_slice());
        self.sweep.frees = before
            .unwrap_or_default()
            .iter()
            .map(|e| e.segment)
            .collect();
        self.sweep.whole = Whole::Written;
        self.sweep.number += 1;
        true
    }

    /// Begins a sweep if the log has grown enough since the last one: see [`Sweeps`].
    fn begin_sweep(&mut self) -> bool {
        let Some(last) = self.store.last() else {
            return false;
        };
        let Sweeps { growth, bytes, .. } = self.pace.sweeps;
        let few = 2 * bytes * self.shares.len() as u64;
        let most = self.sweep.base.saturating_mul(growth).saturating_add(few);
        if !self.sweep.frees.is_empty() || length(&last.segments) <= most {
            return false;
        }
        let attempt = self.store.manifest().attempt;
        // What a shard writes to now will have frames of the sweep too.
        let mut newest: BTreeMap<u32, SegmentId> = BTreeMap::new();
        for extent in last
            .segments
            .iter()
            .filter(|e| e.segment.attempt == attempt)
        {
            newest.insert(extent.segment.shard, extent.segment);
        }
        let segments = last.segments.iter().map(|e| e.segment);
        self.sweep.frees = segments
            .filter(|s| newest.get(&s.shard) != Some(s))
            .collect();
        if self.sweep.frees.is_empty() {
            return false;
        }
        self.sweep.number += 1;
        true
    }

    /// All shares are durable.
    fn written(&mut self, now_ns: u64) -> Result<(), Failed> {
        if self.phase == Phase::Late {
            // Nothing was decided that a savepoint could be taken of.
            self.savepoints += std::mem::take(&mut self.saving);
            self.pause(now_ns);
            self.phase = Phase::Idle;
            return Ok(());
        }
        let wants_first = self.saving > 0 && self.store.last().is_none();
        if self.sealed.is_empty() && self.prepared.is_empty() && !wants_first {
            // The last one is as good.
            self.pin_savepoints();
            self.pause(now_ns);
            self.phase = Phase::Idle;
            return Ok(());
        }
        let mut retired = vec![];
        let number = self.sweep.number;
        if self.sweep.swept.iter().all(|&s| s >= number) {
            retired = std::mem::take(&mut self.sweep.frees);
            self.figures.sweeps += u64::from(!retired.is_empty());
        }
        // Of what stood before a whole epoch nothing is left, were it only in another folder.
        let freed = !retired.is_empty() || self.sweep.whole == Whole::Written;
        self.sweep.whole = Whole::No;
        let mut sections = self.sections.clone();
        Sections::put_prepared(&mut sections, &self.prepared);
        Sections::put_counters(&mut sections, &self.counting.total());
        kill_point("sealed");
        self.store.commit(Commit {
            epoch: self.cut.epoch,
            sealed: std::mem::take(&mut self.sealed),
            retired,
            sections,
        })?;
        if freed {
            self.sweep.base = u64::MAX;
        }
        self.committing = std::mem::take(&mut self.prepared).into();
        self.phase = Phase::Deciding;
        Ok(())
    }

    /// Law 1: what was decided is committed, one sink's share after the other.
    fn commit(&mut self, now_ns: u64) -> Result<(), Failed> {
        if now_ns < self.again_ns {
            return Ok(());
        }
        while let Some(prepared) = self.committing.front() {
            match commit_one(&mut self.committers, prepared) {
                Ok(()) => {
                    self.committing.pop_front();
                    kill_point("committed-one");
                }
                Err((sink, error)) if error.is_retryable => {
                    let (epoch, what) = (prepared.epoch, error.what);
                    self.figures.commit_failed(sink, epoch, what);
                    self.again_ns = now_ns.saturating_add(COMMIT_AGAIN_NS);
                    return Ok(());
                }
                Err((sink, error)) => {
                    let (epoch, what) = (prepared.epoch, error.what);
                    return Err(Failed::Commit { sink, epoch, what });
                }
            }
            self.figures.retrying = None;
        }
        kill_point("committed");
        self.pin_savepoints();
        if self.sweep.base == u64::MAX {
            self.sweep.base = self.store.last().map_or(0, |c| length(&c.segments));
        }
        let figures = &mut self.figures;
        figures.completed += 1;
        figures.last = self.cut.epoch;
        figures.last_bytes = self.epoch_bytes;
        figures.last_entries = self.epoch_entries;
        figures.last_ns = now_ns.saturating_sub(self.began_ns);
        figures.bytes += self.epoch_bytes;
        figures.entries += self.epoch_entries;
        figures.segments_removed = self.store.segments_removed();
        self.pause(now_ns);
        self.phase = Phase::Idle;
        Ok(())
    }

    /// Law 3.
    fn pause(&mut self, now_ns: u64) {
        let took = now_ns.saturating_sub(self.began_ns);
        let wait = self.pace.interval_ns.max(took.saturating_mul(2));
        self.next_ns = self.began_ns.saturating_add(wait);
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

fn length(segments: &[Extent]) -> u64 {
    segments.iter().map(|e| e.len).sum()
}
