//! For tests: the same records in a random order, split over accumulators, merged in a random tree.

use super::{Aggregate, Aggs, At, ExactSum};
use crate::batch::Origin;
use crate::state::{Codec, State};
use crate::time::EventTime;
use proptest::prelude::*;

/// How many cases a property runs: `PELTON_CASES`, else 256.
pub(crate) fn cases() -> ProptestConfig {
    let cases = std::env::var("PELTON_CASES")
        .ok()
        .and_then(|c| c.parse().ok());
    ProptestConfig::with_cases(cases.unwrap_or(256))
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
}

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    any::<u64>().prop_map(|seed| Plan { seed })
}

/// xorshift64*.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed | 1)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize) % n
    }
}

/// The place of record `index` of a test: a few records share each time, so that origins decide.
pub(super) fn place(index: usize) -> At {
    At {
        time: EventTime::from_micros(index as i64 / 3),
        origin: Origin {
            offset: index as u64,
            ..Origin::default()
        },
    }
}

/// The aggregate of `records`, each at its [`place`], by way of one to six accumulators of which some stay empty, and now
/// and then one is saved and what was loaded goes on in its stead.
pub(super) fn scrambled<T, A: Aggregate<T>>(aggregate: &A, records: &[T], plan: &Plan) -> A::Out {
    let mut dice = Dice::new(plan.seed);
    let mut order: Vec<usize> = (0..records.len()).collect();
    for n in (1..order.len()).rev() {
        order.swap(n, dice.below(n + 1));
    }
    let mut parts: Vec<A::Acc> = (0..1 + dice.below(6)).map(|_| aggregate.create()).collect();
    let runs = 1 + dice.below(8);
    let mut to = 0;
    for index in order {
        if dice.below(runs) == 0 {
            to = dice.below(parts.len());
        }
        aggregate.add(&mut parts[to], &records[index], place(index));
        if dice.below(8) == 0 {
            let at = dice.below(parts.len());
            parts[at] = loaded(&parts[at]);
        }
        // Merging may also come before further records.
        if parts.len() > 1 && dice.below(16) == 0 {
            let from = parts.swap_remove(dice.below(parts.len()));
            to = dice.below(parts.len());
            aggregate.merge(&mut parts[to], &from);
        }
    }
    while parts.len() > 1 {
        let from = parts.swap_remove(dice.below(parts.len()));
        let to = dice.below(parts.len());
        aggregate.merge(&mut parts[to], &from);
    }
    // What a result is made of comes back as well.
    aggregate.finish(&loaded(&parts[0]))
}

/// What is loaded of what was saved.
pub(super) fn loaded<T: State>(value: &T) -> T {
    let mut codec = Codec::default();
    let bytes = codec.bytes_of(value);
    codec.load(&bytes).expect("what was saved is loaded")
}

/// Floats of all sizes, ordinary ones, the ends of the range, infinities and NaN.
pub(super) fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => -1e6f64..1e6,
        4 => finite(),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(f64::NAN),
        1 => Just(-f64::NAN),
    ]
}

/// Finite floats of all sizes.
pub(super) fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => any::<u64>().prop_map(|b| Some(f64::from_bits(b)).filter(|f| f.is_finite()).unwrap_or(1.0)),
        4 => (-1e3f64..1e3, -300i32..300).prop_map(|(m, e)| m * 10f64.powi(e)),
        1 => Just(f64::MAX),
        1 => Just(f64::MIN),
        1 => Just(f64::MIN_POSITIVE),
        1 => Just(5e-324),
        1 => Just(-0.0),
        1 => Just(0.0),
    ]
}

/// The exact sum, and the sum of magnitudes.
pub(super) fn naive_float_sum(values: &[f64]) -> (f64, f64) {
    let aggregate: ExactSum<_, f64> = Aggs::new().sum_exact(|v: &f64| *v);
    let mut acc = Aggregate::<f64>::create(&aggregate);
    values
        .iter()
        .for_each(|v| aggregate.add(&mut acc, v, At::default()));
    (
        Aggregate::<f64>::finish(&aggregate, &acc),
        values.iter().map(|v| v.abs()).sum(),
    )
}

/// How many floats lie between two of the same sign.
pub(super) fn ulps(a: f64, b: f64) -> u64 {
    if a == b {
        0
    } else {
        a.to_bits().abs_diff(b.to_bits())
    }
}
