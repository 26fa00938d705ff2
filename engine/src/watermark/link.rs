//! Where event time is assigned: the watermark of each source partition, and the stage's. The laws are those of [`super`].

use super::{Alignment, LAST, WatermarkGenerator, Watermarks};
use crate::batch::{Batch, Behind, Stamp};
use crate::checkpoint::{Frame, Saved, Saver, Snapshot};
use crate::push::{Control, Cx, DeadLetter, OpId, Push, blame, blame_at};
use crate::state::LoadError;
use crate::time::{EventTime, IntoEventTime, Span};
use pelton_storage::StateId;
use std::marker::PhantomData;
use std::sync::Arc;

/// One partition's share of [`EventTimeLink`].
#[derive(Clone, Debug)]
struct Part<G> {
    generator: G,
    /// V: never falls.
    watermark: EventTime,
    /// V as a checkpoint has it.
    saved: EventTime,
    /// Whether it was read since the last barrier.
    read: bool,
    state: PartState,
    /// Driver's nanoseconds of the last step that brought a record.
    last_ns: u64,
    /// Index among all partitions of the source.
    global: usize,
}

/// What changes with each record of the partition being read: held apart, since each record goes through it, and put
/// back before anything else looks at the partitions.
struct Reading<G> {
    /// Index into the parts; `usize::MAX` where none is being read.
    at: usize,
    generator: G,
    watermark: EventTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Active,
    Idle,
    Ended,
}

/// Assigns event times and makes watermarks: a link of a source stage's chain.
pub struct EventTimeLink<T, R, F, G, N> {
    next: N,
    time_of: F,
    op: OpId,
    name: String,
    parts: Vec<Part<G>>,
    /// Of the partition being read, while it is.
    reading: Reading<G>,
    idle_after_ns: Option<u64>,
    close_after_ns: Option<u64>,
    alignment: Option<Arc<Alignment>>,
    /// Watermark last passed on.
    merged: EventTime,
    /// Idle event last passed on; `None` while some partition is active.
    told_idle: Option<bool>,
    started: bool,
    /// Its stage reads nothing for now, since the job holds its sources.
    held: bool,
    /// Driver's nanoseconds of the last flush.
    advanced_ns: u64,
    /// Keeps V of each partition.
    saver: Saver,
    record: PhantomData<fn(T) -> R>,
}

impl<T, R, F, G: Clone, N> EventTimeLink<T, R, F, G, N> {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        next: N,
        time_of: F,
        strategy: &Watermarks<G>,
        op: OpId,
        name: String,
        partitions: &[usize],
        alignment: Option<Arc<Alignment>>,
        state: StateId,
    ) -> Self {
        let part = |&global: &usize| Part {
            generator: strategy.generator.clone(),
            watermark: EventTime::BEGINNING,
            saved: EventTime::BEGINNING,
            read: false,
            state: PartState::Active,
            last_ns: 0,
            global,
        };
        EventTimeLink {
            next,
            time_of,
            op,
            name,
            parts: partitions.iter().map(part).collect(),
            reading: Reading {
                at: usize::MAX,
                generator: strategy.generator.clone(),
                watermark: EventTime::BEGINNING,
            },
            idle_after_ns: strategy.idle_after.map(Span::nanos),
            close_after_ns: strategy.close_after.map(Span::nanos),
            alignment,
            merged: EventTime::BEGINNING,
            told_idle: None,
            started: false,
            held: false,
            advanced_ns: 0,
            saver: Saver::new(state),
            record: PhantomData,
        }
    }
}

