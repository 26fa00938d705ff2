//! What happens to sessions: records join and merge them, timers fire and forget them. The laws are in the module above.

use super::early::Early;
use super::parts::Parts;
use super::store::{Group, Keyed, Part, Phase, Store, touched};
use crate::aggregate::{Aggregate, At};
use crate::batch::{Origin, Stamp};
use crate::checkpoint::Kept;
use crate::key::{Key, stable_hash};
use crate::push::{Cx, OpId, Push, blame};
use crate::table::{KeyTable, NONE};
use crate::time::{EventTime, Span};
use crate::wheel::{Paged, Timer, Wheel};
use crate::window::{Firing, LateMode, Lateness, Window, Windowed};
use std::ops::Range;

/// Entries looked at in one piece of the search for keys without sessions.
const SWEEP: u32 = 256;
/// Keys without sessions that may stand for each key with one.
const IDLE: usize = 4;
/// And in any case.
pub(super) const FEW: usize = 1024;

/// What becomes of behind records (law 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Append,
    Update,
    OneCorrection,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) mode: Mode,
    pub(super) lateness: i64,
    /// What has fired goes when M >= end + keep (law 3).
    pub(super) keep: i64,
}

impl Rule {
    fn new(lateness: Lateness, longest: i64) -> Self {
        let allowed = lateness.allowed.micros();
        let (mode, keep) = match lateness.mode {
            _ if allowed <= 0 => (Mode::Append, 0),
            LateMode::Update => (Mode::Update, longest + allowed),
            LateMode::OneCorrection => (Mode::OneCorrection, allowed + 1),
        };
        Rule {
            mode,
            lateness: allowed,
            keep,
        }
    }

    /// Whether a behind record counts (law 1).
    pub(super) fn accepts(&self, t: i64, end: i64, v: EventTime) -> bool {
        match self.mode {
            Mode::Append => false,
            Mode::Update => end + self.lateness > v.micros(),
            Mode::OneCorrection => t + self.lateness >= v.micros(),
        }
    }
}

/// Where results go.
pub(super) struct Out<'a, O> {
    pub(super) out: &'a mut O,
    pub(super) cx: &'a mut Cx,
}

/// What does not depend on how keys and gaps are had.
pub(super) struct Core<T, K: Key, A: Aggregate<T>> {
    pub(super) aggregate: A,
    pub(super) op: OpId,
    pub(super) store: Store<K, A::Acc>,
    pub(super) wheel: Wheel<u32>,
    /// By id, the key's timer: there iff it has a session. Apart from the table, which each record touches.
    timers: Paged<Option<Timer>>,
    /// M.
    pub(super) watermark: i64,
    /// Sessions that have not fired.
    pub(super) open: usize,
    /// Keys without sessions.
    pub(super) empty: usize,
    /// Where the search for them goes on.
    pub(super) sweep: u32,
    /// The greatest end of any session so far.
    pub(super) latest: i64,
    /// An empty list, lent to keys that have none.
    pub(super) scratch: Parts<A::Acc>,
    /// Where the job takes checkpoints.
    pub(super) kept: Option<Kept>,
    /// With early firing.
    pub(super) early: Option<Box<Early<A::Acc>>>,
}

impl<T, K: Key, A: Aggregate<T>> Core<T, K, A> {
    pub(super) fn new(
        aggregate: A,
        op: OpId,
        lateness: Lateness,
        longest: i64,
        early: Option<Span>,
        kept: Option<Kept>,
    ) -> Self {
        Core {
            kept,
            aggregate,
            op,
            store: Store {
                rule: Rule::new(lateness, longest),
                table: KeyTable::new(),
                older: vec![],
                free: vec![],
            },
            // A gap ahead is sixteen slots.
            wheel: Wheel::new((longest / 16).max(1).ilog2()),
            timers: Paged::new(),
            watermark: i64::MIN,
            open: 0,
            empty: 0,
            sweep: 0,
            latest: i64::MIN,
            scratch: Parts::default(),
            early: early.map(|every| Box::new(Early::new(every))),
        }
    }

