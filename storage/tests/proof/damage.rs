//! Committed data is changed: every byte, every sector.

use crate::rig::{History, Rig, read, store_config};
use pelton_storage::*;

/// A store whose one segment holds 64 KiB of committed blocks.
fn store() -> (MemoryDisk, History, String, usize) {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(21);
    let mut config = crate::rig::writer_config(0);
    config.segment_bytes = 256 << 10;
    let mut rig = Rig::open(&mut disk, 1).expect("a new store");
    rig.writers[0] = rig.store.writer(0, config);
    while rig
        .store
        .last()
        .is_none_or(|c| c.segments[0].len < 64 << 10)
    {
        rig.epoch(&mut history, true).expect("nothing fails");
    }
    let extent = rig.store.last().expect("committed").segments[0];
    drop(rig);
    let name = extent.segment.file_name();
    (disk.crash(|_| false), history, name, extent.len as usize)
}

/// What reading the damaged store says. Opening does not read blocks, so it succeeds.
fn outcome(
    disk: &mut MemoryDisk,
    store: &Store,
    expected: &crate::rig::Map,
) -> Option<StorageError> {
    match read(disk, store) {
        Err(e) => Some(e),
        Ok((_, map)) => {
            assert!(map == *expected, "a wrong record was read");
            None
        }
    }
}

fn is_named(e: &StorageError, file: &str, epoch: Epoch) {
    match e {
        StorageError::Damaged {
            file: f, epoch: e, ..
        } => assert!(f == file && *e == epoch, "{f} {e}"),
        other => panic!("not an error of damage: {other}"),
    }
}

#[test]
fn every_byte_of_a_segment() {
    let (mut disk, history, name, len) = store();
    let store = Store::open(&mut disk, store_config()).expect("it opens");
    let epoch = store.last().expect("committed").epoch;
    let map = history.map;
    assert_eq!(outcome(&mut disk, &store, &map), None);
    for at in 0..len {
        let flip = 1u8 << (at % 8);
        disk.damage(&name, |bytes| bytes[at] ^= flip);
        let e = outcome(&mut disk, &store, &map);
        let e = e.unwrap_or_else(|| panic!("byte {at} changed and nobody noticed"));
        is_named(&e, &name, epoch);
        disk.damage(&name, |bytes| bytes[at] ^= flip);
    }
    assert_eq!(outcome(&mut disk, &store, &map), None);
}

#[test]
fn every_sector_of_a_segment() {
    let (mut disk, history, name, len) = store();
    let store = Store::open(&mut disk, store_config()).expect("it opens");
    let epoch = store.last().expect("committed").epoch;
    let whole = disk.content(&name).expect("it is there");
    let mut damaged = 0;
    for at in (0..len).step_by(512) {
        if whole[at..at + 512].iter().all(|&b| b == 0) {
            continue; // the end of a header page or a pad: nothing changes
        }
        disk.damage(&name, |bytes| bytes[at..at + 512].fill(0));
        let e = outcome(&mut disk, &store, &history.map);
        is_named(&e.unwrap_or_else(|| panic!("sector at {at}")), &name, epoch);
        disk.damage(&name, |bytes| bytes.copy_from_slice(&whole));
        damaged += 1;
    }
    assert!(damaged > 60, "{damaged} sectors");
}

/// Each record has two copies on different pages, so one changed byte or sector costs nothing, and is told.
#[test]
fn every_byte_and_sector_of_the_manifest() {
    let (disk, history, _, _) = store();
    let names = disk.names();
    let name = names
        .iter()
        .rfind(|n| n.starts_with("manifest-"))
        .expect("there is one");
    let whole = disk.content(name).expect("it is there");
    let acked = history.acked;
    let check = |change: &dyn Fn(&mut Vec<u8>), what: String| {
        let mut disk = disk.clone();
        disk.damage(name, |bytes| change(bytes));
        let mut store = match Store::open(&mut disk, store_config()) {
            Ok(store) => store,
            Err(StorageError::Version { .. }) => return 1, // no flip of one bit makes a newer version that is whole
            Err(e) => panic!("{what}: {e}"),
        };
        assert_eq!(store.last().map(|c| c.epoch.0), Some(acked), "{what}");
        u64::from(
            store
                .take_notes()
                .iter()
                .any(|n| matches!(n, Note::DamagedCopy { .. })),
        )
    };
    let mut told = 0;
    for at in 0..whole.len() {
        if whole[at] != 0 || at % 97 == 0 {
            told += check(&|bytes| bytes[at] ^= 1 << (at % 8), format!("byte {at}"));
        }
    }
    for at in (0..whole.len()).step_by(512) {
        told += check(
            &|bytes| bytes[at..at + 512].fill(0),
            format!("sector at {at}"),
        );
    }
    assert!(told > 100, "{told} told");
}

