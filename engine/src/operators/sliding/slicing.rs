//! Where slices and windows lie: arithmetic only. A slice is the longest stretch that no window begins or ends in.
//!
//! Laws
//! 1. A slice lies in a window wholly or not at all. The windows that hold it end at `first_end, first_end + step, .. last_end`,
//!    and both ends never fall from one slice to the next.
//! 2. Where the size is a multiple of the slide a slice is one slide long; else there are two to a slide, of `size % slide` and the rest
//!    ("paired windows", Krishnamurthy, Wu, Franklin, 2006). Slices of gcd(size, slide) would be many more: 10 s every 3.001 s is 8
//!    slices a window, not 10,000.
//! 3. For times within ±2^62 and spans of at most 2^60 nothing overflows.

use std::ops::Range;

/// See the module. All values are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slicing {
    /// Windows start at multiples of `period` from here. In `0..period`.
    offset: i64,
    /// Distance of window starts: the slide, or the largest size of cumulating windows.
    period: i64,
    /// Distance of window ends: the slide, or the step.
    step: i64,
    /// The longest window.
    size: i64,
    /// Cumulating windows: all windows of a period share their start.
    pub cumulates: bool,
}

impl Slicing {
    /// Sliding windows. The spans have been checked: 0 < slide <= size. (A refused job is never run, but its parts are made:
    /// hence no division by zero.)
    pub fn sliding(size: i64, slide: i64, offset: i64) -> Self {
        let slide = slide.max(1);
        Slicing {
            offset: offset.rem_euclid(slide),
            period: slide,
            step: slide,
            size,
            cumulates: false,
        }
    }

    /// Cumulating windows: 0 < step, which divides `max_size`.
    pub fn cumulate(max_size: i64, step: i64, offset: i64) -> Self {
        let max_size = max_size.max(1);
        Slicing {
            offset: offset.rem_euclid(max_size),
            period: max_size,
            step: step.max(1),
            size: max_size,
            cumulates: true,
        }
    }

    /// Distance of window ends.
    #[inline]
    pub fn step(&self) -> i64 {
        self.step
    }

    /// The most slices that a window holds.
    #[inline]
    pub fn slices(&self) -> usize {
        let each = if self.size % self.step == 0 { 1 } else { 2 };
        usize::try_from((self.size / self.step) * each + each - 1).unwrap_or(usize::MAX / 2)
    }

    /// The slice of a time.
    #[inline]
    pub fn slice_of(&self, time: i64) -> Range<i64> {
        let phase = (time - self.offset).rem_euclid(self.step);
        let base = time - phase;
        let cut = self.size % self.step;
        if phase < cut {
            base..base + cut
        } else {
            base + cut..base + self.step
        }
    }

    /// The first window end after a time.
    #[inline]
    pub fn end_after(&self, time: i64) -> i64 {
        let cut = self.size % self.step;
        time + self.step - (time - self.offset - cut).rem_euclid(self.step)
    }

    /// End of the first window that holds the slice that starts here.
    #[inline]
    pub fn first_end(&self, slice: i64) -> i64 {
        // No window ends inside a slice.
        self.end_after(slice)
    }

    /// End of the last window that holds the slice that starts here.
    #[inline]
    pub fn last_end(&self, slice: i64) -> i64 {
        slice - (slice - self.offset).rem_euclid(self.period) + self.size
    }

    /// Start of the window that ends here: a slice that starts before the end lies in it iff it starts here or later.
    #[inline]
    pub fn start_of(&self, end: i64) -> i64 {
        if self.cumulates {
            end - 1 - (end - 1 - self.offset).rem_euclid(self.period)
        } else {
            end - self.size
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All windows that hold a time, by their definition.
    fn windows(size: i64, slide: i64, offset: i64, time: i64) -> Vec<(i64, i64)> {
        (time - size + 1..=time)
            .filter(|start| (start - offset).rem_euclid(slide) == 0)
            .map(|start| (start, start + size))
            .collect()
    }

    fn cumulating(max: i64, step: i64, offset: i64, time: i64) -> Vec<(i64, i64)> {
        let start = time - (time - offset).rem_euclid(max);
        (1..=max / step)
            .map(|n| (start, start + n * step))
            .filter(|w| w.1 > time)
            .collect()
    }

    fn check(slicing: Slicing, time: i64, expected: &[(i64, i64)]) {
        let slice = slicing.slice_of(time);
        assert!(slice.contains(&time), "{slicing:?} {time} {slice:?}");
        let ends: Vec<i64> = (slicing.first_end(slice.start)..=slicing.last_end(slice.start))
            .step_by(slicing.step() as usize)
            .collect();
        let found: Vec<_> = ends.iter().map(|&e| (slicing.start_of(e), e)).collect();
        assert_eq!(found, expected, "{slicing:?} {time}");
        for (start, end) in found {
            assert!(
                start <= slice.start && slice.end <= end,
                "{slicing:?}: {slice:?} is cut"
            );
            assert_eq!(slicing.end_after(end - 1), end);
            assert_eq!(slicing.end_after(end), end + slicing.step());
        }
    }

    proptest! {
        #[test]
        fn slices_lie_where_the_windows_say(
            slide in 1i64..30, more in 0i64..100, offset in -200i64..200, time in -300i64..300, steps in 1i64..12,
        ) {
            let size = slide + more;
            check(Slicing::sliding(size, slide, offset), time, &windows(size, slide, offset, time));
            let max = slide * steps;
            check(Slicing::cumulate(max, slide, offset), time, &cumulating(max, slide, offset, time));
        }
    }

    #[test]
    fn at_most_two_slices_to_a_slide() {
        let slicing = Slicing::sliding(10_000_000, 3_001_000, 0);
        let starts: std::collections::BTreeSet<i64> = (0..10_000_000)
            .step_by(1000)
            .map(|t| slicing.slice_of(t).start)
            .collect();
        assert_eq!(starts.len(), 7);
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let (time, span) = (1i64 << 62, 1i64 << 60);
        for slicing in [
            Slicing::sliding(span, span, -7),
            Slicing::sliding(span, 1, span),
            Slicing::sliding(span, 3, -span),
            Slicing::cumulate(span, span, span - 1),
            Slicing::cumulate(span, 1, -span),
        ] {
            for time in [-time, time] {
                let slice = slicing.slice_of(time);
                assert!(slice.contains(&time));
                let last = slicing.last_end(slice.start);
                assert!(slicing.first_end(slice.start) <= last);
                assert!(slicing.start_of(slicing.end_after(last + span)) > slice.start);
            }
        }
    }
}
