//! The interval join: records of two sides meet where they have one key and their times lie within bounds of one another.
//!
//! Left l and right r meet iff l.t + lower <= r.t <= l.t + upper. Times are whole microseconds, so an exclusive bound is the inclusive one
//! that lies a microsecond within.
//!
//! Laws
//! 1. A record r is late iff t + lateness < V(r) (SEMANTICS, time, 6). Others are looked for partners among what is kept of the other side,
//!    and then kept themselves. So each pair is emitted once: when the second of both comes.
//! 2. A left is kept until M > t + upper + lateness, a right until M > t - lower + lateness. Since M <= V(r), no record that counts comes too late
//!    for one that it would have met. So the pairs, and who meets none, are a function of the input: class ROWS.
//! 3. Of an outer side, who has met none leaves with a row of its own, when it is kept no longer. One that would not be kept at all when
//!    it comes, its bound lying before it, leaves at once.
//! 4. A row has the greater time of both, or that of its one record. It lies behind M no further than what `output_watermark` holds back: the
//!    lateness, and of an outer side how long it is kept, if that is more. It carries no behind mark.
//! 5. Rows of equal time are told apart by the origins of both records, where anybody asks ([`Origins::Keeps`]).
//! 6. Late records are taken as far as their output has room. A record of very many partners, or whose place in its key's chain lies deep, is taken in pieces: it stays the first of the batch until
//!    it is through ([`Under`]).
//!
//! Cost: a record one probe, and a step for each partner, for each of the other side's that is later than what it reaches, and for each
//! of its own that is later than itself, or that lies between it and where its key's chain was last entered, if these are fewer (two
//! steps each then; `side.rs`, law 5). State: `side.rs`; a record and 16 bytes, in pages that have room for at most three times as
//! many (`room.rs`). In checkpoints: `kept.rs`. How a record is taken: `meeting.rs`.
//!
//! After the interval join of Flink's DataStream API; a chain by key in a log of pages is what log-structured stores of streams do (FASTER,
//! Chandramouli et al. 2018), here without deletes, since time deletes.

#[cfg(test)]
mod bounds_tests;
mod kept;
mod late;
mod log;
mod meeting;
mod room;
mod side;
#[cfg(test)]
mod tests;
mod turns;
mod which;

use crate::batch::{Batch, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::late::LateTo;
use crate::operators::running::{CHUNK, Stamps, probe};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId, Push, blame};
use crate::sides::Sides;
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::table::{KeyTable, NONE};
use crate::time::{EventTime, Span};
use kept::KeptSide;
use late::LateSides;
use meeting::{Hand, Under};
use room::Alone;
use side::{Heads, New, Side};
use std::marker::PhantomData;
use which::{OfLeft, OfRight, Which, tie_of};

/// Elements that are looked at between two looks at whether the outputs are full.
const STEPS: u32 = if cfg!(test) { 3 } else { 64 };
/// How often that is done in one call.
const ROUNDS: u32 = if cfg!(test) { 3 } else { 32 };
/// Elements that leave or move in one piece.
const PIECE: u32 = if cfg!(test) { 7 } else { 256 };

/// What is joined, inclusive bounds in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub(crate) lower: i64,
    pub(crate) upper: i64,
    pub(crate) lateness: Span,
    /// Whose records come alone if they meet none: the left's, the right's.
    pub(crate) outer: [bool; 2],
}

impl Rule {
    /// For how long after its time a record of this side is kept.
    fn keep(&self, side: usize) -> i64 {
        let bound = [self.upper, -self.lower][side];
        bound + self.lateness.micros()
    }

    /// The state of a side. What has left is told by how long it was kept, and whether it has met is marked on outer sides only: so
    /// a join with other bounds, lateness or outer sides does not find it, and is refused.
    fn state_name(&self, side: usize) -> String {
        let name = ["left", "right"][side];
        let kept = Span::from_micros(self.keep(side));
        match self.outer[side] {
            true => format!("{name}, outer, kept for {kept}"),
            false => format!("{name}, kept for {kept}"),
        }
    }

    /// How far rows may trail M: law 4.
    fn trail(&self) -> Span {
        let lateness = self.lateness.micros();
        let of = |side| match self.outer[side] {
            true => self.keep(side).max(lateness),
            false => lateness,
        };
        Span::from_micros(of(0).max(of(1)))
    }
}

