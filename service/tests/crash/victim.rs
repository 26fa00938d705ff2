//! A generated job: tumbling windows, sessions and running values of one stream, each to two-phase files.

use super::Subject;
use super::lives::Draw;
use super::outputs::{last_of_keys, lines, same_last, same_rows};
use super::refusing::Refusing;
use pelton::{
    Checkpointing, Config, DiskKind, Driver, EventTime, Job, Runtime, Session, Span, Spans, Stop,
    Tumbling, Watermarks, Windowed, sources,
};
use pelton_connectors::lines as sink;
use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const RECORDS: u64 = 40_000;
const PARTITIONS: usize = 4;

/// What a process is told, in a file of the folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Life {
    seed: u64,
    shards: usize,
    batch: usize,
    interval_us: i64,
    timeout_us: i64,
    rate: u64,
    /// One commit in so many is put off; none, if 0.
    refuses_one_in: u64,
    max_uncommitted: usize,
    /// On glommio, with checkpoints written by io_uring, where both can be had.
    io_uring: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Event {
    at: i64,
    key: u32,
    value: u64,
}

impl Event {
    /// A function of seed and id. Each partition's times rise by 4 ms, now and then one is 30 ms behind, and seldom 3 s.
    fn new(seed: u64, id: u64) -> Self {
        let mut draw = Draw(seed ^ id.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let back = match draw.below(200) {
            0 => 3_000_000,
            1..40 => draw.below(30_000),
            _ => 0,
        };
        Event {
            at: id as i64 * 1_000 - back as i64,
            key: (draw.below(40) * draw.below(40) / 8) as u32,
            value: draw.below(1_000),
        }
    }
}

pub struct Generated;

#[derive(Clone)]
pub struct Variant {
    seed: u64,
    rate: u64,
    /// An undisturbed run's folder.
    expected: PathBuf,
}

const OUTPUTS: [&str; 4] = ["tumbling", "sessions", "late", "running"];

impl Life {
    fn command(&self, folder: &Path) -> Command {
        let text = serde_json::to_string(self).unwrap();
        std::fs::write(folder.join("life"), text).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["victim", "--exact", "--nocapture"]);
        command.env("PELTON_VICTIM", folder);
        command
    }
}

impl Subject for Generated {
    type Variant = Variant;

    fn name(&self) -> &'static str {
        "generated"
    }

    fn points(&self) -> &'static [&'static str] {
        &[
            "begun",
            "share",
            "sealed",
            "aborted",
            "decided",
            "decided-behind",
            "held",
            "committed-one",
            "committed",
            "over",
            "recovering",
            "recovered",
        ]
    }

    fn draw(&self, draw: &mut Draw) -> Variant {
        let expected = super::folder("undisturbed");
        let seed = draw.next();
        let undisturbed = Life {
            seed,
            shards: 1,
            batch: 256,
            interval_us: 100_000,
            timeout_us: 60_000_000,
            rate: 10_000_000,
            refuses_one_in: 0,
            max_uncommitted: 1,
            io_uring: false,
        };
        super::lives::through(undisturbed.command(&expected)).unwrap();
        Variant {
            seed,
            rate: [40_000, 100_000][draw.index(2)],
            expected,
        }
    }

    fn command(&self, v: &Variant, folder: &Path, draw: &mut Draw) -> Command {
        let interval_us = [1_000, 3_000, 20_000][draw.index(3)];
        let life = Life {
            seed: v.seed,
            shards: 1 + draw.index(3),
            batch: [1, 64, 1024][draw.index(3)],
            interval_us,
            // One in three gives up whatever takes as long as an interval.
            timeout_us: [60_000_000, 60_000_000, interval_us][draw.index(3)],
            rate: v.rate,
            refuses_one_in: [0, 0, 9][draw.index(3)],
            max_uncommitted: [1, 3, 3][draw.index(3)],
            io_uring: draw.one_in(3),
        };
        life.command(folder)
    }

    fn check(&self, v: &Variant, folder: &Path, _: &str) -> Result<(), String> {
        for name in OUTPUTS {
            let got = lines(&folder.join(name))?;
            let expected = lines(&v.expected.join(name))?;
            if name == "running" {
                let net = |lines: &[String]| {
                    last_of_keys(lines, |line| {
                        let (key, value) = line.split_once(',').unwrap();
                        (key.into(), value.into())
                    })
                };
                same_last(name, &net(&got), &net(&expected))?;
            } else {
                same_rows(name, &got, &expected)?;
            }
        }
        // Both runs the same and both wrong would not do: each record is in one window or late.
        let counts = lines(&folder.join("tumbling"))?.into_iter().map(|line| {
            let count = line.split(',').nth(2).and_then(|n| n.parse::<u64>().ok());
            count.ok_or(format!("a line that is none: {line}"))
        });
        let counted = counts.sum::<Result<u64, String>>()?;
        let late = lines(&folder.join("late"))?.len() as u64;
        if counted + late != RECORDS || late == 0 {
            return Err(format!("{counted} in windows and {late} late of {RECORDS}"));
        }
        std::fs::remove_dir_all(&v.expected).map_err(|e| e.to_string())
    }
}

