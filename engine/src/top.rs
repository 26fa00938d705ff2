//! `top`: the n best records of each key, told as they change.
//!
//! Laws
//! 1. What stands for a key is the n records of the greatest score that have come, ties by (event time, origin), the earlier first:
//!    the same whatever the order in which they came (class NET).
//! 2. Without ranks a record that gets in is a `+I`, and before it comes a `-D` of the one that it drives out. With ranks each place from
//!    its own down tells whom it had (`-U`) and whom it has now (`+U`), from the best down, and a new last place is a `+I`.
//! 3. A record that does not get in tells nothing.
//!
//! State: n records for each key, best first, with their places. Records only come, so what was driven out never returns and is not kept.
//! A record that does not get in costs one comparison, one that does O(log n) and O(n) moves. One allocation a key where n rows are small
//! ([`ROOM_BYTES`]); what of it a record will look at is asked of the cache beside that of others.

use crate::aggregate::{At, Ordered, Rank};
use crate::change::{Change, Kind};
use crate::changelog::{maker, results};
use crate::key::{Key, KeyOf};
use crate::keyed::KeyedStream;
use crate::operators::changing::Changing;
use crate::ordered::OrderedStream;
use crate::pipeline::Pipeline;
use crate::process::ProcessInput;
use crate::push::OpId;
use crate::state::State;
use crate::stream::Stream;
use pelton_ring::prefetch_tail;
use std::marker::PhantomData;
use std::panic::Location;

/// No ranking is longer: what gets in moves all below it in one step.
pub(crate) const LONGEST: usize = 1_000;
/// Room that a ranking gets at once, and what it grows by at least.
const ROOM_BYTES: usize = 1 << 10;
/// Records that are compared one by one.
const FEW: usize = 16;
/// Cache lines of a ranking that are asked for before it is looked at.
const ASKED_LINES: usize = 4;

/// A record and its place in the ranking of its key.
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ranked<T> {
    /// 1 for the best.
    pub rank: u32,
    /// The record.
    pub row: T,
}

impl<P: Pipeline, K: KeyOf<P::Item>> KeyedStream<P, K> {
    /// The `n` records of the greatest score (1 to 1 000) of each key, told as they change: a record that gets in is a `+I`, after a `-D` of
    /// the one that it drives out. Equal scores go by (event time, source, partition, offset), the earlier first. For the least,
    /// `|r| Reverse(..)`; for floats see [`Ordered`]. What stands at the end of a window is [`Aggs::top_k_by`](crate::aggregate::Aggs::top_k_by).
    ///
    /// Class NET: what stands in the end is the same in every run. Behind [`KeyedStream::in_event_time_order`] every change is (class
    /// ROWS). No record is too late. State: `n` records for each key, never dropped, of which a warning tells (PLT-0203). O(log n) a record, O(n) where it gets in.
    /// (Continuous top-N as in Flink's append-only `ROW_NUMBER() <= n`.)
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("highest bids");
    /// job.source(sources::items([("vase", 5), ("vase", 3), ("vase", 4), ("vase", 1)].map(|b| (b.0.to_string(), b.1))))
    ///    .key_by(|b| b.0.clone())
    ///    .top(2, |b| b.1)
    ///    .map(|c| c.map(|b| b.1).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 5", "+I 3", "-D 3", "+I 4"]);
    /// ```
    #[track_caller]
    pub fn top<V: Ordered>(
        self,
        n: usize,
        score: impl Fn(&P::Item) -> V + Clone + Send + 'static,
    ) -> Stream<impl Pipeline<Item = Change<P::Item>>>
    where
        P::Item: Clone + State,
    {
        of::<_, _, _, _, _, Bare>(self, n, score, Location::caller())
    }

