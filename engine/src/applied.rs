//! `apply_changes`: what stands behind changes, aggregated or ranked, and told as changes again.
//!
//! Laws
//! 1. Additions add a row, retractions take one away; what is told is what follows from the rows that stand.
//! 2. What does not change is not told: a value that stays equal, a row that does not get into the ranking.
//! 3. A key whose rows have all gone is told with `-D` and forgotten.
//! 4. Each change is taken by itself. Between the `-U` and the `+U` of an update what is told is what stands without either row, as in
//!    Flink without mini-batches.

use crate::aggregate::{Aggs, Ordered, Retracts};
use crate::change::Change;
use crate::changelog::results;
use crate::key::KeyOf;
use crate::keyed::KeyedStream;
use crate::operators::applying::{MakeApplyingOp, MakesApplying, RowOf};
use crate::ordered::OrderedStream;
use crate::pipeline::Pipeline;
use crate::process::ProcessInput;
use crate::push::OpId;
use crate::running::Keyed;
use crate::state::State;
use crate::stream::Stream;
use crate::top::{LONGEST, Ranked};
use aggregates::MakeAggregates;
use ranking::{Bare, MakeRanking, Numbered, Says};
use std::marker::PhantomData;
use std::panic::Location;

pub(crate) mod aggregates;
pub(crate) mod ranking;

/// Changes that are applied by key; see [`KeyedStream::apply_changes`].
#[must_use = "changes are not applied until `running`, `top` or `top_with_rank` says to what"]
#[allow(missing_debug_implementations)]
pub struct Applied<I, T, K> {
    input: I,
    types: PhantomData<fn(T, K)>,
}

impl<T: Send + 'static, P: Pipeline<Item = Change<T>>, K: KeyOf<Change<T>>> KeyedStream<P, K> {
    /// Applies [changes](mod@crate::change) by key: rows that are added count, rows that are taken away count no longer. The key is
    /// that of a row, `key_by(|c| c.row.city)`, so that a row goes where it came. [`Applied::running`] aggregates the rows that stand,
    /// [`Applied::top`] ranks them; both tell changes.
    ///
    /// It is what may stand behind a changelog, a ranking, or a source of change rows: other operators with state would take each change for a
    /// record of its own, and are refused where the number of changes is not fixed.
    ///
    /// Class NET: what stands in the end is the same in every run. Behind [`KeyedStream::in_event_time_order`] every change is (class ROWS), where the
    /// changes themselves were made in that order; else it is refused. No change is too late. What stands is kept until it is taken back, of which a warning
    /// tells (PLT-0203). A retraction of a row that does not stand is ignored
    /// and counted ([`Counters::stray_retractions`](crate::push::Counters::stray_retractions)).
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("cities by their number of orders");
    /// job.source(sources::items(["Bonn", "Ulm", "Bonn"].map(String::from)))
    ///    .key_by(|city| city.clone())
    ///    .changelog()
    ///    .running(|a| a.count())
    ///    .key_by(|c| c.row.value) // cities with one order, with two, ..
    ///    .apply_changes()
    ///    .running(|a| a.count())
    ///    .map(|c| c.map(|row| format!("{} with {}", row.value, row.key)).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 1 with 1", "-U 1 with 1", "+U 2 with 1", "-U 2 with 1", "+U 1 with 1", "+I 1 with 2"]);
    /// ```
    pub fn apply_changes(self) -> Applied<Self, T, K> {
        Applied {
            input: self,
            types: PhantomData,
        }
    }
}

impl<T, P, K> OrderedStream<P, K>
where
    T: Send + 'static,
    P: Pipeline<Item = Change<T>>,
    Change<T>: State,
    K: KeyOf<Change<T>>,
{
    /// As [`KeyedStream::apply_changes`], in event-time order: every change is fixed (class ROWS). The changes that come must be of class ROWS,
    /// made in event-time order: others may take a row away at an earlier time than that at which it came. Late changes are dropped before it, as of
    /// [`OrderedStream`].
    pub fn apply_changes(self) -> Applied<Self, T, K> {
        Applied {
            input: self,
            types: PhantomData,
        }
    }
}

