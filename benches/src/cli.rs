//! The commands.

#[cfg(feature = "engine")]
mod checkpoint;
#[cfg(feature = "engine")]
mod flat_memory;

use crate::child;
use crate::engine::{
    BenchError, EngineName, LatencyConfig, LatencyWorkload, LimitVariant, ThroughputConfig,
    Workload,
};
use crate::ingest_log::{self, IngestLogConfig};
#[cfg(feature = "engine")]
use crate::kappa::{self, KappaConfig};
use crate::limit;
use crate::report::{LatencyRun, Ratios, ThroughputRun};
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Throughput and latency of the engine, beside hand-written loops that do the same work.
#[derive(Parser)]
#[command(name = "pelton-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How many events a second: as fast as it goes.
    Throughput(ThroughputArgs),
    /// How long results take at a given rate, counted from each event's scheduled time.
    Latency(LatencyArgs),
    /// How many appends a second the ingest log acknowledges, and how fast it is read again, beside the disk's own speed.
    IngestLog(IngestLogArgs),
    /// A log that one job writes and another reads, its history and what comes: how fast, how soon, and whether each record came once.
    #[cfg(feature = "engine")]
    Kappa(KappaArgs),
    /// A day of event time through joins, deduplication and a pattern at full speed: resident memory and states, which must not grow.
    #[cfg(feature = "engine")]
    FlatMemory(flat_memory::FlatArgs),
    /// What checkpoints cost.
    #[cfg(feature = "engine")]
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointCommand),
    /// How fast a job goes on from a checkpoint of a large state.
    #[cfg(feature = "engine")]
    Recovery(checkpoint::RecoveryArgs),
    #[command(name = child::COMMAND, hide = true)]
    RunTask { task: String },
}

#[derive(Args)]
struct ThroughputArgs {
    /// What to run.
    workload: Workload,
    /// Shard threads, one a core.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    /// Events, over all shards.
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Run the engine and the hand-written loop in turn, compare their checksums, and print the ratio.
    #[arg(long)]
    limit: bool,
    /// How many such pairs.
    #[arg(long, default_value_t = 5, value_parser = at_least_one, requires = "limit")]
    pairs: usize,
    /// What to run where --limit is not given.
    #[arg(long, default_value_t = EngineName::Pelton, conflicts_with = "limit")]
    engine: EngineName,
    /// Which form of the hand-written loop.
    #[arg(long, default_value_t = LimitVariant::Plain)]
    limit_variant: LimitVariant,
    /// Leave out the additional run that counts allocations.
    #[arg(long)]
    no_allocations: bool,
}

#[derive(Args)]
struct LatencyArgs {
    /// What to run.
    workload: LatencyWorkload,
    /// Events a second, over all shards.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: u64,
    /// Length of the run; its first second (passthrough) or four seconds (keyed-window) do not count.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Shard threads, one a core.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    /// Idle shards of the engine sleep instead of looking again; the bare loop never does.
    #[arg(long)]
    park: bool,
    /// One JSON object for each engine instead of a table.
    #[arg(long)]
    json: bool,
    /// Run the bare loop (on two shards: two threads and a ring) as well.
    #[arg(long)]
    limit: bool,
    /// What to run where --limit is not given.
    #[arg(long, default_value_t = EngineName::Pelton, conflicts_with = "limit")]
    engine: EngineName,
    /// Takes checkpoints so often; exactly-once takes them every 10 ms where it is not given. Not of the bare loop.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    checkpoint_ms: Option<u64>,
    /// Where checkpoints go: a folder that does not exist yet, and is gone afterwards.
    #[arg(long, default_value = "target/latency-checkpoints")]
    folder: PathBuf,
    /// Where the .hgrm files go.
    #[arg(long, default_value = "target/latency")]
    out: PathBuf,
}

