//! The job.

use super::record::{Flight, Row};
use super::tally::{Shared, Tally};
use super::{Args, OnErrorName};
use pelton::push::DeadLetter;
use pelton::{Job, Spans, Tumbling, Watermarks, sink};
use pelton_connectors::{files, lines};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Departures per hour, origin and carrier.
pub fn build(args: &Args, path: &Path, shared: &Arc<Shared>) -> Job {
    let mut hours = Tumbling::of(1.hours()).allowed_lateness(args.allowed_lateness());
    if args.one_correction {
        hours = hours.one_correction();
    }
    let job = Job::new("flights");
    let windows = job
        .source(files::json::<Flight>([path]).on_error(OnErrorName::into(args.on_error)))
        .event_time(|f| f.scheduled, Watermarks::bounded(60.minutes()))
        .key_by(|f| (f.origin, f.carrier))
        .window(hours)
        .uid("hours");
    let windows = match &args.late {
        Some(path) => windows.late_to(lines::file(path, lines::json()).overwrite()),
        None => windows,
    };
    let tally = Tally::new(shared);
    let rows = windows
        .aggregate(|a| {
            (
                a.count(),
                a.sum(|f| u64::from(f.delay_min.is_none())),
                a.sum(|f| i64::from(f.delay_min.unwrap_or(0))),
                a.max(|f| f.delay_min.unwrap_or(i32::MIN)),
            )
        })
        .map(Row::from)
        .inspect(move |row| tally.see(row));
    // With lateness, results change; a line says which firing it is, and the table holds the last.
    if args.json {
        rows.sink(lines::stdout(lines::json()).updates());
    } else {
        rows.sink(sink::callback("table", |_, _| {}).updates());
    }
    match &args.dead_letters {
        Some(path) => job.dead_letters_to(
            lines::file(
                path,
                lines::text(|letter: &DeadLetter, line| writeln!(line, "{letter}")),
            )
            .overwrite(),
        ),
        None => {
            let shared = shared.clone();
            job.dead_letters_to(sink::callback("first few", move |letter: DeadLetter, _| {
                shared.malformed(&letter);
            }));
        }
    }
    job
}
