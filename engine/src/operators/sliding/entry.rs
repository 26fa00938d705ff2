//! What an operator of sliding windows keeps for a key.
//!
//! Laws
//! 1. `slice` is newer than every part in the stacks; where it is [`NO_SLICE`], no part is open and `acc` has seen nothing.
//! 2. A behind record that counts in some windows of its slice only is in `sides`, never in the slice (SEMANTICS, time, 4).
//! 3. `closed` is kept only where lateness is allowed, each part until no window that holds it can change any more.

use super::stacks::{Part, Stacks};
use crate::aggregate::Aggregate;
use std::borrow::Cow;
use std::collections::VecDeque;

/// No slice: after all others.
pub(super) const NO_SLICE: i64 = i64::MAX;

/// One key: what a record on time needs. Small, since a record costs the cache lines that this lies on.
#[derive(Debug)]
pub(crate) struct SlidingKey<A> {
    /// Start of the newest slice that has records and is open, or [`NO_SLICE`].
    pub slice: i64,
    /// Its records.
    pub acc: A,
}

impl<A> SlidingKey<A> {
    pub fn new(acc: A) -> Self {
        SlidingKey {
            slice: NO_SLICE,
            acc,
        }
    }
}

/// The older slices of a key. That of a removed key is empty and waits for the key that gets its id.
#[derive(Debug)]
pub(crate) struct Rest<A> {
    pub stacks: Stacks<A>,
    /// Made by the first behind record, or the first slice that closes where lateness is allowed.
    pub kept: Option<Box<Kept<A>>>,
}

impl<A: Clone> Rest<A> {
    pub fn new(nothing: A) -> Self {
        Rest {
            stacks: Stacks::new(nothing),
            kept: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty() && self.kept.as_ref().is_none_or(|k| k.is_empty())
    }

    /// Accumulators that it has.
    pub fn parts(&self) -> usize {
        let kept = self.kept.as_ref();
        self.stacks.len() + kept.map_or(0, |k| k.closed.len() + k.sides.len())
    }

    /// Frees the memory of an empty one.
    pub fn free(&mut self) {
        self.stacks.free();
        self.kept = None;
    }
}

/// The rests of all keys, by the ids of the table: pages that never move.
#[derive(Debug)]
pub(crate) struct Rests<A>(Vec<Vec<Rest<A>>>);

impl<A: Clone> Rests<A> {
    const PAGE: usize = 1024;

    pub fn new() -> Self {
        Rests(vec![])
    }

    /// Makes the rest of an id that has just been issued, unless it has one from an earlier key.
    pub fn issued(&mut self, id: u32, nothing: impl FnOnce() -> A) {
        let page = id as usize / Self::PAGE;
        if page == self.0.len() {
            // As in the table: few keys need little.
            let room = if page == 0 { 16 } else { Self::PAGE };
            self.0.push(Vec::with_capacity(room));
        }
        let page = &mut self.0[page];
        if page.len() == id as usize % Self::PAGE {
            page.push(Rest::new(nothing()));
        }
    }

    #[inline(always)]
    pub fn get(&self, id: u32) -> &Rest<A> {
        &self.0[id as usize / Self::PAGE][id as usize % Self::PAGE]
    }

    #[inline(always)]
    pub fn get_mut(&mut self, id: u32) -> &mut Rest<A> {
        &mut self.0[id as usize / Self::PAGE][id as usize % Self::PAGE]
    }

    /// Asks the cache for what a visit to this key touches.
    #[inline(always)]
    pub fn prefetch(&self, id: u32) {
        if let Some(page) = self.0.get(id as usize / Self::PAGE)
            && let Some(rest) = page.get(id as usize % Self::PAGE)
        {
            rest.stacks.prefetch();
        }
    }
}

/// What behind records need and bring.
#[derive(Debug)]
pub(crate) struct Kept<A> {
    /// Closed slices, ascending (law 3).
    pub closed: VecDeque<Part<A>>,
    /// Ascending by (slice, from, on_time).
    pub sides: Vec<Side<A>>,
}

/// Behind records of one slice that count in the same windows.
#[derive(Debug)]
pub(crate) struct Side<A> {
    pub slice: i64,
    /// End of the first window that they count in.
    pub from: i64,
    /// End of the first window whose on-time result holds them: `from`, unless windows are corrected once.
    pub on_time: i64,
    pub acc: A,
}

impl<A> Default for Kept<A> {
    fn default() -> Self {
        Kept {
            closed: VecDeque::new(),
            sides: vec![],
        }
    }
}

impl<A: Clone> Kept<A> {
    pub fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.sides.is_empty()
    }

    /// Start of the oldest slice kept.
    pub fn oldest(&self) -> Option<i64> {
        let closed = self.closed.front().map(|p| p.slice);
        let side = self.sides.first().map(|s| s.slice);
        match (closed, side) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The accumulator of behind records of this kind.
    pub fn side(
        &mut self,
        slice: i64,
        from: i64,
        on_time: i64,
        create: impl FnOnce() -> A,
    ) -> &mut A {
        let kind = (slice, from, on_time);
        let at = match self
            .sides
            .binary_search_by_key(&kind, |s| (s.slice, s.from, s.on_time))
        {
            Ok(at) => at,
            Err(at) => {
                let acc = create();
                self.sides.insert(
                    at,
                    Side {
                        slice,
                        from,
                        on_time,
                        acc,
                    },
                );
                at
            }
        };
        &mut self.sides[at].acc
    }

    /// The sides whose slices lie in the window.
    fn sides_in(&self, start: i64, end: i64) -> impl Iterator<Item = &Side<A>> {
        let first = self.sides.partition_point(|s| s.slice < start);
        self.sides[first..]
            .iter()
            .take_while(move |s| s.slice < end)
    }

    /// Adds the sides that count in the window: those on time only, or all.
    pub fn with_sides<'a, T, G: Aggregate<T, Acc = A>>(
        &'a self,
        mut total: Option<Cow<'a, A>>,
        (start, end): (i64, i64),
        on_time_only: bool,
        aggregate: &G,
    ) -> Option<Cow<'a, A>> {
        for side in self.sides_in(start, end) {
            let counts_from = if on_time_only {
                side.on_time
            } else {
                side.from
            };
            if end < counts_from {
                continue;
            }
            match &mut total {
                Some(total) => aggregate.merge(total.to_mut(), &side.acc),
                None => total = Some(Cow::Borrowed(&side.acc)),
            }
        }
        total
    }

    /// Whether records are parked for the correction of the window.
    pub fn is_parked(&self, start: i64, end: i64) -> bool {
        self.sides_in(start, end)
            .any(|s| s.from <= end && end < s.on_time)
    }

    /// Forgets the slices that start before this time; how many parts that were.
    pub fn forget(&mut self, before: i64) -> i64 {
        let mut forgotten = 0;
        while self.closed.front().is_some_and(|p| p.slice < before) {
            self.closed.pop_front();
            forgotten += 1;
        }
        let gone = self.sides.partition_point(|s| s.slice < before);
        self.sides.drain(..gone);
        forgotten + gone as i64
    }
}
