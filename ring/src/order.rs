//! Every memory ordering that carries an argument, with its partner and with what it publishes.
//!
//! | Release                  | its Acquire              | publishes                                                |
//! |--------------------------|--------------------------|----------------------------------------------------------|
//! | [`TAIL_PUBLISH`]         | [`TAIL_OBSERVE`]         | the values in the slots before the new tail              |
//! | [`HEAD_PUBLISH`]         | [`HEAD_OBSERVE`]         | that the slots before the new head have been read        |
//! | [`PRODUCER_GONE`]        | [`PRODUCER_GONE_SEEN`]   | the final tail, so that closed can mean drained          |
//! | [`CONSUMER_GONE`]        | [`CONSUMER_GONE_SEEN`]   | what the consumer's thread did before it let go          |
//! | [`RING_FENCE`]           | [`RUNG_OBSERVE`]         | what the ringing thread did before it rang               |
//!
//! [`RING_FENCE`] and [`PREPARE_FENCE`] are also partners of one another, in the other sense: two sequentially consistent
//! fences of which one must come first (see the doorbell's file).
//!
//! # Weakened copies
//!
//! An ordering that no test misses is a guess. Under `--cfg loom`, and only there, the environment variable
//! `PELTON_RING_MUTANT` names one weakening from [`mutants`], and `scripts/loom-mutants` demands that some model fails for
//! each of them. It is read at run time, so one build serves them all.
//!
//! Not among them: the orderings inside `Arc`, `Mutex` and `Condvar` (not ours), and `Relaxed` operations (nothing to weaken).

use crate::sync;
use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

/// Producer, after writing slots: the new tail. Release, seen by [`TAIL_OBSERVE`]. Publishes the values.
pub(crate) const TAIL_PUBLISH: Order = Order::new("tail-publish-relaxed", Release);

/// Consumer, before reading slots: the tail. Acquire, of [`TAIL_PUBLISH`].
pub(crate) const TAIL_OBSERVE: Order = Order::new("tail-observe-relaxed", Acquire);

/// Consumer, after moving values out: the new head. Release, seen by [`HEAD_OBSERVE`]. Publishes that the reads are over, so
/// that the producer's next write to these slots cannot overtake them.
pub(crate) const HEAD_PUBLISH: Order = Order::new("head-publish-relaxed", Release);

/// Producer, before writing slots again: the head. Acquire, of [`HEAD_PUBLISH`].
pub(crate) const HEAD_OBSERVE: Order = Order::new("head-observe-relaxed", Acquire);

/// Producer's last act. Release, seen by [`PRODUCER_GONE_SEEN`]. Publishes the final tail.
pub(crate) const PRODUCER_GONE: Order = Order::new("producer-gone-relaxed", Release);

/// Consumer, having read that the producer is gone. Acquire, of [`PRODUCER_GONE`]: the tail it loads next is the final one.
pub(crate) const PRODUCER_GONE_SEEN: Fence =
    Fence::new(&[("producer-gone-seen-unfenced", None)], Acquire);

/// Consumer's first act on its way out. Release, seen by [`CONSUMER_GONE_SEEN`]. Publishes all that its thread did before.
pub(crate) const CONSUMER_GONE: Order = Order::new("consumer-gone-relaxed", Release);

/// Producer, having read that the consumer is gone. Acquire, of [`CONSUMER_GONE`].
pub(crate) const CONSUMER_GONE_SEEN: Fence =
    Fence::new(&[("consumer-gone-seen-unfenced", None)], Acquire);

/// Ringer, between what it published and the look at the parked flag. Of the two fences one comes first in the single order
/// of all sequentially consistent operations: either the ringer sees the flag, or the sleeper sees the work. It is a Release too, for
/// the flag that the ringer clears afterwards; seen by [`RUNG_OBSERVE`].
pub(crate) const RING_FENCE: Fence = Fence::new(
    &[("ring-unfenced", None), ("ring-fence-acqrel", Some(AcqRel))],
    SeqCst,
);

/// Sleeper, between raising the parked flag and its last look for work. The partner of [`RING_FENCE`].
pub(crate) const PREPARE_FENCE: Fence = Fence::new(
    &[
        ("prepare-unfenced", None),
        ("prepare-fence-acqrel", Some(AcqRel)),
    ],
    SeqCst,
);

/// Sleeper, finding the parked flag down. Acquire, of the Release in [`RING_FENCE`].
pub(crate) const RUNG_OBSERVE: Order = Order::new("rung-observe-relaxed", Acquire);

/// The ordering of one access, and the name of the copy that has none.
pub(crate) struct Order {
    relaxed: &'static str,
    right: Ordering,
}

impl Order {
    const fn new(relaxed: &'static str, right: Ordering) -> Self {
        Order { relaxed, right }
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Ordering {
        if cfg!(loom) && is_mutant(self.relaxed) {
            Relaxed
        } else {
            self.right
        }
    }
}

/// A fence, and the weaker fences (or none at all) that must not do.
pub(crate) struct Fence {
    weakened: &'static [(&'static str, Option<Ordering>)],
    right: Ordering,
}

impl Fence {
    const fn new(weakened: &'static [(&'static str, Option<Ordering>)], right: Ordering) -> Self {
        Fence { weakened, right }
    }

    #[inline(always)]
    pub(crate) fn issue(&self) {
        if cfg!(loom) {
            for (name, ordering) in self.weakened {
                if is_mutant(name) {
                    if let Some(ordering) = ordering {
                        sync::fence(*ordering);
                    }
                    return;
                }
            }
        }
        sync::fence(self.right);
    }
}

/// The names of all weakenings.
pub fn mutants() -> Vec<&'static str> {
    let orders = [
        &TAIL_PUBLISH,
        &TAIL_OBSERVE,
        &HEAD_PUBLISH,
        &HEAD_OBSERVE,
        &PRODUCER_GONE,
        &CONSUMER_GONE,
        &RUNG_OBSERVE,
    ];
    let fences = [
        &PRODUCER_GONE_SEEN,
        &CONSUMER_GONE_SEEN,
        &RING_FENCE,
        &PREPARE_FENCE,
    ];
    let weakened = fences.iter().flat_map(|fence| fence.weakened);
    orders
        .iter()
        .map(|order| order.relaxed)
        .chain(weakened.map(|(name, _)| *name))
        .collect()
}

/// Whether this process runs the weakened copy called `name`.
fn is_mutant(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();

    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("PELTON_RING_MUTANT").ok()?;
        // A misspelt mutant would run the sound code and look like one that nothing catches, or worse.
        assert!(
            mutants().contains(&chosen.as_str()),
            "PELTON_RING_MUTANT={chosen} is none of {:?}",
            mutants()
        );
        Some(chosen)
    });
    chosen.as_deref() == Some(name)
}
