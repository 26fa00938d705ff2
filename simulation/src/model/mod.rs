//! The naive model: keeps every record and recomputes. Rule numbers are those of "time and lateness" in the semantics.
//!
//! V(r) is had partition by partition ([`watermark`]), windows from their definition ([`window`]), values from the
//! records kept ([`value`]). Nothing here knows an order of arrival, except the order within a partition.

pub mod changes;
pub mod operators;
pub mod process;
pub mod value;
pub mod watermark;
pub mod window;

use crate::asked;
use crate::record::{Folded, Rec, Row, Value, fold};
use crate::spec::{End, Kind, Late, Spec, Step, WindowSpec};
use pelton::{Class, Firing};
use std::collections::BTreeMap;

/// A record with what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The record.
    pub record: Rec,
    /// Its event time.
    pub time: i64,
    /// V(r); `i64::MIN` where nothing was known yet.
    pub watermark: i64,
    /// Where it came from: source, partition, offset, and which of the copies at each step. Ties of time go by it.
    pub origin: (usize, usize, usize, Vec<usize>),
}

/// What a job must give.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Records read from sources.
    pub read: u64,
    /// Records that reached a sink at the end of the job, with their times, if it ends in [`End::Records`]; of an interval join the
    /// late ones of its right side.
    pub records: Vec<(Rec, i64)>,
    /// Results with their times. For class NET the last ones.
    pub rows: Vec<(Row, i64)>,
    /// With sessions that are corrected once: the last results, where `rows` are those that come on time.
    pub last: Option<Vec<(Row, i64)>>,
    /// Whether the results are final rows or changes.
    pub net: bool,
    /// Where they add rows to a bag and take them away ([`pelton::change`]): what stands in it in the end.
    pub stands: Option<Vec<Row>>,
    /// Too late for every window.
    pub late: Vec<(Rec, i64)>,
    /// How many more were, and went to no late output.
    pub late_elsewhere: u64,
    /// How many were late for some windows only.
    pub partly_late: u64,
    /// Partition and offset of records without a valid time.
    pub dead: Vec<(String, u64)>,
    /// Names of the records that entered the window.
    pub entered: Vec<(u64, u32)>,
}

impl Outcome {
    /// The class that the job's results are compared by.
    pub fn class(&self) -> Class {
        if self.net { Class::Net } else { Class::Rows }
    }
}

/// What the job must give.
pub fn judge(spec: &Spec) -> Outcome {
    let mut outcome = Outcome::default();
    let mut stream = vec![];
    for (place, source) in spec.sources.iter().enumerate() {
        for (number, partition) in source.partitions.iter().enumerate() {
            outcome.read += partition.len() as u64;
            let seen = watermark::read(source, (place, number), partition, &mut outcome.dead);
            stream.extend(seen.into_iter().flat_map(|s| through(s, source.after)));
        }
    }
    for step in &spec.steps {
        stream = stream
            .into_iter()
            .flat_map(|s| one_step(*step, s))
            .collect();
    }
    match spec.end {
        End::Records => outcome.records = stream.into_iter().map(|s| (s.record, s.time)).collect(),
        End::Window(w) => windowed(&w, stream, &mut outcome),
        End::Chained(w, size) => {
            let first = WindowSpec { more: false, ..w };
            windowed(&first, stream, &mut outcome);
            outcome.rows = chained(&outcome.rows, size);
        }
        End::Running => running(stream, &mut outcome),
        End::Ordered(lateness) => in_order(lateness, stream, &mut outcome),
        End::Process(lateness) => process::judge(lateness, stream, &mut outcome),
        End::Operator(operator, lateness) => {
            operators::judge(operator, lateness, stream, &mut outcome);
        }
        End::Changes(table, then) => changes::judge(table, then, &stream, &mut outcome),
    }
    outcome
}

/// Stateless steps: the time and V(r) go with each record that comes out (rule 2).
fn through(seen: Seen, fused: crate::record::Fused) -> Vec<Seen> {
    if !fused.keeps(&seen.record) {
        return vec![];
    }
    let copies = fused.copied(fused.mapped(seen.record.clone())).into_iter();
    copies
        .enumerate()
        .map(|(n, record)| Seen {
            record,
            ..seen.copy(n)
        })
        .collect()
}

impl Seen {
    /// The same as copy number `n` of it.
    fn copy(&self, n: usize) -> Seen {
        let mut copy = self.clone();
        copy.origin.3.push(n);
        copy
    }
}

