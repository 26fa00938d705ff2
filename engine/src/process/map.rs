//! Map state: a map a key, in the order in which its entries were put in.

use super::elements::{Elements, Head, Of};
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
use std::hash::Hash;
use std::marker::PhantomData;

/// A map state of this name: see [`map`].
#[derive(Debug)]
pub struct MapOf<E, V> {
    name: &'static str,
    ttl: Option<Ttl>,
    entry: PhantomData<fn() -> (E, V)>,
}

impl<E, V> Clone for MapOf<E, V> {
    fn clone(&self) -> Self {
        MapOf { ..*self }
    }
}

/// Asks for a state of a map a key: `map::<String, u64>("by country")`. Names are those of the operator: each once.
pub fn map<E: Clone + Hash + Eq + State, V: State>(name: &'static str) -> MapOf<E, V> {
    MapOf {
        name,
        ttl: None,
        entry: PhantomData,
    }
}

impl<E, V> MapOf<E, V> {
    /// Each entry expires, from when its value was last set: see [`Ttl`].
    pub fn ttl(self, ttl: Ttl) -> Self {
        MapOf {
            ttl: Some(ttl),
            ..self
        }
    }
}

/// The maps of a shard.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeptMap<E, V>(Elements<E, V>);

#[allow(private_interfaces)]
impl<K: Key, E: Clone + Hash + Eq + State, V: State> States<K> for MapOf<E, V> {
    type Kept = KeptMap<E, V>;
    fn names(&self, out: &mut Vec<Named>) {
        let MapOf { name, ttl, .. } = *self;
        out.push(Named { name, ttl });
    }
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> KeptMap<E, V> {
        let MapOf { name, ttl, .. } = *self;
        KeptMap(Elements::open::<K>(Named { name, ttl }, build, op))
    }
}

#[allow(private_interfaces)]
impl<K: Key, E: Clone + Hash + Eq + State, V: State> KeptStates<K> for KeptMap<E, V> {
    type Place = Head;
    type Of<'a> = MapState<'a, K, E, V>;

    #[inline(always)]
    fn of<'a>(&'a mut self, head: &'a mut Head, who: Who<'a, K>) -> MapState<'a, K, E, V> {
        let now = self.0.expiry.as_ref().map_or(i64::MIN, |e| e.now(&who));
        MapState {
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
        self.0.expiry.as_ref().and_then(Expiry::next_by_clock)
    }
    fn sizes(&self, op: OpId, out: &mut Sizes) {
        self.0.sizes(op, out);
    }
}

/// A key's map state, for as long as a record or timer is in hand.
///
/// Finding an entry costs a probe; it is written to a checkpoint alone when it has changed. Entries come in the order in which
/// they were put in; setting the value of one that is there leaves it in its place.
#[allow(missing_debug_implementations)]
pub struct MapState<'a, K, E, V> {
    head: &'a mut Head,
    all: &'a mut Elements<E, V>,
    key: &'a K,
    row: u32,
    now: i64,
}

impl<K: Key, E: Clone + Hash + Eq + State, V: State> MapState<'_, K, E, V> {
    /// The id of an entry that lives.
    #[inline]
    fn find(&self, key: &E) -> Option<u32> {
        let id = self.all.find(self.row, key)?;
        self.all.lives(id, self.now).then_some(id)
    }

    /// The id of an entry that may be changed: made by `value` where there is none that lives.
    fn make(&mut self, key: E, value: impl FnOnce() -> V) -> u32 {
        if let Some(id) = self.all.find(self.row, &key) {
            if self.all.lives(id, self.now) {
                self.all.touch(id, self.key);
                self.all.put_off(id, self.key, self.now);
                return id;
            }
            // It has gone, and the new one has its place at the end.
            self.all.remove(self.head, id, self.key);
        }
        let until = self.all.until(self.now, None);
        let row = self.row;
        self.all.push(self.head, Of { row, key }, value(), until)
    }

    /// The value of an entry.
    pub fn get(&mut self, key: &E) -> Option<&V> {
        let id = self.find(key)?;
        self.all.read(id, self.key, self.now);
        self.all.table.value(id).value.as_ref()
    }

    /// Whether there is an entry. Not a read that puts its end off.
    pub fn contains(&self, key: &E) -> bool {
        self.find(key).is_some()
    }

    /// Sets the value of an entry, which is put in at the end where it is new.
    pub fn insert(&mut self, key: E, value: V) {
        let mut value = Some(value);
        let id = self.make(key, || match value.take() {
            Some(value) => value,
            None => unreachable!("a value is made once"),
        });
        if value.is_some() {
            self.all.table.value_mut(id).value = value;
        }
    }

    /// The value of an entry to be changed in place, made by `first` where there is none. It counts as changed.
    pub fn or_insert_with(&mut self, key: E, first: impl FnOnce() -> V) -> &mut V {
        let id = self.make(key, first);
        match &mut self.all.table.value_mut(id).value {
            Some(value) => value,
            None => unreachable!("what is in the table is there"),
        }
    }

    /// The same where there is a default: `*by_country.or_default(country) += 1`.
    pub fn or_default(&mut self, key: E) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(key, V::default)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &E) -> Option<V> {
        let id = self.all.find(self.row, key)?;
        let lives = self.all.lives(id, self.now);
        let value = self.all.remove(self.head, id, self.key);
        value.filter(|_| lives)
    }

    /// How many there are. O(1); O(entries) where they expire.
    pub fn len(&self) -> usize {
        self.all.len(self.head, self.now)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.iter(self.head, self.now).next().is_none()
    }

    /// The entries, in the order in which they were put in.
    pub fn iter(&mut self) -> impl Iterator<Item = (&E, &V)> {
        self.read_all();
        let all = self.all.iter(self.head, self.now);
        all.map(|(_, key, value)| (key, value))
    }

    fn read_all(&mut self) {
        if !self.all.expiry.as_ref().is_some_and(|e| e.on_read) {
            return;
        }
        let mut id = self.head.first;
        while id != NONE {
            if self.all.lives(id, self.now) {
                self.all.read(id, self.key, self.now);
            }
            id = self.all.table.value(id).after;
        }
    }

    /// Keeps the entries for which `keep` says so and takes the others out. O(entries).
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

    /// Takes all out. O(entries), in one step.
    pub fn clear(&mut self) {
        self.all.clear(self.head, self.key);
    }
}
