//! `flat-memory` on the command line.

use super::{at_least_one, print_json};
use crate::engine::BenchError;
use crate::flat_memory::{self, FlatConfig, FlatOperator};
use clap::{Args, ValueEnum};

#[derive(Args)]
pub(super) struct FlatArgs {
    /// What the day goes through; all of them in turn where none is given.
    operators: Vec<FlatOperator>,
    /// Shard threads, one a core.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    shards: usize,
    /// Events of the day, over all shards.
    #[arg(long, default_value_t = 20_000_000, value_parser = clap::value_parser!(u64).range(100_000..))]
    events: u64,
    /// Parts of the day, each a line of the table.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(3..=1440))]
    samples: u16,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// All operators are run, also behind one whose memory grew; the first that did is the error.
pub(super) fn run(args: &FlatArgs) -> Result<(), BenchError> {
    let operators = match args.operators.as_slice() {
        [] => FlatOperator::value_variants(),
        some => some,
    };
    let mut checked = Ok(());
    for &operator in operators {
        let run = flat_memory::run(&FlatConfig {
            operator,
            shards: args.shards,
            events: args.events,
            samples: args.samples.into(),
        })?;
        if args.json {
            print_json(&run)?;
        } else {
            println!("{}", run.lines());
        }
        checked = checked.and(run.check());
    }
    checked
}
