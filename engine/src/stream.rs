//! The typed API: [`Job`], and [`Stream`] with its stateless operators and its closings.

use crate::checkpoint::Checkpointing;
use crate::error::{BuildError, JobError};
use crate::key::{Borrowed, Computed, Key};
use crate::keyed::KeyedStream;
use crate::ops::{EventTimed, FilterMapped, Filtered, FlatMapped, Inspected, Mapped};
use crate::pipeline::{Inlet, MakeForward, OperatorRoot, Pipeline, Root, SourceRoot, Terminal};
use crate::plan::{Class, EdgeId, Results, SharedPlan, StageSpec, Warning};
use crate::push::{DeadLetter, OpId};
use crate::runtime::{Config, JobReport, Runtime};
use crate::sink::Sink;
use crate::source::Source;
use crate::terminal::ToSink;
use crate::time::IntoEventTime;
use crate::watermark::{WatermarkGenerator, Watermarks};
use std::marker::PhantomData;
use std::panic::Location;

/// A job being written: sources, operators, sinks. Run it with [`Job::run`], or hand it to [`Runtime::submit`].
///
/// ```
/// use pelton::{Config, Job, sources, sink};
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
/// let total = Arc::new(AtomicU64::new(0));
/// let sum = total.clone();
/// let job = Job::new("squares");
/// job.source(sources::items(1..=4u64))
///    .map(|x| x * x)
///    .filter(|x| x % 2 == 0)
///    .sink(sink::callback("sum", move |x, _| { sum.fetch_add(x, Relaxed); }));
/// let report = job.run(Config::default().shards(1).driver(pelton::Driver::Threads)).unwrap();
/// assert_eq!(total.load(Relaxed), 4 + 16);
/// assert_eq!(report.counters.records_in, 4);
/// ```
#[derive(Debug)]
pub struct Job {
    pub(crate) plan: SharedPlan,
}

impl Job {
    /// An empty job. The name stands in reports and errors.
    pub fn new(name: impl Into<String>) -> Self {
        Job {
            plan: SharedPlan::new(name.into()),
        }
    }

    /// Adds a source and gives its stream.
    ///
    /// State: the position of each partition, in checkpoints; it does not grow. No record is late here: what is late is said by the watermarks
    /// that [`Stream::event_time`] makes. Class ROWS: partitions do not depend on the number of shards. What a record costs is the source's.
    /// Where it has fewer partitions than there are shards, a warning says so (PLT-0205).
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("numbers of two partitions");
    /// job.source(sources::generate("numbers", 5, 2, |n| n)).sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let mut numbers = results.take();
    /// numbers.sort_unstable();
    /// assert_eq!(numbers, [0, 1, 2, 3, 4]);
    /// ```
    #[track_caller]
    pub fn source<S: Source>(&self, source: S) -> Stream<SourceRoot<S>> {
        let mut plan = self.plan.lock();
        let number = plan.sources;
        plan.sources += 1;
        let op = plan.op("source", Results::ROWS, Location::caller());
        plan.info_mut(op).detail = source.name();
        drop(plan);
        let falls_silent = source.may_fall_silent();
        Stream {
            plan: self.plan.clone(),
            pipeline: Some(SourceRoot::new(source, number)),
            ops: vec![op],
            meta: Meta {
                timed: false,
                exchanged: false,
                results: Results::ROWS,
                replaces: None,
                falls_silent,
                silent: None,
                by_clock: None,
            },
        }
    }

    /// Where records go that cannot be used, with source, offset and reason. Without it they are counted only. A job has one
    /// such output: a second is refused.
    #[track_caller]
    pub fn dead_letters_to<S: Sink<DeadLetter>>(&self, sink: S) {
        let mut plan = self.plan.lock();
        let op = plan.op("dead letters", Results::ROWS, Location::caller());
        plan.info_mut(op).detail = sink.name();
        plan.sink_ops.push((op, sink.in_two_phases()));
        if plan.has_dead_letters() {
            let e = BuildError::argument(
                plan.info(op),
                "the job has an output for dead letters already",
                "give one sink that writes to both places",
            );
            plan.errors.push(e);
        }
        plan.dead_letters(op, Box::new(move |edges| sink_aside(sink, op, edges)));
    }

