//! The regular join: rows of two sides meet where they have one key, whenever they come, and what is told is taken back when they go.
//!
//! Laws
//! 1. Each side is a bag of rows by key. What stands without times to live is the join of both bags as they are, after each record: so it is
//!    a function of what has come, whatever the order of the sides (class NET).
//! 2. A row that comes is told with each row of the other side. One that goes is taken back with each, and is looked for by what it is; where
//!    there is none (*stray*) it is counted and nothing else.
//! 3. Of a side that is told of by itself, a row is *alone* from when it comes until its first partner does, and again when the last partner that
//!    is kept is taken back. What is told of that is kept with the row (`bag.rs`), so nothing is taken back that was not told.
//! 4. What has lived its time goes without a word: what was told of it stands, and a partner that it leaves behind is not alone for that. All
//!    that has expired has gone before the next frame is taken, so what is in the table is there: no look compares times. (By event time a
//!    row whose place was that of a later one, which was taken back, may go as late as that would have.)
//! 5. By event time a record counts as of its time, or V where that is later, and M never lies above that: what it puts in has not expired.
//!    Where no side takes rows back, two meet iff they so lie less than the time to live apart: that depends on neither M nor on who came
//!    first (class NET). Where one does, what a retraction finds depends on M: class EXEMPT, as by the clock.
//! 6. Changes of a record have its time, behind mark and origin (numbered below it) and come before those of the next one; no record is too late.
//! 7. A record of very many partners is taken in pieces: it stays the first of the batch until it is through ([`Under`]). No row that it meets
//!    goes meanwhile, and no barrier passes.
//!
//! Cost: a record one probe and a step for each change that it makes; where its side takes rows back, a second probe and its encoding, and
//! that of the row that it finds. State: an entry a row, and the keys.

mod bag;
#[cfg(test)]
mod tests;
mod which;

use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::change::{Change, Kind};
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::process::{Now, Part, Rows, Table, Ttl};
use crate::push::{Cx, OpId, Push, blame_at};
use crate::sides::Sides;
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::table::NONE;
use crate::time::{EventTime, Span};
use bag::Bag;
use std::collections::VecDeque;
use std::marker::PhantomData;
use which::{Heads, OfLeft, OfRight, Which};

pub use bag::Tells;
pub use which::{ChangeRows, PlainRows, SideRows};

/// Changes, and rows that are looked at, between two looks at whether the outputs are full.
const STEPS: u32 = if cfg!(test) { 3 } else { 64 };
/// How often that is done in one call.
const ROUNDS: u32 = if cfg!(test) { 3 } else { 32 };
/// Rows that expire in one piece.
const PIECE: u32 = if cfg!(test) { 7 } else { 256 };

/// What is joined.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Whether pairs are told.
    pub(crate) pairs: bool,
    /// What is told of a row of the left and of the right by itself.
    pub(crate) tells: [Tells; 2],
    pub(crate) ttl: Option<Ttl>,
}

/// Makes [`RegularJoinOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeRegularJoin<L, R, A, B, K, F, O> {
    pub(crate) key: K,
    pub(crate) f: F,
    pub(crate) rule: Rule,
    pub(crate) op: OpId,
    #[allow(clippy::type_complexity)]
    pub(crate) types: PhantomData<fn(L, R, A, B) -> O>,
}

