//! Watermarks: how far event time has come, told by each source partition on its own.
//!
//! Laws (SEMANTICS, time and lateness)
//! 1. Generators run per source partition and advance per record. V(r) is the partition's watermark just before r: the
//!    greater of what the generator says and the partition's floor. It does not depend on interleaving.
//! 2. The stage's watermark is the minimum over its partitions that are neither idle nor ended, and never falls.
//! 3. A partition that returns from idleness gets the stage's watermark at that instant as its floor.
//! 4. A partition is silent only if it was asked and had nothing: one that could not be read (a slow sink, alignment, a
//!    process that was stopped) is not. However long that lasts, its records do not become late by it.
//! 5. A record without a valid time is malformed and moves nothing.
//! 6. [`EventTime::END`] is passed on at the end of the source only, whatever a generator says.

use crate::batch::{Batch, Behind, Stamp};
use crate::checkpoint::{Frame, Saved, Saver, Snapshot};
use crate::push::{Control, Cx, DeadLetter, OpId, Push, blame, blame_at};
use crate::state::{LoadError, State};
use crate::time::{EventTime, IntoEventTime, Span};
use pelton_storage::StateId;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

/// Says how far event time has come in one source partition. One clone a partition.
///
/// What it has learned from records is kept in checkpoints. For most that is one time:
///
/// ```
/// use pelton::{EventTime, WatermarkGenerator};
///
/// /// Whole days: nothing of a day comes once a record of the next has.
/// #[derive(Clone)]
/// struct Daily(EventTime);
///
/// impl<T> WatermarkGenerator<T> for Daily {
///     type State = EventTime;
///     fn on_record(&mut self, _: &T, time: EventTime) {
///         const DAY: i64 = 86_400_000_000;
///         let day = time.micros().div_euclid(DAY) * DAY;
///         self.0 = self.0.max(EventTime::from_micros(day));
///     }
///     fn watermark(&self) -> EventTime {
///         self.0
///     }
///     fn state(&self) -> EventTime {
///         self.0
///     }
///     fn restore(&mut self, state: EventTime) {
///         self.0 = state;
///     }
/// }
/// ```
pub trait WatermarkGenerator<T>: Clone + Send + 'static {
    /// What it has learned from records: with it, a new generator goes on as this one would. What it was made with (a bound, a
    /// function) is not part of it; that is the program's.
    type State: State;
    /// A record with this time has been read.
    fn on_record(&mut self, record: &T, time: EventTime);
    /// No record with a time below this is expected any more. May fall; Pelton keeps the greatest.
    fn watermark(&self) -> EventTime;
    /// What it has learned so far.
    fn state(&self) -> Self::State;
    /// Goes on from what one like it had learned. Called on a generator that has seen no record.
    fn restore(&mut self, state: Self::State);
}

/// Watermarks trail the greatest time seen by a bound: see [`Watermarks::bounded`].
#[derive(Clone, Copy, Debug)]
pub struct Bounded {
    bound: Span,
    /// The greatest time seen, less the bound.
    watermark: EventTime,
}

impl<T> WatermarkGenerator<T> for Bounded {
    type State = EventTime;
    #[inline(always)]
    fn on_record(&mut self, _: &T, time: EventTime) {
        // Within ±2^62 less at most 2^60: no overflow.
        let told = EventTime::from_micros(time.micros() - self.bound.micros());
        if told > self.watermark {
            self.watermark = told;
        }
    }
    #[inline(always)]
    fn watermark(&self) -> EventTime {
        self.watermark
    }
    /// The greatest time seen, so that it holds for another bound as well.
    fn state(&self) -> EventTime {
        if self.watermark == EventTime::BEGINNING {
            self.watermark
        } else {
            self.watermark + self.bound
        }
    }
    fn restore(&mut self, greatest: EventTime) {
        self.watermark = greatest - self.bound;
    }
}

/// Watermarks read from marker records: see [`Watermarks::punctuated`].
#[derive(Clone)]
pub struct Punctuated<T, F> {
    mark: F,
    watermark: EventTime,
    record: PhantomData<fn(&T)>,
}

impl<T: 'static, F: Fn(&T) -> Option<EventTime> + Clone + Send + 'static> WatermarkGenerator<T>
    for Punctuated<T, F>
where
    Punctuated<T, F>: Clone,
{
    type State = EventTime;
    #[inline]
    fn on_record(&mut self, record: &T, _: EventTime) {
        if let Some(watermark) = (self.mark)(record) {
            self.watermark = self.watermark.max(watermark);
        }
    }
    #[inline]
    fn watermark(&self) -> EventTime {
        self.watermark
    }
    fn state(&self) -> EventTime {
        self.watermark
    }
    fn restore(&mut self, watermark: EventTime) {
        self.watermark = watermark;
    }
}

