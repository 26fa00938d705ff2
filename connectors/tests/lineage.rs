//! Whose output it is that a sink of lines finds when its job starts: an earlier life's, another job's, an earlier build's.

#![cfg(feature = "files")]

use pelton::batch::Stamp;
use pelton::checkpoint::Epoch;
use pelton::port::Ports;
use pelton::sink::{Committer, PreCommit, Sink, Writer};
use pelton::testing::{self, FaultyDisk, Feed, MemoryDisk, OnDisk, SharedDisk, Sizes, Stepper};
use pelton::{Checkpointing, Config, Driver, Job, JobError, Runtime, Spans, Stop, sources};
use pelton_connectors::lines;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lineage-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Names in a folder but that of its lock, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|n| n != ".pelton-sink").collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn checkpoints(folder: &Path) -> Checkpointing {
    Checkpointing::in_folder(folder)
        .every(1.millis())
        .segment_bytes(16 << 20)
        .reserve_bytes(0)
}

fn runtime() -> Runtime {
    Runtime::start(Config::default().shards(1).driver(Driver::Threads)).unwrap()
}

/// Writers and committer of a sink, taken out of a job that has started: what a test does with them is what a job would have done
/// that ended there.
struct Taken<S, W> {
    sink: S,
    writers: Arc<Mutex<Vec<W>>>,
    committer: Arc<Mutex<Option<Box<dyn Committer>>>>,
}

struct Idle;

impl Writer<u64> for Idle {
    fn write(&mut self, _: u64, _: Stamp) {}
}

impl<S: Sink<u64>> Sink<u64> for Taken<S, S::Writer> {
    type Writer = Idle;
    fn name(&self) -> String {
        self.sink.name()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<Idle>, String> {
        *self.writers.lock().unwrap() = self.sink.open(ports)?;
        *self.committer.lock().unwrap() = self.sink.committer();
        Ok((0..ports.shards()).map(|_| Idle).collect())
    }
}

/// A job's checkpoints, and its lineage.
struct Own(SharedDisk, u8);

impl Own {
    fn new(lineage: u8) -> Self {
        let memory = FaultyDisk::new(MemoryDisk::new());
        Own(SharedDisk::new(memory), lineage)
    }

    /// A life of the job. The first leaves a checkpoint for the next.
    fn live<S: Sink<u64>>(&self, sink: S) -> Result<Life<S::Writer>, String> {
        let (writers, committer) = (Arc::default(), Arc::<Mutex<_>>::default());
        let job = Job::new("taken");
        job.source(sources::items(0..3u64)).sink(Taken {
            sink,
            writers: Arc::clone(&writers),
            committer: Arc::clone(&committer),
        });
        let on = OnDisk {
            lineage: [self.1; 16],
            ..OnDisk::small(&self.0)
        };
        let started = Stepper::on_disk(&job, Sizes::shards(1), &on);
        let ended = started.and_then(|mut stepper| stepper.run());
        ended.map_err(|e| e.to_string())?;
        Ok(Life {
            writer: writers.lock().unwrap().remove(0),
            committer: committer.lock().unwrap().take().unwrap(),
        })
    }

    fn refused<S: Sink<u64>>(&self, sink: S) -> String {
        let refused = self.live(sink).err().unwrap();
        assert!(refused.contains("[PLT-0008]"), "{refused}");
        refused
    }
}

struct Life<W> {
    writer: W,
    committer: Box<dyn Committer>,
}

impl<W: Writer<u64>> Life<W> {
    /// Writes and prepares an epoch.
    fn prepare(&mut self, epoch: u64, record: u64) -> Vec<u8> {
        self.writer.write(record, Stamp::NONE);
        self.writer.flush(0).unwrap();
        self.writer.barrier(Epoch(epoch));
        match self.writer.pre_commit(0).unwrap() {
            PreCommit::Ready(prepared) => prepared.unwrap(),
            PreCommit::Pending => panic!("ports serve inline here"),
        }
    }

    fn commit(&mut self, epoch: u64, prepared: &[u8]) {
        self.committer.commit(Epoch(epoch), prepared).unwrap();
    }

