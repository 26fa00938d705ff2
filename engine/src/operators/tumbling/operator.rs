//! What a stage asks of tumbling windows: batches, watermarks, the pieces of work that these leave, and checkpoints.

use super::kept::{ENTRY, PARKED, begin, prefix, write};
use super::{Doing, PIECE, TumblingOp, emit};
use crate::aggregate::Aggregate;
use crate::batch::{Batch, Stamp};
use crate::budget::{Size, Sizes};
use crate::checkpoint::{Cut, Frame, Keeping, Saved, Snapshot};
use crate::key::KeyOf;
use crate::operators::early::EarlyTimer;
use crate::push::{Control, Cx, Push, blame};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::EventTime;
use crate::window::{Firing, Windowed};

impl<T: Send + 'static, K: KeyOf<T>, A: Aggregate<T>> Operator<T> for TumblingOp<T, K, A> {
    type Out = Windowed<K::Key, A::Out>;

    fn batch<O: Push<Self::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        let behind = std::mem::take(&mut batch.behind);
        let mut late: Vec<(usize, Stamp)> = Vec::new();
        let mut from = 0;
        for b in &behind {
            let index = b.index as usize;
            self.on_time(batch, from, index);
            if !self.behind(batch, index, b.watermark, out, cx) {
                late.push((
                    index,
                    Stamp {
                        time: batch.times[index],
                        behind: Some(b.watermark),
                    },
                ));
            }
            from = index + 1;
        }
        self.on_time(batch, from, batch.len());
        batch.behind = behind;
        if let Some(early) = &mut self.early {
            early.changed(cx.now_ns);
        }
        if !late.is_empty() {
            self.late.take(batch, &late, cx);
        }
        batch.clear();
    }

    fn watermark<O: Push<Self::Out>>(&mut self, watermark: EventTime, _: &mut O, _: &mut Cx) {
        self.watermark = self.watermark.max(watermark);
        if self.watermark >= self.due || self.may_clear() {
            self.doing = self.next_work();
        }
    }

    fn resume<O: Push<Self::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        match self.doing {
            Doing::Nothing => return true,
            Doing::Owed => self.pay(out, cx),
            Doing::Firing { id } => {
                let window = self.window_of(self.fired);
                let slice = &mut self.slices[self.fired];
                let stop = slice.table.id_end().min(id.saturating_add(PIECE));
                for id in id..stop {
                    emit(
                        &slice.table,
                        id,
                        &self.aggregate,
                        self.op,
                        window,
                        Firing::OnTime,
                        out,
                        cx,
                    );
                }
                if stop < slice.table.id_end() {
                    self.doing = Doing::Firing { id: stop };
                    return false;
                }
                self.fired += 1;
                self.doing = self.next_work();
            }
            Doing::Early { at, word } => self.doing = self.fire_early(at, word, out, cx),
            Doing::Correcting { id } => {
                let window = self.window_of(0);
                let slice = &mut self.slices[0];
                let Some(parked) = &slice.parked else {
                    unreachable!("only a slice with parked records is corrected")
                };
                let stop = parked.id_end().min(id.saturating_add(PIECE));
                for parked_id in id..stop {
                    let key = parked.key(parked_id);
                    let (id, _) = slice
                        .table
                        .find_or_insert(slice.table.hash(key), key, || self.aggregate.create());
                    if let Some(keeping) = &mut self.keeping
                        && slice.tracker.touch(id)
                    {
                        let prefix = prefix(ENTRY, slice.start);
                        keeping.saver.before(&prefix, key, slice.table.value(id));
                    }
                    blame(self.op, || {
                        self.aggregate
                            .merge(slice.table.value_mut(id), parked.value(parked_id))
                    });
                    emit(
                        &slice.table,
                        id,
                        &self.aggregate,
                        self.op,
                        window,
                        Firing::Correction,
                        out,
                        cx,
                    );
                }
                if stop < parked.id_end() {
                    self.doing = Doing::Correcting { id: stop };
                    return false;
                }
                self.doing = Doing::Retiring;
            }
            Doing::Retiring => {
                self.retire();
                self.doing = self.next_work();
            }
            Doing::Clearing { mut cursor } => {
                let slice = &mut self.retired[0];
                slice.parked = None;
                if !slice.table.clear_some(&mut cursor) {
                    self.doing = Doing::Clearing { cursor };
                    return false;
                }
                if let Some(slice) = self.retired.pop_front() {
                    self.spare.keep(slice.table);
                }
                self.doing = self.after_retiring();
            }
            Doing::Freeing => {
                if self.spare.free_some() {
                    self.doing = self.after_retiring();
                }
            }
        }
        self.doing == Doing::Nothing
    }

    /// A window may give results until M has reached its end + lateness, with its last microsecond as their time: the
    /// windows behind it must still be open then.
    fn output_watermark(&self, watermark: EventTime) -> EventTime {
        watermark - self.lateness.allowed
    }

    fn close_idle(&mut self) -> Option<EventTime> {
        let last = self.slices.back()?;
        (self.fired < self.slices.len()).then(|| self.end_of(last.start))
    }

    fn next_due(&self) -> Option<EventTime> {
        (self.due < EventTime::END).then_some(self.due)
    }

    fn tick<O: Push<Self::Out>>(&mut self, _: &mut O, _: &mut Cx) {
        if let Some(early) = &mut self.early {
            early.told();
            self.doing = Doing::Early {
                at: self.fired,
                word: 0,
            };
        }
    }

    fn wake_at(&self) -> Option<u64> {
        self.early.as_ref().and_then(EarlyTimer::wake_at)
    }

    fn begin_epoch(&mut self, cut: Cut) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        keeping.begin(cut, self.watermark);
        for slice in &mut self.slices {
            begin(&mut slice.tracker, &slice.table, cut);
            if let Some(parked) = &slice.parked {
                begin(&mut slice.parked_tracker, parked, cut);
            }
        }
    }

    fn sizes(&self, to: &mut Sizes) {
        let tables = self.slices.iter().chain(&self.retired).map(|slice| {
            let parked = slice.parked.as_ref();
            let parked = parked.map_or_else(Size::default, |table| table.size());
            slice.table.size().and(parked)
        });
        to.push((self.op, "keyed", tables.fold(Size::default(), Size::and)));
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let Some(Keeping { saver, .. }) = &mut self.keeping else {
            return Saved::All;
        };
        if saver.write_first(to) == Saved::More {
            return Saved::More;
        }
        // Those that have retired first: their tables are wanted.
        for slice in self.retired.iter_mut().chain(&mut self.slices) {
            let start = slice.start;
            if !write(ENTRY, start, &mut slice.tracker, &slice.table, saver, to) {
                return Saved::More;
            }
            if let Some(parked) = &slice.parked
                && !write(PARKED, start, &mut slice.parked_tracker, parked, saver, to)
            {
                return Saved::More;
            }
        }
        Saved::All
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        match &self.keeping {
            Some(keeping) if keeping.saver.state() == frame.state => {}
            _ => return Ok(false),
        }
        self.load_entry(frame)?;
        Ok(true)
    }

    fn loaded(&mut self) {
        self.arrange();
        // What had been told is not known: all is told again.
        if let Some(early) = &mut self.early
            && self.fired < self.slices.len()
        {
            early.changed(0);
        }
    }

    fn restored_watermark(&self) -> EventTime {
        self.watermark
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.late.control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.late.blocked()
    }
}
