//! Windows that overlap: sliding, and cumulating.

use super::{
    LateMode, Lateness, WindowAssigner, check_early, check_lateness, check_offset, check_positive,
    early_methods, lateness_methods, results_of, said_early,
};
use crate::aggregate::Aggregate;
use crate::error::BuildError;
use crate::key::KeyOf;
use crate::operators::late::LateTo;
use crate::operators::sliding::MakeSliding;
use crate::operators::sliding::slicing::Slicing;
use crate::plan::{OpInfo, Results};
use crate::push::OpId;
use crate::time::Span;

/// Sliding windows: a window of `size` begins every `slide`, so each record lies in about `size / slide` of them.
///
/// A window fires when the watermark reaches its end, for every key that has a record in it: also the first ones, which
/// begin before the first record. A record that is behind counts in those of its windows whose end + allowed lateness its
/// own partition's watermark V(r) has not reached (SEMANTICS, time, 4). Where these are only some, it is counted as
/// *partly late*; where there are none, it goes to the late output.
///
/// Class ROWS; NET with allowed lateness, unless it is for one correction; EXEMPT with early firing. State: for each key an accumulator for each slice (a stretch
/// between two window bounds) that has records, until the watermark has reached the end of the last window that holds it; with allowed lateness a
/// second one, until it has reached that end and the lateness. A key goes with its last slice. In checkpoints, a key one entry.
///
/// The cost of a record does not grow with `size / slide`; results do, since each window emits each of its keys.
///
/// ```
/// use pelton::testing::{self, Stepper};
/// use pelton::{EventTime, Job, Sliding, Spans, Watermarks};
/// let (feed, source) = testing::feed::<(i64, u64)>(1);
/// let (results, sink) = testing::collect();
/// let job = Job::new("counts");
/// job.source(source)
///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::monotonous())
///    .key_by(|r| r.1)
///    .window(Sliding::of(10.seconds(), 5.seconds()))
///    .aggregate(|a| a.count())
///    .sink(sink);
/// let mut stepper = Stepper::new(&job, 1).unwrap();
/// for second in [1, 6, 7, 15] {
///     feed.push(0, (second, 7));
/// }
/// stepper.until_idle().unwrap();
/// let counts: Vec<_> = results.take().iter().map(|r| (r.window.end.micros() / 1_000_000, r.value)).collect();
/// assert_eq!(counts, [(5, 1), (10, 3), (15, 2)]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    size: Span,
    slide: Span,
    offset: Span,
    lateness: Lateness,
    early: Option<Span>,
}

impl Sliding {
    /// Windows of `size`, one every `slide`, aligned to the epoch. `size` need not be a multiple of `slide`, but must not
    /// be less (records would fall between windows): such a job is refused.
    pub fn of(size: Span, slide: Span) -> Self {
        Sliding {
            size,
            slide,
            offset: Span::ZERO,
            lateness: Lateness::NONE,
            early: None,
        }
    }

    /// Shifts the alignment: windows start at `offset` plus multiples of the slide. May be negative.
    pub fn offset(mut self, offset: Span) -> Self {
        self.offset = offset;
        self
    }
}

/// Cumulating windows: all that share a start, each a `step` longer, up to `max_size`; then they start anew. They show
/// how a day came about, hour by hour. (Flink SQL's CUMULATE.)
///
/// For max_size 3 h and step 1 h: `[0, 1)`, `[0, 2)`, `[0, 3)`, `[3, 4)`, `[3, 5)`, `[3, 6)` and so on. A key fires in every
/// window from its first record on until `max_size` is full, whether or not the last step brought it something.
///
/// Class, state, cleaning, late and partly late records and cost are those of [`Sliding`].
///
/// ```
/// use pelton::{Cumulate, EventTime, Job, Spans, Watermarks, sources, testing};
/// let (results, sink) = testing::collect();
/// let job = Job::new("visits today so far");
/// job.source(sources::items([1, 2, 9, 15]))
///    .event_time(|hour| EventTime::from_seconds(3_600 * hour), Watermarks::monotonous())
///    .key_by(|_| 'a')
///    .window(Cumulate::of(1.days(), 8.hours()))
///    .aggregate(|a| a.count())
///    .sink(sink);
/// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
/// let visits: Vec<_> = results.take().into_iter().map(|w| w.value).collect();
/// assert_eq!(visits, [2, 4, 4]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cumulate {
    max_size: Span,
    step: Span,
    offset: Span,
    lateness: Lateness,
    early: Option<Span>,
}

