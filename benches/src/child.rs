//! Runs in processes of their own: this program, called again with a hidden command.
//!
//! So no run inherits another's heap, caches of freed memory or peak of resident memory.

use crate::alloc_count;
use crate::cores;
use crate::engine::{
    self, BenchError, EngineName, LatencyConfig, LatencyWorkload, Outcome, ThroughputConfig,
    Workload,
};
use crate::latency::{self, LatencyFigures};
#[cfg(feature = "engine")]
use crate::{checkpoint, flat_memory, pelton_engine};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The hidden command.
pub const COMMAND: &str = "run-task";

/// What one child process is to do; handed over as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// One throughput run.
    Throughput {
        /// Which engine.
        engine: EngineName,
        /// Which workload.
        workload: Workload,
        /// How.
        config: ThroughputConfig,
        /// Whether to count allocations instead of trusting the time.
        count_allocations: bool,
    },
    /// One latency run.
    Latency {
        /// Which engine.
        engine: EngineName,
        /// Which workload.
        workload: LatencyWorkload,
        /// How.
        config: LatencyConfig,
        /// Where the distribution goes.
        hgrm: PathBuf,
    },
    /// One run of a keyed workload, with or without checkpoints.
    #[cfg(feature = "engine")]
    Checkpoints(checkpoint::keyed::KeyedConfig),
    /// A day of event time through one operator.
    #[cfg(feature = "engine")]
    FlatMemory(flat_memory::FlatConfig),
    /// A large state is loaded and kept.
    #[cfg(feature = "engine")]
    State(checkpoint::state::StateConfig),
    /// A job goes on from it.
    #[cfg(feature = "engine")]
    Recover(checkpoint::state::StateConfig),
    /// The same entries in a map.
    #[cfg(feature = "engine")]
    BareMap {
        /// How many.
        keys: u64,
        /// Whether it is made with room for them.
        reserved: bool,
    },
}

/// What a throughput child reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ThroughputReport {
    /// What the run came to.
    pub outcome: Outcome,
    /// Peak resident memory of the process.
    pub peak_rss_bytes: u64,
    /// How far apart the first two cores were before the run and after it ([`cores::round_trip_ns`]), of a run on several.
    pub core_round_trip_ns: Option<[f64; 2]>,
}

/// The child's side: does the task and prints its report as one line of JSON.
pub fn run_here(task: &str) -> Result<(), BenchError> {
    let task =
        serde_json::from_str(task).map_err(|e| BenchError::usage(format!("not a task: {e}")))?;
    match task {
        Task::Throughput {
            engine,
            workload,
            config,
            count_allocations,
        } => {
            if count_allocations {
                alloc_count::start();
            }
            let several = config.shards > 1;
            let apart = || several.then(cores::round_trip_ns).flatten();
            let before = apart();
            let outcome = engine::engine(engine)?.throughput(workload, &config)?;
            print(&ThroughputReport {
                outcome,
                peak_rss_bytes: peak_rss_bytes(),
                core_round_trip_ns: before.zip(apart()).map(<[f64; 2]>::from),
            })
        }
        Task::Latency {
            engine,
            workload,
            config,
            hgrm,
        } => {
            let figures = engine::engine(engine)?.latency(workload, &config)?;
            latency::write_hgrm(&hgrm, &figures.histogram)
                .map_err(|e| BenchError::failed(format!("{}: {e}", hgrm.display())))?;
            print(&figures)
        }
        #[cfg(feature = "engine")]
        Task::Checkpoints(config) => print(&pelton_engine::checkpoints::keyed(&config)?),
        #[cfg(feature = "engine")]
        Task::FlatMemory(config) => print(&pelton_engine::flat::run(&config)?),
        #[cfg(feature = "engine")]
        Task::State(config) => print(&pelton_engine::state::run(&config)?),
        #[cfg(feature = "engine")]
        Task::Recover(config) => print(&pelton_engine::state::recover(&config)?),
        #[cfg(feature = "engine")]
        Task::BareMap { keys, reserved } => print(&pelton_engine::state::bare_map(keys, reserved)),
    }
}

fn print(report: &impl Serialize) -> Result<(), BenchError> {
    let line = serde_json::to_string(report).map_err(|e| BenchError::failed(e.to_string()))?;
    println!("{line}");
    Ok(())
}

/// The parent's side of a throughput run.
pub fn throughput(
    engine: EngineName,
    workload: Workload,
    config: &ThroughputConfig,
    count_allocations: bool,
) -> Result<ThroughputReport, BenchError> {
    run_apart(&Task::Throughput {
        engine,
        workload,
        config: config.clone(),
        count_allocations,
    })
}

/// The parent's side of a latency run.
pub fn latency(
    engine: EngineName,
    workload: LatencyWorkload,
    config: &LatencyConfig,
    hgrm: PathBuf,
) -> Result<LatencyFigures, BenchError> {
    run_apart(&Task::Latency {
        engine,
        workload,
        config: config.clone(),
        hgrm,
    })
}

/// Has a process of its own do a task, and takes its report.
pub(crate) fn run_apart<R: DeserializeOwned>(task: &Task) -> Result<R, BenchError> {
    let failed = |e: &dyn std::fmt::Display| BenchError::failed(format!("a run's process: {e}"));
    let task = serde_json::to_string(task).map_err(|e| failed(&e))?;
    let program = std::env::current_exe().map_err(|e| failed(&e))?;
    let output = Command::new(program)
        .args([COMMAND, &task])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(&e))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let said = said.strip_prefix("error: ").unwrap_or(&said).to_owned();
        return Err(match output.status.code() {
            Some(2) => BenchError::Usage(said),
            _ if said.is_empty() => failed(&output.status),
            _ => BenchError::Failed(said),
        });
    }
    // An engine's warnings are the user's to see.
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).map_err(|e| failed(&e))
}

/// Peak resident memory of this process since it was started, as the kernel's high-water mark.
///
/// Not `ru_maxrss`: that begins with the peak of the parent from which the process was forked.
#[cfg(target_os = "linux")]
pub fn peak_rss_bytes() -> u64 {
    of_status("VmHWM:")
}

/// Resident memory of this process now; 0 where that is not known.
#[cfg(target_os = "linux")]
pub fn resident_bytes() -> u64 {
    of_status("VmRSS:")
}

#[cfg(target_os = "linux")]
fn of_status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Bytes that this process has had written to disks so far, as the kernel counts them: what went to files directly, and pages of the
/// cache that it dirtied. 0 where that is not known.
pub fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes:"));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Seconds of processor time that the shards of this process have had so far; 0 where that is not known.
///
/// A shard that looks for work all the time has it whenever nobody else runs on its core: what neighbours took is left out.
pub fn shard_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let of = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        let path = task.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        if !name.starts_with("pelton-shard") {
            return None;
        }
        let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let ns: f64 = times.split_whitespace().next()?.parse().ok()?;
        Some(ns / 1e9)
    };
    tasks.filter_map(of).sum()
}

/// Nanoseconds for which this thread has run, by the kernel's account of it.
#[cfg(target_os = "linux")]
pub fn thread_ran_ns() -> u64 {
    let ran = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    ran.tv_sec as u64 * 1_000_000_000 + ran.tv_nsec as u64
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn thread_ran_ns() -> u64 {
    0
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn peak_rss_bytes() -> u64 {
    0
}

/// Not known on this system.
#[cfg(not(target_os = "linux"))]
pub fn resident_bytes() -> u64 {
    0
}