    /// The job takes checkpoints, and goes on from the last one when it is started again: after its end, a crash, or the loss
    /// of power. Results in two-phase sinks are then those of a run that was never interrupted.
    pub fn checkpoints(&self, checkpointing: Checkpointing) {
        self.plan.lock().checkpointing = Some(checkpointing);
    }

    /// How many bytes the states of all its operators may have together: live entries, what keys and values own elsewhere (a
    /// string's text) not counted, nor a key's sessions before its newest. Default: no bound. [`crate::JobHandle::state_sizes`] says how many they have.
    ///
    /// Above it sources wait, while what is under way, watermarks and the clock still free state. Where nothing can, the job fails
    /// with [`JobError::StateBudget`](crate::JobError::StateBudget), which names the largest. It is measured every few
    /// milliseconds: a fast job goes beyond by what it reads in that time. Jobs that are stepped by hand have no budget.
    pub fn max_state_bytes(&self, bytes: u64) {
        self.plan.lock().max_state_bytes = Some(bytes);
    }

    /// Pitfalls of what has been written so far, each with its code, operator and place, what will happen and what to do: a job with them
    /// runs, but they bite sooner or later (state that only grows, results that a replay does not repeat). [`crate::Pitfall`] has them all. Of
    /// those that the opened sources tell [`crate::JobHandle::warnings`] knows as well.
    ///
    /// ```
    /// use pelton::{Job, Pitfall, sources, sink};
    /// let job = Job::new("sums");
    /// job.source(sources::items(0..9u64))
    ///    .key_by(|n| n % 3)
    ///    .reduce(|sum, n| *sum += n)
    ///    .sink(sink::callback("print", |_, _| {}).updates());
    /// let warnings = job.warnings();
    /// assert_eq!(warnings[0].pitfall, Pitfall::StateGrows);
    /// assert!(warnings[0].to_string().starts_with("[PLT-0203] reduce at "));
    /// ```
    pub fn warnings(&self) -> Vec<Warning> {
        self.plan.lock().warnings()
    }

    /// The plan as text: stages, operators with their classes and whether their results may be replaced later, exchanges, and the [warnings](Job::warnings).
    pub fn explain(&self) -> String {
        self.plan.lock().explain()
    }

    /// Starts a runtime, runs this job on it to its end, and reports.
    pub fn run(&self, config: Config) -> Result<JobReport, JobError> {
        let runtime = Runtime::start(config)?;
        runtime.submit(self)?.wait()
    }
}

/// What is known of a stream while it is written.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    /// Event times have been assigned.
    pub timed: bool,
    /// An exchange, or another boundary of a stage, lies behind.
    pub exchanged: bool,
    pub results: Results,
    /// The first operator whose results may be replaced later; there iff `results` says so.
    pub replaces: Option<OpId>,
    /// Some source of it may have nothing for a while and more later.
    pub falls_silent: bool,
    /// The event times of such a source, where no time-out ends the waiting for it.
    pub silent: Option<OpId>,
    /// The first operator whose results the clock decides.
    pub by_clock: Option<OpId>,
}

impl Meta {
    /// What holds of either stream holds of both together; the results' part is the caller's.
    pub fn beside(&mut self, other: &Meta) {
        self.falls_silent |= other.falls_silent;
        self.silent = self.silent.or(other.silent);
        self.by_clock = self.by_clock.or(other.by_clock);
    }

    /// The stream goes through `op`, which by itself has such results.
    pub fn through(&mut self, results: Results, op: OpId) {
        self.results = self.results.and(results);
        self.replaces = self.replaces.or(results.replaced.then_some(op));
    }
}

/// A stream of records being written. Methods take it by value and give the next; it must end in a sink, a fork or a split.
///
/// A function that takes or gives streams names them `Stream<impl Pipeline<Item = Order>>`; a stream right behind an
/// exchange is `Stream<Inlet<Order>>`.
#[must_use = "a stream that leads nowhere is an error when the job is built"]
#[derive(Debug)]
pub struct Stream<P: Pipeline> {
    pub(crate) plan: SharedPlan,
    /// `None` once it has been taken by an operator.
    pub(crate) pipeline: Option<P>,
    pub(crate) ops: Vec<OpId>,
    pub(crate) meta: Meta,
}

impl<P: Pipeline> Drop for Stream<P> {
    fn drop(&mut self) {
        if self.pipeline.is_some()
            && let Some(&op) = self.ops.last()
        {
            self.plan.lock().dangling.push(op);
        }
    }
}

