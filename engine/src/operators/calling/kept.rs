//! What a checkpoint has of the records in hand.
//!
//! Laws
//! 1. Each is an entry of its own, without what was answered: it is written once, leaves a tombstone, and one that comes and goes between
//!    two barriers writes nothing. After a restore it is asked for again.
//! 2. An entry is known by its [`Number`]: that of the shard that took it, among how many. With as many shards as before it belongs to
//!    that shard, which alone may have read it. Otherwise all shards have read it, and `owns` says whose it is now; that one gives it a number of
//!    its own, and the old one a tombstone.
//! 3. A shard's next number is kept as well, so none is given twice while frames of the first may be around.
//! 4. Restored records come first, in the order of their numbers: what follows them passes none (event time), and records of one source
//!    partition that were in order still are.

use super::pending::{Held, NONE, Number, Pending};
use crate::batch::{Origin, Stamp};
use crate::checkpoint::{Cut, Frame, Keeping, Parts, Saved, Snapshot, Stored, Tracker, Value};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::time::EventTime;
use std::collections::BTreeMap;

/// What the keys begin with: of a record, and of a shard's next number.
const RECORD: u8 = b'R';
const NEXT: u8 = b'N';

/// What an entry looks like, for the state's shape: number; time and V; origin; the record.
type Entry<T> = (Number, ((i64, Option<i64>), (Origin, T)));

/// A record that was loaded.
type Loaded<T> = (T, Stamp, Origin);

/// See the module.
pub(super) struct Kept<T> {
    keeping: Keeping,
    tracker: Tracker,
    shards: u32,
    next: u64,
    /// The next number that a checkpoint has.
    noted: u64,
    loading: BTreeMap<Number, Loaded<T>>,
}

impl<T: State, O> Stored for &Held<T, O> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.stamp.time.micros());
        to.number(i64::from(self.stamp.behind.is_some()));
        to.number(self.stamp.behind.map_or(0, EventTime::micros));
        to.part(&self.origin);
        to.part(&self.record);
    }
}

fn load<T: State>(bytes: &[u8]) -> Result<Loaded<T>, LoadError> {
    let mut from = Parts::of(bytes);
    let time = EventTime::from_micros(from.number()?);
    let is_behind = from.number()? != 0;
    let watermark = EventTime::from_micros(from.number()?);
    let (origin, record) = (from.part()?, from.part()?);
    from.end()?;
    let behind = is_behind.then_some(watermark);
    Ok((record, Stamp { time, behind }, origin))
}

fn key_of((shards, (shard, count)): Number) -> [u8; 17] {
    let mut key = [RECORD; 17];
    key[1..5].copy_from_slice(&shards.to_le_bytes());
    key[5..9].copy_from_slice(&shard.to_le_bytes());
    key[9..].copy_from_slice(&count.to_le_bytes());
    key
}