    /// As [`KeyedStream::top`], with ranks: a record that gets in replaces the one at its rank (`-U`, `+U`), which goes to the next one, and so on
    /// down; a rank that had nobody is a `+I`. Up to 2 n changes a record. Class, state and late records are those of `top`.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("highest bids");
    /// job.source(sources::items([5, 3, 4]))
    ///    .key_by(|_| 'a')
    ///    .top_with_rank(2, |b| *b)
    ///    .map(|c| c.map(|r| format!("{}:{}", r.rank, r.row)).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 1:5", "+I 2:3", "-U 2:3", "+U 2:4"]);
    /// ```
    #[track_caller]
    pub fn top_with_rank<V: Ordered>(
        self,
        n: usize,
        score: impl Fn(&P::Item) -> V + Clone + Send + 'static,
    ) -> Stream<impl Pipeline<Item = Change<Ranked<P::Item>>>>
    where
        P::Item: Clone + State,
    {
        of::<_, _, _, _, _, Numbered>(self, n, score, Location::caller())
    }
}

impl<P: Pipeline<Item: State + Clone>, K: KeyOf<P::Item>> OrderedStream<P, K> {
    /// As [`KeyedStream::top`], in event-time order: every change is fixed (class ROWS). Late records are dropped before it, as of [`OrderedStream`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("highest so far");
    /// job.source(sources::items([(1, 5), (3, 9), (2, 7)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .top(1, |r| r.1)
    ///    .map(|c| c.map(|r| r.1).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 5", "-D 5", "+I 7", "-D 7", "+I 9"]);
    /// ```
    #[track_caller]
    pub fn top<V: Ordered>(
        self,
        n: usize,
        score: impl Fn(&P::Item) -> V + Clone + Send + 'static,
    ) -> Stream<impl Pipeline<Item = Change<P::Item>>> {
        of::<_, _, _, _, _, Bare>(self, n, score, Location::caller())
    }

    /// As [`KeyedStream::top_with_rank`], in event-time order: every change is fixed (class ROWS). Late records are dropped before it, as of
    /// [`OrderedStream`].
    ///
    /// ```
    /// use pelton::{EventTime, Job, Spans, Watermarks, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("highest so far");
    /// job.source(sources::items([(1, 5), (2, 7)]))
    ///    .event_time(|r| EventTime::from_seconds(r.0), Watermarks::bounded(5.seconds()))
    ///    .key_by(|_| 'a')
    ///    .in_event_time_order()
    ///    .top_with_rank(1, |r| r.1)
    ///    .map(|c| c.map(|r| format!("{}:{}", r.rank, r.row.1)).to_string())
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// assert_eq!(results.take(), ["+I 1:5", "-U 1:5", "+U 1:7"]);
    /// ```
    #[track_caller]
    pub fn top_with_rank<V: Ordered>(
        self,
        n: usize,
        score: impl Fn(&P::Item) -> V + Clone + Send + 'static,
    ) -> Stream<impl Pipeline<Item = Change<Ranked<P::Item>>>> {
        of::<_, _, _, _, _, Numbered>(self, n, score, Location::caller())
    }
}

fn of<I, T, K, V, F, S>(
    input: I,
    n: usize,
    score: F,
    location: &'static Location<'static>,
) -> Stream<impl Pipeline<Item = Change<S::Row>>>
where
    I: ProcessInput<T, K>,
    T: Clone + State,
    K: KeyOf<T>,
    V: Ordered,
    F: Fn(&T) -> V + Clone + Send + 'static,
    S: Says<T>,
{
    let op: OpId = input.note_kept("top", location);
    let wrong = (n == 0 || n > LONGEST).then(|| {
        (
            format!("it is to keep the {n} best records of a key"),
            format!("give 1 to {LONGEST}"),
        )
    });
    input.check(op, false, wrong);
    let top = Top::<V, F, S> {
        n,
        score,
        types: PhantomData,
    };
    input.place(op, results(I::IN_ORDER), move |key| maker(key, top, op))
}

/// A record that stands, with what its place goes by.
pub(crate) type Row<V, T> = (Rank<V>, At, T);

