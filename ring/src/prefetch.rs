//! Hints to the cache. They read nothing and change nothing but speed.

/// Asks for the cache line at the start of `value`, to be read soon.
///
/// Compiles to one instruction on x86_64 and aarch64 and to nothing elsewhere. A value longer than a cache line is fetched
/// only at its beginning; see [`prefetch_ends`].
///
/// ```
/// # let buckets = vec![0u64; 1024];
/// # let hashes = [3usize, 900, 77];
/// // Touch all buckets first, then visit them: the misses overlap.
/// for &hash in &hashes {
///     pelton_ring::prefetch_read(&buckets[hash]);
/// }
/// let sum: u64 = hashes.iter().map(|&hash| buckets[hash]).sum();
/// # assert_eq!(sum, 0);
/// ```
#[inline(always)]
pub fn prefetch_read<T>(value: &T) {
    let address: *const T = value;
    prefetch_line(address.cast());
}

/// Asks for the cache lines at both ends of `value`: all of one that is not longer than a line, wherever it lies.
///
/// An entry of 40 bytes in an array crosses a line in every other place or so, and then its end is a miss of its own.
///
/// ```
/// let entry = (7u64, [0u8; 40]);
/// pelton_ring::prefetch_ends(&entry);
/// ```
#[inline(always)]
pub fn prefetch_ends<T>(value: &T) {
    let address: *const u8 = std::ptr::from_ref(value).cast();
    prefetch_line(address);
    prefetch_line(address.wrapping_add(size_of::<T>().saturating_sub(1)));
}

/// Asks for what [`prefetch_ends`] does of `slice[index]`, without a look at the slice's length: an index out of range asks for
/// lines that nobody reads.
///
/// ```
/// let rows = vec![(1u64, [0u8; 40]); 100];
/// pelton_ring::prefetch_ends_of(&rows, 7);
/// pelton_ring::prefetch_ends_of(&rows, 1000);
/// ```
#[inline(always)]
pub fn prefetch_ends_of<T>(slice: &[T], index: usize) {
    // Only an address is made, of no object if the index is out of range; it is never read.
    let address: *const u8 = slice.as_ptr().wrapping_add(index).cast();
    prefetch_line(address);
    prefetch_line(address.wrapping_add(size_of::<T>().saturating_sub(1)));
}

/// Asks for the last cache lines that `slice` lies on, `lines` of them or all.
///
/// ```
/// let rows = vec![(1u64, [0u8; 40]); 100];
/// pelton_ring::prefetch_tail(&rows, 4);
/// pelton_ring::prefetch_tail(&rows[..0], 4);
/// ```
#[inline(always)]
pub fn prefetch_tail<T>(slice: &[T], lines: usize) {
    /// Lines are no shorter where we run; a longer one is asked for twice.
    const LINE: usize = 64;
    let bytes = size_of_val(slice);
    // Only addresses are made, and they are never read.
    let end: *const u8 = slice.as_ptr().cast::<u8>().wrapping_add(bytes);
    for n in 0..lines.min(bytes.div_ceil(LINE)) {
        prefetch_line(end.wrapping_sub(1 + n * LINE));
    }
}

#[inline(always)]
fn prefetch_line(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction is part of SSE, which every x86_64 target has. It faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }

    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: `prfm` is part of the base instruction set, faults at no address, and touches neither
    // registers, flags nor the stack.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(readonly, nostack, preserves_flags),
        );
    }

    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = address;
}

/// Asks for the cache line of `slice[index]`, to be read soon; an index out of range does nothing.
///
/// That is what a loop with a fixed look-ahead wants at its end:
///
/// ```
/// let rows = vec![1u64; 100];
/// let mut sum = 0;
/// for (i, row) in rows.iter().enumerate() {
///     pelton_ring::prefetch_slice_at(&rows, i + 16);
///     sum += row;
/// }
/// assert_eq!(sum, 100);
/// ```
#[inline(always)]
pub fn prefetch_slice_at<T>(slice: &[T], index: usize) {
    if let Some(value) = slice.get(index) {
        prefetch_read(value);
    }
}