/// How a source's watermarks are made, and what happens when partitions fall silent or run ahead.
///
/// ```
/// use pelton::{Spans, Watermarks};
/// let strategy = Watermarks::bounded(5.seconds())
///     .idle_after(30.seconds())         // a silent partition stops holding windows back
///     .close_after_idle(60.seconds())   // all silent: open windows close instead of waiting for the next record
///     .max_drift(10.minutes());         // and none runs further ahead of the others than this
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Watermarks<G> {
    pub(crate) generator: G,
    pub(crate) idle_after: Option<Span>,
    pub(crate) close_after: Option<Span>,
    pub(crate) max_drift: Option<Span>,
    /// The first negative span that was given, if any: refused when the job is built.
    pub(crate) refused: Option<(&'static str, Span)>,
}

impl Watermarks<Bounded> {
    /// Records come at most `bound` later than a record with a greater time of the same partition: the watermark is the
    /// greatest time seen less `bound`. What comes later still is late where windows have closed.
    pub fn bounded(bound: Span) -> Self {
        let mut w = Self::custom(Bounded {
            bound,
            watermark: EventTime::BEGINNING,
        });
        if bound < Span::ZERO || bound > Span::MAX {
            w.refused = Some(("bound", bound));
        }
        w
    }

    /// Times never fall within a partition: `bounded(0)`.
    pub fn monotonous() -> Self {
        Self::bounded(Span::ZERO)
    }
}

impl<T, F: Fn(&T) -> Option<EventTime>> Watermarks<Punctuated<T, F>> {
    /// Some records carry a watermark: where `mark` returns a time, no record below it follows in that partition.
    pub fn punctuated(mark: F) -> Self {
        Self::custom(Punctuated {
            mark,
            watermark: EventTime::BEGINNING,
            record: PhantomData,
        })
    }
}

impl<G> Watermarks<G> {
    /// A generator of your own.
    pub fn custom(generator: G) -> Self {
        Watermarks {
            generator,
            idle_after: None,
            close_after: None,
            max_drift: None,
            refused: None,
        }
    }

    /// A partition that has given nothing for so long (processing time) no longer holds the watermark back. When it
    /// returns, what it brings below the watermark of that instant is behind. Class EXEMPT from one answer at that instant.
    pub fn idle_after(mut self, silence: Span) -> Self {
        self.check("idle_after", silence);
        self.idle_after = Some(silence);
        self
    }

    /// When *all* partitions have been silent for so long (processing time), every open window closes: its operator's
    /// watermark moves to the end of its last open window. Without this, the last windows wait for the next record.
    /// Implies [`Watermarks::idle_after`] with the same silence where none is set; a shorter silence than that is refused.
    pub fn close_after_idle(mut self, silence: Span) -> Self {
        self.check("close_after_idle", silence);
        self.close_after = Some(silence);
        self.idle_after = Some(self.idle_after.unwrap_or(silence));
        self
    }

    /// A partition may run at most this far ahead, in event time, of the slowest one that has data to read.
    pub fn max_drift(mut self, drift: Span) -> Self {
        self.check("max_drift", drift);
        self.max_drift = Some(drift);
        self
    }

    fn check(&mut self, what: &'static str, span: Span) {
        if (span < Span::ZERO || span > Span::MAX) && self.refused.is_none() {
            self.refused = Some((what, span));
        }
    }
}

/// The greatest watermark that a source passes on before its end (law 6).
const LAST: EventTime = EventTime::from_micros(EventTime::END.micros() - 1);

/// What partitions of one source tell each other across shards so that none runs ahead: advice, not order.
///
/// Each slot is written by the shard that reads the partition and read by all; values may be stale, which only delays a hold.
#[derive(Debug)]
pub(crate) struct Alignment {
    drift: Span,
    /// Watermark of each partition, in microseconds.
    watermarks: Vec<AtomicI64>,
    /// Whether the partition had data to read when last asked.
    with_data: Vec<AtomicBool>,
}

impl Alignment {
    pub fn new(partitions: usize, drift: Span) -> Self {
        Alignment {
            drift,
            watermarks: (0..partitions).map(|_| AtomicI64::new(i64::MIN)).collect(),
            with_data: (0..partitions).map(|_| AtomicBool::new(true)).collect(),
        }
    }

    pub fn has_data(&self, partition: usize, has: bool) {
        self.with_data[partition].store(has, Relaxed);
    }

    fn told(&self, partition: usize, watermark: EventTime) {
        self.watermarks[partition].store(watermark.micros(), Relaxed);
    }

    /// Whether `partition` is further ahead than the drift of some partition that has data to read.
    pub fn held(&self, partition: usize) -> bool {
        let mine = EventTime::from_micros(self.watermarks[partition].load(Relaxed)) - self.drift;
        self.watermarks
            .iter()
            .zip(&self.with_data)
            .enumerate()
            .any(|(other, (watermark, data))| {
                other != partition && data.load(Relaxed) && watermark.load(Relaxed) < mine.micros()
            })
    }
}

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
        batch.times.clear();
        let mut refused = false;
        let behind = &mut batch.behind;
        let times = batch.records.iter().enumerate().map(|(index, record)| {
            let time = blame_at(op, index, || time_of(record)).into_event_time();
            let Some(time) = time.filter(|t| t.is_valid()) else {
                // Taken out below, where its reason is had again.
                refused = true;
                return EventTime::BEGINNING;
            };
            if time < watermark {
                behind.push(Behind {
                    index: index as u32,
                    watermark,
                });
            }
            let told = blame_at(op, index, || {
                generator.on_record(record, time);
                generator.watermark()
            });
            watermark = watermark.max(told);
            time
        });
        batch.times.extend(times);
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
        let mine = self.idle_after_ns.and_then(|after| {
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
            if stamp.time == EventTime::BEGINNING {
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
            partition: origin.partition.to_string(),
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
        // Blocked: nobody was asked in this step (law 4).
        if !active && idle && !self.next.blocked() {
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
