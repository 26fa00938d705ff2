//! What tasklets write their states through, and what they get back at a restore.

use super::Cut;
use crate::error::JobError;
use pelton_storage::{BlockHead, KeyGroup, Refused, SegmentWriter, StateId, StorageError};

/// The key group of blocks that hold keys of any: entries are written in the order of memory, and a restore decides by each
/// key's own group.
pub(crate) const MIXED: KeyGroup = KeyGroup(u16::MAX);

/// Bytes that one piece writes at most, but for its last entry: some 60 µs of small entries. Smaller pieces take longer in all:
/// records between them change entries before their turn, which costs twice.
const PIECE_BYTES: usize = 128 << 10;

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
    /// Takes one, or says why not.
    fn take(&mut self, head: BlockHead, frame: pelton_storage::Frame<'_>) -> Result<(), Refused>;
}

impl TakeFrames for SegmentWriter {
    #[inline]
    fn take(&mut self, head: BlockHead, frame: pelton_storage::Frame<'_>) -> Result<(), Refused> {
        self.push(head, frame)
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
    cut: Cut,
    writer: &'a mut dyn TakeFrames,
    failure: &'a mut Option<SaveError>,
    /// What sinks hand over for the decision, see [`crate::sink::Writer::pre_commit`].
    committables: &'a mut Vec<(StateId, Vec<u8>)>,
    /// Bytes that may still be written in this piece; at most 0 where none may.
    left: isize,
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
        now_ns: u64,
    ) -> Self {
        Snapshot {
            cut,
            writer,
            failure,
            committables,
            left: PIECE_BYTES as isize,
            frames: 0,
            swept: cut.sweep,
            now_ns,
        }
    }

    /// Writes an entry, or that there is none any more; `false` if it was not taken, since the piece is full or the disk is
    /// busy: to be given again in the next piece.
    #[inline]
    pub(crate) fn put(&mut self, state: StateId, key: &[u8], value: Option<&[u8]>) -> bool {
        if self.left <= 0 {
            return false;
        }
        let head = BlockHead {
            epoch: self.cut.epoch,
            state,
            group: MIXED,
        };
        let frame = pelton_storage::Frame {
            epoch: self.cut.epoch,
            key,
            value,
        };
        match self.writer.take(head, frame) {
            Ok(()) => {
                self.left -= frame.encoded_len() as isize;
                self.frames += 1;
                true
            }
            Err(refused) => {
                self.left = 0;
                if let Refused::Failed(cause) = refused {
                    self.failure.get_or_insert(SaveError::Storage(cause));
                }
                false
            }
        }
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

/// Frames that wait, in order.
#[derive(Debug, Default)]
pub(crate) struct FrameQueue {
    bytes: Vec<u8>,
    /// Where the first that is left begins.
    from: usize,
}

impl FrameQueue {
    const NO_VALUE: u32 = u32::MAX;

    /// Puts one at the end.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let len = value.map_or(Self::NO_VALUE, |v| v.len() as u32);
        self.bytes
            .extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// Writes as many as the snapshot takes; whether none is left.
    pub fn write(&mut self, state: StateId, to: &mut Snapshot<'_>) -> bool {
        while self.from < self.bytes.len() {
            let word = |at: usize| {
                let bytes = self.bytes[at..at + 4].try_into().unwrap_or_default();
                u32::from_le_bytes(bytes)
            };
            let (key, value) = (word(self.from) as usize, word(self.from + 4));
            let key_at = self.from + 8;
            let value_at = key_at + key;
            let (value, end) = match value {
                Self::NO_VALUE => (None, value_at),
                len => {
                    let end = value_at + len as usize;
                    (Some(&self.bytes[value_at..end]), end)
                }
            };
            if !to.put(state, &self.bytes[key_at..value_at], value) {
                return false;
            }
            self.from = end;
        }
        self.bytes.clear();
        self.from = 0;
        true
    }
}
