//! `sample_by`: all records of some keys, the same keys in every run. `sample_by_position`: one of so many records, by its place in its source.
//!
//! Laws of `sample_by`
//! 1. Whether a record is kept follows from its key alone: from a hash of it that is the same in every process and version, so the class is that
//!    of the input (ROWS behind a source), and streams sampled by the same key with the same share have the same keys.
//! 2. What is kept of a lesser share is kept of a greater one.
//! 3. The hash is mixed anew before it is looked at: key groups are cut by its high bits, and a sample must not lie on few shards.
//!
//! Law of `sample_by_position`: whether a record is kept follows from its place in its source partition alone (offset, and number among those that were
//! made of it), so the same records are kept in every run, on any number of shards and after any crash. What offsets count is the source's
//! business (a line's byte, an index), so they are mixed and not divided.

use crate::batch::{Origin, Stamp};
use crate::checkpoint::{Frame, Saved, Snapshot};
use crate::error::BuildError;
use crate::key::{Key, stable_hash};
use crate::ops::Filtered;
use crate::pipeline::Pipeline;
use crate::plan::ShardBuild;
use crate::push::{Control, Cx, Push};
use crate::state::LoadError;
use crate::stream::Stream;
use std::panic::Location;

impl<P: Pipeline> Stream<P> {
    /// Keeps all records of a `share` (0 to 1) of the keys, and none of the others: `sample_by(0.01, |o| o.customer)` follows one customer in
    /// a hundred through all that they do. For single records, key by what tells them apart.
    ///
    /// Stateless, O(1) a record. Class of the input: the same keys in every run, job and version of Pelton. Records keep their time and behind mark; none is
    /// too late.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let (results, sink) = testing::collect();
    /// let job = Job::new("sample");
    /// job.source(sources::items((0..10_000u64).map(|n| (n % 1_000, n))))
    ///    .sample_by(0.1, |r| r.0)
    ///    .sink(sink);
    /// testing::Stepper::new(&job, 1).unwrap().run().unwrap();
    /// let kept = results.take().len();
    /// assert!(kept % 10 == 0 && (800..1_200).contains(&kept));
    /// ```
    #[track_caller]
    pub fn sample_by<K: Key, F>(
        self,
        share: f64,
        key: F,
    ) -> Stream<Filtered<P, impl Fn(&P::Item) -> bool + Clone + Send + 'static>>
    where
        F: Fn(&P::Item) -> K + Clone + Send + 'static,
    {
        // 2^64 keeps all, whatever the hash.
        let below = (share * 18_446_744_073_709_551_616.0) as u128;
        let kept = move |record: &P::Item| u128::from(mixed(stable_hash(&key(record)))) < below;
        let stream = self.wrap("sample_by", Location::caller(), |before, op| Filtered {
            before,
            f: kept,
            op,
        });
        if let Some(&op) = stream.ops.last() {
            let mut plan = stream.plan.lock();
            plan.info_mut(op).detail = format!("share {share}");
            if !(0.0..=1.0).contains(&share) {
                let what = format!("it is to keep a share of {share} of the keys");
                let e = BuildError::argument(plan.info(op), what, "give 0 to 1");
                plan.errors.push(e);
            }
        }
        stream
    }
}

