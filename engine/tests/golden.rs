//! What an earlier version of the engine wrote is read by every later one: `golden/1` holds the savepoint and the checkpoints of
//! a small job (tumbling windows, a fold, positions, watermarks) and what it had shown by then.
//!
//! A folder is never written anew: where a format changes, another one is added (`cargo test --test golden -- --ignored` writes
//! it to a folder beside) and the old ones stay.

#[allow(dead_code, reason = "other tests need the rest")]
mod support;

use pelton::checkpoint::inspect::inspect;
use pelton::{Checkpointing, JobHandle, Spans, Stop};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use support::sums::{ALL, Gate, Shown, TotalV1, assert_same, expected, job, merged, wait_at};
use support::{Folder, runtime};

/// Of a partition: all, and where the savepoint and the last checkpoint are. Windows have fired and others are open at both.
const RECORDS: u64 = 640;
const SAVEPOINT: u64 = 300;
const CHECKPOINT: u64 = 560;

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(name)
}

/// Only when it is asked for.
fn in_folder(folder: &Path) -> Checkpointing {
    Checkpointing::in_folder(folder)
        .every(3_600.seconds())
        .timeout(3_600.seconds())
}

fn shown(golden: &Path, when: &str) -> Vec<String> {
    let text = fs::read_to_string(golden.join(when)).unwrap();
    text.lines().map(String::from).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

fn goes_on(config: Checkpointing, shards: usize, before: Vec<String>) {
    let (gate, now) = (Gate::at(RECORDS, RECORDS), Shown::default());
    let job = job::<TotalV1>(config, &gate, &now, ALL);
    let runtime = runtime(shards);
    let report = runtime.submit(&job).and_then(JobHandle::wait).unwrap();
    assert!(report.from.is_some());
    let now = now.all();
    assert!(now.iter().any(|row| row.starts_with("window")));
    let what = format!("{shards} shards");
    assert_same(&merged(before, now), &expected(&gate, ALL.keys), &what);
}

#[test]
fn a_savepoint_of_old_is_started_from() {
    let golden = golden("1");
    for shards in [1, 2, 3] {
        let own = Folder::new("golden");
        let config = in_folder(own.path()).from_savepoint(golden.join("savepoint"));
        goes_on(config, shards, shown(&golden, "savepoint.shown"));
    }
}

#[test]
fn checkpoints_of_old_are_gone_on_from() {
    let golden = golden("1");
    for shards in [1, 2, 3] {
        let own = Folder::new("golden");
        copy(&golden.join("checkpoints"), own.path());
        let before = shown(&golden, "checkpoints.shown");
        goes_on(in_folder(own.path()), shards, before);
    }
}

#[test]
#[ignore = "writes another snapshot"]
fn write_another() {
    let to = golden("new");
    let own = to.join("checkpoints");
    let (gate, now) = (Gate::at(SAVEPOINT / 2, RECORDS), Shown::default());
    let runtime = runtime(2);
    let job = job::<TotalV1>(in_folder(&own), &gate, &now, ALL);
    let handle = runtime.submit(&job).unwrap();
    let write = |when: &str, rows: Vec<String>| {
        fs::write(to.join(when), rows.join("\n") + "\n").unwrap();
    };
    wait_at(&gate, &handle);
    handle.checkpoint();
    while handle.checkpoints().unwrap().completed < 1 {
        std::thread::yield_now();
    }
    gate.open_to(SAVEPOINT);
    wait_at(&gate, &handle);
    let epoch = handle.savepoint(to.join("savepoint")).unwrap();
    write("savepoint.shown", now.up_to(epoch));
    gate.open_to(CHECKPOINT);
    wait_at(&gate, &handle);
    handle.stop(Stop::Keep);
    handle.wait().unwrap();
    write("checkpoints.shown", now.all());
    // What lies behind the ends that the last one names is reserved space.
    let last = inspect(&own).unwrap().checkpoints.pop().unwrap();
    for (segment, len) in last.segments {
        let file = OpenOptions::new().write(true).open(own.join(segment));
        file.unwrap().set_len(len).unwrap();
    }
    fs::remove_file(own.join("lock")).unwrap();
}
