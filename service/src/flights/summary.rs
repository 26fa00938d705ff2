//! The end of a run: what went where, how fast, how late.

use super::table::grouped;
use super::tally::Results;
use pelton::latency::Short;
use pelton::{Driver, JobReport};
use std::fmt;
use std::path::Path;

/// What is said on stderr when the job is done.
pub struct Summary<'a> {
    pub path: &'a Path,
    pub report: &'a JobReport,
    pub results: &'a Results,
    pub driver: Driver,
}

impl Summary<'_> {
    /// Whether every record that was read is in exactly one place. The windows' part is summed from the results, not
    /// taken from the engine's counters.
    pub fn adds_up(&self) -> bool {
        let c = &self.report.counters;
        c.records_in == self.results.flights() + c.late + c.malformed
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
            grouped(self.results.count),
            grouped(c.late),
            grouped(c.malformed)
        )?;
        writeln!(
            f,
            "{}: {} in = {} in windows + {} late + {} malformed",
            if self.adds_up() {
                "every record is accounted for"
            } else {
                "RECORDS ARE NOT ACCOUNTED FOR"
            },
            grouped(c.records_in),
            grouped(self.results.flights()),
            grouped(c.late),
            grouped(c.malformed)
        )?;
        let shards = self.report.shards;
        writeln!(
            f,
            "{} records/s: {:.3} s on {shards} {} ({}){}",
            grouped((c.records_in as f64 / self.report.seconds.max(1e-9)) as u64),
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
