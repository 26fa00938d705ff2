//! The formats as they are for ever: files that an earlier build wrote, and what must be read from them.
//!
//! `1/` holds a folder of each kind as format 1 has it. They are never written again: a format that changes gets a new number and a
//! folder of its own beside them, and the folder of a version goes when it is no longer read (docs/format.md: N and N-1).
//! As long as a build writes a format it writes these very bytes; the test that says so is replaced with the version.

mod content;
mod versions;

use content::{Golden, LINEAGE, lineage};
use pelton_storage::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The folder of one golden folder.
fn folder(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1");
    root.join(name)
}

/// The files of a golden folder.
fn files(name: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let files = entries.map(|entry| {
        let entry = entry.expect("it is listed");
        let name = entry.file_name().into_string().expect("our own names");
        (name, std::fs::read(entry.path()).expect("it is readable"))
    });
    files.collect()
}

/// A disk that holds these files, durably.
fn disk(files: &BTreeMap<String, Vec<u8>>) -> MemoryDisk {
    let mut disk = MemoryDisk::new();
    for (name, bytes) in files {
        let (name, mode) = (name.clone(), Mode::Create);
        let open = Op::Open {
            name: name.clone(),
            mode,
            direct: false,
        };
        disk.call(open).expect("a new name");
        disk.damage(&name, |content| content.clone_from(bytes));
    }
    disk.call(Op::SyncFolder).expect("it syncs");
    disk.restart();
    disk
}

#[test]
fn the_store_of_format_1() {
    let mut disk = disk(&files("store"));
    let store = Store::open(&mut disk, content::store_config()).expect("it opens");
    assert_eq!(store.manifest().lineage, LINEAGE);
    let epochs: Vec<Epoch> = store
        .manifest()
        .checkpoints
        .iter()
        .map(|c| c.epoch)
        .collect();
    assert_eq!(epochs, [Epoch(2), Epoch(3)]);
    for checkpoint in &store.manifest().checkpoints {
        let epoch = checkpoint.epoch;
        assert_eq!(checkpoint.sections, content::sections(epoch));
        let source = PlainBytes::new(&mut disk);
        let reader = SnapshotReader::new(source, LINEAGE, checkpoint, Filter::default());
        assert!(
            content::read(reader) == content::map(epoch),
            "epoch {epoch}"
        );
    }
}

#[test]
fn the_savepoint_of_format_1() {
    let mut disk = disk(&files("savepoint"));
    let savepoint = Savepoint::open(&mut disk, "golden").expect("it opens");
    assert_eq!(savepoint.lineage, LINEAGE);
    assert_eq!(savepoint.checkpoint.epoch, Epoch(3));
    assert_eq!(savepoint.checkpoint.sections, content::sections(Epoch(3)));
    let reader = savepoint.reader(PlainBytes::new(&mut disk), Filter::default());
    assert!(content::read(reader) == content::map(Epoch(3)));
}

/// As a killed process left it: the last groups stand behind no index.
#[test]
fn the_ingest_log_of_format_1() {
    let mut disk = disk(&files("log"));
    let config = content::log_config(Visibility::Durable);
    let mut log = Log::open(&mut disk, config, &[]).expect("it opens");
    for partition in 0..2 {
        let wrote = content::records(partition);
        let found = content::read_log(&log, &mut disk, partition);
        assert!(found == wrote, "partition {partition}");
    }
    // The keys of the horizon are known again.
    let (offset, record) = (4, &content::records(0)[4]);
    let (key, value) = (record.key.as_deref(), &record.value[..]);
    assert!(key.is_some());
    let again = log
        .append(0, Record { key, value }, 0)
        .expect("it is taken");
    let partition = 0;
    assert_eq!(again, Appended::Duplicate(Position { partition, offset }));
}

/// A job's output: epoch 1 is committed, epoch 2 is staged and a checkpoint decided on it, what follows is cut.
#[test]
fn the_output_log_of_format_1() {
    let mut disk = disk(&files("output"));
    let staged = std::fs::read(folder("output-staged")).expect("it is there");
    let staged = Staged::decode(&staged).expect("it is whole");
    assert_eq!((staged.epoch, &staged.ends[..]), (Epoch(2), &[12, 12][..]));
    for (committables, end) in [(vec![staged], 12), (vec![], 6)] {
        let config = content::log_config(Visibility::Committed);
        let mut disk = disk.clone();
        let log = Log::open(&mut disk, config, &committables).expect("it opens");
        assert_eq!(log.committed(), Epoch(1 + committables.len() as u64));
        for partition in 0..2 {
            let found = content::read_log(&log, &mut disk, partition);
            assert!(found == content::records(partition)[..end]);
        }
    }
    disk.restart();
}

/// A byte that is written otherwise than in the golden files is another format, and wants another version.
#[test]
fn this_build_writes_format_1() {
    for Golden { name, files: wrote } in content::write() {
        let golden = files(name);
        assert!(
            golden.keys().eq(wrote.keys()),
            "{name}: {:?} and {:?}",
            golden.keys(),
            wrote.keys()
        );
        for (file, bytes) in &wrote {
            let (now, then) = (bytes, &golden[file]);
            let at = (0..now.len().max(then.len())).find(|&i| now.get(i) != then.get(i));
            assert_eq!(at, None, "{name}/{file}: the first byte that differs");
        }
    }
    let staged = std::fs::read(folder("output-staged")).expect("it is there");
    assert!(content::staged().encode() == staged);
}

/// Writes the folders anew where none is there: once a version.
#[test]
#[ignore = "writes files into the source tree"]
fn write_golden_folders() {
    for Golden { name, files } in content::write() {
        let folder = folder(name);
        assert!(!folder.exists(), "{name}: golden files are not replaced");
        std::fs::create_dir_all(&folder).expect("it is new");
        for (file, bytes) in files {
            std::fs::write(folder.join(file), bytes).expect("it is written");
        }
    }
    std::fs::write(folder("output-staged"), content::staged().encode()).expect("it is written");
    assert_eq!(lineage(&disk(&files("store"))), Some(LINEAGE));
}
