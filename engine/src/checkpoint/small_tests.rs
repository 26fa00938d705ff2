//! Small keyed operators against themselves: never stopped, and going on from checkpoints (see [`super::rig`]).

use super::rig::{BEHIND, Compare, OP, Record, Step, check, entries_by_epoch, script};
use crate::aggregate::Aggs;
use crate::aggregate::scramble::cases;
use crate::changelog::{Told, maker};
use crate::deduplicate::{first, last};
use crate::key::{Computed, KeyOf};
use crate::operators::order::MakeInOrder;
use crate::operators::running::{Fold, SoFar};
use crate::pipeline::MakeOperator;
use crate::stage::operator::Operator;
use crate::top::{Bare, Numbered, Top};
use crate::{Over, Span, Spans};
use proptest::prelude::*;
use std::marker::PhantomData;

fn key() -> impl KeyOf<Record, Key = u8> {
    Computed(|r: &Record| r.1)
}

fn in_order<M: MakeOperator<Record>>(
    inner: M,
) -> impl MakeOperator<Record, Op: Operator<Record, Out = <M::Op as Operator<Record>>::Out>> {
    MakeInOrder {
        key: key(),
        inner,
        op: OP,
        lateness: Span::ZERO,
        late: None,
        rank: None,
    }
}

fn top<S>(n: usize) -> Top<i64, impl Fn(&Record) -> i64 + Clone + Send + 'static, S> {
    Top {
        n,
        score: |r: &Record| r.2 % 7,
        types: PhantomData,
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn deduplication_goes_on(seed: u64, keys in 1usize..60, horizon in 1i64..80) {
        let script = script(seed, keys, 40);
        let horizon = horizon.micros();
        check(|| first(key(), horizon, OP), &script, seed, Compare::Rows);
        check(|| in_order(first(key(), horizon, BEHIND)), &script, seed, Compare::Rows);
        check(|| in_order(last(key(), horizon, BEHIND)), &script, seed, Compare::Rows);
    }

    #[test]
    fn changelogs_go_on(seed: u64, keys in 1usize..60) {
        let script = script(seed, keys, 40);
        let sums = || {
            let a = Aggs::<Record>::new();
            maker(key(), Told(SoFar((a.count(), a.sum(|r| r.2), a.first(|r| r.2)))), OP)
        };
        check(sums, &script, seed, Compare::Rows);
        let fold = |op| maker(key(), Told(Fold(vec![], |a: &mut Vec<i64>, b: &Record| a.push(b.2))), op);
        check(|| fold(OP), &script, seed, Compare::Rows);
        check(|| in_order(fold(BEHIND)), &script, seed, Compare::Rows);
    }

    #[test]
    fn frames_go_on(seed: u64, keys in 1usize..30, n in 1u32..20, span in 1i64..80) {
        let script = script(seed, keys, 40);
        let a = Aggs::<Record>::new();
        // Floats: the same to the last bit.
        let small = (a.count(), a.avg(|r| r.2 as f64 / 3.0), a.last(|r| r.2));
        let over = |over| move || in_order(crate::over::maker(key(), over, small, BEHIND));
        check(over(Over::rows(n)), &script, seed, Compare::Rows);
        check(over(Over::range(span.micros())), &script, seed, Compare::Rows);
    }

    #[test]
    fn rates_go_on(seed: u64, keys in 1usize..30, n in 1u32..9, span in 1i64..80) {
        let script = script(seed, keys, 40);
        let rate = (n, span.micros());
        check(|| crate::rate_limit::maker(key(), rate, OP, false), &script, seed, Compare::Rows);
        check(|| in_order(crate::rate_limit::maker(key(), rate, BEHIND, true)), &script, seed, Compare::Rows);
    }

    #[test]
    fn rankings_go_on(seed: u64, keys in 1usize..60, n in 1usize..6) {
        let script = script(seed, keys, 40);
        check(|| maker(key(), top::<Bare>(n), OP), &script, seed, Compare::Rows);
        check(|| in_order(maker(key(), top::<Numbered>(n), BEHIND)), &script, seed, Compare::Rows);
    }
}

/// What passes is written, what is dropped is not, and a time that has had its day leaves a tombstone.
#[test]
fn an_epoch_has_what_has_changed() {
    let one = |time| Step::Batch(vec![((time, 1, 0), None)]);
    let steps = vec![one(100), one(105), one(111), Step::Watermark(121)];
    let written = entries_by_epoch(|| first(key(), 10.micros(), OP), steps);
    assert_eq!(written, [1, 0, 1, 1]);
}

/// A record that does not get in is no change.
#[test]
fn a_ranking_is_written_when_it_has_changed() {
    let one = |n| Step::Batch(vec![((n, 1, n), None)]);
    let steps = vec![one(3), one(5), one(2), one(4), one(4)];
    let written = entries_by_epoch(|| maker(key(), top::<Bare>(2), OP), steps);
    assert_eq!(written, [1, 1, 0, 1, 0]);
}
