//! What the states of a process function have in common: one, or a tuple of them.

use super::rows::{OfPlace, Part, Places, Rows};
use super::ttl::{Now, Ttl};
use crate::aggregate::At;
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::query::Ask;
use crate::state::LoadError;

/// Whose states are shown, and when.
#[derive(Debug)]
pub struct Who<'a, K> {
    pub(crate) key: &'a K,
    /// The key's row.
    pub(crate) id: u32,
    /// The time of the record or timer in hand, or M where that is later.
    pub(crate) event: i64,
    /// The clock.
    pub(crate) clock: i64,
    /// The place of the record in hand.
    pub(crate) at: At,
}

// Whatever the key is.
impl<K> Clone for Who<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Who<'_, K> {}

/// A state's name, and how long it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub name: &'static str,
    pub ttl: Option<Ttl>,
    /// It is no key's, but all shards'.
    pub is_broadcast: bool,
}

/// The states that a process function asks for: one that [`super::value`], [`super::list`], [`super::map`],
/// [`super::reducing`] or [`super::aggregating`] names, or a tuple of up to eight. `()` where it needs timers only.
///
/// Not to be implemented elsewhere.
#[allow(private_interfaces)]
pub trait States<K: Key>: Clone + Send + 'static {
    /// What a shard keeps.
    #[doc(hidden)]
    type Kept: KeptStates<K>;
    /// Whether some aggregate of them breaks ties by origin.
    #[doc(hidden)]
    const NEEDS_ORIGINS: bool = false;
    /// Tells their names.
    #[doc(hidden)]
    fn names(&self, out: &mut Vec<Named>);
    /// Makes one shard's.
    #[doc(hidden)]
    fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Kept;
}

/// States on one shard.
#[doc(hidden)]
#[allow(private_interfaces)]
pub trait KeptStates<K: Key>: Send + 'static {
    /// What a key's row has of them.
    type Place: Default + Send + 'static;
    /// As the user sees them, for one key.
    type Of<'a>;
    /// As the stream beside sees them, which writes what all shards have; `()` for what is by key.
    type Broadcast<'a>;
    /// Those that all shards have.
    fn broadcast(&mut self) -> Self::Broadcast<'_>;
    /// Those of a key.
    fn of<'a>(&'a mut self, place: &'a mut Self::Place, who: Who<'a, K>) -> Self::Of<'a>;
    /// Whether a key has nothing in them.
    fn is_empty(place: &Self::Place) -> bool;
    /// So many keys at the least have something in them; O(1), and 0 where that is not counted.
    fn keys_at_least(&self) -> u64 {
        0
    }
    /// Whether something of the key last shown is being cleared.
    #[inline(always)]
    fn is_clearing(&self) -> bool {
        false
    }
    /// Clears a piece of it; whether none is left. Until none is, no row may be looked at and no key's states shown.
    fn clear_some(&mut self, _: &mut dyn Rows<K, Self::Place>, _: &mut u32) -> bool {
        true
    }
    /// A barrier passes.
    fn begin_epoch(&mut self, cut: Cut, rows: &mut dyn Rows<K, Self::Place>);
    /// Writes a piece.
    fn save(&mut self, to: &mut Snapshot<'_>, rows: &mut dyn Rows<K, Self::Place>) -> Saved;
    /// Takes a frame; whether it was theirs.
    fn load(
        &mut self,
        frame: &Frame<'_>,
        rows: &mut dyn Rows<K, Self::Place>,
    ) -> Result<bool, LoadError>;
    /// Everything has been loaded.
    fn loaded(&mut self, rows: &mut dyn Rows<K, Self::Place>);
    /// Cleans away what has expired, a piece; whether nothing is left to clean.
    fn expire(&mut self, rows: &mut dyn Rows<K, Self::Place>, now: Now, budget: &mut u32) -> bool;
    /// The clock's time before which nothing expires by it.
    fn next_by_clock(&self) -> Option<i64>;
    /// Answers an ask about one of them that holds a value a key.
    fn answer(&self, _ask: &mut Ask, _rows: &dyn Places<K, Self::Place>, _now: Now) {}
    /// How large each is.
    fn sizes(&self, op: OpId, out: &mut Sizes);
}

#[allow(private_interfaces)]
impl<K: Key> States<K> for () {
    type Kept = ();
    fn names(&self, _: &mut Vec<Named>) {}
    fn open(&self, _: &mut ShardBuild<'_, '_>, _: OpId) {}
}

