//! `pelton flights` as a user runs it: its numbers against an independent computation, and everything that may be wrong.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const SAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/data/flights-2013-01.jsonl.gz"
);

fn pelton(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pelton"))
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "flights-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn file(name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().into()
}

fn expected(name: &str) -> Vec<String> {
    let path = format!(
        "{}/tests/expected/flights-2013-01-{name}.jsonl.gz",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut lines = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut lines)
        .unwrap();
    lines.lines().map(Into::into).collect()
}

/// A line without its `firing`, and that.
fn split_firing(line: &str) -> (String, String) {
    let (rest, firing) = line.rsplit_once(",\"firing\":").unwrap();
    (format!("{rest}}}"), firing.trim_end_matches('}').into())
}

/// The part of a row that says which it is.
fn key(line: &str) -> String {
    line.split_once(",\"departures\"").unwrap().0.into()
}

/// Runs the sample on 1, 2 and 3 shards, and on threads where the machine has a better driver, and gives each run's
/// lines of JSON and its summary.
fn on_shards(options: &[&str], mut check: impl FnMut(Vec<String>, String)) {
    for (shards, driver) in [
        ("1", "auto"),
        ("2", "auto"),
        ("3", "auto"),
        ("2", "threads"),
    ] {
        let mut args = vec!["flights", SAMPLE, "--json", "--shards", shards];
        args.extend(["--driver", driver]);
        args.extend(options);
        let out = pelton(&args);
        let summary = text(&out.stderr);
        assert!(out.status.success(), "{summary}");
        check(text(&out.stdout).lines().map(Into::into).collect(), summary);
    }
}

#[test]
fn without_lateness_the_rows_are_those_of_the_script() {
    let expected = expected("lateness-0");
    on_shards(&[], |lines, summary| {
        let mut rows: Vec<String> = lines
            .iter()
            .map(|l| {
                let (row, firing) = split_firing(l);
                assert_eq!(firing, "\"on_time\"");
                row
            })
            .collect();
        rows.sort();
        assert_eq!(rows, expected);
        assert!(
            summary.contains("27,004 records in, 9,388 results out, 1,078 late, 0 malformed"),
            "{summary}"
        );
        assert!(
            summary.contains("27,004 in = 25,926 in windows + 1,078 late + 0 malformed"),
            "{summary}"
        );
    });
}

#[test]
fn with_lateness_the_last_values_are_those_of_the_script() {
    let expected = expected("lateness-12");
    on_shards(&["--lateness", "12"], |lines, summary| {
        let mut last = BTreeMap::new();
        let mut updates = 0;
        for line in &lines {
            let (row, firing) = split_firing(line);
            updates += usize::from(firing == "\"update\"");
            last.insert(key(&row), row);
        }
        assert!(updates > 100, "{updates} updates");
        let mut rows: Vec<String> = last.into_values().collect();
        rows.sort();
        assert_eq!(rows, expected);
        assert!(
            summary.contains("27,004 in = 27,001 in windows + 3 late + 0 malformed"),
            "{summary}"
        );
    });
}

#[test]
fn with_one_correction_all_rows_are_those_of_the_script() {
    let expected = expected("lateness-12-one-correction");
    on_shards(
        &["--lateness", "12", "--one-correction"],
        |mut lines, summary| {
            lines.sort();
            assert_eq!(lines, expected);
            assert!(
                summary.contains("27,004 in = 27,001 in windows + 3 late + 0 malformed"),
                "{summary}"
            );
        },
    );
}

#[test]
fn the_table_holds_every_row_when_nobody_watches() {
    let out = pelton(&["flights", "--lateness", "12"]);
    assert!(out.status.success());
    let table = text(&out.stdout);
    assert_eq!(table.lines().count(), 1 + expected("lateness-12").len());
    assert!(table.starts_with("hour (UTC)        origin  carrier  departures"));
    let width = table.lines().next().unwrap().len();
    assert!(table.lines().all(|l| l.len() == width));
}

