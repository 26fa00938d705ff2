//! The log as a sink: records are visible by epochs, exactly those that a checkpoint decided on.

use crate::rig::{History, Rig, Stop, cases, read, recover};
use pelton_storage::*;

const COMMITTED: Visibility = Visibility::Committed;

/// Epochs of some records each. The checkpoint is the model's: it decides between staging and committing, or the epoch is aborted
/// and folds into the next.
fn run(disk: &mut FaultyDisk, history: &mut History, epochs: u64) -> Result<(), Stop> {
    let decided: Vec<Staged> = history.decided.iter().cloned().collect();
    let mut rig = Rig::open(disk, COMMITTED, &decided)?;
    let first = history.staged.last().map_or(1, |s| s.epoch.0 + 1);
    for epoch in first..first + epochs {
        for _ in 0..1 + history.random.below(12) {
            rig.append_random(history)?;
        }
        let staged = rig.stage(history, Epoch(epoch))?;
        if history.random.below(4) == 0 {
            continue;
        }
        history.decided = Some(staged.clone());
        rig.commit(history, &staged)?;
        for (partition, end) in (0..).zip(&staged.ends) {
            assert_eq!(rig.log.visible_end(partition), *end);
        }
    }
    Ok(())
}

/// Readers see the decided epoch's records and none of a later one.
fn is_decided(ends: [u64; 2], history: &History, what: &str) {
    let decided = history.decided.as_ref();
    let expected = decided.map_or([0, 0], |s| [s.ends[0], s.ends[1]]);
    assert_eq!(ends, expected, "{what}: {decided:?}");
}

fn forget(history: &mut History, ends: [u64; 2]) {
    for (list, end) in history.partitions.iter_mut().zip(ends) {
        list.truncate(end as usize);
    }
}

#[test]
fn power_is_lost_at_every_operation() {
    let mut halts = 0;
    for at in 0.. {
        let mut disk = FaultyDisk::new(MemoryDisk::new())
            .with_shuffle(9)
            .with_halt(at);
        let mut history = History::new(9);
        if run(&mut disk, &mut history, 12).is_ok() {
            break;
        }
        halts += 1;
        for keep in [|_: usize| false, |_| true, |unit| unit % 2 == 0] {
            let what = format!("power lost at {at}");
            let mut left = disk.clone().crash(keep);
            let ends = recover(&mut left, COMMITTED, &history, &what);
            is_decided(ends, &history, &what);
        }
    }
    assert!(halts > 100, "{halts} halts");
}

/// Runs over what is left: offsets that were visible keep their records, those that never were are given out again.
#[test]
fn at_random_again_and_again() {
    let mut crashes = 0;
    for seed in 1..=cases(60) {
        let mut history = History::new(seed);
        let mut left = MemoryDisk::new();
        for round in 0..5 {
            let halt = history.random.below(250);
            let mut disk = FaultyDisk::new(left).with_shuffle(seed).with_halt(halt);
            crashes += u64::from(run(&mut disk, &mut history, 12).is_err());
            let mut random = history.random.clone();
            left = disk.crash(|_| random.below(2) == 0);
            history.random.below(2);
            let what = format!("seed {seed}, round {round}");
            let ends = recover(&mut left, COMMITTED, &history, &what);
            is_decided(ends, &history, &what);
            forget(&mut history, ends);
        }
    }
    assert!(crashes > 50, "{crashes} crashes");
}

