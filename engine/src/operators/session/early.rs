//! Early firing of sessions: which keys have changed, and what has been told of their open sessions.
//!
//! Laws
//! 1. What has been told of a key and not been taken back are stretches of its open sessions, no two of which touch: each lies
//!    in one open session, as that stood when it was told.
//! 2. A session that is told, or that fires, takes back what was told of it, each with the value that was told, unless its
//!    window is the same. So what stands at any time are sessions, and what stands in the end is what fired.
//! 3. A session is told iff its window is not the one that was told, or a record has come into that since: once, within the
//!    interval. Keys come by id, the sessions of a key in order.
//! 4. Telling goes by pieces, also within a key; meanwhile no record and no watermark is taken.
//!
//! Cost: a record one probe more and O(log n) in what was told of its key; for each open session that was told a second accumulator.

use super::state::{Core, Out};
use super::store::{Part, Phase};
use crate::aggregate::Aggregate;
use crate::key::Key;
use crate::operators::early::{Changed, EarlyTimer};
use crate::push::Push;
use crate::table::NONE;
use crate::time::Span;
use crate::wheel::Paged;
use crate::window::{Firing, Windowed};
use std::ops::Range;

/// Results emitted in one step.
const PIECE: usize = 1024;

/// A session as it was told.
#[derive(Debug)]
pub(super) struct Told<A> {
    pub(super) start: i64,
    pub(super) end: i64,
    /// A record has come into it since.
    pub(super) stale: bool,
    pub(super) acc: A,
}

impl<A> Told<A> {
    /// What was kept of one as a session.
    pub(super) fn of(part: Part<A>) -> Self {
        Told {
            start: part.start,
            end: part.end,
            stale: part.fired,
            acc: part.acc,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Early<A> {
    timer: EarlyTimer,
    /// Keys with records since they were told.
    changed: Changed,
    /// By id, ascending.
    told: Paged<Vec<Told<A>>>,
    /// Where in `changed` telling has got to; `None` while nothing is told.
    word: Option<usize>,
    /// A key of which some has been told, and how many of its sessions have been looked at.
    telling: Option<(u32, usize)>,
}

impl<A> Early<A> {
    pub(super) fn new(every: Span) -> Self {
        Early {
            timer: EarlyTimer::new(every),
            changed: Changed::default(),
            told: Paged::new(),
            word: None,
            telling: None,
        }
    }

    /// A record of a key has come at time `t`.
    #[inline]
    pub(super) fn mark(&mut self, id: u32, t: i64, now_ns: u64) {
        while self.told.len() <= id as usize {
            self.told.push(vec![]);
        }
        let told = self.told.get_mut(id as usize);
        let at = told.partition_point(|s| s.end < t);
        if let Some(session) = told.get_mut(at)
            && session.start <= t
        {
            session.stale = true;
        }
        self.changed.mark(id);
        self.timer.changed(now_ns);
    }

    /// When what has changed is to be told.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.timer.wake_at()
    }

    /// It is to be told now, by [`Core::tell`].
    pub(super) fn begin(&mut self) {
        self.timer.told();
        self.word = Some(0);
    }

    /// What has been told of a key.
    pub(super) fn told_of(&self, id: u32) -> &[Told<A>] {
        if (id as usize) < self.told.len() {
            self.told.get(id as usize)
        } else {
            &[]
        }
    }

    /// A key has been restored, and this had been told of it.
    pub(super) fn restored(&mut self, id: u32, told: Vec<Told<A>>) {
        while self.told.len() <= id as usize {
            self.told.push(vec![]);
        }
        *self.told.get_mut(id as usize) = told;
        self.changed.mark(id);
        self.timer.changed(0);
    }

    /// Takes out what has been told of a key; it comes back by [`Early::lower`].
    fn lift(&mut self, id: u32) -> Vec<Told<A>> {
        if (id as usize) < self.told.len() {
            std::mem::take(self.told.get_mut(id as usize))
        } else {
            vec![]
        }
    }

    fn lower(&mut self, id: u32, told: Vec<Told<A>>) {
        if told.capacity() > 0 {
            *self.told.get_mut(id as usize) = told;
        }
    }
}

/// What was told of a session.
fn of_session<A>(told: &[Told<A>], (start, end): (i64, i64)) -> Range<usize> {
    let from = told.partition_point(|s| s.start < start);
    let to = told.partition_point(|s| s.start <= end);
    debug_assert!(told[from..to].iter().all(|s| s.end <= end), "law 1");
    from..to
}

impl<T, K: Key, A: Aggregate<T>> Core<T, K, A> {
    /// A session is about to fire: takes back what was told of it under other windows (law 2).
    #[cold]
    pub(super) fn settle<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        window: (i64, i64),
        to: &mut Out<'_, O>,
    ) {
        let Some(early) = &mut self.early else {
            return;
        };
        let mut told = early.lift(id);
        let gone = of_session(&told, window);
        for session in told.drain(gone) {
            let stood = (session.start, session.end);
            if stood != window {
                self.retract(id, stood, &session.acc, window, to);
            }
        }
        if let Some(early) = &mut self.early {
            early.lower(id, told);
        }
    }

    /// The same for a key whose timer has come due, if it has no session but its newest: that is the one to fire.
    #[cold]
    pub(super) fn settle_newest<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        to: &mut Out<'_, O>,
    ) {
        let keyed = self.store.table.value(id);
        if keyed.older == NONE && keyed.phase == Phase::Open {
            self.settle(id, (keyed.start, keyed.end), to);
        }
    }

