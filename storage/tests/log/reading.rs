//! Readers, retention and idempotency keys.

use crate::rig::{History, Random, Rig, config, read, read_on};
use pelton_storage::*;

const DURABLE: Visibility = Visibility::Durable;

/// A settled log of so many records.
fn filled(disk: &mut FaultyDisk, records: usize) -> (Rig<'_>, History) {
    let mut history = History::new(2);
    let mut rig = Rig::open(disk, DURABLE, &[]).expect("a new log");
    for _ in 0..records {
        rig.append_random(&mut history).expect("nothing fails");
    }
    rig.settle(&mut history).expect("nothing fails");
    (rig, history)
}

#[test]
fn from_every_offset_and_from_every_time() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let (rig, history) = filled(&mut disk, 120);
    let log = rig.log;
    let mut memory = disk.kill();
    let list = &history.partitions[0];
    for from in 0..=list.len() {
        let found = read(&log, PlainBytes::new(&mut memory), 0, from as u64).expect("it reads");
        assert!(found == list[from..], "from {from}");
    }
    let last = list.last().expect("some").arrived_us;
    for time in 990..last + 3 {
        let at = Position {
            partition: 0,
            offset: 0,
        };
        let mut reader = log
            .reader(PlainBytes::new(&mut memory), at)
            .expect("it is there");
        let found = reader.seek_time(time).expect("it seeks");
        let expected = list.partition_point(|w| w.arrived_us < time);
        assert_eq!(found, expected as u64, "time {time}");
        assert!(read_on(&mut reader).expect("it reads") == list[expected..]);
    }
    let beyond = Position {
        partition: 0,
        offset: list.len() as u64 + 1,
    };
    let e = log
        .reader(PlainBytes::new(&mut memory), beyond)
        .expect_err("beyond");
    assert_eq!(e.code(), "PLT-0514");
}

/// Real files: a reader that follows the tail gets every record once while the log goes on and rolls; mapped, and after opening, the
/// same.
#[test]
fn real_files() {
    let name = format!("pelton-log-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = std::fs::remove_dir_all(&folder); // left by a test that was killed
    let mut disk = StdDisk::blocking(&folder).expect("a disk");
    let mut log = Log::open(&mut disk, config(DURABLE), &[]).expect("a new log");
    let mut completions = Vec::new();
    let mut random = Random(4);
    let mut values = Vec::new();
    let mut other = StdDisk::blocking(&folder).expect("a disk");
    let at = Position {
        partition: 0,
        offset: 0,
    };
    let mut follower = log
        .reader(PlainBytes::new(&mut other), at)
        .expect("it is there");
    let mut followed = Vec::new();
    for n in 0..200u32 {
        let mut value = n.to_le_bytes().to_vec();
        value.resize(4 + random.below(900) as usize, 7);
        let record = Record {
            key: None,
            value: &value,
        };
        while log.append(0, record, i64::from(n)) == Err(Refused::Busy) {
            log.step(&mut disk, i64::from(n));
            disk.wait().expect("the helper lives");
            disk.poll(&mut completions);
            for completion in completions.drain(..) {
                log.complete(completion).expect("it is written");
            }
        }
        values.push(value);
        follower.update(log.view(0));
        followed.extend(read_on(&mut follower).expect("it reads"));
    }
    while !log.is_idle() {
        log.step(&mut disk, i64::MAX);
        disk.wait().expect("the helper lives");
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion).expect("it is written");
        }
    }
    follower.update(log.view(0));
    followed.extend(read_on(&mut follower).expect("it reads"));
    let mapped = read(&log, MappedBytes::new(&folder), 0, 0).expect("it maps");
    assert!(followed == mapped && mapped.len() == 200);
    assert!(mapped.iter().map(|w| &w.value).eq(&values));
    drop((log, disk));
    let mut disk = StdDisk::blocking(&folder).expect("a disk");
    let log = Log::open(&mut disk, config(DURABLE), &[]).expect("it opens");
    let again = read(&log, PlainBytes::new(&mut disk), 0, 0).expect("it reads");
    assert!(again == mapped);
    std::fs::remove_dir_all(&folder).expect("it is there");
}

#[test]
fn retention_takes_whole_old_segments_that_nobody_pinned() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let (mut rig, mut history) = filled(&mut disk, 300);
    let by_size = Retention {
        bytes_max: Some(60 << 10),
        age_us_max: None,
    };
    let files = |rig: &Rig<'_>| rig.disk.memory().names().len();
    let (before, pinned) = (
        files(&rig),
        Position {
            partition: 0,
            offset: 2,
        },
    );
    let pin = rig.log.pin(pinned).expect("it is there");
    let dropped = rig.log.retain(by_size, history.now_us);
    assert!(dropped > 1 && rig.log.start(0) == 0 && rig.log.start(1) > 0);
    assert_eq!(files(&rig), before, "not before the index is durable");
    rig.settle(&mut history).expect("nothing fails");
    assert_eq!(files(&rig), before - dropped);
    // The pin moves on, and lets what is behind it go.
    rig.log.advance_pin(pin, 100);
    assert!(rig.log.retain(by_size, history.now_us) > 0);
    let start = rig.log.start(0);
    assert!((1..=100).contains(&start), "{start}");
    assert_eq!(rig.log.pin(pinned), None, "gone");
    rig.settle(&mut history).expect("nothing fails");
    let by_age = Retention {
        bytes_max: None,
        age_us_max: Some(0),
    };
    assert_eq!(rig.log.retain(Retention::default(), i64::MAX), 0);
    rig.log.retain(by_age, i64::MAX);
    assert!((start..=100).contains(&rig.log.start(0)), "still pinned");
    rig.log.unpin(pin);
    rig.log.retain(by_age, i64::MAX);
    rig.settle(&mut history).expect("nothing fails");
    let (start, end) = (rig.log.start(0), rig.log.visible_end(0));
    assert!(start > 100 && start < end, "the last segment stays");
    drop(rig);
    // What is left is there after opening, under the same offsets.
    let mut memory = disk.kill();
    let log = Log::open(&mut memory, config(DURABLE), &[]).expect("it opens");
    assert_eq!((log.start(0), log.visible_end(0)), (start, end));
    let found = read(&log, PlainBytes::new(&mut memory), 0, start).expect("it reads");
    assert!(found == history.partitions[0][start as usize..]);
    let e = read(&log, PlainBytes::new(&mut memory), 0, start - 1).expect_err("gone");
    assert_eq!(e.code(), "PLT-0514");
}