    fn recover(&mut self, last: Option<u64>) {
        self.committer.recover(last.map(Epoch)).unwrap();
    }
}

#[test]
fn parts_that_another_job_has_prepared_are_not_touched() {
    let (folder, own) = (Folder::new(), Own::new(1));
    let out = folder.at("out");
    let sink = || lines::parts(&out, lines::json());
    let mut life = own.live(sink()).unwrap();
    life.recover(None);
    let prepared = life.prepare(1, 7);
    drop(life);
    // Its checkpoint has decided, and the process ended before it was committed.
    let staged = names(&out);
    let lineage = "01".repeat(16);
    assert_eq!(staged, [format!(".part-{lineage}-1-0000-0.staging")]);
    // One that begins, and one that has checkpoints of its own.
    let other = Own::new(2);
    for _ in 0..2 {
        let refused = other.refused(sink());
        assert!(refused.contains(&staged[0]), "{refused}");
        assert!(refused.contains("this is another one"), "{refused}");
        assert_eq!(names(&out), staged);
        let elsewhere = lines::parts(folder.at("elsewhere"), lines::json());
        other.live(elsewhere).unwrap();
    }
    let mut life = own.live(sink()).unwrap();
    life.commit(1, &prepared);
    life.recover(Some(1));
    let name = "part-00000000000000000001-0000.jsonl";
    assert_eq!(names(&out), [name]);
    assert_eq!(text(&out.join(name)), "7\n");
}

#[test]
fn growing_files_of_another_job_are_not_touched() {
    let (folder, own) = (Folder::new(), Own::new(1));
    let out = folder.at("out");
    let sink = || lines::growing(&out, lines::json());
    let read = || text(&out.join("shard-0000.jsonl"));
    let mut life = own.live(sink()).unwrap();
    life.recover(None);
    let prepared = life.prepare(1, 7);
    drop(life);
    let other = Own::new(2);
    for _ in 0..2 {
        let refused = other.refused(sink());
        assert!(refused.contains("this is another one"), "{refused}");
        assert_eq!(read(), "7\n");
        let elsewhere = lines::growing(folder.at("elsewhere"), lines::json());
        other.live(elsewhere).unwrap();
    }
    let mut life = own.live(sink()).unwrap();
    life.commit(1, &prepared);
    life.recover(Some(1));
    assert_eq!(read(), "7\n");
    assert_eq!(lines::committed(&out).unwrap().len(), 1);
}

/// Nothing of the first job's can be lost; from then on the folder is the second one's.
#[test]
fn a_folder_where_a_job_left_nothing_is_the_next_ones() {
    let (folder, own, other) = (Folder::new(), Own::new(1), Own::new(2));
    let out = folder.at("out");
    let sink = || lines::growing(&out, lines::json());
    own.live(sink()).unwrap().recover(None);
    let mut life = other.live(sink()).unwrap();
    life.recover(None);
    life.prepare(1, 7);
    drop(life);
    own.refused(sink());
    other.live(sink()).unwrap().recover(None);
    assert_eq!(names(&out), [".committed"], "nothing was decided");
}

#[test]
fn parts_that_an_earlier_build_prepared_are_recovered() {
    let (folder, own) = (Folder::new(), Own::new(1));
    let out = folder.at("out");
    let (decided, given_up) = (".part-1-0000-0.staging", ".part-1-0000-1.staging");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join(".pelton-sink"), "00000000000000000001\n").unwrap();
    std::fs::write(out.join(decided), "7\n").unwrap();
    std::fs::write(out.join(given_up), "8\n").unwrap();
    let sink = || lines::parts(&out, lines::json());
    // Whose they are a job that begins cannot know.
    let refused = Own::new(2).refused(sink());
    assert!(refused.contains("made by an earlier version"), "{refused}");
    assert_eq!(names(&out), [decided, given_up]);
    let elsewhere = lines::parts(folder.at("elsewhere"), lines::json());
    own.live(elsewhere).unwrap();
    let mut life = own.live(sink()).unwrap();
    life.commit(1, b"1 0 0 jsonl");
    life.recover(Some(1));
    let name = "part-00000000000000000001-0000.jsonl";
    assert_eq!(names(&out), [name]);
    assert_eq!(text(&out.join(name)), "7\n");
}

