//! Holds a run against what the model says, by class.

use crate::model::{Outcome, changes};
use crate::record::{More, Rec, Row};
use crate::run::{self, Out, Run};
use crate::spec::{Case, End, Spec};
use pelton::push::Counters;
use pelton::{Class, Firing};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};

/// The shard counts that every case is run with.
pub const SHARDS: [usize; 4] = [1, 2, 3, 8];

/// Runs a case with each shard count and compares; an error says what differs.
pub fn check(case: &Case) -> Result<(), String> {
    let outcome = crate::model::judge(&case.spec);
    for shards in SHARDS {
        let run = run::run(&case.spec, shards, case.seed ^ (shards as u64) << 32)?;
        compare(&case.spec, &outcome, &run)
            .map_err(|what| format!("{what}\nin the run with {:?}", run.sizes))?;
    }
    Ok(())
}

/// Runs a case whose partitions fall silent: what is late depends on when they did, and nothing else. Each record is counted or late and never both, and
/// no watermark passes what is not. How many runs had other records late than they would have without silence.
pub fn check_silent(case: &Case) -> Result<u64, String> {
    let outcome = crate::model::judge(&case.spec);
    let mut others = 0;
    for shards in SHARDS {
        let run = run::run(&case.spec, shards, case.seed ^ (shards as u64) << 32)?;
        let told = |what| format!("{what}\nin the run with {:?}", run.sizes);
        compare_silent(&case.spec, &outcome, &run).map_err(told)?;
        others += u64::from(sorted(&outcome.late) != sorted(&run.out.late));
    }
    Ok(others)
}

fn compare_silent(spec: &Spec, model: &Outcome, run: &Run) -> Result<(), String> {
    let c = &run.counters;
    equal("records read", &model.read, &run.read)?;
    equal("counted in", &model.read, &c.records_in)?;
    equal("times M > V(r)", &0, &c.invariant_broken)?;
    equal("malformed", &(model.dead.len() as u64), &c.malformed)?;
    same(
        "dead letters",
        sorted(&model.dead),
        sorted(&dead(&run.out)?),
    )?;
    match spec.end {
        End::Window(_) | End::Running | End::Ordered(_) | End::Process(_) => {
            equal("late", &(run.out.late.len() as u64), &c.late)?;
            accounted(model, &run.out)
        }
        _ => Ok(()),
    }
}

fn compare(spec: &Spec, model: &Outcome, run: &Run) -> Result<(), String> {
    equal("records read", &model.read, &run.read)?;
    compare_counters(model, &run.counters)?;
    compare_out(spec, model, &run.out)
}

/// Compares what was counted: the same for a job that was interrupted, since counters belong to epochs.
pub fn compare_counters(model: &Outcome, c: &Counters) -> Result<(), String> {
    equal("counted in", &model.read, &c.records_in)?;
    equal("times M > V(r)", &0, &c.invariant_broken)?;
    // No operator tells a retraction of what does not stand, and none overtakes what it takes back.
    equal("stray retractions", &0, &c.stray_retractions)?;
    equal("malformed", &(model.dead.len() as u64), &c.malformed)?;
    let late = model.late.len() as u64 + model.late_elsewhere;
    equal("late", &late, &c.late)?;
    equal("partly late", &model.partly_late, &c.partly_late)
}

/// Compares what came out, by class.
pub fn compare_out(spec: &Spec, model: &Outcome, run: &Out) -> Result<(), String> {
    same("dead letters", sorted(&model.dead), sorted(&dead(run)?))?;
    same("late records", sorted(&model.late), sorted(&run.late))?;
    same("records", sorted(&model.records), sorted(&run.records))?;
    if let Some(expected) = &model.stands {
        let expected = expected.iter().map(changes::place).collect();
        return same("what stands", expected, changes::stands(&run.rows)?);
    }
    match model.class() {
        Class::Net => {
            growing(run)?;
            let mut expected = model.rows.clone();
            expected.sort_by_key(|(r, _)| (r.start, r.end, r.key));
            same_rows(true, &expected, &last(&run.rows))?;
        }
        // Retractions and corrections are judged by what they lead to.
        _ if model.last.is_some() => {
            let on_time = |r: &&(Row, i64)| r.0.firing == Firing::OnTime;
            let on_time: Vec<_> = run.rows.iter().filter(on_time).cloned().collect();
            same_rows(false, &ordered(&model.rows), &ordered(&on_time))?;
            let mut expected = model.last.clone().unwrap_or_default();
            expected.sort_by_key(|(r, _)| (r.start, r.end, r.key));
            same_rows(true, &expected, &last(&run.rows))?;
        }
        _ => same_rows(false, &ordered(&model.rows), &ordered(&run.rows))?,
    }
    if let End::Window(_) | End::Running | End::Ordered(_) | End::Process(_) = spec.end {
        accounted(model, run)?;
    }
    Ok(())
}

