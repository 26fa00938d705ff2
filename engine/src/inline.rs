//! A job inside a function call: no thread, no runtime. For a request path, a handler of events, a simulation of somebody else's.
//!
//! [`Inline`] is one job on one shard, stepped by whoever pushes a record into it: what comes of the record is there when the call
//! returns. It is the same job, with the same operators and the same answers as on a [`Runtime`](crate::Runtime).
//!
//! Laws
//! 1. A call works off all that it brought before it returns, results included, and nothing happens between two calls.
//! 2. There is no clock: time is what [`Inline::advance_clock`] says. It begins at the epoch (1970).
//! 3. A job that has failed stays so: each call tells why.
//! 4. State lives in memory and ends with the value: no checkpoints, and a job that asks for them is refused.
//!
//! What it costs: a call steps each stage of the job at least twice, so some 100 ns a stage beside what the operators do, and takes a few
//! locks that nobody else holds. It allocates nothing of its own once its buffers have grown to the largest call's; new keys and
//! windows allocate as anywhere. A record that fires a large window does all of that inside the call.

use crate::batch::Stamp;
use crate::error::{BuildError, JobError};
use crate::port::Ports;
use crate::push::Counters;
use crate::sink::{Sink, Writer};
use crate::source::{Emit, Read, ReadError, Reader, Source};
use crate::stream::Job;
use crate::testing::Stepper;
use crate::time::{EventTime, Span};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Drain;

#[cfg(test)]
mod tests;

/// A job that runs inside the calls of its owner: see [`crate::inline`].
///
/// The running total of each card, asked for by a request handler:
///
/// ```
/// use pelton::Inline;
///
/// # fn main() -> Result<(), pelton::JobError> {
/// let mut totals = Inline::<(u64, u64), (u64, u64)>::new("totals", |job, charges, answers| {
///     job.source(charges)
///        .key_by(|c| c.0)
///        .running(|a| a.sum(|c| c.1))
///        .map(|t| (t.key, t.value))
///        .sink(answers);
/// })?;
/// assert_eq!(totals.push((7, 100))?.next(), Some((7, 100)));
/// assert_eq!(totals.push((8, 5))?.next(), Some((8, 5)));
/// assert_eq!(totals.push((7, 20))?.next(), Some((7, 120)));
/// # Ok(())
/// # }
/// ```
///
/// Results that are not taken from what a call returns are dropped with it.
pub struct Inline<I, O> {
    stepper: Stepper,
    ahead: Ends<I, O>,
    /// What the last call returned; reused.
    out: Vec<O>,
    failed: Option<JobError>,
}

/// What is between the owner and the job's ends.
struct Ends<I, O> {
    records: Arc<Mutex<Ahead<I>>>,
    results: Arc<Mutex<Vec<O>>>,
}

/// What the job has yet to read.
struct Ahead<I> {
    records: VecDeque<I>,
    watermark: Option<EventTime>,
    has_ended: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<I, O> std::fmt::Debug for Inline<I, O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inline({:?})", self.stepper)
    }
}

impl<I: Send + 'static, O: Send + 'static> Inline<I, O> {
    /// Builds the job that `write` writes from the source and the sink that it is given; both have one place in it.
    ///
    /// # Errors
    /// The job is not good; it reads from another source too, or from none; it takes checkpoints.
    pub fn new(
        name: impl Into<String>,
        write: impl FnOnce(&Job, InlineSource<I>, InlineSink<O>),
    ) -> Result<Self, BuildError> {
        let ends = Ends {
            records: Arc::new(Mutex::new(Ahead {
                records: VecDeque::new(),
                watermark: None,
                has_ended: false,
            })),
            results: Arc::default(),
        };
        let job = Job::new(name);
        let (source, sink) = (
            InlineSource(ends.records.clone()),
            InlineSink(ends.results.clone()),
        );
        write(&job, source, sink);
        check(&job, &ends)?;
        Ok(Inline {
            stepper: Stepper::new(&job, 1)?,
            ahead: ends,
            out: vec![],
            failed: None,
        })
    }

    /// Hands a record in; what comes of it.
    ///
    /// # Errors
    /// The job failed, now or before.
    pub fn push(&mut self, record: I) -> Result<Drain<'_, O>, JobError> {
        lock(&self.ahead.records).records.push_back(record);
        self.settle()
    }

    /// Hands records in, in their order, for less than one by one; what comes of them all.
    ///
    /// # Errors
    /// As of [`Inline::push`].
    pub fn push_all(
        &mut self,
        records: impl IntoIterator<Item = I>,
    ) -> Result<Drain<'_, O>, JobError> {
        lock(&self.ahead.records).records.extend(records);
        self.settle()
    }

    /// Says that no record with a time below `time` follows: the watermark rises to that, and what comes of it. A record below it
    /// that comes all the same is behind, and late where windows have closed. Nothing where the job gives its records no event times.
    ///
    /// # Errors
    /// As of [`Inline::push`].
    pub fn advance_watermark(&mut self, time: EventTime) -> Result<Drain<'_, O>, JobError> {
        let mut ahead = lock(&self.ahead.records);
        ahead.watermark = ahead.watermark.max(Some(time));
        drop(ahead);
        self.settle()
    }

    /// Says what time it is: what comes due by the clock until then (timers, idleness, windows by processing time), all of it at `now`.
    /// A time before the last one moves nothing. Call it before the first record where the job looks at the clock.
    ///
    /// # Errors
    /// As of [`Inline::push`].
    pub fn advance_clock(&mut self, now: EventTime) -> Result<Drain<'_, O>, JobError> {
        let by = now.micros().saturating_sub(self.clock().micros());
        if by > 0 {
            self.stepper.advance_clock(Span::from_micros(by));
        }
        self.settle()
    }

    /// What time the job takes it to be.
    pub fn clock(&self) -> EventTime {
        self.stepper.now().wall
    }

    /// Nothing more comes: open windows fire, timers of event time too; the last results.
    ///
    /// # Errors
    /// As of [`Inline::push`].
    pub fn end(mut self) -> Result<Vec<O>, JobError> {
        lock(&self.ahead.records).has_ended = true;
        self.run()?;
        Ok(self.out)
    }

    /// What the job has counted: in, out, late, malformed.
    pub fn counters(&self) -> Counters {
        self.stepper.counters()
    }

    /// How large its states are, by operator and state. O(tables).
    pub fn state_sizes(&self) -> Vec<crate::StateSize> {
        self.stepper.state_sizes()
    }

    /// What comes of what is there now.
    fn settle(&mut self) -> Result<Drain<'_, O>, JobError> {
        self.run()?;
        Ok(self.out.drain(..))
    }

    /// Laws 1 and 3.
    fn run(&mut self) -> Result<(), JobError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if let Err(failed) = self.stepper.until_idle() {
            self.failed = Some(failed.clone());
            return Err(failed);
        }
        self.out.append(&mut lock(&self.ahead.results));
        Ok(())
    }
}