impl<P: Pipeline> Stream<P> {
    /// Takes the pipeline out; the rest is dropped without being counted as dangling.
    pub(crate) fn into_parts(mut self) -> (SharedPlan, P, Vec<OpId>, Meta) {
        let Some(pipeline) = self.pipeline.take() else {
            unreachable!("a stream is consumed once")
        };
        (
            self.plan.clone(),
            pipeline,
            std::mem::take(&mut self.ops),
            self.meta.clone(),
        )
    }

    pub(crate) fn wrap<Q: Pipeline>(
        self,
        kind: &'static str,
        location: &'static Location<'static>,
        make: impl FnOnce(P, OpId) -> Q,
    ) -> Stream<Q> {
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let op = plan.lock().op(kind, meta.results, location);
        ops.push(op);
        Stream {
            plan,
            pipeline: Some(make(pipeline, op)),
            ops,
            meta,
        }
    }

    /// Turns each record into another.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. O(1) a record: a call, which
    /// is compiled into one with the operators beside it.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("celsius");
    /// job.source(sources::items([50, 212])).map(|f| (f - 32) * 5 / 9).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [10, 100]);
    /// ```
    #[track_caller]
    pub fn map<R, F>(self, f: F) -> Stream<Mapped<P, R, F>>
    where
        R: Send + 'static,
        F: Fn(P::Item) -> R + Clone + Send + 'static,
    {
        self.wrap("map", Location::caller(), |before, op| Mapped {
            before,
            f,
            op,
            out: PhantomData,
        })
    }

    /// Keeps the records for which `f` holds; the others are counted nowhere.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. Behind
    /// [`Stream::event_time`] what it drops has moved the watermark; before it, it has not. O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("even");
    /// job.source(sources::items(1..=6u32)).filter(|n| n % 2 == 0).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [2, 4, 6]);
    /// ```
    #[track_caller]
    pub fn filter<F>(self, f: F) -> Stream<Filtered<P, F>>
    where
        F: Fn(&P::Item) -> bool + Clone + Send + 'static,
    {
        self.wrap("filter", Location::caller(), |before, op| Filtered {
            before,
            f,
            op,
        })
    }

