//! The tail is cut at every byte, what is durable is changed at every byte, and lengths lie.

use crate::rig::{History, LINEAGE, Rig, Stop, config, read, recover};
use pelton_storage::format::log::{Batch, Index, SECTION, peek};
use pelton_storage::*;

const DURABLE: Visibility = Visibility::Durable;

/// The last segment of partition 0 with its content.
fn newest(disk: &MemoryDisk) -> (String, Vec<u8>) {
    let names = disk.names();
    let of_0 = |n: &&String| n.starts_with("log-00000000-");
    let used = names.iter().filter(of_0).filter(|n| {
        let content = disk.content(n).expect("it is there");
        content.iter().any(|&b| b != 0)
    });
    let name = used.max().expect("there is one").clone();
    let content = disk.content(&name).expect("it is there");
    (name, content)
}

/// Some acknowledged groups of partition 0 in its first segment, and no index behind them.
fn groups(marked: bool) -> Result<(MemoryDisk, History), Stop> {
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(1);
    let mut rig = Rig::open(&mut disk, DURABLE, &[])?;
    for n in 0..4u8 {
        rig.append(&mut history, 0, Some(&[n]), &[n; 700])?;
        rig.append(&mut history, 0, None, &[n; 900])?;
        rig.settle(&mut history)?;
    }
    if marked {
        rig.log.mark();
        rig.settle(&mut history)?;
    }
    drop(rig);
    Ok((disk.crash(|_| false), history))
}

/// Where batches end, counted from the first page on.
fn ends(content: &[u8]) -> Vec<(usize, u64)> {
    let mut at = ALIGN;
    let mut ends = vec![(at, 0)];
    while let Ok((len, head)) = peek(&content[at..], (content.len() - at) as u64) {
        at += len;
        ends.push((at, head.end()));
    }
    ends
}

/// A group that was not acknowledged, torn at every byte: whole batches before it stay, and nothing else appears.
#[test]
fn the_tail_is_cut_at_every_byte() {
    let (left, mut history) = groups(false).expect("nothing fails");
    let (name, content) = newest(&left);
    let ends = ends(&content);
    assert_eq!(ends.len(), 5, "four groups");
    let (from, before) = ends[3];
    let to = ends[4].0;
    history.acked = [before, 0];
    for cut in from..=to {
        // The rest is as it was allocated, or the file is that short.
        for zeros in [true, false] {
            let mut left = left.clone();
            left.damage(&name, |bytes| match zeros {
                true => bytes[cut..].fill(0),
                false => bytes.truncate(cut),
            });
            let found = recover(&mut left, DURABLE, &history, &format!("cut at {cut}"));
            let last = content[cut..to].iter().all(|&b| b == 0) && (zeros || cut == to);
            assert_eq!(
                found[0],
                if last { ends[4].1 } else { before },
                "cut at {cut}"
            );
        }
    }
}

fn flip(disk: &MemoryDisk, name: &str, at: usize) -> MemoryDisk {
    let mut damaged = disk.clone();
    damaged.damage(name, |bytes| bytes[at] ^= 1 << (at % 8));
    damaged
}

/// A whole batch that belongs elsewhere, as a misdirected write would leave it, is not the next one.
#[test]
fn a_batch_in_the_place_of_another() {
    let (mut left, history) = groups(false).expect("nothing fails");
    let (name, content) = newest(&left);
    let ends = ends(&content);
    let (from, to, tail) = (ends[0].0, ends[1].0, ends[4].0);
    left.damage(&name, |bytes| {
        bytes[tail..][..to - from].copy_from_slice(&content[from..to]);
    });
    let found = recover(&mut left, DURABLE, &history, "a batch twice");
    assert_eq!(found[0], ends[4].1);
}

/// Once an index stands behind it, every changed byte is an error that names the file, when it is opened or when it is read.
#[test]
fn every_byte_behind_an_index() {
    let (left, history) = groups(true).expect("nothing fails");
    let (name, content) = newest(&left);
    let (end, _) = ends(&content)[4];
    for at in 0..end {
        let mut damaged = flip(&left, &name, at);
        let mut settings = config(DURABLE);
        // The keys are not read, so that opening does not find it first.
        settings.dedup_records = if at % 2 == 0 { 0 } else { 40 };
        let error = Log::open(&mut damaged, settings, &[])
            .and_then(|log| read(&log, PlainBytes::new(&mut damaged), 0, 0))
            .map(|found| assert!(found != history.partitions[0] || found.is_empty()));
        match error {
            Err(StorageError::Damaged { file, .. }) => assert_eq!(file, name, "byte {at}"),
            other => panic!("byte {at} changed: {other:?}"),
        }
    }
}

