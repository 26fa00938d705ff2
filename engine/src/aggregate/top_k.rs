//! The k greatest.

use super::{Aggregate, Aggs, At, Ordered, Rank};
use crate::state::{Shape, State};
use std::marker::PhantomData;

impl<T: 'static> Aggs<T> {
    /// The `k` greatest values, greatest first; fewer if there are fewer records. Equal values go by (event time,
    /// origin), the earlier first. For the least, `top_k(k, |r| Reverse(..))`. For floats see [`Ordered`]: NaN is greatest.
    /// O(log k) where a record gets in, O(1) where it does not; a key takes 24 bytes and for each of the k the value and 32 bytes.
    ///
    /// ```
    /// # use pelton::aggregate::{Aggs, Aggregate};
    /// # struct Order { total: f64 }
    /// # fn f(a: &Aggs<Order>) -> impl Aggregate<Order, Out = Vec<f64>> {
    /// a.top_k(3, |o| o.total)
    /// # }
    /// ```
    pub fn top_k<V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static>(
        &self,
        k: usize,
        f: F,
    ) -> TopK<F, V> {
        TopK {
            k,
            f,
            value: PhantomData,
        }
    }

    /// What `what` makes of the `k` records of the greatest `rank`, greatest first; ties as in [`Aggs::top_k`].
    /// `what` is called only for records that get in. With rank `()` it gives the first k by (event time, origin).
    ///
    /// ```
    /// # use pelton::aggregate::{Aggs, Aggregate};
    /// # struct Order { total: f64, id: u64 }
    /// # fn f(a: &Aggs<Order>) -> impl Aggregate<Order, Out = Vec<u64>> {
    /// a.top_k_by(3, |o| o.total, |o| o.id)
    /// # }
    /// ```
    pub fn top_k_by<V, R, W, F>(&self, k: usize, rank: R, what: F) -> TopKBy<R, F, V, W>
    where
        V: Ordered,
        W: Clone + State,
        R: Fn(&T) -> V + Clone + Send + 'static,
        F: Fn(&T) -> W + Clone + Send + 'static,
    {
        TopKBy {
            k,
            rank,
            what,
            value: PhantomData,
        }
    }
}

/// The best so far: a heap of at most k with the worst on top (index 0).
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Clone, Debug)]
pub struct Best<V: Ordered, W>(Vec<(Rank<V>, At, W)>);

impl<V: Ordered, W: State> State for Best<V, W> {
    fn shape(out: &mut Shape) {
        out.text("best ");
        out.part::<Vec<(Rank<V>, At, W)>>();
    }
}

/// Whether the first is worse than the second: of lower rank, or of equal rank and later. Total where places differ.
#[inline]
fn worse<V: Ordered>(a: (&V, At), b: (&V, At)) -> bool {
    a.0.before(b.0) || (!b.0.before(a.0) && a.1 > b.1)
}

impl<V: Ordered, W: Clone> Best<V, W> {
    #[inline]
    fn offer(&mut self, k: usize, rank: V, at: At, what: impl FnOnce() -> W) {
        let heap = &mut self.0;
        if heap.len() < k {
            heap.push((Rank(rank), at, what()));
            self.rise();
        } else if let Some(worst) = heap.first_mut()
            && worse((&worst.0.0, worst.1), (&rank, at))
        {
            *worst = (Rank(rank), at, what());
            self.sink();
        }
    }

