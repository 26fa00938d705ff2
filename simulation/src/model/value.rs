//! Aggregates recomputed from the records kept.

use super::Seen;
use crate::record::{More, Value};
use std::collections::BTreeSet;

/// The aggregates of `records`, of which there is at least one.
pub fn of(records: &[&Seen], more: bool) -> Value {
    let values = || records.iter().map(|s| s.record.value);
    let mut names: Vec<_> = records.iter().map(|s| s.record.name()).collect();
    names.sort_unstable();
    Value {
        count: records.len() as u64,
        sum: values().sum(),
        min: values().min().unwrap_or(i64::MAX),
        max: values().max().unwrap_or(i64::MIN),
        tenths: values().map(|v| v as f64 * 0.1).sum(),
        names,
        more: more.then(|| more_of(records)),
    }
}

fn more_of(records: &[&Seen]) -> More {
    let mut records = records.to_vec();
    records.sort_by_key(|s| (s.time, s.origin.clone()));
    let all: Vec<i64> = records.iter().map(|s| s.record.value).collect();
    let mut top = all.clone();
    top.sort_unstable_by(|a, b| b.cmp(a));
    top.truncate(More::K);
    let n = all.len() as f64;
    let avg = all.iter().sum::<i64>() as f64 / n;
    More {
        avg,
        variance: all.iter().map(|v| (*v as f64 - avg).powi(2)).sum::<f64>() / n,
        first: all[0],
        last: all[all.len() - 1],
        top,
        distinct: all.iter().collect::<BTreeSet<_>>().len() as u64,
        all,
    }
}
