//! What a stage asks of sliding windows: batches, watermarks, the pieces of work that these leave, and checkpoints.

use super::stacks::Part;
use super::{IDS_AHEAD, NEVER, SlidingOp, VISIT, WORK};
use crate::aggregate::Aggregate;
use crate::batch::{Batch, Stamp};
use crate::budget::{Size, Sizes};
use crate::checkpoint::{Cut, Frame, Saved, Snapshot};
use crate::key::KeyOf;
use crate::push::{Control, Cx, Push};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::{EventTime, Span};
use crate::window::Windowed;

impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> Operator<T> for SlidingOp<T, K, A> {
    type Out = Windowed<K::Key, A::Out>;

    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        let mut work = WORK;
        if !self.change(&mut work, out, cx) {
            return;
        }
        loop {
            let behind = batch.behind.get(self.behind_taken).copied();
            let to = behind.map_or(batch.len(), |b| b.index as usize);
            self.on_time(batch, self.taken, to, cx);
            self.taken = to;
            let Some(behind) = behind else {
                break;
            };
            if work <= 0 {
                return;
            }
            if !self.behind(batch, to, behind.watermark, cx) {
                let stamp = Stamp {
                    time: batch.times[to],
                    behind: Some(behind.watermark),
                };
                self.late_records.push((to, stamp));
            }
            work -= 1;
            self.taken += 1;
            self.behind_taken += 1;
            if !self.change(&mut work, out, cx) {
                return;
            }
        }
        self.late.take(batch, &self.late_records, cx);
        self.late_records.clear();
        (self.taken, self.behind_taken) = (0, 0);
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        self.state.watermark = self.state.watermark.max(watermark);
        self.pass = self.state.next_pass();
    }

    fn resume<O: Push<Self::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        if !self.catch_up(out, cx) {
            return false;
        }
        let Some(mut pass) = self.pass else {
            let early = self.early.as_mut();
            return early.is_none_or(|e| e.tell(&self.state, &self.aggregate, out, cx));
        };
        let mut work = WORK;
        while work > 0 {
            pass.id = self.state.table.next_live(pass.id);
            if pass.id >= self.state.table.id_end() {
                self.state.passed(&pass);
                self.pass = self.state.next_pass();
                return self.pass.is_none();
            }
            work -= VISIT;
            self.state.rests.prefetch(pass.id + IDS_AHEAD);
            if !self.visit(&mut pass, &mut work, out, cx) {
                break;
            }
            pass.id += 1;
            pass.emitted = false;
        }
        self.pass = Some(pass);
        false
    }

    /// A window may give results until M has reached its end + lateness, with its last microsecond as their time: the
    /// windows behind it must still be open then.
    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        watermark - Span::from_micros(self.state.allowed)
    }

    fn tick<O: Push<Self::Out>>(&mut self, _: &mut O, _: &mut Cx) {
        if let Some(early) = &mut self.early {
            early.begin();
        }
    }

    fn wake_at(&self) -> Option<u64> {
        self.early.as_ref().and_then(|early| early.wake_at())
    }

    fn next_due(&self) -> Option<EventTime> {
        let state = &self.state;
        let correction = state.correct_at.saturating_add(state.allowed);
        let due = correction.min(state.fire_at).min(state.forget_at);
        (due != NEVER).then(|| EventTime::from_micros(due))
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        let last = EventTime::from_micros(self.state.last_end);
        (last > self.state.watermark).then_some(last)
    }

    fn begin_epoch(&mut self, cut: Cut) {
        self.state.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        let state = &self.state;
        debug_assert_eq!(state.parts, state.count_parts());
        to.push((state.op, "keyed", state.table.size()));
        to.push((state.op, "slices", Size::of::<Part<A::Acc>>(state.parts, 0)));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.state.save(to)
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.state.load(frame, || self.aggregate.create())
    }

    fn loaded(&mut self) {
        self.state.loaded(self.early.as_deref_mut());
    }

    fn restored_watermark(&self) -> EventTime {
        self.state.watermark
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.late.control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.late.blocked()
    }
}
