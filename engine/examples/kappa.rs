//! One way of computing for the past and for what comes: a job reads a log's whole history and goes on with what is written
//! meanwhile. It is stopped and started again in the middle, and nothing is missing and nothing is there twice.
//!
//! `cargo run --release -p pelton --example kappa -- FOLDER [RECORDS]`
//!
//! ```text
//! writer: ids, at a rate -> log of 4 partitions
//!                            `-> reader: its history, then live -> log of results
//!                                   stopped, started on other shards, finished at the end of the log
//!                                                                  `-> check: count, sum and xor of all results
//! ```

use pelton::checkpoint::Stop;
use pelton::{
    Checkpointing, Config, Driver, Job, JobHandle, Runtime, Spans, log, sink, sources, stable_hash,
};
use std::error::Error;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};

/// What a record is worth to the reader's results.
fn result_of(id: u64) -> (u64, u64) {
    (id, stable_hash(&id))
}

/// Records, and sums over them that a gap or a second one would change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Of ids.
    pub sum: u64,
    /// Of hashes.
    pub xor: u64,
}

impl Tally {
    fn add(&mut self, (id, hash): (u64, u64)) {
        self.count += 1;
        self.sum += id;
        self.xor ^= hash;
    }

    /// Of the ids below `records`, each once.
    pub fn of(records: u64) -> Self {
        let mut tally = Tally::default();
        (0..records).for_each(|id| tally.add(result_of(id)));
        tally
    }
}

fn checkpoints(folder: &Path, name: &str) -> Checkpointing {
    Checkpointing::in_folder(folder.join(name))
        .every(10.millis())
        .segment_bytes(16 << 20)
        .reserve_bytes(0)
}

fn writer(folder: &Path, records: u64) -> Job {
    let job = Job::new("writer");
    job.checkpoints(checkpoints(folder, "writer"));
    let ids = sources::generate("ids", records, 2, |id| id);
    let to = log::sink(folder.join("log"), log::states::<u64>());
    // Half a second's worth.
    job.source(sources::paced(ids, records * 2)).sink(
        to.partitions(4)
            .partition_by(|id| *id)
            .segment_bytes(4 << 20),
    );
    job
}

/// `seen` is told of each thousandth record.
fn reader(folder: &Path, seen: Sender<()>, is_last: bool) -> Job {
    let job = Job::new("reader");
    job.checkpoints(checkpoints(folder, "reader"));
    let from = log::source(folder.join("log"), log::states::<u64>());
    let from = if is_last { from.until_end() } else { from };
    let to = log::sink(folder.join("results"), log::states::<(u64, u64)>());
    job.source(from)
        .uid("log")
        .map(move |id| {
            if id % 1_000 == 0 {
                let _ = seen.send(());
            }
            result_of(id)
        })
        .sink(to.segment_bytes(4 << 20));
    job
}

/// What is in the log of results.
fn check(folder: &Path) -> Result<Tally, Box<dyn Error>> {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let job = Job::new("check");
    let into = tally.clone();
    job.source(log::source(folder.join("results"), log::states::<(u64, u64)>()).until_end())
        .sink(sink::callback("tally", move |result, _| {
            into.lock().expect("nobody panics").add(result);
        }));
    job.run(Config::default().shards(1))?;
    let tally = *tally.lock().expect("nobody panics");
    Ok(tally)
}

fn submit(runtime: &Runtime, job: &Job) -> Result<JobHandle, Box<dyn Error>> {
    Ok(runtime.submit(job)?)
}

/// Runs all of it in an empty folder, or one that is not there yet; what came of the reader's lives together.
pub fn run(folder: &Path, records: u64) -> Result<Tally, Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    if folder.read_dir()?.next().is_some() {
        // Jobs that went on from an earlier run's checkpoints would be through, and wait for nothing.
        let folder = folder.display();
        return Err(format!(
            "{folder} is not empty; name a folder that is, or one that is not there yet"
        )
        .into());
    }
    let runtime = |shards| Runtime::start(Config::default().shards(shards).driver(Driver::Threads));
    let (one, two) = (runtime(1)?, runtime(2)?);
    let writer = submit(&two, &writer(folder, records))?;
    let (tell, seen) = mpsc::channel();
    // A first life: what is there already, and what comes.
    let first = submit(&one, &reader(folder, tell.clone(), false))?;
    for _ in 0..records / 3_000 {
        seen.recv()?;
    }
    first.stopper().stop(Stop::Keep);
    first.wait()?;
    // A second one, on other shards; it ends whenever the writer has.
    let second = submit(&two, &reader(folder, tell.clone(), false))?;
    writer.wait()?;
    second.stopper().stop(Stop::Keep);
    second.wait()?;
    // What is left.
    submit(&one, &reader(folder, tell, true))?.wait()?;
    check(folder)
}

#[allow(dead_code, reason = "a test runs it as a module")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let records = arguments.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let tally = run(Path::new(&folder), records)?;
    println!("{tally:?}");
    match tally == Tally::of(records) {
        true => Ok(()),
        false => Err(format!("it should be {:?}", Tally::of(records)).into()),
    }
}