#[test]
fn keys_are_known_within_the_horizon_and_after_opening() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(6);
    let mut rig = Rig::open(&mut disk, DURABLE, &[]).expect("a new log");
    let at = |offset| Position {
        partition: 0,
        offset,
    };
    for n in 0..100u64 {
        let key = n.to_le_bytes();
        let first = rig
            .append(&mut history, 0, Some(&key), b"v")
            .expect("taken");
        assert_eq!(first, Appended::New(at(n)));
        let again = rig
            .append(&mut history, 0, Some(&key), b"v")
            .expect("known");
        assert_eq!(
            again,
            Appended::Duplicate(at(n)),
            "before it is durable too"
        );
    }
    rig.settle(&mut history).expect("nothing fails");
    for opened in 0..2 {
        assert_eq!(rig.log.known_keys(0), 40);
        for n in 60..100u64 {
            let known = rig.append(&mut history, 0, Some(&n.to_le_bytes()), b"v");
            assert_eq!(
                known.expect("known"),
                Appended::Duplicate(at(n)),
                "{opened}"
            );
        }
        rig = {
            let Rig { disk, log } = rig;
            drop(log);
            Rig::open(disk, DURABLE, &[]).expect("it opens")
        };
    }
    let forgotten = rig.append(&mut history, 0, Some(&59u64.to_le_bytes()), b"v");
    assert_eq!(forgotten.expect("taken"), Appended::New(at(100)));
    let elsewhere = rig.append(&mut history, 1, Some(&99u64.to_le_bytes()), b"v");
    assert!(
        matches!(elsewhere.expect("taken"), Appended::New(_)),
        "a key is its partition's"
    );
    let empty = rig.append(&mut history, 0, Some(b""), b"v").expect("taken");
    assert_eq!(empty, Appended::New(at(101)));
    let empty = rig.append(&mut history, 0, Some(b""), b"v").expect("known");
    assert_eq!(empty, Appended::Duplicate(at(101)));
}

/// Many appends share a sync; a group goes when its bytes or its time are full, and not before.
#[test]
fn groups() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(8);
    let mut rig = Rig::open(&mut disk, DURABLE, &[]).expect("a new log");
    let append = |rig: &mut Rig<'_>, now_us, len| {
        let value = vec![1; len];
        let record = Record {
            key: None,
            value: &value,
        };
        rig.log.append(0, record, now_us).expect("taken").position()
    };
    let first = append(&mut rig, 1_000, 10);
    let last = append(&mut rig, 1_005, 10);
    assert_eq!(rig.log.due_us(), Some(1_010));
    for _ in 0..30 {
        history.now_us = 1_009;
        rig.pump(&mut history).expect("nothing fails");
    }
    assert_eq!((rig.log.groups(), rig.log.is_durable(first)), (0, false));
    for _ in 0..30 {
        history.now_us = 1_010;
        rig.pump(&mut history).expect("nothing fails");
    }
    assert!(rig.log.is_durable(first) && rig.log.is_durable(last));
    assert_eq!((rig.log.groups(), rig.log.due_us()), (1, None));
    append(&mut rig, 1_011, 7 << 10);
    for _ in 0..30 {
        history.now_us = 1_011;
        rig.pump(&mut history).expect("nothing fails");
    }
    assert_eq!(
        (rig.log.groups(), rig.log.durable_end(0)),
        (2, 3),
        "by bytes"
    );
    let long = vec![0; 8 << 10];
    let record = Record {
        key: None,
        value: &long,
    };
    let Err(Refused::Failed(e)) = rig.log.append(0, record, 1_012) else {
        panic!("longer than a batch");
    };
    assert_eq!(e.code(), "PLT-0509");
}

/// A clock that is set back does not hide records from who seeks by time.
#[test]
fn time_never_runs_backwards() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(1);
    let mut rig = Rig::open(&mut disk, DURABLE, &[]).expect("a new log");
    for now_us in [5_000, 4_000, 6_000, -1] {
        let record = Record {
            key: None,
            value: b"v",
        };
        rig.log.append(0, record, now_us).expect("taken");
    }
    history.now_us = 10_000;
    rig.settle(&mut history).expect("nothing fails");
    let mut now = rig.disk.memory().clone();
    let found = read(&rig.log, PlainBytes::new(&mut now), 0, 0).expect("it reads");
    let times: Vec<i64> = found.iter().map(|w| w.arrived_us).collect();
    assert_eq!(times, [5_000, 5_000, 6_000, 6_000]);
}
