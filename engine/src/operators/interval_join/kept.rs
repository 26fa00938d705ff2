//! What a checkpoint has of one side of an interval join.
//!
//! Laws
//! 1. Each element is an entry of its own, written once, and once more when it meets its first if its side is outer. It is known by a number
//!    that begins with that of the shard on which it came, so no two have the same, whatever became of the number of shards
//!    (as in `operators/order/kept.rs`). It keeps the number when it goes to another shard.
//! 2. An element that expires leaves no tombstone. Whether it has left is known by M of the shard that wrote last (`Lags`), since a
//!    barrier passes only when all that has expired has left: at a restore those below that M's limit are dropped. The entries
//!    themselves go with the next sweep. One that moves within its shard leaves a tombstone and is written anew.
//! 3. What had not left on its shard and has expired by the M that all go on from has met none that is still to come. Of an outer side it
//!    is put back, and leaves at once; of any other it is dropped.
//! 4. A shard's next number is kept as well, so none is given twice while frames of the first may be around.

use super::log::{Log, PAGE, Page, SHARD_SHIFT};
use crate::checkpoint::{
    Cut, Frame, Keeping, Lags, Parts, Saved, Snapshot, Stored, Tracker, Value,
};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::time::EventTime;
use std::collections::BTreeMap;

/// What the keys begin with: of an element, and of a shard's next number.
const ELEMENT: u8 = b'E';
const NEXT: u8 = b'N';

/// What an entry looks like, for the state's shape: number; time, whether it has met, what ties go by; the record.
type Entry<T> = (u64, ((i64, bool, u64), T));

/// See the module.
pub(super) struct KeptSide<T> {
    pub keeping: Keeping,
    tracker: Tracker,
    /// The next number that a checkpoint has.
    next: u64,
    /// While a checkpoint is loaded: its elements by number.
    loading: BTreeMap<u64, Restored<T>>,
    /// How an entry's value is written: who writes need not know that the record can be.
    store: Store<T>,
}

type Store<T> = fn(&T, &mut Value<'_, '_, '_>);

/// An element that was loaded.
pub(super) struct Restored<T> {
    pub time: i64,
    pub met: bool,
    pub tie: u64,
    pub record: T,
}

/// An element to be stored.
struct Whole<'a, T> {
    page: &'a Page<T>,
    at: usize,
    store: Store<T>,
}

impl<T> Stored for Whole<'_, T> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        let element = &self.page.elements[self.at];
        to.number(element.time);
        to.number(i64::from(self.page.has_met(self.at)));
        to.number(self.page.tie(self.at) as i64);
        (self.store)(&element.record, to);
    }
}

fn load<T: State>(bytes: &[u8]) -> Result<Restored<T>, LoadError> {
    let mut from = Parts::of(bytes);
    let restored = Restored {
        time: from.number()?,
        met: from.number()? != 0,
        tie: from.number()? as u64,
        record: from.part()?,
    };
    from.end()?;
    Ok(restored)
}

fn key_of(number: u64) -> [u8; 9] {
    let mut key = [ELEMENT; 9];
    key[1..].copy_from_slice(&number.to_le_bytes());
    key
}

impl<T> KeptSide<T> {
    /// An element has come to this id.
    #[inline]
    pub fn came(&mut self, id: u32) {
        let due = self.tracker.touch(id);
        debug_assert!(!due, "nothing was there at the barrier");
    }

    /// The element of this id has been put back as it was stored.
    pub fn restored(&mut self, id: u32) {
        self.tracker.restored(id);
    }

    /// The element of this id is about to meet its first.
    #[inline]
    pub fn changes(&mut self, id: u32, log: &Log<T>) {
        if self.tracker.touch(id) {
            self.save_first(id, log);
        }
    }

    /// The element of this id is about to go; to move, if it will be stored again.
    #[inline]
    pub fn leaves(&mut self, id: u32, moves: bool, log: &Log<T>) {
        let (due, stored) = self.tracker.remove(id);
        if due {
            self.save_first(id, log);
        }
        if stored
            && moves
            && let Some((page, at)) = log.by_id(id)
        {
            self.keeping.saver.gone_bytes(&key_of(log.number(page, at)));
        }
    }

