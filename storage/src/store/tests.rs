use super::*;
use crate::disk::{BlockingDisk, MemoryDisk, Mode};
use crate::id::Lineage;

fn config() -> StoreConfig {
    StoreConfig {
        owner: 0,
        retained: 2,
        lineage_if_new: Lineage([3; 16]),
        direct: true,
    }
}

fn drive(disk: &mut MemoryDisk, store: &mut Store) {
    let mut completions = Vec::new();
    for _ in 0..100 {
        store.step(disk);
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            store.complete(completion).unwrap();
        }
    }
}

/// A commit that stands on segment files of one page each.
fn commit(disk: &mut MemoryDisk, store: &mut Store, new: &[u32], retired: &[u32]) -> Epoch {
    let id = |number: &u32| SegmentId {
        attempt: 1,
        number: *number,
        shard: 0,
    };
    for number in new {
        let op = Op::Open {
            name: id(number).file_name(),
            mode: Mode::Create,
            direct: false,
        };
        let Ok(crate::Done::Opened { file, .. }) = disk.call(op) else {
            panic!("it is created");
        };
        disk.call(Op::Truncate { file, len: 4096 }).unwrap();
    }
    let epoch = store.begin_epoch().unwrap();
    let extents = new.iter().map(|n| Extent {
        segment: id(n),
        len: 4096,
    });
    let sealed = vec![Sealed {
        epoch,
        extents: extents.collect(),
    }];
    store
        .commit(Commit {
            epoch,
            sealed,
            retired: retired.iter().map(id).collect(),
            sections: BTreeMap::new(),
        })
        .unwrap();
    drive(disk, store);
    assert_eq!(store.take_committed(), Some(epoch));
    epoch
}

fn segments(disk: &MemoryDisk) -> Vec<u32> {
    let names = disk.names();
    let ids = names.iter().filter_map(|n| SegmentId::parse(n));
    ids.map(|s| s.number).collect()
}

#[test]
fn a_segment_goes_when_nothing_names_it() {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, config()).unwrap();
    commit(&mut disk, &mut store, &[0], &[]);
    commit(&mut disk, &mut store, &[1], &[0]);
    assert_eq!(
        segments(&disk),
        [0, 1],
        "the checkpoint before still names it"
    );
    let second = store.last().unwrap().epoch;
    let (pin, checkpoint) = store.pin(second).unwrap();
    assert_eq!(checkpoint.segments.len(), 1);
    commit(&mut disk, &mut store, &[2], &[1]);
    assert_eq!((segments(&disk), store.segments_removed()), (vec![1, 2], 1));
    commit(&mut disk, &mut store, &[3], &[2]);
    assert_eq!(segments(&disk), [1, 2, 3], "pinned");
    assert!(store.pin(second).is_none(), "no longer retained");
    store.unpin(pin);
    assert!(!store.is_idle());
    drive(&mut disk, &mut store);
    assert_eq!((segments(&disk), store.is_idle()), (vec![2, 3], true));
}

/// All entries of a shard are gone, so all its segments are retired; then it writes on in the one that it had.
#[test]
fn a_segment_that_is_still_written_to_stays() {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, config()).unwrap();
    commit(&mut disk, &mut store, &[0, 1], &[]);
    for _ in 0..4 {
        commit(&mut disk, &mut store, &[], &[0, 1]);
    }
    assert_eq!(segments(&disk), [1], "0 is no longer written to");
    commit(&mut disk, &mut store, &[2], &[1]);
    commit(&mut disk, &mut store, &[], &[]);
    assert_eq!(segments(&disk), [2]);
}

#[test]
fn epochs_run_out_and_are_set_aside_again() {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, config()).unwrap();
    for n in 1..=EPOCHS_AHEAD {
        assert_eq!(store.begin_epoch(), Ok(Epoch(n)));
    }
    assert_eq!(store.begin_epoch().unwrap_err().code(), "PLT-0513");
    store.reserve_epochs().unwrap();
    drive(&mut disk, &mut store);
    assert_eq!(store.take_committed(), None);
    assert_eq!(store.begin_epoch(), Ok(Epoch(EPOCHS_AHEAD + 1)));
    disk.crash(|_| false);
    let mut store = Store::open(&mut disk, config()).unwrap();
    assert!(store.begin_epoch().unwrap() > Epoch(EPOCHS_AHEAD + 1));
    assert_eq!(store.manifest().attempt, 2);
}

/// Sections that outgrow the slots, up and down, over several files.
#[test]
fn records_of_all_lengths() {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, config()).unwrap();
    for len in [10, 20_000, 5, 100_000, 300_000, 7, 300_001] {
        let epoch = store.begin_epoch().unwrap();
        let sections = BTreeMap::from([("s".to_string(), vec![9; len])]);
        let commit = Commit {
            epoch,
            sections,
            ..Commit::default()
        };
        store.commit(commit).unwrap();
        drive(&mut disk, &mut store);
        assert_eq!(store.take_committed(), Some(epoch));
        let mut left = disk.clone();
        left.crash(|_| false);
        let opened = Store::open(&mut left, config()).unwrap();
        assert_eq!(opened.last().unwrap().sections["s"].len(), len);
        let manifests = left
            .names()
            .iter()
            .filter(|n| n.starts_with("manifest"))
            .count();
        assert_eq!(manifests, 1, "{:?}", left.names());
    }
}

#[test]
fn a_record_too_long_is_refused_and_nothing_is_staged() {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, config()).unwrap();
    let epoch = store.begin_epoch().unwrap();
    let sections = BTreeMap::from([("s".to_string(), vec![9; SLOT_MAX])]);
    let commit = Commit {
        epoch,
        sections,
        ..Commit::default()
    };
    assert_eq!(store.commit(commit).unwrap_err().code(), "PLT-0510");
    assert!(!store.is_committing() && store.poison().check().is_ok());
}

#[test]
fn space_allocated_by_an_earlier_attempt_is_given_back() {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, config()).unwrap();
    commit(&mut disk, &mut store, &[0], &[]);
    let name = store.last().unwrap().segments[0].segment.file_name();
    disk.damage(&name, |bytes| bytes.resize(1 << 20, 0));
    Store::open(&mut disk, config()).unwrap();
    assert_eq!(disk.content(&name).unwrap().len(), 4096);
}