impl<P: Pipeline> Stream<P> {
    /// Keeps about one of `n` records, chosen by their places in their source partitions: for a look at a stream whose records have nothing that
    /// tells them apart. Exactly every `n`-th of a partition cannot be had for free: what a source's offsets count is its own business (the byte of a
    /// line, an index), so a place is hashed with its partition, as keys are in [`Stream::sample_by`]; of many records one in `n` is kept.
    ///
    /// Stateless, O(1) a record. Class of the input: the same records in every run, on any number of shards, in batches of any size and after any
    /// crash. Between a source and the first exchange, union, fork or split; behind one it is refused, since what makes records of others gives them
    /// no place of a source's. What `flat_map` makes of one record is chosen one by one. Records keep their time and behind mark; none is
    /// too late.
    ///
    /// ```
    /// use pelton::{Job, sources, testing};
    /// let kept = |shards| {
    ///     let (results, sink) = testing::collect();
    ///     let job = Job::new("sample");
    ///     job.source(sources::generate("numbers", 10_000, 4, |n| n)).sample_by_position(10).sink(sink);
    ///     testing::Stepper::new(&job, shards).unwrap().run().unwrap();
    ///     let mut kept = results.take();
    ///     kept.sort_unstable();
    ///     kept
    /// };
    /// assert!((800..1_200).contains(&kept(1).len()));
    /// assert_eq!(kept(1), kept(3));
    /// ```
    #[track_caller]
    pub fn sample_by_position(self, n: u32) -> Stream<SampledByPlace<P>> {
        let is_behind = self.meta.exchanged;
        let stream = self.wrap("sample_by_position", Location::caller(), |before, _| {
            SampledByPlace {
                before,
                below: u64::MAX / u64::from(n.max(1)),
            }
        });
        if let Some(&op) = stream.ops.last() {
            let mut plan = stream.plan.lock();
            plan.info_mut(op).detail = format!("1 of {n}");
            let wrong = match (n, is_behind) {
                (0, _) => Some(("it is to keep 1 of 0 records", "give at least 1")),
                (_, true) => Some((
                    "it stands behind an exchange, a union, a fork or a split, where records have no place in a source partition of their own",
                    "put it next to the source, or take `sample_by` a key",
                )),
                _ => None,
            };
            if let Some((what, advice)) = wrong {
                let e = BuildError::argument(plan.info(op), what.to_string(), advice);
                plan.errors.push(e);
            }
        }
        stream
    }
}

/// A pipeline with a `sample_by_position` at its end.
#[derive(Debug)]
pub struct SampledByPlace<P> {
    before: P,
    /// The hash of a place that is kept lies at or below it.
    below: u64,
}

#[allow(private_interfaces)]
impl<P: Pipeline> Pipeline for SampledByPlace<P> {
    type Root = P::Root;
    type Item = P::Item;
    type Link<N: Push<P::Item> + Send + 'static> = P::Link<PlaceLink<N>>;
    fn link<N: Push<P::Item> + Send + 'static>(
        &self,
        next: N,
        build: &mut ShardBuild<'_, '_>,
    ) -> Self::Link<N> {
        let link = PlaceLink {
            next,
            below: self.below,
        };
        self.before.link(link, build)
    }
    fn root(&mut self) -> &mut P::Root {
        self.before.root()
    }
}

/// See [`Stream::sample_by_position`].
#[derive(Debug)]
pub struct PlaceLink<N> {
    next: N,
    below: u64,
}

impl<T, N: Push<T>> Push<T> for PlaceLink<N> {
    #[inline(always)]
    fn push(&mut self, record: T, stamp: Stamp, cx: &mut Cx) {
        if place_hash(&cx.origin) <= self.below {
            self.next.push(record, stamp, cx);
        }
    }
    #[inline]
    fn control(&mut self, event: Control, cx: &mut Cx) {
        self.next.control(event, cx);
    }
    #[inline]
    fn blocked(&self) -> bool {
        self.next.blocked()
    }
    fn wake_at(&self) -> Option<u64> {
        self.next.wake_at()
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.next.save(to)
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.next.load(frame)
    }
}

/// Of a record's place: partition, offset, and number among those made of one. Not of the source's number, which another source added to the
/// job would change.
#[inline(always)]
fn place_hash(origin: &Origin) -> u64 {
    let partition = mixed(u64::from(origin.partition).wrapping_add(0x9e37_79b9_7f4a_7c15));
    let offset = mixed(partition ^ origin.offset);
    match origin.emission {
        0 => offset,
        emission => mixed(offset ^ emission),
    }
}

