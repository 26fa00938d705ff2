//! Early firing of windows that overlap: which windows of which keys have changed, and what they hold so far.
//!
//! Laws
//! 1. A record on time changes all windows of its slice; one beside the slice those that count it. Each changed window that
//!    has not fired is told once, within the interval; others are not. Keys come by id, the windows of a key by their ends.
//! 2. Nothing of the operator's state is written: what a window tells when it fires does not depend on this.
//! 3. For each key, stretches of changed windows ascend by their last one, each with another last one. Those of fired windows
//!    go when the key changes, so there are never more than the slices of a key that some window still needs.
//! 4. Telling goes by pieces, also within a key; meanwhile no record and no watermark is taken.
//!
//! Cost: a record one probe more and O(log of its key's stretches); a changed window O(1) amortised merges, as if it fired, and
//! for each key the parts of its open slices once. Many slides in a size mean many windows told for each change.

use super::stacks::{Part, Stacks};
use super::{State, VISIT, WORK, emit};
use crate::aggregate::Aggregate;
use crate::key::Key;
use crate::operators::early::{Changed, EarlyTimer};
use crate::push::{Cx, Push, blame};
use crate::time::Span;
use crate::wheel::Paged;
use crate::window::{Firing, Windowed};
use std::borrow::Cow;
use std::collections::VecDeque;

/// Changed windows: those that end at `from`, a step later, and so on up to `last`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub from: i64,
    pub last: i64,
}

/// The changed windows of a key (law 3).
#[derive(Debug, Default)]
struct Stretches(VecDeque<Stretch>);

impl Stretches {
    /// Adds windows; those that end at `fired` or before are forgotten.
    #[inline]
    fn add(&mut self, windows: Stretch, fired: i64) {
        if let Some(back) = self.0.back_mut()
            && back.last == windows.last
        {
            back.from = back.from.min(windows.from);
            return;
        }
        self.forget(fired.saturating_add(1));
        let at = self.0.partition_point(|s| s.last < windows.last);
        match self.0.get_mut(at) {
            Some(same) if same.last == windows.last => same.from = same.from.min(windows.from),
            _ => self.0.insert(at, windows),
        }
    }

    /// Forgets the windows that end before this time, as far as whole stretches do.
    fn forget(&mut self, end: i64) {
        while self.0.front().is_some_and(|s| s.last < end) {
            self.0.pop_front();
        }
    }

    /// A time at or after `end` such that the first window end from there on is the next changed one. Those before are forgotten.
    fn next(&mut self, end: i64) -> Option<i64> {
        self.forget(end);
        let mut next = None;
        for stretch in &self.0 {
            let at = stretch.from.max(end);
            if at == end {
                return Some(end);
            }
            next = Some(next.map_or(at, |n: i64| n.min(at)));
        }
        next
    }
}

/// A key whose windows are being told.
#[derive(Clone, Copy, Debug)]
struct Telling {
    id: u32,
    /// End of the window that is next.
    end: i64,
    /// How many of its raw parts have been taken, or passed over.
    taken: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Early<A> {
    timer: EarlyTimer,
    /// Keys with changed windows.
    changed: Changed,
    /// By id.
    stretches: Paged<Stretches>,
    /// Raw parts of the key whose windows are told, as far as they lie in the window that is next.
    raw: Stacks<A>,
    /// Where in `changed` telling has got to; `None` while nothing is told.
    word: Option<usize>,
    telling: Option<Telling>,
}

impl<A: Clone> Early<A> {
    pub fn new(every: Span, nothing: A) -> Self {
        Early {
            timer: EarlyTimer::new(every),
            changed: Changed::default(),
            stretches: Paged::new(),
            raw: Stacks::new(nothing),
            word: None,
            telling: None,
        }
    }

    /// Windows of a key have changed. M is `fired`.
    #[inline]
    pub fn mark(&mut self, id: u32, windows: Stretch, fired: i64, now_ns: u64) {
        while self.stretches.len() <= id as usize {
            self.stretches.push(Stretches::default());
        }
        self.stretches.get_mut(id as usize).add(windows, fired);
        self.changed.mark(id);
        self.timer.changed(now_ns);
    }

