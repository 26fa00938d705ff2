//! How a record is taken: it meets what is kept of the other side, and is put into its own. Laws 1, 5 and 6 of [`super`].

use super::IntervalJoinOp;
use super::side::{New, Toward};
use super::which::Which;
use crate::batch::Stamp;
use crate::key::KeyOf;
use crate::push::{Cx, Push, blame_at};
use crate::sides::Sides;
use crate::state::State;
use crate::table::{CACHED, NONE};
use crate::time::EventTime;
use std::collections::VecDeque;

/// How far a record has come: law 6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Under {
    /// Its key's entry, or [`NONE`].
    row: u32,
    /// Whether it has met one.
    met: bool,
    /// It has met all, and looks for its place in its own chain.
    placing: bool,
    /// The next element of the chain, and in its own the one above that.
    at: u32,
    above: u32,
    /// A second search for the place, from where the key's chain was entered last: its next element. [`NONE`]: none is under way.
    near: u32,
}

/// A record in hand.
#[derive(Clone, Copy)]
pub(super) struct Hand {
    /// Its place in the batch.
    pub index: usize,
    pub time: i64,
    /// What ties go by, if anybody asks.
    pub tie: Option<u64>,
    /// What the probe found.
    pub hash: u64,
    pub candidate: u32,
}

impl<L, R, K, F, O> IntervalJoinOp<L, R, K, F, O>
where
    L: State,
    R: State,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    /// Asks the cache for the newest elements of these entries' keys.
    #[inline(always)]
    pub(super) fn prefetch(&self, probes: &[(u64, u32)]) {
        if self.left.log.len() + self.right.log.len() < CACHED {
            return;
        }
        for &(_, candidate) in probes {
            if candidate < self.rows.id_end() {
                let heads = self.rows.value(candidate);
                self.left.log.prefetch(heads[0]);
                self.right.log.prefetch(heads[1]);
            }
        }
    }

    /// Takes the first record, or goes on with it: whether it is through, and so no longer there.
    #[inline(always)]
    pub(super) fn one<S: Which<L, R>, P: Push<O>>(
        &mut self,
        records: &mut VecDeque<Sides<L, R>>,
        hand: Hand,
        steps: &mut u32,
        out: &mut P,
        cx: &mut Cx,
    ) -> bool {
        let Some(front) = records.front() else {
            return true;
        };
        let (mine, _) = S::sides(&mut self.left, &mut self.right);
        let is_kept = hand.time >= mine.limit;
        let mut under = match self.under.take() {
            Some(under) => under,
            None => self.begin::<S>(front, hand, is_kept),
        };
        let Some(record) = S::borrow(front) else {
            return true;
        };
        if !under.placing && !self.meet::<S, P>(record, hand, &mut under, steps, out, cx) {
            self.under = Some(under);
            return false;
        }
        let (mine, _) = S::sides(&mut self.left, &mut self.right);
        if !is_kept {
            if mine.outer && !under.met {
                let row = blame_at(self.op, hand.index, || S::row(&self.f, record, None));
                cx.origin = S::origin(self.op, hand.tie.unwrap_or(0), 0);
                out.push(row, Stamp::at(EventTime::from_micros(hand.time)), cx);
            }
            records.pop_front();
            return true;
        }
        let heads = self.rows.value_mut(under.row);
        if !under.placing {
            (under.placing, under.at) = (true, heads[S::AT]);
        }
        while let Some(element) = mine.log.get(under.at)
            && element.time > hand.time
        {
            if *steps == 0 {
                self.under = Some(under);
                return false;
            }
            *steps -= 1;
            // Two searches in turn: the place costs no more than twice what the nearer one takes.
            if under.above == NONE {
                under.near = mine.last_place(under.row);
            }
            if under.near != NONE {
                match mine.toward(under.near, hand.time) {
                    Toward::On(next) => under.near = next,
                    Toward::Here(above, at) => {
                        (under.above, under.at) = (above, at);
                        break;
                    }
                }
            }
            (under.above, under.at) = (under.at, element.before);
        }
        if let Some(record) = records.pop_front().and_then(S::mine) {
            let new = New {
                row: under.row,
                time: hand.time,
                record,
                tie: hand.tie,
                met: under.met,
            };
            mine.insert(&mut heads[S::AT], (under.above, under.at), new);
        }
        true
    }

    /// Looks up a record's key, and makes its entry if the record is kept.
    #[inline(always)]
    fn begin<S: Which<L, R>>(&mut self, front: &Sides<L, R>, hand: Hand, is_kept: bool) -> Under {
        let (rows, key_of) = (&mut self.rows, &self.key);
        let row = blame_at(self.op, hand.index, || {
            key_of.with(front, |key| {
                if rows.verified(hand.candidate, key).is_some() {
                    hand.candidate
                } else if is_kept {
                    rows.find_or_insert(hand.hash, key, || [NONE; 2]).0
                } else {
                    rows.find(hand.hash, key)
                }
            })
        });
        let at = match row {
            NONE => NONE,
            row => rows.value(row)[1 - S::AT],
        };
        Under {
            row,
            met: false,
            placing: false,
            at,
            above: NONE,
            near: NONE,
        }
    }

    /// Emits a row for each partner of a record; whether it has met all.
    #[inline(always)]
    fn meet<S: Which<L, R>, P: Push<O>>(
        &mut self,
        record: &S::Mine,
        hand: Hand,
        under: &mut Under,
        steps: &mut u32,
        out: &mut P,
        cx: &mut Cx,
    ) -> bool {
        let (low, high) = S::reach(&self.rule);
        let (low, high) = (hand.time + low, hand.time + high);
        let (_, theirs) = S::sides(&mut self.left, &mut self.right);
        while let Some((slot, at)) = theirs.log.find(under.at) {
            let page = theirs.log.page(slot);
            let element = &page.elements[at];
            if element.time < low {
                break;
            }
            if *steps == 0 {
                return false;
            }
            *steps -= 1;
            let next = element.before;
            if element.time <= high {
                let row = blame_at(self.op, hand.index, || {
                    S::row(&self.f, record, Some(&element.record))
                });
                let time = EventTime::from_micros(hand.time.max(element.time));
                if let Some(tie) = hand.tie {
                    cx.origin = S::origin(self.op, tie, page.tie(at));
                }
                out.push(row, Stamp::at(time), cx);
                under.met = true;
                theirs.meets(under.at);
            }
            under.at = next;
        }
        true
    }
}
