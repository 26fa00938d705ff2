//! Bytes that nobody of ours wrote, given to everything that reads files: whatever they are, the answer is an error by name or content that
//! lies within them. Never a panic, an endless loop, or memory by a length that somebody claims.
//!
//! One body for each thing that is read; property tests and fuzzers call the same. Checksums would hide what lies behind them, so each
//! body takes the bytes as they are and then once more with their checksums made right.

use pelton_storage::format::block::{self, Block};
use pelton_storage::format::log::{self, Batch, Index, IndexPartition, IndexSegment, LogHeader};
use pelton_storage::format::manifest::{
    FILE_HEADER, FileHeader, MAGIC, MANIFEST, Manifest, SAVEPOINT,
};
use pelton_storage::format::segment::{self, SegmentHeader};
use pelton_storage::*;
use std::collections::BTreeMap;

/// Whose files the bytes are taken for: those of the golden folders.
pub const LINEAGE: Lineage = Lineage(*b"golden lineage 1");

const ID: SegmentId = SegmentId {
    attempt: 1,
    number: 0,
    shard: 0,
};

/// Damaged, missing or another version: what bytes can be.
const ERRORS: [&str; 8] = [
    "PLT-0503", "PLT-0504", "PLT-0505", "PLT-0506", "PLT-0510", "PLT-0511", "PLT-0515", "PLT-0516",
];

fn expected(error: &StorageError) {
    assert!(ERRORS.contains(&error.code()), "{error}");
}

/// A disk with one more file.
fn with_file(mut disk: MemoryDisk, name: &str, bytes: &[u8]) -> MemoryDisk {
    let (name, mode) = (name.to_string(), Mode::Create);
    let open = Op::Open {
        name: name.clone(),
        mode,
        direct: false,
    };
    disk.call(open).expect("a new name");
    disk.damage(&name, |content| content.extend_from_slice(bytes));
    disk
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A block, header included.
pub fn block(bytes: &[u8]) {
    one_block(bytes);
    let mut repaired = bytes.to_vec();
    if repaired.len() >= block::HEADER {
        let length = repaired.len() as u32;
        repaired[4..8].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&repaired[4..]);
        put_crc(&mut repaired, 0, crc);
        one_block(&repaired);
    }
}

fn one_block(bytes: &[u8]) {
    let left = bytes.len() as u64;
    if let Ok(len) = block::peek_len(bytes, left) {
        assert!(len as u64 <= left && len <= block::BLOCK_MAX);
    }
    let Ok(block) = Block::decode(bytes) else {
        return;
    };
    let (mut within, mut wrong) = (0, 0);
    for frame in block.frames() {
        assert_eq!(wrong, 0, "frames after a wrong one");
        match frame {
            Ok(frame) => within += frame.encoded_len(),
            Err(_) => wrong += 1,
        }
    }
    assert!(within + block::HEADER as u64 <= left, "frames lie within");
}

/// The file of a manifest or savepoint: alone, and as the only thing that says what a folder holds.
pub fn manifest(bytes: &[u8]) {
    for kind in [MANIFEST, SAVEPOINT] {
        one_record(kind, bytes);
    }
    let mut repaired = bytes.to_vec();
    for at in [0, FILE_HEADER] {
        if let Some(page) = repaired.get_mut(at..at + FILE_HEADER) {
            let crc = crc32c::crc32c(&page[..FILE_HEADER - 4]);
            put_crc(page, FILE_HEADER - 4, crc);
        }
    }
    for at in (0..repaired.len()).step_by(ALIGN) {
        repair_record(&mut repaired[at..]);
        for kind in [MANIFEST, SAVEPOINT] {
            one_record(kind, &repaired[at..]);
        }
    }
    for bytes in [bytes, &repaired] {
        let mut disk = with_file(MemoryDisk::new(), "manifest-00000000", bytes);
        let config = StoreConfig {
            owner: 0,
            retained: 1,
            lineage_if_new: LINEAGE,
            direct: true,
        };
        if let Err(e) = Store::open(&mut disk, config) {
            expected(&e);
        }
        let mut disk = with_file(MemoryDisk::new(), "savepoint", bytes);
        if let Err(e) = Savepoint::open(&mut disk, "here") {
            expected(&e);
        }
    }
}

fn repair_record(bytes: &mut [u8]) {
    let is_record = [MAGIC, SAVEPOINT.magic]
        .iter()
        .any(|m| bytes.starts_with(m));
    let Some(body) = bytes.get(12..16).filter(|_| is_record) else {
        return;
    };
    let body = u32::from_le_bytes(body.try_into().expect("four bytes")) as usize;
    if let Some(record) = bytes.get_mut(..body.saturating_add(32)) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..24]), &record[28..]);
        put_crc(record, 24, crc);
    }
}

fn one_record(kind: format::manifest::RecordKind, bytes: &[u8]) {
    if let Ok(header) = FileHeader::decode(bytes) {
        assert!(header.slot <= format::manifest::SLOT_MAX as u64);
    }
    let Ok((_, manifest)) = Manifest::decode(kind, bytes) else {
        return;
    };
    assert!(manifest.encoded_len() <= bytes.len() as u64);
    let mut room = manifest.checkpoints.capacity() * size_of::<Checkpoint>();
    for checkpoint in &manifest.checkpoints {
        room += checkpoint.segments.capacity() * size_of::<Extent>();
        for (name, section) in &checkpoint.sections {
            room += name.capacity() + section.capacity();
        }
    }
    assert!(room <= 4 * bytes.len(), "{room} bytes for {}", bytes.len());
    for section in manifest
        .checkpoints
        .iter()
        .flat_map(|c| c.sections.values())
    {
        one_index(section);
    }
}

