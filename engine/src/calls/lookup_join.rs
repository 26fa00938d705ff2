//! Lookup joins as they are written: see [`crate::operators::lookup_join`] for the laws.

use super::async_map::refuse_both;
use super::{Async, CallError, CallFigures, Client};
use crate::error::BuildError;
use crate::key::{Computed, Key};
use crate::keyed::KeyedStream;
use crate::operators::calling::pending::Done;
use crate::operators::calling::{MakeCalling, OnFailure};
use crate::operators::lookup_join::{EachKey, Limits};
use crate::pipeline::Pipeline;
use crate::plan::{Class, Results};
use crate::push::OpId;
use crate::state::State;
use crate::stream::Stream;
use crate::time::{Span, Spans};
use std::panic::Location;

/// What a lookup join remembers of what it was answered.
///
/// Above its rows the one goes that has not been asked for for the longest time. A row whose time is over is asked for anew by the next
/// record of its key; its memory goes with that, or with the bound.
///
/// ```
/// use pelton::Spans;
/// use pelton::calls::Cache;
/// let cache = Cache::of(50_000).ttl(5.minutes()).negative_ttl(30.seconds());
/// # let _ = cache;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    rows: usize,
    ttl: Span,
    negative_ttl: Span,
}

impl Cache {
    /// At most so many rows on each shard, for a minute; that a key has none is remembered for a second.
    pub fn of(rows: usize) -> Self {
        Cache {
            rows,
            ttl: 1.minutes(),
            negative_ttl: 1.seconds(),
        }
    }

    /// No memory: each record asks, unless a request for its key is under way.
    pub fn none() -> Self {
        Cache::of(0)
    }

    /// How long a row counts, by the clock, from when its answer came.
    pub fn ttl(mut self, ttl: Span) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long it counts that a key has no row. 0: not at all.
    pub fn negative_ttl(mut self, ttl: Span) -> Self {
        self.negative_ttl = ttl;
        self
    }
}

impl<P: Pipeline<Item: State>> Stream<P> {
    /// Joins each record with what a `client` says of its key: a table that is too large, or too much another's, to be a stream of this job.
    /// The client answers with the key's row, or `None`. Each key goes to one shard, which remembers rows for a while
    /// ([`LookupJoin::cache`]) and asks for a key once at a time, however many records wait for it.
    ///
    /// Class EXEMPT: the row is the one of some moment around. (Where answers are to depend on event time alone, make the table a stream:
    /// [`KeyedStream::as_of_join`].) Results have their record's time, behind mark and origin; no record is too late, and no watermark
    /// passes one that waits. Unordered unless the options say otherwise; records of one key keep their order in any case. State: the records
    /// in hand, [`Async::capacity`] a shard, each until it is answered or has failed, in checkpoints, which are asked for again after a restore; and the
    /// cache, which is not, and has its bound of rows. O(1) a record.
    ///
    /// ```
    /// use pelton::calls::{self, Async, Cache};
    /// use pelton::{Job, Spans, sources, testing};
    /// // Stands for a query of a database.
    /// let airports = calls::blocking(4, |code: String| {
    ///     Ok::<_, calls::Failure>((code == "SFO").then(|| "San Francisco".to_string()))
    /// });
    /// let (rows, sink) = testing::collect();
    /// let job = Job::new("departures");
    /// let flights = [("UA1545", "SFO"), ("B6725", "XXX"), ("UA7", "SFO")];
    /// let flights = flights.map(|(flight, from)| (flight.to_string(), from.to_string()));
    /// let lookup = job
    ///     .source(sources::items(flights))
    ///     .lookup_join(|flight| flight.1.clone(), airports)
    ///     .options(Async::ordered().time_out(2.seconds()))
    ///     .cache(Cache::of(10_000).ttl(10.minutes()));
    /// let figures = lookup.figures();
    /// lookup
    ///     .left_outer(|flight, city| (flight.0.clone(), city.cloned()))
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// let city = Some("San Francisco".to_string());
    /// assert_eq!(rows.take(), [("UA1545".into(), city.clone()), ("B6725".into(), None), ("UA7".into(), city)]);
    /// assert_eq!((figures.requests(), figures.hits() + figures.coalesced()), (2, 1));
    /// ```
    #[track_caller]
    pub fn lookup_join<K, R, C, F>(self, key_of: F, client: C) -> LookupJoin<P, C, F>
    where
        K: Key,
        R: Send + 'static,
        C: Client<Request = K, Response = Option<R>>,
        F: Fn(&P::Item) -> K + Clone + Send + 'static,
    {
        let location = Location::caller();
        let keyed = KeyedStream::new(self, Computed(key_of.clone()), location);
        let op = keyed.note("lookup_join", location, false);
        LookupJoin {
            keyed,
            key_of,
            client,
            options: Async::unordered(),
            cache: Cache::of(10_000),
            on_failure: OnFailure::Stop,
            op,
        }
    }
}

