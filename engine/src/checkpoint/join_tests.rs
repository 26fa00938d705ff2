//! Joins against themselves: never stopped, and going on from checkpoints (see [`super::rig`]). The records of both sides come in one
//! script; which side one is of is told by its value.

use super::rig::{
    Compare, OP, Record, Script, Step, check, check_uneven, entries_by_epoch, moved, script,
};
use super::{Cut, Frame, Saved, Snapshot};
use crate::aggregate::scramble::cases;
use crate::batch::{Batch, Stamp};
use crate::change::{Change, Kind};
use crate::error::BuildError;
use crate::join::{ChangeRows, PlainRows};
use crate::key::Computed;
use crate::operators::interval_join::{MakeIntervalJoin, Rule};
use crate::operators::regular_join::{MakeRegularJoin, Rule as RegularRule, Tells};
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::process::Ttl;
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

/// An operator of two sides as one of both together, given what a record is for it.
struct Sided<M, T>(M, fn(Record) -> T);

struct SidedOp<Op, T> {
    op: Op,
    of: fn(Record) -> T,
    batch: Batch<T>,
}

#[allow(private_interfaces)]
impl<T: Send + 'static, M: MakeOperator<T>> MakeOperator<Record> for Sided<M, T> {
    type Op = SidedOp<M::Op, T>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(SidedOp {
            op: self.0.make(build)?,
            of: self.1,
            batch: Batch::with_capacity(16),
        })
    }
    fn origins(&self) -> Origins {
        self.0.origins()
    }
}

/// Which side a record is of is told by its value.
fn by_value(record: Record) -> Both {
    match record.2 % 2 {
        0 => Sides::Left(record),
        _ => Sides::Right(record),
    }
}