/// The file of a segment that a checkpoint names, from its first byte to its last page.
pub fn snapshot(bytes: &[u8]) {
    let pages = bytes.len() / ALIGN * ALIGN;
    let bytes = &bytes[..pages];
    let mut repaired = Buffer::with_capacity(pages);
    let header = SegmentHeader {
        lineage: LINEAGE,
        id: ID,
        first_epoch: Epoch(1),
    };
    header.encode(&mut repaired);
    repaired.extend(bytes.get(segment::HEADER..).unwrap_or_default());
    let mut at = segment::HEADER;
    while let Ok(len) = block::peek_len(&repaired[at..], (repaired.len() - at) as u64) {
        let crc = crc32c::crc32c(&repaired[at + 4..at + len]);
        put_crc(&mut repaired, at, crc);
        at += len;
    }
    for bytes in [bytes, &repaired] {
        let mut disk = with_file(MemoryDisk::new(), &ID.file_name(), bytes);
        let extent = Extent {
            segment: ID,
            len: bytes.len() as u64,
        };
        let checkpoint = Checkpoint {
            epoch: Epoch(u64::MAX),
            segments: vec![extent],
            sections: BTreeMap::new(),
        };
        let source = PlainBytes::new(&mut disk);
        let reader = SnapshotReader::new(source, LINEAGE, &checkpoint, Filter::default());
        match reader.verify() {
            Ok(totals) => assert!(totals.bytes <= extent.len),
            // A segment without a page is none: no manifest says that, so it is the file that ends too early.
            Err(e) if bytes.is_empty() => assert_eq!(e.code(), "PLT-0502", "{e}"),
            Err(e) => expected(&e),
        }
    }
}

/// A segment of the ingest log that the index names and nobody closed; and the same bytes as the index and as a staged epoch.
pub fn log(bytes: &[u8]) {
    one_index(bytes);
    if let Ok(staged) = Staged::decode(bytes) {
        assert!(staged.ends.len() * 8 <= bytes.len());
    }
    one_batch(bytes);
    let mut repaired = Buffer::with_capacity(bytes.len());
    let header = LogHeader {
        lineage: LINEAGE,
        id: ID,
        base: 0,
    };
    header.encode(&mut repaired);
    repaired.extend(bytes.get(segment::HEADER..).unwrap_or_default());
    let mut at = segment::HEADER;
    while let Ok((len, _)) = log::peek(&repaired[at..], (repaired.len() - at) as u64) {
        let batch = &mut repaired[at..at + len];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&LINEAGE.0), &batch[4..]);
        put_crc(batch, 0, crc);
        one_batch(batch);
        at += len;
    }
    for bytes in [bytes, &repaired] {
        open_log(bytes);
    }
}

fn one_index(bytes: &[u8]) {
    if let Ok(index) = Index::decode(bytes) {
        let segments = index.partitions.iter().map(|p| p.segments.capacity());
        let segments = segments.sum::<usize>() * size_of::<IndexSegment>();
        let room = segments + index.partitions.capacity() * size_of::<IndexPartition>();
        assert!(room <= 4 * bytes.len(), "{room} bytes for {}", bytes.len());
        assert_eq!(index.encode(), bytes);
    }
}

fn one_batch(bytes: &[u8]) {
    if let Ok((len, _)) = log::peek(bytes, bytes.len() as u64) {
        assert!(len <= bytes.len() && len <= log::BATCH_MAX);
    }
    let Ok(batch) = Batch::decode(bytes, LINEAGE) else {
        return;
    };
    let records = batch.records().map_while(Result::ok);
    let within: u64 = records.map(|r| r.record.encoded_len()).sum();
    assert!(within + log::BATCH as u64 <= bytes.len() as u64);
}

/// A manifest file whose one record has an index that names the segment.
fn index_of_one() -> Vec<u8> {
    let index = Index {
        visibility: Visibility::Durable,
        committed: Epoch(0),
        partitions: vec![IndexPartition {
            visible: 0,
            segments: vec![IndexSegment {
                id: ID,
                open: true,
                base: 0,
                end: 0,
                len: 0,
                last_time: 0,
            }],
        }],
    };
    let manifest = Manifest {
        lineage: LINEAGE,
        attempt: 1,
        unused_from: Epoch(1),
        checkpoints: vec![Checkpoint {
            epoch: Epoch(0),
            segments: vec![],
            sections: BTreeMap::from([(log::SECTION.to_string(), index.encode())]),
        }],
    };
    let mut file = Buffer::with_capacity(0);
    FileHeader { slot: ALIGN as u64 }.encode(&mut file);
    for _ in 0..2 {
        manifest.encode(MANIFEST, 0, &mut file);
    }
    file.to_vec()
}

fn open_log(bytes: &[u8]) {
    let disk = with_file(MemoryDisk::new(), "manifest-00000000", &index_of_one());
    let mut disk = with_file(disk, &ID.log_file_name(), bytes);
    let config = LogConfig::new(0, 1, Visibility::Durable, LINEAGE);
    let log = match Log::open(&mut disk, config, &[]) {
        Ok(log) => log,
        Err(e) => return expected(&e),
    };
    let (partition, offset) = (0, log.start(0));
    let at = Position { partition, offset };
    let reader = log.reader(PlainBytes::new(&mut disk), at);
    let mut reader = reader.expect("what it says is there");
    let mut next = offset;
    loop {
        match reader.next_batch() {
            Ok(None) => break,
            Ok(Some(batch)) => {
                let records = batch.records().map_while(Result::ok);
                assert!(records.count() <= bytes.len() / log::RECORD);
                next = batch.head().end();
            }
            Err(e) => return expected(&e),
        }
    }
    assert_eq!(next, log.visible_end(0));
}
