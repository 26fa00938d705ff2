//! Which cores a run may use, pinning to them, and how far apart they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How many cores this process may run on.
pub fn available() -> usize {
    core_affinity::get_core_ids().map_or(1, |ids| ids.len())
}

/// The number of the `index`th core this process may run on, as the system counts.
pub fn id(index: usize) -> Option<usize> {
    let ids = core_affinity::get_core_ids()?;
    ids.get(index).map(|core| core.id)
}

/// Pins this thread to the `index`th core that it may run on; where the system refuses, the thread stays free.
pub fn pin(index: usize) {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = ids.get(index) {
        core_affinity::set_for_current(*core);
    }
}

/// Nanoseconds for a word to go from the first core to the second and back, where there are two: the median of some rounds of
/// many. It takes some 10 ms.
///
/// What shards hand each other pays for it. Two cores of one cache are some 60 ns apart, two that share none 300 and more; on
/// a virtual machine a pair may be now the one and now the other, and a run of two shards is told by nothing else.
pub fn round_trip_ns() -> Option<f64> {
    const ROUNDS: usize = 9;
    const TRIPS: u64 = 3000;
    if available() < 2 {
        return None;
    }
    // Even numbers are the first core's turn.
    let word = AtomicU64::new(0);
    let total = ROUNDS as u64 * TRIPS;
    let turn = |mine: u64, from: u64, to: u64| {
        for trip in from..to {
            while word.load(Ordering::Acquire) != 2 * trip + mine {
                std::hint::spin_loop();
            }
            word.store(2 * trip + mine + 1, Ordering::Release);
        }
    };
    let mut rounds = std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            turn(1, 0, total);
        });
        let first = scope.spawn(|| {
            pin(0);
            let rounds = (0..ROUNDS as u64).map(|round| {
                let started = Instant::now();
                turn(0, round * TRIPS, (round + 1) * TRIPS);
                started.elapsed().as_nanos() as f64 / TRIPS as f64
            });
            rounds.collect::<Vec<_>>()
        });
        first.join().unwrap_or_default()
    });
    Some(crate::report::median(&mut rounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_some_way_apart() {
        let apart = round_trip_ns();
        assert_eq!(apart.is_some(), available() > 1);
        assert!(apart.is_none_or(|ns| ns > 1.0), "{apart:?}");
    }
}