#[allow(private_interfaces)]
impl<L, R, A, B, K, F, O> MakeOperator<Sides<L, R>> for MakeRegularJoin<L, R, A, B, K, F, O>
where
    L: Send + 'static,
    R: Send + 'static,
    A: SideRows<L>,
    B: SideRows<R>,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&A::Row>, Option<&B::Row>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    type Op = RegularJoinOp<L, R, A, B, K, F, O>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let (rule, op) = (self.rule, self.op);
        let left = (0, A::TAKE_BACK, rule.tells[0], rule.pairs);
        let right = (1, B::TAKE_BACK, rule.tells[1], rule.pairs);
        let is_plain = !A::TAKE_BACK && !B::TAKE_BACK;
        let by_clock = rule.ttl.is_some_and(|ttl| ttl.by_clock);
        let by_event = rule.ttl.filter(|ttl| !ttl.by_clock);
        Ok(RegularJoinOp {
            key: self.key.clone(),
            f: self.f.clone(),
            pairs: rule.pairs,
            within: by_event.filter(|_| is_plain).map(|ttl| ttl.span.micros()),
            by_clock,
            op,
            rows: Table::new(),
            left: Bag::open::<K::Key>(left, rule.ttl, build, op),
            right: Bag::open::<K::Key>(right, rule.ttl, build, op),
            now: Now {
                event: i64::MIN,
                clock: EventTime::MIN.micros(),
            },
            wake_ns: None,
            under: None,
            types: PhantomData,
        })
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct RegularJoinOp<L, R, A: SideRows<L>, B: SideRows<R>, K: KeyOf<Sides<L, R>>, F, O> {
    key: K,
    f: F,
    pairs: bool,
    /// How near two rows must lie to meet: law 5.
    within: Option<i64>,
    by_clock: bool,
    op: OpId,
    /// The keys that have a row.
    rows: Table<K::Key, Heads>,
    left: Bag<A::Row>,
    right: Bag<B::Row>,
    /// M, and the clock as it was seen last.
    now: Now,
    /// Driver's nanoseconds at which something may expire by the clock.
    wake_ns: Option<u64>,
    /// The first record of the batch in hand, if it has been begun.
    under: Option<Under>,
    types: PhantomData<fn() -> O>,
}

/// How far a record has come: law 7.
#[derive(Clone, Copy, Debug)]
struct Under {
    /// Its key's row, or [`NONE`].
    row: u32,
    /// Whether it adds its row; if not, the element that it takes it from.
    adds: bool,
    mine: u32,
    /// It takes back the last row of its side.
    is_last: bool,
    /// It has met one.
    has_met: bool,
    /// The element of the other side that it is at, or [`NONE`].
    at: u32,
    /// Of that, what is still to be told: pairs with it, and how often it itself. None before it has been looked at.
    left: Option<Left>,
    /// Changes that have been told.
    told: u64,
}

/// See [`Under::left`].
#[derive(Clone, Copy, Debug, Default)]
struct Left {
    pairs: u64,
    own: u64,
}

/// A record in hand.
#[derive(Clone, Copy)]
struct Hand {
    /// Its place in the batch.
    index: usize,
    stamp: Stamp,
    /// The emission of its origin.
    parent: u64,
    /// As of when it counts: law 5; or the clock.
    now: i64,
    /// What the probe found.
    hash: u64,
    candidate: u32,
}

/// Where changes go.
struct Telling<'a, P> {
    out: &'a mut P,
    cx: &'a mut Cx,
    hand: Hand,
}

impl<P> Telling<'_, P> {
    /// Tells of a row: law 6.
    #[inline(always)]
    fn tell<O>(&mut self, told: &mut u64, adds: bool, row: O)
    where
        P: Push<Change<O>>,
    {
        self.cx.origin.emission = Origin::below(self.hand.parent, *told);
        *told += 1;
        let kind = match adds {
            true => Kind::Insert,
            false => Kind::Delete,
        };
        self.out
            .push(Change::new(kind, row), self.hand.stamp, self.cx);
    }
}

/// Whether nothing is left of a key.
fn is_empty(heads: &Heads) -> bool {
    heads.0.len == 0 && heads.1.len == 0
}

/// The rows of keys as a side sees them.
macro_rules! part {
    ($rows:expr, $side:tt) => {
        &mut Part {
            rows: $rows,
            part: |heads| &heads.$side,
            part_mut: |heads| &mut heads.$side,
        }
    };
}

