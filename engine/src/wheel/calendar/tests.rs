use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    /// So far ahead of the present.
    Insert(i64),
    /// The present moves on by so much; what is due is taken in pieces of so many moves, up to so many ids of it.
    Pop { on: i64, count: usize, piece: u32 },
}

/// Near, a little further, and over the whole range with its end.
fn wait() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -5i64..300,
        6 => 0i64..1_000_000,
        3 => (0i64..30).prop_map(|k| k << 16),
        2 => 0i64..=i64::MAX,
        1 => prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(255), Just(256), Just(65_536)],
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let on = prop_oneof![
        2 => Just(0i64),
        6 => 0i64..400,
        4 => 0i64..1_500_000,
        1 => 0i64..1 << 60,
    ];
    prop_oneof![
        8 => wait().prop_map(Op::Insert),
        3 => (on, 0usize..80, 1u32..50).prop_map(|(on, count, piece)| Op::Pop { on, count, piece }),
    ]
}

/// Takes what is due at `now` out of both, at most so many; ids come once each, none too early.
fn take(
    calendar: &mut Calendar,
    model: &mut BTreeMap<u32, i64>,
    now: i64,
    count: usize,
    piece: u32,
) {
    for _ in 0..count {
        let mut budget = piece;
        loop {
            match calendar.pop(now, &mut budget, |_| {}) {
                Popped::Due { time, value } => {
                    assert_eq!(model.remove(&value), Some(time), "it was in");
                    assert!(time <= now, "{time} is not due at {now}");
                    assert!(budget < piece, "taking out costs");
                    break;
                }
                Popped::More => {
                    assert_eq!(budget, 0);
                    budget = piece;
                }
                Popped::Nothing => {
                    let left = model.values().min();
                    assert!(left.is_none_or(|&t| t > now), "{left:?} at {now}");
                    // Whoever waits for what it says gets on.
                    match (calendar.next_at(), left) {
                        (Some(at), Some(&left)) => assert!(at > now && at <= left),
                        (at, left) => assert_eq!((at, left), (None, None)),
                    }
                    return;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_due_comes_and_nothing_else(ops in prop::collection::vec(op(), 0..400), crowd in 0u32..200, begins in prop_oneof![Just(i64::MIN), Just(0), Just(1i64 << 50)]) {
        let mut calendar = Calendar::new();
        let mut model = BTreeMap::new();
        let (mut now, mut next) = (begins, 0);
        for op in ops {
            match op {
                Op::Insert(wait) => {
                    // Some times have many.
                    let many = if next % 9 == 0 { crowd } else { 1 };
                    for _ in 0..many {
                        let time = now.saturating_add(wait);
                        calendar.insert(time, next);
                        model.insert(next, time);
                        next += 1;
                    }
                    next += 1;
                }
                Op::Pop { on, count, piece } => {
                    now = now.saturating_add(on);
                    take(&mut calendar, &mut model, now, count, piece);
                }
            }
            if let Some(&first) = model.values().min() {
                prop_assert!(calendar.next_at().is_some_and(|at| at <= first));
            }
        }
        take(&mut calendar, &mut model, i64::MAX, usize::MAX, 1000);
        prop_assert!(model.is_empty());
        prop_assert_eq!(calendar.levels, 0);
        // All chunks are free again.
        let (mut free, mut count) = (calendar.free, 0);
        while free != NONE {
            (free, count) = (calendar.links.get(free as usize).next, count + 1);
        }
        prop_assert_eq!(count, calendar.links.len());
    }
}

/// Equal lives, as a time to live has them: whatever the watermark's steps, an id is moved twice or so, and memory is used again.
#[test]
fn few_moves_and_no_new_memory() {
    for step in [1i64, 40, 1_000, 25_000, 3_000_000] {
        let mut calendar = Calendar::new();
        let (span, each) = (300_000, 3.max(step / 200));
        let (mut now, mut ids, mut moves, mut gone) = (0, 0u32, 0, 0u32);
        let mut chunks = 0;
        while gone < 60_000 {
            // Not quite in order.
            while i64::from(ids) * each < now {
                let time = i64::from(ids) * each + span;
                calendar.insert(
                    time - i64::from(ids.wrapping_mul(2_654_435_761) % 5_000),
                    ids,
                );
                ids += 1;
            }
            loop {
                let mut budget = 100;
                let popped = calendar.pop(now, &mut budget, |_| {});
                moves += 100 - budget;
                match popped {
                    Popped::Due { .. } => gone += 1,
                    Popped::More => {}
                    Popped::Nothing => break,
                }
            }
            now += step;
            if gone < 30_000 {
                chunks = calendar.links.len();
            }
        }
        assert!(moves <= 4 * gone, "step {step}: {moves} moves of {gone}");
        let more = calendar.links.len();
        assert!(
            more <= 2 * chunks + 64,
            "step {step}: {chunks}, then {more} chunks"
        );
    }
}

/// Law 4: however many are due at one time, or lie in the slot of the present, a call ends soon.
#[test]
fn a_crowd_is_taken_in_pieces() {
    let mut calendar = Calendar::new();
    for id in 0..50_000 {
        calendar.insert(1_000_000 + i64::from(id >= 25_000), id);
    }
    let (mut gone, mut more) = (0, 0);
    let chunks = |calendar: &Calendar| {
        let (mut chunk, mut count) = (calendar.moving, 0);
        while chunk != NONE {
            (chunk, count) = (calendar.links.get(chunk as usize).next, count + 1);
        }
        count
    };
    let first = calendar.pop(1_000_000, &mut 0, |_| {});
    assert_eq!(
        (first, chunks(&calendar)),
        (Popped::More, 50_000_usize.div_ceil(CHUNK))
    );
    loop {
        let before = chunks(&calendar);
        match calendar.pop(1_000_000, &mut 64, |_| {}) {
            Popped::Due { time, .. } => {
                assert_eq!(time, 1_000_000);
                gone += 1;
            }
            Popped::More => more += 1,
            Popped::Nothing => break,
        }
        assert!(before - chunks(&calendar) <= 64 / CHUNK + 1);
    }
    assert_eq!(gone, 25_000);
    assert!(more > 0, "ids that are not due were moved");
    assert_eq!(calendar.next_at(), Some(1_000_001));
}
