//! Regular joins: what stands in the end against the join of all that stands of both sides, from scratch.

use crate::support::Transactions;
use crate::world::{Ev, Script, all_die, at, cases, dying, script, undisturbed};
use pelton::change::{Change, Kind};
use pelton::join::{Join, RegularJoin, SideRows};
use pelton::process::Ttl;
use pelton::sink::Sink;
use pelton::testing::FeedSource;
use pelton::{Job, KeyOf, Pipeline, Sides, Spans, Watermarks};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Key, and which of few values of its partition: those of a partition are put in and taken back in its order.
type Row = (u8, u32);
type Out = (Option<Row>, Option<Row>);
type Log = Arc<Mutex<Vec<Change<Out>>>>;

/// What is joined.
#[derive(Clone, Copy, Debug)]
struct How {
    join: Join,
    /// Which sides are of changes.
    changes: [bool; 2],
    /// Seconds.
    ttl: Option<i64>,
    /// By the clock, and not by event time.
    by_clock: bool,
}

/// How far watermarks trail here, seconds: less than records come out of order.
const BOUND: i64 = 3;

fn joins() -> impl Strategy<Value = Join> {
    prop::sample::select(vec![
        Join::Inner,
        Join::Left,
        Join::Right,
        Join::Full,
        Join::Semi,
        Join::Anti,
    ])
}

fn how() -> impl Strategy<Value = How> {
    (joins(), any::<[bool; 2]>()).prop_map(|(join, changes)| How {
        join,
        changes,
        ttl: None,
        by_clock: false,
    })
}

fn row(event: &Ev) -> Row {
    (event.0 % 3, event.1 / 1_000 * 10 + event.1 * 7 % 3)
}

fn change(event: &Ev) -> Change<Row> {
    let kind = [
        Kind::Insert,
        Kind::UpdateAfter,
        Kind::Delete,
        Kind::UpdateBefore,
        Kind::Insert,
    ];
    Change::new(kind[event.1 as usize * 11 / 3 % 5], row(event))
}

fn end<P, K, L, R, A, B>(
    join: RegularJoin<P, K, L, R, A, B>,
    how: How,
    log: Log,
    sink: impl Sink<Change<Out>>,
) where
    P: Pipeline<Item = Sides<L, R>>,
    K: KeyOf<Sides<L, R>>,
    L: Send + 'static,
    R: Send + 'static,
    A: SideRows<L, Row = Row>,
    B: SideRows<R, Row = Row>,
{
    let join = join.uid("join");
    let join = match (how.ttl, how.by_clock) {
        (None, _) => join.unbounded(),
        (Some(ttl), false) => join.ttl(Ttl::event_time(ttl.seconds())),
        (Some(ttl), true) => join.ttl(Ttl::processing_time(ttl.millis())),
    };
    let told = move |change: Change<Out>| {
        log.lock().unwrap().push(change);
        change
    };
    match how.join {
        Join::Inner => join.inner(|l, r| (Some(*l), Some(*r))).map(told).sink(sink),
        Join::Left => join
            .left_outer(|l, r| (Some(*l), r.copied()))
            .map(told)
            .sink(sink),
        Join::Right => join
            .right_outer(|l, r| (l.copied(), Some(*r)))
            .map(told)
            .sink(sink),
        Join::Full => join
            .full_outer(|l, r| (l.copied(), r.copied()))
            .map(told)
            .sink(sink),
        Join::Semi | Join::Anti => {
            let rows = |c: Change<Row>| c.map(|row| (Some(row), None));
            match how.join {
                Join::Semi => join.semi().map(rows).map(told).sink(sink),
                _ => join.anti().map(rows).map(told).sink(sink),
            }
        }
    }
}

fn write(
    job: &Job,
    (left, right): (FeedSource<Ev>, FeedSource<Ev>),
    how: How,
    log: Log,
    sink: impl Sink<Change<Out>>,
) {
    let times = || Watermarks::bounded(BOUND.seconds());
    let left = job.source(left).uid("left");
    let left = left.event_time(at, times()).uid("left times");
    let right = job.source(right).uid("right");
    let right = right.event_time(at, times()).uid("right times");
    let (of_row, of_change) = (|e: Ev| row(&e), |e: Ev| change(&e));
    match how.changes {
        [false, false] => {
            let right = right.map(of_row).key_by(|r| r.0);
            let left = left.map(of_row).key_by(|r| r.0);
            end(left.regular_join(right), how, log, sink);
        }
        [true, false] => {
            let right = right.map(of_row).key_by(|r| r.0);
            let left = left.map(of_change).key_by(|c| c.row.0);
            end(left.regular_join(right).left_changes(), how, log, sink);
        }
        [false, true] => {
            let right = right.map(of_change).key_by(|c| c.row.0);
            let left = left.map(of_row).key_by(|r| r.0);
            end(left.regular_join(right).right_changes(), how, log, sink);
        }
        [true, true] => {
            let right = right.map(of_change).key_by(|c| c.row.0);
            let left = left.map(of_change).key_by(|c| c.row.0);
            let join = left.regular_join(right).left_changes();
            end(join.right_changes(), how, log, sink);
        }
    }
}

/// A row that stands, and as of when it counts, microseconds.
type Stood = (Row, i64);

