//! Records that cannot be used: where they are said to lie, the source's policy, and an output that takes nothing for a while.

use pelton::batch::Stamp;
use pelton::push::DeadLetter;
use pelton::sink::{Sink, Writer};
use pelton::source::{Emit, Read, ReadError, Reader, Source};
use pelton::tasklet::Progress;
use pelton::testing::{self, Sizes, Stepper};
use pelton::{
    EventTime, Job, JobError, Session, Span, Spans, Watermarks, port::Ports, sink, sources,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A line of a [`LinesReader`].
#[derive(Clone, Copy)]
enum Line {
    /// A record with this time in seconds.
    At(i64),
    /// A record without a time.
    Null,
    /// A record whose time is out of range.
    Never,
    /// No record.
    Broken,
}

struct Lines {
    partitions: Vec<Vec<Line>>,
    stops: bool,
}

struct LinesReader {
    lines: Vec<Line>,
    number: usize,
    next: usize,
    stops: bool,
    /// Read in one go.
    at_once: usize,
}

impl Source for Lines {
    type Item = Option<EventTime>;
    type Reader = LinesReader;
    fn name(&self) -> String {
        "lines".into()
    }
    fn open(&mut self, _: &mut Ports<'_>) -> Result<Vec<LinesReader>, String> {
        let partitions = self.partitions.iter().enumerate();
        Ok(partitions
            .map(|(number, lines)| LinesReader {
                lines: lines.clone(),
                number,
                next: 0,
                stops: self.stops,
                at_once: 4,
            })
            .collect())
    }
}

impl Reader for LinesReader {
    type Item = Option<EventTime>;
    fn name(&self) -> String {
        format!("book {}", self.number)
    }
    /// Ten lines a page: people are told the page.
    fn place(&self, offset: u64) -> (String, u64) {
        (
            format!("{}, page {}", self.name(), offset / 10),
            offset % 10,
        )
    }
    fn stops_on_malformed(&self) -> bool {
        self.stops
    }
    fn read<E: Emit<Self::Item>>(&mut self, _: usize, out: &mut E) -> Result<Read, ReadError> {
        for _ in 0..self.at_once {
            let Some(&line) = self.lines.get(self.next) else {
                return Ok(Read::End);
            };
            let offset = self.next as u64;
            self.next += 1;
            let bytes = format!("line {offset}");
            let time = match line {
                Line::At(s) => Some(EventTime::from_seconds(s)),
                Line::Null => None,
                Line::Never => Some(EventTime::from_micros(i64::MAX)),
                Line::Broken => {
                    out.malformed(offset, Some(offset + 1), "it is broken", bytes.as_bytes());
                    continue;
                }
            };
            out.emit_from(offset, Some(offset + 1), bytes.as_bytes(), time)?;
        }
        // As a source that waits for more between any two reads: both slots of a shard are asked in one step.
        Ok(Read::Pending { until_ns: Some(0) })
    }
}

type Ran = (Vec<DeadLetter>, u64, u64, Result<(), JobError>);

/// Runs a job over these partitions; letters in order of arrival, records that got through, malformed ones, the end.
fn run(partitions: Vec<Vec<Line>>, stops: bool, letters_to: bool, shards: usize) -> Ran {
    let (rows, sink) = testing::collect();
    let (dead, letters) = testing::collect();
    let job = Job::new("lines");
    job.source(Lines { partitions, stops })
        .event_time(|time| *time, Watermarks::monotonous())
        .sink(sink);
    if letters_to {
        job.dead_letters_to(letters);
    }
    let mut stepper = Stepper::new(&job, shards).unwrap();
    let end = stepper.run();
    let malformed = stepper.counters().malformed;
    (dead.take(), rows.take().len() as u64, malformed, end)
}

#[test]
fn a_record_without_a_valid_time_is_told_as_the_source_tells_its_own() {
    let mut lines = vec![Line::At(1); 15];
    (lines[3], lines[12], lines[13]) = (Line::Broken, Line::Null, Line::Never);
    let (letters, rows, malformed, end) = run(vec![lines], false, true, 1);
    assert_eq!((rows, malformed, end), (12, 3, Ok(())));
    let texts: Vec<_> = letters.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "lines: book 0, page 0:4 (offset 3): it is broken");
    assert!(texts[1].starts_with("event_time"), "{texts:?}");
    assert!(
        texts[1].ends_with(": book 0, page 1:13 (offset 2): the event time is NULL"),
        "{texts:?}"
    );
    assert!(
        texts[2].contains(
            ": book 0, page 1:14 (offset 3): the event time 9223372036854775807 us is outside"
        ),
        "{texts:?}"
    );
    let payloads: Vec<_> = letters.iter().map(|l| &l.payload[..]).collect();
    assert_eq!(payloads, [b"line 3" as &[u8], b"line 12", b"line 13"]);
}

