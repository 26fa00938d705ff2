//! `pelton flights`: departures from New York by the hour, on a file that is really out of order.

mod job;
mod record;
mod summary;
mod table;
mod tally;
mod written;

use crate::stopped::Stopped;
use crate::{Done, Failure, Place, tell};
use pelton::{Epoch, JobError, JobReport, Retrying, Runtime, Span, Spans};
use pelton_connectors::files::OnError;
use std::io::{self, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use summary::Summary;
use tally::{Results, Shared};

/// The longest lateness that a window can have, in hours.
const LATENESS_MAX_H: i64 = Span::MAX.micros() / 3_600_000_000;

/// Departures, cancellations and delays per hour, origin and carrier, from a file of flights in the order of real departure.
///
/// Event time is the scheduled departure, watermarks trail the latest of those by 60 minutes, windows are hours. A
/// flight that leaves so late that its hour has closed by then is late: counted, and kept with --late.
#[derive(clap::Args, Debug)]
#[command(after_help = crate::EXIT_CODES)]
pub struct Args {
    /// Newline-delimited JSON, plain or gzip [default: January 2013, from the repository]
    path: Option<PathBuf>,
    /// Keep hours open for late flights this many hours after their end
    #[arg(
        long,
        value_name = "HOURS",
        default_value_t = 0,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(0..=LATENESS_MAX_H)
    )]
    lateness: u32,
    /// Correct an hour once, when its lateness ends, instead of at each late flight
    #[arg(long, requires = "lateness")]
    one_correction: bool,
    /// Print each result as a line of JSON as it comes; the last line of an hour, origin and carrier counts
    #[arg(long)]
    json: bool,
    /// Print every row of the table, not only the busiest; so it is anyway when the output is no terminal
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// Write late flights to this file, as lines of JSON with the fields that are read here; a later run can read it. With
    /// --checkpoints a folder, as --out
    #[arg(long, value_name = "PATH")]
    late: Option<PathBuf>,
    /// Write lines that are no flights to this file, with file, line, offset and reason. With --checkpoints a folder, as --out
    #[arg(long, value_name = "PATH")]
    dead_letters: Option<PathBuf>,
    /// What to do with a line that is no flight
    #[arg(long, value_enum, default_value_t = OnErrorName::Skip)]
    on_error: OnErrorName,
    /// Take checkpoints in this folder, and go on from the last one in it, whatever ended the run before
    #[arg(long, value_name = "DIR", requires = "out", conflicts_with_all = ["json", "all"])]
    checkpoints: Option<PathBuf>,
    /// The time between checkpoints, such as 10ms or 1s; at least 1ms
    #[arg(long, value_name = "SPAN", requires = "checkpoints", default_value_t = 1.seconds())]
    interval: Span,
    /// Start from a savepoint in this folder, or from the last checkpoint of another run's folder, on any number of shards; both stay
    /// as they are. It counts until --checkpoints holds a checkpoint of its own
    #[arg(long, value_name = "DIR", requires = "checkpoints")]
    from: Option<PathBuf>,
    /// A state of --from that this run may do without, as `pelton state inspect` names it; once for each
    #[arg(long, value_name = "OPERATOR/STATE", requires = "from")]
    allow_dropped: Vec<String>,
    /// When SIGTERM or SIGINT stops the run, take a savepoint of its last checkpoint in this folder, which must be empty or not be
    /// there yet: all that --out holds by then is behind it. A run that comes to its end takes none
    #[arg(long, value_name = "DIR", requires = "checkpoints")]
    savepoint: Option<PathBuf>,
    /// Write each result once, as a line of JSON, to files in this folder: a file is there when its checkpoint is
    #[arg(long, value_name = "DIR", requires = "checkpoints")]
    out: Option<PathBuf>,
    /// Read at most so many flights a second, to see something happen
    #[arg(long, value_name = "FLIGHTS", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    #[command(flatten)]
    place: Place,
}

/// Where a run with checkpoints keeps what it must not lose.
struct Folders<'a> {
    checkpoints: &'a Path,
    out: &'a Path,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum OnErrorName {
    /// Count it and go on
    Skip,
    /// Stop with an error
    Fail,
}

impl From<OnErrorName> for OnError {
    fn from(name: OnErrorName) -> Self {
        match name {
            OnErrorName::Skip => OnError::Skip,
            OnErrorName::Fail => OnError::Fail,
        }
    }
}

