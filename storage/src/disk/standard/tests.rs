use super::*;
use crate::buffer::ALIGN;

fn folder(name: &str) -> PathBuf {
    let name = format!("pelton-disk-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&path); // left by a test that was killed
    path
}

/// The memory disk is the model: the same operations bring the same answers.
#[test]
fn as_the_memory_disk() {
    let path = folder("model");
    let mut real = StdDisk::blocking(&path).unwrap();
    let mut model = crate::MemoryDisk::new();
    let name = |n: &str| n.to_string();
    let page = |byte: u8, pages: usize| {
        let mut buffer = Buffer::with_capacity(0);
        buffer.extend(&vec![byte; pages * ALIGN]);
        buffer
    };
    let file = FileId(0);
    let open = |n: &str, mode| Op::Open {
        name: name(n),
        mode,
        direct: false,
    };
    let write = |offset, buffer| Op::Write {
        file,
        offset,
        buffer,
    };
    let read = |offset, pages| Op::Read {
        file,
        offset,
        buffer: Buffer::zeroed(pages * ALIGN),
    };
    let ops = [
        open("none", Mode::Read),
        open("a", Mode::Create),
        open("a", Mode::Create),
        write(0, page(1, 2)),
        write(3 * ALIGN as u64, page(2, 1)),
        read(0, 8),
        read(100 * ALIGN as u64, 1),
        Op::SyncData { file },
        Op::Truncate { file, len: 5000 },
        read(0, 2),
        Op::List,
        Op::Rename {
            from: name("a"),
            to: name("b"),
        },
        Op::Rename {
            from: name("a"),
            to: name("b"),
        },
        Op::SyncFolder,
        Op::List,
        open("b", Mode::Read),
        Op::Write {
            file: FileId(1),
            offset: 0,
            buffer: page(3, 1),
        },
        Op::Close { file },
        read(0, 1),
        Op::Remove { name: name("b") },
        Op::Remove { name: name("b") },
        Op::List,
    ];
    let mut failed = 0;
    for op in ops {
        let (a, b) = (real.call(op.clone()), model.call(op.clone()));
        match (a, b) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "{op:?}"),
            (Err(a), Err(b)) => {
                assert_eq!(a.buffer.is_some(), b.buffer.is_some(), "{op:?}");
                failed += 1;
            }
            (a, b) => panic!("{op:?}: {a:?} and {b:?}"),
        }
    }
    assert_eq!(failed, 6);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn direct_where_it_is_allowed_and_said_so() {
    let path = folder("direct");
    let mut disk = StdDisk::blocking(&path).unwrap();
    let op = Op::Open {
        name: "d".into(),
        mode: Mode::Create,
        direct: true,
    };
    let Ok(Done::Opened { file, direct, .. }) = disk.call(op) else {
        panic!("it opens");
    };
    let allocated = disk.call(Op::Allocate { file, len: 1 << 20 });
    if let Err(f) = &allocated {
        assert_eq!(f.error.kind, ErrorKind::Unsupported);
    }
    let mut buffer = Buffer::with_capacity(0);
    buffer.extend(&[7; 2 * ALIGN]);
    let op = Op::Write {
        file,
        offset: ALIGN as u64,
        buffer,
    };
    let written = disk.call(op).unwrap();
    assert!(matches!(written, Done::Written { .. }));
    let op = Op::Read {
        file,
        offset: 0,
        buffer: Buffer::zeroed(3 * ALIGN),
    };
    let Ok(Done::Filled { buffer, filled }) = disk.call(op) else {
        panic!("it reads");
    };
    assert_eq!(filled, 3 * ALIGN);
    assert!(buffer[..ALIGN].iter().all(|&b| b == 0) && buffer[ALIGN..].iter().all(|&b| b == 7));
    assert!(matches!(disk.call(Op::FreeSpace), Ok(Done::Free(n)) if n > 0));
    println!("direct: {direct}, allocated: {}", allocated.is_ok());
    fs::remove_dir_all(path).unwrap();
}

/// What was submitted is done before the disk is gone.
#[test]
fn dropping_finishes() {
    let path = folder("drop");
    let mut disk = StdDisk::blocking(&path).unwrap();
    for serial in 0..50 {
        let op = Op::Open {
            name: format!("f{serial}"),
            mode: Mode::Create,
            direct: false,
        };
        disk.submit(op, Ticket { owner: 0, serial }).unwrap();
    }
    drop(disk);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 50);
    fs::remove_dir_all(path).unwrap();
}

/// A disk that was made by one thread and is waited for by others.
#[test]
fn whoever_waits_is_woken() {
    let path = folder("waits");
    let mut disk = StdDisk::blocking(&path).unwrap();
    for round in 0..20 {
        let done = std::thread::spawn(move || {
            let op = Op::Open {
                name: format!("f{round}"),
                mode: Mode::Create,
                direct: false,
            };
            let opened = disk.call(op).is_ok();
            (disk, opened)
        });
        let opened;
        (disk, opened) = done.join().unwrap();
        assert!(opened);
    }
    drop(disk);
    fs::remove_dir_all(path).unwrap();
}
