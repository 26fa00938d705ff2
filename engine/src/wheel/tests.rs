use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The owner: true deadlines by value; the tie is coarse, so that `order` decides too.
#[derive(Default)]
struct Owner(BTreeMap<u32, i64>);

impl Timers<u32> for Owner {
    fn deadline(&self, value: u32, _: i64) -> i64 {
        self.0[&value]
    }
    fn tie(&self, value: u32) -> u64 {
        u64::from(value % 3)
    }
    fn order(&self, a: u32, b: u32) -> Ordering {
        a.cmp(&b)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(i64),
    Cancel(usize),
    PutOff(usize, i64),
    /// Fires up to so many timers, in pieces of so many moves; the time may fall.
    Pop {
        forward: i64,
        count: usize,
        piece: u32,
    },
}

/// Times near each other, some equal, and over the whole range with its ends.
fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0i64..200,
        6 => 0i64..2_000_000,
        2 => (0i64..20).prop_map(|k| k << 40),
        2 => -(1i64 << 62)..=1 << 62,
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(1 << 62), Just(-(1 << 62))],
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => time().prop_map(Op::Insert),
        2 => any::<prop::sample::Index>().prop_map(|i| Op::Cancel(i.index(1 << 20))),
        2 => (any::<prop::sample::Index>(), time()).prop_map(|(i, t)| Op::PutOff(i.index(1 << 20), t)),
        3 => (time(), 0usize..60, 1u32..40)
            .prop_map(|(forward, count, piece)| Op::Pop { forward, count, piece }),
    ]
}

/// Every pop gives the least timer of the model, or says rightly that none is due.
fn run(grain: u32, ops: Vec<Op>) {
    let mut wheel = Wheel::new(grain);
    let mut owner = Owner::default();
    let mut handles: Vec<(u32, Timer)> = vec![];
    let mut model: BTreeSet<(i64, u32, u32)> = BTreeSet::new();
    let mut next = 0;
    for op in ops {
        match op {
            Op::Insert(time) => {
                let value = next;
                next += 1;
                owner.0.insert(value, time);
                handles.push((value, wheel.insert(time, value)));
                model.insert((time, value % 3, value));
            }
            Op::Cancel(which) if !handles.is_empty() => {
                let (value, timer) = handles.swap_remove(which % handles.len());
                let stood = model.remove(&(owner.0[&value], value % 3, value));
                assert_eq!(wheel.cancel(timer, &owner), stood, "value {value}");
                assert!(!wheel.cancel(timer, &owner), "cancelled twice");
            }
            Op::PutOff(which, by) if !handles.is_empty() => {
                let (value, _) = handles[which % handles.len()];
                let old = owner.0[&value];
                if model.remove(&(old, value % 3, value)) {
                    let new = old.saturating_add(by.saturating_abs());
                    owner.0.insert(value, new);
                    model.insert((new, value % 3, value));
                }
            }
            Op::Cancel(_) | Op::PutOff(..) => {}
            Op::Pop {
                forward,
                count,
                piece,
            } => {
                let until = forward;
                let mut fired = 0;
                while fired < count {
                    let mut budget = piece;
                    match wheel.pop(until, &owner, &mut budget) {
                        Popped::Due { time, value } => {
                            fired += 1;
                            assert!(budget < piece, "a firing costs");
                            assert_eq!(model.pop_first(), Some((time, value % 3, value)));
                            assert!(time <= until);
                        }
                        Popped::More => assert_eq!(budget, 0),
                        Popped::Nothing => {
                            assert!(model.first().is_none_or(|m| m.0 > until), "{model:?}");
                            // Whoever waits for what it says gets on.
                            assert!(wheel.next_at().is_none_or(|t| t > until));
                            break;
                        }
                    }
                }
            }
        }
        assert_eq!(wheel.len(), model.len());
        match (wheel.next_at(), model.first()) {
            (Some(at), Some(first)) => assert!(at <= first.0, "{at} {first:?}"),
            // One that was cancelled may still lie in the run.
            (at, first) => assert!(first.is_none(), "{at:?} {first:?}"),
        }
    }
    // The rest, to the end of time.
    let mut budget = u32::MAX;
    while let Popped::Due { time, value } = wheel.pop(i64::MAX, &owner, &mut budget) {
        assert_eq!(model.pop_first(), Some((time, value % 3, value)));
    }
    assert!(model.is_empty() && wheel.is_empty());
    assert_eq!(wheel.heap.len, 0);
    assert!(wheel.occupied.iter().flatten().all(|w| *w == 0));
    assert_eq!(wheel.held, 0);
}

proptest! {
    #[test]
    fn it_fires_in_the_order_of_a_sorted_map(grain in 1u32..24, ops in prop::collection::vec(op(), 0..300)) {
        run(grain, ops);
    }
}

