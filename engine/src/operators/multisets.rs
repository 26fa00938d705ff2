//! An ordered multiset for each key: what an operator must keep that takes rows away again and always knows the first of those that stand.
//!
//! Laws
//! 1. An element that came n times is there once, with n. It goes when it has been taken away as often, and a key with its last one.
//! 2. Elements of a key lie in their order ([`Element::order`]), which depends on them alone: what is first does not depend on how it came about.
//! 3. In a checkpoint each element is an entry of its own: what has changed, and tombstones of what has gone. However many a key has, a
//!    change of one writes one.
//! 4. Ids lie in chunks of up to [`CHUNK`], so what moves in memory with a change is a chunk, and where one is split or has emptied the list
//!    of chunks: 24 bytes for some 256 elements, 1 MB for ten million of one key.
//!
//! State: for each different element itself, its count and 16 bytes; for a key itself and some 80 bytes. An element is found in O(log n), each comparison
//! a look at another place in memory.

use crate::aggregate::{Ordered, Rank};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Kept, Saved, Snapshot};
use crate::key::Key;
use crate::plan::ShardBuild;
use crate::push::OpId;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use std::cmp::Ordering;

/// What the keys begin with in a checkpoint.
const ELEMENT: u8 = b'E';
/// Ids that lie together at most.
const CHUNK: usize = 512;
/// Neighbours that are no more than this together become one.
const FEW: usize = CHUNK / 4;
/// Places in memory that a change looks at, or so: to find an element, and to put it in or take it out.
pub(crate) const LOOKS: usize = 32;
/// Emptied lists that wait for new keys.
const SPARE: usize = 64;

/// What lies in an order.
pub trait Element: State {
    /// Which comes first. Equal ones are one element.
    fn order(&self, other: &Self) -> Ordering;
}

/// The least value first.
impl<V: Ordered> Element for Rank<V> {
    #[inline]
    fn order(&self, other: &Self) -> Ordering {
        let (a, b) = (self.value(), other.value());
        match (a.before(b), b.before(a)) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }
}

/// The greatest score first, and rows of one score in their own order.
impl<V: Ordered, T: Ord + State> Element for (Rank<V>, T) {
    #[inline]
    fn order(&self, other: &Self) -> Ordering {
        other.0.order(&self.0).then_with(|| self.1.cmp(&other.1))
    }
}

/// The ids of a key's elements in their order. The first chunk apart: most keys have no more.
#[derive(Debug, Default)]
pub struct Sorted {
    first: Vec<u32>,
    /// None of them is empty, and the first one is only if there are none.
    rest: Vec<Vec<u32>>,
}

/// A place among a key's elements: that of one, or where it would be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    chunk: usize,
    at: usize,
    /// The element there is the one that was looked for.
    pub found: bool,
}

impl Sorted {
    fn chunk(&self, n: usize) -> &[u32] {
        match n {
            0 => &self.first,
            n => &self.rest[n - 1],
        }
    }

    fn chunk_mut(&mut self, n: usize) -> &mut Vec<u32> {
        match n {
            0 => &mut self.first,
            n => &mut self.rest[n - 1],
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        let rest = self.rest.iter().flatten();
        self.first.iter().chain(rest).copied()
    }

    /// The place of an element that others are before or not.
    fn place(&self, order: impl Fn(u32) -> Ordering) -> Place {
        let is_before = |chunk: &Vec<u32>| chunk.last().is_some_and(|&id| order(id).is_lt());
        let chunk = match !self.rest.is_empty() && is_before(&self.first) {
            true => (1 + self.rest.partition_point(is_before)).min(self.rest.len()),
            false => 0,
        };
        let ids = self.chunk(chunk);
        let at = ids.partition_point(|&id| order(id).is_lt());
        let found = ids.get(at).is_some_and(|&id| order(id).is_eq());
        Place { chunk, at, found }
    }

    /// How many are before a place; at most `most` are counted.
    fn before(&self, place: Place, most: usize) -> usize {
        let mut before = place.at;
        for n in 0..place.chunk {
            if before >= most {
                break;
            }
            before += self.chunk(n).len();
        }
        before.min(most)
    }

    fn insert(&mut self, place: Place, id: u32) {
        let chunk = self.chunk_mut(place.chunk);
        chunk.insert(place.at, id);
        if chunk.len() > CHUNK {
            let second = chunk.split_off(CHUNK / 2);
            self.rest.insert(place.chunk, second);
        }
    }

    fn remove(&mut self, place: Place) {
        self.chunk_mut(place.chunk).remove(place.at);
        self.join(place.chunk);
        if place.chunk > 0 {
            self.join(place.chunk - 1);
        }
    }

    /// Makes a chunk and the next one into one if both are small, or one is empty.
    fn join(&mut self, n: usize) {
        let Some(next) = self.rest.get(n) else { return };
        let (one, two) = (self.chunk(n).len(), next.len());
        if one == 0 || two == 0 || one + two <= FEW {
            let next = self.rest.remove(n);
            self.chunk_mut(n).extend(next);
        }
    }
}

/// An element and how often it is there.
#[derive(Debug)]
struct Counted<E> {
    /// None once it has gone.
    element: Option<E>,
    count: u64,
}

/// See the module.
pub struct Multisets<K, E> {
    op: OpId,
    /// Where the job takes checkpoints.
    kept: Option<Kept>,
    keys: KeyTable<K, Sorted>,
    /// Each with the id of its key; in no index.
    elements: KeyTable<u32, Counted<E>>,
    spare: Vec<Vec<u32>>,
    /// The key of a frame being made.
    bytes: Vec<u8>,
}

impl<K: Key, E: Element> Multisets<K, E> {
    /// None yet; the state is of this name.
    pub(crate) fn of_named(name: &str, build: &mut ShardBuild<'_, '_>, op: OpId) -> Self {
        Multisets {
            op,
            kept: Kept::of_named::<(K, E), u64>(name, build, op),
            keys: KeyTable::new(),
            elements: KeyTable::without_index(),
            spare: vec![],
            bytes: vec![],
        }
    }