#[test]
fn late_flights_go_to_their_file() {
    let path = file("late.jsonl", "what was there before\n");
    let out = pelton(&["flights", "--json", "--late", &path]);
    assert!(out.status.success());
    let late = std::fs::read_to_string(&path).unwrap();
    assert_eq!(late.lines().count(), 1078);

    // Each is a flight of the input, with the fields that the job reads.
    let mut input = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(SAMPLE).unwrap())
        .read_to_string(&mut input)
        .unwrap();
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for line in input.lines() {
        let mut flight: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        for unread in ["tailnum", "arr_delay_min", "air_time_min", "distance_mi"] {
            flight.remove(unread).unwrap();
        }
        *left
            .entry(serde_json::to_string(&flight).unwrap())
            .or_default() += 1;
    }
    for line in late.lines() {
        let flight: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        let times = left.get_mut(&serde_json::to_string(&flight).unwrap());
        let times = times.unwrap_or_else(|| panic!("not in the input: {line}"));
        *times = times
            .checked_sub(1)
            .expect("no more often than in the input");
    }

    // And the file is input in turn.
    let again = pelton(&["flights", "--json", "--lateness", "1000", &path]);
    let summary = text(&again.stderr);
    assert!(
        summary.contains("1,078 in = 1,078 in windows + 0 late + 0 malformed"),
        "{summary}"
    );
}

#[test]
fn the_summary_says_where_time_went() {
    let summary = text(&pelton(&["flights", "--json"]).stderr);
    let causes = [
        "waiting in a ring",
        "in an operator",
        "held by a window",
        "source to sink",
    ];
    for cause in causes {
        let line = format!("latency, {cause}: p50 ");
        let line = summary.lines().find(|l| l.starts_with(&line));
        let line = line.unwrap_or_else(|| panic!("nothing of {cause}: {summary}"));
        for part in [", p99 ", ", p99.9 ", ", max "] {
            assert!(line.contains(part), "{line}");
        }
    }
    // A file does not say when its lines arrived.
    assert!(!summary.contains("waiting in the source"), "{summary}");
}

const GOOD: &str = r#"{"carrier":"UA","flight":1,"origin":"EWR","dest":"IAH","scheduled":"2013-01-01T10:15:00Z","dep_delay_min":2,"cancelled":false}"#;