#[test]
fn the_policy_of_the_source_holds_for_records_without_a_valid_time() {
    for (bad, offset) in [(Line::Null, 5), (Line::Never, 2), (Line::Broken, 7)] {
        let mut lines = vec![Line::At(1); 15];
        lines[offset] = bad;
        let (letters, ..) = run(vec![lines.clone()], false, true, 1);
        for letters_to in [true, false] {
            let (_, rows, malformed, end) = run(vec![lines.clone()], true, letters_to, 1);
            let error = end.unwrap_err();
            assert_eq!(error.code(), "PLT-0103");
            // The text that the dead letter would have had.
            assert!(
                error.to_string().contains(&letters[0].to_string()),
                "{error}"
            );
            assert_eq!(malformed, 1);
            assert_eq!(rows, offset as u64, "those before it, and none after");
        }
    }
}

#[test]
fn letters_of_partitions_read_in_one_step_keep_their_own_places() {
    // Two partitions on one shard; each has nothing more for now after four letters, so both are read in a step.
    let partitions = vec![vec![Line::Null; 6], vec![Line::Broken; 6]];
    let (letters, _, malformed, end) = run(partitions, false, true, 1);
    assert_eq!((malformed, end), (12, Ok(())));
    for letter in letters {
        let book = if letter.reason == "it is broken" {
            1
        } else {
            0
        };
        assert_eq!(letter.partition, format!("book {book}, page 0"), "{letter}");
    }
}

#[test]
fn refused_records_of_a_gathered_batch_are_told_by_their_offsets() {
    let items: Vec<Option<EventTime>> = (0..2_000)
        .map(|n| (n % 500 != 499).then(|| EventTime::from_seconds(n)))
        .collect();
    let (rows, sink) = testing::collect();
    let (dead, letters) = testing::collect();
    let job = Job::new("gathered");
    job.source(sources::partitions([items]))
        .event_time(|time| *time, Watermarks::monotonous())
        .key_by(|time| time.map_or(0, EventTime::micros))
        .exchange()
        .sink(sink);
    job.dead_letters_to(letters);
    let mut stepper = Stepper::new(&job, 1).unwrap();
    stepper.run().unwrap();
    assert_eq!(rows.take().len(), 1_996);
    let offsets: Vec<_> = dead.take().iter().map(|l| l.offset).collect();
    assert_eq!(offsets, [499, 999, 1_499, 1_999]);
}

/// Under a shut output a source reads on until its edge is full, and no further; nothing of it is lost.
#[test]
fn a_blocked_dead_letter_output_holds_its_source_back_and_ends_last() {
    let (rows, sink) = testing::collect();
    let (dead, letters) = testing::collect::<DeadLetter>();
    let shut = letters.switch();
    let job = Job::new("blocked");
    job.source(Lines {
        partitions: vec![[Line::At(1), Line::Null].repeat(5_000)],
        stops: false,
    })
    .event_time(|time| *time, Watermarks::monotonous())
    .sink(sink);
    job.dead_letters_to(letters);
    let mut stepper = Stepper::with(&job, Sizes::shards(2)).unwrap();
    assert_eq!(stepper.tasklets(), 4, "two stages on two shards");
    shut.store(true, Relaxed);
    let rounds = |stepper: &mut Stepper| {
        for tasklet in (0..100).flat_map(|_| 0..4) {
            stepper.step(tasklet).unwrap();
        }
        stepper.counters().records_in
    };
    let read = rounds(&mut stepper);
    assert_eq!(rounds(&mut stepper), read, "held back");
    // Four records a step, two of them letters: a ring of four frames, one that waits for it and none in the sink.
    assert_eq!(read, 5 * 4);
    assert!(dead.take().is_empty());
    shut.store(false, Relaxed);
    stepper.step(2).unwrap();
    let mut taken = dead.take();
    assert_eq!(taken.len(), 2, "a frame a step");
    stepper.step(0).unwrap();
    assert_eq!(stepper.counters().records_in, read + 4, "as much room");
    shut.store(true, Relaxed);
    for _ in 0..100_000 {
        stepper.step(0).unwrap();
        stepper.step(1).unwrap();
    }
    assert!(!stepper.is_done(0) && stepper.is_done(1));
    shut.store(false, Relaxed);
    while !stepper.is_done(0) {
        stepper.step(0).unwrap();
        stepper.step(2).unwrap();
    }
    assert!(!stepper.all_done(), "the letters still under way come last");
    stepper.run().unwrap();
    taken.extend(dead.take());
    assert_eq!((rows.take().len(), taken.len()), (5_000, 5_000));
    assert!(taken.iter().map(|l| l.line).is_sorted(), "in their order");
}