    /// Turns each record into another, or drops it where `f` says `None`: a filter and a map in one look at the record. Cheaper than a
    /// [`Stream::flat_map`] over an option, which asks after each record whether there is room for more of the same.
    ///
    /// Stateless, class of its input; time, behind mark and origin go with the record. A stream that is filtered before
    /// [`Stream::event_time`] has its watermark from what is left.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("numbers");
    /// job.source(sources::items(["4", "x", "2"]))
    ///     .filter_map(|text| text.parse::<u32>().ok())
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [4, 2]);
    /// ```
    #[track_caller]
    pub fn filter_map<R, F>(self, f: F) -> Stream<FilterMapped<P, R, F>>
    where
        R: Send + 'static,
        F: Fn(P::Item) -> Option<R> + Clone + Send + 'static,
    {
        self.wrap("filter_map", Location::caller(), |before, op| {
            FilterMapped {
                before,
                f,
                op,
                out: PhantomData,
            }
        })
    }

    /// Turns each record into any number of others, each with its event time. The iterator is asked only as long as there
    /// is room downstream, so one record may well expand to millions.
    ///
    /// Class of its input. Results have their record's time and behind mark; none is too late. Where ties are broken, those of one record go by their
    /// order. State: while there is no room, the iterator in hand and what has come behind it from the same batch; a barrier waits behind that, so
    /// checkpoints have none of it. O(1) a result.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("words");
    /// job.source(sources::items(["to be", "or not"])).flat_map(|line| line.split(' ')).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["to", "be", "or", "not"]);
    /// ```
    #[track_caller]
    pub fn flat_map<I, F>(self, f: F) -> Stream<FlatMapped<P, I, F>>
    where
        I: IntoIterator + 'static,
        I::Item: Send + 'static,
        I::IntoIter: Send + 'static,
        F: Fn(P::Item) -> I + Clone + Send + 'static,
    {
        self.wrap("flat_map", Location::caller(), |before, op| FlatMapped {
            before,
            f,
            op,
            out: PhantomData,
        })
    }

    /// Shows each record to `f`, one clone of which is on each shard. What it does is not undone by a crash: records since the last checkpoint are shown
    /// again.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input. Records keep their time and behind mark; none is too late. O(1) a record.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// use std::sync::{Arc, atomic::{AtomicU64, Ordering::Relaxed}};
    /// let seen = Arc::new(AtomicU64::new(0));
    /// let counter = seen.clone();
    /// let (_, sink) = testing::collect();
    /// let job = Job::new("seen");
    /// job.source(sources::items(['a', 'b'])).inspect(move |_| { counter.fetch_add(1, Relaxed); }).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(seen.load(Relaxed), 2);
    /// ```
    #[track_caller]
    pub fn inspect<F>(self, f: F) -> Stream<Inspected<P, F>>
    where
        F: Fn(&P::Item) + Clone + Send + 'static,
    {
        self.wrap("inspect", Location::caller(), |before, op| Inspected {
            before,
            f,
            op,
        })
    }

    /// Says that each update is to be taken for a record of its own. Where results may be replaced, how many updates there
    /// are depends on the interleaving, so an operator that counts records is refused behind them; behind this it is
    /// accepted, and its results are of class EXEMPT: to count how often results change, say.
    ///
    /// Stateless, so nothing is to be cleaned, and it costs nothing. Records keep their time and behind mark; none is too late.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("how often a total changes");
    /// job.source(sources::items([('a', 1), ('a', 2), ('b', 5)]))
    ///    .key_by(|r| r.0)
    ///    .running(|a| a.sum(|r| r.1))
    ///    .each_update_is_a_record() // without it: refused
    ///    .key_by(|total| total.key)
    ///    .running(|a| a.count())
    ///    .map(|k| (k.key, k.value))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [('a', 1), ('a', 2), ('b', 1)]);
    /// ```
    #[track_caller]
    pub fn each_update_is_a_record(self) -> Stream<P> {
        let mut stream = self.wrap(
            "each_update_is_a_record",
            Location::caller(),
            |before, _| before,
        );
        if let Some(&op) = stream.ops.last() {
            stream.meta.results = Results::last(Class::Exempt);
            stream.meta.replaces = None;
            let mut plan = stream.plan.lock();
            let info = plan.info_mut(op);
            (info.class, info.replaced) = (Class::Exempt, false);
            drop(plan);
        }
        stream
    }

    /// Assigns each record its event time and makes the watermarks. Once, between a source and the first exchange.
    /// A record whose time is `None` or outside ±2^62 µs is malformed: counted, sent to the dead letters, and it moves no watermark.
    ///
    /// Nothing is dropped for being late here: a record below its partition's watermark is marked as behind, and operators with event-time state say
    /// what becomes of it. State: what the generator of each source partition has learned, one a partition, in checkpoints; it does not grow. Class of its
    /// input; with `idle_after` the instant at which a partition returns from idleness is exempt. O(1) a record. Where a source may fall
    /// silent and no time-out ends the waiting for it, what waits for the watermark is warned of (PLT-0201).
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("readings");
    /// job.source(sources::items([(Some(7), 'a'), (None, 'b'), (Some(6), 'c')]))
    ///    .event_time(|r| r.0.map(EventTime::from_seconds), Watermarks::bounded(5.seconds()))
    ///    .sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 1).unwrap();
    /// stepper.run().unwrap();
    /// assert_eq!(results.take_timed()[1], ((Some(6), 'c'), EventTime::from_seconds(6)));
    /// assert_eq!(stepper.counters().malformed, 1);
    /// ```
    #[track_caller]
    pub fn event_time<R, F, G>(
        self,
        f: F,
        strategy: Watermarks<G>,
    ) -> Stream<EventTimed<P, R, F, G>>
    where
        R: IntoEventTime + 'static,
        F: Fn(&P::Item) -> R + Clone + Send + 'static,
        G: WatermarkGenerator<P::Item>,
    {
        let location = Location::caller();
        let (plan, mut pipeline, mut ops, mut meta) = self.into_parts();
        let mut p = plan.lock();
        let op = p.op("event_time", meta.results, location);
        if meta.timed || meta.exchanged {
            let e = BuildError::EventTimeAfterExchange {
                op: p.info(op).to_string(),
            };
            p.errors.push(e);
        }
        if let Some((what, span)) = strategy.refused {
            let e = BuildError::argument(
                p.info(op),
                format!("{what} is {span}"),
                "give a span of 0 to 2^60 us",
            );
            p.errors.push(e);
        }
        if let (Some(idle), Some(close)) = (strategy.idle_after, strategy.close_after)
            && close < idle
        {
            let e = BuildError::argument(
                p.info(op),
                format!(
                    "close_after_idle of {close} is shorter than idle_after of {idle}, and windows close only when all are idle"
                ),
                "give close_after_idle at least the span of idle_after",
            );
            p.errors.push(e);
        }
        let name = p.info(op).to_string();
        drop(p);
        meta.timed = true;
        if meta.falls_silent && strategy.idle_after.is_none() {
            meta.silent = Some(op);
        }
        if strategy.idle_after.is_some() {
            // Only the instant of a return from idleness is exempt; the class stays (SEMANTICS, time, 3).
            plan.lock().info_mut(op).detail =
                "exempt at the instant a partition returns from idleness".into();
        }
        ops.push(op);
        pipeline.root().align(strategy.max_drift);
        let pipeline = EventTimed {
            before: pipeline,
            f,
            strategy,
            op,
            name,
            time: PhantomData,
        };
        Stream {
            plan,
            pipeline: Some(pipeline),
            ops,
            meta,
        }
    }

    /// Names the last operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        if let Some(&op) = self.ops.last() {
            self.plan.lock().info_mut(op).uid = Some(uid.into());
        }
        self
    }

    /// Keys the stream: records of one key meet on one shard. The function is cheap and gives the same key each time.
    ///
    /// Stateless, so nothing is to be cleaned. Class of its input; what one shard sends of a key keeps its order, what several send comes in
    /// no fixed one. Records keep their time and behind mark; none is too late. O(1) a record: a hash, and a place in the batch to the key's
    /// shard. `None` is a key like others: see [`mod@crate::join`].
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("orders by customer");
    /// job.source(sources::items([(7u64, 30u32), (8, 40), (7, 50)]))
    ///    .key_by(|o| o.0)
    ///    .running(|a| a.sum(|o| o.1))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let mut totals: Vec<_> = results.take().into_iter().map(|k| (k.key, k.value)).collect();
    /// totals.sort_unstable();
    /// assert_eq!(totals, [(7, 30), (7, 80), (8, 40)]);
    /// ```
    #[track_caller]
    pub fn key_by<K, F>(self, f: F) -> KeyedStream<P, Computed<F>>
    where
        K: Key,
        F: Fn(&P::Item) -> K + Clone + Send + 'static,
    {
        KeyedStream::new(self, Computed(f), Location::caller())
    }

    /// Keys the stream by a part of the record, which is cloned only when a key is seen for the first time. As [`Stream::key_by`] otherwise.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("visits by page");
    /// job.source(sources::items([("/".to_string(), 1), ("/help".to_string(), 2), ("/".to_string(), 3)]))
    ///    .key_by_ref(|v| &v.0)
    ///    .running(|a| a.count())
    ///    .map(|k| format!("{} {}", k.key, k.value))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["/ 1", "/help 1", "/ 2"]);
    /// ```
    #[track_caller]
    pub fn key_by_ref<K, F>(self, f: F) -> KeyedStream<P, Borrowed<F>>
    where
        K: Key,
        F: Fn(&P::Item) -> &K + Clone + Send + 'static,
    {
        KeyedStream::new(self, Borrowed(f), Location::caller())
    }

    /// Ends the stream in a sink. An append-only sink on results that may be replaced later (running values, allowed
    /// lateness, early firing; `explain` tells them) is refused when the job is built.
    ///
    /// State: what its writers hold until it is written or committed, within their bound: a sink that is full stops what feeds it, and in the end the sources.
    /// No record is too late. Class of its input. In a job with checkpoints a sink of two phases shows each record once, any other those since the
    /// last checkpoint again after a crash, and a warning says so (PLT-0207); see [`mod@crate::sink`].
    ///
    /// ```
    /// use pelton::{BuildError, Job, sink, sources, testing};
    /// let job = Job::new("totals");
    /// job.source(sources::items([1u64, 2]))
    ///    .key_by(|_| 'a')
    ///    .running(|a| a.sum(|n| *n))
    ///    .sink(sink::callback("append", |_, _| {})); // `.updates()` says that it takes them
    /// let refused = testing::Stepper::new(&job, 1).map(drop).unwrap_err();
    /// assert!(matches!(refused, BuildError::AppendOnReplaced { .. }));
    /// ```
    #[track_caller]
    pub fn sink<S: Sink<P::Item>>(self, sink: S) {
        let location = Location::caller();
        let (plan, pipeline, mut ops, meta) = self.into_parts();
        let mut p = plan.lock();
        let op = p.op("sink", meta.results, location);
        p.info_mut(op).detail = sink.name();
        p.sinks += 1;
        p.sink_ops.push((op, sink.in_two_phases()));
        if let Some(replaces) = meta.replaces
            && !sink.takes_updates()
        {
            let e = BuildError::AppendOnReplaced {
                sink: p.info(op).to_string(),
                because: p.info(replaces).to_string(),
            };
            p.errors.push(e);
        }
        if let Some(why) = sink.needs_event_time().filter(|_| !meta.timed) {
            let e = BuildError::argument(
                p.info(op),
                format!("{why}, and its records have no event time"),
                "assign one with event_time, behind the source",
            );
            p.errors.push(e);
        }
        drop(p);
        ops.push(op);
        close(
            &plan,
            pipeline,
            ops,
            ToSink {
                sink,
                op,
                aside: false,
                writers: None,
            },
        );
    }
}