impl<I, T, K> Applied<I, T, K>
where
    I: ProcessInput<Change<T>, K>,
    T: Send + 'static,
    K: KeyOf<Change<T>>,
{
    /// Aggregates the rows of each key that stand: `running(|a| (a.count(), a.sum(|o| o.cents), a.max(|o| o.cents)))`. A key's first row makes a
    /// `+I`, a value that is another afterwards a pair of `-U` and `+U`, one that stays equal nothing, and the last row that goes a `-D`.
    ///
    /// Aggregates are those that can take a row away ([`Retracts`]): count, sums and means of integers, least and greatest values, `map`,
    /// tuples of such, and your own ([`Aggs::retractable`]). Sums of floats are not: the compiler says so.
    ///
    /// State: for each key with rows a value, and for a least or greatest value all different ones that stand, each an entry of its own
    /// in memory and in a checkpoint; a key goes with its last row. O(1) a change, O(log values) for a least or greatest one. Class and late records are said
    /// at [`KeyedStream::apply_changes`].
    ///
    /// A retraction is known for stray where its key has no rows, or where a least or greatest value has none like it. Others are taken at
    /// their word: a sum does not know of which rows it is made.
    ///
    /// ```
    /// use pelton::change::{Change, Kind};
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let changes = [(Kind::Insert, 5), (Kind::Insert, 7), (Kind::Delete, 7), (Kind::Delete, 5), (Kind::Delete, 5)];
    /// let job = Job::new("prices");
    /// job.source(sources::items(changes))
    ///    .map(|(kind, price)| Change::new(kind, ("vase".to_string(), price)))
    ///    .key_by(|c| c.row.0.clone())
    ///    .apply_changes()
    ///    .running(|a| (a.count(), a.max(|r| r.1)))
    ///    .map(|c| c.map(|k| format!("{:?}", k.value)).to_string())
    ///    .sink(sink);
    /// let mut stepper = testing::Stepper::new(&job, 1).unwrap();
    /// stepper.run().unwrap();
    /// assert_eq!(results.take(), ["+I (1, 5)", "-U (1, 5)", "+U (2, 7)", "-U (2, 7)", "+U (1, 5)", "-D (1, 5)"]);
    /// assert_eq!(stepper.counters().stray_retractions, 1);
    /// ```
    ///
    /// ```compile_fail
    /// # use pelton::change::{Change, Kind};
    /// # use pelton::{Job, sources, testing};
    /// # let (_, sink) = testing::collect();
    /// # let job = Job::new("floats");
    /// job.source(sources::items([Change::new(Kind::Insert, 1.5)]))
    ///    .key_by(|_| 0u8)
    ///    .apply_changes()
    ///    .running(|a| a.sum(|v| *v)) // floats
    ///    .sink(sink);
    /// ```
    #[track_caller]
    pub fn running<A: Retracts<T>>(
        self,
        make: impl FnOnce(&Aggs<T>) -> A,
    ) -> Stream<impl Pipeline<Item = Change<Keyed<K::Key, A::Out>>>> {
        let aggregate = make(&Aggs::new());
        self.tells(
            "running",
            Location::caller(),
            None,
            MakeAggregates(aggregate),
        )
    }

    /// The `n` rows of the greatest score (1 to 1 000) of each key among those that stand: a row that gets in is a `+I`, after a `-D` of the one that it
    /// drives out, and one that goes is a `-D`, before a `+I` of the one that comes next. Equal scores go by the rows' own order, the lesser
    /// first; equal rows stand as often as they came. For the least, `|r| Reverse(..)`; for floats as scores see [`Ordered`].
    ///
    /// State: all rows that stand, with their scores, since any of them may come next: each different one is an entry of its own in memory and in a
    /// checkpoint, and goes with the last row like it. O(log rows) a change, O(n) where it concerns the ranking. Class and late records are said at
    /// [`KeyedStream::apply_changes`]. (Continuous top-N as of Flink's `ROW_NUMBER() <= n` over a retract
    /// stream.)
    ///
    /// ```
    /// use pelton::change::{Change, Kind};
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let changes = [(Kind::Insert, 5), (Kind::Insert, 3), (Kind::Insert, 4), (Kind::Delete, 5)];
    /// let job = Job::new("highest bids");
    /// job.source(sources::items(changes))
    ///    .map(|(kind, bid)| Change::new(kind, bid))
    ///    .key_by(|_| 'a')
    ///    .apply_changes()
    ///    .top(2, |bid| *bid)
    ///    .map(|c| c.to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 5", "+I 3", "-D 3", "+I 4", "-D 5", "+I 3"]);
    /// ```
    #[track_caller]
    pub fn top<V: Ordered>(
        self,
        n: usize,
        score: impl Fn(&T) -> V + Clone + Send + 'static,
    ) -> Stream<impl Pipeline<Item = Change<T>>>
    where
        T: Clone + Ord + State,
    {
        self.ranked::<_, _, Bare>(n, score, Location::caller())
    }

    /// As [`Applied::top`], with ranks: each rank whose row is another afterwards tells whom it had (`-U`) and whom it has now (`+U`), from the
    /// best down; a new last rank is a `+I`, and one that has nobody any more a `-D`. Up to 2 n changes a change. State is that of
    /// [`Applied::top`].
    ///
    /// ```
    /// use pelton::change::{Change, Kind};
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let changes = [(Kind::Insert, 5), (Kind::Insert, 3), (Kind::Delete, 5), (Kind::Delete, 3)];
    /// let job = Job::new("highest bids");
    /// job.source(sources::items(changes))
    ///    .map(|(kind, bid)| Change::new(kind, bid))
    ///    .key_by(|_| 'a')
    ///    .apply_changes()
    ///    .top_with_rank(2, |bid| *bid)
    ///    .map(|c| c.map(|r| format!("{}:{}", r.rank, r.row)).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 1:5", "+I 2:3", "-U 1:5", "+U 1:3", "-D 2:3", "-D 1:3"]);
    /// ```
    #[track_caller]
    pub fn top_with_rank<V: Ordered>(
        self,
        n: usize,
        score: impl Fn(&T) -> V + Clone + Send + 'static,
    ) -> Stream<impl Pipeline<Item = Change<Ranked<T>>>>
    where
        T: Clone + Ord + State,
    {
        self.ranked::<_, _, Numbered>(n, score, Location::caller())
    }

    fn ranked<V, F, S>(
        self,
        n: usize,
        score: F,
        location: &'static Location<'static>,
    ) -> Stream<impl Pipeline<Item = Change<S::Row>>>
    where
        T: Clone + Ord + State,
        V: Ordered,
        F: Fn(&T) -> V + Clone + Send + 'static,
        S: Says<T>,
    {
        let wrong = (n == 0 || n > LONGEST).then(|| {
            (
                format!("it is to keep the {n} best rows of a key"),
                format!("give 1 to {LONGEST}"),
            )
        });
        let ranking = MakeRanking::<V, F, S> {
            n,
            score,
            types: PhantomData,
        };
        self.tells("top", location, wrong, ranking)
    }

    fn tells<M: MakesApplying<T, K::Key>>(
        self,
        kind: &'static str,
        location: &'static Location<'static>,
        wrong: Option<(String, String)>,
        makes: M,
    ) -> Stream<impl Pipeline<Item = Change<RowOf<T, K::Key, M>>>> {
        let op = self.input.note_standing(kind, location);
        self.input.check(op, false, wrong);
        let results = results(I::IN_ORDER);
        self.input
            .place_on_changes(op, results, move |key| maker(key, makes, op))
    }
}

pub(crate) fn maker<T, K, M>(key: K, makes: M, op: OpId) -> MakeApplyingOp<T, K, M> {
    MakeApplyingOp {
        key,
        makes,
        op,
        row: PhantomData,
    }
}