/// The rows of a ranking: with ranks or without.
#[allow(private_interfaces)]
pub trait Says<T>: Send + 'static {
    /// A row.
    type Row: Send + 'static;
    /// Tells that `ranking`, which is full if one is driven out, takes in a record at `place`, before it does. Who is driven out has left
    /// it.
    fn enters<V: Ordered>(
        ranking: &[Row<V, T>],
        place: usize,
        record: &T,
        driven_out: Option<T>,
        to: &mut Vec<Change<Self::Row>>,
    );
}

/// Rows without ranks.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

#[allow(private_interfaces)]
impl<T: Clone + Send + 'static> Says<T> for Bare {
    type Row = T;
    #[inline(always)]
    fn enters<V: Ordered>(
        _: &[Row<V, T>],
        _: usize,
        record: &T,
        driven_out: Option<T>,
        to: &mut Vec<Change<T>>,
    ) {
        if let Some(driven_out) = driven_out {
            to.push(Change::new(Kind::Delete, driven_out));
        }
        to.push(Change::new(Kind::Insert, record.clone()));
    }
}

/// Rows with ranks.
#[derive(Clone, Copy, Debug)]
pub struct Numbered;

#[allow(private_interfaces)]
impl<T: Clone + Send + 'static> Says<T> for Numbered {
    type Row = Ranked<T>;
    fn enters<V: Ordered>(
        ranking: &[Row<V, T>],
        place: usize,
        record: &T,
        driven_out: Option<T>,
        to: &mut Vec<Change<Ranked<T>>>,
    ) {
        let mut enters = record;
        let mut rank = place as u32;
        let mut say = |kind, rank, row: &T| {
            let row = row.clone();
            to.push(Change::new(kind, Ranked { rank, row }));
        };
        let stood = ranking[place..].iter().map(|(_, _, row)| row);
        for stood in stood.chain(&driven_out) {
            rank += 1;
            say(Kind::UpdateBefore, rank, stood);
            say(Kind::UpdateAfter, rank, enters);
            enters = stood;
        }
        if driven_out.is_none() {
            say(Kind::Insert, rank + 1, enters);
        }
    }
}

/// See the module.
pub(crate) struct Top<V, F, S> {
    pub n: usize,
    pub score: F,
    pub types: PhantomData<fn() -> (V, S)>,
}

// Whatever says it.
impl<V, F: Clone, S> Clone for Top<V, F, S> {
    fn clone(&self) -> Self {
        Top {
            n: self.n,
            score: self.score.clone(),
            types: PhantomData,
        }
    }
}

impl<T, K, V, F, S> Changing<T, K> for Top<V, F, S>
where
    T: Clone + State,
    K: Key,
    V: Ordered,
    F: Fn(&T) -> V + Clone + Send + 'static,
    S: Says<T>,
{
    /// Best first.
    type State = Vec<Row<V, T>>;
    type Row = S::Row;
    const NEEDS_ORIGINS: bool = true;
    const LIES_APART: bool = true;

    /// With another n the rows that a ranking told are not those that it holds: such a job is refused.
    fn state_name(&self) -> String {
        format!("top {}", self.n)
    }

    fn first(&self, key: &K, record: &T, at: At, to: &mut Vec<Change<S::Row>>) -> Self::State {
        let mut ranking = vec![];
        self.add(key, &mut ranking, record, at, |_| (), to);
        ranking
    }

    /// The last ones: a record is compared with them first, and most get in near the end.
    #[inline(always)]
    fn ask_for(&self, ranking: &Self::State) {
        prefetch_tail(ranking, ASKED_LINES);
    }

    #[inline(always)]
    fn add(
        &self,
        _: &K,
        ranking: &mut Self::State,
        record: &T,
        at: At,
        touch: impl FnOnce(&Self::State),
        to: &mut Vec<Change<S::Row>>,
    ) {
        let score = (self.score)(record);
        let is_full = ranking.len() == self.n;
        if is_full && ranking.last().is_some_and(|last| stays(last, &score, at)) {
            return;
        }
        touch(ranking);
        let driven_out = match is_full {
            true => ranking.pop().map(|(_, _, row)| row),
            false => {
                self.make_room(ranking);
                None
            }
        };
        let place = place_of(ranking, &score, at);
        S::enters(ranking, place, record, driven_out, to);
        ranking.insert(place, (Rank::of(score), at, record.clone()));
    }
}

