//! Joins against themselves: never stopped, and going on from checkpoints (see [`super::rig`]). The records of both sides come in one
//! script; which side one is of is told by its value.

use super::rig::{
    Compare, OP, Record, Script, Step, check, check_uneven, entries_by_epoch, moved, script,
};
use super::{Cut, Frame, Saved, Snapshot};
use crate::aggregate::scramble::cases;
use crate::batch::{Batch, Stamp};
use crate::error::BuildError;
use crate::key::Computed;
use crate::operators::interval_join::{MakeIntervalJoin, Rule};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, Push};
use crate::running::Keyed;
use crate::sides::Sides;
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::{EventTime, Span};
use proptest::prelude::*;
use std::marker::PhantomData;

type Both = Sides<Record, Record>;
type Pair = (Option<Record>, Option<Record>);

/// An operator of two sides as one of both together.
struct Sided<M>(M);

struct SidedOp<Op> {
    op: Op,
    batch: Batch<Both>,
}

#[allow(private_interfaces)]
impl<M: MakeOperator<Both>> MakeOperator<Record> for Sided<M> {
    type Op = SidedOp<M::Op>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(SidedOp {
            op: self.0.make(build)?,
            batch: Batch::with_capacity(16),
        })
    }
    fn origins(&self) -> Origins {
        self.0.origins()
    }
}

impl<Op: Operator<Both>> Operator<Record> for SidedOp<Op> {
    type Out = Op::Out;

    fn batch<O: Push<Op::Out>>(&mut self, batch: &mut Batch<Record>, out: &mut O, cx: &mut Cx) {
        let inner = &mut self.batch;
        // The rig asks again as long as there are records, and saves in between: the last one stays for that until the others are
        // through.
        if inner.is_empty() {
            let most = (batch.len() - 1).max(1);
            batch.consume(|record, stamp: Stamp, origin| {
                inner.origins.push(origin);
                let record = match record.2 % 2 {
                    0 => Sides::Left(record),
                    _ => Sides::Right(record),
                };
                inner.push(record, stamp);
                inner.len() < most
            });
        }
        self.op.batch(inner, out, cx);
        while batch.is_empty() && !inner.is_empty() {
            self.op.batch(inner, out, cx);
        }
    }
    fn watermark<O: Push<Op::Out>>(&mut self, watermark: EventTime, out: &mut O, cx: &mut Cx) {
        self.op.watermark(watermark, out, cx);
    }
    fn resume<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) -> bool {
        self.op.resume(out, cx)
    }
    fn begin_epoch(&mut self, cut: Cut) {
        self.op.begin_epoch(cut);
    }
    fn save(&mut self, to: &mut Snapshot<'_>) -> Saved {
        self.op.save(to)
    }
    fn load(&mut self, frame: &Frame<'_>) -> Result<bool, LoadError> {
        self.op.load(frame)
    }
    fn loaded(&mut self) {
        self.op.loaded();
    }
    fn restored_watermark(&self) -> EventTime {
        self.op.restored_watermark()
    }
}

#[allow(clippy::type_complexity)]
fn interval(
    (lower, upper): (i64, i64),
    lateness: i64,
    outer: [bool; 2],
) -> impl Fn() -> Sided<
    MakeIntervalJoin<
        Record,
        Record,
        Computed<fn(&Both) -> u8>,
        fn(Option<&Record>, Option<&Record>) -> Keyed<u8, Pair>,
        Keyed<u8, Pair>,
    >,
> {
    move || {
        Sided(MakeIntervalJoin {
            key: Computed(|r: &Both| match r {
                Sides::Left(r) | Sides::Right(r) => r.1,
            }),
            f: |l, r| Keyed {
                key: l.or(r).map_or(0, |r| r.1),
                value: (l.copied(), r.copied()),
            },
            rule: Rule {
                lower,
                upper,
                lateness: Span::from_micros(lateness),
                outer,
            },
            late_left: None,
            late_right: None,
            op: OP,
            row: PhantomData,
        })
    }
}