#[test]
fn growing_files_of_an_earlier_build_are_recovered() {
    let (folder, own) = (Folder::new(), Own::new(1));
    let out = folder.at("out");
    let (lengths, grown) = (out.join(".committed"), out.join("shard-0000.jsonl"));
    std::fs::create_dir(&out).unwrap();
    std::fs::write(&lengths, "epoch 1\n2 shard-0000.jsonl\n").unwrap();
    std::fs::write(&grown, "7\n8\n9\n").unwrap();
    let sink = || lines::growing(&out, lines::json());
    let refused = Own::new(2).refused(sink());
    assert!(refused.contains("made by an earlier version"), "{refused}");
    let elsewhere = lines::growing(folder.at("elsewhere"), lines::json());
    own.live(elsewhere).unwrap();
    // Nothing to commit: the lengths become the job's all the same.
    own.live(sink()).unwrap().recover(Some(1));
    assert_eq!(text(&grown), "7\n");
    let lineage = "01".repeat(16);
    let stamped = |rest: &str| format!("{}lineage {lineage}\n{}", &rest[..8], &rest[8..]);
    assert_eq!(text(&lengths), stamped("epoch 1\n2 shard-0000.jsonl\n"));
    // What it decided on last, and had not committed.
    std::fs::write(&lengths, "epoch 1\n2 shard-0000.jsonl\n").unwrap();
    std::fs::write(&grown, "7\n8\n9\n").unwrap();
    let mut life = own.live(sink()).unwrap();
    life.commit(2, b"4 shard-0000.jsonl");
    life.recover(Some(2));
    assert_eq!(text(&grown), "7\n8\n");
    assert_eq!(text(&lengths), stamped("epoch 2\n4 shard-0000.jsonl\n"));
}

/// A job whose lines go to a file that is overwritten.
fn overwriting(feed: &Feed<u64>, path: &Path, config: Checkpointing) -> Job {
    let job = Job::new("overwrites");
    job.checkpoints(config);
    job.source(feed.source())
        .sink(lines::file(path, lines::json()).overwrite());
    job
}

#[test]
fn a_job_that_goes_on_does_not_overwrite_what_its_earlier_lives_wrote() {
    let folder = Folder::new();
    let (own, out) = (checkpoints(&folder.at("own")), folder.at("out"));
    std::fs::write(&out, "another's, and longer than what follows").unwrap();
    let (feed, _) = testing::feed::<u64>(1);
    let runtime = runtime();
    feed.push(0, 1);
    feed.push(0, 2);
    let handle = runtime.submit(&overwriting(&feed, &out, own.clone()));
    let handle = handle.unwrap();
    while handle.counters().records_out < 2 {
        std::thread::yield_now();
    }
    handle.stop(Stop::Keep);
    handle.wait().unwrap();
    assert_eq!(text(&out), "1\n2\n", "it began");
    // A line that a crash has left open stays as well.
    std::fs::write(&out, "1\n2\n3").unwrap();
    feed.push(0, 4);
    feed.close(0);
    let run = |config| -> Result<(), JobError> {
        let job = overwriting(&feed, &out, config);
        runtime.submit(&job)?.wait().map(drop)
    };
    run(own).unwrap();
    assert_eq!(text(&out), "1\n2\n3\n4\n");
    // Another job, which does not fit: nothing is changed. Then one that does.
    std::fs::create_dir(folder.at("empty")).unwrap();
    let nowhere = checkpoints(&folder.at("new")).from_savepoint(folder.at("empty"));
    assert_eq!(run(nowhere).unwrap_err().code(), "PLT-0112");
    assert_eq!(text(&out), "1\n2\n3\n4\n");
    let branch = checkpoints(&folder.at("new")).from_savepoint(folder.at("own"));
    run(branch).unwrap();
    assert_eq!(text(&out), "", "it began, where all had been read");
}
