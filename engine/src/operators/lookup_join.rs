//! Lookup joins: a request for each key, and a cache of what was answered. See [`crate::operators::calling`] for the laws of what is asked.
//!
//! Laws
//! 1. A key is asked for once at a time: records that come meanwhile wait for the same answer. Records of one key leave in the order in
//!    which they came (to the shard of their key). They are told one by one, in several steps where they are many: those that come until the last
//!    has been told are told the same.
//! 2. A row is answered from the cache for as long as its time to live by the clock, from when its answer was taken; that there is none, for a
//!    time of its own. What has lived its time is asked for anew by the next record. Failures are not kept.
//! 3. The cache has at most so many rows a shard; above it the one goes that has not been asked for for the longest time. It is no part of
//!    checkpoints: what it knows can be asked again.

use crate::batch::Origin;
use crate::budget::Sizes;
use crate::calls::{CallError, CallFigures, Tally};
use crate::checkpoint::Keeping;
use crate::key::Key;
use crate::operators::calling::Asks;
use crate::operators::calling::pending::{Done, NONE, Pending};
use crate::push::{OpId, blame};
use crate::table::KeyTable;

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
enum Line<R> {
    /// A request is under way; the first and last record that wait for it.
    Asking {
        first: u32,
        last: u32,
    },
    Known {
        row: Option<R>,
        until_ns: u64,
        /// Neighbours in the order in which they were asked for.
        before: u32,
        after: u32,
    },
    Gone,
}

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub rows: usize,
    pub ttl_ns: u64,
    pub negative_ttl_ns: u64,
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct EachKey<K, R, F, G> {
    key_of: F,
    row: G,
    limits: Limits,
    op: OpId,
    lines: KeyTable<K, Line<R>>,
    /// Ends of the list of what is known: asked for last, and longest ago.
    newest: u32,
    oldest: u32,
    known: usize,
    /// What is being told: of this key, to this record and those that wait behind it.
    telling: Option<Telling<R>>,
    tally: Tally,
}

/// See [`EachKey::telling`].
#[derive(Debug)]
struct Telling<R> {
    id: u32,
    slot: u32,
    result: Result<Option<R>, CallError>,
}

impl<K: Key, R, F, G> EachKey<K, R, F, G> {
    pub(crate) fn new(key_of: F, row: G, limits: Limits, op: OpId) -> Self {
        EachKey {
            key_of,
            row,
            limits,
            op,
            lines: KeyTable::new(),
            newest: NONE,
            oldest: NONE,
            known: 0,
            telling: None,
            tally: Tally::default(),
        }
    }
}

/// One a shard, each with a cache of its own.
impl<K: Key, R, F: Clone, G: Clone> Clone for EachKey<K, R, F, G> {
    fn clone(&self) -> Self {
        Self::new(self.key_of.clone(), self.row.clone(), self.limits, self.op)
    }
}

impl<K: Key, R, F, G> EachKey<K, R, F, G> {
    /// Takes a row out of the order.
    fn unlink(&mut self, id: u32) {
        let &Line::Known { before, after, .. } = self.lines.value(id) else {
            debug_assert!(false, "only what is known is in the order");
            return;
        };
        match before {
            NONE => self.newest = after,
            id => self.set_after(id, after),
        }
        match after {
            NONE => self.oldest = before,
            id => self.set_before(id, before),
        }
        self.known -= 1;
    }

    /// Puts a row first.
    fn link(&mut self, id: u32) {
        let second = std::mem::replace(&mut self.newest, id);
        if let Line::Known { before, after, .. } = self.lines.value_mut(id) {
            (*before, *after) = (NONE, second);
        }
        match second {
            NONE => self.oldest = id,
            second => self.set_before(second, id),
        }
        self.known += 1;
    }

    fn set_after(&mut self, of: u32, id: u32) {
        if let Line::Known { after, .. } = self.lines.value_mut(of) {
            *after = id;
        }
    }

    fn set_before(&mut self, of: u32, id: u32) {
        if let Line::Known { before, .. } = self.lines.value_mut(of) {
            *before = id;
        }
    }