#[test]
fn what_is_staged_is_not_seen_before_its_commit_and_goes_without_one() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(1);
    let mut rig = Rig::open(&mut disk, COMMITTED, &[]).expect("a new log");
    let key = Some(&b"k"[..]);
    rig.append(&mut history, 0, None, b"one").expect("taken");
    let one = rig.stage(&mut history, Epoch(1)).expect("staged");
    rig.append(&mut history, 0, key, b"two").expect("taken");
    assert_eq!(rig.log.visible_end(0), 0);
    rig.log.commit(&one).expect("not poisoned");
    assert_eq!(rig.log.visible_end(0), 0, "not before the index is durable");
    rig.commit(&mut history, &one).expect("committed");
    rig.commit(&mut history, &one).expect("again does nothing");
    assert_eq!(rig.log.visible_end(0), 1);
    let two = rig.stage(&mut history, Epoch(2)).expect("staged");
    assert_eq!((two.ends[0], rig.log.visible_end(0)), (2, 1));
    let mut now = rig.disk.memory().clone();
    let seen = read(&rig.log, PlainBytes::new(&mut now), 0, 0).expect("it reads");
    assert!(
        seen == history.partitions[0][..1],
        "readers see what is committed"
    );
    drop(rig);
    // A checkpoint had not decided on epoch 2. Its key is not known, its offset is free.
    let mut rig = Rig::open(&mut disk, COMMITTED, &[]).expect("it opens");
    assert_eq!((rig.log.next_offset(0), rig.log.committed()), (1, Epoch(1)));
    history.partitions[0].truncate(1);
    let again = rig.append(&mut history, 0, key, b"another").expect("taken");
    let offset = 1;
    assert_eq!(
        again,
        Appended::New(Position {
            partition: 0,
            offset
        })
    );
    let three = rig.stage(&mut history, Epoch(3)).expect("staged");
    drop(rig);
    // This time it had.
    assert_eq!(Staged::decode(&three.encode()), Ok(three.clone()));
    let rig = Rig::open(&mut disk, COMMITTED, std::slice::from_ref(&three)).expect("it opens");
    assert_eq!((rig.log.visible_end(0), rig.log.committed()), (2, Epoch(3)));
    let log = rig.log;
    let mut left = disk.kill();
    let found = read(&log, PlainBytes::new(&mut left), 0, 0).expect("it reads");
    assert!(found == history.partitions[0] && found[1].value == b"another");
    let lost = Staged {
        epoch: Epoch(4),
        ends: vec![3, 0],
    };
    let e = Log::open(&mut left, crate::rig::config(COMMITTED), &[lost]).expect_err("lost");
    assert_eq!(e.code(), "PLT-0515");
    let e = Log::open(&mut left, crate::rig::config(Visibility::Durable), &[]).expect_err("other");
    assert_eq!(e.code(), "PLT-0516");
}

/// More records than the horizon of keys are durable, and no index commits them: the process died between the job's checkpoint and
/// the log's index.
#[test]
fn more_undecided_records_than_the_horizon_do_not_keep_it_shut() {
    let narrow = || LogConfig {
        dedup_records: 1,
        ..crate::rig::config(COMMITTED)
    };
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(3);
    let mut rig = Rig::open(&mut disk, COMMITTED, &[]).expect("a new log");
    rig.append(&mut history, 0, Some(b"first"), b"1")
        .expect("taken");
    let one = rig.stage(&mut history, Epoch(1)).expect("staged");
    rig.commit(&mut history, &one).expect("committed");
    for key in 0..5u8 {
        rig.append(&mut history, 0, Some(&[key]), b"undecided")
            .expect("taken");
    }
    let two = rig.stage(&mut history, Epoch(2)).expect("staged");
    drop(rig);
    let log = Log::open_undecided(&mut disk, narrow()).expect("it opens");
    assert_eq!((log.visible_end(0), log.next_offset(0)), (1, 6));
    let mut rig = Rig {
        disk: &mut disk,
        log,
    };
    rig.commit(&mut history, &two).expect("it was decided");
    drop(rig);
    let log = Log::open(&mut disk, narrow(), &[]).expect("it opens");
    assert_eq!((log.visible_end(0), log.known_keys(0)), (6, 1));
}

#[test]
fn retention_keeps_what_nobody_could_see_yet() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(5);
    let mut rig = Rig::open(&mut disk, COMMITTED, &[]).expect("a new log");
    for _ in 0..150 {
        rig.append_random(&mut history).expect("taken");
    }
    let nothing = Retention {
        bytes_max: Some(0),
        age_us_max: None,
    };
    let staged = rig.stage(&mut history, Epoch(1)).expect("staged");
    assert_eq!(rig.log.retain(nothing, history.now_us), 0);
    rig.commit(&mut history, &staged).expect("committed");
    assert!(rig.log.retain(nothing, history.now_us) > 0);
}

/// Bytes that are no staged epoch allocate nothing large and say what is wrong.
#[test]
fn hostile_bytes() {
    let whole = Staged {
        epoch: Epoch(1),
        ends: vec![1, 2],
    };
    let whole = whole.encode();
    for len in 0..whole.len() {
        Staged::decode(&whole[..len]).expect_err("cut");
    }
    let mut hostile = whole;
    hostile[8..12].fill(0xff);
    Staged::decode(&hostile).expect_err("a count beyond the bytes");
}
