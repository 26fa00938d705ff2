//! `pelton flights --checkpoints` and `pelton state` as a user runs them.

#![cfg(unix)]

use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("state-{}-{number}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs in a folder: its outcome, code, stdout and stderr.
fn pelton(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
    let Output {
        status,
        stdout,
        stderr,
    } = command.args(args).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

const RUN: [&str; 9] = [
    "flights",
    "--checkpoints",
    "state",
    "--interval",
    "5ms",
    "--out",
    "out",
    "--shards",
    "2",
];

fn lines(folder: &Path) -> usize {
    let parts = std::fs::read_dir(folder.join("out")).unwrap();
    let parts = parts.map(|e| e.unwrap().path());
    let parts = parts.filter(|p| p.extension().is_some_and(|e| e == "jsonl"));
    parts
        .map(|p| std::fs::read_to_string(p).unwrap().lines().count())
        .sum()
}

/// A slow run that has shown something.
fn begun(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
    command.args(RUN).args(["--rate", "5000"]);
    command.current_dir(folder).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    while !folder.join("out").is_dir() || lines(folder) == 0 {
        assert_eq!(child.try_wait().unwrap(), None, "it has ended");
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_stopped_run_goes_on_and_its_folder_can_be_looked_at() {
    let folder = folder();
    let mut child = begun(&folder);
    let (code, _, said) = pelton(&folder, &["state", "inspect", "state"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains(&format!("in use by process {}", child.id())),
        "{said}"
    );
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let stopped = lines(&folder);

    let (code, told, said) = pelton(&folder, &["state", "inspect", "state", "--json"]);
    assert_eq!(code, 0, "{said}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let last = &told["last"];
    assert_eq!(last["job"], "flights");
    assert_eq!(last["partitions"][0]["source"], "flights");
    let offset = last["partitions"][0]["offset"].as_u64().unwrap();
    assert!(offset > 0 && last["partitions"][0]["ended"] == false);
    let find = |uid: &str| {
        let states = last["states"].as_array().unwrap();
        states.iter().find(|s| s["uid"] == uid).unwrap().clone()
    };
    let hours = find("hours");
    let (entries, written) = (&hours["entries"], &hours["entries_in_files"]);
    // Open hours only, M of each shard among them: hours that have fired are gone.
    assert!(entries.as_u64() < written.as_u64(), "{hours}");
    assert!((2..200).contains(&entries.as_u64().unwrap()), "{hours}");
    let watermarks = last["watermarks"].as_array().unwrap();
    let of = |uid| watermarks.iter().filter(move |w| w["uid"] == uid).count();
    assert_eq!((of("scheduled"), of("hours")), (1, 2));

    assert_eq!(pelton(&folder, &["state", "verify", "state"]).0, 0);
    let (code, _, said) = pelton(&folder, &RUN);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("went on from checkpoint"), "{said}");
    assert!(stopped < 9_388 && lines(&folder) == 9_388);
    let (code, told, _) = pelton(&folder, &["state", "inspect", "state"]);
    assert_eq!(code, 0);
    assert!(told.contains(", ended"), "{told}");
    // It is through: nothing is read or shown again.
    assert_eq!(pelton(&folder, &RUN).0, 0);
    assert_eq!(lines(&folder), 9_388);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_killed_run_goes_on() {
    let folder = folder();
    let mut child = begun(&folder);
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, _, said) = pelton(&folder, &RUN);
    assert_eq!(code, 0, "{said}");
    assert_eq!(lines(&folder), 9_388);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn each_damaged_byte_is_told_with_its_file() {
    let folder = folder();
    assert_eq!(pelton(&folder, &RUN).0, 0);
    let (code, told, _) = pelton(&folder, &["state", "inspect", "state", "--json"]);
    assert_eq!(code, 0);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let last = told["checkpoints"].as_array().unwrap().last().unwrap();
    let mut tried = 0;
    for segment in last["segments"].as_array().unwrap() {
        let name = segment["file"].as_str().unwrap();
        let path = folder.join("state").join(name);
        let whole = std::fs::read(&path).unwrap();
        let len = segment["bytes"].as_u64().unwrap() as usize;
        for at in (0..len).step_by(len / 5 + 1) {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            let (code, told, said) = pelton(&folder, &["state", "verify", "state"]);
            assert_eq!(code, 1, "byte {at}: {told}{said}");
            let line = format!("damaged: {name} at offset ");
            let offset = told.split_once(&line).map(|(_, rest)| rest);
            let offset = offset.and_then(|o| o.split(':').next()?.parse::<usize>().ok());
            // The block that the byte is in, or the place in it.
            let offset = offset.unwrap_or_else(|| panic!("byte {at}: {told}"));
            assert!(offset <= at + 32, "byte {at}: {told}");
            tried += 1;
        }
        std::fs::write(&path, &whole[..len - 4096]).unwrap();
        let (code, told, _) = pelton(&folder, &["state", "verify", "state"]);
        assert!(code == 1 && told.contains("are there"), "{told}");
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(tried > 5);
    assert_eq!(pelton(&folder, &["state", "verify", "state"]).0, 0);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn folders_without_checkpoints_are_refused_and_left_alone() {
    let folder = folder();
    std::fs::create_dir(folder.join("empty")).unwrap();
    std::fs::create_dir(folder.join("other")).unwrap();
    std::fs::write(folder.join("other/letter.txt"), "dear").unwrap();
    for (name, expected) in [
        ("empty", "is empty: no job has taken a checkpoint here yet"),
        ("other", "it holds no checkpoints"),
        ("absent", "cannot be read"),
    ] {
        for what in ["inspect", "verify"] {
            let (code, told, said) = pelton(&folder, &["state", what, name]);
            assert_eq!((code, told.as_str()), (2, ""), "{said}");
            assert!(
                said.contains("PLT-0110") && said.contains(expected),
                "{said}"
            );
        }
    }
    assert_eq!(std::fs::read_dir(folder.join("empty")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(folder.join("other")).unwrap().count(), 1);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let folder = folder();
    for wrong in [
        &["flights", "--checkpoints", "s"][..],
        &["flights", "--out", "o"],
        &["flights", "--interval", "1s"],
        &["flights", "--checkpoints", "s", "--out", "o", "--json"],
        &["flights", "--checkpoints", "s", "--out", "o", "--all"],
        &["flights", "--checkpoints", "s", "--out", "s"],
        &["flights", "--checkpoints", "s", "--out", "o", "--late", "o"],
        &[
            "flights",
            "--checkpoints",
            "s",
            "--out",
            "o",
            "--interval",
            "10us",
        ],
        &[
            "flights",
            "--checkpoints",
            "s",
            "--out",
            "o",
            "--interval",
            "10",
        ],
        &["flights", "--rate", "0"],
    ] {
        let (code, _, said) = pelton(&folder, wrong);
        assert_eq!(code, 2, "{wrong:?}: {said}");
    }
    assert_eq!(
        std::fs::read_dir(&folder).unwrap().count(),
        0,
        "nothing was made"
    );
    std::fs::remove_dir_all(folder).unwrap();
}
