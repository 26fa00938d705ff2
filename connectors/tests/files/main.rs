//! Files as sources: what they hold, where it lies, and everything that may be wrong with them.

#![cfg(feature = "files")]

mod event_time;
mod resume;
mod sequence;

use flate2::Compression;
use flate2::write::GzEncoder;
use pelton::testing::{self, Sizes, Stepper};
use pelton::{
    BuildError, Config, Driver, EventTime, Job, JobError, Runtime, Spans, Tumbling, Watermarks,
};
use pelton_connectors::files::{self, Files, Format, OnError};
use serde::Deserialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    id: u32,
    #[serde(default)]
    name: String,
}

fn row(id: u32, name: &str) -> Row {
    Row {
        id,
        name: name.into(),
    }
}

/// A new file with this content; the folder is cargo's for tests.
fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "files-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What a run of a source gave: records in order of arrival, dead letters as text, and how it ended.
#[derive(Debug)]
struct Ran<T> {
    rows: Vec<T>,
    dead: Vec<String>,
    payloads: Vec<Vec<u8>>,
    end: Result<(), JobError>,
    records_in: u64,
    malformed: u64,
}

fn job<T: Clone + Send + 'static, F: Format<T>>(
    source: Files<T, F>,
) -> (
    Job,
    testing::Collected<T>,
    testing::Collected<pelton::push::DeadLetter>,
) {
    let (rows, sink) = testing::collect();
    let (dead, letters) = testing::collect();
    let job = Job::new("files");
    job.source(source).sink(sink);
    job.dead_letters_to(letters);
    (job, rows, dead)
}

fn run<T: Clone + Send + 'static, F: Format<T>>(source: Files<T, F>) -> Ran<T> {
    run_on(source, 1)
}

fn run_on<T: Clone + Send + 'static, F: Format<T>>(source: Files<T, F>, shards: usize) -> Ran<T> {
    let (job, rows, dead) = job(source);
    let mut stepper = Stepper::new(&job, shards).unwrap();
    let end = stepper.run();
    let counters = stepper.counters();
    let letters = dead.take();
    Ran {
        rows: rows.take(),
        dead: letters.iter().map(ToString::to_string).collect(),
        payloads: letters.into_iter().map(|l| l.payload).collect(),
        end,
        records_in: counters.records_in,
        malformed: counters.malformed,
    }
}

fn refused<T: Clone + Send + 'static, F: Format<T>>(source: Files<T, F>) -> String {
    let (job, ..) = job(source);
    let e = Stepper::new(&job, 1).unwrap_err();
    assert!(matches!(e, BuildError::Source { .. }), "{e}");
    e.to_string()
}

#[test]
fn json_lines_become_records() {
    let content = "{\"id\":1,\"name\":\"a\"}\r\n\n  \n{\"id\":2}\n{\"id\":3,\"more\":[1,{}]}";
    let expected = vec![row(1, "a"), row(2, ""), row(3, "")];
    for bytes in [content.as_bytes().to_vec(), gzip(content.as_bytes())] {
        for block in [1, 2, 7, 1 << 18] {
            let path = file("rows", &bytes);
            let ran = run(files::json::<Row>([&path]).block_bytes(block));
            assert_eq!(ran.end, Ok(()));
            assert_eq!(ran.rows, expected, "blocks of {block}");
            assert_eq!((ran.records_in, ran.malformed), (3, 0));
        }
    }
}

#[test]
fn a_mark_at_the_beginning_is_no_data() {
    let path = file("rows.jsonl", "\u{feff}{\"id\":1}\nx\n");
    let ran = run(files::json::<Row>([&path]));
    assert_eq!(ran.rows, [row(1, "")]);
    assert!(
        ran.dead[0].contains(":2 (offset 12): expected value, column 1"),
        "{:?}",
        ran.dead
    );
    let path = file("rows.csv", "\u{feff}id,name\n1,a\n");
    assert_eq!(run(files::csv::<Row>([&path])).rows, [row(1, "a")]);
    // Ranges shorter than the mark.
    for every in 1..6 {
        let path = file("rows.jsonl", "\u{feff}{\"id\":1}\n{\"id\":2}\n");
        let ran = run(files::json::<Row>([&path]).split_every(every));
        assert_eq!(ran.rows.len(), 2, "ranges of {every}");
    }
}

