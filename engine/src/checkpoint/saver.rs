//! What an operator needs to save the entries of its states: bytes of keys and values, and the frames that go before the rest.
//!
//! Laws
//! 1. Of one epoch, tombstones and what was saved before its turn are written in the order in which they came about, and
//!    before anything that is written in its turn: in the log the last frame of a key counts.
//! 2. A tombstone belongs to the epoch after the barrier that passed last.

use super::frames::{Frame, FrameQueue, Saved, Snapshot};
use super::value::{Stored, Value};
use crate::state::{Codec, Encoder, LoadError, Loader, State, shape_of};
use pelton_storage::{Epoch, OpenFrame, Space, StateId};
use std::any::Any;

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Saver {
    state: StateId,
    codec: Codec,
    /// Of the epoch under way (law 1).
    first: FrameQueue,
    /// Of the next one (law 2).
    next: FrameQueue,
    /// While values of an older shape are loaded: a `Loader` for them.
    older: Option<Box<dyn Any + Send>>,
}

impl Saver {
    pub fn new(state: StateId) -> Self {
        Saver {
            state,
            codec: Codec::default(),
            first: FrameQueue::default(),
            next: FrameQueue::default(),
            older: None,
        }
    }

    /// The state that it saves.
    pub fn state(&self) -> StateId {
        self.state
    }

    /// Writes to `out` a key that is two, after `prefix`: the first with its length, then the second.
    pub fn pair<A: State, B: State>(&mut self, prefix: u8, a: &A, b: &B, out: &mut Vec<u8>) {
        let mut encoder = self.codec.encoder();
        out.resize(out.capacity().max(64), 0);
        loop {
            let mut to = Space::new(out);
            pair(&mut encoder, &mut to, prefix, a, b);
            let (used, fits) = (to.used(), to.fits());
            out.resize(used, 0);
            if fits {
                return;
            }
        }
    }

    /// What [`Saver::pair`] wrote after its prefix.
    pub fn load_pair<A: State, B: State>(&mut self, key: &[u8]) -> Result<(A, B), LoadError> {
        let short = || LoadError::new("a key of two parts is too short");
        let (length, rest) = key.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (a, b) = rest.split_at_checked(length).ok_or_else(short)?;
        Ok((self.codec.load(a)?, self.codec.load(b)?))
    }

    /// Saves an entry before it changes.
    #[cold]
    pub fn before<K: State, V: Stored>(&mut self, prefix: &[u8], key: &K, value: &V) {
        let mut encoder = self.codec.encoder();
        self.first
            .push(|to| entry(&mut encoder, to, Epoch(0), prefix, key, value));
    }

    /// An entry has gone.
    pub fn gone<K: State>(&mut self, prefix: &[u8], key: &K) {
        let mut encoder = self.codec.encoder();
        self.next.push(|to| {
            let mut frame = OpenFrame::begin(to, Epoch(0));
            to.extend(prefix);
            encoder.save(key, to);
            frame.key_ends(to);
            frame.finish(to, false);
        });
    }

    /// What has this key, as bytes, has gone.
    pub fn gone_bytes(&mut self, key: &[u8]) {
        self.next.push(|to| {
            let mut frame = OpenFrame::begin(to, Epoch(0));
            to.extend(key);
            frame.key_ends(to);
            frame.finish(to, false);
        });
    }

    /// Saves an entry before it changes, its key as bytes.
    #[cold]
    pub fn before_bytes<V: Stored>(&mut self, key: &[u8], value: &V) {
        let mut encoder = self.codec.encoder();
        self.first
            .push(|to| entry_of_bytes(&mut encoder, to, Epoch(0), key, value));
    }

    /// Notes an entry of the epoch under way, as bytes: small things that are saved at once.
    pub fn note<V: State>(&mut self, key: &[u8], value: &V) {
        self.before_bytes(key, value);
    }

    /// A barrier has passed.
    pub fn begin(&mut self) {
        debug_assert!(self.first.is_empty(), "the epoch before has been written");
        std::mem::swap(&mut self.first, &mut self.next);
    }

    /// Writes what goes first.
    pub fn write_first(&mut self, to: &mut Snapshot<'_>) -> Saved {
        match self.first.write(self.state, to) {
            true => Saved::All,
            false => Saved::More,
        }
    }

