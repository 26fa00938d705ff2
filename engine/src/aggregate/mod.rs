//! Aggregates: how many records become one value.
//!
//! Laws
//! 1. `merge(add(a, x), b)` equals `add(merge(a, b), x)`: an aggregate does not depend on the order in which records come.
//!    Where an order matters (first, last, collect, top-k) it is that of (event time, origin), and the aggregate says so by [`Aggregate::NEEDS_ORIGINS`].
//! 2. An aggregate is never asked for the value of no records: an empty window vanishes.
//! 3. An accumulator that has seen nothing is the identity of `merge`.
//! 4. Floats are never inverted (added and later subtracted); sums of floats are compensated. Law 1 holds for them within
//!    rounding, byte for byte only where an aggregate says so ([`Aggs::sum_exact`], [`Aggs::min`], ..). NaN and infinities have
//!    defined results.
//!
//! | aggregate | result | a key takes | by origin |
//! |---|---|---|---|
//! | [`Aggs::count`] | `u64` | 8 bytes | |
//! | [`Aggs::sum`] | `i64`, `u64`, `f64` | 8 or 16 bytes | |
//! | [`Aggs::sum_exact`] | `f64`, byte-equal | 24 bytes; 312 for a wide range of values | |
//! | [`Aggs::avg`] | `f64` | 16 or 24 bytes | |
//! | [`Aggs::variance`], [`Aggs::stddev`] | `f64` | 48 bytes | |
//! | [`Aggs::min`], [`Aggs::max`] | the value's type | the value | |
//! | [`Aggs::any`], [`Aggs::all`] | `bool` | 1 byte | |
//! | [`Aggs::first`], [`Aggs::last`] | the value's type | the value and 32 bytes | yes |
//! | [`Aggs::collect`] | `Vec` | 24 bytes, and (the value and 32 bytes) for each record | yes |
//! | [`Aggs::top_k`], [`Aggs::top_k_by`] | `Vec` of at most k | 24 bytes, and (the value and 32 bytes) for each of k | yes |
//! | [`Aggs::count_distinct`] | `u64` | 24 bytes, and each distinct value once | |
//! | [`Aggs::count_distinct_approx`] | `u64`, 1.6 % | 96 bytes, and 32 up to 7 values, growing to 4 KiB at 384 | |
//! | [`Aggs::fold`], [`Aggs::map`], a type of your own | yours | yours | |
//!
//! Some can take records away again ([`Retracts`]), and keep other things for that: see `retract.rs` and [`KeyedStream::apply_changes`](crate::KeyedStream::apply_changes).

mod avg;
mod basic;
mod collect;
mod distinct;
mod edge_values;
mod exact_sum;
mod fold;
mod moments;
mod ordered;
mod retract;
#[cfg(test)]
pub(crate) mod scramble;
mod sum;
mod top_k;
mod tuple;

pub use avg::Avg;
pub use basic::{All, Any, Count, Max, Min};
pub use collect::{Collect, Collected};
pub use distinct::{Accuracy, CountDistinct, CountDistinctApprox, Distinct, DistinctSketch};
pub use edge_values::{First, Last};
pub use exact_sum::{Exact, ExactSum};
pub use fold::{Fold, Mapped};
pub use moments::{Deviations, Moments, Real};
pub use ordered::{Ordered, Rank};
pub use retract::{Bags, Integer, Own, Retractable, Retracts};
pub use sum::{Compensated, Number, Sum, Wide};
pub use top_k::{Best, TopK, TopKBy};

use crate::batch::{Batch, Origin};
use crate::state::State;
use crate::time::EventTime;
use std::marker::PhantomData;

/// The place of a record in the order of its stream: (event time, origin).
#[crate::state(version = 1)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Its event time.
    pub time: EventTime,
    /// Where it came from; the default where the aggregate did not ask for origins.
    pub origin: Origin,
}

impl At {
    /// The place of a batch's record.
    #[inline(always)]
    pub(crate) fn of<T>(batch: &Batch<T>, index: usize) -> At {
        At {
            time: batch.times[index],
            origin: batch.origin(index),
        }
    }
}

