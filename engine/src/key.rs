//! Keys: their canonical words, the stable hash over them, key groups and the shard of a group.
//!
//! Laws
//! 1. The canonical form of a key is a sequence of 64-bit words that depends on the value alone: not on the
//!    platform, the Rust version or the width of an integer type (`7u8` and `7i64` are the same key).
//! 2. The stable hash and the number of key groups decide where a key lives, so they are stored with a job and may
//!    never change. In-memory tables use another hash (`table/hasher.rs`).
//! 3. The group of a key never depends on the number of shards; groups go to shards in contiguous ranges.

use crate::state::State;
use std::hash::Hash;

/// The number of key groups of a job unless it says otherwise: the most shards it can be spread over.
pub const DEFAULT_KEY_GROUPS: u32 = 256;

/// What a stream can be keyed by: equality, a hash for tables, the canonical words of law 1, and [`State`], since keys are
/// kept in checkpoints.
///
/// Implemented for integers of a stated width, `bool`, `char`, `String`, `Box<str>`, byte vectors, `Option`, and tuples. Not for
/// `&str` and `usize`, which cannot be kept: see [`mod@crate::state`]. A type of your own names its parts:
///
/// ```
/// use pelton::{Key, KeyWords};
/// #[pelton::state(version = 1)]
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Route { from: String, to: String }
/// impl Key for Route {
///     fn words(&self, out: &mut impl KeyWords) {
///         self.from.words(out);
///         self.to.words(out);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no key",
    label = "not a `pelton::Key`",
    note = "instead of `&str` take a `String`, instead of `usize` a `u64`: keys are kept in checkpoints"
)]
pub trait Key: Hash + Eq + Clone + State {
    /// Gives the canonical words of this key to `out`. Equal keys give equal words, different keys different words.
    fn words(&self, out: &mut impl KeyWords);
}

/// Receives the canonical words of a key.
pub trait KeyWords {
    /// One 64-bit word.
    fn word(&mut self, word: u64);

    /// A string of bytes: its length, then its bytes in little-endian words, the last padded with zeros.
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut last = [0u8; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(last));
        }
    }
}

/// The stable hash: each word is folded in by a 64 x 64 -> 128 bit multiplication whose halves are xored, as wyhash and
/// foldhash do; the fold mixes high and low bits alike, so nothing more is needed at the end.
struct StableHasher(u64);

const SEED: u64 = 0x243f_6a88_85a3_08d3; // pi's fraction
const FOLD: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio, odd
const STEP: u64 = 0xd1b5_4a32_d192_ed03;

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl KeyWords for StableHasher {
    #[inline(always)]
    fn word(&mut self, word: u64) {
        // The addition keeps the state moving where a word meets a state equal to it (their xor is 0).
        self.0 = fold(self.0 ^ word, FOLD).wrapping_add(STEP);
    }
}

/// The stable 64-bit hash of a key: the same on every platform, for ever (law 2).
///
/// ```
/// assert_eq!(pelton::stable_hash(&7u8), pelton::stable_hash(&7i64));
/// assert_ne!(pelton::stable_hash(&"ab".to_string()), pelton::stable_hash(&"ba".to_string()));
/// ```
#[inline(always)]
pub fn stable_hash<K: Key>(key: &K) -> u64 {
    let mut hasher = StableHasher(SEED);
    key.words(&mut hasher);
    hasher.0
}

/// Where keys go: groups, and the shard of each group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    /// The shard of each key group, in contiguous ranges; 1..=65,536 groups, fixed for the job's life.
    shard_of_group: Box<[u16]>,
    /// Number of shards, at least 1.
    shards: u32,
}

impl KeySpace {
    /// `groups` key groups spread over `shards` shards; `shards` above `groups` leaves the rest without keys.
    pub fn new(groups: u32, shards: u32) -> Self {
        let (groups, shards) = (groups.clamp(1, 1 << 16), shards.clamp(1, 1 << 16));
        let shard = |group: u32| (u64::from(group) * u64::from(shards) / u64::from(groups)) as u16;
        KeySpace {
            shard_of_group: (0..groups).map(shard).collect(),
            shards,
        }
    }

    /// How many key groups there are.
    pub(crate) fn groups(&self) -> u32 {
        self.shard_of_group.len() as u32
    }

    /// How many shards they go to.
    pub(crate) fn shards(&self) -> u32 {
        self.shards
    }

    /// The key group of a stable hash: its high bits, so that tables may use the low ones.
    #[inline(always)]
    pub fn group(&self, hash: u64) -> u32 {
        (((hash >> 32) * self.shard_of_group.len() as u64) >> 32) as u32
    }

    /// The shard of a key group.
    #[inline(always)]
    pub fn shard(&self, group: u32) -> usize {
        // A group is always below the number of groups; `get` leaves the hot path without a way to panic.
        self.shard_of_group
            .get(group as usize)
            .map_or(0, |&shard| usize::from(shard))
    }

    /// The shard of a key. With one shard the key is not even hashed.
    #[inline(always)]
    pub fn shard_of<K: Key>(&self, key: &K) -> usize {
        if self.shards == 1 {
            0
        } else {
            self.shard(self.group(stable_hash(key)))
        }
    }
}