impl Cumulate {
    /// Windows that grow by `step` up to `max_size`, a multiple of it; aligned to the epoch.
    pub fn of(max_size: Span, step: Span) -> Self {
        Cumulate {
            max_size,
            step,
            offset: Span::ZERO,
            lateness: Lateness::NONE,
            early: None,
        }
    }

    /// Shifts the alignment: windows start at `offset` plus multiples of `max_size`. May be negative.
    pub fn offset(mut self, offset: Span) -> Self {
        self.offset = offset;
        self
    }
}

lateness_methods!(Sliding, Cumulate);
early_methods!(Sliding, Cumulate);

/// The two kinds share their operator: they differ in where slices lie and which windows hold them.
macro_rules! sliced_assigner {
    ($t:ty) => {
        type Make<K: KeyOf<T>, A: Aggregate<T>> = MakeSliding<T, K, A>;
        fn results(&self) -> Results {
            results_of(self.lateness, self.early)
        }
        fn make<K: KeyOf<T>, A: Aggregate<T>>(
            self,
            key: K,
            aggregate: A,
            late: Option<LateTo<T>>,
            op: OpId,
        ) -> MakeSliding<T, K, A> {
            MakeSliding {
                slicing: self.slicing(),
                lateness: self.lateness,
                early: self.early,
                key,
                aggregate,
                late,
                op,
            }
        }
    };
}

#[allow(private_interfaces)]
impl<T: Send + 'static> WindowAssigner<T> for Sliding {
    sliced_assigner!(Sliding);
    fn describe(&self) -> String {
        format!(
            "sliding, {} every {}{}{}",
            self.size,
            self.slide,
            said(self.lateness),
            said_early(self.early)
        )
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        check_positive(op, "window size", self.size)?;
        check_positive(op, "slide", self.slide)?;
        if self.slide > self.size {
            return Err(BuildError::argument(
                op,
                format!(
                    "a slide larger than the size: windows of {} every {} leave records between them",
                    self.size, self.slide
                ),
                "give a slide of at most the size",
            ));
        }
        check_lateness(op, self.lateness)?;
        check_early(op, self.early)?;
        check_offset(op, self.offset)
    }
}

impl Sliding {
    fn slicing(&self) -> Slicing {
        Slicing::sliding(
            self.size.micros(),
            self.slide.micros(),
            self.offset.micros(),
        )
    }
}

#[allow(private_interfaces)]
impl<T: Send + 'static> WindowAssigner<T> for Cumulate {
    sliced_assigner!(Cumulate);
    fn describe(&self) -> String {
        format!(
            "cumulate, by {} up to {}{}{}",
            self.step,
            self.max_size,
            said(self.lateness),
            said_early(self.early)
        )
    }
    fn check(&self, op: &OpInfo) -> Result<(), BuildError> {
        check_positive(op, "largest window size", self.max_size)?;
        check_positive(op, "step", self.step)?;
        if self.max_size.micros() % self.step.micros() != 0 {
            return Err(BuildError::argument(
                op,
                format!(
                    "the largest window size {} is not a multiple of the step {}",
                    self.max_size, self.step
                ),
                "give a largest size that is a whole number of steps",
            ));
        }
        check_lateness(op, self.lateness)?;
        check_early(op, self.early)?;
        check_offset(op, self.offset)
    }
}

impl Cumulate {
    fn slicing(&self) -> Slicing {
        Slicing::cumulate(
            self.max_size.micros(),
            self.step.micros(),
            self.offset.micros(),
        )
    }
}

/// What `explain` adds where lateness is allowed.
fn said(lateness: Lateness) -> String {
    match (lateness.allowed, lateness.mode) {
        (Span::ZERO, _) => String::new(),
        (allowed, LateMode::Update) => format!(", updates for {allowed}"),
        (allowed, LateMode::OneCorrection) => format!(", one correction after {allowed}"),
    }
}
