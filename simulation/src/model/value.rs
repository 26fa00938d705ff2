//! Aggregates recomputed from the records kept.

use crate::record::{Rec, Value};

/// The aggregates of `records`, of which there is at least one.
pub fn of(records: &[&Rec]) -> Value {
    let values = || records.iter().map(|r| r.value);
    let mut names: Vec<_> = records.iter().map(|r| r.name()).collect();
    names.sort_unstable();
    Value {
        count: records.len() as u64,
        sum: values().sum(),
        min: values().min().unwrap_or(i64::MAX),
        max: values().max().unwrap_or(i64::MIN),
        tenths: values().map(|v| v as f64 * 0.1).sum(),
        names,
    }
}
