//! Windows by the wall clock: an event-time window operator that is told the driver's clock instead of event time.
//!
//! Laws
//! 1. A record belongs to the windows that hold the wall clock of the step that took it; its own event time does not matter,
//!    and no record is late. The clock that windows see never goes back.
//! 2. A window fires once the clock has reached its end, by the driver's timer: no record need come. Without open windows
//!    there is no timer.
//! 3. At the end of the input all open windows fire, before the clock has reached their ends.
//! 4. A result has the last time of its window, or M where that is later: so it is never late in event-time windows behind.
//!    The watermark of the input is passed on as it is.
//!
//! Class: EXEMPT. State and complexity are those of the window operator inside.

use crate::aggregate::Aggregate;
use crate::batch::{Batch, Stamp};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::late::LateTo;
use crate::operators::tumbling::MakeTumbling;
use crate::pipeline::MakeOperator;
use crate::plan::{Class, EdgeId, OpInfo, Origins, ShardBuild};
use crate::push::{Control, Cx, OpId, Push};
use crate::stage::operator::Operator;
use crate::time::{EventTime, Span};
use crate::window::{Tumbling, WindowAssigner};

/// Windows by processing time: results depend on when records are processed, and another run gives others. They need no
/// event time.
///
/// ```
/// use pelton::testing::{self, Stepper};
/// use pelton::{Job, ProcessingTime, Spans};
/// let (feed, source) = testing::feed::<u32>(1);
/// let (results, sink) = testing::collect();
/// let job = Job::new("a minute of the clock");
/// job.source(source)
///    .key_by(|r| r % 2)
///    .window(ProcessingTime::tumbling(1.minutes()))
///    .aggregate(|a| a.count())
///    .sink(sink);
/// let mut stepper = Stepper::new(&job, 1).unwrap();
/// feed.push(0, 4);
/// feed.push(0, 6);
/// stepper.until_idle().unwrap();
/// stepper.advance_clock(1.minutes());
/// stepper.until_idle().unwrap();
/// assert_eq!(results.take()[0].value, 2);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ProcessingTime {
    windows: Tumbling,
}

impl ProcessingTime {
    /// Windows of `size`, adjacent, aligned to the epoch.
    pub fn tumbling(size: Span) -> Self {
        ProcessingTime {
            windows: Tumbling::of(size),
        }
    }

    /// Shifts the alignment. May be negative.
    pub fn offset(mut self, offset: Span) -> Self {
        self.windows = self.windows.offset(offset);
        self
    }
}

#[allow(private_interfaces)]
impl<T: Send + 'static> WindowAssigner<T> for ProcessingTime {
    type Make<K: KeyOf<T>, A: Aggregate<T>> = MakeByClock<MakeTumbling<T, K, A>>;
    fn describe(&self) -> String {
        format!(
            "processing time, {}",
            WindowAssigner::<T>::describe(&self.windows)
        )
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        WindowAssigner::<T>::check(&self.windows, op)
    }
    fn needs_time(&self) -> bool {
        false
    }
    fn pitfall(&self) -> Option<&'static str> {
        Some(
            "processing time: results depend on when records are processed, and a replay gives others",
        )
    }
    fn class(&self) -> Class {
        Class::Exempt
    }
    fn make<K: KeyOf<T>, A: Aggregate<T>>(
        self,
        key: K,
        aggregate: A,
        _: Option<LateTo<T>>,
        op: OpId,
    ) -> Self::Make<K, A> {
        MakeByClock {
            inner: self.windows.make(key, aggregate, None, op),
            size: self.windows.size,
            grid: self.windows.size,
            offset: self.windows.offset,
        }
    }
}

/// Makes [`ByClock`] on each shard.
#[derive(Debug)]
pub struct MakeByClock<M> {
    inner: M,
    /// Length of a window.
    size: Span,
    /// Windows end at multiples of this, shifted by the offset.
    grid: Span,
    offset: Span,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, M: MakeOperator<T>> MakeOperator<T> for MakeByClock<M> {
    type Op = ByClock<M::Op>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        let grid = self.grid.micros().max(1);
        Ok(ByClock {
            inner: self.inner.make(build)?,
            size: self.size,
            grid,
            offset: self.offset.micros().rem_euclid(grid),
            clock: EventTime::MIN,
            ends: EventTime::BEGINNING,
            wake_ns: None,
            watermark: EventTime::BEGINNING,
        })
    }
    fn side_outputs(&self) -> Vec<EdgeId> {
        self.inner.side_outputs()
    }
    fn origins(&self) -> Origins {
        self.inner.origins()
    }
}

/// See the module.
#[derive(Debug)]
pub struct ByClock<Op> {
    inner: Op,
    size: Span,
    grid: i64,
    /// 0..grid
    offset: i64,
    /// The wall clock as windows have seen it.
    clock: EventTime,
    /// When the last window that holds a record ends.
    ends: EventTime,
    /// Driver's nanoseconds at which the next window may end; `None` without open windows.
    wake_ns: Option<u64>,
    /// M, as long as more may come.
    watermark: EventTime,
}

impl<Op> ByClock<Op> {
    /// Looks at the clock.
    fn look(&mut self, cx: &Cx) {
        let wall = cx.wall.max(EventTime::MIN).min(EventTime::MAX);
        self.clock = self.clock.max(wall);
    }

    /// Sets the timer to the next time at which a window may end.
    fn arm(&mut self, cx: &Cx) {
        self.wake_ns = (self.clock < self.ends).then(|| {
            let wait = Span::from_micros(self.grid - self.past_grid(self.clock).micros());
            cx.now_ns.saturating_add(wait.nanos())
        });
    }

    /// How far a time lies past the last time at which a window may end.
    fn past_grid(&self, time: EventTime) -> Span {
        Span::from_micros((time.micros() - self.offset).rem_euclid(self.grid))
    }
}

/// Gives results their times (law 4).
struct Restamp<'a, O> {
    out: &'a mut O,
    least: EventTime,
}

impl<T, O: Push<T>> Push<T> for Restamp<'_, O> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        self.out
            .push(record, Stamp::at(stamp.time.max(self.least)), cx);
    }
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.out.control(event, cx);
    }
    fn blocked(&self) -> bool {
        self.out.blocked()
    }
}

impl<T, Op: Operator<T>> Operator<T> for ByClock<Op> {
    type Out = Op::Out;

    fn batch<O: Push<Op::Out>>(&mut self, batch: &mut Batch<T>, out: &mut O, cx: &mut Cx) {
        self.look(cx);
        let ends = self.clock + self.size;
        self.ends = ends - self.past_grid(ends);
        if self.wake_ns.is_none() {
            self.arm(cx);
        }
        batch.times.fill(self.clock);
        batch.behind.clear();
        let least = self.watermark;
        self.inner.batch(batch, &mut Restamp { out, least }, cx);
    }

    fn watermark<O: Push<Op::Out>>(&mut self, watermark: EventTime, out: &mut O, cx: &mut Cx) {
        if watermark < EventTime::END {
            self.watermark = watermark;
            return;
        }
        self.wake_ns = None;
        let least = self.watermark;
        self.inner
            .watermark(watermark, &mut Restamp { out, least }, cx);
    }

    fn resume<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        let least = self.watermark;
        self.inner.resume(&mut Restamp { out, least }, cx)
    }

    fn tick<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        self.look(cx);
        self.arm(cx);
        let (clock, least) = (self.clock, self.watermark);
        self.inner.watermark(clock, &mut Restamp { out, least }, cx);
    }

    fn wake_at(&self) -> Option<u64> {
        self.wake_ns
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.inner.side_control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.inner.side_blocked()
    }
}
