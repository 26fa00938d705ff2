//! The hash of in-memory tables: good over all of its upper half, of which the index uses bits from both ends.
//!
//! A number costs one multiplication of 64 bits by 64 whose halves are folded (the step of wyhash, Wang Yi, and of ahash), where
//! ahash takes two; anything else is ahash's. The upper half's low end is laid over the lower half's high end: both bear on all bits
//! that the index uses, and numbers that follow each other at any distance spread as well as by ahash (tried with 660 distances). It
//! differs from the hash that splits keys among shards ([`crate::key`]), so that a shard's keys are spread over its tables. It is
//! fixed, so runs repeat; nothing that can be observed depends on it.

use std::hash::{BuildHasher, Hasher};

/// Digits of pi.
const SEED: u64 = 0x13198a2e03707344;
/// The second multiplier of splitmix64 (Steele, Lea, Flood, 2014), the better one of several here.
const MULTIPLE: u64 = 0x94d049bb133111eb;

/// Makes [`TableHasher`]s.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableHash;

impl BuildHasher for TableHash {
    type Hasher = TableHasher;
    #[inline(always)]
    fn build_hasher(&self) -> TableHasher {
        TableHasher(SEED)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableHasher(u64);

impl TableHasher {
    #[inline(always)]
    fn fold(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value) * u128::from(MULTIPLE);
        // Turned and not shifted, which is an instruction where the other is three; the index does not look at the lower half.
        self.0 = product as u64 ^ ((product >> 64) as u64).rotate_left(32);
    }
}

impl Hasher for TableHasher {
    #[inline(always)]
    fn finish(&self) -> u64 {
        self.0
    }
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let seeds = ahash::RandomState::with_seeds(
            0xa4093822299f31d0,
            0x082efa98ec4e6c89,
            0x452821e638d01377,
            0xbe5466cf34e90c6c,
        );
        let mut hasher = seeds.build_hasher();
        hasher.write(bytes);
        self.fold(hasher.finish());
    }
    #[inline(always)]
    fn write_u8(&mut self, value: u8) {
        self.fold(value.into());
    }
    #[inline(always)]
    fn write_u16(&mut self, value: u16) {
        self.fold(value.into());
    }
    #[inline(always)]
    fn write_u32(&mut self, value: u32) {
        self.fold(value.into());
    }
    #[inline(always)]
    fn write_u64(&mut self, value: u64) {
        self.fold(value);
    }
    #[inline(always)]
    fn write_usize(&mut self, value: usize) {
        self.fold(value as u64);
    }
    #[inline(always)]
    fn write_u128(&mut self, value: u128) {
        self.fold(value as u64);
        self.fold((value >> 64) as u64);
    }
}