impl<T, R, F, G, N> Push<T> for EventTimeLink<T, R, F, G, N>
where
    R: IntoEventTime,
    F: Fn(&T) -> R,
    G: WatermarkGenerator<T>,
    N: Push<T>,
{
    #[inline(always)]
    fn push(&mut self, record: T, _: Stamp, cx: &mut Cx) {
        let time = blame(self.op, || (self.time_of)(&record)).into_event_time();
        let Some(time) = time.filter(|t| t.is_valid()) else {
            return self.without_time(time, cx);
        };
        if self.reading.at != cx.partition {
            self.turn_to(cx.partition);
        }
        let watermark = self.reading.watermark;
        let generator = &mut self.reading.generator;
        let told = blame(self.op, || {
            generator.on_record(&record, time);
            generator.watermark()
        });
        self.reading.watermark = watermark.max(told);
        let behind = if time < watermark {
            Some(watermark)
        } else {
            None
        };
        // Not in the branch above: with a store in it, it is a branch indeed, and all records pay 5% for it (YSB).
        cx.counters.behind += u64::from(time < watermark);
        self.next.push(record, Stamp { time, behind }, cx);
    }

    fn push_batch(&mut self, batch: &mut Batch<T>, cx: &mut Cx) {
        self.put_back();
        let part = &mut self.parts[cx.partition];
        let (time_of, op) = (&self.time_of, self.op);
        let mut generator = blame(op, || part.generator.clone());
        let mut watermark = part.watermark;
        let Batch {
            records,
            times,
            behind,
            ..
        } = batch;
        times.clear();
        times.extend(records.iter().enumerate().map(|(index, record)| {
            let time = blame_at(op, index, || time_of(record)).into_event_time();
            time.unwrap_or(EventTime::BEGINNING)
        }));
        let mut refused = false;
        if in_order(times, watermark)
            && let Some(&last) = times.last()
            && blame(op, || generator.on_ascending(last))
        {
            watermark = watermark.max(blame(op, || generator.watermark()));
        } else {
            refused = times.iter().any(|time| !time.is_valid());
            // A loop of its own, which has what it carries on in registers: with the calls above it would go through memory.
            for (index, (record, &time)) in records.iter().zip(times.iter()).enumerate() {
                if refused && !time.is_valid() {
                    // Taken out below, where its reason is had again.
                    continue;
                }
                if time < watermark {
                    note(behind, index, watermark);
                }
                let told = blame_at(op, index, || {
                    generator.on_record(record, time);
                    generator.watermark()
                });
                watermark = watermark.max(told);
            }
        }
        let part = &mut self.parts[cx.partition];
        (part.generator, part.watermark) = (generator, watermark);
        cx.counters.behind += batch.behind.len() as u64;
        if refused {
            self.take_refused(batch, cx);
        }
        self.next.push_batch(batch, cx);
    }

    fn takes_batches(&self) -> bool {
        self.next.takes_batches()
    }

    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.put_back();
        self.note_hold(cx);
        match event {
            Control::PartitionEnded { partition } => {
                self.parts[partition].state = PartState::Ended;
                if let Some(alignment) = &self.alignment {
                    alignment.has_data(self.parts[partition].global, false);
                }
                self.advance(cx);
            }
            Control::PartitionPending { partition } => {
                let part = &mut self.parts[partition];
                if part.state == PartState::Active
                    && let Some(after) = self.idle_after_ns
                    && cx.now_ns.saturating_sub(part.last_ns) >= after
                {
                    part.state = PartState::Idle; // Law 4.
                }
            }
            Control::PartitionWatermark { partition, time } => self.raise(partition, time, cx),
            Control::Flush => {
                self.advance(cx);
                self.next.control(Control::Flush, cx);
            }
            Control::Barrier(cut) => {
                self.note_watermarks(cut.is_full);
                self.next.control(event, cx);
            }
            other => self.next.control(other, cx),
        }
    }

    fn blocked(&self) -> bool {
        self.next.blocked()
    }

    fn wake_at(&self) -> Option<u64> {
        let mine = self.idle_after_ns.filter(|_| !self.held).and_then(|after| {
            let active = self
                .parts
                .iter()
                .filter(|p| p.state == PartState::Active)
                .map(|p| p.last_ns.saturating_add(after))
                // Past: it could not be asked, and is judged when it is.
                .filter(|&at| at > self.advanced_ns)
                .min();
            let close = self
                .close_after_ns
                .filter(|_| self.told_idle == Some(false));
            active.or_else(|| close.and_then(|c| self.last_ns().map(|last| last.saturating_add(c))))
        });
        crate::stage::source::earliest(mine, self.next.wake_at())
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.saver.write_first(to).and(self.next.save(to))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        if frame.state != self.saver.state() {
            return self.next.load(frame);
        }
        if let (Ok(key), Some(value)) = (frame.key.try_into(), frame.value) {
            let global = u32::from_le_bytes(key) as usize;
            let (micros, learned): (i64, G::State) = self.saver.load(value)?;
            let watermark = EventTime::from_micros(micros);
            if let Some(part) = self.parts.iter_mut().find(|p| p.global == global) {
                (part.watermark, part.saved) = (watermark, watermark);
                blame(self.op, || part.generator.restore(learned));
            }
        }
        Ok(true)
    }
}

