//! Tables that change, recomputed from all records that came: what stands in the end, whatever changes led there.
//!
//! Nothing is too late for a table. Rows are a bag: equal ones count.

use super::{Outcome, Seen};
use crate::model::operators::{side, told};
use crate::record::{Fact, Rec, Row, Value};
use crate::spec::{Meet, Table, Then};
use pelton::Firing;
use pelton::change::Kind;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A row of a join of records. Half of the records are told apart in it.
pub fn fact(left: Option<&Rec>, right: Option<&Rec>) -> Fact {
    let name = |r: &Rec| match r.id % 4 < 2 {
        true => (r.id as i64) << 24 | i64::from(r.copy),
        false => -1 - r.value % 2,
    };
    let value = |r: Option<&Rec>| r.map_or(0, |r| r.value % 5);
    Fact {
        key: Fact::group(left.or(right).map_or(0, |r| r.key)),
        left: left.map_or(0, name),
        right: right.map_or(0, name),
        value: value(left) * 31 + value(right),
    }
}

/// A row of what runs by key: the last of it stands.
pub fn counted(key: u32, (count, sum): (u64, i64)) -> Fact {
    Fact {
        key: Fact::group(key),
        left: i64::from(key % 2),
        right: (count % 3) as i64,
        value: sum % 5,
    }
}

/// A row of the join of such with records.
pub fn joined(left: Option<&Fact>, right: Option<&Rec>) -> Fact {
    let of = fact(None, right);
    match left {
        None => of,
        Some(left) => Fact {
            key: left.key,
            left: 1 + left.left * 100 + left.right,
            value: left.value * 31 + of.value,
            ..of
        },
    }
}

/// What rows are ranked by. Few scores, so that many tie.
pub fn score(fact: &Fact) -> i64 {
    fact.value % 7
}

/// A change as a row of the results: those that are taken back are told as retractions.
pub fn row(kind: Kind, key: u32, of: (i64, i64), value: (u64, i64)) -> Row {
    let firing = match kind {
        Kind::Insert | Kind::UpdateAfter => Firing::OnTime,
        Kind::UpdateBefore | Kind::Delete => Firing::Retraction,
    };
    Row {
        start: of.0,
        end: of.1,
        firing,
        ..told(key, None, None, value)
    }
}

/// The same of the aggregates of a key.
pub fn aggregated(kind: Kind, key: u32, (count, sum, min, max): (u64, i64, i64, i64)) -> Row {
    let row = row(kind, key, (0, 0), (count, sum));
    Row {
        value: Value {
            min,
            max,
            ..row.value
        },
        ..row
    }
}

/// What a row is told apart by.
pub type Place = (u32, [i64; 2], u64, [i64; 3]);

/// See [`Place`].
pub fn place(row: &Row) -> Place {
    let v = &row.value;
    let values = [v.sum, v.min, v.max];
    (row.key, [row.start, row.end], v.count, values)
}

/// What stands after all changes, sorted.
///
/// # Errors
/// One takes away what does not stand then.
pub fn stands(changes: &[(Row, i64)]) -> Result<Vec<Place>, String> {
    let mut bag: BTreeMap<Place, usize> = BTreeMap::new();
    for (row, _) in changes {
        let there = bag.entry(place(row)).or_default();
        *there = match row.firing {
            Firing::Retraction => there
                .checked_sub(1)
                .ok_or_else(|| format!("taken back, and does not stand: {row:?}"))?,
            _ => *there + 1,
        };
    }
    let rows = bag.into_iter();
    Ok(rows.flat_map(|(row, n)| vec![row; n]).collect())
}

