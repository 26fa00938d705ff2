//! The end of a run: what went where, how fast, how late.

use super::table::grouped;
use super::tally::Results;
use pelton::latency::Short;
use pelton::{Driver, JobReport};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What is said on stderr when the job is done.
pub struct Summary<'a> {
    pub path: &'a Path,
    pub report: &'a JobReport,
    pub results: &'a Results,
    /// Flights in the windows, where an account can be given: the run has read everything, and its results are all here.
    pub flights: Option<u64>,
    pub driver: Driver,
    /// Whether the run was stopped before its end.
    pub stopped: bool,
}

impl Summary<'_> {
    /// Whether every record that was read is in exactly one place. The windows' part is summed from the results, those of earlier
    /// lives of the run among them, not taken from the engine's counters. Nothing is claimed of a part of a job.
    pub fn adds_up(&self) -> bool {
        let c = &self.report.counters;
        let told = |flights| c.records_in == flights + c.late + c.malformed;
        self.flights.is_none_or(told)
    }

    /// Results, of all lives of the run where it has had several.
    fn results_out(&self) -> u64 {
        match self.report.checkpoints {
            Some(_) => self.report.counters.records_out,
            None => self.results.count,
        }
    }

    /// Records that this process has read.
    fn read_here(&self) -> u64 {
        let from = &self.report.from;
        let before = from.map_or(0, |(_, restored)| restored.counters.records_in);
        self.report.counters.records_in - before
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.report.counters;
        let file = self.path.file_name().unwrap_or(self.path.as_os_str());
        writeln!(
            f,
            "{}: {} records in, {} results out, {} late, {} malformed",
            file.display(),
            grouped(c.records_in),
            grouped(self.results_out()),
            grouped(c.late),
            grouped(c.malformed)
        )?;
        self.checkpoints(f)?;
        if let Some(flights) = self.flights {
            self.account(flights, f)?;
        }
        let shards = self.report.shards;
        writeln!(
            f,
            "{} records/s: {:.3} s on {shards} {} ({}){}",
            grouped((self.read_here() as f64 / self.report.seconds.max(1e-9)) as u64),
            self.report.seconds,
            if shards == 1 { "shard" } else { "shards" },
            match self.driver {
                Driver::Glommio => "glommio",
                _ => "threads",
            },
            match self.results.first {
                Some(first) => format!("; first result {} after the start", Short(first)),
                None => String::new(),
            }
        )?;
        // By cause; the last line is from source to sink.
        write!(f, "{}", self.report.latencies)
    }
}

impl Summary<'_> {
    /// Where it began, how far it came, and what that cost.
    fn checkpoints(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((epoch, restored)) = &self.report.from {
            writeln!(
                f,
                "went on from checkpoint {epoch}: {} entries, {} bytes",
                grouped(restored.entries),
                grouped(restored.bytes)
            )?;
        }
        let Some(taken) = &self.report.checkpoints else {
            return Ok(());
        };
        let what = match self.stopped {
            true => "stopped; the same command goes on",
            false => "done",
        };
        writeln!(
            f,
            "{what}: {} checkpoints, {} entries, {} bytes; the last is {} and took {}",
            grouped(taken.completed),
            grouped(taken.entries),
            grouped(taken.bytes),
            taken.last,
            Short(Duration::from_nanos(taken.last_ns))
        )
    }

    /// Where each record is.
    fn account(&self, flights: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.report.counters;
        writeln!(
            f,
            "{}: {} in = {} in windows + {} late + {} malformed",
            if self.adds_up() {
                "every record is accounted for"
            } else {
                "RECORDS ARE NOT ACCOUNTED FOR"
            },
            grouped(c.records_in),
            grouped(flights),
            grouped(c.late),
            grouped(c.malformed)
        )
    }
}
