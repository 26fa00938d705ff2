//! Whether a source or a sink keeps the promises that exactly once stands on: for connectors of one's own.
//!
//! Both kits run many seeded trials: `PELTON_CASES` in the environment says how many, 64 unless told. The error of a failed one says
//! which law was broken, in which trial and after what; the same trial is the same in every run.
//!
//! ```
//! use pelton::sources;
//! use pelton::testing::conformance;
//! conformance::source(|| sources::generate("ids", 100, 3, |id| id)).unwrap();
//! ```

mod sink;
mod source;
mod upserts;

pub use sink::sink;
pub use source::source;
pub use upserts::upserts;

/// Trials of a kit.
fn cases() -> u64 {
    let told = std::env::var("PELTON_CASES").ok();
    told.and_then(|n| n.parse().ok()).unwrap_or(64)
}

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    /// A number below `n`, which is at least 1.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}