#[allow(private_interfaces)]
impl<K: Key> KeptStates<K> for () {
    type Place = ();
    type Of<'a> = ();
    type Broadcast<'a> = ();
    fn broadcast(&mut self) {}
    fn of<'a>(&'a mut self, _: &'a mut (), _: Who<'a, K>) {}
    fn is_empty(_: &()) -> bool {
        true
    }
    fn begin_epoch(&mut self, _: Cut, _: &mut dyn Rows<K, ()>) {}
    fn save(&mut self, _: &mut Snapshot<'_>, _: &mut dyn Rows<K, ()>) -> Saved {
        Saved::All
    }
    fn load(&mut self, _: &Frame<'_>, _: &mut dyn Rows<K, ()>) -> Result<bool, LoadError> {
        Ok(false)
    }
    fn loaded(&mut self, _: &mut dyn Rows<K, ()>) {}
    fn expire(&mut self, _: &mut dyn Rows<K, ()>, _: Now, _: &mut u32) -> bool {
        true
    }
    fn next_by_clock(&self) -> Option<i64> {
        None
    }
    fn sizes(&self, _: OpId, _: &mut Sizes) {}
}

macro_rules! part {
    ($rows:ident, $index:tt) => {
        &mut Part {
            rows: &mut *$rows,
            part: |places| &places.$index,
            part_mut: |places| &mut places.$index,
        }
    };
}

macro_rules! tuples {
    ($($name:ident $index:tt),+) => {
        #[allow(private_interfaces)]
        impl<K: Key, $($name: States<K>),+> States<K> for ($($name,)+) {
            type Kept = ($($name::Kept,)+);
            const NEEDS_ORIGINS: bool = $($name::NEEDS_ORIGINS)||+;
            fn names(&self, out: &mut Vec<Named>) {
                $(self.$index.names(out);)+
            }
            fn open(&self, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self::Kept {
                ($(self.$index.open(build, op),)+)
            }
        }

        #[allow(private_interfaces)]
        impl<K: Key, $($name: KeptStates<K>),+> KeptStates<K> for ($($name,)+) {
            type Place = ($($name::Place,)+);
            type Of<'a> = ($($name::Of<'a>,)+);
            type Broadcast<'a> = ($($name::Broadcast<'a>,)+);
            fn broadcast(&mut self) -> Self::Broadcast<'_> {
                ($(self.$index.broadcast(),)+)
            }
            #[inline(always)]
            fn of<'a>(&'a mut self, place: &'a mut Self::Place, who: Who<'a, K>) -> Self::Of<'a> {
                ($(self.$index.of(&mut place.$index, who),)+)
            }
            fn is_empty(place: &Self::Place) -> bool {
                $($name::is_empty(&place.$index))&&+
            }
            fn keys_at_least(&self) -> u64 {
                [$(self.$index.keys_at_least()),+].into_iter().fold(0, u64::max)
            }
            #[inline(always)]
            fn is_clearing(&self) -> bool {
                $(self.$index.is_clearing())||+
            }
            fn clear_some(
                &mut self,
                rows: &mut dyn Rows<K, Self::Place>,
                budget: &mut u32,
            ) -> bool {
                $(self.$index.clear_some(part!(rows, $index), budget))&&+
            }
            fn begin_epoch(&mut self, cut: Cut, rows: &mut dyn Rows<K, Self::Place>) {
                $(self.$index.begin_epoch(cut, part!(rows, $index));)+
            }
            fn save(&mut self, to: &mut Snapshot<'_>, rows: &mut dyn Rows<K, Self::Place>) -> Saved {
                let mut saved = Saved::All;
                $(saved = saved.and(self.$index.save(to, part!(rows, $index)));)+
                saved
            }
            fn load(
                &mut self,
                frame: &Frame<'_>,
                rows: &mut dyn Rows<K, Self::Place>,
            ) -> Result<bool, LoadError> {
                let taken = $(self.$index.load(frame, part!(rows, $index))?)||+;
                Ok(taken)
            }
            fn loaded(&mut self, rows: &mut dyn Rows<K, Self::Place>) {
                $(self.$index.loaded(part!(rows, $index));)+
            }
            fn expire(
                &mut self,
                rows: &mut dyn Rows<K, Self::Place>,
                now: Now,
                budget: &mut u32,
            ) -> bool {
                $(self.$index.expire(part!(rows, $index), now, budget))&&+
            }
            fn answer(&self, ask: &mut Ask, rows: &dyn Places<K, Self::Place>, now: Now) {
                $(self.$index.answer(ask, &OfPlace { rows, part: |places: &Self::Place| &places.$index }, now);)+
            }
            fn next_by_clock(&self) -> Option<i64> {
                [$(self.$index.next_by_clock()),+].into_iter().flatten().min()
            }
            fn sizes(&self, op: OpId, out: &mut Sizes) {
                $(self.$index.sizes(op, out);)+
            }
        }
    };
}
tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