/// A sink that has not written all it was given before its gate opens.
struct Gated(Arc<AtomicBool>);

struct GatedWriter(Arc<AtomicBool>);

impl Sink<DeadLetter> for Gated {
    type Writer = GatedWriter;
    fn name(&self) -> String {
        "gated".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<GatedWriter>, String> {
        Ok((0..ports.shards())
            .map(|_| GatedWriter(self.0.clone()))
            .collect())
    }
}

impl Writer<DeadLetter> for GatedWriter {
    fn write(&mut self, _: DeadLetter, _: Stamp) {}
    fn flush(&mut self, _: u64) -> Result<(), String> {
        Ok(())
    }
    fn finish(&mut self, _: u64) -> Result<bool, String> {
        Ok(self.0.load(Relaxed))
    }
}

#[test]
fn a_job_is_not_done_before_its_dead_letters_are() {
    let gate = Arc::new(AtomicBool::new(false));
    let (_, sink) = testing::collect();
    let job = Job::new("last");
    job.source(Lines {
        partitions: vec![vec![Line::Null]],
        stops: false,
    })
    .event_time(|time| *time, Watermarks::monotonous())
    .sink(sink);
    job.dead_letters_to(Gated(gate.clone()));
    let mut stepper = Stepper::new(&job, 1).unwrap();
    while !stepper.is_done(0) {
        stepper.step(0).unwrap();
    }
    for _ in 0..10 {
        assert_ne!(stepper.step(1).unwrap(), Progress::Done);
    }
    assert!(!stepper.all_done());
    assert!(matches!(
        stepper.step(1).unwrap(),
        Progress::Idle { until_ns: Some(_) }
    ));
    gate.store(true, Relaxed);
    assert_eq!(stepper.step(1).unwrap(), Progress::Done);
    assert!(stepper.all_done());
}

/// Records made of one that are refused one by one, as there is room for those between them: their letters say where they
/// lie as any other does, and the source's policy holds for them.
#[test]
fn a_record_refused_by_a_chain_that_had_to_wait_is_told_as_any_other() {
    for stops in [false, true] {
        let (rows, sink) = testing::collect();
        let (dead, letters) = testing::collect();
        let job = Job::new("waits");
        let partitions = vec![vec![Line::At(1); 2]; 2];
        job.source(Lines { partitions, stops })
            .flat_map(|time| [[time; 10], [time, None].repeat(5).try_into().unwrap()].concat())
            .event_time(|time| *time, Watermarks::monotonous())
            .rebalance()
            .sink(sink);
        job.dead_letters_to(letters);
        let sizes = Sizes {
            batch_size: 1,
            ring_capacity: 2,
            ..Sizes::shards(1)
        };
        let mut stepper = Stepper::with(&job, sizes).unwrap();
        for _ in 0..10 {
            stepper.step(0).unwrap();
        }
        let counters = stepper.counters();
        assert_eq!((counters.records_in, counters.malformed), (2, 0));
        let end = stepper.run();
        if stops {
            let error = end.unwrap_err().to_string();
            assert!(error.contains(": book 0, page 0 (offset 0)"), "{error}");
            continue;
        }
        end.unwrap();
        assert_eq!(rows.take().len(), 4 * 15);
        let dead = dead.take().into_iter();
        let mut places: Vec<_> = dead.map(|l| (l.partition, l.offset)).collect();
        places.sort();
        let expected = (0..20).map(|n| (format!("book {}, page 0", n / 10), n / 5 % 2));
        assert_eq!(places, expected.collect::<Vec<_>>());
    }
}

/// A source's letters and those of windows behind an exchange meet in one output; none is counted as a result.
#[test]
fn letters_of_every_stage_reach_the_output() {
    type Jobs = [(&'static str, fn(&Job, pelton::testing::Collector<u64>)); 2];
    fn numbers(job: &Job) -> pelton::Stream<impl pelton::Pipeline<Item = u64>> {
        job.source(sources::generate("numbers", 1_000, 2, |n| n))
            .event_time(
                |n| (n % 5 != 3).then(|| EventTime::from_micros(*n as i64)),
                Watermarks::bounded(1_000.seconds()),
            )
    }
    let jobs: Jobs = [
        ("of windows too", |job, sink| {
            numbers(job)
                .key_by(|n| *n)
                .window(Session::gap_by(1.seconds(), |n: &u64| {
                    Span::from_micros(i64::from(n % 5 != 2))
                }))
                .aggregate(|a| a.count())
                .map(|w| w.value)
                .sink(sink);
        }),
        ("of the source alone", |job, sink| {
            numbers(job).filter(|n| n % 5 != 2).sink(sink);
        }),
    ];
    for (name, write) in jobs {
        for shards in [1, 3] {
            let (rows, sink) = testing::collect();
            let (dead, letters) = testing::collect::<DeadLetter>();
            let job = Job::new(name);
            write(&job, sink);
            job.dead_letters_to(letters);
            let mut stepper = Stepper::new(&job, shards).unwrap();
            stepper.run().unwrap();
            let dead = dead.take();
            let sessions = dead.iter().filter(|l| l.at.starts_with("session")).count();
            let of_windows = if name == "of the source alone" {
                0
            } else {
                200
            };
            assert_eq!(
                (dead.len(), sessions),
                (200 + of_windows, of_windows),
                "{name}"
            );
            assert_eq!(rows.take().len(), 600, "{name}");
            let counters = stepper.counters();
            assert_eq!(counters.records_out, 600, "{name}");
            assert_eq!(counters.malformed, dead.len() as u64, "{name}");
        }
    }
}

#[test]
fn an_output_that_panics_or_fails_is_told_by_name() {
    let job = |sink: &dyn Fn(&Job)| {
        let (_, rows) = testing::collect();
        let job = Job::new("told");
        job.source(Lines {
            partitions: vec![vec![Line::At(1), Line::Null, Line::At(2)]],
            stops: false,
        })
        .event_time(|time| *time, Watermarks::monotonous())
        .sink(rows);
        sink(&job);
        Stepper::new(&job, 1).unwrap().run().unwrap_err()
    };
    let error = job(&|job| {
        job.dead_letters_to(sink::callback("bad", |_: DeadLetter, _| {
            panic!("no letters")
        }));
    });
    let JobError::Panic {
        op,
        position,
        message,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert!(op.starts_with("dead letters (bad) at"), "{error}");
    assert!(message.contains("no letters"), "{error}");
    assert!(position.contains("source 0, partition 0"), "{error}");

    let error = job(&|job| job.dead_letters_to(Failing));
    assert!(matches!(error, JobError::Sink { .. }), "{error}");
    assert!(
        error.to_string().contains("no room in the drawer"),
        "{error}"
    );
}

/// A sink that cannot keep what it is given.
struct Failing;

struct FailingWriter;

impl Sink<DeadLetter> for Failing {
    type Writer = FailingWriter;
    fn name(&self) -> String {
        "failing".into()
    }
    fn open(&mut self, ports: &mut Ports<'_>) -> Result<Vec<FailingWriter>, String> {
        Ok((0..ports.shards()).map(|_| FailingWriter).collect())
    }
}

impl Writer<DeadLetter> for FailingWriter {
    fn write(&mut self, _: DeadLetter, _: Stamp) {}
    fn flush(&mut self, _: u64) -> Result<(), String> {
        Err("no room in the drawer".into())
    }
}

/// What falls aside has stages of its own, behind all that feed them.
#[test]
fn a_plan_tells_the_stages_of_what_falls_aside() {
    let job = Job::new("told");
    let (_, letters) = testing::collect();
    job.dead_letters_to(letters);
    let (_, sink) = testing::collect();
    let (_, late) = testing::collect::<u64>();
    job.source(sources::items(0..9u64))
        .event_time(
            |n| EventTime::from_micros(*n as i64),
            Watermarks::monotonous(),
        )
        .key_by(|n| *n)
        .window(Session::gap(1.seconds()))
        .late_to(late)
        .aggregate(|a| a.count())
        .key_by(|w| w.key)
        .exchange()
        .sink(sink);
    let explained = job.explain();
    let lines: Vec<_> = explained.lines().map(str::trim).collect();
    let stage = |number: usize| {
        let head = format!("stage {number}: ");
        let at = lines.iter().position(|l| l.starts_with(&head)).unwrap();
        let ops = lines[at + 1..].iter();
        let ops = ops.take_while(|l| !l.starts_with("stage"));
        let ops: Vec<_> = ops.map(|l| l.split(" at ").next().unwrap()).collect();
        (lines[at].strip_prefix(&head).unwrap(), ops.join(", "))
    };
    let late = ("from stage 1", "late output (collect)".to_string());
    assert_eq!(stage(2), late, "{explained}");
    assert_eq!(stage(3).0, "from stage 1 by exchange", "{explained}");
    let dead = (
        "from stage 0, stage 1",
        "dead letters (collect)".to_string(),
    );
    assert_eq!(stage(4), dead, "{explained}");
    Stepper::new(&job, 2).unwrap().run().unwrap();
}
