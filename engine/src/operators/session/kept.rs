//! What a checkpoint has of a key: all its sessions as one value, and the way back.
//!
//! Laws
//! 1. A key is kept as long as it has a session; one without leaves a tombstone, whether it stays in the table or not.
//! 2. The value says which sessions there are, in order, and not where they lie in memory: the newest apart, the others aside
//!    is made again by [`Core::lower`].
//! 3. With early firing, what has been told belongs to the value: it must be taken back, with the value that was told, by
//!    whoever goes on. After a restore all open sessions count as changed, and those that need it are told.
//! 4. Timers, counts and the greatest end follow from the sessions and are not kept.
//!
//! The value of a key of very many sessions is written whole whenever one of them has changed.

use super::early::{Early, Told};
use super::parts::Parts as Sessions;
use super::state::Core;
use super::store::{Keyed, Older, Part, Phase, Store};
use crate::aggregate::Aggregate;
use crate::checkpoint::{Cut, Frame, Loaded, Parts, Saved, Snapshot, Stored, Value};
use crate::key::Key;
use crate::state::{LoadError, State};
use crate::table::NONE;
use crate::time::EventTime;

/// What an entry looks like, for the state's shape: a key, and sessions with start, end, a mark and accumulator, in three lists.
pub(super) type Entry<K, Acc> = (K, [Vec<(i64, i64, bool, Acc)>; 3]);

/// The value of a key: its sessions (fired or not), the parked ones, and those that have been told (stale or not).
struct OfKey<'a, Acc> {
    newest: &'a Keyed<Acc>,
    older: Option<&'a Older<Acc>>,
    told: &'a [Told<Acc>],
}

fn of_key<'a, K: Key, Acc>(
    store: &'a Store<K, Acc>,
    early: Option<&'a Early<Acc>>,
    id: u32,
) -> OfKey<'a, Acc> {
    let newest = store.table.value(id);
    OfKey {
        newest,
        older: (newest.older != NONE).then(|| &store.older[newest.older as usize]),
        told: early.map_or(&[], |early| early.told_of(id)),
    }
}

fn put<Acc: State>(to: &mut Value<'_, '_, '_>, (start, end, mark): (i64, i64, bool), acc: &Acc) {
    to.number(start);
    to.number(end);
    to.number(i64::from(mark));
    to.part(acc);
}

fn take<Acc: State>(from: &mut Parts<'_>) -> Result<Part<Acc>, LoadError> {
    Ok(Part {
        start: from.number()?,
        end: from.number()?,
        fired: from.number()? != 0,
        acc: from.part()?,
    })
}

impl<Acc: State> Stored for OfKey<'_, Acc> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        let list = |list: &Sessions<Acc>, to: &mut Value<'_, '_, '_>| {
            for part in list.range(0..list.len()) {
                put(to, (part.start, part.end, part.fired), &part.acc);
            }
        };
        let newest = self.newest;
        let has_newest = newest.phase != Phase::Empty;
        let older = self.older.map_or(0, |o| o.sessions.len());
        to.number(older as i64 + i64::from(has_newest));
        if let Some(older) = self.older {
            list(&older.sessions, to);
        }
        if has_newest {
            let fired = newest.phase == Phase::Fired;
            put(to, (newest.start, newest.end, fired), &newest.acc);
        }
        to.number(self.older.map_or(0, |o| o.parked.len()) as i64);
        if let Some(older) = self.older {
            list(&older.parked, to);
        }
        to.number(self.told.len() as i64);
        for told in self.told {
            put(to, (told.start, told.end, told.stale), &told.acc);
        }
    }
}

impl<T, K: Key, A: Aggregate<T>> Core<T, K, A> {
    /// The sessions of a key, or what has been told of them, are about to change.
    #[inline]
    pub(super) fn touch(&mut self, id: u32) {
        let (store, early) = (&self.store, self.early.as_deref());
        if let Some(kept) = &mut self.kept {
            kept.touch(id, store.table.key(id), || of_key(store, early, id));
        }
    }

    /// Whether entry `candidate` is the key's and its newest session is open and holds time `t`.
    #[inline(always)]
    pub(super) fn is_newest(&mut self, candidate: u32, key: &K, t: i64) -> bool {
        let keyed = self.store.table.verified(candidate, key);
        keyed.is_some_and(|k| k.phase == Phase::Open && k.start <= t && t <= k.end)
    }

    /// A key has no session left (law 1).
    pub(super) fn gone(&mut self, id: u32) {
        if let Some(kept) = &mut self.kept {
            kept.gone(id, self.store.table.key(id));
        }
    }

    pub(super) fn begin_epoch(&mut self, cut: Cut) {
        let table = &self.store.table;
        if let Some(kept) = &mut self.kept {
            let watermark = EventTime::from_micros(self.watermark);
            kept.begin(cut, watermark, table.id_end(), |id| {
                table.is_live(id) && !table.value(id).is_empty()
            });
        }
    }

    pub(super) fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let (store, early) = (&self.store, self.early.as_deref());
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (store.table.key(id), of_key(store, early, id)))
        })
    }

    pub(super) fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        match kept.load::<K>(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Nothing => {}
            Loaded::Watermark(watermark) => self.watermark = watermark.micros(),
            Loaded::Entry(key, value) => {
                let id = self.entry(self.store.table.hash(&key), &key);
                self.replace(id, value)?;
                if let Some(kept) = &mut self.kept {
                    kept.restored(id, value.is_some());
                }
            }
        }
        Ok(true)
    }

    /// Gives a key the sessions of this value, whatever it had; none without one.
    fn replace(&mut self, id: u32, value: Option<&[u8]>) -> Result<(), LoadError> {
        let mut sessions = self.lift(id);
        while sessions.pop_back().is_some() {}
        if self.store.table.value(id).older != NONE {
            self.store.older_of(id).parked = Sessions::default();
        }
        let mut told = vec![];
        if let Some(bytes) = value {
            let mut from = Parts::of(bytes);
            for _ in 0..from.count()? {
                sessions.push_back(take(&mut from)?);
            }
            for _ in 0..from.count()? {
                let parked = take(&mut from)?;
                self.store.older_of(id).parked.push_back(parked);
            }
            for _ in 0..from.count()? {
                told.push(Told::of(take(&mut from)?));
            }
            from.end()?;
        }
        self.lower(id, sessions);
        if let Some(early) = &mut self.early {
            early.restored(id, told);
        }
        Ok(())
    }

    /// Law 4.
    pub(super) fn loaded(&mut self) {
        (self.open, self.empty) = (0, 0);
        for id in 0..self.store.table.id_end() {
            let keyed = self.store.table.value(id);
            if keyed.is_empty() {
                self.empty += 1;
                continue;
            }
            if keyed.phase == Phase::Open {
                self.open += 1;
                self.latest = self.latest.max(keyed.end);
            }
            if keyed.older != NONE {
                let sessions = &self.store.older[keyed.older as usize].sessions;
                for part in sessions.range(0..sessions.len()).filter(|p| !p.fired) {
                    self.open += 1;
                    self.latest = self.latest.max(part.end);
                }
            }
            self.arm(id, None);
        }
    }
}
