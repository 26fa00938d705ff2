//! An ascending list of sessions, in chunks, so that one key may have very many.
//!
//! Laws
//! 1. A chunk holds at most [`MOST`] sessions, and none is empty but an only one.
//! 2. What changes in the middle moves a part of one chunk; what lies behind stays. An index is found by counting chunks:
//!    O(MOST + n / MOST) for a list of n, of which few have more than one chunk.
//! 3. A list that has been emptied keeps its first chunk's room.

use super::store::Part;
use std::collections::VecDeque;
use std::ops::Range;

/// Sessions in a chunk: at 40 bytes each, moving half of one takes about as long as a few cache misses.
const MOST: usize = 512;

/// See the module.
pub(super) struct Parts<Acc> {
    first: VecDeque<Part<Acc>>,
    /// The other chunks.
    more: Vec<VecDeque<Part<Acc>>>,
}

impl<Acc> Default for Parts<Acc> {
    fn default() -> Self {
        Parts {
            first: VecDeque::new(),
            more: vec![],
        }
    }
}

impl<Acc> Parts<Acc> {
    pub fn len(&self) -> usize {
        self.first.len() + self.more.iter().map(VecDeque::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        // Law 1: where it is, there are no others.
        self.first.is_empty()
    }

    /// Sessions for which the first chunk has room.
    pub fn capacity(&self) -> usize {
        self.first.capacity()
    }

    fn chunk(&self, number: usize) -> &VecDeque<Part<Acc>> {
        match number {
            0 => &self.first,
            other => &self.more[other - 1],
        }
    }

    fn chunk_mut(&mut self, number: usize) -> &mut VecDeque<Part<Acc>> {
        match number {
            0 => &mut self.first,
            other => &mut self.more[other - 1],
        }
    }

    /// The chunk of an index and the place in it; beyond the end it is the last chunk.
    fn place(&self, mut at: usize) -> (usize, usize) {
        for number in 0..self.more.len() {
            let length = self.chunk(number).len();
            if at < length {
                return (number, at);
            }
            at -= length;
        }
        (self.more.len(), at)
    }

    pub fn get(&self, at: usize) -> Option<&Part<Acc>> {
        let (number, at) = self.place(at);
        self.chunk(number).get(at)
    }

    pub fn get_mut(&mut self, at: usize) -> Option<&mut Part<Acc>> {
        let (number, at) = self.place(at);
        self.chunk_mut(number).get_mut(at)
    }

    pub fn front(&self) -> Option<&Part<Acc>> {
        self.first.front()
    }

    /// The sessions of a range of indices.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &Part<Acc>> {
        let (number, at) = self.place(range.start);
        let others = self.more[number..].iter().flatten();
        self.chunk(number)
            .range(at..)
            .chain(others)
            .take(range.len())
    }

    /// The number of leading sessions for which `f` holds; it holds for no other.
    pub fn partition_point(&self, f: impl Fn(&Part<Acc>) -> bool) -> usize {
        let whole = |chunk: &VecDeque<_>| chunk.back().is_some_and(&f);
        if self.more.is_empty() || !whole(&self.first) {
            return self.first.partition_point(f);
        }
        let number = self.more.partition_point(whole);
        let before = &self.more[..number];
        let rest = self.more.get(number).map_or(0, |c| c.partition_point(&f));
        self.first.len() + before.iter().map(VecDeque::len).sum::<usize>() + rest
    }

    pub fn insert(&mut self, at: usize, part: Part<Acc>) {
        let (number, at) = self.place(at);
        self.insert_in(number, at, part);
    }

    pub fn push_back(&mut self, part: Part<Acc>) {
        let number = self.more.len();
        self.insert_in(number, self.chunk(number).len(), part);
    }

    fn insert_in(&mut self, number: usize, at: usize, part: Part<Acc>) {
        let chunk = self.chunk_mut(number);
        chunk.insert(at, part);
        if chunk.len() > MOST {
            let half = chunk.split_off(MOST / 2);
            self.more.insert(number, half);
        }
    }

    pub fn remove(&mut self, at: usize) -> Option<Part<Acc>> {
        let (number, at) = self.place(at);
        let part = self.chunk_mut(number).remove(at);
        self.drop_if_empty(number);
        part
    }

    pub fn pop_front(&mut self) -> Option<Part<Acc>> {
        let part = self.first.pop_front();
        self.drop_if_empty(0);
        part
    }

    pub fn pop_back(&mut self) -> Option<Part<Acc>> {
        let number = self.more.len();
        let part = self.chunk_mut(number).pop_back();
        self.drop_if_empty(number);
        part
    }

    /// Law 1.
    fn drop_if_empty(&mut self, number: usize) {
        if self.more.is_empty() || !self.chunk(number).is_empty() {
            return;
        }
        match number {
            0 => self.first = self.more.remove(0),
            other => drop(self.more.remove(other - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(start: i64) -> Part<()> {
        Part {
            start,
            end: start,
            fired: false,
            acc: (),
        }
    }

    proptest! {
        #[test]
        fn it_is_a_list(ops in prop::collection::vec((0u8..10, any::<prop::sample::Index>()), 0..400), begin in 0usize..3000) {
            let mut model: Vec<i64> = (0..begin as i64).map(|n| n * 1000).collect();
            let mut parts = Parts::default();
            for &start in &model {
                parts.push_back(part(start));
            }
            for (op, place) in ops {
                let at = place.index(model.len() + 1);
                match op {
                    0..5 => {
                        let before = if at == 0 { -1000 } else { model[at - 1] };
                        let start = before + 1;
                        if model.get(at) == Some(&start) {
                            continue;
                        }
                        model.insert(at, start);
                        parts.insert(at, part(start));
                    }
                    5..7 if at < model.len() => {
                        prop_assert_eq!(parts.remove(at).map(|p| p.start), Some(model.remove(at)));
                    }
                    7 => {
                        // Many at once, so that chunks empty.
                        for _ in 0..at.min(700) {
                            prop_assert_eq!(parts.pop_front().map(|p| p.start), Some(model.remove(0)));
                        }
                    }
                    8 => prop_assert_eq!(parts.pop_back().map(|p| p.start), model.pop()),
                    _ => {
                        let bound = model.get(at).copied().unwrap_or(i64::MAX);
                        prop_assert_eq!(parts.partition_point(|p| p.start < bound), at);
                        let to = model.len().min(at + 600);
                        let found: Vec<i64> = parts.range(at..to).map(|p| p.start).collect();
                        prop_assert_eq!(&found[..], &model[at..to]);
                        prop_assert_eq!(parts.get(at).map(|p| p.start), model.get(at).copied());
                        prop_assert_eq!(parts.get_mut(at).map(|p| p.start), model.get(at).copied());
                    }
                }
                prop_assert_eq!(parts.len(), model.len());
                prop_assert_eq!(parts.is_empty(), model.is_empty());
                prop_assert_eq!(parts.front().map(|p| p.start), model.first().copied());
                let chunks = parts.more.len() + 1;
                prop_assert!((0..chunks).all(|n| parts.chunk(n).len() <= MOST && (chunks == 1 || !parts.chunk(n).is_empty())));
            }
        }
    }
}
