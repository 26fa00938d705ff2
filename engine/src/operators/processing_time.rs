//! Windows by the wall clock: an event-time window operator that is told the driver's clock instead of event time.
//!
//! Laws
//! 1. A record belongs to the windows that hold the wall clock of the step that took it; its own event time does not matter,
//!    and no record is late. The clock that windows see never goes back.
//! 2. A window fires once the clock has reached its end (a session: has passed it), by the driver's timer: no record need
//!    come. The timer stands where the operator inside says that something may be due: without open windows there is none.
//! 3. At the end of the input all open windows fire, before the clock has reached their ends.
//! 4. A result has the last time of its window, or M where that is later: so it is never late in event-time windows behind.
//!    The watermark of the input is passed on as it is.
//! 5. The clock and M are kept in checkpoints, beside what the operator inside keeps: after a restore the clock goes on from where
//!    it was or later, and what came due while the job stood still fires at once.
//!
//! Class: EXEMPT. State and complexity are those of the window operator inside.

use crate::aggregate::Aggregate;
use crate::batch::{Batch, Stamp};
use crate::budget::Sizes;
use crate::checkpoint::{Cut, Frame, Keeping, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::late::LateTo;
use crate::pipeline::MakeOperator;
use crate::plan::{Class, OpInfo, Origins, Pitfall, Results, ShardBuild, StageSpec};
use crate::push::{Control, Cx, OpId, Push};
use crate::session::{GapBy, Session};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::{EventTime, Span};
use crate::window::{Cumulate, Sliding, Tumbling, WindowAssigner};

/// Windows by processing time: results depend on when records are processed, and another run gives others. They need no
/// event time.
///
/// Class EXEMPT, and a warning says so (PLT-0204). No record is too late. State and cost are those of the windows by event time ([`Tumbling`], [`Sliding`],
/// [`Cumulate`], [`Session`]); the state goes when the clock has reached a window's end, or the input its own.
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
pub struct ProcessingTime<W = Tumbling> {
    windows: W,
}

impl ProcessingTime<Tumbling> {
    /// Windows of `size`, adjacent, aligned to the epoch.
    pub fn tumbling(size: Span) -> Self {
        ProcessingTime {
            windows: Tumbling::of(size),
        }
    }
}

impl ProcessingTime<Sliding> {
    /// Windows of `size`, one every `slide`, aligned to the epoch; where they lie is said at [`Sliding`].
    ///
    /// ```
    /// use pelton::{ProcessingTime, Spans};
    /// let the_last_minute_every_second = ProcessingTime::sliding(1.minutes(), 1.seconds());
    /// ```
    pub fn sliding(size: Span, slide: Span) -> Self {
        ProcessingTime {
            windows: Sliding::of(size, slide),
        }
    }
}

impl ProcessingTime<Cumulate> {
    /// Windows that grow by `step` up to `max_size`, a multiple of it; aligned to the epoch. Where they lie is said at
    /// [`Cumulate`].
    pub fn cumulate(max_size: Span, step: Span) -> Self {
        ProcessingTime {
            windows: Cumulate::of(max_size, step),
        }
    }
}

impl ProcessingTime<Session> {
    /// Sessions that end when no record of their key has come for `gap`.
    ///
    /// ```
    /// use pelton::testing::{self, Stepper};
    /// use pelton::{Job, ProcessingTime, Spans};
    /// let (feed, source) = testing::feed::<&str>(1);
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("visits");
    /// job.source(source).key_by(|who| who.to_string()).window(ProcessingTime::session(30.seconds())).aggregate(|a| a.count()).sink(sink);
    /// let mut stepper = Stepper::new(&job, 1).unwrap();
    /// for _ in 0..3 {
    ///     feed.push(0, "ann");
    ///     stepper.until_idle().unwrap();
    ///     stepper.advance_clock(20.seconds());
    /// }
    /// stepper.advance_clock(11.seconds());
    /// stepper.until_idle().unwrap();
    /// assert_eq!(results.take()[0].value, 3);
    /// ```
    pub fn session(gap: Span) -> Self {
        ProcessingTime {
            windows: Session::gap(gap),
        }
    }
}

impl<F> ProcessingTime<Session<GapBy<F>>> {
    /// Sessions to which each record gives its own gap, at most `longest`; see [`Session::gap_by`].
    pub fn session_by<T>(longest: Span, gap: F) -> Self
    where
        F: Fn(&T) -> Span + Clone + Send + 'static,
    {
        ProcessingTime {
            windows: Session::gap_by(longest, gap),
        }
    }
}

/// What aligned windows share.
macro_rules! offset_method {
    ($($w:ty),*) => { $(
        impl ProcessingTime<$w> {
            /// Shifts the alignment. May be negative.
            pub fn offset(mut self, offset: Span) -> Self {
                self.windows = self.windows.offset(offset);
                self
            }
        }
    )* };
}
offset_method!(Tumbling, Sliding, Cumulate);

#[allow(private_interfaces)]
impl<T: Send + 'static, W: WindowAssigner<T>> WindowAssigner<T> for ProcessingTime<W> {
    type Make<K: KeyOf<T>, A: Aggregate<T>> = MakeByClock<W::Make<K, A>>;
    fn describe(&self) -> String {
        format!("processing time, {}", self.windows.describe())
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        self.windows.check(op)
    }
    fn needs_time(&self) -> bool {
        false
    }
    fn pitfall(&self) -> Option<(Pitfall, &'static str)> {
        Some((
            Pitfall::ProcessingTime,
            "processing time: results depend on when records are processed, and a replay gives others",
        ))
    }
    fn results(&self) -> Results {
        Results::last(Class::Exempt)
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
            op,
        }
    }
}

