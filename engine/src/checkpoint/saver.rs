//! What an operator needs to save the entries of its states: bytes of keys and values, and the frames that go before the rest.
//!
//! Laws
//! 1. Of one epoch, tombstones and what was saved before its turn are written in the order in which they came about, and
//!    before anything that is written in its turn: in the log the last frame of a key counts.
//! 2. A tombstone belongs to the epoch after the barrier that passed last.

use super::frames::{Frame, FrameQueue, Saved, Snapshot};
use super::value::{Stored, Value};
use crate::state::{Codec, LoadError, Loader, State, shape_of};
use pelton_storage::StateId;
use rkyv::util::AlignedVec;
use std::any::Any;

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Saver {
    state: StateId,
    codec: Codec,
    key: AlignedVec,
    value: AlignedVec,
    /// A part of a value.
    part: AlignedVec,
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
            key: AlignedVec::new(),
            value: AlignedVec::new(),
            part: AlignedVec::new(),
            first: FrameQueue::default(),
            next: FrameQueue::default(),
            older: None,
        }
    }

    /// The state that it saves.
    pub fn state(&self) -> StateId {
        self.state
    }

    /// Bytes of a key that begins with `prefix`.
    fn key<K: State>(&mut self, prefix: &[u8], key: &K) {
        self.codec.save(key, &mut self.value);
        self.key.clear();
        self.key.extend_from_slice(prefix);
        self.key.extend_from_slice(&self.value);
    }

    /// Writes to `out` a key that is two, after `prefix`: the first with its length, then the second.
    pub fn pair<A: State, B: State>(&mut self, prefix: u8, a: &A, b: &B, out: &mut Vec<u8>) {
        out.clear();
        out.push(prefix);
        self.codec.save(a, &mut self.part);
        out.extend_from_slice(&(self.part.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.part);
        self.codec.save(b, &mut self.part);
        out.extend_from_slice(&self.part);
    }

    /// What [`Saver::pair`] wrote after its prefix.
    pub fn load_pair<A: State, B: State>(&mut self, key: &[u8]) -> Result<(A, B), LoadError> {
        let short = || LoadError::new("a key of two parts is too short");
        let (length, rest) = key.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (a, b) = rest.split_at_checked(length).ok_or_else(short)?;
        Ok((self.codec.load(a)?, self.codec.load(b)?))
    }

    fn value<V: Stored>(&mut self, value: &V) {
        value.store(&mut Value::new(
            &mut self.codec,
            &mut self.part,
            &mut self.value,
        ));
    }

    /// Saves an entry before it changes.
    #[cold]
    pub fn before<K: State, V: Stored>(&mut self, prefix: &[u8], key: &K, value: &V) {
        self.key(prefix, key);
        self.value(value);
        self.first.push(&self.key, Some(&self.value));
    }

    /// An entry has gone.
    pub fn gone<K: State>(&mut self, prefix: &[u8], key: &K) {
        self.key(prefix, key);
        self.next.push(&self.key, None);
    }

    /// What has this key, as bytes, has gone.
    pub fn gone_bytes(&mut self, key: &[u8]) {
        self.next.push(key, None);
    }

    /// Saves an entry before it changes, its key as bytes.
    #[cold]
    pub fn before_bytes<V: Stored>(&mut self, key: &[u8], value: &V) {
        self.value(value);
        self.first.push(key, Some(&self.value));
    }

    /// Notes an entry of the epoch under way, as bytes: small things that are saved at once.
    pub fn note<V: State>(&mut self, key: &[u8], value: &V) {
        self.codec.save(value, &mut self.value);
        self.first.push(key, Some(&self.value));
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

    /// Writes an entry in its turn; whether it was taken.
    #[inline]
    pub fn write<K: State, V: Stored>(
        &mut self,
        prefix: &[u8],
        key: &K,
        value: &V,
        to: &mut Snapshot<'_>,
    ) -> bool {
        self.key(prefix, key);
        self.value(value);
        to.put(self.state, &self.key, Some(&self.value))
    }

    /// The same, its key as bytes.
    pub fn write_bytes<V: Stored>(&mut self, key: &[u8], value: &V, to: &mut Snapshot<'_>) -> bool {
        self.value(value);
        to.put(self.state, key, Some(&self.value))
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