macro_rules! integer_keys {
    ($($t:ty),*) => { $(
        impl Key for $t {
            #[inline(always)]
            fn words(&self, out: &mut impl KeyWords) {
                // Sign extension gives every width one form; a u64 above i64::MAX keeps its bits.
                out.word(*self as i64 as u64);
            }
        }
    )* };
}
integer_keys!(u8, u16, u32, u64, i8, i16, i32, i64);

impl Key for u128 {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.word(*self as u64);
        out.word((*self >> 64) as u64);
    }
}

impl Key for i128 {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        (*self as u128).words(out);
    }
}

impl Key for bool {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.word(u64::from(*self));
    }
}

impl Key for char {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.word(u64::from(u32::from(*self)));
    }
}

impl Key for String {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.bytes(self.as_bytes());
    }
}

impl Key for Box<str> {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.bytes(self.as_bytes());
    }
}

impl Key for Vec<u8> {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.bytes(self);
    }
}

impl<const N: usize> Key for [u8; N] {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        out.bytes(self);
    }
}

impl<K: Key> Key for Option<K> {
    #[inline]
    fn words(&self, out: &mut impl KeyWords) {
        match self {
            None => out.word(0),
            Some(key) => {
                out.word(1);
                key.words(out);
            }
        }
    }
}

impl Key for () {
    #[inline(always)]
    fn words(&self, _: &mut impl KeyWords) {}
}

macro_rules! tuple_keys {
    ($($name:ident),+) => {
        impl<$($name: Key),+> Key for ($($name,)+) {
            #[inline(always)]
            #[allow(non_snake_case)]
            fn words(&self, out: &mut impl KeyWords) {
                let ($($name,)+) = self;
                $($name.words(out);)+
            }
        }
    };
}
tuple_keys!(A);
tuple_keys!(A, B);
tuple_keys!(A, B, C);
tuple_keys!(A, B, C, D);
tuple_keys!(A, B, C, D, E);

/// How a record's key is had: computed (and owned), or borrowed from the record and cloned only on first insertion.
/// It is asked up to three times a record (routing, probing, verifying), so it must be cheap and give the same answer.
pub trait KeyOf<T>: Clone + Send + 'static {
    /// The key's type.
    type Key: Key;
    /// Hands the record's key to `f`.
    fn with<R>(&self, record: &T, f: impl FnOnce(&Self::Key) -> R) -> R;
}

/// A key computed by a function: `key_by(|o| o.product_id)`.
#[derive(Clone)]
pub struct Computed<F>(pub(crate) F);

impl<T, K: Key, F: Fn(&T) -> K + Clone + Send + 'static> KeyOf<T> for Computed<F> {
    type Key = K;
    #[inline(always)]
    fn with<R>(&self, record: &T, f: impl FnOnce(&K) -> R) -> R {
        f(&(self.0)(record))
    }
}

/// A key borrowed from the record: `key_by_ref(|o| &o.name)`.
#[derive(Clone)]
pub struct Borrowed<F>(pub(crate) F);

impl<T, K: Key, F: Fn(&T) -> &K + Clone + Send + 'static> KeyOf<T> for Borrowed<F> {
    type Key = K;
    #[inline(always)]
    fn with<R>(&self, record: &T, f: impl FnOnce(&K) -> R) -> R {
        f((self.0)(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stored with every job: if one of these changes, state written by an earlier version is lost.
    #[test]
    fn golden_hashes() {
        let golden = [
            (stable_hash(&0u64), GOLDEN[0]),
            (stable_hash(&1u64), GOLDEN[1]),
            (stable_hash(&-1i32), GOLDEN[2]),
            (stable_hash(&"orders".to_string()), GOLDEN[3]),
            (stable_hash(&("JFK".to_string(), 7u16)), GOLDEN[4]),
            (stable_hash(&Some(3u8)), GOLDEN[5]),
            (stable_hash(&()), GOLDEN[6]),
        ];
        let hashes = golden.map(|(is, _)| is);
        assert_eq!(hashes, GOLDEN, "they are now {hashes:#018x?}");
    }
    const GOLDEN: [u64; 7] = [
        0xb339_cfa9_1d33_2347,
        0x2183_46df_9bed_9734,
        0xbfeb_bb74_15ea_2497,
        0x389f_9ee7_7505_cfc6,
        0xa46a_f477_b1b5_b8a5,
        0x115a_68e1_217f_d48a,
        0x243f_6a88_85a3_08d3,
    ];

    #[test]
    fn groups_spread_and_shards_are_contiguous() {
        let space = KeySpace::new(256, 3);
        let mut counts = [0u32; 256];
        for key in 0..256_000u64 {
            counts[space.group(stable_hash(&key)) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&c| (800..1200).contains(&c)),
            "{counts:?}"
        );
        let shards: Vec<_> = (0..256).map(|g| space.shard(g)).collect();
        assert!(shards.is_sorted() && shards[0] == 0 && shards[255] == 2);
    }

    #[test]
    fn different_strings_differ_in_words() {
        struct Words(Vec<u64>);
        impl KeyWords for Words {
            fn word(&mut self, w: u64) {
                self.0.push(w);
            }
        }
        let words = |s: (&str, &str)| {
            let mut w = Words(vec![]);
            (s.0.to_string(), s.1.to_string()).words(&mut w);
            w.0
        };
        assert_ne!(words(("ab", "c")), words(("a", "bc")));
        assert_ne!(words(("a\0", "")), words(("a", "")));
    }
}