/// The shards and the shard of a key, and what follows.
fn number_of(key: &[u8]) -> Result<((u32, u32), &[u8]), LoadError> {
    let short = || LoadError::new("the number of a record is not one");
    let (shards, rest) = key.split_first_chunk().ok_or_else(short)?;
    let (shard, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let of = (u32::from_le_bytes(*shards), u32::from_le_bytes(*shard));
    Ok((of, rest))
}

impl<T: State> Kept<T> {
    /// `None` where the job takes no checkpoints.
    pub fn of(build: &mut ShardBuild<'_, '_>, op: OpId) -> Option<Self> {
        Some(Kept {
            keeping: Keeping::named::<Entry<T>>("in flight", build, op)?,
            tracker: Tracker::default(),
            shards: build.shards as u32,
            next: 0,
            noted: 0,
            loading: BTreeMap::new(),
        })
    }

    fn shard(&self) -> u32 {
        self.keeping.shard() as u32
    }

    /// The number of a record that comes.
    pub fn number(&mut self) -> Number {
        let count = self.next;
        self.next += 1;
        (self.shards, (self.shard(), count))
    }

    /// A record has come to this slot.
    pub fn came(&mut self, slot: u32) {
        let due = self.tracker.touch(slot);
        debug_assert!(!due, "nothing was there at the barrier");
    }

    /// The record in this slot is about to leave.
    pub fn leaves<O>(&mut self, slot: u32, pending: &Pending<T, O>) {
        let (due, stored) = self.tracker.remove(slot);
        let held = pending.get(slot).filter(|_| due || stored);
        let Some(held) = held else { return };
        let key = key_of(held.number);
        if due {
            self.keeping.saver.before_bytes(&key, &held);
        }
        if stored {
            self.keeping.saver.gone_bytes(&key);
        }
    }

    /// A barrier passes.
    pub fn begin<O>(&mut self, cut: Cut, pending: &Pending<T, O>) {
        self.keeping.begin_timeless(cut);
        if cut.is_full || self.noted != self.next {
            self.noted = self.next;
            let key = key_of((self.shards, (self.shard(), 0)));
            let mut key: [u8; 9] = key[..9].try_into().unwrap_or_default();
            key[0] = NEXT;
            self.keeping.saver.note(&key, &self.next);
        }
        self.tracker.begin_sweep(cut);
        self.tracker
            .begin(pending.slot_end(), |slot| pending.get(slot).is_some());
    }

    /// Writes a piece of what is due.
    pub fn save<O>(&mut self, to: &mut Snapshot<'_>, pending: &Pending<T, O>) -> Saved {
        let saver = &mut self.keeping.saver;
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        to.swept_to(self.tracker.swept());
        let mut writer = saver.in_turn();
        let all = self.tracker.write(|slot| match pending.get(slot) {
            Some(held) => writer.write_bytes(&key_of(held.number), &held, to),
            None => {
                debug_assert!(false, "what is due is there");
                true
            }
        });
        if all { Saved::All } else { Saved::More }
    }

    /// Reads a frame; whether it is of this state. `owns` is asked of what was written among another number of shards.
    pub fn load(
        &mut self,
        frame: &Frame<'_>,
        owns: impl FnOnce(&Keeping, &T, &Origin) -> bool,
    ) -> Result<bool, LoadError> {
        if self.keeping.saver.state() != frame.state {
            return Ok(false);
        }
        let own = (self.shards, self.shard());
        match (frame.key.split_first(), frame.value) {
            (Some((&NEXT, key)), Some(value)) => {
                let (of, _) = number_of(key)?;
                let next: u64 = self.keeping.saver.load(value)?;
                if of == own {
                    self.next = self.next.max(next);
                }
            }
            (Some((&RECORD, key)), value) => {
                let (of, count) = number_of(key)?;
                let count = count.try_into().map(u64::from_le_bytes);
                let count =
                    count.map_err(|_| LoadError::new("the number of a record is not one"))?;
                if of == own {
                    self.next = self.next.max(count + 1);
                }
                let number = (of.0, (of.1, count));
                match value {
                    None => drop(self.loading.remove(&number)),
                    Some(value) => {
                        let loaded = load::<T>(value)?;
                        let is_own = match of.0 == own.0 {
                            true => of == own,
                            false => owns(&self.keeping, &loaded.0, &loaded.2),
                        };
                        if is_own {
                            self.loading.insert(number, loaded);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// Everything has been read: the records are in hand again; their slots, in order.
    pub fn loaded<O>(&mut self, pending: &mut Pending<T, O>) -> Vec<u32> {
        let mut slots = vec![];
        for (number, (record, stamp, origin)) in std::mem::take(&mut self.loading) {
            let stays = number.0 == self.shards;
            let own = if stays { number } else { self.number() };
            let held = Held::new(record, stamp, origin, own, (0, 0));
            debug_assert_eq!(held.beside, NONE);
            let slot = pending.add(held);
            if stays {
                self.tracker.restored(slot);
            } else {
                self.keeping.saver.gone_bytes(&key_of(number));
                self.came(slot);
            }
            slots.push(slot);
        }
        slots
    }
}