#[test]
fn lines_that_are_no_flights_are_counted_and_kept() {
    let wrong = [
        "{\"carrier\":".to_string(),
        GOOD.replace("10:15:00Z", "25:15:00Z"),
        GOOD.replace("\"UA\"", "\"United\""),
        GOOD.replace(":2,", ":null,"),
    ];
    let path = file(
        "some.jsonl",
        format!("{GOOD}\n{}\n{GOOD}", wrong.join("\n")),
    );
    let letters = file("letters", "");
    let out = pelton(&["flights", &path, "--json", "--dead-letters", &letters]);
    let summary = text(&out.stderr);
    assert!(out.status.success(), "{summary}");
    assert!(
        summary.contains("6 in = 2 in windows + 0 late + 4 malformed"),
        "{summary}"
    );
    assert_eq!(
        text(&out.stdout),
        "{\"hour\":\"2013-01-01T10:00:00Z\",\"origin\":\"EWR\",\"carrier\":\"UA\",\"departures\":2,\"cancelled\":0,\"mean_delay_min\":2.0,\"worst_delay_min\":2,\"firing\":\"on_time\"}\n"
    );
    let letters = std::fs::read_to_string(&letters).unwrap();
    let letters: Vec<&str> = letters.lines().collect();
    assert_eq!(letters.len(), 4);
    assert_eq!(
        letters[0],
        format!(
            "json: {path}:2 (offset {}): EOF while parsing a value, column 11",
            GOOD.len() + 1
        )
    );
    assert!(
        letters[1].contains(":3 (offset")
            && letters[1].contains("\"2013-01-01T25:15:00Z\" is not a time of RFC 3339"),
        "{}",
        letters[1]
    );
    assert!(
        letters[2].contains("expected a code of 1 to 4 letters"),
        "{}",
        letters[2]
    );
    assert!(
        letters[3].contains("a flight that left has no departure delay"),
        "{}",
        letters[3]
    );

    // Without a file the first of them are shown.
    let out = pelton(&["flights", &path, "--json"]);
    assert!(text(&out.stderr).contains(&format!("pelton: malformed: {}", letters[3])));

    // And they stop the job if they are to, with the same text.
    let out = pelton(&["flights", &path, "--on-error", "fail"]);
    assert_eq!(out.status.code(), Some(1));
    let error = text(&out.stderr);
    assert!(
        error.contains("PLT-0103") && error.contains(letters[0]),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
}

/// The command fails with this code and one line that holds all of `parts`.
fn refuses(args: &[&str], code: i32, parts: &[&str]) {
    let out = pelton(args);
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {error}");
    for part in parts {
        assert!(error.contains(part), "{args:?}: {error}");
    }
    if code == 1 {
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("pelton: [PLT-"), "{error}");
    }
    assert!(out.stdout.is_empty());
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    refuses(&["flights", "--lateness", "-1"], 2, &["--lateness", "-1"]);
    refuses(
        &["flights", "--lateness", "much"],
        2,
        &["invalid value 'much'"],
    );
    // More than an operator can compute with.
    for hours in ["320255974", "4294967295", "99999999999999999999"] {
        refuses(
            &["flights", "--lateness", hours],
            2,
            &["--lateness <HOURS>", hours],
        );
    }
    refuses(
        &["flights", "--speed"],
        2,
        &["unexpected argument '--speed'"],
    );
    // The nearest option is named; that it could be passed as a value behind `--` is no help.
    let hint = |option: &str| String::from_utf8(pelton(&["flights", option]).stderr).unwrap();
    assert!(hint("--latenes").contains("a similar argument exists: '--lateness'"));
    for option in ["--latenes", "--nosuch"] {
        let said = hint(option);
        assert!(!said.contains("as a value"), "{said}");
        assert!(said.contains(option), "{said}");
    }
    refuses(&["flights", "--shards", "0"], 2, &["0 is not in 1..=1024"]);
    refuses(
        &["flights", "--cores", "0,0"],
        2,
        &["PLT-0009", "core 0 is named twice"],
    );
    refuses(
        &["flights", "--cores", "9999"],
        2,
        &["PLT-0009", "core 9999"],
    );
    refuses(&["flights", "--on-error", "cry"], 2, &["skip", "fail"]);
    refuses(&["flights", "--one-correction"], 2, &["--lateness <HOURS>"]);
    refuses(
        &["flights", "--one-correction", "--lateness", "0"],
        2,
        &["--one-correction with --lateness 0 has nothing to correct"],
    );
    refuses(&["planes"], 2, &["unrecognized subcommand 'planes'"]);

    refuses(
        &["flights", "/no/such/file"],
        1,
        &["/no/such/file: there is no such file; check the path"],
    );
    let here = folder();
    let here = here.to_str().unwrap();
    refuses(&["flights", here], 1, &["is a folder"]);
    let empty = file("empty.jsonl.gz", "");
    refuses(
        &["flights", &empty],
        1,
        &["named .gz and is not gzip: it is empty"],
    );
    let plain = file("plain.jsonl.gz", GOOD);
    refuses(
        &["flights", &plain],
        1,
        &["plain.jsonl.gz is named .gz and is not gzip"],
    );
    let sample = std::fs::read(SAMPLE).unwrap();
    let cut = file("cut.jsonl.gz", &sample[..100_000]);
    let out = pelton(&["flights", &cut, "--json"]);
    assert_eq!(out.status.code(), Some(1));
    let error = text(&out.stderr);
    assert!(
        error.contains("PLT-0104") && error.contains("cut short; fetch it again"),
        "{error}"
    );
    refuses(
        &["flights", "--late", "/no/such/late"],
        1,
        &["PLT-0008", "/no/such/late: its folder does not exist"],
    );
}

#[test]
fn outputs_that_are_the_input_or_each_other_are_refused_untouched() {
    let folder = folder();
    let input = folder.join("in.jsonl");
    std::fs::write(&input, "not a flight\n").unwrap();
    let input = input.to_str().unwrap();
    let new = folder.join("new");
    let new = new.to_str().unwrap();
    for options in [
        ["--late", input, "--dead-letters", new],
        ["--late", new, "--dead-letters", input],
        ["--late", new, "--dead-letters", new],
    ] {
        let out = pelton(&[&["flights", input], &options[..]].concat());
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{error}");
        assert!(error.contains("are one file"), "{error}");
        assert_eq!(std::fs::read_to_string(input).unwrap(), "not a flight\n");
    }
}

#[test]
fn the_longest_lateness_is_one_that_works() {
    let out = pelton(&["flights", "--lateness", "320255973"]);
    let summary = text(&out.stderr);
    assert!(
        summary.contains("27,004 in = 27,004 in windows + 0 late + 0 malformed"),
        "{summary}"
    );
}