    /// When what has changed is to be told.
    pub fn wake_at(&self) -> Option<u64> {
        self.timer.wake_at()
    }

    /// It is to be told now, by [`Early::tell`].
    pub fn begin(&mut self) {
        self.timer.told();
        self.word = Some(0);
    }

    /// Tells a piece of what has changed; `true` when nothing is left.
    pub fn tell<K: Key, T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
        &mut self,
        state: &State<K, A>,
        aggregate: &G,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        let Some(mut word) = self.word else {
            return true;
        };
        let mut work = WORK;
        while work > 0 {
            if let Some(mut telling) = self.telling {
                let done = self.tell_key(&mut telling, state, aggregate, &mut work, out, cx);
                self.telling = (!done).then_some(telling);
                continue;
            }
            let mut next = None;
            let all = self.changed.take(&mut word, &mut 1, |id| next = Some(id));
            self.word = Some(word);
            work -= VISIT;
            match next {
                Some(id) => self.telling = self.begin_key(id, state),
                None if all => {
                    self.word = None;
                    return true;
                }
                None => return false,
            }
        }
        false
    }

    /// The first window of a key to tell, unless all have fired since (and the key may have gone with them).
    fn begin_key<K: Key>(&mut self, id: u32, state: &State<K, A>) -> Option<Telling> {
        let unfired = state.watermark.micros().saturating_add(1);
        let end = self.stretches.get_mut(id as usize).next(unfired)?;
        debug_assert!(state.table.is_live(id), "a key goes with its last window");
        Some(Telling {
            id,
            end: state.slicing.end_after(end - 1),
            taken: 0,
        })
    }

    /// Tells the windows of one key, as far as `work` goes; `true` when done, else call again.
    fn tell_key<K: Key, T, G: Aggregate<T, Acc = A>, O: Push<Windowed<K, G::Out>>>(
        &mut self,
        telling: &mut Telling,
        state: &State<K, A>,
        aggregate: &G,
        work: &mut i64,
        out: &mut O,
        cx: &mut Cx,
    ) -> bool {
        let (raw, keep) = (&mut self.raw, state.keep);
        let (entry, rest) = (state.table.value(telling.id), state.rests.get(telling.id));
        loop {
            let end = telling.end;
            let start = state.slicing.start_of(end);
            if !blame(state.op, || raw.evict(start, keep, aggregate, work)) {
                return false;
            }
            let newest = (entry.slice, &entry.acc);
            while let Some((slice, acc)) = rest.stacks.raw(telling.taken, keep, newest)
                && slice < end
            {
                if *work <= 0 {
                    return false;
                }
                *work -= 1;
                if slice >= start {
                    let acc = acc.clone();
                    blame(state.op, || {
                        raw.push(Part { slice, acc }, state.most_parts);
                        raw.close(end, keep, aggregate, |_| ());
                    });
                }
                telling.taken += 1;
            }
            let value = blame(state.op, || {
                let front = rest.stacks.front(start, keep).map(Cow::Borrowed);
                let mut total = match (front, raw.total(keep, aggregate)) {
                    (Some(mut front), Some(raw)) => {
                        aggregate.merge(front.to_mut(), &raw);
                        Some(front)
                    }
                    (front, raw) => front.or(raw),
                };
                if let Some(kept) = &rest.kept {
                    *work -= kept.sides.len() as i64;
                    total = kept.with_sides(total, (start, end), true, aggregate);
                }
                total.map(|t| aggregate.finish(&t))
            });
            *work -= VISIT + raw.total_work(keep);
            if let Some(value) = value {
                let key = state.table.key(telling.id);
                emit(key, value, (start, end), Firing::Early, state.op, out, cx);
            }
            let Some(next) = self.stretches.get_mut(telling.id as usize).next(end + 1) else {
                raw.clear(aggregate.create());
                return true;
            };
            telling.end = state.slicing.end_after(next - 1);
            if *work <= 0 {
                return false;
            }
        }
    }
}