/// Makes [`IntervalJoinOp`] on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeIntervalJoin<L, R, K, F, O> {
    pub(crate) key: K,
    pub(crate) f: F,
    pub(crate) rule: Rule,
    pub(crate) late_left: Option<LateTo<L>>,
    pub(crate) late_right: Option<LateTo<R>>,
    pub(crate) op: OpId,
    pub(crate) row: PhantomData<fn() -> O>,
}

#[allow(private_interfaces)]
impl<L, R, K, F, O> MakeOperator<Sides<L, R>> for MakeIntervalJoin<L, R, K, F, O>
where
    L: State,
    R: State,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    type Op = IntervalJoinOp<L, R, K, F, O>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let (rule, op) = (self.rule, self.op);
        let [left, right] = [0, 1].map(|side| rule.state_name(side));
        let left = KeptSide::of(&left, build, op);
        let right = KeptSide::of(&right, build, op);
        let shard = build.shard;
        Ok(IntervalJoinOp {
            key: self.key.clone(),
            f: self.f.clone(),
            rule,
            op,
            watermark: i64::MIN,
            rows: KeyTable::new(),
            left: Side::new(0, shard, rule.keep(0), rule.outer[0], left),
            right: Side::new(1, shard, rule.keep(1), rule.outer[1], right),
            late: LateSides {
                left: LateTo::open(&self.late_left, build),
                right: LateTo::open(&self.late_right, build),
            },
            under: None,
            row: PhantomData,
        })
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        let mut stages = LateTo::stages(&mut self.late_left);
        stages.extend(LateTo::stages(&mut self.late_right));
        stages
    }
    fn origins(&self) -> Origins {
        Origins::Keeps
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct IntervalJoinOp<L, R, K: KeyOf<Sides<L, R>>, F, O> {
    key: K,
    f: F,
    rule: Rule,
    op: OpId,
    /// M.
    watermark: i64,
    /// The keys that have a record.
    rows: KeyTable<K::Key, Heads>,
    left: Side<L>,
    right: Side<R>,
    late: LateSides<L, R>,
    /// The first record of the batch in hand, if it has been begun.
    under: Option<Under>,
    row: PhantomData<fn() -> O>,
}

impl<L, R, K, F, O> IntervalJoinOp<L, R, K, F, O>
where
    L: State,
    R: State,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    /// Tells of a piece of what leaves alone; whether nothing is left.
    fn alone<S: Which<L, R>, P: Push<O>>(
        &mut self,
        budget: &mut u32,
        out: &mut P,
        cx: &mut Cx,
    ) -> bool {
        let (mine, _) = S::sides(&mut self.left, &mut self.right);
        loop {
            let (slot, at) = match mine.next_alone(budget) {
                Alone::Due(slot, at) => (slot, at),
                Alone::More => return false,
                Alone::Nothing => return true,
            };
            let page = mine.log.page(slot);
            let element = &page.elements[at];
            let row = blame(self.op, || S::row(&self.f, &element.record, None));
            cx.origin = S::origin(self.op, page.tie(at), 0);
            let time = EventTime::from_micros(element.time);
            out.push(row, Stamp::at(time), cx);
        }
    }

    fn load_side<S: Which<L, R>>(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let key_of = &self.key;
        let (mine, _) = S::sides(&mut self.left, &mut self.right);
        let Some(kept) = &mut mine.kept else {
            return Ok(false);
        };
        let loaded = kept.load(frame, &mut mine.log, |record, keeping| {
            let record = S::wrap(record);
            match key_of.with(&record, |key| keeping.owns(key)) {
                true => S::mine(record),
                false => None,
            }
        })?;
        if let Some(Some(watermark)) = loaded {
            self.watermark = self.watermark.max(watermark.micros());
        }
        Ok(loaded.is_some())
    }

    /// Puts back what was loaded (`kept.rs`, laws 2 and 3).
    fn put_back<S: Which<L, R>>(&mut self) {
        let (key_of, rows) = (&self.key, &mut self.rows);
        let (mine, _) = S::sides(&mut self.left, &mut self.right);
        mine.limit = mine.limit_at(self.watermark);
        let Some(kept) = &mut mine.kept else { return };
        let (loaded, lags) = kept.take_loaded();
        for (number, restored) in loaded {
            let record = S::wrap(restored.record);
            let has_expired = restored.time < mine.limit;
            let row = key_of.with(&record, |key| {
                let has_left = lags
                    .as_ref()
                    .is_none_or(|lags| restored.time < mine.limit_at(lags.of(key).micros()));
                let is_overdue = mine.outer && !restored.met && !has_left;
                match has_expired && !is_overdue {
                    true => NONE,
                    false => rows.find_or_insert(rows.hash(key), key, || [NONE; 2]).0,
                }
            });
            if let Some(record) = S::mine(record).filter(|_| row != NONE) {
                let new = New {
                    row,
                    time: restored.time,
                    record,
                    tie: Some(restored.tie),
                    met: restored.met,
                };
                mine.restore(&mut rows.value_mut(row)[S::AT], number, new);
            }
        }
    }
}

