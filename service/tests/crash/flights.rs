//! `pelton flights`: January 2013 with some lines that are no flights among it.

use super::Subject;
use super::lives::Draw;
use super::outputs::{last_of_keys, lines, same_last, same_rows};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const SAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/data/flights-2013-01.jsonl.gz"
);

/// The options that say what is computed.
const MODES: [&[&str]; 3] = [
    &[],
    &["--lateness", "12", "--one-correction"],
    &["--lateness", "12"],
];
/// Of these the last value of a key counts.
const NET: usize = 2;

pub struct Flights {
    /// Plain and gzip.
    inputs: [PathBuf; 2],
    expected: Vec<Expected>,
}

/// What an undisturbed run without checkpoints shows.
struct Expected {
    results: Vec<String>,
    late: Vec<String>,
    letters: Vec<String>,
    accounts: Accounts,
}

/// What a summary says of records: how many went in and out, and where each is.
#[derive(Debug, PartialEq)]
struct Accounts {
    read: String,
    results: String,
    fell_aside: String,
    account: String,
}

impl Accounts {
    /// `f.jsonl: 27,032 records in, 9,388 results out, 1,078 late, 28 malformed`, and `every record is accounted for: ..`.
    fn of(said: &str) -> Result<Self, String> {
        let no = || format!("no summary: {said}");
        let (_, first) = said.split_once(".jsonl").ok_or_else(no)?;
        let (_, first) = first.split_once(": ").ok_or_else(no)?;
        let first = first.lines().next().ok_or_else(no)?;
        let (read, rest) = first.split_once(" records in, ").ok_or_else(no)?;
        let (results, aside) = rest.split_once(" results out, ").ok_or_else(no)?;
        let account = said
            .lines()
            .find(|l| l.starts_with("every record is accounted for"));
        Ok(Accounts {
            read: read.into(),
            results: results.into(),
            fell_aside: aside.into(),
            account: account.ok_or_else(no)?.into(),
        })
    }
}

#[derive(Clone)]
pub struct Variant {
    mode: usize,
    input: usize,
    rate: u64,
}

fn pelton() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pelton"))
}

fn texts(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(String::from).collect()
}

/// A line without which firing it is, which is not the same in every run.
fn split(line: &str) -> (String, String) {
    let (key, value) = line.split_once(",\"departures\"").unwrap();
    let (value, _) = value.rsplit_once(",\"firing\":").unwrap();
    (key.into(), value.into())
}

impl Flights {
    pub fn new() -> Self {
        let folder = super::folder("input");
        let mut text = String::new();
        let sample = std::fs::File::open(SAMPLE).unwrap();
        let mut sample = flate2::read::GzDecoder::new(sample);
        sample.read_to_string(&mut text).unwrap();
        let mut input = String::new();
        for (number, line) in text.lines().enumerate() {
            input += line;
            input.push('\n');
            if number % 1_000 == 7 {
                input += &format!("no flight after line {number}\n");
            }
        }
        let inputs = [folder.join("f.jsonl"), folder.join("f.jsonl.gz")];
        std::fs::write(&inputs[0], &input).unwrap();
        let gz = std::fs::File::create(&inputs[1]).unwrap();
        let mut gz = flate2::write::GzEncoder::new(gz, flate2::Compression::fast());
        gz.write_all(input.as_bytes()).unwrap();
        gz.finish().unwrap();
        let expected = (0..MODES.len()).map(|mode| Expected::of(&folder, &inputs[0], mode));
        Flights {
            expected: expected.collect(),
            inputs,
        }
    }
}

impl Drop for Flights {
    fn drop(&mut self) {
        if let Some(folder) = self.inputs[0].parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl Expected {
    fn of(folder: &Path, input: &Path, mode: usize) -> Self {
        let (late, letters) = (folder.join("late"), folder.join("letters"));
        let mut command = pelton();
        command
            .arg("flights")
            .arg(input)
            .args(["--json", "--shards", "1"]);
        command
            .arg("--late")
            .arg(&late)
            .arg("--dead-letters")
            .arg(&letters);
        let out = command.args(MODES[mode]).output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let results = String::from_utf8(out.stdout).unwrap();
        Expected {
            results: results.lines().map(String::from).collect(),
            late: texts(&late),
            letters: texts(&letters),
            accounts: Accounts::of(&String::from_utf8_lossy(&out.stderr)).unwrap(),
        }
    }
}

impl Subject for Flights {
    type Variant = Variant;

    fn name(&self) -> &'static str {
        "flights"
    }

    /// An epoch may take a minute: none is given up.
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

    fn draw(&self, draw: &mut Draw) -> Variant {
        Variant {
            mode: draw.index(MODES.len()),
            input: draw.index(2),
            rate: [20_000, 60_000][draw.index(2)],
        }
    }

    fn command(&self, v: &Variant, folder: &Path, draw: &mut Draw) -> Command {
        let mut command = pelton();
        command
            .arg("flights")
            .arg(&self.inputs[v.input])
            .args(MODES[v.mode]);
        command.arg("--checkpoints").arg(folder.join("checkpoints"));
        command.args(["--interval", ["1ms", "5ms", "20ms"][draw.index(3)]]);
        command.args(["--shards", ["1", "2", "3"][draw.index(3)]]);
        command.args(["--rate", &v.rate.to_string()]);
        for (option, name) in [
            ("--out", "out"),
            ("--late", "late"),
            ("--dead-letters", "letters"),
        ] {
            command.arg(option).arg(folder.join(name));
        }
        command
    }

    fn check(&self, v: &Variant, folder: &Path, said: &str) -> Result<(), String> {
        let expected = &self.expected[v.mode];
        let mut accounts = Accounts::of(said)?;
        if v.mode == NET {
            // How often a result is replaced is not the same in every run.
            accounts.results.clone_from(&expected.accounts.results);
        }
        if accounts != expected.accounts {
            let expected = &expected.accounts;
            return Err(format!("{accounts:?} instead of {expected:?}"));
        }
        let results = lines(&folder.join("out"))?;
        if v.mode == NET {
            let (got, expected) = (
                last_of_keys(&results, split),
                last_of_keys(&expected.results, split),
            );
            same_last("results", &got, &expected)?;
        } else {
            same_rows("results", &results, &expected.results)?;
        }
        same_rows(
            "late flights",
            &lines(&folder.join("late"))?,
            &expected.late,
        )?;
        // A letter names its file, which is another one for gzip.
        let plain = self.inputs[0].display().to_string();
        let mine = self.inputs[v.input].display().to_string();
        let letters = lines(&folder.join("letters"))?;
        let letters: Vec<_> = letters.iter().map(|l| l.replace(&mine, &plain)).collect();
        same_rows("dead letters", &letters, &expected.letters)
    }
}
