//! Jobs over logs: where they begin and end, what they refuse, what the options do.

use crate::laws::{append, number, visible};
use crate::support::{Folder, runtime};
use pelton::log::{self, Retention};
use pelton::testing::{self, Stepper};
use pelton::{
    BuildError, Checkpointing, EventTime, Job, JobError, Runtime, Spans, Watermarks, sources,
};
use pelton_storage::{Follower, HistoryBytes, LogReader, ReadDisk};
use std::path::Path;

pub fn checkpoints(folder: &Path) -> Checkpointing {
    Checkpointing::in_folder(folder.join("checkpoints"))
        .every(1.millis())
        .segment_bytes(16 << 20)
        .reserve_bytes(0)
}

/// Writes the ids below `records`.
fn written(
    folder: &Path,
    records: u64,
    sink: log::LogSink<u64, log::States<u64>>,
) -> Result<(), JobError> {
    let runtime: Runtime = runtime(2);
    let job = Job::new("write");
    job.checkpoints(checkpoints(folder));
    job.source(sources::generate("ids", records, 3, |id| id))
        .sink(sink);
    runtime.submit(&job)?.wait().map(drop)
}

fn to(folder: &Path) -> log::LogSink<u64, log::States<u64>> {
    log::sink(folder.join("log"), log::states::<u64>()).segment_bytes(2 << 20)
}

pub fn from(folder: &Path) -> log::LogSource<u64, log::States<u64>> {
    log::source(folder.join("log"), log::states::<u64>())
}

/// What a bounded source yields, sorted.
fn read(source: log::LogSource<u64, log::States<u64>>) -> Result<Vec<u64>, BuildError> {
    let (rows, sink) = testing::collect();
    let job = Job::new("read");
    job.source(source.until_end()).sink(sink);
    let mut stepper = Stepper::new(&job, 2)?;
    stepper.run().unwrap();
    let mut rows = rows.take();
    rows.sort_unstable();
    Ok(rows)
}

