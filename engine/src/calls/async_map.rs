//! Async maps as they are written: see [`crate::operators::calling`] for the laws.

use super::{Async, CallError, CallFigures, Client};
use crate::edge::Wiring;
use crate::error::BuildError;
use crate::operators::async_map::EachRecord;
use crate::operators::calling::pending::Done;
use crate::operators::calling::{MakeCalling, OnFailure};
use crate::pipeline::{OperatorRoot, Pipeline};
use crate::plan::{Class, Results};
use crate::push::OpId;
use crate::state::State;
use crate::stream::{Stream, close};
use crate::terminal::ToLocal;
use std::marker::PhantomData;
use std::panic::Location;

impl<P: Pipeline<Item: State>> Stream<P> {
    /// Asks `client` for each record, many at a time and without waiting, and goes on with what is answered. `request` says what is asked for a
    /// record; each attempt asks it again. In which order results come, how many are under way, and how long and how often is asked, say the
    /// `options`. What goes wrong, and what becomes of the record then, is in the table at [`mod@crate::calls`].
    ///
    /// Class EXEMPT: what the client answers is not known here. Results have their record's time, behind mark and origin; no record is too late,
    /// and no watermark passes one that waits. State: the records in hand, [`Async::capacity`] a shard, each until it is answered or has failed; they are in
    /// checkpoints, and are asked for again after a restore. (With another number of shards, what was in hand goes to the shard that reads its
    /// source partition: so ordered results of a partition stay in order where no exchange lies before.) O(1) a record.
    ///
    /// ```
    /// use pelton::calls::{self, Async};
    /// use pelton::{Job, sources, testing};
    /// let users = calls::blocking(8, |id: u64| match id {
    ///     0 => Err("there is no such user"),
    ///     id => Ok(format!("user {id}")),
    /// });
    /// let (names, sink) = testing::collect();
    /// let job = Job::new("names");
    /// job.source(sources::items([(7u64, "login".to_string()), (0, "logout".into())]))
    ///     .async_map(users, Async::ordered().retries(0), |event| event.0)
    ///     .outcomes(|event, user| match user {
    ///         Ok(user) => format!("{user}: {}", event.1),
    ///         Err(e) => format!("somebody: {} ({e})", event.1),
    ///     })
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(names.take(), ["user 7: login", "somebody: logout (there is no such user; asked 1 times)"]);
    /// ```
    #[track_caller]
    pub fn async_map<C, F>(self, client: C, options: Async, request: F) -> AsyncMap<P, C, F>
    where
        C: Client,
        F: Fn(&P::Item) -> C::Request + Clone + Send + 'static,
    {
        let results = self.meta.results.and(Results::last(Class::Exempt));
        let mut plan = self.plan.lock();
        let op = plan.op("async_map", results, Location::caller());
        plan.info_mut(op).detail = options.describe();
        let wrong = options.check(plan.info(op)).err();
        plan.errors.extend(wrong);
        if self.meta.results.replaced {
            // Ordered ones keep their order on a shard; what was in hand at a restart on other shards is on another than what replaces it.
            let e = BuildError::argument(
                plan.info(op),
                "results of its input may be replaced later, and what is asked of them may be answered out of turn: the last would not be the latest",
                "ask before the operator whose results are replaced, or take results that are not (windows without updates, `.in_event_time_order()`)",
            );
            plan.errors.push(e);
        }
        drop(plan);
        AsyncMap {
            stream: self,
            client,
            options,
            request,
            on_failure: OnFailure::Stop,
            op,
        }
    }
}

/// An async map being written: what comes of a record and its answer ends it. What it keeps and how long, what becomes of late records, its class and an
/// example are at [`Stream::async_map`].
#[must_use = "an async map does nothing until its results are asked for"]
#[allow(missing_debug_implementations)]
pub struct AsyncMap<P: Pipeline, C, F> {
    stream: Stream<P>,
    client: C,
    options: Async,
    request: F,
    on_failure: OnFailure,
    op: OpId,
}

impl<P, C, F> AsyncMap<P, C, F>
where
    P: Pipeline<Item: State>,
    C: Client,
    F: Fn(&P::Item) -> C::Request + Clone + Send + 'static,
{
    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(self, uid: impl Into<String>) -> Self {
        self.stream.plan.lock().info_mut(self.op).uid = Some(uid.into());
        self
    }

    /// What becomes of the requests, live.
    pub fn figures(&self) -> CallFigures {
        self.options.figures()
    }

    /// A record whose request has failed becomes a dead letter with the reason ([`Job::dead_letters_to`](crate::Job::dead_letters_to)), counted as
    /// malformed, and the job goes on.
    pub fn dead_letters(mut self) -> Self {
        self.on_failure = OnFailure::DeadLetter;
        self
    }

    /// A result for each record that was answered. A request that has failed stops the job, unless it is to be a dead
    /// letter ([`AsyncMap::dead_letters`]). See [`Stream::async_map`].
    pub fn results<O, G>(self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, C::Response) -> O + Clone + Send + 'static,
    {
        self.ends(move |record, result| match result {
            Ok(response) => Done::Row(row(record, response)),
            Err(e) => Done::Failed(e),
        })
    }

    /// A result for each record, also of one whose request has failed: a default, or a `Result` that
    /// [`Stream::side_output`] parts. See [`Stream::async_map`].
    pub fn outcomes<O, G>(mut self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, Result<C::Response, CallError>) -> O + Clone + Send + 'static,
    {
        refuse_both(&self.stream, self.on_failure, self.op);
        self.on_failure = OnFailure::Told;
        self.ends(move |record, result| Done::Row(row(record, result)))
    }

    fn ends<O, G>(self, row: G) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        G: Fn(&P::Item, Result<C::Response, CallError>) -> Done<O> + Clone + Send + 'static,
    {
        let op = self.op;
        let (plan, pipeline, mut ops, mut meta) = self.stream.into_parts();
        ops.push(op);
        let edge = plan.lock().edge::<P::Item>(Wiring::Local);
        close(&plan, pipeline, ops, ToLocal { edge });
        meta.exchanged = true;
        meta.through(Results::last(Class::Exempt), op);
        let root = OperatorRoot {
            make: MakeCalling {
                client: self.client,
                asks: EachRecord {
                    request: self.request,
                    row,
                    op,
                    types: PhantomData,
                },
                options: self.options,
                on_failure: self.on_failure,
                op,
                apart: None,
            },
            edges: vec![edge],
            input: PhantomData,
        };
        Stream {
            plan,
            pipeline: Some(root),
            ops: vec![op],
            meta,
        }
    }
}

/// A closure that is told of failures leaves none for the dead letters.
pub(super) fn refuse_both<P: Pipeline>(stream: &Stream<P>, on_failure: OnFailure, op: OpId) {
    if on_failure == OnFailure::DeadLetter {
        let mut plan = stream.plan.lock();
        let e = BuildError::argument(
            plan.info(op),
            "failures are to be dead letters, and `outcomes` is told of them itself",
            "leave out one of both",
        );
        plan.errors.push(e);
    }
}