/// Closes a pipeline: makes its stage, and behind it those of what falls aside of it.
pub(crate) fn close<P: Pipeline, E: Terminal<P::Item>>(
    plan: &SharedPlan,
    mut pipeline: P,
    ops: Vec<OpId>,
    end: E,
) {
    let aside = pipeline.root().stages_aside();
    let mut stage = stage(pipeline, ops, end);
    for behind in &aside {
        stage.outputs.extend(&behind.inputs);
    }
    let mut plan = plan.lock();
    plan.stage(stage);
    for behind in aside {
        plan.stage(behind);
    }
}

/// The stage of a pipeline and its end.
fn stage<P: Pipeline, E: Terminal<P::Item>>(
    mut pipeline: P,
    ops: Vec<OpId>,
    mut end: E,
) -> StageSpec {
    let root = pipeline.root();
    let (inputs, origins, refuses) = (root.inputs(), root.origins(), root.refuses());
    let outputs = end.outputs();
    let factory = move |build: &mut crate::plan::ShardBuild<'_, '_>| {
        let end = end.open(build)?;
        pipeline.root().open(build)?;
        let chain = pipeline.link(end, build);
        pipeline.root().tasklet(chain, build)
    };
    StageSpec {
        ops,
        inputs,
        outputs,
        origins,
        refuses,
        factory: Box::new(factory),
    }
}

