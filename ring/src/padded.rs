//! Keeps what one thread writes off the cache line of what another thread reads.

use std::ops::Deref;

/// A value with a cache line to itself.
///
/// 128 bytes where the adjacent-line prefetcher pulls lines in pairs (x86_64) or where large cores have lines of 128
/// bytes (aarch64), 64 elsewhere.
#[cfg_attr(any(target_arch = "x86_64", target_arch = "aarch64"), repr(align(128)))]
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    repr(align(64))
)]
pub(crate) struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub(crate) fn new(value: T) -> Self {
        CachePadded(value)
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
