//! The window join: records of a key that lie in one window meet when it fires.
//!
//! Laws
//! 1. It is a window over both sides that collects them: lateness, sessions that merge, checkpoints and bounded firing are the
//!    window's. What a window holds is turned into rows one by one, as long as there is room.
//! 2. Rows of a window come in the order of (left's place, right's place), whatever came first: what ties by their order is the
//!    same in every run.
//! 3. Rows are final: no later one replaces them, so windows that fire more than once are refused.

use crate::aggregate::{Aggregate, At};
use crate::error::BuildError;
use crate::key::{Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::pipeline::Pipeline;
use crate::sides::{Sides, SidesKey};
use crate::sink::Sink;
use crate::state::State;
use crate::stream::Stream;
use crate::window::{Firing, Window, WindowAssigner, Windowed, WindowedStream};
use std::marker::PhantomData;
use std::panic::Location;

impl<P: Pipeline, A: KeyOf<P::Item>> KeyedStream<P, A> {
    /// Joins two streams by key and window: every record meets those of the other stream that have its key and lie in the same
    /// window, which may be tumbling, sliding, a session (of both streams together) or any other. As Flink's window join.
    ///
    /// Class: the window's. State: the records of both streams, 32 bytes besides each, until their window has fired; in checkpoints too, so
    /// they are [`State`]; those of one key and window are one entry of a checkpoint, which may have 8 MiB. Late are records that are late for the window: counted, and sent to [`WindowJoin::late_to`] where it is set. A
    /// row has its window's time. O(1) a record and O(1) a row, of which a window has as many as pairs meet.
    ///
    /// A `None` key meets another, unlike SQL's null: see [`mod@crate::join`].
    ///
    /// Windows that fire more than once (allowed lateness, early firing) are refused: which rows a second firing replaces could not be
    /// told. Give the watermarks a greater bound instead.
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Tumbling, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("seen and clicked");
    /// let at = |e: &(u64, i64)| EventTime::from_seconds(e.1);
    /// let seen = job.source(sources::items([(7u64, 1), (8, 2), (7, 61)]));
    /// let clicks = job.source(sources::items([(7u64, 5), (7, 6), (9, 7)]));
    /// let seen = seen.event_time(at, Watermarks::monotonous()).key_by(|e| e.0);
    /// let clicks = clicks.event_time(at, Watermarks::monotonous()).key_by(|e| e.0);
    /// seen.window_join(clicks, Tumbling::of(1.minutes()))
    ///     .left_outer(|seen, click| (seen.0, seen.1, click.map(|c| c.1)))
    ///     .sink(sink);
    /// testing::Stepper::new(&job, 2).unwrap().run().unwrap();
    /// let mut rows: Vec<_> = results.take().into_iter().map(|w| w.value).collect();
    /// rows.sort();
    /// assert_eq!(rows, [(7, 1, Some(5)), (7, 1, Some(6)), (7, 61, None), (8, 2, None)]);
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity)]
    pub fn window_join<Q, B, W>(
        self,
        other: KeyedStream<Q, B>,
        window: W,
    ) -> WindowJoin<
        impl Pipeline<Item = Sides<P::Item, Q::Item>>,
        SidesKey<A, B>,
        W,
        P::Item,
        Q::Item,
    >
    where
        P::Item: Clone + State,
        Q: Pipeline<Item: Clone + State>,
        B: KeyOf<Q::Item, Key = A::Key>,
        W: WindowAssigner<Sides<P::Item, Q::Item>>,
    {
        let replaces = window.results().replaced;
        let connected = self.connect(other);
        let plan = connected.stream.plan.clone();
        let windows = WindowedStream::new(connected, window, Location::caller());
        let (left, right) = (size_of::<P::Item>(), size_of::<Q::Item>());
        plan.lock().joins(windows.op(), left, right);
        if replaces {
            let mut plan = plan.lock();
            let e = BuildError::argument(
                plan.info(windows.op()),
                "a join of windows that fire more than once: which rows are replaced could not be told",
                "drop allowed lateness and early firing, and give the watermarks a greater bound",
            );
            plan.errors.push(e);
        }
        WindowJoin {
            windows,
            types: PhantomData,
        }
    }
}

/// A window join being written: which of its rows are wanted ends it. What it keeps and how long, what becomes of late records, its class and
/// an example are at [`KeyedStream::window_join`].
#[must_use = "a join does nothing until its rows are asked for"]
#[allow(missing_debug_implementations)]
pub struct WindowJoin<P: Pipeline, K, W, L, R> {
    windows: WindowedStream<P, K, W>,
    types: PhantomData<fn() -> (L, R)>,
}

