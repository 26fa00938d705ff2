//! Two jobs and two logs: one job writes a log, the other reads its history and what comes, and writes another.
//!
//! ```text
//! ids, paced -> [first log, 3 partitions] -> reader, follows -> [second log, 2 partitions]
//! ```
//! Both jobs are of one process and die together, at any instant; each has checkpoints of its own, so they go on from different ones.

use super::Subject;
use super::lives::Draw;
use pelton::testing::{Stepper, collect};
use pelton::{
    Checkpointing, Config, Driver, Job, JobError, Runtime, Span, Stop, Stopper, log, sources,
};
use pelton_connectors::log as formats;
use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

const RECORDS: u64 = 30_000;

/// What a process is told, in a file of the folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Life {
    shards: [usize; 2],
    batch: usize,
    interval_us: i64,
    timeout_us: i64,
    rate: u64,
}

pub struct Logs;

impl Subject for Logs {
    type Variant = u64;

    fn name(&self) -> &'static str {
        "logs"
    }

    fn points(&self) -> &'static [&'static str] {
        &[
            "begun",
            "share",
            "sealed",
            "decided",
            "committed-one",
            "committed",
            "over",
            "recovering",
            "recovered",
        ]
    }

    fn draw(&self, draw: &mut Draw) -> u64 {
        [30_000, 80_000][draw.index(2)]
    }

    fn command(&self, rate: &u64, folder: &Path, draw: &mut Draw) -> Command {
        let interval_us = [1_000, 3_000, 20_000][draw.index(3)];
        let life = Life {
            shards: [1 + draw.index(3), 1 + draw.index(2)],
            batch: [16, 64, 1024][draw.index(3)],
            interval_us,
            // One in three gives up whatever takes as long as an interval.
            timeout_us: [60_000_000, 60_000_000, interval_us][draw.index(3)],
            rate: *rate,
        };
        let text = serde_json::to_string(&life).unwrap();
        std::fs::write(folder.join("life"), text).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["victim", "--exact", "--nocapture"]);
        command.env("PELTON_VICTIM_OF_LOGS", folder);
        command
    }

    fn check(&self, _: &u64, folder: &Path, _: &str) -> Result<(), String> {
        let whole: Vec<u64> = (0..RECORDS).collect();
        for name in ["first", "second"] {
            let mut ids = read(&folder.join(name))?;
            ids.sort_unstable();
            if ids != whole {
                let at = ids.iter().zip(&whole).position(|(a, b)| a != b);
                let at = at.unwrap_or(ids.len().min(whole.len()));
                return Err(format!(
                    "{name}: {} records instead of {RECORDS}; in the place of {at} is {:?}",
                    ids.len(),
                    ids.get(at)
                ));
            }
        }
        Ok(())
    }
}

/// All that is visible in a log.
fn read(folder: &Path) -> Result<Vec<u64>, String> {
    let (rows, sink) = collect();
    let job = Job::new("read");
    job.source(log::source(folder, formats::json::<u64>()).until_end())
        .sink(sink);
    let mut stepper = Stepper::new(&job, 1).map_err(|e| e.to_string())?;
    stepper.run().map_err(|e| e.to_string())?;
    Ok(rows.take())
}

fn checkpoints(life: &Life, folder: PathBuf) -> Checkpointing {
    Checkpointing::in_folder(folder)
        .every(Span::from_micros(life.interval_us))
        .timeout(Span::from_micros(life.timeout_us))
        .segment_bytes(16 << 20)
        .reserve_bytes(0)
}

fn writer(life: &Life, folder: &Path) -> Job {
    let job = Job::new("writer");
    job.checkpoints(checkpoints(life, folder.join("checkpoints")));
    let ids = sources::generate("ids", RECORDS, 4, |id| id);
    let to = log::sink(folder.join("first"), formats::json::<u64>());
    job.source(sources::paced(ids, life.rate)).sink(
        to.partitions(3)
            .partition_by(|id| *id)
            .segment_bytes(2 << 20),
    );
    job
}

fn reader(life: &Life, folder: &Path, is_last: bool) -> Job {
    let job = Job::new("reader");
    job.checkpoints(checkpoints(life, folder.join("reader")));
    let from = log::source(folder.join("first"), formats::json::<u64>());
    let from = if is_last { from.until_end() } else { from };
    let to = log::sink(folder.join("second"), formats::json::<u64>());
    job.source(from).sink(
        to.partitions(2)
            .partition_with(|id, _| (*id / 3) as u32)
            .segment_bytes(2 << 20),
    );
    job
}

/// The jobs that a signal stops; whether it has come.
#[derive(Default)]
struct Stopping {
    jobs: Vec<Stopper>,
    asked: bool,
}

impl Stopping {
    fn add(&mut self, job: Stopper) {
        if self.asked {
            job.stop(Stop::Keep);
        }
        self.jobs.push(job);
    }
}

/// Both jobs, in a process of their own. The reader follows while the writer writes; then it finishes what is left.
pub fn run(folder: &Path) {
    let life = std::fs::read_to_string(folder.join("life")).unwrap();
    let life: Life = serde_json::from_str(&life).unwrap();
    let stopping = Arc::new(Mutex::new(Stopping::default()));
    let mut signals = Signals::new([SIGTERM]).unwrap();
    let asked = stopping.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let mut stopping = asked.lock().unwrap();
            stopping.asked = true;
            stopping.jobs.iter().for_each(|job| job.stop(Stop::Keep));
        }
    });
    if let Err(e) = live(&life, folder, &stopping) {
        panic!("{e}");
    }
    if stopping.lock().unwrap().asked {
        std::process::exit(3);
    }
}

fn live(life: &Life, folder: &Path, stopping: &Mutex<Stopping>) -> Result<(), JobError> {
    let runtime = |shards: usize| {
        let config = Config::default().shards(shards).batch_size(life.batch);
        Runtime::start(config.driver(Driver::Threads)).unwrap()
    };
    let [of_writer, of_reader] = life.shards.map(runtime);
    let submit = |runtime: &Runtime, job: &Job| {
        let handle = runtime.submit(job)?;
        stopping.lock().unwrap().add(handle.stopper());
        Ok::<_, JobError>(handle)
    };
    let writing = submit(&of_writer, &writer(life, folder))?;
    let following = submit(&of_reader, &reader(life, folder, false))?;
    writing.wait()?;
    following.stop(Stop::Keep);
    following.wait()?;
    if !stopping.lock().unwrap().asked {
        submit(&of_reader, &reader(life, folder, true))?.wait()?;
    }
    Ok(())
}