/// Refuses outputs that are the input or each other, before any of them is opened and emptied. A file is known by what the
/// links lead to; one that is not there yet, by its folder and name; devices and pipes may be shared.
fn keep_apart(args: &Args, input: &Path) -> Result<(), Failure> {
    let identity = |path: &Path| match path.canonicalize() {
        Ok(real) => (real.is_file() || real.is_dir()).then_some(real),
        Err(_) => {
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
            Some(folder.join(path.file_name()?))
        }
    };
    let places = [
        ("the input", Some(input)),
        ("--checkpoints", args.checkpoints.as_deref()),
        ("--from", args.from.as_deref()),
        ("--savepoint", args.savepoint.as_deref()),
        ("--out", args.out.as_deref()),
        ("--late", args.late.as_deref()),
        ("--dead-letters", args.dead_letters.as_deref()),
    ];
    let places = places.map(|(name, path)| (name, path.and_then(identity)));
    for (at, (other, b)) in places.iter().enumerate() {
        for (one, a) in &places[at + 1..] {
            if let (Some(a), Some(b)) = (a, b)
                && a == b
            {
                let (kind, why) = match args.checkpoints {
                    Some(_) => ("folder", "each wants one of its own"),
                    None => ("file", "it would be overwritten"),
                };
                return Err(Failure::Usage(format!(
                    "{one} and {other} are one {kind}, {}: {why}; give another path",
                    a.display()
                )));
            }
        }
    }
    Ok(())
}

/// Rows printed on a terminal unless all are asked for.
const BUSIEST: usize = 20;

/// Runs the command; `started` is when the process did.
pub fn run(args: &Args, started: Instant) -> Result<Done, Failure> {
    if args.one_correction && args.lateness == 0 {
        return Err(Failure::Usage(
            "--one-correction with --lateness 0 has nothing to correct; give --lateness at least 1 hour".into(),
        ));
    }
    if args.interval < 1.millis() {
        let interval = args.interval;
        return Err(Failure::Usage(format!(
            "--interval {interval} is too short; give at least 1ms"
        )));
    }
    let path = match &args.path {
        Some(path) => path.clone(),
        None => sample()?,
    };
    keep_apart(args, &path)?;
    check_folders(args)?;
    let runtime = Runtime::start(args.place.config())?;
    for note in runtime.notes() {
        tell(format_args!("pelton: note: {note}\n"));
    }
    let shared = Shared::new(started);
    let handle = runtime.submit(&job::build(args, &path, &shared))?;
    let stopped = Stopped::default();
    if args.checkpoints.is_some() {
        stopped.by_signals(handle.stopper(), args.savepoint.clone())?;
    }
    let bar = progress(args.json);
    let mut warned = Warned::default();
    let report = handle.wait_with(Duration::from_millis(100), |handle| {
        let counters = handle.counters();
        bar.set_position(counters.records_in);
        bar.set_message(format!("{} late", table::grouped(counters.late)));
        let retrying = handle.checkpoints().and_then(|c| c.retrying);
        if let Some(warning) = warned.of(retrying.as_ref()) {
            bar.suspend(|| tell(format_args!("{warning}")));
        }
    });
    bar.finish_and_clear();
    let results = shared.take();
    results.tell_malformed(args.dead_letters.is_some());
    let report = report?;
    if !args.json && args.checkpoints.is_none() {
        let most = (io::stdout().is_terminal() && !args.all).then_some(BUSIEST);
        table::print(&results.rows, most).map_err(|e| output_failed(&e))?;
    }
    let summary = Summary {
        path: &path,
        report: &report,
        results: &results,
        flights: in_windows(args, &report, &results, stopped.was_asked())?,
        driver: runtime.driver(),
        stopped: stopped.was_asked(),
    };
    tell(format_args!("{summary}"));
    tell_savepoint(args, stopped.savepoint())?;
    if !summary.adds_up() {
        return Err(Failure::Failed(
            "records are missing or counted twice: a fault in pelton, please report it".into(),
        ));
    }
    match summary.stopped {
        true => Ok(Done::Stopped),
        false => Ok(Done::Over),
    }
}

/// Flights in the windows, from the results, if an account can be given of them: not of a run that was stopped, nor of one whose first
/// results are another's, nor where results have been taken away, which is told.
fn in_windows(
    args: &Args,
    report: &JobReport,
    results: &Results,
    stopped: bool,
) -> Result<Option<u64>, Failure> {
    let elsewhere = report.from.is_some_and(|(_, from)| from.began_elsewhere);
    let folders = match args.folders() {
        _ if stopped || elsewhere => return Ok(None),
        None => return Ok(Some(results.flights())),
        Some(folders) => folders,
    };
    let out = folders.out.display();
    let written = written::read(folders.out)
        .map_err(|e| Failure::Failed(format!("the results in {out} cannot be read again: {e}")))?;
    let all = report.counters.records_out;
    if written.results < all {
        tell(format_args!(
            "pelton: note: {out} holds {} of {} results: some have been taken away, so no account is given of all records\n",
            table::grouped(written.results),
            table::grouped(all)
        ));
        return Ok(None);
    }
    Ok(Some(written.flights))
}

