//! Panics in user code end the job and name the operator, the shard and the record's place.

use pelton::aggregate::{Aggregate, At};
use pelton::testing::{Sizes, Stepper, collect};
use pelton::{EventTime, Job, JobError, Span, Tumbling, Watermarks, sources};

/// Runs to the end and gives the panic's operator, shard, position and message.
fn panic_of(job: &Job, shards: usize) -> (String, usize, String, String) {
    let sizes = Sizes {
        batch_size: 8,
        ..Sizes::shards(shards)
    };
    let mut stepper = Stepper::with(job, sizes).unwrap();
    match stepper.run() {
        Err(JobError::Panic {
            op,
            shard,
            position,
            message,
            ..
        }) => (op, shard, position, message),
        other => panic!("no panic but {other:?}"),
    }
}

fn here(op: &str, line: u32) {
    let place = format!("simulation/tests/panics.rs:{line}");
    assert!(op.contains(&place), "{op} does not name {place}");
}

#[test]
fn in_a_map_of_the_source_stage() {
    for shards in [1, 2, 3, 8] {
        let (_, sink) = collect();
        let job = Job::new("panics");
        let ids = [vec![0, 1, 2], (10..40).collect::<Vec<u64>>()];
        let line = line!() + 3;
        job.source(sources::partitions(ids))
            .filter(|id| id % 2 == 1)
            .map(|id| if id == 33 { panic!("no {id}") } else { id })
            .inspect(|_| ())
            .rebalance()
            .sink(sink);
        let (op, shard, position, message) = panic_of(&job, shards);
        assert!(op.starts_with("map"), "{op}");
        here(&op, line);
        assert!(shard < shards);
        assert!(position.contains("partition 1, offset 23"), "{position}");
        assert!(message.contains("no 33"), "{message}");
    }
}

#[test]
fn in_a_map_behind_an_exchange() {
    for shards in [1, 2, 3, 8] {
        let (_, sink) = collect();
        let job = Job::new("panics");
        let line = line!() + 4;
        job.source(sources::items(0..100u64))
            .key_by(|id| id % 7)
            .exchange()
            .map(|id| if id == 55 { panic!("no {id}") } else { id })
            .sink(sink);
        let (op, shard, position, message) = panic_of(&job, shards);
        assert!(op.starts_with("map"), "{op}");
        here(&op, line);
        assert!(shard < shards);
        // The batch is known, by its last record.
        let offset = position
            .split("offset ")
            .nth(1)
            .and_then(|p| p.split(';').next());
        let offset: u64 = offset.unwrap_or_default().parse().unwrap();
        assert!(
            position.contains("partition 0") && offset >= 55,
            "{position}"
        );
        assert!(message.contains("no 55"), "{message}");
    }
}

/// Panics at some place of an aggregate's life.
#[derive(Clone)]
struct Touchy(&'static str);

impl Aggregate<i64> for Touchy {
    type Acc = u64;
    type Out = u64;
    fn create(&self) -> u64 {
        assert_ne!(self.0, "create");
        0
    }
    fn add(&self, acc: &mut u64, record: &i64, _: At) {
        assert!(self.0 != "add" || *record != 55, "no 55");
        *acc += 1;
    }
    fn merge(&self, acc: &mut u64, other: &u64) {
        *acc += other;
    }
    fn finish(&self, acc: &u64) -> u64 {
        assert_ne!(self.0, "finish");
        *acc
    }
}

#[test]
fn in_an_aggregate() {
    for shards in [1, 2, 3, 8] {
        for place in ["create", "add", "finish"] {
            let (_, sink) = collect();
            let job = Job::new("panics");
            let line = line!() + 4;
            job.source(sources::items(0..100i64))
                .event_time(|t| EventTime::from_micros(*t), Watermarks::monotonous())
                .key_by(|id| id % 7)
                .window(Tumbling::of(Span::from_micros(10)))
                .uid("touchy")
                .aggregate_with(Touchy(place))
                .sink(sink);
            let (op, shard, position, _) = panic_of(&job, shards);
            assert!(op.starts_with("window 'touchy'"), "{op}");
            here(&op, line);
            assert!(shard < shards);
            assert!(position.contains("partition 0"), "{place}: {position}");
        }
    }
}

#[test]
fn in_a_key_and_in_a_time() {
    let (_, sink) = collect();
    let job = Job::new("panics");
    job.source(sources::items(0..100i64))
        .event_time(
            |_| -> EventTime { panic!("no time") },
            Watermarks::monotonous(),
        )
        .sink(sink);
    let (op, _, position, _) = panic_of(&job, 2);
    assert!(op.starts_with("event_time"), "{op}");
    assert!(position.contains("offset 0"), "{position}");

    let (_, sink) = collect();
    let job = Job::new("panics");
    job.source(sources::items(0..100i64))
        .key_by(|id| if *id == 9 { panic!("no key") } else { *id })
        .exchange()
        .sink(sink);
    let (op, _, position, _) = panic_of(&job, 2);
    assert!(op.starts_with("key_by"), "{op}");
    assert!(position.contains("offset 9"), "{position}");
}
