//! How the records and states of a stage lie on the shards, and whether one has far more than its share.
//!
//! Laws
//! 1. Told of stages behind an exchange only: how sources' partitions lie on shards is not the keys' doing.
//! 2. A shard is skewed where it has more than [`FACTOR`] times the mean, once there is enough to say so ([`ENOUGH_RECORDS`],
//!    [`ENOUGH_BYTES`]). On one shard nothing is.
//! 3. It is a figure, not a fault: nothing is refused, moved or slowed by it.

use std::fmt;

/// How many times the mean of all shards one may have before it is told.
const FACTOR: f64 = 1.5;
/// Records of a stage before its skew is told.
const ENOUGH_RECORDS: u64 = 10_000;
/// Bytes of its states, likewise.
const ENOUGH_BYTES: u64 = 1 << 20;

/// What one shard has of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Records that came to it, in this process.
    pub records: u64,
    /// Bytes of its live states, as [`StateSize`](crate::StateSize) counts them.
    pub state_bytes: u64,
}

/// What each shard has of a stage behind an exchange: [`JobHandle::shares`](crate::JobHandle::shares),
/// [`JobReport::shares`](crate::JobReport::shares).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// The stage's operators, with their places.
    pub stage: String,
    /// By shard.
    pub shards: Vec<Share>,
}

/// Of what a shard has too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Much {
    /// Records.
    Records,
    /// Bytes of state.
    StateBytes,
}

/// One shard has far more than its share: the keys are skewed, or too few.
#[derive(Clone, Debug, PartialEq)]
pub struct Skew {
    /// The stage's operators, with their places.
    pub stage: String,
    /// The shard.
    pub shard: usize,
    /// Of what.
    pub much: Much,
    /// How much it has.
    pub has: u64,
    /// How much all shards have.
    pub all: u64,
    /// How many shards.
    pub shards: usize,
}

impl Shares {
    /// The shards that have far more than their share, of records and of state: at most one each. More than 1.5 times the mean, of at
    /// least 10,000 records or 1 MiB.
    pub fn skews(&self) -> Vec<Skew> {
        let records = self.skew(Much::Records, ENOUGH_RECORDS, |s| s.records);
        let bytes = self.skew(Much::StateBytes, ENOUGH_BYTES, |s| s.state_bytes);
        records.into_iter().chain(bytes).collect()
    }

    fn skew(&self, much: Much, enough: u64, of: impl Fn(&Share) -> u64) -> Option<Skew> {
        let all: u64 = self.shards.iter().map(&of).sum();
        let shards = self.shards.len();
        let (shard, has) = self.shards.iter().map(of).enumerate().max_by_key(|s| s.1)?;
        let mean = all as f64 / shards as f64;
        let is_told = shards > 1 && all >= enough && has as f64 > FACTOR * mean;
        is_told.then(|| Skew {
            stage: self.stage.clone(),
            shard,
            much,
            has,
            all,
            shards,
        })
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Skew {
            stage,
            shard,
            has,
            all,
            shards,
            ..
        } = self;
        let what = match self.much {
            Much::Records => "records",
            Much::StateBytes => "bytes of state",
        };
        let times = *has as f64 * *shards as f64 / (*all).max(1) as f64;
        write!(
            f,
            "skewed keys: shard {shard} has {has} of the {all} {what} of {stage}, {times:.1} times the mean of {shards} shards; \
             part heavy keys (aggregate by a finer key first, then by the key), or take more keys"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(of: &[(u64, u64)]) -> Shares {
        let share = |&(records, state_bytes): &(u64, u64)| Share {
            records,
            state_bytes,
        };
        Shares {
            stage: "window".into(),
            shards: of.iter().map(share).collect(),
        }
    }

    /// Just at the factor, and just above; just below what is enough, and just that.
    #[test]
    fn a_shard_is_told_above_the_factor() {
        assert_eq!(shares(&[(7_500, 0), (2_500, 0)]).skews(), []);
        let told = shares(&[(2_499, 0), (7_501, 0)]).skews();
        let [skew] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((skew.shard, skew.much, skew.has), (1, Much::Records, 7_501));
        assert!(skew.to_string().contains("1.5 times the mean"), "{skew}");
        assert_eq!(shares(&[(0, 0), (9_999, 0)]).skews(), []);
        assert_eq!(shares(&[(1 << 40, 1 << 40)]).skews(), [], "one shard");
        assert_eq!(shares(&[]).skews(), []);
        let told = shares(&[(6_000, 1 << 19), (6_000, 0), (6_000, 1 << 19)]).skews();
        assert_eq!(told, [], "1.5 times");
        let told = shares(&[(6_000, 1 << 20), (6_000, 0), (6_000, 0)]).skews();
        assert_eq!((told.len(), told[0].much), (1, Much::StateBytes));
    }
}
