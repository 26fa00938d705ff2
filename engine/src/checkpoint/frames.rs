//! What tasklets write their states through, and what they get back at a restore.

use super::Cut;
use crate::error::JobError;
use pelton_storage::{
    BlockHead, Epoch, KeyGroup, Refused, Room, SegmentWriter, Space, StateId, StorageError,
    frame_len, set_epoch,
};
use std::collections::VecDeque;

/// The key group of blocks that hold keys of any: entries are written in the order of memory, and a restore decides by each
/// key's own group.
pub(crate) const MIXED: KeyGroup = KeyGroup(u16::MAX);

/// Bytes that one piece writes at most, but for its last entry: some 60 to 100 µs of small entries. Smaller pieces take longer in all:
/// records between them change entries before their turn, which costs twice.
pub(crate) const PIECE_BYTES: isize = 256 << 10;

/// Frames up to this length are what most are: a key and a value of a few words.
const LIKELY: u64 = 256;
const LIKELY_MAX: u64 = 4096;

/// Whether all of an epoch has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// All of it.
    All,
    /// There is more, or something is waited for: ask again.
    More,
}

impl Saved {
    /// All only if both are.
    pub(crate) fn and(self, other: Saved) -> Saved {
        match self {
            Saved::All => other,
            Saved::More => Saved::More,
        }
    }
}

/// Why an epoch cannot be written.
#[derive(Clone, Debug)]
pub(crate) enum SaveError {
    Storage(StorageError),
    Sink { sink: String, what: String },
}

/// Where frames go: a shard's log.
pub(crate) trait TakeFrames {
    /// Room for a frame of so many bytes, or why there is none.
    fn room(&mut self, head: &BlockHead, len: u64) -> Result<Room<'_>, Refused>;
}

impl TakeFrames for SegmentWriter {
    #[inline]
    fn room(&mut self, head: &BlockHead, len: u64) -> Result<Room<'_>, Refused> {
        SegmentWriter::room(self, head, len)
    }
}

impl SaveError {
    /// What to say of the job.
    pub fn of_job(self, job: &str, shard: usize) -> JobError {
        match self {
            SaveError::Storage(e) => JobError::Checkpoint {
                job: job.into(),
                what: e.to_string(),
            },
            SaveError::Sink { sink, what } => JobError::Sink {
                job: job.into(),
                sink,
                shard,
                what,
            },
        }
    }
}

/// A piece of an epoch on one shard, being written.
#[allow(missing_debug_implementations)]
pub struct Snapshot<'a> {
    /// Of the blocks that are written. Lent to the writer: copied for each frame, it cost as much as the frame.
    head: BlockHead,
    writer: &'a mut dyn TakeFrames,
    failure: &'a mut Option<SaveError>,
    /// What sinks hand over for the decision, see [`crate::sink::Writer::pre_commit`].
    committables: &'a mut Vec<(StateId, Vec<u8>)>,
    /// Bytes that may still be written in this piece; at most 0 where none may.
    left: isize,
    /// Bytes that the next frame is likely not to exceed.
    likely: u64,
    frames: u64,
    /// The least sweep that a state is through with.
    swept: u64,
    /// The driver's time, nanoseconds.
    pub(crate) now_ns: u64,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(
        cut: Cut,
        writer: &'a mut dyn TakeFrames,
        failure: &'a mut Option<SaveError>,
        committables: &'a mut Vec<(StateId, Vec<u8>)>,
        left: isize,
        now_ns: u64,
    ) -> Self {
        Snapshot {
            head: BlockHead {
                epoch: cut.epoch,
                state: StateId(0),
                group: MIXED,
            },
            writer,
            failure,
            committables,
            left,
            likely: LIKELY,
            frames: 0,
            swept: cut.sweep,
            now_ns,
        }
    }

    /// Writes a frame, which `encode` puts together, given its epoch; `false` if it was not taken, since the piece is full or the
    /// disk is busy: to be given again in the next piece. It is put together where it is to lie, unless it turns out to be longer
    /// than there is room for.
    #[inline]
    pub(crate) fn put(
        &mut self,
        state: StateId,
        mut encode: impl FnMut(&mut Space<'_>, Epoch),
    ) -> bool {
        if self.left <= 0 {
            return false;
        }
        self.head.state = state;
        let mut needed = self.likely;
        loop {
            let mut room = match self.writer.room(&self.head, needed) {
                Ok(room) => room,
                Err(refused) => return self.refused(refused),
            };
            let mut to = Space::new(room.bytes());
            encode(&mut to, self.head.epoch);
            let (used, fits) = (to.used(), to.fits());
            if fits {
                room.took(used, 1);
                self.left -= used as isize;
                self.frames += 1;
                return true;
            }
            // The next one is likely to be as long. What is asked for is kept small beside a block: more would end blocks early.
            needed = used as u64;
            self.likely = needed.min(LIKELY_MAX);
        }
    }

    /// Writes as many as are taken of the frames that these bytes are, one after another; how many bytes that is.
    fn put_all(&mut self, state: StateId, bytes: &[u8]) -> usize {
        self.head.state = state;
        let epoch = self.head.epoch;
        let mut taken = 0;
        while taken < bytes.len() && self.left > 0 {
            let first = frame_len(&bytes[taken..]);
            let mut room = match self.writer.room(&self.head, first as u64) {
                Ok(room) => room,
                Err(refused) => {
                    self.refused(refused);
                    break;
                }
            };
            // At least the first of them, and no more than the piece has left.
            let most = room.bytes().len().min(self.left as usize);
            let (mut len, mut frames) = (first, 1);
            while taken + len < bytes.len() {
                let next = len + frame_len(&bytes[taken + len..]);
                if next > most {
                    break;
                }
                (len, frames) = (next, frames + 1);
            }
            let to = &mut room.bytes()[..len];
            to.copy_from_slice(&bytes[taken..taken + len]);
            let mut at = 0;
            while at < len {
                set_epoch(&mut to[at..], epoch);
                at += frame_len(&to[at..]);
            }
            room.took(len, frames);
            self.left -= len as isize;
            self.frames += u64::from(frames);
            taken += len;
        }
        taken
    }

    /// Nothing more is taken in this piece.
    #[cold]
    fn refused(&mut self, refused: Refused) -> bool {
        self.left = 0;
        if let Refused::Failed(cause) = refused {
            self.failure.get_or_insert(SaveError::Storage(cause));
        }
        false
    }

    /// Hands over what is to be committed once the epoch is decided.
    pub(crate) fn committable(&mut self, sink: StateId, bytes: Vec<u8>) {
        self.committables.push((sink, bytes));
    }

    /// A state is through with this sweep and no later one.
    pub(crate) fn swept_to(&mut self, sweep: u64) {
        self.swept = self.swept.min(sweep);
    }

    /// The sweep that all who wrote in this piece are through with.
    pub(crate) fn swept(&self) -> u64 {
        self.swept
    }

    /// A sink could not prepare its share: the job ends.
    pub(crate) fn sink_failed(&mut self, sink: String, what: String) {
        self.failure.get_or_insert(SaveError::Sink { sink, what });
    }

    /// Bytes that may still be written in this piece; at most 0 where none may.
    pub(crate) fn left(&self) -> isize {
        self.left
    }

    /// Frames written in this piece.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }
}

