//! What every disk must do, whatever it stands on: run on the disks of this crate, and by whoever writes another.
//!
//! The memory disk is the model. A disk that is tested serves an empty folder of its own, and nobody else uses it meanwhile.

use crate::buffer::{ALIGN, Buffer};
use crate::disk::{
    BlockingDisk, Completion, Done, Failure, FileId, Full, MemoryDisk, Mode, Op, Ticket,
};
use std::io::ErrorKind;

/// More operations than any disk takes at a time.
const MANY: u64 = 10_000;

fn open(name: &str, mode: Mode, direct: bool) -> Op {
    let name = name.into();
    Op::Open { name, mode, direct }
}

fn page(byte: u8, pages: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(pages * ALIGN);
    buffer.extend(&vec![byte; pages * ALIGN]);
    buffer
}

fn write(file: FileId, page_at: u64, buffer: Buffer) -> Op {
    Op::Write {
        file,
        offset: page_at * ALIGN as u64,
        buffer,
    }
}

fn read(file: FileId, page_at: u64, pages: usize) -> Op {
    Op::Read {
        file,
        offset: page_at * ALIGN as u64,
        buffer: Buffer::zeroed(pages * ALIGN),
    }
}

fn opened<D: BlockingDisk>(disk: &mut D, name: &str, direct: bool) -> FileId {
    match disk.call(open(name, Mode::Create, direct)) {
        Ok(Done::Opened { file, .. }) => file,
        other => panic!("'{name}' does not open: {other:?}"),
    }
}

/// Does an operation on both; they must agree. Whether it failed.
fn same<D: BlockingDisk>(disk: &mut D, model: &mut MemoryDisk, op: &Op) -> bool {
    match (disk.call(op.clone()), model.call(op.clone())) {
        (Ok(a), Ok(b)) => {
            assert_eq!(a, b, "{op:?}");
            false
        }
        (Err(a), Err(b)) => {
            assert_eq!(a.buffer.is_some(), b.buffer.is_some(), "{op:?}");
            true
        }
        (a, b) => panic!("{op:?}: {a:?} and {b:?}"),
    }
}

/// The same operations bring the same answers as on a memory disk, each once and those that fail too.
///
/// # Panics
/// They do not.
pub fn as_the_memory_disk<D: BlockingDisk>(disk: &mut D) {
    let mut model = MemoryDisk::new();
    let name = |n: &str| n.to_string();
    let rename = Op::Rename {
        from: name("a"),
        to: name("b"),
    };
    let file = FileId(0);
    let ops = [
        open("none", Mode::Read, false),
        open("a", Mode::Create, false),
        open("a", Mode::Create, false),
        write(file, 0, page(1, 2)),
        write(file, 3, page(2, 1)),
        write(file, 0, Buffer::with_capacity(0)),
        read(file, 0, 8),
        read(file, 0, 0),
        read(file, 100, 1),
        Op::SyncData { file },
        Op::Truncate { file, len: 5000 },
        read(file, 0, 2),
        Op::List,
        rename.clone(),
        rename,
        Op::SyncFolder,
        Op::List,
        open("b", Mode::Read, false),
        write(FileId(1), 0, page(3, 1)),
        Op::Close { file },
        read(file, 0, 1),
        write(file, 0, page(1, 1)),
        Op::SyncData { file },
        Op::Remove { name: name("b") },
        Op::Remove { name: name("b") },
        // A file lives as long as somebody has it open.
        read(FileId(1), 0, 2),
        Op::Close { file: FileId(1) },
        open("a/b", Mode::Create, false),
        open("..", Mode::Read, false),
        Op::List,
    ];
    let failed = ops.iter().filter(|op| same(disk, &mut model, op));
    assert_eq!(failed.count(), 10);
}

/// Drawn operations on a few files, buffered, bring the same answers as on a memory disk. `draw` gives any numbers.
///
/// # Panics
/// They do not.
pub fn as_the_memory_disk_drawn<D: BlockingDisk>(disk: &mut D, mut draw: impl FnMut() -> u64) {
    let mut model = MemoryDisk::new();
    let mut files = 0;
    for _ in 0..200 {
        let name = |n: u64| ["a", "b", "c"][(n % 3) as usize].to_string();
        let (a, b, at) = (draw(), draw(), draw() % 20);
        let file = FileId((draw() % (files + 1)) as u32);
        let op = match draw() % 16 {
            0..=2 => open(
                &name(a),
                [Mode::Read, Mode::Write, Mode::Create][(b % 3) as usize],
                false,
            ),
            3..=6 => write(file, at, page(b as u8, (a % 5) as usize)),
            7..=10 => read(file, at, (a % 9) as usize),
            11 => Op::SyncData { file },
            12 => Op::Close { file },
            13 => Op::Truncate {
                file,
                len: a % 50_000,
            },
            14 => Op::Rename {
                from: name(a),
                to: name(b),
            },
            _ => Op::Remove { name: name(a) },
        };
        let opens = matches!(op, Op::Open { .. });
        let failed = same(disk, &mut model, &op);
        files += u64::from(opens && !failed);
    }
    same(disk, &mut model, &Op::List);
    for file in 0..files {
        let file = FileId(file as u32);
        same(disk, &mut model, &Op::Close { file });
    }
}

