//! Lines as sinks: to files and to standard output, in order, whole, and with a clear end when that cannot be.

#![cfg(feature = "files")]

use pelton::testing::{self, Stepper};
use pelton::{
    BuildError, Checkpointing, Config, Driver, EventTime, Job, JobError, Spans, Tumbling,
    Watermarks, sources,
};
use pelton_connectors::lines::{self, Format};
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "lines-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn threads(shards: usize) -> Config {
    Config::default().shards(shards).driver(Driver::Threads)
}

#[derive(Serialize)]
struct Square {
    of: u64,
    is: u64,
}

#[test]
fn files_are_appended_to_or_overwritten() {
    let path = folder().join("out");
    let write = |overwrite: bool| {
        let job = Job::new("squares");
        let sink = lines::file(&path, lines::json());
        job.source(sources::items(1..=2u64))
            .map(|x| Square { of: x, is: x * x })
            .sink(if overwrite { sink.overwrite() } else { sink });
        job.run(threads(1)).unwrap();
        std::fs::read_to_string(&path).unwrap()
    };
    let once = "{\"of\":1,\"is\":1}\n{\"of\":2,\"is\":4}\n";
    assert_eq!(write(false), once);
    assert_eq!(write(false), [once, once].concat());
    assert_eq!(write(true), once);
    std::fs::write(&path, "half a line").unwrap();
    assert_eq!(write(false), format!("half a line\n{once}"));
}

