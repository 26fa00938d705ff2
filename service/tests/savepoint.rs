//! `pelton flights --savepoint` and `--from` as a user runs them.

#![cfg(unix)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Rows of January 2013.
const ROWS: usize = 9_388;

/// What a run in several lives says as one that nobody interrupted does.
const COUNTS: &str = "27,004 records in, 9,388 results out, 1,078 late, 0 malformed";

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("savepoint-{}-{number}", std::process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
        command.args(args.split(' ')).current_dir(&self.0);
        command
    }

    /// Code, stdout and stderr.
    fn pelton(&self, args: &str) -> (i32, String, String) {
        let out = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            out.status.code().unwrap_or(-1),
            text(out.stdout),
            text(out.stderr),
        )
    }

    /// All lines of a folder of parts, sorted.
    fn lines(&self, out: &str) -> Vec<String> {
        let parts = std::fs::read_dir(self.0.join(out)).into_iter().flatten();
        let parts = parts.map(|e| e.unwrap().path());
        let parts = parts.filter(|p| p.extension().is_some_and(|e| e == "jsonl"));
        let texts = parts.map(|p| std::fs::read_to_string(p).unwrap());
        let mut lines: Vec<String> = texts
            .flat_map(|t| t.lines().map(String::from).collect::<Vec<_>>())
            .collect();
        lines.sort_unstable();
        lines
    }

    /// A slow run that is stopped once it has shown something; what it said.
    fn stopped(&self) -> String {
        let mut command = self.command(
            "flights --checkpoints state --interval 5ms --out out --shards 2 --rate 5000 --savepoint saved",
        );
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        while self.lines("out").is_empty() {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
        said
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn another_run_goes_on_from_the_savepoint_of_a_stopped_one() {
    let folder = Folder::new();
    let said = folder.stopped();
    assert!(
        said.contains("savepoint of checkpoint") && said.contains("--from saved"),
        "{said}"
    );
    let begun = folder.lines("out");
    assert!(begun.len() < ROWS);

    let (code, told, said) = folder.pelton("state inspect saved --json");
    assert_eq!(code, 0, "{said}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["last"]["job"], "flights");
    assert_eq!(told["checkpoints"].as_array().unwrap().len(), 1);
    let (code, _, said) = folder.pelton("state verify saved");
    assert_eq!(code, 0, "{said}");

    // Other shards; from the savepoint, and from the folder that the stopped run had: it is the same epoch.
    for (from, name) in [("saved", "a"), ("state", "b")] {
        let (code, _, said) = folder.pelton(&format!(
            "flights --checkpoints state-{name} --out out-{name} --shards 3 --from {from}"
        ));
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("went on from checkpoint"), "{said}");
        // It counts on, and gives no account of results that another run has.
        assert!(
            said.contains(COUNTS) && !said.contains("accounted"),
            "{said}"
        );
        let rest = folder.lines(&format!("out-{name}"));
        assert_eq!(begun.len() + rest.len(), ROWS, "--from {from}");
        // Named again, it does not count: the run has checkpoints of its own, and is through.
        let again = format!("flights --checkpoints state-{name} --out out-{name} --from {from}");
        let (code, _, said) = folder.pelton(&again);
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains(COUNTS) && !said.contains("accounted"),
            "{said}"
        );
        assert_eq!(folder.lines(&format!("out-{name}")), rest);
    }
    assert_eq!(folder.lines("out"), begun, "what was there is as it was");
    let (code, _, said) = folder.pelton("flights --checkpoints state --out out");
    assert_eq!(code, 0, "{said}");
    assert_eq!(folder.lines("out").len(), ROWS);
    assert!(said.contains(COUNTS), "{said}");
    assert!(
        said.contains("every record is accounted for: 27,004 in = 25,926 in windows + 1,078 late + 0 malformed"),
        "{said}"
    );
}

#[test]
fn a_run_that_nobody_stops_takes_none() {
    let folder = Folder::new();
    let (code, _, said) = folder.pelton("flights --checkpoints state --out out --savepoint saved");
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("no savepoint was taken: nothing stopped the run"),
        "{said}"
    );
    assert!(!folder.0.join("saved").exists());
}