/// What stands of a side, whatever the order of its partitions.
fn standing(script: &Script, side: usize, changes: bool) -> Vec<Stood> {
    let mut stand: Vec<Stood> = vec![];
    for partition in &script.sides[side] {
        let mut v = i64::MIN;
        for event in partition {
            let time = at(event).micros();
            let row = row(event);
            if !changes || change(event).is_addition() {
                stand.push((row, time.max(v)));
            } else if let Some(at) = stand.iter().position(|s| s.0 == row) {
                stand.remove(at);
            }
            v = v.max(time - BOUND * 1_000_000);
        }
    }
    stand
}

fn model(script: &Script, how: How) -> BTreeMap<Out, i64> {
    let left = standing(script, 0, how.changes[0]);
    let right = standing(script, 1, how.changes[1]);
    let within = how.ttl.map(|ttl| ttl * 1_000_000);
    let meet = |l: &Stood, r: &Stood| {
        l.0.0 == r.0.0 && within.is_none_or(|within| (l.1 - r.1).abs() < within)
    };
    let mut rows: BTreeMap<Out, i64> = BTreeMap::new();
    let mut add = |row| *rows.entry(row).or_default() += 1;
    for l in &left {
        let met: Vec<_> = right.iter().filter(|r| meet(l, r)).collect();
        match how.join {
            Join::Semi if !met.is_empty() => add((Some(l.0), None)),
            Join::Anti | Join::Left | Join::Full if met.is_empty() => add((Some(l.0), None)),
            Join::Semi | Join::Anti => {}
            _ => met.iter().for_each(|r| add((Some(l.0), Some(r.0)))),
        }
    }
    for r in &right {
        let is_told = matches!(how.join, Join::Right | Join::Full);
        if is_told && !left.iter().any(|l| meet(l, r)) {
            add((None, Some(r.0)));
        }
    }
    rows
}

/// What stands after these changes; where their order is known, none takes back what does not stand.
fn net(changes: &[Change<Out>], in_order: bool) -> Result<BTreeMap<Out, i64>, TestCaseError> {
    let mut rows: BTreeMap<Out, i64> = BTreeMap::new();
    for change in changes {
        let count = rows.entry(change.row).or_default();
        *count += if change.is_addition() { 1 } else { -1 };
        prop_assert!(!in_order || *count >= 0, "{:?} of nothing", change);
    }
    prop_assert!(rows.values().all(|&n| n >= 0), "{:?}", rows);
    rows.retain(|_, count| *count > 0);
    Ok(rows)
}

fn runs(script: &Script, how: How) -> Result<BTreeMap<Out, i64>, TestCaseError> {
    let log = Log::default();
    let rows = undisturbed(script, |job, left, right, sink| {
        write(job, (left, right), how, log.clone(), sink);
    });
    let told = net(&log.lock().unwrap(), true)?;
    prop_assert_eq!(&told, &net(&rows, false)?);
    Ok(told)
}

fn dies(script: &Script, how: How) -> Result<(BTreeMap<Out, i64>, u32), TestCaseError> {
    let (rows, deaths) = dying(script, |job, left, right, ledger: Transactions<_>| {
        write(job, (left, right), how, Log::default(), ledger);
    });
    Ok((net(&rows, false)?, deaths))
}

proptest! {
    #![proptest_config(cases())]

    /// Whoever comes first: what stands is the join of what stands of both sides.
    #[test]
    fn what_stands_is_the_join(script in script(), how in how()) {
        prop_assert_eq!(runs(&script, how)?, model(&script, how));
    }

    /// Rows that stay meet those within the time to live, whatever the watermark was when they came.
    #[test]
    fn rows_meet_within_their_time_to_live(script in script(), join in joins(), ttl in 1i64..20) {
        let how = How { join, changes: [false; 2], ttl: Some(ttl), by_clock: false };
        prop_assert_eq!(runs(&script, how)?, model(&script, how));
    }

    /// Whatever has expired, nothing is taken back that does not stand.
    #[test]
    fn what_expires_takes_nothing_back(script in script(), how in how(), ttl in 1i64..20, by_clock: bool) {
        runs(&script, How { ttl: Some(ttl), by_clock, ..how })?;
    }
}

#[test]
fn and_so_it_is_whatever_dies() {
    all_die((script(), how()), |(script, how)| {
        let (rows, deaths) = dies(script, *how)?;
        prop_assert_eq!(rows, model(script, *how));
        Ok(deaths)
    });
}

#[test]
fn rows_meet_within_their_time_to_live_whatever_dies() {
    all_die((script(), joins(), 1i64..20), |(script, join, ttl)| {
        let how = How {
            join: *join,
            changes: [false; 2],
            ttl: Some(*ttl),
            by_clock: false,
        };
        let (rows, deaths) = dies(script, how)?;
        prop_assert_eq!(rows, model(script, how));
        Ok(deaths)
    });
}

/// Committed changes never take back more than was told, whatever expires and dies.
#[test]
fn what_expires_takes_nothing_back_whatever_dies() {
    all_die(
        (script(), how(), 1i64..20, any::<bool>()),
        |(script, how, ttl, by_clock)| {
            let how = How {
                ttl: Some(*ttl),
                by_clock: *by_clock,
                ..*how
            };
            Ok(dies(script, how)?.1)
        },
    );
}