#[test]
fn malformed_lines_are_told_with_file_line_offset_and_reason() {
    let long = "x".repeat(50);
    let mut content = b"{\"id\":1}\n{\"id\":\n\n{\"id\":2}x\n{\"id\":-1}\n".to_vec();
    content.extend(b"{\"id\":3,\"name\":\"\xff\"}\n");
    content.extend(format!("{long}\n{{\"id\":4}}\n{{\"name\":\"n\"}}").bytes());
    let path = file("rows.jsonl", &content);
    let at = path.display();
    let ran = run(files::json::<Row>([&path]).line_max(40).block_bytes(11));
    assert_eq!(ran.rows, [row(1, ""), row(4, "")]);
    assert_eq!(
        ran.dead,
        [
            format!("json: {at}:2 (offset 9): EOF while parsing a value, column 6"),
            format!("json: {at}:4 (offset 17): trailing characters, column 9"),
            format!(
                "json: {at}:5 (offset 27): invalid value: integer `-1`, expected u32, column 8"
            ),
            format!("json: {at}:6 (offset 37): invalid UTF-8, column 17"),
            format!("json: {at}:7 (offset 57): the line is longer than 40 bytes"),
            format!("json: {at}:9 (offset 117): missing field `id`, column 12"),
        ]
    );
    assert_eq!(ran.payloads[0], b"{\"id\":");
    assert_eq!(ran.payloads[4], long.as_bytes()[..40]);
    assert_eq!((ran.records_in, ran.malformed), (8, 6));

    // The same text where the job is to stop.
    let ran_first = run(files::json::<Row>([&path]).on_error(OnError::Fail));
    assert_eq!(ran_first.rows, [row(1, "")]);
    let error = ran_first.end.unwrap_err();
    assert_eq!(error.code(), "PLT-0103");
    assert!(error.to_string().contains(&ran.dead[0]), "{error}");
}

#[test]
fn malformed_csv_names_the_column() {
    let content = "id,name\n1,a\nx,b\n2\n3,c,d\n4,\"e\n\"\"f\"\n5,g\"h\n";
    let path = file("rows.csv", content);
    let at = path.display();
    let ran = run(files::csv::<Row>([&path]).block_bytes(3));
    assert_eq!(ran.rows, [row(1, "a"), row(4, "e\n\"f"), row(5, "g\"h")]);
    assert_eq!(
        ran.dead,
        [
            format!("csv: {at}:3 (offset 12): column id: invalid digit found in string"),
            format!("csv: {at}:4 (offset 16): 1 fields where the header names 2"),
            format!("csv: {at}:5 (offset 18): 3 fields where the header names 2"),
        ]
    );
    // The line after a record of two lines has its own number.
    let path = file("rows.csv", "id,name\n1,\"a\nb\"\nx,y");
    let ran = run(files::csv::<Row>([&path]));
    assert!(ran.dead[0].contains(":4 (offset 16): "), "{:?}", ran.dead);
}

#[test]
fn csv_goes_by_the_header_unless_there_is_none() {
    let swapped = file("rows.csv", "\nname;id\na;1\n\n\"b;c\";2");
    let ran = run(files::csv::<Row>([&swapped]).delimiter(b';'));
    assert_eq!(ran.rows, [row(1, "a"), row(2, "b;c")]);

    let bare = file("rows.csv", "1,a\n2,\n");
    let ran = run(files::csv::<(u32, Option<String>)>([&bare]).without_header());
    assert_eq!(ran.rows, [(1, Some("a".to_string())), (2, None)]);
    let ran = run(files::csv::<(u32, u32)>([&bare]).without_header());
    assert!(ran.dead[0].contains(":1 (offset 0): field 2: "), "{ran:?}");

    for (content, rows) in [
        ("", 0),
        ("id,name", 0),
        ("id,name\n", 0),
        ("id,name\n1,a", 1),
    ] {
        let path = file("rows.csv", content);
        assert_eq!(run(files::csv::<Row>([&path])).rows.len(), rows);
    }
}

#[test]
fn an_open_quote_does_not_swallow_the_file() {
    let content = "id,name\n1,\"a\n2,b\n3,c\n";
    let path = file("rows.csv", content);
    let ran = run(files::csv::<Row>([&path]));
    assert_eq!(ran.rows, [row(2, "b"), row(3, "c")], "{ran:?}");
    assert!(
        ran.dead[0].ends_with(":2 (offset 8): a quoted field is not closed"),
        "{:?}",
        ran.dead
    );
    let path = file("rows.csv", "id,\"name\n1,a\n");
    assert!(
        refused(files::csv::<Row>([&path])).contains("the header: a quoted field is not closed")
    );
    // In a split file a quoted field cannot span lines, and says so.
    let path = file("rows.csv", "id,name\n1,\"a\nb\"\n2,c\n");
    let ran = run(files::csv::<Row>([&path]).split_every(1000));
    assert_eq!(ran.rows, [row(2, "c")]);
    assert_eq!(ran.dead.len(), 2);
    // And the line after it is not touched by it.
    let path = file("rows.csv", "id,name\n1,\"a\n2,b\n3,c\n");
    let ran = run(files::csv::<Row>([&path]).split_every(1000));
    assert_eq!(ran.rows, [row(2, "b"), row(3, "c")]);
}

