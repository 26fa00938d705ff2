//! The end of a run: what went where, how fast, how late.

use super::table::grouped;
use super::tally::Results;
use pelton::{Driver, JobReport};
use std::fmt;
use std::path::Path;
use std::time::Duration;

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
        let latency = &self.report.latencies.end_to_end_ns;
        if latency.is_empty() {
            return Ok(());
        }
        let at = |q: f64| Short(Duration::from_nanos(latency.value_at_quantile(q)));
        writeln!(
            f,
            "latency, source to sink: p50 {}, p99 {}, p99.9 {}, max {}",
            at(0.5),
            at(0.99),
            at(0.999),
            Short(Duration::from_nanos(latency.max()))
        )
    }
}

/// A time in the unit that suits it.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos() as f64;
        match ns {
            _ if ns < 1e6 => write!(f, "{:.1} us", ns / 1e3),
            _ if ns < 1e9 => write!(f, "{:.1} ms", ns / 1e6),
            _ => write!(f, "{:.2} s", ns / 1e9),
        }
    }
}
