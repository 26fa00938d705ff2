//! Patterns against themselves: never stopped, and going on from checkpoints (see [`super::rig`]).

use super::rig::{BEHIND, Compare, OP, Record, Step, check, entries_by_epoch, moved, script};
use crate::Span;
use crate::aggregate::scramble::{Dice, cases};
use crate::key::{Computed, KeyOf};
use crate::operators::order::MakeInOrder;
use crate::operators::pattern::MakePattern;
use crate::pattern::model::Whole;
use crate::pattern::{Bounds, Matched, Nfa, WhenFull};
use crate::pipeline::MakeOperator;
use crate::running::Keyed;
use crate::stage::operator::Operator;
use proptest::prelude::*;
use std::marker::PhantomData;

fn key() -> impl KeyOf<Record, Key = u8> {
    Computed(|r: &Record| r.1)
}

/// A pattern behind an order; a match is told by its events' values.
fn maker(
    nfa: Nfa<Record>,
    bounds: Bounds,
) -> impl MakeOperator<Record, Op: Operator<Record, Out = Keyed<u8, String>>> {
    let select = |matched: &Matched<'_, Record>, to: &mut Vec<_>| {
        let Some((_, _, first)) = matched.events().next() else {
            return;
        };
        let values: Vec<_> = matched.events().map(|(name, _, r)| (name, r.2)).collect();
        to.push(Keyed {
            key: first.1,
            value: format!("{values:?}"),
        });
    };
    let inner = MakePattern {
        key: key(),
        nfa,
        select,
        bounds,
        timed_out: None,
        op: BEHIND,
        results: PhantomData,
    };
    MakeInOrder {
        key: key(),
        inner,
        op: OP,
        lateness: Span::ZERO,
        late: None,
        rank: None,
    }
}

/// Letters of the model's patterns.
fn letter(record: &Record) -> u8 {
    (record.2 % 4) as u8
}

/// A pattern at random that is not refused.
fn any(dice: &mut Dice) -> Nfa<Record> {
    loop {
        if let Some(nfa) = Whole::any(dice).compiled(letter, 2) {
            return nfa;
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    /// With few partial matches, so that some must go: the same ones in both worlds.
    #[test]
    fn patterns_go_on(seed: u64, keys in 1usize..20, waits in 1usize..30, newest: bool) {
        let nfa = any(&mut Dice::new(seed));
        let full = if newest { WhenFull::DropNewest } else { WhenFull::DropOldest };
        let bounds = Bounds { waits, places: 2 * waits, full };
        let script = script(seed, keys, 20);
        check(|| maker(nfa.clone(), bounds), &script, seed, Compare::Rows);
    }
}

const BOUNDS: Bounds = Bounds {
    waits: 100,
    places: 100,
    full: WhenFull::DropOldest,
};

fn one(time: i64, key: u8, value: i64) -> Step {
    Step::Batch(vec![((time, key, value), None)])
}

/// `a` followed by `b`, within ten.
fn a_then_b() -> Nfa<Record> {
    let pattern = crate::pattern::Pattern::begin("a")
        .where_(|r: &Record| r.2 == 0)
        .followed_by("b")
        .where_(|r| r.2 == 1)
        .within(Span::from_micros(10));
    let mut plan = crate::plan::Plan::default();
    let location = std::panic::Location::caller();
    let op = plan.op("pattern", crate::plan::Results::ROWS, location);
    pattern.compile(plan.info(op)).0
}

/// A key is written when an event of its own has come and it has a partial match, and leaves one tombstone.
#[test]
fn an_epoch_has_the_keys_that_have_changed() {
    let steps = vec![
        one(1, 1, 0),
        Step::Watermark(2),
        one(3, 2, 0),
        Step::Watermark(4),
        // It begins nothing, and what it comes to has changed in nothing but its turn.
        one(5, 3, 7),
        Step::Watermark(6),
        one(7, 1, 1),
        Step::Watermark(8),
        Step::Watermark(12),
        Step::Watermark(13),
        Step::Watermark(14),
    ];
    // A record that waits is an entry, and a tombstone when it is replayed: see the order. The others are those of keys.
    let entries = entries_by_epoch(|| maker(a_then_b(), BOUNDS), steps);
    assert_eq!(entries, [1, 2, 1, 2, 1, 1, 1, 2, 0, 1, 0]);
}

/// A partial match goes with its key to another shard, and times out there.
#[test]
fn a_partial_match_moves() {
    let attempts = vec![
        (1, one(1, 1, 0), true),
        (3, Step::Watermark(2), false),
        (2, one(3, 1, 1), false),
        (3, Step::Watermark(9), true),
        (1, Step::Watermark(40), false),
    ];
    let rows = moved(|| maker(a_then_b(), BOUNDS), attempts);
    let values: Vec<_> = rows
        .iter()
        .map(|r| r.value.replace(['"', '\\'], ""))
        .collect();
    assert_eq!(values, ["[(a, 0), (b, 1)]"]);
}

/// Counts what is pushed.
#[derive(Default)]
struct Count(usize);

impl crate::push::Push<u64> for Count {
    fn push(&mut self, _: u64, _: crate::batch::Stamp, _: &mut crate::push::Cx) {
        self.0 += 1;
    }
    fn control(&mut self, _: crate::push::Control, _: &mut crate::push::Cx) {}
    fn blocked(&self) -> bool {
        false
    }
}

/// A timer that ends very many partial matches does so in pieces.
#[test]
fn a_timer_is_parted() {
    let pattern = crate::pattern::Pattern::begin("a")
        .where_(|r: &Record| r.2 == 0)
        .not_followed_by("b")
        .where_(|r| r.2 == 1)
        .within(Span::from_micros(10));
    let mut plan = crate::plan::Plan::default();
    let location = std::panic::Location::caller();
    let op = plan.op("pattern", crate::plan::Results::ROWS, location);
    let mut make = MakePattern {
        key: key(),
        nfa: pattern.compile(plan.info(op)).0,
        select: |_: &Matched<'_, Record>, to: &mut Vec<u64>| to.push(1),
        bounds: Bounds {
            waits: 1000,
            ..BOUNDS
        },
        timed_out: None,
        op: OP,
        results: PhantomData,
    };
    make.bounds.places = 1000;
    let config = crate::plan::PlanConfig {
        shards: 1,
        ring_capacity: 4,
        batch_size: 16,
        key_groups: 16,
        checkpoints: false,
    };
    let op = crate::plan::Plan::default().alone(&config, 0, |build| make.make(build));
    let (mut op, mut out, mut cx) = (op.unwrap(), Count::default(), crate::push::Cx::new(0));
    let mut batch = crate::batch::Batch::with_capacity(16);
    let time = crate::EventTime::from_micros(5);
    for key in [1, 2] {
        for _ in 0..200 {
            batch.push((5, key, 0), crate::batch::Stamp::at(time));
        }
    }
    while !batch.is_empty() {
        op.batch(&mut batch, &mut out, &mut cx);
    }
    op.watermark(crate::EventTime::from_micros(14), &mut out, &mut cx);
    while !op.resume(&mut out, &mut cx) {}
    assert_eq!(out.0, 0);
    op.watermark(crate::EventTime::from_micros(15), &mut out, &mut cx);
    let mut before = 0;
    while !op.resume(&mut out, &mut cx) {
        assert!(out.0 - before <= 20, "{} in a step", out.0 - before);
        before = out.0;
    }
    assert_eq!(out.0, 400);
    assert_eq!(op.close_idle(), None, "no key is left");
}
