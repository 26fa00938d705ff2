//! Moving values to memory that another core will read.
//!
//! A buffer that another core has read comes back with its lines in that core's cache. Filling it in place makes each first write
//! to a line wait until that core has let go of it, one line after the other, since stores are done in order. So values are
//! gathered in a buffer that stays on this core, and moved as a whole: a copy has many lines under way, and stores that go past
//! the cache wait for nobody. Nanoseconds a record of 24 bytes that is made, sent and received, in batches of 1024
//! (`cargo bench -p pelton-bench --no-default-features --bench hand_over`, `docs/benchmarks.md`):
//!
//! | the two cores | filled in place | gathered and copied | copied past the cache |
//! |---|---|---|---|
//! | share a cache (60 to 70 ns there and back) | 7.2 | 5.5 | 4.5 |
//! | share none (310 to 330 ns) | 24 | 13.7 | 4.5 |

use std::mem::MaybeUninit;

/// From so many bytes on values go past the cache; fewer are read sooner if they stay in it.
const PAST_CACHE: usize = 4096;

/// Moves all of `from` to the end of `to`, which is read by another core: in order, in one copy; `from` keeps its capacity.
///
/// What is [published](crate::Producer) afterwards comes after it, as with any other write.
///
/// ```
/// let (mut gathered, mut travelling) = (vec![1, 2, 3], Vec::with_capacity(3));
/// pelton_ring::hand_over(&mut gathered, &mut travelling);
/// assert_eq!((gathered, travelling), (vec![], vec![1, 2, 3]));
/// ```
pub fn hand_over<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    let (count, end) = (from.len(), to.len());
    if size_of_val(from.as_slice()) < PAST_CACHE {
        to.append(from);
        return;
    }
    to.reserve(count);
    copy_past_cache(from, &mut to.spare_capacity_mut()[..count]);
    // SAFETY: fewer than there were. Nobody drops the values that are given up here: `to` owns them from the next line on, and
    // nothing between the two panics.
    unsafe { from.set_len(0) };
    // SAFETY: there is room for `count` values behind the end, and all of them have been copied there.
    unsafe { to.set_len(end + count) };
}

/// A cache line, aligned as such.
#[repr(C, align(64))]
struct Line([MaybeUninit<u8>; 64]);

/// Copies the bytes of values, whole cache lines of the target past the cache.
fn copy_past_cache<T>(from: &[T], to: &mut [MaybeUninit<T>]) {
    assert_eq!(from.len(), to.len(), "every value has its place");
    let bytes = size_of_val(from);
    // SAFETY: the memory of a slice, for as long as it is borrowed. Bytes that may be uninitialised are what any value consists of.
    let source = unsafe { std::slice::from_raw_parts(from.as_ptr().cast(), bytes) };
    let target: *mut MaybeUninit<u8> = to.as_mut_ptr().cast();
    // SAFETY: the same, borrowed uniquely; and what holds bytes that may be uninitialised takes any.
    let target = unsafe { std::slice::from_raw_parts_mut(target, bytes) };
    // SAFETY: a line is 64 such bytes, wherever its alignment allows one.
    let (head, lines, tail) = unsafe { target.align_to_mut::<Line>() };
    let (from_head, rest): (&[MaybeUninit<u8>], _) = source.split_at(head.len());
    let (from_lines, from_tail) = rest.split_at(size_of_val(lines));
    head.copy_from_slice(from_head);
    for (line, from) in lines.iter_mut().zip(from_lines.as_chunks().0) {
        // SAFETY: `finish_stores` comes before anybody looks at `to` again.
        unsafe { store_past_cache(from, line) };
    }
    tail.copy_from_slice(from_tail);
    finish_stores();
}

/// Stores a line past the cache.
///
/// # Safety
///
/// [`finish_stores`] must come before `to` is read or written again.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn store_past_cache(from: &[MaybeUninit<u8>; 64], to: &mut Line) {
    // SAFETY: 64 bytes are read where 64 are, and written where 64 are, aligned as `movntps` demands. SSE belongs to the
    // architecture. What goes through the registers may be padding: nothing looks at it.
    unsafe {
        std::arch::asm!(
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movntps [{to}], {a}",
            "movntps [{to} + 16], {b}",
            "movntps [{to} + 32], {c}",
            "movntps [{to} + 48], {d}",
            from = in(reg) from.as_ptr(),
            to = in(reg) to.0.as_mut_ptr(),
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Stores past the cache are not ordered before the Release that publishes them: this does it.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn finish_stores() {
    // SAFETY: a fence touches neither registers, flags nor the stack. It belongs to SSE.
    unsafe { std::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// The same where there is no such store, or none that is known to help: a copy.
///
/// # Safety
///
/// None is needed here.
#[cfg(any(miri, not(target_arch = "x86_64")))]
#[inline(always)]
unsafe fn store_past_cache(from: &[MaybeUninit<u8>; 64], to: &mut Line) {
    to.0 = *from;
}

#[cfg(any(miri, not(target_arch = "x86_64")))]
fn finish_stores() {}
