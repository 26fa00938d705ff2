//! Orders in which tasklets are stepped.

use crate::random::Random;

/// Who is stepped next.
#[derive(Debug)]
pub struct Schedule {
    random: Random,
    kind: Kind,
    /// Steps until the phase changes.
    left: i64,
    /// Those that starve in this phase.
    starved: Vec<usize>,
    last: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// In turn, from the sources on.
    Forward,
    /// In turn, from the sinks back.
    Backward,
    /// Any.
    Uniform,
    /// The same one many times over.
    Bursts,
    /// Any, but some are left out for long.
    Starving,
}

impl Schedule {
    /// The schedule of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let kind = random.pick(&[
            Kind::Forward,
            Kind::Backward,
            Kind::Uniform,
            Kind::Uniform,
            Kind::Bursts,
            Kind::Starving,
            Kind::Starving,
        ]);
        Schedule {
            random,
            kind,
            left: 0,
            starved: vec![],
            last: 0,
        }
    }

    /// One of `n` tasklets.
    pub fn next(&mut self, n: usize) -> usize {
        let r = &mut self.random;
        self.left -= 1;
        self.last = match self.kind {
            Kind::Forward => (self.last + 1) % n,
            Kind::Backward => (self.last + n - 1) % n,
            Kind::Uniform => r.below(n),
            Kind::Bursts => {
                if self.left < 0 {
                    self.left = r.between(0, 30);
                    r.below(n)
                } else {
                    self.last
                }
            }
            Kind::Starving => {
                if self.left < 0 {
                    self.left = r.between(1, 60) * n as i64;
                    self.starved = (0..r.between(0, 2)).map(|_| r.below(n)).collect();
                }
                let mut chosen = r.below(n);
                if self.starved.contains(&chosen) {
                    chosen = r.below(n);
                    if self.starved.contains(&chosen) && n > self.starved.len() {
                        chosen = (0..n).find(|t| !self.starved.contains(t)).unwrap_or(0);
                    }
                }
                chosen
            }
        };
        self.last
    }
}