#[test]
fn gzip_is_read_member_after_member() {
    let mut bytes = gzip(b"{\"id\":1}\n{\"id\"");
    bytes.extend(gzip(b":2}\n"));
    bytes.extend(gzip(b""));
    bytes.extend(gzip(b"{\"id\":3}\nx"));
    let path = file("rows.jsonl.gz", &bytes);
    // A gzip file is one partition however it is to be split.
    let ran = run(files::json::<Row>([&path]).split_every(5));
    assert_eq!(ran.end, Ok(()));
    assert_eq!(ran.rows, [row(1, ""), row(2, ""), row(3, "")]);
    assert!(ran.dead[0].contains(":4 (offset 27): "), "{:?}", ran.dead);
}

#[test]
fn zeros_behind_gzip_are_padding() {
    for zeros in [1, 2, 3, 511, 300_000] {
        let padded = [gzip(b"{\"id\":1}\n{\"id\":2}"), vec![0; zeros]].concat();
        let path = file("rows.jsonl.gz", padded);
        let last = file("last.jsonl", "{\"id\":3}\n");
        for block in [1, 7, 1 << 18] {
            let ran = run(files::json::<Row>([&path, &last])
                .in_sequence()
                .block_bytes(block));
            assert_eq!(ran.end, Ok(()), "{zeros} zeros");
            assert_eq!(ran.rows, [row(1, ""), row(2, ""), row(3, "")]);
            assert_eq!((ran.records_in, ran.malformed), (3, 0));
        }
    }
    // Where nothing, or a header only, stands before them.
    let path = file("none.jsonl.gz", [gzip(b""), vec![0; 9]].concat());
    assert_eq!(run(files::json::<Row>([&path])).end, Ok(()));
    let path = file("none.csv.gz", [gzip(b"id,name"), vec![0; 9]].concat());
    assert_eq!(run(files::csv::<Row>([&path])).end, Ok(()));
}

#[test]
fn other_bytes_behind_gzip_are_one_malformed_record() {
    let data = gzip(b"{\"id\":1}\n{\"id\":2}");
    let more = gzip(b"{\"id\":9}\n");
    for (padding, rest) in [
        (0, b"\x1f".to_vec()),
        (0, b"\x1f\x8c more".to_vec()),
        (0, b"garbage".to_vec()),
        (3, b"garbage\0\0".to_vec()),
        // gzip does not look behind padding either; here it is told at least.
        (3, more),
    ] {
        let bytes = [&data[..], &vec![0; padding], &rest].concat();
        let path = file("rows.jsonl.gz", bytes);
        let reason = format!(
            "behind the gzip data, from byte {} of the file on, stands what is neither gzip nor zeros",
            data.len() + padding
        );
        for block in [1, 7, 1 << 18] {
            let ran = run(files::json::<Row>([&path]).block_bytes(block));
            assert_eq!(ran.end, Ok(()));
            assert_eq!(ran.rows, [row(1, ""), row(2, "")]);
            assert_eq!((ran.records_in, ran.malformed), (3, 1));
            let letter = format!("json: {} (offset 17): {reason}", path.display());
            assert_eq!(ran.dead, [letter]);
            assert_eq!(ran.payloads, [rest.as_slice()]);
        }
        // Where malformed records stop a job, so does this.
        let end = run(files::json::<Row>([&path]).on_error(OnError::Fail)).end;
        let error = end.unwrap_err();
        assert_eq!(error.code(), "PLT-0103");
        assert!(error.to_string().contains(&reason), "{error}");
    }
    // It may stand where the head of a file is looked for, too.
    for data in [gzip(b""), gzip(b"id")] {
        let path = file("rows.csv.gz", [&data[..], b"x"].concat());
        let ran = run(files::csv::<Row>([&path]));
        assert_eq!((ran.end, ran.malformed), (Ok(()), 1));
    }
}