/// A lookup join being written: which of its rows are wanted ends it. What it keeps and how long, what becomes of late records, its class and
/// an example are at [`Stream::lookup_join`].
#[must_use = "a join does nothing until its rows are asked for"]
#[allow(missing_debug_implementations)]
pub struct LookupJoin<P: Pipeline, C, F> {
    keyed: KeyedStream<P, Computed<F>>,
    key_of: F,
    client: C,
    options: Async,
    cache: Cache,
    on_failure: OnFailure,
    op: OpId,
}

impl<P, K, R, C, F> LookupJoin<P, C, F>
where
    P: Pipeline<Item: State>,
    K: Key,
    R: Send + 'static,
    C: Client<Request = K, Response = Option<R>>,
    F: Fn(&P::Item) -> K + Clone + Send + 'static,
{
    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.keyed.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// How requests are made. Default: [`Async::unordered`].
    pub fn options(mut self, options: Async) -> Self {
        self.options = options;
        self
    }

    /// What is remembered. Default: 10,000 rows a shard, for a minute; that there is none, for a second.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.cache = cache;
        self
    }

    /// What becomes of the requests, live: of the options that were given last.
    pub fn figures(&self) -> CallFigures {
        self.options.figures()
    }

    /// Records whose key's request has failed become dead letters with the reason ([`Job::dead_letters_to`](crate::Job::dead_letters_to)),
    /// counted as malformed, and the job goes on.
    pub fn dead_letters(mut self) -> Self {
        self.on_failure = OnFailure::DeadLetter;
        self
    }

    /// A row for each record whose key has one. A request that has failed stops the job, unless it is to be a dead
    /// letter ([`LookupJoin::dead_letters`]). See [`Stream::lookup_join`].
    pub fn inner<O, G>(self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, &R) -> O + Clone + Send + 'static,
    {
        self.rows(move |record, found| match found {
            Ok(Some(found)) => Done::Row(row(record, found)),
            Ok(None) => Done::Nothing,
            Err(e) => Done::Failed(e.clone()),
        })
    }

    /// A row for each record, with its key's if there is one. Failures as of [`LookupJoin::inner`]. See [`Stream::lookup_join`].
    pub fn left_outer<O, G>(self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows(move |record, found| match found {
            Ok(found) => Done::Row(row(record, found)),
            Err(e) => Done::Failed(e.clone()),
        })
    }

    /// A row for each record, also of one whose key's request has failed. See [`Stream::lookup_join`].
    pub fn outcomes<O, G>(mut self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, Result<Option<&R>, &CallError>) -> O + Clone + Send + 'static,
    {
        refuse_both(&self.keyed.stream, self.on_failure, self.op);
        self.on_failure = OnFailure::Told;
        self.rows(move |record, found| Done::Row(row(record, found)))
    }

    fn rows<O, G>(self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, Result<Option<&R>, &CallError>) -> Done<O> + Clone + Send + 'static,
    {
        let op = self.op;
        let Cache {
            rows,
            ttl,
            negative_ttl,
        } = self.cache;
        let mut plan = self.keyed.stream.plan.lock();
        plan.info_mut(op).detail = self.options.describe();
        let mut wrong: Vec<_> = self
            .options
            .check(plan.info(op))
            .err()
            .into_iter()
            .collect();
        if negative_ttl < Span::ZERO || (ttl <= Span::ZERO && rows > 0) {
            wrong.push(BuildError::argument(
                plan.info(op),
                format!(
                    "a cache of {rows} rows for {ttl}, and for {negative_ttl} where there is none"
                ),
                "give a time to live above 0, or Cache::none()",
            ));
        }
        plan.errors.append(&mut wrong);
        drop(plan);
        let limits = Limits {
            rows,
            ttl_ns: ttl.nanos(),
            negative_ttl_ns: negative_ttl.nanos(),
        };
        let make = MakeCalling {
            client: self.client,
            asks: EachKey::<K, R, _, _>::new(self.key_of, row, limits, op),
            options: self.options,
            on_failure: self.on_failure,
            op,
            apart: None,
        };
        self.keyed
            .operator(op, Results::last(Class::Exempt), |_| make)
    }
}
