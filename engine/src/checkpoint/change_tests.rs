//! Operators that apply changes against themselves: never stopped, and going on from checkpoints (see [`super::rig`]). A record of the
//! script is a change by its value: some take away what does not stand.

use super::rig::{BEHIND, Compare, OP, Record, Step, check, entries_by_epoch, script};
use super::{Cut, Frame, Saved, Snapshot};
use crate::Span;
use crate::aggregate::scramble::cases;
use crate::aggregate::{Aggregate, Aggs, At, Retractable, Retracts};
use crate::applied::aggregates::MakeAggregates;
use crate::applied::maker;
use crate::applied::ranking::{Bare, MakeRanking, Numbered};
use crate::batch::{Batch, Stamp};
use crate::change::{Change, Kind};
use crate::error::BuildError;
use crate::key::{Computed, KeyOf};
use crate::operators::order::MakeInOrder;
use crate::pipeline::MakeOperator;
use crate::plan::{Origins, ShardBuild};
use crate::push::{Cx, Push};
use crate::stage::operator::Operator;
use crate::state::LoadError;
use crate::time::EventTime;
use proptest::prelude::*;
use std::fmt::Debug;
use std::marker::PhantomData;

type Row = (u8, i64);

/// Values of 0 to 99: three of five add, and there are few different rows.
fn change((_, key, value): Record) -> Change<Row> {
    let kind = match value % 5 {
        0 | 1 => Kind::Insert,
        2 => Kind::UpdateAfter,
        3 => Kind::UpdateBefore,
        _ => Kind::Delete,
    };
    Change::new(kind, (key, value / 5))
}

/// An operator of changes as one of the script's records.
struct Changed<M>(M);

struct ChangedOp<Op> {
    op: Op,
    batch: Batch<Change<Row>>,
}

#[allow(private_interfaces)]
impl<M: MakeOperator<Change<Row>>> MakeOperator<Record> for Changed<M> {
    type Op = ChangedOp<M::Op>;
    fn make(&mut self, build: &mut ShardBuild<'_, '_>) -> Result<Self::Op, BuildError> {
        Ok(ChangedOp {
            op: self.0.make(build)?,
            batch: Batch::with_capacity(16),
        })
    }
    fn origins(&self) -> Origins {
        self.0.origins()
    }
}

impl<Op: Operator<Change<Row>>> Operator<Record> for ChangedOp<Op> {
    type Out = Op::Out;