    /// For how long after its end a session that has fired may change (law 3).
    pub(super) fn keep(&self) -> i64 {
        self.store.rule.keep
    }

    /// Emits a result; its time is the last of its window.
    pub(super) fn emit<O: Push<Windowed<K, A::Out>>>(
        &self,
        id: u32,
        window: (i64, i64),
        acc: &A::Acc,
        firing: Firing,
        to: &mut Out<'_, O>,
    ) {
        self.emit_at(window.1, id, window, acc, firing, to);
    }

    /// Takes back a session, `window`, that becomes part of `whole`, at the time of what replaces it: its own may lie so far back that
    /// windows behind have closed (law 6).
    pub(super) fn retract<O: Push<Windowed<K, A::Out>>>(
        &self,
        id: u32,
        window: (i64, i64),
        acc: &A::Acc,
        whole: (i64, i64),
        to: &mut Out<'_, O>,
    ) {
        self.emit_at(whole.1, id, window, acc, Firing::Retraction, to);
    }

    fn emit_at<O: Push<Windowed<K, A::Out>>>(
        &self,
        before: i64,
        id: u32,
        (start, end): (i64, i64),
        acc: &A::Acc,
        firing: Firing,
        to: &mut Out<'_, O>,
    ) {
        let key = self.store.table.key(id).clone();
        let window = Window {
            start: EventTime::from_micros(start),
            end: EventTime::from_micros(end),
        };
        to.cx.origin = Origin::derived(self.op, stable_hash(&key));
        let value = blame(self.op, || self.aggregate.finish(acc));
        to.out.push(
            Windowed {
                key,
                window,
                value,
                firing,
            },
            Stamp::at(EventTime::from_micros(before - 1)),
            to.cx,
        );
    }

    /// The entry of a key.
    pub(super) fn entry(&mut self, hash: u64, key: &K) -> u32 {
        let (id, new) = self.store.table.find_or_insert(hash, key, || Keyed {
            start: 0,
            end: 0,
            acc: self.aggregate.create(),
            older: NONE,
            phase: Phase::Empty,
        });
        self.empty += usize::from(new);
        if id as usize == self.timers.len() {
            self.timers.push(None);
        }
        id
    }

