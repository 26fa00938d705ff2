//! A job's checkpoints on one shard: passes barriers to its sources, has its tasklets write their states between steps, and
//! makes durable what they wrote.
//!
//! Laws
//! 1. One epoch at a time: the next barrier passes when what was written for the last is durable.
//! 2. At most a piece is written a turn, whoever it is of, so a job's steps come between pieces.
//! 3. A tasklet that is done answers barriers too: what it had is kept by each checkpoint as it was.

use super::frames::{PIECE_BYTES, SaveError, Saved, Snapshot};
use super::{Cut, Epoch};
use crate::push::Counters;
use crate::tasklet::Tasklet;
use pelton_storage::{Completion, Disk, Sealed, SegmentWriter, StateId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What the coordinator tells the shards. Written by the control thread.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The epoch whose barrier is to pass; 0 before the first. Release: `sweep`, `full`, `whole`, `least`, `last` and `asked` were stored before.
    epoch: AtomicU64,
    sweep: AtomicU64,
    full: AtomicBool,
    whole: AtomicBool,
    least: AtomicU32,
    last: AtomicBool,
    asked: AtomicU64,
    /// Sources are to end where they are.
    draining: AtomicBool,
    /// Sources are not to read: as many epochs are uncommitted as may be. Says nothing else, and may be seen a step late.
    hold: AtomicBool,
    /// All has been committed and nothing more will be: the job may go.
    over: AtomicBool,
}

impl Told {
    pub fn begin(&self, cut: Cut) {
        self.sweep.store(cut.sweep, Ordering::Relaxed);
        self.full.store(cut.is_full, Ordering::Relaxed);
        self.whole.store(cut.is_whole, Ordering::Relaxed);
        self.least.store(cut.sweep_least, Ordering::Relaxed);
        self.last.store(cut.is_last, Ordering::Relaxed);
        self.asked.store(cut.asked, Ordering::Relaxed);
        self.epoch.store(cut.epoch.0, Ordering::Release);
    }

    fn cut(&self) -> Cut {
        let epoch = self.epoch.load(Ordering::Acquire);
        Cut {
            epoch: Epoch(epoch),
            sweep: self.sweep.load(Ordering::Relaxed),
            is_full: self.full.load(Ordering::Relaxed),
            is_whole: self.whole.load(Ordering::Relaxed),
            sweep_least: self.least.load(Ordering::Relaxed),
            is_last: self.last.load(Ordering::Relaxed),
            asked: self.asked.load(Ordering::Relaxed),
        }
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn hold(&self, hold: bool) {
        self.hold.store(hold, Ordering::Relaxed);
    }

    /// Whether sources are to wait: they still pass barriers and end.
    pub fn holds(&self) -> bool {
        self.hold.load(Ordering::Relaxed)
    }

    pub fn finish(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// What a shard tells the coordinator.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its share of an epoch is durable.
    Sealed(Box<Share>),
    /// All its tasklets are done.
    Done { shard: usize },
}

/// A shard's share of an epoch.
#[derive(Debug)]
pub(crate) struct Share {
    pub shard: usize,
    pub epoch: Epoch,
    /// `None`: nothing had changed.
    pub sealed: Option<Sealed>,
    pub committables: Vec<(StateId, Vec<u8>)>,
    /// The last sweep that its states are through with.
    pub swept: u64,
    /// Bytes given to the disk since the last share.
    pub bytes: u64,
    pub frames: u64,
    /// Counted by each of its stages since the process began, up to the epoch's barrier.
    pub counted: Vec<(usize, Counters)>,
}

/// Where events go. Called on the shard: it must not block.
pub(crate) type Report = Box<dyn FnMut(Event) + Send>;

/// The tasklets of a job on a shard, each with whether it is done.
pub(crate) trait Tasklets {
    fn count(&self) -> usize;
    fn tasklet(&mut self, at: usize) -> (&mut dyn Tasklet, bool);
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Something moved: turn again soon.
    Worked,
    /// Something is waited for that rings no doorbell: turn again in a little while.
    Waiting,
    /// Nothing to do until the disk or the coordinator says so.
    Idle,
}

/// The epoch under way.
struct Writing {
    cut: Cut,
    /// Whether each tasklet has written everything.
    saved: Vec<bool>,
    left: usize,
    committables: Vec<(StateId, Vec<u8>)>,
    frames: u64,
    swept: u64,
    counted: Vec<(usize, Counters)>,
    /// Everything is written and is being made durable.
    sealing: bool,
}

/// See the module.
pub(crate) struct Part {
    shard: usize,
    told: Arc<Told>,
    report: Report,
    writer: SegmentWriter,
    disk: Box<dyn Disk + Send>,
    completions: Vec<Completion>,
    writing: Option<Writing>,
    /// The last epoch whose barrier passed to the sources.
    begun: Epoch,
    drained: bool,
    reported_done: bool,
    bytes: u64,
}

impl Part {
    pub fn new(
        shard: usize,
        told: Arc<Told>,
        writer: SegmentWriter,
        disk: Box<dyn Disk + Send>,
        report: Report,
    ) -> Self {
        Part {
            shard,
            told,
            report,
            writer,
            disk,
            completions: Vec::new(),
            writing: None,
            begun: Epoch(0),
            drained: false,
            reported_done: false,
            bytes: 0,
        }
    }

    /// Whether everything is committed and the job may go.
    pub fn is_over(&self) -> bool {
        self.told.is_over()
    }

    /// Whether the job's sources are not to read: see [`Told::holds`].
    #[inline]
    pub fn holds(&self) -> bool {
        self.told.holds()
    }

    /// One turn: to be taken after each turn of the job's tasklets, with all of them.
    pub fn turn(
        &mut self,
        tasklets: &mut dyn Tasklets,
        all_done: bool,
        now_ns: u64,
    ) -> Result<Turn, SaveError> {
        let mut turn = Turn::Idle;
        // Looked at first: who sees an epoch that began behind a drain sees the drain too, and no epoch has some sources from
        // before it and some from behind it.
        let cut = self.told.cut();
        if !self.drained && self.told.draining.load(Ordering::Acquire) {
            self.drained = true;
            for at in 0..tasklets.count() {
                tasklets.tasklet(at).0.drain();
            }
            turn = Turn::Worked;
        }
        if all_done && !self.reported_done {
            self.reported_done = true;
            (self.report)(Event::Done { shard: self.shard });
        }
        if self.writing.is_none() && cut.epoch > self.begun {
            self.begin(cut, tasklets);
            turn = Turn::Worked;
        }
        if let Some(writing) = &mut self.writing
            && !writing.sealing
        {
            let saved = save(writing, &mut self.writer, tasklets, now_ns)?;
            if writing.left == 0 {
                self.seal()?;
                turn = Turn::Worked;
            } else {
                turn = match saved {
                    true => Turn::Worked,
                    false if turn == Turn::Idle => Turn::Waiting,
                    false => turn,
                };
            }
        }
        if self.writing.is_some() || !self.writer.is_idle() {
            self.serve_disk()?;
        }
        Ok(turn)
    }

    /// The barrier passes to the sources.
    fn begin(&mut self, cut: Cut, tasklets: &mut dyn Tasklets) {
        self.begun = cut.epoch;
        let count = tasklets.count();
        for at in 0..count {
            let (tasklet, done) = tasklets.tasklet(at);
            // Barriers of other shards may have come here first: one that took them and is done since has had its own.
            let has_passed = tasklet.reached() >= cut.epoch;
            if (tasklet.is_source() || done) && !has_passed {
                tasklet.barrier(cut);
            }
        }
        self.writing = Some(Writing {
            cut,
            saved: vec![false; count],
            left: count,
            committables: vec![],
            frames: 0,
            swept: cut.sweep,
            counted: vec![],
            sealing: false,
        });
    }

    /// Everything is written: makes it durable, or says that there is nothing.
    fn seal(&mut self) -> Result<(), SaveError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        writing.sealing = true;
        if writing.frames == 0 {
            self.share(None);
            return Ok(());
        }
        let epoch = writing.cut.epoch;
        self.writer.seal(epoch).map_err(SaveError::Storage)
    }

    fn share(&mut self, sealed: Option<Sealed>) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        let bytes = self.writer.bytes_written();
        let share = Share {
            shard: self.shard,
            epoch: writing.cut.epoch,
            sealed,
            committables: writing.committables,
            swept: writing.swept,
            bytes: bytes - std::mem::replace(&mut self.bytes, bytes),
            frames: writing.frames,
            counted: writing.counted,
        };
        (self.report)(Event::Sealed(Box::new(share)));
    }

