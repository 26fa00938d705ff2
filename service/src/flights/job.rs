//! The job.

use super::record::{Flight, Row};
use super::tally::{Shared, Tally};
use super::{Args, Folders, OnErrorName};
use pelton::push::DeadLetter;
use pelton::source::Source;
use pelton::{Checkpointing, Job, Spans, Tumbling, Watermarks, sink, sources};
use pelton_connectors::{files, lines};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Departures per hour, origin and carrier.
pub fn build(args: &Args, path: &Path, shared: &Arc<Shared>) -> Job {
    let job = Job::new("flights");
    let flights = files::json::<Flight>([path]).on_error(OnErrorName::into(args.on_error));
    match args.rate {
        Some(rate) => windows(&job, sources::paced(flights, rate), args, shared),
        None => windows(&job, flights, args, shared),
    }
    dead_letters(&job, args, shared);
    if let Some(Folders { checkpoints, .. }) = args.folders() {
        let mut taking = Checkpointing::in_folder(checkpoints)
            .every(args.interval)
            // The least: a month's open hours are some hundred keys.
            .segment_bytes(16 << 20);
        if let Some(from) = &args.from {
            taking = taking.from_savepoint(from);
        }
        let dropped = args.allow_dropped.iter();
        job.checkpoints(dropped.fold(taking, Checkpointing::allow_dropped));
    }
    job
}

/// From the source to the results.
fn windows(job: &Job, source: impl Source<Item = Flight>, args: &Args, shared: &Arc<Shared>) {
    let mut hours = Tumbling::of(1.hours()).allowed_lateness(args.allowed_lateness());
    if args.one_correction {
        hours = hours.one_correction();
    }
    let windows = job
        .source(source)
        .uid("flights")
        .event_time(|f| f.scheduled, Watermarks::bounded(60.minutes()))
        .uid("scheduled")
        .key_by(|f| (f.origin, f.carrier))
        .window(hours)
        .uid("hours");
    let windows = match (&args.late, args.folders()) {
        (Some(path), Some(_)) => windows.late_to(lines::parts(path, lines::json())),
        (Some(path), None) => windows.late_to(lines::file(path, lines::json()).overwrite()),
        (None, _) => windows,
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
    match args.folders() {
        Some(Folders { out, .. }) => rows.sink(lines::parts(out, lines::json()).updates()),
        None if args.json => rows.sink(lines::stdout(lines::json()).updates()),
        None => rows.sink(sink::callback("table", |_, _| {}).updates()),
    }
}

fn dead_letters(job: &Job, args: &Args, shared: &Arc<Shared>) {
    let text = lines::text(|letter: &DeadLetter, line| writeln!(line, "{letter}"));
    match (&args.dead_letters, args.folders()) {
        (Some(path), Some(_)) => job.dead_letters_to(lines::parts(path, text)),
        (Some(path), None) => job.dead_letters_to(lines::file(path, text).overwrite()),
        (None, _) => {
            let shared = shared.clone();
            job.dead_letters_to(sink::callback("first few", move |letter: DeadLetter, _| {
                shared.malformed(&letter);
            }));
        }
    }
}