    /// A record that counts and does not just prolong its key's newest session.
    #[inline(never)]
    pub(super) fn join<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        (start, end): (i64, i64),
        record: &T,
        at: At,
        to: &mut Out<'_, O>,
    ) {
        self.touch(id);
        let Some(before) = self.store.due(id) else {
            self.empty -= 1;
            if end >= self.watermark || self.store.rule.mode != Mode::Update {
                let keyed = self.store.table.value_mut(id);
                (keyed.start, keyed.end, keyed.phase) = (start, end, Phase::Open);
                self.aggregate.add(&mut keyed.acc, record, at);
                self.open += 1;
            } else {
                self.merge(id, (start, end), record, at, to);
            }
            return self.arm(id, None);
        };
        self.merge(id, (start, end), record, at, to);
        self.arm(id, Some(before));
    }

    /// Merges a record with the sessions that it touches (law 5).
    fn merge<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        (start, end): (i64, i64),
        record: &T,
        at: At,
        to: &mut Out<'_, O>,
    ) {
        let mut list = self.lift(id);
        let range = touched(&list, start, end);
        let mut window = (start, end);
        for part in list.range(range.clone()) {
            window = (window.0.min(part.start), window.1.max(part.end));
        }
        let due = window.1 < self.watermark && self.store.rule.mode == Mode::Update;
        for part in list.range(range.clone()) {
            if !part.fired {
                self.open -= 1;
            } else if !due || (part.start, part.end) != window {
                self.retract(id, (part.start, part.end), &part.acc, window, to);
            }
        }
        let at = self.absorb(&mut list, range, window, due, record, at);
        if due {
            if self.early.is_some() {
                self.settle(id, window, to);
            }
            if let Some(whole) = list.get(at) {
                self.emit(id, window, &whole.acc, Firing::Update, to);
            }
        } else {
            self.open += 1;
        }
        self.lower(id, list);
    }

    /// Makes one session of a range of a list and a record; where it stands now.
    fn absorb(
        &self,
        list: &mut Parts<A::Acc>,
        range: Range<usize>,
        (start, end): (i64, i64),
        fired: bool,
        record: &T,
        at: At,
    ) -> usize {
        let place = range.start;
        let mut whole: Option<A::Acc> = None;
        for part in range.filter_map(|_| list.remove(place)) {
            match &mut whole {
                Some(acc) => self.aggregate.merge(acc, &part.acc),
                None => whole = Some(part.acc),
            }
        }
        let mut acc = whole.unwrap_or_else(|| self.aggregate.create());
        self.aggregate.add(&mut acc, record, at);
        list.insert(
            place,
            Part {
                start,
                end,
                fired,
                acc,
            },
        );
        place
    }

    /// Parks a behind record until its group is final (law 4).
    pub(super) fn park(&mut self, id: u32, (start, end): (i64, i64), record: &T, at: At) {
        self.touch(id);
        let before = self.store.due(id);
        self.empty -= usize::from(before.is_none());
        let mut list = std::mem::take(&mut self.store.older_of(id).parked);
        let range = touched(&list, start, end);
        let mut window = (start, end);
        for part in list.range(range.clone()) {
            window = (window.0.min(part.start), window.1.max(part.end));
        }
        self.absorb(&mut list, range, window, false, record, at);
        self.store.older_of(id).parked = list;
        self.arm(id, before);
    }

    /// Sets a key's timer anew if what is due has come nearer than it was.
    pub(super) fn arm(&mut self, id: u32, before: Option<i64>) {
        let due = self.store.due(id);
        let timer = self.timers.get_mut(id as usize);
        match (due, *timer) {
            (Some(due), Some(stands)) if before.is_none_or(|b| due < b) => {
                *timer = Some(self.wheel.insert(due, id));
                self.wheel.cancel(stands, &self.store);
            }
            (Some(due), None) => *timer = Some(self.wheel.insert(due, id)),
            _ => {}
        }
    }

    /// Takes all sessions of a key but the parked ones into one list. They come back by [`Core::lower`].
    pub(super) fn lift(&mut self, id: u32) -> Parts<A::Acc> {
        let keyed = self.store.table.value_mut(id);
        let mut list = std::mem::take(match keyed.older {
            NONE => &mut self.scratch,
            older => &mut self.store.older[older as usize].sessions,
        });
        if keyed.phase != Phase::Empty {
            list.push_back(Part {
                start: keyed.start,
                end: keyed.end,
                fired: keyed.phase == Phase::Fired,
                acc: std::mem::replace(&mut keyed.acc, self.aggregate.create()),
            });
            keyed.phase = Phase::Empty;
        }
        list
    }

    pub(super) fn lower(&mut self, id: u32, mut list: Parts<A::Acc>) {
        if let Some(newest) = list.pop_back() {
            let keyed = self.store.table.value_mut(id);
            (keyed.start, keyed.end, keyed.acc) = (newest.start, newest.end, newest.acc);
            keyed.phase = if newest.fired {
                Phase::Fired
            } else {
                Phase::Open
            };
        }
        if self.store.table.value(id).older == NONE && list.is_empty() {
            self.scratch = list;
            return;
        }
        let older = self.store.older_of(id);
        std::mem::swap(&mut older.sessions, &mut list);
        // What was there has no sessions but, if it was not the list that was lifted, room.
        if list.capacity() > 0 {
            self.scratch = list;
        }
        if older.sessions.is_empty() && older.parked.is_empty() {
            let keyed = self.store.table.value_mut(id);
            self.store
                .free
                .push(std::mem::replace(&mut keyed.older, NONE));
        }
    }

    /// A key's timer has come due at `time`.
    pub(super) fn fire<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        time: i64,
        to: &mut Out<'_, O>,
    ) {
        self.touch(id);
        if self.early.is_some() {
            self.settle_newest(id, to);
        }
        let keyed = self.store.table.value_mut(id);
        *self.timers.get_mut(id as usize) = None;
        let window = (keyed.start, keyed.end);
        if keyed.older != NONE {
            self.fire_among(id, time, to);
        } else if keyed.phase == Phase::Open && self.store.rule.mode != Mode::Append {
            keyed.phase = Phase::Fired;
            self.open -= 1;
            let keyed = self.store.table.value(id);
            self.emit(id, window, &keyed.acc, Firing::OnTime, to);
        } else {
            if keyed.phase == Phase::Open {
                self.open -= 1;
                let keyed = self.store.table.value(id);
                self.emit(id, window, &keyed.acc, Firing::OnTime, to);
            }
            let keyed = self.store.table.value_mut(id);
            keyed.phase = Phase::Empty;
            keyed.acc = self.aggregate.create();
        }
        if self.store.table.value(id).is_empty() {
            self.empty += 1;
            self.gone(id);
        } else {
            self.arm(id, None);
        }
    }

    #[cold]
    fn fire_among<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        time: i64,
        to: &mut Out<'_, O>,
    ) {
        let mut list = self.lift(id);
        let Rule { mode, keep, .. } = self.store.rule;
        let open = list.partition_point(|p| p.fired);
        if let Some(part) = list.get_mut(open)
            && part.end + 1 == time
        {
            part.fired = true;
            self.open -= 1;
            if self.early.is_some() {
                self.settle(id, (part.start, part.end), to);
            }
            self.emit(id, (part.start, part.end), &part.acc, Firing::OnTime, to);
            if mode == Mode::Append {
                list.pop_front();
            }
        }
        if mode == Mode::Update
            && list
                .front()
                .is_some_and(|p| p.fired && p.end + keep == time)
        {
            list.pop_front();
        }
        if mode == Mode::OneCorrection {
            let mut parked = std::mem::take(&mut self.store.older_of(id).parked);
            let group = Group::first(|n| list.get(n).map(|p| (p.start, p.end)), &parked);
            if group.end + keep == time {
                self.correct(id, &group, &mut list, &mut parked, to);
            }
            self.store.older_of(id).parked = parked;
        }
        self.lower(id, list);
    }

    /// The first group of a key is final (law 4).
    fn correct<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        group: &Group,
        list: &mut Parts<A::Acc>,
        parked: &mut Parts<A::Acc>,
        to: &mut Out<'_, O>,
    ) {
        let window = (group.start, group.end);
        let mut whole: Option<A::Acc> = None;
        for part in (0..group.sessions).filter_map(|_| list.pop_front()) {
            if group.parked > 0 && (part.start, part.end) != window {
                self.retract(id, (part.start, part.end), &part.acc, window, to);
            }
            match &mut whole {
                Some(acc) => blame(self.op, || self.aggregate.merge(acc, &part.acc)),
                None => whole = Some(part.acc),
            }
        }
        for part in (0..group.parked).filter_map(|_| parked.pop_front()) {
            match &mut whole {
                Some(acc) => blame(self.op, || self.aggregate.merge(acc, &part.acc)),
                None => whole = Some(part.acc),
            }
        }
        if let Some(acc) = whole
            && group.parked > 0
        {
            self.emit(id, window, &acc, Firing::Correction, to);
        }
    }

    /// Removes some of the keys without sessions, if there are too many (law 8).
    pub(super) fn sweep(&mut self) {
        let table = &mut self.store.table;
        for _ in 0..SWEEP {
            if self.empty <= FEW + IDLE * (table.len() - self.empty) {
                return;
            }
            if self.sweep >= table.id_end() {
                self.sweep = 0;
            }
            let id = self.sweep;
            self.sweep += 1;
            if table.is_live(id) && table.value(id).is_empty() {
                let nothing = Keyed {
                    start: 0,
                    end: 0,
                    acc: self.aggregate.create(),
                    older: NONE,
                    phase: Phase::Empty,
                };
                table.remove(id, nothing);
                self.empty -= 1;
            }
        }
    }
}
