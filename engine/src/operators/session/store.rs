//! The sessions of each key: the newest in its table entry, the others aside; and when something is next due for it.

use super::parts::Parts;
use super::state::{Mode, Rule};
use crate::key::Key;
use crate::key_order;
use crate::table::{KeyTable, NONE};
use crate::wheel::Timers;
use std::cmp::Ordering;
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The key has no session of its own here; what the fields say means nothing, and `acc` is fresh.
    Empty,
    Open,
    Fired,
}

/// A key's newest session, in its table entry: each record of the key touches it, so what is not asked for each lies elsewhere.
pub(super) struct Keyed<Acc> {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) acc: Acc,
    /// Index of its other sessions, or [`NONE`].
    pub(super) older: u32,
    pub(super) phase: Phase,
}

impl<Acc> Keyed<Acc> {
    pub(super) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty && self.older == NONE
    }
}

/// Any other session.
pub(super) struct Part<Acc> {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) fired: bool,
    pub(super) acc: Acc,
}

/// What a key has besides its newest session. Both lists ascend, and no two of one list touch.
pub(super) struct Older<Acc> {
    /// The fired ones come first.
    pub(super) sessions: Parts<Acc>,
    /// Sessions of parked records alone.
    pub(super) parked: Parts<Acc>,
}

impl<Acc> Default for Older<Acc> {
    fn default() -> Self {
        Older {
            sessions: Parts::default(),
            parked: Parts::default(),
        }
    }
}

/// The first group of a key (law 4): how many of each list, and where it lies.
pub(super) struct Group {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) sessions: usize,
    pub(super) parked: usize,
}

impl Group {
    pub(super) fn first<Acc>(
        session: impl Fn(usize) -> Option<(i64, i64)>,
        parked: &Parts<Acc>,
    ) -> Group {
        let mut group = Group {
            start: i64::MAX,
            end: i64::MIN,
            sessions: 0,
            parked: 0,
        };
        loop {
            let one = session(group.sessions);
            let two = parked.get(group.parked).map(|p| (p.start, p.end));
            let is_parked = match (one, two) {
                (Some(one), Some(two)) => two < one,
                (one, _) => one.is_none(),
            };
            let Some((start, end)) = (if is_parked { two } else { one }) else {
                return group;
            };
            if start > group.end && group.sessions + group.parked > 0 {
                return group;
            }
            group.start = group.start.min(start);
            group.end = group.end.max(end);
            if is_parked {
                group.parked += 1;
            } else {
                group.sessions += 1;
            }
        }
    }
}

/// All keys and their sessions.
pub(super) struct Store<K, Acc> {
    pub(super) rule: Rule,
    pub(super) table: KeyTable<K, Keyed<Acc>>,
    pub(super) older: Vec<Older<Acc>>,
    pub(super) free: Vec<u32>,
}

impl<K: Key, Acc> Store<K, Acc> {
    /// The watermark at which something is next due for a key.
    #[inline]
    pub(super) fn due(&self, id: u32) -> Option<i64> {
        let keyed = self.table.value(id);
        if keyed.older != NONE {
            return self.due_among(keyed);
        }
        match keyed.phase {
            Phase::Empty => None,
            Phase::Open => Some(keyed.end + 1),
            Phase::Fired => Some(keyed.end + self.rule.keep),
        }
    }

    #[cold]
    fn due_among(&self, keyed: &Keyed<Acc>) -> Option<i64> {
        let older = &self.older[keyed.older as usize];
        let own = |phase| (keyed.phase == phase).then_some(keyed.end);
        let fired = older.sessions.partition_point(|p| p.fired);
        let open = older.sessions.get(fired).map(|p| p.end);
        let open = open.or_else(|| own(Phase::Open)).map(|end| end + 1);
        let gone = match self.rule.mode {
            Mode::Append => None,
            Mode::Update if fired > 0 => older.sessions.front().map(|p| p.end),
            Mode::Update if older.sessions.is_empty() => own(Phase::Fired),
            Mode::Update => None,
            Mode::OneCorrection => {
                let session = |n: usize| match older.sessions.get(n) {
                    Some(p) => Some((p.start, p.end)),
                    None if n > older.sessions.len() || keyed.phase == Phase::Empty => None,
                    None => Some((keyed.start, keyed.end)),
                };
                Some(Group::first(session, &older.parked).end)
            }
        };
        let gone = gone.map(|end| end + self.rule.keep);
        match (open, gone) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The place for a key's other sessions, made if need be.
    pub(super) fn older_of(&mut self, id: u32) -> &mut Older<Acc> {
        let keyed = self.table.value_mut(id);
        if keyed.older == NONE {
            keyed.older = self.free.pop().unwrap_or_else(|| {
                self.older.push(Older::default());
                self.older.len() as u32 - 1
            });
        }
        &mut self.older[keyed.older as usize]
    }
}

impl<K: Key, Acc> Timers<u32> for Store<K, Acc> {
    #[inline]
    fn deadline(&self, id: u32, set: i64) -> i64 {
        self.due(id).unwrap_or(set)
    }
    fn prefetch(&self, id: u32) {
        self.table.prefetch_entry(id);
    }
    fn tie(&self, id: u32) -> u64 {
        key_order::first_word(self.table.key(id))
    }
    fn order(&self, a: u32, b: u32) -> Ordering {
        key_order::compare(self.table.key(a), self.table.key(b))
    }
}

/// The sessions of a list that touch [start, end].
pub(super) fn touched<Acc>(list: &Parts<Acc>, start: i64, end: i64) -> Range<usize> {
    let from = list.partition_point(|p| p.end < start);
    let to = list
        .range(from..list.len())
        .take_while(|p| p.start <= end)
        .count();
    from..from + to
}