/// What stands in the end.
pub fn judge(table: Table, then: Then, stream: &[Seen], outcome: &mut Outcome) {
    outcome.net = true;
    let facts = match table {
        Table::Counts => counts(stream.iter()),
        Table::Join { meet, ttl } => join(meet, ttl, stream),
        Table::CountsJoin { meet } => counts_join(meet, stream),
    };
    let mut groups: BTreeMap<u32, Vec<Fact>> = BTreeMap::new();
    for fact in facts {
        groups.entry(fact.key).or_default().push(fact);
    }
    let rows = groups.into_iter().flat_map(|(key, facts)| match then {
        Then::Nothing => plain(facts),
        Then::Aggregates => {
            let values = || facts.iter().map(|f| f.value);
            let (count, sum) = (facts.len() as u64, values().sum());
            let min = values().min().unwrap_or_default();
            let max = facts.iter().map(|f| f.left).max().unwrap_or_default();
            vec![aggregated(Kind::Insert, key, (count, sum, min, max))]
        }
        Then::Top { n } => plain(best(facts, n)),
        Then::Ranks { n } => {
            let ranked = (1..).zip(best(facts, n));
            ranked
                .map(|(rank, f)| row(Kind::Insert, key, (f.left, f.right), (rank, f.value)))
                .collect()
        }
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.sort_by_key(place);
    outcome.stands = Some(rows);
}

fn plain(facts: Vec<Fact>) -> Vec<Row> {
    let row = |f: Fact| row(Kind::Insert, f.key, (f.left, f.right), (0, f.value));
    facts.into_iter().map(row).collect()
}

/// The best first; those of one score in their own order.
fn best(mut facts: Vec<Fact>, n: usize) -> Vec<Fact> {
    facts.sort_by_key(|f| (Reverse(score(f)), *f));
    facts.truncate(n);
    facts
}

fn counts<'a>(stream: impl Iterator<Item = &'a Seen>) -> Vec<Fact> {
    let mut keys: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
    for seen in stream {
        let (count, sum) = keys.entry(seen.record.key).or_default();
        *count += 1;
        *sum += seen.record.value;
    }
    keys.into_iter().map(|(k, of)| counted(k, of)).collect()
}

fn join(meet: Meet, ttl: Option<i64>, stream: &[Seen]) -> Vec<Fact> {
    let (left, right): (Vec<_>, Vec<_>) = stream.iter().partition(|s| side(&s.record) == 0);
    // A record counts as of its time, or of V where that is later.
    let at = |s: &Seen| i128::from(s.time.max(s.watermark));
    let do_meet = |l: &Seen, r: &Seen| {
        let near = |ttl: i64| (at(l) - at(r)).abs() < i128::from(ttl);
        l.record.key == r.record.key && ttl.is_none_or(near)
    };
    let told =
        |l: Option<&&Seen>, r: Option<&&Seen>| fact(l.map(|l| &l.record), r.map(|r| &r.record));
    wanted(meet, (&left, &right), |l, r| do_meet(l, r), told)
}

fn counts_join(meet: Meet, stream: &[Seen]) -> Vec<Fact> {
    let (left, right): (Vec<_>, Vec<_>) = stream.iter().partition(|s| side(&s.record) == 0);
    let left = counts(left.into_iter());
    let do_meet = |l: &Fact, r: &&Seen| l.key == Fact::group(r.record.key);
    let told = |l: Option<&Fact>, r: Option<&&Seen>| joined(l, r.map(|r| &r.record));
    wanted(meet, (&left, &right), do_meet, told)
}

/// The rows of a join, from all pairs.
fn wanted<L, R>(
    meet: Meet,
    (left, right): (&[L], &[R]),
    do_meet: impl Fn(&L, &R) -> bool,
    told: impl Fn(Option<&L>, Option<&R>) -> Fact,
) -> Vec<Fact> {
    let mut rows = vec![];
    for l in left {
        let partners: Vec<&R> = right.iter().filter(|r| do_meet(l, r)).collect();
        let (alone, with) = match meet {
            Meet::Inner | Meet::Right => (false, true),
            Meet::Left | Meet::Full => (partners.is_empty(), true),
            Meet::Anti => (partners.is_empty(), false),
            Meet::Semi => (!partners.is_empty(), false),
        };
        rows.extend(alone.then(|| told(Some(l), None)));
        let partners = partners.into_iter().filter(|_| with);
        rows.extend(partners.map(|r| told(Some(l), Some(r))));
    }
    if matches!(meet, Meet::Right | Meet::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| do_meet(l, r)));
        rows.extend(alone.map(|r| told(None, Some(r))));
    }
    rows
}
