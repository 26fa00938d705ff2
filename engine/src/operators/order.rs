//! Event-time order: records wait for the watermark and reach the operator behind in the order of (event time, origin).
//!
//! Laws
//! 1. The order is made after the exchange by key, on the shard where the key's state lives: an order made before it is
//!    lost when the batches of several producers meet. So it is a wrapper round the operator, one stage with it.
//! 2. A record r is late iff t + allowed lateness < V(r) (SEMANTICS, time, 6). Others wait until M - allowed lateness is
//!    above t. Since M <= V(r), none of them can come below what has been replayed.
//! 3. The inner operator sees batches in order, and its watermark is M - allowed lateness, which is passed on: it comes
//!    once all records below it have been replayed.
//! 4. Replaying goes by pieces; no frame is taken in between.
//! 5. In a checkpoint each record that waits is an entry of its own ([`kept`]); the operator inside keeps what it keeps.
//!
//! Class: that of its input; it makes running values and count windows behind it ROWS. State: every record until M has
//! passed its time and the allowed lateness. O(log n) a record. Records keep time, behind mark and origin.

mod kept;
#[cfg(test)]
mod tests;

use crate::batch::{Batch, Origin, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::late::{Late, LateTo};
use crate::operators::replay::{MOST, Replay};
use crate::pipeline::{MakeOperator, OperatorRoot};
use crate::plan::{Origins, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId, Push};
use crate::query::Ask;
use crate::stage::operator::Operator;
use crate::state::{LoadError, State};
use crate::time::{EventTime, Span};
use kept::Waiting;

/// Records replayed in one step: where millions wait in no order at all, about 100 µs.
const PIECE: usize = 256;

/// Makes [`InOrder`] round an operator on each shard.
#[allow(missing_debug_implementations)]
pub struct MakeInOrder<T, K, M> {
    pub(crate) key: K,
    pub(crate) inner: M,
    pub(crate) op: OpId,
    pub(crate) lateness: Span,
    pub(crate) late: Option<LateTo<T>>,
    /// What comes first of what has one time, before origins count.
    pub(crate) rank: Option<fn(&T) -> u8>,
}

/// The root of a stage in which an operator stands behind an order.
pub(crate) type OrderRoot<T, K, M> = OperatorRoot<T, MakeInOrder<T, K, M>>;

#[allow(private_interfaces)]
impl<T: State, K: KeyOf<T>, M: MakeOperator<T>> MakeOperator<T> for MakeInOrder<T, K, M> {
    type Op = InOrder<T, K, M::Op>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let mut waiting = Replay::ranked(self.rank);
        Ok(InOrder {
            key: self.key.clone(),
            kept: Waiting::of(build, self.op, &mut waiting),
            inner: self.inner.make(build)?,
            op: self.op,
            late: LateTo::open(&self.late, build),
            lateness: self.lateness,
            waiting,
            greatest: EventTime::BEGINNING,
            bound: EventTime::BEGINNING,
            told: EventTime::BEGINNING,
            fresh: Batch::with_capacity(0),
            piece: Batch::with_capacity(PIECE),
            replaying: None,
        })
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        let mut stages = LateTo::stages(&mut self.late);
        stages.extend(self.inner.stages_aside());
        stages
    }
    fn refuses(&self) -> bool {
        self.inner.refuses()
    }
    fn origins(&self) -> Origins {
        Origins::Needs
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct InOrder<T, K, Op> {
    key: K,
    inner: Op,
    op: OpId,
    /// Where the job takes checkpoints.
    kept: Option<Waiting<T>>,
    late: Late<T>,
    lateness: Span,
    waiting: Replay<T>,
    /// The greatest time that ever waited.
    greatest: EventTime,
    /// Records below it are to be replayed: M - allowed lateness.
    bound: EventTime,
    /// The watermark last given to the inner operator.
    told: EventTime,
    /// Records of a batch that are not late, where some are behind.
    fresh: Batch<T>,
    /// Records on their way to the inner operator, which may have left some.
    piece: Batch<T>,
    /// Length of the piece and its last origin, while the inner operator has it.
    replaying: Option<(usize, Origin)>,
}

impl<T: State, K: KeyOf<T>, Op: Operator<T>> InOrder<T, K, Op> {
    /// Moves the next records below the bound into the piece.
    fn fill(&mut self, cx: &mut Cx) {
        let mut left = PIECE;
        while left > 0
            && let Some(next) = self.waiting.next(self.bound, left)
        {
            if let Some(kept) = &mut self.kept {
                for slot in next.slots() {
                    kept.leaves(slot, &self.waiting);
                }
            }
            left -= next.count();
            if self.waiting.take(next, self.bound, &mut self.piece) {
                left = left.saturating_sub(self.loosen());
            }
        }
        self.piece.last = self.piece.origins.last().copied().unwrap_or_default();
        self.piece.arrival_oldest_ns = cx.arrival_ns;
        self.piece.arrival_newest_ns = cx.arrival_ns;
    }

    /// Moves what is left of a thin run to the heap: how many.
    #[cold]
    fn loosen(&mut self) -> usize {
        for count in 1.. {
            let slot = self.waiting.thin_slot();
            let lifted = self.kept.as_mut().map(|k| k.moves(slot, &self.waiting));
            let Some((slot, is_last)) = self.waiting.loosen() else {
                return count;
            };
            if let Some((kept, lifted)) = self.kept.as_mut().zip(lifted) {
                kept.moved(lifted, slot);
            }
            if is_last {
                return count;
            }
        }
        0
    }

    /// Takes late records of a batch out, and the others into the batch for the fresh ones: as many as that may have, and as the late
    /// output has room for.
    #[cold]
    fn sort_out(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        let (late, fresh, lateness) = (&mut self.late, &mut self.fresh, self.lateness);
        batch.consume(|record, stamp: Stamp, origin| {
            if stamp.behind.is_some_and(|v| stamp.time + lateness < v) {
                cx.origin = origin;
                late.record(record, stamp, cx);
                return !late.blocked();
            }
            fresh.origins.push(origin);
            fresh.push(record, stamp);
            fresh.len() < MOST
        });
    }

    fn hand<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        self.replaying
            .get_or_insert((self.piece.len(), self.piece.last));
        self.inner.batch(&mut self.piece, out, cx);
        if self.piece.is_empty() {
            self.replaying = None;
        }
    }
}

impl<T: State, K: KeyOf<T>, Op: Operator<T>> Operator<T> for InOrder<T, K, Op> {
    type Out = Op::Out;

    fn batch<O: Push<Op::Out>>(&mut self, batch: &mut Batch<T>, _: &mut O, cx: &mut Cx) {
        let is_whole = batch.behind.is_empty() && batch.len() <= MOST;
        if !is_whole {
            self.sort_out(batch, cx);
        }
        let taken = match is_whole {
            true => batch,
            false => &mut self.fresh,
        };
        let greatest = taken.times.iter().copied().max();
        self.greatest = self.greatest.max(greatest.unwrap_or(self.greatest));
        match &mut self.kept {
            Some(kept) => self.waiting.take_in(taken, |slot| kept.came(slot)),
            None => self.waiting.take_in(taken, |_| {}),
        }
    }

    fn watermark<O: Push<Op::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        self.bound = self.bound.max(watermark - self.lateness);
    }

    fn resume<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        if self.piece.is_empty() {
            self.fill(cx);
        }
        if !self.piece.is_empty() {
            self.hand(out, cx);
            return false;
        }
        if self.told < self.bound {
            self.told = self.bound;
            self.inner.watermark(self.bound, out, cx);
        }
        self.inner.resume(out, cx)
    }

    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        self.inner.output_watermark(watermark - self.lateness)
    }

    fn newest_record(&self, result: EventTime) -> EventTime {
        self.inner.newest_record(result)
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        let own = (!self.waiting.is_empty())
            .then(|| self.greatest + self.lateness + Span::from_micros(1));
        let inner = self.inner.close_idle().map(|time| time + self.lateness);
        own.max(inner)
    }

    fn tick<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        self.inner.tick(out, cx);
    }

    fn wake_at(&self) -> Option<u64> {
        self.inner.wake_at()
    }

    fn replaying(&self) -> Option<(usize, Origin)> {
        self.replaying
    }

    fn begin_epoch(&mut self, cut: Cut) {
        debug_assert!(self.piece.is_empty() && self.told == self.bound);
        if let Some(kept) = &mut self.kept {
            kept.begin(cut, self.bound, &self.waiting);
        }
        self.inner.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        to.push((self.op, "waiting", self.waiting.size()));
        self.inner.sizes(to);
    }

    fn answer(&self, ask: &mut Ask) {
        self.inner.answer(ask);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let own = self.kept.as_mut();
        let own = own.map_or(Saved::All, |kept| kept.save(to, &self.waiting));
        own.and(self.inner.save(to))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        let own = match &mut self.kept {
            Some(kept) => kept.load(frame, &self.key, &mut self.waiting)?,
            None => None,
        };
        match own {
            None => return self.inner.load(frame),
            Some(None) => {}
            Some(Some(bound)) => (self.bound, self.told) = (bound, bound),
        }
        Ok(true)
    }

    fn check_loaded(&self) -> Result<(), LoadError> {
        self.inner.check_loaded()
    }

    fn loaded(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.loaded(&mut self.waiting);
        }
        let waiting = &self.waiting;
        let held = (0..waiting.slot_end()).filter_map(|slot| waiting.held(slot));
        self.greatest = held.fold(self.greatest, |t, held| t.max(held.stamp.time));
        self.inner.loaded();
    }

    /// M of the order: the one inside has its own, which lies below by the allowed lateness.
    fn restored_watermark(&self) -> EventTime {
        match self.bound {
            EventTime::BEGINNING => self.bound,
            bound => bound + self.lateness,
        }
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.late.control(event, cx);
        self.inner.side_control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.late.blocked() || self.inner.side_blocked()
    }
}
