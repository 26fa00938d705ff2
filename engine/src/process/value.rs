//! Value state: one value a key, in the key's row.
//!
//! Cost: nothing besides the probe for the row. In a checkpoint it is one entry a key, written when it has changed.

use super::rows::{Places, Rows};
use super::states::{KeptStates, Named, States, Who};
use super::ttl::{Expiry, NEVER, Now, Ttl};
use crate::budget::{Size, Sizes};
use crate::checkpoint::{Cut, Frame, Kept, Loaded, Parts, Saved, Snapshot, Stored, Value};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::query::{Ask, Asks};
use crate::state::{LoadError, State};
use crate::wheel::Popped;
use std::marker::PhantomData;

/// A value state of this name: see [`value`].
#[derive(Debug)]
pub struct ValueOf<V> {
    name: &'static str,
    ttl: Option<Ttl>,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for ValueOf<V> {
    fn clone(&self) -> Self {
        ValueOf { ..*self }
    }
}

/// Asks for a state of one value a key: `value::<u64>("visits")`. Names are those of the operator: each once.
pub fn value<V: State>(name: &'static str) -> ValueOf<V> {
    ValueOf {
        name,
        ttl: None,
        value: PhantomData,
    }
}

impl<V> ValueOf<V> {
    /// It expires: see [`Ttl`].
    pub fn ttl(self, ttl: Ttl) -> Self {
        ValueOf {
            ttl: Some(ttl),
            ..self
        }
    }
}

/// A key's value.
#[doc(hidden)]
#[derive(Debug)]
pub struct Place<V> {
    pub(super) value: Option<V>,
    /// When it expires; [`NEVER`] without a time to live.
    until: i64,
}

impl<V> Default for Place<V> {
    fn default() -> Self {
        Place {
            value: None,
            until: NEVER,
        }
    }
}

/// A value with when it expires, as a checkpoint has it.
pub(super) struct Lived<'a, V> {
    pub until: i64,
    pub value: &'a Option<V>,
}

impl<V: State> Stored for Lived<'_, V> {
    fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.until);
        debug_assert!(self.value.is_some(), "what is due is there");
        if let Some(value) = self.value {
            to.part(value);
        }
    }
}

impl<V> Place<V> {
    fn lived(&self) -> Lived<'_, V> {
        Lived {
            until: self.until,
            value: &self.value,
        }
    }
}

/// The values of a shard, but for the values.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct KeptValue<V> {
    kept: Option<Kept>,
    expiry: Option<Expiry>,
    name: &'static str,
    /// Keys that have one.
    len: u64,
    value: PhantomData<fn() -> V>,
}

impl<V: State> KeptValue<V> {
    /// A key's value goes.
    fn remove<K: Key>(&mut self, id: u32, key: &K, place: &mut Place<V>) -> Option<V> {
        place.value.as_ref()?;
        if let Some(kept) = &mut self.kept {
            kept.tracked().gone(id, key, &place.lived());
        }
        self.len -= 1;
        place.until = NEVER;
        place.value.take()
    }

    /// Values from before there was a time to live begin theirs, a piece; whether none is left.
    fn begin_lives<K>(
        &mut self,
        rows: &mut dyn Rows<K, Place<V>>,
        now: Now,
        budget: &mut u32,
    ) -> bool
    where
        K: Key,
    {
        let Some(expiry) = &mut self.expiry else {
            return true;
        };
        loop {
            let (time, id) = match expiry.begins(now, budget) {
                Popped::Due { time, value } => (time, value),
                Popped::More => return false,
                Popped::Nothing => return true,
            };
            if !rows.is_live(id) {
                continue;
            }
            let (key, place) = rows.entry(id);
            if place.value.is_some() && place.until == NEVER {
                if let Some(kept) = &mut self.kept {
                    kept.touch(id, key, || place.lived());
                }
                place.until = time;
                expiry.arm(id, time);
            }
        }
    }
}

