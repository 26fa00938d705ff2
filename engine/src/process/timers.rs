//! The timers of a process function on one shard, by event time and by the clock.
//!
//! Laws
//! 1. A key has one timer a time and kind: setting it twice is setting it once.
//! 2. They fire in the order of (time, key's words), a bounded piece a step. What a timer's function sets for a time that has
//!    come fires after it, in the same watermark.
//! 3. In a checkpoint each timer is an entry; the wheels are made again from them. M and the clock are kept beside.

use super::elements::{Elements, Node, Of};
use super::rows::{Row, Table, TimersOf};
use super::states::Named;
use super::ttl::{NEVER, Now};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::key_order;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::LoadError;
use crate::table::KeyTable;
use crate::time::EventTime;
use crate::wheel::{Paged, Popped, Timer, Timers, Wheel};
use std::cmp::Ordering;

/// A timer of a key: whether it goes by the clock, and its time in microseconds.
pub(crate) type When = (bool, i64);

/// Timers are set for anything from milliseconds to days ahead: slots of some 65 ms.
const GRAIN: u32 = 16;
/// What the clock's key begins with in a checkpoint.
const CLOCK: u8 = b'C';

/// What a function asks for while its key's row is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Set(When),
    Delete(When),
}

/// See the module.
#[allow(missing_debug_implementations)]
pub(crate) struct Standing {
    all: Elements<When, ()>,
    /// By a timer's id, its place in the wheel.
    places: Paged<Option<Timer>>,
    event: Wheel<u32>,
    clock: Wheel<u32>,
    /// No timer by event time is due before this time. Told of when one is set and when none was found: it is asked for with every
    /// record.
    next_event: i64,
    /// The clock as a checkpoint has it.
    kept_clock: i64,
}

impl Standing {
    pub fn open<K: Key>(build: &mut ShardBuild<'_, '_>, op: OpId) -> Standing {
        let named = Named {
            name: "timers",
            ttl: None,
            is_broadcast: false,
        };
        Standing {
            all: Elements::open::<K>(named, true, build, op),
            places: Paged::new(),
            event: Wheel::new(GRAIN),
            clock: Wheel::new(GRAIN),
            next_event: i64::MAX,
            kept_clock: i64::MIN,
        }
    }

    fn wheel(&mut self, by_clock: bool) -> &mut Wheel<u32> {
        match by_clock {
            true => &mut self.clock,
            false => &mut self.event,
        }
    }

    /// Puts a timer that is in the table into its wheel.
    fn place(&mut self, id: u32, (by_clock, time): When) {
        let timer = self.wheel(by_clock).insert(time, id);
        if !by_clock {
            self.next_event = self.next_event.min(time);
        }
        while self.places.len() <= id as usize {
            self.places.push(None);
        }
        *self.places.get_mut(id as usize) = Some(timer);
    }

    /// Sets or deletes a timer of a row.
    pub fn asked<K: Key, S: Default>(&mut self, ask: Ask, row: u32, rows: &mut Table<K, S>) {
        match ask {
            Ask::Set(key) => {
                let (row_key, has) = rows.rows.entry_mut(row);
                // Most keys have one timer at most.
                if has.timers.len == 0 || self.all.find(row, &key).is_none() {
                    let of = Of { row, key };
                    let id = self.all.push(&mut has.timers, of, row_key, (), NEVER);
                    self.place(id, key);
                }
            }
            Ask::Delete(when) => {
                let Some(id) = self.all.find(row, &when) else {
                    return;
                };
                if let Some(timer) = self.places.get_mut(id as usize).take() {
                    let order = Order {
                        rows: &rows.rows,
                        timers: &self.all.table,
                    };
                    let wheel = match when.0 {
                        true => &mut self.clock,
                        false => &mut self.event,
                    };
                    wheel.cancel(timer, &order);
                }
                let (key, row) = rows.rows.entry_mut(row);
                self.all.remove(&mut row.timers, id, key);
            }
        }
    }

