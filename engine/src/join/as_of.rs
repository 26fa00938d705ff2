//! The as-of join: each record meets the version of its key that held at its time.
//!
//! Laws
//! 1. Both sides are taken in the order of event time ([`KeyedStream::in_event_time_order`]); of one time, versions come first. So the
//!    version that a record meets is the last at or before its own time, whatever came when.
//! 2. One version a key is kept, the last that the watermark has passed: an earlier one can meet nobody any more.
//!
//! Lateness, waiting records and checkpoints are the order's, the version is a state like a process function's.

use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::ordered::OrderedStream;
use crate::pipeline::Pipeline;
use crate::process::{Context, Process, Ttl, value};
use crate::sides::{Sides, SidesKey};
use crate::sink::Sink;
use crate::state::State;
use crate::stream::Stream;
use crate::time::Span;
use std::marker::PhantomData;
use std::panic::Location;

impl<P: Pipeline, A: KeyOf<P::Item>> KeyedStream<P, A> {
    /// Joins each record with the version of its key that held at its event time: the last of `versions` at or before it. Prices with
    /// the rate of their minute, orders with the address of their day. (The temporal join of Flink SQL, `FOR SYSTEM_TIME AS OF`; the as-of
    /// join of kdb+.)
    ///
    /// A `None` key meets another, unlike SQL's null: see [`mod@crate::join`].
    ///
    /// Class ROWS, unless versions live by the clock: then EXEMPT. A row comes when the watermark of both streams has passed its record, with the
    /// record's time. State: the records and versions that wait for that, and a version for each key, kept for ever unless
    /// [`AsOfJoin::versions_live`] says otherwise (a warning says so, PLT-0203).
    /// Records and versions that are late (t + allowed lateness < V) are counted, meet nobody, and go to [`AsOfJoin::late_to`] where it
    /// is set. O(log of what waits) a record.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("in euros");
    /// let at = |e: &(&'static str, i64, f64)| EventTime::from_seconds(e.1);
    /// let orders = job.source(sources::items([("JPY", 10, 500.0), ("JPY", 20, 500.0), ("USD", 20, 1.0)]));
    /// let rates = job.source(sources::items([("JPY", 5, 0.005), ("JPY", 20, 0.006)]));
    /// # let (orders, rates) = (orders.map(|e| (e.0.to_string(), e.1, e.2)), rates.map(|e| (e.0.to_string(), e.1, e.2)));
    /// # let at = |e: &(String, i64, f64)| EventTime::from_seconds(e.1);
    /// let orders = orders.event_time(at, Watermarks::monotonous()).key_by_ref(|o| &o.0);
    /// let rates = rates.event_time(at, Watermarks::monotonous()).key_by_ref(|r| &r.0);
    /// orders
    ///     .as_of_join(rates)
    ///     .left_outer(|order, rate| rate.map(|rate| order.2 * rate.2))
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [Some(2.5), Some(3.0), None]);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)]
    pub fn as_of_join<Q, B>(
        self,
        versions: KeyedStream<Q, B>,
    ) -> AsOfJoin<impl Pipeline<Item = Sides<P::Item, Q::Item>>, SidesKey<A, B>, P::Item, Q::Item>
    where
        P::Item: State,
        Q: Pipeline<Item: Clone + State>,
        B: KeyOf<Q::Item, Key = A::Key>,
    {
        AsOfJoin {
            ordered: self.connect(versions).in_event_time_order().ranked(rank),
            lives: None,
            uid: None,
            location: Location::caller(),
            types: PhantomData,
        }
    }
}

/// Law 1.
fn rank<L, R>(side: &Sides<L, R>) -> u8 {
    match side {
        Sides::Right(_) => 0,
        Sides::Left(_) => 1,
    }
}

/// An as-of join being written: which of its rows are wanted ends it. What it keeps and how long, what becomes of late records, its class and
/// an example are at [`KeyedStream::as_of_join`].
#[must_use = "a join does nothing until its rows are asked for"]
#[allow(missing_debug_implementations)]
pub struct AsOfJoin<P: Pipeline, K, L, R> {
    ordered: OrderedStream<P, K>,
    lives: Option<Ttl>,
    uid: Option<String>,
    location: &'static Location<'static>,
    types: PhantomData<fn() -> (L, R)>,
}

impl<P, K, L, R> AsOfJoin<P, K, L, R>
where
    P: Pipeline<Item = Sides<L, R>>,
    K: KeyOf<Sides<L, R>>,
    L: State,
    R: Clone + State,
{
    /// Names the operator: state, savepoints, metrics and errors know its versions by this, and what waits by this and `.waiting`.
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        let uid = uid.into();
        self.ordered = self.ordered.uid(format!("{uid}.waiting"));
        self.uid = Some(uid);
        self
    }

    /// Waits so much longer than the watermark says: all rows come later by it, and with them the watermark behind.
    pub fn allowed_lateness(mut self, allowed: Span) -> Self {
        self.ordered = self.ordered.allowed_lateness(allowed);
        self
    }

    /// Where late records and versions go. They are counted in any case.
    #[track_caller]
    pub fn late_to<S: Sink<Sides<L, R>>>(mut self, sink: S) -> Self {
        self.ordered = self.ordered.late_to(sink);
        self
    }

    /// How long a version holds when none replaces it; for ever, unless it is said.
    pub fn versions_live(mut self, lives: Ttl) -> Self {
        self.lives = Some(lives);
        self
    }

    /// A row for each record for whose time there is a version. See [`KeyedStream::as_of_join`].
    pub fn inner<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&L, &R) -> O + Clone + Send + 'static,
    {
        self.rows(move |left, right| right.map(|right| f(left, right)))
    }

    /// A row for each record, with the version if there is one. See [`KeyedStream::as_of_join`].
    pub fn left_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&L, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows(move |left, right| Some(f(left, right)))
    }

    fn rows<O, F>(self, f: F) -> Stream<impl Pipeline<Item = O>>
    where
        O: Send + 'static,
        F: Fn(&L, Option<&R>) -> Option<O> + Clone + Send + 'static,
    {
        let version = match self.lives {
            None => value::<R>("version"),
            Some(lives) => value::<R>("version").ttl(lives),
        };
        let plan = self.ordered.keyed().stream.plan.clone();
        let join = Process::new(self.ordered, "as_of_join", self.uid, version, self.location);
        plan.lock().joins(join.op(), size_of::<L>(), size_of::<R>());
        join.each(
            move |side: &Sides<L, R>, version, cx: &mut Context<'_, K::Key, O>| match side {
                Sides::Right(new) => version.set(new.clone()),
                Sides::Left(left) => {
                    if let Some(row) = f(left, version.get()) {
                        cx.emit(row);
                    }
                }
            },
        )
    }
}
