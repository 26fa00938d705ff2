//! A value for each key, and its part in checkpoints: what stands behind running values, changes, and what else keeps one value a key.
//!
//! Laws
//! 1. M means nothing to it: what it keeps depends on records alone.
//! 2. A value that changes is told before it does ([`Values::parts`]: the touch).
//!
//! One entry of a checkpoint a key. A restore asks the cache for the lines of the index that the next keys need ([`Arriving`]).

use crate::budget::Sizes;
use crate::checkpoint::{Arriving, Cut, Frame, Kept, Loaded, Saved, Snapshot, Whole};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::query::Ask;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};

/// See the module.
pub(crate) struct Values<K, V> {
    op: OpId,
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    table: KeyTable<K, V>,
    /// Empty but for restores.
    arriving: Arriving<K, V>,
}

impl<K: Key, V: State> Values<K, V> {
    /// None yet; the state is of this name.
    pub fn of_named(name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self {
        Values {
            op,
            kept: Kept::of_named::<K, V>(name, build, op),
            table: KeyTable::new(),
            arriving: Arriving::default(),
        }
    }

    /// For a loop over records: the table, and what is told of a value before it changes.
    #[inline(always)]
    pub fn parts(&mut self) -> (&mut KeyTable<K, V>, Option<&mut Kept>) {
        (&mut self.table, self.kept.as_mut())
    }

    /// The keys, each with its value.
    pub fn table(&self) -> &KeyTable<K, V> {
        &self.table
    }

    /// A value comes, of a key that has none; its id.
    pub fn insert(&mut self, key: &K, value: V) -> u32 {
        let id = self
            .table
            .insert_new(self.table.hash(key), key.clone(), value);
        if let Some(kept) = &mut self.kept {
            kept.touch(id, key, || Whole(self.table.value(id)));
        }
        id
    }

    /// A value to be changed; it is told of first.
    pub fn change(&mut self, id: u32) -> &mut V {
        if let Some(kept) = &mut self.kept {
            kept.touch(id, self.table.key(id), || Whole(self.table.value(id)));
        }
        self.table.value_mut(id)
    }

    /// A value goes, which has been told of since it last changed; `vacant` is left in its place.
    pub fn remove(&mut self, id: u32, vacant: V) {
        if let Some(kept) = &mut self.kept {
            kept.gone(id, self.table.key(id));
        }
        self.table.remove(id, vacant);
    }

    /// A barrier passes.
    pub fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.table;
        if let Some(kept) = &mut self.kept {
            kept.begin_timeless(cut, table.id_end(), |id| table.is_live(id));
        }
    }

    /// Answers an ask from what is kept.
    pub fn answer(&self, ask: &mut Ask) {
        ask.answer(&self.table, &|id| Some(self.table.value(id)));
    }

    /// What is kept.
    pub fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keyed", self.table.size()));
    }

    /// Writes a piece of what is due.
    pub fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let table = &self.table;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (table.key(id), Whole(table.value(id))))
        })
    }

    /// Reads a frame of a checkpoint; whether it is of this state. Where a value has gone again its place is left to `vacant`; none is
    /// given where no value ever goes.
    pub fn load(
        &mut self,
        frame: &Frame<'_>,
        vacant: impl FnOnce() -> Option<V>,
    ) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        match kept.load(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Entry::<K>(key, Some(value)) => {
                let value = kept.keeping.saver.load_value::<K, V>(frame, value)?;
                if let Some(id) = self.arriving.push(key, value, &mut self.table) {
                    kept.restored(id, true);
                }
            }
            Loaded::Entry(key, None) => {
                let vacant = vacant().ok_or_else(|| {
                    LoadError::new("a key's value has gone, where none ever goes")
                })?;
                // It may be one of those on their way.
                self.loaded();
                let id = self.table.find(self.table.hash(&key), &key);
                if id != NONE {
                    if let Some(kept) = &mut self.kept {
                        kept.restored(id, false);
                    }
                    self.table.remove(id, vacant);
                }
            }
            Loaded::Watermark(_) | Loaded::Nothing => {}
        }
        Ok(true)
    }

    /// All frames have been read.
    pub fn loaded(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        while let Some(id) = self.arriving.pop(&mut self.table) {
            kept.restored(id, true);
        }
    }
}