impl<P, K, W, L, R> WindowJoin<P, K, W, L, R>
where
    P: Pipeline<Item = Sides<L, R>>,
    K: KeyOf<Sides<L, R>>,
    W: WindowAssigner<Sides<L, R>>,
    L: Clone + State,
    R: Clone + State,
{
    /// Names the operator: state, savepoints, metrics and errors know it by this.
    pub fn uid(mut self, uid: impl Into<String>) -> Self {
        self.windows = self.windows.uid(uid);
        self
    }

    /// Where records of both streams go that are too late for every window they belong to. They are counted in any case.
    #[track_caller]
    pub fn late_to<S: Sink<Sides<L, R>>>(mut self, sink: S) -> Self {
        self.windows = self.windows.late_to(sink);
        self
    }

    /// A row for each pair. See [`KeyedStream::window_join`].
    #[track_caller]
    pub fn inner<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Windowed<K::Key, O>>>
    where
        O: Send + 'static,
        F: Fn(&L, &R) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Inner, move |left, right| match (left, right) {
            (Some(left), Some(right)) => f(left, right),
            _ => unreachable!("a row of an inner join is a pair"),
        })
    }

    /// A row for each pair, and one for each record of the first stream that meets none. See [`KeyedStream::window_join`].
    #[track_caller]
    pub fn left_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Windowed<K::Key, O>>>
    where
        O: Send + 'static,
        F: Fn(&L, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Left, move |left, right| match left {
            Some(left) => f(left, right),
            None => unreachable!("each row of a left join has a left side"),
        })
    }

    /// A row for each pair, and one for each record of the second stream that meets none. See [`KeyedStream::window_join`].
    #[track_caller]
    pub fn right_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Windowed<K::Key, O>>>
    where
        O: Send + 'static,
        F: Fn(Option<&L>, &R) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Right, move |left, right| match right {
            Some(right) => f(left, right),
            None => unreachable!("each row of a right join has a right side"),
        })
    }

    /// A row for each pair, and one for each record of either stream that meets none: one of both is always there. See [`KeyedStream::window_join`].
    #[track_caller]
    pub fn full_outer<O, F>(self, f: F) -> Stream<impl Pipeline<Item = Windowed<K::Key, O>>>
    where
        O: Send + 'static,
        F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    {
        self.rows(Join::Full, f)
    }

    /// The records of the first stream that meet any of the second, each once. See [`KeyedStream::window_join`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Tumbling, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("seen, and clicked in the same minute");
    /// let at = |e: &(u64, i64)| EventTime::from_seconds(e.1);
    /// let seen = job.source(sources::items([(7u64, 1), (8, 2), (9, 50)]));
    /// let clicks = job.source(sources::items([(7u64, 5), (7, 6), (9, 61)]));
    /// let seen = seen.event_time(at, Watermarks::monotonous()).key_by(|e| e.0);
    /// let clicks = clicks.event_time(at, Watermarks::monotonous()).key_by(|e| e.0);
    /// seen.window_join(clicks, Tumbling::of(1.minutes())).semi().map(|w| w.value).sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), [(7, 1)]);
    /// ```
    #[track_caller]
    pub fn semi(self) -> Stream<impl Pipeline<Item = Windowed<K::Key, L>>> {
        self.rows(Join::Semi, left_itself)
    }

    /// The records of the first stream that meet none of the second. See [`KeyedStream::window_join`].
    #[track_caller]
    pub fn anti(self) -> Stream<impl Pipeline<Item = Windowed<K::Key, L>>> {
        self.rows(Join::Anti, left_itself)
    }

    #[track_caller]
    fn rows<O, F>(self, join: Join, f: F) -> Stream<impl Pipeline<Item = Windowed<K::Key, O>>>
    where
        O: Send + 'static,
        F: Fn(Option<&L>, Option<&R>) -> O + Clone + Send + 'static,
    {
        let met = self.windows.aggregate_with(Meeting {
            join,
            types: PhantomData,
        });
        met.flat_map(move |windowed: Windowed<K::Key, Met<L, R>>| Rows {
            key: windowed.key,
            window: windowed.window,
            firing: windowed.firing,
            met: windowed.value,
            join,
            at: (0, 0),
            f: f.clone(),
        })
    }
}

fn left_itself<L: Clone, R>(left: Option<&L>, _: Option<&R>) -> L {
    match left {
        Some(left) => left.clone(),
        None => unreachable!("each row has a left side"),
    }
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// Pairs.
    Inner,
    /// Pairs, and lefts that are alone.
    Left,
    /// Pairs, and rights that are alone.
    Right,
    /// Pairs, and whoever is alone.
    Full,
    /// Lefts that are not alone, once.
    Semi,
    /// Lefts that are alone.
    Anti,
}

impl Join {
    /// Whether any rows come of so many of both sides.
    fn gives_rows(self, lefts: usize, rights: usize) -> bool {
        match self {
            Join::Inner | Join::Semi => lefts > 0 && rights > 0,
            Join::Left => lefts > 0,
            Join::Right => rights > 0,
            Join::Full => true,
            Join::Anti => lefts > 0 && rights == 0,
        }
    }
}

/// What a window holds of both sides.
#[crate::state(version = 2)]
#[derive(Clone, Debug)]
pub struct Met<L, R> {
    left: Few<L>,
    right: Few<R>,
}