    /// The keys that have any.
    pub(crate) fn keys(&self) -> &KeyTable<K, Sorted> {
        &self.keys
    }

    /// The id of a key that has any, or [`NONE`].
    pub(crate) fn id(&self, key: &K) -> u32 {
        self.keys.find(self.keys.hash(key), key)
    }

    /// The place of an element among those of a key; [`NONE`] is one that has none.
    pub(crate) fn place(&self, id: u32, element: &E) -> Place {
        match id {
            NONE => Place {
                chunk: 0,
                at: 0,
                found: false,
            },
            id => self
                .keys
                .value(id)
                .place(|other| self.element(other).order(element)),
        }
    }

    /// How many are before the last of the elements at a place, each as often as it is there, and how many different ones were looked at for
    /// that; `most` if they are no fewer.
    pub(crate) fn rank(&self, id: u32, place: Place, most: usize) -> (usize, usize) {
        if id == NONE {
            return (0, 0);
        }
        let sorted = self.keys.value(id);
        let different = sorted.before(place, most);
        if different >= most {
            return (most, 0);
        }
        let (mut rank, mut looked) = (0, 0);
        for element in sorted.ids().take(different) {
            looked += 1;
            rank += self.elements.value(element).count;
            if rank >= most as u64 {
                return (most, looked);
            }
        }
        if place.found {
            rank += self.elements.value(self.at(id, place)).count - 1;
        }
        (rank.min(most as u64) as usize, looked)
    }

    /// A key's elements in their order, each as often as it is there.
    pub(crate) fn iter(&self, id: u32) -> impl Iterator<Item = &E> {
        let sorted = (id != NONE).then(|| self.keys.value(id));
        let ids = sorted.into_iter().flat_map(Sorted::ids);
        ids.flat_map(|id| {
            let count = self.elements.value(id).count;
            std::iter::repeat_n(self.element(id), count as usize)
        })
    }

    /// The first and the last of a key's elements.
    pub(crate) fn ends(&self, id: u32) -> Option<(&E, &E)> {
        let sorted = (id != NONE).then(|| self.keys.value(id))?;
        let last = sorted.rest.last().unwrap_or(&sorted.first).last()?;
        Some((self.element(*sorted.first.first()?), self.element(*last)))
    }

    /// An element comes once more, to its place; the id of its key.
    pub(crate) fn add(&mut self, id: u32, key: &K, place: Place, element: E) -> u32 {
        if place.found {
            let element = self.at(id, place);
            self.touch(element);
            self.elements.value_mut(element).count += 1;
            return id;
        }
        let id = match id {
            NONE => {
                let first = self.spare.pop().unwrap_or_default();
                let rest = vec![];
                let (hash, sorted) = (self.keys.hash(key), Sorted { first, rest });
                self.keys.insert_new(hash, key.clone(), sorted)
            }
            id => id,
        };
        let new = self.put(id, place, element, 1);
        self.touch(new);
        id
    }

