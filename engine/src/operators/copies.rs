//! A table that every shard has whole, and its part in checkpoints: what stands behind the broadcast join and broadcast states.
//!
//! Laws
//! 1. All shards are told the same of a key, in one order, so at a barrier all have the same entries. Whoever feeds it sees to that.
//! 2. Each shard writes its own, since a shard that goes on reads what it wrote; where it reads what all wrote, it takes each entry
//!    whoever's it is, and finds it several times, and the same.
//! 3. M means nothing to it.

use crate::budget::Size;
use crate::checkpoint::{Cut, Frame, Kept, Saved, Snapshot, Whole};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use std::hash::Hash;

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Copies<K, V> {
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    /// `None`: removed, and its id not reused yet.
    table: KeyTable<K, Option<V>>,
}

/// The value of an entry that is in the table.
fn held<K: Hash + Eq, V>(table: &KeyTable<K, Option<V>>, id: u32) -> Whole<'_, V> {
    match table.value(id) {
        Some(value) => Whole(value),
        None => unreachable!("an entry that was there at the barrier has a value"),
    }
}

impl<K: Key, V: State> Copies<K, V> {
    /// Empty; the state is of this name.
    pub fn of_named(name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self {
        Copies {
            kept: Kept::of_named::<K, V>(name, build, op),
            table: KeyTable::new(),
        }
    }

    /// For a loop over records that look keys up.
    #[inline(always)]
    pub fn table(&mut self) -> &mut KeyTable<K, Option<V>> {
        &mut self.table
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.table.find(self.table.hash(key), key) {
            NONE => None,
            id => self.table.value(id).as_ref(),
        }
    }

    /// The value of an entry that is there.
    pub fn at(&self, id: u32) -> Option<&V> {
        self.table.value(id).as_ref()
    }

    /// Sets the value of a key; its entry.
    pub fn set(&mut self, key: &K, value: V) -> u32 {
        let hash = self.table.hash(key);
        let (id, _) = self.table.find_or_insert(hash, key, || None);
        if let Some(kept) = &mut self.kept {
            kept.touch(id, key, || held(&self.table, id));
        }
        *self.table.value_mut(id) = Some(value);
        id
    }

    /// Takes a key out; its value, if there was one.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let id = self.table.find(self.table.hash(key), key);
        if id == NONE {
            return None;
        }
        if let Some(kept) = &mut self.kept {
            kept.touch(id, key, || held(&self.table, id));
            kept.gone(id, key);
        }
        self.table.remove(id, None)
    }

    /// A barrier passes.
    pub fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.table;
        if let Some(kept) = &mut self.kept {
            kept.begin_timeless(cut, table.id_end(), |id| table.is_live(id));
        }
    }

    /// How large it is on this shard.
    pub fn size(&self) -> Size {
        self.table.size()
    }

    /// Writes a piece of what is due.
    pub fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let table = &self.table;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (table.key(id), held(table, id)))
        })
    }

    /// Reads a frame of a checkpoint; whether it is of this state. `told` hears of each key: its entry, or that it has gone.
    pub fn load(
        &mut self,
        frame: &Frame<'_>,
        mut told: impl FnMut(&K, Option<u32>),
    ) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        let Some((key, value)) = kept.load_any::<K>(frame)? else {
            return Ok(frame.state == kept.keeping.saver.state());
        };
        let hash = self.table.hash(&key);
        match value {
            Some(value) => {
                let value = kept.keeping.saver.load_value::<K, V>(frame, value)?;
                let (id, _) = self.table.find_or_insert(hash, &key, || None);
                *self.table.value_mut(id) = Some(value);
                kept.restored(id, true);
                told(&key, Some(id));
            }
            None => {
                let id = self.table.find(hash, &key);
                if id != NONE {
                    self.table.remove(id, None);
                    kept.restored(id, false);
                }
                told(&key, None);
            }
        }
        Ok(true)
    }
}