impl<T, R, F, G: Clone, N> EventTimeLink<T, R, F, G, N> {
    /// Takes out what the records of a partition change.
    #[inline(never)]
    fn turn_to(&mut self, partition: usize) {
        self.put_back();
        let part = &self.parts[partition];
        self.reading = Reading {
            at: partition,
            generator: blame(self.op, || part.generator.clone()),
            watermark: part.watermark,
        };
    }

    /// Puts it back.
    fn put_back(&mut self) {
        let at = std::mem::replace(&mut self.reading.at, usize::MAX);
        if let Some(part) = self.parts.get_mut(at) {
            part.generator = blame(self.op, || self.reading.generator.clone());
            part.watermark = self.reading.watermark;
        }
    }
}

impl<T, R, F, G: WatermarkGenerator<T>, N> EventTimeLink<T, R, F, G, N> {
    /// A barrier passes: notes V and what the generator has learned, of each partition that was read since the last one.
    fn note_watermarks(&mut self, all: bool) {
        self.saver.begin();
        for part in &mut self.parts {
            if all || part.read || part.watermark > part.saved {
                (part.saved, part.read) = (part.watermark, false);
                let key = (part.global as u32).to_le_bytes();
                let learned = blame(self.op, || part.generator.state());
                self.saver.note(&key, &(part.watermark.micros(), learned));
            }
        }
    }
}

impl<T, R: IntoEventTime, F: Fn(&T) -> R, G, N: Push<T>> EventTimeLink<T, R, F, G, N> {
    /// Takes the records without a valid time out of a batch.
    #[cold]
    fn take_refused(&self, batch: &mut Batch<T>, cx: &mut Cx) {
        let mut kept = Batch::with_capacity(batch.len());
        let mut index = 0;
        let with_origins = !batch.origins.is_empty();
        let first = cx.origin;
        batch.consume(|record, stamp, origin| {
            let place = if with_origins {
                origin
            } else {
                cx.run_origin(first, index)
            };
            index += 1;
            if !stamp.time.is_valid() {
                cx.origin = place;
                self.without_time((self.time_of)(&record).into_event_time(), cx);
            } else {
                if with_origins {
                    kept.origins.push(origin);
                }
                kept.push(record, stamp);
            }
            true
        });
        cx.origin = first;
        std::mem::swap(batch, &mut kept);
    }

    #[cold]
    fn without_time(&self, time: Option<EventTime>, cx: &mut Cx) {
        let (name, origin) = (&self.name, cx.origin);
        cx.malformed(|| DeadLetter {
            at: name.clone(),
            partition: origin.partition_name(),
            offset: origin.offset,
            line: None,
            reason: match time {
                None => "the event time is NULL".into(),
                Some(t) => format!(
                    "the event time {} us is outside the range of -2^62 to 2^62",
                    t.micros()
                ),
            },
            payload: vec![],
        });
    }

