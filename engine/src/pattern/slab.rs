//! Things of one kind that come and go, those of all keys of a shard together.
//!
//! Laws
//! 1. What is in it never moves; growth adds a page and copies nothing but the first, small one.
//! 2. What is free is a chain through the free ones themselves. The one that was freed last is taken first, so that steady work
//!    stays within few pages.
//! 3. Pages are kept for the next time: no allocation once as many live as ever lived.

use std::ops::{Index, IndexMut};

const PAGE: usize = 1024;
/// Room of the first page at first: a pattern of few events is small.
const FIRST: usize = 16;
/// Nothing.
pub(super) const NONE: u32 = u32::MAX;

/// What a free one is: a link to the next.
pub(super) trait Vacant {
    fn vacant(next: u32) -> Self;
    /// Of one that is free.
    fn next_vacant(&self) -> u32;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Slab<V> {
    pages: Vec<Vec<V>>,
    /// The first free one, or [`NONE`].
    free: u32,
    len: usize,
}

impl<V: Vacant> Slab<V> {
    pub fn new() -> Self {
        Slab {
            pages: vec![],
            free: NONE,
            len: 0,
        }
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes one in; where it lies.
    #[inline(always)]
    pub fn put(&mut self, value: V) -> u32 {
        self.len += 1;
        if self.free == NONE {
            return self.append(value);
        }
        let at = self.free;
        let slot = &mut self[at];
        let next = slot.next_vacant();
        *slot = value;
        self.free = next;
        at
    }

    #[inline(never)]
    fn append(&mut self, value: V) -> u32 {
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            let room = if self.pages.is_empty() { FIRST } else { PAGE };
            self.pages.push(Vec::with_capacity(room));
        }
        let page = self.pages.len() - 1;
        let last = &mut self.pages[page];
        last.push(value);
        let at = page * PAGE + last.len() - 1;
        assert!(
            at < NONE as usize,
            "the partial matches of a shard have at most 2^32 - 1 places"
        );
        at as u32
    }

    /// Takes one out.
    #[inline(always)]
    pub fn take(&mut self, at: u32) -> V {
        self.len -= 1;
        let vacant = V::vacant(self.free);
        self.free = at;
        std::mem::replace(&mut self[at], vacant)
    }

    /// Asks the cache for one.
    #[inline(always)]
    pub fn prefetch(&self, at: u32) {
        if let Some(page) = self.pages.get(at as usize / PAGE) {
            pelton_ring::prefetch_ends_of(page, at as usize % PAGE);
        }
    }
}

impl<V> Index<u32> for Slab<V> {
    type Output = V;
    #[inline(always)]
    fn index(&self, at: u32) -> &V {
        &self.pages[at as usize / PAGE][at as usize % PAGE]
    }
}

impl<V> IndexMut<u32> for Slab<V> {
    #[inline(always)]
    fn index_mut(&mut self, at: u32) -> &mut V {
        &mut self.pages[at as usize / PAGE][at as usize % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq)]
    enum One {
        Free(u32),
        Held(u64),
    }

    impl Vacant for One {
        fn vacant(next: u32) -> Self {
            One::Free(next)
        }
        fn next_vacant(&self) -> u32 {
            match self {
                One::Free(next) => *next,
                One::Held(_) => unreachable!("it is free"),
            }
        }
    }

    proptest! {
        /// Against a map: whatever comes and goes, each stays where it is, and there are never more pages than the most needed.
        #[test]
        fn each_stays_where_it_is(ops in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..6000), more in 1u64..4) {
            let (mut slab, mut model, mut most) = (Slab::new(), BTreeMap::new(), 0);
            for (n, (goes, which)) in (0u64..).zip(ops) {
                if goes && n % more != 0 {
                    let from = model.range(u32::from(which)..).next().or(model.iter().next());
                    let Some((&at, &value)) = from else { continue };
                    model.remove(&at);
                    prop_assert_eq!(slab.take(at), One::Held(value));
                } else {
                    prop_assert_eq!(model.insert(slab.put(One::Held(n)), n), None);
                }
                most = most.max(model.len());
                prop_assert_eq!(slab.len(), model.len());
            }
            for (at, value) in model {
                prop_assert_eq!(&slab[at], &One::Held(value));
            }
            prop_assert_eq!(slab.pages.len(), most.div_ceil(PAGE));
        }
    }
}
