//! V(r): the watermark of a record's own partition just before it (rules 1 to 3).

use super::Seen;
use crate::record::Rec;
use crate::spec::{Generator, SourceSpec};

const EDGE: i64 = 1 << 62;

/// The records of one partition that have a valid time, each with V(r). What has none is malformed and moves nothing.
pub fn read(
    source: &SourceSpec,
    (place, number): (usize, usize),
    partition: &[Rec],
    dead: &mut Vec<(String, u64)>,
) -> Vec<Seen> {
    let mut seen = vec![];
    let mut watermark = i64::MIN;
    let mut told = vec![];
    for (offset, record) in partition.iter().enumerate() {
        if !source.before.keeps(record) {
            continue;
        }
        let copies = source.before.copied(source.before.mapped(record.clone()));
        for (n, record) in copies.into_iter().enumerate() {
            let Some(time) = record.time.filter(|t| (-EDGE..=EDGE).contains(t)) else {
                dead.push((number.to_string(), offset as u64));
                continue;
            };
            told.push((record.clone(), time));
            seen.push(Seen {
                record,
                time,
                watermark,
                origin: (place, number, offset, vec![n]),
            });
            if let Some(says) = generated(source.generator, &told) {
                watermark = watermark.max(says);
            }
        }
    }
    seen
}

/// What the generator says after `told`: by its definition, over all of them.
fn generated(generator: Generator, told: &[(Rec, i64)]) -> Option<i64> {
    match generator {
        Generator::Bounded(bound) => told.iter().map(|(_, t)| t - bound).max(),
        Generator::Punctuated => told.iter().filter_map(|(r, _)| r.mark).max(),
        Generator::Custom(behind) => {
            let last = told.iter().rev().find(|(r, _)| r.id.is_multiple_of(2));
            last.map(|(_, t)| t - behind)
        }
    }
}