    fn worse_at(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.0[a], &self.0[b]);
        worse((&a.0.0, a.1), (&b.0.0, b.1))
    }

    /// Brings the last entry to its place.
    fn rise(&mut self) {
        let mut at = self.0.len() - 1;
        while at > 0 && self.worse_at(at, (at - 1) / 2) {
            self.0.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    /// Brings the first entry to its place.
    fn sink(&mut self) {
        let mut at = 0;
        loop {
            let mut down = 2 * at + 1;
            if down >= self.0.len() {
                return;
            }
            if down + 1 < self.0.len() && self.worse_at(down + 1, down) {
                down += 1;
            }
            if !self.worse_at(down, at) {
                return;
            }
            self.0.swap(at, down);
            at = down;
        }
    }

    fn merge(&mut self, k: usize, other: &Self) {
        for (rank, at, what) in &other.0 {
            self.offer(k, rank.0.clone(), *at, || what.clone());
        }
    }

    /// Best first.
    fn sorted(&self) -> Vec<&(Rank<V>, At, W)> {
        let mut order: Vec<_> = self.0.iter().collect();
        order.sort_unstable_by(|a, b| {
            if worse((&b.0.0, b.1), (&a.0.0, a.1)) {
                std::cmp::Ordering::Less
            } else if worse((&a.0.0, a.1), (&b.0.0, b.1)) {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Equal
            }
        });
        order
    }
}

/// See [`Aggs::top_k`].
#[derive(Clone, Copy, Debug)]
pub struct TopK<F, V> {
    k: usize,
    f: F,
    value: PhantomData<fn() -> V>,
}

impl<T, V: Ordered, F: Fn(&T) -> V + Clone + Send + 'static> Aggregate<T> for TopK<F, V> {
    type Acc = Best<V, ()>;
    type Out = Vec<V>;
    const NEEDS_ORIGINS: bool = true;
    #[inline(always)]
    fn create(&self) -> Best<V, ()> {
        Best(Vec::new())
    }
    #[inline]
    fn add(&self, acc: &mut Best<V, ()>, record: &T, at: At) {
        acc.offer(self.k, (self.f)(record), at, || ());
    }
    fn merge(&self, acc: &mut Best<V, ()>, other: &Best<V, ()>) {
        acc.merge(self.k, other);
    }
    fn finish(&self, acc: &Best<V, ()>) -> Vec<V> {
        acc.sorted().into_iter().map(|e| e.0.0.clone()).collect()
    }
}

/// See [`Aggs::top_k_by`].
#[derive(Clone, Copy, Debug)]
pub struct TopKBy<R, F, V, W> {
    k: usize,
    rank: R,
    what: F,
    value: PhantomData<fn() -> (V, W)>,
}

impl<T, V, W, R, F> Aggregate<T> for TopKBy<R, F, V, W>
where
    V: Ordered,
    W: Clone + State,
    R: Fn(&T) -> V + Clone + Send + 'static,
    F: Fn(&T) -> W + Clone + Send + 'static,
{
    type Acc = Best<V, W>;
    type Out = Vec<W>;
    const NEEDS_ORIGINS: bool = true;
    #[inline(always)]
    fn create(&self) -> Best<V, W> {
        Best(Vec::new())
    }
    #[inline]
    fn add(&self, acc: &mut Best<V, W>, record: &T, at: At) {
        acc.offer(self.k, (self.rank)(record), at, || (self.what)(record));
    }
    fn merge(&self, acc: &mut Best<V, W>, other: &Best<V, W>) {
        acc.merge(self.k, other);
    }
    fn finish(&self, acc: &Best<V, W>) -> Vec<W> {
        acc.sorted().into_iter().map(|e| e.2.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scramble::{cases, plans, scrambled};
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn the_greatest_in_order_and_ties_by_place(values in prop::collection::vec(0u32..12, 0..60), k in 0usize..12, plan in plans()) {
            let records: Vec<(u32, u64)> = values.iter().copied().zip(0..).collect();
            let a = Aggs::<(u32, u64)>::new();
            let all = (
                a.top_k(k, |r| r.0),
                a.top_k_by(k, |r| r.0, |r| *r),
                a.top_k_by(k, |r| Reverse(r.0), |r| *r),
                a.top_k_by(k, |_| (), |r| r.1),
            );
            let got = scrambled(&all, &records, &plan);
            let mut down = records.clone();
            down.sort_by_key(|r| (Reverse(r.0), r.1));
            down.truncate(k);
            let mut up = records.clone();
            up.sort();
            up.truncate(k);
            prop_assert_eq!(got.0, down.iter().map(|r| r.0).collect::<Vec<_>>());
            prop_assert_eq!(got.1, down);
            prop_assert_eq!(got.2, up);
            prop_assert_eq!(got.3, (0..records.len().min(k) as u64).collect::<Vec<_>>());
        }

        #[test]
        fn floats(values in prop::collection::vec(super::super::scramble::float(), 1..30), plan in plans()) {
            let got = scrambled(&Aggs::new().top_k(5, |v: &f64| *v), &values, &plan);
            let mut naive = values.clone();
            naive.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then(if a.is_nan() { std::cmp::Ordering::Equal } else { b.total_cmp(a) }));
            naive.truncate(5);
            // NaNs keep their bits and go by place, as the stable sort left them.
            prop_assert_eq!(got.into_iter().map(f64::to_bits).collect::<Vec<_>>(), naive.into_iter().map(f64::to_bits).collect::<Vec<_>>());
        }
    }
}