    fn batch<O: Push<Op::Out>>(&mut self, batch: &mut Batch<Record>, out: &mut O, cx: &mut Cx) {
        let inner = &mut self.batch;
        // The rig asks again as long as there are records, and saves in between: the last one stays for that until the others are
        // through.
        if inner.is_empty() {
            let most = (batch.len() - 1).max(1);
            batch.consume(|record, stamp: Stamp, origin| {
                inner.origins.push(origin);
                inner.push(change(record), stamp);
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

fn key() -> impl KeyOf<Change<Row>, Key = u8> {
    Computed(|c: &Change<Row>| c.row.0)
}

/// The bits that an odd number of rows have.
#[derive(Clone)]
struct Parity;

impl Aggregate<Row> for Parity {
    type Acc = i64;
    type Out = i64;
    fn create(&self) -> i64 {
        0
    }
    fn add(&self, acc: &mut i64, row: &Row, _: At) {
        *acc ^= row.1;
    }
    fn merge(&self, acc: &mut i64, other: &i64) {
        *acc ^= other;
    }
    fn finish(&self, acc: &i64) -> i64 {
        *acc
    }
}

impl Retractable<Row> for Parity {
    fn retract(&self, acc: &mut i64, row: &Row) {
        *acc ^= row.1;
    }
}

/// One of each; two of them keep what they keep apart.
fn aggregates() -> impl Retracts<Row, Out: Debug> {
    let a = Aggs::<Row>::new();
    let ends = a.map((a.min(|r| r.1), a.max(|r| r.1 as f64)), |ends| ends);
    let sums = (a.count(), a.sum(|r| r.1), a.avg(|r| r.1));
    (sums, ends, a.retractable(Parity))
}

fn ranking<S>(n: usize) -> MakeRanking<i64, impl Fn(&Row) -> i64 + Clone + Send + 'static, S> {
    MakeRanking {
        n,
        score: |r: &Row| r.1 % 7,
        types: PhantomData,
    }
}

fn in_order<M: MakeOperator<Change<Row>>>(
    inner: M,
) -> impl MakeOperator<Change<Row>, Op: Operator<Change<Row>, Out = <M::Op as Operator<Change<Row>>>::Out>>
{
    MakeInOrder {
        key: key(),
        inner,
        op: OP,
        lateness: Span::ZERO,
        late: None,
        rank: None,
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn aggregates_of_changes_go_on(seed: u64, keys in 1usize..60) {
        let script = script(seed, keys, 40);
        let make = |op| maker(key(), MakeAggregates(aggregates()), op);
        check(|| Changed(make(OP)), &script, seed, Compare::Rows);
        check(|| Changed(in_order(make(BEHIND))), &script, seed, Compare::Rows);
    }

    #[test]
    fn rankings_of_changes_go_on(seed: u64, keys in 1usize..30, n in 1usize..6) {
        let script = script(seed, keys, 40);
        check(|| Changed(maker(key(), ranking::<Bare>(n), OP)), &script, seed, Compare::Rows);
        check(|| Changed(in_order(maker(key(), ranking::<Numbered>(n), BEHIND))), &script, seed, Compare::Rows);
    }
}

/// The values that make these changes of one key: see [`change`].
fn steps(changes: &[&[(Kind, i64)]]) -> Vec<Step> {
    let record = |&(kind, value): &(Kind, i64)| {
        let kind = match kind {
            Kind::Insert => 0,
            Kind::UpdateAfter => 2,
            Kind::UpdateBefore => 3,
            Kind::Delete => 4,
        };
        ((1, 1, value * 5 + kind), None)
    };
    let step = |changes: &&[_]| Step::Batch(changes.iter().map(record).collect());
    changes.iter().map(step).collect()
}

/// However many rows a key has, an epoch has those that have changed: one that comes, goes, or is there once more; not one that comes
/// and goes, nor a retraction of what is not there.
#[test]
fn an_epoch_has_the_rows_that_have_changed() {
    use Kind::{Delete, Insert};
    let many: Vec<_> = (0..100).map(|v| (Insert, v)).collect();
    let steps = || {
        steps(&[
            &many,
            &[(Insert, 7)],
            &[(Delete, 7), (Delete, 8)],
            &[(Insert, 200), (Delete, 200)],
            &[(Delete, 8), (Insert, 9), (Delete, 9)],
            &[(Delete, 300)],
        ])
    };
    let written = entries_by_epoch(|| Changed(maker(key(), ranking::<Bare>(2), OP)), steps());
    assert_eq!(written, [100, 1, 2, 0, 1, 0]);
    // And the value of the key, the number of its rows; a stray is none here where the greatest value knows of it.
    let max = || {
        let a = Aggs::<Row>::new();
        Changed(maker(key(), MakeAggregates(a.max(|r| r.1)), OP))
    };
    assert_eq!(entries_by_epoch(max, steps()), [101, 2, 3, 1, 2, 0]);
}

/// A key whose rows have all gone leaves a tombstone, and nothing else.
#[test]
fn a_key_goes_with_its_last_row() {
    use Kind::{Delete, Insert};
    let steps = || {
        steps(&[
            &[(Insert, 1), (Insert, 2)],
            &[(Delete, 1), (Delete, 2)],
            &[(Delete, 1)],
            &[(Insert, 1), (Delete, 1)],
        ])
    };
    let sums = || {
        let a = Aggs::<Row>::new();
        Changed(maker(
            key(),
            MakeAggregates((a.count(), a.sum(|r| r.1))),
            OP,
        ))
    };
    assert_eq!(entries_by_epoch(sums, steps()), [1, 1, 0, 0]);
    let all = || Changed(maker(key(), MakeAggregates(aggregates()), OP));
    assert_eq!(entries_by_epoch(all, steps()), [5, 5, 0, 0]);
}
