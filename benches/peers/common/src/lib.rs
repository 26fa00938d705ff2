//! What the harnesses of other engines share: the workloads' definitions and window state, which are pelton-bench's
//! own files included by path (one definition, equal checksums), and the measuring.

#[path = "../../../src/limit/campaigns.rs"]
pub mod campaigns;
#[path = "../../../src/events.rs"]
pub mod events;
#[path = "../../../src/limit/sessions.rs"]
pub mod sessions;
#[path = "../../../src/limit/sliding.rs"]
pub mod sliding;
#[path = "../../../src/tally.rs"]
pub mod tally;
#[path = "../../../src/limit/tumbling.rs"]
pub mod tumbling;

use events::{GOLDEN, Totals};
use hdrhistogram::Histogram;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an exchange hashes a key with.
#[inline(always)]
pub fn route(key: u64) -> u64 {
    key.wrapping_mul(GOLDEN) >> 20
}

/// The command line: `COMMAND WORKLOAD SHARDS EVENTS|SECONDS [name=value ..]`.
pub struct Options {
    /// `throughput` or `latency`.
    pub command: String,
    /// Which workload.
    pub workload: String,
    /// How many worker threads.
    pub shards: usize,
    /// Events of a throughput run, seconds of a latency run.
    pub amount: u64,
    rest: Vec<String>,
}

impl Options {
    /// From the process's arguments; prints the usage and exits where they make no sense.
    pub fn from_args() -> Options {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let number = |at: usize| args.get(at).and_then(|text| text.parse::<f64>().ok());
        let (Some(shards), Some(amount)) = (number(2), number(3)) else {
            usage("throughput|latency WORKLOAD SHARDS EVENTS|SECONDS [name=value ..]");
        };
        if shards < 1.0 || amount < 1.0 {
            usage("at least one shard, and one event or second");
        }
        Options {
            command: args[0].clone(),
            workload: args[1].clone(),
            shards: shards as usize,
            amount: amount as u64,
            rest: args[4..].to_vec(),
        }
    }

    /// A further option by name.
    pub fn get(&self, name: &str, default: u64) -> u64 {
        let mut values = self.rest.iter().filter_map(|text| text.split_once('='));
        let value = values.find(|(key, _)| *key == name);
        value.map_or(default, |(_, value)| {
            value.parse::<f64>().map_or(default, |v| v as u64)
        })
    }
}

/// Says what was wrong and exits.
pub fn usage(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(2);
}

/// Pins this thread to a core.
pub fn pin(index: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(index) {
        core_affinity::set_for_current(*core);
    }
}

fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Prints a throughput run as the JSON object that pelton-bench prints.
pub fn report(engine: &str, options: &Options, started: Instant, totals: Totals) {
    let seconds = started.elapsed().as_secs_f64();
    let object = serde_json::json!({
        "workload": options.workload,
        "engine": engine,
        "shards": options.shards,
        "events": options.amount,
        "seconds": seconds,
        "events_per_second": options.amount as f64 / seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "results": totals.results,
        "checksum": format!("{:016x}", totals.checksum),
    });
    println!("{object}");
}

/// Nanoseconds since an origin that may lie ahead.
#[derive(Clone, Copy)]
pub struct Clock(pub Instant);

impl Clock {
    /// Now.
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        Instant::now().saturating_duration_since(self.0).as_nanos() as u64
    }
}

/// When the event of this id is due.
#[inline(always)]
pub fn due_ns(id: u64, rate: u64) -> u64 {
    id * 1_000_000_000 / rate
}

/// When the record is due that lets the watermark pass a window's end.
pub fn opener_due_ns(window_end_ms: u64, rate: u64) -> u64 {
    let exact = u128::from(window_end_ms) * 1_000_000 * u128::from(rate);
    due_ns(exact.div_ceil(1_000_000_000) as u64, rate)
}

/// Latencies of one worker, or of all.
#[derive(Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
    last_ns: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, 600_000_000_000, 3);
        Latencies {
            histogram: histogram.unwrap_or_else(|_| unreachable!("the bounds are in order")),
            last_ns: 0,
        }
    }
}

impl Latencies {
    /// An event due at `due_ns` arrived at `now_ns`; before `from_ns` it does not count.
    #[inline]
    pub fn record(&mut self, due_ns: u64, now_ns: u64, from_ns: u64) {
        self.last_ns = now_ns.saturating_sub(due_ns);
        if due_ns >= from_ns {
            self.histogram.saturating_record(self.last_ns);
        }
    }

    /// Takes in another worker's.
    pub fn merge(&mut self, other: &Latencies) {
        let _ = self.histogram.add(&other.histogram);
        self.last_ns = self.last_ns.max(other.last_ns);
    }

    /// Prints a latency run as a JSON object.
    pub fn report(&self, engine: &str, options: &Options, rate: u64) {
        let us = |q| self.histogram.value_at_quantile(q) as f64 / 1000.0;
        let object = serde_json::json!({
            "workload": options.workload,
            "engine": engine,
            "shards": options.shards,
            "rate": rate,
            "seconds": options.amount,
            "samples": self.histogram.len(),
            "p50_us": us(0.5),
            "p90_us": us(0.9),
            "p99_us": us(0.99),
            "p999_us": us(0.999),
            "p9999_us": us(0.9999),
            "max_us": us(1.0),
            "end_lag_us": self.last_ns as f64 / 1000.0,
        });
        println!("{object}");
    }
}
