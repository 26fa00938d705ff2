//! The ends that tell changes ([`crate::spec::End::Changes`]) as parts of a job: [`crate::model::changes`] judges them.

use crate::job::Sinks;
use crate::model::changes::{aggregated, counted, fact, joined, row, score};
use crate::model::operators::side;
use crate::record::{Fact, Rec};
use crate::spec::{Meet, Table, Then};
use pelton::process::Ttl;
use pelton::{Change, Inlet, Span, Stream};

/// The rows of a join that are wanted.
macro_rules! wanted {
    ($join:expr, $meet:expr, $pair:expr, $left:expr) => {{
        let join = $join;
        let group = |c: &Change<Fact>| c.row.key;
        match $meet {
            Meet::Inner => join
                .inner(|l, r| $pair(Some(l), Some(r)))
                .key_by(group)
                .exchange(),
            Meet::Left => join
                .left_outer(|l, r| $pair(Some(l), r))
                .key_by(group)
                .exchange(),
            Meet::Right => join
                .right_outer(|l, r| $pair(l, Some(r)))
                .key_by(group)
                .exchange(),
            Meet::Full => join.full_outer($pair).key_by(group).exchange(),
            Meet::Semi => join.semi().map($left).key_by(group).exchange(),
            Meet::Anti => join.anti().map($left).key_by(group).exchange(),
        }
    }};
}

/// Puts a table and what applies its changes at the end of a stream.
pub(crate) fn end(stream: Stream<Inlet<Rec>>, table: Table, then: Then, sinks: Sinks) {
    applied(changes(stream, table), then, sinks);
}

fn changes(stream: Stream<Inlet<Rec>>, table: Table) -> Stream<Inlet<Change<Fact>>> {
    match table {
        Table::Counts => stream
            .key_by(|r: &Rec| r.key)
            .changelog()
            .running(|a| (a.count(), a.sum(|r: &Rec| r.value)))
            .map(|c| c.map(|k| counted(k.key, k.value)))
            .key_by(|c| c.row.key)
            .exchange(),
        Table::Join { meet, ttl } => {
            let [left, right] = stream.split(side);
            let left = left.key_by(|r: &Rec| r.key);
            let join = left.regular_join(right.key_by(|r: &Rec| r.key));
            let join = match ttl {
                Some(ttl) => join.ttl(Ttl::event_time(Span::from_micros(ttl))),
                None => join.unbounded(),
            };
            wanted!(join, meet, fact, |c: Change<Rec>| c
                .map(|r| fact(Some(&r), None)))
        }
        Table::CountsJoin { meet } => {
            let [left, right] = stream.split(side);
            let counts = left
                .key_by(|r: &Rec| r.key)
                .changelog()
                .running(|a| (a.count(), a.sum(|r: &Rec| r.value)))
                .map(|c| c.map(|k| counted(k.key, k.value)));
            let join = counts
                .key_by(|c| c.row.key)
                .regular_join(right.key_by(|r: &Rec| Fact::group(r.key)))
                .left_changes()
                .unbounded();
            wanted!(join, meet, joined, |c: Change<Fact>| c
                .map(|f| joined(Some(&f), None)))
        }
    }
}

fn applied(changes: Stream<Inlet<Change<Fact>>>, then: Then, sinks: Sinks) {
    let rows = sinks.rows;
    match then {
        Then::Nothing => changes
            .map(|c| {
                row(
                    c.kind,
                    c.row.key,
                    (c.row.left, c.row.right),
                    (0, c.row.value),
                )
            })
            .sink(rows),
        Then::Aggregates => changes
            .key_by(|c| c.row.key)
            .apply_changes()
            .running(|a| {
                let (count, sum) = (a.count(), a.sum(|f: &Fact| f.value));
                (count, sum, a.min(|f| f.value), a.max(|f| f.left))
            })
            .map(|c| aggregated(c.kind, c.row.key, c.row.value))
            .sink(rows),
        Then::Top { n } => changes
            .key_by(|c| c.row.key)
            .apply_changes()
            .top(n, score)
            .map(|c| {
                row(
                    c.kind,
                    c.row.key,
                    (c.row.left, c.row.right),
                    (0, c.row.value),
                )
            })
            .sink(rows),
        Then::Ranks { n } => changes
            .key_by(|c| c.row.key)
            .apply_changes()
            .top_with_rank(n, score)
            .map(|c| {
                let (rank, f) = (u64::from(c.row.rank), c.row.row);
                row(c.kind, f.key, (f.left, f.right), (rank, f.value))
            })
            .sink(rows),
    }
}