fn refused<T>(result: Result<T, BuildError>) -> String {
    match result {
        Ok(_) => panic!("it is taken"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn what_one_job_wrote_another_reads_from_where_it_is_told() {
    let folder = Folder::new("log-jobs");
    let records = 50_000;
    written(
        folder.path(),
        records,
        to(folder.path()).partitions(3).partition_by(|id| *id),
    )
    .unwrap();
    let all: Vec<u64> = (0..records).collect();
    assert_eq!(read(from(folder.path())).unwrap(), all);
    assert!(read(from(folder.path()).from_latest()).unwrap().is_empty());
    let partitions = visible(&folder.path().join("log"));
    let ends: Vec<u64> = partitions.iter().map(|p| p.len() as u64).collect();
    assert!(
        ends.iter().all(|end| *end > records / 5),
        "a hash spreads them: {ends:?}"
    );
    let later: Vec<u64> = ends.iter().map(|end| end - 2).collect();
    let mut last: Vec<u64> = partitions
        .iter()
        .flat_map(|p| &p[p.len() - 2..])
        .map(|v| number(v))
        .collect();
    last.sort_unstable();
    assert_eq!(read(from(folder.path()).from_offsets(later)).unwrap(), last);
    let beyond = refused(read(from(folder.path()).from_offsets([0, 0, records])));
    assert!(
        beyond.contains("partition 2: there is no offset"),
        "{beyond}"
    );
    let few = refused(read(from(folder.path()).from_offsets([0])));
    assert!(few.contains("has 3 partitions; give one for each"), "{few}");
}

/// Times of records: they rise, two hours at a time, and some are late.
fn two_hours_apart(id: u64) -> EventTime {
    let late = if id % 10 == 3 { 30 } else { 0 };
    EventTime::from_seconds((id as i64 - late) * 7_200)
}

/// How many batches the first partition has.
fn batches(log: &Path) -> usize {
    let follower = Follower::open(&mut ReadDisk::new(log)).unwrap().unwrap();
    let mut reader = LogReader::new(HistoryBytes::new(log), follower.view(0), 0).unwrap();
    std::iter::from_fn(|| reader.next_batch().unwrap().map(|_| ())).count()
}

/// Two hours are more than a batch's records may be apart.
#[test]
fn a_log_is_read_from_a_time_on() {
    let folder = Folder::new("log-times");
    let records = 400;
    let job = Job::new("write");
    job.checkpoints(checkpoints(folder.path()));
    job.source(sources::generate("ids", records, 1, |id| id))
        .event_time(|id| two_hours_apart(*id), Watermarks::bounded(100.hours()))
        .sink(to(folder.path()).partitions(1));
    runtime(1).submit(&job).unwrap().wait().unwrap();
    let stored = &visible(&folder.path().join("log"))[0];
    let stored: Vec<u64> = stored.iter().map(|v| number(v)).collect();
    assert_eq!(stored, (0..records).collect::<Vec<_>>());
    // Nine of ten come later than the one before, and so begin a batch: a page each (docs/format.md).
    assert_eq!(batches(&folder.path().join("log")), 360);
    for first in [0, 1, 57, 203, 204, 399] {
        for before in [0, 1, 7_199] {
            let time = EventTime::from_seconds(first as i64 * 7_200 - before);
            // Of the first that is not late, or is behind all.
            let found = (0..records).find(|id| two_hours_apart(*id) >= time);
            let expected: Vec<u64> = (found.unwrap_or(records)..records).collect();
            assert_eq!(
                read(from(folder.path()).from_time(time)).unwrap(),
                expected,
                "from {time}"
            );
        }
    }
    let all = EventTime::from_seconds(-1);
    assert_eq!(read(from(folder.path()).from_time(all)).unwrap().len(), 400);
    let none = EventTime::from_seconds(7_200 * 400);
    assert!(
        read(from(folder.path()).from_time(none))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn records_of_a_key_lie_in_one_partition_in_their_order() {
    let folder = Folder::new("log-order");
    let sink = to(folder.path())
        .partitions(4)
        .partition_with(|id, n| (*id % 100) as u32 + n);
    written(folder.path(), 20_000, sink).unwrap();
    let partitions = visible(&folder.path().join("log"));
    for (at, partition) in partitions.iter().enumerate() {
        let ids: Vec<u64> = partition.iter().map(|v| number(v)).collect();
        assert!(
            ids.iter().all(|id| id % 100 % 4 == at as u64),
            "modulo their number"
        );
        // One partition of the source makes every third id.
        for of in 0..3 {
            let ids: Vec<u64> = ids.iter().copied().filter(|id| id % 3 == of).collect();
            assert!(ids.is_sorted(), "partition {at}");
        }
    }
}

#[test]
fn a_key_that_is_known_is_not_written_again() {
    let folder = Folder::new("log-keys");
    let sink = to(folder.path()).idempotent(10_000, |id, key| key.extend((id % 500).to_le_bytes()));
    written(folder.path(), 5_000, sink).unwrap();
    let mut keys: Vec<u64> = read(from(folder.path()))
        .unwrap()
        .iter()
        .map(|id| id % 500)
        .collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq(0..500), "each key once");
}

#[test]
fn retention_takes_what_is_old_and_a_reader_is_told() {
    let folder = Folder::new("log-retention");
    let bytes_max = Some(3 << 20);
    let retention = Retention {
        bytes_max,
        age_us_max: None,
    };
    let values =
        |sink: log::LogSink<Vec<u8>, log::Bytes>| sink.segment_bytes(2 << 20).retain(retention);
    let job = Job::new("write");
    job.checkpoints(checkpoints(folder.path()));
    job.source(sources::generate("blobs", 12_000, 1, |id: u64| {
        let mut blob = vec![7; 1_000];
        blob[..8].copy_from_slice(&id.to_le_bytes());
        blob
    }))
    .sink(values(log::sink(folder.path().join("log"), log::bytes())));
    runtime(1).submit(&job).unwrap().wait().unwrap();
    let read = |source: log::LogSource<Vec<u8>, log::Bytes>| {
        let (rows, sink) = testing::collect();
        let job = Job::new("read");
        job.source(source.until_end()).sink(sink);
        Stepper::new(&job, 1).map(|mut stepper| {
            stepper.run().unwrap();
            rows.take()
        })
    };
    let source = || log::source(folder.path().join("log"), log::bytes());
    let rows = read(source()).unwrap();
    let ids: Vec<u64> = rows
        .iter()
        .map(|b| u64::from_le_bytes(*b.first_chunk().unwrap()))
        .collect();
    assert!(
        ids.len() < 9_000 && *ids.last().unwrap() == 11_999,
        "{}",
        ids.len()
    );
    assert!(ids.windows(2).all(|w| w[0] + 1 == w[1]), "no hole");
    let gone = match read(source().from_offsets([0])) {
        Ok(_) => panic!("it is gone"),
        Err(e) => e.to_string(),
    };
    assert!(
        gone.contains("retention has removed those before"),
        "{gone}"
    );
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let folder = Folder::new("log-refused");
    let none = refused(read(from(folder.path())));
    assert!(
        none.contains("holds no log; name the folder of one"),
        "{none}"
    );
    let sink = |sink: log::LogSink<u64, log::States<u64>>| match written(folder.path(), 10, sink) {
        Ok(()) => panic!("it is taken"),
        Err(e) => e.to_string(),
    };
    let unsaid = sink(to(folder.path()).partitions(2));
    assert!(
        unsaid.contains("say partition_by or partition_with"),
        "{unsaid}"
    );
    let zero = sink(to(folder.path()).partitions(0));
    assert!(zero.contains("give 1 to 1024"), "{zero}");
    let small = sink(to(folder.path()).segment_bytes(4096));
    assert!(small.contains("at least 2 MiB"), "{small}");
    assert!(
        !folder.path().join("log").exists(),
        "a job that is refused makes nothing"
    );
    written(folder.path(), 10, to(folder.path())).unwrap();
    // The same log by a job that knows nothing of it.
    std::fs::remove_dir_all(folder.path().join("checkpoints")).unwrap();
    let other = sink(to(folder.path()));
    assert!(
        other.contains("later than the checkpoint that the job starts from"),
        "{other}"
    );
    assert_eq!(
        read(from(folder.path())).unwrap().len(),
        10,
        "and it is as it was"
    );
}

#[test]
fn bytes_that_are_no_record_are_dead_letters_or_stop_the_job() {
    let folder = Folder::new("log-malformed");
    let good = |n: u64| {
        let mut value = vec![];
        log::Codec::encode(&mut log::states::<u64>(), &n, &mut value).unwrap();
        (0, value)
    };
    let values = [good(1), (0, b"none".to_vec()), good(3)];
    append(&folder.path().join("log"), 1, values.into_iter());
    for stops in [false, true] {
        let (rows, sink) = testing::collect();
        let (dead, letters) = testing::collect();
        let job = Job::new("read");
        let source = from(folder.path()).until_end();
        let source = if stops {
            source.fail_on_malformed()
        } else {
            source
        };
        job.source(source).sink(sink);
        job.dead_letters_to::<_>(letters);
        let ended = Stepper::new(&job, 1).unwrap().run();
        match stops {
            false => {
                ended.unwrap();
                assert_eq!(rows.take(), [1, 3]);
                let letter = dead.take()[0].to_string();
                assert!(
                    letter.contains("offset 1") && letter.contains("not written as u64"),
                    "{letter}"
                );
            }
            true => {
                let stopped = ended.unwrap_err().to_string();
                assert!(stopped.contains("not written as u64"), "{stopped}");
            }
        }
    }
}