#[test]
fn lines_of_several_shards_are_whole_and_in_each_shards_order() {
    let path = folder().join("out");
    let job = Job::new("lines");
    job.source(sources::generate("numbers", 60_000, 3, |id| id))
        .sink(lines::file(
            &path,
            lines::text(|n: &u64, line| writeln!(line, "{n} {}", "x".repeat((n % 40) as usize))),
        ));
    job.run(threads(3)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut last = [None; 3];
    let mut count = 0;
    for line in text.lines() {
        let (n, tail) = line.split_once(' ').unwrap();
        let n: u64 = n.parse().unwrap();
        assert_eq!(tail.len() as u64, n % 40);
        assert!(last[(n % 3) as usize] < Some(n));
        last[(n % 3) as usize] = Some(n);
        count += 1;
    }
    assert_eq!(count, 60_000);
}

#[test]
fn the_stepper_writes_inline() {
    let path = folder().join("out");
    let job = Job::new("lines");
    job.source(sources::items(0..3000u64))
        .sink(lines::file(&path, lines::json()));
    let mut stepper = Stepper::new(&job, 2).unwrap();
    stepper.run().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let expected: String = (0..3000).map(|n| format!("{n}\n")).collect();
    assert_eq!(text, expected);
}

#[test]
fn changing_results_need_a_reader_who_knows() {
    let build = |updates: bool| {
        let (_feed, source) = testing::feed::<i64>(1);
        let job = Job::new("updates");
        let sink = lines::stdout(lines::text(|n: &u64, line| writeln!(line, "{n}")));
        job.source(source)
            .event_time(|t| EventTime::from_seconds(*t), Watermarks::monotonous())
            .key_by(|t| *t)
            .window(Tumbling::of(10.seconds()).allowed_lateness(5.seconds()))
            .aggregate(|a| a.count())
            .map(|w| w.value)
            .sink(if updates { sink.updates() } else { sink });
        Stepper::new(&job, 1).map(|_| ())
    };
    assert!(matches!(
        build(false),
        Err(BuildError::AppendOnReplaced { .. })
    ));
    assert_eq!(build(true), Ok(()));
}

/// Formats of changes need no word of the reader's; in files of epochs, and exactly once.
#[test]
fn changes_and_upserts_are_lines() {
    type Row = (String, u64);
    let words = || sources::items(["a", "b", "a"].map(String::from));
    let folder = folder();
    let read = |name: &str| {
        let of = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().path();
        let files = std::fs::read_dir(folder.join(name)).unwrap().map(of);
        let shown = |p: &PathBuf| !p.file_name().unwrap().to_str().unwrap().starts_with('.');
        let mut files: Vec<_> = files.filter(shown).collect();
        files.sort();
        let text = |p: PathBuf| {
            assert_eq!(
                p.extension().unwrap(),
                if name == "csv" { "txt" } else { "jsonl" }
            );
            std::fs::read_to_string(p).unwrap()
        };
        files.into_iter().map(text).collect::<String>()
    };
    let job = Job::new("counts");
    job.checkpoints(Checkpointing::in_folder(folder.join("checkpoints")));
    let [json, csv, keyed] = job
        .source(words())
        .key_by_ref(|word| word)
        .changelog()
        .running(|a| a.count())
        .map(|c| c.map(|row| (row.key, row.value)))
        .fork();
    json.sink(lines::parts(folder.join("json"), lines::changes_json()));
    let row = lines::text(|row: &Row, line| writeln!(line, "{},{}", row.0, row.1));
    csv.sink(lines::growing(folder.join("csv"), lines::changes(row)));
    keyed
        .filter(|c| c.row.1 % 2 == 1)
        .key_by_ref(|c| &c.row.0)
        .upserts()
        .sink(lines::parts(folder.join("upserts"), lines::upserts_json()));
    job.run(threads(1)).unwrap();
    assert_eq!(
        read("json"),
        concat!(
            "{\"op\":\"+I\",\"row\":[\"a\",1]}\n",
            "{\"op\":\"+I\",\"row\":[\"b\",1]}\n",
            "{\"op\":\"-U\",\"row\":[\"a\",1]}\n",
            "{\"op\":\"+U\",\"row\":[\"a\",2]}\n",
        )
    );
    assert_eq!(read("csv"), "+I,a,1\n+I,b,1\n-U,a,1\n+U,a,2\n");
    assert_eq!(
        read("upserts"),
        concat!(
            "{\"key\":\"a\",\"row\":[\"a\",1]}\n",
            "{\"key\":\"b\",\"row\":[\"b\",1]}\n",
            "{\"key\":\"a\",\"row\":null}\n",
        )
    );
}

/// It would be read as a tombstone. A part of a row that is null is none.
#[test]
fn a_row_that_is_null_is_no_row() {
    let write = |row: Option<(u64, Option<u64>)>| {
        let mut out = vec![];
        let upsert = pelton::Upsert {
            key: 7,
            row: Some(row),
        };
        lines::upserts_json().format(&upsert, &mut out)
    };
    assert!(write(None).unwrap_err().contains("null"));
    assert_eq!(write(Some((1, None))), Ok(()));
}

#[test]
fn what_cannot_be_opened_ends_the_build() {
    let open = |path: &Path| {
        let job = Job::new("lines");
        job.source(sources::items(0..1u64))
            .sink(lines::file(path, lines::json()));
        Stepper::new(&job, 1).unwrap_err().to_string()
    };
    let here = folder();
    assert!(open(&here).contains("it is a folder; name a file"));
    let text = open(&here.join("none/out"));
    assert!(
        text.contains("its folder does not exist; make it first"),
        "{text}"
    );
}

#[test]
fn files_stay_as_they_are_until_the_job_starts() {
    let here = folder();
    let (kept, new) = (here.join("kept"), here.join("new"));
    let before = "what was there, and half a line";
    std::fs::write(&kept, before).unwrap();
    let sink = |path: &Path, overwrite: bool| {
        let sink = lines::file(path, lines::text(|n: &u64, line| writeln!(line, "{n}")));
        if overwrite { sink.overwrite() } else { sink }
    };

    // It does not start: the source, or another sink, cannot be opened.
    for overwrite in [true, false] {
        for path in [&kept, &new] {
            let no_source = Job::new("no source");
            no_source
                .source(pelton_connectors::files::json::<u64>([here.join("none")]))
                .sink(sink(path, overwrite));
            let no_sink = Job::new("no sink");
            let [one, other] = no_sink.source(sources::items(0..3u64)).fork();
            one.sink(sink(path, overwrite));
            other.sink(sink(&here.join("none/out"), overwrite));
            for (job, code) in [(no_source, "PLT-0007"), (no_sink, "PLT-0008")] {
                assert_eq!(job.run(threads(2)).unwrap_err().code(), code);
                assert_eq!(std::fs::read_to_string(&kept).unwrap(), before);
                assert!(!new.exists(), "it was made for nothing");
            }
        }
    }

    // It starts, and fails before it has a result: what was there is not taken for this run's.
    let none = |overwrite: bool| {
        let job = Job::new("fails");
        job.source(sources::items(0..3u64))
            .map(|n| if n == 0 { panic!("no result") } else { n })
            .sink(sink(&kept, overwrite));
        job.run(threads(1)).unwrap_err();
        std::fs::read_to_string(&kept).unwrap()
    };
    assert_eq!(none(false), format!("{before}\n"));
    assert_eq!(none(true), "");
}

#[test]
fn what_cannot_be_formatted_ends_the_job() {
    #[derive(Serialize)]
    struct Odd(std::collections::BTreeMap<(u8, u8), u8>);
    let path = folder().join("out");
    let job = Job::new("odd");
    job.source(sources::items([false, true, false]))
        .map(|odd| Odd(odd.then_some(((1, 2), 3)).into_iter().collect()))
        .sink(lines::file(&path, lines::json()));
    let e = job.run(threads(1)).unwrap_err();
    assert!(matches!(e, JobError::Sink { .. }));
    assert!(
        e.to_string()
            .contains("cannot be written as JSON: key must be a string"),
        "{e}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_ends_the_job() {
    for count in [1u64, 1_000_000] {
        let job = Job::new("full");
        job.source(sources::items(0..count))
            .sink(lines::file("/dev/full", lines::json()));
        let e = job.run(threads(2)).unwrap_err();
        assert_eq!(e.code(), "PLT-0105");
        // Either shard may be the one to tell: they share the file, and after a failure neither writes.
        assert!(e.to_string().contains("sink /dev/full on shard"), "{e}");
        assert!(
            e.to_string().contains("the device is full; make room"),
            "{e}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_under_the_dead_letters_ends_the_job() {
    let path = folder().join("in");
    std::fs::write(&path, "x\n".repeat(100_000)).unwrap();
    let job = Job::new("full");
    job.source(pelton_connectors::files::json::<u64>([&path]))
        .sink(lines::stdout(lines::json()));
    job.dead_letters_to(lines::file(
        "/dev/full",
        lines::text(|d: &pelton::push::DeadLetter, line| writeln!(line, "{d}")),
    ));
    let e = job.run(threads(1)).unwrap_err();
    assert!(e.to_string().contains("the device is full"), "{e}");
}

/// Lets a job write `count` lines of `line` bytes into a pipe (it is given the pipe and a counter to raise with each line)
/// that nobody reads until the job has stood still for a good while. Whatever the reader has taken, the job is never
/// more than `ahead` bytes ahead of it.
#[cfg(target_os = "linux")]
fn a_slow_reader_holds(
    line: u64,
    count: u64,
    ahead: u64,
    run: impl FnOnce(&Path, std::sync::Arc<std::sync::atomic::AtomicU64>),
) {
    use std::io::Read;
    let path = folder().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let made = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let reader = std::thread::spawn({
        let (path, made) = (path.clone(), made.clone());
        move || {
            let mut pipe = std::fs::File::open(path).unwrap();
            let (mut seen, mut still) = (0, 0);
            while still < 50_000 && seen < count {
                std::thread::yield_now();
                let now = made.load(Ordering::Relaxed);
                still = if now == seen && now > 0 { still + 1 } else { 0 };
                seen = now;
            }
            let (mut taken, mut most, mut piece) = (0, 0, vec![0; 5_000]);
            loop {
                most = most.max(made.load(Ordering::Relaxed) * line - taken);
                match pipe.read(&mut piece).unwrap() {
                    0 => return (taken, most),
                    n => taken += n as u64,
                }
            }
        }
    });
    run(&path, made);
    let (taken, most) = reader.join().unwrap();
    assert_eq!(taken, count * line);
    assert!(most <= ahead, "{most} bytes ahead");
    // It was really held, not only never ahead.
    assert!(most >= 65_536, "{most} bytes ahead");
}

/// The pipe, three buffers, and a page for luck; what one step writes beyond a buffer comes on top.
#[cfg(target_os = "linux")]
const BETWEEN: u64 = 65_536 + 3 * 65_536 + 4096;

#[cfg(target_os = "linux")]
#[test]
fn a_slow_reader_holds_the_source() {
    a_slow_reader_holds(100, 50_000, BETWEEN + 1024 * 100, |path, made| {
        let job = Job::new("slow");
        job.source(sources::generate("numbers", 50_000, 1, move |id| {
            made.fetch_add(1, Ordering::Relaxed);
            id
        }))
        .sink(lines::file(
            path,
            lines::text(|n: &u64, line| writeln!(line, "{n:099}")),
        ));
        job.run(threads(1)).unwrap();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_slow_reader_of_dead_letters_holds_the_source() {
    let input = folder().join("in");
    std::fs::write(&input, "x\n".repeat(50_000)).unwrap();
    a_slow_reader_holds(100, 50_000, BETWEEN + 1024 * 100, |path, made| {
        let job = Job::new("slow");
        job.source(pelton_connectors::files::json::<u64>([&input]))
            .sink(lines::stdout(lines::json()));
        job.dead_letters_to(lines::file(
            path,
            lines::text(move |d: &pelton::push::DeadLetter, line| {
                made.fetch_add(1, Ordering::Relaxed);
                writeln!(line, "{:099}", d.offset)
            }),
        ));
        job.run(threads(1)).unwrap();
    });
}
