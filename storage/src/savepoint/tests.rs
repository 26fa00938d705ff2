use super::*;
use crate::disk::{FaultyDisk, MemoryDisk};
use crate::format::block::{BlockHead, Frame};
use crate::id::{KeyGroup, StateId};
use crate::reader::PlainBytes;
use std::collections::BTreeMap;

const LINEAGE: Lineage = Lineage([4; 16]);

/// A folder with one segment of 100 blocks, and the checkpoint that names it.
fn source() -> (MemoryDisk, Checkpoint) {
    let mut disk = MemoryDisk::new();
    let segment = SegmentId {
        attempt: 3,
        number: 2,
        shard: 1,
    };
    let mut buffer = Buffer::with_capacity(0);
    let header = SegmentHeader {
        lineage: LINEAGE,
        id: segment,
        first_epoch: Epoch(1),
    };
    header.encode(&mut buffer);
    for n in 0..100u8 {
        let start = buffer.len();
        block::begin(&mut buffer);
        let frame = Frame {
            epoch: Epoch(5),
            key: &[n],
            value: Some(&[n; 200]),
        };
        block::append(&mut buffer, &frame);
        let head = BlockHead {
            epoch: Epoch(5),
            state: StateId(1),
            group: KeyGroup(0),
        };
        block::finish(&mut buffer, start, head, 1, block::KIND_FRAMES);
    }
    block::fill_up(&mut buffer, ALIGN, Epoch(5));
    let len = buffer.len() as u64;
    let op = Op::Open {
        name: segment.file_name(),
        mode: Mode::Create,
        direct: false,
    };
    let Ok(Done::Opened { file, .. }) = disk.call(op) else {
        panic!("it is created");
    };
    let op = Op::Write {
        file,
        offset: 0,
        buffer,
    };
    disk.call(op).unwrap();
    let checkpoint = Checkpoint {
        epoch: Epoch(5),
        segments: vec![Extent { segment, len }],
        sections: BTreeMap::from([("positions".into(), vec![1, 2, 3])]),
    };
    (disk, checkpoint)
}

fn write(disk: &mut FaultyDisk) -> Result<SavepointReport, StorageError> {
    let (mut from, checkpoint) = source();
    let source = PlainBytes::new(&mut from);
    let reader = SnapshotReader::new(source, LINEAGE, &checkpoint, Filter::default());
    Savepoint::write(reader, LINEAGE, &checkpoint, disk)
}

/// Power is lost at every operation: either there is no savepoint, or it is whole.
#[test]
fn all_or_nothing() {
    let (mut none, mut whole) = (0, 0);
    for at in 0..40 {
        let memory = MemoryDisk::new().with_sector(ALIGN * 4);
        let mut disk = FaultyDisk::new(memory).with_halt(at);
        let written = write(&mut disk).is_ok();
        let units = disk.unsynced().len();
        assert!(units <= 10, "{units} units have too many subsets");
        for mask in 0..1u32 << units {
            let mut left = disk.clone().crash(|unit| mask >> unit & 1 == 1);
            match Savepoint::open(&mut left, "there") {
                Ok(savepoint) => {
                    let source = PlainBytes::new(&mut left);
                    let totals = savepoint.reader(source, Filter::default()).verify();
                    assert_eq!(totals.unwrap().puts, 100);
                    whole += 1;
                }
                Err(e) => {
                    assert!(!written && e.code() == "PLT-0511", "halt at {at}: {e}");
                    none += 1;
                }
            }
        }
    }
    assert!(none > 20 && whole > 5, "{none} none, {whole} whole");
}

#[test]
fn a_folder_with_anything_in_it_is_refused() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    write(&mut disk).unwrap();
    assert_eq!(write(&mut disk).unwrap_err().code(), "PLT-0512");
}

/// Either copy of the record is enough; without both it is damage, not absence.
#[test]
fn one_copy_is_enough() {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    write(&mut disk).unwrap();
    let whole = disk.kill();
    let half = whole.content(FILE).unwrap().len() / 2;
    for at in 0..2 * half {
        let mut damaged = whole.clone();
        damaged.damage(FILE, |bytes| bytes[at] ^= 4);
        Savepoint::open(&mut damaged, "there").unwrap();
    }
    let mut damaged = whole;
    damaged.damage(FILE, |bytes| {
        bytes[40] ^= 1;
        bytes[half + 40] ^= 1;
    });
    let e = Savepoint::open(&mut damaged, "there").unwrap_err();
    assert_eq!(e.code(), "PLT-0504");
}

/// Every write is refused direct: found out once, and the savepoint is whole.
#[test]
fn direct_writes_refused() {
    let fault = crate::Fault {
        at: 0,
        kind: crate::FaultKind::NotDirect,
        for_ever: true,
    };
    let mut disk = FaultyDisk::new(MemoryDisk::new()).with_fault(fault);
    write(&mut disk).unwrap();
    assert_eq!(disk.faults(), 1);
    let mut left = disk.crash(|_| false);
    let savepoint = Savepoint::open(&mut left, "there").unwrap();
    let source = PlainBytes::new(&mut left);
    let totals = savepoint.reader(source, Filter::default()).verify();
    assert_eq!(totals.unwrap().puts, 100);
}