    /// The element at a place, which was found, goes once.
    pub(crate) fn take(&mut self, id: u32, place: Place) {
        debug_assert!(place.found);
        let element = self.at(id, place);
        if self.elements.value(element).count > 1 {
            self.touch(element);
            self.elements.value_mut(element).count -= 1;
            return;
        }
        if let Some(kept) = &mut self.kept {
            let (due, stored) = kept.tracker.remove(element);
            let saver = &mut kept.keeping.saver;
            if due || stored {
                let Counted { element, .. } = self.elements.value(element);
                if let Some(element) = element {
                    saver.pair(ELEMENT, self.keys.key(id), element, &mut self.bytes);
                }
            }
            if due {
                saver.before_bytes(&self.bytes, &self.elements.value(element).count);
            }
            if stored {
                saver.gone_bytes(&self.bytes);
            }
        }
        self.drop_at(id, place);
    }

    fn at(&self, id: u32, place: Place) -> u32 {
        self.keys.value(id).chunk(place.chunk)[place.at]
    }

    fn element(&self, id: u32) -> &E {
        match &self.elements.value(id).element {
            Some(element) => element,
            None => unreachable!("an element that is in an order has not gone"),
        }
    }

    /// Puts an element where it belongs; its id.
    fn put(&mut self, id: u32, place: Place, element: E, count: u64) -> u32 {
        let element = Some(element);
        let new = self.elements.push(id, Counted { element, count });
        self.keys.value_mut(id).insert(place, new);
        new
    }

    /// Takes an element out, and its key with the last one.
    fn drop_at(&mut self, id: u32, place: Place) {
        let element = self.at(id, place);
        let gone = Counted {
            element: None,
            count: 0,
        };
        self.elements.remove(element, gone);
        let sorted = self.keys.value_mut(id);
        sorted.remove(place);
        if sorted.is_empty() {
            self.drop_key(id);
        }
    }

    fn drop_key(&mut self, id: u32) {
        let sorted = self.keys.remove(id, Sorted::default());
        if self.spare.len() < SPARE {
            self.spare.push(sorted.first);
        }
    }

    /// An element is about to change, or is new.
    fn touch(&mut self, id: u32) {
        if let Some(kept) = &mut self.kept
            && kept.tracker.touch(id)
        {
            let (saver, of) = (&mut kept.keeping.saver, self.elements.value(id));
            if let Some(element) = &of.element {
                let key = self.keys.key(*self.elements.key(id));
                saver.pair(ELEMENT, key, element, &mut self.bytes);
                saver.before_bytes(&self.bytes, &of.count);
            }
        }
    }

    /// A barrier passes.
    pub(crate) fn begin_epoch(&mut self, cut: Cut) {
        if let Some(kept) = &mut self.kept {
            let table = &self.elements;
            kept.begin_timeless(cut, table.id_end(), |id| table.is_live(id));
        }
    }

    /// What is kept: keys and elements.
    pub(crate) fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keys", self.keys.size()));
        let mut elements = self.elements.size();
        // Their places in the order.
        elements.bytes += elements.entries * size_of::<u32>() as u64;
        to.push((self.op, "elements", elements));
    }

