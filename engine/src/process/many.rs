//! What list and map state have in common: how they are asked for and kept, and what can be done with all of a key's elements.
//!
//! Law: `clear` hands over what is there in one step, and the operator takes it out in pieces, before anything else of any key is
//! done ([`Elements::clear_some`]). The function that cleared sees nothing of it any more.

use super::elements::{ElementKey, Elements, Head, Of};
use super::rows::Rows;
use super::states::{KeptStates, Named, States, Who};
use super::ttl::{Expiry, Now, Ttl};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::table::NONE;
use std::marker::PhantomData;

/// How a key's elements are shown: as a list, or as a map.
#[doc(hidden)]
#[allow(private_interfaces)]
pub trait Shown<E: 'static, V: 'static>: 'static {
    /// Whether an element is looked for by its key.
    const BY_KEY: bool;
    /// What a user sees.
    type Of<'a, K: 'a>;
    /// Shows a key's.
    fn of<'a, K>(own: Own<'a, K, E, V>) -> Self::Of<'a, K>;
}

/// It is of these types and has none of them.
type Types<E, V, S> = PhantomData<fn() -> (E, V, S)>;

/// A state of many elements a key: see [`super::list`] and [`super::map`].
#[derive(Debug)]
pub struct ManyOf<E, V, S> {
    name: &'static str,
    ttl: Option<Ttl>,
    types: Types<E, V, S>,
}

impl<E, V, S> Clone for ManyOf<E, V, S> {
    fn clone(&self) -> Self {
        ManyOf { ..*self }
    }
}

impl<E, V, S> ManyOf<E, V, S> {
    pub(super) fn named(name: &'static str) -> Self {
        ManyOf {
            name,
            ttl: None,
            types: PhantomData,
        }
    }

    /// Each element expires, from when it was put in or its value was last set: see [`Ttl`].
    pub fn ttl(self, ttl: Ttl) -> Self {
        ManyOf {
            ttl: Some(ttl),
            ..self
        }
    }
}

/// All elements of a shard.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeptMany<E, V, S>(Elements<E, V>, PhantomData<fn() -> S>);

#[allow(private_interfaces, private_bounds)]
impl<K: Key, E: ElementKey, V: State, S: Shown<E, V>> States<K> for ManyOf<E, V, S> {
    type Kept = KeptMany<E, V, S>;
    fn names(&self, out: &mut Vec<Named>) {
        let ManyOf { name, ttl, .. } = *self;
        out.push(Named {
            name,
            ttl,
            is_broadcast: false,
        });
    }
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Kept {
        let ManyOf { name, ttl, .. } = *self;
        let elements = Elements::open::<K>(
            Named {
                name,
                ttl,
                is_broadcast: false,
            },
            S::BY_KEY,
            build,
            op,
        );
        KeptMany(elements, PhantomData)
    }
}

#[allow(private_interfaces, private_bounds)]
impl<K: Key, E: ElementKey, V: State, S: Shown<E, V>> KeptStates<K> for KeptMany<E, V, S> {
    type Place = Head;
    type Of<'a> = S::Of<'a, K>;
    type Broadcast<'a> = ();
    fn broadcast(&mut self) {}

    #[inline(always)]
    fn of<'a>(&'a mut self, head: &'a mut Head, who: Who<'a, K>) -> Self::Of<'a> {
        let now = self.0.expiry.as_ref().map_or(i64::MIN, |e| e.now(&who));
        S::of(Own {
            head,
            all: &mut self.0,
            key: who.key,
            row: who.id,
            now,
        })
    }
    fn is_empty(head: &Head) -> bool {
        head.len == 0
    }
    #[inline(always)]
    fn is_clearing(&self) -> bool {
        self.0.is_clearing()
    }
    fn clear_some(&mut self, rows: &mut dyn Rows<K, Head>, budget: &mut u32) -> bool {
        self.0.clear_some(rows, budget)
    }
    fn begin_epoch(&mut self, cut: Cut, _: &mut dyn Rows<K, Head>) {
        self.0.begin_epoch(cut);
    }
    fn save(&mut self, to: &mut Snapshot<'_>, rows: &mut dyn Rows<K, Head>) -> Saved {
        self.0.save(to, rows)
    }
    fn load(&mut self, frame: &Frame<'_>, rows: &mut dyn Rows<K, Head>) -> Result<bool, LoadError> {
        self.0.load(frame, rows)
    }
    fn loaded(&mut self, rows: &mut dyn Rows<K, Head>) {
        self.0.loaded(rows);
    }
    fn expire(&mut self, rows: &mut dyn Rows<K, Head>, now: Now, budget: &mut u32) -> bool {
        self.0.expire(rows, now, budget)
    }
    fn next_by_clock(&self) -> Option<i64> {
        self.0.expiry.as_ref().and_then(Expiry::next_by_clock)
    }
    fn sizes(&self, op: OpId, out: &mut Sizes) {
        self.0.sizes(op, out);
    }
}