/// Without one, every changed byte before the last group is known by what the last group says.
#[test]
fn every_byte_before_the_last_group() {
    let (left, _) = groups(false).expect("nothing fails");
    let (name, content) = newest(&left);
    let (end, _) = ends(&content)[3];
    for at in 0..end {
        let mut damaged = flip(&left, &name, at);
        match Log::open(&mut damaged, config(DURABLE), &[]) {
            Err(StorageError::Damaged { file, .. }) => assert_eq!(file, name, "byte {at}"),
            other => panic!("byte {at} changed: {other:?}"),
        }
    }
}

#[test]
fn files_that_are_gone_or_short() {
    let (left, _) = groups(true).expect("nothing fails");
    let (name, content) = newest(&left);
    let mut short = left.clone();
    short.damage(&name, |bytes| bytes.truncate(ends(&content)[4].0 - 1));
    let e = Log::open(&mut short, config(DURABLE), &[]).expect_err("short");
    assert_eq!(e.code(), "PLT-0505");
    let mut gone = left.clone();
    gone.call(Op::Remove { name }).expect("it was there");
    let e = Log::open(&mut gone, config(DURABLE), &[]).expect_err("gone");
    assert_eq!(e.code(), "PLT-0505");
    let mut no_index = left;
    for name in no_index.names() {
        if name.starts_with("manifest") {
            no_index.call(Op::Remove { name }).expect("it was there");
        }
    }
    let e = Log::open(&mut no_index, config(DURABLE), &[]).expect_err("no index");
    assert_eq!(e.code(), "PLT-0506");
}

/// Every byte of batch and index replaced by extremes, with checksums that hold where the format has one of its own: wrong, or harmless,
/// never a panic or a large allocation.
#[test]
fn hostile_lengths() {
    let (left, _) = groups(true).expect("nothing fails");
    let (_, content) = newest(&left);
    let (from, to) = (ALIGN, ends(&content)[1].0);
    let batch = &content[from..to];
    assert_eq!(
        Batch::decode(batch, LINEAGE)
            .expect("whole")
            .records()
            .count(),
        2
    );
    for at in 4..200 {
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut hostile = batch.to_vec();
            hostile[at..(at + 4).min(batch.len())].fill(byte);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&LINEAGE.0), &hostile[4..]);
            hostile[..4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(batch) = Batch::decode(&hostile, LINEAGE) {
                let records = batch.records().take(10_000);
                assert!(records.flatten().all(|r| r.record.value.len() <= to - from));
            }
        }
    }
    let mut left = left;
    let store_of = |left: &mut MemoryDisk| {
        let names = left.names();
        let manifest = names.iter().rfind(|n| n.starts_with("manifest-"));
        left.content(manifest.expect("there is one"))
            .expect("it is there")
    };
    let manifest = store_of(&mut left);
    let slot = manifest
        .windows(SECTION.len())
        .rposition(|w| w == SECTION.as_bytes());
    let section = &manifest[slot.expect("a section") + SECTION.len()..];
    let len = (1..section.len()).find(|&n| Index::decode(&section[..n]).is_ok());
    let section = &section[..len.expect("an index")];
    for at in 0..section.len() {
        assert!(Index::decode(&section[..at]).is_err(), "cut at {at}");
        for byte in [0, 1, 0x7f, 0x80, 0xff] {
            let mut hostile = section.to_vec();
            hostile[at..(at + 4).min(section.len())].fill(byte);
            let _ = Index::decode(&hostile); // whatever it says, it says it
        }
    }
}

/// A record whose bytes are a batch that claims to be durable is not believed: its sender does not know the lineage.
#[test]
fn records_that_look_like_batches() {
    let (other, _) = groups(false).expect("nothing fails");
    let (_, content) = newest(&other);
    let mut disk = FaultyDisk::new(MemoryDisk::new());
    let mut history = History::new(1);
    let mut settings = config(DURABLE);
    settings.lineage_if_new = Lineage([6; 16]);
    let log = Log::open(&mut disk, settings, &[]).expect("a new log");
    let mut rig = Rig {
        disk: &mut disk,
        log,
    };
    // Its page begins where one of this file does: header, key and fixed part are made up for.
    let (from, to) = (ends(&content)[3].0, ends(&content)[4].0);
    let mut value = vec![0; ALIGN - 56 - 12];
    value.extend(&content[from..to]);
    value.truncate((8 << 10) - 56 - 12);
    rig.append(&mut history, 0, None, &value).expect("taken");
    rig.settle(&mut history).expect("nothing fails");
    drop(rig);
    let mut left = disk.crash(|_| false);
    let (name, _) = newest(&left);
    left.damage(&name, |bytes| bytes[ALIGN + 100] ^= 1);
    history.acked = [0, 0];
    assert_eq!(recover(&mut left, DURABLE, &history, "torn"), [0, 0]);
}