#[allow(private_interfaces)]
impl<K: Key, V: State> States<K> for ValueOf<V> {
    type Kept = KeptValue<V>;
    fn names(&self, out: &mut Vec<Named>) {
        let ValueOf { name, ttl, .. } = *self;
        out.push(Named {
            name,
            ttl,
            is_broadcast: false,
        });
    }
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> KeptValue<V> {
        build.can_be_asked::<K, V>(op, self.name);
        KeptValue {
            kept: Kept::of_named::<K, V>(self.name, build, op),
            expiry: self.ttl.map(Expiry::of),
            name: self.name,
            len: 0,
            value: PhantomData,
        }
    }
}

#[allow(private_interfaces)]
impl<K: Key, V: State> KeptStates<K> for KeptValue<V> {
    type Place = Place<V>;
    type Of<'a> = ValueState<'a, K, V>;
    type Broadcast<'a> = ();
    fn broadcast(&mut self) {}

    #[inline(always)]
    fn of<'a>(&'a mut self, place: &'a mut Place<V>, who: Who<'a, K>) -> ValueState<'a, K, V> {
        // No time at all where nothing expires: whatever there is lives.
        let now = self.expiry.as_ref().map_or(i64::MIN, |e| e.now(&who));
        ValueState {
            place,
            kept: self,
            key: who.key,
            id: who.id,
            now,
        }
    }

    fn is_empty(place: &Place<V>) -> bool {
        place.value.is_none()
    }

    #[inline(always)]
    fn keys_at_least(&self) -> u64 {
        self.len
    }

    fn begin_epoch(&mut self, cut: Cut, rows: &mut dyn Rows<K, Place<V>>) {
        if let Some(kept) = &mut self.kept {
            let has = |id| rows.is_live(id) && rows.place(id).value.is_some();
            kept.begin_timeless(cut, rows.id_end(), has);
        }
    }

    fn save(&mut self, to: &mut Snapshot<'_>, rows: &mut dyn Rows<K, Place<V>>) -> Saved {
        let rows = &*rows;
        self.kept.as_mut().map_or(Saved::All, |kept| {
            kept.save(to, |id| (rows.key(id), rows.place(id).lived()))
        })
    }

    fn load(
        &mut self,
        frame: &Frame<'_>,
        rows: &mut dyn Rows<K, Place<V>>,
    ) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        match kept.load::<K>(frame)? {
            Loaded::Others => return Ok(false),
            Loaded::Entry(key, Some(bytes)) => {
                let mut from = Parts::of(bytes);
                let until = from.number()?;
                let bytes = from.part_bytes()?;
                from.end()?;
                let value = kept.keeping.saver.load_value::<K, V>(frame, bytes)?;
                let id = rows.make(&key);
                *rows.entry(id).1 = Place {
                    value: Some(value),
                    until,
                };
                kept.restored(id, true);
            }
            Loaded::Entry(key, None) => {
                if let Some(id) = rows.get(&key) {
                    *rows.entry(id).1 = Place::default();
                    kept.restored(id, false);
                }
            }
            _ => {}
        }
        Ok(true)
    }

    fn loaded(&mut self, rows: &mut dyn Rows<K, Place<V>>) {
        self.len = 0;
        for id in 0..rows.id_end() {
            let place = rows.entry(id).1;
            if place.value.is_some() {
                self.len += 1;
                match &mut self.expiry {
                    Some(expiry) => expiry.loaded(id, place.until),
                    None => place.until = NEVER,
                }
            }
        }
    }

    fn expire(&mut self, rows: &mut dyn Rows<K, Place<V>>, now: Now, budget: &mut u32) -> bool {
        if !self.begin_lives(rows, now, budget) {
            return false;
        }
        loop {
            let Some(expiry) = &mut self.expiry else {
                return true;
            };
            let until = |id| {
                let place = rows.place(id);
                place.value.as_ref().map(|_| place.until)
            };
            match expiry.next(now, budget, until, |id| rows.soon(id)) {
                Popped::Due { value: id, .. } => {
                    let (key, place) = rows.entry(id);
                    self.remove(id, key, place);
                    rows.lost(id);
                }
                Popped::More => return false,
                Popped::Nothing => return true,
            }
        }
    }

    fn answer(&self, ask: &mut Ask, rows: &dyn Places<K, Place<V>>, now: Now) {
        if !ask.is_of(self.name) {
            return;
        }
        let now = self.expiry.as_ref().map_or(i64::MIN, |e| e.pick(now));
        let lives = |id| Some(rows.place(id)).filter(|place| place.until > now);
        ask.answer(rows, &|id| lives(id)?.value.as_ref());
    }

    fn next_by_clock(&self) -> Option<i64> {
        self.expiry.as_ref().and_then(Expiry::next_by_clock)
    }

    fn sizes(&self, op: OpId, out: &mut Sizes) {
        // The place itself is the row's, which counts it.
        let more = if self.expiry.is_some() { 16 } else { 0 };
        out.push((op, self.name, Size::of::<()>(self.len as usize, more)));
    }
}