#[test]
fn damaged_gzip_is_told_after_what_could_be_read() {
    let rows: String = (0..5_000).map(|i| format!("{{\"id\":{i}}}\n")).collect();
    let whole = gzip(rows.as_bytes());

    let path = file("cut.jsonl.gz", &whole[..whole.len() / 2]);
    let ran = run(files::json::<Row>([&path]).block_bytes(1000));
    assert!(ran.rows.len() > 1000 && ran.rows.len() < 5_000);
    let text = ran.end.unwrap_err().to_string();
    assert!(
        text.contains("PLT-0104") && text.contains("cut.jsonl.gz"),
        "{text}"
    );
    assert!(text.contains("cut short; fetch it again"), "{text}");

    let mut flipped = whole.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 0x55; // the checksum
    let path = file("rotten.jsonl.gz", &flipped);
    let ran = run(files::json::<Row>([&path]));
    assert_eq!(ran.rows.len(), 5_000);
    let text = ran.end.unwrap_err().to_string();
    assert!(
        text.contains("damaged gzip data") && text.contains("gzip -t"),
        "{text}"
    );

    let path = file("header.jsonl.gz", &whole[..5]);
    let text = refused(files::json::<Row>([&path]));
    assert!(
        text.contains("header.jsonl.gz: the gzip data break off"),
        "{text}"
    );
    let path = file("plain.jsonl.gz", "{\"id\":1}\n");
    let text = refused(files::json::<Row>([&path]));
    assert!(
        text.contains("plain.jsonl.gz is named .gz and is not gzip: it begins with [7b, 22]"),
        "{text}"
    );
    let path = file("empty.jsonl.gz", "");
    let text = refused(files::json::<Row>([&path]));
    assert!(text.contains("it is empty"), "{text}");
}

#[test]
fn what_cannot_be_opened_ends_the_build() {
    let path = file("rows.jsonl", "");
    let folder = path.parent().unwrap();
    let text = refused(files::json::<Row>([folder]));
    assert!(text.contains("is a folder; name the files in it"), "{text}");
    let text = refused(files::json::<Row>([folder.join("none.jsonl")]));
    assert!(
        text.contains("none.jsonl: there is no such file; check the path"),
        "{text}"
    );
    assert!(refused(files::json::<Row>([] as [&str; 0])).contains("no file is named"));
    assert!(refused(files::json::<Row>([&path]).split_every(0)).contains("split_every is 0"));
    assert!(refused(files::json::<Row>([&path]).block_bytes(0)).contains("block_bytes is 0"));
    assert!(refused(files::json::<Row>([&path]).line_max(0)).contains("line_max is 0"));
    let big = file("big.jsonl", vec![b'\n'; 5000]);
    assert!(refused(files::json::<Row>([&big]).split_every(1)).contains("5000 partitions"));
    let wide: Vec<u8> = "{\"id\":1}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let wide = file("wide.jsonl", [&[0xff, 0xfe][..], &wide].concat());
    assert!(refused(files::json::<Row>([&wide])).contains("is UTF-16; convert it"));
}

#[test]
fn an_empty_file_has_no_records() {
    let path = file("rows.jsonl", "");
    let ran = run(files::json::<Row>([&path]));
    assert_eq!((ran.end, ran.rows.len(), ran.records_in), (Ok(()), 0, 0));
    let path = file("rows.jsonl.gz", gzip(b""));
    let ran = run(files::json::<Row>([&path]));
    assert_eq!((ran.end, ran.rows.len(), ran.records_in), (Ok(()), 0, 0));
}

#[test]
fn ranges_hold_each_record_once_whatever_the_shards() {
    let content: String = (0..200)
        .map(|i| format!("{{\"id\":{i},\"name\":\"{}\"}}\n", "n".repeat(i % 17)))
        .collect();
    let csv: String = std::iter::once("id,name\n".to_string())
        .chain((0..200).map(|i| format!("{i},{}\n", "n".repeat(i % 17))))
        .collect();
    let (json, csv) = (file("rows.jsonl", &content), file("rows.csv", &csv));
    for every in [1, 2, 7, 8, 9, 30, 1000, 100_000] {
        if content.len() as u64 / every > 4000 {
            continue;
        }
        for shards in [1, 3] {
            let mut ran = run_on(
                files::json::<Row>([&json])
                    .split_every(every)
                    .block_bytes(64),
                shards,
            );
            ran.rows.sort();
            assert_eq!(ran.end, Ok(()));
            let ids: Vec<u32> = ran.rows.iter().map(|r| r.id).collect();
            assert_eq!(ids, (0..200).collect::<Vec<_>>(), "ranges of {every}");
            let mut ran = run_on(files::csv::<Row>([&csv]).split_every(every), shards);
            ran.rows.sort();
            let ids: Vec<u32> = ran.rows.iter().map(|r| r.id).collect();
            assert_eq!(ids, (0..200).collect::<Vec<_>>(), "csv, ranges of {every}");
        }
    }
}