/// Files are gone round the page cache where that is allowed, and the answer says whether they are. Whether they were.
///
/// # Panics
/// What was written is not what is read, or a file that takes no direct writes is said to be direct.
pub fn direct_where_allowed<D: BlockingDisk>(disk: &mut D) -> bool {
    let Ok(Done::Opened { file, direct, len }) = disk.call(open("d", Mode::Create, true)) else {
        panic!("it opens");
    };
    assert_eq!(len, 0);
    if let Err(f) = disk.call(Op::Allocate { file, len: 1 << 20 }) {
        assert_eq!(f.error.kind, ErrorKind::Unsupported);
    }
    // From a page to what a segment's writer hands down at a time.
    let written = disk.call(write(file, 1, page(7, 1)));
    assert_eq!(written, Ok(Done::Written { buffer: page(7, 1) }));
    let written = disk.call(write(file, 2, page(8, 32)));
    assert_eq!(
        written,
        Ok(Done::Written {
            buffer: page(8, 32)
        })
    );
    assert_eq!(disk.call(Op::SyncData { file }), Ok(Done::Nothing));
    let Ok(Done::Filled { buffer, filled }) = disk.call(read(file, 0, 34)) else {
        panic!("it reads");
    };
    assert_eq!(filled, 34 * ALIGN);
    let all = |pages: &[u8], byte| pages.iter().all(|&b| b == byte);
    assert!(all(&buffer[..ALIGN], 0) && all(&buffer[2 * ALIGN..], 8));
    assert!(all(&buffer[ALIGN..2 * ALIGN], 7));
    if direct {
        let mut odd = Buffer::with_capacity(100);
        odd.extend(&[1; 100]);
        let op = Op::Write {
            file,
            offset: 0,
            buffer: odd.clone(),
        };
        let refused = disk.call(op).unwrap_err();
        assert_eq!(refused.error.kind, ErrorKind::InvalidInput);
        assert_eq!(refused.buffer, Some(odd), "the buffer comes back");
    }
    assert!(matches!(disk.call(Op::FreeSpace), Ok(Done::Free(n)) if n > 0));
    assert_eq!(disk.call(Op::Close { file }), Ok(Done::Nothing));
    let again = disk.call(open("d", Mode::Read, direct)).unwrap();
    assert!(matches!(again, Done::Opened { len, .. } if len >= 34 * ALIGN as u64));
    direct
}

/// A bounded number of operations is taken at a time and the rest handed back whole; each that was taken completes once.
///
/// # Panics
/// It is otherwise.
pub fn bounded<D: BlockingDisk>(disk: &mut D) {
    let file = opened(disk, "many", false);
    let mut next = 0;
    for _ in 0..3 {
        let first = next;
        let refused = loop {
            assert!(next - first < MANY, "there is no bound");
            let op = write(file, next % 100, page(next as u8, 1));
            match disk.submit(
                op,
                Ticket {
                    owner: 3,
                    serial: next,
                },
            ) {
                Ok(()) => next += 1,
                Err(Full(op)) => break op,
            }
        };
        assert_eq!(refused, write(file, next % 100, page(next as u8, 1)));
        assert!(next > first, "nothing is taken");
        let mut serials: Vec<u64> = finished(disk, next - first)
            .into_iter()
            .map(|Completion { ticket, result }| {
                let buffer = page(ticket.serial as u8, 1);
                assert_eq!(result, Ok(Done::Written { buffer }));
                ticket.serial
            })
            .collect();
        serials.sort_unstable();
        assert!(serials.into_iter().eq(first..next), "each once");
    }
    // Whatever their order was: of two writes to a place under way together, any may be the last.
    let last = disk.call(read(file, 0, 1));
    assert!(matches!(last, Ok(Done::Filled { filled: ALIGN, .. })));
}

fn finished<D: BlockingDisk>(disk: &mut D, count: u64) -> Vec<Completion> {
    let mut completions = vec![];
    while (completions.len() as u64) < count {
        disk.wait().expect("the disk is there");
        disk.poll(&mut completions);
    }
    disk.poll(&mut completions);
    assert_eq!(completions.len() as u64, count, "none twice");
    completions
}

/// Operations on many files at a time, and failures among them, come back to those that they belong to.
///
/// # Panics
/// They do not.
pub fn each_to_its_own<D: BlockingDisk>(disk: &mut D) {
    let files: Vec<FileId> = (0..4)
        .map(|n| opened(disk, &format!("f{n}"), true))
        .collect();
    let stranger = FileId(1_000_000);
    for (n, &file) in files.iter().enumerate() {
        let serial = n as u64;
        let ops = [
            write(file, 0, page(n as u8 + 1, 2)),
            write(stranger, 0, page(n as u8 + 1, 1)),
            Op::SyncData { file: stranger },
        ];
        for (owner, op) in ops.into_iter().enumerate() {
            let ticket = Ticket {
                owner: owner as u32,
                serial,
            };
            disk.submit(op, ticket).expect("there is room");
        }
    }
    for Completion { ticket, result } in finished(disk, 12) {
        let byte = ticket.serial as u8 + 1;
        match (ticket.owner, result) {
            (0, Ok(Done::Written { buffer })) => assert_eq!(buffer, page(byte, 2)),
            (1, Err(Failure { buffer, .. })) => assert_eq!(buffer, Some(page(byte, 1))),
            (2, Err(Failure { buffer: None, .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    for (n, &file) in files.iter().enumerate() {
        let (buffer, filled) = (page(n as u8 + 1, 2), 2 * ALIGN);
        let read = disk.call(read(file, 0, 2));
        assert_eq!(read, Ok(Done::Filled { buffer, filled }));
    }
}
