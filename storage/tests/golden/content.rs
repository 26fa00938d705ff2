//! What the golden folders hold, and how they are made.

use pelton_storage::format::manifest::{MANIFEST, Manifest};
use pelton_storage::*;
use std::collections::BTreeMap;

pub const LINEAGE: Lineage = Lineage(*b"golden lineage 1");

/// Group and key to value.
pub type Map = BTreeMap<(u16, Vec<u8>), Vec<u8>>;

/// A folder.
pub struct Golden {
    pub name: &'static str,
    pub files: BTreeMap<String, Vec<u8>>,
}

pub fn store_config() -> StoreConfig {
    StoreConfig {
        owner: 9,
        retained: 2,
        lineage_if_new: LINEAGE,
        direct: true,
    }
}

pub fn log_config(visibility: Visibility) -> LogConfig {
    LogConfig {
        segment_bytes: 16 << 10,
        reserve_bytes: 0,
        batch_bytes: 8 << 10,
        buffers: 2,
        ..LogConfig::new(0, 2, visibility, LINEAGE)
    }
}

/// What an epoch changes: group, key, and a value or a tombstone.
fn changes(epoch: Epoch) -> Vec<(u16, Vec<u8>, Option<Vec<u8>>)> {
    let key = |n: u16| format!("key {n}").into_bytes();
    let entry = |n: u16, value: Option<Vec<u8>>| (n % 4, key(n), value);
    let numbers = 0..12u16;
    match epoch.0 {
        1 => numbers
            .map(|n| entry(n, Some(vec![n as u8; 3 * usize::from(n)])))
            .collect(),
        2 => numbers
            .filter(|n| n % 3 == 0)
            .map(|n| entry(n, (n % 2 == 0).then(|| b"changed".to_vec())))
            .collect(),
        _ => vec![
            entry(1, Some(vec![0xAB; 5000])),
            entry(2, Some(vec![])),
            entry(5, None),
            (3, vec![], Some(b"an empty key".to_vec())),
        ],
    }
}

/// What a checkpoint holds.
pub fn map(epoch: Epoch) -> Map {
    let mut map = Map::new();
    for (group, key, value) in (1..=epoch.0).flat_map(|e| changes(Epoch(e))) {
        match value {
            Some(value) => map.insert((group, key), value),
            None => map.remove(&(group, key)),
        };
    }
    map
}

pub fn sections(epoch: Epoch) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        ("empty".into(), vec![]),
        ("positions".into(), vec![epoch.0 as u8; 10]),
    ])
}