    /// Writes a piece of what is due.
    pub(crate) fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let (keys, elements) = (&self.keys, &self.elements);
        let Some(kept) = &mut self.kept else {
            return Saved::All;
        };
        let saver = &mut kept.keeping.saver;
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        to.swept_to(kept.tracker.swept());
        let mut writer = saver.in_turn();
        let all = kept.tracker.write(|id| {
            let of = elements.value(id);
            let Some(element) = &of.element else {
                return true;
            };
            let key = (keys.key(*elements.key(id)), element);
            writer.write_pair(ELEMENT, key, &of.count, to)
        });
        if all { Saved::All } else { Saved::More }
    }

    /// Reads a frame of a checkpoint; whether it is of this state.
    pub(crate) fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let Some(kept) = &mut self.kept else {
            return Ok(false);
        };
        let keeping = &mut kept.keeping;
        if keeping.saver.state() != frame.state {
            return Ok(false);
        }
        let Some((&ELEMENT, pair)) = frame.key.split_first() else {
            return Ok(true);
        };
        let (key, element): (K, E) = keeping.saver.load_pair(pair)?;
        if !keeping.owns(&key) {
            return Ok(true);
        }
        let count = match frame.value {
            Some(value) => keeping.saver.load_value::<(K, E), u64>(frame, value)?,
            None => 0,
        };
        let mut id = self.id(&key);
        let place = self.place(id, &element);
        if count == 0 {
            if place.found {
                let gone = self.at(id, place);
                self.drop_at(id, place);
                self.restored(gone, false);
            }
            return Ok(true);
        }
        if id == NONE {
            let hash = self.keys.hash(&key);
            id = self.keys.insert_new(hash, key, Sorted::default());
        }
        let element = match place.found {
            true => {
                let element = self.at(id, place);
                self.elements.value_mut(element).count = count;
                element
            }
            false => self.put(id, place, element, count),
        };
        self.restored(element, true);
        Ok(true)
    }

    fn restored(&mut self, id: u32, is_there: bool) {
        if let Some(kept) = &mut self.kept {
            kept.restored(id, is_there);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::scramble::{Dice, cases};
    use proptest::prelude::*;

    fn none() -> Multisets<u8, Rank<i64>> {
        Multisets {
            op: OpId(0),
            kept: None,
            keys: KeyTable::new(),
            elements: KeyTable::without_index(),
            spare: vec![],
            bytes: vec![],
        }
    }

    proptest! {
        #![proptest_config(cases())]

        /// Against a sorted list; it grows to several chunks, and shrinks to nothing.
        #[test]
        fn elements_lie_in_order(seed: u64, range in prop_oneof![1i64..20, 1000i64..100_000], steps in prop_oneof![1usize..200, 2_000usize..4_000]) {
            let (mut sets, mut dice) = (none(), Dice::new(seed));
            let mut lists = [vec![], vec![]];
            for step in 0..2 * steps {
                let key = dice.below(4).min(1);
                let list: &mut Vec<i64> = &mut lists[key];
                let value = dice.below(range as usize) as i64;
                let id = sets.id(&(key as u8));
                // More come at first, and more go in the end.
                let comes = dice.below(10) < if step < steps { 8 } else { 2 };
                let value = match list.is_empty() || comes {
                    true => value,
                    false => list[dice.below(list.len())],
                };
                let place = sets.place(id, &Rank::of(value));
                let at = list.partition_point(|&v| v <= value);
                prop_assert_eq!(place.found, at > 0 && list[at - 1] == value);
                let last = at - usize::from(place.found);
                prop_assert_eq!(sets.rank(id, place, 700).0, last.min(700));
                if comes {
                    sets.add(id, &(key as u8), place, Rank::of(value));
                    list.insert(at, value);
                } else if place.found {
                    sets.take(id, place);
                    list.remove(last);
                }
                if step % 64 == 0 || steps < 200 {
                    let id = sets.id(&(key as u8));
                    prop_assert_eq!(id == NONE, list.is_empty());
                    let found: Vec<i64> = sets.iter(id).map(|r| *r.value()).collect();
                    let ends = sets.ends(id).map(|(a, b)| (*a.value(), *b.value()));
                    prop_assert_eq!(ends, list.first().map(|&first| (first, list[list.len() - 1])));
                    prop_assert_eq!(&found, list);
                }
            }
            for (key, list) in lists.iter().enumerate() {
                let id = sets.id(&(key as u8));
                if id == NONE {
                    continue;
                }
                let sorted = sets.keys.value(id);
                let chunks = 1 + sorted.rest.len();
                prop_assert!(sorted.rest.iter().all(|c| !c.is_empty() && c.len() <= CHUNK));
                // Of two neighbours one is not small.
                prop_assert!(chunks <= 2 + list.len() / (FEW / 2), "{chunks} for {}", list.len());
            }
        }
    }

    /// A chunk that empties goes, however full those beside it are: from the front, from the back, and in the middle.
    #[test]
    fn a_chunk_empties_beside_full_ones() {
        for gone in [0..400i64, 2_600..3_000, 1_000..1_600] {
            let mut sets = none();
            let mut list: Vec<i64> = (0..3_000).collect();
            for &value in &list {
                let id = sets.id(&1);
                let place = sets.place(id, &Rank::of(value));
                sets.add(id, &1, place, Rank::of(value));
            }
            for value in gone {
                let id = sets.id(&1);
                let place = sets.place(id, &Rank::of(value));
                assert!(place.found, "{value}");
                sets.take(id, place);
                list.retain(|&v| v != value);
                let sorted = sets.keys.value(sets.id(&1));
                assert!(!sorted.first.is_empty());
                assert!(sorted.rest.iter().all(|chunk| !chunk.is_empty()));
            }
            let found: Vec<i64> = sets.iter(sets.id(&1)).map(|r| *r.value()).collect();
            assert_eq!(found, list);
        }
    }

    #[test]
    fn what_has_gone_takes_no_place() {
        let mut sets = none();
        for round in 0..3 {
            for value in 0..10_000 {
                let id = sets.id(&1);
                let place = sets.place(id, &Rank::of(value));
                sets.add(id, &1, place, Rank::of(value));
            }
            assert!(sets.keys.value(sets.id(&1)).rest.len() >= 10_000 / CHUNK);
            for n in 0..10_000 {
                let id = sets.id(&1);
                let value = (n * 7919 + round) % 10_000;
                let place = sets.place(id, &Rank::of(value));
                assert!(place.found);
                sets.take(id, place);
            }
            assert_eq!(sets.id(&1), NONE);
            assert_eq!(sets.elements.len() + sets.keys.len(), 0);
        }
        assert_eq!(sets.elements.id_end(), 10_000);
    }
}