    /// For entries in their turn.
    #[inline]
    pub fn in_turn(&mut self) -> InTurn<'_> {
        InTurn {
            state: self.state,
            encoder: self.codec.encoder(),
        }
    }

    /// The value of an entry whose state was declared by [`super::Keeping::of_values`], whatever version of it was saved.
    pub fn load_value<K: State, V: State>(
        &mut self,
        frame: &Frame<'_>,
        value: &[u8],
    ) -> Result<V, LoadError> {
        if let Some(loader) = self
            .older
            .as_mut()
            .and_then(|l| l.downcast_mut::<Loader<V>>())
        {
            return loader.load(value);
        }
        match frame.stored {
            None => self.load(value),
            Some(stored) => {
                let mut loader = older::<K, V>(stored)?;
                let loaded = loader.load(value);
                self.older = Some(Box::new(loader));
                loaded
            }
        }
    }

    /// The value that was saved as these bytes.
    pub fn load<T: State>(&mut self, bytes: &[u8]) -> Result<T, LoadError> {
        self.codec.load(bytes)
    }
}

/// Writes entries in their turn, one after another.
#[allow(missing_debug_implementations)]
pub(crate) struct InTurn<'a> {
    state: StateId,
    encoder: Encoder<'a>,
}

impl InTurn<'_> {
    /// Writes an entry; whether it was taken.
    #[inline(always)]
    pub fn write<K: State, V: Stored>(
        &mut self,
        prefix: &[u8],
        key: &K,
        value: &V,
        to: &mut Snapshot<'_>,
    ) -> bool {
        let encoder = &mut self.encoder;
        to.put(
            self.state,
            #[inline(always)]
            |to, epoch| entry(encoder, to, epoch, prefix, key, value),
        )
    }

    /// The same, its key a pair as [`Saver::pair`] writes it.
    #[inline]
    pub fn write_pair<A: State, B: State, V: Stored>(
        &mut self,
        prefix: u8,
        (a, b): (&A, &B),
        value: &V,
        to: &mut Snapshot<'_>,
    ) -> bool {
        let encoder = &mut self.encoder;
        to.put(self.state, |to, epoch| {
            let mut frame = OpenFrame::begin(to, epoch);
            pair(encoder, to, prefix, a, b);
            frame.key_ends(to);
            value.store(&mut Value::new(encoder, to));
            frame.finish(to, true);
        })
    }

    /// The same, its key as bytes.
    pub fn write_bytes<V: Stored>(&mut self, key: &[u8], value: &V, to: &mut Snapshot<'_>) -> bool {
        let encoder = &mut self.encoder;
        to.put(self.state, |to, epoch| {
            entry_of_bytes(encoder, to, epoch, key, value);
        })
    }
}

/// Writes a key that is two.
fn pair<A: State, B: State>(
    encoder: &mut Encoder<'_>,
    to: &mut Space<'_>,
    prefix: u8,
    a: &A,
    b: &B,
) {
    let start = to.used() + 5;
    to.extend(&[prefix, 0, 0, 0, 0]);
    encoder.save(a, to);
    let length = (to.used() - start) as u32;
    to.replace(start - 4, &length.to_le_bytes());
    encoder.save(b, to);
}

/// Writes the frame of an entry whose key begins with `prefix`.
#[inline(always)]
fn entry<K: State, V: Stored>(
    encoder: &mut Encoder<'_>,
    to: &mut Space<'_>,
    epoch: Epoch,
    prefix: &[u8],
    key: &K,
    value: &V,
) {
    let mut frame = OpenFrame::begin(to, epoch);
    to.extend(prefix);
    encoder.save(key, to);
    frame.key_ends(to);
    value.store(&mut Value::new(encoder, to));
    frame.finish(to, true);
}

/// The same, its key as bytes.
fn entry_of_bytes<V: Stored>(
    encoder: &mut Encoder<'_>,
    to: &mut Space<'_>,
    epoch: Epoch,
    key: &[u8],
    value: &V,
) {
    let mut frame = OpenFrame::begin(to, epoch);
    to.extend(key);
    frame.key_ends(to);
    value.store(&mut Value::new(encoder, to));
    frame.finish(to, true);
}

/// Loads values that were stored beside keys with this shape of both: the keys' has not changed, the values' may have.
fn older<K: State, V: State>(stored: &str) -> Result<Loader<V>, LoadError> {
    let key = shape_of::<K>();
    // The shape of a pair: see `state/containers.rs`.
    let value = stored
        .strip_prefix("(")
        .and_then(|rest| rest.strip_prefix(key.as_str()))
        .and_then(|rest| rest.strip_prefix(", "))
        .and_then(|rest| rest.strip_suffix(")"));
    let value = value.ok_or_else(|| {
        LoadError::new(format!(
            "stored as `{stored}`, with keys that are not `{key}`: keys cannot be migrated"
        ))
    })?;
    Loader::new(value)
}

/// Whether entries that were stored with this shape of keys and values can be loaded as these.
pub(crate) fn migrates<K: State, V: State>(stored: &str) -> bool {
    older::<K, V>(stored).is_ok()
}
