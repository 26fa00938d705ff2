//! Real files: the helper thread, the lock, mapped segments, savepoints.

use crate::rig::{LINEAGE, Map, read_checkpoint, store_config, writer_config};
use pelton_storage::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("pelton-storage-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path); // left by a test that was killed
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes epochs of some entries each, one segment after another, and returns what they hold.
fn fill(folder: &Path, epochs: u64) -> (Map, u32) {
    let mut disk = StdDisk::blocking(folder).expect("a disk");
    let mut store = Store::open(&mut disk, store_config()).expect("it opens");
    let mut writer = store.writer(0, writer_config(0));
    let mut map = Map::new();
    let mut completions = Vec::new();
    let mut drive = |disk: &mut StdDisk, writer: &mut SegmentWriter, store: &mut Store| {
        writer.step(disk);
        store.step(disk);
        disk.wait().expect("the helper lives");
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            match completion.ticket.owner {
                0 => writer.complete(completion),
                _ => store.complete(completion).expect("it is written"),
            }
        }
        assert_eq!(writer.failure(), None);
    };
    for n in 0..epochs {
        let epoch = store.begin_epoch().expect("numbers are left");
        for k in 0..40u64 {
            let (key, value) = (k.to_le_bytes(), vec![n as u8; 300]);
            let head = BlockHead {
                epoch,
                state: StateId(k % 2),
                group: KeyGroup(k as u16 % 4),
            };
            let frame = Frame {
                epoch,
                key: &key,
                value: Some(&value),
            };
            while let Err(refused) = writer.push(head, frame) {
                assert_eq!(refused, Refused::Busy);
                drive(&mut disk, &mut writer, &mut store);
            }
            map.insert((k as u16 % 4, key.to_vec()), value);
        }
        writer.seal(epoch).expect("not poisoned");
        let sealed = loop {
            if let Some(sealed) = writer.take_sealed() {
                break sealed;
            }
            drive(&mut disk, &mut writer, &mut store);
        };
        let commit = Commit {
            epoch,
            sealed: vec![sealed],
            retired: vec![],
            sections: BTreeMap::from([("epoch".into(), vec![n as u8])]),
        };
        store.commit(commit).expect("not poisoned");
        while store.take_committed().is_none() {
            drive(&mut disk, &mut writer, &mut store);
        }
    }
    (map, writer.take_warnings().len() as u32)
}

#[test]
fn what_was_committed_is_read_again() {
    let folder = Folder::new("again");
    let (map, _) = fill(&folder.0, 6);
    let mut disk = StdDisk::blocking(&folder.0).expect("a disk");
    let store = Store::open(&mut disk, store_config()).expect("it opens");
    let last = store.last().expect("committed").clone();
    assert!(last.segments.len() > 2, "several segments");
    assert_eq!(last.sections["epoch"], [5]);
    let plain = read_checkpoint(PlainBytes::new(&mut disk), &last).expect("it reads");
    let mapped = read_checkpoint(MappedBytes::new(&folder.0), &last).expect("it maps");
    assert!(plain == map && mapped == map);
}

#[test]
fn readers_take_one_state_and_some_groups() {
    let folder = Folder::new("filter");
    fill(&folder.0, 1);
    let mut disk = StdDisk::blocking(&folder.0).expect("a disk");
    let store = Store::open(&mut disk, store_config()).expect("it opens");
    let last = store.last().expect("committed").clone();
    let filter = Filter {
        state: Some(StateId(1)),
        groups: Some(1..=1),
    };
    let mut reader = SnapshotReader::new(MappedBytes::new(&folder.0), LINEAGE, &last, filter);
    let mut frames = 0;
    while let Some(block) = reader.next_block().expect("it reads") {
        assert_eq!(
            (block.head.state, block.head.group),
            (StateId(1), KeyGroup(1))
        );
        frames += block.frames().count();
    }
    assert_eq!(frames, 10);
}