    #[cold]
    fn save_first(&mut self, id: u32, log: &Log<T>) {
        let store = self.store;
        if let Some((page, at)) = log.by_id(id) {
            let key = key_of(log.number(page, at));
            let whole = Whole { page, at, store };
            self.keeping.saver.before_bytes(&key, &whole);
        }
    }

    /// A barrier passes. All that has expired by `watermark` has left.
    pub fn begin(&mut self, cut: Cut, watermark: EventTime, log: &Log<T>) {
        self.keeping.begin(cut, watermark);
        let next = log.next_serial() * PAGE as u64;
        if cut.is_full || self.next != next {
            self.next = next;
            let mut key = [NEXT; 5];
            key[1..].copy_from_slice(&(self.keeping.shard() as u32).to_le_bytes());
            self.keeping.saver.note(&key, &self.next);
        }
        self.tracker.begin_sweep(cut);
        self.tracker
            .begin(log.id_end(), |id| log.by_id(id).is_some());
    }

    /// Writes a piece of what is due.
    pub fn save(&mut self, to: &mut Snapshot<'_>, log: &Log<T>) -> Saved {
        let saver = &mut self.keeping.saver;
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        to.swept_to(self.tracker.swept());
        let (mut writer, store) = (saver.in_turn(), self.store);
        let all = self.tracker.write(|id| match log.by_id(id) {
            Some((page, at)) => {
                let key = key_of(log.number(page, at));
                writer.write_bytes(&key, &Whole { page, at, store }, to)
            }
            None => {
                debug_assert!(false, "what is due is there");
                true
            }
        });
        if all { Saved::All } else { Saved::More }
    }

    /// What was loaded, in the order of time; and where the shards stood that wrote it, if not all at one M.
    pub fn take_loaded(&mut self) -> (Vec<(u64, Restored<T>)>, Option<Lags>) {
        let mut loaded: Vec<_> = std::mem::take(&mut self.loading).into_iter().collect();
        loaded.sort_by_key(|(number, restored)| (restored.time, *number));
        (loaded, self.keeping.lags())
    }
}

impl<T: State> KeptSide<T> {
    /// `None` where the job takes no checkpoints.
    pub fn of(name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> Option<Self> {
        Some(KeptSide {
            keeping: Keeping::named::<Entry<T>>(name, build, op)?,
            tracker: Tracker::default(),
            next: 0,
            loading: BTreeMap::new(),
            store: |record, to| to.part(record),
        })
    }

    /// Reads a frame; whether it is of this state, and M if it says one. `owns`: whether a record is this shard's.
    pub fn load(
        &mut self,
        frame: &Frame<'_>,
        log: &mut Log<T>,
        owns: impl FnOnce(T, &Keeping) -> Option<T>,
    ) -> Result<Option<Option<EventTime>>, LoadError> {
        let keeping = &mut self.keeping;
        if keeping.saver.state() != frame.state {
            return Ok(None);
        }
        if let Some(watermark) = keeping.load_watermark(frame.key, frame.value)? {
            return Ok(Some(Some(watermark)));
        }
        match (frame.key.first(), frame.value) {
            (Some(&NEXT), Some(value)) => {
                let next: u64 = keeping.saver.load(value)?;
                let shard = frame.key[1..].try_into().map(u32::from_le_bytes);
                if shard.is_ok_and(|shard| shard as usize == keeping.shard()) {
                    self.next = self.next.max(next);
                    log.serials_from(next.div_ceil(PAGE as u64));
                }
            }
            (Some(&ELEMENT), value) => {
                let number = frame.key[1..].try_into().map(u64::from_le_bytes);
                let number =
                    number.map_err(|_| LoadError::new("the number of a record is not one"))?;
                if number >> SHARD_SHIFT == keeping.shard() as u64 {
                    let own = number & ((1 << SHARD_SHIFT) - 1);
                    log.serials_from(own / PAGE as u64 + 1);
                }
                match value {
                    None => drop(self.loading.remove(&number)),
                    Some(value) => {
                        let restored: Restored<T> = load(value)?;
                        let Restored { time, met, tie, .. } = restored;
                        if let Some(record) = owns(restored.record, keeping) {
                            let restored = Restored {
                                time,
                                met,
                                tie,
                                record,
                            };
                            self.loading.insert(number, restored);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(Some(None))
    }
}
