//! Power is lost at operation N, and any subset of what was not synced stays.

use crate::rig::{History, Random, Rig, cases, recover, recover_and_go_on, run};
use pelton_storage::*;

/// All subsets of so many units; beyond that, all of these and none or all of the others.
const UNITS: usize = 6;

fn every_subset(disk: &FaultyDisk, history: &History, what: &str) -> u64 {
    let unsynced = disk.unsynced();
    let some = unsynced.len().min(UNITS);
    for mask in 0..1u32 << some {
        for rest in [false, true] {
            if rest && unsynced.len() <= UNITS {
                continue;
            }
            // The units that differ are the last: those of the newest files, and the folder's changes.
            let first = unsynced.len() - some;
            let keep = |unit: usize| match unit.checked_sub(first) {
                Some(bit) => mask >> bit & 1 == 1,
                None => rest,
            };
            let left = disk.clone().crash(keep);
            recover(
                left,
                history,
                &format!("{what}, {mask:06b} of {unsynced:?}"),
            );
        }
    }
    1 << some
}

#[test]
fn at_every_operation_with_every_subset() {
    let (mut halts, mut subsets, mut most) = (0, 0, 0);
    for (seed, shards) in [(3, 1), (4, 2)] {
        for at in 0.. {
            let memory = MemoryDisk::new().with_sector(ALIGN);
            let mut disk = FaultyDisk::new(memory).with_shuffle(seed).with_halt(at);
            let mut history = History::new(seed);
            if run(&mut disk, &mut history, shards, 7).is_ok() {
                break;
            }
            assert_eq!(disk.faults(), 1);
            halts += 1;
            most = most.max(disk.unsynced().len());
            let what = format!("seed {seed}, power lost at {at}");
            subsets += every_subset(&disk, &history, &what);
            recover_and_go_on(disk.crash(|unit| unit % 2 == 0), &history, shards, &what);
        }
    }
    assert!(
        halts > 100 && subsets > 1000,
        "{halts} halts, {subsets} subsets"
    );
    println!("{halts} halts, {subsets} subsets, at most {most} units unsynced");
}

/// Sectors of 512 bytes, random runs, random subsets, and again while it recovers.
#[test]
fn at_random_again_and_again() {
    let mut crashes = 0;
    // 568 once retired a segment that its shard went on writing to, 1321 took the name of an unfinished manifest again.
    for seed in (1..=cases(60)).chain([568, 1321]) {
        let mut random = Random(seed);
        let mut history = History::new(seed);
        let mut left = MemoryDisk::new();
        for round in 0..4 {
            let halt = random.below(150);
            let shards = 1 + random.below(3) as u32;
            let mut disk = FaultyDisk::new(left).with_shuffle(seed).with_halt(halt);
            let ended = run(&mut disk, &mut history, shards, 5);
            crashes += u64::from(ended.is_err());
            left = disk.crash(|_| random.below(2) == 0);
            let what = format!("seed {seed}, round {round}");
            let epoch = recover(left.clone(), &history, &what);
            history.map = history.at[&epoch].clone();
            // Whatever is newer than the epoch that was found has never been.
            history.at.retain(|e, _| *e <= epoch);
            let mut begun = history.begun.clone();
            begun.sort_unstable();
            begun.dedup();
            assert_eq!(begun.len(), history.begun.len(), "{what}: an epoch twice");
        }
    }
    assert!(crashes > 0);
}

/// A record that was written and not synced when the process died must not be believed first and lost later.
#[test]
fn what_an_opened_store_says_survives_a_loss_of_power() {
    let mut seen = 0;
    for at in 0..200 {
        let mut disk = FaultyDisk::new(MemoryDisk::new()).with_halt(at);
        let mut history = History::new(5);
        if run(&mut disk, &mut history, 1, 4).is_ok() {
            break;
        }
        let mut disk = FaultyDisk::new(disk.kill());
        let Ok(rig) = Rig::open(&mut disk, 1) else {
            panic!("the process died at {at} and the store does not open");
        };
        history.acked = rig.store.last().map_or(0, |c| c.epoch.0);
        seen += u64::from(rig.store.last().is_some());
        drop(rig);
        recover(
            disk.crash(|_| false),
            &history,
            &format!("killed at {at}, then power lost"),
        );
    }
    assert!(seen > 10);
}
