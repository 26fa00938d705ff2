//! Joins, patterns, deduplication and running aggregates, recomputed from the records kept.
//!
//! Records of a key come in the order of (event time, origin); sides are told by the parity of their ids. What is late by rule 6, and by
//! rule 4 for the join in windows, meets nobody.

use super::{Outcome, Seen, open, sorted};
use crate::record::{Rec, Row, Value};
use crate::spec::{Kind, Operator};
use pelton::{EventTime, Firing};
use std::collections::BTreeMap;

/// The side of a two-sided operator that a record is on.
pub fn side(record: &Rec) -> usize {
    (record.id % 2) as usize
}

/// What is told of up to two records, and the sum and number of some.
pub fn told(key: u32, left: Option<&Rec>, right: Option<&Rec>, (count, sum): (u64, i64)) -> Row {
    // Rows are compared in the order of these: each names its record.
    let place = |r: &Rec| (r.id as i64) << 24 | i64::from(r.copy);
    Row {
        key,
        start: left.map_or(0, place),
        end: right.map_or(0, place),
        firing: Firing::OnTime,
        value: Value {
            count,
            sum,
            names: left.into_iter().chain(right).map(Rec::name).collect(),
            ..Value::default()
        },
    }
}

/// What is told of a pair, or of one that met none.
pub fn pair(key: u32, left: Option<&Rec>, right: Option<&Rec>) -> Row {
    let value = |r: Option<&Rec>| r.map_or(0, |r| r.value);
    told(key, left, right, (0, value(left) * 31 + value(right)))
}

/// What it gives.
pub fn judge(operator: Operator, lateness: i64, stream: Vec<Seen>, outcome: &mut Outcome) {
    if let Operator::Windows { size } = operator {
        return windows(size, stream, outcome);
    }
    let in_time = sorted(lateness, stream, outcome);
    match operator {
        // Late records of the right side go to the other output.
        Operator::Interval { .. } => {
            let late = std::mem::take(&mut outcome.late);
            let (left, right) = late.into_iter().partition(|(r, _)| side(r) == 0);
            outcome.late_elsewhere = 0;
            (outcome.late, outcome.records) = (left, right);
            outcome.late_elsewhere += outcome.records.len() as u64;
        }
        Operator::AsOf => {
            outcome.late_elsewhere = outcome.late.len() as u64;
            outcome.late.clear();
        }
        _ => {}
    }
    let mut keys: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    for seen in in_time {
        keys.entry(seen.record.key).or_default().push(seen);
    }
    for (key, all) in keys {
        let rows = match operator {
            Operator::First { horizon } => first(key, &all, horizon),
            Operator::Last { horizon } => last(key, &all, horizon),
            Operator::OverRows { rows } => over(key, &all, |n, at| at < n + rows as usize),
            Operator::OverRange { span } => over(key, &all, |n, at| {
                all[at].time.saturating_sub(all[n].time) <= span
            }),
            Operator::Interval {
                lower,
                upper,
                outer,
            } => interval(key, &all, (lower, upper), outer),
            Operator::AsOf => as_of(key, &all),
            Operator::Match { within, strict } => matches(key, &all, within, strict),
            Operator::Windows { .. } => unreachable!("it goes by windows"),
        };
        outcome.rows.extend(rows);
    }
}

fn sides(all: &[Seen]) -> (Vec<&Seen>, Vec<&Seen>) {
    all.iter().partition(|s| side(&s.record) == 0)
}

/// One passes unless the last that did lies less than the horizon before it.
fn first(key: u32, all: &[Seen], horizon: i64) -> Vec<(Row, i64)> {
    let mut passed: Option<i64> = None;
    let mut rows = vec![];
    for s in all {
        if passed.is_none_or(|p| s.time.saturating_sub(p) >= horizon) {
            passed = Some(s.time);
            rows.push((told(key, Some(&s.record), None, (0, 0)), s.time));
        }
    }
    rows
}

