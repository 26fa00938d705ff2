//! Operation N fails, for every N of a run of several epochs.

use crate::rig::{History, Rig, Stop, recover_and_go_on, run};
use pelton_storage::*;

const EPOCHS: u64 = 7;

fn disk(seed: u64) -> FaultyDisk {
    FaultyDisk::new(MemoryDisk::new())
        .with_shuffle(seed)
        .with_queue(3)
}

fn operations(seed: u64, shards: u32) -> u64 {
    let mut disk = disk(seed);
    let mut history = History::new(seed);
    run(&mut disk, &mut history, shards, EPOCHS).expect("nothing fails");
    assert!(disk.faults() == 0 && disk.operations() > 50);
    disk.operations()
}

fn fails(kind: FaultKind, for_ever: bool) {
    let mut struck = 0;
    for (seed, shards) in [(1, 1), (2, 2)] {
        for at in 0..operations(seed, shards) {
            let fault = Fault { at, kind, for_ever };
            let what = format!("seed {seed}, {fault:?}");
            let mut disk = disk(seed).with_fault(fault);
            let mut history = History::new(seed);
            let end = run(&mut disk, &mut history, shards, EPOCHS);
            struck += u64::from(disk.faults() > 0);
            match end {
                // A fault that does no harm: a file that could not be removed, an operation that was not of its kind.
                Ok(()) => {}
                Err(Stop::Failed(e)) => {
                    assert!(disk.faults() > 0, "{what}: {e} without a fault");
                    assert!(e.is_retryable(), "{what}: {e}");
                }
                Err(Stop::Halted) => unreachable!("nothing halts"),
            }
            // The process starts again on a disk that is well; then the same after a loss of power.
            recover_and_go_on(disk.clone().kill(), &history, 3 - shards, &what);
            recover_and_go_on(disk.clone().crash(|_| false), &history, shards, &what);
            recover_and_go_on(disk.crash(|_| true), &history, shards, &what);
        }
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
fn no_space_for_ever() {
    fails(FaultKind::NoSpace, true);
}

#[test]
fn a_short_write_once() {
    fails(FaultKind::Short, false);
}

#[test]
fn short_writes_for_ever() {
    fails(FaultKind::Short, true);
}

#[test]
fn direct_writes_refused_once() {
    refused_direct(false);
}

#[test]
fn direct_writes_refused_for_ever() {
    refused_direct(true);
}

/// Refused from the first write on, nothing fails: every file is written through the page cache, and each shard warns once. Refused later,
/// after direct writes were taken, it is an error like others.
fn refused_direct(for_ever: bool) {
    let kind = FaultKind::NotDirect;
    fails(kind, for_ever);
    for (seed, shards) in [(1, 1), (2, 2)] {
        let mut disk = disk(seed).with_fault(Fault {
            at: 0,
            kind,
            for_ever,
        });
        let mut history = History::new(seed);
        let mut rig = Rig::open(&mut disk, shards).expect("the manifest falls back");
        for n in 1..=4 * EPOCHS {
            rig.epoch(&mut history, n % 3 == 0).expect("shards too");
        }
        let last = rig.store.last().expect("committed");
        assert!(last.segments.iter().any(|e| e.segment.number > 0));
        let warned = |w: &Warning| matches!(w, Warning::Buffered { .. });
        for writer in &mut rig.writers {
            let warnings = writer.take_warnings();
            assert_eq!(
                warnings.iter().filter(|w| warned(w)).count(),
                usize::from(for_ever)
            );
        }
        // Once for the manifest, and for ever once for each shard as well: nobody asks twice.
        let expected = if for_ever { 1 + u64::from(shards) } else { 1 };
        assert_eq!(rig.disk.faults(), expected);
        drop(rig);
        recover_and_go_on(disk.crash(|_| false), &history, shards, "refused direct");
    }
}