    fn serve_disk(&mut self) -> Result<(), SaveError> {
        self.writer.step(&mut *self.disk);
        self.disk.poll(&mut self.completions);
        if !self.completions.is_empty() {
            for completion in self.completions.drain(..) {
                self.writer.complete(completion);
            }
            self.writer.step(&mut *self.disk);
        }
        if let Some(cause) = self.writer.failure() {
            return Err(SaveError::Storage(cause.clone()));
        }
        if let Some(sealed) = self.writer.take_sealed() {
            self.share(Some(sealed));
        }
        Ok(())
    }
}

/// Has the tasklets that the barrier has reached write, a piece in all; whether any wrote something.
fn save(
    writing: &mut Writing,
    writer: &mut SegmentWriter,
    tasklets: &mut dyn Tasklets,
    now_ns: u64,
) -> Result<bool, SaveError> {
    let (mut worked, mut left) = (false, PIECE_BYTES);
    let epoch = writing.cut.epoch;
    for at in 0..writing.saved.len() {
        if writing.saved[at] {
            continue;
        }
        let (tasklet, done) = tasklets.tasklet(at);
        if tasklet.reached() < epoch {
            if !done {
                continue;
            }
            tasklet.barrier(writing.cut);
        }
        let mut failure = None;
        let mut snapshot = Snapshot::new(
            writing.cut,
            writer,
            &mut failure,
            &mut writing.committables,
            left,
            now_ns,
        );
        let saved = tasklet.save(&mut snapshot);
        let frames = snapshot.frames();
        left = snapshot.left();
        writing.swept = writing.swept.min(snapshot.swept());
        if let Some(failure) = failure {
            return Err(failure);
        }
        writing.frames += frames;
        worked |= frames > 0 || saved == Saved::All;
        if saved == Saved::All {
            writing.saved[at] = true;
            // No other barrier has passed there: one epoch at a time.
            let counted = (tasklet.stage(), tasklet.cx().at_barrier());
            writing.counted.push(counted);
            writing.left -= 1;
        }
    }
    Ok(worked)
}