#[test]
fn what_cannot_be_started_from_is_said() {
    let folder = Folder::new();
    folder.stopped();
    let run = "flights --checkpoints new --out new-out";
    let refused = |args: &str, expected_code: i32, expected: &[&str]| {
        let (code, _, said) = folder.pelton(args);
        assert_eq!(code, expected_code, "{args}: {said}");
        for text in expected {
            assert!(said.contains(text), "{args}: {said}");
        }
        assert_eq!(folder.lines("new-out"), Vec::<String>::new(), "{args}");
    };
    refused("flights --from saved", 2, &["--checkpoints"]);
    refused("flights --savepoint other", 2, &["--checkpoints"]);
    refused(&format!("{run} --allow-dropped hours/open"), 2, &["--from"]);
    refused(
        &format!("{run} --from nowhere"),
        2,
        &["--from nowhere cannot be read", "name a savepoint"],
    );
    refused(&format!("{run} --from new"), 2, &["give another path"]);
    refused(
        &format!("{run} --savepoint saved"),
        2,
        &["--savepoint saved is not empty"],
    );
    refused(
        &format!("{run} --from out"),
        1,
        &["neither a savepoint that was finished nor a checkpoint"],
    );
    // The error says what there is to drop.
    refused(
        &format!("{run} --from saved --allow-dropped hours/none"),
        1,
        &[
            "'hours/none' is allowed to be dropped and is no state of it",
            "flights/",
        ],
    );
    let saved = folder.0.join("saved/savepoint");
    let whole = std::fs::read(&saved).unwrap();
    let mut newer = whole.clone();
    for record in newer.chunks_mut(whole.len() / 2) {
        record[8..12].copy_from_slice(&9u32.to_le_bytes());
        let body = u32::from_le_bytes(record[12..16].try_into().unwrap()) as usize;
        // The checksum lies inside what it guards.
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..24]), &record[28..32 + body]);
        record[24..28].copy_from_slice(&crc.to_le_bytes());
    }
    std::fs::write(&saved, &newer).unwrap();
    refused(
        &format!("{run} --from saved"),
        1,
        &[
            "PLT-0503",
            "savepoint format 9 is newer than this build reads",
        ],
    );
    for what in ["inspect", "verify"] {
        let (code, _, said) = folder.pelton(&format!("state {what} saved"));
        assert!(code == 2 && said.contains("PLT-0503"), "{code}: {said}");
    }
    let mut damaged = whole.clone();
    for copy in [0, whole.len() / 2] {
        damaged[copy + 100] ^= 1;
    }
    std::fs::write(&saved, &damaged).unwrap();
    refused(&format!("{run} --from saved"), 1, &["PLT-0504"]);
    let (code, told, _) = folder.pelton("state verify saved");
    assert!(code == 1 && told.contains("damaged: savepoint"), "{told}");
    // One damaged copy is no matter.
    damaged[whole.len() / 2..].copy_from_slice(&whole[whole.len() / 2..]);
    std::fs::write(&saved, &damaged).unwrap();
    let (code, _, said) = folder.pelton(&format!("{run} --from saved"));
    assert_eq!(code, 0, "{said}");
}

/// Who reads the results may take files away: that is no fault, and the run that finds it says what it cannot say.
#[test]
fn results_that_were_taken_away_leave_a_run_without_its_account() {
    let folder = Folder::new();
    let run = "flights --checkpoints state --out out";
    let (code, _, said) = folder.pelton(run);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("every record is accounted for"), "{said}");
    let mut parts = std::fs::read_dir(folder.0.join("out")).unwrap();
    let part = parts.find_map(|part| {
        let path = part.unwrap().path();
        path.extension()
            .is_some_and(|e| e == "jsonl")
            .then_some(path)
    });
    std::fs::remove_file(part.unwrap()).unwrap();
    let (code, _, said) = folder.pelton(run);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("some have been taken away"), "{said}");
    assert!(!said.contains("accounted for"), "{said}");
}