/// What a job inside a call cannot be.
fn check<I, O>(job: &Job, ends: &Ends<I, O>) -> Result<(), BuildError> {
    let plan = job.plan.lock();
    let refused = |what: &str, advice: &str| {
        Err(BuildError::Config {
            what: format!("inline job '{}' {what}", plan.name),
            advice: advice.into(),
        })
    };
    if plan.checkpointing.is_some() {
        return refused(
            "takes checkpoints, and what is pushed into it cannot be read again",
            "leave them out, or run the job on a Runtime",
        );
    }
    let is_read = Arc::strong_count(&ends.records) > 1;
    if plan.sources > 1 || (plan.sources == 1 && !is_read) {
        return refused(
            "reads from another source than the one that it is given",
            "give all its records by push, or run the job on a Runtime",
        );
    }
    if Arc::strong_count(&ends.results) == 1 {
        return refused(
            "does not write to the sink that it is given",
            "end the stream of its results there",
        );
    }
    Ok(())
}

/// What is pushed into an [`Inline`], for its job.
#[derive(Debug)]
pub struct InlineSource<I>(Arc<Mutex<Ahead<I>>>);

impl<I> std::fmt::Debug for Ahead<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ahead({} records)", self.records.len())
    }
}

impl<I: Send + 'static> Source for InlineSource<I> {
    type Item = I;
    type Reader = InlineReader<I>;
    fn name(&self) -> String {
        "inline".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<InlineReader<I>>, String> {
        Ok(vec![InlineReader {
            ahead: self.0.clone(),
            taken: VecDeque::new(),
            watermark: None,
            offset: 0,
        }])
    }
}

/// The partition of an [`InlineSource`].
#[derive(Debug)]
pub struct InlineReader<I> {
    ahead: Arc<Mutex<Ahead<I>>>,
    /// Being read; its room goes back and forth.
    taken: VecDeque<I>,
    watermark: Option<EventTime>,
    offset: u64,
}

impl<I: Send + 'static> Reader for InlineReader<I> {
    type Item = I;
    fn name(&self) -> String {
        "0".into()
    }
    fn watermark(&self) -> Option<EventTime> {
        // What was pushed before it comes first.
        self.watermark.filter(|_| self.taken.is_empty())
    }
    fn read<E: Emit<I>>(&mut self, max: usize, out: &mut E) -> Result<Read, ReadError> {
        let mut has_ended = false;
        if self.taken.is_empty() {
            let mut ahead = lock(&self.ahead);
            std::mem::swap(&mut self.taken, &mut ahead.records);
            self.watermark = ahead.watermark;
            has_ended = ahead.has_ended && self.taken.is_empty();
        }
        let n = self.taken.len().min(max);
        // No lock is held: functions of the job's are called from here.
        for record in self.taken.drain(..n) {
            out.emit(self.offset, record);
            self.offset += 1;
        }
        Ok(match (n, has_ended) {
            (_, true) => Read::End,
            (0, false) => Read::Pending { until_ns: None },
            (_, false) => Read::More,
        })
    }
}

/// Where the results of an [`Inline`] go, for its job. It takes results of every class: running values come as updates.
#[derive(Debug)]
pub struct InlineSink<O>(Arc<Mutex<Vec<O>>>);

/// The writer of an [`InlineSink`].
#[derive(Debug)]
pub struct InlineWriter<O> {
    results: Arc<Mutex<Vec<O>>>,
    /// Of this step.
    written: Vec<O>,
}

impl<O: Send + 'static> Sink<O> for InlineSink<O> {
    type Writer = InlineWriter<O>;
    fn name(&self) -> String {
        "inline".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<InlineWriter<O>>, String> {
        let writer = |_| InlineWriter {
            results: self.0.clone(),
            written: vec![],
        };
        Ok((0..ports.shards()).map(writer).collect())
    }
    fn takes_updates(&self) -> bool {
        true
    }
}

impl<O: Send + 'static> Writer<O> for InlineWriter<O> {
    fn write(&mut self, record: O, _: Stamp) {
        self.written.push(record);
    }
    fn flush(&mut self, _: u64) -> Result<(), String> {
        if !self.written.is_empty() {
            lock(&self.results).append(&mut self.written);
        }
        Ok(())
    }
    fn finish(&mut self, now_ns: u64) -> Result<bool, String> {
        self.flush(now_ns).map(|()| true)
    }
}
