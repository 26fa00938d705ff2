//! Upserts: of a table with one row a key, the row that a key has from now on. What sinks by key are given of [changes](mod@crate::change).
//!
//! Laws
//! 1. All upserts of a key are on one shard, in the order of its changes there: the stream has been exchanged by that key.
//! 2. That order is the order in which the rows changed if the changes of a key were in order before: where the key is that of the operator that
//!    tells them, or has it as a part (`(customer, rank)` behind `top_with_rank` by customer). Of rows that wander between keys
//!    of the operator (a player who changes teams, behind a ranking by team, kept by player) nobody knows which change came last.
//! 3. At most one row of a key stands at a time. Of several rows of one key, the last that changed would be taken for all.
//! 4. A `-U` goes where its `+U` of the same key follows, as it does right behind the operators that make them; else it is a deletion.

use crate::change::Change;
use crate::key::{Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::materialize::MakeMaterialize;
use crate::ops::Upserted;
use crate::pipeline::{Inlet, Pipeline};
use crate::plan::{Class, Results};
use crate::push::OpId;
use crate::sink::{self, Table};
use crate::state::State;
use crate::stream::Stream;
use std::marker::PhantomData;
use std::panic::Location;

/// The row that a key has from now on, or that it has none: see [`mod@crate::upsert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upsert<K, T> {
    /// The key.
    pub key: K,
    /// Its row; `None`: it has gone (a tombstone).
    pub row: Option<T>,
}

/// The key of an [`Upsert`].
#[doc(hidden)]
#[derive(Debug)]
pub struct UpsertKey<K>(PhantomData<fn() -> K>);

impl<K> Clone for UpsertKey<K> {
    fn clone(&self) -> Self {
        UpsertKey(PhantomData)
    }
}

impl<K: Key, T> KeyOf<Upsert<K, T>> for UpsertKey<K> {
    type Key = K;
    #[inline(always)]
    fn with<R>(&self, upsert: &Upsert<K, T>, f: impl FnOnce(&K) -> R) -> R {
        f(&upsert.key)
    }
}

type ByKey<P, T, K> = KeyedStream<Upserted<P, T, K>, UpsertKey<<K as KeyOf<Change<T>>>::Key>>;

impl<T: Send + 'static, P: Pipeline<Item = Change<T>>, K: KeyOf<Change<T>>> KeyedStream<P, K> {
    /// The upserts, yet to be exchanged: a `-U` that its `+U` follows is not sent anywhere.
    fn into_upserts(self, location: &'static Location<'static>) -> ByKey<P, T, K> {
        let KeyedStream {
            stream,
            key,
            key_op,
            beside,
        } = self;
        debug_assert!(beside.is_empty(), "connected streams are no changes");
        let mut stream = stream.wrap("upserts", location, |before, op| Upserted {
            before,
            key,
            op,
            row: PhantomData,
        });
        let op = last_of(&stream);
        // Where a pair comes in two frames there is a deletion between: how many there are is not fixed.
        let results = Results {
            class: Class::Net,
            replaced: true,
        };
        stream.meta.through(results, op);
        stream.plan.lock().set_results(op, stream.meta.results);
        KeyedStream {
            stream,
            key: UpsertKey(PhantomData),
            key_op,
            beside,
        }
    }

    /// Of a stream of [changes](mod@crate::change), the row that each key has from now on: `+I` and `+U` give it one, `-D` says that it has
    /// gone; `-U` goes with the `+U` that follows. The key is that of the table to be kept, and all of a key's are on one shard, in order; which key
    /// that may be says law 2 of [`mod@crate::upsert`]. For [`sink::upserts`], and for sinks that write what
    /// they are given (lines with tombstones, logs) and say that they take updates.
    ///
    /// Stateless: a `-U` is held until the next change, and beyond no watermark or barrier. Class NET (EXEMPT behind what is). No change is late. O(1) a change.
    ///
    /// ```
    /// use pelton::{Job, sources, testing, upsert::Upsert};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("counts");
    /// job.source(sources::items(['a', 'b', 'a']))
    ///    .key_by(|c| *c)
    ///    .changelog()
    ///    .running(|a| a.count())
    ///    .key_by(|c| c.row.key)
    ///    .upserts()
    ///    .map(|Upsert { key, row }| (key, row.map(|r| r.value)))
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [('a', Some(1)), ('b', Some(1)), ('a', Some(2))]);
    /// ```
    #[track_caller]
    pub fn upserts(self) -> Stream<Inlet<Upsert<K::Key, T>>> {
        self.into_upserts(Location::caller()).exchange()
    }

    /// Keeps a stream of [changes](mod@crate::change) as a table in memory, which other threads read: see [`Table`]. What they see is as of a
    /// commit, of all shards at once. For jobs with checkpoints; without them it is refused. A table is one job's, and one stream's in it.
    ///
    /// State: the rows, on the shards as well, and in checkpoints: a job that goes on, in this process or in another, tells the table all of
    /// them with its first epoch. They go when they are deleted, not by time, and no
    /// warning tells that they do not. One probe a change. Class NET. No change is late.
    ///
    /// ```
    /// use pelton::{Job, sink::Table, sources, testing::Driver};
    /// # fn main() -> Result<(), pelton::JobError> {
    /// let counts = Table::new("counts");
    /// let mut t = Driver::new();
    /// let words = t.input::<char>("words");
    /// let (from, to) = (words.clone(), counts.clone());
    /// t.job(move |job| {
    ///     job.source(from.source())
    ///        .key_by(|c| *c)
    ///        .changelog()
    ///        .running(|a| a.count())
    ///        .key_by(|c| c.row.key)
    ///        .materialize(&to);
    /// })?;
    /// words.push_all(['a', 'b', 'a']);
    /// t.checkpoint()?;
    /// assert_eq!(counts.get(&'a').map(|row| row.value), Some(2));
    /// assert_eq!(counts.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn materialize(self, table: &Table<K::Key, T>)
    where
        T: Clone + State + Sync,
        K::Key: Sync,
    {
        let location = Location::caller();
        let upserts = self.into_upserts(location);
        let plan = upserts.stream.plan.clone();
        let op = upserts.note("materialize", location, false);
        let (name, writer) = table.taken(&plan, op);
        plan.lock().info_mut(op).detail.clone_from(&name);
        let results = upserts.stream.meta.results;
        let rows = upserts.operator_on_changes(op, results, |_| MakeMaterialize::new(op));
        rows.sink(sink::upserts(name, writer));
    }
}

fn last_of<P: Pipeline>(stream: &Stream<P>) -> OpId {
    match stream.ops.last() {
        Some(&op) => op,
        None => unreachable!("a stream has its last operator"),
    }
}