/// The first at t opens [t, t + horizon); the last in it comes at its end.
fn last(key: u32, all: &[Seen], horizon: i64) -> Vec<(Row, i64)> {
    let mut rows = vec![];
    let mut rest = all;
    while let Some(first) = rest.first() {
        let end = first.time + horizon;
        let within = rest.iter().take_while(|s| s.time < end).count();
        let last = &rest[within - 1];
        let time = (end - 1).min(EventTime::MAX.micros());
        rows.push((told(key, Some(&last.record), None, (0, 0)), time));
        rest = &rest[within..];
    }
    rows
}

/// For each record, those before it that are in its frame: `holds(other, it)`.
fn over(key: u32, all: &[Seen], holds: impl Fn(usize, usize) -> bool) -> Vec<(Row, i64)> {
    let row = |(at, s): (usize, &Seen)| {
        let frame = (0..=at).filter(|&n| holds(n, at));
        let values: Vec<i64> = frame.map(|n| all[n].record.value).collect();
        let of = (values.len() as u64, values.iter().sum());
        (told(key, Some(&s.record), None, of), s.time)
    };
    all.iter().enumerate().map(row).collect()
}

fn interval(key: u32, all: &[Seen], bounds: (i64, i64), outer: [bool; 2]) -> Vec<(Row, i64)> {
    let (left, right) = sides(all);
    let meet = |l: &Seen, r: &Seen| (bounds.0..=bounds.1).contains(&r.time.saturating_sub(l.time));
    let mut rows = vec![];
    for l in &left {
        for r in right.iter().filter(|r| meet(l, r)) {
            let row = pair(key, Some(&l.record), Some(&r.record));
            rows.push((row, l.time.max(r.time)));
        }
        if outer[0] && !right.iter().any(|r| meet(l, r)) {
            rows.push((pair(key, Some(&l.record), None), l.time));
        }
    }
    for r in right.iter().filter(|_| outer[1]) {
        if !left.iter().any(|l| meet(l, r)) {
            rows.push((pair(key, None, Some(&r.record)), r.time));
        }
    }
    rows
}

fn as_of(key: u32, all: &[Seen]) -> Vec<(Row, i64)> {
    let (left, right) = sides(all);
    let row = |l: &&Seen| {
        let version = right.iter().rfind(|r| r.time <= l.time);
        let version = version.map(|r| &r.record);
        (pair(key, Some(&l.record), version), l.time)
    };
    left.iter().map(row).collect()
}

/// One of an even value, and one of an odd value: the very next record, or the next such.
fn matches(key: u32, all: &[Seen], within: i64, strict: bool) -> Vec<(Row, i64)> {
    let odd = |s: &&Seen| s.record.value % 2 != 0;
    let mut rows = vec![];
    for (at, a) in all.iter().enumerate().filter(|(_, s)| !odd(s)) {
        let rest = &all[at + 1..];
        let b = match strict {
            true => rest.first().filter(odd),
            false => rest.iter().find(odd),
        };
        if let Some(b) = b.filter(|b| b.time.saturating_sub(a.time) < within) {
            rows.push((pair(key, Some(&a.record), Some(&b.record)), b.time));
        }
    }
    rows
}

/// The join in tumbling windows, all of both sides.
fn windows(size: i64, stream: Vec<Seen>, outcome: &mut Outcome) {
    outcome.entered = stream.iter().map(|s| s.record.name()).collect();
    let mut groups: BTreeMap<(i64, u32), [Vec<Seen>; 2]> = BTreeMap::new();
    for seen in stream {
        let kind = Kind::Tumbling { size, offset: 0 };
        let [(_, end)] = super::window::holding(kind, seen.time)[..] else {
            unreachable!("tumbling windows hold a time once")
        };
        if !open(end, 0, seen.watermark) {
            outcome.late_elsewhere += 1;
            continue;
        }
        let group = groups.entry((end, seen.record.key)).or_default();
        group[side(&seen.record)].push(seen);
    }
    for ((end, key), [left, right]) in groups {
        let mut row = |l: Option<&Seen>, r: Option<&Seen>| {
            let row = pair(key, l.map(|l| &l.record), r.map(|r| &r.record));
            outcome.rows.push((row, end - 1));
        };
        for l in &left {
            right.iter().for_each(|r| row(Some(l), Some(r)));
            if right.is_empty() {
                row(Some(l), None);
            }
        }
        if left.is_empty() {
            right.iter().for_each(|r| row(None, Some(r)));
        }
    }
}