/// An entry as it was saved.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub(crate) state: StateId,
    pub(crate) key: &'a [u8],
    /// `None`: there is none any more.
    pub(crate) value: Option<&'a [u8]>,
    /// The shape of its state as it was stored, if that may be another than the state's.
    pub(crate) stored: Option<&'a str>,
}

/// Frames that wait, in order, as they will lie in the log but for their epoch, which is known when they are written. No entry is
/// here twice, so they take no more than the entries of the state would. In buffers of one size, so that no step moves all.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    buffers: VecDeque<Waiting>,
    /// Where in the first buffer the first frame that is left begins.
    from: usize,
    /// Empty ones.
    spare: Vec<Waiting>,
}

/// A buffer of a queue.
#[derive(Debug)]
struct Waiting {
    bytes: Box<[u8]>,
    used: usize,
}

/// Bytes of a queue's buffer, unless one frame is longer. The first is smaller: most queues never hold more than a time or two.
const BUFFER_BYTES: usize = 64 << 10;
const FIRST_BYTES: usize = 1 << 10;
/// Spare buffers that a queue keeps.
const SPARE: usize = 32;

impl FrameQueue {
    /// Puts one at the end, which `encode` puts together.
    #[inline]
    pub fn push(&mut self, mut encode: impl FnMut(&mut Space<'_>)) {
        let mut needed = 0;
        loop {
            if let Some(last) = self.buffers.back_mut() {
                let mut to = Space::new(&mut last.bytes[last.used..]);
                encode(&mut to);
                let (used, fits) = (to.used(), to.fits());
                if fits {
                    last.used += used;
                    return;
                }
                needed = used;
            }
            self.add(needed);
        }
    }

    #[cold]
    fn add(&mut self, needed: usize) {
        let usual = match self.buffers.is_empty() {
            true => FIRST_BYTES,
            false => BUFFER_BYTES,
        };
        let waiting = match self.spare.pop() {
            Some(spare) if spare.bytes.len() >= needed => spare,
            _ => Waiting {
                bytes: vec![0; needed.max(usual)].into_boxed_slice(),
                used: 0,
            },
        };
        self.buffers.push_back(waiting);
    }

    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// Writes as many as the snapshot takes; whether none is left.
    pub fn write(&mut self, state: StateId, to: &mut Snapshot<'_>) -> bool {
        while let Some(first) = self.buffers.front() {
            self.from += to.put_all(state, &first.bytes[self.from..first.used]);
            if self.from < first.used {
                return false;
            }
            self.from = 0;
            if let Some(mut done) = self.buffers.pop_front()
                && self.spare.len() < SPARE
                && done.bytes.len() <= BUFFER_BYTES
            {
                done.used = 0;
                self.spare.push(done);
            }
        }
        true
    }
}