/// A key's value state, for as long as a record or timer is in hand.
#[allow(missing_debug_implementations)]
pub struct ValueState<'a, K, V> {
    place: &'a mut Place<V>,
    kept: &'a mut KeptValue<V>,
    key: &'a K,
    id: u32,
    /// The time by which it expires.
    now: i64,
}

impl<K: Key, V: State> ValueState<'_, K, V> {
    #[inline(always)]
    fn lives(&self) -> bool {
        self.place.value.is_some() && self.place.until > self.now
    }

    /// It is about to change.
    #[inline(always)]
    fn touch(&mut self) {
        if let Some(kept) = &mut self.kept.kept {
            let place = &*self.place;
            kept.touch(self.id, self.key, || place.lived());
        }
    }

    /// It lives on.
    #[inline(always)]
    fn refresh(&mut self, lived: bool) {
        if let Some(expiry) = &mut self.kept.expiry {
            let before = lived.then_some(self.place.until);
            self.place.until = expiry.until(self.now, before);
            expiry.arm(self.id, self.place.until);
        }
    }

    #[cold]
    fn refresh_read(&mut self) {
        let expiry = self.kept.expiry.as_ref();
        let later = expiry.is_some_and(|e| e.on_read && e.puts_off(self.now, self.place.until));
        if later {
            self.touch();
            self.refresh(true);
        }
    }

    /// The value, if there is one.
    #[inline(always)]
    pub fn get(&mut self) -> Option<&V> {
        if !self.lives() {
            return None;
        }
        if self.kept.expiry.is_some() {
            self.refresh_read();
        }
        self.place.value.as_ref()
    }

    /// Sets the value.
    #[inline(always)]
    pub fn set(&mut self, value: V) {
        let lived = self.lives();
        self.touch();
        self.kept.len += u64::from(self.place.value.is_none());
        self.place.value = Some(value);
        self.refresh(lived);
    }

    /// The value to be changed in place, made by `first` where there is none: `*visits.or_insert_with(|| 0) += 1`. It counts as
    /// changed, whatever becomes of it.
    #[inline(always)]
    pub fn or_insert_with(&mut self, first: impl FnOnce() -> V) -> &mut V {
        let lived = self.lives();
        // Before it is marked: what a panic leaves must be as it was.
        let made = (!lived).then(first);
        self.touch();
        self.kept.len += u64::from(self.place.value.is_none());
        if made.is_some() {
            self.place.value = made;
        }
        self.refresh(lived);
        match &mut self.place.value {
            Some(value) => value,
            None => unreachable!("it lived or was made"),
        }
    }

    /// The same where there is a default: `*visits.or_default() += 1`.
    #[inline(always)]
    pub fn or_default(&mut self) -> &mut V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }

    /// Takes the value out: the key has none.
    pub fn take(&mut self) -> Option<V> {
        let lives = self.lives();
        let value = self.kept.remove(self.id, self.key, self.place);
        value.filter(|_| lives)
    }

    /// Forgets the value.
    pub fn clear(&mut self) {
        self.take();
    }
}
