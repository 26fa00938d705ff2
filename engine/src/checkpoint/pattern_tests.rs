//! Patterns against themselves: never stopped, and going on from checkpoints (see [`super::rig`]).

use super::rig::{BEHIND, Compare, OP, Record, Step, check, entries_by_epoch, moved, script};
use crate::aggregate::scramble::{Dice, cases};
use crate::batch::{Batch, Origin, Stamp};
use crate::key::{Computed, KeyOf};
use crate::operators::order::MakeInOrder;
use crate::operators::pattern::MakePattern;
use crate::pattern::model::Whole;
use crate::pattern::{Bounds, Matched, Nfa, WhenFull};
use crate::pipeline::MakeOperator;
use crate::push::Cx;
use crate::running::Keyed;
use crate::stage::operator::Operator;
use crate::{EventTime, Span};
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

/// Keeps what it is given, and of what origin.
#[derive(Default)]
struct Given(Vec<(i64, Origin)>);

impl crate::push::Push<u64> for Given {
    fn push(&mut self, _: u64, stamp: Stamp, cx: &mut Cx) {
        self.0.push((stamp.time.micros(), cx.origin));
    }
    fn control(&mut self, _: crate::push::Control, _: &mut Cx) {}
    fn blocked(&self) -> bool {
        false
    }
}

/// `a` that no `b` follows within ten, told two times each, on one shard.
fn a_alone() -> impl Operator<Record, Out = u64> {
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
        select: |_: &Matched<'_, Record>, to: &mut Vec<u64>| to.extend([1, 2]),
        bounds: Bounds {
            waits: 1000,
            places: 1000,
            full: WhenFull::DropOldest,
        },
        timed_out: None,
        op: OP,
        results: PhantomData,
    };
    let config = crate::plan::PlanConfig {
        shards: 1,
        ring_capacity: 4,
        batch_size: 16,
        key_groups: 16,
        checkpoints: false,
    };
    let op = crate::plan::Plan::default().alone(&config, 0, |build| make.make(build));
    op.unwrap()
}

/// Two hundred of each of these keys at five, one hundred at six.
fn many(keys: &[u8]) -> Batch<Record> {
    let mut batch = Batch::with_capacity(16);
    for &key in keys {
        for n in 0..300 {
            let time = 5 + i64::from(n >= 200);
            batch.push((time, key, 0), Stamp::at(EventTime::from_micros(time)));
        }
    }
    batch
}

/// What is told of a key at one time is numbered on, so no two have one origin.
fn numbered(told: &[(i64, Origin)]) {
    let mut next = std::collections::BTreeMap::new();
    for (time, origin) in told {
        let n = next.entry((*time, origin.offset)).or_insert(0);
        assert_eq!(origin.emission, Origin::below(0, *n), "{n} at {time}");
        *n += 1;
    }
}

/// A timer that ends very many partial matches does so in pieces, and its results are numbered as if it did so at once.
#[test]
fn a_timer_is_parted() {
    let (mut op, mut out, mut cx) = (a_alone(), Given::default(), Cx::new(0));
    let mut batch = many(&[1, 2]);
    while !batch.is_empty() {
        op.batch(&mut batch, &mut out, &mut cx);
    }
    op.watermark(EventTime::from_micros(14), &mut out, &mut cx);
    while !op.resume(&mut out, &mut cx) {}
    assert_eq!(out.0, []);
    op.watermark(EventTime::from_micros(16), &mut out, &mut cx);
    let mut before = 0;
    while !op.resume(&mut out, &mut cx) {
        let step = out.0.len() - before;
        assert!(step <= 40, "{step} in a step");
        before = out.0.len();
    }
    assert_eq!(out.0.len(), 1200);
    numbered(&out.0);
    assert_eq!(op.close_idle(), None, "no key has anything left");
}

/// A record that comes before the timer ends no more in a step than it would, and tells the same; then it is taken itself.
#[test]
fn what_a_record_ends_is_parted() {
    let told = |record: bool| {
        let (mut op, mut out, mut cx) = (a_alone(), Given::default(), Cx::new(0));
        let mut batch = many(&[1]);
        while !batch.is_empty() {
            op.batch(&mut batch, &mut out, &mut cx);
        }
        let mut steps = 0;
        if record {
            let origin = |partition| Origin {
                partition,
                ..Origin::default()
            };
            for n in 0..2 {
                let time = 20 + i64::from(n);
                batch.push((time, 1, 0), Stamp::at(EventTime::from_micros(time)));
                batch.origins.push(origin(n));
            }
            while !batch.is_empty() {
                let before = out.0.len();
                op.batch(&mut batch, &mut out, &mut cx);
                let step = out.0.len() - before;
                assert!(step <= 40, "{step} in a step");
                assert!(step > 0 || batch.is_empty(), "a step does something");
                steps += 1;
            }
            assert!(steps > 10);
            assert_eq!(out.0.len(), 600);
        }
        op.watermark(EventTime::from_micros(16), &mut out, &mut cx);
        while !op.resume(&mut out, &mut cx) {}
        let before = out.0.split_off(600);
        assert_eq!(before, []);
        numbered(&out.0);
        op.watermark(EventTime::from_micros(100), &mut out, &mut cx);
        while !op.resume(&mut out, &mut cx) {}
        // Those of the records themselves.
        assert_eq!(out.0.len(), if record { 604 } else { 600 });
        out.0.truncate(600);
        out.0
    };
    assert_eq!(told(true), told(false));
}

/// A key whose match is complete is in no checkpoint, and begins anew before its timer comes.
#[test]
fn an_emptied_key_is_used_again() {
    let steps = vec![
        one(1, 1, 0),
        Step::Watermark(2),
        // Complete: one tombstone, beside that of the order.
        one(3, 1, 1),
        Step::Watermark(4),
        one(5, 1, 0),
        Step::Watermark(6),
        // The timer of the first is over, and that of the third is not.
        Step::Watermark(12),
        one(13, 1, 1),
        Step::Watermark(14),
        Step::Watermark(40),
    ];
    let entries = entries_by_epoch(|| maker(a_then_b(), BOUNDS), steps);
    assert_eq!(entries, [1, 2, 1, 2, 1, 2, 0, 1, 2, 0]);
}