/// A key's elements, for as long as a record or timer is in hand.
#[allow(missing_debug_implementations)]
pub(super) struct Own<'a, K, E, V> {
    head: &'a mut Head,
    all: &'a mut Elements<E, V>,
    key: &'a K,
    row: u32,
    /// The time by which they expire.
    now: i64,
}

impl<K: Key, E: ElementKey, V: State> Own<'_, K, E, V> {
    /// The number that the next element has: greater than those of all others.
    #[inline]
    pub fn next_number(&self) -> u64 {
        self.all.next_number(self.head)
    }

    /// Puts in an element whose key is not there, at the end; its id.
    #[inline]
    pub fn push(&mut self, key: E, value: V) -> u32 {
        let of = Of { row: self.row, key };
        let until = self.all.until(self.now, None);
        self.all.push(self.head, of, self.key, value, until)
    }

    /// The id of an element that lives.
    #[inline]
    pub fn find(&self, key: &E) -> Option<u32> {
        let id = self.all.find(self.row, key)?;
        self.all.lives(id, self.now).then_some(id)
    }

    /// The id of an element that is to be changed, if one lives: it lives on. One that has expired makes room.
    pub fn renew(&mut self, key: &E) -> Option<u32> {
        let id = self.all.find(self.row, key)?;
        if !self.all.lives(id, self.now) {
            self.all.remove(self.head, id, self.key);
            return None;
        }
        self.all.touch(id, self.key);
        self.all.put_off(id, self.key, self.now);
        Some(id)
    }

    /// Takes an element out.
    pub fn take(&mut self, key: &E) -> Option<V> {
        let id = self.all.find(self.row, key)?;
        let lives = self.all.lives(id, self.now);
        let value = self.all.remove(self.head, id, self.key);
        value.filter(|_| lives)
    }

    /// The id of the first element.
    pub fn first(&self) -> Option<u32> {
        let first = self.all.iter(self.head, self.now).next();
        first.map(|(id, _, _)| id)
    }

    /// Takes the first element out.
    pub fn pop_first(&mut self) -> Option<V> {
        let id = self.first()?;
        self.all.remove(self.head, id, self.key)
    }

    /// The value of an element that lives, which is a read of it.
    #[inline]
    pub fn read(&mut self, id: u32) -> Option<&V> {
        self.all.read(id, self.key, self.now);
        self.all.table.value(id).value.as_ref()
    }

    /// The value of an element that was renewed or put in.
    #[inline]
    pub fn value_mut(&mut self, id: u32) -> &mut V {
        match &mut self.all.table.value_mut(id).value {
            Some(value) => value,
            None => unreachable!("what is in the table is there"),
        }
    }

    /// See [`Elements::len`].
    pub fn len(&self) -> usize {
        self.all.len(self.head, self.now)
    }

    pub fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// All that live, in order, which is a read of each.
    pub fn iter(&mut self) -> impl Iterator<Item = (&E, &V)> {
        if self.all.expiry.as_ref().is_some_and(|e| e.on_read) {
            let mut id = self.head.first;
            while id != NONE {
                if self.all.lives(id, self.now) {
                    self.all.read(id, self.key, self.now);
                }
                id = self.all.table.value(id).after;
            }
        }
        let all = self.all.iter(self.head, self.now);
        all.map(|(_, key, value)| (key, value))
    }

    /// Takes out those for which `keep` does not say yes. O(elements).
    pub fn retain(&mut self, mut keep: impl FnMut(&E, &V) -> bool) {
        let mut id = self.head.first;
        while id != NONE {
            let (of, node) = (self.all.table.key(id), self.all.table.value(id));
            let after = node.after;
            let value = node.value.as_ref().filter(|_| node.until > self.now);
            if !value.is_some_and(|v| keep(&of.key, v)) {
                self.all.remove(self.head, id, self.key);
            }
            id = after;
        }
    }

    /// Takes all out: the law. O(1), and a piece of a later step for each.
    pub fn clear(&mut self) {
        self.all.clear(self.head, self.row);
    }
}
