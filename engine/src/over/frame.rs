//! The records of a frame as a queue with an aggregate: O(1) merges for each that comes or goes, none of them long, nothing subtracted.
//!
//! ```text
//! parts:  0 ....... left ....... right ....... above ....... back ....... len
//!         | up to back | up to right |    raw    | up to back |    raw    |
//!                                    \_______ `rest` ________/ \_ `newest` _/
//! ```
//!
//! Laws
//! 1. A part before `back` holds what it came with, or the aggregate from its record up to where the drawing says. The first one holds all up to
//!    `back` whenever there is one: so the total is that and `newest`.
//! 2. What has come since is turned into front a step at a time, one for each that comes or goes: `left` runs on and `above` runs back
//!    until both have met at `right`; then all three go on to `back`. There the front is as long as the back, and it begins anew.
//! 3. So each comes or goes with at most three merges, and two more make a total.
//! 4. Where accumulators grow with their records, all parts are raw and a total merges them all: aggregates of many would hold each record
//!    many times.
//!
//! DABA Lite: Tangwongsan, Hirzel and Schneider (2021).

use crate::aggregate::Aggregate;
use crate::time::EventTime;
use std::borrow::Cow;
use std::collections::VecDeque;

/// See the module.
#[crate::state(version = 1)]
#[derive(Clone, Debug)]
pub(crate) struct Frame<A> {
    /// Each record's time and accumulator, the oldest first.
    parts: VecDeque<(EventTime, A)>,
    left: u32,
    right: u32,
    above: u32,
    back: u32,
    /// Of `right..back` as it was when the turn began.
    rest: A,
    /// Of `back..`.
    newest: A,
}

impl<A: Clone> Frame<A> {
    /// Of nothing.
    pub fn new<T, G: Aggregate<T, Acc = A>>(aggregate: &G) -> Self {
        Frame {
            parts: VecDeque::new(),
            left: 0,
            right: 0,
            above: 0,
            back: 0,
            rest: aggregate.create(),
            newest: aggregate.create(),
        }
    }

    /// Records in it.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// The time of the oldest record.
    pub fn oldest(&self) -> Option<EventTime> {
        self.parts.front().map(|part| part.0)
    }

    /// A record comes.
    pub fn push<T, G: Aggregate<T, Acc = A>>(&mut self, time: EventTime, acc: A, aggregate: &G) {
        if !G::GROWS {
            aggregate.merge(&mut self.newest, &acc);
        }
        self.parts.push_back((time, acc));
        self.step(aggregate);
    }

    /// The oldest record goes.
    pub fn evict<T, G: Aggregate<T, Acc = A>>(&mut self, aggregate: &G) {
        if self.parts.pop_front().is_none() || G::GROWS {
            return;
        }
        debug_assert!(self.left > 0, "the first part is up to the back: law 1");
        for bound in [
            &mut self.left,
            &mut self.right,
            &mut self.above,
            &mut self.back,
        ] {
            *bound -= 1;
        }
        self.step(aggregate);
    }

    /// Law 2.
    fn step<T, G: Aggregate<T, Acc = A>>(&mut self, aggregate: &G) {
        if G::GROWS {
            return;
        }
        let len = self.parts.len() as u32;
        if self.back == 0 {
            debug_assert!(len <= 1, "the front is never used up before the back");
            (self.left, self.right, self.above, self.back) = (len, len, len, len);
            self.rest = aggregate.create();
            self.newest = aggregate.create();
            return;
        }
        if self.left == self.back {
            debug_assert_eq!(len, 2 * self.back, "front and back are as long");
            (self.left, self.right, self.above, self.back) = (0, self.back, len, len);
            self.rest = std::mem::replace(&mut self.newest, aggregate.create());
        }
        if self.left == self.right {
            self.left += 1;
            self.right += 1;
            self.above += 1;
            return;
        }
        aggregate.merge(&mut self.parts[self.left as usize].1, &self.rest);
        self.left += 1;
        self.above -= 1;
        if self.above + 1 < self.back {
            let at = self.above as usize;
            let mut two = self.parts.range_mut(at..=at + 1);
            if let (Some(part), Some(next)) = (two.next(), two.next()) {
                aggregate.merge(&mut part.1, &next.1);
            }
        }
    }

    /// The aggregate of all; of nothing if there are none.
    pub fn total<T, G: Aggregate<T, Acc = A>>(&self, aggregate: &G) -> Cow<'_, A> {
        if G::GROWS {
            let mut total = aggregate.create();
            for (_, part) in &self.parts {
                aggregate.merge(&mut total, part);
            }
            return Cow::Owned(total);
        }
        match self.parts.front() {
            None => Cow::Borrowed(&self.newest),
            Some((_, first)) if self.back as usize == self.parts.len() => Cow::Borrowed(first),
            Some((_, first)) => {
                let mut total = first.clone();
                aggregate.merge(&mut total, &self.newest);
                Cow::Owned(total)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::At;
    use proptest::prelude::*;
    use std::cell::Cell;

    thread_local!(static MERGES: Cell<u64> = const { Cell::new(0) });

    /// Keeps its records, so that one counted twice or never is seen, and counts merges.
    #[derive(Clone)]
    struct Records<const GROWS: bool>;

    impl<const GROWS: bool> Aggregate<i64> for Records<GROWS> {
        type Acc = Vec<i64>;
        type Out = Vec<i64>;
        const GROWS: bool = GROWS;
        fn create(&self) -> Vec<i64> {
            vec![]
        }
        fn add(&self, acc: &mut Vec<i64>, record: &i64, _: At) {
            acc.push(*record);
        }
        fn merge(&self, acc: &mut Vec<i64>, other: &Vec<i64>) {
            MERGES.set(MERGES.get() + 1);
            acc.extend(other);
        }
        fn finish(&self, acc: &Vec<i64>) -> Vec<i64> {
            let mut acc = acc.clone();
            acc.sort_unstable();
            acc
        }
    }

    fn follows<const GROWS: bool>(steps: &[bool]) {
        let aggregate = Records::<GROWS>;
        let mut frame = Frame::new(&aggregate);
        let mut model = VecDeque::new();
        for (n, comes) in (0..).zip(steps) {
            MERGES.set(0);
            if *comes {
                frame.push(EventTime::from_micros(n), vec![n], &aggregate);
                model.push_back(n);
            } else {
                frame.evict(&aggregate);
                model.pop_front();
            }
            assert!(GROWS || MERGES.get() <= 3, "law 3: {}", MERGES.get());
            assert_eq!(frame.len(), model.len());
            let oldest = model.front().map(|n| EventTime::from_micros(*n));
            assert_eq!(frame.oldest(), oldest);
            let total = aggregate.finish(&frame.total(&aggregate));
            assert_eq!(total, Vec::from(model.clone()), "after {n} steps");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_queue(steps in prop::collection::vec(prop_oneof![3 => Just(true), 2 => Just(false)], 0..400)) {
            follows::<false>(&steps);
            follows::<true>(&steps);
        }

        /// Grows, stays as it is, shrinks.
        #[test]
        fn by_runs(runs in prop::collection::vec((any::<bool>(), 1usize..60), 0..20)) {
            let steps: Vec<bool> = runs.iter().flat_map(|(comes, n)| vec![*comes; *n]).collect();
            follows::<false>(&steps);
        }
    }
}