    /// What passes while sources are held is no silence (law 4): it begins anew when they are asked again.
    fn note_hold(&mut self, cx: &Cx) {
        let was_held = std::mem::replace(&mut self.held, cx.hold);
        if was_held && !self.held {
            for part in &mut self.parts {
                part.last_ns = cx.now_ns;
            }
        }
    }

    /// A partition says by itself how far it is. Where that is news it has spoken, and is silent no longer (law 3: its floor is
    /// kept while it is silent, so what lies below that is none).
    fn raise(&mut self, partition: usize, time: EventTime, cx: &Cx) {
        let part = &mut self.parts[partition];
        let time = time.min(LAST);
        if time <= part.watermark {
            return;
        }
        part.watermark = time;
        part.last_ns = cx.now_ns;
        if part.state == PartState::Idle {
            part.state = PartState::Active;
            self.told_idle = None;
        }
        if let Some(alignment) = &self.alignment {
            alignment.told(part.global, time);
        }
    }

    /// When the last live partition spoke.
    fn last_ns(&self) -> Option<u64> {
        self.parts
            .iter()
            .filter(|p| p.state != PartState::Ended)
            .map(|p| p.last_ns)
            .max()
    }

    /// Merges the partitions' watermarks and passes on what has changed (law 2).
    fn advance(&mut self, cx: &mut Cx) {
        self.advanced_ns = cx.now_ns;
        if !self.started {
            self.started = true;
            for part in &mut self.parts {
                part.last_ns = cx.now_ns;
            }
        }
        let mut low = EventTime::END;
        let mut furthest = EventTime::BEGINNING;
        let (mut active, mut idle) = (false, false);
        let read = (cx.read > 0).then_some(cx.partition);
        for (at, part) in self.parts.iter_mut().enumerate() {
            if read == Some(at) {
                part.last_ns = cx.now_ns;
                part.read = true;
                if part.state == PartState::Idle {
                    part.state = PartState::Active;
                    self.told_idle = None;
                }
                if let Some(alignment) = &self.alignment {
                    alignment.told(part.global, part.watermark);
                }
            }
            match part.state {
                PartState::Active => {
                    active = true;
                    low = low.min(part.watermark);
                }
                PartState::Idle => {
                    idle = true;
                    furthest = furthest.max(part.watermark);
                }
                PartState::Ended => {}
            }
        }
        if !active && idle {
            low = furthest;
        }
        // A generator may say that nothing more will come, and be wrong: what it says stays below END, for which operators
        // let go of everything. With every partition ended the stage itself says END, after its last flush.
        low = low.min(LAST);
        if (active || idle) && low > self.merged {
            self.merged = low;
            // Law 3: whenever a silent partition returns, this is its floor.
            for part in self.parts.iter_mut().filter(|p| p.state == PartState::Idle) {
                part.watermark = part.watermark.max(low);
            }
            self.next.control(Control::Watermark(low), cx);
        }
        // Blocked, or held: nobody was asked in this step (law 4).
        if !active && idle && !self.next.blocked() && !self.held {
            let silent = self
                .last_ns()
                .map_or(0, |last| cx.now_ns.saturating_sub(last));
            let close = self.close_after_ns.is_some_and(|after| silent >= after);
            if self.told_idle != Some(close) {
                self.told_idle = Some(close);
                self.next.control(Control::Idle { close }, cx);
            }
        }
    }
}

/// Whether records with these times come in order, and none is behind a watermark, or has a time that no record may have.
#[inline]
fn in_order(times: &[EventTime], watermark: EventTime) -> bool {
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return false;
    };
    *first >= watermark && first.is_valid() && last.is_valid() && times.is_sorted()
}

/// Out of the loop, so that the common case keeps the registers.
#[cold]
#[inline(never)]
fn note(behind: &mut Vec<Behind>, index: usize, watermark: EventTime) {
    behind.push(Behind {
        index: index as u32,
        watermark,
    });
}

#[cfg(test)]
mod tests;
