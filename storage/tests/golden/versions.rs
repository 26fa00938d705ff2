//! Files of the version after this one: each format refuses them by name, and says what it reads.

use crate::{content, disk, files};
use pelton_storage::format::manifest::{MAGIC, SAVEPOINT};
use pelton_storage::*;

/// Sets the version of the page at `at`, whose last four bytes are its checksum.
fn page(bytes: &mut [u8], at: usize, version: u32) {
    bytes[at + 8..at + 12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[at..at + 4092]);
    bytes[at + 4092..at + 4096].copy_from_slice(&crc.to_le_bytes());
}

/// Changes all whole records of a file and makes their checksums right again.
fn records(bytes: &mut [u8], magic: [u8; 8], change: impl Fn(&mut [u8])) {
    let mut changed = 0;
    for at in (0..bytes.len()).step_by(ALIGN) {
        if bytes[at..at + 8] != magic {
            continue;
        }
        let body = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().expect("four bytes"));
        let record = &mut bytes[at..at + 32 + body as usize];
        change(record);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..24]), &record[28..]);
        record[24..28].copy_from_slice(&crc.to_le_bytes());
        changed += 1;
    }
    assert!(changed > 0, "no record");
}

/// The golden folder with those of its files changed whose names begin so.
fn changed(folder: &str, prefix: &str, change: impl Fn(&mut Vec<u8>)) -> MemoryDisk {
    let mut files = files(folder);
    let of = files
        .iter_mut()
        .filter(|(name, _)| name.starts_with(prefix));
    let count = of.map(|(_, bytes)| change(bytes)).count();
    assert!(count > 0, "{folder} has no {prefix}");
    disk(&files)
}

fn refused(error: StorageError, format: &str, version: u32) {
    let message = error.to_string();
    assert_eq!(error.code(), "PLT-0503", "{message}");
    assert!(!error.is_retryable(), "{message}");
    let than = if version == 0 { "older" } else { "newer" };
    let expected = format!("{format} format {version} is {than} than this build reads (1 to 1)");
    assert!(message.contains(&expected), "{message}");
}

fn open_store(mut disk: MemoryDisk) -> StorageError {
    Store::open(&mut disk, content::store_config()).expect_err("refused")
}

fn open_log(mut disk: MemoryDisk) -> StorageError {
    let config = content::log_config(Visibility::Durable);
    Log::open(&mut disk, config, &[]).expect_err("refused")
}

const OTHERS: [u32; 3] = [0, 2, u32::MAX];

#[test]
fn another_segment() {
    for version in OTHERS {
        let mut disk = changed("store", "segment-", |bytes| page(bytes, 0, version));
        let store = Store::open(&mut disk, content::store_config()).expect("it opens");
        let last = store.last().expect("committed").clone();
        let source = PlainBytes::new(&mut disk);
        let mut reader = SnapshotReader::new(source, content::LINEAGE, &last, Filter::default());
        refused(
            reader.next_block().expect_err("refused"),
            "segment",
            version,
        );
    }
}

#[test]
fn another_manifest() {
    for version in OTHERS {
        let file = changed("store", "manifest-", |bytes| {
            page(bytes, 0, version);
            page(bytes, ALIGN, version);
        });
        refused(open_store(file), "manifest", version);
        let record = changed("store", "manifest-", |bytes| {
            records(bytes, MAGIC, |r| {
                r[8..12].copy_from_slice(&version.to_le_bytes());
            });
        });
        refused(open_store(record), "manifest", version);
    }
}

#[test]
fn another_savepoint() {
    for version in OTHERS {
        let mut disk = changed("savepoint", "savepoint", |bytes| {
            records(bytes, SAVEPOINT.magic, |r| {
                r[8..12].copy_from_slice(&version.to_le_bytes());
            });
        });
        let error = Savepoint::open(&mut disk, "golden").expect_err("refused");
        refused(error, "savepoint", version);
    }
}

#[test]
fn another_ingest_log() {
    for version in OTHERS {
        // A segment that is walked when the log is opened, and the index.
        let segment = changed("log", "log-", |bytes| page(bytes, 0, version));
        let config = content::log_config(Visibility::Durable);
        let mut disk = segment;
        let error = match Log::open(&mut disk, config, &[]) {
            Err(error) => error,
            Ok(log) => {
                let at = Position {
                    partition: 0,
                    offset: 0,
                };
                let mut reader = log.reader(PlainBytes::new(&mut disk), at).expect("there");
                reader.next_batch().expect_err("refused")
            }
        };
        refused(error, "ingest log", version);
        let index = changed("log", "manifest-", |bytes| {
            records(bytes, MAGIC, |record| {
                let name = b"ingest-log";
                let at = record.windows(name.len()).position(|w| w == name);
                if let Some(at) = at.map(|at| at + name.len()) {
                    record[at..at + 4].copy_from_slice(&version.to_le_bytes());
                }
            });
        });
        refused(open_log(index), "ingest log", version);
    }
}