impl<L, R, A, B, K, F, O> RegularJoinOp<L, R, A, B, K, F, O>
where
    L: Send + 'static,
    R: Send + 'static,
    A: SideRows<L>,
    B: SideRows<R>,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&A::Row>, Option<&B::Row>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    /// Takes the first record, or goes on with it: whether it is through, and so no longer there.
    #[inline(always)]
    fn one<S: Which<L, R, A, B>, P: Push<Change<O>>>(
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
        let Some((row, adds)) = S::borrow(front) else {
            return true;
        };
        let begun = match self.under.take() {
            Some(under) => Some(under),
            None => self.begin::<S>(front, row, adds, hand),
        };
        let Some(mut under) = begun else {
            cx.counters.stray_retractions += 1;
            records.pop_front();
            return true;
        };
        let mut to = Telling { out, cx, hand };
        if !self.meet::<S, P>(row, &mut under, steps, &mut to) {
            self.under = Some(under);
            return false;
        }
        self.tell_own::<S, P>(row, &mut under, &mut to);
        if !under.adds {
            self.take::<S>(under, hand);
            records.pop_front();
        } else if let Some(front) = records.pop_front() {
            self.put::<S>(front, under, hand);
        }
        true
    }

    /// Looks up a record's key, and whom it may meet; nothing if it takes back what is not there.
    #[inline(always)]
    fn begin<S: Which<L, R, A, B>>(
        &mut self,
        front: &Sides<L, R>,
        record: &S::Mine,
        adds: bool,
        hand: Hand,
    ) -> Option<Under> {
        let (rows, key_of) = (&mut self.rows.rows, &self.key);
        let row = blame_at(self.op, hand.index, || {
            key_of.with(front, |key| match rows.verified(hand.candidate, key) {
                Some(_) => hand.candidate,
                None => rows.find(hand.hash, key),
            })
        });
        let mut under = Under {
            row,
            adds,
            mine: NONE,
            is_last: false,
            has_met: false,
            at: NONE,
            left: None,
            told: 0,
        };
        let (mine, theirs) = S::bags(&mut self.left, &mut self.right);
        if row == NONE {
            return adds.then_some(under);
        }
        let heads = &mut self.rows.rows.value_mut(row).states;
        let my_len = S::head(heads).len;
        let their_head = S::their_head(heads);
        if !adds {
            under.mine = mine.find(row, record).0?;
            under.is_last = my_len == 1 && mine.held(under.mine).count == 1;
        }
        // Where not all that there is meets, who does is seen on the way.
        under.has_met = self.within.is_none() && their_head.len > 0;
        let tells_of_theirs = theirs.tells != Tells::Nothing;
        let some_change = match adds {
            true => my_len == 0 || self.within.is_some(),
            false => under.is_last,
        };
        let looks = self.within.is_some() && mine.tells != Tells::Nothing;
        if self.pairs || looks || (tells_of_theirs && some_change) {
            under.at = their_head.first;
        }
        Some(under)
    }

    /// Tells what a record changes with each row of the other side; whether it has met all.
    #[inline(always)]
    fn meet<S: Which<L, R, A, B>, P: Push<Change<O>>>(
        &mut self,
        record: &S::Mine,
        under: &mut Under,
        steps: &mut u32,
        to: &mut Telling<'_, P>,
    ) -> bool {
        let (mine, theirs) = S::bags(&mut self.left, &mut self.right);
        let index = to.hand.index;
        let until = mine.elements.until(to.hand.now, None);
        let stops = !self.pairs && theirs.tells == Tells::Nothing;
        while under.at != NONE {
            if *steps == 0 {
                return false;
            }
            let mut left = match under.left {
                Some(left) => left,
                None => {
                    *steps -= 1;
                    let near = self.within.is_none_or(|within| {
                        let theirs = theirs.elements.table.value(under.at).until;
                        theirs == i64::MAX || theirs.abs_diff(until) < within as u64
                    });
                    under.has_met |= near;
                    let (key, count) = (self.rows.key(under.row), theirs.held(under.at).count);
                    match (near, under.adds) {
                        (false, _) => Left::default(),
                        (true, adds) => Left {
                            pairs: if self.pairs { count } else { 0 },
                            own: match adds {
                                true => theirs.set_alone(under.at, key, 0),
                                false if under.is_last => theirs.set_alone(under.at, key, count),
                                false => 0,
                            },
                        },
                    }
                }
            };
            let other = &theirs.held(under.at).row;
            // Nothing stands that does not: who was alone is taken back first, and told last.
            while left.own > 0 && under.adds && *steps > 0 {
                (left.own, *steps) = (left.own - 1, *steps - 1);
                let row = blame_at(self.op, index, || S::their(&self.f, other));
                to.tell(&mut under.told, theirs.tells == Tells::Met, row);
            }
            while left.pairs > 0 && *steps > 0 {
                (left.pairs, *steps) = (left.pairs - 1, *steps - 1);
                let row = blame_at(self.op, index, || S::pair(&self.f, record, other));
                to.tell(&mut under.told, under.adds, row);
            }
            while left.own > 0 && !under.adds && *steps > 0 {
                (left.own, *steps) = (left.own - 1, *steps - 1);
                let row = blame_at(self.op, index, || S::their(&self.f, other));
                to.tell(&mut under.told, theirs.tells == Tells::Alone, row);
            }
            if left.own > 0 || left.pairs > 0 {
                under.left = Some(left);
                return false;
            }
            under.left = None;
            under.at = match stops && under.has_met {
                true => NONE,
                false => theirs.elements.table.value(under.at).after,
            };
        }
        true
    }

    /// Tells what a record changes of its own row: law 3.
    #[inline(always)]
    fn tell_own<S: Which<L, R, A, B>, P: Push<Change<O>>>(
        &mut self,
        record: &S::Mine,
        under: &mut Under,
        to: &mut Telling<'_, P>,
    ) {
        let (mine, _) = S::bags(&mut self.left, &mut self.right);
        let is_alone = match under.adds {
            true => !under.has_met,
            false => mine.held(under.mine).alone > 0,
        };
        let stands = match mine.tells {
            Tells::Nothing => false,
            Tells::Alone => is_alone,
            Tells::Met => !is_alone,
        };
        if stands {
            let row = blame_at(self.op, to.hand.index, || S::own(&self.f, record));
            to.tell(&mut under.told, under.adds, row);
        }
    }

    /// Keeps a record's row.
    #[inline(always)]
    fn put<S: Which<L, R, A, B>>(&mut self, front: Sides<L, R>, under: Under, hand: Hand) {
        let id = match under.row {
            NONE => self
                .key
                .with(&front, |key| self.rows.row_of(hand.hash, key)),
            row => row,
        };
        let (mine, _) = S::bags(&mut self.left, &mut self.right);
        let (key, heads) = self.rows.entry(id);
        if let Some(row) = S::mine(front) {
            mine.add((id, S::head(heads), key), row, !under.has_met, hand.now);
        }
    }

    /// Takes a row out.
    #[inline(always)]
    fn take<S: Which<L, R, A, B>>(&mut self, under: Under, hand: Hand) {
        let (mine, _) = S::bags(&mut self.left, &mut self.right);
        let (key, heads) = self.rows.entry(under.row);
        mine.take(under.mine, S::head(heads), key, hand.now);
        if is_empty(heads) {
            Rows::<K::Key, Heads>::lost(&mut self.rows, under.row);
        }
    }

    /// As of when a record counts: law 5.
    #[inline(always)]
    fn now_of(&self, stamp: &Stamp) -> i64 {
        if self.by_clock {
            return self.now.clock;
        }
        let time = stamp.time.micros();
        stamp.behind.map_or(time, |v| time.max(v.micros()))
    }

    /// Looks at the clock.
    #[inline]
    fn look(&mut self, cx: &Cx) {
        if self.by_clock {
            let wall = cx.wall.max(EventTime::MIN).min(EventTime::MAX);
            self.now.clock = self.now.clock.max(wall.micros());
        }
    }

    /// Sets the driver's timer to where something may next expire by the clock.
    fn arm(&mut self, cx: &Cx) {
        if !self.by_clock {
            return;
        }
        self.look(cx);
        let of = [
            &self.left.elements.expiry as &Option<_>,
            &self.right.elements.expiry,
        ];
        let next = of.map(|e| e.as_ref().and_then(crate::process::Expiry::next_by_clock));
        self.wake_ns = next.into_iter().flatten().min().map(|due| {
            let wait = due.saturating_sub(self.now.clock).max(0);
            cx.now_ns.saturating_add(Span::from_micros(wait).nanos())
        });
    }
}

