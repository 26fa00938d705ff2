//! `sample_by`: all records of some keys, the same keys in every run.
//!
//! Laws
//! 1. Whether a record is kept follows from its key alone: from a hash of it that is the same in every process and version, so the class is that
//!    of the input (ROWS behind a source), and streams sampled by the same key with the same share have the same keys.
//! 2. What is kept of a lesser share is kept of a greater one.
//! 3. The hash is mixed anew before it is looked at: key groups are cut by its high bits, and a sample must not lie on few shards.

use crate::error::BuildError;
use crate::key::{Key, stable_hash};
use crate::ops::Filtered;
use crate::pipeline::Pipeline;
use crate::stream::Stream;
use std::panic::Location;

impl<P: Pipeline> Stream<P> {
    /// Keeps all records of a `share` (0 to 1) of the keys, and none of the others: `sample_by(0.01, |o| o.customer)` follows one customer in
    /// a hundred through all that they do. For single records, key by what tells them apart.
    ///
    /// Stateless, O(1) a record. Class of the input: the same keys in every run, job and version of Pelton. Records keep their time and behind mark.
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

/// All bits depend on all: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use crate::key::KeySpace;
    use crate::testing::{Stepper, collect};
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
}