/// What would be found out too late: when the run is told to stop, or when its states are looked for.
fn check_folders(args: &Args) -> Result<(), Failure> {
    if let Some(folder) = &args.from
        && let Err(e) = folder.read_dir()
    {
        let folder = folder.display();
        return Err(Failure::Usage(format!(
            "--from {folder} cannot be read: {e}; name a savepoint, or another run's folder of checkpoints"
        )));
    }
    let Some(folder) = &args.savepoint else {
        return Ok(());
    };
    match folder.read_dir().map(|mut names| names.next().is_none()) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Usage(format!(
            "--savepoint {} is not empty; name a folder that is, or one that is not there yet",
            folder.display()
        ))),
        Err(e) => Err(Failure::Usage(format!(
            "--savepoint {}: {e}; name an empty folder, or one that is not there yet",
            folder.display()
        ))),
    }
}

/// Says what became of the savepoint that was wanted.
fn tell_savepoint(args: &Args, taken: Option<Result<Epoch, JobError>>) -> Result<(), Failure> {
    let Some(folder) = &args.savepoint else {
        return Ok(());
    };
    match taken {
        Some(Ok(epoch)) => {
            let folder = folder.display();
            tell(format_args!(
                "savepoint of checkpoint {epoch} in {folder}: start another run with --from {folder}\n"
            ));
            Ok(())
        }
        Some(Err(e)) => Err(e.into()),
        None => {
            tell(format_args!(
                "no savepoint was taken: nothing stopped the run before its end\n"
            ));
            Ok(())
        }
    }
}

/// Whether somebody has been told that a commit is being retried: once for each time that it begins.
#[derive(Debug, Default)]
struct Warned(bool);

impl Warned {
    /// What is to be said now, if anything.
    fn of(&mut self, retrying: Option<&Retrying>) -> Option<String> {
        let warned = std::mem::replace(&mut self.0, retrying.is_some());
        let Retrying {
            sink, epoch, what, ..
        } = retrying.filter(|_| !warned)?;
        Some(format!(
            "pelton: warning: {sink} could not commit epoch {epoch}, and is asked again until it can: {what}\n"
        ))
    }
}

/// January 2013, where the repository lies or in the current folder.
fn sample() -> Result<PathBuf, Failure> {
    const SAMPLE: &str = "examples/data/flights-2013-01.jsonl.gz";
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(|repository| repository.join(SAMPLE));
    built
        .into_iter()
        .chain([PathBuf::from(SAMPLE)])
        .find(|p| p.is_file())
        .ok_or_else(|| {
            Failure::Usage(format!(
                "{SAMPLE} is not here; run this in a clone of the repository, or name a file: pelton flights FILE"
            ))
        })
}

/// A line on stderr while the job runs, if somebody looks and it does not meet results there.
fn progress(json: bool) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new_spinner();
    if json && io::stdout().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    if let Ok(style) = indicatif::ProgressStyle::with_template(
        "{spinner} {human_pos} flights, {per_sec}, {msg}, {elapsed}",
    ) {
        bar.set_style(style);
    }
    bar
}

fn output_failed(e: &io::Error) -> Failure {
    match e.kind() {
        ErrorKind::BrokenPipe => Failure::ReaderGone,
        _ => Failure::Failed(format!("writing to stdout failed: {e}")),
    }
}

impl Args {
    /// What a run with checkpoints writes to: both folders are given, or none.
    fn folders(&self) -> Option<Folders<'_>> {
        let (checkpoints, out) = (self.checkpoints.as_deref()?, self.out.as_deref()?);
        Some(Folders { checkpoints, out })
    }

    /// The allowed lateness as a span.
    fn allowed_lateness(&self) -> Span {
        i64::from(self.lateness).hours()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton::Epoch;

    #[test]
    fn a_commit_that_is_retried_is_told_once_until_it_is_done() {
        let retrying = |times| Retrying {
            sink: "out".into(),
            epoch: Epoch(7),
            what: "the device is full".into(),
            times,
        };
        let mut warned = Warned::default();
        assert_eq!(warned.of(None), None);
        let told = warned.of(Some(&retrying(1))).unwrap();
        assert!(told.contains("out could not commit epoch 7"), "{told}");
        assert!(told.contains("the device is full"), "{told}");
        assert_eq!(warned.of(Some(&retrying(2))), None);
        assert_eq!(warned.of(None), None);
        assert!(warned.of(Some(&retrying(1))).is_some());
    }
}
