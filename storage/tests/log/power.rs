//! Power is lost, the process is killed, or operation N fails, and the log opens again: acknowledged records are there once and in order.

use crate::rig::{History, Rig, Stop, cases, config, recover};
use pelton_storage::*;

const DURABLE: Visibility = Visibility::Durable;

/// Appends, waits, drops old segments now and then, and ends when the disk does.
fn run(disk: &mut FaultyDisk, history: &mut History, records: u64) -> Result<(), Stop> {
    let mut rig = Rig::open(disk, DURABLE, &[])?;
    for n in 0..records {
        rig.append_random(history)?;
        for _ in 0..history.random.below(4) {
            rig.pump(history)?;
        }
        if n % 16 == 15 {
            let bytes_max = Some(60 << 10);
            let retention = Retention {
                bytes_max,
                age_us_max: None,
            };
            rig.log.retain(retention, history.now_us);
        }
        if history.random.below(30) == 0 {
            rig.log.mark();
        }
    }
    rig.settle(history)
}

/// As if this was all that was ever written: records beyond were never acknowledged.
fn forget(history: &mut History, ends: [u64; 2]) {
    for (list, end) in history.partitions.iter_mut().zip(ends) {
        list.truncate(end as usize);
    }
    history.acked = ends;
}

fn disk(seed: u64, left: MemoryDisk) -> FaultyDisk {
    FaultyDisk::new(left).with_shuffle(seed).with_queue(4)
}

#[test]
fn at_every_operation() {
    let mut halts = 0;
    for at in 0.. {
        let mut broken = disk(7, MemoryDisk::new()).with_halt(at);
        let mut history = History::new(7);
        if run(&mut broken, &mut history, 140).is_ok() {
            break;
        }
        assert_eq!(broken.faults(), 1);
        halts += 1;
        for keep in 0..4usize {
            let kept = |unit: usize| match keep {
                0 => false,
                1 => true,
                odd => unit % 2 == odd - 2,
            };
            let what = format!("power lost at {at}, kept {keep}");
            let mut left = broken.clone().crash(kept);
            let ends = recover(&mut left, DURABLE, &history, &what);
            // What the opened log said survives a second loss, of everything that it did not sync.
            left.crash(|_| false);
            let mut history = history.clone();
            forget(&mut history, ends);
            recover(&mut left, DURABLE, &history, &what);
        }
        let mut killed = broken.kill();
        let ends = recover(&mut killed, DURABLE, &history, &format!("killed at {at}"));
        forget(&mut history, ends);
        killed.crash(|_| false);
        recover(
            &mut killed,
            DURABLE,
            &history,
            &format!("killed at {at}, then power"),
        );
    }
    assert!(halts > 100, "{halts} halts");
}

/// Random runs that end anywhere, opening included, again and again over what is left.
#[test]
fn at_random_again_and_again() {
    let (mut crashes, mut acked) = (0, 0);
    for seed in 1..=cases(60) {
        let mut history = History::new(seed);
        let mut left = MemoryDisk::new();
        for round in 0..5 {
            let halt = history.random.below(250);
            let mut disk = disk(seed, left).with_halt(halt);
            crashes += u64::from(run(&mut disk, &mut history, 80).is_err());
            let mut random = history.random.clone();
            left = disk.crash(|_| random.below(2) == 0);
            history.random.below(2);
            let what = format!("seed {seed}, round {round}");
            let ends = recover(&mut left, DURABLE, &history, &what);
            forget(&mut history, ends);
            acked += ends[0] + ends[1];
        }
    }
    assert!(
        crashes > 50 && acked > 1000,
        "{crashes} crashes, {acked} records"
    );
}

fn fails(kind: FaultKind, for_ever: bool) {
    let mut struck = 0;
    let mut whole = disk(1, MemoryDisk::new());
    run(&mut whole, &mut History::new(1), 60).expect("nothing fails");
    for at in 0..whole.operations() {
        let fault = Fault { at, kind, for_ever };
        let mut disk = disk(1, MemoryDisk::new()).with_fault(fault);
        let mut history = History::new(1);
        let end = run(&mut disk, &mut history, 60);
        struck += u64::from(disk.faults() > 0);
        if let Err(Stop::Failed(e)) = end {
            assert!(disk.faults() > 0, "{fault:?}: {e} without a fault");
            assert!(e.is_retryable(), "{fault:?}: {e}");
        }
        let what = format!("{fault:?}");
        recover(&mut disk.clone().kill(), DURABLE, &history, &what);
        recover(&mut disk.clone().crash(|_| false), DURABLE, &history, &what);
        recover(&mut disk.crash(|_| true), DURABLE, &history, &what);
    }
    assert!(struck > 50, "only {struck} faults");
}

#[test]
fn an_io_error_once() {
    fails(FaultKind::Io, false);
}

#[test]
fn an_io_error_for_ever() {
    fails(FaultKind::Io, true);
}

#[test]
fn no_space_once() {
    fails(FaultKind::NoSpace, false);
}

#[test]
fn a_short_write() {
    fails(FaultKind::Short, false);
}

/// Writes that are refused direct from the first on: nothing fails, and each partition warns once.
#[test]
fn direct_writes_refused() {
    let kind = FaultKind::NotDirect;
    fails(kind, false);
    fails(kind, true);
    let fault = Fault {
        at: 0,
        kind,
        for_ever: true,
    };
    let mut disk = disk(1, MemoryDisk::new()).with_fault(fault);
    let mut history = History::new(1);
    let mut rig = Rig::open(&mut disk, DURABLE, &[]).expect("the manifest falls back");
    for _ in 0..120 {
        rig.append_random(&mut history).expect("partitions too");
    }
    rig.settle(&mut history).expect("nothing fails");
    let warnings = rig.log.take_warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .all(|w| matches!(w, Warning::Buffered { .. }))
    );
    assert_eq!(rig.disk.faults(), 3, "the manifest and two partitions");
    drop(rig);
    recover(&mut disk.crash(|_| false), DURABLE, &history, "refused");
}

/// A disk too small refuses clearly, loses nothing, and goes on when there is room.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let mut memory = MemoryDisk::new();
    let manifest = 140 << 10;
    memory.set_capacity(manifest + (70 << 10)); // two segments and the reserve
    let mut history = History::new(3);
    let mut log = Log::open(&mut memory, config(DURABLE), &[]).expect("a new log");
    let value = [1; 3000];
    let record = Record {
        key: None,
        value: &value,
    };
    let mut completions = Vec::new();
    let mut drive = |memory: &mut MemoryDisk, log: &mut Log, now_us| {
        for _ in 0..50 {
            log.step(memory, now_us);
            memory.poll(&mut completions);
            for completion in completions.drain(..) {
                log.complete(completion).expect("nothing fails");
            }
        }
    };
    let refused = loop {
        history.now_us += 100;
        match log.append(0, record, history.now_us) {
            Ok(_) => {}
            Err(Refused::Busy) => {}
            Err(Refused::Failed(e)) => break e,
        }
        drive(&mut memory, &mut log, history.now_us);
    };
    assert_eq!(refused.code(), "PLT-0507");
    assert_eq!(log.no_space(), Some(refused), "who waits is told as well");
    let appended = log.next_offset(0);
    assert!(
        log.durable_end(0) < appended,
        "the last ones wait in memory"
    );
    memory.set_capacity(1 << 30);
    log.retry_space();
    drive(&mut memory, &mut log, history.now_us + 100);
    assert_eq!(log.no_space(), None);
    assert_eq!(log.durable_end(0), appended);
}
