//! Several numbers compared at once.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32,
    _mm_setr_epi32, _mm_setzero_si128,
};

/// A bit for each of eight numbers that equals `wanted`: the first one's is the lowest.
///
/// Two comparisons of four numbers on x86_64 (SSE2, which each such processor has), eight elsewhere, and no branch.
///
/// ```
/// let prints = [5, 7, 0, 7, 1, 2, 3, 7];
/// assert_eq!(pelton_ring::lanes_equal(&prints, 7), 0b1000_1010);
/// assert_eq!(pelton_ring::lanes_equal(&prints, 9), 0);
/// ```
#[inline(always)]
pub fn lanes_equal(lanes: &[u32; 8], wanted: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: asks for SSE2, which every x86_64 target has.
    unsafe {
        equal(lanes, wanted)
    }
    #[cfg(not(target_arch = "x86_64"))]
    lanes_equal_one_by_one(lanes, wanted)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn equal(lanes: &[u32; 8], wanted: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = lanes.map(|lane| lane as i32);
    let wanted = _mm_set1_epi32(wanted as i32);
    let low = _mm_cmpeq_epi32(_mm_setr_epi32(a, b, c, d), wanted);
    let high = _mm_cmpeq_epi32(_mm_setr_epi32(e, f, g, h), wanted);
    // All ones or all zeros, which saturation keeps: 32 bits become 16, then 8, then one.
    let bytes = _mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128());
    _mm_movemask_epi8(bytes) as u32
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn lanes_equal_one_by_one(lanes: &[u32; 8], wanted: u32) -> u32 {
    let bits = lanes.iter().enumerate();
    bits.fold(0, |bits, (n, &lane)| bits | u32::from(lane == wanted) << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pattern of equal and unequal lanes, with numbers at the ends of the range.
    #[test]
    fn each_lane_has_its_bit() {
        for wanted in [0, 1, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
            for pattern in 0..256u32 {
                for other in [wanted ^ 1, wanted ^ 0x8000_0000, !wanted] {
                    let lanes: [u32; 8] =
                        std::array::from_fn(|n| if pattern >> n & 1 == 1 { wanted } else { other });
                    assert_eq!(lanes_equal(&lanes, wanted), pattern);
                    assert_eq!(lanes_equal_one_by_one(&lanes, wanted), pattern);
                }
            }
        }
    }
}