fn one_step(step: Step, seen: Seen) -> Vec<Seen> {
    match step {
        Step::Rebalance(with) | Step::Exchange(with) => through(seen, with),
        Step::ReKey(m) => {
            let mut seen = seen;
            seen.record.key = rekeyed(&seen.record, m);
            vec![seen]
        }
        Step::SplitUnion(with) if way(&seen.record) == 1 => through(seen, with),
        Step::SplitUnion(_) => vec![seen],
        Step::ForkUnion(with) => {
            let way = |n| Seen {
                record: seen.record.with_copy(n),
                ..seen.clone()
            };
            let mut both = through(way(2), with);
            both.push(way(3));
            both
        }
        Step::Ask(ask) => {
            let record = asked::answered(seen.record.clone(), ask);
            let told = record.map(|record| Seen { record, ..seen });
            told.into_iter().collect()
        }
    }
}

/// The user function of [`Step::ReKey`].
pub fn rekeyed(record: &Rec, m: u32) -> u32 {
    record.value.unsigned_abs() as u32 % m
}

/// The user function of [`Step::SplitUnion`].
pub fn way(record: &Rec) -> usize {
    usize::from(record.value % 2 != 0)
}

fn windowed(spec: &WindowSpec, stream: Vec<Seen>, outcome: &mut Outcome) {
    outcome.entered = stream.iter().map(|s| s.record.name()).collect();
    outcome.net = spec.late == Late::Update;
    match spec.kind {
        Kind::Session { gap } => sessions(spec, gap, stream, outcome),
        _ => fixed(spec, stream, outcome),
    }
}

/// Windows that lie where they lie: tumbling, sliding, cumulate (rule 4).
fn fixed(spec: &WindowSpec, stream: Vec<Seen>, outcome: &mut Outcome) {
    let mut groups: BTreeMap<(i64, i64, u32), Vec<Seen>> = BTreeMap::new();
    for seen in stream {
        let windows = window::holding(spec.kind, seen.time);
        let counts = |&&(_, end): &&(i64, i64)| open(end, spec.lateness, seen.watermark);
        let kept: Vec<_> = windows.iter().filter(counts).collect();
        if kept.is_empty() {
            outcome.late.push((seen.record, seen.time));
            continue;
        }
        outcome.partly_late += u64::from(kept.len() < windows.len());
        for &&(start, end) in &kept {
            let group = groups.entry((start, end, seen.record.key)).or_default();
            group.push(seen.clone());
        }
    }
    for ((start, end, key), group) in groups {
        let mut row = |records: Vec<&Seen>, firing| {
            let value = value::of(&records, spec.more);
            let row = Row {
                key,
                start,
                end,
                firing,
                value,
            };
            outcome.rows.push((row, end - 1));
        };
        let all = group.iter().collect::<Vec<_>>();
        if spec.late != Late::OneCorrection {
            row(all, Firing::OnTime);
            continue;
        }
        // Rule 7: what is not too late for the window without its lateness is in the result that comes on time.
        let on_time = group.iter().filter(|s| open(end, 0, s.watermark));
        let on_time = on_time.collect::<Vec<_>>();
        let parked = on_time.len() < all.len();
        if !on_time.is_empty() {
            row(on_time, Firing::OnTime);
        }
        if parked {
            row(all, Firing::Correction);
        }
    }
}

/// Rule 4: r counts in w iff end(w) + lateness > V(r).
fn open(end: i64, lateness: i64, watermark: i64) -> bool {
    i128::from(end) + i128::from(lateness) > i128::from(watermark)
}

/// Rule 5.
fn sessions(spec: &WindowSpec, gap: i64, stream: Vec<Seen>, outcome: &mut Outcome) {
    let mut accepted = vec![];
    for seen in stream {
        let reach = i128::from(seen.time) + i128::from(spec.lateness);
        let v = i128::from(seen.watermark);
        if match spec.late {
            Late::Update => reach + i128::from(gap) > v,
            Late::Drop | Late::OneCorrection => reach >= v,
        } {
            accepted.push(seen);
        } else {
            outcome.late.push((seen.record, seen.time));
        }
    }
    if spec.late == Late::OneCorrection {
        // What comes on time is what comes without lateness; the last results are of all.
        outcome.last = Some(merged(spec, gap, accepted.clone()));
        accepted.retain(|s| s.time >= s.watermark);
    }
    outcome.rows = merged(spec, gap, accepted);
}