/// Every record that entered the window is in at least one result or among the late ones, and never in both.
fn accounted(model: &Outcome, run: &Out) -> Result<(), String> {
    let entered: BTreeSet<_> = model.entered.iter().copied().collect();
    equal("names are unique", &model.entered.len(), &entered.len())?;
    let counted: BTreeSet<_> = run
        .rows
        .iter()
        .flat_map(|(r, _)| r.value.names.iter().copied())
        .collect();
    let late: BTreeSet<_> = run.late.iter().map(|(r, _)| r.name()).collect();
    same(
        "counted and late",
        vec![],
        counted.intersection(&late).collect(),
    )?;
    let all: Vec<_> = counted.union(&late).copied().collect();
    same("counted or late", entered.into_iter().collect(), all)
}

/// Partition and offset of the dead letters; each has a reason.
fn dead(run: &Out) -> Result<Vec<(String, u64)>, String> {
    let place = |l: &pelton::push::DeadLetter| {
        if l.reason.contains("NULL") || l.reason.contains("outside") {
            Ok((l.partition.clone(), l.offset))
        } else {
            Err(format!("dead letter without a reason: {l}"))
        }
    };
    run.dead.iter().map(place).collect()
}

/// The last row of each key and window, in order; a retraction takes the one before it away.
fn last(rows: &[(Row, i64)]) -> Vec<(Row, i64)> {
    let mut last = BTreeMap::new();
    for (row, time) in rows {
        let place = (row.start, row.end, row.key);
        if row.firing == Firing::Retraction {
            last.remove(&place);
        } else {
            last.insert(place, (row.clone(), *time));
        }
    }
    last.into_values().collect()
}

/// In class NET a result is replaced by one with more records, never with fewer.
fn growing(run: &Out) -> Result<(), String> {
    let mut before: BTreeMap<_, u64> = BTreeMap::new();
    for (row, _) in &run.rows {
        let place = (row.start, row.end, row.key);
        if row.firing == Firing::Retraction {
            before.remove(&place);
            continue;
        }
        if let Some(count) = before.insert(place, row.value.count)
            && count >= row.value.count
        {
            return Err(format!("replaced by a result that holds no more: {row:?}"));
        }
    }
    Ok(())
}

fn ordered(rows: &[(Row, i64)]) -> Vec<(Row, i64)> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|(r, time)| (r.start, r.end, r.key, *time, r.firing, r.value.count));
    rows
}

/// Rows equal, floats to within rounding; for class NET the reason of the last firing is open.
fn same_rows(net: bool, expected: &[(Row, i64)], found: &[(Row, i64)]) -> Result<(), String> {
    // The last result of a running aggregate has the time of the record that came last, which is open.
    let time = |r: &Row, t: i64| if net && r.end == 0 { 0 } else { t };
    let place = |(r, t): &(Row, i64)| (r.start, r.end, r.key, time(r, *t));
    let key = |rows: &[(Row, i64)]| rows.iter().map(place).collect::<Vec<_>>();
    same("windows", key(expected), key(found))?;
    for ((e, _), (f, _)) in expected.iter().zip(found) {
        let (a, b) = (&e.value, &f.value);
        let close = (a.tenths - b.tenths).abs() <= 1e-12 * a.tenths.abs().max(1_000.0);
        let exact =
            (a.count, a.sum, a.min, a.max, &a.names) == (b.count, b.sum, b.min, b.max, &b.names);
        let firing = e.firing == f.firing
            || (net && matches!(f.firing, Firing::Update | Firing::Correction));
        if !(close && exact && firing && same_more(&a.more, &b.more)) {
            return Err(format!("the model says\n  {e:?}\nthe engine\n  {f:?}"));
        }
    }
    Ok(())
}

fn same_more(a: &Option<More>, b: &Option<More>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return a == b;
    };
    let close = |x: f64, y: f64| (x - y).abs() <= 1e-12 * x.abs().max(1_000_000.0);
    let exact = |m: &More| (m.first, m.last, m.all.clone(), m.top.clone(), m.distinct);
    close(a.avg, b.avg) && close(a.variance, b.variance) && exact(a) == exact(b)
}

fn equal<T: PartialEq + Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    Err(format!(
        "{what}: the model says {expected:?}, the engine {found:?}"
    ))
}

fn sorted<T: Ord + Clone>(records: &[T]) -> Vec<T> {
    let mut records = records.to_vec();
    records.sort_unstable();
    records
}

/// Equal lists; else says what is only in one of them.
fn same<T: Ord + Debug>(what: &str, expected: Vec<T>, found: Vec<T>) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let mut text = format!(
        "{what} differ: {} expected, {} found",
        expected.len(),
        found.len()
    );
    let only = |text: &mut String, name: &str, a: &[T], b: &[T]| {
        let missing: Vec<_> = a.iter().filter(|x| !b.contains(x)).take(10).collect();
        for x in missing {
            let _ = write!(text, "\n  only {name}: {x:?}");
        }
    };
    only(&mut text, "in the model", &expected, &found);
    only(&mut text, "in the engine", &found, &expected);
    Err(text)
}

/// What is compared as a record with its time.
pub type Timed = (Rec, i64);
