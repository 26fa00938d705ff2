//! The closed slices of one key as two stacks, so that the aggregate of a window that slides over them costs a few merges a
//! slide, however many slices it holds, and nothing is ever subtracted.
//!
//! ```text
//! parts:  | suffix aggregates, `front` of them | as they closed: raw | still open: raw |
//!           parts[0] is the whole front          `back` is their sum    not in any total yet
//! ```
//!
//! Laws
//! 1. Parts ascend by slice. Once closed a part is not written again, but for the turn below.
//! 2. The total is parts[0] merged with `back`. Evicting pops the front; when none is left, the raw parts are *turned*: each takes in
//!    what lies to its right and becomes part of the front. Each part is merged twice in its life, so the cost is O(1) amortised.
//! 3. A turn may be left half done (its steps are bounded) and must be finished before the next total.
//!
//! Two stacks make a queue with an aggregate: folklore; "two-stacks lite" in one deque after Tangwongsan, Hirzel, Schneider (2021).

use crate::aggregate::Aggregate;
use crate::checkpoint::{Parts, Value};
use crate::state::{LoadError, State};
use pelton_ring::prefetch_ends;
use std::borrow::Cow;
use std::collections::VecDeque;

/// How parts of closed slices are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// As the module says.
    TwoStacks,
    /// Raw, and merged for each total: for accumulators that grow with their records, whose suffix aggregates would hold each record many times.
    Slices,
    /// Only their sum: where all of them go at once (cumulating windows).
    Sum,
}

/// So many parts are not worth a step between one and all.
const SMALL: usize = 16;

/// What one key has in one slice.
#[derive(Clone, Debug)]
pub(crate) struct Part<A> {
    /// Start of the slice.
    pub slice: i64,
    /// Its records; in the front those of later slices too.
    pub acc: A,
}

impl<A: State> Part<A> {
    /// Writes it as a piece of an entry of a checkpoint.
    pub fn store(&self, to: &mut Value<'_, '_, '_>) {
        to.number(self.slice);
        to.part(&self.acc);
    }

