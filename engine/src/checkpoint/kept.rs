//! What an operator that has one table by key needs to take part in checkpoints: its marks, and how its entries are saved and
//! found again. An entry is known by its key; what its value is, is the operator's business ([`Stored`]).

use super::{Cut, Frame, Keeping, Saved, Snapshot, Stored, Tracked, Tracker};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::time::EventTime;

/// What the key of an entry begins with.
const ENTRY: u8 = b'E';

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Kept {
    pub keeping: Keeping,
    pub tracker: Tracker,
}

/// What a frame says.
pub(crate) enum Loaded<'a, K> {
    /// It is of another state.
    Others,
    /// M, so far.
    Watermark(EventTime),
    /// Of a key that is another shard's, or of nothing that this operator must know.
    Nothing,
    /// Of a key that is this shard's: its value, or that it has gone.
    Entry(K, Option<&'a [u8]>),
}

impl Kept {
    /// See [`Keeping::of`].
    pub fn of<E: State>(build: &mut ShardBuild<'_, '_>, op: OpId) -> Option<Kept> {
        Keeping::of::<E>(build, op).map(Self::with)
    }

    /// See [`Keeping::of_values`].
    pub fn of_values<K: State, V: State>(build: &mut ShardBuild<'_, '_>, op: OpId) -> Option<Kept> {
        Keeping::of_values::<K, V>(build, op).map(Self::with)
    }

    /// The same for a state of another name.
    pub fn of_named<K: State, V: State>(
        name: &str,
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
    ) -> Option<Kept> {
        Keeping::of_named_values::<K, V>(name, build, op).map(Self::with)
    }

    fn with(keeping: Keeping) -> Kept {
        Kept {
            keeping,
            tracker: Tracker::default(),
        }
    }

    /// A barrier passes. `id_end` is the table's; `is_live` says which ids below it have something to be kept. O(1) but for
    /// what a sweep takes.
    pub fn begin(
        &mut self,
        cut: Cut,
        watermark: EventTime,
        id_end: u32,
        is_live: impl Fn(u32) -> bool,
    ) {
        self.keeping.begin(cut, watermark);
        self.tracker.begin_sweep(cut);
        self.tracker.begin(id_end, is_live);
    }

    /// The same for an operator that M means nothing to.
    pub fn begin_timeless(&mut self, cut: Cut, id_end: u32, is_live: impl Fn(u32) -> bool) {
        self.keeping.begin_timeless(cut);
        self.tracker.begin_sweep(cut);
        self.tracker.begin(id_end, is_live);
    }

    /// For a loop over records.
    #[inline(always)]
    pub fn tracked(&mut self) -> Tracked<'_> {
        Tracked {
            tracker: &mut self.tracker,
            saver: &mut self.keeping.saver,
            prefix: &[ENTRY],
        }
    }

    /// Entry `id` is about to change: it is new, or has had this key and value until now.
    #[inline(always)]
    pub fn touch<K: State, V: Stored>(&mut self, id: u32, key: &K, value: impl FnOnce() -> V) {
        if self.tracker.touch(id) {
            self.keeping.saver.before(&[ENTRY], key, &value());
        }
    }

    /// Entry `id`, which has been touched since it last changed, has gone.
    pub fn gone<K: State>(&mut self, id: u32, key: &K) {
        let (due, stored) = self.tracker.remove(id);
        debug_assert!(!due, "it has been touched");
        if stored {
            self.keeping.saver.gone(&[ENTRY], key);
        }
    }

    /// Writes a piece of what is due, given each entry's key and value.
    pub fn save<'t, K: State, V: Stored>(
        &mut self,
        to: &mut Snapshot<'_>,
        entry: impl Fn(u32) -> (&'t K, V),
    ) -> Saved {
        let saver = &mut self.keeping.saver;
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        to.swept_to(self.tracker.swept());
        let mut writer = saver.in_turn();
        let all = self.tracker.write(|id| {
            let (key, value) = entry(id);
            writer.write(&[ENTRY], key, &value, to)
        });
        if all { Saved::All } else { Saved::More }
    }

    /// Reads a frame of a checkpoint.
    pub fn load<'a, K: Key>(&mut self, frame: &Frame<'a>) -> Result<Loaded<'a, K>, LoadError> {
        let keeping = &mut self.keeping;
        if keeping.saver.state() != frame.state {
            return Ok(Loaded::Others);
        }
        if let Some(watermark) = keeping.load_watermark(frame.key, frame.value)? {
            return Ok(Loaded::Watermark(watermark));
        }
        let Some((&ENTRY, key)) = frame.key.split_first() else {
            return Ok(Loaded::Nothing);
        };
        let key: K = keeping.saver.load(key)?;
        Ok(match keeping.owns(&key) {
            true => Loaded::Entry(key, frame.value),
            false => Loaded::Nothing,
        })
    }

    /// The key and value that a frame of this state is of, whichever shard's key it is; `None` where it says something else.
    #[allow(clippy::type_complexity)]
    pub fn load_any<'a, K: Key>(
        &mut self,
        frame: &Frame<'a>,
    ) -> Result<Option<(K, Option<&'a [u8]>)>, LoadError> {
        let saver = &mut self.keeping.saver;
        match frame.key.split_first() {
            Some((&ENTRY, key)) if saver.state() == frame.state => {
                Ok(Some((saver.load(key)?, frame.value)))
            }
            _ => Ok(None),
        }
    }

    /// Entry `id` is as the frame said that was read last: it has a value, or has gone.
    pub fn restored(&mut self, id: u32, has_value: bool) {
        match has_value {
            true => self.tracker.restored(id),
            false => {
                let _ = self.tracker.remove(id);
            }
        }
    }
}