/// Makes [`ByClock`] on each shard.
#[derive(Debug)]
pub struct MakeByClock<M> {
    inner: M,
    op: OpId,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, M: MakeOperator<T>> MakeOperator<T> for MakeByClock<M> {
    type Op = ByClock<M::Op>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(ByClock {
            inner: self.inner.make(build)?,
            keeping: Keeping::named::<i64>("clock", build, self.op),
            kept_clock: EventTime::MIN,
            clock: EventTime::MIN,
            wake_ns: None,
            watermark: EventTime::BEGINNING,
        })
    }
    fn stages_aside(&mut self) -> Vec<StageSpec> {
        self.inner.stages_aside()
    }
    fn refuses(&self) -> bool {
        self.inner.refuses()
    }
    fn origins(&self) -> Origins {
        self.inner.origins()
    }
}

/// See the module.
#[allow(missing_debug_implementations)]
pub struct ByClock<Op> {
    inner: Op,
    /// Where the job takes checkpoints.
    keeping: Option<Keeping>,
    /// The clock as a checkpoint has it.
    kept_clock: EventTime,
    /// The wall clock as windows have seen it.
    clock: EventTime,
    /// Driver's nanoseconds at which something may be due; `None` without open windows. Stale while the operator inside
    /// has work left.
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

    /// Sets the timer to where something may next be due. By the clock as it is now: with an older one each watermark would put the
    /// timer off.
    fn arm<T>(&mut self, cx: &Cx)
    where
        Op: Operator<T>,
    {
        self.look(cx);
        self.wake_ns = self.inner.next_due().map(|due| {
            let wait = due.micros().saturating_sub(self.clock.micros()).max(0);
            cx.now_ns.saturating_add(Span::from_micros(wait).nanos())
        });
    }
}

/// What the clock's key begins with in a checkpoint.
const CLOCK: u8 = b'C';

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
        batch.times.fill(self.clock);
        batch.behind.clear();
        let least = self.watermark;
        self.inner.batch(batch, &mut Restamp { out, least }, cx);
        self.arm(cx);
    }

    fn watermark<O: Push<Op::Out>>(&mut self, watermark: EventTime, out: &mut O, cx: &mut Cx) {
        if watermark < EventTime::END {
            self.watermark = watermark;
            return;
        }
        let least = self.watermark;
        self.inner
            .watermark(watermark, &mut Restamp { out, least }, cx);
    }

    fn resume<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        let least = self.watermark;
        let done = self.inner.resume(&mut Restamp { out, least }, cx);
        if done {
            self.arm(cx);
        }
        done
    }

    fn tick<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        self.look(cx);
        let (clock, least) = (self.clock, self.watermark);
        self.inner.watermark(clock, &mut Restamp { out, least }, cx);
    }

    fn wake_at(&self) -> Option<u64> {
        self.wake_ns
    }

    fn begin_epoch(&mut self, cut: Cut) {
        if let Some(keeping) = &mut self.keeping {
            keeping.begin(cut, self.watermark);
            if cut.is_full || self.clock > self.kept_clock {
                self.kept_clock = self.clock;
                keeping.note(CLOCK, self.clock);
            }
        }
        self.inner.begin_epoch(cut);
    }

    fn sizes(&self, to: &mut Sizes) {
        self.inner.sizes(to);
    }

    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        let own = self.keeping.as_mut();
        let own = own.map_or(Saved::All, |keeping| keeping.saver.write_first(to));
        own.and(self.inner.save(to))
    }

    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        match &mut self.keeping {
            Some(keeping) if keeping.saver.state() == frame.state => {
                if let Some(watermark) = keeping.load_watermark(frame.key, frame.value)? {
                    self.watermark = watermark;
                } else if let (Some(&CLOCK), Some(value)) = (frame.key.first(), frame.value) {
                    let clock = EventTime::from_micros(keeping.saver.load(value)?);
                    self.clock = self.clock.max(clock);
                    self.kept_clock = self.clock;
                }
                Ok(true)
            }
            _ => self.inner.load(frame),
        }
    }

    /// Law 5: the clock has not been looked at yet, so the timer stands at once.
    fn check_loaded(&self) -> Result<(), LoadError> {
        self.inner.check_loaded()
    }

    fn loaded(&mut self) {
        self.inner.loaded();
        self.wake_ns = self.inner.next_due().map(|_| 0);
    }

    fn restored_watermark(&self) -> EventTime {
        self.watermark
    }

    fn side_control(&mut self, event: Control, cx: &mut Cx) {
        self.inner.side_control(event, cx);
    }

    fn side_blocked(&self) -> bool {
        self.inner.side_blocked()
    }
}