    /// Reads it again.
    pub fn load(from: &mut Parts<'_>) -> Result<Self, LoadError> {
        Ok(Part {
            slice: from.number()?,
            acc: from.part()?,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stacks<A> {
    parts: VecDeque<Part<A>>,
    /// Parts that are suffix aggregates: 0..=closed.
    front: u32,
    /// Parts that are closed: 0..=parts.len().
    closed: u32,
    /// Of the closed parts, how many from the right are turned: above 0 only while a turn is half done.
    turned: u32,
    /// `back` holds parts that are gone: a turn is due.
    stale: bool,
    /// Aggregate of the closed raw parts; of nothing if there are none.
    back: A,
}

impl<A: Clone> Stacks<A> {
    /// No parts; `back` has seen nothing.
    pub fn new(back: A) -> Self {
        Stacks {
            parts: VecDeque::new(),
            front: 0,
            closed: 0,
            turned: 0,
            stale: false,
            back,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Parts that it has.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    pub fn has_closed(&self) -> bool {
        self.closed > 0
    }

    /// Slice of the oldest part that is still open.
    pub fn oldest_open(&self) -> Option<i64> {
        self.parts.get(self.closed as usize).map(|p| p.slice)
    }

    /// Whether [`Stacks::close`] or [`Stacks::evict`] with these times would change something.
    pub fn changes(&self, close_before: i64, evict_before: i64) -> bool {
        let closes = self.oldest_open().is_some_and(|s| s < close_before);
        let oldest = self.parts.front().map(|p| p.slice);
        closes || self.stale || (self.closed > 0 && oldest.is_some_and(|s| s < evict_before))
    }

    /// The slices of the parts, ascending.
    pub fn slices(&self) -> impl Iterator<Item = i64> {
        self.parts.iter().map(|p| p.slice)
    }

    /// Writes it as it is, as a piece of an entry of a checkpoint.
    pub fn store(&self, to: &mut Value<'_, '_, '_>)
    where
        A: State,
    {
        debug_assert!(self.turned == 0 && !self.stale, "no turn is half done");
        to.number(self.parts.len() as i64);
        for part in &self.parts {
            part.store(to);
        }
        to.number(i64::from(self.front));
        to.number(i64::from(self.closed));
        // Else `back` has seen nothing.
        if self.closed > self.front {
            to.part(&self.back);
        }
    }

    /// Reads it again; this one is empty, and its `back` has seen nothing.
    pub fn load(&mut self, from: &mut Parts<'_>) -> Result<(), LoadError>
    where
        A: State,
    {
        let count = from.count()?;
        self.parts.reserve_exact(count);
        for _ in 0..count {
            self.parts.push_back(Part::load(from)?);
        }
        let (front, closed) = (from.number()?, from.number()?);
        if front < 0 || front > closed || closed > count as i64 {
            return Err(LoadError::new(format!(
                "of {count} slices {closed} are closed and {front} in front"
            )));
        }
        (self.front, self.closed) = (front as u32, closed as u32);
        if closed > front {
            self.back = from.part()?;
        }
        Ok(())
    }

    /// Appends the newest part, still open. Room is made for one at first, since many keys are seen once; then for `most`,
    /// the most parts that a key has whose records are in order, if these are few, or step by step.
    #[inline]
    pub fn push(&mut self, part: Part<A>, most: usize) {
        debug_assert!(self.parts.back().is_none_or(|p| p.slice < part.slice));
        let len = self.parts.len();
        if len == self.parts.capacity() {
            let rest = most.saturating_sub(len);
            let more = match len {
                0 => 1,
                _ if rest <= SMALL => rest,
                _ => len.max(4).min(rest),
            };
            self.parts.reserve_exact(more.max(1));
        }
        self.parts.push_back(part);
    }

    /// The accumulator of an open slice, made if need be. O(open parts).
    pub fn open(&mut self, slice: i64, create: impl FnOnce() -> A) -> &mut A {
        let at = self.parts.partition_point(|p| p.slice < slice);
        debug_assert!(at >= self.closed as usize, "a closed slice is not written");
        if self.parts.get(at).is_none_or(|p| p.slice != slice) {
            let acc = create();
            self.parts.insert(at, Part { slice, acc });
        }
        &mut self.parts[at].acc
    }

    /// Closes the slices that start before this time; `each` sees them.
    #[inline]
    pub fn close<T, G: Aggregate<T, Acc = A>>(
        &mut self,
        before: i64,
        keep: Keep,
        aggregate: &G,
        mut each: impl FnMut(&Part<A>),
    ) {
        while let Some(part) = self.parts.get(self.closed as usize) {
            if part.slice >= before {
                break;
            }
            debug_assert!(!self.stale, "a turn has been finished (law 3)");
            each(part);
            if keep != Keep::Slices {
                aggregate.merge(&mut self.back, &part.acc);
            }
            if keep == Keep::Sum && self.closed > 0 {
                self.parts.remove(self.closed as usize);
            } else {
                self.closed += 1;
            }
        }
    }

    /// Forgets the closed parts that start before this time; `true` when done, else call again. Takes from `work` what it did.
    #[inline(always)]
    pub fn evict<T, G: Aggregate<T, Acc = A>>(
        &mut self,
        before: i64,
        keep: Keep,
        aggregate: &G,
        work: &mut i64,
    ) -> bool {
        while self.closed > 0 && self.parts.front().is_some_and(|p| p.slice < before) {
            if *work <= 0 {
                return false;
            }
            *work -= 1;
            self.parts.pop_front();
            self.closed -= 1;
            if self.front > 0 {
                self.front -= 1;
            } else {
                self.stale = true;
            }
        }
        !self.stale || self.turn(keep, aggregate, work)
    }

    /// Makes the raw parts the new front (law 2).
    #[inline(never)]
    fn turn<T, G: Aggregate<T, Acc = A>>(
        &mut self,
        keep: Keep,
        aggregate: &G,
        work: &mut i64,
    ) -> bool {
        if keep == Keep::TwoStacks && self.closed > 0 {
            self.turned = self.turned.max(1);
            let lowest = (self.closed - self.turned) as usize;
            let mut leftwards = self.parts.range_mut(..=lowest).rev();
            if let Some(mut right) = leftwards.next() {
                for left in leftwards {
                    if *work <= 0 {
                        return false;
                    }
                    *work -= 1;
                    aggregate.merge(&mut left.acc, &right.acc);
                    right = left;
                    self.turned += 1;
                }
            }
            self.front = self.closed;
            self.turned = 0;
        }
        self.back = aggregate.create();
        self.stale = false;
        true
    }

    /// The aggregate of all closed parts.
    #[inline]
    pub fn total<T, G: Aggregate<T, Acc = A>>(
        &self,
        keep: Keep,
        aggregate: &G,
    ) -> Option<Cow<'_, A>> {
        debug_assert!(!self.stale);
        if keep == Keep::Slices {
            let mut closed = self.parts.range(..self.closed as usize);
            let mut total = Cow::Borrowed(&closed.next()?.acc);
            for part in closed {
                aggregate.merge(total.to_mut(), &part.acc);
            }
            Some(total)
        } else if self.front == 0 {
            (self.closed > 0).then_some(Cow::Borrowed(&self.back))
        } else if self.front == self.closed {
            Some(Cow::Borrowed(&self.parts[0].acc))
        } else {
            let mut total = self.parts[0].acc.clone();
            aggregate.merge(&mut total, &self.back);
            Some(Cow::Owned(total))
        }
    }

    /// The aggregate of the closed slices from `start` on, as far as they have been summed up: of the front, or of all of
    /// them where only their sum is kept. With [`Stacks::raw`], each part once.
    pub fn front(&self, start: i64, keep: Keep) -> Option<&A> {
        if keep == Keep::Sum {
            let held = self.closed > 0 && self.parts[0].slice >= start;
            return held.then_some(&self.back);
        }
        let front = self.parts.range(..self.front as usize);
        let before = front.take_while(|p| p.slice < start).count();
        (before < self.front as usize).then(|| &self.parts[before].acc)
    }

    /// The n-th of the parts that [`Stacks::front`] does not hold, the open ones included, and then the newest.
    pub fn raw<'a>(&'a self, n: usize, keep: Keep, newest: (i64, &'a A)) -> Option<(i64, &'a A)> {
        let summed = if keep == Keep::Sum {
            self.closed
        } else {
            self.front
        };
        match self.parts.get(summed as usize + n) {
            Some(part) => Some((part.slice, &part.acc)),
            None => (summed as usize + n == self.parts.len()).then_some(newest),
        }
    }

    /// Closed parts whose merging [`Stacks::total`] has to do.
    pub fn total_work(&self, keep: Keep) -> i64 {
        if keep == Keep::Slices {
            i64::from(self.closed)
        } else {
            1
        }
    }

    /// Asks the cache for the oldest part and the newest.
    #[inline(always)]
    pub fn prefetch(&self) {
        if let Some(part) = self.parts.front() {
            prefetch_ends(part);
        }
        if let Some(part) = self.parts.back() {
            prefetch_ends(part);
        }
    }

    /// Frees the memory of one that is empty.
    pub fn free(&mut self) {
        debug_assert!(self.is_empty());
        self.parts = VecDeque::new();
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self, back: A) {
        self.parts.clear();
        (self.front, self.closed, self.turned) = (0, 0, 0);
        self.stale = false;
        self.back = back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::At;
    use proptest::prelude::*;

    /// Keeps its records, so that one counted twice or never is seen.
    #[derive(Clone)]
    struct Records;

    impl Aggregate<u32> for Records {
        type Acc = Vec<u32>;
        type Out = Vec<u32>;
        fn create(&self) -> Vec<u32> {
            vec![]
        }
        fn add(&self, acc: &mut Vec<u32>, record: &u32, _: At) {
            acc.push(*record);
        }
        fn merge(&self, acc: &mut Vec<u32>, other: &Vec<u32>) {
            acc.extend(other);
        }
        fn finish(&self, acc: &Vec<u32>) -> Vec<u32> {
            let mut out = acc.clone();
            out.sort_unstable();
            out
        }
    }

    fn finished(stacks: &Stacks<Vec<u32>>, keep: Keep) -> Vec<u32> {
        stacks
            .total(keep, &Records)
            .map_or(vec![], |t| Records.finish(&t))
    }

    proptest! {
        #[test]
        fn it_is_a_queue(
            steps in proptest::collection::vec((proptest::collection::vec(0i64..6, 0..4), 1i64..4, 0i64..12), 1..60),
            budget in 1i64..6,
        ) {
            for keep in [Keep::TwoStacks, Keep::Slices] {
                let mut stacks = Stacks::new(vec![]);
                let mut model: Vec<(i64, u32)> = vec![];
                let (mut now, mut oldest, mut record) = (0, 0, 0);
                for (records, forward, length) in &steps {
                    for ahead in records {
                        record += 1;
                        stacks.open(now + ahead, Vec::new).push(record);
                        model.push((now + ahead, record));
                    }
                    now += forward;
                    let mut closed = 0;
                    stacks.close(now, keep, &Records, |_| closed += 1);
                    prop_assert!(closed <= *forward);
                    oldest = oldest.max(now - length);
                    while !stacks.evict(oldest, keep, &Records, &mut { budget }) {}
                    model.retain(|(slice, _)| *slice >= oldest || *slice >= now);
                    let mut expected: Vec<u32> = model.iter().filter(|m| m.0 < now).map(|m| m.1).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(stacks.has_closed(), !expected.is_empty());
                    prop_assert_eq!(finished(&stacks, keep), expected);
                    let open = model.iter().map(|m| m.0).filter(|s| *s >= now).min();
                    prop_assert_eq!(stacks.oldest_open(), open);
                }
            }
        }

        #[test]
        fn a_sum_keeps_one_part(records in proptest::collection::vec(0i64..40, 0..100), now in 0i64..60) {
            let mut stacks = Stacks::new(vec![]);
            for (n, slice) in records.iter().enumerate() {
                stacks.open(*slice, Vec::new).push(n as u32);
            }
            stacks.close(now, Keep::Sum, &Records, |_| {});
            prop_assert!(stacks.closed <= 1);
            let closed = records.iter().filter(|s| **s < now).count();
            prop_assert_eq!(finished(&stacks, Keep::Sum).len(), closed);
            prop_assert!(stacks.evict(now, Keep::Sum, &Records, &mut 10));
            prop_assert_eq!(finished(&stacks, Keep::Sum).len(), 0);
            prop_assert_eq!(stacks.is_empty(), closed == records.len());
        }
    }

    #[test]
    fn two_merges_a_part() {
        use std::cell::Cell;
        thread_local!(static MERGES: Cell<u64> = const { Cell::new(0) });
        #[derive(Clone)]
        struct Counting;
        impl Aggregate<u32> for Counting {
            type Acc = u32;
            type Out = u32;
            fn create(&self) -> u32 {
                0
            }
            fn add(&self, acc: &mut u32, _: &u32, _: At) {
                *acc += 1;
            }
            fn merge(&self, acc: &mut u32, other: &u32) {
                MERGES.set(MERGES.get() + 1);
                *acc += other;
            }
            fn finish(&self, acc: &u32) -> u32 {
                *acc
            }
        }
        for length in [1, 2, 10, 1000] {
            MERGES.set(0);
            let mut stacks = Stacks::new(0);
            for slice in 0..20_000 {
                stacks.push(Part { slice, acc: 1 }, 1000);
                stacks.close(slice + 1, Keep::TwoStacks, &Counting, |_| {});
                let total = stacks
                    .total(Keep::TwoStacks, &Counting)
                    .map(Cow::into_owned);
                assert_eq!(total, Some((slice + 1).min(length) as u32));
                assert!(stacks.evict(slice + 2 - length, Keep::TwoStacks, &Counting, &mut 100_000));
            }
            // A merge into the back, one in the turn, one in the total.
            assert!(MERGES.get() <= 3 * 20_000, "{length}: {}", MERGES.get());
        }
    }
}