struct Plain;
impl Timers<u32> for Plain {
    fn tie(&self, value: u32) -> u64 {
        value.into()
    }
}

fn drain(wheel: &mut Wheel<u32>, until: i64, piece: u32) -> (Vec<(i64, u32)>, u64) {
    let (mut fired, mut moved) = (vec![], 0);
    loop {
        let mut budget = piece;
        let popped = wheel.pop(until, &Plain, &mut budget);
        moved += u64::from(piece - budget);
        match popped {
            Popped::Due { time, value } => fired.push((time, value)),
            Popped::More => {}
            Popped::Nothing => return (fired, moved),
        }
    }
}

#[test]
fn many_timers_of_one_slot_fire_in_order_in_pieces() {
    // More than MANY at each level: slots are spread, not sorted whole.
    let mut wheel = Wheel::new(12);
    let mut expected = vec![];
    for n in 0..40_000u32 {
        let time = i64::from(n.wrapping_mul(2_654_435_761) % 5_000_000) / 1000 * 1000;
        wheel.insert(time, n);
        expected.push((time, n));
    }
    expected.sort();
    let (fired, _) = drain(&mut wheel, i64::MAX, 100);
    assert_eq!(fired, expected);
}

#[test]
fn near_timers_are_cancelled_out_of_run_and_heap() {
    let mut wheel = Wheel::new(8);
    let mut timers = vec![];
    // All of one of the finest slots, which are of 256.
    let slot = 400 * 256;
    let scattered = |n: u32| 1 + i64::from(n.wrapping_mul(2_654_435_761) % 250);
    for n in 0..6000u32 {
        timers.push((wheel.insert(slot + scattered(n), n), n));
    }
    // Near, but not due: one slot of too many for a run.
    assert_eq!(drain(&mut wheel, slot, 100).0, []);
    assert!(wheel.heap.len > 4000 && wheel.run.len() == MANY);
    let mut expected = vec![];
    for (timer, n) in timers {
        if scattered(n) % 3 == 0 {
            expected.push((slot + scattered(n), n));
        } else {
            assert!(wheel.cancel(timer, &Plain));
        }
    }
    expected.sort();
    assert_eq!(drain(&mut wheel, i64::MAX, 100).0, expected);
}

#[test]
fn a_jump_by_years_costs_what_is_due() {
    let mut wheel = Wheel::new(10);
    let year = 365 * 86_400_000_000i64;
    let mut now = -(1i64 << 62);
    for round in 0..200 {
        now += 700 * year;
        for n in 0..10 {
            wheel.insert(now + i64::from(n) * 1000, n);
        }
        let (fired, moved) = drain(&mut wheel, now + 20_000, 1000);
        assert_eq!(fired.len(), 10);
        assert!(moved <= 10 * 9, "round {round}: {moved} moves");
    }
    // Nothing to fire, nothing to move, however far.
    assert_eq!(drain(&mut wheel, i64::MAX, 1000), (vec![], 0));
}

#[test]
fn the_memory_of_a_full_wheel_is_used_again() {
    let mut wheel = Wheel::new(10);
    let round = |wheel: &mut Wheel<u32>, from: i64| {
        for n in 0..5000 {
            wheel.insert(from + i64::from(n) * 333, n);
        }
        assert_eq!(drain(wheel, from + 5000 * 333, 64).0.len(), 5000);
    };
    let slot = 1 << 40;
    round(&mut wheel, 0);
    round(&mut wheel, slot);
    let bytes = wheel.bytes();
    for n in 2..20 {
        round(&mut wheel, n * slot);
    }
    assert_eq!(wheel.bytes(), bytes);
}

#[test]
fn cancelling_near_the_cursor_again_and_again_leaves_nothing_behind() {
    let mut wheel = Wheel::new(8);
    for n in 0..100_000u32 {
        let timer = wheel.insert(1000, n);
        // Moves it near, but it is not due.
        let mut budget = 10;
        assert_eq!(wheel.pop(900, &Plain, &mut budget), Popped::Nothing);
        assert!(wheel.run.len() + wheel.heap.len > 0);
        assert!(wheel.cancel(timer, &Plain));
    }
    assert!(wheel.run.len() + wheel.heap.len <= 1);
    assert!(wheel.is_empty());
}

/// However coarse the grain, a heap is for those that are too many within the finest slot: it costs ten times a slot's sort.
#[test]
fn a_crowded_slot_is_spread_and_not_heaped() {
    let mut wheel = Wheel::new(24);
    for n in 0..60_000u32 {
        wheel.insert((1 << 25) + i64::from(n) * 100, n);
    }
    let mut fired = 0;
    for until in (1 << 25..(1 << 25) + 6_000_000).step_by(10_000) {
        fired += drain(&mut wheel, until, 100).0.len();
        assert_eq!(wheel.heap.len, 0);
    }
    assert_eq!(fired, 59_901);
    assert_eq!(wheel.len(), 99);
}