/// The sessions of records: those of one key that overlap or touch are one.
fn merged(spec: &WindowSpec, gap: i64, mut records: Vec<Seen>) -> Vec<(Row, i64)> {
    records.sort_by_key(|s| (s.record.key, s.time));
    let touch = |a: &Seen, b: &Seen| {
        let between = i128::from(b.time) - i128::from(a.time);
        a.record.key == b.record.key && between <= i128::from(gap)
    };
    let sessions = records.chunk_by(touch).map(|session| {
        let end = session[session.len() - 1].time + gap;
        let row = Row {
            key: session[0].record.key,
            start: session[0].time,
            end,
            firing: Firing::OnTime,
            value: value::of(&session.iter().collect::<Vec<_>>(), spec.more),
        };
        (row, end - 1)
    });
    sessions.collect()
}

/// Running aggregates: the last result of a key is of all its records, whatever their times.
fn running(stream: Vec<Seen>, outcome: &mut Outcome) {
    outcome.entered = stream.iter().map(|s| s.record.name()).collect();
    outcome.net = true;
    let mut keys: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    for seen in stream {
        keys.entry(seen.record.key).or_default().push(seen);
    }
    outcome.rows = keys
        .into_iter()
        .map(|(key, records)| {
            let row = Row {
                key,
                start: 0,
                end: 0,
                firing: Firing::OnTime,
                value: value::of(&records.iter().collect::<Vec<_>>(), false),
            };
            (row, 0)
        })
        .collect();
}

/// The order of event time. Late iff t + lateness < V(r) (rule 6); ties go by origin.
fn sorted(lateness: i64, mut stream: Vec<Seen>, outcome: &mut Outcome) -> Vec<Seen> {
    outcome.entered = stream.iter().map(|s| s.record.name()).collect();
    stream.sort_by_key(|s| (s.time, s.origin.clone()));
    let late = |s: &Seen| i128::from(s.time) + i128::from(lateness) < i128::from(s.watermark);
    let (late, in_time): (Vec<_>, Vec<_>) = stream.into_iter().partition(late);
    outcome
        .late
        .extend(late.into_iter().map(|s| (s.record, s.time)));
    in_time
}

/// A fold in that order.
fn in_order(lateness: i64, stream: Vec<Seen>, outcome: &mut Outcome) {
    let mut keys: BTreeMap<u32, Folded> = BTreeMap::new();
    for seen in sorted(lateness, stream, outcome) {
        let state = keys.entry(seen.record.key).or_default();
        fold(state, &seen.record);
        outcome
            .rows
            .push((folded(seen.record.key, *state), seen.time));
    }
}

/// A state of the fold as a row: the user function behind it.
pub fn folded(key: u32, (count, sum, name): Folded) -> Row {
    Row {
        key,
        start: 0,
        end: 0,
        firing: Firing::OnTime,
        value: Value {
            count,
            sum,
            names: vec![name],
            ..Value::default()
        },
    }
}

/// A tumbling window over results. They carry no mark and are never late (rule 2).
fn chained(rows: &[(Row, i64)], size: i64) -> Vec<(Row, i64)> {
    let mut groups: BTreeMap<(i64, i64, u32), Vec<Seen>> = BTreeMap::new();
    for (row, time) in rows {
        let [(start, end)] = window::holding(Kind::Tumbling { size, offset: 0 }, *time)[..] else {
            unreachable!("tumbling windows hold a time once")
        };
        let seen = Seen {
            record: as_record(row, *time),
            time: *time,
            watermark: i64::MIN,
            origin: Default::default(),
        };
        let group = groups.entry((start, end, seen.record.key)).or_default();
        group.push(seen);
    }
    let row = |((start, end, key), records): (_, Vec<Seen>)| {
        let value = value::of(&records.iter().collect::<Vec<_>>(), false);
        let row = Row {
            key,
            start,
            end,
            firing: Firing::OnTime,
            value,
        };
        (row, end - 1)
    };
    groups.into_iter().map(row).collect()
}

/// A result as a record of the window behind it: the user function of [`End::Chained`].
pub fn as_record(row: &Row, time: i64) -> Rec {
    Rec {
        id: row.start as u64,
        copy: row.key,
        key: row.key % 2,
        value: row.value.sum,
        time: Some(time),
        mark: None,
    }
}
