//! What a keyed operator needs to take part in checkpoints, besides the marks of its tables.
//!
//! The keys of its frames begin with a byte that says what they are of, so that one state holds all that an operator keeps.

use super::{Cut, Saver, saver};
use crate::key::{Key, KeySpace, stable_hash};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State, shape_of};
use crate::time::EventTime;

/// M, of one shard: its key goes on with the shard's number.
const WATERMARK: u8 = b'M';

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Keeping {
    pub saver: Saver,
    space: KeySpace,
    shard: usize,
    /// The last sweep that was asked for.
    pub sweep: u64,
    /// M as a checkpoint has it.
    watermark: EventTime,
}

impl Keeping {
    /// What operator `op` needs to keep entries that look like `E`; `None` where the job takes no checkpoints.
    pub fn of<E: State>(build: &mut ShardBuild<'_, '_>, op: OpId) -> Option<Keeping> {
        Self::named::<E>("keyed", build, op)
    }

    /// The same for entries that are keys and values, of which the values may be of another version than was stored: they are
    /// loaded by [`Saver::load_value`].
    pub fn of_values<K: State, V: State>(
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
    ) -> Option<Keeping> {
        Self::of_named_values::<K, V>("keyed", build, op)
    }

    /// The same for a state of another name.
    pub fn of_named_values<K: State, V: State>(
        name: &str,
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
    ) -> Option<Keeping> {
        let keeping = Self::named::<(K, V)>(name, build, op)?;
        build.migrates(keeping.saver.state(), saver::migrates::<K, V>);
        Some(keeping)
    }

    /// The same for a state of another name: an operator may have several.
    pub fn named<E: State>(
        name: &str,
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
    ) -> Option<Keeping> {
        if !build.config.checkpoints {
            return None;
        }
        let state = build.state(Some(op), name, &shape_of::<E>());
        Some(Keeping {
            saver: Saver::new(state),
            space: build.key_space(),
            shard: build.shard,
            sweep: 0,
            watermark: EventTime::BEGINNING,
        })
    }

    /// Whether this shard has the key.
    pub fn owns<K: Key>(&self, key: &K) -> bool {
        self.space.shard(self.space.group(stable_hash(key))) == self.shard
    }

    /// Who this shard is, for a tombstone of many keys: they were its own when it was written.
    pub fn owner(&self) -> [u8; 8] {
        let mut owner = [0; 8];
        owner[..4].copy_from_slice(&(self.shard as u32).to_le_bytes());
        owner[4..].copy_from_slice(&self.space.shards().to_le_bytes());
        owner
    }

    /// Tells the keys that belonged to an [`owner`](Self::owner).
    pub fn owned_by<K: Key>(
        &self,
        owner: &[u8],
    ) -> Result<impl Fn(&K) -> bool + use<K>, LoadError> {
        let Ok(owner) = <[u8; 8]>::try_from(owner) else {
            return Err(LoadError::new("a tombstone says who wrote it in 8 bytes"));
        };
        let (shard, shards) = (&owner[..4], &owner[4..]);
        let word = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap_or_default());
        let (shard, shards) = (word(shard) as usize, word(shards));
        let space = KeySpace::new(self.space.groups(), shards);
        Ok(move |key: &K| space.shard(space.group(stable_hash(key))) == shard)
    }

    /// A barrier passes; M is noted if it has risen.
    pub fn begin(&mut self, cut: Cut, watermark: EventTime) {
        self.begin_timeless(cut);
        if cut.is_full || watermark > self.watermark {
            self.watermark = watermark;
            self.note(WATERMARK, watermark);
        }
    }

    /// The same for an operator that M means nothing to.
    pub fn begin_timeless(&mut self, cut: Cut) {
        self.sweep = cut.sweep;
        self.saver.begin();
    }

    /// Notes a time of this shard as part of the epoch that begins.
    pub fn note(&mut self, tag: u8, time: EventTime) {
        let mut key = [tag; 5];
        key[1..].copy_from_slice(&(self.shard as u32).to_le_bytes());
        self.saver.note(&key, &time.micros());
    }

    /// The shard.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// M, if the frame is about that: the greatest of all shards' so far.
    pub fn load_watermark(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<EventTime>, LoadError> {
        let (Some(&WATERMARK), Some(value)) = (key.first(), value) else {
            return Ok(None);
        };
        let loaded = EventTime::from_micros(self.saver.load(value)?);
        self.watermark = self.watermark.max(loaded);
        Ok(Some(self.watermark))
    }
}
