//! List state: any number of elements a key, in the order in which they were added.

use super::elements::{Elements, Head, Of};
use super::rows::Rows;
use super::states::{KeptStates, Named, States, Who};
use super::ttl::{Now, Ttl};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::table::NONE;
use std::marker::PhantomData;

/// A list state of this name: see [`list`].
#[derive(Debug)]
pub struct ListOf<V> {
    name: &'static str,
    ttl: Option<Ttl>,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for ListOf<V> {
    fn clone(&self) -> Self {
        ListOf { ..*self }
    }
}

/// Asks for a state of a list a key: `list::<Charge>("recent")`. Names are those of the operator: each once.
pub fn list<V: State>(name: &'static str) -> ListOf<V> {
    ListOf {
        name,
        ttl: None,
        value: PhantomData,
    }
}

impl<V> ListOf<V> {
    /// Each element expires, from when it was added: see [`Ttl`].
    pub fn ttl(self, ttl: Ttl) -> Self {
        ListOf {
            ttl: Some(ttl),
            ..self
        }
    }
}

/// The lists of a shard. An element's key is its number.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeptList<V>(Elements<u64, V>);

#[allow(private_interfaces)]
impl<K: Key, V: State> States<K> for ListOf<V> {
    type Kept = KeptList<V>;
    fn names(&self, out: &mut Vec<Named>) {
        let ListOf { name, ttl, .. } = *self;
        out.push(Named { name, ttl });
    }
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> KeptList<V> {
        let ListOf { name, ttl, .. } = *self;
        KeptList(Elements::open::<K>(Named { name, ttl }, build, op))
    }
}

#[allow(private_interfaces)]
impl<K: Key, V: State> KeptStates<K> for KeptList<V> {
    type Place = Head;
    type Of<'a> = ListState<'a, K, V>;

    #[inline(always)]
    fn of<'a>(&'a mut self, head: &'a mut Head, who: Who<'a, K>) -> ListState<'a, K, V> {
        let now = self.0.expiry.as_ref().map_or(i64::MIN, |e| e.now(&who));
        ListState {
            head,
            all: &mut self.0,
            key: who.key,
            row: who.id,
            now,
        }
    }
    fn is_empty(head: &Head) -> bool {
        head.len == 0
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
        let expiry = self.0.expiry.as_ref();
        expiry.and_then(super::ttl::Expiry::next_by_clock)
    }
    fn sizes(&self, op: OpId, out: &mut Sizes) {
        self.0.sizes(op, out);
    }
}

/// A key's list state, for as long as a record or timer is in hand.
///
/// Adding and taking out cost a probe each; an element is written to a checkpoint alone, once, and leaves a tombstone.
#[allow(missing_debug_implementations)]
pub struct ListState<'a, K, V> {
    head: &'a mut Head,
    all: &'a mut Elements<u64, V>,
    key: &'a K,
    row: u32,
    now: i64,
}

impl<K: Key, V: State> ListState<'_, K, V> {
    /// Adds an element at the end.
    pub fn push(&mut self, value: V) {
        let of = Of {
            row: self.row,
            key: self.all.next_number(self.head),
        };
        let until = self.all.until(self.now, None);
        self.all.push(self.head, of, value, until);
    }

    /// Adds elements at the end.
    pub fn extend(&mut self, values: impl IntoIterator<Item = V>) {
        values.into_iter().for_each(|value| self.push(value));
    }

    /// How many there are. O(1); O(elements) where they expire.
    pub fn len(&self) -> usize {
        self.all.len(self.head, self.now)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.iter(self.head, self.now).next().is_none()
    }

    /// The elements, in the order in which they were added.
    pub fn iter(&mut self) -> impl Iterator<Item = &V> {
        if self.all.expiry.as_ref().is_some_and(|e| e.on_read) {
            let mut id = self.head.first;
            while id != NONE {
                if self.all.lives(id, self.now) {
                    self.all.read(id, self.key, self.now);
                }
                id = self.all.table.value(id).after;
            }
        }
        self.all
            .iter(self.head, self.now)
            .map(|(_, _, value)| value)
    }

    /// The first element.
    pub fn front(&mut self) -> Option<&V> {
        let (id, _, _) = self.all.iter(self.head, self.now).next()?;
        self.all.read(id, self.key, self.now);
        self.all.table.value(id).value.as_ref()
    }

    /// Takes the first element out.
    pub fn pop_front(&mut self) -> Option<V> {
        let (id, _, _) = self.all.iter(self.head, self.now).next()?;
        self.all.remove(self.head, id, self.key)
    }

    /// Keeps the elements for which `keep` says so and takes the others out. O(elements).
    pub fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        let mut id = self.head.first;
        while id != NONE {
            let node = self.all.table.value(id);
            let after = node.after;
            if !node
                .value
                .as_ref()
                .is_some_and(|v| node.until > self.now && keep(v))
            {
                self.all.remove(self.head, id, self.key);
            }
            id = after;
        }
    }

    /// Takes all out. O(elements), in one step.
    pub fn clear(&mut self) {
        self.all.clear(self.head, self.key);
    }
}