/// Records of a key and window, each with its place. Most often there is one, and it takes no memory of its own.
#[crate::state(version = 1)]
#[derive(Clone, Debug)]
pub struct Few<T> {
    first: Option<(At, T)>,
    /// Empty where there is no first.
    rest: Vec<(At, T)>,
}

impl<T> Few<T> {
    const EMPTY: Few<T> = Few {
        first: None,
        rest: vec![],
    };

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    #[inline]
    fn push(&mut self, record: (At, T)) {
        match self.first {
            None => self.first = Some(record),
            Some(_) => self.rest.push(record),
        }
    }

    fn get(&self, at: usize) -> Option<&T> {
        let record = match at.checked_sub(1) {
            None => self.first.as_ref(),
            Some(at) => self.rest.get(at),
        };
        record.map(|(_, record)| record)
    }

    /// By their places: as they most often are.
    fn sort(&mut self) {
        if let Some(first) = self.first.take_if(|first| match self.rest.first() {
            Some(second) => first.0 > second.0 || !self.rest.is_sorted_by_key(|(at, _)| *at),
            None => false,
        }) {
            self.rest.push(first);
            self.rest.sort_by_key(|(at, _)| *at);
            self.first = Some(self.rest.remove(0));
        }
    }
}

impl<T: Clone> Few<T> {
    fn extend(&mut self, other: &Few<T>) {
        let records = other.first.iter().chain(&other.rest);
        records.for_each(|record| self.push(record.clone()));
    }
}

/// Collects both sides.
#[allow(missing_debug_implementations)]
struct Meeting<L, R> {
    join: Join,
    types: PhantomData<fn() -> (L, R)>,
}

impl<L, R> Clone for Meeting<L, R> {
    fn clone(&self) -> Self {
        Meeting { ..*self }
    }
}

impl<L: Clone + State, R: Clone + State> Aggregate<Sides<L, R>> for Meeting<L, R> {
    type Acc = Met<L, R>;
    type Out = Met<L, R>;
    const NEEDS_ORIGINS: bool = true;
    const GROWS: bool = true;
    fn create(&self) -> Met<L, R> {
        Met {
            left: Few::EMPTY,
            right: Few::EMPTY,
        }
    }
    #[inline]
    fn add(&self, met: &mut Met<L, R>, record: &Sides<L, R>, at: At) {
        match record {
            Sides::Left(record) => met.left.push((at, record.clone())),
            Sides::Right(record) => met.right.push((at, record.clone())),
        }
    }
    fn merge(&self, met: &mut Met<L, R>, other: &Met<L, R>) {
        met.left.extend(&other.left);
        met.right.extend(&other.right);
    }
    /// Law 2. Of what no row comes of nothing is told.
    fn finish(&self, met: &Met<L, R>) -> Met<L, R> {
        if !self.join.gives_rows(met.left.len(), met.right.len()) {
            return self.create();
        }
        let mut met = met.clone();
        met.left.sort();
        met.right.sort();
        met
    }
}

/// The rows of a window, made one by one.
#[allow(missing_debug_implementations)]
pub struct Rows<K, L, R, F> {
    key: K,
    window: Window,
    firing: Firing,
    met: Met<L, R>,
    join: Join,
    /// The next pair. Where a side is empty, the other's next.
    at: (usize, usize),
    f: F,
}

impl<K: Key, L, R, O, F: Fn(Option<&L>, Option<&R>) -> O> Rows<K, L, R, F> {
    /// The places of the next row.
    fn next_places(&mut self) -> Option<(Option<usize>, Option<usize>)> {
        let (lefts, rights) = (self.met.left.len(), self.met.right.len());
        let (left, right) = self.at;
        let pairs = matches!(
            self.join,
            Join::Inner | Join::Left | Join::Right | Join::Full
        );
        let left_alone = matches!(self.join, Join::Left | Join::Full | Join::Anti);
        let right_alone = matches!(self.join, Join::Right | Join::Full);
        if lefts > 0 && rights > 0 && pairs {
            if left == lefts {
                return None;
            }
            self.at = match right + 1 == rights {
                true => (left + 1, 0),
                false => (left, right + 1),
            };
            return Some((Some(left), Some(right)));
        }
        let one_by_one = match rights {
            0 => left_alone,
            _ => self.join == Join::Semi,
        };
        if left < lefts && one_by_one {
            self.at.0 += 1;
            return Some((Some(left), None));
        }
        if lefts == 0 && right_alone && right < rights {
            self.at.1 += 1;
            return Some((None, Some(right)));
        }
        None
    }
}

impl<K: Key, L, R, O, F: Fn(Option<&L>, Option<&R>) -> O> Iterator for Rows<K, L, R, F> {
    type Item = Windowed<K, O>;

    fn next(&mut self) -> Option<Windowed<K, O>> {
        let (left, right) = self.next_places()?;
        let left = left.and_then(|at| self.met.left.get(at));
        let right = right.and_then(|at| self.met.right.get(at));
        Some(Windowed {
            key: self.key.clone(),
            window: self.window,
            value: (self.f)(left, right),
            firing: self.firing,
        })
    }
}