impl<V, F, S> Top<V, F, S> {
    /// Room for one more: for all n at once where they are small, so that a ranking that fills is never moved.
    #[inline(always)]
    fn make_room<R>(&self, ranking: &mut Vec<R>) {
        if ranking.len() == ranking.capacity() {
            let at_once = (ROOM_BYTES / size_of::<R>().max(1))
                .max(ranking.len())
                .max(1);
            ranking.reserve_exact((self.n - ranking.len()).min(at_once));
        }
    }
}

/// Whether a record that stands stays above one of this score and place that comes.
#[inline(always)]
fn stays<V: Ordered, T>((stands, stood, _): &Row<V, T>, score: &V, at: At) -> bool {
    let stands = stands.value();
    score.before(stands) || (!stands.before(score) && *stood < at)
}

/// How many stay above a record of this score and place. The last few one by one, since what is below the record moves anyway, and which of
/// them it is to be among is all that the processor has to guess.
#[inline(always)]
fn place_of<V: Ordered, T>(ranking: &[Row<V, T>], score: &V, at: At) -> usize {
    let few = ranking.len().saturating_sub(FEW);
    let mut place = ranking.len();
    while place > few {
        if stays(&ranking[place - 1], score, at) {
            return place;
        }
        place -= 1;
    }
    ranking[..few].partition_point(|row| stays(row, score, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Origin;
    use crate::time::EventTime;
    use proptest::prelude::*;

    /// Score, time, offset.
    type Record = (i64, i64, u64);

    fn at(record: &Record) -> At {
        At {
            time: EventTime::from_micros(record.1),
            origin: Origin {
                offset: record.2,
                ..Origin::default()
            },
        }
    }

    fn stands(ranking: &[Row<i64, Record>]) -> Vec<Record> {
        ranking.iter().map(|(_, _, row)| *row).collect()
    }

    /// Adds a record; whether it was told that the ranking, which was this then, is to change, and the changes.
    fn add<S: Says<Record>>(
        top: &Top<i64, fn(&Record) -> i64, S>,
        ranking: &mut Vec<Row<i64, Record>>,
        record: &Record,
    ) -> (Option<Vec<Record>>, Vec<Change<S::Row>>) {
        let (mut touched, mut changes) = (None, vec![]);
        let touch = |ranking: &Vec<_>| touched = Some(stands(ranking));
        top.add(&(), ranking, record, at(record), touch, &mut changes);
        (touched, changes)
    }

    fn top<S>(n: usize) -> Top<i64, fn(&Record) -> i64, S> {
        Top {
            n,
            score: |r| r.0,
            types: PhantomData,
        }
    }

    proptest! {
        /// Short and long ones, many of one score and time: what stands, what is told, and that the first touch sees what stood.
        #[test]
        fn it_is_what_sorting_gives(
            n in prop_oneof![1usize..12, 12usize..60],
            scores in 1i64..30,
            records in prop::collection::vec((0i64..30, 0i64..5), 0..200),
        ) {
            let (bare, numbered) = (top::<Bare>(n), top::<Numbered>(n));
            let (mut rows, mut ranks) = (vec![], vec![]);
            let mut model: Vec<Record> = vec![];
            for (offset, (score, time)) in (0..).zip(records) {
                // Offsets fall with the time at hand, so that ties go either way.
                let record = (score % scores, time, offset ^ 7);
                let stood = model.clone();
                model.push(record);
                model.sort_by_key(|r| (std::cmp::Reverse(r.0), r.1, r.2));
                model.truncate(n);
                let changed = model != stood;

                let (touched, told) = add(&bare, &mut rows, &record);
                prop_assert_eq!(stands(&rows), model.clone());
                prop_assert_eq!(touched, changed.then(|| stood.clone()));
                let driven_out = stood.iter().filter(|r| !model.contains(r));
                let mut expected: Vec<_> = driven_out.map(|r| Change::new(Kind::Delete, *r)).collect();
                expected.extend(changed.then(|| Change::new(Kind::Insert, record)));
                prop_assert_eq!(told, expected);

                let (touched, told) = add(&numbered, &mut ranks, &record);
                prop_assert_eq!(stands(&ranks), model.clone());
                prop_assert_eq!(touched, changed.then(|| stood.clone()));
                let mut expected = vec![];
                for (rank, row) in (1..).zip(&model) {
                    let say = |kind, row: &Record| Change::new(kind, Ranked { rank, row: *row });
                    match stood.get(rank as usize - 1) {
                        Some(had) if had == row => {}
                        Some(had) => {
                            expected.push(say(Kind::UpdateBefore, had));
                            expected.push(say(Kind::UpdateAfter, row));
                        }
                        None => expected.push(say(Kind::Insert, row)),
                    }
                }
                prop_assert_eq!(told, expected);
            }
        }
    }

    /// Small rankings get their room once, and no more than they need; a large one grows.
    #[test]
    fn room_is_made_once_and_fits() {
        let size = size_of::<Row<i64, Record>>();
        for (n, first) in [(1, 1), (10, 10), (1_000, ROOM_BYTES / size)] {
            let (top, mut ranking) = (top::<Bare>(n), vec![]);
            for offset in 0..3_000 {
                add(&top, &mut ranking, &(offset as i64, 0, offset));
                if offset == 0 {
                    assert_eq!(ranking.capacity(), first);
                }
            }
            assert_eq!(ranking.capacity(), n);
        }
        // What a restore has loaded has no room left.
        let (top, mut ranking) = (
            top::<Bare>(3),
            vec![(Rank::of(5), at(&(5, 0, 0)), (5, 0, 0))],
        );
        for offset in 1..9 {
            add(&top, &mut ranking, &(offset as i64, 0, offset));
        }
        assert_eq!((ranking.len(), ranking.capacity()), (3, 3));
    }

    /// The mark of a late comer that does not get in is its own, and not lost on the next one.
    #[test]
    fn changes_have_the_marks_of_their_records() {
        use crate::batch::Stamp;
        use crate::{Job, Watermarks, sink, sources, testing};
        use std::sync::{Arc, Mutex};
        let told = Arc::new(Mutex::new(vec![]));
        let (to, job) = (told.clone(), Job::new("marks"));
        let records = [(5, 10), (1, 3), (9, 4), (2, 11), (8, 5), (10, 12), (11, 6)];
        job.source(sources::items(records))
            .event_time(|r| EventTime::from_micros(r.1), Watermarks::monotonous())
            .key_by(|_| 'a')
            .top(1, |r| r.0)
            .sink(
                sink::callback("told", move |change: Change<(i32, i64)>, stamp: Stamp| {
                    let is_behind = stamp.behind.is_some();
                    to.lock()
                        .unwrap()
                        .push((change.map(|r| r.0).to_string(), is_behind));
                })
                .updates(),
            );
        testing::Stepper::new(&job, 1).unwrap().run().unwrap();
        let told = told.lock().unwrap();
        let told: Vec<_> = told
            .iter()
            .map(|(change, behind)| (change.as_str(), *behind))
            .collect();
        let expected = [
            ("+I 5", false),
            ("-D 5", true),
            ("+I 9", true),
            ("-D 9", false),
            ("+I 10", false),
            ("-D 10", true),
            ("+I 11", true),
        ];
        assert_eq!(told, expected);
    }
}