#[test]
fn a_line_number_is_given_only_where_it_is_known() {
    let path = file("rows.jsonl", "{\"id\":1}\nx\n{\"id\":2}\ny\n");
    let at = path.display();
    let ran = run(files::json::<Row>([&path]).split_every(15));
    assert_eq!(ran.rows.len(), 2);
    assert_eq!(
        ran.dead,
        [
            format!("json: {at}:2 (offset 9): expected value, column 1"),
            format!("json: {at} (offset 20): expected value, column 1"),
        ]
    );
}

/// States are above the budget when the last record has come: the end, which comes in a block of its own, frees them.
#[cfg(unix)]
#[test]
fn a_file_that_is_read_out_ends_above_the_budget() {
    let path = file("held", "").with_file_name("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let (close, closed) = std::sync::mpsc::channel::<()>();
    let writes = {
        let path = path.clone();
        std::thread::spawn(move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            // At once: none may come when the job is held already.
            let lines: String = (0..100).map(|id| format!("{{\"id\":{id}}}\n")).collect();
            pipe.write_all(lines.as_bytes()).unwrap();
            // Until the job is held, or has gone.
            let _ = closed.recv();
        })
    };
    let (rows, sink) = testing::collect();
    let job = Job::new("held");
    job.max_state_bytes(1);
    job.source(files::json::<Row>([&path]))
        .event_time(|_| EventTime::from_seconds(1), Watermarks::monotonous())
        .key_by(|row| row.id)
        .window(Tumbling::of(1.hours()))
        .aggregate(|a| a.count())
        .map(|w| w.key)
        .sink(sink);
    let runtime = Runtime::start(Config::default().shards(1).driver(Driver::Threads)).unwrap();
    let handle = runtime.submit(&job).unwrap();
    let mut close = Some(close);
    let every = std::time::Duration::from_millis(1);
    let report = handle.wait_with(every, |job| {
        let all = job.counters().records_in >= 100;
        if all && job.held_for().is_some() {
            close = None;
        }
    });
    report.unwrap();
    assert!(close.is_none(), "it was held");
    writes.join().unwrap();
    let mut ids = rows.take();
    ids.sort_unstable();
    assert_eq!(ids, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_step_is_bounded_in_records_and_bytes() {
    let name = "n".repeat(1000);
    let content: String = (0..500)
        .map(|i| format!("{{\"id\":{i},\"name\":\"{name}\"}}\n"))
        .collect();
    let path = file("rows.jsonl", &content);
    for (batch_size, most) in [(10, 10), (1024, 66)] {
        let (job, rows, _) = job(files::json::<Row>([&path]));
        let sizes = Sizes {
            batch_size,
            ..Sizes::shards(1)
        };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        let mut before = 0;
        while !stepper.is_done(0) {
            stepper.step(0).unwrap();
            let now = stepper.counters().records_in;
            assert!(now - before <= most, "{} records in a step", now - before);
            before = now;
        }
        assert_eq!(rows.take().len(), 500);
    }
}

#[test]
fn shards_read_files_through_the_helper_thread() {
    let paths: Vec<_> = (0..5u32)
        .map(|f| {
            let content: String = (0..3_000)
                .map(|i| format!("{{\"id\":{}}}\n", f * 3_000 + i))
                .collect();
            match f % 2 {
                0 => file("rows.jsonl", &content),
                _ => file("rows.jsonl.gz", gzip(content.as_bytes())),
            }
        })
        .collect();
    for shards in [1, 2] {
        let (rows, sink) = testing::collect();
        let job = Job::new("files");
        job.source(
            files::json::<Row>(&paths)
                .block_bytes(100)
                .split_every(9_000),
        )
        .event_time(
            |r| EventTime::from_seconds(i64::from(r.id)),
            Watermarks::monotonous(),
        )
        .key_by(|r| r.id)
        .exchange()
        .sink(sink);
        let report = job
            .run(Config::default().shards(shards).driver(Driver::Threads))
            .unwrap();
        assert_eq!(report.counters.records_in, 15_000);
        let mut ids: Vec<u32> = rows.take().into_iter().map(|r| r.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..15_000).collect::<Vec<_>>());
    }
}
