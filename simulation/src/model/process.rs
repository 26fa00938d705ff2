//! The process function of [`End::Process`](crate::spec::End::Process) over sorted lists: records in the order of event time,
//! timers between them.

use super::{Outcome, Seen, sorted};
use crate::record::{Row, Value};
use pelton::{EventTime, Firing};
use std::collections::{BTreeMap, BTreeSet};

/// How long an element of its list lives, microseconds of event time.
pub const LIFE: i64 = 200;

/// What a key has.
#[derive(Debug, Default)]
struct Of {
    count: Option<u64>,
    /// In the order in which they were put in.
    sums: Vec<(i64, i64)>,
    /// Names, and when they came.
    last: Vec<((u64, u32), i64)>,
    most: Option<i64>,
    sum: Option<i64>,
    timers: BTreeSet<i64>,
}

/// What is told of a record, or of the timer of this time.
pub fn told(
    key: u32,
    timer: Option<i64>,
    count: Option<u64>,
    sums: &[(i64, i64)],
    last: &[(u64, u32)],
    (most, sum): (Option<i64>, Option<i64>),
) -> Row {
    let mix = |mixed: i64, (k, v): &(i64, i64)| {
        let mixed = mixed.wrapping_mul(31).wrapping_add(*k);
        mixed.wrapping_mul(31).wrapping_add(*v)
    };
    let first = timer.unwrap_or(0);
    Row {
        key,
        start: first,
        // Records and timers are told apart.
        end: first.saturating_add(i64::from(timer.is_some())),
        firing: Firing::OnTime,
        value: Value {
            count: count.unwrap_or(u64::MAX),
            sum: sums.iter().fold(0, mix),
            min: most.unwrap_or(i64::MIN),
            max: sum.unwrap_or(i64::MIN),
            names: last.to_vec(),
            ..Value::default()
        },
    }
}

impl Of {
    fn tell(&self, key: u32, timer: Option<i64>) -> Row {
        let last: Vec<_> = self.last.iter().map(|l| l.0).collect();
        told(
            key,
            timer,
            self.count,
            &self.sums,
            &last,
            (self.most, self.sum),
        )
    }

    fn expire(&mut self, now: i64) {
        self.last.retain(|(_, at)| now.saturating_sub(*at) < LIFE);
    }

    /// Fires timers below a time.
    fn fire(&mut self, key: u32, below: i64, rows: &mut Vec<(Row, i64)>) {
        while let Some(time) = self.timers.first().copied().filter(|&t| t < below) {
            self.timers.pop_first();
            self.expire(time);
            rows.push((self.tell(key, Some(time)), time));
            if time % 2 == 0 {
                self.last.clear();
                self.most = None;
            } else {
                self.sums.retain(|(k, _)| *k != 0);
                self.sum = None;
            }
        }
    }

    fn record(&mut self, seen: &Seen, rows: &mut Vec<(Row, i64)>) {
        let (record, time) = (&seen.record, seen.time);
        self.fire(record.key, time, rows);
        self.expire(time);
        self.count = Some(self.count.unwrap_or(0) + 1);
        let of = record.value % 3;
        match self.sums.iter_mut().find(|(k, _)| *k == of) {
            Some((_, sum)) => *sum += record.value,
            None => self.sums.push((of, record.value)),
        }
        self.last.push((record.name(), time));
        if self.last.len() > 3 {
            self.last.remove(0);
        }
        self.most = self.most.max(Some(record.value));
        self.sum = Some(self.sum.unwrap_or(0) + record.value);
        rows.push((self.tell(record.key, None), time));
        if record.value % 4 == 0 {
            let at = time + (record.value % 50).max(0);
            self.timers.insert(at.min(EventTime::MAX.micros()));
        }
        if record.value % 7 == 0 {
            self.timers.remove(&(time + 8));
        }
        if self.count == Some(6) {
            self.count = None;
        }
    }
}

/// What it gives.
pub fn judge(lateness: i64, stream: Vec<Seen>, outcome: &mut Outcome) {
    let mut keys: BTreeMap<u32, Of> = BTreeMap::new();
    let mut rows = vec![];
    for seen in sorted(lateness, stream, outcome) {
        let of = keys.entry(seen.record.key).or_default();
        of.record(&seen, &mut rows);
    }
    for (key, of) in &mut keys {
        of.fire(*key, i64::MAX, &mut rows);
    }
    outcome.rows = rows;
}
