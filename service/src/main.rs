//! The `pelton` binary.
//!
//! Exit codes: 0 done, 1 it failed, 2 the command line or the machine does not allow it, 3 stopped by a signal after a last
//! checkpoint, 141 whoever read its standard output has gone: see [`EXIT_CODES`].

#![forbid(unsafe_code)]
// They panic where a message cannot be written: `tell` does not.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod flights;
mod state;
mod stopped;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use pelton::{BuildError, Config, Driver, JobError};
use pelton_connectors::lines;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

/// Shown by `--help`. The last is what shells report of a filter that SIGPIPE has killed.
const EXIT_CODES: &str = "Exit codes:
  0    the job is done; state verify: all is whole
  1    it failed; stderr says why. state: something is damaged
  2    the command line, or the machine, does not allow it; state: no checkpoints there, or a job runs on them
  3    SIGTERM or SIGINT stopped a job that takes checkpoints, after a last one: the same command goes on
  130  a second SIGINT, 143 a second SIGTERM: ended at once; the same command goes on from the checkpoint before
  141  whoever read standard output has gone (pelton .. | head): ended there, without a message";

/// A stream processor for one machine.
#[derive(Parser, Debug)]
#[command(version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Flights(Box<flights::Args>),
    State(state::Args),
}

/// Where a job runs.
#[derive(clap::Args, Debug)]
struct Place {
    /// Shards: threads that share the work [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    shards: Option<u16>,
    /// Cores, one shard on each, such as 0,1
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "shards"
    )]
    cores: Option<Vec<usize>>,
    /// What runs the shards
    #[arg(long, value_enum, default_value_t = DriverName::Auto)]
    driver: DriverName,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum DriverName {
    /// The best that this machine allows
    Auto,
    /// Threads and the standard library
    Threads,
    /// glommio on io_uring
    Glommio,
}

impl Place {
    fn config(&self) -> Config {
        let config = Config::default().driver(match self.driver {
            DriverName::Auto => Driver::Auto,
            DriverName::Threads => Driver::Threads,
            DriverName::Glommio => Driver::Glommio,
        });
        match (&self.cores, self.shards) {
            (Some(cores), _) => config.cores(cores.iter().copied()),
            (None, Some(shards)) => config.shards(usize::from(shards)),
            (None, None) => config,
        }
    }
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// All that was to be done is done.
    Over,
    /// It was stopped, and can go on.
    Stopped,
}

/// Why a command failed: one line for stderr, if anybody is to be told.
#[derive(Debug)]
enum Failure {
    /// The command cannot be carried out as it was given.
    Usage(String),
    /// It was begun and did not succeed.
    Failed(String),
    /// Whoever read standard output has seen enough.
    ReaderGone,
}

impl From<JobError> for Failure {
    fn from(e: JobError) -> Self {
        match e {
            JobError::Build(BuildError::Config { .. }) => Failure::Usage(e.to_string()),
            JobError::Sink { sink, what, .. } if sink == "stdout" && what == lines::READER_GONE => {
                Failure::ReaderGone
            }
            e => Failure::Failed(e.to_string()),
        }
    }
}

impl From<BuildError> for Failure {
    fn from(e: BuildError) -> Self {
        JobError::from(e).into()
    }
}

/// Says something on stderr. If that cannot be (a full device, a closed pipe), nobody listens: the result stands all the same.
fn tell(what: fmt::Arguments<'_>) {
    // One write: lines of processes that share the device do not mix.
    let _ = io::stderr().write_all(what.to_string().as_bytes());
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

fn main() -> ExitCode {
    let started = Instant::now();
    let Cli { command } = command_line();
    let result = match command {
        Command::Flights(args) => flights::run(&args, started),
        Command::State(args) => state::run(&args),
    };
    match result {
        Ok(Done::Over) => ExitCode::SUCCESS,
        Ok(Done::Stopped) => ExitCode::from(3),
        Err(Failure::Usage(what)) => {
            tell(format_args!("pelton: {what}\n"));
            ExitCode::from(2)
        }
        Err(Failure::Failed(what)) => {
            tell(format_args!("pelton: {what}\n"));
            ExitCode::FAILURE
        }
        Err(Failure::ReaderGone) => ExitCode::from(141),
    }
}
