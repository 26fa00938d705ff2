//! What a keyed operator needs to take part in checkpoints, besides the marks of its tables.
//!
//! The keys of its frames begin with a byte that says what they are of, so that one state holds all that an operator keeps.

use super::{Cut, Saver, saver};
use crate::key::{Key, KeySpace, stable_hash};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State, shape_of};
use crate::time::EventTime;
use std::collections::BTreeMap;

/// M, of one shard: its key goes on with the shard's number.
const WATERMARK: u8 = b'M';
/// How many shards there were when that one noted its M: its key goes on with the shard's number as well.
const OF_SHARDS: u8 = b'S';

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Keeping {
    pub saver: Saver,
    space: KeySpace,
    shard: usize,
    /// The last sweep that was asked for.
    pub sweep: u64,
    /// The greatest M of all shards, as it was restored.
    restored: EventTime,
    /// By shard, what the checkpoint has of it.
    noted: BTreeMap<u32, Noted>,
}

/// What a checkpoint has of a shard: M, and of how many shards it was one (0: not known).
#[derive(Clone, Copy, Debug)]
struct Noted {
    watermark: EventTime,
    shards: u32,
}

impl Default for Noted {
    fn default() -> Self {
        Noted {
            watermark: EventTime::BEGINNING,
            shards: 0,
        }
    }
}

/// Where the shards that wrote a checkpoint stood, if not all at one M: silence closes windows on one shard and not on another,
/// and clocks are read by each. M is the greatest after the restore, so what the others had not let go is overdue then.
pub(crate) struct Lags {
    space: KeySpace,
    watermarks: Vec<EventTime>,
}

impl Lags {
    /// M of the shard that wrote what there is of a key.
    pub fn of<K: Key>(&self, key: &K) -> EventTime {
        self.watermarks[self.space.shard_of(key)]
    }
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
            restored: EventTime::BEGINNING,
            noted: BTreeMap::new(),
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

    /// A barrier passes; M is noted if it has risen since it last was, or if that was among another number of shards.
    pub fn begin(&mut self, cut: Cut, watermark: EventTime) {
        self.begin_timeless(cut);
        let shards = self.space.shards();
        let noted = self.noted.entry(self.shard as u32).or_default();
        // A number that was noted is put right even while there is no M: another shard may get one first, and who reads takes the
        // first shard's word for how many wrote.
        let moved =
            noted.shards != shards && (watermark > EventTime::BEGINNING || noted.shards != 0);
        let risen = watermark > noted.watermark;
        noted.watermark = watermark;
        if cut.is_full || moved {
            noted.shards = shards;
            let key = self.key(OF_SHARDS);
            self.saver.note(&key, &shards);
        }
        if cut.is_full || moved || risen {
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
        let key = self.key(tag);
        self.saver.note(&key, &time.micros());
    }

    /// The key of something of this shard.
    fn key(&self, tag: u8) -> [u8; 5] {
        let mut key = [tag; 5];
        key[1..].copy_from_slice(&(self.shard as u32).to_le_bytes());
        key
    }

    /// The shard.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards there are.
    pub fn shards(&self) -> u32 {
        self.space.shards()
    }

    /// M, if the frame is about that: the greatest of all shards' so far.
    pub fn load_watermark(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<EventTime>, LoadError> {
        let (Some((&tag, shard)), Some(value)) = (key.split_first(), value) else {
            return Ok(None);
        };
        if tag != WATERMARK && tag != OF_SHARDS {
            return Ok(None);
        }
        let shard = shard.try_into().map(u32::from_le_bytes);
        let shard = shard.map_err(|_| LoadError::new("the number of a shard has 4 bytes"))?;
        let noted = self.noted.entry(shard).or_default();
        match tag {
            WATERMARK => noted.watermark = EventTime::from_micros(self.saver.load(value)?),
            _ => noted.shards = self.saver.load(value)?,
        }
        self.restored = self.restored.max(noted.watermark);
        Ok(Some(self.restored))
    }

    /// Where the shards stood that wrote what has been loaded; `None` where all that this one has taken was written at the M
    /// that it goes on from, or where that is not known: earlier versions did not say how many shards there were.
    ///
    /// All shards note themselves in the first epoch of a start, if any of them has an M: so the first shard knows how many
    /// wrote last, and who says otherwise is of an earlier start.
    pub fn lags(&self) -> Option<Lags> {
        let (_, first) = self.noted.first_key_value()?;
        let shards = first.shards;
        let of = |shard: u32| {
            let noted = self.noted.get(&shard).filter(|n| n.shards == shards);
            noted.map_or(EventTime::BEGINNING, |n| n.watermark)
        };
        let own = self.shard as u32;
        let taken = match shards == self.space.shards() {
            true => own..own + 1,
            false => 0..shards,
        };
        let mut behind = taken.filter(|&shard| of(shard) < self.restored);
        behind.next()?;
        Some(Lags {
            space: KeySpace::new(self.space.groups(), shards),
            watermarks: (0..shards).map(of).collect(),
        })
    }
}