/// A script of which one record in so many lies far ahead, so that those move from page to page.
fn with_some_far_ahead(mut script: Script, one_in: usize) -> Script {
    let mut n = 0;
    for (_, step) in &mut script {
        let Step::Batch(records) = step else { continue };
        for (record, behind) in records {
            n += 1;
            if n % one_in == 0 {
                (record.0, *behind) = (record.0 + 400, None);
            }
        }
    }
    script
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn interval_joins_go_on_with_records_that_move(seed: u64, keys in 1usize..30, lower in -40i64..40, length in 0i64..60, lateness in 0i64..40, outer: [bool; 2], far in 2usize..20, lag in 1usize..200) {
        let script = with_some_far_ahead(script(seed, keys, 40), far);
        let join = || interval((lower, lower + length), lateness, outer);
        check(join(), &script, seed, Compare::Rows);
        check_uneven(join(), &script, seed, lag, Compare::Rows);
    }

    #[test]
    fn interval_joins_go_on(seed: u64, keys in 1usize..30, lower in -40i64..40, length in 0i64..60, lateness in 0i64..40, outer: [bool; 2]) {
        let script = script(seed, keys, 40);
        check(interval((lower, lower + length), lateness, outer), &script, seed, Compare::Rows);
    }

    /// Each row comes once, whichever shards had let its record go when the checkpoint was taken.
    #[test]
    fn interval_joins_go_on_from_shards_at_different_watermarks(seed: u64, keys in 1usize..30, lower in -40i64..40, length in 0i64..60, lateness in 0i64..40, outer: [bool; 2], lag in 1usize..200) {
        let script = script(seed, keys, 40);
        check_uneven(interval((lower, lower + length), lateness, outer), &script, seed, lag, Compare::Rows);
    }
}

/// Records at this time, of these values.
fn records(time: i64, values: std::ops::Range<i64>) -> Step {
    Step::Batch(values.map(|v| ((time, (v / 2) as u8, v), None)).collect())
}

/// A record is written once, once more when it first meets, and leaves nothing when it goes.
#[test]
fn an_epoch_has_what_came_and_what_met() {
    let lefts = |n| Step::Batch((0..n).map(|k| ((5, k, 0), None)).collect());
    let steps = || {
        vec![
            lefts(50),
            Step::Batch(vec![((6, 7, 1), None)]),
            Step::Batch(vec![((6, 7, 3), None)]),
            Step::Watermark(10),
            Step::Watermark(100),
            records(101, 0..4),
        ]
    };
    let outer = interval((0, 10), 0, [true, false]);
    assert_eq!(entries_by_epoch(outer, steps()), [50, 2, 1, 0, 0, 4]);
    let inner = interval((0, 10), 0, [false, false]);
    assert_eq!(entries_by_epoch(inner, steps()), [50, 1, 1, 0, 0, 4]);
}

/// A record far ahead whose page is in the way moves, as it is known: what it was leaves a tombstone, and it is written anew, once.
#[test]
fn a_record_that_moves_is_not_there_twice() {
    let lefts = |time| Step::Batch((0..16).map(|k| ((time, k, 0), None)).collect());
    let mut first = vec![((1_000_000, 0, 0), None)];
    first.extend((1..16).map(|k| ((1, k, 0), None)));
    let mut steps = vec![Step::Batch(first)];
    for n in 1..=5 {
        steps.extend([Step::Watermark(100 * n), lefts(100 * n)]);
    }
    let entries = entries_by_epoch(interval((0, 0), 0, [false, false]), steps);
    assert_eq!(entries, [16, 0, 16, 0, 16, 0, 16, 0, 16, 2, 16]);
}

/// What has been told of by a shard is not told again by another, and what was overdue is, once.
#[test]
fn rows_of_their_own_come_once_wherever_they_go() {
    let steps = [
        records(5, 0..40),
        Step::Watermark(10),
        Step::Watermark(16),
        Step::Batch(vec![((16, 1, 3), None)]),
        Step::Watermark(1000),
    ];
    for shards in [[1, 1, 1, 1, 1], [1, 2, 3, 2, 1], [3, 1, 2, 3, 3]] {
        let script = shards.iter().zip(steps.clone());
        let script = script
            .map(|(&shards, step)| (shards, step, false))
            .collect();
        // Nobody is within 13 to 19 after anybody.
        let rows = moved(interval((13, 19), 0, [true, true]), script);
        assert_eq!(rows.len(), 41);
    }
}
