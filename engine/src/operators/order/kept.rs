//! What a checkpoint has of the records that wait in an order.
//!
//! Laws
//! 1. Each record is an entry of its own, written once and then never again; when it leaves, it leaves a tombstone. One that
//!    comes and goes between two barriers writes nothing. So a checkpoint costs what came and went, however much waits.
//! 2. An entry is known by its record's number of arrival, which begins with the shard's number: no two records that wait have the same,
//!    whatever became of the number of shards. It goes with the record to another shard, and decides there between equals.
//! 3. A shard's next number is kept as well, so none is given twice while frames of the first may be around.
//!
//! (By its time and origin two records of one place would be one entry: a source's business, but not one to lose records by.)

use crate::batch::{Origin, Stamp};
use crate::checkpoint::{
    Cut, Frame, Keeping, Lifted, Parts, Saved, Snapshot, Stored, Tracker, Value,
};
use crate::key::KeyOf;
use crate::operators::replay::{Held, Replay, Seen};
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::time::EventTime;
use std::collections::BTreeMap;

/// What the keys begin with: of a record, and of a shard's next number.
const RECORD: u8 = b'R';
const NEXT: u8 = b'N';
/// Below the shard's number in a record's.
const SHARD_SHIFT: u32 = 48;

/// What an entry looks like, for the state's shape: number; time and V; origin; the record.
type Entry<T> = (u64, ((i64, Option<i64>), (Origin, T)));

/// See the module.
pub(super) struct Waiting<T> {
    keeping: Keeping,
    tracker: Tracker,
    /// The next number that a checkpoint has.
    next: u64,
    /// While a checkpoint is loaded: its records by number.
    loading: BTreeMap<u64, Held<T>>,
}

impl<T: State> Stored for Seen<'_, T> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.stamp.time.micros());
        to.number(i64::from(self.stamp.behind.is_some()));
        to.number(self.stamp.behind.map_or(0, EventTime::micros));
        to.part(&self.origin);
        to.part(self.record);
    }
}

fn load<T: State>(number: u64, bytes: &[u8]) -> Result<Held<T>, LoadError> {
    let mut from = Parts::of(bytes);
    let time = EventTime::from_micros(from.number()?);
    let is_behind = from.number()? != 0;
    let watermark = EventTime::from_micros(from.number()?);
    let origin = from.part()?;
    let record = from.part()?;
    from.end()?;
    let behind = is_behind.then_some(watermark);
    Ok(Held {
        record,
        origin,
        stamp: Stamp { time, behind },
        number,
    })
}

fn key_of(number: u64) -> [u8; 9] {
    let mut key = [RECORD; 9];
    key[1..].copy_from_slice(&number.to_le_bytes());
    key
}

impl<T: State> Waiting<T> {
    /// `None` where the job takes no checkpoints. Gives the records of `replay` numbers of this shard.
    pub fn of(
        build: &mut ShardBuild<'_, '_>,
        op: OpId,
        replay: &mut Replay<T>,
    ) -> Option<Waiting<T>> {
        let keeping = Keeping::named::<Entry<T>>("waiting", build, op)?;
        let first = (keeping.shard() as u64) << SHARD_SHIFT;
        replay.number_from(first);
        Some(Waiting {
            keeping,
            tracker: Tracker::default(),
            next: first,
            loading: BTreeMap::new(),
        })
    }

    /// A record has come to this slot.
    #[inline]
    pub fn came(&mut self, slot: u32) {
        let due = self.tracker.touch(slot);
        debug_assert!(!due, "nothing was there at the barrier");
    }

    /// The record in this slot is about to leave.
    pub fn leaves(&mut self, slot: u32, replay: &Replay<T>) {
        let (due, stored) = self.tracker.remove(slot);
        let held = replay.held(slot).filter(|_| due || stored);
        let Some(held) = held else { return };
        let key = key_of(held.number);
        if due {
            self.keeping.saver.before_bytes(&key, &held);
        }
        if stored {
            self.keeping.saver.gone_bytes(&key);
        }
    }

    /// The record in this slot is about to be moved to another: to be told in [`Waiting::moved`].
    pub fn moves(&mut self, slot: u32, replay: &Replay<T>) -> Lifted {
        let (due, lifted) = self.tracker.lift(slot);
        if due && let Some(held) = replay.held(slot) {
            let key = key_of(held.number);
            self.keeping.saver.before_bytes(&key, &held);
        }
        lifted
    }

    /// It lies in this slot now.
    pub fn moved(&mut self, lifted: Lifted, slot: u32) {
        self.tracker.lay(slot, lifted);
    }

    /// A barrier passes. Everything below `bound` has been replayed.
    pub fn begin(&mut self, cut: Cut, bound: EventTime, replay: &Replay<T>) {
        self.keeping.begin(cut, bound);
        if cut.is_full || self.next != replay.next_number() {
            self.next = replay.next_number();
            let mut key = [NEXT; 5];
            key[1..].copy_from_slice(&(self.keeping.shard() as u32).to_le_bytes());
            self.keeping.saver.note(&key, &self.next);
        }
        self.tracker.begin_sweep(cut);
        self.tracker
            .begin(replay.slot_end(), |slot| replay.held(slot).is_some());
    }

    /// Writes a piece of what is due.
    pub fn save(&mut self, to: &mut Snapshot<'_>, replay: &Replay<T>) -> Saved {
        let saver = &mut self.keeping.saver;
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        to.swept_to(self.tracker.swept());
        let mut writer = saver.in_turn();
        let all = self.tracker.write(|slot| match replay.held(slot) {
            Some(held) => writer.write_bytes(&key_of(held.number), &held, to),
            None => {
                debug_assert!(false, "what is due is there");
                true
            }
        });
        if all { Saved::All } else { Saved::More }
    }

    /// Reads a frame; whether it is of this state, and the bound if it says one.
    pub fn load<K: KeyOf<T>>(
        &mut self,
        frame: &Frame<'_>,
        key: &K,
        replay: &mut Replay<T>,
    ) -> Result<Option<Option<EventTime>>, LoadError> {
        let keeping = &mut self.keeping;
        if keeping.saver.state() != frame.state {
            return Ok(None);
        }
        if let Some(bound) = keeping.load_watermark(frame.key, frame.value)? {
            return Ok(Some(Some(bound)));
        }
        match (frame.key.first(), frame.value) {
            (Some(&NEXT), Some(value)) => {
                let next: u64 = keeping.saver.load(value)?;
                self.raise(next, replay);
            }
            (Some(&RECORD), value) => {
                let number = frame.key[1..].try_into().map(u64::from_le_bytes);
                let number =
                    number.map_err(|_| LoadError::new("the number of a record is not one"))?;
                self.raise(number + 1, replay);
                match value {
                    None => drop(self.loading.remove(&number)),
                    Some(value) => {
                        let held = load(number, value)?;
                        if key.with(&held.record, |key| self.keeping.owns(key)) {
                            self.loading.insert(number, held);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(Some(None))
    }

    /// Law 3: the next number is not below this one, if that is this shard's.
    fn raise(&mut self, next: u64, replay: &mut Replay<T>) {
        if next >> SHARD_SHIFT == self.keeping.shard() as u64 {
            replay.number_from(next.max(replay.next_number()));
        }
    }

    /// Everything has been read: the records wait again.
    pub fn loaded(&mut self, replay: &mut Replay<T>) {
        let records = std::mem::take(&mut self.loading).into_values();
        replay.restore(records, |slot| self.tracker.restored(slot));
    }
}