impl<T: Send + 'static, Op: Operator<T>> Operator<Record> for SidedOp<Op, T> {
    type Out = Op::Out;

    fn batch<O: Push<Op::Out>>(&mut self, batch: &mut Batch<Record>, out: &mut O, cx: &mut Cx) {
        let (inner, of) = (&mut self.batch, self.of);
        // The rig asks again as long as there are records, and saves in between: the last one stays for that until the others are
        // through.
        if inner.is_empty() {
            let most = (batch.len() - 1).max(1);
            batch.consume(|record, stamp: Stamp, origin| {
                inner.origins.push(origin);
                inner.push(of(record), stamp);
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
    fn tick<O: Push<Op::Out>>(&mut self, out: &mut O, cx: &mut Cx) {
        self.op.tick(out, cx);
    }
    fn wake_at(&self) -> Option<u64> {
        self.op.wake_at()
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
    Both,
> {
    move || {
        Sided(
            MakeIntervalJoin {
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
            },
            by_value,
        )
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

/// A row of a key, of few.
type Small = (u8, u8);
type Changes = Sides<Change<Small>, Change<Small>>;
type Joined = Keyed<u8, (Option<Small>, Option<Small>)>;

/// Each record is a change of one of few rows, and every third takes it back.
fn as_change(record: Record) -> Changes {
    let (key, value) = (record.1, record.2);
    let kind = match value / 2 % 3 {
        0 => Kind::Delete,
        _ => Kind::Insert,
    };
    let change = Change::new(kind, (key, (value / 6 % 3) as u8));
    match value % 2 {
        0 => Sides::Left(change),
        _ => Sides::Right(change),
    }
}

/// The same of rows that stay.
fn as_rows(record: Record) -> Sides<Small, Small> {
    match as_change(record) {
        Sides::Left(change) => Sides::Left(change.row),
        Sides::Right(change) => Sides::Right(change.row),
    }
}

fn joined(left: Option<&Small>, right: Option<&Small>) -> Joined {
    Keyed {
        key: left.or(right).map_or(0, |r| r.0),
        value: (left.copied(), right.copied()),
    }
}

type Fn2 = fn(Option<&Small>, Option<&Small>) -> Joined;

macro_rules! regular {
    ($name:ident, $of:ident, $item:ty, $rows:ty, $row_of:expr) => {
        #[allow(clippy::type_complexity)]
        fn $name(
            rule: RegularRule,
        ) -> impl Fn() -> Sided<
            MakeRegularJoin<
                $item,
                $item,
                $rows,
                $rows,
                Computed<fn(&Sides<$item, $item>) -> u8>,
                Fn2,
                Joined,
            >,
            Sides<$item, $item>,
        > {
            move || {
                let make = MakeRegularJoin {
                    key: Computed(
                        (|r| match r {
                            Sides::Left(r) | Sides::Right(r) => $row_of(r),
                        }) as fn(&Sides<$item, $item>) -> u8,
                    ),
                    f: joined as Fn2,
                    rule,
                    op: OP,
                    types: PhantomData,
                };
                Sided(make, $of)
            }
        }
    };
}
regular!(
    of_changes,
    as_change,
    Change<Small>,
    ChangeRows,
    |r: &Change<Small>| r.row.0
);
regular!(of_rows, as_rows, Small, PlainRows, |r: &Small| r.0);

fn rule() -> impl Strategy<Value = RegularRule> {
    let tells = || prop::sample::select(vec![Tells::Nothing, Tells::Alone, Tells::Met]);
    let ttl = prop::option::of((1i64..200, any::<bool>()));
    (any::<bool>(), tells(), tells(), ttl).prop_map(|(pairs, left, right, ttl)| RegularRule {
        pairs,
        tells: [left, right],
        ttl: ttl.map(|(span, by_clock)| match by_clock {
            true => Ttl::processing_time(Span::from_micros(span)),
            false => Ttl::event_time(Span::from_micros(span)),
        }),
    })
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

    #[test]
    fn regular_joins_of_changes_go_on(seed: u64, keys in 1usize..20, mut rule in rule()) {
        // By event time a row may go as late as another whose place it has, and places are others after a restore.
        rule.ttl = rule.ttl.map(|ttl| Ttl::processing_time(ttl.span));
        check(of_changes(rule), &script(seed, keys, 40), seed, Compare::Rows);
    }

    #[test]
    fn regular_joins_of_rows_go_on(seed: u64, keys in 1usize..20, rule in rule()) {
        check(of_rows(rule), &script(seed, keys, 40), seed, Compare::Rows);
    }
}

/// Records of one key at 5 with these values.
fn values(values: impl IntoIterator<Item = i64>) -> Step {
    let record = |value| ((5, 1, value), None);
    Step::Batch(values.into_iter().map(record).collect())
}

/// A row is an entry of its own, equal ones together where they may be taken back; it is written again when what is told of it changes, and
/// one that is taken back leaves a tombstone.
#[test]
fn an_epoch_of_a_regular_join_has_the_rows_that_changed() {
    let rule = |left, ttl| RegularRule {
        pairs: true,
        tells: [left, Tells::Nothing],
        ttl,
    };
    // Left rows 0, 1, 2; the first twice; a right one; another; the first of these is taken back; both are; a left one is.
    let steps = || {
        vec![
            values([2, 8, 14, 2]),
            values([3]),
            values([9]),
            values([1]),
            values([7]),
            values([6]),
            values([0]),
            values([0]),
        ]
    };
    let outer = of_changes(rule(Tells::Alone, None));
    assert_eq!(entries_by_epoch(outer, steps()), [3, 4, 1, 1, 4, 1, 1, 1]);
    let inner = of_changes(rule(Tells::Nothing, None));
    assert_eq!(entries_by_epoch(inner, steps()), [3, 1, 1, 1, 1, 1, 1, 1]);
    // What expires leaves tombstones.
    let ttl = Some(Ttl::event_time(Span::from_micros(10)));
    let steps = vec![
        values([2, 8, 14, 2]),
        Step::Watermark(14),
        Step::Watermark(15),
    ];
    let rows = of_rows(rule(Tells::Alone, ttl));
    assert_eq!(entries_by_epoch(rows, steps), [4, 0, 4]);
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
