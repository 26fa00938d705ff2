//! Changes and upserts as lines: results that later ones replace, for readers who apply them.
//!
//! Laws
//! 1. A change is one line with its kind, and so is an upsert with its key: any of the sinks of lines takes them, with what it promises of a crash.
//!    Nothing is left out and nothing compacted.
//! 2. Changes of one key lie in their order in one file, where the stream has them on one shard: right behind the operator that tells them, or behind
//!    `.key_by(..).upserts()`. After a restart on another number of shards that may be another shard's file: by epochs and then by lines they
//!    are in order in those of [`parts`](super::parts()); of growing files nothing says which line came first, and a restart should keep
//!    the number of shards.

use super::{Format, Json, json};
use pelton::Upsert;
use pelton::change::{Change, Kind};
use serde::Serialize;

/// Each [change](mod@pelton::change) as a line of JSON: `{"op":"+I","row":{..}}`, with `+I`, `-U`, `+U` or `-D`.
///
/// ```no_run
/// use pelton::{Job, sources};
/// use pelton_connectors::lines;
/// let job = Job::new("counts");
/// job.source(sources::items(["a", "b", "a"].map(String::from)))
///    .key_by(|word| word.clone())
///    .changelog()
///    .running(|a| a.count())
///    .map(|c| c.map(|row| (row.key, row.value)))
///    .sink(lines::parts("/var/lib/counts", lines::changes_json()));
/// // {"op":"+I","row":["a",1]}, {"op":"+I","row":["b",1]}, {"op":"-U","row":["a",1]}, {"op":"+U","row":["a",2]}
/// ```
pub fn changes_json() -> ChangesJson {
    ChangesJson(json())
}

/// See [`changes_json`].
#[derive(Clone, Copy, Debug)]
pub struct ChangesJson(Json);

#[derive(Serialize)]
struct ChangeLine<'a, T> {
    op: &'static str,
    row: &'a T,
}

impl<T: Serialize> Format<Change<T>> for ChangesJson {
    fn extension(&self) -> &'static str {
        "jsonl"
    }
    fn tells_updates(&self) -> bool {
        true
    }
    #[inline]
    fn format(&mut self, change: &Change<T>, out: &mut Vec<u8>) -> Result<(), String> {
        let line = ChangeLine {
            op: change.kind.short(),
            row: &change.row,
        };
        self.0.format(&line, out)
    }
}

/// Each [change](mod@pelton::change) as its row's line in `format` with the kind and a comma before it: of lines of CSV, a first column.
/// The format must write one line a row.
///
/// ```
/// use pelton::change::{Change, Kind};
/// use pelton_connectors::lines::{self, Format};
/// use std::io::Write;
/// let mut csv = lines::changes(lines::text(|row: &(u64, f64), line| writeln!(line, "{},{}", row.0, row.1)));
/// let mut out = vec![];
/// csv.format(&Change::new(Kind::UpdateAfter, (7, 1.5)), &mut out).unwrap();
/// assert_eq!(out, b"+U,7,1.5\n");
/// ```
pub fn changes<F>(format: F) -> Changes<F> {
    Changes(format)
}

/// See [`changes`].
#[derive(Clone, Copy, Debug)]
pub struct Changes<F>(F);

impl<T, F: Format<T>> Format<Change<T>> for Changes<F> {
    fn extension(&self) -> &'static str {
        self.0.extension()
    }
    fn tells_updates(&self) -> bool {
        true
    }
    #[inline]
    fn format(&mut self, change: &Change<T>, out: &mut Vec<u8>) -> Result<(), String> {
        let kind: Kind = change.kind;
        out.extend_from_slice(kind.short().as_bytes());
        out.push(b',');
        self.0.format(&change.row, out)
    }
}

/// Each [upsert](mod@pelton::upsert) as a line of JSON: `{"key":..,"row":{..}}`, and for a key whose row has gone a tombstone,
/// `{"key":..,"row":null}`. The last line of a key counts. A row that is written as `null` itself is refused: it would be taken for a tombstone.
///
/// ```no_run
/// use pelton::{Job, sources};
/// use pelton_connectors::lines;
/// let job = Job::new("counts");
/// job.source(sources::items(["a", "b", "a"].map(String::from)))
///    .key_by(|word| word.clone())
///    .changelog()
///    .running(|a| a.count())
///    .map(|c| c.map(|row| (row.key, row.value)))
///    .key_by(|c| c.row.0.clone())
///    .upserts()
///    .sink(lines::parts("/var/lib/counts", lines::upserts_json()));
/// // {"key":"a","row":["a",1]}, {"key":"b","row":["b",1]}, {"key":"a","row":["a",2]}
/// ```
pub fn upserts_json() -> UpsertsJson {
    UpsertsJson(json())
}

/// See [`upserts_json`].
#[derive(Clone, Copy, Debug)]
pub struct UpsertsJson(Json);

#[derive(Serialize)]
struct UpsertLine<'a, K, T> {
    key: &'a K,
    row: &'a Option<T>,
}

impl<K: Serialize, T: Serialize> Format<Upsert<K, T>> for UpsertsJson {
    fn extension(&self) -> &'static str {
        "jsonl"
    }
    fn tells_updates(&self) -> bool {
        true
    }
    #[inline]
    fn format(&mut self, upsert: &Upsert<K, T>, out: &mut Vec<u8>) -> Result<(), String> {
        let Upsert { key, row } = upsert;
        self.0.format(&UpsertLine { key, row }, out)?;
        match row.is_some() && out.ends_with(b":null}\n") && is_null(row) {
            true => Err("a row is written as null, which says that its key has none".into()),
            false => Ok(()),
        }
    }
}

/// Whether a row is `null` in JSON. Seldom asked.
#[cold]
fn is_null<T: Serialize>(row: &Option<T>) -> bool {
    serde_json::to_vec(row).is_ok_and(|text| text == b"null")
}