impl<L, R, K, F, O> Operator<Sides<L, R>> for IntervalJoinOp<L, R, K, F, O>
where
    L: State,
    R: State,
    K: KeyOf<Sides<L, R>>,
    F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    O: Send + 'static,
{
    type Out = O;

    fn batch<P: Push<O>>(&mut self, batch: &mut Batch<Sides<L, R>>, out: &mut P, cx: &mut Cx) {
        let mut records = batch.take_records();
        let mut stamps = Stamps::from(batch, 0);
        let (mut index, mut steps, mut rounds) = (0, STEPS, ROUNDS);
        while !records.is_empty() {
            let (chunk, _) = records.as_slices();
            let count = chunk.len().min(CHUNK);
            let probes = probe(&self.rows, &self.key, self.op, &chunk[..count]);
            self.prefetch(&probes[..count]);
            for (hash, candidate) in probes.into_iter().take(count) {
                let stamp = stamps.of(batch, index, cx);
                let is_late = |v| stamp.time + self.rule.lateness < v;
                if stamp.behind.is_some_and(is_late) {
                    if let Some(record) = records.pop_front() {
                        self.late.record(record, stamp, cx);
                    }
                    if self.late.blocked() {
                        return batch.give_back(records);
                    }
                    index += 1;
                    continue;
                }
                let hand = Hand {
                    index,
                    time: stamp.time.micros(),
                    tie: batch.origins.get(index).map(tie_of),
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
                        return batch.give_back(records);
                    }
                }
                index += 1;
            }
            if out.blocked() {
                break;
            }
        }
        batch.give_back(records);
    }

    fn watermark<P: Push<O>>(&mut self, watermark: EventTime, _: &mut P, _: &mut Cx) {
        self.watermark = self.watermark.max(watermark.micros());
        self.left.limit = self.left.limit_at(self.watermark);
        self.right.limit = self.right.limit_at(self.watermark);
    }

    fn resume<P: Push<O>>(&mut self, out: &mut P, cx: &mut Cx) -> bool {
        let mut budget = PIECE;
        self.alone::<OfLeft, P>(&mut budget, out, cx)
            && self.alone::<OfRight, P>(&mut budget, out, cx)
            && self.left.make_room(&mut budget, &mut self.rows)
            && self.right.make_room(&mut budget, &mut self.rows)
    }

    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        watermark - self.rule.trail()
    }

    /// Nothing is told by a watermark but who is alone.
    fn close_idle(&mut self) -> Option<EventTime> {
        let left = self.left.all_expired_at().filter(|_| self.left.outer);
        let right = self.right.all_expired_at().filter(|_| self.right.outer);
        left.max(right).map(EventTime::from_micros)
    }

    fn begin_epoch(&mut self, cut: Cut) {
        debug_assert!(self.under.is_none(), "what was begun is finished");
        let watermark = EventTime::from_micros(self.watermark);
        if let Some(kept) = &mut self.left.kept {
            kept.begin(cut, watermark, &self.left.log);
        }
        if let Some(kept) = &mut self.right.kept {
            kept.begin(cut, watermark, &self.right.log);
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "left", self.left.size()));
        to.push((self.op, "right", self.right.size()));
        to.push((self.op, "keys", self.rows.size()));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let left = self.left.kept.as_mut();
        let left = left.map_or(Saved::All, |kept| kept.save(to, &self.left.log));
        let right = self.right.kept.as_mut();
        left.and(right.map_or(Saved::All, |kept| kept.save(to, &self.right.log)))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        Ok(self.load_side::<OfLeft>(frame)? || self.load_side::<OfRight>(frame)?)
    }

    fn loaded(&mut self) {
        self.put_back::<OfLeft>();
        self.put_back::<OfRight>();
    }

    fn restored_watermark(&self) -> EventTime {
        EventTime::from_micros(self.watermark)
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.late.control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.late.blocked()
    }
}