/// All bits depend on all: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use crate::key::KeySpace;
    use crate::testing::{Sizes, Stepper, collect};
    use crate::{Job, sources};

    fn kept(share: f64) -> Vec<u64> {
        let (results, sink) = collect();
        let job = Job::new("sample");
        job.source(sources::items(0..10_000u64))
            .sample_by(share, |n| *n)
            .sink(sink);
        Stepper::new(&job, 1).unwrap().run().unwrap();
        results.take()
    }

    #[test]
    fn a_lesser_share_is_of_the_same_keys() {
        let shares = [0.0, 0.001, 0.1, 0.5, 1.0].map(|share| (share, kept(share)));
        for (share, kept) in &shares {
            let expected = share * 10_000.0;
            let off = (kept.len() as f64 - expected).abs();
            assert!(off <= 4.0 * expected.sqrt(), "{share}: {}", kept.len());
        }
        for pair in shares.windows(2) {
            assert!(pair[0].1.iter().all(|n| pair[1].1.contains(n)));
        }
        assert_eq!(shares[4].1.len(), 10_000);
    }

    /// It is in answers of old jobs: it never changes.
    #[test]
    fn the_keys_are_the_same_for_ever() {
        assert_eq!(kept(0.001), GOLDEN);
    }
    const GOLDEN: [u64; 18] = [
        52, 982, 2229, 3506, 3862, 3879, 4414, 4486, 5527, 5863, 5905, 6286, 6362, 6367, 7782,
        9033, 9493, 9990,
    ];

    #[test]
    fn a_sample_lies_on_all_shards() {
        let space = KeySpace::new(256, 8);
        let mut on = [0; 8];
        for key in kept(0.1) {
            on[space.shard_of(&key)] += 1;
        }
        assert!(on.iter().all(|&n| n > 60), "{on:?}");
    }

    #[test]
    fn a_share_is_one() {
        for share in [-0.1, 1.1, f64::NAN] {
            let (_, sink) = collect();
            let job = Job::new("wrong");
            job.source(sources::items([1u64]))
                .sample_by(share, |n| *n)
                .sink(sink);
            let error = Stepper::new(&job, 1).map(drop).unwrap_err().to_string();
            assert!(error.contains("a share of"), "{error}");
        }
    }

    fn kept_places(n: u32, sizes: Sizes) -> Vec<(u64, u64)> {
        let (results, sink) = collect();
        let job = Job::new("sample");
        job.source(sources::generate("numbers", 2_000, 4, |n| n))
            .flat_map(|n| (0..n % 3).map(move |i| (n, i)))
            .sample_by_position(n)
            .sink(sink);
        Stepper::with(&job, sizes).unwrap().run().unwrap();
        let mut kept = results.take();
        kept.sort_unstable();
        kept
    }

    /// Whatever the shards and batches; about the share asked for, in each partition, of the first records made of one as of the second.
    #[test]
    fn a_place_is_kept_in_every_run() {
        let all = kept_places(1, Sizes::shards(1));
        assert_eq!(all.len(), 1_999);
        let kept = kept_places(10, Sizes::shards(1));
        for (shards, batch_size) in [(1, 1), (2, 7), (3, 1_024), (8, 3)] {
            let sizes = Sizes {
                batch_size,
                ..Sizes::shards(shards)
            };
            assert_eq!(kept_places(10, sizes), kept);
        }
        let some = |n: usize, of: usize| assert!((of / 20..of / 5).contains(&n), "{n} of {of}");
        for partition in 0..4 {
            some(kept.iter().filter(|r| r.0 % 4 == partition).count(), 500);
        }
        for number in 0..2 {
            let made = all.iter().filter(|r| r.1 == number).count();
            some(kept.iter().filter(|r| r.1 == number).count(), made);
        }
        // Not all that was made of one record, or none of it.
        let both = |r: &&(u64, u64)| r.1 == 1 && kept.contains(&(r.0, 0));
        some(kept.iter().filter(both).count() * 10, 667);
    }

    /// It is in answers of old jobs: it never changes.
    #[test]
    fn the_places_are_the_same_for_ever() {
        let kept = kept_places(200, Sizes::shards(1));
        assert_eq!(kept, GOLDEN_PLACES);
    }
    const GOLDEN_PLACES: [(u64, u64); 14] = [
        (176, 1),
        (194, 0),
        (482, 1),
        (491, 0),
        (563, 0),
        (656, 0),
        (799, 0),
        (880, 0),
        (1241, 0),
        (1351, 0),
        (1391, 1),
        (1804, 0),
        (1903, 0),
        (1988, 0),
    ];

    #[test]
    fn a_place_is_next_to_the_source() {
        let error = |n: u32, forked: bool| {
            let job = Job::new("wrong");
            let (_, sink) = collect();
            let stream = job.source(sources::items([1u64]));
            match forked {
                false => stream.sample_by_position(n).sink(sink),
                true => stream.rebalance().sample_by_position(n).sink(sink),
            }
            Stepper::new(&job, 1).map(drop).err().map(|e| e.to_string())
        };
        assert!(error(0, false).unwrap().contains("1 of 0"));
        assert!(error(3, true).unwrap().contains("next to the source"));
        assert_eq!(error(3, false), None);
    }
}
