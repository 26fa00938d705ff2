//! What a checkpoint has of tumbling windows: entries by window and key, a tombstone for each window that has gone (law 6).

use super::{Doing, Slice, TumblingOp};
use crate::aggregate::Aggregate;
use crate::checkpoint::{Cut, Frame, Saver, Snapshot, Tracker};
use crate::key::{Key, KeyOf};
use crate::state::{LoadError, State};
use crate::table::KeyTable;
use crate::time::{EventTime, Span};

/// What an entry's key begins with in a checkpoint: what it is, and the start of its window.
pub(super) const ENTRY: u8 = b'E';
pub(super) const PARKED: u8 = b'P';
/// A window of one shard: it leaves a tombstone that goes on with who wrote it, and has no value.
const WINDOW: u8 = b'W';

pub(super) fn prefix(tag: u8, start: i64) -> [u8; 9] {
    let mut prefix = [tag; 9];
    prefix[1..].copy_from_slice(&start.to_le_bytes());
    prefix
}

impl<T, K: KeyOf<T>, A: Aggregate<T>> TumblingOp<T, K, A> {
    /// The first window goes: it leaves its tombstone, and its table waits to be cleared (law 6).
    pub(super) fn retire(&mut self) {
        let Some(slice) = self.slices.pop_front() else {
            return;
        };
        self.fired -= 1;
        self.current = 0;
        if let Some(keeping) = &mut self.keeping {
            let trackers = [&slice.tracker, &slice.parked_tracker];
            // What is still to be written comes before the tombstone, which is the next epoch's.
            if trackers.iter().any(|t| t.has_stored() || t.is_writing()) {
                let window = [&prefix(WINDOW, slice.start)[..], &keeping.owner()].concat();
                keeping.saver.gone_bytes(&window);
            }
        }
        // Those that have been written go first, so none waits for one that has not.
        match slice.tracker.is_writing() || slice.parked_tracker.is_writing() {
            true => self.retired.push_back(slice),
            false => self.retired.push_front(slice),
        }
    }

    /// Whether a window that has retired has been written as well, so that its table may be cleared.
    pub(super) fn may_clear(&self) -> bool {
        let first = self.retired.front();
        first.is_some_and(|s| !s.tracker.is_writing() && !s.parked_tracker.is_writing())
    }

    /// Takes an entry of a checkpoint.
    pub(super) fn load_entry(&mut self, frame: &Frame<'_>) -> Result<(), LoadError> {
        let Some(keeping) = &mut self.keeping else {
            return Ok(());
        };
        if let Some(watermark) = keeping.load_watermark(frame.key, frame.value)? {
            self.watermark = watermark;
            return Ok(());
        }
        let Some((head, key)) = frame.key.split_at_checked(9) else {
            return Err(LoadError::new("the key of a window's entry is too short"));
        };
        let mut start = [0; 8];
        start.copy_from_slice(&head[1..]);
        let start = i64::from_le_bytes(start);
        let Some(value) = frame.value else {
            let gone = keeping.owned_by(key)?;
            self.slices
                .retain_mut(|s| s.start != start || s.forget(&gone));
            return Ok(());
        };
        let key: K::Key = keeping.saver.load(key)?;
        if !keeping.owns(&key) {
            return Ok(());
        }
        let saver = &mut keeping.saver;
        let acc = saver.load_value::<K::Key, A::Acc>(frame, value)?;
        // Which have fired is found out when all are there.
        let watermark = std::mem::replace(&mut self.watermark, EventTime::BEGINNING);
        let at = self.slice_at(start);
        self.watermark = watermark;
        let slice = &mut self.slices[at];
        let (table, tracker) = match head[0] {
            PARKED => {
                let parked = &mut **slice.parked.get_or_insert_default();
                (parked, &mut slice.parked_tracker)
            }
            _ => (&mut slice.table, &mut slice.tracker),
        };
        let (id, new) = table.find_or_insert(table.hash(&key), &key, || acc.clone());
        if !new {
            *table.value_mut(id) = acc;
        }
        tracker.restored(id);
        if self.early.is_some() && head[0] == ENTRY {
            slice.changed.mark(id);
        }
        Ok(())
    }
}

impl<T, K: KeyOf<T>, A: Aggregate<T>> TumblingOp<T, K, A> {
    /// Everything has been loaded: which windows have fired, what is owed, and what is next due (law 7).
    pub(super) fn arrange(&mut self) {
        self.fired = 0;
        // Without lateness a window that has fired is gone at the barrier: what is here has not, whatever M is now.
        if self.lateness.allowed > Span::ZERO {
            let ends = self.slices.iter().map(|s| self.end_of(s.start));
            self.fired = ends.take_while(|&end| end <= self.watermark).count();
        }
        if let Some(lags) = self.keeping.as_ref().and_then(|k| k.lags()) {
            for slice in self.slices.range(..self.fired) {
                let (start, table) = (slice.start, &slice.table);
                let end = self.end_of(start);
                let unfired = (0..table.id_end()).filter(|&id| lags.of(table.key(id)) < end);
                self.owed.extend(unfired.map(|id| (start, id)));
            }
            self.owed.reverse();
        }
        self.doing = match self.owed.is_empty() {
            true => self.next_work(),
            false => Doing::Owed,
        };
    }
}

impl<K: Key, A: Clone> Slice<K, A> {
    /// Forgets the keys that were another shard's, as its tombstone says; whether any are left.
    fn forget(&mut self, gone: &impl Fn(&K) -> bool) -> bool {
        let mut left = forget(&mut self.table, &mut self.tracker, gone);
        if let Some(parked) = &mut self.parked {
            left |= forget(parked, &mut self.parked_tracker, gone);
        }
        left
    }
}

/// Makes the table anew of the entries that stay, since a window's table has no gaps; whether there are any.
fn forget<K: Key, A: Clone>(
    table: &mut KeyTable<K, A>,
    tracker: &mut Tracker,
    gone: &impl Fn(&K) -> bool,
) -> bool {
    let old = std::mem::take(table);
    *tracker = Tracker::new(tracker.swept());
    for id in (0..old.id_end()).filter(|&id| !gone(old.key(id))) {
        let key = old.key(id);
        let (id, _) = table.find_or_insert(old.hash(key), key, || old.value(id).clone());
        tracker.restored(id);
    }
    !table.is_empty()
}

/// A barrier passes a window's table.
pub(super) fn begin<K: Key, A>(tracker: &mut Tracker, table: &KeyTable<K, A>, cut: Cut) {
    tracker.begin_sweep(cut);
    tracker.begin(table.id_end(), |id| table.is_live(id));
}

/// Writes what is due of a window's table; whether that is all.
pub(super) fn write<K: Key, A: State>(
    tag: u8,
    start: i64,
    tracker: &mut Tracker,
    table: &KeyTable<K, A>,
    saver: &mut Saver,
    to: &mut Snapshot<'_>,
) -> bool {
    let prefix = prefix(tag, start);
    to.swept_to(tracker.swept());
    let mut writer = saver.in_turn();
    tracker.write(|id| writer.write(&prefix, table.key(id), table.value(id), to))
}