/// The stage that hands what falls aside of others, over these edges, to a sink.
pub(crate) fn sink_aside<T: Send + 'static, S: Sink<T>>(
    sink: S,
    op: OpId,
    edges: Vec<EdgeId>,
) -> StageSpec {
    let root = OperatorRoot {
        make: MakeForward::default(),
        edges,
        input: PhantomData::<fn(T)>,
    };
    let end = ToSink {
        sink,
        op,
        aside: true,
        writers: None,
    };
    stage(root, vec![op], end)
}

/// Tells both jobs that an operator of the first takes streams of both.
pub(crate) fn refuse_two_jobs(plan: &SharedPlan, other: &SharedPlan, op: OpId) {
    let names = [plan, other].map(|p| p.lock().name.clone());
    let e = BuildError::argument(
        plan.lock().info(op),
        format!(
            "it joins streams of two jobs, '{}' and '{}'",
            names[0], names[1]
        ),
        "take both streams from one job",
    );
    plan.lock().errors.push(e.clone());
    other.lock().errors.push(e);
}

/// Opens a stage that reads `edges` and hands on.
pub(crate) fn inlet<T: Send + 'static>(
    plan: &SharedPlan,
    edges: Vec<EdgeId>,
    op: OpId,
    mut meta: Meta,
) -> Stream<Inlet<T>> {
    meta.exchanged = true;
    let root = OperatorRoot {
        make: MakeForward::default(),
        edges,
        input: PhantomData,
    };
    Stream {
        plan: plan.clone(),
        pipeline: Some(root),
        ops: vec![op],
        meta,
    }
}