    /// Tells a piece of what has changed; `true` when nothing is left.
    #[inline(never)]
    pub(super) fn tell<O: Push<Windowed<K, A::Out>>>(&mut self, to: &mut Out<'_, O>) -> bool {
        let mut results = PIECE;
        while let Some(early) = &mut self.early
            && let Some(mut word) = early.word
        {
            if results == 0 {
                return false;
            }
            if let Some((id, looked_at)) = early.telling.take() {
                let looked_at = self.tell_key(id, looked_at, &mut results, to);
                if let Some(early) = &mut self.early {
                    early.telling = looked_at.map(|n| (id, n));
                }
                continue;
            }
            let mut next = None;
            let all = early.changed.take(&mut word, &mut 1, |id| next = Some(id));
            early.word = Some(word);
            results -= 1;
            match next {
                // A key that is gone had no session left, so that nothing was left of what had been told (law 1).
                Some(id) if self.store.table.is_live(id) => early.telling = Some((id, 0)),
                Some(_) => {}
                None if all => early.word = None,
                None => return false,
            }
        }
        true
    }

    /// Tells the open sessions of a key from the n-th on. How many have been looked at, if that is not all.
    fn tell_key<O: Push<Windowed<K, A::Out>>>(
        &mut self,
        id: u32,
        mut n: usize,
        results: &mut usize,
        to: &mut Out<'_, O>,
    ) -> Option<usize> {
        self.touch(id);
        let Some(early) = &mut self.early else {
            return None;
        };
        let mut told = early.lift(id);
        let keyed = self.store.table.value(id);
        let older = match keyed.older {
            NONE => None,
            at => Some(&self.store.older[at as usize].sessions),
        };
        let count = older.map_or(0, |o| o.len());
        if let Some(older) = older {
            n = n.max(older.partition_point(|p| p.fired));
        }
        while n <= count && *results > 0 {
            if let Some(part) = older.and_then(|o| o.get(n)) {
                self.tell_one(
                    id,
                    &mut told,
                    (part.start, part.end),
                    &part.acc,
                    results,
                    to,
                );
            } else if keyed.phase == Phase::Open {
                self.tell_one(
                    id,
                    &mut told,
                    (keyed.start, keyed.end),
                    &keyed.acc,
                    results,
                    to,
                );
            }
            n += 1;
        }
        if let Some(early) = &mut self.early {
            early.lower(id, told);
        }
        (n <= count).then_some(n)
    }

    /// Tells a session, if it is not the one that was told.
    fn tell_one<O: Push<Windowed<K, A::Out>>>(
        &self,
        id: u32,
        told: &mut Vec<Told<A::Acc>>,
        window: (i64, i64),
        acc: &A::Acc,
        results: &mut usize,
        to: &mut Out<'_, O>,
    ) {
        let of = of_session(told, window);
        for session in &told[of.clone()] {
            let stood = (session.start, session.end);
            if stood != window {
                self.retract(id, stood, &session.acc, window, to);
                *results = results.saturating_sub(1);
            } else if !session.stale {
                return;
            }
        }
        // The memory of the first that was told serves again.
        if of.is_empty() {
            let (start, end) = window;
            let acc = acc.clone();
            let stale = false;
            told.insert(
                of.start,
                Told {
                    start,
                    end,
                    stale,
                    acc,
                },
            );
        } else {
            told.drain(of.start + 1..of.end);
            let session = &mut told[of.start];
            (session.start, session.end) = window;
            session.stale = false;
            session.acc.clone_from(acc);
        }
        self.emit(id, window, acc, Firing::Early, to);
        *results = results.saturating_sub(1);
    }
}