/// Numbers between commas: key, start, count, ..
fn row(w: &Windowed<u32, (u64, u64, u64)>) -> String {
    let (count, sum, max) = w.value;
    let (start, end) = (w.window.start.micros(), w.window.end.micros());
    format!("{},{start},{count},{sum},{max},{end}", w.key)
}

/// The job, in a process of its own.
pub fn run(folder: &Path) {
    let life = std::fs::read_to_string(folder.join("life")).unwrap();
    let life: Life = serde_json::from_str(&life).unwrap();
    let config = Config::default().shards(life.shards).batch_size(life.batch);
    let start = |driver| Runtime::start(config.clone().driver(driver));
    let (runtime, disk) = match life.io_uring.then(|| start(Driver::Glommio)) {
        Some(Ok(runtime)) => (runtime, DiskKind::IoUring),
        // Where it is refused, or not part of the build, the crashes are those of the others.
        Some(Err(_)) | None => (start(Driver::Threads).unwrap(), DiskKind::Auto),
    };
    let handle = runtime.submit(&job(&life, disk, folder));
    let handle = handle.unwrap_or_else(|e| panic!("{e}"));
    let (stopper, stopped) = (handle.stopper(), Arc::new(AtomicBool::new(false)));
    let mut signals = Signals::new([SIGTERM]).unwrap();
    let asked = stopped.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            asked.store(true, Ordering::Relaxed);
            stopper.stop(Stop::Keep);
        }
    });
    if let Err(e) = handle.wait() {
        panic!("{e}");
    }
    if stopped.load(Ordering::Relaxed) {
        std::process::exit(3);
    }
}

fn job(life: &Life, disk: DiskKind, folder: &Path) -> Job {
    let to = |name: &str| {
        let parts = sink::parts(
            folder.join(name),
            sink::text(|line: &String, out: &mut Vec<u8>| {
                out.extend_from_slice(line.as_bytes());
                out.push(b'\n');
                Ok(())
            }),
        );
        Refusing {
            inner: match name {
                "running" => parts.updates(),
                _ => parts,
            },
            one_in: life.refuses_one_in,
        }
    };
    let job = Job::new("generated");
    job.checkpoints(
        Checkpointing::in_folder(folder.join("checkpoints"))
            .every(Span::from_micros(life.interval_us))
            .timeout(Span::from_micros(life.timeout_us))
            .max_uncommitted(life.max_uncommitted)
            .segment_bytes(16 << 20)
            .reserve_bytes(0)
            .disk(disk),
    );
    let seed = life.seed;
    let events = sources::generate("events", RECORDS, PARTITIONS, move |id| {
        Event::new(seed, id)
    });
    let [a, b, c] = job
        .source(sources::paced(events, life.rate))
        .event_time(
            |e: &Event| EventTime::from_micros(e.at),
            Watermarks::bounded(20.millis()),
        )
        .fork();
    a.key_by(|e| e.key)
        .window(Tumbling::of(500.millis()))
        .uid("tumbling")
        .late_to(sink::parts(folder.join("late"), sink::json()))
        .aggregate(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
        .map(|w| row(&w))
        .sink(to("tumbling"));
    b.key_by(|e| e.key)
        .window(Session::gap(150.millis()))
        .uid("sessions")
        .aggregate(|a| (a.count(), a.sum(|e| e.value), a.max(|e| e.value)))
        .map(|w| row(&w))
        .sink(to("sessions"));
    c.filter(|e| e.value % 8 == 0)
        .key_by(|e| e.key)
        .running(|a| (a.count(), a.sum(|e: &Event| e.value)))
        .uid("running")
        .map(|k| format!("{},{:?}", k.key, k.value))
        .sink(to("running"));
    job
}