#[derive(Args)]
struct IngestLogArgs {
    /// How many records of 100 bytes.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// How many times each figure is taken, its limit in turn; medians are printed.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    /// A folder that does not exist yet, on the disk to be measured. It is gone afterwards.
    #[arg(long, default_value = "target/ingest-log")]
    folder: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[cfg(feature = "engine")]
#[derive(Args)]
struct KappaArgs {
    /// Records of the history.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    records: u64,
    /// Records a second of the live part.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: u64,
    /// How long that is.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Shards of each job.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    /// Partitions of the log.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    /// Between two checkpoints.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    interval_ms: u64,
    /// How many times write and history are done; medians are printed.
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    pairs: usize,
    /// A folder that does not exist yet, on the disk to be measured. It is gone afterwards.
    #[arg(long, default_value = "target/kappa")]
    folder: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(e) => Err(format!("{e}")),
    }
}

/// Reads the command line, or says what is wrong with it and ends. Of an unknown option the nearest one is named, or none: clap's hint to pass
/// it as a value behind `--` would lead to the next error.
fn command_line<C: Parser>() -> C {
    C::try_parse().unwrap_or_else(|mut error| {
        if let Some(ContextValue::StyledStrs(hints)) = error.remove(ContextKind::Suggested) {
            let is_help = |hint: &StyledStr| !hint.to_string().contains("as a value, use");
            let hints: Vec<_> = hints.into_iter().filter(is_help).collect();
            if !hints.is_empty() {
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(hints));
            }
        }
        error.exit()
    })
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let result = match command_line::<Cli>().command {
        Command::Throughput(args) => throughput(&args),
        Command::Latency(args) => latency(&args),
        Command::IngestLog(args) => ingest_log(&args),
        #[cfg(feature = "engine")]
        Command::Kappa(args) => kappa(&args),
        #[cfg(feature = "engine")]
        Command::FlatMemory(args) => flat_memory::run(&args),
        #[cfg(feature = "engine")]
        Command::Checkpoint(command) => checkpoint::run(&command),
        #[cfg(feature = "engine")]
        Command::Recovery(args) => checkpoint::recovery(&args),
        Command::RunTask { task } => child::run_here(&task),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn print_json(object: &impl Serialize) -> Result<(), BenchError> {
    let line = serde_json::to_string(object).map_err(|e| BenchError::failed(e.to_string()))?;
    println!("{line}");
    Ok(())
}

fn throughput(args: &ThroughputArgs) -> Result<(), BenchError> {
    if args.limit || args.engine == EngineName::Limit {
        limit::check(args.workload, args.shards, args.limit_variant)?;
    }
    let config = ThroughputConfig {
        shards: args.shards,
        events: args.events,
        variant: args.limit_variant,
    };
    if !args.json {
        println!("{}", ThroughputRun::head());
    }
    let allocations = |engine| -> Result<Option<f64>, BenchError> {
        if args.no_allocations {
            return Ok(None);
        }
        let report = child::throughput(engine, args.workload, &config, true)?;
        Ok(report.outcome.allocations_per_event)
    };
    let run = |engine, allocations_per_event| -> Result<ThroughputRun, BenchError> {
        let report = child::throughput(engine, args.workload, &config, false)?;
        let run = ThroughputRun::new(
            engine,
            args.workload,
            &config,
            &report,
            allocations_per_event,
        );
        if args.json {
            print_json(&run)?;
        } else {
            println!("{}", run.line());
        }
        Ok(run)
    };
    if !args.limit {
        run(args.engine, allocations(args.engine)?)?;
        return Ok(());
    }
    let pelton_allocations = allocations(EngineName::Pelton)?;
    let limit_allocations = allocations(EngineName::Limit)?;
    let mut ratios = Vec::new();
    for pair in 0..args.pairs {
        // Turn about, so that neither always runs on what the other left.
        let (pelton, limit) = if pair % 2 == 0 {
            let pelton = run(EngineName::Pelton, pelton_allocations)?;
            (pelton, run(EngineName::Limit, limit_allocations)?)
        } else {
            let limit = run(EngineName::Limit, limit_allocations)?;
            (run(EngineName::Pelton, pelton_allocations)?, limit)
        };
        check_agreement(&pelton, &limit)?;
        ratios.push(pelton.events_per_second / limit.events_per_second);
    }
    let ratios = Ratios::new(args.workload, args.shards, ratios);
    if args.json {
        return print_json(&ratios);
    }
    println!("{}", ratios.line());
    Ok(())
}

fn check_agreement(pelton: &ThroughputRun, limit: &ThroughputRun) -> Result<(), BenchError> {
    if (pelton.results, &pelton.checksum) == (limit.results, &limit.checksum) {
        return Ok(());
    }
    Err(BenchError::failed(format!(
        "the engines disagree on {}: pelton {} results, checksum {}; limit {} results, checksum {}",
        pelton.workload, pelton.results, pelton.checksum, limit.results, limit.checksum
    )))
}

fn latency(args: &LatencyArgs) -> Result<(), BenchError> {
    let config = LatencyConfig {
        shards: args.shards,
        rate: args.rate,
        seconds: args.seconds,
        park: args.park,
        checkpoints: latency_checkpoints(args)?,
    };
    if args.limit || args.engine == EngineName::Limit {
        limit::latency::check(&config)?;
    }
    let fewest = limit::latency::plan(args.workload, &config).warm_up + 1;
    if args.seconds <= fewest {
        let message = format!("{} needs --seconds {} or more", args.workload, fewest + 1);
        return Err(BenchError::usage(message));
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|e| BenchError::usage(format!("{}: {e}", args.out.display())))?;
    let engines: &[EngineName] = match (args.limit, args.engine) {
        (true, _) => &[EngineName::Pelton, EngineName::Limit],
        (false, EngineName::Pelton) => &[EngineName::Pelton],
        (false, EngineName::Limit) => &[EngineName::Limit],
    };
    if !args.json {
        println!("{}", LatencyRun::head());
    }
    for &engine in engines {
        let name = format!(
            "{}-{engine}-{}-shards-{}.hgrm",
            args.workload, args.shards, args.rate
        );
        let hgrm = args.out.join(name);
        let figures = child::latency(engine, args.workload, &config, hgrm.clone());
        if config.checkpoints.is_some() && engine == EngineName::Pelton {
            let _ = std::fs::remove_dir_all(&args.folder);
        }
        let figures = figures?;
        let run = LatencyRun::new(
            engine,
            args.workload,
            &config,
            figures,
            hgrm.display().to_string(),
        );
        if args.json {
            print_json(&run)?;
        } else {
            println!("{}", run.lines());
        }
    }
    Ok(())
}

/// Interval and folder of the checkpoints of a latency run.
fn latency_checkpoints(args: &LatencyArgs) -> Result<Option<(u64, PathBuf)>, BenchError> {
    let needed = (args.workload == LatencyWorkload::ExactlyOnce).then_some(10);
    let Some(interval_ms) = args.checkpoint_ms.or(needed) else {
        return Ok(None);
    };
    let wrong = |what: String| BenchError::usage(format!("{}: {what}", args.folder.display()));
    if args.folder.exists() {
        return Err(wrong("it exists: name a folder that does not".into()));
    }
    let folder = std::path::absolute(&args.folder).map_err(|e| wrong(e.to_string()))?;
    Ok(Some((interval_ms, folder)))
}

/// Syncs that are timed on their own.
const SYNCS: u64 = 500;

fn ingest_log(args: &IngestLogArgs) -> Result<(), BenchError> {
    let run = ingest_log::run(&IngestLogConfig {
        folder: args.folder.clone(),
        records: args.records,
        pairs: args.pairs,
        syncs: SYNCS,
    })?;
    if args.json {
        return print_json(&run);
    }
    println!("{}", run.lines());
    Ok(())
}

#[cfg(feature = "engine")]
fn kappa(args: &KappaArgs) -> Result<(), BenchError> {
    let run = kappa::run(&KappaConfig {
        folder: args.folder.clone(),
        records: args.records,
        rate: args.rate,
        seconds: args.seconds,
        shards: args.shards,
        partitions: args.partitions,
        interval_ms: args.interval_ms,
        pairs: args.pairs,
    })?;
    if args.json {
        return print_json(&run);
    }
    println!("{}", run.lines());
    Ok(())
}