impl<L, R, A, B, K, F, O> Operator<Sides<L, R>> for RegularJoinOp<L, R, A, B, K, F, O>
where
    L: Send + 'static,
    R: Send + 'static,
    A: SideRows<L>,
    B: SideRows<R>,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&A::Row>, Option<&B::Row>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    type Out = Change<O>;

    fn batch<P: Push<Change<O>>>(
        &mut self,
        batch: &mut Batch<Sides<L, R>>,
        out: &mut P,
        cx: &mut Cx,
    ) {
        self.look(cx);
        let mut records = batch.take_records();
        let mut stamps = Stamps::from(batch, 0);
        let (mut index, mut steps, mut rounds) = (0, STEPS, ROUNDS);
        'batch: while !records.is_empty() {
            // The row of one that has been begun may be empty yet.
            if self.under.is_none() {
                self.rows.look(is_empty);
            }
            let (chunk, _) = records.as_slices();
            let count = chunk.len().min(CHUNK);
            let probes = probe(&self.rows.rows, &self.key, self.op, &chunk[..count]);
            for (hash, candidate) in probes.into_iter().take(count) {
                let stamp = stamps.of(batch, index, cx);
                let hand = Hand {
                    index,
                    now: self.now_of(&stamp),
                    stamp,
                    parent: cx.origin.emission,
                    hash,
                    candidate,
                };
                while !match records.front() {
                    Some(Sides::Left(_)) => {
                        self.one::<OfLeft, P>(&mut records, hand, &mut steps, out, cx)
                    }
                    _ => self.one::<OfRight, P>(&mut records, hand, &mut steps, out, cx),
                } {
                    (steps, rounds) = (STEPS, rounds - 1);
                    if rounds == 0 || out.blocked() {
                        break 'batch;
                    }
                }
                index += 1;
            }
            if out.blocked() {
                break;
            }
        }
        batch.give_back(records);
        self.arm(cx);
    }

    fn watermark<P: Push<Change<O>>>(&mut self, watermark: EventTime, _: &mut P, cx: &mut Cx) {
        self.look(cx);
        self.now.event = self.now.event.max(watermark.micros());
    }

    fn resume<P: Push<Change<O>>>(&mut self, _: &mut P, cx: &mut Cx) -> bool {
        let (mut budget, now) = (PIECE, self.now);
        let (left, right) = (&mut self.left.elements, &mut self.right.elements);
        let is_done = left.expire(part!(&mut self.rows, 0), now, &mut budget)
            && right.expire(part!(&mut self.rows, 1), now, &mut budget);
        // Those that went are looked at as they go, so what is owed stays small.
        if !self.rows.look(is_empty) || !is_done {
            return false;
        }
        self.arm(cx);
        true
    }

    fn tick<P: Push<Change<O>>>(&mut self, _: &mut P, cx: &mut Cx) {
        self.look(cx);
    }

    fn wake_at(&self) -> Option<u64> {
        self.wake_ns
    }

    fn begin_epoch(&mut self, cut: Cut) {
        debug_assert!(self.under.is_none(), "what was begun is finished");
        self.left.elements.begin_epoch(cut);
        self.right.elements.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "keys", self.rows.rows.size()));
        self.left.elements.sizes(self.op, to);
        self.right.elements.sizes(self.op, to);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let left = self.left.elements.save(to, part!(&mut self.rows, 0));
        left.and(self.right.elements.save(to, part!(&mut self.rows, 1)))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let (left, right) = (&mut self.left.elements, &mut self.right.elements);
        Ok(left.load(frame, part!(&mut self.rows, 0))?
            || right.load(frame, part!(&mut self.rows, 1))?)
    }

    fn loaded(&mut self) {
        self.left.elements.loaded(part!(&mut self.rows, 0));
        self.right.elements.loaded(part!(&mut self.rows, 1));
        self.rows.loaded();
        // The clock has not been looked at yet.
        self.wake_ns = self.by_clock.then_some(0);
    }
}
