use super::*;
use crate::conformance;
use proptest::collection::vec;
use proptest::prelude::*;

fn create(disk: &mut MemoryDisk, name: &str) -> FileId {
    let op = Op::Open {
        name: name.into(),
        mode: Mode::Create,
        direct: false,
    };
    match disk.call(op) {
        Ok(Done::Opened { file, .. }) => file,
        other => panic!("{other:?}"),
    }
}

fn write(disk: &mut MemoryDisk, file: FileId, offset: u64, bytes: &[u8]) {
    let mut buffer = Buffer::with_capacity(0);
    buffer.extend(bytes);
    let op = Op::Write {
        file,
        offset,
        buffer,
    };
    disk.call(op).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, u8, usize),
    Truncate(u64),
    Allocate(u64),
    Sync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..9000, any::<u8>(), 0usize..3000).prop_map(|(at, b, n)| Step::Write(at, b, n)),
        1 => (0u64..12_000).prop_map(Step::Truncate),
        1 => (0u64..12_000).prop_map(Step::Allocate),
        2 => Just(Step::Sync),
    ]
}

#[test]
fn as_disks_do() {
    conformance::bounded(&mut MemoryDisk::new());
    conformance::each_to_its_own(&mut MemoryDisk::new());
    conformance::direct_where_allowed(&mut MemoryDisk::new());
}

proptest! {
    /// Against plain vectors: what is read, and what a crash that keeps nothing or all leaves.
    #[test]
    fn as_plain_bytes(steps in vec(step(), 1..30)) {
        let mut disk = MemoryDisk::new();
        let file = create(&mut disk, "f");
        disk.call(Op::SyncFolder).unwrap();
        let (mut live, mut durable) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Write(at, byte, len) => {
                    write(&mut disk, file, at, &vec![byte; len]);
                    // Writing nothing makes no file longer, as with real ones (`conformance.rs`).
                    if len > 0 {
                        let end = at as usize + len;
                        live.resize(live.len().max(end), 0);
                        live[at as usize..end].fill(byte);
                    }
                }
                Step::Truncate(len) => {
                    disk.call(Op::Truncate { file, len }).unwrap();
                    live.resize(len as usize, 0);
                }
                Step::Allocate(len) => {
                    disk.call(Op::Allocate { file, len }).unwrap();
                    live.resize(live.len().max(len as usize), 0);
                }
                Step::Sync => {
                    disk.call(Op::SyncData { file }).unwrap();
                    durable = live.clone();
                }
            }
            prop_assert!(disk.content("f").unwrap() == live);
        }
        let mut none = disk.clone();
        none.crash(|_| false);
        prop_assert!(none.content("f").unwrap() == durable);
        disk.crash(|_| true);
        prop_assert!(disk.content("f").unwrap() == live);
    }
}

#[test]
fn a_name_survives_by_the_folders_sync_only() {
    let mut disk = MemoryDisk::new();
    let file = create(&mut disk, "a");
    write(&mut disk, file, 0, b"x");
    disk.call(Op::SyncData { file }).unwrap();
    let mut left = disk.clone();
    left.crash(|_| false);
    assert!(left.names().is_empty());
    disk.call(Op::SyncFolder).unwrap();
    disk.crash(|_| false);
    assert_eq!(disk.content("a").unwrap(), b"x");
}

/// A rename over a file, each unit kept or not: the name means one of the two files, whole.
#[test]
fn a_rename_is_whole() {
    let mut disk = MemoryDisk::new();
    let old = create(&mut disk, "name");
    write(&mut disk, old, 0, b"old");
    disk.call(Op::SyncData { file: old }).unwrap();
    disk.call(Op::SyncFolder).unwrap();
    let new = create(&mut disk, "name.new");
    write(&mut disk, new, 0, b"new");
    disk.call(Op::SyncData { file: new }).unwrap();
    let op = Op::Rename {
        from: "name.new".into(),
        to: "name".into(),
    };
    disk.call(op).unwrap();
    let units = disk.unsynced().len();
    assert_eq!(units, 2);
    for mask in 0..4u32 {
        let mut left = disk.clone();
        left.crash(|unit| mask >> unit & 1 == 1);
        let content = left.content("name").unwrap();
        let renamed = mask >> 1 & 1 == 1;
        assert_eq!(content, if renamed { b"new" } else { b"old" });
    }
}

#[test]
fn a_sector_each() {
    let mut disk = MemoryDisk::new();
    let file = create(&mut disk, "f");
    disk.call(Op::SyncFolder).unwrap();
    disk.call(Op::Truncate { file, len: 2048 }).unwrap();
    disk.call(Op::SyncData { file }).unwrap();
    write(&mut disk, file, 100, &[1; 1000]);
    let offset = |unit: &Unsynced| match unit {
        Unsynced::Sector { offset, .. } => *offset,
        other => panic!("{other:?}"),
    };
    let units: Vec<u64> = disk.unsynced().iter().map(offset).collect();
    assert_eq!(units, [0, 512, 1024]);
    disk.crash(|unit| unit == 1);
    let content = disk.content("f").unwrap();
    assert!(content[..512].iter().all(|&b| b == 0));
    assert!(content[512..1024].iter().all(|&b| b == 1));
    assert!(content[1024..].iter().all(|&b| b == 0));
}

#[test]
fn direct_files_take_whole_pages() {
    let mut disk = MemoryDisk::new();
    let op = Op::Open {
        name: "d".into(),
        mode: Mode::Create,
        direct: true,
    };
    let Ok(Done::Opened { file, direct, .. }) = disk.call(op) else {
        panic!("it opens");
    };
    assert!(direct);
    for (offset, len) in [(0, 100), (512, 4096)] {
        let buffer = Buffer::zeroed(len);
        let op = Op::Write {
            file,
            offset,
            buffer,
        };
        let failure = disk.call(op).unwrap_err();
        assert_eq!(failure.error.kind, ErrorKind::InvalidInput);
        assert_eq!(failure.buffer.unwrap().len(), len, "the buffer comes back");
    }
}