    /// Keeps what was answered for a key that was asked for, and makes room for it (laws 2 and 3).
    fn keep(&mut self, id: u32, row: Option<R>, now_ns: u64) {
        let ttl_ns = match row {
            Some(_) => self.limits.ttl_ns,
            None => self.limits.negative_ttl_ns,
        };
        if ttl_ns == 0 || self.limits.rows == 0 {
            self.lines.remove(id, Line::Gone);
            return;
        }
        if self.known == self.limits.rows {
            let oldest = self.oldest;
            self.unlink(oldest);
            self.lines.remove(oldest, Line::Gone);
            self.tally.evicted += 1;
        }
        *self.lines.value_mut(id) = Line::Known {
            row,
            until_ns: now_ns.saturating_add(ttl_ns),
            before: NONE,
            after: NONE,
        };
        self.link(id);
    }
}

#[allow(private_interfaces)]
impl<T, K, R, F, G, O> Asks<T> for EachKey<K, R, F, G>
where
    T: 'static,
    K: Key,
    R: Send + 'static,
    O: Send + 'static,
    F: Fn(&T) -> K + Send + 'static,
    G: Fn(&T, Result<Option<&R>, &CallError>) -> Done<O> + Send + 'static,
{
    type Request = K;
    type Response = Option<R>;
    type Out = O;

    fn owns(&self, keeping: &Keeping, record: &T, _: &Origin) -> bool {
        keeping.owns(&(self.key_of)(record))
    }

    fn known(&mut self, record: &T, now_ns: u64) -> Option<Done<O>> {
        let key = blame(self.op, || (self.key_of)(record));
        let id = self.lines.find(self.lines.hash(&key), &key);
        if id == NONE {
            return None;
        }
        match self.lines.value(id) {
            &Line::Known { until_ns, .. } if until_ns > now_ns => {}
            _ => return None,
        }
        if self.newest != id {
            self.unlink(id);
            self.link(id);
        }
        self.tally.hits += 1;
        match self.lines.value(id) {
            Line::Known { row, .. } => {
                Some(blame(self.op, || (self.row)(record, Ok(row.as_ref()))))
            }
            _ => None,
        }
    }

    /// A request is known by its key's place in the table.
    fn begin(&mut self, slot: u32, pending: &mut Pending<T, O>) -> Option<u32> {
        let key = match pending.get(slot) {
            Some(held) => blame(self.op, || (self.key_of)(&held.record)),
            None => return None,
        };
        let asking = Line::Asking {
            first: slot,
            last: slot,
        };
        let hash = self.lines.hash(&key);
        let id = self.lines.find(hash, &key);
        if id == NONE {
            return Some(self.lines.insert_new(hash, key, asking));
        }
        if let Line::Asking { last, .. } = self.lines.value_mut(id) {
            let before = std::mem::replace(last, slot);
            if let Some(before) = pending.get_mut(before) {
                before.beside = slot;
            }
            self.tally.coalesced += 1;
            return None;
        }
        // It has lived its time.
        self.unlink(id);
        *self.lines.value_mut(id) = asking;
        Some(id)
    }

    fn request(&self, id: u32, _: &Pending<T, O>) -> K {
        self.lines.key(id).clone()
    }

    fn waits_for(&self, id: u32) -> u32 {
        match self.lines.value(id) {
            Line::Asking { first, .. } => *first,
            _ => NONE,
        }
    }

    fn ended(
        &mut self,
        id: u32,
        result: Result<Option<R>, CallError>,
        pending: &mut Pending<T, O>,
        now_ns: u64,
    ) {
        let &Line::Asking { first: slot, .. } = self.lines.value(id) else {
            debug_assert!(false, "a request that ends was under way");
            return;
        };
        debug_assert!(self.telling.is_none());
        self.telling = Some(Telling { id, slot, result });
        self.go_on(pending, now_ns);
    }

    fn go_on(&mut self, pending: &mut Pending<T, O>, now_ns: u64) -> bool {
        let Some(Telling { id, slot, result }) = self.telling.take() else {
            return false;
        };
        let mut next = NONE;
        if let Some(held) = pending.get(slot) {
            let told = result.as_ref().map(Option::as_ref);
            let done = blame(self.op, || (self.row)(&held.record, told));
            next = held.beside;
            pending.complete(slot, done);
        }
        if next != NONE {
            let slot = next;
            self.telling = Some(Telling { id, slot, result });
            return true;
        }
        match result {
            Ok(row) => self.keep(id, row, now_ns),
            Err(_) => drop(self.lines.remove(id, Line::Gone)),
        }
        true
    }

    fn has_more(&self) -> bool {
        self.telling.is_some()
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "cache", self.lines.size()));
    }

    fn tell(&mut self, figures: &CallFigures) {
        figures.add(&mut self.tally);
    }
}