    /// Takes out the next timer with a time up to `until`: its time and row.
    pub fn pop<K: Key, S: Default>(
        &mut self,
        by_clock: bool,
        until: i64,
        rows: &mut Table<K, S>,
        budget: &mut u32,
    ) -> Popped<u32> {
        let order = Order {
            rows: &rows.rows,
            timers: &self.all.table,
        };
        let wheel = match by_clock {
            true => &mut self.clock,
            false => &mut self.event,
        };
        match wheel.pop(until, &order, budget) {
            Popped::Due { time, value: id } => {
                *self.places.get_mut(id as usize) = None;
                let row = self.all.table.key(id).row;
                let (key, of) = rows.rows.entry_mut(row);
                self.all.remove(&mut of.timers, id, key);
                Popped::Due { time, value: row }
            }
            other => {
                if other == Popped::Nothing && !by_clock {
                    self.next_event = self.event.next_at().unwrap_or(i64::MAX);
                }
                other
            }
        }
    }

    /// No timer by event time is due before this time.
    #[inline(always)]
    pub fn next_event(&self) -> i64 {
        self.next_event
    }

    /// No timer by the clock is due before this time of it.
    pub fn next_clock(&self) -> Option<i64> {
        self.clock.next_at()
    }

    /// A barrier passes. `clock`: as it was seen last, if the operator goes by it.
    pub fn begin_epoch(&mut self, cut: Cut, m: i64, clock: Option<i64>) {
        let table = &self.all.table;
        let Some(kept) = &mut self.all.kept else {
            return;
        };
        let m = EventTime::from_micros(m);
        kept.begin(cut, m, table.id_end(), |id| table.is_live(id));
        if let Some(clock) = clock.filter(|&clock| cut.is_full || clock > self.kept_clock) {
            self.kept_clock = clock;
            kept.keeping.note(CLOCK, EventTime::from_micros(clock));
        }
    }

    /// Adds how many there are, and their entries' bytes.
    pub fn sizes(&self, op: OpId, out: &mut Sizes) {
        self.all.sizes(op, out);
    }

    pub fn save<K: Key, S: Default>(
        &mut self,
        to: &mut Snapshot<'_>,
        rows: &mut Table<K, S>,
    ) -> Saved {
        self.all.save(to, &mut TimersOf(rows))
    }

    /// Takes a frame; whether it was of this state. M and the clock are raised to what it says of them.
    pub fn load<K: Key, S: Default>(
        &mut self,
        frame: &Frame<'_>,
        rows: &mut Table<K, S>,
        now: &mut Now,
    ) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.all.kept else {
            return Ok(false);
        };
        let keeping = &mut kept.keeping;
        if keeping.saver.state() != frame.state {
            return Ok(false);
        }
        if let Some(m) = keeping.load_watermark(frame.key, frame.value)? {
            now.event = m.micros();
        } else if let (Some(&CLOCK), Some(value)) = (frame.key.first(), frame.value) {
            now.clock = now.clock.max(keeping.saver.load(value)?);
            self.kept_clock = now.clock;
        } else {
            return self.all.load(frame, &mut TimersOf(rows));
        }
        Ok(true)
    }

    pub fn loaded<K: Key, S: Default>(&mut self, rows: &mut Table<K, S>) {
        self.all.loaded(&mut TimersOf(rows));
        for id in 0..self.all.table.id_end() {
            if self.all.table.is_live(id) {
                let when = self.all.table.key(id).key;
                self.place(id, when);
            }
        }
    }
}

/// Law 2.
struct Order<'a, K, S> {
    rows: &'a KeyTable<K, Row<S>>,
    timers: &'a KeyTable<Of<When>, Node<()>>,
}

impl<K: Key, S> Order<'_, K, S> {
    fn key(&self, id: u32) -> &K {
        self.rows.key(self.timers.key(id).row)
    }
}

impl<K: Key, S> Timers<u32> for Order<'_, K, S> {
    fn prefetch(&self, id: u32) {
        self.timers.prefetch_entry(id);
    }
    fn tie(&self, id: u32) -> u64 {
        key_order::first_word(self.key(id))
    }
    fn order(&self, a: u32, b: u32) -> Ordering {
        key_order::compare(self.key(a), self.key(b))
    }
}