#[test]
fn a_file_that_is_gone_or_short_or_another_ones() {
    let (disk, _, name, len) = store();
    let open = |disk: &mut MemoryDisk| Store::open(disk, store_config()).map(|_| ());
    let mut short = disk.clone();
    short.damage(&name, |bytes| bytes.truncate(len - 1));
    let missing = open(&mut short).expect_err("it is too short");
    assert_eq!(
        (missing.code(), missing.to_string().contains(&name)),
        ("PLT-0505", true)
    );

    let mut gone = disk.clone();
    gone.call(Op::Remove { name: name.clone() })
        .expect("it was there");
    assert_eq!(open(&mut gone).expect_err("it is gone").code(), "PLT-0505");

    let mut bare = disk.clone();
    for manifest in disk
        .names()
        .into_iter()
        .filter(|n| n.starts_with("manifest-"))
    {
        bare.call(Op::Remove { name: manifest })
            .expect("it was there");
    }
    assert_eq!(open(&mut bare).expect_err("no manifest").code(), "PLT-0506");
}

/// A store by a later version is refused by name, and so is the record of one beside records of ours.
#[test]
fn a_newer_version() {
    let (mut disk, _, name, _) = store();
    let store = Store::open(&mut disk, store_config()).expect("it opens");
    disk.damage(&name, |bytes| {
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        let crc = crc(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    });
    let e = read(&mut disk, &store).expect_err("version 2");
    assert_eq!(e.code(), "PLT-0503");
    assert!(e.to_string().contains("segment format 2"), "{e}");

    let names = disk.names();
    let manifest = names
        .iter()
        .rfind(|n| n.starts_with("manifest-"))
        .expect("there is one");
    disk.damage(manifest, |bytes| {
        for page in [0, 4096] {
            bytes[page + 8..page + 12].copy_from_slice(&2u32.to_le_bytes());
            let crc = crc(&bytes[page..page + 4092]);
            bytes[page + 4092..page + 4096].copy_from_slice(&crc.to_le_bytes());
        }
    });
    let e = Store::open(&mut disk, store_config()).expect_err("version 2");
    assert!(e.to_string().contains("manifest format 2"), "{e}");
}

/// A later version ran on this store and then an earlier one is started: the records of ours that are still in the ring must not be
/// taken for the last.
#[test]
fn a_newer_record_beside_older_ones() {
    let (mut disk, history, _, _) = store();
    let names = disk.names();
    let manifest = names
        .iter()
        .rfind(|n| n.starts_with("manifest-"))
        .expect("there is one");
    let mut newer = 0;
    disk.damage(manifest, |bytes| {
        let sequence = |r: &[u8]| u64::from_le_bytes(r[16..24].try_into().expect("eight bytes"));
        let is_record = |r: &[u8]| r[..8] == pelton_storage::format::manifest::MAGIC;
        let records = bytes.chunks(ALIGN).filter(|r| is_record(r));
        let last = records.map(sequence).max().expect("there are some");
        for at in (0..bytes.len()).step_by(ALIGN) {
            let record = &mut bytes[at..];
            if !is_record(record) || sequence(record) != last {
                continue;
            }
            let body = u32::from_le_bytes(record[12..16].try_into().expect("four bytes"));
            record[8..12].copy_from_slice(&2u32.to_le_bytes());
            let mut guarded = record[..24].to_vec();
            guarded.extend(&record[28..32 + body as usize]);
            record[24..28].copy_from_slice(&crc(&guarded).to_le_bytes());
            newer += 1;
        }
    });
    assert!(
        newer == 2 && history.acked > 2,
        "both copies of one of several"
    );
    let e = Store::open(&mut disk, store_config()).expect_err("version 2");
    assert_eq!(e.code(), "PLT-0503");
}

/// CRC32C bit by bit: apart from the crate that the store uses, so that the format is what the document says.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}