#[test]
fn outputs_stay_as_they_are_if_the_job_does_not_start() {
    let folder = folder();
    let place = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let (kept, new) = (place("kept"), place("new"));
    let (missing, nowhere) = (place("missing"), place("none/out"));
    let no_gzip = file("empty.jsonl.gz", "");
    let before = "what was there before";
    std::fs::write(&kept, before).unwrap();
    for options in [
        [&missing, "--late", &kept, "--dead-letters", &new],
        [&missing, "--late", &new, "--dead-letters", &kept],
        [&no_gzip, "--late", &kept, "--dead-letters", &new],
        [SAMPLE, "--late", &kept, "--dead-letters", &nowhere],
        [SAMPLE, "--late", &nowhere, "--dead-letters", &kept],
        [SAMPLE, "--late", &kept, "--lateness", "4294967295"],
        [SAMPLE, "--dead-letters", &kept, "--cores", "9999"],
    ] {
        let out = pelton(&[&["flights"], &options[..]].concat());
        assert!(!out.status.success(), "{options:?}");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), before);
        assert!(!Path::new(&new).exists(), "{options:?}");
    }
}

#[test]
fn an_empty_file_is_no_error() {
    let empty = file("empty.jsonl", "");
    let out = pelton(&["flights", &empty]);
    assert!(out.status.success());
    assert_eq!(text(&out.stdout).lines().count(), 1);
    assert!(text(&out.stderr).contains("0 in = 0 in windows + 0 late + 0 malformed"));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_ends_the_job() {
    for (options, code) in [(&["--json"][..], "PLT-0105"), (&[][..], "stdout")] {
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_pelton"))
            .args(["flights", SAMPLE])
            .args(options)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{error}");
        assert!(error.contains(code), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// Neither the result nor the exit code depends on whether anybody can be told of it.
#[cfg(target_os = "linux")]
#[test]
fn messages_that_cannot_be_written_change_nothing() {
    let wrong = file("wrong.jsonl", format!("no flight\n{GOOD}\n"));
    for (args, code, lines) in [
        (&["flights", SAMPLE, "--json"][..], 0, 9388),
        // A note where there are fewer cores, the malformed line and the summary.
        (&["flights", &wrong, "--json", "--shards", "9"], 0, 1),
        (&["flights", "/no/such/file"], 1, 0),
        (&["flights", "--cores", "9999"], 2, 0),
        (&["flights", "--speed"], 2, 0),
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let (reader, nobody) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [Stdio::from(full.unwrap()), Stdio::from(nobody)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pelton"));
            let out = command.args(args).stderr(stderr).output().unwrap();
            assert_eq!(out.status.code(), Some(code), "{args:?}");
            assert_eq!(text(&out.stdout).lines().count(), lines, "{args:?}");
        }
    }
}

/// As other filters end that SIGPIPE kills: quietly, with the exit code that a shell gives those.
#[test]
fn a_reader_who_goes_away_ends_the_job_quietly() {
    for options in [&["--json"][..], &[]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pelton"))
            .args(["flights", SAMPLE])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut begun = [0; 10];
        stdout.read_exact(&mut begun).unwrap();
        drop(stdout);
        let out = child.wait_with_output().unwrap();
        let error = text(&out.stderr);
        assert_eq!(out.status.code(), Some(141), "{error}");
        assert_eq!(error, "");
    }
}

/// Only stdout is what a filter is for: late flights that go nowhere are a failure.
#[cfg(target_os = "linux")]
#[test]
fn a_reader_of_late_flights_who_goes_away_is_told_of() {
    let pipe = folder().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || drop(std::fs::File::open(pipe).unwrap())
    });
    // More than the pipe holds.
    let out = pelton(&["flights", "--json", "--late", pipe.to_str().unwrap()]);
    reader.join().unwrap();
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{error}");
    assert!(error.contains("has gone (broken pipe)"), "{error}");
}

#[test]
fn records_come_from_a_pipe_as_well() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pelton"))
        .args(["flights", "/dev/stdin", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{GOOD}").unwrap();
    // Three hours later the first window is over: its result comes although the input goes on.
    writeln!(stdin, "{}", GOOD.replace("T10", "T13")).unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.contains("\"hour\":\"2013-01-01T10:00:00Z\""), "{line}");
    drop(stdin);
    stdout.read_to_string(&mut line).unwrap();
    assert_eq!(line.lines().count(), 2);
    assert!(child.wait().unwrap().success());
}
