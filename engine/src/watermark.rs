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

use crate::state::State;
use crate::time::{EventTime, Span};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

mod link;

pub use link::EventTimeLink;

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
    /// Records have been read whose times ascend, and the last has this one: `true` where they have been taken in so, at once. For a
    /// generator that looks at times only, of which the greatest alone counts, and whose watermark is never above that. Others have
    /// nothing to do: by default the records are given to [`WatermarkGenerator::on_record`] one by one.
    fn on_ascending(&mut self, last: EventTime) -> bool {
        let _ = last;
        false
    }
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

impl Bounded {
    #[inline(always)]
    fn saw(&mut self, time: EventTime) {
        // Within ±2^62 less at most 2^60: no overflow.
        let told = EventTime::from_micros(time.micros() - self.bound.micros());
        if told > self.watermark {
            self.watermark = told;
        }
    }
}

impl<T> WatermarkGenerator<T> for Bounded {
    type State = EventTime;
    #[inline(always)]
    fn on_record(&mut self, _: &T, time: EventTime) {
        self.saw(time);
    }
    #[inline(always)]
    fn on_ascending(&mut self, last: EventTime) -> bool {
        // A bound is not negative, so the watermark is not above the greatest time.
        self.saw(last);
        true
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
