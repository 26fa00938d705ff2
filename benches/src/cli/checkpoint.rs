//! The commands about checkpoints.

use super::{at_least_one, print_json};
use crate::checkpoint::disk;
use crate::checkpoint::keyed::{self, KeyedComparison, KeyedConfig};
use crate::checkpoint::state;
use crate::engine::BenchError;
use crate::events::KEYS;
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum CheckpointCommand {
    /// Throughput with checkpoints by that without, in turn.
    KeyedWindow(KeyedArgs),
    /// Checkpoints of a large state whose input is idle, and loading it with checkpoints on.
    State(StateArgs),
    /// One write and its sync by calls, by a helper thread and by io_uring, in turn.
    Disk(DiskArgs),
}

#[derive(Args)]
pub(super) struct DiskArgs {
    /// Writes of each size by each of them in a round.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    samples: u64,
    /// How many rounds.
    #[arg(long, default_value_t = 15, value_parser = at_least_one)]
    rounds: usize,
    /// A folder that does not exist yet, on the disk to be measured. It is gone afterwards.
    #[arg(long, default_value = "target/checkpoint")]
    folder: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct StateArgs {
    /// How many keys; 24 bytes are kept for each.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000_000))]
    keys: u64,
    /// How many times each figure is taken.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    /// A folder that does not exist yet, on the disk to be measured. It is gone afterwards.
    #[arg(long, default_value = "target/checkpoint")]
    folder: PathBuf,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct RecoveryArgs {
    /// Shard threads, one a core: of the job that writes and of that which goes on.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Args)]
pub(super) struct KeyedArgs {
    /// Shard threads, one a core.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    /// Events, over all shards.
    #[arg(long, default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Milliseconds between checkpoints.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    interval_ms: u64,
    /// How many keys. 100,000 where it is not given, a million with --dirty-percent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: Option<u64>,
    /// Running values instead of windows, of which so many of a hundred change at a time.
    #[arg(long, value_parser = percent)]
    dirty_percent: Option<f64>,
    /// How many pairs of runs.
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    pairs: usize,
    /// A folder that does not exist yet, on the disk to be measured. It is gone afterwards.
    #[arg(long, default_value = "target/checkpoint")]
    folder: PathBuf,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n > 0.0 && n <= 100.0 => Ok(n),
        Ok(_) => Err("above 0 and at most 100".to_owned()),
        Err(e) => Err(format!("{e}")),
    }
}

pub(super) fn run(command: &CheckpointCommand) -> Result<(), BenchError> {
    match command {
        CheckpointCommand::KeyedWindow(args) => keyed_window(args),
        CheckpointCommand::State(args) => {
            check_keys(args.keys)?;
            let run = state::run(args.keys, args.pairs, &args.folder)?;
            tell(args.json, &run, || run.lines())
        }
        CheckpointCommand::Disk(args) => {
            let run = disk::run(args.samples, args.rounds, &args.folder)?;
            tell(args.json, &run, || run.lines())
        }
    }
}

pub(super) fn recovery(args: &RecoveryArgs) -> Result<(), BenchError> {
    let StateArgs {
        keys,
        pairs,
        folder,
        json,
    } = &args.state;
    check_keys(*keys)?;
    let run = state::recovery(*keys, args.shards, *pairs, folder)?;
    tell(*json, &run, || run.lines())
}

fn tell<R: serde::Serialize>(
    json: bool,
    run: &R,
    lines: impl Fn() -> String,
) -> Result<(), BenchError> {
    if json {
        return print_json(run);
    }
    println!("{}", lines());
    Ok(())
}

/// The order in which keys come goes through all of them, unless they are a multiple of its step.
fn check_keys(keys: u64) -> Result<(), BenchError> {
    if keys.is_multiple_of(7919) {
        return Err(BenchError::usage("--keys must be no multiple of 7919"));
    }
    Ok(())
}

fn keyed_window(args: &KeyedArgs) -> Result<(), BenchError> {
    let keys = args.keys.unwrap_or(match args.dirty_percent {
        Some(_) => 10 * KEYS,
        None => KEYS,
    });
    check_keys(keys)?;
    let comparison = KeyedComparison {
        config: KeyedConfig {
            shards: args.shards,
            events: args.events,
            keys,
            dirty_percent: args.dirty_percent,
            checkpoints: None,
        },
        interval_ms: args.interval_ms,
        pairs: args.pairs,
        folder: args.folder.clone(),
    };
    if !args.json {
        println!("{}", keyed::head());
    }
    let ratios = keyed::compare(&comparison, |config, report| {
        if args.json {
            let interval_ms = config.checkpoints.as_ref().map(|(ms, _)| ms);
            return print_json(&json!({ "interval_ms": interval_ms, "run": report }));
        }
        println!("{}", keyed::line(config, report));
        Ok(())
    })?;
    if args.json {
        return print_json(&ratios);
    }
    println!("{}", ratios.lines());
    Ok(())
}
