//! Moving values to memory that another core will read.
//!
//! A buffer that another core has read comes back with its lines in that core's cache. Filling it in place makes each first write
//! to a line wait until that core has let go of it, one line after the other, since stores are done in order. So values are
//! gathered in a buffer that stays on this core, and moved as a whole: a copy has many lines under way, and stores that go past
//! the cache wait for nobody. Measured for records of 24 bytes in batches of 1024, in nanoseconds a record, made, sent and
//! received (`docs/benchmarks.md`):
//!
//! | the two cores | filled in place | gathered and copied | copied past the cache |
//! |---|---|---|---|
//! | share a cache (65 ns there and back) | 22.7 | 18.8 | 18.8 |
//! | share none (330 ns) | 63.6 | 29.0 | 19.0 |

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
    let (bytes, count) = (size_of_val(from.as_slice()), from.len());
    if bytes < PAST_CACHE {
        to.append(from);
        return;
    }
    to.reserve(count);
    let end = to.len();
    // SAFETY: `to` has room for `count` values behind its end, and two vectors that are borrowed uniquely do not overlap. The
    // values are moved: `from` gives them up before they are copied and `to` owns them afterwards, and nothing between panics.
    unsafe {
        from.set_len(0);
        let (source, target) = (from.as_ptr(), to.as_mut_ptr().add(end));
        copy_past_cache(source.cast(), target.cast(), bytes);
        to.set_len(end + count);
    }
}

/// Copies bytes, whole cache lines of the target past the cache.
///
/// # Safety
///
/// `source` is readable and `target` writable for `bytes` bytes, and they do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_past_cache(source: *const u8, target: *mut u8, bytes: usize) {
    const LINE: usize = 64;
    let head = target.align_offset(LINE).min(bytes);
    let lines = (bytes - head) / LINE;
    let tail = head + lines * LINE;
    // SAFETY: head, lines and tail are what `bytes` consists of, so all addresses lie within what the caller vouches for. Within
    // the loop the target is aligned to a line, as `movntps` demands; SSE belongs to the architecture. The bytes go through
    // registers that the compiler knows to be written, and may be padding: nothing looks at them.
    unsafe {
        std::ptr::copy_nonoverlapping(source, target, head);
        for line in 0..lines {
            std::arch::asm!(
                "movups {a}, [{source}]",
                "movups {b}, [{source} + 16]",
                "movups {c}, [{source} + 32]",
                "movups {d}, [{source} + 48]",
                "movntps [{target}], {a}",
                "movntps [{target} + 16], {b}",
                "movntps [{target} + 32], {c}",
                "movntps [{target} + 48], {d}",
                source = in(reg) source.add(head + line * LINE),
                target = in(reg) target.add(head + line * LINE),
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                d = out(xmm_reg) _,
                options(nostack, preserves_flags),
            );
        }
        std::ptr::copy_nonoverlapping(source.add(tail), target.add(tail), bytes - tail);
        // Stores past the cache are not ordered before the Release that publishes them: this does it.
        std::arch::asm!("sfence", options(nostack, preserves_flags));
    }
}

/// The same where there is no such store, or none that is known to help: a copy.
///
/// # Safety
///
/// As above.
#[cfg(any(miri, not(target_arch = "x86_64")))]
unsafe fn copy_past_cache(source: *const u8, target: *mut u8, bytes: usize) {
    // SAFETY: the caller vouches for both, and that they do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(source, target, bytes) }
}