pub fn read<S: SegmentBytes>(mut reader: SnapshotReader<S>) -> Map {
    let mut map = Map::new();
    while let Some(block) = reader.next_block().expect("it reads") {
        assert_eq!(block.head.state, StateId(7));
        for frame in block.frames() {
            let frame = frame.expect("it is whole");
            let key = (block.head.group.0, frame.key.to_vec());
            match frame.value {
                Some(value) => map.insert(key, value.to_vec()),
                None => map.remove(&key),
            };
        }
    }
    map
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrote {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub arrived_us: i64,
}

/// The records of a partition.
pub fn records(partition: u32) -> Vec<Wrote> {
    let record = |n: u8| Wrote {
        key: (n.is_multiple_of(4)).then(|| vec![b'k', n, partition as u8]),
        value: match n {
            3 => vec![],
            9 => vec![0xCD; 6000],
            n => vec![n; 20 * usize::from(n)],
        },
        arrived_us: 1_700_000_000_000_000 + 1000 * i64::from(n),
    };
    (0..18).map(record).collect()
}

pub fn read_log(log: &Log, disk: &mut MemoryDisk, partition: u32) -> Vec<Wrote> {
    let at = Position {
        partition,
        offset: log.start(partition),
    };
    let mut reader = log.reader(PlainBytes::new(disk), at).expect("it is there");
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().expect("it reads") {
        for located in batch.records() {
            let located = located.expect("it is whole");
            found.push(Wrote {
                key: located.record.key.map(<[u8]>::to_vec),
                value: located.record.value.to_vec(),
                arrived_us: located.arrived_us,
            });
        }
    }
    found
}

/// The lineage of the newest record of a folder's manifest.
pub fn lineage(disk: &MemoryDisk) -> Option<Lineage> {
    let names = disk.names();
    let name = names.iter().rfind(|n| n.starts_with("manifest-"))?;
    let bytes = disk.content(name)?;
    let records = bytes.chunks(ALIGN);
    let records = records.filter_map(|page| Manifest::decode(MANIFEST, page).ok());
    let newest = records.max_by_key(|(sequence, _)| *sequence);
    newest.map(|(_, manifest)| manifest.lineage)
}

/// Makes every folder as it is in the source tree.
pub fn write() -> Vec<Golden> {
    let (mut store, checkpoint) = write_store();
    let mut savepoint = MemoryDisk::new();
    let reader = SnapshotReader::new(
        PlainBytes::new(&mut store),
        LINEAGE,
        &checkpoint,
        Filter::default(),
    );
    Savepoint::write(reader, LINEAGE, &checkpoint, &mut savepoint).expect("it is written");
    vec![
        golden("store", &store),
        golden("savepoint", &savepoint),
        golden("log", &write_log()),
        golden("output", &write_output().0),
    ]
}

/// The epoch that a checkpoint decided on and nobody committed.
pub fn staged() -> Staged {
    write_output().1
}

fn golden(name: &'static str, disk: &MemoryDisk) -> Golden {
    let content = |name: &String| disk.content(name).expect("it is listed");
    let names = disk.names().into_iter();
    let files = names.map(|name| (name.clone(), content(&name)));
    Golden {
        name,
        files: files.collect(),
    }
}

/// Three epochs by two shards, and opened again, which gives back what was allocated.
fn write_store() -> (MemoryDisk, Checkpoint) {
    let mut disk = MemoryDisk::new();
    let mut store = Store::open(&mut disk, store_config()).expect("a new store");
    let config = |owner| WriterConfig {
        segment_bytes: 32 << 10,
        chunk_bytes: 8 << 10,
        buffers: 2,
        block_bytes: 1 << 10,
        frame_bytes_max: 10 << 10,
        reserve_bytes: 0,
        direct: true,
        owner,
    };
    let mut writers = [0, 1].map(|shard| store.writer(shard, config(shard)));
    for _ in 0..3 {
        let epoch = store.begin_epoch().expect("numbers are left");
        for (group, key, value) in changes(epoch) {
            let head = BlockHead {
                epoch,
                state: StateId(7),
                group: KeyGroup(group),
            };
            let frame = Frame {
                epoch,
                key: &key,
                value: value.as_deref(),
            };
            let writer = usize::from(group % 2);
            while writers[writer].push(head, frame).is_err() {
                drive(&mut disk, &mut store, &mut writers);
            }
        }
        for writer in &mut writers {
            writer.seal(epoch).expect("not poisoned");
        }
        drive(&mut disk, &mut store, &mut writers);
        let sealed = writers.iter_mut().filter_map(SegmentWriter::take_sealed);
        let commit = Commit {
            epoch,
            sealed: sealed.collect(),
            retired: vec![],
            sections: sections(epoch),
        };
        assert_eq!(commit.sealed.len(), 2);
        store.commit(commit).expect("not poisoned");
        drive(&mut disk, &mut store, &mut writers);
        assert_eq!(store.take_committed(), Some(epoch));
    }
    drop((store, writers));
    disk.crash(|_| false);
    let store = Store::open(&mut disk, store_config()).expect("it opens again");
    let last = store.last().expect("committed").clone();
    disk.restart();
    (disk, last)
}

fn drive(disk: &mut MemoryDisk, store: &mut Store, writers: &mut [SegmentWriter; 2]) {
    let mut completions = Vec::new();
    for _ in 0..20 {
        writers.iter_mut().for_each(|w| w.step(disk));
        store.step(disk);
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            match completion.ticket.owner {
                9 => store.complete(completion).expect("nothing fails"),
                shard => writers[shard as usize].complete(completion),
            }
        }
    }
}

/// Appends records `from..to` to both partitions, groups of two.
fn append(disk: &mut MemoryDisk, log: &mut Log, from: usize, to: usize) {
    for n in from..to {
        for partition in 0..2 {
            let wrote = &records(partition)[n];
            let (key, value) = (wrote.key.as_deref(), &wrote.value[..]);
            let record = Record { key, value };
            while log.append(partition, record, wrote.arrived_us) == Err(Refused::Busy) {
                drive_log(disk, log);
            }
        }
        if n % 2 == 1 {
            drive_log(disk, log);
        }
    }
    drive_log(disk, log);
}

fn drive_log(disk: &mut MemoryDisk, log: &mut Log) {
    let mut completions = Vec::new();
    for _ in 0..20 {
        log.step(disk, i64::MAX);
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            log.complete(completion).expect("nothing fails");
        }
    }
}

fn write_log() -> MemoryDisk {
    let mut disk = MemoryDisk::new();
    let config = log_config(Visibility::Durable);
    let mut log = Log::open(&mut disk, config, &[]).expect("a new log");
    append(&mut disk, &mut log, 0, 10);
    log.mark();
    append(&mut disk, &mut log, 10, 18);
    assert_eq!([log.durable_end(0), log.durable_end(1)], [18, 18]);
    disk.crash(|_| false);
    disk
}

fn write_output() -> (MemoryDisk, Staged) {
    let mut disk = MemoryDisk::new();
    let config = log_config(Visibility::Committed);
    let mut log = Log::open(&mut disk, config, &[]).expect("a new log");
    let stage = |disk: &mut MemoryDisk, log: &mut Log, epoch, from, to| {
        append(disk, log, from, to);
        log.stage(epoch).expect("not poisoned");
        drive_log(disk, log);
        log.take_staged().expect("it is durable")
    };
    let first = stage(&mut disk, &mut log, Epoch(1), 0, 6);
    log.commit(&first).expect("not poisoned");
    drive_log(&mut disk, &mut log);
    let second = stage(&mut disk, &mut log, Epoch(2), 6, 12);
    append(&mut disk, &mut log, 12, 18);
    disk.crash(|_| false);
    (disk, second)
}