/// Turns records of type `T` into one value. Cheap to clone: one clone a shard.
///
/// One of your own, used by `aggregate_with` or beside others in a tuple. The laws above are its to keep:
///
/// ```
/// use pelton::aggregate::{Aggregate, At};
/// use pelton::testing::{self, Stepper};
/// use pelton::{EventTime, Job, Spans, Tumbling, Watermarks};
///
/// /// The geometric mean of positive values.
/// #[derive(Clone)]
/// struct GeometricMean;
///
/// impl Aggregate<(i64, f64)> for GeometricMean {
///     type Acc = (f64, u64);
///     type Out = f64;
///     fn create(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///     fn add(&self, acc: &mut (f64, u64), record: &(i64, f64), _: At) {
///         acc.0 += record.1.ln();
///         acc.1 += 1;
///     }
///     fn merge(&self, acc: &mut (f64, u64), other: &(f64, u64)) {
///         acc.0 += other.0;
///         acc.1 += other.1;
///     }
///     fn finish(&self, acc: &(f64, u64)) -> f64 {
///         (acc.0 / acc.1 as f64).exp()
///     }
/// }
///
/// let (feed, source) = testing::feed(1);
/// let (results, sink) = testing::collect();
/// let job = Job::new("means");
/// job.source(source)
///    .event_time(|r: &(i64, f64)| EventTime::from_seconds(r.0), Watermarks::monotonous())
///    .key_by(|_| 0u8)
///    .window(Tumbling::of(10.seconds()))
///    .aggregate(|a| (a.count(), GeometricMean))
///    .sink(sink);
/// let mut stepper = Stepper::new(&job, 1).unwrap();
/// for record in [(1, 2.0), (2, 8.0), (11, 1.0)] {
///     feed.push(0, record);
/// }
/// stepper.until_idle().unwrap();
/// let (count, mean) = results.take()[0].value;
/// assert_eq!(count, 2);
/// assert!((mean - 4.0).abs() < 1e-12);
/// ```
pub trait Aggregate<T>: Clone + Send + 'static {
    /// What is kept for each key and window, and in checkpoints.
    type Acc: Clone + State;
    /// The result.
    type Out: Clone + Send + 'static;
    /// Whether it breaks ties by origin: only then do records carry theirs.
    const NEEDS_ORIGINS: bool = false;
    /// Whether an accumulator grows with its records (a list, a set): sliding windows then keep each record in one
    /// partial result and merge these anew for each window, instead of keeping sums of them.
    const GROWS: bool = false;
    /// An accumulator that has seen nothing.
    fn create(&self) -> Self::Acc;
    /// Takes a record.
    fn add(&self, acc: &mut Self::Acc, record: &T, at: At);
    /// Takes what another accumulator has seen.
    fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc);
    /// The value so far.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;
}

/// Makes aggregates whose closures know the record's type: `|a| (a.count(), a.sum(|o| o.total))`.
#[derive(Debug)]
pub struct Aggs<T>(PhantomData<fn(T)>);

impl<T> Aggs<T> {
    pub(crate) fn new() -> Self {
        Aggs(PhantomData)
    }
}

#[cfg(test)]
mod tests {
    use super::{Aggregate, Aggs};
    use crate::testing::{self, Sizes, Stepper};
    use crate::{EventTime, Job, Spans, Tumbling, Watermarks};

    fn needs_origins<A: Aggregate<(i64, u32)>>(_: &A) -> bool {
        A::NEEDS_ORIGINS
    }

    #[test]
    fn those_that_go_by_place_ask_for_origins() {
        let a = Aggs::<(i64, u32)>::new();
        assert!(needs_origins(&a.first(|r| r.1)) && needs_origins(&a.last(|r| r.1)));
        assert!(needs_origins(&a.collect(|r| r.1)) && needs_origins(&a.top_k(2, |r| r.1)));
        assert!(needs_origins(&(a.count(), a.top_k_by(2, |r| r.1, |r| r.1))));
        let rest = (a.count(), a.sum(|r| r.1), a.avg(|r| r.1), a.stddev(|r| r.1));
        let more = (
            a.count_distinct(|r| r.1),
            a.count_distinct_approx(|r| r.1),
            a.sum_exact(|r| r.1),
            a.max(|r| r.1),
        );
        assert!(!needs_origins(&rest) && !needs_origins(&more));
    }

    /// Records of equal time from three partitions: the job's order is that of (time, partition, offset) on any shards.
    #[test]
    fn a_job_orders_equal_times_by_origin() {
        let mut records: Vec<(i64, usize, u32)> = Vec::new();
        for offset in 0..40u32 {
            for partition in 0..3usize {
                records.push((
                    i64::from(offset) / 4,
                    partition,
                    offset * 3 + partition as u32,
                ));
            }
        }
        let of_key = |key: u32| {
            let mut mine: Vec<_> = records.iter().filter(|r| r.2 % 5 == key).collect();
            mine.sort();
            mine.iter().map(|r| r.2).collect::<Vec<_>>()
        };
        for shards in [1, 2, 3] {
            let (feed, source) = testing::feed::<(i64, u32)>(3);
            let (results, sink) = testing::collect();
            let job = Job::new("order");
            job.source(source)
                .event_time(|r| EventTime::from_seconds(r.0), Watermarks::monotonous())
                .key_by(|r| r.1 % 5)
                .window(Tumbling::of(10.seconds()))
                .aggregate(|a| {
                    let top = a.top_k_by(3, |r| r.1 % 2, |r| r.1);
                    (a.first(|r| r.1), a.last(|r| r.1), a.collect(|r| r.1), top)
                })
                .sink(sink);
            let mut sizes = Sizes::shards(shards);
            sizes.batch_size = 7;
            let mut stepper = Stepper::with(&job, sizes).unwrap();
            // The last partition first.
            for partition in [2, 0, 1] {
                for r in records.iter().filter(|r| r.1 == partition) {
                    feed.push(partition, (r.0, r.2));
                }
                feed.close(partition);
                stepper.until_idle().unwrap();
            }
            let results = results.take();
            assert_eq!(results.len(), 5, "{shards} shards");
            for w in results {
                let all = of_key(w.key);
                let mut top = all.clone();
                top.sort_by_key(|v| std::cmp::Reverse(v % 2));
                top.truncate(3);
                assert_eq!(
                    w.value,
                    (all[0], all[all.len() - 1], all, top),
                    "{shards} shards"
                );
            }
        }
    }
}