/// A mapped file that was cut is an error before it is touched, and damage in it is named.
#[test]
fn mapped_files_are_checked() {
    let folder = Folder::new("mapped");
    fill(&folder.0, 2);
    let mut disk = StdDisk::blocking(&folder.0).expect("a disk");
    let store = Store::open(&mut disk, store_config()).expect("it opens");
    let last = store.last().expect("committed").clone();
    let path = folder.0.join(last.segments[0].segment.file_name());
    let whole = std::fs::read(&path).expect("it is there");
    let mut bytes = whole.clone();
    bytes[5000] ^= 1;
    std::fs::write(&path, &bytes).expect("it is written");
    let e = read_checkpoint(MappedBytes::new(&folder.0), &last).expect_err("damaged");
    assert_eq!(e.code(), "PLT-0504");
    std::fs::write(&path, &whole[..whole.len() - 4096]).expect("it is written");
    let e = read_checkpoint(MappedBytes::new(&folder.0), &last).expect_err("cut");
    assert_eq!(e.code(), "PLT-0505");
    std::fs::remove_file(&path).expect("it was there");
    let e = read_checkpoint(MappedBytes::new(&folder.0), &last).expect_err("gone");
    assert_eq!(e.code(), "PLT-0505");
}

#[test]
fn a_folder_is_locked_once() {
    let folder = Folder::new("lock");
    let lock = FolderLock::acquire(&folder.0).expect("it is free");
    let e = FolderLock::acquire(&folder.0).expect_err("it is taken");
    let pid = format!("process {}", std::process::id());
    let told = e.to_string();
    assert!(told.contains(&pid), "{told}");
    assert!(told.contains(&folder.0.display().to_string()), "{told}");
    assert!(e.code() == "PLT-0501" && e.is_retryable());
    drop(lock);
    drop(FolderLock::acquire(&folder.0).expect("it is free again"));
}

#[test]
fn a_savepoint_needs_nothing_else() {
    let (folder, target) = (Folder::new("save-from"), Folder::new("save-to"));
    let (map, _) = fill(&folder.0, 4);
    let checkpoint = {
        let mut disk = StdDisk::blocking(&folder.0).expect("a disk");
        let store = Store::open(&mut disk, store_config()).expect("it opens");
        let last = store.last().expect("committed").clone();
        let source = MappedBytes::new(&folder.0);
        let reader = SnapshotReader::new(source, LINEAGE, &last, Filter::default());
        let mut to = StdDisk::blocking(&target.0).expect("a disk");
        let report = Savepoint::write(reader, LINEAGE, &last, &mut to).expect("it is written");
        assert!(report.blocks > 4 && report.bytes > 40_000, "{report:?}");
        last
    };
    drop(folder);
    let mut disk = StdDisk::blocking(&target.0).expect("a disk");
    let savepoint = Savepoint::open(&mut disk, "there").expect("it opens");
    assert_eq!(savepoint.checkpoint.sections, checkpoint.sections);
    assert_eq!(savepoint.checkpoint.epoch, checkpoint.epoch);
    let read = read_checkpoint(MappedBytes::new(&target.0), &savepoint.checkpoint);
    assert!(read.expect("it reads") == map);
    let reader = savepoint.reader(PlainBytes::new(&mut disk), Filter::default());
    assert_eq!(reader.verify().expect("it is whole").puts, 160);
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    fn refuses(disk: &mut impl BlockingDisk, mode: Mode) {
        for name in ["../x", "/tmp/x", "..", ".", "", "a/b", "../names/x"] {
            let op = Op::Open {
                name: name.into(),
                mode,
                direct: false,
            };
            let refused = disk.call(op).expect_err("refused");
            assert_eq!(
                refused.error.kind,
                std::io::ErrorKind::InvalidInput,
                "{name}"
            );
        }
    }
    let folder = Folder::new("names");
    refuses(
        &mut StdDisk::blocking(&folder.0).expect("a disk"),
        Mode::Create,
    );
    // What is read is there.
    std::fs::create_dir(folder.0.join("a")).expect("a folder");
    std::fs::write(folder.0.join("a/b"), b"b").expect("a file");
    refuses(&mut ReadDisk::new(&folder.0), Mode::Read);
}

/// More operations than the queue takes come back, and those that were taken complete.
#[test]
fn a_full_queue_hands_back() {
    let folder = Folder::new("queue");
    let mut disk = StdDisk::blocking(&folder.0).expect("a disk");
    let (mut taken, mut completions) = (0, Vec::new());
    while disk
        .submit(
            Op::SyncFolder,
            Ticket {
                owner: 0,
                serial: taken,
            },
        )
        .is_ok()
    {
        taken += 1;
        assert!(taken < 10_000, "the queue is bounded");
    }
    while completions.len() < taken as usize {
        disk.wait().expect("the helper lives");
        disk.poll(&mut completions);
    }
    let serials: Vec<u64> = completions.iter().map(|c| c.ticket.serial).collect();
    assert_eq!(serials, (0..taken).collect::<Vec<_>>());
}
